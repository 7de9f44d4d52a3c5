//! Readings to the bytes of a batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, NullBufferBuilder, StringDictionaryBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, Float64Array, Int8Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message};
use arrow_schema::{ArrowError, Schema};
use bytes::Bytes;

use super::room::Room;
use super::rows::{Row, RowDigest};
use super::sensors::Sensors;
use super::{Batch, FORMAT_VERSION, Header, SOFTWARE, metadata, schema};
use crate::keys::Bounds;
use crate::reading::{Quality, Reading};
use crate::round::RoundSpan;
use crate::rows::{Span, Spans};
use crate::sensor::{Epoch, SourceName};

/// How hard zstd tries. Its default, 3, makes columns of readings no smaller (docs/decisions/0034), and needs tables of
/// three quarters of a MiB for that, which are filled with zeros for each column.
const ZSTD_LEVEL: i32 = 2;

/// Encodes `readings`, numbered from `first_seq` on, as a batch. The same input gives the same bytes.
///
/// Returns the bytes, and the batch that they hold.
///
/// # Errors
/// An Arrow error only if memory for the file cannot be had.
///
/// # Panics
/// If there is no reading, or the first number is below 1: nothing to seal is the caller's to know.
pub fn encode(
    source: &SourceName,
    epoch: Epoch,
    first_seq: i64,
    readings: &[Reading],
    configuration: Option<&str>,
) -> Result<(Bytes, Batch), ArrowError> {
    let mut encoder = Encoder::default();
    let batch = encoder.batch(source, epoch, first_seq, readings.into(), configuration)?;
    Ok((encoder.write(&batch)?, batch))
}

/// Makes one batch after the other: the room that a batch takes while it is made (its longest columns, its sensors, and what
/// zstd works with) is kept for the next one, and not given back to the system and had again. As much as the longest batch takes.
#[derive(Debug, Default)]
pub struct Encoder {
    room: Room,
    sensors: Sensors,
    context: IpcWriteContext,
}

impl Encoder {
    /// The bytes of a batch: those that [`encode`] gives, however the readings come.
    ///
    /// # Errors
    /// As [`encode`].
    ///
    /// # Panics
    /// As [`encode`].
    pub fn bytes<'a>(
        &mut self,
        source: &SourceName,
        epoch: Epoch,
        first_seq: i64,
        readings: impl Into<Spans<'a>>,
        configuration: Option<&str>,
    ) -> Result<Bytes, ArrowError> {
        let batch = self.batch(source, epoch, first_seq, readings.into(), configuration)?;
        let bytes = self.write(&batch)?;
        self.room.take_back(batch.rows);
        Ok(bytes)
    }

    fn batch(
        &mut self,
        source: &SourceName,
        epoch: Epoch,
        first_seq: i64,
        readings: Spans<'_>,
        configuration: Option<&str>,
    ) -> Result<Batch, ArrowError> {
        let bounds = Bounds::new(first_seq, first_seq.saturating_add(count(readings.len())) - 1);
        let bounds = bounds.expect("a batch has at least one reading and numbers from 1 on");
        let (columns, checksum) = Columns::of(readings, first_seq, &mut self.room, &mut self.sensors)?;
        let header = Header {
            source: source.clone(),
            epoch,
            bounds,
            software: SOFTWARE.to_owned(),
            configuration: configuration.map(str::to_owned),
            checksum,
        };
        Ok(Batch { header, rows: RecordBatch::try_new(schema(), columns)? })
    }

    /// An Arrow IPC stream, as `StreamWriter` writes it, which keeps nothing for the next one.
    fn write(&mut self, batch: &Batch) -> Result<Bytes, ArrowError> {
        let schema = Schema::clone(&batch.rows.schema()).with_metadata(describe(&batch.header));
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
        let options = options.try_with_compression_level(Some(ZSTD_LEVEL))?;
        let (generator, mut dictionaries) = (IpcDataGenerator::default(), DictionaryTracker::new(false));
        let head = generator.schema_to_bytes_with_dictionary_tracker(&schema, &mut dictionaries, &options);
        let rows = batch.rows.clone().with_schema(Arc::new(schema))?;
        let encoded = generator.encode(&rows, &mut dictionaries, &options, &mut self.context);
        // What it had begun to write would stand in the next batch.
        let (names, rows) = encoded.inspect_err(|_| self.context = IpcWriteContext::default())?;
        let mut bytes = Vec::new();
        for message in std::iter::once(head).chain(names).chain([rows]) {
            write_message(&mut bytes, message, &options)?;
        }
        bytes.extend_from_slice(&END);
        Ok(Bytes::from(bytes))
    }
}

fn count(readings: usize) -> i64 {
    i64::try_from(readings).unwrap_or(i64::MAX)
}

