//! Which objects a backup is of: each table at one version, and all else that lies in the lake.
//!
//! The order of what is looked at is the whole of it:
//! 1. `hourly` and `daily` before `readings`, so that the version of it that they are of is never one that the backup has not.
//! 2. `readings`, and only then the landing zone: what is ingested after the pinned version stays there for its grace.
//! 3. Quarantine after the landing zone, since objects go from there to here.
//! 4. Of a table first its files, then its log: a file that nobody names is nothing, a named one that is not there is a broken table.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tjern_lake::{Lake, LakeError, Table, TableName};
use tjern_readings::keys::{self, JOBS, LANDING, TABLES};

use super::manifest::name_of;

/// An object that a backup is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) key: Path,
    /// Where it lies among the backups.
    pub(super) name: Path,
    pub(super) bytes: u64,
    pub(super) is_of_a_table: bool,
}

/// What a backup is of.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    pub(super) versions: BTreeMap<String, i64>,
    pub(super) wanted: Vec<Wanted>,
}

/// Finds out what lies in the lake now.
pub(super) async fn pin(lake: &Lake) -> Result<Pinned, LakeError> {
    let mut pinned = Pinned::default();
    // `readings` last.
    let others = TableName::ALL.into_iter().filter(|name| *name != TableName::Readings);
    for name in others.chain([TableName::Readings]) {
        let Some(table) = Table::open(lake, name).await? else { continue };
        pinned.versions.insert(name.to_string(), table.version());
        pinned.wanted.extend(of_table(&table).await?);
    }
    let folders = folders(lake).await?;
    let first = folders.iter().filter(|folder| folder.as_ref() == LANDING);
    let rest = folders.iter().filter(|folder| ![LANDING, TABLES, JOBS].contains(&folder.as_ref()));
    for folder in first.chain(rest) {
        let metas = lake.store().objects().list(Some(folder));
        let metas: Vec<ObjectMeta> = metas.try_collect().await.map_err(|source| LakeError::store(folder, source))?;
        pinned.wanted.extend(metas.into_iter().map(|meta| listed(meta, false)));
    }
    Ok(pinned)
}

async fn of_table(table: &Table) -> Result<Vec<Wanted>, LakeError> {
    let folder = keys::table(table.name().as_str());
    let files = table.files().into_iter().map(|file| {
        let key = Path::from(format!("{folder}/{}", file.path));
        // A data file has a name of its own for ever.
        let name = name_of(&key, None);
        Wanted { key, name, bytes: u64::try_from(file.size).unwrap_or(0), is_of_a_table: true }
    });
    let mut wanted: Vec<_> = files.collect();
    wanted.extend(table.log_objects().await?.into_iter().map(|meta| listed(meta, true)));
    Ok(wanted)
}

fn listed(meta: ObjectMeta, is_of_a_table: bool) -> Wanted {
    // A key may be used again: by a table that is made anew, by what is published next, by a batch that was set aside.
    let name = name_of(&meta.location, Some(meta.last_modified.timestamp_micros()));
    Wanted { key: meta.location, name, bytes: meta.size, is_of_a_table }
}

/// The first parts of the lake's keys.
async fn folders(lake: &Lake) -> Result<Vec<Path>, LakeError> {
    let listed = lake.store().objects().list_with_delimiter(None).await;
    let mut folders = listed.map_err(|source| LakeError::store("", source))?.common_prefixes;
    folders.sort();
    Ok(folders)
}
