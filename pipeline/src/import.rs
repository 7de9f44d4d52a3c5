//! Import: history, and what people read off, from CSV and Parquet into the landing zone.
//!
//! An import is a source like others: its readings land as sealed batches, and ingest takes them exactly once, under
//! the same rules (a source that a sensor does not name, another unit, the plausible range). What makes
//! it idempotent is its epoch: it is made of the file's bytes and of the map by which they are read, so the same file
//! under the same map gives the same batches under the same keys. Landing it again meets them; landing what was
//! broken off goes on behind what is there, also after batches have left the landing zone. Another map
//! (a time zone that was wrong) is another epoch, and of two readings of one time the later received
//! counts.
//!
//! Lines of which no reading can be made are told, each with its reason, and the others are taken. Empty
//! fields are counted. The numbers count the readings that were made, in the order of the file: whatever changes
//! what is made of a file has to raise [`RULES_VERSION`]. They follow from the file and its map alone, never from the
//! register, which may say something else tomorrow: a file with a sensor that may not be in this lake is refused whole.

mod input;
mod map;
mod read;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use sha2::{Digest, Sha256};
use tjern_lake::{Lake, LakeError, Table, TableName};
use tjern_readings::batch;
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SensorId, SourceName};

use crate::ingest::Taken;
use crate::register::{Register, RegisterError, load};
use input::Input;
pub use map::{CheckedMap, ColumnMap, ImportMap, MapError};
pub use read::BadLine;
use read::{Reader, columns};

pub use crate::sheet::{Decimal, Encoding};

/// What is made of a file: it stands in the epoch.
const RULES_VERSION: &str = "tjern import 1";

/// Readings of a batch.
pub const BATCH_READINGS: usize = 50_000;

/// Between two looks at how far it is.
const LINES_PER_LOOK: u64 = 1_000;

/// What an import did, or, of a dry run, would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOutcome {
    /// Whose readings.
    pub source: SourceName,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Lines after the one that names the columns.
    pub lines: u64,
    /// Readings that were made of them.
    pub readings: usize,
    /// Fields without a value.
    pub empty: usize,
    /// Lines and fields of which none could be made.
    pub bad: usize,
    /// Batches that were put into the landing zone now; the others were known.
    pub landed: usize,
    /// Batches in all.
    pub batches: usize,
    /// The first and the last time, in microseconds since 1970.
    pub times_us: Option<(i64, i64)>,
}

/// Why an import stopped. What has landed stays, and importing again goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot import `{}`: {what}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// Another file changed it while it was read.
    #[error("`{}` changed while it was imported; hint: import it again once it is finished", path.display())]
    Changing {
        /// Which file.
        path: PathBuf,
    },
    /// It may not be in this lake.
    #[error("cannot import readings of `{sensor}`: {what}")]
    Refused {
        /// Whose readings.
        sensor: SensorId,
        /// Why not.
        what: String,
    },
    /// The register could not be read.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A batch could not be made.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// What lies at a batch's key is another one.
    #[error("`{key}` is there and has other readings; hint: was it written by another version of tjern?")]
    Taken {
        /// Which key.
        key: String,
    },
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportProgress {
    /// Bytes of the file that were read.
    pub bytes: u64,
    /// Bytes of the file.
    pub total_bytes: u64,
    /// Readings that were made.
    pub readings: usize,
}

/// Who is told while an import goes on.
pub trait Listener {
    /// A line is bad.
    fn bad(&mut self, line: &BadLine);
    /// It has come so far.
    fn progress(&mut self, progress: ImportProgress);
}

