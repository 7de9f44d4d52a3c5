//! A backup brought back into a lake that lost its tables, its landing zone, or both.
//!
//! It only creates: what lies in the lake stays, and a table that is there is never replaced. So landed batches that came
//! after the backup are still there, and ingest takes them once the tables are back: it goes on from the progress that
//! stands in them. Files are put before logs; until everything is there the lake has `jobs/restore.json`, and who works on
//! lakes refuses it ([`refuse_unfinished`]). A restore that broke off goes on when it is run again.
//!
//! A backup from before an erasure has what was erased. So the lake's erasures are gone through again before anybody may work on it.
//! Limit: an erasure that only the lost lake knew of is gone with it; what a backup has is what was known when it was made.

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde_json::{Value, json};
use tjern_lake::{Lake, LakeError, Table, TableName};
use tjern_readings::keys;
use tjern_readings::store::Store;

use super::manifest::{Entry, Header, Manifest};
use super::{BackupError, COPIES_AT_ONCE, Watcher, copy, refuse_within, whose};
use crate::correct::utc;
use crate::erase::{EraseOutcome, EraseSettings, Erasures, Wait, go_on};

/// What of a backup is brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Everything,
    /// What lies in the landing zone and in quarantine.
    Landing,
    /// The tables, and the records of corrections.
    Tables,
}

impl Part {
    fn has(self, key: &str) -> bool {
        let first = key.split('/').next().unwrap_or_default();
        match self {
            Self::Everything => true,
            Self::Landing => [keys::LANDING, keys::QUARANTINE].contains(&first),
            // Whatever else there is, but releases, says what the tables are.
            Self::Tables => ![keys::LANDING, keys::QUARANTINE, keys::OPEN].contains(&first),
        }
    }
}

/// What a restore did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreOutcome {
    /// Which backup.
    pub backup: Header,
    /// Objects that were put; of a dry run, those that the backup has.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were there already.
    pub there: usize,
    /// What the lake's erasures took out of what was brought back.
    pub erased: EraseOutcome,
}

impl RestoreOutcome {
    fn of(backup: Header) -> Self {
        Self { backup, objects: 0, bytes: 0, there: 0, erased: EraseOutcome::default() }
    }
}

/// A restore that was not finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnfinishedError {
    /// The mark is there.
    #[error(
        "a restore of backup {backup} into this lake is not finished; hint: run `tjern pipeline restore` again, it goes on where it was"
    )]
    Unfinished {
        /// Of which backup.
        backup: String,
    },
    /// The store failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
}

/// Refuses a lake in which a restore is not finished: its tables are not whole.
///
/// # Errors
/// [`UnfinishedError`].
pub async fn refuse_unfinished(lake: &Lake) -> Result<(), UnfinishedError> {
    match begun(lake).await? {
        Some(Begun { backup, .. }) => Err(UnfinishedError::Unfinished { backup }),
        None => Ok(()),
    }
}

/// Brings a backup back; without `id` the newest. With `dry_run` it only looks. What was erased is erased again as `erasing` says.
///
/// # Errors
/// [`BackupError`]. What was put stays, and the next run goes on.
pub async fn restore(
    lake: &Lake,
    target: &Store,
    id: Option<&str>,
    part: Part,
    dry_run: bool,
    erasing: &EraseSettings,
    watcher: Watcher<'_>,
) -> Result<RestoreOutcome, BackupError> {
    refuse_within(lake, target.url())?;
    let begun = begun(lake).await?;
    let manifest = match (id, &begun) {
        (Some(id), Some(Begun { backup, .. })) if id != backup => {
            return Err(BackupError::Another { begun: backup.clone() });
        }
        (Some(id), _) => Manifest::read(target, id).await?,
        (None, Some(Begun { backup, .. })) => Manifest::read(target, backup).await?,
        (None, None) => whose::newest_to_restore(lake, target).await?,
    };
    whose::refuse_other_kind(&manifest.header, lake, target)?;
    let Manifest { header, entries } = manifest;
    let id = header.id.clone();
    let entries: Vec<Entry> = entries.into_iter().filter(|entry| part.has(&entry.key)).collect();
    let has_tables = entries.iter().any(|entry| entry.key.starts_with(keys::TABLES));
    if begun.is_none() && has_tables {
        refuse_tables(lake).await?;
    }
    let bytes = entries.iter().map(|entry| entry.bytes).sum();
    if dry_run {
        return Ok(RestoreOutcome { objects: entries.len(), bytes, ..RestoreOutcome::of(header) });
    }
    let mut outcome = RestoreOutcome::of(header);
    // What is erased again is not what the backup has any more: it is copied once.
    if !begun.is_some_and(|begun| begun.is_copied) {
        if has_tables {
            mark(lake, &id).await?;
        }
        bring_back(lake, target, entries, bytes, watcher, &mut outcome).await?;
        if has_tables {
            check(lake, &outcome.backup).await?;
            mark_copied(lake, &id).await?;
        }
    }
    outcome.erased = erase_again(lake, erasing).await?;
    if has_tables {
        unmark(lake).await?;
    }
    Ok(outcome)
}

