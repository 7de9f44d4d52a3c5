//! The steps that lead from erased values of counters into closed windows.
//!
//! A window's increase holds the step into its first good value. Where the value before was erased, that step tells what it
//! was. An open window is computed again; of a closed one the readings may be gone, so its row stays, and that one
//! step is taken out of the increase and put in anew, from the last good value that is left.
//!
//! Limits: the rows of closed windows of the counters that something was erased of are held in memory. A sum loses what adding and
//! taking away round off. Where the old step started from a reading that came too late to be summed up, it is taken to
//! have started from the last value that was. Where the register says since, of a window that is closed, how its counter counts, the
//! greatest step is taken out that the row can hold by what was known then or is now.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Float64Type, Int8Type, Int64Type, TimestampMicrosecondType};
use datafusion::error::Result;
use datafusion::prelude::{cast, col};

use super::counting::Counting;
use super::nature::Natures;
use super::neighbours::Closed;
use super::selection::{Selection, moment};
use super::source::{Moments, Source};
use super::windows::{Grid, Window};
use crate::{TableName, schema};

/// What a sum may have lost by rounding, as a part of it.
const ROUNDED: f64 = 1e-9;

/// Closed windows, each with all of its rows.
#[derive(Debug, Clone)]
pub struct Stepped {
    /// The windows.
    pub windows: Selection,
    /// Their rows, with the columns of a rollup.
    pub rows: RecordBatch,
}

impl Default for Stepped {
    fn default() -> Self {
        Self { windows: Selection::default(), rows: RecordBatch::new_empty(schema::arrow(TableName::Hourly)) }
    }
}

impl Stepped {
    /// The rows of windows that start in a range.
    ///
    /// # Errors
    /// Where Arrow refuses.
    pub fn within(&self, range: Window) -> Result<RecordBatch> {
        let starts = self.rows.column_by_name("time").map(|times| times.as_primitive::<TimestampMicrosecondType>());
        let inside: BooleanArray = starts
            .into_iter()
            .flatten()
            .map(|start_us| Some(start_us.is_some_and(|one| range.contains(one))))
            .collect();
        Ok(filter_record_batch(&self.rows, &inside)?)
    }
}

/// The closed windows into which a step leads from one of the `erased` ones, with the step from what is left instead.
/// Windows whose step stays the same are not among them.
///
/// # Errors
/// Where the engine fails.
pub async fn steps_from_erased(
    source: &Source,
    erased: &Selection,
    natures: &Natures,
    grid: &Grid,
    closed: Closed<'_>,
) -> Result<Stepped> {
    let mut counters = Selection::default();
    for (sensor, _) in erased.until(closed.until_us).iter().filter(|(sensor, _)| natures.is_counter(sensor)) {
        counters.insert(sensor, Window { start_us: i64::MIN, end_us: i64::MAX });
    }
    if counters.is_empty() {
        return Ok(Stepped::default());
    }
    let Some(rows) = closed_rows(source, &counters, closed).await? else { return Ok(Stepped::default()) };
    let into = steps_into(&rows, erased);
    let mut moments = Moments::new();
    for step in &into {
        moments.entry(step.sensor.clone()).or_default().insert(step.window_us);
    }
    let left = source.last_before(&moments).await?;
    let left: HashMap<(&str, i64), _> =
        left.iter().map(|(before_us, one)| ((one.sensor.as_str(), *before_us), one)).collect();
    let mut increases: Vec<Option<f64>> = float(&rows, "increase").iter().collect();
    let mut windows = Selection::default();
    for step in &into {
        let read = left.get(&(step.sensor.as_str(), step.window_us)).map(|one| (one.time_us, one.value));
        let before = [read, step.kept].into_iter().flatten().max_by_key(|(time_us, _)| *time_us);
        let counting = natures.counting(&step.sensor);
        let new = before.and_then(|before| counting.step(before, step.value));
        let Some(old) = step.held(counting, increases[step.row]) else { continue };
        if new == Some(old) {
            continue;
        }
        let others = increases[step.row].filter(|_| !step.is_alone).map(|sum| (sum - old).max(0.0));
        increases[step.row] = [others, new].into_iter().flatten().reduce(|one, other| one + other);
        windows.insert(&step.sensor, grid.window(step.window_us));
    }
    let index = rows.schema().index_of("increase")?;
    let mut columns = rows.columns().to_vec();
    columns[index] = Arc::new(Float64Array::from(increases)) as ArrayRef;
    let rows = RecordBatch::try_new(rows.schema(), columns)?;
    let (sensors, starts) = places(&rows);
    let chosen: BooleanArray =
        (0..rows.num_rows()).map(|row| Some(windows.contains(sensors.value(row), starts.value(row)))).collect();
    Ok(Stepped { rows: filter_record_batch(&rows, &chosen)?, windows })
}

/// A step from an erased value into a closed window.
struct Step {
    sensor: String,
    window_us: i64,
    /// The row whose increase has it.
    row: usize,
    /// Whether the row has no other step.
    is_alone: bool,
    /// The first good value of the window, with its time.
    value: (i64, f64),
    /// The value that was erased, with its time.
    erased: (i64, f64),
    /// The last good value before that was summed up and is not erased, with its time.
    kept: Option<(i64, f64)>,
}

