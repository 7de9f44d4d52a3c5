//! A walk over readings in the order of sensor and time, in which each gets its flags.
//!
//! Rows come from files that are to be looked at, each with a number, and from others around them,
//! which only lend their readings. A sensor's rows are held while the margins of its tests need them
//! and no longer, so memory is bounded whatever the length of a series; a row outside of the scope
//! keeps the flags that it has.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;

use super::control::ControlError;
use super::judge::{Judged, Whole, column, judge};
use super::scope::{Scope, Sensors, Span};
use crate::bounds::Bounds;
use crate::frames::texts;

/// So many rows are evaluated together, beside what the margins of a sensor hold.
const HELD_ROWS_MAX: usize = 1 << 17;
const HELD_ROWS_MIN: usize = 1 << 12;

/// So many sensors are judged together at the most: each is held against the rules of the others.
const WAITING_MAX: usize = 1 << 10;

/// What a held row takes while it is judged, about, in bytes: as it was read, once more while rows are joined, and in
/// the columns of the tests.
const HELD_ROW_BYTES: u64 = 1 << 10;

/// How many rows are evaluated together in a quarter of a job's memory.
pub(super) fn held_rows(bounds: &Bounds) -> usize {
    let rows = usize::try_from(bounds.memory_bytes / 4 / HELD_ROW_BYTES).unwrap_or(usize::MAX);
    rows.clamp(HELD_ROWS_MIN, HELD_ROWS_MAX)
}

/// Whoever takes judged rows.
pub(super) trait Take: Send {
    /// Takes rows, in the order of sensor and time.
    fn take(&mut self, judged: Judged) -> impl Future<Output = Result<(), ControlError>> + Send;
}

/// What a walk needs.
pub(super) struct Walk<'a, 'b> {
    pub(super) sensors: &'a mut Sensors<'b>,
    pub(super) scope: &'a Scope,
    /// How many rows are evaluated together.
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

/// Sensors that ended and wait to be judged together: to judge a few rows costs as much as to judge thousands.
#[derive(Default)]
struct Waiting {
    all: Vec<Whole>,
    rows: usize,
}

impl Waiting {
    fn push(&mut self, whole: Whole) {
        self.rows += whole.rows.num_rows();
        self.all.push(whole);
    }

    /// Judges and hands on all of them.
    async fn judge(&mut self, taker: &mut impl Take) -> Result<(), ControlError> {
        let Self { all, .. } = std::mem::take(self);
        if all.is_empty() {
            return Ok(());
        }
        // Polars computes on threads of its own and may panic: neither shall reach this runtime.
        let judged = tokio::task::spawn_blocking(move || judge(all)).await;
        for judged in judged.map_err(|error| ControlError::Panicked { what: error.to_string() })?? {
            taker.take(judged).await?;
        }
        Ok(())
    }
}

impl Walk<'_, '_> {
    /// Walks over sorted batches and hands on every row once, judged, in order.
    pub(super) async fn run(
        &mut self,
        mut batches: SendableRecordBatchStream,
        taker: &mut impl Take,
    ) -> Result<(), ControlError> {
        let (mut held, mut waiting): (Option<Held>, _) = (None, Waiting::default());
        while let Some(batch) = batches.try_next().await? {
            for (sensor, part) in by_sensor(&batch)? {
                if held.as_ref().is_some_and(|held| held.sensor != sensor)
                    && let Some(last) = held.take()
                {
                    self.cut(last, true, &mut waiting)?;
                }
                let mut now = held.take().unwrap_or_else(|| Held::of(&sensor, self.held_rows));
                now.push(part);
                if waiting.rows + now.rows >= self.held_rows || waiting.all.len() >= WAITING_MAX {
                    waiting.judge(taker).await?;
                }
                held = if now.rows >= now.full {
                    let rest = self.cut(now, false, &mut waiting)?;
                    waiting.judge(taker).await?;
                    rest
                } else {
                    Some(now)
                };
            }
        }
        if let Some(last) = held {
            self.cut(last, true, &mut waiting)?;
        }
        waiting.judge(taker).await
    }

    /// Lets the held rows wait whose neighbours are all there, and keeps what later ones need.
    fn cut(&mut self, mut held: Held, ended: bool, waiting: &mut Waiting) -> Result<Option<Held>, ControlError> {
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
            let rules = known.map(|known| Arc::clone(&known.rules));
            let spans: Vec<Span> = self.scope.spans(&held.sensor).to_vec();
            waiting.push(Whole { rows: rows.clone(), range: first..end, rules, margins, spans });
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

fn rows_times(rows: &RecordBatch) -> Vec<i64> {
    column(rows, "time").as_primitive::<TimestampMicrosecondType>().values().to_vec()
}
