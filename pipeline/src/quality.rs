//! Quality control: QARTOD's tests by the register's rules, in two steps.
//!
//! Ingest looks at each value by itself ([`evaluate`]), so that what is not plausible, or was taken while the register
//! says that the sensor did not measure, is never shown, not for a moment. The job [`control`] makes all tests, also those that look at neighbours, and brings
//! rows from the level raw to provisional. Flags never delete: of a row only `quality`, `tests` and
//! `level` are ever rewritten.
//!
//! - [`flags`]: the bits of `tests`, and which quality follows from them.
//! - [`rules`]: which rules hold for a sensor; `defaults.csv` has those that are built in.
//! - [`series`], [`formulas`]: the tests on one series. No I/O; Polars computes.
//! - [`scope`]: which readings are evaluated again when some came. [`walk`]: in order, in bounded
//!   memory; [`judge`]: sensors together where their rules are alike. [`pass`]: over files; [`in_place`]: a sealed one written anew. [`control`]: the job.
//!
//! **What a reading's flags are depends on the readings and the rules only**, not on the order in which
//! they came nor on how they were cut into batches: whatever a test looks at lies within its sensor's
//! margins, and everything within the margins of a change is evaluated again. The flag that a reading
//! came with stays in `tests`, so a flag of ours is taken back when it was a rule that was wrong, and one
//! from outside never is. What a person validated stays as it is.
//!
//! −327.68 °C is what a sensor without its probe says. It must never count as a temperature, also where
//! it came before its sensor was registered.

mod control;
mod flags;
mod formulas;
mod in_place;
mod judge;
mod pass;
mod rules;
mod scope;
mod series;
mod walk;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int32Array};
use arrow::datatypes::{DataType, Float64Type, Int8Type, Int32Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use tjern_readings::reading::Quality;

use self::flags::{Bits, FAIL, GOOD, aggregate};
use crate::frames::{FrameError, texts};
use crate::register::{NotGood, Register, Rule, Said, SensorRow};

pub use control::{ControlError, ControlOutcome, LEASE, control, control_within};
pub(crate) use control::{JOB, note};
pub(crate) use flags::came;
pub use rules::{RULES_VERSION, Rulebook};

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

/// A series to try rules on, sorted by time, one reading a moment.
#[derive(Debug, Clone, Default)]
pub struct RawSeries {
    /// When, in microseconds since 1970 UTC.
    pub time_us: Vec<i64>,
    /// What; none where no value was got.
    pub value: Vec<Option<f64>>,
}

/// Quality and `tests` of a series of one sensor by these rules, without any table: to try rules out.
///
/// # Errors
/// [`ControlError::Polars`].
///
/// # Panics
/// If there are not as many times as values.
pub fn try_rules(sensor: &SensorRow, rules: Vec<Rule>, series: &RawSeries) -> Result<Vec<(i8, i32)>, ControlError> {
    let rows = series.time_us.len();
    assert_eq!(rows, series.value.len(), "each reading has a time and a value");
    let rules = Rulebook::new(Register::of([sensor.clone()]), rules).of(sensor.id.as_str()).unwrap_or_default();
    let (time_us, value) = (series.time_us.clone(), series.value.clone());
    let series = series::Series { time_us, value, came: vec![flags::NOT_EVALUATED; rows], counts: vec![true; rows] };
    let tests = series::flags(&series, &rules)?;
    let quality = |value: &Option<f64>, tests: i32| if value.is_some() { aggregate(tests) } else { Quality::Missing };
    Ok(series.value.iter().zip(tests).map(|(value, tests)| (quality(value, tests).code(), tests)).collect())
}

/// The rows with `quality` and `tests` as the register and its events say; every other column is handed on as it
/// is. Columns are found by name: those of the table `readings`.
///
/// # Errors
/// [`QualityError::Column`] where a column is missing.
pub fn evaluate(rows: &RecordBatch, said: &Said) -> Result<RecordBatch, QualityError> {
    let sensors = texts(column(rows, "sensor", &DataType::Utf8)?)?;
    let time_type = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let times = column(rows, "time", &time_type)?.as_primitive_opt::<TimestampMicrosecondType>();
    let times = times.ok_or(QualityError::Column { column: "time", wanted: time_type })?;
    let values = column(rows, "value", &DataType::Float64)?.as_primitive_opt::<Float64Type>();
    let values = values.ok_or(QualityError::Column { column: "value", wanted: DataType::Float64 })?;
    let qualities = column(rows, "quality", &DataType::Int8)?.as_primitive_opt::<Int8Type>();
    let qualities = qualities.ok_or(QualityError::Column { column: "quality", wanted: DataType::Int8 })?;
    let tests = column(rows, "tests", &DataType::Int32)?.as_primitive_opt::<Int32Type>();
    let tests = tests.ok_or(QualityError::Column { column: "tests", wanted: DataType::Int32 })?;
    let mut new_qualities = Vec::with_capacity(rows.num_rows());
    let mut new_tests = Vec::with_capacity(rows.num_rows());
    // Neighbours are most often of one sensor: look it up only where it changes.
    let mut last: Option<(&str, Asked<'_>)> = None;
    for row in 0..rows.num_rows() {
        let name = sensors.value(row);
        let asked = match last.take() {
            Some((same, asked)) if same == name => asked,
            _ => Asked::of(name, said),
        };
        let value = values.is_valid(row).then(|| values.value(row));
        let before = tests.is_valid(row).then(|| tests.value(row));
        let (quality, bits) = evaluate_one(value, times.value(row), qualities.value(row), before, &asked);
        last = Some((name, asked));
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

/// What is asked about each reading of one sensor by itself.
struct Asked<'a> {
    sensor: Option<&'a SensorRow>,
    not_good: Vec<NotGood>,
}

impl<'a> Asked<'a> {
    fn of(name: &str, said: &'a Said) -> Self {
        let sensor = said.register.get(name);
        // Of a sensor that nobody registered nothing is known, its place's events neither.
        let not_good = sensor.map(|_| said.events.of_sensor(name)).unwrap_or_default();
        Self { sensor, not_good }
    }
}

/// One reading's quality and `tests`. Evaluating what was evaluated gives the same again.
fn evaluate_one(
    value: Option<f64>,
    time_us: i64,
    quality: i8,
    tests: Option<i32>,
    asked: &Asked<'_>,
) -> (i8, Option<i32>) {
    let Some(value) = value else { return (Quality::Missing.code(), None) };
    let ours = Bits::Range.put(0b11) | Bits::Came.put(0b11) | Bits::Event.put(0b11);
    let bits = tests.unwrap_or(0) & !ours
        | Bits::Range.put(plausible(value, asked.sensor))
        | Bits::Came.put(came(quality, tests))
        | Bits::Event.put(series::event(time_us, &asked.not_good));
    (aggregate(bits).code(), (bits != 0).then_some(bits))
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
