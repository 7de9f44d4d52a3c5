//! What lies in the folder of a log: its commits and its checkpoints, by one listing.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use crate::{Lake, LakeError, TableName};

/// What tells a commit from another one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    bytes: u64,
    pub(super) modified_us: i64,
}

impl From<&ObjectMeta> for Tip {
    fn from(meta: &ObjectMeta) -> Self {
        Self { bytes: meta.size, modified_us: meta.last_modified.timestamp_micros() }
    }
}

/// The folder of a table's log.
pub(super) fn log_folder(table: TableName) -> Path {
    tjern_readings::keys::table(table.as_str()).join("_delta_log")
}

/// What a listing of a log shows.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) commits: BTreeMap<i64, ObjectMeta>,
    checkpoints: BTreeMap<i64, Vec<(u32, u32, Path)>>,
    /// Everything that is of some version, as the store lists it.
    pub(super) versioned: Vec<(i64, ObjectMeta)>,
}

impl Listing {
    pub(super) async fn of(lake: &Lake, table: TableName, after: Option<i64>) -> Result<Self, LakeError> {
        let folder = log_folder(table);
        let objects = lake.objects();
        let mut metas = match after {
            // "_" sorts after the digits, so this leaves out nothing but what is old.
            Some(version) => {
                objects.list_with_offset(Some(&folder), &folder.clone().join(format!("{version:020}.json")))
            }
            None => objects.list(Some(&folder)),
        };
        let mut listing = Self::default();
        let failed = |source| LakeError::store(&folder, source);
        while let Some(meta) = metas.try_next().await.map_err(failed)? {
            listing.add(meta);
        }
        Ok(listing)
    }

    fn add(&mut self, meta: ObjectMeta) {
        let key = meta.location.clone();
        let Some(name) = key.filename() else { return };
        let Some((version, kind)) = name.split_once('.') else { return };
        let Some(version) = (version.len() == 20).then(|| version.parse().ok()).flatten() else { return };
        self.versioned.push((version, meta.clone()));
        match kind.split('.').collect::<Vec<_>>().as_slice() {
            ["json"] => drop(self.commits.insert(version, meta)),
            ["checkpoint", "parquet"] => self.checkpoints.entry(version).or_default().push((1, 1, key)),
            ["checkpoint", part, parts, "parquet"] => {
                if let (Ok(part), Ok(parts)) = (part.parse(), parts.parse()) {
                    self.checkpoints.entry(version).or_default().push((part, parts, key));
                }
            }
            _ => {}
        }
    }

    /// Versions that are not there although one before and one after them are.
    pub(super) fn missing_versions(&self) -> Vec<i64> {
        let first = self.commits.keys().next().copied().unwrap_or(0);
        let last = self.commits.keys().next_back().copied().unwrap_or(first);
        (first..=last).filter(|version| !self.commits.contains_key(version)).collect()
    }

    pub(super) fn newest_version(&self) -> Option<i64> {
        self.commits.keys().next_back().copied()
    }

    /// The objects of all checkpoints.
    pub(super) fn checkpoint_parts(&self) -> impl Iterator<Item = &Path> {
        self.checkpoints.values().flatten().map(|(_, _, key)| key)
    }

    /// The newest checkpoint of which every part is there.
    pub(super) fn newest_checkpoint(&self) -> Option<(i64, Vec<&Path>)> {
        self.newest_checkpoint_where(|_| true)
    }

    /// The newest of those of which every part is there whose version is one of these.
    pub(super) fn newest_checkpoint_where(&self, fits: impl Fn(i64) -> bool) -> Option<(i64, Vec<&Path>)> {
        let whole = |parts: &[(u32, u32, Path)]| -> Option<Vec<Path>> {
            let count = parts.iter().map(|(_, count, _)| *count).max()?;
            let chosen = (1..=count).map(|part| parts.iter().find(|(one, all, _)| *one == part && *all == count));
            chosen.map(|found| found.map(|(_, _, key)| key.clone())).collect()
        };
        let (version, parts) =
            self.checkpoints.iter().rev().find(|(version, parts)| fits(**version) && whole(parts).is_some())?;
        let count = parts.iter().map(|(_, count, _)| *count).max()?;
        let mut chosen: Vec<_> = parts.iter().filter(|(_, all, _)| *all == count).collect();
        chosen.sort_by_key(|(part, _, _)| *part);
        Some((*version, chosen.into_iter().map(|(_, _, key)| key).collect()))
    }
}

/// The commits after `after` up to `until`, oldest first: version, what tells it from another one, and key. None
/// where one of them is not there any more.
pub(crate) async fn commits_listed(
    lake: &Lake,
    table: TableName,
    after: i64,
    until: i64,
) -> Result<Option<Vec<(i64, Tip, Path)>>, LakeError> {
    let listing = Listing::of(lake, table, Some(after)).await?;
    let commit =
        |version: i64| listing.commits.get(&version).map(|meta| (version, Tip::from(meta), meta.location.clone()));
    Ok((after + 1..=until).map(commit).collect())
}

/// The version of the newest checkpoint of which every part is there.
pub(crate) async fn newest_checkpoint(lake: &Lake, table: TableName) -> Result<Option<i64>, LakeError> {
    let listing = Listing::of(lake, table, None).await?;
    Ok(listing.newest_checkpoint().map(|(version, _)| version))
}

/// The objects of a log that are of some version up to this one: with them, and the files that it names, it can be read.
pub(crate) async fn objects_up_to(lake: &Lake, table: TableName, version: i64) -> Result<Vec<ObjectMeta>, LakeError> {
    let versioned = Listing::of(lake, table, None).await?.versioned;
    Ok(versioned.into_iter().filter(|(of, _)| *of <= version).map(|(_, meta)| meta).collect())
}
