//! The functions that a plan of windows is made of. They hold what is selected and are in no session: no
//! query can name them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int8Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int32Type, TimestampMicrosecondType};
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::nature::{Kind, Natures};
use super::selection::{Selection, contains};
use super::windows::{Finder, Grid};
use crate::schema::time_type;

/// The window of a reading that is not wanted.
pub(super) const UNWANTED_US: i64 = i64::MIN;

/// The start of the window that a reading belongs to, where that window is selected; else [`UNWANTED_US`]. Never null.
pub(super) fn window_of(selection: &Arc<Selection>, natures: &Arc<Natures>, grid: &Grid, arguments: [Expr; 2]) -> Expr {
    let what = What::Window { selection: Arc::clone(selection), natures: Arc::clone(natures), grid: grid.clone() };
    call(what, "rollup_window", time_type(), arguments.to_vec())
}

/// The place of a sensor's kind in [`Kind::ALL`], 6 for angles in radians. Never null.
pub(super) fn kind_of(natures: &Arc<Natures>, sensor: Expr) -> Expr {
    call(What::Kind(Arc::clone(natures)), "rollup_kind", DataType::Int8, vec![sensor])
}

/// Whether the window of a sensor that starts at a moment is selected. Never null.
pub(super) fn is_selected(selection: &Arc<Selection>, arguments: [Expr; 2]) -> Expr {
    call(What::Selected(Arc::clone(selection)), "rollup_selected", DataType::Boolean, arguments.to_vec())
}

/// How far a counter went to a good value from the one before it: of sensor, time and value, and time and value of the one before. Null
/// where one of them is, and where it is not known.
pub(super) fn step_of(natures: &Arc<Natures>, arguments: [Expr; 5]) -> Expr {
    call(What::Step(Arc::clone(natures)), "rollup_step", DataType::Float64, arguments.to_vec())
}

/// The number, with 0 for −0: which of the two is the least of both would depend on who looks.
pub(super) fn one_zero(value: Expr) -> Expr {
    call(What::OneZero, "rollup_one_zero", DataType::Float64, vec![value])
}

/// The number by which [`kind_of`] tells a kind.
pub(super) fn kind_number(kind: Kind, radians: bool) -> i8 {
    match (kind, radians) {
        (Kind::Sample, _) => 0,
        (Kind::IntervalMean, _) => 1,
        (Kind::IntervalSum, _) => 2,
        (Kind::Counter, _) => 3,
        (Kind::Angle, false) => 4,
        (Kind::State, _) => 5,
        (Kind::Angle, true) => 6,
    }
}

fn call(what: What, name: &'static str, returned: DataType, arguments: Vec<Expr>) -> Expr {
    let signature = Signature::any(arguments.len(), Volatility::Immutable);
    ScalarUDF::new_from_impl(Function { what, name, returned, signature }).call(arguments)
}

#[derive(Debug, Clone)]
enum What {
    Window { selection: Arc<Selection>, natures: Arc<Natures>, grid: Grid },
    Kind(Arc<Natures>),
    Step(Arc<Natures>),
    Selected(Arc<Selection>),
    OneZero,
}

impl What {
    /// What it holds, as a place in memory: two functions are the same where they hold the same.
    fn places(&self) -> [usize; 2] {
        match self {
            Self::Window { selection, natures, .. } => [Arc::as_ptr(selection).addr(), Arc::as_ptr(natures).addr()],
            Self::Kind(natures) => [Arc::as_ptr(natures).addr(), 1],
            Self::Selected(selection) => [Arc::as_ptr(selection).addr(), 2],
            Self::OneZero => [0, 3],
            Self::Step(natures) => [Arc::as_ptr(natures).addr(), 4],
        }
    }
}

