//! Readings to the bytes of a batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, NullBufferBuilder, StringDictionaryBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message};
use arrow_schema::{ArrowError, Schema};
use bytes::Bytes;

use super::room::Room;
use super::rows::{Row, RowDigest};
use super::{Batch, FORMAT_VERSION, Header, SOFTWARE, metadata, schema};
use crate::keys::Bounds;
use crate::reading::Reading;
use crate::sensor::{Epoch, SensorId, SourceName};

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
    let batch = encoder.batch(source, epoch, first_seq, readings, configuration)?;
    Ok((encoder.write(&batch)?, batch))
}

/// Makes one batch after the other: the room that a batch takes while it is made (its longest columns, and what zstd works
/// with) is kept for the next one, and not given back to the system and had again. As much as the longest batch takes.
#[derive(Debug, Default)]
pub struct Encoder {
    room: Room,
    context: IpcWriteContext,
}

impl Encoder {
    /// The bytes of a batch: those that [`encode`] gives.
    ///
    /// # Errors
    /// As [`encode`].
    ///
    /// # Panics
    /// As [`encode`].
    pub fn bytes(
        &mut self,
        source: &SourceName,
        epoch: Epoch,
        first_seq: i64,
        readings: &[Reading],
        configuration: Option<&str>,
    ) -> Result<Bytes, ArrowError> {
        let batch = self.batch(source, epoch, first_seq, readings, configuration)?;
        let bytes = self.write(&batch)?;
        self.room.take_back(batch.rows);
        Ok(bytes)
    }

    fn batch(
        &mut self,
        source: &SourceName,
        epoch: Epoch,
        first_seq: i64,
        readings: &[Reading],
        configuration: Option<&str>,
    ) -> Result<Batch, ArrowError> {
        let count = i64::try_from(readings.len()).unwrap_or(i64::MAX);
        let bounds = Bounds::new(first_seq, first_seq.saturating_add(count) - 1);
        let bounds = bounds.expect("a batch has at least one reading and numbers from 1 on");
        let (columns, checksum) = Columns::of(readings, first_seq, &mut self.room)?;
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

/// The column of sensors: each name once, in the order in which they come, and a key for each row.
///
/// Rows come round after round, so the sensor after this one is nearly always the one that followed it before. It is
/// looked at first, and compared; a wrong guess costs a hash.
struct Sensors<'a> {
    keys: Vec<i32>,
    names: StringDictionaryBuilder<Int32Type>,
    /// Each name, and the place of the one that came after it the last time.
    seen: Vec<(&'a SensorId, usize)>,
    last: usize,
}

impl<'a> Sensors<'a> {
    fn within(keys: Vec<i32>) -> Self {
        Self { keys, names: StringDictionaryBuilder::new(), seen: Vec::new(), last: 0 }
    }

    fn add(&mut self, sensor: &'a SensorId) {
        let guess = self.seen.get(self.last).map_or(0, |(_, next)| *next);
        let is_right = self.seen.get(guess).is_some_and(|(name, _)| *name == sensor);
        let place = if is_right { guess } else { self.place(sensor) };
        if let Some((_, next)) = self.seen.get_mut(self.last) {
            *next = place;
        }
        self.last = place;
        self.keys.push(i32::try_from(place).expect("a batch has fewer rows than 2³¹"));
    }

    fn place(&mut self, sensor: &'a SensorId) -> usize {
        let key = self.names.append(sensor.as_str()).expect("a batch has fewer rows than 2³¹");
        let place = usize::try_from(key).expect("keys begin at 0");
        if place == self.seen.len() {
            self.seen.push((sensor, place + 1));
        }
        place
    }

    fn finish(mut self) -> Result<DictionaryArray<Int32Type>, ArrowError> {
        DictionaryArray::try_new(Int32Array::from(self.keys), Arc::clone(self.names.finish().values()))
    }
}

/// Gathers the columns and the checksum in one pass.
struct Columns<'a> {
    sensor: Sensors<'a>,
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
    fn of(readings: &'a [Reading], first_seq: i64, room: &mut Room) -> Result<(Vec<ArrayRef>, String), ArrowError> {
        let mut columns = Self::within(room, readings.len());
        for (reading, seq) in readings.iter().zip(first_seq..) {
            columns.add(reading, seq);
        }
        columns.finish()
    }

    fn within(room: &mut Room, rows: usize) -> Self {
        let Room { keys, time, value, seq } = room.lend(rows);
        Self {
            sensor: Sensors::within(keys),
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

    fn add(&mut self, reading: &'a Reading, seq: i64) {
        let cause = reading.cause.map(crate::reading::Cause::word);
        self.sensor.add(&reading.sensor);
        self.time.push(reading.time_us);
        self.value.push(reading.value.unwrap_or_default());
        self.has_value.append(reading.value.is_some());
        self.quality.push(reading.quality.code());
        self.cause.append_option(cause);
        self.lag_ms.append_option(reading.lag_ms);
        self.seq.push(seq);
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
            Arc::new(self.sensor.finish()?),
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
