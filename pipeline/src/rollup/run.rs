//! One attempt at one table: what has to be computed, from where its readings come, and the commit that it becomes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::prelude::{col, lit};
use datafusion::scalar::ScalarValue;
use tjern_lake::rollup::neighbours::{Closed, predecessors};
use tjern_lake::rollup::touched::each_run;
use tjern_lake::rollup::windows::DAY_US;
use tjern_lake::rollup::{
    Grid, Natures, RETENTION_TRANSACTION, Selection, Source, Spans, Stepped, TIMEZONE_TRANSACTION, VERSION_TRANSACTION,
    Window, Words, selection, touched_between,
};
use tjern_lake::{Commit, Lake, Operation, Table};

use super::compute::{Counters, Ways, roll_up};
use super::files::{Replacing, Rewrite};
use super::months::{by_month, month};
use super::read::{Cut, Portions};
use super::scope::{Place, Scope};
use super::{Again, RollupError, TableOutcome};
use crate::bounds::Bounds;
use crate::frames::SensorKeys;

/// A day on which clocks are set back by an hour.
const LONGEST_DAY_US: i64 = DAY_US + DAY_US / 24;

/// Where no window was touched the version is moved only when it lies this far back.
const VERSIONS_BEHIND_MAX: i64 = 64;

/// A reading while its window is computed, about, in bytes: its columns, what is prepared of them, and their groups.
const READING_BYTES: u64 = 512;

/// One attempt to bring one table up to one version of `readings`.
pub(super) struct Run<'a> {
    pub(super) lake: &'a Lake,
    pub(super) table: &'a Table,
    pub(super) grid: &'a Grid,
    pub(super) natures: Natures,
    pub(super) source: Source,
    /// The start of the first window that is not closed.
    pub(super) open_from_us: i64,
    pub(super) again: Option<&'a Again>,
    /// What it may take.
    pub(super) bounds: &'a Bounds,
}

