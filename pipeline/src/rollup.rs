//! Rollups: `hourly` and `daily`, per sensor, window and quality, from the readings that count.
//!
//! A run computes again the windows that commits since the last run touched (`tjern_lake::rollup` says which), from the
//! readings of these windows and, for counters, the one before; and replaces their rows in one commit per table. Files are cut by
//! calendar month (UTC) of their windows' start, and only those that a touched window may be in are rewritten,
//! so the work follows what is new and not what is there.
//!
//! The commit carries `txn("rollup", version of readings)`, the version that its windows are of: what came later
//! is not in them until the next run; queries compute it until then. The number never goes back: who finds it at or
//! beyond its own version has been overtaken and does nothing. Two further numbers tell when what is there
//! was computed under other assumptions: the newest row of the register that was taken into account, and
//! the time zone of the days.
//!
//! **Closed windows** are those that begin before the newest reading that retention ever removed. They stay as they
//! are, also where everything is computed from nothing: what would be computed now would be of what happens to be left.
//! What comes for one later is left out, and said. Only erasure changes them: it names its windows itself ([`again`]), and its
//! commits name them too. The commit repeats retention's transaction, so that a table `readings` that is built anew knows it.
//!
//! Limits: the readings of the touched windows of a month are held in memory (where everything is computed, all readings of
//! a month), and so are the rollup rows of the files that are rewritten for it.

mod again;
mod compute;
mod files;
mod months;
mod read;
mod scope;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use jiff::tz::TimeZone;
use tjern_lake::rollup::neighbours::{Closed, predecessors};
use tjern_lake::rollup::touched::each_run;
use tjern_lake::rollup::{
    Bounds, Grid, Natures, REGISTER_TRANSACTION, RETENTION_TRANSACTION, Selection, Source, Spans, Stepped,
    TIMEZONE_TRANSACTION, VERSION_TRANSACTION, Window, open_from_us, touched_between,
};
use tjern_lake::{Commit, CommitError, Lake, LakeError, Operation, Table, TableName};