/// Imports a file into the landing zone. With `dry_run` it is only read.
///
/// # Errors
/// [`ImportError`].
pub async fn import(
    lake: &Lake,
    path: &Path,
    map: &CheckedMap,
    dry_run: bool,
    listener: &mut (dyn Listener + Send),
) -> Result<ImportOutcome, ImportError> {
    let unreadable = |what: String| ImportError::Unreadable { path: path.to_owned(), what };
    check(lake, path, map).await?;
    let (epoch, total_bytes) = epoch_of(path, map).await?;
    let mut input = Input::open(path, map.layout, &columns(map)).map_err(unreadable)?;
    let total_rows = total_rows(&input, path)?;
    let mut landing = Landing::open(lake, map, epoch, dry_run).await?;
    let mut reader = Reader::new(map);
    while let Some(line) = input.next().map_err(unreadable)? {
        let made = reader.read(line);
        made.bad.iter().for_each(|line| listener.bad(line));
        let outcome = &mut landing.outcome;
        (outcome.bad, outcome.empty) = (outcome.bad + made.bad.len(), outcome.empty + made.empty);
        outcome.lines += 1;
        landing.add(made.readings).await?;
        if landing.outcome.lines.is_multiple_of(LINES_PER_LOOK) {
            let share = |rows: u64| total_bytes.saturating_mul(landing.outcome.lines) / rows.max(1);
            let bytes = input.bytes_read().unwrap_or_else(|| share(total_rows));
            listener.progress(ImportProgress { bytes, total_bytes, readings: landing.outcome.readings });
        }
    }
    if epoch_of(path, map).await?.0 != epoch {
        return Err(ImportError::Changing { path: path.to_owned() });
    }
    landing.finish().await
}

/// Whether a file can be imported: it is there, has the columns of the map, and names no sensor that may not be in this
/// lake. What is wrong further down shows as it is read.
///
/// # Errors
/// [`ImportError`]; nothing has landed then.
pub async fn check(lake: &Lake, path: &Path, map: &CheckedMap) -> Result<(), ImportError> {
    let unreadable = |what: String| ImportError::Unreadable { path: path.to_owned(), what };
    let register = load(lake).await?;
    for sensor in map.sensors() {
        let refused = |what| ImportError::Refused { sensor: sensor.clone(), what };
        read::may_be_imported(sensor).map_err(refused)?;
        if let Some(why) = read::kept_out(sensor, &register, lake.is_personal()) {
            return Err(refused(why.to_owned()));
        }
    }
    refuse_what_is_kept_out(path, map, &register, lake.is_personal())?;
    let input = Input::open(path, map.layout, &columns(map)).map_err(unreadable)?;
    total_rows(&input, path).map(drop)
}

/// Refuses a long file that names a sensor whose readings may not be in this lake, before anything of it lands.
fn refuse_what_is_kept_out(
    path: &Path,
    map: &CheckedMap,
    register: &Register,
    in_personal_lake: bool,
) -> Result<(), ImportError> {
    let kept_out = |sensor: &SensorId| read::kept_out(sensor, register, in_personal_lake);
    if !in_personal_lake && !register.has_personal() {
        return Ok(());
    }
    let unreadable = |what: String| ImportError::Unreadable { path: path.to_owned(), what };
    let mut input = Input::open(path, map.layout, &columns(map)).map_err(unreadable)?;
    while let Some(line) = input.next().map_err(unreadable)? {
        let Some(sensor) = read::sensor_of(&line, map).filter(|sensor| !sensor.is_system()) else { continue };
        if let Some(why) = kept_out(&sensor) {
            return Err(ImportError::Refused { sensor, what: format!("line {}: {why}", line.number) });
        }
    }
    Ok(())
}

/// How many rows a file of Parquet has; of text that is not known before it is read.
fn total_rows(input: &Input, path: &Path) -> Result<u64, ImportError> {
    let Input::Parquet { .. } = input else { return Ok(0) };
    let unreadable = |what: String| ImportError::Unreadable { path: path.to_owned(), what };
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let metadata = parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&file);
    let metadata = metadata.map_err(|error| unreadable(error.to_string()))?;
    Ok(u64::try_from(metadata.file_metadata().num_rows()).unwrap_or_default())
}

/// The epoch of a file's readings under a map, and the file's size.
async fn epoch_of(path: &Path, map: &CheckedMap) -> Result<(Epoch, u64), ImportError> {
    let unreadable = |what: String| ImportError::Unreadable { path: path.to_owned(), what };
    let name = path.to_owned();
    let digest = tokio::task::spawn_blocking(move || -> std::io::Result<(Vec<u8>, u64)> {
        let (mut file, mut sha256, mut size) = (File::open(&name)?, Sha256::new(), 0);
        let mut piece = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok((sha256.finalize().to_vec(), size));
            }
            sha256.update(&piece[..read]);
            size += read as u64;
        }
    });
    let (file, size) =
        digest.await.map_err(|error| unreadable(error.to_string()))?.map_err(|error| unreadable(error.to_string()))?;
    let mut sha256 = Sha256::new();
    for part in [RULES_VERSION.as_bytes(), map.text.as_bytes(), &file] {
        sha256.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        sha256.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha256.finalize()[..16]);
    Ok((Epoch::from_bytes(bytes), size))
}

