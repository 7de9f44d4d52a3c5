//! From readings to windows: what each kind of sensor adds up to, computed by Polars.
//!
//! | kind | sum | min, max | first, last | increase | sine, cosine |
//! |---|---|---|---|---|---|
//! | `sample`, `interval_mean`, `interval_sum` | yes | yes | yes | | |
//! | `counter` | | yes | yes | yes | |
//! | `angle` | | | yes | | yes |
//! | `state` | | | yes | | |
//!
//! The increase of a counter is the sum of the steps between successive good values (quality 1 to 3),
//! the step into a window belongs to that window, whichever window it came from. How far a step was is told in
//! `tjern_lake::rollup::counting`: a step down is a wrap or a reset, and from one instrument to another there is none. A step belongs
//! to the quality of the value that it leads to. The very first value of a counter has no step.
//!
//! Angles are degrees, or radians where the unit is `rad`. Nothing here does I/O.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array};
use arrow::record_batch::RecordBatch;
use polars::prelude::{DataFrame, DataType, Expr, IntoLazy, NULL, col, len, lit, when};

use super::RollupError;
use super::read::{Cut, Readings, rollup_schema};
use crate::frames::{SensorKeys, to_batch, to_frame};
use tjern_lake::rollup::selection::contains;
use tjern_lake::rollup::{Counting, Finder, Kind, Nature, Selection, Window};

/// The columns that Polars groups, in the making.
struct Prepared {
    window_us: Vec<i64>,
    value_time_us: Vec<Option<i64>>,
    summed: Vec<Option<f64>>,
    ranged: Vec<Option<f64>>,
    step: Vec<Option<f64>>,
    sine: Vec<Option<f64>>,
    cosine: Vec<Option<f64>>,
}

impl Prepared {
    fn with_capacity(rows: usize) -> Self {
        let numbers = || Vec::with_capacity(rows);
        Self {
            window_us: Vec::with_capacity(rows),
            value_time_us: Vec::with_capacity(rows),
            summed: numbers(),
            ranged: numbers(),
            step: numbers(),
            sine: numbers(),
            cosine: numbers(),
        }
    }

    fn push(&mut self, window: Window, time_us: i64, value: Option<f64>, step: Option<f64>, nature: Nature) {
        let kind = nature.kind;
        let only = |wanted: bool| value.filter(|_| wanted);
        let angle = only(kind == Kind::Angle).map(|angle| if nature.radians { angle } else { angle.to_radians() });
        let summable = kind.is_summable();
        self.window_us.push(window.start_us);
        self.value_time_us.push(value.map(|_| time_us));
        self.summed.push(only(summable));
        // 0 for −0: which of the two is the least of both would depend on who looks.
        self.ranged.push(only(summable || kind == Kind::Counter).map(|value| value + 0.0));
        self.step.push(step);
        self.sine.push(angle.map(f64::sin));
        self.cosine.push(angle.map(f64::cos));
    }

    fn batch(self, readings: &Readings) -> Result<RecordBatch, RollupError> {
        let numbers = |column: Vec<Option<f64>>| -> ArrayRef { Arc::new(Float64Array::from(column)) };
        Ok(RecordBatch::try_from_iter_with_nullable([
            ("sensor", Arc::new(readings.sensor.clone()) as ArrayRef, true),
            ("window", Arc::new(Int64Array::from(self.window_us)), true),
            ("quality", Arc::new(readings.quality.clone()), true),
            ("value_time", Arc::new(Int64Array::from(self.value_time_us)), true),
            ("value", Arc::new(readings.value.clone()), true),
            ("summed", numbers(self.summed), true),
            ("ranged", numbers(self.ranged), true),
            ("step", numbers(self.step), true),
            ("sine", numbers(self.sine), true),
            ("cosine", numbers(self.cosine), true),
        ])?)
    }
}

/// What windows are computed by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ways<'a> {
    pub(crate) keys: &'a SensorKeys,
    pub(crate) cut: Cut<'a>,
}

/// What is known of counters from one portion of the readings to the next.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Their last good values before the first of the readings, each with its time, by key.
    last_values: HashMap<i32, (i64, f64)>,
    /// The counter that the portion before ended in, and its last good value there.
    running: Option<(i32, (i64, f64))>,
}

impl Counters {
    pub(crate) fn new(last_values: HashMap<i32, (i64, f64)>) -> Self {
        Self { last_values, running: None }
    }

    /// Other readings follow, which begin anew with the first sensor.
    pub(crate) fn begin(&mut self) {
        self.running = None;
    }

    /// The step to the next good value of a counter.
    fn step(&mut self, sensor: i32, counting: Counting<'_>, now: (i64, f64)) -> Option<f64> {
        let before = match self.running {
            Some((same, before)) if same == sensor => Some(before),
            _ => self.last_values.get(&sensor).copied(),
        };
        self.running = Some((sensor, now));
        before.and_then(|before| counting.step(before, now))
    }
}

