//! The spool: readings wait here, on disk, until the lake has them.
//!
//! A reading is **acknowledged** when its record is synced: every `sync_every`, and at once where nothing
//! was synced in that time. Batches are **sealed** from synced records only, and never change after that;
//! a sealed object leaves when the lake has it, or, where the spool is full, when a gap takes its place.
//!
//! ```text
//! <dir>/lock                               held by the process that has the spool
//! <dir>/<first_seq>.segment                the log: preallocated, records with a CRC each
//! <dir>/sealed/<epoch>/<first>-<last>.arrow, .gap, <last>.closed
//! <dir>/kept/                              copies of what was damaged
//! ```
//!
//! The bytes, what is assumed of the disk, and what each fault does: `docs/spool-format.md`. There is no
//! ledger beside the data: what is sealed, and the newest time of each sensor, are records of the log.
//!
//! Invariants: a number of an epoch is used once; batches and gaps of an epoch cover its numbers without
//! a hole or an overlap; opening fails only where the folder is not ours to have, or another process has it;
//! an error of the disk ends nothing; one module (`disk`) touches files, one task (`actor`) owns them.
//! Limits: `actor::QUEUE_MAX` commands wait, `core::PENDING_MAX` readings are held in memory while the
//! disk refuses, `core::SEAL_ROWS` rows make a batch.

mod actor;
mod confirms;
mod core;
mod desk;
mod disk;
mod fresh;
mod kept;
mod known_lists;
mod known_sensors;
mod log;
mod look;
mod measured;
mod probe;
mod record;
mod recovery;
mod renew;
mod salvage;
mod sealed;
mod segment;
mod shelf;
mod survey;
mod undated;
mod verify;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use tjern_readings::clock::Clock;
use tjern_readings::reading::Reading;
use tjern_readings::rows::Rows;
use tjern_readings::sensor::{Epoch, SensorId, SourceName};

pub use disk::Written;
pub(crate) use disk::{Disk, Folder, LOCK, replace};
pub use look::{Finding, SegmentLook, SpoolLook};
pub(crate) use probe::SpoolProbe;
pub(crate) use recovery::MAX_BYTES_LEAST;
pub(crate) use sealed::is_gap_text;
pub use sealed::{SealedKind, SealedObject};
pub(crate) use undated::Undated;

use actor::Command;
use disk::{Away, TakeError};
use fresh::Fresh;
use known_sensors::KnownSensors;

/// How much a spool may hold: `max_bytes`, and no more than this share of the file system that its folder is
/// on, taken and free space together. Where the system does not say how large that is, `max_bytes`.
#[must_use]
pub fn bounded(dir: &Path, max_bytes: u64, max_disk_share: f64) -> u64 {
    let Ok(capacity) = disk::capacity_bytes(dir) else { return max_bytes };
    max_bytes.min((capacity as f64 * max_disk_share) as u64).max(MAX_BYTES_LEAST)
}

/// Where a spool lies and how it behaves.
#[derive(Debug, Clone)]
pub struct SpoolSettings {
    /// Its folder; created where it is missing.
    pub dir: PathBuf,
    /// The most that its segments and sealed files may take. Less than 1 MiB counts as 1 MiB.
    pub max_bytes: u64,
    /// How long a reading may wait for its sync.
    pub sync_every: Duration,
    /// Who sends the readings.
    pub source: SourceName,
    /// The SHA-256 (hex) of the configuration, as batches name it.
    pub configuration: Option<String>,
}

/// The numbers that a run gives out itself, in an epoch that an earlier run began: a copy of the spool would give out the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The epoch.
    pub epoch: Epoch,
    /// The first of them; no batch has numbers on both sides of it.
    pub first_seq: i64,
    /// What only this run knows: random.
    pub run: Epoch,
}

impl Claim {
    /// Whether an object has numbers that this run gave out.
    #[must_use]
    pub fn covers(&self, object: &SealedObject) -> bool {
        object.epoch == self.epoch && object.kind != SealedKind::Closed && object.bounds.last >= self.first_seq
    }
}

