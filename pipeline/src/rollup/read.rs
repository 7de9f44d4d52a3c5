//! The readings that a rollup needs, sorted, as columns that pass into a frame.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, lexsort_to_indices, take};
use arrow::datatypes::{Float64Type, Int8Type, Int64Type, TimestampMicrosecondType};
use datafusion::prelude::{Expr, col};
use tjern_lake::rollup::Source;
use tjern_lake::rollup::source::Found;
use tjern_lake::{TableName, schema};
use tjern_readings::reading::Quality;

use super::RollupError;
use crate::frames::SensorKeys;

/// The readings that count, sorted by sensor and time. All columns are of one length.
#[derive(Debug)]
pub(crate) struct Readings {
    pub(crate) sensor: Int32Array,
    pub(crate) time_us: Int64Array,
    pub(crate) value: Float64Array,
    pub(crate) quality: Int8Array,
}

impl Readings {
    /// Those that a filter on `sensor` and `time` lets through; new sensors get their keys.
    pub(crate) async fn read(source: &Source, filter: &Expr, keys: &mut SensorKeys) -> Result<Self, RollupError> {
        let rows =
            source.winners(filter)?.sort(vec![col("sensor").sort(true, false), col("time").sort(true, false)])?;
        let schema = Arc::new(rows.schema().as_arrow().clone());
        Self::of(&concat_batches(&schema, &rows.collect().await?)?, keys)
    }

    fn of(rows: &RecordBatch, keys: &mut SensorKeys) -> Result<Self, RollupError> {
        Ok(Self {
            sensor: keys.encode(rows.column(0))?,
            time_us: rows.column(1).as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>(),
            value: rows.column(2).as_primitive::<Float64Type>().clone(),
            quality: rows.column(3).as_primitive::<Int8Type>().clone(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.sensor.len()
    }

    /// The value, where it counts as one: it is there, and has not failed.
    pub(crate) fn good(&self, row: usize) -> Option<f64> {
        let passed = (Quality::Good.code()..=Quality::Suspect.code()).contains(&self.quality.value(row));
        (passed && self.value.is_valid(row)).then(|| self.value.value(row))
    }

    /// The same with good values put in where they belong, sorted by key and time.
    pub(crate) fn with(self, others: &[Found], keys: &mut SensorKeys) -> Result<Self, RollupError> {
        if others.is_empty() {
            return Ok(self);
        }
        let mut sensor: Vec<i32> = self.sensor.values().to_vec();
        let mut time_us: Vec<i64> = self.time_us.values().to_vec();
        let mut value: Vec<Option<f64>> = self.value.iter().collect();
        let mut quality: Vec<i8> = self.quality.values().to_vec();
        for other in others {
            sensor.push(keys.key(&other.sensor));
            time_us.push(other.time_us);
            value.push(Some(other.value));
            quality.push(Quality::Good.code());
        }
        let sensor: ArrayRef = Arc::new(Int32Array::from(sensor));
        let time_us: ArrayRef = Arc::new(Int64Array::from(time_us));
        let column = |values: ArrayRef| arrow::compute::SortColumn { values, options: None };
        let order = lexsort_to_indices(&[column(Arc::clone(&sensor)), column(Arc::clone(&time_us))], None)?;
        Ok(Self {
            sensor: take(&sensor, &order, None)?.as_primitive().clone(),
            time_us: take(&time_us, &order, None)?.as_primitive().clone(),
            value: take(&Float64Array::from(value), &order, None)?.as_primitive().clone(),
            quality: take(&Int8Array::from(quality), &order, None)?.as_primitive().clone(),
        })
    }
}

/// The columns of a rollup table.
pub(crate) fn rollup_schema() -> arrow::datatypes::SchemaRef {
    schema::arrow(TableName::Hourly)
}
