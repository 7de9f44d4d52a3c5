//! Reading what a rollup needs: of each `(sensor, time)` the one reading that counts, sorted.
//!
//! DataFusion finds the winners: the highest revision; among equals the latest `received`, then the
//! highest `(source, epoch, seq)`. The same order stands in the view `observations`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Float64Array, Int8Array, Int32Array, Int64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Float64Type, Int8Type, Int64Type, TimestampMicrosecondType};
use datafusion::catalog::TableProvider;
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::SessionContext;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::ExprFunctionExt;
use datafusion::prelude::{Expr, col, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use tjern_lake::{DataFile, Table, TableName, precedence, schema};
use tjern_readings::reading::Quality;

use super::RollupError;
use super::windows::DAY_US;
use crate::frames::SensorKeys;

/// More names than this are not listed in a query: it reads from the first name to the last.
const LISTED_SENSORS_MAX: usize = 256;

/// How far the neighbours of a window are looked for, step by step; most are near.
const REACHES_US: [i64; 3] = [3 * DAY_US, 100 * DAY_US, i64::MAX];

/// The readings that count, sorted by sensor and time. All columns are of one length.
#[derive(Debug)]
pub(crate) struct Readings {
    pub(crate) sensor: Int32Array,
    pub(crate) time_us: Int64Array,
    pub(crate) value: Float64Array,
    pub(crate) quality: Int8Array,
}

impl Readings {
    pub(crate) fn len(&self) -> usize {
        self.sensor.len()
    }

    /// The value, where it counts as one: it is there, and has not failed.
    pub(crate) fn good(&self, row: usize) -> Option<f64> {
        let passed = (Quality::Good.code()..=Quality::Suspect.code()).contains(&self.quality.value(row));
        (passed && self.value.is_valid(row)).then(|| self.value.value(row))
    }
}

/// A moment as SQL knows it.
fn moment(time_us: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())))
}

/// What is to be read: from the first moment to the last, both included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
    /// Only these; none: all.
    pub(crate) sensors: Option<&'a BTreeSet<String>>,
}

/// One version of `readings`, and the engine that reads it.
pub(crate) struct Source {
    context: SessionContext,
    table: Table,
}

impl Source {
    pub(crate) fn new(context: SessionContext, table: Table) -> Self {
        Self { context, table }
    }

