//! Columns of an answer by name, as plain arrays: whatever form the engine chose for texts and times.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use arrow::record_batch::RecordBatch;

/// An answer does not have the columns that its query promises.
#[derive(Debug, thiserror::Error)]
#[error("column `{column}`: {what}")]
pub(crate) struct ColumnError {
    column: String,
    what: String,
}

fn column(batch: &RecordBatch, name: &str, kind: &DataType) -> Result<ArrayRef, ColumnError> {
    let wrong = |what: String| ColumnError { column: name.to_owned(), what };
    let array = batch.column_by_name(name).ok_or_else(|| wrong("it is not there".to_owned()))?;
    cast(array, kind).map_err(|error| wrong(error.to_string()))
}

pub(crate) fn texts(batch: &RecordBatch, name: &str) -> Result<StringArray, ColumnError> {
    Ok(column(batch, name, &DataType::Utf8)?.as_string::<i32>().clone())
}

pub(crate) fn floats(batch: &RecordBatch, name: &str) -> Result<Float64Array, ColumnError> {
    Ok(column(batch, name, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

pub(crate) fn integers(batch: &RecordBatch, name: &str) -> Result<Int64Array, ColumnError> {
    Ok(column(batch, name, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Times in microseconds since 1970 UTC.
pub(crate) fn times_us(batch: &RecordBatch, name: &str) -> Result<Int64Array, ColumnError> {
    let times = column(batch, name, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
    let numbers = cast(&times, &DataType::Int64)
        .map_err(|error| ColumnError { column: name.to_owned(), what: error.to_string() })?;
    Ok(numbers.as_primitive::<Int64Type>().clone())
}

/// The value of a row, where there is one.
pub(crate) fn float_at(array: &Float64Array, row: usize) -> Option<f64> {
    array.is_valid(row).then(|| array.value(row)).filter(|value| value.is_finite())
}

/// The number of a row, where there is one.
pub(crate) fn integer_at(array: &Int64Array, row: usize) -> Option<i64> {
    array.is_valid(row).then(|| array.value(row))
}

/// The text of a row, where there is one.
pub(crate) fn text_at(array: &StringArray, row: usize) -> Option<String> {
    array.is_valid(row).then(|| array.value(row).to_owned())
}
