//! A file in the making: rows go in, the bytes of a Parquet file come out. In memory only; what is held is encoded.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;

use super::group::{RowGroup, RowGroups, parquet_schema};
use super::layout::{GroupRows, Purpose, Way, properties};
use super::order::Order;
use super::threads::Team;
use crate::TableName;

/// A file, and what was found out about its rows.
#[derive(Debug)]
pub(super) struct EncodedFile {
    table: TableName,
    pub(super) group_rows: GroupRows,
    /// A row group that takes so much memory ends.
    pub(super) group_bytes_max: usize,
    /// Who shares the work on columns.
    pub(super) team: Team,
    parquet: Encoder,
    order: Order,
}

impl EncodedFile {
    pub(super) fn new(table: TableName, purpose: Purpose) -> Result<Self, ParquetError> {
        let parquet = Encoder::new(table, purpose)?;
        Ok(Self {
            table,
            group_rows: purpose.group_rows(),
            group_bytes_max: usize::MAX,
            team: Team::alone(),
            parquet,
            order: Order::default(),
        })
    }

    /// Adds rows. Row groups are cut where they are full, or where a sensor ends once they are big enough.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        let mut start = 0;
        while start < rows.num_rows() {
            let end = self.cut(rows, start);
            if start < end {
                self.parquet.write(&rows.slice(start, end - start), &self.team)?;
            }
            let is_full = self.parquet.open_rows() == self.group_rows.max;
            if end < rows.num_rows() || is_full || self.parquet.open_memory() >= self.group_bytes_max {
                self.parquet.end_group(&self.team)?;
            }
            start = end;
        }
        self.order.take(rows, self.table);
        Ok(())
    }

    /// Where the row group under way ends at the latest, given that it goes on with row `start`.
    fn cut(&self, rows: &RecordBatch, start: usize) -> usize {
        let open = self.parquet.open_rows();
        let full = rows.num_rows().min(start + self.group_rows.max - open);
        let enough = start.saturating_add(self.group_rows.enough.saturating_sub(open));
        let texts = rows.column_by_name(self.table.sort_columns()[0]).and_then(|column| column.as_string_opt::<i32>());
        let Some(texts) = texts.filter(|_| enough < full) else { return full };
        let differs = |row: &usize| match row.checked_sub(1) {
            Some(before) => texts.value(before) != texts.value(*row),
            None => self.order.last_text().is_some_and(|last| last != texts.value(*row)),
        };
        (enough..full).find(differs).unwrap_or(full)
    }

    pub(super) fn bytes(&self) -> usize {
        self.parquet.bytes()
    }

    pub(super) const fn rows(&self) -> i64 {
        self.order.rows
    }

    /// The bytes, and what was found out.
    pub(super) fn finish(self) -> Result<(Vec<u8>, Order), ParquetError> {
        Ok((self.parquet.finish(&self.team)?, self.order))
    }
}

/// The encoded file: row groups that are done, and the one under way.
#[derive(Debug)]
struct Encoder {
    done: SerializedFileWriter<Vec<u8>>,
    groups: RowGroups,
    open: Option<RowGroup>,
    number: usize,
}

impl Encoder {
    fn new(table: TableName, purpose: Purpose) -> Result<Self, ParquetError> {
        let file = Arc::new(properties(table, purpose, "", Way::First)?);
        let done = SerializedFileWriter::new(Vec::new(), parquet_schema(table)?, file)?;
        Ok(Self { done, groups: RowGroups::new(table, purpose)?, open: None, number: 0 })
    }

    fn open_rows(&self) -> usize {
        self.open.as_ref().map_or(0, RowGroup::rows)
    }

    fn open_memory(&self) -> usize {
        self.open.as_ref().map_or(0, RowGroup::memory)
    }

    fn bytes(&self) -> usize {
        self.done.bytes_written() + self.open.as_ref().map_or(0, RowGroup::bytes)
    }

    fn write(&mut self, rows: &RecordBatch, team: &Team) -> Result<(), ParquetError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.groups.begin(self.number)?,
        };
        open.write(rows, team)?;
        self.open = Some(open);
        Ok(())
    }

    fn end_group(&mut self, team: &Team) -> Result<(), ParquetError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let mut group = self.done.next_row_group()?;
        for chunk in open.close(team)? {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.number += 1;
        Ok(())
    }

    fn finish(mut self, team: &Team) -> Result<Vec<u8>, ParquetError> {
        self.end_group(team)?;
        self.done.into_inner()
    }
}
