//! The lines of a file that is imported, be it text or Parquet, as texts, numbers and times by column.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::sheet::{BytesRead, Layout, Sheet, can_be_read_twice, open};

/// Rows of a Parquet file that are in memory at once.
const BATCH_ROWS: usize = 8 << 10;

/// What stands in a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Empty,
    Text(String),
    Number(f64),
    /// A moment, in microseconds since 1970.
    Moment(i64),
    /// The clock of a place, as microseconds since 1970 there.
    Civil(i64),
}

/// A line, from 1 for a file's first; a row of Parquet counts from 1 too.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InputLine {
    pub(super) number: u64,
    /// The fields of the columns that were asked for, in their order; or what is wrong with all of it.
    pub(super) cells: Result<Vec<Cell>, String>,
}

/// A file that is being read.
pub(super) enum Input {
    Text { sheet: Sheet, places: Vec<usize>, read: BytesRead },
    Parquet { batches: ParquetRecordBatchReader, rows: VecDeque<InputLine>, read: u64, places: Vec<usize> },
}

impl Input {
    /// Opens a file. `columns` are those that are wanted.
    ///
    /// # Errors
    /// That it cannot be read, or that a column is not there.
    pub(super) fn open(path: &Path, layout: Layout, columns: &[&str]) -> Result<Self, String> {
        can_be_read_twice(path).map_err(|error| error.to_string())?;
        if is_parquet(path)? {
            return Self::open_parquet(path, columns);
        }
        let (bytes, read) = open(path).map_err(|error| error.to_string())?;
        let sheet = Sheet::new(bytes, layout)?;
        let places = columns.iter().map(|name| sheet.place(name)).collect::<Result<_, _>>()?;
        Ok(Self::Text { sheet, places, read })
    }

    fn open_parquet(path: &Path, columns: &[&str]) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string())?;
        let schema = builder.schema();
        let place = |name: &&str| {
            let known =
                || schema.fields().iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ");
            schema.index_of(name).map_err(|_| format!("there is no column `{name}`, there are {}", known()))
        };
        let roots = columns.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let mut read_roots = roots.clone();
        read_roots.sort_unstable();
        read_roots.dedup();
        let places = roots.iter().filter_map(|root| read_roots.iter().position(|read| read == root)).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), read_roots);
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        let batches = batches.map_err(|error| error.to_string())?;
        Ok(Self::Parquet { batches, rows: VecDeque::new(), read: 0, places })
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// That the file cannot be read on.
    pub(super) fn next(&mut self) -> Result<Option<InputLine>, String> {
        match self {
            Self::Text { sheet, places, .. } => Ok(sheet.next()?.map(|line| {
                let cell = |text: &String| if text.is_empty() { Cell::Empty } else { Cell::Text(text.clone()) };
                let cells = line.fields.map(|fields| places.iter().map(|place| cell(&fields[*place])).collect());
                InputLine { number: line.number, cells }
            })),
            Self::Parquet { batches, rows, read, places } => {
                while rows.is_empty() {
                    let Some(batch) = batches.next() else { return Ok(None) };
                    let batch = batch.map_err(|error| error.to_string())?;
                    rows.extend(lines_of(&batch, places, *read).map_err(|error| error.to_string())?);
                    *read += batch.num_rows() as u64;
                }
                Ok(rows.pop_front())
            }
        }
    }

    /// How far it was read, in its own bytes, where that is known.
    pub(super) fn bytes_read(&self) -> Option<u64> {
        match self {
            Self::Text { read, .. } => Some(read.get()),
            Self::Parquet { .. } => None,
        }
    }
}

fn is_parquet(path: &Path) -> Result<bool, String> {
    use std::io::Read;
    let mut magic = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(4).read_to_end(&mut magic).map_err(|error| error.to_string())?;
    Ok(magic == b"PAR1")
}

fn lines_of(batch: &RecordBatch, places: &[usize], before: u64) -> Result<Vec<InputLine>, ArrowError> {
    let columns = places.iter().map(|place| cells_of(batch, *place)).collect::<Result<Vec<_>, _>>()?;
    let line = |row: usize| InputLine {
        number: before + row as u64 + 1,
        cells: Ok(columns.iter().map(|cells| cells[row].clone()).collect()),
    };
    Ok((0..batch.num_rows()).map(line).collect())
}

fn cells_of(batch: &RecordBatch, place: usize) -> Result<Vec<Cell>, ArrowError> {
    let column = batch.column(place);
    let time = |cell: fn(i64) -> Cell| {
        let times = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
        let times = times.as_primitive::<TimestampMicrosecondType>().clone();
        Ok(times.iter().map(|time| time.map_or(Cell::Empty, cell)).collect())
    };
    match column.data_type() {
        DataType::Timestamp(_, Some(_)) => time(Cell::Moment),
        DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64 => time(Cell::Civil),
        // A whole number may be one that a 64-bit float does not have: whoever reads it decides.
        kind if kind.is_integer() => {
            let texts = cast(column, &DataType::Utf8)?;
            let cell = |text: &str| match text.parse::<i32>() {
                Ok(number) => Cell::Number(f64::from(number)),
                Err(_) => Cell::Text(text.to_owned()),
            };
            Ok(texts.as_string::<i32>().iter().map(|text| text.map_or(Cell::Empty, cell)).collect())
        }
        kind if kind.is_numeric() => {
            let numbers = cast(column, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            Ok(numbers.iter().map(|number| number.map_or(Cell::Empty, Cell::Number)).collect())
        }
        _ => {
            let texts = cast(column, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            Ok(texts.iter().map(|text| text.map_or(Cell::Empty, |text| Cell::Text(text.to_owned()))).collect())
        }
    }
}
