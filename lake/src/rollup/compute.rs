//! From readings to windows, as a plan of DataFusion's: what a query computes where a rollup is of another version.
//!
//! | kind | sum | min, max | first, last | increase | sine, cosine |
//! |---|---|---|---|---|---|
//! | `sample`, `interval_mean`, `interval_sum` | yes | yes | yes | | |
//! | `counter` | | yes | yes | yes | |
//! | `angle` | | | yes | | yes |
//! | `state` | | | yes | | |
//!
//! It says the same as the rollup itself, which `tjern-pipeline` computes by other means; the tests there hold
//! both against plain SQL. What steps of a counter are is told in [`super::counting`].

use std::sync::Arc;

use arrow::array::{Float64Array, Int8Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use datafusion::dataframe::DataFrame;
use datafusion::error::Result;
use datafusion::functions::expr_fn::{cos, radians, sin};
use datafusion::functions_aggregate::expr_fn::{count, max, min, sum};
use datafusion::functions_aggregate::first_last::{first_value_udaf, last_value_udaf};
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::NullTreatment;
use datafusion::logical_expr::{ExprFunctionExt, when};
use datafusion::prelude::{Expr, cast, col, lit};
use datafusion::scalar::ScalarValue;

use super::functions::{UNWANTED_US, kind_number, kind_of, one_zero, step_of, window_of};
use super::nature::{Kind, Natures};
use super::neighbours::Predecessors;
use super::selection::{Selection, moment};
use super::source::{Found, Source, is_good};
use super::windows::{Grid, Window};
use crate::{TableName, schema};

/// The rows of a rollup for the selected windows, in no order.
///
/// # Errors
/// Where the engine refuses.
pub(super) fn windows(
    source: &Source,
    selection: &Arc<Selection>,
    natures: &Arc<Natures>,
    grid: &Grid,
    predecessors: &Predecessors,
) -> Result<DataFrame> {
    let mut read = selection.as_ref().clone();
    for one in &predecessors.readings {
        read.insert(&one.sensor, Window { start_us: one.time_us, end_us: one.time_us });
    }
    let mut rows = source.winners(&read.readings())?;
    if !predecessors.summed_up.is_empty() {
        rows = rows.union(source.context().read_batch(as_rows(&predecessors.summed_up)?)?)?;
    }
    let rows = rows
        .with_column("window", window_of(selection, natures, grid, [col("sensor"), col("time")]))?
        .with_column("kind", kind_of(natures, col("sensor")))?;
    let rows = with_steps(rows, selection, natures)?;
    let is_wanted = col("window").not_eq(moment(UNWANTED_US));
    rows.filter(is_wanted)?.aggregate(vec![col("sensor"), col("window"), col("quality")], sums()?)?.select(columns())
}

/// The readings that a rollup knows as the last ones, as if they were there.
fn as_rows(found: &[Found]) -> Result<RecordBatch> {
    let fields = ["sensor", "time", "value", "quality"];
    let readings = schema::arrow(TableName::Readings);
    let indices: Vec<usize> =
        fields.iter().map(|name| readings.index_of(name)).collect::<std::result::Result<_, _>>()?;
    let times = TimestampMicrosecondArray::from_iter_values(found.iter().map(|one| one.time_us)).with_timezone("UTC");
    Ok(RecordBatch::try_new(
        Arc::new(readings.project(&indices)?),
        vec![
            Arc::new(StringArray::from_iter_values(found.iter().map(|one| one.sensor.as_str()))),
            Arc::new(times),
            Arc::new(found.iter().map(|one| Some(one.value)).collect::<Float64Array>()),
            Arc::new(Int8Array::from_iter_values(found.iter().map(|_| 1))),
        ],
    )?)
}

fn is_kind(kinds: &[Kind]) -> Expr {
    let mut numbers: Vec<Expr> = kinds.iter().map(|kind| lit(kind_number(*kind, false))).collect();
    if kinds.contains(&Kind::Angle) {
        numbers.push(lit(kind_number(Kind::Angle, true)));
    }
    col("kind").in_list(numbers, false)
}

fn null() -> Expr {
    lit(ScalarValue::Float64(None))
}

/// How far a counter went from the good value before to this one.
fn with_steps(rows: DataFrame, selection: &Selection, natures: &Arc<Natures>) -> Result<DataFrame> {
    let none = natures.counters().next().is_none()
        || (selection.of_others().is_empty() && selection.iter().all(|(sensor, _)| !natures.is_counter(sensor)));
    if none {
        return rows.with_column("step", null());
    }
    let good = when(is_kind(&[Kind::Counter]).and(is_good()), col("value")).otherwise(null())?;
    let good_at = when(col("good").is_not_null(), col("time")).end()?;
    let before = |column: &str, name: &str| -> Result<Expr> {
        let before = lag(col(column), Some(1), None)
            .partition_by(vec![col("sensor")])
            .order_by(vec![col("time").sort(true, false)])
            .null_treatment(NullTreatment::IgnoreNulls)
            .build()?;
        Ok(before.alias(name))
    };
    let rows = rows.with_column("good", good)?.with_column("good_at", good_at)?;
    let rows = rows.window(vec![before("good", "before")?, before("good_at", "before_at")?])?;
    let columns = ["sensor", "time", "good", "before_at", "before"];
    rows.with_column("step", step_of(natures, columns.map(col)))
}

fn sums() -> Result<Vec<Expr>> {
    let summable = is_kind(&[Kind::Sample, Kind::IntervalMean, Kind::IntervalSum]);
    let ranged = is_kind(&[Kind::Sample, Kind::IntervalMean, Kind::IntervalSum, Kind::Counter]);
    let only = |wanted: Expr, value: Expr| when(wanted, value).otherwise(null());
    let angle = only(is_kind(&[Kind::Angle]), {
        let is_radians = col("kind").eq(lit(kind_number(Kind::Angle, true)));
        when(is_radians, col("value")).otherwise(radians(col("value")))?
    })?;
    let there = col("value").is_not_null();
    let in_order = vec![col("time").sort(true, false)];
    let first = first_value_udaf().call(vec![col("value")]).order_by(in_order.clone()).filter(there.clone()).build()?;
    let last = last_value_udaf().call(vec![col("value")]).order_by(in_order).filter(there.clone()).build()?;
    Ok(vec![
        count(lit(1_i64)).alias("count"),
        count(col("value")).alias("values"),
        sum(only(summable, col("value"))?).alias("sum"),
        min(only(ranged.clone(), one_zero(col("value")))?).alias("min"),
        max(only(ranged, one_zero(col("value")))?).alias("max"),
        first.alias("first"),
        min(col("time")).filter(there.clone()).build()?.alias("first_time"),
        last.alias("last"),
        max(col("time")).filter(there).build()?.alias("last_time"),
        sum(col("step")).alias("increase"),
        sum(sin(angle.clone())).alias("sine"),
        sum(cos(angle)).alias("cosine"),
    ])
}

/// In the order of the table, with its types.
fn columns() -> Vec<Expr> {
    let schema = schema::arrow(TableName::Hourly);
    let column = |name: &str| match name {
        // Engines hand text out in views.
        "sensor" => cast(col("sensor"), DataType::Utf8).alias("sensor"),
        "time" => col("window").alias("time"),
        name => col(name),
    };
    schema.fields().iter().map(|field| column(field.name())).collect()
}
