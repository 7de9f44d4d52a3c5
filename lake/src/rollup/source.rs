//! What of `readings` counts, at one version: of each `(sensor, time)` one reading, and its neighbours.
//!
//! DataFusion finds them, in the one order ([`crate::precedence`]) that the view `observations` has too. Files in which
//! `(sensor, time)` is unique and which share no key with others need no sifting.

use std::collections::{BTreeSet, HashMap};

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use datafusion::dataframe::DataFrame;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::ExprFunctionExt;
use datafusion::prelude::{Expr, col, lit};
use futures::TryStreamExt;

use super::selection::Selection;
use super::windows::{DAY_US, HOUR_US, Window};
use crate::views::settled;
use crate::{DataFile, Table, precedence};

/// How far the neighbours of a window are looked for, step by step; most are near.
const REACHES_US: [i64; 4] = [6 * HOUR_US, 3 * DAY_US, 100 * DAY_US, i64::MAX];

/// The columns of a reading that windows follow from.
const COLUMNS: [&str; 4] = ["sensor", "time", "value", "quality"];

/// Moments of sensors.
pub type Moments = HashMap<String, BTreeSet<i64>>;

/// A good value that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Whose.
    pub sensor: String,
    /// When, in microseconds since 1970 UTC.
    pub time_us: i64,
    /// The value.
    pub value: f64,
}

/// One version of `readings`, and the engine that reads it.
#[derive(Clone)]
pub struct Source {
    context: SessionContext,
    table: Table,
    settled: Vec<DataFile>,
    open: Vec<DataFile>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Source").field("table", &self.table).finish_non_exhaustive()
    }
}

/// That a reading has a value which has not failed: what the steps of a counter are between.
#[must_use]
pub fn is_good() -> Expr {
    col("quality").between(lit(1_i8), lit(3_i8)).and(col("value").is_not_null())
}

impl Source {
    /// The version that `table` is pinned at.
    #[must_use]
    pub fn new(context: SessionContext, table: Table) -> Self {
        let (settled, open) = settled(table.files());
        Self { context, table, settled, open }
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// The engine.
    #[must_use]
    pub const fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Those of the readings that count which a filter on `sensor` and `time` lets through: `sensor`, `time`, `value`, `quality`.
    ///
    /// # Errors
    /// Where the engine refuses.
    pub fn winners(&self, filter: &Expr) -> Result<DataFrame> {
        let rows = |files: &[DataFile]| -> Result<DataFrame> {
            self.context.read_table(self.table.provider_of(files.to_vec()))?.filter(filter.clone())
        };
        let place =
            row_number().partition_by(vec![col("sensor"), col("time")]).order_by(precedence::first()).build()?;
        let sifted = |files: &[DataFile]| -> Result<DataFrame> {
            let placed = rows(files)?.window(vec![place.clone().alias("place")])?;
            placed.filter(col("place").eq(lit(1_u64)))?.select_columns(&COLUMNS)
        };
        match (self.settled.is_empty(), self.open.is_empty()) {
            (true, _) => sifted(&self.open),
            (false, true) => rows(&self.settled)?.select_columns(&COLUMNS),
            (false, false) => rows(&self.settled)?.select_columns(&COLUMNS)?.union(sifted(&self.open)?),
        }
    }

    /// The last good value of each sensor before each of its moments, where there is one, with that moment.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn last_before(&self, moments: &Moments) -> Result<Vec<(i64, Found)>> {
        let mut open = moments.clone();
        let mut found = Vec::new();
        let mut nearest_us = 0;
        for reach_us in REACHES_US {
            let range = |before_us: i64| Window {
                start_us: before_us.saturating_sub(reach_us),
                end_us: before_us.saturating_sub(nearest_us).saturating_sub(1),
            };
            let mut walk =
                Backwards { moments: &open, reach_us, last: None, passed_us: i64::MIN, answered: Vec::new() };
            self.each_good(&open, range, |one| walk.take(one)).await?;
            for (before_us, one) in walk.end() {
                if let Some(moments) = open.get_mut(&one.sensor) {
                    moments.remove(&before_us);
                }
                found.push((before_us, one));
            }
            open.retain(|_, moments| !moments.is_empty());
            nearest_us = reach_us;
        }
        Ok(found)
    }

