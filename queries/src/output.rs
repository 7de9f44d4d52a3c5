//! Answers as bytes: a table for people, CSV, JSON, Parquet, Arrow for programs.
//!
//! Times with a zone are RFC 3339, UTC as `Z`. CSV has a header line, always, also without rows. JSON
//! is one array of objects, one object a row, in which a null stands as `null`. Arrow is the IPC file
//! format. Rows are written as they come; only the table for people needs them all to find its widths.

use std::io::Write;
use std::str::FromStr;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::writer::JsonArray;
use arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines and columns for people.
    Table,
    /// Comma-separated, with a header line.
    Csv,
    /// One array of objects.
    Json,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC file.
    Arrow,
}

impl Format {
    /// Every format there is.
    pub const ALL: [Self; 5] = [Self::Table, Self::Csv, Self::Json, Self::Parquet, Self::Arrow];

    /// The format's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
        }
    }
}

/// A format that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a format; hint: table, csv, json, parquet or arrow")]
pub struct UnknownFormat(pub String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.word() == word).ok_or_else(|| UnknownFormat(word.to_owned()))
    }
}

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A column cannot be written so, or the place refused the bytes.
    #[error("the answer cannot be written: {0}")]
    Arrow(#[from] ArrowError),
    /// The same, of Parquet.
    #[error("the answer cannot be written as Parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// The place refused the bytes.
    #[error("the answer cannot be written: {0}")]
    Io(#[from] std::io::Error),
}

/// Writes one answer's rows to a place.
pub struct Output<W: Write + Send>(Kind<W>);

enum Kind<W: Write + Send> {
    Table { rows: Vec<RecordBatch>, schema: SchemaRef, place: W },
    Csv(Box<arrow::csv::Writer<W>>),
    Json(Box<arrow::json::Writer<W, JsonArray>>),
    Parquet(Box<ArrowWriter<W>>),
    Arrow(Box<arrow::ipc::writer::FileWriter<W>>),
}

impl<W: Write + Send> std::fmt::Debug for Output<W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Output")
    }
}

impl<W: Write + Send> Output<W> {
    /// Begins an answer with these columns.
    ///
    /// # Errors
    /// Where the format has no way to write such columns, or the place refuses.
    pub fn new(format: Format, schema: &SchemaRef, place: W) -> Result<Self, OutputError> {
        let kind = match format {
            Format::Table => Kind::Table { rows: Vec::new(), schema: SchemaRef::clone(schema), place },
            Format::Csv => Kind::Csv(Box::new(begin_csv(schema, place)?)),
            Format::Json => {
                let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                Kind::Json(Box::new(builder.build::<_, JsonArray>(place)))
            }
            Format::Parquet => {
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
                let schema = SchemaRef::clone(schema);
                Kind::Parquet(Box::new(ArrowWriter::try_new(place, schema, Some(properties.build()))?))
            }
            Format::Arrow => Kind::Arrow(Box::new(arrow::ipc::writer::FileWriter::try_new(place, schema)?)),
        };
        Ok(Self(kind))
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// Where a value cannot be written, or the place refuses.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        match &mut self.0 {
            Kind::Table { rows, .. } => rows.push(batch.clone()),
            Kind::Csv(writer) => writer.write(batch)?,
            Kind::Json(writer) => writer.write(batch)?,
            Kind::Parquet(writer) => writer.write(batch)?,
            Kind::Arrow(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    /// Ends the answer and gives the place back.
    ///
    /// # Errors
    /// Where the place refuses.
    pub fn finish(self) -> Result<W, OutputError> {
        match self.0 {
            Kind::Table { rows, schema, mut place } => {
                let table = arrow::util::pretty::pretty_format_batches_with_schema(schema, &rows)?;
                writeln!(place, "{table}")?;
                Ok(place)
            }
            Kind::Csv(writer) => Ok(writer.into_inner()),
            Kind::Json(mut writer) => {
                writer.finish()?;
                let mut place = writer.into_inner();
                writeln!(place)?;
                Ok(place)
            }
            Kind::Parquet(writer) => Ok(writer.into_inner()?),
            Kind::Arrow(writer) => Ok(writer.into_inner()?),
        }
    }
}

/// The header line is written with the first rows: none come for certain, so none are written at once.
fn begin_csv<W: Write>(schema: &SchemaRef, place: W) -> Result<arrow::csv::Writer<W>, OutputError> {
    let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(place);
    writer.write(&RecordBatch::new_empty(SchemaRef::clone(schema)))?;
    Ok(writer)
}

/// Writes a whole answer.
///
/// # Errors
/// Where a value cannot be written, or the place refuses.
pub fn write<W: Write + Send>(
    format: Format,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    place: W,
) -> Result<W, OutputError> {
    let mut output = Output::new(format, schema, place)?;
    for batch in batches {
        output.write(batch)?;
    }
    output.finish()
}

/// A place in memory that takes no more than so many bytes.
#[derive(Debug)]
pub(crate) struct Bounded {
    bytes: Vec<u8>,
    max: usize,
}

impl Bounded {
    pub(crate) const fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.max {
            let text = format!("it has more than {} bytes; hint: select fewer columns or rows", self.max);
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, text));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray};
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    fn batch() -> RecordBatch {
        let times = TimestampMicrosecondArray::from(vec![1_790_000_000_000_000, 1_790_000_000_500_000]);
        RecordBatch::try_from_iter([
            ("sensor", Arc::new(StringArray::from(vec!["a/b", "a/\"c,d\""])) as ArrayRef),
            ("time", Arc::new(times.with_timezone("UTC")) as ArrayRef),
            ("value", Arc::new(Float64Array::from(vec![Some(13.4), None])) as ArrayRef),
        ])
        .expect("columns of one length")
    }

