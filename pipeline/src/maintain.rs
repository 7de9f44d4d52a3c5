//! Maintenance that is neither compaction nor vacuum: checkpoints, and readings that have been kept long enough.
//!
//! Both find out first what is to be done, and with `dry_run` do no more than that.
//!
//! Retention removes whole files, those whose newest reading is older than readings shall stay; compaction makes files
//! of at most a year, a month in the last two years, so a reading may stay that much longer. Hours and days that were
//! summed up stay: the commit says with `txn("retention", time of the newest reading that ever went)` which windows may lack readings, and
//! these are closed (decision 0024). A file that rollups have not seen yet stays until the next run, so that nothing goes before it
//! is summed up. Vacuum takes the files themselves a day later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tjern_lake::rollup::{RETENTION_TRANSACTION, VERSION_TRANSACTION};
use tjern_lake::{Commit, CommitError, DataFile, Lake, LakeError, Operation, Table, TableName};

use crate::correct::utc;
use crate::tables::ATTEMPTS_MAX;

/// How many commits after its checkpoint a log gets a new one, sooner than commits themselves make one.
pub const CHECKPOINT_COMMITS: i64 = 20;

/// A log that got a checkpoint, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpointed {
    /// Which table.
    pub table: TableName,
    /// The version that it is of.
    pub version: i64,
    /// The version of the one before, if there was one.
    pub former: Option<i64>,
}

/// Writes a checkpoint for every table that has made [`CHECKPOINT_COMMITS`] commits since its last; `dry_run` only
/// says for which.
///
/// # Errors
/// [`LakeError`]. A checkpoint that is written twice is the same. A damaged log of hours or days is told when the other tables
/// are done.
pub async fn checkpoint(lake: &Lake, dry_run: bool) -> Result<Vec<Checkpointed>, LakeError> {
    let (mut made, mut damaged) = (Vec::new(), None);
    for name in TableName::ALL {
        let mut table = match Table::open(lake, name).await {
            Err(error) if error.is_of_rollups() => {
                damaged.get_or_insert(error);
                continue;
            }
            opened => match opened? {
                Some(table) => table,
                None => continue,
            },
        };
        let former = table.newest_checkpoint().await?;
        if table.version() - former.unwrap_or(-1) <= CHECKPOINT_COMMITS {
            continue;
        }
        if !dry_run {
            table.write_checkpoint().await?;
        }
        made.push(Checkpointed { table: name, version: table.version(), former });
    }
    damaged.map_or(Ok(made), Err)
}

/// Why readings that are too old were not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetainError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The commit failed for another reason than somebody else's.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Others committed all the time.
    #[error("others committed {ATTEMPTS_MAX} times while old readings were to be removed; hint: run it again")]
    Busy,
}

/// Removes the files of `readings` in which every reading is older than `keep` and summed up, where there are rollups;
/// `dry_run` only says which those are.
///
/// # Errors
/// [`RetainError`]; nothing was removed then.
pub async fn retain(lake: &Lake, keep: Duration, dry_run: bool) -> Result<Vec<DataFile>, RetainError> {
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else { return Ok(Vec::new()) };
    let keep_us = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let before_us = lake.clock().now_us().saturating_sub(keep_us);
    for _ in 0..ATTEMPTS_MAX {
        let new = not_summed_up(lake, &table).await?;
        let is_old = |file: &DataFile| file.time_us.is_some_and(|(_, last_us)| last_us < before_us);
        let old = table.files().into_iter().filter(is_old);
        let (waiting, old): (Vec<_>, Vec<_>) = old.partition(|file| new.contains(&file.path));
        if !waiting.is_empty() {
            tracing::warn!(
                files = waiting.len(),
                "readings that are too old stay until they are summed up; hint: does the job `rollup` run?"
            );
        }
        let Some(newest_us) = old.iter().filter_map(|file| file.time_us).map(|(_, last_us)| last_us).max() else {
            return Ok(old);
        };
        if dry_run {
            return Ok(old);
        }
        let newest_us = table.transaction(RETENTION_TRANSACTION).map_or(newest_us, |before| before.max(newest_us));
        let commit = Commit {
            operation: Operation::Retention,
            add: Vec::new(),
            remove: old.clone(),
            transactions: vec![(RETENTION_TRANSACTION.to_owned(), newest_us)],
            notes: BTreeMap::from([("tjern.before".to_owned(), before_us.into())]),
        };
        match table.commit(commit).await {
            Ok(_) => return Ok(old),
            // What was added meanwhile may be old too, and what is gone need not go.
            Err(CommitError::Conflict { .. }) => drop(table.refresh().await?),
            Err(error) => return Err(error.into()),
        }
    }
    Err(RetainError::Busy)
}

