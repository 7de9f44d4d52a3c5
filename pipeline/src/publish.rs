//! Open datasets: what is public and good, as files that anybody can read, checked by hashes.
//!
//! A release is a folder that never changes: `open/<dataset>/<version>/` with the readings as CSV and
//! as Parquet, and `datapackage.json` that describes both. `open/<dataset>/latest.json` names the
//! newest one. The order is the promise: data, description, and only then the name, so that a crash
//! leaves the release before in place; a folder that no `latest.json` has named is not a release: who fails removes it, and what
//! a killed one left is looked at when releases are withdrawn. One that holds readings
//! which were erased ([`crate::erase`]), or are public no more ([`recall`](mod@recall)), is withdrawn: then `withdrawn.json` lies there and nothing else.
//!
//! Only sensors of class `public` exist in the session that is asked, and a value that failed
//! quality control never leaves: the view leaves it out, and what is written is looked at once more.
//! The same data are not published twice. A dataset may have any size: its rows are sorted and written within the job's bounds on
//! memory. Limits: the bytes of one of its files are held while they are put.

mod description;
mod recall;
mod rows;

use std::path::PathBuf;

use arrow::error::ArrowError;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parquet::errors::ParquetError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tjern_lake::{Lake, LakeError, Table, TableName};
use tjern_readings::keys;
use tjern_readings::sensor::SensorId;

pub use description::Licence;
use description::describe;
pub use recall::{Recalled, recall};
use rows::{Readings, Summary, Written, read_rows};

use crate::bounds::Bounds;
use crate::erase::Erasures;

/// A dataset to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Its name: of its folder and of its files.
    pub name: String,
    /// Its title in bokmål.
    pub title: String,
    /// Its title in English.
    pub title_en: Option<String>,
    /// What the data are.
    pub description: Option<String>,
    /// Who publishes them.
    pub publisher: Option<String>,
    /// Under what terms they may be used.
    pub licence: Licence,
    /// Only sensors of this quantity.
    pub quantity: Option<String>,
    /// Only these sensors.
    pub sensors: Option<Vec<SensorId>>,
}

/// What became of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome {
    /// A new release.
    Published(Release),
    /// The newest release has these data already.
    NothingNew {
        /// Its version.
        version: String,
    },
    /// There is no public reading to publish.
    Empty,
}

/// A release, as `latest.json` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The dataset's name.
    pub dataset: String,
    /// The release's name: when it was made, and of which version of `readings`.
    pub version: String,
    /// The release's folder, from the folder of `latest.json`.
    pub path: String,
    /// When it was made.
    pub created: String,
    /// The version of the table `readings` that it was made of.
    pub readings_version: i64,
    /// The title in bokmål.
    pub title: String,
    /// The licence, as SPDX names it.
    pub licence: String,
    /// The files, from the release's folder.
    pub files: Vec<ReleasedFile>,
}

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedFile {
    /// Its name.
    pub path: String,
    /// Its size.
    pub bytes: usize,
    /// Its hash, 64 hex digits.
    pub sha256: String,
    /// How many readings are in it; none in a description.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows: Option<usize>,
}

/// Why a dataset was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The query engine failed.
    #[error("{}", tjern_lake::engine::Said(.0))]
    Engine(#[from] DataFusionError),
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// Parquet refused.
    #[error("parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// The files could not be written before they are put.
    #[error(
        "a release cannot be written to `{folder}`: {source}; nothing was published; hint: `[compact] spill` names a folder on a disk with room for it"
    )]
    Spill {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row that must not leave came through.
    #[error(
        "dataset `{dataset}`: {what}; nothing was published; hint: this is a defect of the software, please report it"
    )]
    Withheld {
        /// Which dataset.
        dataset: String,
        /// Which row, and why.
        what: String,
    },
    /// Another file lies where the release's would.
    #[error(
        "`{key}` is there already, with other bytes; nothing was named; hint: the clock may have been set back, try again later"
    )]
    Occupied {
        /// Which object.
        key: Path,
    },
    /// Readings were erased while they were written down.
    #[error("readings were erased while dataset `{dataset}` was written; nothing was named; hint: run it again")]
    Erased {
        /// Which dataset.
        dataset: String,
    },
    /// The register was changed while readings were written down that may be public no more.
    #[error("the register was changed while dataset `{dataset}` was written; nothing was named; hint: run it again")]
    Registered {
        /// Which dataset.
        dataset: String,
    },
    /// The release was withdrawn while it was named.
    #[error("the release of dataset `{dataset}` was withdrawn while it was made; hint: run it again")]
    Withdrawn {
        /// Which dataset.
        dataset: String,
    },
    /// The store failed.
    #[error("the lake's store failed at `{key}`: {source}")]
    Store {
        /// Which object.
        key: Path,
        /// Why.
        source: object_store::Error,
    },
}