    fn text(format: Format, batches: &[RecordBatch]) -> String {
        let bytes = write(format, &batch().schema(), batches, Vec::new()).expect("it is written");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn times_are_utc_and_nulls_are_told_from_zero() {
        assert_eq!(
            text(Format::Csv, &[batch()]),
            "sensor,time,value\na/b,2026-09-21T14:13:20Z,13.4\n\"a/\"\"c,d\"\"\",2026-09-21T14:13:20.500Z,\n"
        );
        assert_eq!(
            text(Format::Json, &[batch()]),
            "[{\"sensor\":\"a/b\",\"time\":\"2026-09-21T14:13:20Z\",\"value\":13.4},\
             {\"sensor\":\"a/\\\"c,d\\\"\",\"time\":\"2026-09-21T14:13:20.500Z\",\"value\":null}]\n"
        );
        let table = text(Format::Table, &[batch()]);
        assert!(table.contains("| 2026-09-21T14:13:20Z     | 13.4  |"), "{table}");
    }

    #[test]
    fn no_rows_are_an_answer_too() {
        assert_eq!(text(Format::Csv, &[]), "sensor,time,value\n");
        assert_eq!(text(Format::Json, &[]), "[]\n");
        assert!(text(Format::Table, &[]).contains("| sensor | time | value |"));
    }

    #[test]
    fn parquet_and_arrow_are_read_back() {
        let bytes = write(Format::Parquet, &batch().schema(), &[batch()], Vec::new()).expect("it is written");
        let mut reader = ParquetRecordBatchReaderBuilder::try_new(axum::body::Bytes::from(bytes))
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .expect("a Parquet file");
        assert_eq!(reader.next().expect("rows").expect("readable"), batch());

        let bytes = write(Format::Arrow, &batch().schema(), &[batch()], Vec::new()).expect("it is written");
        let mut reader =
            arrow::ipc::reader::FileReader::try_new(std::io::Cursor::new(bytes), None).expect("an Arrow file");
        assert_eq!(reader.next().expect("rows").expect("readable"), batch());
    }

    #[test]
    fn an_answer_too_large_is_refused_and_not_cut() {
        let error = write(Format::Csv, &batch().schema(), &[batch()], Bounded::new(30)).expect_err("30 bytes are few");
        assert!(error.to_string().contains("more than 30 bytes"), "{error}");
    }
}
