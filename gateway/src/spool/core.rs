//! The spool as a plain machine: what it does with readings, one call after the other.
//!
//! ```text
//! append ── pending (memory, bounded) ── write ── sync ── unsealed ── seal ── shelf ── the lake
//!              └ a number is given when written, and counts once synced
//! ```
//!
//! Invariants:
//! - `synced_seq` is the last number that is on disk; only readings up to it are sealed.
//! - `log.marked_to` <= `sealed_to` <= `synced_seq`; files past `marked_to` are not offered to the lake.
//! - A reading gets its number when it is written, and keeps it once that is synced: what is dropped from
//!   memory never had one that anybody knows.
//! - A call never panics and never ends the process for an error of the disk: readings stay in memory, at
//!   most [`PENDING_MAX`], the oldest go first and are counted, and the next call tries again.

mod leaving;
mod sealing;
mod writing;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tjern_readings::batch::Encoder;
use tjern_readings::clock::Clock;
use tjern_readings::keys::Bounds;
use tjern_readings::rows::Rows;
use tjern_readings::sensor::Epoch;
use tokio::sync::oneshot;

use super::confirms::Confirms;
use super::disk::{Away, Disk};
use super::fresh::Fresh;
use super::known_sensors::KnownSensors;
use super::log::Log;
use super::measured::Measured;
use super::shelf::Shelf;
use super::{Claim, SpoolSettings, SpoolStatus};
pub(crate) use sealing::encode;

/// The most readings that wait in memory while the disk refuses them.
pub(crate) const PENDING_MAX: usize = 100_000;

/// So many unsynced readings are synced without waiting for `sync_every`: a batch.
const SYNC_READINGS: usize = SEAL_ROWS;

/// The most rows of a sealed batch: some megabytes at the very most, so that the file stays below
/// `batch::SIZE_MAX`, and memory stays small. Reached, a batch is sealed without waiting.
pub(crate) const SEAL_ROWS: usize = 20_000;

/// The most readings that are kept in memory for sealing while sealing fails.
pub(crate) const UNSEALED_MAX: usize = 10 * SEAL_ROWS;

/// A part of what is on disk and not yet sealed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Piece {
    /// Readings, numbered from `first_seq` on.
    Readings { first_seq: i64, readings: Rows },
    /// Numbers whose records were damaged.
    Gap(Bounds),
}

/// A kind of trouble with the disk, said once when it begins and once when it is over.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// What it is, while it lasts.
    said: Option<String>,
    /// Whether it is the folder that is away, which is over once that is back.
    is_away: bool,
}

impl Trouble {
    pub(crate) fn begins(&mut self, error: &io::Error, what: &str) {
        if self.said.is_none() {
            let hint = hint(error).map_or_else(String::new, |hint| format!("hint: {hint} "));
            tracing::error!(%error, "{what}; {hint}polling goes on, and this is tried again");
        }
        let hint = hint(error).map_or_else(String::new, |hint| format!("; hint: {hint}"));
        self.said = Some(format!("{error}{hint}"));
        self.is_away = Away::is(error);
    }

    /// What it is, while it lasts.
    pub(crate) fn said(&self) -> Option<&String> {
        self.said.as_ref()
    }

    pub(crate) fn ends(&mut self, what: &str) {
        self.is_away = false;
        if self.said.take().is_some() {
            tracing::info!("{what}");
        }
    }
}

/// What may help against an error of the disk, where the error does not say so itself.
fn hint(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    if Away::is(error) {
        return None;
    }
    Some(match error.kind() {
        PermissionDenied => "may the gateway's user write there? `tjern-gateway doctor` says where not.",
        StorageFull | QuotaExceeded => {
            "make room on the disk, also of inodes (`df -h`, `df -i`), or raise `max_bytes`."
        }
        ReadOnlyFilesystem => "the disk is mounted read only: is it failing?",
        _ => "is the disk failing?",
    })
}

