//! What is damaged in a log, also where nobody needs it to read the newest version.
//!
//! A log is read from its newest checkpoint on: what lies before is not looked at, until somebody asks what changed since.
//! Here everything that lies there is read. And what Delta itself reads when it makes a checkpoint is looked at before: it
//! takes an emptied commit for one that brought nothing, and a checkpoint without its files would make that true.

use object_store::ObjectStoreExt;
use serde::Deserialize;

use super::entries::read_commit;
use super::listing::{Listing, log_folder};
use super::{LogState, checkpoint};
use crate::{Lake, LakeError, TableName, way_back};

/// No commit of a writer of Delta is as short as this: what names a file, a transaction or an operation is longer.
const SHORT_BYTES: u64 = 256;

/// The object that says which checkpoint Delta begins with.
const LAST_CHECKPOINT: &str = "_last_checkpoint";

#[derive(Debug, Deserialize)]
struct LastCheckpoint {
    version: i64,
}

/// A part of a log that is not what a writer made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which object.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

/// Everything that is damaged in a log, by reading all of it.
///
/// # Errors
/// [`LakeError`] where the store fails.
pub(crate) async fn find(lake: &Lake, table: TableName) -> Result<Vec<Damage>, LakeError> {
    // Read before the listing: a checkpoint that it names is in there.
    let last = last_checkpoint(lake, table).await;
    let listing = Listing::of(lake, table, None).await?;
    if listing.commits.is_empty() && listing.newest_checkpoint().is_none() {
        // A table that was never made.
        return Ok(Vec::new());
    }
    let what = |version| format!("version {version} is missing, and later ones are there");
    let folder = log_folder(table).to_string();
    let missing = listing.missing_versions().into_iter();
    let mut found: Vec<Damage> = missing.map(|version| Damage { key: folder.clone(), what: what(version) }).collect();
    for meta in listing.commits.values() {
        found.extend(damaged(read_commit(lake, table, &meta.location).await.map(drop))?);
    }
    for key in listing.checkpoint_parts() {
        found.extend(damaged(checkpoint::apply(&mut LogState::empty(table), lake, key).await)?);
    }
    let whole = last.and_then(|last| stands_in_the_way(table, &listing, last));
    found.extend(damaged(whole)?);
    Ok(found)
}

/// What keeps Delta from reading or writing a log that can be read, as an error that says what to do: asked where it failed.
///
/// # Errors
/// [`LakeError::Log`]; [`LakeError::Store`].
pub(crate) async fn refuse_what_delta_cannot_read(lake: &Lake, table: TableName) -> Result<(), LakeError> {
    let last = last_checkpoint(lake, table).await?;
    stands_in_the_way(table, &Listing::of(lake, table, None).await?, last)
}

fn stands_in_the_way(table: TableName, listing: &Listing, last: Option<LastCheckpoint>) -> Result<(), LakeError> {
    let log =
        |name: String, what: String| LakeError::Log { table, place: log_folder(table).join(name).to_string(), what };
    let newest = listing.newest_checkpoint().map(|(version, _)| version);
    if let Some(version) = newest.filter(|version| listing.newest_version().is_none_or(|commit| commit < *version)) {
        let what = "it is gone, and a checkpoint of it is there: nothing can be written after it".to_owned();
        return Err(log(format!("{version:020}.json"), what));
    }
    let is_there = |version: i64| listing.newest_checkpoint_where(|one| one == version).is_some();
    match last.filter(|last| !is_there(last.version)) {
        Some(LastCheckpoint { version }) => Err(log(
            LAST_CHECKPOINT.to_owned(),
            format!("it names a checkpoint of version {version}, which is not there"),
        )),
        None => Ok(()),
    }
}

/// What `_last_checkpoint` says; nothing where it is not there.
async fn last_checkpoint(lake: &Lake, table: TableName) -> Result<Option<LastCheckpoint>, LakeError> {
    let key = log_folder(table).join(LAST_CHECKPOINT);
    let bytes = match lake.objects().get(&key).await {
        Ok(found) => found.bytes().await.map_err(|source| LakeError::store(&key, source))?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(source) => return Err(LakeError::store(&key, source)),
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| LakeError::Log { table, place: key.to_string(), what: error.to_string() })
}

/// Refuses a log in which a commit after the newest checkpoint was emptied. It costs a listing.
///
/// # Errors
/// [`LakeError::Log`]; [`LakeError::Store`].
pub(crate) async fn refuse_emptied(lake: &Lake, table: TableName) -> Result<(), LakeError> {
    let listing = Listing::of(lake, table, None).await?;
    let from = listing.newest_checkpoint().map_or(0, |(version, _)| version + 1);
    for (_, meta) in listing.commits.range(from..).filter(|(_, meta)| meta.size < SHORT_BYTES) {
        read_commit(lake, table, &meta.location).await?;
    }
    Ok(())
}

/// What is wrong with an object that was read.
fn damaged(read: Result<(), LakeError>) -> Result<Option<Damage>, LakeError> {
    match read {
        Ok(()) => Ok(None),
        Err(LakeError::Log { table, place, what }) => {
            let hint = way_back(table, &place);
            Ok(Some(Damage { key: place, what: format!("{what}; hint: {hint}") }))
        }
        // Vacuum may have removed it since the listing.
        Err(LakeError::Store { source, .. }) if matches!(*source, object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
