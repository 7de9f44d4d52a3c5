//! Rows of a rollup that stay, in the order of sensor and time, batch by batch, to be put together with new ones.

use std::cmp::Ordering;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::Fuse;
use futures::{StreamExt, TryStreamExt};

use super::RollupError;
use super::read::rollup_schema;
use crate::frames::texts;
use crate::tables::conform;

/// A window of a sensor: its name, and where the window starts.
pub(crate) type Place = (String, i64);

/// The place of the last row.
pub(crate) fn last_place(rows: &RecordBatch) -> Result<Option<Place>, RollupError> {
    let Some(last) = rows.num_rows().checked_sub(1) else { return Ok(None) };
    let sensors = texts(&rows.column(0).slice(last, 1))?;
    let starts = rows.column(1).as_primitive::<TimestampMicrosecondType>();
    Ok(Some((sensors.value(0).to_owned(), starts.value(last))))
}

/// Takes the rows up to and with a place off sorted ones.
pub(crate) fn take_to(rows: &mut RecordBatch, until: &Place) -> Result<RecordBatch, RollupError> {
    let sensors = texts(rows.column(0))?;
    let starts = rows.column(1).as_primitive::<TimestampMicrosecondType>();
    let is_after = |row: usize| (sensors.value(row), starts.value(row)).cmp(&(until.0.as_str(), until.1));
    let (mut low, mut high) = (0, rows.num_rows());
    while low < high {
        let middle = low + (high - low) / 2;
        if is_after(middle) == Ordering::Greater {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    let taken = rows.slice(0, low);
    *rows = rows.slice(low, rows.num_rows() - low);
    Ok(taken)
}

/// Whether the row of a window stays, by its sensor and its start.
type Stays<'s> = Box<dyn Fn(&str, i64) -> bool + Send + Sync + 's>;

/// Of rows in order those that stay, as `stays` says by sensor and start.
pub(crate) struct Kept<'s> {
    batches: Fuse<SendableRecordBatchStream>,
    stays: Stays<'s>,
    /// What was read and not handed out yet.
    held: RecordBatch,
}

impl<'s> Kept<'s> {
    pub(crate) fn new(
        batches: SendableRecordBatchStream,
        stays: impl Fn(&str, i64) -> bool + Send + Sync + 's,
    ) -> Self {
        Self { batches: batches.fuse(), stays: Box::new(stays), held: RecordBatch::new_empty(rollup_schema()) }
    }

    /// The next ones; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>, RollupError> {
        let is_there = self.fill().await?;
        Ok(is_there.then(|| std::mem::replace(&mut self.held, RecordBatch::new_empty(rollup_schema()))))
    }

    /// The next ones up to a place, which may be none of a batch that lies beyond it; none at the end.
    pub(crate) async fn next_until(&mut self, until: &Place) -> Result<Option<RecordBatch>, RollupError> {
        if !self.fill().await? {
            return Ok(None);
        }
        take_to(&mut self.held, until).map(Some)
    }

    async fn fill(&mut self) -> Result<bool, RollupError> {
        while self.held.num_rows() == 0 {
            let Some(batch) = self.batches.try_next().await? else { return Ok(false) };
            let batch = conform(&batch, &rollup_schema())?;
            let sensors = texts(batch.column(0))?;
            let starts = batch.column(1).as_primitive::<TimestampMicrosecondType>();
            let stay: BooleanArray =
                (0..batch.num_rows()).map(|row| Some((self.stays)(sensors.value(row), starts.value(row)))).collect();
            self.held = filter_record_batch(&batch, &stay)?;
        }
        Ok(true)
    }
}
