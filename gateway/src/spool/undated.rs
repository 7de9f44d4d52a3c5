//! Readings that wait for the clock: they were taken while nobody knew what time it was.
//!
//! ```text
//! <dir>/undated/             a spool of its own, which nothing is uploaded from
//! <dir>/undated/decision     how they are dated, and from which number of the spool on they are in it
//! <dir>/undated.moved/       the same, emptied; removed when it is met
//! ```
//!
//! They have no number of the spool yet, so that nothing waits behind them and what is sealed never changes.
//! Once it is known how they are dated, the decision is written and synced; then they are appended to the spool
//! in their order, before anything newer. A power cut half-way repeats it: the decision says which number
//! came before, so as many as the spool has past that are in it. The folder then changes its name, synced,
//! before anything newer is appended.
//!
//! Limits: an eighth of the spool's `max_bytes`; [`Undated::is_full`] at half of that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::Epoch;

use super::disk::Disk;
use super::{SealedKind, SealedObject, Spool, SpoolError, SpoolSettings};

const FOLDER: &str = "undated";
const MOVED: &str = "undated.moved";
const DECISION: &str = "undated/decision";

/// A disk that refuses is asked again after this.
const RETRY: Duration = Duration::from_secs(1);

/// Readings on disk that have no certain time yet.
#[derive(Debug)]
pub(crate) struct Undated {
    held: Spool,
    disk: Arc<dyn Disk>,
    max_bytes: u64,
}

/// How held readings are dated, and where they begin in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decision {
    /// The spool's epoch at that time.
    epoch: Epoch,
    /// The last number before the first of them.
    after_seq: i64,
    /// How far the clock was before the estimate; `None` where that never came out.
    offset_us: Option<i64>,
}

/// What dates a reading, where an offset is known and where none is.
pub(crate) type Date<'date> = &'date mut (dyn FnMut(Option<i64>, Reading) -> Reading + Send);

impl Undated {
    /// Whether a spool's folder holds some, from a run before.
    pub(crate) fn is_there(spool: &Spool) -> bool {
        let entries = spool.disk.list(Path::new("")).unwrap_or_default();
        entries.iter().any(|entry| entry.is_folder && entry.name == FOLDER)
    }

    /// Opens those of a spool, or begins. Blocks while it reads.
    pub(crate) fn open(spool: &Spool, settings: &SpoolSettings, clock: Clock) -> Result<Self, SpoolError> {
        let max_bytes = (settings.max_bytes / 8).max(super::MAX_BYTES_LEAST);
        let settings = SpoolSettings { dir: settings.dir.join(FOLDER), max_bytes, ..settings.clone() };
        if let Err(error) = spool.disk.remove_folder(Path::new(MOVED)) {
            tracing::warn!(%error, "cannot remove `{MOVED}` from the spool");
        }
        Ok(Self { held: Spool::open(settings, clock)?, disk: Arc::clone(&spool.disk), max_bytes })
    }

    /// Takes readings.
    pub(crate) async fn hold(&self, readings: Vec<Reading>) {
        self.held.append(readings).await;
    }

    /// Whether they take so much room that they must go on.
    pub(crate) fn is_full(&self) -> bool {
        self.held.status().bytes > self.max_bytes / 2
    }

    /// The newest time among them.
    pub(crate) fn newest_of_all_us(&self) -> Option<i64> {
        self.held.newest_of_all_us()
    }

    /// Syncs and closes; the next start finds them.
    pub(crate) async fn close(self) {
        self.held.close().await;
    }

    /// Moves them to the spool, dated with this offset or as an earlier run decided. Returns once they are
    /// there for good, or the spool is closed; while the disk refuses it waits.
    pub(crate) async fn release(self, spool: &Spool, offset_us: Option<i64>, date: Date<'_>) {
        if !sealed(&self.held).await || !synced(spool).await {
            return;
        }
        let Some(decision) = self.decide(spool, offset_us).await else { return };
        let synced_seq = spool.status().synced_seq;
        let is_same_epoch = spool.epoch() == decision.epoch;
        let moved = if is_same_epoch { synced_seq - decision.after_seq } else { 0 };
        let mut known = usize::try_from(moved).unwrap_or(0);
        let mut whole = true;
        for object in self.held.sealed().await.into_iter().filter(|object| object.kind == SealedKind::Batch) {
            let Some(mut readings) = self.read(&object).await else {
                whole = false;
                continue;
            };
            // What a run before brought there.
            let skipped = known.min(readings.len());
            known -= skipped;
            readings.drain(..skipped);
            let mut dated: Vec<Reading> =
                readings.into_iter().map(|reading| date(decision.offset_us, reading)).collect();
            if !is_same_epoch {
                // The numbers began anew, after damage: what is known of a sensor's times must do.
                dated.retain(|reading| spool.newest_time_us(&reading.sensor) < Some(reading.time_us));
            }
            spool.append(dated).await;
            if !synced(spool).await {
                return;
            }
        }
        self.held.close().await;
        if let Err(error) = leave(&*self.disk, whole) {
            tracing::warn!(%error, "cannot remove `{FOLDER}` from the spool; the next start will");
        }
    }