/// The end of an Arrow IPC stream: the mark of a message, and a length of 0.
const END: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];

fn describe(header: &Header) -> HashMap<String, String> {
    let mut words = HashMap::from([
        (metadata::FORMAT.to_owned(), FORMAT_VERSION.to_string()),
        (metadata::SOURCE.to_owned(), header.source.to_string()),
        (metadata::EPOCH.to_owned(), header.epoch.to_string()),
        (metadata::FIRST_SEQ.to_owned(), header.bounds.first.to_string()),
        (metadata::LAST_SEQ.to_owned(), header.bounds.last.to_string()),
        (metadata::ROWS.to_owned(), header.bounds.count().to_string()),
        (metadata::SOFTWARE.to_owned(), header.software.clone()),
        (metadata::CHECKSUM.to_owned(), header.checksum.clone()),
    ]);
    if let Some(configuration) = &header.configuration {
        words.insert(metadata::CONFIGURATION.to_owned(), configuration.clone());
    }
    words
}

/// Gathers the columns and the checksum in one pass.
struct Columns<'a> {
    sensors: &'a mut Sensors,
    sensor: Vec<i32>,
    time: Vec<i64>,
    value: Vec<f64>,
    has_value: NullBufferBuilder,
    quality: Vec<i8>,
    cause: StringDictionaryBuilder<Int32Type>,
    lag_ms: Int32Builder,
    seq: Vec<i64>,
    digest: RowDigest,
}

impl<'a> Columns<'a> {
    fn of(
        readings: Spans<'_>,
        first_seq: i64,
        room: &mut Room,
        sensors: &'a mut Sensors,
    ) -> Result<(Vec<ArrayRef>, String), ArrowError> {
        let mut columns = Self::within(room, readings.len(), sensors);
        let mut seq = first_seq;
        for span in readings {
            match span {
                Span::Round(round) => columns.add_round(&round, seq),
                Span::Readings(readings) => {
                    readings.iter().zip(seq..).for_each(|(reading, seq)| columns.add(reading, seq));
                }
            }
            seq += count(span.len());
        }
        columns.seq.extend(first_seq..seq);
        columns.finish()
    }

    fn within(room: &mut Room, rows: usize, sensors: &'a mut Sensors) -> Self {
        let Room { keys, time, value, seq } = room.lend(rows);
        sensors.begin();
        Self {
            sensors,
            sensor: keys,
            time,
            value,
            has_value: NullBufferBuilder::new(rows),
            quality: Vec::with_capacity(rows),
            cause: StringDictionaryBuilder::with_capacity(rows, 0, 0),
            lag_ms: Int32Builder::with_capacity(rows),
            seq,
            digest: RowDigest::default(),
        }
    }

    fn add_round(&mut self, round: &RoundSpan<'_>, first_seq: i64) {
        let rows = round.values.len();
        let sensors = &mut *self.sensors;
        self.sensor.extend(round.sensors().iter().map(|sensor| sensors.key(sensor)));
        self.time.resize(self.time.len() + rows, round.time_us);
        self.value.extend_from_slice(round.values);
        self.has_value.append_n_non_nulls(rows);
        self.quality.resize(self.quality.len() + rows, Quality::NotEvaluated.code());
        self.cause.append_nulls(rows);
        self.lag_ms.append_nulls(rows);
        self.digest.add_round(round, first_seq);
    }

    fn add(&mut self, reading: &Reading, seq: i64) {
        let cause = reading.cause.map(crate::reading::Cause::word);
        self.sensor.push(self.sensors.key(&reading.sensor));
        self.time.push(reading.time_us);
        self.value.push(reading.value.unwrap_or_default());
        self.has_value.append(reading.value.is_some());
        self.quality.push(reading.quality.code());
        self.cause.append_option(cause);
        self.lag_ms.append_option(reading.lag_ms);
        self.digest.add(&Row {
            sensor: reading.sensor.as_str(),
            time_us: reading.time_us,
            value: reading.value,
            quality: reading.quality.code(),
            cause,
            lag_ms: reading.lag_ms,
            seq,
        });
    }

    fn finish(mut self) -> Result<(Vec<ArrayRef>, String), ArrowError> {
        let time = TimestampMicrosecondArray::from(self.time).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.sensors.column(self.sensor)?),
            Arc::new(time),
            Arc::new(Float64Array::new(self.value.into(), self.has_value.finish())),
            Arc::new(Int8Array::from(self.quality)),
            Arc::new(self.cause.finish()),
            Arc::new(self.lag_ms.finish()),
            Arc::new(Int64Array::from(self.seq)),
        ];
        Ok((columns, self.digest.hex()))
    }
}
