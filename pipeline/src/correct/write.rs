//! Corrected rows to files: evaluated by the register, written as they come.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::error::ArrowError;
use tjern_lake::{FileWriter, Lake, TableName, schema};

use super::moments::Stored;
use super::{CorrectError, Prepared, utc};
use crate::bounds::Bounds;
use crate::quality::evaluate;
use crate::register::Said;

/// So many rows are gathered before they are encoded, at the most.
const GATHERED_ROWS_MAX: usize = 64 << 10;

/// Writes corrected rows; they come in the order of a table's files.
pub(crate) struct Corrected<'a> {
    lake: &'a Lake,
    said: &'a Said,
    bounds: &'a Bounds,
    gathered: Vec<Stored>,
    writer: Option<FileWriter>,
    prepared: Prepared,
}

impl<'a> Corrected<'a> {
    pub(crate) fn new(lake: &'a Lake, said: &'a Said, bounds: &'a Bounds) -> Self {
        let prepared = Prepared { files: Vec::new(), rows: 0 };
        Self { lake, said, bounds, gathered: Vec::new(), writer: None, prepared }
    }

    /// Adds the newest word on a reading: the revision after the one before.
    pub(crate) async fn add(&mut self, before: &Stored, row: Stored) -> Result<(), CorrectError> {
        let revision = before
            .revision
            .checked_add(1)
            .ok_or_else(|| CorrectError::Revisions { sensor: before.sensor.clone(), time: utc(before.time_us) })?;
        let received_us = self.lake.clock().now_us();
        self.gathered.push(Stored { revision, received_us, ..row });
        let enough = usize::try_from(self.bounds.rows() / 16).unwrap_or(GATHERED_ROWS_MAX).min(GATHERED_ROWS_MAX);
        if self.gathered.len() >= enough { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), CorrectError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let rows = evaluate(&batch_of(&self.gathered)?, self.said)?;
        self.prepared.rows += rows.num_rows();
        self.gathered.clear();
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => FileWriter::open_within(TableName::Readings, self.bounds.memory_bytes / 16)?,
        };
        writer.write(&rows)?;
        // Compaction makes its own of it anyway.
        let enough = self.bounds.file_bytes.min(self.bounds.memory_bytes / 8);
        if u64::try_from(writer.bytes()).unwrap_or(u64::MAX) >= enough {
            self.prepared.files.push(writer.finish(self.lake).await?);
        } else {
            self.writer = Some(writer);
        }
        Ok(())
    }

    /// What was written.
    pub(crate) async fn finish(mut self) -> Result<Prepared, CorrectError> {
        self.flush().await?;
        if let Some(writer) = self.writer.take() {
            self.prepared.files.push(writer.finish(self.lake).await?);
        }
        Ok(self.prepared)
    }
}

fn batch_of(rows: &[Stored]) -> Result<RecordBatch, ArrowError> {
    fn all<T, A: FromIterator<T> + arrow::array::Array + 'static>(
        rows: &[Stored],
        get: impl Fn(&Stored) -> T,
    ) -> ArrayRef {
        Arc::new(rows.iter().map(get).collect::<A>())
    }
    let times = |get: fn(&Stored) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(get)).with_timezone("UTC"))
    };
    let text =
        |get: fn(&Stored) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(get).collect::<StringArray>()) };
    let columns = vec![
        text(|row| Some(&row.sensor)),
        times(|row| row.time_us),
        all::<_, Float64Array>(rows, |row| row.value),
        all::<_, Int8Array>(rows, |row| Some(row.quality)),
        text(|row| row.cause.as_deref()),
        all::<_, Int32Array>(rows, |row| row.lag_ms),
        text(|row| Some(&row.source)),
        text(|row| Some(&row.epoch)),
        all::<_, Int64Array>(rows, |row| Some(row.seq)),
        all::<_, Int16Array>(rows, |row| Some(row.revision)),
        // Nobody has looked at it yet.
        Arc::new(Int8Array::from(vec![0; rows.len()])),
        all::<_, Int32Array>(rows, |row| row.tests),
        times(|row| row.received_us),
    ];
    RecordBatch::try_new(schema::arrow(TableName::Readings), columns)
}