/// The rows of a rollup for those windows of a portion of readings that are wanted, in no order. Portions come in the order of
/// sensors and times, and each window is whole in one of them.
/// The counters' last good values are carried forward to the last ones before `carry_until_us`.
pub(crate) async fn roll_up(
    readings: Readings,
    ways: Ways<'_>,
    wanted: &Selection,
    counters: &mut Counters,
    carry_until_us: i64,
) -> Result<RecordBatch, RollupError> {
    let Ways { keys, cut: Cut { grid, natures } } = ways;
    let mut prepared = Prepared::with_capacity(readings.len());
    let mut keep = Vec::with_capacity(readings.len());
    let mut finder = Finder::new(grid);
    let mut known: Option<(i32, Nature, Counting<'_>, &[Window])> = None;
    for row in 0..readings.len() {
        let (sensor, time_us) = (readings.sensor.value(row), readings.time_us.value(row));
        let (_, nature, counting, ranges) = match known {
            Some(same) if same.0 == sensor => same,
            _ => {
                let name = keys.name(sensor).unwrap_or_default();
                *known.insert((sensor, natures.get(name), natures.counting(name), wanted.of(name)))
            }
        };
        let window = finder.window_of(time_us, nature.kind);
        let mut step = None;
        if nature.kind == Kind::Counter
            && let Some(value) = readings.good(row)
        {
            step = counters.step(sensor, counting, (time_us, value));
            if time_us < carry_until_us {
                counters.last_values.insert(sensor, (time_us, value));
            }
        }
        let value = readings.value.is_valid(row).then(|| readings.value.value(row));
        prepared.push(window, time_us, value, step, nature);
        keep.push(contains(ranges, window.start_us));
    }
    let batch = arrow::compute::filter_record_batch(&prepared.batch(&readings)?, &keep.into())?;
    drop(readings);
    grouped(batch, keys).await
}

async fn grouped(batch: RecordBatch, keys: &SensorKeys) -> Result<RecordBatch, RollupError> {
    if batch.num_rows() == 0 {
        return Ok(RecordBatch::new_empty(rollup_schema()));
    }
    // Polars computes on threads of its own and may panic: neither shall reach this runtime.
    let grouped = tokio::task::spawn_blocking(move || -> Result<RecordBatch, RollupError> {
        let mut frame = group(to_frame(&batch)?)?;
        frame.rechunk_mut();
        Ok(to_batch(&frame, &keyed_schema())?)
    });
    let grouped = grouped.await.map_err(|error| RollupError::Panicked { what: error.to_string() })??;
    let keyed = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int32Type>(grouped.column(0));
    let mut columns = grouped.columns().to_vec();
    columns[0] = Arc::new(keys.decode(keyed)?);
    Ok(RecordBatch::try_new(rollup_schema(), columns)?)
}

/// A rollup's columns, with keys for sensors.
fn keyed_schema() -> arrow::datatypes::SchemaRef {
    let schema = rollup_schema();
    let fields = schema.fields().iter().map(|field| match field.name().as_str() {
        "sensor" => Arc::new(arrow::datatypes::Field::new("sensor", arrow::datatypes::DataType::Int32, true)),
        // Nothing that passes through a frame is known to be without nulls.
        _ => Arc::new(field.as_ref().clone().with_nullable(true)),
    });
    Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
}

fn group(frame: DataFrame) -> Result<DataFrame, polars::error::PolarsError> {
    // The sum of nothing is null here and not 0: a window without a value has none.
    let sum = |from: &'static str, to: &'static str| -> Expr {
        when(col(from).count().gt(lit(0))).then(col(from).sum()).otherwise(lit(NULL)).alias(to)
    };
    let windows = frame.lazy().group_by_stable([col("sensor"), col("window"), col("quality")]).agg([
        len().cast(DataType::Int64).alias("count"),
        col("value").count().cast(DataType::Int64).alias("values"),
        sum("summed", "sum"),
        col("ranged").min().alias("min"),
        col("ranged").max().alias("max"),
        col("value").first_non_null().alias("first"),
        col("value_time").first_non_null().alias("first_time"),
        col("value").last_non_null().alias("last"),
        col("value_time").last_non_null().alias("last_time"),
        sum("step", "increase"),
        sum("sine", "sine_sum"),
        sum("cosine", "cosine_sum"),
    ]);
    let renamed = [col("sine_sum").alias("sine"), col("cosine_sum").alias("cosine"), col("window").alias("time")];
    let kept = [
        "sensor",
        "quality",
        "count",
        "values",
        "sum",
        "min",
        "max",
        "first",
        "first_time",
        "last",
        "last_time",
        "increase",
    ];
    let columns: Vec<Expr> = kept.into_iter().map(col).chain(renamed).collect();
    windows.select(columns).collect()
}
