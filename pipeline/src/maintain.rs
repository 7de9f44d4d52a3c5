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

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::error::DataFusionError;
use futures::StreamExt;
use tjern_lake::rollup::{RETENTION_TRANSACTION, VERSION_TRANSACTION};
use tjern_lake::{Commit, CommitError, DataFile, FileReader, Lake, LakeError, Operation, Table, TableName};
use tjern_readings::reading::Cause;

use crate::anew::BATCH_ROWS;
use crate::correct::utc;
use crate::frames::texts;
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

/// How old a look may be by which a run finds out how many commits there are since the last checkpoint.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// Writes a checkpoint for every table that has made [`CHECKPOINT_COMMITS`] commits since its last; `dry_run` only
/// says for which.
///
/// # Errors
/// [`LakeError`]. A checkpoint that is written twice is the same. A damaged log of hours or days is told when the other tables
/// are done.
pub async fn checkpoint(lake: &Lake, dry_run: bool) -> Result<Vec<Checkpointed>, LakeError> {
    let (mut made, mut damaged) = (Vec::new(), None);
    for name in TableName::ALL {
        let mut table = match Table::open_within(lake, name, LOOK).await {
            Err(error) if error.is_of_rollups() => {
                damaged.get_or_insert(error);
                continue;
            }
            opened => match opened? {
                Some(table) => table,
                None => continue,
            },
        };
        if table.version() < CHECKPOINT_COMMITS {
            // Whatever there is of it, it is not worth another one.
            continue;
        }
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
    /// Every reading is too old.
    #[error(
        "every reading is older than is kept, none is of {before} or later and was received then: nothing was removed; hint: is this machine's clock right? A lake whose sensors are all gone is emptied by `tjern pipeline erase`"
    )]
    Everything {
        /// From which time on readings are kept.
        before: String,
    },
    /// Others committed all the time.
    #[error("others committed {ATTEMPTS_MAX} times while old readings were to be removed; hint: run it again")]
    Busy,
}