/// Puts what is not there, logs after all else.
async fn bring_back(
    lake: &Lake,
    target: &Store,
    entries: Vec<Entry>,
    bytes: u64,
    watcher: Watcher<'_>,
    outcome: &mut RestoreOutcome,
) -> Result<(), BackupError> {
    let mut done = 0;
    let (logs, objects): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key.contains("/_delta_log/"));
    for entries in [objects, logs] {
        let copying: Vec<BoxFuture<'_, _>> =
            entries.iter().map(|entry| brought_back(lake, target, entry).boxed()).collect();
        let mut copying = futures::stream::iter(copying).buffered(COPIES_AT_ONCE);
        while let Some((size, was_put)) = copying.try_next().await? {
            done += size;
            watcher(done, bytes);
            if was_put {
                (outcome.objects, outcome.bytes) = (outcome.objects + 1, outcome.bytes + size);
            } else {
                outcome.there += 1;
            }
        }
    }
    Ok(())
}

/// Takes out what was erased, wherever it came back to. Before tables are there they say nothing of it, and nobody answers from them.
async fn erase_again(lake: &Lake, erasing: &EraseSettings) -> Result<EraseOutcome, BackupError> {
    if Table::open(lake, TableName::Readings).await?.is_none() {
        return Ok(EraseOutcome::default());
    }
    let failed = |what: String| BackupError::Erased { what };
    if Erasures::load(lake).await.map_err(|error| failed(error.to_string()))?.all().is_empty() {
        return Ok(EraseOutcome::default());
    }
    let outcome = Box::pin(go_on(lake, erasing, true)).await;
    let outcome = outcome.map_err(|error| failed(error.to_string()))?;
    if outcome.held_elsewhere {
        let first = outcome.waits.first();
        let why = first.map(|Wait { what, why, .. }| format!("{what} wait: {why}"));
        return Err(failed(why.unwrap_or_else(|| "another process is erasing".to_owned())));
    }
    Ok(outcome)
}

/// An object's bytes, and whether it was put.
async fn brought_back(lake: &Lake, target: &Store, entry: &Entry) -> Result<(u64, bool), BackupError> {
    Ok((entry.bytes, copy::to_lake(lake, target, entry).await?))
}

/// A table that is there is somebody's.
async fn refuse_tables(lake: &Lake) -> Result<(), BackupError> {
    for name in TableName::ALL {
        let folder = keys::table(name.as_str());
        let first = lake.store().objects().list(Some(&folder)).next().await.transpose();
        if first.map_err(|source| LakeError::store(&folder, source))?.is_some() {
            return Err(BackupError::Taken { table: name.to_string() });
        }
    }
    Ok(())
}

/// Every table can be opened, at its version and with its files.
async fn check(lake: &Lake, backup: &Header) -> Result<(), BackupError> {
    for name in TableName::ALL {
        let Some(wanted) = backup.tables.get(name.as_str()) else { continue };
        let version = Table::open(lake, name).await?.map(|table| table.version());
        if version != Some(*wanted) {
            let found = version.map_or_else(
                || "there is no table".to_owned(),
                |version| format!("it is at version {version}, and not {wanted}"),
            );
            return Err(BackupError::Other {
                key: keys::table(name.as_str()).to_string(),
                what: "manifest",
                found,
                hint: "is somebody at work on this lake? Stop the pipeline, move `tables/` away, and restore again",
            });
        }
    }
    Ok(())
}

/// A restore that was begun and not finished.
#[derive(Debug)]
struct Begun {
    /// Of which backup.
    backup: String,
    /// Whether all of it is there, and only what was erased is not out of it.
    is_copied: bool,
}

/// Which restore was begun and not finished.
async fn begun(lake: &Lake) -> Result<Option<Begun>, LakeError> {
    let key = keys::restore_mark();
    let failed = |source| LakeError::store(&key, source);
    let text = match lake.store().objects().get(&key).await {
        Err(Error::NotFound { .. }) => return Ok(None),
        found => found.map_err(failed)?.bytes().await.map_err(failed)?,
    };
    let mark: Value = serde_json::from_slice(&text).unwrap_or_default();
    let backup = mark["backup"].as_str().unwrap_or("of unknown name").to_owned();
    Ok(Some(Begun { backup, is_copied: mark["copied"] == json!(true) }))
}

async fn mark(lake: &Lake, id: &str) -> Result<(), LakeError> {
    let key: Path = keys::restore_mark();
    let text = json!({ "backup": id, "began": utc(lake.clock().now_us()) }).to_string();
    match lake.store().objects().put_opts(&key, PutPayload::from(text), PutMode::Create.into()).await {
        // Ours, of a run that broke off: another's was refused before.
        Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
        Err(source) => Err(LakeError::store(key, source)),
    }
}

/// Says that all of it is there.
async fn mark_copied(lake: &Lake, id: &str) -> Result<(), LakeError> {
    let key: Path = keys::restore_mark();
    let text = json!({ "backup": id, "began": utc(lake.clock().now_us()), "copied": true }).to_string();
    let put = lake.store().objects().put(&key, PutPayload::from(text)).await;
    put.map(drop).map_err(|source| LakeError::store(key, source))
}

async fn unmark(lake: &Lake) -> Result<(), LakeError> {
    let key = keys::restore_mark();
    match lake.store().objects().delete(&key).await {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(source) => Err(LakeError::store(key, source)),
    }
}
