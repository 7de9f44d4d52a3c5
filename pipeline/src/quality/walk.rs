//! A walk over readings in the order of sensor and time, in which each gets its flags.
//!
//! Rows come from files that are to be looked at, each with a number, and from others around them,
//! which only lend their readings. A sensor's rows are held while the margins of its tests need them
//! and no longer, so memory is bounded whatever the length of a series; a row outside of the scope
//! keeps the flags that it has.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int8Array, Int32Array, RecordBatch};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Float64Type, Int8Type, Int32Type, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use tjern_lake::rollup::Spans;
use tjern_readings::reading::Quality;

use super::control::ControlError;
use super::flags::{aggregate, came, came_with};
use super::scope::{Scope, Sensors, Span};
use super::series::{Series, flags};
use crate::bounds::Bounds;
use crate::frames::texts;

/// So many rows of one sensor are evaluated together, beside what its margins hold.
const HELD_ROWS_MAX: usize = 1 << 17;
const HELD_ROWS_MIN: usize = 1 << 12;

/// What a held row takes while it is judged, about, in bytes: as it was read, once more while rows are joined, and in
/// the columns of the tests.
const HELD_ROW_BYTES: u64 = 1 << 10;

/// How many rows of one sensor are evaluated together in a quarter of a job's memory.
pub(super) fn held_rows(bounds: &Bounds) -> usize {
    let rows = usize::try_from(bounds.memory_bytes / 4 / HELD_ROW_BYTES).unwrap_or(usize::MAX);
    rows.clamp(HELD_ROWS_MIN, HELD_ROWS_MAX)
}

/// Whoever takes judged rows.
pub(super) trait Take: Send {
    /// Takes rows, in the order of sensor and time.
    fn take(&mut self, judged: Judged) -> impl Future<Output = Result<(), ControlError>> + Send;
}

/// Level of readings that went through the tests.
pub(super) const PROVISIONAL: i8 = 1;
/// Level of readings that a person vouches for: their flags stand.
pub(super) const VALIDATED: i8 = 2;

/// Rows of one sensor, with what they have and what they shall have.
pub(super) struct Judged {
    /// The rows as they were read.
    pub(super) rows: RecordBatch,
    /// Their new flags.
    pub(super) quality: Int8Array,
    /// Their new tests.
    pub(super) tests: Int32Array,
    /// Their new level.
    pub(super) level: Int8Array,
    /// Which of them change.
    pub(super) changed: BooleanArray,
}

impl Judged {
    /// Notes those of some rows of which the quality changes, in their order: nothing else that changes is summed up.
    pub(super) fn note_touched(
        &self,
        some: impl IntoIterator<Item = usize>,
        touched: &mut Spans,
    ) -> Result<(), ControlError> {
        let before = column(&self.rows, "quality").as_primitive::<Int8Type>();
        let times = column(&self.rows, "time").as_primitive::<TimestampMicrosecondType>();
        let sensors = texts(column(&self.rows, "sensor"))?;
        for row in some.into_iter().filter(|row| before.value(*row) != self.quality.value(*row)) {
            touched.add(sensors.value(row), [times.value(row)]);
        }
        Ok(())
    }
}

/// What a walk needs.
pub(super) struct Walk<'a, 'b> {
    pub(super) sensors: &'a mut Sensors<'b>,
    pub(super) scope: &'a Scope,
    /// How many rows of one sensor are evaluated together.
    pub(super) held_rows: usize,
}

/// The rows of one sensor that are held.
struct Held {
    sensor: String,
    parts: Vec<RecordBatch>,
    rows: usize,
    /// What is before this was handed on already.
    done_us: i64,
    /// How many rows make it worth evaluating.
    full: usize,
}

impl Held {
    fn of(sensor: &str, full: usize) -> Self {
        Self { sensor: sensor.to_owned(), parts: Vec::new(), rows: 0, done_us: i64::MIN, full }
    }

    fn push(&mut self, part: RecordBatch) {
        self.rows += part.num_rows();
        self.parts.push(part);
    }
}

impl Walk<'_, '_> {
    /// Walks over sorted batches and hands on every row once, judged, in order.
    pub(super) async fn run(
        &mut self,
        mut batches: SendableRecordBatchStream,
        taker: &mut impl Take,
    ) -> Result<(), ControlError> {
        let mut held: Option<Held> = None;
        while let Some(batch) = batches.try_next().await? {
            for (sensor, part) in by_sensor(&batch)? {
                if held.as_ref().is_some_and(|held| held.sensor != sensor)
                    && let Some(last) = held.take()
                {
                    self.flush(last, true, taker).await?;
                }
                let mut now = held.take().unwrap_or_else(|| Held::of(&sensor, self.held_rows));
                now.push(part);
                held = if now.rows >= now.full { self.flush(now, false, taker).await? } else { Some(now) };
            }
        }
        if let Some(last) = held {
            self.flush(last, true, taker).await?;
        }
        Ok(())
    }