    /// The decision of an earlier run, or this one, on disk when this returns; `None` once the spool is closed.
    async fn decide(&self, spool: &Spool, offset_us: Option<i64>) -> Option<Decision> {
        if let Some(decision) = self.disk.read(Path::new(DECISION)).ok().and_then(|bytes| Decision::read(&bytes)) {
            return Some(decision);
        }
        let decision = Decision { epoch: spool.epoch(), after_seq: spool.status().synced_seq, offset_us };
        while let Err(error) = decision.write(&*self.disk) {
            tracing::error!(%error, "cannot write to the spool how undated readings are dated, trying again");
            if !another_try(spool).await {
                return None;
            }
        }
        Some(decision)
    }

    async fn read(&self, object: &SealedObject) -> Option<Vec<Reading>> {
        let bytes = self.held.bytes(object).await.map_err(|error| error.to_string());
        let read = bytes.and_then(|bytes| {
            batch::decode(&bytes).and_then(|batch| batch.readings()).map_err(|error| error.to_string())
        });
        read.map_err(|error| {
            tracing::error!(bounds = %object.bounds, error, "undated readings are damaged; a copy is under `kept`");
        })
        .ok()
    }
}

impl Decision {
    fn write(self, disk: &dyn Disk) -> io::Result<()> {
        let offset = self.offset_us.map_or_else(|| "none".to_owned(), |offset_us| offset_us.to_string());
        let staged = PathBuf::from(format!("{DECISION}.new"));
        disk.write(&staged, format!("1 {} {} {offset}\n", self.epoch, self.after_seq).as_bytes())?;
        disk.rename(&staged, Path::new(DECISION))?;
        disk.sync_folder(Path::new(FOLDER))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let mut words = line.split(' ');
        let ("1", epoch, after_seq, offset) = (words.next()?, words.next()?, words.next()?, words.next()?) else {
            return None;
        };
        let offset_us = if offset == "none" { None } else { Some(offset.parse().ok()?) };
        Some(Self { epoch: epoch.parse().ok()?, after_seq: after_seq.parse().ok()?, offset_us })
    }
}

/// Takes the emptied folder out of the next start's sight, for good; one that is damaged is kept.
fn leave(disk: &dyn Disk, whole: bool) -> io::Result<()> {
    let kept = PathBuf::from(format!("kept/{FOLDER}-{}", Epoch::random()));
    if !whole {
        disk.create_folder(Path::new("kept"))?;
    }
    disk.rename(Path::new(FOLDER), if whole { Path::new(MOVED) } else { &kept })?;
    disk.sync_folder(Path::new(""))?;
    if whole { disk.remove_folder(Path::new(MOVED)) } else { Ok(()) }
}

/// Waits until everything is synced. Not, where the spool is closed.
async fn synced(spool: &Spool) -> bool {
    while !spool.sync().await {
        if !another_try(spool).await {
            return false;
        }
    }
    true
}

/// Waits until everything is sealed. Not, where the spool is closed.
async fn sealed(spool: &Spool) -> bool {
    while !spool.seal().await {
        if !another_try(spool).await {
            return false;
        }
    }
    true
}

/// Waits before another try, unless there is nobody to ask.
async fn another_try(spool: &Spool) -> bool {
    if spool.commands.is_closed() {
        return false;
    }
    tokio::time::sleep(RETRY).await;
    true
}

impl Spool {
    /// The newest time of any reading that this spool ever took, as far as it is known.
    #[must_use]
    pub fn newest_of_all_us(&self) -> Option<i64> {
        super::locked(&self.newest).values().copied().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = super::super::disk::Folder::take(folder.path()).expect("taken");
        disk.create_folder(Path::new(FOLDER)).expect("created");
        for offset_us in [None, Some(-5), Some(i64::MAX)] {
            let decision = Decision { epoch: Epoch::random(), after_seq: 17, offset_us };
            decision.write(&disk).expect("written");
            assert_eq!(Decision::read(&disk.read(Path::new(DECISION)).expect("there")), Some(decision));
        }
        for bad in ["", "1", "1 x 3 none\n", "2 00000000000000000000000000000000 3 none\n", "1 0 3"] {
            assert_eq!(Decision::read(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
