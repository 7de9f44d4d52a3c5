//! Every byte of every object of a lake: whether erased readings are in it.
//!
//! Files of Parquet (data, checkpoints, releases) are read row by row, batches too; JSON, CSV and what nobody can read are
//! searched as bytes. A value counts as found by its eight bytes or as text, a reading by its sensor and time, a
//! log or a statistic by the sensor's name: no other reading of it stands at the edge of a file.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tjern_readings::batch;

/// What may not be found.
pub(crate) struct Erased {
    pub(crate) sensor: &'static str,
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
    pub(crate) values: Vec<f64>,
}

/// What was found, an object and what in it.
pub(crate) type Traces = Vec<(String, String)>;

impl Erased {
    /// Reads everything.
    pub(crate) async fn scan(&self, objects: &InMemory) -> Traces {
        let metas: Vec<_> = objects.list(None).try_collect().await.expect("listed");
        let mut traces = Traces::new();
        for meta in metas {
            let bytes = objects.get(&meta.location).await.expect("there").bytes().await.expect("read");
            let found = self.look(&meta.location, &bytes);
            traces.extend(found.into_iter().map(|what| (meta.location.to_string(), what)));
        }
        traces
    }

    fn look(&self, key: &Path, bytes: &Bytes) -> Option<String> {
        let all = searchable(bytes);
        if let Some(value) = self.values.iter().find(|value| all.contains(&searchable(&value.to_le_bytes()))) {
            return Some(format!("the bytes of {value}"));
        }
        if let Some(text) = self.values.iter().map(f64::to_string).find(|text| all.contains(text)) {
            return Some(format!("the text {text}"));
        }
        match key.extension().unwrap_or_default() {
            "parquet" => self.in_parquet(key, bytes.clone()),
            "arrow" => match batch::decode(bytes) {
                Ok(batch) => self.in_rows(&batch.rows),
                // Sealed batches are compressed: what cannot be read may hold anything.
                Err(error) => Some(format!("nobody can read it: {error}")),
            },
            "csv" => self.in_csv(bytes),
            _ => self.in_text(key, bytes),
        }
    }

    fn in_parquet(&self, key: &Path, bytes: Bytes) -> Option<String> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        let Ok(reader) = reader else { return Some("it is no Parquet".to_owned()) };
        let is_log = key.as_ref().contains("_delta_log");
        reader.map(|rows| rows.expect("rows")).find_map(|rows| {
            if !is_log {
                return self.in_rows(&rows);
            }
            let mut text = LineDelimitedWriter::new(Vec::new());
            text.write(&rows).expect("JSON");
            text.finish().expect("JSON");
            self.in_log(&text.into_inner())
        })
    }

    fn in_rows(&self, rows: &RecordBatch) -> Option<String> {
        for column in rows.columns().iter().filter_map(|column| column.as_primitive_opt::<Float64Type>()) {
            if let Some(value) = column.iter().flatten().find(|value| self.values.contains(value)) {
                return Some(format!("a row with {value}"));
            }
        }
        let sensors = arrow::compute::cast(rows.column_by_name("sensor")?, &DataType::Utf8).expect("texts");
        let times = rows.column_by_name("time")?.as_primitive_opt::<TimestampMicrosecondType>()?.clone();
        let sensors = sensors.as_string::<i32>();
        let row = (0..rows.num_rows()).find(|row| {
            let is_within = |time_us: i64| self.from_us <= time_us && time_us < self.to_us;
            sensors.value(*row) == self.sensor && times.is_valid(*row) && is_within(times.value(*row))
        })?;
        Some(format!("a reading of {}", times.value(row)))
    }

    fn in_csv(&self, bytes: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let line = text.lines().find(|line| {
            let mut fields = line.split(',');
            let times = || line.split(',').filter_map(|field| field.parse::<jiff::Timestamp>().ok());
            fields.next() == Some(self.sensor)
                && times().any(|time| self.from_us <= time.as_microsecond() && time.as_microsecond() < self.to_us)
        })?;
        Some(format!("the line {line}"))
    }

    fn in_text(&self, key: &Path, bytes: &[u8]) -> Option<String> {
        let key = key.as_ref();
        if key.contains("_delta_log") && key.contains("tables/sensors/") {
            return None;
        }
        if key.contains("_delta_log") {
            return self.in_log(bytes);
        }
        // What is erased stands in its own record, and what a sensor is in the register and in configurations.
        let speaks = key.starts_with("jobs/") || key.starts_with("quarantine/");
        (speaks && holds(bytes, self.sensor)).then(|| format!("it names {}", self.sensor))
    }

    fn in_log(&self, bytes: &[u8]) -> Option<String> {
        holds(bytes, self.sensor).then(|| format!("a log that names {}", self.sensor))
    }
}

/// A character a byte: texts are searched faster than bytes, in a build without optimisation by far.
fn searchable(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn holds(bytes: &[u8], wanted: &str) -> bool {
    searchable(bytes).contains(wanted)
}
