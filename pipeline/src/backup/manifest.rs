//! What a backup is of: one object, `manifests/<id>.jsonl`, a line of JSON that says what it is and one for each object.
//!
//! Readable by hand and by `jq`: `key` is where an object lay in the lake, `name` where it lies among the backups.
//! A manifest whose first line does not say as many objects as follow is a damaged one.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use tjern_lake::Lake;
use tjern_readings::store::Store;

use super::BackupError;
use crate::correct::utc;

/// The folder of what was copied.
pub(super) const OBJECTS: &str = "objects";

/// The folder of the manifests.
pub(super) const MANIFESTS: &str = "manifests";

/// What the name of a manifest ends with.
const SUFFIX: &str = ".jsonl";

/// The version of the manifest's shape.
const FORMAT: u32 = 1;

/// Where an object of the lake lies among the backups. Whose key may be used again is told apart by when it was written.
pub(super) fn name_of(key: &Path, modified_us: Option<i64>) -> Path {
    let written = modified_us.map(|us| format!("@{us}")).unwrap_or_default();
    Path::from(format!("{OBJECTS}/{key}{written}"))
}

/// The same under the mark of a lake, so that the objects of two that have their backups in one place are told apart.
pub(super) fn name_in_lake(mark: &str, name: &Path) -> Path {
    let rest = name.as_ref().strip_prefix(OBJECTS).unwrap_or_default();
    Path::from(format!("{OBJECTS}/{mark}{rest}"))
}

/// The first line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the shape.
    pub format: u32,
    /// The backup's name: when it was begun, in UTC to the microsecond, and a number by chance. Names sort as backups do.
    pub id: String,
    /// Which lake it is of.
    pub lake: String,
    /// Whether that is one of personal readings; not known of a backup that an earlier version made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<bool>,
    /// What made it.
    pub software: String,
    /// When it was begun and ended: RFC 3339 in UTC.
    pub began: String,
    /// See `began`.
    pub ended: String,
    /// The version of each table.
    pub tables: BTreeMap<String, i64>,
    /// How many objects follow.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// An object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its key in the lake.
    pub key: String,
    /// Its key among the backups.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// The SHA-256 (hex) of its contents; not known of what a backup copied that broke off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it is.
    pub header: Header,
    /// Its objects, in the order in which they were copied.
    pub entries: Vec<Entry>,
}

impl Header {
    pub(super) fn new(lake: &Lake, began_us: i64, tables: &BTreeMap<String, i64>, entries: &[Entry]) -> Self {
        let began = jiff::Timestamp::from_microsecond(began_us).unwrap_or_default();
        let chance = &tjern_readings::sensor::Epoch::random().to_string()[..4];
        Self {
            format: FORMAT,
            id: format!("{}-{chance}", began.strftime("%Y%m%dT%H%M%S%6fZ")),
            lake: lake.store().url().to_string(),
            personal: Some(lake.is_personal()),
            software: format!("tjern {}", env!("CARGO_PKG_VERSION")),
            began: utc(began_us),
            ended: utc(lake.clock().now_us()),
            tables: tables.clone(),
            objects: entries.len(),
            bytes: entries.iter().map(|entry| entry.bytes).sum(),
        }
    }
}

fn key_of(id: &str) -> Path {
    Path::from(format!("{MANIFESTS}/{id}{SUFFIX}"))
}

/// The backups that there are, oldest first.
///
/// # Errors
/// [`BackupError::Target`].
pub async fn list(target: &Store) -> Result<Vec<String>, BackupError> {
    let metas = target.objects().list(Some(&Path::from(MANIFESTS)));
    let keys: Vec<Path> = metas
        .map_ok(|meta| meta.location)
        .try_collect()
        .await
        .map_err(|error| BackupError::target(MANIFESTS, error))?;
    let names = keys.iter().filter_map(|key| key.filename()?.strip_suffix(SUFFIX));
    let mut ids: Vec<String> = names.map(str::to_owned).collect();
    ids.sort();
    Ok(ids)
}

impl Manifest {
    /// Reads a backup's manifest.
    ///
    /// # Errors
    /// [`BackupError::Unknown`], [`BackupError::Manifest`], [`BackupError::Target`].
    pub async fn read(target: &Store, id: &str) -> Result<Self, BackupError> {
        let key = key_of(id);
        let bytes = match target.objects().get(&key).await {
            Ok(found) => found.bytes().await.map_err(|error| BackupError::target(&key, error))?,
            Err(Error::NotFound { .. }) => {
                return Err(BackupError::Unknown { id: id.to_owned(), target: Box::new(target.url().clone()) });
            }
            Err(error) => return Err(BackupError::target(&key, error)),
        };
        Self::parse(&bytes).map_err(|what| BackupError::Manifest { key: key.to_string(), what })
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let header: Header =
            serde_json::from_slice(lines.next().unwrap_or_default()).map_err(|error| error.to_string())?;
        if header.format > FORMAT {
            return Err(format!("it has format {}, this software reads up to {FORMAT}", header.format));
        }
        let entries: Vec<Entry> =
            lines.map(serde_json::from_slice).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        if entries.len() != header.objects {
            return Err(format!("it names {} objects and says {}", entries.len(), header.objects));
        }
        Ok(Self { header, entries })
    }

    pub(super) async fn write(&self, target: &Store) -> Result<(), BackupError> {
        let key = key_of(&self.header.id);
        let failed = |what: serde_json::Error| BackupError::Manifest { key: key.to_string(), what: what.to_string() };
        let mut bytes = serde_json::to_vec(&self.header).map_err(failed)?;
        for entry in &self.entries {
            bytes.push(b'\n');
            serde_json::to_writer(&mut bytes, entry).map_err(failed)?;
        }
        bytes.push(b'\n');
        let put = target.objects().put_opts(&key, PutPayload::from(bytes), PutMode::Create.into()).await;
        match put {
            // The store's own retry met our own object: nobody else has this id.
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(BackupError::target(&key, error)),
        }
    }

    pub(super) async fn remove(target: &Store, id: &str) -> Result<(), BackupError> {
        let key = key_of(id);
        match target.objects().delete(&key).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BackupError::target(&key, error)),
        }
    }
}