/// The files of `readings` that have rows which came or were judged since its rollups were made. Without rollups nobody sums up, and
/// nothing is waited for. What was merged since is taken for new as soon as anything new may be in it; a person's word changes no sum.
async fn not_summed_up(lake: &Lake, readings: &Table) -> Result<BTreeSet<String>, LakeError> {
    let mut seen: Option<i64> = None;
    for name in [TableName::Hourly, TableName::Daily] {
        let version = Table::open(lake, name).await?.and_then(|table| table.transaction(VERSION_TRANSACTION));
        seen = version.map(|version| seen.map_or(version, |seen| seen.min(version))).or(seen);
    }
    let Some(seen) = seen.filter(|seen| *seen < readings.version()) else { return Ok(BTreeSet::new()) };
    let mut changes = readings.changes_since_but(seen, &[Operation::Compact, Operation::Validate]).await?;
    if !changes.gone.is_empty() {
        changes = readings.changes_since_but(seen, &[]).await?;
    }
    Ok(changes.added.into_iter().map(|file| file.path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW_US, Place, Row};

    const DAY_US: i64 = 24 * 3_600_000_000;
    const DAY: Duration = Duration::from_secs(24 * 3_600);

    #[tokio::test]
    async fn old_readings_go_and_a_dry_run_only_says_so() {
        let place = Place::new();
        for days in [0, 5, 20, 30] {
            place.ingest(&[Row::new("sample", NOW_US - days * DAY_US, 1.0)]).await;
        }
        // One file over the border stays whole.
        place.ingest(&[Row::new("sample", NOW_US - 40 * DAY_US, 1.0), Row::new("sample", NOW_US, 1.0)]).await;
        let told = retain(&place.lake, DAY * 10, true).await.expect("looked");
        assert_eq!((told.len(), place.readings().await.len()), (2, 6));
        assert_eq!(retain(&place.lake, DAY * 10, false).await.expect("removed"), told);
        assert_eq!(place.readings().await.len(), 4);
        assert_eq!(retain(&place.lake, DAY * 10, false).await.expect("again"), []);
    }

    /// A year of hours that was summed up must not go because its readings did.
    #[tokio::test]
    async fn what_was_summed_up_stays() {
        let place = Place::new();
        place.register(&["sample,Cel,sample,public,,"]).await;
        for days in [1, 400] {
            place.ingest(&[Row::new("sample", NOW_US - days * DAY_US, 4.0).quality(1)]).await;
        }
        let oslo = jiff::tz::TimeZone::get("Europe/Oslo").expect("known");
        crate::rollup::rollup(&place.lake, &oslo).await.expect("summed up");
        let before = place.rows(TableName::Daily).await;
        retain(&place.lake, DAY * 365, false).await.expect("removed");
        place.ingest(&[Row::new("sample", NOW_US - DAY_US + 1, 4.0).quality(1)]).await;
        crate::rollup::rollup(&place.lake, &oslo).await.expect("summed up");
        assert_eq!((place.readings().await.len(), before.num_rows()), (2, 2));
        assert_eq!(place.rows(TableName::Daily).await.num_rows(), 2);
    }

    #[tokio::test]
    async fn a_log_gets_a_checkpoint_and_says_the_same() {
        let place = Place::new();
        for round in 0..30 {
            place.ingest(&[Row::new("sample", NOW_US + round, 1.0)]).await;
        }
        let wanted = [Checkpointed { table: TableName::Readings, version: 30, former: None }];
        assert_eq!(checkpoint(&place.lake, true).await.expect("looked"), wanted);
        assert_eq!(checkpoint(&place.lake, false).await.expect("written"), wanted);
        assert_eq!(checkpoint(&place.lake, false).await.expect("again"), []);
        let log = place.folder.path().join("lake/tables/readings/_delta_log");
        for version in 0..=30 {
            std::fs::remove_file(log.join(format!("{version:020}.json"))).expect("there");
        }
        assert_eq!(place.readings().await.len(), 30, "read from the checkpoint alone");
    }
}
