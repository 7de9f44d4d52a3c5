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
//! before anything newer is appended. A disk that refuses keeps nobody waiting: a move is tried, and tried again;
//! until the decision is on disk other readings may pass, after that they must not.
//!
//! Limits: an eighth of the spool's `max_bytes`; [`Undated::is_full`] at half of that.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SensorId};

use super::actor::Command;
use super::core::Trouble;
use super::disk::{Disk, replace};
use super::{SealedKind, SealedObject, Spool, SpoolError, SpoolSettings};

const FOLDER: &str = "undated";
const MOVED: &str = "undated.moved";
const DECISION: &str = "undated/decision";

/// A batch that cannot be read so often, a second apart, is damaged: a disk that fails for a moment lost nothing.
const READ_ATTEMPTS: u32 = 30;

/// Readings on disk that have no certain time yet.
#[derive(Debug)]
pub(crate) struct Undated {
    held: Spool,
    disk: Arc<dyn Disk>,
    max_bytes: u64,
    /// Once it is on disk, or may be.
    decision: Option<Decision>,
    /// Whether it is certain that the decision has its name.
    is_written: bool,
    /// Once the first of them may have moved.
    moving: Option<Move>,
    trouble: Trouble,
}

/// How far a move has come.
#[derive(Debug, Clone, Copy)]
struct Move {
    decision: Decision,
    is_same_epoch: bool,
    /// So many of the next ones an earlier run brought there.
    known: usize,
    /// What is held up to this number needs no more.
    done_to: i64,
    /// So often the next batch could not be read.
    failures: u32,
    /// Nothing was damaged.
    whole: bool,
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
    /// Whether a spool's folder holds some, from a run before, or may: where the disk does not say so, none are begun beside them.
    pub(crate) fn is_there(spool: &Spool) -> bool {
        let entries = spool.disk.list(Path::new(""));
        entries.map_or(true, |entries| entries.iter().any(|entry| entry.is_folder && entry.name == FOLDER))
    }

    /// Opens those of a spool, or begins. Blocks while it reads.
    pub(crate) fn open(spool: &Spool, settings: &SpoolSettings, clock: Clock) -> Result<Self, SpoolError> {
        let max_bytes = (settings.max_bytes / 8).max(super::MAX_BYTES_LEAST);
        let settings = SpoolSettings { dir: settings.dir.join(FOLDER), max_bytes, ..settings.clone() };
        if let Err(error) = spool.disk.remove_folder(Path::new(MOVED)) {
            tracing::warn!(%error, "cannot remove `{MOVED}` from the spool");
        }
        let disk = Arc::clone(&spool.disk);
        // Without it they would be moved once more.
        let decision =
            Decision::find(&*disk).map_err(|source| SpoolError::Read { path: PathBuf::from(DECISION), source })?;
        // Where that is another's, nothing is begun in it.
        spool.disk.check().map_err(|source| SpoolError::Away { source })?;
        let held = spool.open_within(Path::new(FOLDER), settings, clock)?;
        Ok(Self { held, disk, max_bytes, decision, is_written: true, moving: None, trouble: Trouble::default() })
    }

    /// Takes readings.
    pub(crate) async fn hold(&self, readings: Vec<Reading>) {
        self.held.append(readings).await;
    }

    /// What is held from now on is measured under this configuration.
    pub(crate) async fn set_configuration(&self, sha256: String) {
        self.held.set_configuration(sha256).await;
    }

    /// Whether they take so much room that they must go on.
    pub(crate) fn is_full(&self) -> bool {
        self.held.status().bytes > self.max_bytes / 2
    }

    /// The newest time among them.
    pub(crate) fn newest_of_all_us(&self) -> Option<i64> {
        self.held.newest_of_all_us()
    }

    /// The newest time of each sensor among them.
    pub(crate) fn newest(&self) -> HashMap<SensorId, i64> {
        super::locked(&self.held.known).newest().map(|(sensor, time_us)| (sensor.clone(), time_us)).collect()
    }

    /// Whether the spool's numbers count how many of them moved: then nothing else may get one.
    pub(crate) const fn is_decided(&self) -> bool {
        self.decision.is_some()
    }

    /// Brings what is held to disk. Says whether it is there.
    #[cfg(test)]
    pub(crate) async fn sync(&self) -> bool {
        self.held.sync().await
    }

    /// How many of them an earlier run moved.
    #[cfg(test)]
    pub(crate) fn moved_before(&self, spool: &Spool) -> usize {
        self.decision.map_or(0, |decision| Move::begin(decision, spool).known)
    }

    /// Syncs and closes; the next start finds them.
    pub(crate) async fn close(self) {
        self.held.close().await;
    }

    /// Tries to move them to the spool, dated with this offset or as an earlier run decided. Says whether all
    /// are there for good; if not, the next try goes on where this one ended.
    pub(crate) async fn release(&mut self, spool: &Spool, offset_us: Option<i64>, date: Date<'_>) -> bool {
        match self.try_release(spool, offset_us, date).await {
            Ok(()) => self.trouble.ends("readings without a certain time are in the spool now"),
            Err(error) => {
                self.trouble.begins(&error, "readings without a certain time cannot be moved to the spool");
                return false;
            }
        }
        true
    }

    async fn try_release(&mut self, spool: &Spool, offset_us: Option<i64>, date: Date<'_>) -> io::Result<()> {
        if !self.held.seal().await {
            return Err(io::Error::other("they cannot be sealed"));
        }
        synced(spool).await?;
        let mut moving = match self.moving {
            Some(moving) => moving,
            None => Move::begin(self.decide(spool, offset_us).await?, spool),
        };
        let moved = self.go_on(&mut moving, spool, date).await;
        self.moving = Some(moving);
        moved
    }

