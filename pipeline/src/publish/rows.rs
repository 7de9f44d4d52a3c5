//! The readings of a dataset: asked for, looked at once more, and written as CSV and as Parquet, batch by batch, into files
//! of their own outside of the lake, so that a dataset of any size can be published.
//!
//! CSV is RFC 4180 with a header, a decimal point and times of RFC 3339 in UTC; `local_time` is what the
//! city's clocks showed, without an offset. Numbers are the shortest text that reads back as the same.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{
    DataType, Field, Float64Type, Int8Type, Int16Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{Expr, SessionContext, col, lit};
use futures::TryStreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256};
use tjern_lake::session::{job_session_on, open_all};
use tjern_lake::{Access, Lake, SessionSettings, Table, TableName};
use tjern_readings::reading::Quality;

use super::{Dataset, PublishError};
use crate::bounds::Bounds;
use crate::erase::Erasures;
use crate::tables::conform;

/// The columns of a dataset, in their order.
const COLUMNS: [&str; 10] =
    ["sensor", "site", "site_name", "time", "local_time", "value", "unit", "quality", "revision", "level"];

/// A dataset's files, and of which version of `readings` they are.
#[derive(Debug)]
pub(crate) struct Readings {
    pub(crate) version: i64,
    /// How many erasures that version knows of.
    pub(crate) erasures: Option<i64>,
    /// The version of `sensors` that says what is public; -1 where there is none.
    pub(crate) sensors_version: i64,
    pub(crate) csv: Written,
    pub(crate) parquet: Written,
    pub(crate) summary: Summary,
}

/// What a description says of the rows.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) rows: usize,
    /// The names of the places that the readings are from, each once.
    pub(crate) places: Vec<String>,
    /// The first and the last time.
    pub(crate) period: Option<(Timestamp, Timestamp)>,
}

/// Asks for a dataset's rows, and writes them to files in the spill folder.
pub(crate) async fn read_rows(
    lake: &Lake,
    dataset: &Dataset,
    timezone: &TimeZone,
    bounds: &Bounds,
) -> Result<Readings, PublishError> {
    let pinned = open_all(lake).await?;
    let readings = pinned.iter().find(|(name, _)| *name == TableName::Readings);
    let readings = readings.and_then(|(_, table)| table.as_ref());
    let sensors = pinned.iter().find(|(name, _)| *name == TableName::Sensors).and_then(|(_, table)| table.as_ref());
    let sensors_version = sensors.map_or(-1, Table::version);
    let (version, erasures) = (readings.map_or(-1, Table::version), readings.and_then(Erasures::count_in));
    let memory_bytes = bounds.engine_bytes();
    let settings = SessionSettings { access: Access::Public, timezone: timezone.clone(), memory_bytes };
    let context = job_session_on(lake, &settings, &pinned, &bounds.spill_folder).await?;
    let mut batches = observations(&context, dataset).await?;
    let mut writing = Writing::new(dataset, bounds)?;
    while let Some(batch) = batches.try_next().await? {
        writing.take(&Rows(conform(&batch, &schema())?))?;
        // Encoding waits for nothing, and others share this thread.
        tokio::task::yield_now().await;
    }
    let (csv, parquet, summary) = writing.finish()?;
    Ok(Readings { version, erasures, sensors_version, csv, parquet, summary })
}

async fn observations(context: &SessionContext, dataset: &Dataset) -> Result<SendableRecordBatchStream, PublishError> {
    let passed = col("quality").between(lit(Quality::Good.code()), lit(Quality::Suspect.code()));
    let mut filter: Expr = passed.and(col("value").is_not_null()).and(col("class").eq(lit("public")));
    if let Some(quantity) = &dataset.quantity {
        filter = filter.and(col("quantity").eq(lit(quantity.as_str())));
    }
    if let Some(sensors) = &dataset.sensors {
        let sensors = sensors.iter().map(|sensor| lit(sensor.as_str())).collect();
        filter = filter.and(col("sensor").in_list(sensors, false));
    }
    let rows = context.table("observations").await?.filter(filter)?.select_columns(&COLUMNS)?;
    let rows = rows.sort(vec![col("sensor").sort(true, false), col("time").sort(true, false)])?;
    Ok(rows.execute_stream().await?)
}

