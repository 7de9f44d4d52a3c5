//! The Parquet files of a table. A file is written whole before anything names it; a file that no
//! commit came to name is an orphan, harmless until vacuum takes it.
//!
//! Whether the rows are sorted and unique is found out while they are written ([`order`]). How they are
//! laid out depends on whether the file will stay ([`layout`]): a file of ingest is written once, fast; one of
//! compaction is written with trials ([`group`]), on several threads if need be ([`threads`]). [`encode`] makes the bytes, here they are put.

mod encode;
mod group;
mod layout;
mod order;
mod threads;

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};
use sha2::{Digest, Sha256};

use crate::{DataFile, Lake, LakeError, TableName, schema};
use encode::EncodedFile;
use layout::Purpose;
use order::Order;
use threads::Team;

/// A row group may take so much memory in any case: the encoder of differences reserves a MiB for each of up to three columns, and
/// where that were all a row group would end with each write.
const GROUP_BYTES_MIN: usize = 4 << 20;

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
    encoded: EncodedFile,
}

impl FileWriter {
    /// A writer of a file of `table` that will be merged with others before long.
    ///
    /// # Errors
    /// [`LakeError::Parquet`].
    pub fn new(table: TableName) -> Result<Self, LakeError> {
        Self::with_purpose(table, Purpose::Open)
    }

    /// The same, of rows that are not to take more than about so many bytes of memory, and four MiB at the least, while they
    /// are gathered into a row group. The file's encoded bytes come on top.
    ///
    /// # Errors
    /// [`LakeError::Parquet`].
    pub fn open_within(table: TableName, memory_bytes: u64) -> Result<Self, LakeError> {
        let mut writer = Self::new(table)?;
        writer.encoded.group_bytes_max = usize::try_from(memory_bytes).unwrap_or(usize::MAX).max(GROUP_BYTES_MIN);
        Ok(writer)
    }

    /// A writer of a file of `table` that will stay: it takes longer and becomes smaller. Rows are expected in the
    /// order of the table.
    ///
    /// # Errors
    /// [`LakeError::Parquet`].
    pub fn sealed(table: TableName) -> Result<Self, LakeError> {
        Self::with_purpose(table, Purpose::Sealed)
    }

    /// The same, of rows that are not to take more than about so many bytes of memory while they are gathered into a row
    /// group: it ends earlier then. The file's encoded bytes come on top.
    ///
    /// # Errors
    /// [`LakeError::Parquet`].
    pub fn sealed_within(table: TableName, memory_bytes: u64) -> Result<Self, LakeError> {
        let mut writer = Self::sealed(table)?;
        writer.encoded.group_bytes_max = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
        Ok(writer)
    }

    /// Shares the work on columns among so many threads, the caller's among them. The bytes are the same.
    ///
    /// # Errors
    /// [`LakeError::Parquet`]: the system has no thread left.
    pub fn with_threads(mut self, threads: usize) -> Result<Self, LakeError> {
        self.encoded.team = Team::of(threads).map_err(|source| LakeError::Parquet { table: self.table, source })?;
        Ok(self)
    }

    fn with_purpose(table: TableName, purpose: Purpose) -> Result<Self, LakeError> {
        let encoded = EncodedFile::new(table, purpose).map_err(|source| LakeError::Parquet { table, source })?;
        Ok(Self { table, encoded })
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
        self.encoded.write(rows).map_err(|source| LakeError::Parquet { table: self.table, source })
    }

    /// How many bytes the file has so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.encoded.bytes()
    }

    /// How many rows were written.
    #[must_use]
    pub const fn rows(&self) -> i64 {
        self.encoded.rows()
    }

    /// Puts the file into the table's folder.
    ///
    /// # Errors
    /// [`LakeError::Parquet`], [`LakeError::Store`].
    ///
    /// # Panics
    /// If no row was written.
    pub async fn finish(self, lake: &Lake) -> Result<DataFile, LakeError> {
        let Self { table, encoded } = self;
        assert!(encoded.rows() > 0, "a file has rows");
        let (bytes, order) = encoded.finish().map_err(|source| LakeError::Parquet { table, source })?;
        let bytes = Bytes::from(bytes);
        let sha256 = Some(Sha256::digest(&bytes).into());
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
        Ok(DataFile { path, size, modified_ms, rows: Some(rows), sensor: text, time_us, sorted, unique, sha256 })
    }
}

/// Whether an object is there as a whole.
async fn is_there(lake: &Lake, key: &Path, size: i64) -> Result<bool, LakeError> {
    let found = lake.objects().head(key).await.map_err(|source| LakeError::store(key, source))?;
    Ok(i64::try_from(found.size) == Ok(size))
}

#[cfg(test)]
mod tests;
