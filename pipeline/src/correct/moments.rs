//! What is stored of each `(sensor, time)`: all its rows, the newest word first, as a stream in the order of
//! sensors and times. What is in memory is one moment and what the engine hands out at once.

use std::collections::VecDeque;

use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{
    ArrowPrimitiveType, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{col, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use tjern_lake::{Table, TableName, precedence, schema};

use super::CorrectError;
use crate::bounds::Bounds;
use crate::erase::Erasures;
use crate::tables::{conform, engine_within};

/// A row of `readings`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) sensor: String,
    pub(crate) time_us: i64,
    pub(crate) value: Option<f64>,
    pub(crate) quality: i8,
    pub(crate) cause: Option<String>,
    pub(crate) lag_ms: Option<i32>,
    pub(crate) source: String,
    pub(crate) epoch: String,
    pub(crate) seq: i64,
    pub(crate) revision: i16,
    pub(crate) level: i8,
    pub(crate) tests: Option<i32>,
    pub(crate) received_us: i64,
}

/// All rows of one sensor at one time, the one that counts first ([`tjern_lake::precedence`]).
#[derive(Debug)]
pub(crate) struct Moment {
    rows: Vec<Stored>,
}

impl Moment {
    /// What counts now.
    pub(crate) fn newest(&self) -> &Stored {
        &self.rows[0]
    }

    /// What a source said last of it, as it came.
    pub(crate) fn came_of(&self, source: &str) -> Option<&Stored> {
        self.rows.iter().find(|row| row.revision == 0 && row.source == source)
    }

    /// The reading that counts now, as it came; none where that row is not there.
    pub(crate) fn as_it_came(&self) -> Option<&Stored> {
        let identity = |row: &Stored| (row.source.clone(), row.epoch.clone(), row.seq);
        let wanted = identity(self.newest());
        self.rows.iter().find(|row| row.revision == 0 && identity(row) == wanted)
    }
}

/// Which moments: of these sensors, from one time on, up to and without another.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) sensors: Vec<&'a str>,
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
}

/// The moments of a version, one by one, without those that were erased: while a table is being written anew it
/// still has them, and nobody may write them again.
pub(crate) struct Moments {
    erasures: Erasures,
    batches: SendableRecordBatchStream,
    rows: VecDeque<Stored>,
}

impl Moments {
    /// Sorted within these bounds.
    pub(crate) async fn open(table: &Table, wanted: &Wanted<'_>, bounds: &Bounds) -> Result<Self, CorrectError> {
        let at = |time_us| lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())));
        let sensors = wanted.sensors.iter().map(|sensor| lit(*sensor)).collect();
        let mut order = vec![col("sensor").sort(true, false), col("time").sort(true, false)];
        order.extend(precedence::first());
        let rows = engine_within(table.lake(), bounds)?
            .read_table(table.provider())?
            .filter(col("sensor").in_list(sensors, false))?
            .filter(col("time").gt_eq(at(wanted.from_us)).and(col("time").lt(at(wanted.to_us))))?
            .sort(order)?;
        let erasures = Erasures::load(table.lake()).await?;
        Ok(Self { erasures, batches: rows.execute_stream().await?, rows: VecDeque::new() })
    }

    /// The next moment.
    pub(crate) async fn next(&mut self) -> Result<Option<Moment>, CorrectError> {
        loop {
            // A moment is whole once a row of another one follows it.
            let first = self.rows.front().map(|row| (row.sensor.clone(), row.time_us));
            if let Some((sensor, time_us)) = first {
                let same = self.rows.iter().take_while(|row| row.time_us == time_us && row.sensor == sensor).count();
                if same < self.rows.len() {
                    return Ok(Some(Moment { rows: self.rows.drain(..same).collect() }));
                }
            }
            match self.batches.try_next().await? {
                Some(batch) => self.rows.extend(rows_of(&batch, &self.erasures)?),
                None if self.rows.is_empty() => return Ok(None),
                None => return Ok(Some(Moment { rows: self.rows.drain(..).collect() })),
            }
        }
    }
}

fn rows_of(batch: &RecordBatch, erasures: &Erasures) -> Result<Vec<Stored>, CorrectError> {
    let (batch, _) = erasures.without(&conform(batch, &schema::arrow(TableName::Readings))?)?;
    let text = |index: usize| batch.column(index).as_string::<i32>();
    let times = |index: usize| batch.column(index).as_primitive::<TimestampMicrosecondType>();
    let (sensors, causes, sources, epochs) = (text(0), text(4), text(6), text(7));
    let values = batch.column(2).as_primitive::<Float64Type>();
    let qualities = batch.column(3).as_primitive::<Int8Type>();
    let lags = batch.column(5).as_primitive::<Int32Type>();
    let numbers = batch.column(8).as_primitive::<Int64Type>();
    let revisions = batch.column(9).as_primitive::<Int16Type>();
    let levels = batch.column(10).as_primitive::<Int8Type>();
    let tests = batch.column(11).as_primitive::<Int32Type>();
    let rows = (0..batch.num_rows()).map(|row| Stored {
        sensor: sensors.value(row).to_owned(),
        time_us: times(1).value(row),
        value: optional(values, row),
        quality: qualities.value(row),
        cause: optional_text(causes, row),
        lag_ms: optional(lags, row),
        source: sources.value(row).to_owned(),
        epoch: epochs.value(row).to_owned(),
        seq: numbers.value(row),
        revision: revisions.value(row),
        level: levels.value(row),
        tests: optional(tests, row),
        received_us: times(12).value(row),
    });
    Ok(rows.collect())
}

fn optional<T: ArrowPrimitiveType>(column: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}

fn optional_text(column: &StringArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row).to_owned())
}
