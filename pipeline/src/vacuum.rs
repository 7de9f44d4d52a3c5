//! Vacuum: what no version of the last `retention` needs any more leaves the tables' folders.
//!
//! Compaction and rollups leave their old files behind, because somebody may be reading them, and each
//! commit leaves an object in the log. This job removes both when they are old enough ([`Table::expired`] says
//! which those are). It takes no lease: two at once remove the same objects, and what is gone is gone.
//! A dry run finds the same and removes nothing.
//!
//! What was written and is not committed yet is somebody's work, or was left behind by one that was killed. Whoever
//! holds a lease is at work: nothing that was written since is taken, however long a merge lasts. And before anything
//! is removed, how old it is stands in the table's log ([`Table::cut_off`]): a writer that comes with an older file
//! after all (one that held no lease, or lost it while its machine slept) is refused, and writes it again. All of that goes by this
//! machine's clock: the job asks first whether it is ahead of the store's ([`refuse_a_clock_ahead`]).
//!
//! Limits: the listing of a table's folder is held in memory.

use std::time::Duration;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};
use tjern_lake::{CommitError, Lake, LakeError, Lease, Table, TableName};

use crate::tables::ATTEMPTS_MAX;

/// What became of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableVacuum {
    /// Which table.
    pub table: TableName,
    /// The data files that went (or would go), by their keys.
    pub files: Vec<Path>,
    /// The commits and checkpoints that went (or would go), by their keys.
    pub log: Vec<Path>,
    /// How many bytes they held.
    pub bytes: u64,
}

/// Why not everything was removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VacuumError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// It could not be said in a table's log what may go.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// This machine's clock is ahead.
    #[error(
        "this machine's clock is {minutes} min ahead of the store's: nothing was removed; hint: set the clock. What is about to be committed would count as old"
    )]
    Ahead {
        /// By so much.
        minutes: i64,
    },
}

/// How far this machine's clock may be ahead of the store's, which dates files.
const AHEAD_MAX_US: i64 = 10 * 60 * 1_000_000;

/// Refuses a clock that is ahead of the store's: an object is put, and its date looked at.
///
/// # Errors
/// [`VacuumError::Ahead`], [`VacuumError::Lake`].
pub async fn refuse_a_clock_ahead(lake: &Lake) -> Result<(), VacuumError> {
    let key = Path::from(tjern_readings::keys::JOBS).join("vacuum.clock");
    let failed = |source| LakeError::store(&key, source);
    lake.objects().put(&key, "what time it is here".into()).await.map_err(failed)?;
    let dated_us = lake.objects().head(&key).await.map_err(failed)?.last_modified.timestamp_micros();
    let ahead_us = lake.clock().now_us().saturating_sub(dated_us);
    if ahead_us > AHEAD_MAX_US { Err(VacuumError::Ahead { minutes: ahead_us / 60_000_000 }) } else { Ok(()) }
}

/// Removes what nobody needs any more who reads a version of the last `retention`, from every table.
/// `dry_run` only says what that is.
///
/// # Errors
/// [`VacuumError`]. What was removed before stays so, and the rest is removed by the next run. A damaged log of hours or days is told
/// when the other tables are done.
pub async fn vacuum(lake: &Lake, retention: Duration, dry_run: bool) -> Result<Vec<TableVacuum>, VacuumError> {
    let retention_us = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    let retained_us = lake.clock().now_us().saturating_sub(retention_us);
    let before_us = Lease::oldest_since_us(lake).await?.map_or(retained_us, |since_us| since_us.min(retained_us));
    let (mut outcomes, mut damaged) = (Vec::new(), None);
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
        let mut expired = table.expired(before_us).await?;
        if !dry_run && !expired.files.is_empty() {
            cut_off(&mut table, before_us).await?;
            // Who committed before that has what it committed.
            expired = table.expired(before_us).await?;
        }
        let bytes = expired.files.iter().chain(&expired.log).map(|meta| meta.size).sum();
        let keys = |metas: Vec<ObjectMeta>| metas.into_iter().map(|meta| meta.location).collect::<Vec<_>>();
        let outcome = TableVacuum { table: name, files: keys(expired.files), log: keys(expired.log), bytes };
        if !dry_run {
            // Oldest commits first: a run that breaks off leaves a log that begins somewhere, without a hole.
            let mut log = outcome.log.clone();
            log.sort();
            remove(lake, outcome.files.clone()).await?;
            remove(lake, log).await?;
        }
        outcomes.push(outcome);
    }
    damaged.map_or(Ok(outcomes), |error| Err(error.into()))
}