    pub(crate) const fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) const fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Hands sensor and time of every row of these files to `take`; of these sensors only.
    pub(crate) async fn each_row(
        &self,
        files: Vec<DataFile>,
        sensors: Option<&BTreeSet<String>>,
        mut take: impl FnMut(&str, i64),
    ) -> Result<(), RollupError> {
        let rows = self.rows_of(self.table.provider_of(files), sensors)?.select_columns(&["sensor", "time"])?;
        let mut batches = rows.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            let names = crate::frames::texts(batch.column(0))?;
            let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
            names.iter().zip(times).for_each(|(name, time_us)| {
                if let (Some(name), Some(time_us)) = (name, time_us) {
                    take(name, time_us);
                }
            });
        }
        Ok(())
    }

    fn rows_of(
        &self,
        provider: Arc<dyn TableProvider>,
        sensors: Option<&BTreeSet<String>>,
    ) -> Result<DataFrame, RollupError> {
        let rows = self.context.read_table(provider)?;
        let Some(sensors) = sensors else { return Ok(rows) };
        let (Some(first), Some(last)) = (sensors.first(), sensors.last()) else {
            return Ok(rows.filter(lit(false))?);
        };
        if sensors.len() <= LISTED_SENSORS_MAX {
            return Ok(
                rows.filter(col("sensor").in_list(sensors.iter().map(|name| lit(name.as_str())).collect(), false))?
            );
        }
        Ok(rows.filter(col("sensor").between(lit(first.as_str()), lit(last.as_str())))?)
    }

    /// The readings that count, sorted; new sensors get their keys.
    pub(crate) async fn winners(&self, wanted: Wanted<'_>, keys: &mut SensorKeys) -> Result<Readings, RollupError> {
        let inside = col("time").gt_eq(moment(wanted.from_us)).and(col("time").lt_eq(moment(wanted.to_us)));
        let place =
            row_number().partition_by(vec![col("sensor"), col("time")]).order_by(precedence::first()).build()?;
        let rows = self
            .rows_of(self.table.provider(), wanted.sensors)?
            .filter(inside)?
            .window(vec![place.alias("place")])?
            .filter(col("place").eq(lit(1_u64)))?
            .select_columns(&["sensor", "time", "value", "quality"])?
            .sort(vec![col("sensor").sort(true, false), col("time").sort(true, false)])?;
        let schema = Arc::new(rows.schema().as_arrow().clone());
        let rows = concat_batches(&schema, &rows.collect().await?)?;
        Ok(Readings {
            sensor: keys.encode(rows.column(0))?,
            time_us: rows.column(1).as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>(),
            value: rows.column(2).as_primitive::<Float64Type>().clone(),
            quality: rows.column(3).as_primitive::<Int8Type>().clone(),
        })
    }

    /// The last good value of each sensor before a moment, where there is one.
    pub(crate) async fn last_before(
        &self,
        sensors: &BTreeSet<String>,
        before_us: i64,
    ) -> Result<HashMap<String, f64>, RollupError> {
        let mut found = HashMap::new();
        let mut open = sensors.clone();
        let mut to_us = before_us.saturating_sub(1);
        for reach_us in REACHES_US {
            if open.is_empty() {
                break;
            }
            let from_us = before_us.saturating_sub(reach_us);
            let mut keys = SensorKeys::default();
            let rows = self.winners(Wanted { from_us, to_us, sensors: Some(&open) }, &mut keys).await?;
            for row in 0..rows.len() {
                if let (Some(value), Some(name)) = (rows.good(row), keys.name(rows.sensor.value(row))) {
                    found.insert(name.to_owned(), value);
                }
            }
            open.retain(|name| !found.contains_key(name));
            to_us = from_us.saturating_sub(1);
        }
        found.retain(|name, _| sensors.contains(name));
        Ok(found)
    }

    /// For each sensor and each of its moments the time of the first good value at or after it,
    /// where there is one.
    pub(crate) async fn first_after(
        &self,
        moments: &HashMap<String, BTreeSet<i64>>,
    ) -> Result<Vec<(String, i64)>, RollupError> {
        let mut open: HashMap<String, BTreeSet<i64>> = moments.clone();
        let mut found = Vec::new();
        for reach_us in REACHES_US {
            open.retain(|_, moments| !moments.is_empty());
            let all = || open.values().flatten().copied();
            let (Some(from_us), Some(last)) = (all().min(), all().max()) else { break };
            let sensors: BTreeSet<String> = open.keys().cloned().collect();
            let mut keys = SensorKeys::default();
            let wanted = Wanted { from_us, to_us: last.saturating_add(reach_us), sensors: Some(&sensors) };
            let rows = self.winners(wanted, &mut keys).await?;
            for row in 0..rows.len() {
                let Some(moments) = keys.name(rows.sensor.value(row)).and_then(|name| open.get_mut(name)) else {
                    continue;
                };
                let time_us = rows.time_us.value(row);
                if rows.good(row).is_some() && moments.first().is_some_and(|first| *first <= time_us) {
                    // Sorted by time: this one answers every moment up to it.
                    *moments = moments.split_off(&time_us.saturating_add(1));
                    found.push((keys.name(rows.sensor.value(row)).unwrap_or_default().to_owned(), time_us));
                }
            }
        }
        Ok(found)
    }
}

/// The columns of a rollup table.
pub(crate) fn rollup_schema() -> arrow::datatypes::SchemaRef {
    schema::arrow(TableName::Hourly)
}