use crate::frames::{FrameError, SensorKeys};
use crate::tables::{ATTEMPTS_MAX, engine};
pub(crate) use again::{Again, rows_of_spans, spans_of};
use compute::{Ways, roll_up};
use files::Rewrite;
use months::{by_month, month};
use read::{Readings, rollup_schema};
use scope::{Place, Scope};

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
    /// How many readings were read for it.
    pub readings_read: usize,
    /// How many rows were computed.
    pub rows_computed: usize,
    /// For how many closed windows (neighbours of one sensor count as one) something came that was left out.
    pub left_out: usize,
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
) -> Result<TableOutcome, RollupError> {
    let there = match again {
        None => Some(Table::open_or_create(lake, name).await?),
        Some(_) => Table::open(lake, name).await?,
    };
    let Some(mut table) = there else { return Ok(TableOutcome::default()) };
    for _ in 0..ATTEMPTS_MAX {
        let readings = Table::open_within(lake, TableName::Readings, LOOK).await?;
        let Some(readings) = readings else { return Ok(TableOutcome::default()) };
        let context = engine(lake)?;
        let natures = Natures::read(&context, Table::open(lake, TableName::Sensors).await?.as_ref()).await?;
        let open_from_us = open_from_us(&readings, &grid);
        let source = Source::new(context, readings);
        let run = Run { lake, table: &table, grid: &grid, natures, source, open_from_us, again };
        let Some((commit, outcome)) = run.prepare().await? else {
            let readings_version = table.transaction(VERSION_TRANSACTION);
            return Ok(TableOutcome { readings_version, ..TableOutcome::default() });
        };
        match table.commit(commit).await {
            Ok(_) => {
                if outcome.left_out > 0 {
                    tracing::warn!(
                        table = %name,
                        windows = outcome.left_out,
                        "readings came for windows that are closed, and are not summed up; hint: retention has removed others of these windows"
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

/// One attempt to bring one table up to one version of `readings`.
struct Run<'a> {
    lake: &'a Lake,
    table: &'a Table,
    grid: &'a Grid,
    natures: Natures,
    source: Source,
    /// The start of the first window that is not closed.
    open_from_us: i64,
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
        if self.again.is_none() && scope.is_empty() && self.is_known(done) {
            return Ok(None);
        }
        let mut rewrite = Rewrite::new(self.lake, self.table, self.source.context());
        let mut outcome = TableOutcome { readings_version: Some(version), ..TableOutcome::default() };
        match &scope {
            Scope::Everything { closed, stepped } => {
                outcome.readings_read = self.everything(closed, stepped, &mut rewrite).await?;
            }
            Scope::Touched { windows, stepped, left_out } => {
                outcome.left_out = *left_out;
                outcome.readings_read = self.touched(windows, stepped, &mut rewrite).await?;
            }
        }
        (outcome.rows_computed, outcome.files_written) = (rewrite.rows_computed, rewrite.add.len());
        let commit = Commit {
            operation: Operation::Rollup,
            add: rewrite.add,
            remove: rewrite.remove,
            transactions: self.transactions(version),
            notes: BTreeMap::new(),
        };
        Ok(Some((commit, outcome)))
    }

    /// Whether the table says all that a commit without a window would.
    fn is_known(&self, done: Option<i64>) -> bool {
        let readings = self.source.table();
        done.is_some_and(|done| readings.version() - done < VERSIONS_BEHIND_MAX)
            && self.natures.newest_us() <= self.register_seen_us()
            && readings.transaction(RETENTION_TRANSACTION) <= self.table.transaction(RETENTION_TRANSACTION)
    }

    fn transactions(&self, version: i64) -> Vec<(String, i64)> {
        let mut transactions = vec![
            (VERSION_TRANSACTION.to_owned(), version),
            (REGISTER_TRANSACTION.to_owned(), self.natures.newest_us()),
        ];
        let [read, known] = [self.source.table(), self.table].map(|table| table.transaction(RETENTION_TRANSACTION));
        let forgotten_us = read.max(known);
        transactions.extend(forgotten_us.map(|newest_us| (RETENTION_TRANSACTION.to_owned(), newest_us)));
        transactions.extend(self.grid.number().map(|number| (TIMEZONE_TRANSACTION.to_owned(), number)));
        transactions.extend(self.again.into_iter().flat_map(|again| again.marks.iter().cloned()));
        transactions
    }

    fn register_seen_us(&self) -> i64 {
        self.table.transaction(REGISTER_TRANSACTION).unwrap_or(i64::MIN)
    }

    async fn scope(&self, done: Option<i64>) -> Result<Scope, RollupError> {
        let same_days = self.table.transaction(TIMEZONE_TRANSACTION) == self.grid.number();
        let Some(done) = done.filter(|_| same_days) else { return self.everything_and_named().await };
        let readings = self.source.table();
        let Some(mut touched) = touched_between(self.lake, done, readings.version(), usize::MAX).await? else {
            return self.everything_and_named().await;
        };
        touched.erased.merge(&self.named());
        touched.erased.settle();
        self.place().scope(touched, self.register_seen_us()).await
    }

    fn place(&self) -> Place<'_> {
        let Self { source, table: rollup, natures, grid, open_from_us, .. } = self;
        Place { source, rollup, natures, grid, open_from_us: *open_from_us }
    }

    /// What somebody names.
    fn named(&self) -> Spans {
        self.again.map(Again::touched).unwrap_or_default()
    }

    /// Every window that is not closed, and the closed ones that somebody names.
    async fn everything_and_named(&self) -> Result<Scope, RollupError> {
        self.place().everything(&Selection::touched(&self.named(), &self.natures, self.grid)).await
    }

    /// Month by month, so that memory is bounded by the fullest one; only months that have readings, so
    /// that one with a wrong clock costs one month and not a century. Of the closed windows these ones only. Returns
    /// how many readings were read.
    async fn everything(
        &self,
        closed: &Selection,
        stepped: &Stepped,
        rewrite: &mut Rewrite<'_>,
    ) -> Result<usize, RollupError> {
        let mut replaced = closed.clone();
        replaced.extend(&stepped.windows);
        rewrite.take_away_from(self.open_from_us, &replaced).await?;
        let mut keys = SensorKeys::default();
        let mut last_values = self.last_values(closed, &mut keys).await?;
        let months: Vec<Window> = self.months().await?.into_iter().collect();
        let mut read = 0;
        for (place, month) in months.iter().enumerate() {
            let from_us = month.start_us.max(self.open_from_us);
            let bounds = Bounds { sensors: None, from_us, to_us: month.end_us.saturating_sub(1) };
            let windows = Selection::all(&bounds, self.grid);
            let readings = Readings::read(&self.source, &windows.readings(), &mut keys).await?;
            read += readings.len();
            // A day may reach into the month after: what lies there is read again only if that one is next.
            let carry_until_us = months.get(place + 1).map_or(i64::MAX, |next| next.start_us);
            let rows = roll_up(readings, self.ways(&keys), &windows, &mut last_values, carry_until_us).await?;
            rewrite.append(rows).await?;
        }
        Ok(read + self.touched(closed, stepped, rewrite).await?)
    }

    fn ways<'a>(&'a self, keys: &'a SensorKeys) -> Ways<'a> {
        Ways { keys, grid: self.grid, natures: &self.natures }
    }

    /// The counters' last values before the first window that is not closed; `anew` are the closed ones that are computed again.
    async fn last_values(&self, anew: &Selection, keys: &mut SensorKeys) -> Result<HashMap<i32, f64>, RollupError> {
        let bounds = Bounds { from_us: self.open_from_us, ..Bounds::default() };
        let windows = Selection::all(&bounds, self.grid);
        let before = predecessors(&self.source, &windows, &self.natures, self.closed(anew)).await?;
        // What was summed up is the later one, where it is there.
        let found = before.readings.iter().chain(&before.summed_up);
        Ok(found.map(|one| (keys.key(&one.sensor), one.value)).collect())
    }

    /// The months in which a window with readings starts that is not closed.
    async fn months(&self) -> Result<BTreeSet<Window>, RollupError> {
        let mut months = BTreeSet::new();
        let mut last: Option<Window> = None;
        let mut take = |time_us: i64| {
            // A reading on a border may be of an interval, and so of the window before.
            for moment in [time_us, time_us.saturating_sub(1)] {
                if !last.is_some_and(|window| window.contains(moment)) {
                    let window = self.grid.window(moment);
                    last = Some(window);
                    if window.start_us >= self.open_from_us {
                        months.insert(month(window.start_us));
                    }
                }
            }
        };
        for file in self.source.table().files() {
            each_run(self.lake, &file, |_, times_us| times_us.iter().for_each(|time_us| take(*time_us))).await?;
        }
        Ok(months)
    }

    fn closed<'a>(&'a self, anew: &'a Selection) -> Closed<'a> {
        Closed { rollup: Some(self.table), until_us: self.open_from_us, anew }
    }

    /// Computes windows, and puts in the rows of those of which one step is another. Returns how many readings were read.
    async fn touched(
        &self,
        windows: &Selection,
        stepped: &Stepped,
        rewrite: &mut Rewrite<'_>,
    ) -> Result<usize, RollupError> {
        let mut all = windows.clone();
        all.extend(&stepped.windows);
        let computed = by_month(windows, self.grid);
        let mut read = 0;
        for (month, of_month) in by_month(&all, self.grid) {
            let mut rows = vec![stepped.within(month)?];
            if let Some(of_month) = computed.get(&month) {
                let (anew, readings) = self.recompute(of_month, windows).await?;
                rows.push(anew);
                read += readings;
            }
            let rows = concat_batches(&rollup_schema(), &rows)?;
            rewrite.replace(month, &of_month, &all, rows).await?;
        }
        Ok(read)
    }

    /// The rows of these windows, and from how many readings; `anew` are all windows that this run computes.
    async fn recompute(&self, windows: &Selection, anew: &Selection) -> Result<(RecordBatch, usize), RollupError> {
        let before = predecessors(&self.source, windows, &self.natures, self.closed(anew)).await?;
        let mut keys = SensorKeys::default();
        let mut wanted = windows.clone();
        for one in &before.readings {
            wanted.insert(&one.sensor, Window { start_us: one.time_us, end_us: one.time_us });
        }
        let readings = Readings::read(&self.source, &wanted.readings(), &mut keys).await?;
        let count = readings.len();
        let readings = readings.with(&before.summed_up, &mut keys)?;
        let rows = roll_up(readings, self.ways(&keys), windows, &mut HashMap::new(), i64::MIN).await?;
        Ok((rows, count))
    }
}

#[cfg(test)]
mod tests;