/// Publishes a dataset, if there is something new. Local times are those of `timezone`.
///
/// # Errors
/// [`PublishError`]. `latest.json` then names what it named before.
pub async fn publish(lake: &Lake, dataset: &Dataset, timezone: &TimeZone) -> Result<PublishOutcome, PublishError> {
    publish_within(lake, dataset, timezone, &Bounds::default()).await
}

/// The same within these bounds.
///
/// # Errors
/// [`PublishError`]. `latest.json` then names what it named before.
pub async fn publish_within(
    lake: &Lake,
    dataset: &Dataset,
    timezone: &TimeZone,
    bounds: &Bounds,
) -> Result<PublishOutcome, PublishError> {
    let readings = read_rows(lake, dataset, timezone, bounds).await?;
    if readings.summary.rows == 0 {
        return Ok(PublishOutcome::Empty);
    }
    let newest = newest_release(lake, &dataset.name).await?;
    let csv_file = written_file(format!("{}.csv", dataset.name), &readings.csv, &readings.summary);
    if let Some(newest) = newest.as_ref().filter(|newest| says_the_same(newest, &csv_file, dataset)) {
        return Ok(PublishOutcome::NothingNew { version: newest.version.clone() });
    }
    let (erasures, sensors_version) = (readings.erasures, readings.sensors_version);
    let created = free_second(lake, dataset, newest.as_ref(), readings.version).await?;
    let (version, mut created_keys) = (version_name(created, readings.version), Vec::new());
    let written = async {
        let release = write_release(lake, dataset, created, readings, csv_file, bounds, &mut created_keys).await?;
        still_holds(lake, dataset, erasures, sensors_version).await?;
        Ok::<_, PublishError>(release)
    };
    let written = written.await;
    let release = match written {
        Ok(release) => release,
        Err(error) => {
            if let Err(error) = remove_unnamed(lake, dataset, &version, created_keys).await {
                tracing::warn!(dataset = dataset.name, version, %error, "files of a release that was not named stay");
            }
            return Err(error);
        }
    };
    name_newest(lake, &release).await?;
    refuse_withdrawn(lake, &release).await?;
    Ok(PublishOutcome::Published(release))
}

/// Removes what was written of a release that is not named, unless another process made the same one and named it.
async fn remove_unnamed(
    lake: &Lake,
    dataset: &Dataset,
    version: &str,
    created_keys: Vec<Path>,
) -> Result<(), PublishError> {
    let newest = newest_release(lake, &dataset.name).await?;
    if newest.is_none_or(|newest| newest.version != version) {
        crate::vacuum::remove(lake, created_keys).await?;
    }
    Ok(())
}

/// What was read may have been erased since, or be public no more: who withdraws looks at what lies there, and this came after it.
async fn still_holds(
    lake: &Lake,
    dataset: &Dataset,
    erasures: Option<i64>,
    sensors_version: i64,
) -> Result<(), PublishError> {
    let readings = Table::open(lake, TableName::Readings).await?;
    let sensors = Table::open(lake, TableName::Sensors).await?;
    let dataset = || dataset.name.clone();
    if readings.and_then(|table| Erasures::count_in(&table)) != erasures {
        return Err(PublishError::Erased { dataset: dataset() });
    }
    if sensors.map_or(-1, |table| table.version()) != sensors_version {
        return Err(PublishError::Registered { dataset: dataset() });
    }
    Ok(())
}

/// Who withdraws a release looks afterwards whether it was named; who named one looks whether it was withdrawn. One of
/// them sees the other.
async fn refuse_withdrawn(lake: &Lake, release: &Release) -> Result<(), PublishError> {
    if !is_withdrawn(lake, &release.dataset, &release.version).await? {
        return Ok(());
    }
    crate::vacuum::remove(lake, vec![keys::latest_release(&release.dataset)]).await?;
    Err(PublishError::Withdrawn { dataset: release.dataset.clone() })
}

