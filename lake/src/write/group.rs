//! A row group under way: each column is written in each of its ways at once, and the smallest chunk stays.
//! In memory only; what is held is encoded, but for the page under way of each column. Each way of each column is
//! work of its own, which several threads share ([`super::threads`]).

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
use super::threads::Team;
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
        let ways = self.factories.iter().enumerate();
        let ways = ways.flat_map(|(column, ways)| ways.iter().map(move |factory| (column, factory)));
        let way = |(column, factory): (usize, &ArrowRowGroupWriterFactory)| {
            let writer = factory.create_column_writers(number)?.pop();
            let writer = writer.ok_or_else(|| ParquetError::General("a column has a writer".to_owned()))?;
            Ok(ColumnWay { column, writer: Box::new(writer) })
        };
        Ok(RowGroup { fields: self.fields.clone(), ways: ways.map(way).collect::<Result<_, ParquetError>>()?, rows: 0 })
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
    /// In the order of the columns. None is left after an error.
    ways: Vec<ColumnWay>,
    rows: usize,
}

/// A column that is written in one of its ways.
struct ColumnWay {
    column: usize,
    writer: Box<ArrowColumnWriter>,
}

impl RowGroup {
    pub(super) const fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn write(&mut self, batch: &RecordBatch, team: &Team) -> Result<(), ParquetError> {
        let with_values = |way: ColumnWay| {
            let (field, values) = (&self.fields[way.column], batch.column(way.column));
            (Arc::clone(field), Arc::clone(values), way)
        };
        let ways = std::mem::take(&mut self.ways).into_iter().map(with_values).collect();
        self.ways = team.each(ways, |(field, values, mut way)| {
            compute_leaves(&field, &values)?.iter().try_for_each(|leaf| way.writer.write(leaf))?;
            Ok(way)
        })?;
        self.rows += batch.num_rows();
        Ok(())
    }

    /// How many bytes it would have by now.
    pub(super) fn bytes(&self) -> usize {
        let columns = self.ways.chunk_by(|one, other| one.column == other.column);
        let least = |ways: &[ColumnWay]| ways.iter().map(|way| way.writer.get_estimated_total_bytes()).min();
        columns.filter_map(least).sum()
    }

    /// How many bytes of memory it takes: pages under way are not encoded yet.
    pub(super) fn memory(&self) -> usize {
        self.ways.iter().map(|way| way.writer.memory_size()).sum()
    }

    /// The chunks of its columns, each in the way that came out smallest; of equals the first.
    pub(super) fn close(self, team: &Team) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
        let bytes = |chunk: &ArrowColumnChunk| chunk.close().metadata.compressed_size();
        let mut smallest: Vec<(usize, ArrowColumnChunk)> = Vec::with_capacity(self.fields.len());
        for (column, chunk) in team.each(self.ways, |way| Ok((way.column, way.writer.close()?)))? {
            match smallest.last_mut() {
                Some((last, former)) if *last == column => {
                    if bytes(&chunk) < bytes(former) {
                        *former = chunk;
                    }
                }
                _ => smallest.push((column, chunk)),
            }
        }
        Ok(smallest.into_iter().map(|(_, chunk)| chunk).collect())
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
