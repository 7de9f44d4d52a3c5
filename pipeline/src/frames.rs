//! Arrow to Polars and back, through the Arrow C data interface: the one module of this crate with
//! `unsafe`.
//!
//! Both libraries hold columns in Arrow's memory layout but share no Rust type. The C data interface
//! hands a column's buffers over together with the function that frees them, so numbers and times
//! pass without a copy (tests watch the addresses).
//!
//! What passes: `Int8`, `Int16`, `Int32`, `Int64`, `Float64`; times as `Int64` microseconds since 1970
//! UTC, since Polars is built here without time zones. Text does not pass: sensors travel as integer
//! keys, see [`SensorKeys`].

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, StringArray, make_array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi, to_ffi};
use arrow::record_batch::RecordBatch;
use polars::prelude::{Column, CompatLevel, DataFrame, IntoColumn, PlSmallStr, Series};
use polars_arrow::ffi as polars_ffi;

/// Why a column could not pass.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The column has a type that does not pass.
    #[error(
        "column `{name}` is {data_type}, which does not pass into a frame; hint: pass numbers, times and sensor keys"
    )]
    Type {
        /// The column.
        name: String,
        /// Its type.
        data_type: DataType,
    },
    /// The frame lacks a column, or has it in another type than asked for.
    #[error("the frame's column `{name}` cannot become {wanted}: {what}")]
    Column {
        /// The column.
        name: String,
        /// The type asked for.
        wanted: DataType,
        /// Why.
        what: String,
    },
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// Polars refused.
    #[error("polars: {0}")]
    Polars(#[from] polars::error::PolarsError),
}

/// Sensors as integer keys: in the order in which they were first seen.
#[derive(Debug, Clone, Default)]
pub struct SensorKeys {
    names: Vec<Arc<str>>,
    keys: HashMap<Arc<str>, i32>,
}

impl SensorKeys {
    /// The sensor's key, a new one if need be.
    ///
    /// # Panics
    /// Beyond 2³¹ sensors.
    pub fn key(&mut self, name: &str) -> i32 {
        if let Some(key) = self.keys.get(name) {
            return *key;
        }
        let key = i32::try_from(self.names.len()).expect("a city has fewer than 2^31 sensors");
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.keys.insert(name, key);
        key
    }

    /// The sensor's key, if it has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<i32> {
        self.keys.get(name).copied()
    }

    /// The sensor with this key.
    #[must_use]
    pub fn name(&self, key: i32) -> Option<&str> {
        usize::try_from(key).ok().and_then(|index| self.names.get(index)).map(AsRef::as_ref)
    }

    /// All sensors, at the place that their key says.
    #[must_use]
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// A column of sensors (any Arrow string type) as keys.
    ///
    /// # Errors
    /// Where the column is no text, or has a null.
    pub fn encode(&mut self, sensors: &ArrayRef) -> Result<Int32Array, FrameError> {
        let texts = texts(sensors)?;
        // Neighbours are most often of one sensor: look a name up only where it changes.
        let mut last: Option<(&str, i32)> = None;
        let mut keys = Vec::with_capacity(texts.len());
        for name in texts.iter() {
            let name = name.ok_or_else(|| FrameError::Type { name: "sensor".into(), data_type: DataType::Null })?;
            let key = match last {
                Some((same, key)) if same == name => key,
                _ => self.key(name),
            };
            last = Some((name, key));
            keys.push(key);
        }
        Ok(keys.into())
    }

    /// Keys as a column of sensors.
    ///
    /// # Errors
    /// Where a key is null or was never given.
    pub fn decode(&self, keys: &Int32Array) -> Result<StringArray, FrameError> {
        let unknown = || FrameError::Column {
            name: "sensor".into(),
            wanted: DataType::Utf8,
            what: "a key that no sensor has".into(),
        };
        let names = keys.iter().map(|key| key.and_then(|key| self.name(key)).ok_or_else(unknown));
        Ok(StringArray::from_iter_values(names.collect::<Result<Vec<_>, _>>()?))
    }
}

