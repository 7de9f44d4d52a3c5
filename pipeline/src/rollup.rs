//! Rollups: `hourly` and `daily`, per sensor, window and quality, from the readings that count.
//!
//! A run computes again the windows that commits since the last run touched (`tjern_lake::rollup` says which), from the
//! readings of these windows and, for counters, the one before; and replaces their rows in one commit per table. Files are cut by
//! calendar month (UTC) of their windows' start, and only those that a touched window may be in are rewritten,
//! so the work follows what is new and not what is there.
//!
//! The commit carries `txn("rollup", version of readings)`, the version that its windows are of: what came later
//! is not in them until the next run; queries compute it until then. The number never goes back: who finds it at or
//! beyond its own version has been overtaken and does nothing. Further numbers tell when what is there
//! was computed under other assumptions: the newest words of the register (of sensors, and of instruments) that were taken into
//! account, and the time zone of the days.
//!
//! **Closed windows** are those that begin before the newest reading that retention ever removed. They stay as they
//! are, also where everything is computed from nothing: what would be computed now would be of what happens to be left.
//! What comes for one later is left out, and said. Only erasure changes them: it names its windows itself ([`again`]), and its
//! commits name them too. The commit repeats retention's transaction, so that a table `readings` that is built anew knows it.
//!
//! **One run at a time** (a lease, short and renewed). The fence keeps the data right; the lease keeps apart a run that has put
//! files and not named them yet, and an erasure that removes what nobody names.
//!
//! **Memory is bounded by configuration** (`[compact] memory`), whatever there is to sum up: readings come sorted, with what does
//! not fit in `[compact] spill`, and are summed up a portion at a time ([`read`]); rows are written as they come, and merged with those
//! that stay ([`files`]). [`run`] is one attempt at one table.
//!
//! Limits, on top: the readings of one window of one sensor; a row group of each of up to eight files of readings; the names of
//! sensors; and which windows are touched, 16 bytes a range, of which there are at most two millions before everything is computed.
//! For erasures: the closed windows of the counters that something was erased of.

mod again;
mod compute;
mod files;
mod merge;
mod months;
mod read;
mod run;
mod scope;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use jiff::tz::TimeZone;
use tjern_lake::rollup::{Grid, Natures, RETENTION_TRANSACTION, Source, VERSION_TRANSACTION, Words, open_from_us};
use tjern_lake::{Commit, CommitError, Held, Lake, LakeError, Lease, Operation, Table, TableName};

use crate::bounds::Bounds;
use crate::correct::utc;
use crate::frames::FrameError;
use crate::tables::{ATTEMPTS_MAX, engine_within, let_go};
pub(crate) use again::{Again, Period, rows_of_spans, spans_of};
use run::Run;

/// How old a look at the readings may be: what this process commits is known at once, and hours and days are of one look.
const LOOK: Duration = Duration::from_secs(60);

/// The lease's name.
pub(crate) const JOB: &str = "rollup";

/// How long a process that was killed at it keeps others from it. While one is at work it renews its lease.
pub const LEASE: Duration = Duration::from_secs(60);

/// How old a look at the installations may be: seldom is one written down, and what another process registers is taken by the next
/// run, and by queries before that.
const REGISTER_LOOK: Duration = Duration::from_secs(60 * 60);

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RollupOutcome {
    /// What became of `hourly`.
    pub hourly: TableOutcome,
    /// What became of `daily`.
    pub daily: TableOutcome,
    /// Whether another process holds the lease.
    pub held_elsewhere: bool,
}

/// What a run did to one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableOutcome {
    /// How many readings were read for it.
    pub readings_read: usize,
    /// How many rows were computed.
    pub rows_computed: usize,
    /// For how many closed windows (neighbours of one sensor count as one) something came that was left out.
    pub left_out: usize,
    /// Where the days of another time zone are closed and reach into those that are computed now: when the first of them began. Readings
    /// of both count twice.
    pub overlapping_from_us: Option<i64>,
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
    /// The lease ran out while files were written, and may be another process's by now.
    #[error(
        "the lease ran out while `{table}` was summed up: nothing was committed; hint: did the machine stand still?"
    )]
    Lost {
        /// Which table.
        table: TableName,
    },
    /// The query engine failed.
    #[error("{}", tjern_lake::engine::Said(.0))]
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
    rollup_within(lake, timezone, &Bounds::default()).await
}

/// The same within these bounds.
///
/// # Errors
/// [`RollupError`].
pub async fn rollup_within(lake: &Lake, timezone: &TimeZone, bounds: &Bounds) -> Result<RollupOutcome, RollupError> {
    let Some(lease) = Lease::take(lake, JOB, LEASE).await? else {
        return Ok(RollupOutcome { held_elsewhere: true, ..RollupOutcome::default() });
    };
    let lease = lease.keep();
    let result = rollup_with(lake, timezone, None, bounds, Some(&lease.held())).await;
    lease.give_back().await?;
    result
}

