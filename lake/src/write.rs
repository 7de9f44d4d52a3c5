//! The Parquet files of a table. A file is written whole before anything names it; a file that no
//! commit came to name is an orphan, harmless until vacuum takes it.
//!
//! Whether the rows are sorted and unique is found out while they are written and never claimed by
//! the caller, since queries are planned on it.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use object_store::{ObjectStore, PutMode};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::{DataFile, Lake, LakeError, TableName, schema};

/// Rows of a row group: what one reader decodes at a time.
const ROW_GROUP_ROWS: usize = 128 << 10;

/// Columns that grow steadily: their differences are small.
const STEADY_COLUMNS: [&str; 3] = ["time", "seq", "received"];

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
    parquet: ArrowWriter<Vec<u8>>,
    order: Order,
}

impl FileWriter {
    /// A writer of a file of `table`.
    ///
    /// # Errors
    /// [`LakeError::Parquet`].
    pub fn new(table: TableName) -> Result<Self, LakeError> {
        let refused = |source| LakeError::Parquet { table, source };
        let parquet = ArrowWriter::try_new(Vec::new(), schema::arrow(table), Some(properties().map_err(refused)?));
        Ok(Self { table, parquet: parquet.map_err(refused)?, order: Order::default() })
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
        self.order.take(rows, self.table);
        self.parquet.write(rows).map_err(|source| LakeError::Parquet { table: self.table, source })
    }

    /// How many bytes the file has so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parquet.bytes_written() + self.parquet.in_progress_size()
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
        let Self { table, parquet, order } = self;
        assert!(order.rows > 0, "a file has rows");
        let bytes = Bytes::from(parquet.into_inner().map_err(|source| LakeError::Parquet { table, source })?);
        let path = format!("{}.parquet", uuid::Uuid::new_v4());
        let key = tjern_readings::keys::table(table.as_str()).join(path.as_str());
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let objects = lake.objects();
        objects
            .put_opts(&key, bytes.into(), PutMode::Create.into())
            .await
            .map_err(|source| LakeError::store(key, source))?;
        let Order { rows, text, time_us, sorted, unique, .. } = order;
        let modified_ms = lake.clock().now_us() / 1_000;
        let unique = sorted && unique && table == TableName::Readings;
        Ok(DataFile { path, size, modified_ms, rows: Some(rows), sensor: text, time_us, sorted, unique })
    }
}

fn properties() -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(tjern_readings::batch::SOFTWARE.to_owned());
    for column in STEADY_COLUMNS {
        let column = ColumnPath::from(column);
        builder = builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    Ok(builder.build())
}

/// What is found out about the rows while they pass.
#[derive(Debug)]
struct Order {
    rows: i64,
    text: Option<(String, String)>,
    time_us: Option<(i64, i64)>,
    last: Option<(String, i64)>,
    sorted: bool,
    unique: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self { rows: 0, text: None, time_us: None, last: None, sorted: true, unique: true }
    }
}

impl Order {
    fn take(&mut self, batch: &RecordBatch, table: TableName) {
        let columns = table.sort_columns().map(|name| batch.column_by_name(name).expect("sort columns are columns"));
        let texts = columns[0].as_string::<i32>();
        let times = columns[1].as_primitive::<TimestampMicrosecondType>();
        self.rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
        for row in 0..batch.num_rows() {
            self.step(texts.value(row), times.value(row));
        }
    }

    fn step(&mut self, text: &str, time_us: i64) {
        match &mut self.last {
            Some((last, last_us)) if last == text => {
                self.sorted &= *last_us <= time_us;
                self.unique &= *last_us != time_us;
                *last_us = time_us;
            }
            last => {
                self.sorted &= last.as_ref().is_none_or(|(last, _)| last.as_str() < text);
                *last = Some((text.to_owned(), time_us));
                let (least, greatest) = self.text.get_or_insert_with(|| (text.to_owned(), text.to_owned()));
                if text < least.as_str() {
                    text.clone_into(least);
                }
                if text > greatest.as_str() {
                    text.clone_into(greatest);
                }
            }
        }
        let (least, greatest) = self.time_us.get_or_insert((time_us, time_us));
        *least = time_us.min(*least);
        *greatest = time_us.max(*greatest);
    }
}