/// Says in a table's log what may go, also where others commit meanwhile.
async fn cut_off(table: &mut Table, before_us: i64) -> Result<(), VacuumError> {
    for _ in 1..ATTEMPTS_MAX {
        match table.cut_off(before_us).await {
            Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
            done => return Ok(done?),
        }
    }
    Ok(table.cut_off(before_us).await?)
}

/// Removes objects; those that are gone are gone.
pub(crate) async fn remove(lake: &Lake, keys: Vec<Path>) -> Result<(), LakeError> {
    let locations = futures::stream::iter(keys.into_iter().map(Ok)).boxed();
    let mut removed = lake.objects().delete_stream(locations);
    while let Some(result) = removed.next().await {
        match result {
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(source) => return Err(LakeError::store("tables", source)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Place, Row, batch_of, commit};
    use tjern_lake::{DataFile, Operation, write_file};
    use tjern_readings::clock::Clock;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const MINUTE_US: i64 = 60_000_000;

    /// Objects carry the disk's own times, so these tests live by the system's clock and go ahead of it.
    async fn lived_in() -> Place {
        let place = Place::new();
        place.clock.set_us(Clock::system().now_us());
        for round in 0..60 {
            place.ingest(&[Row::new("sample", place.clock.now_us() + round * MINUTE_US, 1.0)]).await;
        }
        place.compact().await;
        place
    }

    fn ahead(place: &Place, by: Duration) {
        place.clock.set_us(place.clock.now_us() + i64::try_from(by.as_micros()).expect("small"));
    }

    /// A clock that is ahead took files that were about to be committed, and said in the log that all was old that others would write.
    #[tokio::test]
    async fn a_clock_that_is_ahead_of_the_stores_is_refused() {
        let place = lived_in().await;
        refuse_a_clock_ahead(&place.lake).await.expect("it is right");
        ahead(&place, DAY * 2);
        let refused = refuse_a_clock_ahead(&place.lake).await.expect_err("two days ahead").to_string();
        assert!(refused.contains("min ahead of the store"), "{refused}");
    }

    /// The moment up to which files count as taken lay in the future where an earlier version ran under a clock that was ahead: every
    /// file that anybody wrote was refused until it came.
    #[tokio::test]
    async fn a_word_of_the_future_keeps_nobody_from_writing() {
        let place = lived_in().await;
        ahead(&place, 400 * DAY);
        let went = vacuum(&place.lake, DAY, false).await.expect("done");
        assert!(!went[0].files.is_empty(), "it says what it takes");
        place.clock.set_us(Clock::system().now_us());
        place.ingest(&[Row::new("sample", place.clock.now_us(), 2.0)]).await;
        assert_eq!(place.readings().await.len(), 61);
        vacuum(&place.lake, DAY, false).await.expect("done");
    }

    async fn of_readings(place: &Place, dry_run: bool) -> TableVacuum {
        vacuum(&place.lake, DAY, dry_run).await.expect("done").swap_remove(0)
    }

    #[tokio::test]
    async fn what_was_compacted_a_moment_ago_stays_for_those_who_read_it() {
        let place = lived_in().await;
        let pinned = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
        let outcome = of_readings(&place, false).await;
        assert_eq!((outcome.files.len(), outcome.log.len()), (0, 0));
        ahead(&place, DAY / 2);
        assert_eq!(of_readings(&place, false).await.files.len(), 0);
        assert_eq!(place.readings().await.len(), 60);
        assert_eq!(pinned.files().len(), 1);
    }

    #[tokio::test]
    async fn after_a_day_the_old_files_and_the_log_before_the_checkpoint_go_and_no_row() {
        let place = lived_in().await;
        ahead(&place, DAY + Duration::from_secs(3_600));
        let told = of_readings(&place, true).await;
        assert_eq!((told.files.len(), told.log.len()), (60, 49), "a checkpoint stands at version 49");
        assert_eq!(of_readings(&place, true).await, told, "a dry run removes nothing");
        assert_eq!(of_readings(&place, false).await, told);
        assert_eq!(place.readings().await.len(), 60);
        let again = of_readings(&place, false).await;
        assert_eq!((again.files.len(), again.log.len(), again.bytes), (0, 0, 0));
        place.ingest(&[Row::new("sample", place.clock.now_us() + 100 * MINUTE_US, 1.0)]).await;
        assert_eq!(place.readings().await.len(), 61);
    }

    /// What a writer has written and not yet committed is nobody's waste, until it is a day old.
    #[tokio::test]
    async fn a_file_that_nobody_named_yet_is_given_a_day() {
        let place = lived_in().await;
        let stray = place.folder.path().join("lake/tables/readings/stray.parquet");
        std::fs::write(&stray, b"rows").expect("written");
        std::fs::create_dir(place.folder.path().join("lake/tables/readings/_theirs")).expect("made");
        std::fs::write(place.folder.path().join("lake/tables/readings/_theirs/x"), b"x").expect("written");
        of_readings(&place, false).await;
        assert!(stray.exists());
        ahead(&place, DAY + Duration::from_secs(3_600));
        of_readings(&place, false).await;
        assert!(!stray.exists());
        assert!(place.folder.path().join("lake/tables/readings/_theirs/x").exists());
    }

    /// A removal of the last day counts also where only a checkpoint still tells of it.
    #[tokio::test]
    async fn a_late_removal_counts_from_its_own_time() {
        let place = lived_in().await;
        ahead(&place, DAY * 2);
        for round in 0..55 {
            place.ingest(&[Row::new("state", place.clock.now_us() + round * MINUTE_US, 1.0)]).await;
        }
        place.compact().await;
        let compacted = place.clock.now_us();
        for round in 0..55 {
            place.ingest(&[Row::new("angle", place.clock.now_us() + round * MINUTE_US, 1.0)]).await;
        }
        assert_eq!(of_readings(&place, true).await.files.len(), 60, "not those that were removed just now");
        place.clock.set_us(compacted);
        ahead(&place, DAY + Duration::from_secs(60));
        assert_eq!(of_readings(&place, true).await.files.len(), 60 + 55 + 1);
    }

    async fn written(place: &Place) -> DataFile {
        let rows = batch_of(&[Row::new("sample", place.clock.now_us(), 7.0)]);
        write_file(&place.lake, TableName::Readings, &[rows]).await.expect("written")
    }

    async fn readings(place: &Place) -> Table {
        Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there")
    }

    /// A merge of years takes longer than a day. Its first files are days old when it commits, and vacuum came by.
    #[tokio::test]
    async fn what_the_holder_of_a_lease_has_written_is_left_however_long_it_works() {
        let place = lived_in().await;
        let mut lease = Lease::take(&place.lake, "compact", DAY).await.expect("asked").expect("free");
        let file = written(&place).await;
        for _ in 0..4 {
            ahead(&place, DAY / 2);
            assert!(lease.renew().await.expect("renewed"));
            assert_eq!(of_readings(&place, false).await.files.len(), 0);
        }
        let mut table = readings(&place).await;
        table.commit(commit(Operation::Correct, vec![file], vec![])).await.expect("committed");
        lease.give_back().await.expect("given back");
        ahead(&place, DAY);
        assert_eq!(of_readings(&place, false).await.files.len(), 60);
        assert_eq!(place.readings().await.len(), 61, "all rows can be read");
    }

    /// A machine that slept for days between writing a file and committing it made a table that names a file that is
    /// gone: no query of it was answered any more.
    #[tokio::test]
    async fn a_file_that_vacuum_may_have_taken_is_never_committed() {
        for knows_of_vacuum in [true, false] {
            let place = lived_in().await;
            let file = written(&place).await;
            let mut table = readings(&place).await;
            ahead(&place, DAY + Duration::from_secs(3_600));
            assert_eq!(
                of_readings(&place, false).await.files.len(),
                60 + 1,
                "those of the merge, and the one nobody named"
            );
            if knows_of_vacuum {
                table.refresh().await.expect("refreshed");
            }
            let late = commit(Operation::Correct, vec![file], vec![]);
            let refused = table.commit(late.clone()).await;
            if knows_of_vacuum {
                assert!(matches!(refused, Err(CommitError::Stale { .. })), "{refused:?}");
            } else {
                assert!(matches!(refused, Err(CommitError::Conflict { .. })), "it is not rebased: {refused:?}");
                table.refresh().await.expect("refreshed");
                let refused = table.commit(late).await;
                assert!(matches!(refused, Err(CommitError::Stale { .. })), "{refused:?}");
            }
            let again = written(&place).await;
            table.commit(commit(Operation::Correct, vec![again], vec![])).await.expect("written again");
            assert_eq!(place.readings().await.len(), 61);
        }
    }
}