/// The same, and computes the windows of these spans again; tables that are not there stay so. For who holds the lease.
pub(crate) async fn rollup_again(
    lake: &Lake,
    timezone: &TimeZone,
    again: &Again,
    bounds: &Bounds,
) -> Result<RollupOutcome, RollupError> {
    rollup_with(lake, timezone, Some(again), bounds, None).await
}

async fn rollup_with(
    lake: &Lake,
    timezone: &TimeZone,
    again: Option<&Again>,
    bounds: &Bounds,
    held: Option<&Held>,
) -> Result<RollupOutcome, RollupError> {
    let hourly = Box::pin(bring_up(lake, TableName::Hourly, Grid::Hours, again, bounds, held)).await?;
    let daily = Box::pin(bring_up(lake, TableName::Daily, Grid::Days(timezone.clone()), again, bounds, held)).await?;
    Ok(RollupOutcome { hourly, daily, held_elsewhere: false })
}

/// `readings` was made anew, at this version: the versions that `hourly` and `daily` are of were another table's. Their
/// rows stay; those whose windows the new readings touch, and that are not closed, are computed again by the next run. Returns
/// the time of the newest reading that retention ever removed, for `readings` to say again.
///
/// # Errors
/// [`LakeError`].
pub(crate) async fn begin_anew(lake: &Lake, readings: i64) -> Result<Option<i64>, CommitError> {
    let mut newest_us: Option<i64> = None;
    for name in [TableName::Hourly, TableName::Daily] {
        let Some(mut table) = Table::open(lake, name).await? else { continue };
        newest_us = newest_us.max(table.transaction(RETENTION_TRANSACTION));
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
    Ok(newest_us)
}

async fn bring_up(
    lake: &Lake,
    name: TableName,
    grid: Grid,
    again: Option<&Again>,
    bounds: &Bounds,
    held: Option<&Held>,
) -> Result<TableOutcome, RollupError> {
    // Of a version that is not the newest any more the commit is refused, and the next look is a new one.
    let there = match again {
        None => Table::open_within(lake, name, LOOK).await?,
        Some(_) => Table::open(lake, name).await?,
    };
    let there = match (there, again) {
        (None, None) => Some(Table::open_or_create(lake, name).await?),
        (there, _) => there,
    };
    let Some(mut table) = there else { return Ok(TableOutcome::default()) };
    for _ in 0..ATTEMPTS_MAX {
        let readings = Table::open_within(lake, TableName::Readings, LOOK).await?;
        let Some(readings) = readings else { return Ok(TableOutcome::default()) };
        let context = engine_within(lake, bounds)?;
        let natures = natures(lake, &context, &table).await?;
        let open_from_us = open_from_us(&readings, &grid);
        let source = Source::new(context, readings);
        let run = Run { lake, table: &table, grid: &grid, natures, source, open_from_us, again, bounds };
        let Some((commit, outcome)) = run.prepare().await? else {
            let readings_version = table.transaction(VERSION_TRANSACTION);
            return Ok(TableOutcome { readings_version, ..TableOutcome::default() });
        };
        if held.is_some_and(|held| !held.is_held()) {
            // An erasure may have begun before the last of them was there, and be over.
            let_go(lake, name, &commit.add).await;
            return Err(RollupError::Lost { table: name });
        }
        match table.commit(commit).await {
            Ok(_) => {
                if outcome.left_out > 0 {
                    tracing::warn!(
                        table = %name,
                        windows = outcome.left_out,
                        "readings came for windows that are closed, and are not summed up; hint: retention has removed others of these windows"
                    );
                }
                if let Some(from_us) = outcome.overlapping_from_us {
                    let [closed, open] = [from_us, open_from_us].map(utc);
                    tracing::warn!(
                        table = %name,
                        closed,
                        open,
                        "a closed day of another time zone reaches into the first open one: readings of both count twice; hint: put these days together from `hourly`"
                    );
                }
                return Ok(outcome);
            }
            Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(RollupError::Contended { table: name })
}

/// What the register says, at least all that this rollup knows of it.
async fn natures(lake: &Lake, context: &SessionContext, rollup: &Table) -> Result<Natures, RollupError> {
    let sensors = Table::open_within(lake, TableName::Sensors, LOOK).await?;
    let installations = Table::open_within(lake, TableName::Installations, REGISTER_LOOK).await?;
    let natures = Natures::read(context, sensors.as_ref(), installations.as_ref()).await?;
    if Words::of(rollup).are_known_to(&natures.words()) {
        return Ok(natures);
    }
    // Another process has looked since.
    let sensors = Table::open(lake, TableName::Sensors).await?;
    let installations = Table::open(lake, TableName::Installations).await?;
    Ok(Natures::read(context, sensors.as_ref(), installations.as_ref()).await?)
}

#[cfg(test)]
mod tests;
