//! A row group under way: each column is written in each of its ways at once, and the smallest chunk stays.
//! In memory only; what is held is encoded, but for the page under way of each column.

use std::io::Sink;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, FieldRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;

use super::layout::{Purpose, Way, properties};
use crate::{TableName, schema};

/// Makes row groups of one kind of file.
pub(super) struct RowGroups {
    fields: Vec<FieldRef>,
    /// A factory for each way of each column.
    factories: Vec<Vec<ArrowRowGroupWriterFactory>>,
}

/// A table's columns as Parquet names them.
pub(super) fn parquet_schema(table: TableName) -> Result<TypePtr, ParquetError> {
    Ok(ArrowSchemaConverter::new().convert(&schema::arrow(table))?.root_schema_ptr())
}

impl RowGroups {
    pub(super) fn new(table: TableName, purpose: Purpose) -> Result<Self, ParquetError> {
        let fields: Vec<FieldRef> = schema::arrow(table).fields().iter().cloned().collect();
        let of_column = |field: &FieldRef| {
            let ways = Way::of(field.name(), purpose).iter();
            ways.map(|way| factory(table, field, purpose, *way)).collect::<Result<Vec<_>, _>>()
        };
        let factories = fields.iter().map(of_column).collect::<Result<_, _>>()?;
        Ok(Self { fields, factories })
    }

    /// Begins the row group with this number.
    pub(super) fn begin(&self, number: usize) -> Result<RowGroup, ParquetError> {
        let writer = |factory: &ArrowRowGroupWriterFactory| {
            let mut writers = factory.create_column_writers(number)?;
            writers.pop().ok_or_else(|| ParquetError::General("a column has a writer".to_owned()))
        };
        let columns = self.factories.iter().map(|ways| ways.iter().map(writer).collect());
        Ok(RowGroup { fields: self.fields.clone(), columns: columns.collect::<Result<_, _>>()?, rows: 0 })
    }
}

/// A factory makes the writers of all columns of its schema: each of ours knows one column only.
fn factory(
    table: TableName,
    field: &FieldRef,
    purpose: Purpose,
    way: Way,
) -> Result<ArrowRowGroupWriterFactory, ParquetError> {
    let alone = Arc::new(arrow::datatypes::Schema::new(vec![Field::clone(field)]));
    let root = ArrowSchemaConverter::new().convert(&alone)?.root_schema_ptr();
    let properties = Arc::new(properties(table, purpose, field.name(), way)?);
    let nowhere: SerializedFileWriter<Sink> = SerializedFileWriter::new(std::io::sink(), root, properties)?;
    Ok(ArrowRowGroupWriterFactory::new(&nowhere, alone))
}

/// A row group that is being written.
pub(super) struct RowGroup {
    fields: Vec<FieldRef>,
    columns: Vec<Vec<ArrowColumnWriter>>,
    rows: usize,
}

impl RowGroup {
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        for ((field, column), ways) in self.fields.iter().zip(batch.columns()).zip(&mut self.columns) {
            for leaf in compute_leaves(field, column)? {
                ways.iter_mut().try_for_each(|writer| writer.write(&leaf))?;
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// How many bytes it would have by now.
    pub(super) fn bytes(&self) -> usize {
        let least = |ways: &Vec<ArrowColumnWriter>| ways.iter().map(ArrowColumnWriter::get_estimated_total_bytes).min();
        self.columns.iter().filter_map(least).sum()
    }

    /// How many bytes of memory it takes: pages under way are not encoded yet.
    pub(super) fn memory(&self) -> usize {
        self.columns.iter().flatten().map(ArrowColumnWriter::memory_size).sum()
    }

    /// The chunks of its columns, each in the way that came out smallest; of equals the first.
    pub(super) fn close(self) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
        let smallest = |ways: Vec<ArrowColumnWriter>| {
            let chunks = ways.into_iter().map(ArrowColumnWriter::close).collect::<Result<Vec<_>, _>>()?;
            let bytes = |chunk: &ArrowColumnChunk| chunk.close().metadata.compressed_size();
            let smallest = chunks.into_iter().min_by_key(bytes);
            smallest.ok_or_else(|| ParquetError::General("a column has a way to be written".to_owned()))
        };
        self.columns.into_iter().map(smallest).collect()
    }
}

impl std::fmt::Debug for RowGroups {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RowGroups").field("columns", &self.fields.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RowGroup {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RowGroup").field("rows", &self.rows).finish_non_exhaustive()
    }
}