/// What a spool has to say of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolStatus {
    /// The current epoch.
    pub epoch: Epoch,
    /// The number that the next reading gets.
    pub next_seq: i64,
    /// The last number that is on disk.
    pub synced_seq: i64,
    /// The last number that is in a sealed object, waiting or gone.
    pub sealed_seq: i64,
    /// What segments and sealed files take of the disk.
    pub bytes: u64,
    /// Sealed objects that wait for the lake.
    pub sealed_count: usize,
    /// Readings on disk that are not sealed.
    pub unsealed_readings: usize,
    /// Readings that were handed in and of which nobody knows yet that they are on disk.
    pub unsynced_readings: usize,
    /// Readings that were taken since the start.
    pub taken_readings: usize,
    /// Readings that were lost for want of room, in memory or on disk, since the start.
    pub dropped_readings: u64,
    /// Sealed batches whose place a gap took because the spool was full, since the start.
    pub dropped_batches: u64,
    /// Sealed objects for which the lake has no place, since the start: a copy is kept, or the file stays.
    pub set_aside_objects: u64,
    /// Segments that were found with a torn tail at the start.
    pub torn_tails: u64,
    /// Damaged records and files that were found.
    pub bad_records: u64,
    /// Whether the disk refuses readings at present.
    pub in_trouble: bool,
    /// Why, and what may help.
    pub writing_trouble: Option<String>,
    /// Why batches cannot be written at present, though readings can.
    pub sealing_trouble: Option<String>,
    /// While that is so, the time of the oldest reading that is on disk and in no batch: it should be in one by now.
    pub overdue_us: Option<i64>,
    /// What this run has to claim before it sends numbers of its own, where an earlier one began the epoch.
    pub claim: Option<Claim>,
    /// Whether the folder could not be read so far: what waits in it is not known, nor its epoch.
    pub is_unread: bool,
    /// What was written to the disk since the start.
    pub written: Written,
}