/// The spool's state. See the module's head for its invariants.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) settings: SpoolSettings,
    pub(crate) clock: Clock,
    pub(crate) log: Log,
    pub(crate) shelf: Shelf,
    /// Readings that are not synced; the first `written` of them are in the segment.
    pub(crate) pending: Rows,
    pub(crate) written: usize,
    /// Who waits for the word that readings are on disk.
    pub(crate) confirms: Confirms,
    /// [`PENDING_MAX`], but for tests.
    pub(crate) pending_max: usize,
    pub(crate) synced_seq: i64,
    pub(crate) unsealed: VecDeque<Piece>,
    /// Under which configuration that and what is pending was measured.
    pub(crate) measured: Measured,
    pub(crate) encoder: Encoder,
    pub(crate) sealed_to: i64,
    /// What this run gives out itself, in an epoch that it did not begin.
    pub(crate) claim: Option<Claim>,
    /// No batch is sealed that is larger, but for one of a single reading.
    pub(crate) batch_bytes: u64,
    /// The bounds of a batch whose file could not be finished. It may have got its name: the next attempt
    /// must make the same file.
    pub(crate) attempted: Option<Bounds>,
    /// The sensors and their newest times; shared with the spool's handles.
    pub(crate) known: Arc<Mutex<KnownSensors>>,
    /// What was sealed lately.
    pub(crate) fresh: Fresh,
    /// The folder could not be read so far, in so many attempts.
    pub(crate) recovery_due: Option<u32>,
    /// The epoch must be finished before anything is written; these segments are the reason.
    pub(crate) finish_due: bool,
    /// Former epochs of which the disk refused the word that they are finished, with their last numbers.
    pub(crate) close_due: Vec<(Epoch, i64)>,
    pub(crate) damaged_segments: Vec<std::path::PathBuf>,
    /// A takeover whose folders are not yet as they should be.
    pub(crate) takeover_due: bool,
    pub(crate) writing: Trouble,
    pub(crate) sealing: Trouble,
    pub(crate) dropped_readings: u64,
    /// Of these, how many went from memory since that began; it is over once everything is on disk again.
    pub(crate) dropped_from_memory: u64,
    pub(crate) dropped_batches: u64,
    pub(crate) taken_readings: usize,
    /// Objects for which the lake has no place.
    pub(crate) set_aside_objects: u64,
    pub(crate) torn_tails: u64,
    pub(crate) bad_records: u64,
}

impl Core {
    /// Takes readings and writes them; they get their numbers in this order.
    #[cfg(test)]
    pub(crate) fn append(&mut self, readings: impl Into<Rows>) {
        self.take(readings.into());
        self.write_taken();
    }

    /// Takes readings, to be written with those that come with them.
    pub(crate) fn take(&mut self, readings: Rows) {
        self.confirms.take(readings.len());
        self.taken_readings += readings.len();
        self.pending.append(readings);
    }

    /// Takes readings that were measured under another configuration than the one in force.
    pub(crate) fn take_measured(&mut self, readings: Rows, configuration: Option<&str>) {
        self.measured.begin(self.next_seq(), configuration);
        self.take(readings);
        self.measured.begin(self.next_seq(), self.settings.configuration.as_deref());
    }

    /// What comes from now on is measured under this configuration.
    pub(crate) fn set_configuration(&mut self, sha256: String) {
        self.measured.begin(self.next_seq(), Some(&sha256));
        self.settings.configuration = Some(sha256);
    }

    /// The number that the reading gets which is taken next.
    fn next_seq(&self) -> i64 {
        self.synced_seq + 1 + count(self.pending.len())
    }

    /// Writes what was taken.
    pub(crate) fn write_taken(&mut self) {
        if self.writing.said().is_none() {
            self.try_writing();
        }
        if self.written >= SYNC_READINGS {
            self.sync();
        }
        self.forget_oldest();
    }

