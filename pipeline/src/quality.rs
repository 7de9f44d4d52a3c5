//! The first quality step: is a value plausible at all?
//!
//! Two tests, two bits each in `tests` (0 not evaluated, 1 good, 2 suspect, 3 fail):
//!
//! | test | bits | what |
//! |---|---|---|
//! | 0 | 0–1 | plausible range: the register's `low` and `high`, ends included |
//! | 1 | 2–3 | the flag that the reading came with, where it was 1, 3 or 4 |
//!
//! A reading's quality follows from the two, the worse one counts; without a value it is 9; where
//! neither says anything it stays 2. Test 1 is what makes this repeatable: a flag that came from
//! outside is never improved however often ranges change, and a flag of ours is taken back when it
//! was the range that was wrong. Whether a row was looked at before is told by `tests` being there.
//!
//! −327.68 °C is what a sensor without its probe says. It must never count as a temperature, also where
//! it came before its sensor was registered: [`requalify`] goes over what lies in the tables when
//! ranges change.

mod requalify;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int32Array};
use arrow::datatypes::{DataType, Float64Type, Int8Type, Int32Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use tjern_readings::reading::Quality;

use crate::frames::{FrameError, texts};
use crate::register::{Register, SensorRow};

pub use requalify::{RequalifyError, RequalifyOutcome, requalify};

const GOOD: i32 = 1;
const SUSPECT: i32 = 2;
const FAIL: i32 = 3;
const RANGE_BITS: i32 = 0b0011;
const CAME_BITS: i32 = 0b1100;
const CAME_SHIFT: i32 = 2;

/// Why rows could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum QualityError {
    /// The rows lack a column, or have it in another type than the table.
    #[error("rows without a column `{column}` of type {wanted} cannot be evaluated")]
    Column {
        /// Which column.
        column: &'static str,
        /// Its type in the table.
        wanted: DataType,
    },
    /// The sensors are no text.
    #[error(transparent)]
    Sensors(#[from] FrameError),
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
}

/// The rows with `quality` and `tests` as the register says; every other column is handed on as it
/// is. Columns are found by name: those of the table `readings`.
///
/// # Errors
/// [`QualityError::Column`] where a column is missing.
pub fn evaluate(rows: &RecordBatch, register: &Register) -> Result<RecordBatch, QualityError> {
    let sensors = texts(column(rows, "sensor", &DataType::Utf8)?)?;
    let values = column(rows, "value", &DataType::Float64)?.as_primitive_opt::<Float64Type>();
    let values = values.ok_or(QualityError::Column { column: "value", wanted: DataType::Float64 })?;
    let qualities = column(rows, "quality", &DataType::Int8)?.as_primitive_opt::<Int8Type>();
    let qualities = qualities.ok_or(QualityError::Column { column: "quality", wanted: DataType::Int8 })?;
    let tests = column(rows, "tests", &DataType::Int32)?.as_primitive_opt::<Int32Type>();
    let tests = tests.ok_or(QualityError::Column { column: "tests", wanted: DataType::Int32 })?;
    let mut new_qualities = Vec::with_capacity(rows.num_rows());
    let mut new_tests = Vec::with_capacity(rows.num_rows());
    // Neighbours are most often of one sensor: look it up only where it changes.
    let mut last: Option<(&str, Option<&SensorRow>)> = None;
    for row in 0..rows.num_rows() {
        let name = sensors.value(row);
        let sensor = match last {
            Some((same, sensor)) if same == name => sensor,
            _ => register.get(name),
        };
        last = Some((name, sensor));
        let value = values.is_valid(row).then(|| values.value(row));
        let before = tests.is_valid(row).then(|| tests.value(row));
        let (quality, bits) = evaluate_one(value, qualities.value(row), before, sensor);
        new_qualities.push(quality);
        new_tests.push(bits);
    }
    let (new_qualities, new_tests) = (Int8Array::from(new_qualities), Int32Array::from(new_tests));
    let replaced = replace(rows, "quality", Arc::new(new_qualities))?;
    Ok(replace(&replaced, "tests", Arc::new(new_tests))?)
}

fn column<'a>(rows: &'a RecordBatch, column: &'static str, wanted: &DataType) -> Result<&'a ArrayRef, QualityError> {
    rows.column_by_name(column).ok_or_else(|| QualityError::Column { column, wanted: wanted.clone() })
}

fn replace(rows: &RecordBatch, name: &str, column: ArrayRef) -> Result<RecordBatch, ArrowError> {
    let mut columns = rows.columns().to_vec();
    columns[rows.schema().index_of(name)?] = column;
    RecordBatch::try_new(rows.schema(), columns)
}

/// One reading's quality and `tests`. Evaluating what was evaluated gives the same again.
fn evaluate_one(value: Option<f64>, quality: i8, tests: Option<i32>, sensor: Option<&SensorRow>) -> (i8, Option<i32>) {
    let Some(value) = value else {
        return (Quality::Missing.code(), tests.map(|bits| bits & !(RANGE_BITS | CAME_BITS)).filter(|bits| *bits != 0));
    };
    let came = tests.map_or_else(|| came_with(quality), |bits| (bits & CAME_BITS) >> CAME_SHIFT);
    let range = plausible(value, sensor);
    let flag = match came.max(range) {
        FAIL => Quality::Fail,
        SUSPECT => Quality::Suspect,
        GOOD => Quality::Good,
        _ => Quality::NotEvaluated,
    };
    let bits = tests.unwrap_or(0) & !(RANGE_BITS | CAME_BITS) | range | came << CAME_SHIFT;
    (flag.code(), (bits != 0).then_some(bits))
}

/// What a flag from outside says, in two bits. A flag that QARTOD does not know is none.
fn came_with(quality: i8) -> i32 {
    match Quality::from_code(quality) {
        Some(Quality::Good) => GOOD,
        Some(Quality::Suspect) => SUSPECT,
        Some(Quality::Fail) => FAIL,
        Some(Quality::NotEvaluated | Quality::Missing) | None => 0,
    }
}

/// The range test. What is no number is never plausible, whatever the range.
fn plausible(value: f64, sensor: Option<&SensorRow>) -> i32 {
    if !value.is_finite() {
        return FAIL;
    }
    let (low, high) = sensor.map_or((None, None), |sensor| (sensor.low, sensor.high));
    if low.is_none() && high.is_none() {
        return 0;
    }
    let inside = low.is_none_or(|low| value >= low) && high.is_none_or(|high| value <= high);
    if inside { GOOD } else { FAIL }
}

#[cfg(test)]
mod tests;