    /// Hands on the held rows whose neighbours are all there, and keeps what later ones need.
    async fn flush(
        &mut self,
        mut held: Held,
        ended: bool,
        taker: &mut impl Take,
    ) -> Result<Option<Held>, ControlError> {
        let Some(schema) = held.parts.first().map(RecordBatch::schema) else { return Ok(None) };
        let rows = concat_batches(&schema, &held.parts)?;
        let times = rows_times(&rows);
        let Some(last_us) = times.last().copied() else { return Ok(None) };
        let known = self.sensors.get(&held.sensor);
        let margins = known.map(|known| known.margins).unwrap_or_default();
        // A later row at the very last moment may be its newest word.
        let until_us = if ended { i64::MAX } else { last_us.saturating_sub(margins.after_us) };
        let first = times.partition_point(|time_us| *time_us < held.done_us);
        let end = if ended { times.len() } else { times.partition_point(|time_us| *time_us < until_us) };
        if first < end {
            let rules = known.map(|known| known.rules.clone());
            let spans: Vec<Span> = self.scope.spans(&held.sensor).to_vec();
            let (whole, range) = (rows.clone(), first..end);
            // Polars computes on threads of its own and may panic: neither shall reach this runtime.
            let judged = tokio::task::spawn_blocking(move || judge(&whole, range, rules.as_ref(), &spans, margins));
            let judged = judged.await.map_err(|error| ControlError::Panicked { what: error.to_string() })??;
            taker.take(judged).await?;
        }
        if ended {
            return Ok(None);
        }
        let needed = times.partition_point(|time_us| *time_us < until_us.saturating_sub(margins.before_us));
        let kept = rows.slice(needed, rows.num_rows() - needed);
        held.done_us = held.done_us.max(until_us);
        held.rows = kept.num_rows();
        held.full = self.held_rows + held.rows;
        held.parts = vec![compacted(&kept)?];
        Ok(Some(held))
    }
}

/// A copy of its own, so that what was cut off is freed.
fn compacted(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let count = u32::try_from(rows.num_rows()).unwrap_or(u32::MAX);
    take_record_batch(rows, &arrow::array::UInt32Array::from_iter_values(0..count))
}

/// The runs of one sensor in a sorted batch.
fn by_sensor(batch: &RecordBatch) -> Result<Vec<(String, RecordBatch)>, ControlError> {
    let sensors = texts(column(batch, "sensor"))?;
    let mut parts = Vec::new();
    let mut begin = 0;
    for row in 1..=batch.num_rows() {
        if row == batch.num_rows() || sensors.value(row) != sensors.value(begin) {
            parts.push((sensors.value(begin).to_owned(), batch.slice(begin, row - begin)));
            begin = row;
        }
    }
    Ok(parts)
}

/// Judges a range of a sensor's rows by all of them.
fn judge(
    rows: &RecordBatch,
    range: std::ops::Range<usize>,
    rules: Option<&super::rules::SensorRules>,
    spans: &[Span],
    margins: super::rules::Margins,
) -> Result<Judged, ControlError> {
    let times = rows_times(rows);
    let quality = column(rows, "quality").as_primitive::<Int8Type>();
    let tests = column(rows, "tests").as_primitive::<Int32Type>();
    let level = column(rows, "level").as_primitive::<Int8Type>();
    let values = column(rows, "value").as_primitive::<Float64Type>();
    let stored_tests = |row: usize| tests.is_valid(row).then(|| tests.value(row));
    let mut new: Vec<(i8, Option<i32>, i8)> =
        range.clone().map(|row| (quality.value(row), stored_tests(row), level.value(row))).collect();
    if let Some(rules) = rules {
        let near = |time_us: i64| {
            spans.iter().any(|span| {
                span.from_us.saturating_sub(margins.before_us) <= time_us
                    && time_us <= span.to_us.saturating_add(margins.after_us)
            })
        };
        let read: Vec<usize> = (0..rows.num_rows()).filter(|row| near(times[*row])).collect();
        let mut series = Series::default();
        for row in &read {
            series.time_us.push(times[*row]);
            series.value.push(values.is_valid(*row).then(|| values.value(*row)));
            series.came.push(match level.value(*row) {
                VALIDATED => came_with(quality.value(*row)),
                _ => came(quality.value(*row), stored_tests(*row)),
            });
            // Sorted by what counts: the last row of a moment is its newest word.
            series.counts.push(times.get(row + 1).is_none_or(|next| *next != times[*row]));
        }
        let found = flags(&series, rules)?;
        for ((row, value), tests) in read.iter().zip(&series.value).zip(found) {
            let in_scope = spans.iter().any(|span| span.contains(times[*row]));
            if in_scope && range.contains(row) && level.value(*row) != VALIDATED {
                let quality = if value.is_some() { aggregate(tests) } else { Quality::Missing };
                new[row - range.start] =
                    (quality.code(), (tests != 0).then_some(tests), PROVISIONAL.max(level.value(*row)));
            }
        }
    }
    let changed: BooleanArray = range
        .clone()
        .zip(&new)
        .map(|(row, new)| Some((quality.value(row), stored_tests(row), level.value(row)) != *new))
        .collect();
    Ok(Judged {
        rows: rows.slice(range.start, range.len()),
        quality: new.iter().map(|(quality, _, _)| Some(*quality)).collect(),
        tests: new.iter().map(|(_, tests, _)| *tests).collect(),
        level: new.iter().map(|(_, _, level)| Some(*level)).collect(),
        changed,
    })
}

impl Judged {
    /// The rows that a mask chooses, with their new flags, in the columns of the table.
    pub(super) fn rewritten(&self, schema: &SchemaRef, chosen: &BooleanArray) -> Result<RecordBatch, ArrowError> {
        let columns = schema.fields().iter().map(|field| -> Result<ArrayRef, ArrowError> {
            let column: ArrayRef = match field.name().as_str() {
                "quality" => Arc::new(self.quality.clone()),
                "tests" => Arc::new(self.tests.clone()),
                "level" => Arc::new(self.level.clone()),
                name => Arc::clone(column(&self.rows, name)),
            };
            arrow::compute::filter(&arrow::compute::cast(&column, field.data_type())?, chosen)
        });
        RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
    }
}

pub(super) fn column<'a>(rows: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    rows.column_by_name(name).expect("the walk is over columns of `readings`")
}

fn rows_times(rows: &RecordBatch) -> Vec<i64> {
    column(rows, "time").as_primitive::<TimestampMicrosecondType>().values().to_vec()
}