/// A column of text of any Arrow type as plain text.
pub(crate) fn texts(column: &ArrayRef) -> Result<StringArray, FrameError> {
    Ok(arrow::compute::cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// A batch as a frame in one chunk. Times become `Int64`.
///
/// # Errors
/// [`FrameError::Type`] where a column is neither number nor time.
pub fn to_frame(batch: &RecordBatch) -> Result<DataFrame, FrameError> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let columns = columns.map(|(field, array)| to_column(field.name(), array)).collect::<Result<Vec<_>, _>>()?;
    Ok(DataFrame::new(batch.num_rows(), columns)?)
}

/// A frame as a batch with the columns and types of `schema`: numbers, and times for which the frame
/// has `Int64`.
///
/// # Errors
/// [`FrameError::Column`] where the frame has no such column or another type.
pub fn to_batch(frame: &DataFrame, schema: &SchemaRef) -> Result<RecordBatch, FrameError> {
    let columns = schema.fields().iter().map(|field| {
        let column = frame.column(field.name())?;
        to_array(column, field.data_type())
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<_>, _>>()?)?)
}

fn to_column(name: &str, array: &ArrayRef) -> Result<Column, FrameError> {
    let array = match array.data_type() {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Float64 => Arc::clone(array),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let times = array.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            Arc::new(times.reinterpret_cast::<arrow::datatypes::Int64Type>())
        }
        other => return Err(FrameError::Type { name: name.to_owned(), data_type: other.clone() }),
    };
    let (array, schema) = to_ffi(&array.to_data())?;
    let imported = import(array, schema)?;
    Ok(Series::try_from((PlSmallStr::from(name), imported))?.into_column())
}

fn to_array(column: &Column, wanted: &DataType) -> Result<ArrayRef, FrameError> {
    let series = column.as_materialized_series().rechunk();
    let chunk = series.to_arrow(0, CompatLevel::newest());
    let array = make_array(export(chunk)?);
    match (array.data_type(), wanted) {
        (given, wanted) if given == wanted => Ok(array),
        (DataType::Int64, DataType::Timestamp(TimeUnit::Microsecond, zone)) => {
            let numbers: &Int64Array = array.as_primitive();
            let times = numbers.reinterpret_cast::<arrow::datatypes::TimestampMicrosecondType>();
            Ok(Arc::new(times.with_timezone_opt(zone.clone())))
        }
        (given, wanted) => Err(FrameError::Column {
            name: column.name().to_string(),
            wanted: wanted.clone(),
            what: format!("it is {given}"),
        }),
    }
}

/// Hands an Arrow column to Polars.
fn import(array: FFI_ArrowArray, schema: FFI_ArrowSchema) -> Result<Box<dyn polars_arrow::array::Array>, FrameError> {
    const {
        assert!(size_of::<FFI_ArrowArray>() == size_of::<polars_ffi::ArrowArray>());
        assert!(size_of::<FFI_ArrowSchema>() == size_of::<polars_ffi::ArrowSchema>());
        assert!(align_of::<FFI_ArrowArray>() == align_of::<polars_ffi::ArrowArray>());
        assert!(align_of::<FFI_ArrowSchema>() == align_of::<polars_ffi::ArrowSchema>());
    }
    // SAFETY: both types are `repr(C)` and declare the C data interface's struct, field by field.
    // `transmute` moves it, so exactly one side releases it.
    let (array, schema) = unsafe {
        (
            std::mem::transmute::<FFI_ArrowArray, polars_ffi::ArrowArray>(array),
            std::mem::transmute::<FFI_ArrowSchema, polars_ffi::ArrowSchema>(schema),
        )
    };
    // SAFETY: both structs were made by `to_ffi` from one valid array, and describe each other.
    let imported = unsafe {
        let field = polars_ffi::import_field_from_c(&schema)?;
        polars_ffi::import_array_from_c(array, field.dtype)?
    };
    Ok(imported)
}

/// Hands a Polars column to Arrow.
fn export(chunk: Box<dyn polars_arrow::array::Array>) -> Result<arrow::array::ArrayData, FrameError> {
    let field = polars_arrow::datatypes::Field::new(PlSmallStr::EMPTY, chunk.dtype().clone(), true);
    let (array, schema) = (polars_ffi::export_array_to_c(chunk), polars_ffi::export_field_to_c(&field));
    // SAFETY: as in `import`: the same struct of the C data interface, moved.
    let (array, schema) = unsafe {
        (
            std::mem::transmute::<polars_ffi::ArrowArray, FFI_ArrowArray>(array),
            std::mem::transmute::<polars_ffi::ArrowSchema, FFI_ArrowSchema>(schema),
        )
    };
    // SAFETY: both structs were made by Polars from one valid array, and describe each other.
    Ok(unsafe { from_ffi(array, &schema) }?)
}

#[cfg(test)]
mod tests;
