//! The Parquet files of a table. A file is written whole before anything names it; a file that no
//! commit came to name is an orphan, harmless until vacuum takes it.
//!
//! Whether the rows are sorted and unique is found out while they are written ([`order`]). How they are
//! laid out depends on whether the file will stay ([`layout`]): a file of ingest is written once, fast; one of
//! compaction is written with trials ([`group`]).

mod group;
mod layout;
mod order;

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;

use crate::{DataFile, Lake, LakeError, TableName, schema};
use group::{RowGroup, RowGroups, parquet_schema};
use layout::{GroupRows, Purpose, Way, properties};
use order::Order;

/// Writes one file of a table from batches of its columns. It is not committed yet.
///
/// # Errors
/// [`LakeError::Parquet`], [`LakeError::Store`].
///
/// # Panics
/// If there is no row, or the batches have other columns: there would be nothing to name.
pub async fn write_file(lake: &Lake, table: TableName, batches: &[RecordBatch]) -> Result<DataFile, LakeError> {
    let mut writer = FileWriter::new(table)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish(lake).await
}

/// Writes one file batch by batch; what is kept in memory is the encoded file.
#[derive(Debug)]
pub struct FileWriter {
    table: TableName,
    group_rows: GroupRows,
    parquet: Encoder,
    order: Order,
}

impl FileWriter {
    /// A writer of a file of `table` that will be merged with others before long.
    ///
    /// # Errors
    /// [`LakeError::Parquet`].
    pub fn new(table: TableName) -> Result<Self, LakeError> {
        Self::with_purpose(table, Purpose::Open)
    }

    /// A writer of a file of `table` that will stay: it takes longer and becomes smaller. Rows are expected in the
    /// order of the table.
    ///
    /// # Errors
    /// [`LakeError::Parquet`].
    pub fn sealed(table: TableName) -> Result<Self, LakeError> {
        Self::with_purpose(table, Purpose::Sealed)
    }

    fn with_purpose(table: TableName, purpose: Purpose) -> Result<Self, LakeError> {
        let parquet = Encoder::new(table, purpose).map_err(|source| LakeError::Parquet { table, source })?;
        Ok(Self { table, group_rows: purpose.group_rows(), parquet, order: Order::default() })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// [`LakeError::Parquet`].
    ///
    /// # Panics
    /// If the rows have other columns than the table.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        assert_eq!(rows.schema().fields(), schema::arrow(self.table).fields(), "rows have the table's columns");
        self.encode(rows).map_err(|source| LakeError::Parquet { table: self.table, source })?;
        self.order.take(rows, self.table);
        Ok(())
    }

    /// Cuts row groups where they are full, or where a sensor ends once they are big enough.
    fn encode(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        let mut start = 0;
        while start < rows.num_rows() {
            let end = self.cut(rows, start);
            if start < end {
                self.parquet.write(&rows.slice(start, end - start))?;
            }
            if end < rows.num_rows() || self.parquet.open_rows() == self.group_rows.max {
                self.parquet.end_group()?;
            }
            start = end;
        }
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

    /// How many bytes the file has so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parquet.bytes()
    }

    /// How many rows were written.
    #[must_use]
    pub const fn rows(&self) -> i64 {
        self.order.rows
    }

    /// Puts the file into the table's folder.
    ///
    /// # Errors
    /// [`LakeError::Parquet`], [`LakeError::Store`].
    ///
    /// # Panics
    /// If no row was written.
    pub async fn finish(self, lake: &Lake) -> Result<DataFile, LakeError> {
        let Self { table, parquet, order, .. } = self;
        assert!(order.rows > 0, "a file has rows");
        let bytes = Bytes::from(parquet.finish().map_err(|source| LakeError::Parquet { table, source })?);
        let path = format!("{}.parquet", uuid::Uuid::new_v4());
        let key = tjern_readings::keys::table(table.as_str()).join(path.as_str());
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        match lake.objects().put_opts(&key, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => {}
            // Nobody else draws this name: the store's own retry met what its first try had put.
            Err(Error::AlreadyExists { .. }) if is_there(lake, &key, size).await? => {}
            Err(source) => return Err(LakeError::store(key, source)),
        }
        let Order { rows, text, time_us, sorted, unique, .. } = order;
        let modified_ms = lake.clock().now_us() / 1_000;
        let unique = sorted && unique && table == TableName::Readings;
        Ok(DataFile { path, size, modified_ms, rows: Some(rows), sensor: text, time_us, sorted, unique })
    }
}

/// Whether an object is there as a whole.
async fn is_there(lake: &Lake, key: &Path, size: i64) -> Result<bool, LakeError> {
    let found = lake.objects().head(key).await.map_err(|source| LakeError::store(key, source))?;
    Ok(i64::try_from(found.size) == Ok(size))
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

    fn bytes(&self) -> usize {
        self.done.bytes_written() + self.open.as_ref().map_or(0, RowGroup::bytes)
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.groups.begin(self.number)?,
        };
        open.write(rows)?;
        self.open = Some(open);
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), ParquetError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let mut group = self.done.next_row_group()?;
        for chunk in open.close()? {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.number += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        self.end_group()?;
        self.done.into_inner()
    }
}

#[cfg(test)]
mod tests;
