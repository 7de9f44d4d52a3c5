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

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tjern_readings::batch::{self, Encoder};
use tjern_readings::clock::Clock;
use tjern_readings::keys::Bounds;
use tjern_readings::reading::Reading;
use tjern_readings::rows::{Rows, Spans};
use tjern_readings::sensor::Epoch;
use tokio::sync::oneshot;

use super::confirms::Confirms;
use super::disk::Disk;
use super::fresh::Fresh;
use super::kept;
use super::known_sensors::KnownSensors;
use super::log::Log;
use super::record;
use super::sealed::{self, SealedKind, SealedObject};
use super::shelf::{Shelf, on_disk};
use super::{Claim, SpoolSettings, SpoolStatus, locked};

/// The most readings that wait in memory while the disk refuses them.
pub(crate) const PENDING_MAX: usize = 100_000;

/// So many unsynced readings are synced without waiting for `sync_every`: a batch.
const SYNC_READINGS: usize = SEAL_ROWS;

/// Records are written together up to about so many bytes.
const WRITE_BYTES: usize = 32 << 10;

/// The most rows of a sealed batch: some megabytes at the very most, so that the file stays below
/// [`batch::SIZE_MAX`], and memory stays small. Reached, a batch is sealed without waiting.
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
pub(crate) struct Trouble(Option<String>);

impl Trouble {
    pub(crate) fn begins(&mut self, error: &io::Error, what: &str) {
        if self.0.is_none() {
            tracing::error!(%error, "{what}; hint: is the disk full, or failing? polling goes on, and this is tried again");
        }
        self.0 = Some(error.to_string());
    }