    async fn go_on(&self, moving: &mut Move, spool: &Spool, date: Date<'_>) -> io::Result<()> {
        let objects = self.held.sealed().await;
        if self.held.commands.is_closed() {
            return Err(io::Error::other("their own spool has ended"));
        }
        for object in objects {
            if object.kind != SealedKind::Batch || object.bounds.last <= moving.done_to {
                continue;
            }
            let read = self.read(&object).await;
            if let Err(error) = &read
                && moving.failures + 1 < READ_ATTEMPTS
            {
                moving.failures += 1;
                return Err(io::Error::other(format!("some of them cannot be read: {error}")));
            }
            (moving.done_to, moving.failures) = (object.bounds.last, 0);
            let (mut readings, configuration) = match read {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!(bounds = %object.bounds, error, "undated readings are damaged; a copy is under `kept`");
                    moving.whole = false;
                    continue;
                }
            };
            // What a run before brought there.
            let skipped = moving.known.min(readings.len());
            moving.known -= skipped;
            readings.drain(..skipped);
            let offset_us = moving.decision.offset_us;
            let mut dated: Vec<Reading> = readings.into_iter().map(|reading| date(offset_us, reading)).collect();
            if !moving.is_same_epoch {
                // The numbers began anew, after damage: what is known of a sensor's times must do.
                dated.retain(|reading| spool.newest_time_us(&reading.sensor) < Some(reading.time_us));
            }
            // From here on the spool has them, if only in memory: another try must not bring them again.
            spool.append_measured(dated, configuration).await;
            synced(spool).await?;
        }
        Ok(())
    }

    /// Takes what was moved out of the next start's sight.
    pub(crate) async fn leave(self) {
        let whole = self.moving.is_none_or(|moving| moving.whole);
        self.held.close().await;
        let disk = Arc::clone(&self.disk);
        if let Err(error) = blocking(move || leave(&*disk, whole)).await {
            tracing::warn!(%error, "cannot remove `{FOLDER}` from the spool; the next start will");
        }
    }

    /// The decision of an earlier run or try, or this one, on disk when this returns.
    async fn decide(&mut self, spool: &Spool, offset_us: Option<i64>) -> io::Result<Decision> {
        let disk = Arc::clone(&self.disk);
        if let Some(decision) = self.decision.filter(|_| self.is_written) {
            return blocking(move || disk.sync_folder(Path::new(FOLDER)).map(|()| decision)).await;
        }
        let new = Decision { epoch: spool.epoch(), after_seq: spool.status().synced_seq, offset_us };
        let decision = self.decision.unwrap_or(new);
        let (written, there) = blocking(move || {
            let written = decision.write(&*disk);
            // After an error it may be there all the same, and the next start would go by it.
            let there = if written.is_ok() { Ok(Some(decision)) } else { Decision::find(&*disk) };
            Ok((written, there))
        })
        .await?;
        // Where the disk does not say whether it is there, nothing passes the held ones until it is written once more.
        self.is_written = there.is_ok();
        self.decision = there.unwrap_or(Some(decision));
        written.map(|()| decision)
    }

    /// The readings of a batch, and the configuration that they were measured under.
    async fn read(&self, object: &SealedObject) -> Result<(Vec<Reading>, Option<String>), String> {
        let bytes = self.held.bytes(object).await.map_err(|error| error.to_string())?;
        let batch = batch::decode(&bytes).map_err(|error| error.to_string())?;
        Ok((batch.readings().map_err(|error| error.to_string())?, batch.header.configuration))
    }
}

impl Move {
    /// How far an earlier run came with this, by the numbers of a spool that is synced.
    fn begin(decision: Decision, spool: &Spool) -> Self {
        let is_same_epoch = spool.epoch() == decision.epoch;
        let moved = if is_same_epoch { spool.status().synced_seq - decision.after_seq } else { 0 };
        Self {
            decision,
            is_same_epoch,
            known: usize::try_from(moved).unwrap_or(0),
            done_to: 0,
            failures: 0,
            whole: true,
        }
    }
}

impl Decision {
    /// The one that is on a spool's disk; none where it is not there, or says nothing.
    fn find(disk: &dyn Disk) -> io::Result<Option<Self>> {
        match disk.read(Path::new(DECISION)) {
            Ok(bytes) => Ok(Self::read(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(self, disk: &dyn Disk) -> io::Result<()> {
        let offset = self.offset_us.map_or_else(|| "none".to_owned(), |offset_us| offset_us.to_string());
        let line = format!("1 {} {} {offset}\n", self.epoch, self.after_seq);
        replace(disk, Path::new(DECISION), line.as_bytes())
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

/// Work on the disk, on a thread that nobody else waits for.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
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

/// Syncs everything.
async fn synced(spool: &Spool) -> io::Result<()> {
    if spool.sync().await { Ok(()) } else { Err(io::Error::other("the spool cannot be synced")) }
}

impl Spool {
    /// The newest time of any reading that this spool ever took, as far as it is known.
    #[must_use]
    pub fn newest_of_all_us(&self) -> Option<i64> {
        super::locked(&self.known).newest().map(|(_, time_us)| time_us).max()
    }

    /// From now on, over restarts too, times after this one that were appended before are no word about the clock: it was ahead.
    pub(crate) async fn distrust(&self, after_us: i64) {
        // A spool that is closed has no use for it.
        let _ = self.commands.send(Command::Distrust(after_us)).await;
    }

    /// The newest time on disk that nobody estimated, of these sensors.
    pub(crate) fn newest_sure_us(&self, of: impl Fn(&SensorId) -> bool) -> Option<i64> {
        super::locked(&self.known).sure_us(of)
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
