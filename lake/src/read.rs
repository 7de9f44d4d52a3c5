//! One data file of a table, read row group by row group: what rewrites and checks files, and does not ask SQL.
//!
//! Texts come as dictionaries, which is how the files hold them: a name that stands in a million rows is
//! one value. Columns are found by their names and brought to the table's types, since other programs
//! write files too; a column that may be null and is not there is null.
//!
//! A bit that turned over may leave a file readable, with another value in a row. Who writes its rows anew gives that value a
//! SHA-256 of its own and takes away all that shows it: so it opens the file unaltered ([`FileReader::open_unaltered`]), or
//! not at all. That reads the file's bytes once more, and hashes them; in a cloud it is one more request for a file of more than half a
//! MiB, and none for a smaller one, which is kept from the one reading for the other (`recent`).
//!
//! Held in memory are the footer, the compressed row group under way, and one batch.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use sha2::{Digest, Sha256};

use crate::{DataFile, Lake, LakeError, TableName, schema};

/// So much is read from the end of a file at first: its footer in one request, and a small file whole.
const FOOTER_GUESS: usize = 64 << 10;

/// Rows that are decoded together where nothing is asked but whether they can be.
const LOOKED_AT_ROWS: usize = 8 << 10;

/// An open data file, of which the footer has been read.
#[derive(Debug)]
pub struct FileReader {
    table: TableName,
    reader: ObjectReader,
    metadata: ArrowReaderMetadata,
}

/// An object, read in ranges.
#[derive(Debug, Clone)]
struct ObjectReader {
    objects: Arc<dyn ObjectStore>,
    key: Path,
    bytes: u64,
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        let read = self.objects.get_range(&self.key, range);
        read.map_err(|error| ParquetError::External(Box::new(error))).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move {
            let read = self.objects.get_ranges(&self.key, &ranges).await;
            read.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let bytes = self.bytes;
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_GUESS));
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}

/// A table's columns with texts as dictionaries.
#[must_use]
pub fn with_dictionaries(table: TableName) -> SchemaRef {
    dictionaries_of(&schema::arrow(table))
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The same columns with texts as dictionaries.
fn dictionaries_of(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Arc::new(Field::new(field.name(), dictionary(), field.is_nullable()))
        }
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The SHA-256 of a file's bytes, all of which are read for it.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn sha256_of(lake: &Lake, table: TableName, file: &DataFile) -> Result<[u8; 32], LakeError> {
    let key = tjern_readings::keys::table(table.as_str()).join(file.path.as_str());
    let failed = |source| LakeError::store(&key, source);
    let mut pieces = lake.objects().get(&key).await.map_err(failed)?.into_stream();
    let mut sha256 = Sha256::new();
    while let Some(piece) = pieces.next().await {
        sha256.update(piece.map_err(failed)?);
    }
    Ok(sha256.finalize().into())
}

/// Refuses a file whose bytes are not those that were written, where the log says which those are. All of them are read for it.
///
/// # Errors
/// [`LakeError::Altered`]; [`LakeError::Missing`]; [`LakeError::Store`].
pub async fn refuse_altered(lake: &Lake, table: TableName, file: &DataFile) -> Result<(), LakeError> {
    let Some(written) = file.sha256 else { return Ok(()) };
    let found = match sha256_of(lake, table, file).await {
        Err(LakeError::Store { source, .. }) if matches!(*source, object_store::Error::NotFound { .. }) => {
            return Err(LakeError::Missing { table, path: file.path.clone() });
        }
        found => found?,
    };
    if found == written {
        return Ok(());
    }
    Err(LakeError::Altered { table, path: file.path.clone(), found: hex(&found), written: hex(&written) })
}

/// Refuses a file that somebody stumbled over, if it is the one: [`refuse_altered`], and where the log does not say which bytes were
/// written, one of which the rows cannot be read.
///
/// # Errors
/// [`LakeError`], of which [`LakeError::damaged_file`] says whether the file is damaged.
pub async fn refuse_damaged(lake: &Lake, table: TableName, file: &DataFile) -> Result<(), LakeError> {
    refuse_altered(lake, table, file).await?;
    if file.sha256.is_some() {
        return Ok(());
    }
    let opened = FileReader::open(lake, table, file).await;
    if opened.as_ref().is_err_and(LakeError::is_gone) {
        return Err(LakeError::Missing { table, path: file.path.clone() });
    }
    let mut rows = opened?.rows(LOOKED_AT_ROWS)?;
    while let Some(batch) = rows.next().await {
        batch?;
    }
    Ok(())
}