    /// Answers once everything that was taken so far is on disk; never, where that will not be known.
    pub(crate) fn confirm(&mut self, reply: oneshot::Sender<()>) {
        self.confirms.ask(reply);
        self.confirms.answer(self.pending.len());
    }

    /// Whether readings wait for a sync.
    pub(crate) fn has_unsynced(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the disk refuses readings at present.
    pub(crate) fn in_trouble(&self) -> bool {
        self.writing.said().is_some()
    }

    /// Brings everything that was appended to disk. Says whether it is there.
    pub(crate) fn sync(&mut self) -> bool {
        let had_readings = self.has_unsynced();
        let synced = self.try_writing() && self.try_committing();
        // A disk that took nothing yet, since nothing came, may refuse the first reading.
        if synced && (had_readings || self.writing.is_away) {
            self.writing.ends(if had_readings {
                "the spool writes again"
            } else {
                "the spool's folder is there again"
            });
            match std::mem::take(&mut self.dropped_from_memory) {
                0 => {}
                count => tracing::error!(
                    count,
                    "readings were lost from memory while the disk refused them; they have no numbers, and no gap"
                ),
            }
        }
        if self.unsealed_rows() >= SEAL_ROWS || self.log.bytes() > self.settings.max_bytes / 4 {
            self.seal_synced();
        }
        synced
    }

    /// Times after this one were told by a clock that was ahead: they are no word about what time it is, at the next start neither.
    pub(crate) fn distrust(&mut self, after_us: i64) {
        let is_synced = self.sync();
        let is_news = super::locked(&self.known).distrust(after_us);
        if is_news && is_synced {
            // A segment says at its beginning what is known of the newest times. Where this one cannot be made the next one does.
            let begun = self.begin_segment();
            drop(self.or_leave_segment(begun));
        }
    }

    /// Seals everything that was appended. Says whether all of it is on disk and sealed.
    pub(crate) fn seal(&mut self) -> bool {
        let synced = self.sync();
        self.seal_synced() && synced
    }

    /// How many readings are on disk and in no sealed file.
    pub(crate) fn unsealed_rows(&self) -> usize {
        let rows = |piece: &Piece| match piece {
            Piece::Readings { readings, .. } => readings.len(),
            Piece::Gap(_) => 0,
        };
        self.unsealed.iter().map(rows).sum()
    }

    /// The time of the reading that waits longest for sealing.
    fn oldest_unsealed_us(&self) -> Option<i64> {
        let first = |piece: &Piece| match piece {
            Piece::Readings { readings, .. } => readings.spans().first(1).times_us(),
            Piece::Gap(_) => None,
        };
        self.unsealed.iter().find_map(first).map(|(time_us, _)| time_us)
    }

    /// What the spool has to say of itself.
    pub(crate) fn status(&self) -> SpoolStatus {
        SpoolStatus {
            epoch: self.log.epoch,
            next_seq: self.synced_seq + 1 + count(self.written),
            synced_seq: self.synced_seq,
            sealed_seq: self.sealed_to,
            bytes: self.log.bytes() + self.shelf.bytes(),
            sealed_count: self.shelf.objects.len(),
            unsealed_readings: self.unsealed_rows(),
            unsynced_readings: self.pending.len(),
            taken_readings: self.taken_readings,
            dropped_readings: self.dropped_readings,
            dropped_batches: self.dropped_batches,
            set_aside_objects: self.set_aside_objects,
            torn_tails: self.torn_tails,
            bad_records: self.bad_records,
            in_trouble: self.in_trouble(),
            writing_trouble: self.writing.said().cloned(),
            sealing_trouble: self.sealing.said().cloned(),
            overdue_us: self.sealing.said().and_then(|_| self.oldest_unsealed_us()),
            claim: self.claim,
            is_unread: self.recovery_due.is_some(),
            written: self.disk.written(),
        }
    }
}

/// A count of readings as a difference of numbers.
pub(crate) fn count(readings: usize) -> i64 {
    i64::try_from(readings).expect("what is in memory is fewer than 2⁶³")
}
