//! The readings that a rollup needs, sorted, as columns that pass into a frame: in portions, each of whole windows, so
//! that a month of any size is summed up in bounded memory.
//!
//! The engine sorts within its own memory, and spills. A portion ends where a sensor's window ends. Limit: the readings of one
//! window of one sensor are held together.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch};
use arrow::compute::{concat, lexsort_to_indices, take};
use arrow::datatypes::{Float64Type, Int8Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{Expr, col};
use futures::stream::Fuse;
use futures::{StreamExt, TryStreamExt};
use tjern_lake::rollup::selection::window_of;
use tjern_lake::rollup::source::Found;
use tjern_lake::rollup::{Grid, Natures, Source};
use tjern_lake::{TableName, schema};
use tjern_readings::reading::Quality;

use super::RollupError;
use crate::frames::SensorKeys;

/// The readings that count, sorted by sensor and time. All columns are of one length.
#[derive(Debug, Clone)]
pub(crate) struct Readings {
    pub(crate) sensor: Int32Array,
    pub(crate) time_us: Int64Array,
    pub(crate) value: Float64Array,
    pub(crate) quality: Int8Array,
}

impl Readings {
    /// New sensors get their keys.
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

    fn slice(&self, start: usize, rows: usize) -> Self {
        Self {
            sensor: self.sensor.slice(start, rows),
            time_us: self.time_us.slice(start, rows),
            value: self.value.slice(start, rows),
            quality: self.quality.slice(start, rows),
        }
    }

    /// Parts that follow one another as one.
    fn joined(parts: &[Self]) -> Result<Self, ArrowError> {
        let column = |get: fn(&Self) -> &dyn Array| concat(&parts.iter().map(get).collect::<Vec<_>>());
        Ok(Self {
            sensor: column(|part| &part.sensor)?.as_primitive().clone(),
            time_us: column(|part| &part.time_us)?.as_primitive().clone(),
            value: column(|part| &part.value)?.as_primitive().clone(),
            quality: column(|part| &part.quality)?.as_primitive().clone(),
        })
    }

    /// Where the window of the last row begins.
    fn last_window(&self, cut: Cut<'_>, keys: &SensorKeys) -> usize {
        let Some(last) = self.len().checked_sub(1) else { return 0 };
        let sensor = self.sensor.value(last);
        let kind = cut.natures.get(keys.name(sensor).unwrap_or_default()).kind;
        let window = window_of(cut.grid, kind, self.time_us.value(last));
        let is_in_it = |row: usize| {
            let time_us = self.time_us.value(row);
            // Of what is sorted, whatever is not before the window is in it.
            let moment_us = if kind.is_interval() { time_us.saturating_sub(1) } else { time_us };
            self.sensor.value(row) == sensor && moment_us >= window.start_us
        };
        (0..last).rev().find(|row| !is_in_it(*row)).map_or(0, |before| before + 1)
    }

    /// The same with good values put in where they belong, sorted by key and time.
    fn with(self, others: &[Found], keys: &mut SensorKeys) -> Result<Self, RollupError> {
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

/// By what the windows of readings are told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut<'a> {
    pub(crate) grid: &'a Grid,
    pub(crate) natures: &'a Natures,
}

/// Readings in the order of sensor and time, a portion at a time.
pub(crate) struct Portions {
    batches: Fuse<SendableRecordBatchStream>,
    /// A portion has about so many rows, or one window that has more.
    rows: usize,
    /// What was read and not handed out yet.
    held: Vec<Readings>,
    /// Good values that are to be put in, in the same order.
    others: VecDeque<Found>,
    /// How many readings were handed out.
    pub(crate) read: usize,
}

impl Portions {
    /// Those readings that a filter on `sensor` and `time` lets through.
    pub(crate) async fn open(source: &Source, filter: &Expr, rows: usize) -> Result<Self, RollupError> {
        let sorted =
            source.winners(filter)?.sort(vec![col("sensor").sort(true, false), col("time").sort(true, false)])?;
        let batches = sorted.execute_stream().await?.fuse();
        Ok(Self { batches, rows, held: Vec::new(), others: VecDeque::new(), read: 0 })
    }

    /// The same, and good values whose readings are gone. What comes after the last reading is left out: no step goes from it.
    pub(crate) fn with(mut self, mut others: Vec<Found>) -> Self {
        others.sort_by(|one, other| (&one.sensor, one.time_us).cmp(&(&other.sensor, other.time_us)));
        self.others = others.into();
        self
    }

    /// The next portion; new sensors get their keys.
    pub(crate) async fn next(&mut self, cut: Cut<'_>, keys: &mut SensorKeys) -> Result<Option<Readings>, RollupError> {
        let mut enough = self.rows;
        loop {
            let is_end = match self.batches.try_next().await? {
                Some(batch) if batch.num_rows() == 0 => continue,
                Some(batch) => {
                    self.held.push(Readings::of(&batch, keys)?);
                    false
                }
                None => true,
            };
            let held: usize = self.held.iter().map(Readings::len).sum();
            if held == 0 {
                return Ok(None);
            }
            if !is_end && held < enough {
                continue;
            }
            let readings = Readings::joined(&std::mem::take(&mut self.held))?;
            let end = if is_end { held } else { readings.last_window(cut, keys) };
            if end < held {
                self.held.push(readings.slice(end, held - end));
            }
            if end > 0 {
                self.read += end;
                let others = self.others_until(&readings, end - 1, keys);
                return Ok(Some(readings.slice(0, end).with(&others, keys)?));
            }
            enough = held + self.rows;
        }
    }

    /// Takes the values that belong before a row.
    fn others_until(&mut self, readings: &Readings, row: usize, keys: &SensorKeys) -> Vec<Found> {
        let last = (keys.name(readings.sensor.value(row)).unwrap_or_default(), readings.time_us.value(row));
        let is_after = |other: &Found| (other.sensor.as_str(), other.time_us) > last;
        let until = self.others.iter().position(is_after).unwrap_or(self.others.len());
        self.others.drain(..until).collect()
    }
}

/// The columns of a rollup table.
pub(crate) fn rollup_schema() -> arrow::datatypes::SchemaRef {
    schema::arrow(TableName::Hourly)
}
