//! Rollups: `hourly` and `daily`, per sensor, window and quality, from the readings that count.
//!
//! A run computes again the windows that readings committed since the last run touched, and replaces
//! the rows of these windows in one commit per table. Files are cut by calendar month (UTC) of their
//! windows' start, and only those that a touched window may be in are rewritten, so the work follows what
//! is new and not what is there.
//!
//! The commit carries `txn("rollup", version of readings)`, the version that its windows are of: what came later
//! is not in them until the next run. The number never goes back: who finds it at or
//! beyond its own version has been overtaken and does nothing. Two further numbers tell when what is there
//! was computed under other assumptions: the newest row of the register that was taken into account, and
//! the time zone of the days.
//!
//! Limits: a month's readings of the touched sensors are held in memory, and so are the rollup rows of
//! the files that are rewritten for it. Readings that are erased leave no trace in what came, so erasure
//! names their windows itself ([`again`]), and its commits are left out of what touches windows.

mod again;
mod compute;
mod files;
mod read;
mod scope;
mod windows;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use jiff::tz::TimeZone;
use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};
use tjern_lake::{Commit, CommitError, Lake, LakeError, Operation, Table, TableName};
use tjern_readings::keys;

use crate::frames::{FrameError, SensorKeys};
use crate::register::{RegisterError, sensors_history};
use crate::tables::{ATTEMPTS_MAX, engine};
use again::windows_of_spans;
pub(crate) use again::{Again, rows_of_spans};
use compute::roll_up;
use files::Rewrite;
use read::{Source, Wanted};
use scope::{Natures, Scope, Windows, and_windows, touched};
use windows::{Grid, Window, month};

/// The version of `readings` that a rollup is of.
const VERSION_TRANSACTION: &str = "rollup";
/// The newest row of the register that it knows.
const REGISTER_TRANSACTION: &str = "rollup/register";
/// The time zone of its days, as a number.
const TIMEZONE_TRANSACTION: &str = "rollup/timezone";

/// How old a look at the readings may be: what this process commits is known at once, and hours and days are of one look.
const LOOK: Duration = Duration::from_secs(60);

/// Where no window was touched the version is moved only when it lies this far back.
const VERSIONS_BEHIND_MAX: i64 = 64;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RollupOutcome {
    /// What became of `hourly`.
    pub hourly: TableOutcome,
    /// What became of `daily`.
    pub daily: TableOutcome,
}

/// What a run did to one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableOutcome {
    /// How many rows were computed.
    pub rows_computed: usize,
    /// How many files were written.
    pub files_written: usize,
    /// The version of `readings` that the table is of now; none where there is none yet.
    pub readings_version: Option<i64>,
}

/// Why rollups were not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum RollupError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Others changed the table each time.
    #[error("table `{table}` was changed by others {ATTEMPTS_MAX} times in a row; hint: run one `rollup` at a time")]
    Contended {
        /// Which table.
        table: TableName,
    },
    /// The register could not be read.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The query engine failed.
    #[error("the query engine failed: {0}")]
    Engine(#[from] DataFusionError),
    /// Columns could not pass between Arrow and Polars.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// Polars panicked.
    #[error("the computation of windows broke off: {what}; hint: this is a defect of the software, please report it")]
    Panicked {
        /// What it said.
        what: String,
    },
}

impl From<polars::error::PolarsError> for RollupError {
    fn from(error: polars::error::PolarsError) -> Self {
        Self::Frame(error.into())
    }
}

/// Brings `hourly` and `daily` up to the newest version of `readings`. Days are those of `timezone`.
/// Missing tables are created; with nothing to do nothing is committed.
///
/// # Errors
/// [`RollupError`]. A table that was committed before the error stays as it is now.
pub async fn rollup(lake: &Lake, timezone: &TimeZone) -> Result<RollupOutcome, RollupError> {
    rollup_with(lake, timezone, None).await
}

/// The same, and computes the windows of these spans again; tables that are not there stay so.
pub(crate) async fn rollup_again(
    lake: &Lake,
    timezone: &TimeZone,
    again: &Again,
) -> Result<RollupOutcome, RollupError> {
    rollup_with(lake, timezone, Some(again)).await
}

async fn rollup_with(lake: &Lake, timezone: &TimeZone, again: Option<&Again>) -> Result<RollupOutcome, RollupError> {
    let hourly = Box::pin(bring_up(lake, TableName::Hourly, Grid::Hours, again)).await?;
    let daily = Box::pin(bring_up(lake, TableName::Daily, Grid::Days(timezone.clone()), again)).await?;
    Ok(RollupOutcome { hourly, daily })
}