#[derive(Debug)]
struct Function {
    what: What,
    name: &'static str,
    returned: DataType,
    signature: Signature,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.what.places() == other.what.places()
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.name, self.what.places()).hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.returned.clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let null = match self.what {
            What::OneZero => arguments.arg_fields.iter().any(|field| field.is_nullable()),
            What::Step(_) => true,
            What::Window { .. } | What::Kind(_) | What::Selected(_) => false,
        };
        Ok(Arc::new(Field::new(self.name, self.returned.clone(), null)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let answer: ArrayRef = match (&self.what, columns.as_slice()) {
            (What::Window { selection, natures, grid }, [sensors, times]) => {
                Arc::new(windows(selection, natures, grid, sensors, times)?)
            }
            (What::Kind(natures), [sensors]) => {
                let mut kinds = Vec::with_capacity(sensors.len());
                for_each_run(sensors, |sensor, rows| {
                    let nature = natures.get(sensor);
                    kinds.extend(rows.map(|_| kind_number(nature.kind, nature.radians)));
                })?;
                Arc::new(Int8Array::from(kinds))
            }
            (What::Selected(selection), [sensors, starts]) => {
                let starts = micros(starts)?;
                let mut selected = Vec::with_capacity(sensors.len());
                for_each_run(sensors, |sensor, rows| {
                    let ranges = selection.of(sensor);
                    selected.extend(rows.map(|row| contains(ranges, starts.value(row))));
                })?;
                Arc::new(BooleanArray::from(selected))
            }
            (What::Step(natures), [sensors, times, values, times_before, before]) => {
                Arc::new(steps(natures, sensors, [times, times_before], [values, before])?)
            }
            (What::OneZero, [values]) => {
                let values: &Float64Array = values.as_primitive::<Float64Type>();
                Arc::new(values.unary::<_, Float64Type>(|value| value + 0.0))
            }
            _ => return internal_err!("{} has other arguments", self.name),
        };
        Ok(ColumnarValue::Array(answer))
    }
}

fn micros(times: &ArrayRef) -> Result<&TimestampMicrosecondArray> {
    match times.as_primitive_opt::<TimestampMicrosecondType>() {
        Some(times) => Ok(times),
        None => exec_err!("a time of a rollup is {}", times.data_type()),
    }
}

fn windows(
    selection: &Selection,
    natures: &Natures,
    grid: &Grid,
    sensors: &ArrayRef,
    times: &ArrayRef,
) -> Result<TimestampMicrosecondArray> {
    let times = micros(times)?;
    let mut finder = Finder::new(grid);
    let mut starts = Vec::with_capacity(sensors.len());
    for_each_run(sensors, |sensor, rows| {
        let (ranges, kind) = (selection.of(sensor), natures.get(sensor).kind);
        starts.extend(rows.map(|row| {
            let start_us = finder.window_of(times.value(row), kind).start_us;
            if contains(ranges, start_us) { start_us } else { UNWANTED_US }
        }));
    })?;
    Ok(TimestampMicrosecondArray::from(starts).with_timezone("UTC"))
}

/// `times` and `values` are those of a value and of the one before it.
fn steps(natures: &Natures, sensors: &ArrayRef, times: [&ArrayRef; 2], values: [&ArrayRef; 2]) -> Result<Float64Array> {
    let [times, times_before] = [micros(times[0])?, micros(times[1])?];
    let [values, before] = values.map(|column| column.as_primitive::<Float64Type>());
    let mut steps = Vec::with_capacity(sensors.len());
    for_each_run(sensors, |sensor, rows| {
        let counting = natures.counting(sensor);
        steps.extend(rows.map(|row| {
            let is_there = values.is_valid(row) && before.is_valid(row) && times_before.is_valid(row);
            let before = || (times_before.value(row), before.value(row));
            is_there.then(|| counting.step(before(), (times.value(row), values.value(row)))).flatten()
        }));
    })?;
    Ok(Float64Array::from(steps))
}

/// Hands on each run of rows of one sensor. Engines hand text out in several types.
fn for_each_run(sensors: &ArrayRef, mut take: impl FnMut(&str, std::ops::Range<usize>)) -> Result<()> {
    let texts = match sensors.data_type() {
        DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8 => {
            let dictionary = sensors.as_dictionary::<Int32Type>();
            let (keys, names) = (dictionary.keys(), dictionary.values().as_string::<i32>());
            let name = |row: usize| names.value(usize::try_from(keys.value(row)).unwrap_or_default());
            runs(sensors.len(), |one, other| keys.value(one) == keys.value(other), |rows| take(name(rows.start), rows));
            return Ok(());
        }
        DataType::Utf8 => Arc::clone(sensors),
        _ => cast(sensors, &DataType::Utf8)?,
    };
    let texts = texts.as_string::<i32>();
    runs(texts.len(), |one, other| texts.value(one) == texts.value(other), |rows| take(texts.value(rows.start), rows));
    Ok(())
}

fn runs(length: usize, same: impl Fn(usize, usize) -> bool, mut take: impl FnMut(std::ops::Range<usize>)) {
    let mut begin = 0;
    for row in 1..=length {
        if row == length || !same(begin, row) {
            take(begin..row);
            begin = row;
        }
    }
}