/// Why a spool cannot be opened, or a sealed object not be read.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error(
        "the spool `{path}` is in use by another process; hint: is this gateway running already? two gateways need two spools"
    )]
    Locked {
        /// The spool's folder.
        path: PathBuf,
    },
    /// The folder cannot be had.
    #[error("cannot use the spool's folder `{path}`: {source}; hint: create it, or give this user the right to")]
    Folder {
        /// The spool's folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file in it that says who has it cannot be had.
    #[error(
        "cannot lock the spool by `{path}`: {source}; hint: whose is this file? give this user the right to write it"
    )]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder is not there at present, or another has its name.
    #[error("{source}")]
    Away {
        /// Which of both, and what to do.
        source: std::io::Error,
    },
    /// A sealed object cannot be read.
    #[error("cannot read `{path}` in the spool: {source}; hint: is the disk failing?")]
    Read {
        /// The file, relative to the spool's folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A spool that is open. Clones share it; the last one that goes ends it, after a sync.
#[derive(Debug, Clone)]
pub struct Spool {
    commands: mpsc::Sender<Command>,
    disk: Arc<dyn Disk>,
    known: Arc<Mutex<KnownSensors>>,
    fresh: Fresh,
    status: Arc<Mutex<SpoolStatus>>,
    /// How many readings were handed in: where the disk hangs, they wait before it and no status tells of them.
    handed_in: Arc<AtomicUsize>,
}

impl Spool {
    /// Opens the spool in a folder, with what it holds. Blocks while it reads.
    ///
    /// # Errors
    /// [`SpoolError::Locked`] where another process has it, [`SpoolError::Folder`] where the folder cannot
    /// be had: it is another's, or no folder. Never because of what is in its files, nor for a disk that is full,
    /// read only or failing: readings wait in memory then, and the folder is tried again.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(settings: SpoolSettings, clock: Clock) -> Result<Self, SpoolError> {
        let folder = Folder::take_or_wait(&settings.dir, false).map_err(|error| not_taken(error, &settings.dir))?;
        Ok(Self::over(Arc::new(folder), settings, clock))
    }

    /// The same, of another spool that lies in a folder of this one's.
    pub(crate) fn open_within(&self, folder: &Path, settings: SpoolSettings, clock: Clock) -> Result<Self, SpoolError> {
        let disk = self.disk.within(folder).map_err(|error| not_taken(error, &settings.dir))?;
        Ok(Self::over(disk, settings, clock))
    }

    /// The spool on a disk, with what is on it.
    pub(crate) fn over(disk: Arc<dyn Disk>, mut settings: SpoolSettings, clock: Clock) -> Self {
        settings.max_bytes = settings.max_bytes.max(recovery::MAX_BYTES_LEAST);
        let core = recovery::recover(Arc::clone(&disk), settings, clock);
        let known = Arc::clone(&core.known);
        let fresh = core.fresh.clone();
        let status = Arc::new(Mutex::new(core.status()));
        let (commands, queue) = mpsc::channel(actor::QUEUE_MAX);
        tokio::spawn(actor::run(core, queue, Arc::clone(&status)));
        Self { commands, disk, known, fresh, status, handed_in: Arc::default() }
    }

    /// Takes readings, which are numbered in the order of the calls. Waits while `actor::QUEUE_MAX`
    /// commands wait before it. They are acknowledged at the next sync.
    pub async fn append(&self, readings: impl Into<Rows>) {
        let readings = readings.into();
        if readings.is_empty() {
            return;
        }
        locked(&self.known).note_all_taken(readings.spans());
        let count = readings.len();
        self.handed_in.fetch_add(count, Ordering::Relaxed);
        if self.commands.send(Command::Append(readings)).await.is_err() {
            tracing::error!(count, "readings came after the spool was closed, and are lost");
        }
    }

    /// The same of readings that were measured under another configuration than the one in force, or one that nobody knows.
    pub(crate) async fn append_measured(&self, readings: Vec<Reading>, configuration: Option<String>) {
        let readings = Rows::from(readings);
        if readings.is_empty() {
            return;
        }
        locked(&self.known).note_all_taken(readings.spans());
        let count = readings.len();
        self.handed_in.fetch_add(count, Ordering::Relaxed);
        if self.commands.send(Command::AppendMeasured(readings, configuration)).await.is_err() {
            tracing::error!(count, "readings came after the spool was closed, and are lost");
        }
    }

    /// The newest time of a sensor among the readings that this spool ever took, as far as it is known:
    /// it survives restarts, also where the readings have left.
    #[must_use]
    pub fn newest_time_us(&self, sensor: &SensorId) -> Option<i64> {
        locked(&self.known).newest_us(sensor)
    }

    /// Brings everything that was appended before to disk. Says whether it is there; if not, it waits in
    /// memory and is tried again.
    pub async fn sync(&self) -> bool {
        self.ask(Command::Sync).await.unwrap_or(false)
    }

    /// Sends the word once everything that was appended before is on disk, which it is not any sooner for that, unless it
    /// shall be `at_once`. Drops `reply` where that will not be known.
    pub(crate) async fn confirm(&self, at_once: bool, reply: oneshot::Sender<()>) {
        // A spool that is closed drops it.
        let _ = self.commands.send(Command::Confirm(at_once, reply)).await;
    }

    /// Syncs, then seals everything. Says whether all that was appended before is sealed.
    pub async fn seal(&self) -> bool {
        self.ask(Command::Seal).await.unwrap_or(false)
    }

    /// What waits for the lake, oldest first.
    pub async fn sealed(&self) -> Vec<SealedObject> {
        self.ask(Command::Offered).await.unwrap_or_default()
    }

    /// The bytes of a sealed object: those that go to the lake.
    ///
    /// # Errors
    /// [`SpoolError::Read`] where the file cannot be read, or is gone.
    pub async fn bytes(&self, object: &SealedObject) -> Result<Bytes, SpoolError> {
        let (disk, wanted) = (Arc::clone(&self.disk), object.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let bytes = sealed::read(&*disk, &wanted);
            bytes.map(Bytes::from).map_err(|source| match Away::is(&source) {
                true => SpoolError::Away { source },
                false => SpoolError::Read { path: wanted.path(), source },
            })
        });
        let cancelled = |error| SpoolError::Read { path: object.path(), source: std::io::Error::other(error) };
        reading.await.map_err(cancelled)?
    }

    /// Whether the folder's name leads to this spool's folder now.
    ///
    /// # Errors
    /// [`SpoolError::Away`] where it does not.
    pub(crate) async fn is_at_hand(&self) -> Result<(), SpoolError> {
        let disk = Arc::clone(&self.disk);
        let looked = tokio::task::spawn_blocking(move || disk.check()).await;
        looked.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(|source| SpoolError::Away { source })
    }

    /// The oldest and the newest time in a batch, where this process sealed it and these are the bytes that it
    /// sealed: then nobody need decode them to know that they are whole. `None` where that is to be found out.
    #[must_use]
    pub fn sealed_times_us(&self, object: &SealedObject, bytes: &[u8]) -> Option<(i64, i64)> {
        self.fresh.confirm(object, bytes)
    }

    /// The same by what was sealed, for one who does not need the bytes.
    #[must_use]
    pub fn known_times_us(&self, object: &SealedObject) -> Option<(i64, i64)> {
        self.fresh.times_us(object)
    }

    /// Takes away a sealed object that the lake has.
    pub async fn remove(&self, object: &SealedObject) {
        self.removed(object).await;
    }

    /// The same. Says whether it is away: the last object of a former epoch stays while the disk refuses the word that the
    /// epoch is finished.
    pub async fn removed(&self, object: &SealedObject) -> bool {
        self.ask(|reply| Command::Remove(object.clone(), reply)).await.unwrap_or(true)
    }

    /// Puts a gap in the place of a batch whose file turned out to be damaged; a copy is kept.
    pub async fn give_up(&self, object: &SealedObject) {
        self.ask(|reply| Command::GiveUp(object.clone(), reply)).await;
    }

    /// Takes away a sealed object for which the lake has no place; a copy is kept, or, where none can be, the file
    /// stays and is not offered again before the next start.
    pub async fn set_aside(&self, object: &SealedObject) {
        self.ask(|reply| Command::SetAside(object.clone(), reply)).await;
    }

    /// Begins a new epoch for everything that was not sent, because this spool is a copy of another.
    /// Says whether that worked; if not, nothing has changed.
    pub async fn renew_epoch(&self) -> bool {
        self.renew_epoch_without(HashMap::new()).await
    }

    /// The same, for all but these readings, by their numbers in the old epoch: the lake has them.
    pub async fn renew_epoch_without(&self, landed: HashMap<i64, Reading>) -> bool {
        self.ask(|reply| Command::Renew(landed, reply)).await.unwrap_or(false)
    }

    /// Seals everything, and begins a new epoch for what comes from now on; what waits keeps its numbers
    /// and is offered first. Says whether that worked; if not, nothing has changed.
    pub async fn begin_epoch(&self) -> bool {
        self.ask(Command::BeginEpoch).await.unwrap_or(false)
    }

    /// The same, but nothing changes either where this run has given out numbers of an epoch that an earlier one began: they are
    /// to be claimed first ([`SpoolStatus::claim`]).
    pub async fn begin_epoch_if_unused(&self) -> bool {
        self.ask(Command::BeginEpochIfUnused).await.unwrap_or(false)
    }

    /// From now on no batch is sealed that is larger, but for one of a single reading.
    pub async fn limit_batches(&self, bytes: u64) {
        // A spool that is closed seals nothing.
        let _ = self.commands.send(Command::LimitBatches(bytes)).await;
    }

    /// What is appended from now on was measured under this configuration (its SHA-256 in hex), as the log says and its batches
    /// will name it. What was appended before is sealed first, where the disk takes it, and names the one before in any case.
    pub async fn set_configuration(&self, sha256: String) {
        self.ask(|reply| Command::Configure(sha256, reply)).await;
    }

    /// A look at this spool that keeps neither it nor its folder.
    pub(crate) fn probe(&self) -> SpoolProbe {
        SpoolProbe::new(self.commands.downgrade(), Arc::clone(&self.status))
    }

    /// Syncs and closes the spool; its folder is free when this returns.
    pub async fn close(self) {
        let Self { commands, disk, .. } = self;
        drop(disk);
        let (reply, closed) = oneshot::channel();
        if commands.send(Command::Close(reply)).await.is_ok() {
            // An error means that the runtime ends.
            let _ = closed.await;
        }
    }

    /// Waits until the spool's task has ended: closed, or failed. Then nothing more is kept.
    pub async fn closed(&self) {
        self.commands.closed().await;
    }

    /// How the spool is.
    #[must_use]
    pub fn status(&self) -> SpoolStatus {
        let mut status = locked(&self.status).clone();
        status.unsynced_readings += self.handed_in.load(Ordering::Relaxed).saturating_sub(status.taken_readings);
        status
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        locked(&self.status).epoch
    }

    /// Sends a command and waits for its answer; `None` once the spool is closed.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

fn not_taken(error: TakeError, path: &Path) -> SpoolError {
    let path = path.to_owned();
    match error {
        TakeError::Locked => SpoolError::Locked { path },
        TakeError::Io(source) => SpoolError::Folder { path, source },
        TakeError::Lock(source) => SpoolError::Lock { path: path.join(LOCK), source },
    }
}

/// A lock that is held for a few instructions, none of which can panic half-way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A segment's bytes: see `crate::fuzzing`.
#[doc(hidden)]
pub fn fuzz_segment(bytes: &[u8]) {
    let _ = segment::Header::decode(bytes);
    let _ = segment::read(bytes, &[], 1);
}

#[cfg(test)]
pub(crate) mod tests;