/// `readings` was made anew, at this version: the versions that `hourly` and `daily` are of were another table's. Their
/// rows stay; those whose windows the new readings touch are computed again by the next run.
///
/// # Errors
/// [`LakeError`].
pub(crate) async fn begin_anew(lake: &Lake, readings: i64) -> Result<(), CommitError> {
    for name in [TableName::Hourly, TableName::Daily] {
        let Some(mut table) = Table::open(lake, name).await? else { continue };
        for _ in 0..ATTEMPTS_MAX {
            if table.transaction(VERSION_TRANSACTION).is_none_or(|version| version == readings) {
                break;
            }
            let commit = Commit {
                operation: Operation::Rollup,
                add: Vec::new(),
                remove: Vec::new(),
                transactions: vec![(VERSION_TRANSACTION.to_owned(), readings)],
                notes: BTreeMap::new(),
            };
            match table.commit(commit).await {
                Ok(_) => break,
                Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

async fn bring_up(
    lake: &Lake,
    name: TableName,
    grid: Grid,
    again: Option<&Again>,
) -> Result<TableOutcome, RollupError> {
    let there = match again {
        None => Some(Table::open_or_create(lake, name).await?),
        Some(_) => Table::open(lake, name).await?,
    };
    let Some(mut table) = there else { return Ok(TableOutcome::default()) };
    for _ in 0..ATTEMPTS_MAX {
        let readings = Table::open_within(lake, TableName::Readings, LOOK).await?;
        let Some(readings) = readings else { return Ok(TableOutcome::default()) };
        let natures = Natures::of(&sensors_history(lake).await?.1);
        let source = Source::new(engine(lake)?, readings);
        let run = Run { lake, table: &table, grid: &grid, natures, source, again };
        let Some((commit, outcome)) = run.prepare().await? else {
            let readings_version = table.transaction(VERSION_TRANSACTION);
            return Ok(TableOutcome { readings_version, ..TableOutcome::default() });
        };
        match table.commit(commit).await {
            Ok(_) => return Ok(outcome),
            Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(RollupError::Contended { table: name })
}

/// One attempt to bring one table up to one version of `readings`.
struct Run<'a> {
    lake: &'a Lake,
    table: &'a Table,
    grid: &'a Grid,
    natures: Natures,
    source: Source,
    again: Option<&'a Again>,
}

impl Run<'_> {
    /// The commit to make; `None` where there is nothing to do.
    async fn prepare(&self) -> Result<Option<(Commit, TableOutcome)>, RollupError> {
        let version = self.source.table().version();
        let done = self.table.transaction(VERSION_TRANSACTION);
        let is_ahead = done.is_some_and(|done| done > version);
        if is_ahead && self.again.is_none() {
            return Ok(None);
        }
        // Whoever names windows has to have them: `readings` was built anew, and its versions began anew.
        let done = done.filter(|_| !is_ahead);
        let scope = self.scope(done).await?;
        if let Scope::Touched(months) = &scope
            && months.is_empty()
            && self.again.is_none()
            && done.is_some_and(|done| version - done < VERSIONS_BEHIND_MAX)
            && !self.natures_are_new()
        {
            return Ok(None);
        }
        let mut rewrite = Rewrite::new(self.lake, self.table, self.source.context());
        match &scope {
            Scope::Everything => self.everything(&mut rewrite).await?,
            Scope::Touched(months) => self.touched(months, &mut rewrite).await?,
        }
        let outcome = TableOutcome {
            rows_computed: rewrite.rows_computed,
            files_written: rewrite.add.len(),
            readings_version: Some(version),
        };
        let commit = Commit {
            operation: Operation::Rollup,
            add: rewrite.add,
            remove: rewrite.remove,
            transactions: self.transactions(version),
            notes: BTreeMap::new(),
        };
        Ok(Some((commit, outcome)))
    }

    fn transactions(&self, version: i64) -> Vec<(String, i64)> {
        let mut transactions =
            vec![(VERSION_TRANSACTION.to_owned(), version), (REGISTER_TRANSACTION.to_owned(), self.natures.newest_us)];
        transactions.extend(timezone_number(self.grid).map(|number| (TIMEZONE_TRANSACTION.to_owned(), number)));
        transactions.extend(self.again.into_iter().flat_map(|again| again.marks.iter().cloned()));
        transactions
    }

    fn register_seen_us(&self) -> i64 {
        self.table.transaction(REGISTER_TRANSACTION).unwrap_or(i64::MIN)
    }

    fn natures_are_new(&self) -> bool {
        self.natures.newest_us > self.register_seen_us()
    }

    async fn scope(&self, done: Option<i64>) -> Result<Scope, RollupError> {
        let same_days = self.table.transaction(TIMEZONE_TRANSACTION) == timezone_number(self.grid);
        let Some(done) = done.filter(|_| same_days) else { return Ok(Scope::Everything) };
        // Neither of them brings a row.
        let left_out = [Operation::Compact, Operation::Erase];
        let changes = self.source.table().changes_since_but(done, &left_out).await?;
        if changes.unclear {
            return Ok(Scope::Everything);
        }
        let gone: Vec<String> = changes.gone.iter().map(|file| file.path.clone()).collect();
        let files = changes.added.into_iter().chain(changes.gone).collect();
        match touched(&self.source, files, &self.natures, self.register_seen_us(), self.grid).await {
            // Vacuum was faster: what they held can no longer be told apart.
            Err(_) if self.any_missing(&gone).await? => Ok(Scope::Everything),
            Ok(scope) => self.with_named(scope).await,
            Err(error) => Err(error),
        }
    }

    /// What is touched, and the windows that somebody names.
    async fn with_named(&self, scope: Scope) -> Result<Scope, RollupError> {
        let (Some(again), Scope::Touched(_)) = (self.again, &scope) else { return Ok(scope) };
        let windows = windows_of_spans(self.table, &again.spans, self.grid).await?;
        and_windows(scope, &self.source, windows, &self.natures, self.grid).await
    }

    /// Whether one of these files of `readings` is not there. The engine's error tells it as text only.
    async fn any_missing(&self, paths: &[String]) -> Result<bool, RollupError> {
        let (objects, folder) = (self.lake.objects(), keys::table(TableName::Readings.as_str()));
        for path in paths {
            let key = folder.clone().join(path.as_str());
            match objects.head(&key).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => return Ok(true),
                Err(error) => return Err(LakeError::store(key, error).into()),
            }
        }
        Ok(false)
    }

    /// Month by month, so that memory is bounded by the fullest one; only months that have readings, so
    /// that one with a wrong clock costs one month and not a century.
    async fn everything(&self, rewrite: &mut Rewrite<'_>) -> Result<(), RollupError> {
        rewrite.remove = self.table.files();
        let mut keys = SensorKeys::default();
        let mut last_values = HashMap::new();
        let months: Vec<Window> = self.months().await?.into_iter().collect();
        for (place, month) in months.iter().enumerate() {
            let to_us = self.grid.window(month.end_us.saturating_sub(1)).end_us;
            let wanted = Wanted { from_us: month.start_us, to_us, sensors: None };
            let readings = self.source.winners(wanted, &mut keys).await?;
            let nature = |sensor: &str| self.natures.get(sensor);
            let inside = |_, window: Window| month.contains(window.start_us);
            // A day may reach into the month after: what lies there is read again only if that one is next.
            let carry_until_us = months.get(place + 1).map_or(i64::MAX, |next| next.start_us);
            let rows = roll_up(readings, &keys, self.grid, nature, inside, &mut last_values, carry_until_us).await?;
            rewrite.append(rows).await?;
        }
        Ok(())
    }

    /// The months in which a window with readings starts.
    async fn months(&self) -> Result<BTreeSet<Window>, RollupError> {
        let mut months = BTreeSet::new();
        let mut last: Option<Window> = None;
        let take = |_: &str, time_us: i64| {
            // A reading on a border may be of an interval, and so of the window before.
            for moment in [time_us, time_us.saturating_sub(1)] {
                if !last.is_some_and(|window| window.contains(moment)) {
                    let window = self.grid.window(moment);
                    months.insert(month(window.start_us));
                    last = Some(window);
                }
            }
        };
        self.source.each_row(self.source.table().files(), None, take).await?;
        Ok(months)
    }

    async fn touched(&self, months: &BTreeMap<Window, Windows>, rewrite: &mut Rewrite<'_>) -> Result<(), RollupError> {
        for (month, windows) in months {
            let rows = self.recompute(windows).await?;
            rewrite.replace(*month, windows, months, rows).await?;
        }
        Ok(())
    }

    /// The rows of these windows.
    async fn recompute(&self, windows: &Windows) -> Result<RecordBatch, RollupError> {
        let sensors: BTreeSet<String> = windows.keys().cloned().collect();
        let all = || windows.values().flatten();
        let from_us = all().map(|window| window.start_us).min().unwrap_or_default();
        let to_us = all().map(|window| window.end_us).max().unwrap_or_default();
        let mut keys = SensorKeys::default();
        let wanted = Wanted { from_us, to_us, sensors: Some(&sensors) };
        let readings = self.source.winners(wanted, &mut keys).await?;
        let counters = sensors.iter().filter(|sensor| self.natures.is_counter(sensor)).cloned().collect();
        let before = self.source.last_before(&counters, from_us).await?;
        let mut last_values = before.into_iter().map(|(sensor, value)| (keys.key(&sensor), value)).collect();
        let chosen: HashSet<(i32, Window)> = windows
            .iter()
            .filter_map(|(sensor, windows)| keys.get(sensor).map(|key| (key, windows)))
            .flat_map(|(key, windows)| windows.iter().map(move |window| (key, *window)))
            .collect();
        let nature = |sensor: &str| self.natures.get(sensor);
        let wanted = |key, window| chosen.contains(&(key, window));
        roll_up(readings, &keys, self.grid, nature, wanted, &mut last_values, i64::MIN).await
    }
}

/// A number that tells time zones apart; hours have none.
fn timezone_number(grid: &Grid) -> Option<i64> {
    let Grid::Days(zone) = grid else { return None };
    let name = zone.iana_name().map_or_else(|| format!("{zone:?}"), str::to_owned);
    let digest = Sha256::digest(name.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    Some(i64::from_be_bytes(bytes) & i64::MAX)
}

#[cfg(test)]
mod tests;