    pub(crate) fn ends(&mut self, what: &str) {
        if self.0.take().is_some() {
            tracing::info!("{what}");
        }
    }
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
        self.pending.append(readings);
    }

    /// Writes what was taken.
    pub(crate) fn write_taken(&mut self) {
        if self.writing.0.is_none() {
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
        self.writing.0.is_some()
    }

    /// Brings everything that was appended to disk. Says whether it is there.
    pub(crate) fn sync(&mut self) -> bool {
        let had_readings = self.has_unsynced();
        let synced = self.try_writing() && self.try_committing();
        // A disk that took nothing yet, since nothing came, may refuse the first reading.
        if synced && had_readings {
            self.writing.ends("the spool writes again");
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

    /// Seals everything that was appended. Says whether all of it is on disk and sealed.
    pub(crate) fn seal(&mut self) -> bool {
        let synced = self.sync();
        self.seal_synced() && synced
    }

    /// What may go to the lake, oldest first.
    pub(crate) fn offered(&self) -> Vec<SealedObject> {
        if self.log.undecided {
            return Vec::new();
        }
        self.shelf.offered(self.log.epoch, self.log.marked_to).cloned().collect()
    }

    /// Takes an object away that the lake has. The last of an epoch that is still to be closed stays until the word of
    /// that is on disk: after the next start nobody would know of the epoch any more. Says whether it is away.
    pub(crate) fn remove(&mut self, object: &SealedObject) -> bool {
        let is_due = self.close_due.iter().any(|(epoch, _)| *epoch == object.epoch);
        if is_due && self.shelf.of(object.epoch).count() == 1 && self.close_due_epochs().is_err() {
            return false;
        }
        self.shelf.remove(object);
        true
    }

    /// Puts a gap in the place of a batch whose file is damaged.
    pub(crate) fn give_up(&mut self, object: &SealedObject) {
        if self.takeover_due || !self.shelf.objects.contains(object) {
            // The file may be well, and its folder not have its name yet; or it went to make room.
            return;
        }
        let bytes = sealed::read(&*self.disk, object);
        // A disk that failed for a moment is none that lost the batch.
        if bytes.as_ref().is_ok_and(|bytes| batch::decode(bytes).is_ok()) {
            return;
        }
        if let Ok(bytes) = bytes
            && let Err(error) = kept::keep(&*self.disk, &self.kept_name(object), &bytes)
        {
            tracing::warn!(bounds = %object.bounds, %error, "cannot keep a copy of a damaged batch");
        }
        match self.shelf.replace_with_gap(object, "damaged", self.clock.now_us()) {
            Ok(()) => self.bad_records += 1,
            Err(error) => self.sealing.begins(&error, "cannot put a gap in the place of a damaged batch"),
        }
    }

    /// Takes an object off the shelf for which the lake has no place, once a copy is kept. Where none can be, the
    /// file stays where it is and is not offered again by this run: nothing waits for it, and it is the first to go
    /// when room is needed.
    pub(crate) fn set_aside(&mut self, object: &SealedObject) {
        if !self.shelf.objects.contains(object) {
            return;
        }
        self.set_aside_objects += 1;
        let bytes = sealed::read(&*self.disk, object);
        match bytes.and_then(|bytes| kept::keep(&*self.disk, &self.kept_name(object), &bytes)) {
            Ok(()) => self.shelf.remove(object),
            Err(error) => {
                tracing::error!(path = %object.path().display(), %error, "no copy of it can be kept: the file stays where it is, and the next start tries again");
                self.shelf.withdraw(object);
            }
        }
    }

    fn kept_name(&self, object: &SealedObject) -> String {
        format!("{}-{}", self.clock.now_us(), sealed::file_name(object.kind, object.bounds))
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
            dropped_readings: self.dropped_readings,
            dropped_batches: self.dropped_batches,
            set_aside_objects: self.set_aside_objects,
            torn_tails: self.torn_tails,
            bad_records: self.bad_records,
            in_trouble: self.in_trouble(),
            sealing_trouble: self.sealing.0.clone(),
            overdue_us: self.sealing.0.as_ref().and_then(|_| self.oldest_unsealed_us()),
            claim: self.claim,
            is_unread: self.recovery_due.is_some(),
            written: self.disk.written(),
        }
    }

    fn try_writing(&mut self) -> bool {
        let result = self.write_pending();
        self.or_leave_segment(result).is_ok()
    }

    fn try_committing(&mut self) -> bool {
        let result = self.commit();
        self.or_leave_segment(result).is_ok()
    }

    /// After an error nothing is known of what was not synced: it is written anew, elsewhere.
    fn or_leave_segment(&mut self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result {
            self.log.leave(self.synced_seq);
            self.written = 0;
            self.writing.begins(error, "the spool cannot write; readings wait in memory");
        }
        result
    }

    fn write_pending(&mut self) -> io::Result<()> {
        self.recover_if_due()?;
        if self.finish_due {
            self.finish_epoch()?;
        }
        while self.written < self.pending.len() {
            if self.write_records()? == 0 {
                self.begin_segment()?;
            }
        }
        Ok(())
    }

    /// Writes as many records as one write takes and the segment has room for, and says how many readings they hold.
    fn write_records(&mut self) -> io::Result<usize> {
        let mut rest = self.pending.spans();
        rest.advance(self.written);
        let (mut records, mut taken) = (Vec::with_capacity(room_bytes(rest.len())), 0);
        let mut known = locked(&self.known);
        while !rest.is_empty() && records.len() < WRITE_BYTES {
            let (whole, first_seq) = (records.len(), self.synced_seq + 1 + count(self.written + taken));
            let more = record::encode_next(&mut records, first_seq, &mut rest, &mut known);
            if !self.log.has_room(records.len()) {
                records.truncate(whole);
                break;
            }
            taken += more;
        }
        drop(known);
        if taken > 0 {
            self.log.write(&records)?;
            self.written += taken;
        }
        Ok(taken)
    }

    /// Syncs what was written; from then on it counts.
    fn commit(&mut self) -> io::Result<()> {
        if self.written == 0 {
            return Ok(());
        }
        self.log.sync()?;
        let first_seq = self.synced_seq + 1;
        self.synced_seq += count(self.written);
        let synced = self.pending.take_first(self.written);
        self.written = 0;
        locked(&self.known).note_all_synced(synced.spans());
        self.confirms.answer(self.pending.len());
        self.add_unsealed(first_seq, synced);
        Ok(())
    }

    /// What is on disk, numbered from `first_seq` on, waits for sealing.
    pub(crate) fn add_unsealed(&mut self, first_seq: i64, more: Rows) {
        match self.unsealed.back_mut() {
            Some(Piece::Readings { readings, .. }) => readings.append(more),
            _ => self.unsealed.push_back(Piece::Readings { first_seq, readings: more }),
        }
    }

    /// Begins the next segment, within the bound on the whole spool.
    pub(crate) fn begin_segment(&mut self) -> io::Result<()> {
        if self.finish_due {
            return self.finish_epoch();
        }
        self.commit()?;
        if self.unsealed_rows() >= UNSEALED_MAX {
            return Err(io::Error::other("too many readings wait for sealing, which fails"));
        }
        // The next segment says what is sealed, which frees those that hold nothing else: for that the bound may
        // be passed for a moment.
        let freed = self.log.freed_by_next(self.synced_seq, self.sealed_to);
        let length = self.log.next_length(&mut locked(&self.known));
        if !self.make_room(length, freed)? && self.log.marked_to == self.sealed_to {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the spool has reached its `max_bytes`"));
        }
        self.log.begin_segment(self.synced_seq + 1, self.sealed_to, &self.known)?;
        self.log.remove_sealed();
        Ok(())
    }

    /// Drops the oldest sealed batches until so many bytes fit once others are freed. Says whether they do.
    fn make_room(&mut self, bytes: u64, freed: u64) -> io::Result<bool> {
        while self.log.bytes() - freed + self.shelf.bytes() + bytes > self.settings.max_bytes {
            if let Some(withdrawn) = self.shelf.drop_withdrawn()? {
                self.dropped_batches += u64::from(withdrawn.kind == SealedKind::Batch);
                if withdrawn.kind == SealedKind::Batch {
                    self.dropped_readings += withdrawn.bounds.count().unsigned_abs();
                }
                tracing::error!(path = %withdrawn.path().display(), "the spool is full: what the lake has no place for was dropped");
                continue;
            }
            let is_batch = |object: &&SealedObject| object.kind == SealedKind::Batch;
            let oldest = self.shelf.offered(self.log.epoch, self.log.marked_to).find(is_batch).cloned();
            let Some(batch) = oldest else { return Ok(false) };
            self.shelf.replace_with_gap(&batch, "spool_full", self.clock.now_us())?;
            self.dropped_batches += 1;
            self.dropped_readings += batch.bounds.count().unsigned_abs();
            tracing::error!(bounds = %batch.bounds, "the spool is full: its oldest batch was dropped, a gap says so; hint: raise `max_bytes`, or look why nothing is uploaded");
        }
        Ok(true)
    }

    fn forget_oldest(&mut self) {
        let surplus = (self.pending.len() - self.written).saturating_sub(self.pending_max);
        if surplus > 0 {
            if self.dropped_from_memory == 0 {
                let max = self.pending_max;
                tracing::error!(
                    max,
                    "memory is full too while the disk refuses readings: the oldest are lost from now on; hint: free the disk, or replace it"
                );
            }
            let written = self.pending.take_first(self.written);
            drop(self.pending.take_first(surplus));
            let kept = std::mem::replace(&mut self.pending, written);
            self.pending.append(kept);
            self.confirms.lose();
            self.dropped_readings += surplus as u64;
            self.dropped_from_memory += surplus as u64;
        }
    }

    pub(crate) fn seal_synced(&mut self) -> bool {
        if self.recovery_due.is_some() {
            return false;
        }
        let result = self.complete_renewal().and_then(|()| self.seal_pieces()).and_then(|()| self.mark());
        let result = result.and_then(|()| self.close_due_epochs());
        match &result {
            Ok(()) => self.sealing.ends("the spool seals again"),
            Err(error) => self.sealing.begins(error, "the spool cannot seal a batch"),
        }
        result.is_ok()
    }

    /// Writes a sealed file for everything that is synced.
    pub(crate) fn seal_pieces(&mut self) -> io::Result<()> {
        while let Some(piece) = self.unsealed.pop_front() {
            let sealed = match &piece {
                Piece::Gap(bounds) => self.seal_gap(*bounds).map(|()| 0),
                Piece::Readings { first_seq, readings } => self.seal_rows(*first_seq, readings),
            };
            match (sealed, piece) {
                (Ok(_), Piece::Gap(_)) => {}
                (Ok(rows), Piece::Readings { first_seq, mut readings }) => {
                    drop(readings.take_first(rows));
                    if !readings.is_empty() {
                        self.unsealed.push_front(Piece::Readings { first_seq: first_seq + count(rows), readings });
                    }
                }
                (Err(error), piece) => {
                    self.unsealed.push_front(piece);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn seal_gap(&mut self, bounds: Bounds) -> io::Result<()> {
        let text = sealed::gap_text(bounds, "bad_record", self.clock.now_us());
        self.shelf.add(self.log.epoch, bounds, SealedKind::Gap, text.as_bytes())?;
        self.sealed_to = bounds.last;
        Ok(())
    }

    /// Seals the first rows, and says how many.
    fn seal_rows(&mut self, first_seq: i64, readings: &Rows) -> io::Result<usize> {
        let attempted = self.attempted.filter(|bounds| bounds.first == first_seq).map(|bounds| bounds.count());
        // What an earlier run left is sealed for itself: the same in each copy of this folder.
        let left = self.claim.filter(|claim| claim.epoch == self.log.epoch).map(|claim| claim.first_seq - first_seq);
        let left = left.filter(|rows| *rows > 0);
        let most = attempted.or(left).and_then(|rows| usize::try_from(rows).ok()).unwrap_or(readings.len());
        let readings = readings.spans().first(most);
        let (settings, epoch) = (&self.settings, self.log.epoch);
        let encoder = &mut self.encoder;
        let (rows, bytes) = encode_within(self.batch_bytes, settings, epoch, first_seq, &readings, encoder)?;
        // Where nothing can go, sealing is what makes room in the end.
        self.make_room(on_disk(bytes.len() as u64), 0)?;
        let bounds = Bounds { first: first_seq, last: first_seq + count(rows) - 1 };
        self.attempted = Some(bounds);
        self.shelf.add(self.log.epoch, bounds, SealedKind::Batch, &bytes)?;
        if let Some(times_us) = readings.first(rows).times_us() {
            self.fresh.add(self.log.epoch, bounds, &bytes, times_us);
        }
        self.attempted = None;
        self.sealed_to = bounds.last;
        Ok(rows)
    }

    /// Says on disk what is sealed, after which it may leave.
    fn mark(&mut self) -> io::Result<()> {
        if self.log.marked_to < self.sealed_to || self.log.undecided {
            let marked = match self.log.has_room(record::SEALED_BYTES) {
                true => self.log.mark(self.synced_seq + 1 + count(self.written), self.sealed_to),
                false => self.begin_segment(),
            };
            self.or_leave_segment(marked)?;
        }
        self.log.remove_sealed();
        Ok(())
    }
}

/// Encodes as many of the first rows as one batch file may hold.
pub(crate) fn encode(
    settings: &SpoolSettings,
    epoch: Epoch,
    first_seq: i64,
    readings: &[Reading],
) -> io::Result<(usize, Vec<u8>)> {
    encode_within(batch::SIZE_MAX, settings, epoch, first_seq, &readings.into(), &mut Encoder::default())
}

/// Encodes as many of the first rows as a file of so many bytes may hold.
fn encode_within(
    bytes_max: u64,
    settings: &SpoolSettings,
    epoch: Epoch,
    first_seq: i64,
    readings: &Spans<'_>,
    encoder: &mut Encoder,
) -> io::Result<(usize, Vec<u8>)> {
    let mut rows = readings.len().min(SEAL_ROWS);
    loop {
        let configuration = settings.configuration.as_deref();
        let encoded = encoder.bytes(&settings.source, epoch, first_seq, readings.clone().first(rows), configuration);
        let bytes = encoded.map_err(io::Error::other)?;
        if bytes.len() as u64 <= bytes_max.min(batch::SIZE_MAX) || rows == 1 {
            return Ok((rows, Vec::from(bytes)));
        }
        rows /= 2;
    }
}

/// About what the records of so many readings take, and one write at most.
const fn room_bytes(readings: usize) -> usize {
    let (bytes, most) = (readings * 16 + 64, WRITE_BYTES + record::READINGS_MAX * 16);
    if bytes < most { bytes } else { most }
}

/// A count of readings as a difference of numbers.
pub(crate) fn count(readings: usize) -> i64 {
    i64::try_from(readings).expect("what is in memory is fewer than 2⁶³")
}
