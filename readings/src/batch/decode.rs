//! The bytes of a batch to readings, held against the contract.

use std::collections::HashMap;
use std::io::Cursor;
use std::str::FromStr;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int8Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, PrimitiveArray, RecordBatch, StringArray};
use arrow_ipc::reader::StreamReader;

use super::envelope;
use super::rows::{Row, RowDigest};
use super::{Batch, BatchError, FORMAT_VERSION, Header, ROWS_MAX, metadata, schema};
use crate::keys::Bounds;
use crate::reading::{Cause, Quality, Reading, TIMES_US};
use crate::sensor::SensorId;

/// Decodes a batch file.
///
/// # Errors
/// [`BatchError`] with what is wrong and in which row; nothing of a bad batch is handed out.
pub fn decode(bytes: &[u8]) -> Result<Batch, BatchError> {
    envelope::check(bytes)?;
    // Arrow's reader panics on some damaged layouts (a validity bitmap shorter than its column). That
    // is a bad batch, and no broken invariant of ours.
    let batch = std::panic::catch_unwind(|| read(bytes))
        .map_err(|_| BatchError::Size { what: "a layout that Arrow's reader cannot follow".to_owned() })??;
    batch.check()?;
    Ok(batch)
}

/// How many bytes decoding a batch file would take in memory: what stands in it, decompressed.
///
/// # Errors
/// [`BatchError::Size`] where the file claims what cannot be true; [`decode`] refuses it then too.
pub fn decoded_bytes(bytes: &[u8]) -> Result<u64, BatchError> {
    envelope::check(bytes)
}

fn read(bytes: &[u8]) -> Result<Batch, BatchError> {
    let stored = StreamReader::try_new(Cursor::new(bytes), None)?.schema();
    let header = read_header(stored.metadata())?;
    // Columns that a later version added are not decompressed: whoever wrote them may have made much of little.
    let known = NAMES.iter().filter_map(|name| stored.index_of(name).ok()).collect();
    let mut reader = StreamReader::try_new(Cursor::new(bytes), Some(known))?;
    let wrong = |what: &str| BatchError::Metadata { key: metadata::ROWS, what: what.to_owned() };
    let rows = reader.next().ok_or_else(|| wrong("followed by no rows"))??;
    if reader.next().is_some() {
        return Err(wrong("followed by a second record batch"));
    }
    Ok(Batch { rows: plain(rows)?, header })
}

impl Batch {
    /// The rows as readings, in the order of their numbers.
    ///
    /// # Errors
    /// [`BatchError::Row`] where a row breaks the contract; none does in a batch that [`decode`] gave.
    pub fn readings(&self) -> Result<Vec<Reading>, BatchError> {
        let columns = Columns::of(&self.rows)?;
        (0..self.rows.num_rows()).map(|row| columns.reading(row)).collect()
    }

    /// The oldest and the newest time of the rows, in microseconds since 1970.
    ///
    /// # Errors
    /// As [`Batch::readings`].
    pub fn times_us(&self) -> Result<Option<(i64, i64)>, BatchError> {
        let times_us = Columns::of(&self.rows)?.time.values();
        Ok(times_us.iter().min().copied().zip(times_us.iter().max().copied()))
    }

    fn check(&self) -> Result<(), BatchError> {
        let columns = Columns::of(&self.rows)?;
        let bounds = self.header.bounds;
        if i64::try_from(self.rows.num_rows()) != Ok(bounds.count()) {
            let what = format!("{}, but there are {} rows", bounds.count(), self.rows.num_rows());
            return Err(BatchError::Metadata { key: metadata::ROWS, what });
        }
        columns.check_sensors()?;
        let mut digest = RowDigest::default();
        for (row, seq) in (0..self.rows.num_rows()).zip(bounds.first..) {
            let values = columns.row(row);
            check_row(&values, seq).map_err(|what| BatchError::Row { row, what })?;
            digest.add(&values);
        }
        let found = digest.hex();
        if found != self.header.checksum {
            return Err(BatchError::Checksum { found, expected: self.header.checksum.clone() });
        }
        Ok(())
    }
}