/// A SHA-256 as people compare it.
fn hex(sha256: &[u8; 32]) -> String {
    sha256.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FileReader {
    /// Opens a file of which rows are written anew: [`refuse_altered`] looks at it first.
    ///
    /// # Errors
    /// [`LakeError::Altered`]; [`LakeError::Missing`]; as [`FileReader::open`].
    pub async fn open_unaltered(lake: &Lake, table: TableName, file: &DataFile) -> Result<Self, LakeError> {
        refuse_altered(lake, table, file).await?;
        Self::open(lake, table, file).await
    }

    /// Opens a file and reads its footer.
    ///
    /// # Errors
    /// [`LakeError::Unreadable`]: it is not there, is cut short, or is no Parquet.
    pub async fn open(lake: &Lake, table: TableName, file: &DataFile) -> Result<Self, LakeError> {
        let key = tjern_readings::keys::table(table.as_str()).join(file.path.as_str());
        let refused = |source| LakeError::Unreadable { key: key.to_string(), source };
        let bytes = u64::try_from(file.size).unwrap_or_default();
        let mut reader = ObjectReader { objects: lake.objects(), key: key.clone(), bytes };
        // What the writer thought of its columns is not asked: the table says what they are.
        let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let plain = ArrowReaderMetadata::load_async(&mut reader, options()).await.map_err(refused)?;
        let wanted = dictionaries_of(plain.schema());
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options().with_schema(wanted))
            .map_err(refused)?;
        Ok(Self { table, reader, metadata })
    }

    /// What the footer says.
    #[must_use]
    pub fn metadata(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// Whether a query opens it too. It asks what this reader passes over: what the writer thought of its columns.
    ///
    /// # Errors
    /// [`LakeError::Unreadable`].
    pub fn opens_for_a_query(&self) -> Result<(), LakeError> {
        let refused = |source| LakeError::Unreadable { key: self.reader.key.to_string(), source };
        let metadata = Arc::clone(self.metadata.metadata());
        ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new()).map_err(refused).map(drop)
    }

    /// What the footer says, and with it what the file says of its pages, where it does. They are not read otherwise.
    ///
    /// # Errors
    /// [`LakeError::Unreadable`].
    pub async fn metadata_of_pages(&mut self) -> Result<ParquetMetaData, LakeError> {
        let key = self.reader.key.to_string();
        let refused = |source| LakeError::Unreadable { key: key.clone(), source };
        let reader = ParquetMetaDataReader::new_with_metadata(self.metadata().clone());
        let mut reader = reader.with_page_index_policy(PageIndexPolicy::Optional);
        reader.load_page_index(&mut self.reader).await.map_err(refused)?;
        reader.finish().map_err(refused)
    }

    /// The rows, in the columns of [`with_dictionaries`], in batches of at most so many rows.
    ///
    /// # Errors
    /// [`LakeError::Unreadable`], from here and from the stream.
    pub fn rows(
        self,
        batch_rows: usize,
    ) -> Result<impl Stream<Item = Result<RecordBatch, LakeError>> + Send + Unpin, LakeError> {
        let wanted = with_dictionaries(self.table);
        self.stream(wanted, batch_rows)
    }

    /// The rows, with nothing but the table's two sort columns: what tells whose they are, and of when.
    ///
    /// # Errors
    /// [`LakeError::Unreadable`], from here and from the stream.
    pub fn places(
        self,
        batch_rows: usize,
    ) -> Result<impl Stream<Item = Result<RecordBatch, LakeError>> + Send + Unpin, LakeError> {
        let names = self.table.sort_columns();
        self.columns(&names, batch_rows)
    }

    /// The rows, with nothing but these of the table's columns.
    ///
    /// # Errors
    /// [`LakeError::Unreadable`], from here and from the stream.
    ///
    /// # Panics
    /// If the table has no such column.
    pub fn columns(
        self,
        names: &[&str],
        batch_rows: usize,
    ) -> Result<impl Stream<Item = Result<RecordBatch, LakeError>> + Send + Unpin + use<>, LakeError> {
        let whole = with_dictionaries(self.table);
        let column = |name: &&str| whole.field_with_name(name).expect("a column of the table").clone();
        let wanted = Arc::new(Schema::new(names.iter().map(column).collect::<Vec<_>>()));
        self.stream(wanted, batch_rows)
    }

    fn stream(
        self,
        wanted: SchemaRef,
        batch_rows: usize,
    ) -> Result<impl Stream<Item = Result<RecordBatch, LakeError>> + Send + Unpin, LakeError> {
        let Self { reader, metadata, .. } = self;
        let key = reader.key.to_string();
        let refused = move |source| LakeError::Unreadable { key: key.clone(), source };
        let fields = metadata.schema().fields().iter().enumerate();
        let roots: Vec<_> =
            fields.filter(|(_, field)| wanted.index_of(field.name()).is_ok()).map(|(index, _)| index).collect();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        let stream = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_projection(mask)
            .with_batch_size(batch_rows)
            .build()
            .map_err(&refused)?;
        Ok(stream.map(move |batch| batch.and_then(|batch| conform(&batch, &wanted)).map_err(&refused)))
    }
}

fn conform(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch, ParquetError> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef, ParquetError> {
        match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Ok(cast(column, field.data_type())?),
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), batch.num_rows())),
            None => Err(ParquetError::General(format!("it has no column `{}`", field.name()))),
        }
    };
    let columns = wanted.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(wanted), columns)?)
}