/// Removes the files of `readings` in which every reading is older than `keep` and summed up, where there are rollups;
/// `dry_run` only says which those are. Where every reading is older, or claims a time at which nobody had received it, nothing is
/// removed: a clock that is ahead would empty the lake. In a lake of personal readings all of them go: that they do is what was promised there.
///
/// What goes leaves nothing behind that it replaced or that was to be summed up with it: a file waits where another one that stays may
/// have readings of the same sensor and time (a correction that was not merged yet), and all wait for windows that are not summed up.
///
/// # Errors
/// [`RetainError`]; nothing was removed then.
pub async fn retain(lake: &Lake, keep: Duration, dry_run: bool) -> Result<Vec<DataFile>, RetainError> {
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else { return Ok(Vec::new()) };
    let keep_us = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let before_us = lake.clock().now_us().saturating_sub(keep_us);
    if !lake.is_personal() && !table.files().is_empty() && !is_believable(&table, before_us).await? {
        return Err(RetainError::Everything { before: utc(before_us) });
    }
    for _ in 0..ATTEMPTS_MAX {
        let new = not_summed_up(lake, &table).await?;
        let is_old = |file: &DataFile| file.time_us.is_some_and(|(_, last_us)| last_us < before_us);
        let (old, mut stays): (Vec<_>, Vec<_>) = table.files().into_iter().partition(is_old);
        let (old, waiting) = summed_up(&table, old, &stays, &new).await?;
        if !waiting.is_empty() {
            tracing::warn!(
                files = waiting.len(),
                "readings that are too old stay until they are summed up; hint: does the job `rollup` run?"
            );
        }
        stays.extend(waiting);
        let summed_up = old.len();
        let old = alone(&table, old, stays).await?;
        if old.len() < summed_up {
            tracing::warn!(
                files = summed_up - old.len(),
                "readings that are too old stay as long as another file has readings of the same sensors and times; hint: does the job `compact` run?"
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

/// Whether a reading says that this moment is past: it is of then or later, and was received then or later. A time alone says
/// nothing, since a logger may believe in any year; nor does when it was received, which is this machine's own word.
async fn is_believable(table: &Table, moment_us: i64) -> Result<bool, LakeError> {
    let may_say = |file: &DataFile| file.time_us.is_none_or(|(_, last_us)| last_us >= moment_us);
    let mut files: Vec<_> = table.files().into_iter().filter(may_say).collect();
    // What was written last most likely has one.
    files.sort_by_key(|file| std::cmp::Reverse(file.modified_ms));
    let mut unreadable = None;
    for file in files {
        match says(table, &file, moment_us).await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => _ = unreadable.get_or_insert(error),
        }
    }
    unreadable.map_or(Ok(false), Err)
}

/// The same of one file. What ingest found to be of the future is no word of when it is.
async fn says(table: &Table, file: &DataFile, moment_us: i64) -> Result<bool, LakeError> {
    let reader = FileReader::open(table.lake(), table.name(), file).await?;
    let mut rows = reader.columns(&["time", "cause", "received"], BATCH_ROWS)?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let [times, received] = [0, 2].map(|place| batch.column(place).as_primitive::<TimestampMicrosecondType>());
        let causes =
            texts(batch.column(1)).map_err(|error| LakeError::from(DataFusionError::External(error.into())))?;
        let is_word = |row: usize| {
            let of_future = causes.is_valid(row) && causes.value(row) == Cause::Future.word();
            !of_future && times.value(row).min(received.value(row)) >= moment_us
        };
        if (0..batch.num_rows()).any(is_word) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How much earlier than a reading the window may begin that it is summed up in, in microseconds: a day, in whatever time zone.
const WINDOW_US: i64 = 50 * 3_600_000_000;

/// Parts the old files in those that are older than every window which is not summed up, and those that wait: windows are closed up to
/// the newest reading that goes, of whatever sensor. What lies before all that goes (a logger that believes in 1970) is not waited for.
async fn summed_up(
    table: &Table,
    old: Vec<DataFile>,
    stays: &[DataFile],
    new: &BTreeSet<String>,
) -> Result<(Vec<DataFile>, Vec<DataFile>), LakeError> {
    let goes = old.iter().filter(|file| !new.contains(&file.path)).filter_map(|file| file.time_us);
    let Some(from_us) = goes.map(|(first_us, _)| first_us).min() else { return Ok((Vec::new(), old)) };
    let mut closes_us = i64::MAX;
    for file in old.iter().chain(stays).filter(|file| new.contains(&file.path)) {
        let since_us = from_us.saturating_sub(WINDOW_US);
        if let Some(first_us) = first_since(table, file, since_us).await? {
            closes_us = closes_us.min(first_us.saturating_sub(WINDOW_US));
        }
    }
    let is_closed = |file: &DataFile| file.time_us.is_some_and(|(_, last_us)| last_us < closes_us);
    Ok(old.into_iter().partition(|file| is_closed(file) && !new.contains(&file.path)))
}

/// The first time of a file's readings from this one on.
async fn first_since(table: &Table, file: &DataFile, since_us: i64) -> Result<Option<i64>, LakeError> {
    if let Some((first_us, last_us)) = file.time_us
        && (first_us >= since_us || last_us < since_us)
    {
        return Ok((first_us >= since_us).then_some(first_us));
    }
    let mut rows = FileReader::open(table.lake(), table.name(), file).await?.places(BATCH_ROWS)?;
    let mut first_us = None;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
        first_us = first_us.into_iter().chain(times.iter().copied().filter(|time_us| *time_us >= since_us)).min();
    }
    Ok(first_us)
}

/// Those of the old files that share no sensor's time with one that stays.
async fn alone(table: &Table, mut old: Vec<DataFile>, mut stays: Vec<DataFile>) -> Result<Vec<DataFile>, LakeError> {
    loop {
        let (mut joined, mut rest) = (Vec::new(), Vec::new());
        for file in old {
            let mut near = stays.iter().filter(|other| may_share(&file, other));
            let shares = loop {
                match near.next() {
                    Some(other) if shares(table, &file, other).await? => break true,
                    Some(_) => {}
                    None => break false,
                }
            };
            if shares { joined.push(file) } else { rest.push(file) }
        }
        if joined.is_empty() {
            return Ok(rest);
        }
        // Only with these what is left has to be compared again.
        (old, stays) = (rest, joined);
    }
}

/// Whether both may have a reading of one sensor and time, as far as their statistics say.
fn may_share(one: &DataFile, other: &DataFile) -> bool {
    let meet = |one: (i64, i64), other: (i64, i64)| one.0 <= other.1 && other.0 <= one.1;
    let in_time = one.time_us.zip(other.time_us).is_none_or(|(one, other)| meet(one, other));
    let of_sensors = one.sensor.as_ref().zip(other.sensor.as_ref());
    in_time && of_sensors.is_none_or(|(one, other)| one.0 <= other.1 && other.0 <= one.1)
}

/// Whether a file that stays has a reading among the sensors and times of one that goes.
async fn shares(table: &Table, goes: &DataFile, stays: &DataFile) -> Result<bool, LakeError> {
    let (Some((low, high)), Some((first_us, last_us))) = (&goes.sensor, goes.time_us) else { return Ok(true) };
    let mut rows = FileReader::open(table.lake(), table.name(), stays).await?.places(BATCH_ROWS)?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let sensors =
            texts(batch.column(0)).map_err(|error| LakeError::from(DataFusionError::External(error.into())))?;
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
        let is_among = |row: usize| {
            (first_us..=last_us).contains(&times[row]) && (low.as_str()..=high.as_str()).contains(&sensors.value(row))
        };
        if (0..batch.num_rows()).any(is_among) {
            return Ok(true);
        }
    }
    Ok(false)
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
        place.ingest(&[Row::new("other", NOW_US - 40 * DAY_US, 1.0), Row::new("other", NOW_US, 1.0)]).await;
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

    /// A reading that was withdrawn was published again: the correction lay in a small file, which was old, and what it replaced in
    /// a month's, which was not.
    #[tokio::test]
    async fn a_correction_stays_as_long_as_what_it_corrects() {
        let place = Place::new();
        let wrong = Row::new("sample", NOW_US - 12 * DAY_US, 99.0);
        let corrected = Row::new("sample", NOW_US - 12 * DAY_US, 1.0).revision(1);
        place.ingest(&[wrong, Row::new("sample", NOW_US - DAY_US, 1.0)]).await;
        place.ingest(&[corrected]).await;
        place.ingest(&[Row::new("sample", NOW_US - 13 * DAY_US, 1.0)]).await;
        assert_eq!(retain(&place.lake, DAY * 10, false).await.expect("removed").len(), 1, "what is alone goes");
        assert_eq!(place.readings().await.len(), 3);
        place.compact().await;
        assert_eq!(retain(&place.lake, DAY * 10, false).await.expect("looked"), []);
    }

    /// Retention closed windows over readings that had come before it and that nobody had summed up: their day kept the value that
    /// was withdrawn for ever.
    #[tokio::test]
    async fn no_window_is_closed_before_it_is_summed_up() {
        let place = Place::new();
        place.register(&["sample,Cel,sample,public,,", "other,Cel,sample,public,,"]).await;
        let oslo = jiff::tz::TimeZone::get("Europe/Oslo").expect("known");
        for (sensor, days) in [("sample", 400), ("other", 380), ("sample", 1)] {
            place.ingest(&[Row::new(sensor, NOW_US - days * DAY_US, 4.0).quality(1)]).await;
        }
        crate::rollup::rollup(&place.lake, &oslo).await.expect("summed up");
        place.ingest(&[Row::new("other", NOW_US - 401 * DAY_US, 4.0).quality(1)]).await;
        assert_eq!(retain(&place.lake, DAY * 365, false).await.expect("looked"), [], "of whatever sensor");
        crate::rollup::rollup(&place.lake, &oslo).await.expect("summed up");
        assert_eq!(retain(&place.lake, DAY * 365, false).await.expect("removed").len(), 3);
        assert_eq!(place.rows(TableName::Daily).await.num_rows(), 4);
    }

    /// A logger that believes in the year 2000 has a reading in each batch: there is always a file that is not summed up, or not
    /// merged, and reaches from there to now.
    #[tokio::test]
    async fn a_dead_clock_of_one_logger_keeps_nothing() {
        let place = Place::new();
        place.register(&["sample,Cel,sample,public,,"]).await;
        place.ingest(&[Row::new("sample", NOW_US - 400 * DAY_US, 4.0).quality(1)]).await;
        crate::rollup::rollup(&place.lake, &jiff::tz::TimeZone::UTC).await.expect("summed up");
        place.ingest(&[Row::new("sample", 946_684_800_000_000, 4.0), Row::new("sample", NOW_US, 4.0)]).await;
        assert_eq!(retain(&place.lake, DAY * 365, false).await.expect("removed").len(), 1);
        // The canary: with a reading among those that go it waits.
        place.ingest(&[Row::new("sample", NOW_US - 390 * DAY_US, 4.0).quality(1)]).await;
        crate::rollup::rollup(&place.lake, &jiff::tz::TimeZone::UTC).await.expect("summed up");
        place.ingest(&[Row::new("sample", NOW_US - 390 * DAY_US, 5.0), Row::new("sample", NOW_US, 4.0)]).await;
        assert_eq!(retain(&place.lake, DAY * 365, false).await.expect("looked"), []);
    }

    /// A clock that was a year ahead emptied a lake, today's readings too.
    #[tokio::test]
    async fn a_clock_that_is_ahead_empties_no_lake() {
        let place = Place::new();
        for days in [1, 30] {
            place.ingest(&[Row::new("sample", NOW_US - days * DAY_US, 1.0)]).await;
        }
        place.clock.set_us(NOW_US + 400 * DAY_US);
        let refused = retain(&place.lake, DAY * 365, false).await.expect_err("all of them");
        assert!(refused.to_string().contains("is this machine's clock right?"), "{refused}");
        assert_eq!(place.readings().await.len(), 2);
        let personal = place.lake.clone().of_persons();
        assert_eq!(retain(&personal, DAY * 365, false).await.expect("removed").len(), 2, "as was promised there");
    }

    /// One logger that believed in next year switched that off: its reading was newer than what is kept, whatever the clock said.
    #[tokio::test]
    async fn one_reading_of_the_future_makes_no_clock_right() {
        let place = Place::new();
        let future = Row::new("logger", NOW_US + 500 * DAY_US, 1.0).refused(Cause::Future);
        place.ingest(&[Row::new("sample", NOW_US - DAY_US, 1.0), future.clone()]).await;
        place.ingest(&[Row::new("logger", NOW_US + 300 * DAY_US, 1.0)]).await;
        place.clock.set_us(NOW_US + 400 * DAY_US);
        // What is ingested by the clock that is ahead: it was measured now, and the logger goes on.
        let by_that_clock = |row: Row| Row { received_us: NOW_US + 400 * DAY_US, ..row };
        place.ingest(&[by_that_clock(Row::new("sample", NOW_US, 1.0)), by_that_clock(future)]).await;
        let refused = retain(&place.lake, DAY * 365, false).await.expect_err("all that is true is older");
        assert!(refused.to_string().contains("is this machine's clock right?"), "{refused}");
        // The canary: a day on which something was measured and received is past.
        place.ingest(&[by_that_clock(Row::new("sample", NOW_US + 400 * DAY_US, 1.0))]).await;
        retain(&place.lake, DAY * 365, false).await.expect("the clock is right");
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