fn read_header(words: &HashMap<String, String>) -> Result<Header, BatchError> {
    let found = word::<u32>(words, metadata::FORMAT)?;
    if found > FORMAT_VERSION {
        return Err(BatchError::FutureFormat { found });
    }
    let first = word::<i64>(words, metadata::FIRST_SEQ)?;
    let last = word::<i64>(words, metadata::LAST_SEQ)?;
    let refused = |key, what: &str| BatchError::Metadata { key, what: what.to_owned() };
    let bounds = Bounds::new(first, last).ok_or_else(|| refused(metadata::LAST_SEQ, "not after the first number"))?;
    if last.checked_sub(first).is_none_or(|more| more >= ROWS_MAX) {
        return Err(refused(metadata::LAST_SEQ, "more than 2,000,000 numbers after the first"));
    }
    if word::<i64>(words, metadata::ROWS)? != bounds.count() {
        return Err(refused(metadata::ROWS, "not what the bounds say"));
    }
    Ok(Header {
        source: word(words, metadata::SOURCE)?,
        epoch: word(words, metadata::EPOCH)?,
        bounds,
        software: word(words, metadata::SOFTWARE)?,
        configuration: words.get(metadata::CONFIGURATION).cloned(),
        checksum: word(words, metadata::CHECKSUM)?,
    })
}

fn word<T: FromStr<Err: std::fmt::Display>>(
    words: &HashMap<String, String>,
    key: &'static str,
) -> Result<T, BatchError> {
    let text = words.get(key).ok_or_else(|| BatchError::Metadata { key, what: "missing".to_owned() })?;
    let refused = |error: T::Err| format!("`{}`: {}", shown(text), shown(&error.to_string()));
    text.parse().map_err(|error| BatchError::Metadata { key, what: refused(error) })
}

/// So many characters of a text are shown that anybody may have written.
const SHOWN_CHARS: usize = 200;

/// The begin of such a text, without what a terminal or a mail would obey.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|char| if char.is_control() { '?' } else { char }).collect()
}

