//! Files to batches, as `tjern-lake` reads them: texts as dictionaries.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::gathered::BATCH_ROWS;
use crate::{Failure, TableName, schema};

pub fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let paths = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, Failure>>()?;
    let mut files: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect();
    files.sort();
    Ok(files)
}

pub fn rows(path: &Path) -> Result<impl Iterator<Item = Result<RecordBatch, Failure>> + use<>, Failure> {
    let file: bytes::Bytes = std::fs::read(path)?.into();
    let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let plain = ArrowReaderMetadata::load(&file, options())?;
    let wanted = Arc::new(schema::with_dictionaries(plain.schema()));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options().with_schema(wanted))?;
    let reader =
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata).with_batch_size(BATCH_ROWS).build()?;
    let wanted = Arc::new(schema::with_dictionaries(&schema::arrow(TableName::Readings)));
    Ok(reader.map(move |batch| {
        let batch = batch?;
        let columns = wanted.fields().iter().map(|field| {
            let column = batch.column_by_name(field.name()).ok_or_else(|| format!("no column `{}`", field.name()))?;
            Ok::<_, Failure>(cast(column, field.data_type())?)
        });
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&wanted), columns)?)
    }))
}