impl Run<'_> {
    /// The commit to make; `None` where there is nothing to do.
    pub(super) async fn prepare(&self) -> Result<Option<(Commit, TableOutcome)>, RollupError> {
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
        let mut rewrite = Rewrite::new(self.lake, self.table, self.bounds)?;
        let overlapping_from_us = self.overlapping_from_us().await?;
        let mut outcome =
            TableOutcome { readings_version: Some(version), overlapping_from_us, ..TableOutcome::default() };
        match &scope {
            Scope::Everything { closed, stepped } => {
                outcome.readings_read = Box::pin(self.everything(closed, stepped, &mut rewrite)).await?;
            }
            Scope::Touched { windows, stepped, left_out } => {
                outcome.left_out = *left_out;
                outcome.readings_read = Box::pin(self.touched(windows, stepped, &mut rewrite)).await?;
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
            && self.natures.words().are_known_to(&Words::of(self.table))
            && readings.transaction(RETENTION_TRANSACTION) <= self.table.transaction(RETENTION_TRANSACTION)
    }

    fn transactions(&self, version: i64) -> Vec<(String, i64)> {
        let mut transactions = vec![(VERSION_TRANSACTION.to_owned(), version)];
        transactions.extend(self.natures.words().transactions());
        let [read, known] = [self.source.table(), self.table].map(|table| table.transaction(RETENTION_TRANSACTION));
        let forgotten_us = read.max(known);
        transactions.extend(forgotten_us.map(|newest_us| (RETENTION_TRANSACTION.to_owned(), newest_us)));
        transactions.extend(self.grid.number().map(|number| (TIMEZONE_TRANSACTION.to_owned(), number)));
        transactions.extend(self.again.into_iter().flat_map(|again| again.marks.iter().cloned()));
        transactions
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
        self.place().scope(touched, Words::of(self.table)).await
    }

    /// When the first closed day began that is of another time zone and reaches into the first open one; none where the days were of this
    /// time zone before, or nothing is closed. Closed days stay as they were summed up, since their readings may be gone.
    async fn overlapping_from_us(&self) -> Result<Option<i64>, RollupError> {
        let before = self.table.transaction(TIMEZONE_TRANSACTION);
        if before.is_none() || before == self.grid.number() || self.open_from_us == i64::MIN {
            return Ok(None);
        }
        let at = |time_us| lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())));
        let reaches = col("time").gt(at(self.open_from_us.saturating_sub(LONGEST_DAY_US)));
        let is_closed = col("time").lt(at(self.open_from_us));
        let rows = self.source.context().read_table(self.table.provider())?.filter(reaches.and(is_closed))?;
        let batches = rows.select_columns(&["time"])?.collect().await?;
        let starts =
            batches.iter().flat_map(|batch| batch.column(0).as_primitive::<TimestampMicrosecondType>().values());
        Ok(starts.copied().filter(|start_us| self.grid.window(*start_us).start_us != *start_us).min())
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

    /// Month by month, as files are cut; only months that have readings, so that one with a wrong clock costs one month and not a
    /// century. Of the closed windows these ones only. Returns how many readings were read.
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
        let mut counters = Counters::new(self.last_values(closed, &mut keys).await?);
        let months: Vec<Window> = self.months().await?.into_iter().collect();
        let mut read = 0;
        for (place, month) in months.iter().enumerate() {
            let from_us = month.start_us.max(self.open_from_us);
            let range = selection::Bounds { sensors: None, from_us, to_us: month.end_us.saturating_sub(1) };
            let windows = Selection::all(&range, self.grid);
            // A day may reach into the month after: what lies there is read again only if that one is next.
            let carry_until_us = months.get(place + 1).map_or(i64::MAX, |next| next.start_us);
            counters.begin();
            let mut portions = Portions::open(&self.source, &windows.readings(), self.portion_rows()).await?;
            while let Some(readings) = portions.next(self.cut(), &mut keys).await? {
                let ways = Ways { keys: &keys, cut: self.cut() };
                rewrite.append(&roll_up(readings, ways, &windows, &mut counters, carry_until_us).await?).await?;
            }
            rewrite.end_files().await?;
            read += portions.read;
        }
        Ok(read + Box::pin(self.touched(closed, stepped, rewrite)).await?)
    }

    const fn cut(&self) -> Cut<'_> {
        Cut { grid: self.grid, natures: &self.natures }
    }

    /// A sixteenth of the memory is for readings while their windows are computed: half is for what is sorted, and the rest for
    /// what stays and what is written.
    fn portion_rows(&self) -> usize {
        usize::try_from(self.bounds.memory_bytes / 16 / READING_BYTES).unwrap_or(usize::MAX).max(1)
    }

    /// The counters' last values before the first window that is not closed; `anew` are the closed ones that are computed again.
    async fn last_values(
        &self,
        anew: &Selection,
        keys: &mut SensorKeys,
    ) -> Result<HashMap<i32, (i64, f64)>, RollupError> {
        let range = selection::Bounds { from_us: self.open_from_us, ..selection::Bounds::default() };
        let windows = Selection::all(&range, self.grid);
        let before = predecessors(&self.source, &windows, &self.natures, self.closed(anew)).await?;
        // What was summed up is the later one, where it is there.
        let found = before.readings.iter().chain(&before.summed_up);
        Ok(found.map(|one| (keys.key(&one.sensor), (one.time_us, one.value))).collect())
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
            let mut replacing = rewrite.replace(month, &of_month, &all, &stepped.within(month)?).await?;
            if let Some(of_month) = computed.get(&month) {
                read += self.recompute(of_month, windows, &mut replacing).await?;
            }
            replacing.end().await?;
        }
        Ok(read)
    }

    /// Puts in the rows of these windows. Returns from how many readings; `anew` are all windows that this run computes.
    async fn recompute(
        &self,
        windows: &Selection,
        anew: &Selection,
        replacing: &mut Replacing<'_, '_>,
    ) -> Result<usize, RollupError> {
        let before = predecessors(&self.source, windows, &self.natures, self.closed(anew)).await?;
        let mut wanted = windows.clone();
        for one in &before.readings {
            wanted.insert(&one.sensor, Window { start_us: one.time_us, end_us: one.time_us });
        }
        let (mut keys, mut counters) = (SensorKeys::default(), Counters::default());
        let portions = Portions::open(&self.source, &wanted.readings(), self.portion_rows()).await?;
        let mut portions = portions.with(before.summed_up);
        while let Some(readings) = portions.next(self.cut(), &mut keys).await? {
            let ways = Ways { keys: &keys, cut: self.cut() };
            replacing.put(&roll_up(readings, ways, windows, &mut counters, i64::MIN).await?).await?;
        }
        Ok(portions.read)
    }
}