impl Step {
    /// How much of a row's increase it is; none where it is in no sum. The window may have been closed before the register
    /// said how its sensor counts: then the row has the step by what was known before, if its sum is not too small for that. What was
    /// erased must not stay in it.
    fn held(&self, counting: Counting<'_>, sum: Option<f64>) -> Option<f64> {
        let of_one = Counting { instruments: None, ..counting };
        let steps = [counting, of_one, Counting::PLAIN].map(|way| way.step(self.erased, self.value));
        let held = steps.into_iter().flatten().filter(|step| sum.is_some_and(|sum| *step <= sum * (1.0 + ROUNDED)));
        held.max_by(f64::total_cmp)
    }
}

/// Finds them in rows that are in the order of sensor and time.
fn steps_into(rows: &RecordBatch, erased: &Selection) -> Vec<Step> {
    let (sensors, starts) = places(rows);
    let mut steps = Vec::new();
    let (mut kept, mut gone) = (None::<(i64, f64)>, None::<(i64, f64)>);
    let mut begin = 0;
    for end in 1..=rows.num_rows() {
        let is_same =
            |row: usize| sensors.value(row) == sensors.value(begin) && starts.value(row) == starts.value(begin);
        if end < rows.num_rows() && is_same(end) {
            continue;
        }
        let (sensor, window_us) = (sensors.value(begin), starts.value(begin));
        if let Some(ends) = Ends::of(rows, begin..end) {
            if erased.contains(sensor, window_us) {
                gone = Some(ends.last);
            } else {
                if let Some(erased) = gone.take() {
                    let Ends { row, is_alone, first: value, .. } = ends;
                    steps.push(Step { sensor: sensor.to_owned(), window_us, row, is_alone, value, erased, kept });
                }
                kept = Some(ends.last);
            }
        }
        if end < rows.num_rows() && sensors.value(end) != sensor {
            (kept, gone) = (None, None);
        }
        begin = end;
    }
    steps
}

/// The good values at both ends of a window.
#[derive(Debug, Clone, Copy)]
struct Ends {
    /// The row of the first one's quality.
    row: usize,
    is_alone: bool,
    first: (i64, f64),
    last: (i64, f64),
}

impl Ends {
    fn of(rows: &RecordBatch, window: std::ops::Range<usize>) -> Option<Self> {
        let qualities = number::<Int8Type>(rows, "quality");
        let (first, last) = (float(rows, "first"), float(rows, "last"));
        let (first_times, last_times) = (time(rows, "first_time"), time(rows, "last_time"));
        let good =
            |row: &usize| (1..=3).contains(&qualities.value(*row)) && first.is_valid(*row) && last.is_valid(*row);
        let row = window.clone().filter(good).min_by_key(|row| first_times.value(*row))?;
        let newest = window.filter(good).max_by_key(|row| last_times.value(*row))?;
        Some(Self {
            row,
            is_alone: number::<Int64Type>(rows, "values").value(row) == 1,
            first: (first_times.value(row), first.value(row)),
            last: (last_times.value(newest), last.value(newest)),
        })
    }
}

/// All rows of closed windows of these sensors, in order.
async fn closed_rows(source: &Source, sensors: &Selection, closed: Closed<'_>) -> Result<Option<RecordBatch>> {
    let Some(table) = closed.rollup else { return Ok(None) };
    let schema = schema::arrow(TableName::Hourly);
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        // Engines hand text out in views.
        "sensor" => cast(col("sensor"), DataType::Utf8).alias("sensor"),
        name => col(name),
    });
    let rows = source
        .context()
        .read_table(table.provider())?
        .filter(sensors.readings())?
        .filter(col("time").lt(moment(closed.until_us)))?
        .select(columns.collect::<Vec<_>>())?
        .sort(vec![col("sensor").sort(true, false), col("time").sort(true, false)])?;
    let batches = rows.collect().await?;
    let Some(first) = batches.first() else { return Ok(None) };
    let rows = concat_batches(&first.schema(), &batches)?;
    Ok(Some(RecordBatch::try_new(schema, rows.columns().to_vec())?).filter(|rows| rows.num_rows() > 0))
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    rows.column_by_name(name).expect("a rollup has it")
}

fn number<'a, T: arrow::datatypes::ArrowPrimitiveType>(
    rows: &'a RecordBatch,
    name: &str,
) -> &'a arrow::array::PrimitiveArray<T> {
    column(rows, name).as_primitive::<T>()
}

fn float<'a>(rows: &'a RecordBatch, name: &str) -> &'a Float64Array {
    number::<Float64Type>(rows, name)
}

fn time<'a>(rows: &'a RecordBatch, name: &str) -> &'a arrow::array::TimestampMicrosecondArray {
    number::<TimestampMicrosecondType>(rows, name)
}

fn places(rows: &RecordBatch) -> (&arrow::array::StringArray, &arrow::array::TimestampMicrosecondArray) {
    (column(rows, "sensor").as_string::<i32>(), time(rows, "time"))
}