/// Puts readings into the landing zone, in batches whose keys and bytes follow from the file and its map.
struct Landing<'a> {
    lake: &'a Lake,
    map: &'a CheckedMap,
    configuration: String,
    /// What ingest has taken before.
    taken: Taken,
    dry_run: bool,
    gathered: Vec<Reading>,
    outcome: ImportOutcome,
}

impl<'a> Landing<'a> {
    async fn open(lake: &'a Lake, map: &'a CheckedMap, epoch: Epoch, dry_run: bool) -> Result<Self, ImportError> {
        let table = Table::open(lake, TableName::Readings).await?;
        let taken = table.map_or_else(Taken::default, |table| Taken::of(&table, &map.source, epoch));
        let configuration = Sha256::digest(&map.text).iter().map(|byte| format!("{byte:02x}")).collect();
        let outcome = ImportOutcome {
            source: map.source.clone(),
            epoch,
            lines: 0,
            readings: 0,
            empty: 0,
            bad: 0,
            landed: 0,
            batches: 0,
            times_us: None,
        };
        Ok(Self { lake, map, configuration, taken, dry_run, gathered: Vec::new(), outcome })
    }

    async fn add(&mut self, readings: Vec<Reading>) -> Result<(), ImportError> {
        for reading in readings {
            let (first, last) = self.outcome.times_us.unwrap_or((reading.time_us, reading.time_us));
            self.outcome.times_us = Some((first.min(reading.time_us), last.max(reading.time_us)));
            self.outcome.readings += 1;
            self.gathered.push(reading);
            if self.gathered.len() == BATCH_READINGS {
                self.land().await?;
            }
        }
        Ok(())
    }

    async fn land(&mut self) -> Result<(), ImportError> {
        let readings = std::mem::take(&mut self.gathered);
        let last = i64::try_from(self.outcome.readings).unwrap_or(i64::MAX);
        let first = last - i64::try_from(readings.len()).unwrap_or(0) + 1;
        self.outcome.batches += 1;
        // What a replay found gone is not taken: it lands again.
        if self.dry_run || Bounds::new(first, last).is_some_and(|bounds| self.taken.has(bounds)) {
            return Ok(());
        }
        if self.outcome.landed == 0 {
            let text = Bytes::from(self.map.text.clone());
            self.create(&Landed::Configuration(self.configuration.clone()), text).await?;
        }
        let (source, epoch) = (&self.outcome.source, self.outcome.epoch);
        let (bytes, made) = batch::encode(source, epoch, first, &readings, Some(&self.configuration))?;
        let landed = Landed::Batch(epoch, made.header.bounds);
        if self.create(&landed, bytes).await? {
            self.outcome.landed += 1;
            return Ok(());
        }
        let key = landed.key(&self.outcome.source);
        let failed = |source| LakeError::store(&key, source);
        let there = match self.lake.objects().get(&key).await {
            // Ingest took it and its grace is over.
            Err(Error::NotFound { .. }) => return Ok(()),
            found => found.map_err(failed)?.bytes().await.map_err(failed)?,
        };
        match batch::decode(&there) {
            Ok(there) if there.header.checksum == made.header.checksum => Ok(()),
            _ => Err(ImportError::Taken { key: key.to_string() }),
        }
    }

    async fn finish(mut self) -> Result<ImportOutcome, ImportError> {
        if !self.gathered.is_empty() {
            self.land().await?;
        }
        let last = i64::try_from(self.outcome.readings).unwrap_or(i64::MAX);
        if !self.dry_run && Bounds::new(1, last).is_some() {
            let closed = Landed::Closed(self.outcome.epoch);
            self.create(&closed, Bytes::from(format!("{last}\n"))).await?;
        }
        Ok(self.outcome)
    }

    /// Creates an object; false where one is there.
    async fn create(&self, landed: &Landed, bytes: Bytes) -> Result<bool, LakeError> {
        let key = landed.key(&self.outcome.source);
        match self.lake.objects().put_opts(&key, PutPayload::from(bytes), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(source) => Err(LakeError::store(key, source)),
        }
    }
}

#[cfg(test)]
mod tests;