fn schema() -> SchemaRef {
    let time = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let field = |name: &str| match name {
        "time" => Field::new(name, time(Some("UTC")), false),
        "local_time" => Field::new(name, time(None), true),
        "value" => Field::new(name, DataType::Float64, false),
        "quality" | "level" => Field::new(name, DataType::Int8, false),
        "revision" => Field::new(name, DataType::Int16, false),
        "sensor" => Field::new(name, DataType::Utf8, false),
        _ => Field::new(name, DataType::Utf8, true),
    };
    Arc::new(Schema::new(COLUMNS.map(field).to_vec()))
}

/// A file outside of the lake, as long as it is needed, and what is known of its bytes.
#[derive(Debug)]
pub(crate) struct Written {
    file: File,
    pub(crate) bytes: usize,
    pub(crate) sha256: String,
}

impl Written {
    /// Its bytes. They are held while they are put: a store creates an object once only if it gets it as a whole.
    pub(crate) fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.bytes);
        self.file.rewind()?;
        self.file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A file that is being written, and the hash of what was.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: usize,
}

impl Hashed {
    fn new(bounds: &Bounds) -> std::io::Result<Self> {
        let file = tempfile::tempfile_in(&bounds.spill_folder)?;
        Ok(Self { file: BufWriter::new(file), hash: Sha256::new(), bytes: 0 })
    }

    fn finish(self) -> std::io::Result<Written> {
        let Self { file, hash, bytes } = self;
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(Written { file, bytes, sha256: super::hex(&hash.finalize()) })
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Both files in the making.
struct Writing<'a> {
    dataset: &'a Dataset,
    bounds: &'a Bounds,
    csv: Hashed,
    parquet: ArrowWriter<Hashed>,
    summary: Summary,
}

impl<'a> Writing<'a> {
    fn new(dataset: &'a Dataset, bounds: &'a Bounds) -> Result<Self, PublishError> {
        let spilled = |source| PublishError::Spill { folder: bounds.spill_folder.clone(), source };
        let mut csv = Hashed::new(bounds).map_err(spilled)?;
        csv.write_all(format!("{}\r\n", COLUMNS.join(",")).as_bytes()).map_err(spilled)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_created_by("tjern".to_owned())
            .build();
        let parquet = ArrowWriter::try_new(Hashed::new(bounds).map_err(spilled)?, schema(), Some(properties))?;
        Ok(Self { dataset, bounds, csv, parquet, summary: Summary::default() })
    }

