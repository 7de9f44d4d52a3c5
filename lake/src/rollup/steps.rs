//! The steps that lead from erased values of counters into closed windows.
//!
//! A window's increase holds the step into its first good value. Where the value before was erased, that step tells what it
//! was. An open window is computed again; of a closed one the readings may be gone, so its row stays, and that one
//! step is taken out of the increase and put in anew, from the last good value that is left.
//!
//! Limits: the rows of closed windows of the counters that something was erased of are held in memory. A sum loses what adding and
//! taking away round off. Where the old step started from a reading that came too late to be summed up, it is taken to
//! have started from the last value that was.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Float64Type, Int8Type, Int64Type, TimestampMicrosecondType};
use datafusion::error::Result;
use datafusion::prelude::{cast, col};

use super::nature::Natures;
use super::neighbours::Closed;
use super::selection::{Selection, moment};
use super::source::{Moments, Source};
use super::windows::{Grid, Window};
use crate::{TableName, schema};

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

/// How far a counter went from one good value to the next: a step down is a reset, and the new value what it counted since.
#[must_use]
pub fn increase(before: f64, value: f64) -> f64 {
    if value >= before { value - before } else { value.max(0.0) }
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
        let (old, new) = (increase(step.erased, step.value), before.map(|(_, before)| increase(before, step.value)));
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
    /// The first good value of the window.
    value: f64,
    /// The value that was erased.
    erased: f64,
    /// The last good value before that was summed up and is not erased, with its time.
    kept: Option<(i64, f64)>,
}

/// Finds them in rows that are in the order of sensor and time.
fn steps_into(rows: &RecordBatch, erased: &Selection) -> Vec<Step> {
    let (sensors, starts) = places(rows);
    let mut steps = Vec::new();
    let (mut kept, mut gone): (Option<(i64, f64)>, Option<f64>) = (None, None);
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
                gone = Some(ends.last.1);
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
    first: f64,
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
            first: first.value(row),
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

#[cfg(test)]
mod tests {
    use super::increase;

    #[test]
    fn a_step_down_is_a_reset() {
        assert_eq!(increase(10.0, 12.5), 2.5);
        assert_eq!(increase(10.0, 3.0), 3.0);
        assert_eq!(increase(10.0, -1.0), 0.0);
    }
}
