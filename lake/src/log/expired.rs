//! What of a table's folder nobody needs any more: files that no version in reach names, and commits
//! before a checkpoint that is old enough.
//!
//! Follows the Delta protocol, "Vacuum" and "Metadata Cleanup". A data file may go if the newest version does
//! not name it, if no remove of the last `retention` does (a reader may be pinned at a version before
//! it), and if it is itself older than that, by [`CLOCKS_US`] (a writer may be about to commit it: the table's cut-off
//! keeps it from that, see `commit`). Of the log everything may
//! go that lies before a whole checkpoint and is, like that checkpoint, older than `retention`: every version of that
//! time can still be read. Folders that start with `_` or `.` are others' and stay.
//!
//! Only reads; two listings and the newest checkpoint, however long the history.

use std::collections::HashSet;

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore};

use super::{Listing, LogState, checkpoint, read_commit};
use crate::{Lake, LakeError, TableName};

/// So far the clock by which a writer dates its files and the store's, by which they are listed, may differ.
const CLOCKS_US: i64 = 10 * 60 * 1_000_000;

/// What may be removed from a table's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// Data files.
    pub files: Vec<ObjectMeta>,
    /// Commits and checkpoints.
    pub log: Vec<ObjectMeta>,
}

/// Finds what may go of what was written and removed before a moment. The table may move on meanwhile.
///
/// # Errors
/// [`LakeError`]; nothing was found then.
pub(crate) async fn find(lake: &Lake, table: TableName, before_us: i64) -> Result<Expired, LakeError> {
    // First what is there, then who needs it: what is committed in between is in the log that is read after.
    let present = data_files(lake, table).await?;
    let listing = Listing::of(lake, table, None).await?;
    let needed = needed_files(lake, table, &listing, before_us).await?;
    let folder = tjern_readings::keys::table(table.as_str());
    let is_needed = |meta: &ObjectMeta| {
        let Some(parts) = meta.location.prefix_match(&folder) else { return true };
        needed.contains(&parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"))
    };
    let written_before_us = before_us.saturating_sub(CLOCKS_US);
    let files = present.into_iter().filter(|meta| is_older(meta, written_before_us) && !is_needed(meta)).collect();
    Ok(Expired { files, log: expired_log(&listing, before_us) })
}

/// What of the log lies before a version; nothing where that has no whole checkpoint, so that it is still needed.
///
/// # Errors
/// [`LakeError`].
pub(crate) async fn log_before(lake: &Lake, table: TableName, version: i64) -> Result<Vec<ObjectMeta>, LakeError> {
    let listing = Listing::of(lake, table, None).await?;
    if listing.newest_checkpoint_where(|one| one == version).is_none() {
        return Ok(Vec::new());
    }
    Ok(listing.versioned.into_iter().filter(|(one, _)| *one < version).map(|(_, meta)| meta).collect())
}

fn is_older(meta: &ObjectMeta, before_us: i64) -> bool {
    meta.last_modified.timestamp_micros() < before_us
}

/// The data files in a table's folder, whoever names them.
pub(crate) async fn data_files(lake: &Lake, table: TableName) -> Result<Vec<ObjectMeta>, LakeError> {
    let folder = tjern_readings::keys::table(table.as_str());
    let metas: Vec<ObjectMeta> =
        lake.objects().list(Some(&folder)).try_collect().await.map_err(|source| LakeError::store(&folder, source))?;
    let is_data = |meta: &ObjectMeta| {
        let hidden = |part: &str| part.starts_with(['_', '.']);
        meta.location.prefix_match(&folder).is_some_and(|mut parts| !parts.any(|part| hidden(part.as_ref())))
    };
    Ok(metas.into_iter().filter(is_data).collect())
}

/// The files of the newest version, and those that were removed since `before_us`.
async fn needed_files(
    lake: &Lake,
    table: TableName,
    listing: &Listing,
    before_us: i64,
) -> Result<HashSet<String>, LakeError> {
    let mut state = LogState::empty(table);
    let mut removed = Vec::new();
    if let Some((version, parts)) = listing.newest_checkpoint() {
        for part in parts {
            checkpoint::apply(&mut state, lake, part).await?;
            removed.extend(checkpoint::removed(&state, lake, part).await?);
        }
        state.version = version;
    }
    for (version, meta) in listing.commits.range(state.version + 1..) {
        let entries = read_commit(lake, table, &meta.location).await?;
        removed.extend(entries.removed.iter().cloned());
        state.apply(entries);
        state.version = *version;
    }
    let recent = removed.into_iter().filter(|one| one.at_ms.is_none_or(|at_ms| at_ms >= before_us / 1_000));
    Ok(state.files.into_keys().chain(recent.map(|one| one.path)).collect())
}

fn expired_log(listing: &Listing, before_us: i64) -> Vec<ObjectMeta> {
    let is_old = |version: i64| {
        let mut of_version = listing.versioned.iter().filter(|(one, _)| *one == version);
        of_version.all(|(_, meta)| is_older(meta, before_us))
    };
    let Some((kept, _)) = listing.newest_checkpoint_where(is_old) else { return Vec::new() };
    let expired = listing.versioned.iter().filter(|(version, meta)| *version < kept && is_older(meta, before_us));
    expired.map(|(_, meta)| meta.clone()).collect()
}