    /// Takes rows, sorted by sensor and time, if they may leave.
    fn take(&mut self, rows: &Rows) -> Result<(), PublishError> {
        refuse_what_failed(rows, self.dataset)?;
        self.summary.add(rows);
        let written = self.csv.write_all(rows.csv().as_bytes());
        written.map_err(|source| PublishError::Spill { folder: self.bounds.spill_folder.clone(), source })?;
        self.parquet.write(&rows.0)?;
        if self.parquet.in_progress_size() >= self.bounds.engine_bytes() / 4 {
            self.parquet.flush()?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(Written, Written, Summary), PublishError> {
        let spilled = |source| PublishError::Spill { folder: self.bounds.spill_folder.clone(), source };
        let parquet = self.parquet.into_inner()?.finish().map_err(spilled)?;
        Ok((self.csv.finish().map_err(spilled)?, parquet, self.summary))
    }
}

/// Helsinki once told its bathers −327.68 °C: what leaves the house is looked at a last time.
fn refuse_what_failed(rows: &Rows, dataset: &Dataset) -> Result<(), PublishError> {
    for row in 0..rows.count() {
        let (value, quality) = (rows.value(row), rows.quality(row));
        let passed = (Quality::Good.code()..=Quality::Suspect.code()).contains(&quality);
        if !value.is_finite() || !passed {
            let what = format!("{value} of `{}` has quality {quality}", rows.text("sensor", row).unwrap_or_default());
            return Err(PublishError::Withheld { dataset: dataset.name.clone(), what });
        }
    }
    Ok(())
}

impl Summary {
    fn add(&mut self, rows: &Rows) {
        self.rows += rows.count();
        for row in 0..rows.count() {
            let name = rows.text("site_name", row).or_else(|| rows.text("site", row));
            if let Some(name) = name.filter(|name| !self.places.iter().any(|known| known == name)) {
                self.places.push(name.to_owned());
            }
            if let Some(time) = rows.time("time", row) {
                let (first, last) = self.period.unwrap_or((time, time));
                self.period = Some((first.min(time), last.max(time)));
            }
        }
    }
}

/// Rows of a dataset.
#[derive(Debug)]
struct Rows(RecordBatch);

impl Rows {
    fn count(&self) -> usize {
        self.0.num_rows()
    }

    fn column(&self, name: &str) -> &Arc<dyn Array> {
        self.0.column_by_name(name).expect("rows have the columns of the dataset")
    }

    fn text(&self, name: &str, row: usize) -> Option<&str> {
        let column: &StringArray = self.column(name).as_string();
        column.is_valid(row).then(|| column.value(row))
    }

    fn value(&self, row: usize) -> f64 {
        self.column("value").as_primitive::<Float64Type>().value(row)
    }

    fn quality(&self, row: usize) -> i8 {
        self.column("quality").as_primitive::<Int8Type>().value(row)
    }

    fn time(&self, name: &str, row: usize) -> Option<Timestamp> {
        let column = self.column(name).as_primitive::<TimestampMicrosecondType>();
        column.is_valid(row).then(|| Timestamp::from_microsecond(column.value(row)).ok()).flatten()
    }

    /// The rows as lines of CSV.
    fn csv(&self) -> String {
        let mut text = String::new();
        for row in 0..self.count() {
            for (place, name) in COLUMNS.into_iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                self.write_field(&mut text, name, row);
            }
            text.push_str("\r\n");
        }
        text
    }

    fn write_field(&self, text: &mut String, name: &str, row: usize) {
        let _ = match name {
            "time" => self.time(name, row).map_or(Ok(()), |time| write!(text, "{time}")),
            "local_time" => {
                let local = self.time(name, row).map(|time| time.to_zoned(TimeZone::UTC).datetime());
                local.map_or(Ok(()), |time| write!(text, "{time}"))
            }
            "value" => write!(text, "{}", self.value(row)),
            "quality" | "level" => write!(text, "{}", self.column(name).as_primitive::<Int8Type>().value(row)),
            "revision" => write!(text, "{}", self.column(name).as_primitive::<Int16Type>().value(row)),
            _ => {
                write_text(text, self.text(name, row).unwrap_or_default());
                Ok(())
            }
        };
    }
}

/// A field of text: in quotes where it has to be (RFC 4180, section 2, rules 5 to 7).
fn write_text(text: &mut String, field: &str) {
    if field.contains(['"', ',', '\r', '\n']) {
        text.push('"');
        text.push_str(&field.replace('"', "\"\""));
        text.push('"');
    } else {
        text.push_str(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_where_it_has_to_be() {
        for (field, written) in
            [("Åsen", "Åsen"), ("a,b", "\"a,b\""), ("say \"å\"", "\"say \"\"å\"\"\""), ("a\nb", "\"a\nb\""), ("", "")]
        {
            let mut text = String::new();
            write_text(&mut text, field);
            assert_eq!(text, written);
        }
    }
}