    /// For each sensor and each of its moments the time of the first good value at or after it, where there
    /// is one.
    ///
    /// # Errors
    /// Where the engine fails.
    pub async fn first_after(&self, moments: &Moments) -> Result<Vec<(String, i64)>> {
        let mut open = moments.clone();
        let mut found = Vec::new();
        for reach_us in REACHES_US {
            let range = |from_us: i64| Window { start_us: from_us, end_us: from_us.saturating_add(reach_us) };
            let mut left = open.clone();
            let take = |one: Found| {
                let Some(moments) = left.get_mut(&one.sensor) else { return };
                // Of what lies farther before not everything in between was read.
                let near = moments.range(one.time_us.saturating_sub(reach_us)..=one.time_us);
                let answered: Vec<i64> = near.copied().collect();
                for from_us in &answered {
                    moments.remove(from_us);
                }
                if !answered.is_empty() {
                    found.push((one.sensor, one.time_us));
                }
            };
            self.each_good(&open, range, take).await?;
            open = left;
            open.retain(|_, moments| !moments.is_empty());
        }
        Ok(found)
    }

    /// Hands on the good values that lie near moments, in the order of sensor and time.
    async fn each_good(
        &self,
        moments: &Moments,
        range: impl Fn(i64) -> Window,
        mut take: impl FnMut(Found),
    ) -> Result<()> {
        let mut near = Selection::default();
        for (sensor, moments) in moments {
            moments
                .iter()
                .map(|time_us| range(*time_us))
                .filter(|range| range.start_us <= range.end_us)
                .for_each(|range| near.insert(sensor, range));
        }
        let files = || self.settled.iter().chain(&self.open);
        if near.is_empty() || !files().any(|file| near.may_be_in(file)) {
            return Ok(());
        }
        let rows = self.winners(&near.readings())?.filter(is_good())?;
        let rows = rows.sort(vec![col("sensor").sort(true, false), col("time").sort(true, false)])?;
        let mut batches = rows.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            let names = cast(batch.column(0), &DataType::Utf8)?;
            let (names, times) = (names.as_string::<i32>(), batch.column(1).as_primitive::<TimestampMicrosecondType>());
            let values = batch.column(2).as_primitive::<Float64Type>();
            for row in 0..batch.num_rows() {
                let (time_us, value) = (times.value(row), values.value(row));
                take(Found { sensor: names.value(row).to_owned(), time_us, value });
            }
        }
        Ok(())
    }
}

/// Walks over good values in order, and keeps the last one before each moment.
struct Backwards<'a> {
    moments: &'a Moments,
    reach_us: i64,
    last: Option<Found>,
    /// Moments of the last one's sensor up to this one are answered.
    passed_us: i64,
    answered: Vec<(i64, Found)>,
}

impl Backwards<'_> {
    fn take(&mut self, one: Found) {
        if self.last.as_ref().is_some_and(|last| last.sensor != one.sensor) {
            self.answer(i64::MAX);
            (self.last, self.passed_us) = (None, i64::MIN);
        }
        self.answer(one.time_us);
        self.passed_us = one.time_us;
        self.last = Some(one);
    }

    /// Answers the moments after the last value, up to this one.
    fn answer(&mut self, until_us: i64) {
        let Some(last) = &self.last else { return };
        let Some(moments) = self.moments.get(&last.sensor) else { return };
        // Of what lies farther after not everything in between was read.
        let until_us = until_us.min(last.time_us.saturating_add(self.reach_us));
        let from_us = self.passed_us.saturating_add(1);
        if from_us <= until_us {
            self.answered.extend(moments.range(from_us..=until_us).map(|before_us| (*before_us, last.clone())));
        }
    }

    fn end(mut self) -> Vec<(i64, Found)> {
        self.answer(i64::MAX);
        self.answered
    }
}