fn second_of(now_us: i64) -> Timestamp {
    Timestamp::from_second(now_us.div_euclid(1_000_000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// This second, or the next one of which there is no release of these readings: what is public may have changed within it.
async fn free_second(
    lake: &Lake,
    dataset: &Dataset,
    newest: Option<&Release>,
    readings_version: i64,
) -> Result<Timestamp, PublishError> {
    let mut created = second_of(lake.clock().now_us());
    loop {
        let version = version_name(created, readings_version);
        let is_taken = newest.is_some_and(|newest| newest.version == version)
            || is_withdrawn(lake, &dataset.name, &version).await?;
        if !is_taken {
            return Ok(created);
        }
        created = second_of(created.as_microsecond() + 1_000_000);
    }
}

async fn is_withdrawn(lake: &Lake, dataset: &str, version: &str) -> Result<bool, PublishError> {
    let key = keys::withdrawn_release(dataset, version);
    match lake.objects().head(&key).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(source) => Err(PublishError::Store { key, source }),
    }
}

/// A release's name sorts by time, says of which data it is, and is a name on every file system.
fn version_name(created: Timestamp, readings_version: i64) -> String {
    format!("{}-v{readings_version}", created.strftime("%Y-%m-%dT%H-%M-%SZ"))
}

fn says_the_same(newest: &Release, csv: &ReleasedFile, dataset: &Dataset) -> bool {
    newest.files.contains(csv) && newest.title == dataset.title && newest.licence == dataset.licence.name()
}

async fn write_release(
    lake: &Lake,
    dataset: &Dataset,
    created: Timestamp,
    readings: Readings,
    csv_file: ReleasedFile,
    bounds: &Bounds,
    created_keys: &mut Vec<Path>,
) -> Result<Release, PublishError> {
    let Readings { version: readings_version, csv, parquet, summary, .. } = readings;
    let parquet_file = written_file(format!("{}.parquet", dataset.name), &parquet, &summary);
    let version = version_name(created, readings_version);
    let mut release = Release {
        dataset: dataset.name.clone(),
        path: format!("{version}/"),
        version,
        created: created.to_string(),
        readings_version,
        title: dataset.title.clone(),
        licence: dataset.licence.name().to_owned(),
        files: vec![csv_file, parquet_file],
    };
    let mut description = serde_json::to_vec_pretty(&describe(dataset, &release, &summary)).unwrap_or_default();
    description.push(b'\n');
    for (file, mut written) in release.files.iter().zip([csv, parquet]) {
        let spilled = |source| PublishError::Spill { folder: bounds.spill_folder.clone(), source };
        let bytes = written.read().map_err(spilled)?;
        create(lake, keys::release_file(&dataset.name, &release.version, &file.path), bytes, created_keys).await?;
    }
    let described = describe_file("datapackage.json".to_owned(), &description);
    create(lake, keys::release_file(&dataset.name, &release.version, &described.path), description, created_keys)
        .await?;
    release.files.push(described);
    Ok(release)
}

/// Names the newest release.
async fn name_newest(lake: &Lake, release: &Release) -> Result<(), PublishError> {
    let key = keys::latest_release(&release.dataset);
    let mut latest = serde_json::to_vec_pretty(release).unwrap_or_default();
    latest.push(b'\n');
    let put = lake.objects().put(&key, PutPayload::from(latest)).await;
    put.map(drop).map_err(|source| PublishError::Store { key, source })
}

fn describe_file(path: String, bytes: &[u8]) -> ReleasedFile {
    ReleasedFile { path, bytes: bytes.len(), sha256: hex(&Sha256::digest(bytes)), rows: None }
}

fn written_file(path: String, written: &Written, summary: &Summary) -> ReleasedFile {
    ReleasedFile { path, bytes: written.bytes, sha256: written.sha256.clone(), rows: Some(summary.rows) }
}

fn hex(hash: &[u8]) -> String {
    use std::fmt::Write;
    hash.iter().fold(String::with_capacity(2 * hash.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Creates an object once. One that is there with the same bytes is this one: the store's own retry,
/// or a run that broke off in this very second. One that may be ours is added to `created`.
async fn create(lake: &Lake, key: Path, bytes: impl Into<Bytes>, created: &mut Vec<Path>) -> Result<(), PublishError> {
    let (objects, bytes) = (lake.objects(), bytes.into());
    let put = objects.put_opts(&key, PutPayload::from(bytes.clone()), PutMode::Create.into()).await;
    match put {
        Ok(_) => {
            created.push(key);
            Ok(())
        }
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            let found = async { objects.get(&key).await?.bytes().await }.await;
            match found {
                Ok(found) if found == bytes => {
                    created.push(key);
                    Ok(())
                }
                Ok(_) => Err(PublishError::Occupied { key }),
                Err(source) => Err(PublishError::Store { key, source }),
            }
        }
        // It may be there all the same.
        Err(source) => {
            created.push(key.clone());
            Err(PublishError::Store { key, source })
        }
    }
}

/// The newest release of a dataset, if there is one whose name can be read.
pub(crate) async fn newest_release(lake: &Lake, dataset: &str) -> Result<Option<Release>, PublishError> {
    let key = keys::latest_release(dataset);
    let found = match lake.objects().get(&key).await {
        Ok(found) => found.bytes().await,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(source) => Err(source),
    };
    let bytes = found.map_err(|source| PublishError::Store { key: key.clone(), source })?;
    match serde_json::from_slice(&bytes) {
        Ok(release) => Ok(Some(release)),
        Err(error) => {
            tracing::warn!(%key, %error, "cannot read which release is the newest; a new one replaces it");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
