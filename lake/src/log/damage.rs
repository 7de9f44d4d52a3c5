//! What is damaged in a log, also where nobody needs it to read the newest version.
//!
//! A log is read from its newest checkpoint on: what lies before is not looked at, until somebody asks what changed since.
//! Here everything that lies there is read. And what Delta itself reads when it makes a checkpoint is looked at before: it
//! takes an emptied commit for one that brought nothing, and a checkpoint without its files would make that true.

use super::entries::read_commit;
use super::listing::{Listing, log_folder};
use crate::{Lake, LakeError, TableName};

/// No commit of a writer of Delta is as short as this: what names a file, a transaction or an operation is longer.
const SHORT_BYTES: u64 = 256;

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
    let listing = Listing::of(lake, table, None).await?;
    let what = |version| format!("version {version} is missing, and later ones are there");
    let folder = log_folder(table).to_string();
    let missing = listing.missing_versions().into_iter();
    let mut found: Vec<Damage> = missing.map(|version| Damage { key: folder.clone(), what: what(version) }).collect();
    for meta in listing.commits.values() {
        found.extend(damaged(read_commit(lake, table, &meta.location).await.map(drop))?);
    }
    Ok(found)
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
        Err(LakeError::Log { place, what, .. }) => Ok(Some(Damage { key: place, what })),
        // Vacuum may have removed it since the listing.
        Err(LakeError::Store { source, .. }) if matches!(*source, object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