/// The columns of the contract, in its order and without metadata. Columns that a later version
/// added are left out.
fn plain(rows: RecordBatch) -> Result<RecordBatch, BatchError> {
    let schema = schema();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (field, name) in schema.fields().iter().zip(NAMES) {
        let refused = |what: String| BatchError::Column { column: name, what };
        let column = rows.column_by_name(name).ok_or_else(|| refused("missing".to_owned()))?;
        if column.data_type() != field.data_type() {
            return Err(refused(format!("{}, it must be {}", column.data_type(), field.data_type())));
        }
        if !field.is_nullable() && column.logical_null_count() > 0 {
            return Err(refused("null somewhere, which it must never be".to_owned()));
        }
        columns.push(Arc::clone(column));
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

const NAMES: [&str; 7] = ["sensor", "time", "value", "quality", "cause", "lag_ms", "seq"];

fn check_row(row: &Row<'_>, seq: i64) -> Result<(), String> {
    if row.seq != seq {
        return Err(format!("its number is {}, it must be {seq}", row.seq));
    }
    if !TIMES_US.contains(&row.time_us) {
        return Err(format!("its time, {} µs since 1970, is not within the years 1900 to 2199", row.time_us));
    }
    let Some(quality) = Quality::from_code(row.quality) else {
        return Err(format!("`{}` is no quality", row.quality));
    };
    let cause = row.cause.map(str::parse::<Cause>).transpose().map_err(|error| error.to_string())?;
    match (row.value, quality, cause) {
        (Some(value), _, _) if !value.is_finite() => Err(format!("{value} is no value: it must be null with a cause")),
        (Some(_), Quality::Missing, _) => Err("it has a value and says that none was got".to_owned()),
        (None, Quality::Missing, Some(_)) | (Some(_), _, _) => Ok(()),
        (None, _, None) => Err("it has neither a value nor a cause".to_owned()),
        (None, _, Some(_)) => Err("it has no value, but its quality is not 9".to_owned()),
    }
}

/// The columns with their types.
#[derive(Debug)]
struct Columns<'a> {
    sensor_keys: &'a PrimitiveArray<Int32Type>,
    sensors: &'a StringArray,
    time: &'a PrimitiveArray<TimestampMicrosecondType>,
    value: &'a PrimitiveArray<Float64Type>,
    quality: &'a PrimitiveArray<Int8Type>,
    cause_keys: &'a PrimitiveArray<Int32Type>,
    causes: &'a StringArray,
    lag_ms: &'a PrimitiveArray<Int32Type>,
    seq: &'a PrimitiveArray<Int64Type>,
}

impl<'a> Columns<'a> {
    /// Takes rows of the contract's schema apart (see [`plain`]).
    fn of(rows: &'a RecordBatch) -> Result<Self, BatchError> {
        let words = |index: usize| -> Result<_, BatchError> {
            let refused = || BatchError::Column { column: NAMES[index], what: "no dictionary of texts".to_owned() };
            let dictionary = rows.column(index).as_dictionary_opt::<Int32Type>().ok_or_else(refused)?;
            Ok((dictionary.keys(), dictionary.values().as_string_opt::<i32>().ok_or_else(refused)?))
        };
        let (sensor_keys, sensors) = words(0)?;
        let (cause_keys, causes) = words(4)?;
        Ok(Self {
            sensor_keys,
            sensors,
            time: rows.column(1).as_primitive(),
            value: rows.column(2).as_primitive(),
            quality: rows.column(3).as_primitive(),
            cause_keys,
            causes,
            lag_ms: rows.column(5).as_primitive(),
            seq: rows.column(6).as_primitive(),
        })
    }

    fn check_sensors(&self) -> Result<(), BatchError> {
        let refused = |what: String| BatchError::Column { column: "sensor", what };
        if self.sensors.null_count() > 0 {
            return Err(refused("null somewhere in its dictionary".to_owned()));
        }
        for name in self.sensors.iter().flatten() {
            name.parse::<SensorId>().map_err(|error| refused(format!("wrong: {error}")))?;
        }
        Ok(())
    }

    fn row(&self, row: usize) -> Row<'a> {
        Row {
            sensor: text(self.sensor_keys, self.sensors, row).unwrap_or_default(),
            time_us: self.time.value(row),
            value: optional(self.value, row),
            quality: self.quality.value(row),
            cause: text(self.cause_keys, self.causes, row),
            lag_ms: optional(self.lag_ms, row),
            seq: self.seq.value(row),
        }
    }

    fn reading(&self, row: usize) -> Result<Reading, BatchError> {
        let values = self.row(row);
        let refused = |what: String| BatchError::Row { row, what };
        Ok(Reading {
            sensor: values.sensor.parse().map_err(|error| refused(format!("{error}")))?,
            time_us: values.time_us,
            value: values.value,
            quality: Quality::from_code(values.quality)
                .ok_or_else(|| refused(format!("`{}` is no quality", values.quality)))?,
            cause: values.cause.map(str::parse::<Cause>).transpose().map_err(|error| refused(error.to_string()))?,
            lag_ms: values.lag_ms,
        })
    }
}

fn text<'a>(keys: &PrimitiveArray<Int32Type>, words: &'a StringArray, row: usize) -> Option<&'a str> {
    let key = usize::try_from(optional(keys, row)?).ok()?;
    (key < words.len() && words.is_valid(key)).then(|| words.value(key))
}

fn optional<T: arrow_array::ArrowPrimitiveType>(column: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}
