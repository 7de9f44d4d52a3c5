//! The records of a segment: bytes to and from what the log holds. No I/O.
//!
//! ```text
//! length u32 | crc32c u32 | first seq u64 | payload (`length` bytes, the first of them the kind)
//! ```
//!
//! Little endian. The CRC covers length, first seq and payload. A record is whole in itself: it can be
//! read without any other. `docs/spool-format.md` draws each kind byte by byte.

mod by_place;
mod read;
mod write;

use tjern_readings::reading::Reading;
use tjern_readings::sensor::SensorId;

pub(crate) use by_place::encode_next;
pub(crate) use read::{Found, claimed_seq, decode};
#[cfg(test)]
pub(crate) use write::encode_readings;
pub(crate) use write::{encode_configuration, encode_estimated, encode_newest, encode_sealed, encode_sensors};

/// Bytes before a record's payload.
pub(crate) const FRAME_BYTES: usize = 16;

/// The largest payload: a reading takes at most 210 bytes.
pub(crate) const PAYLOAD_MAX: usize = 64 << 10;

/// The length of a mark: kind and number behind the frame.
pub(crate) const SEALED_BYTES: usize = FRAME_BYTES + 9;

/// The most readings in one record, so that it stays below [`PAYLOAD_MAX`].
pub(crate) const READINGS_MAX: usize = 256;

/// The most sensors in one snapshot record, for the same reason.
pub(crate) const SNAPSHOT_MAX: usize = 256;

const KIND_READINGS: u8 = 1;
const KIND_NEWEST: u8 = 2;
const KIND_SEALED: u8 = 3;
const KIND_SENSORS: u8 = 4;
const KIND_INDEXED: u8 = 5;
const KIND_ESTIMATED: u8 = 6;
const KIND_CONFIGURATION: u8 = 7;

/// Stands for no time: no reading has it.
const NO_TIME_US: i64 = i64::MIN;

/// The most sensors that a segment's list can have.
pub(crate) const SENSORS_MAX: usize = 1 << 16;

const HAS_VALUE: u8 = 1;
const HAS_CAUSE: u8 = 2;
const HAS_LAG: u8 = 4;

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    /// Readings, numbered from the record's first number on.
    Readings(Vec<Reading>),
    /// The newest time of some sensors, as far as the log knew when the segment began.
    Newest(Vec<(SensorId, i64)>),
    /// Of some sensors, whose newest time was estimated, the newest that was not; `None` where there is none.
    Estimated(Vec<(SensorId, Option<i64>)>),
    /// Every number up to this one is in a sealed file.
    Sealed(i64),
    /// A part of the segment's list of sensors: the place of the first, and the names.
    Sensors(u16, Vec<SensorId>),
    /// Readings whose sensors are told by their places in that list.
    Indexed(Vec<Indexed>),
    /// The configuration (its SHA-256 in hex) under which the readings behind it were measured; `None` where nobody knows.
    Configuration(Option<String>),
}

/// A reading as most are: a value, not evaluated, in time. Its sensor is told by a place in the list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Indexed {
    /// The place.
    pub(crate) sensor: u16,
    /// As the reading's.
    pub(crate) time_us: i64,
    /// As the reading's.
    pub(crate) value: f64,
}

impl Indexed {
    /// The reading with its sensor's name.
    pub(crate) fn named(self, sensor: SensorId) -> Reading {
        Reading::of(sensor, self.time_us, self.value)
    }
}

impl Record {
    /// How many numbers the record takes.
    pub(crate) fn count(&self) -> i64 {
        match self {
            Self::Readings(readings) => i64::try_from(readings.len()).unwrap_or(i64::MAX),
            Self::Indexed(readings) => i64::try_from(readings.len()).unwrap_or(i64::MAX),
            Self::Newest(_) | Self::Estimated(_) | Self::Sealed(_) | Self::Sensors(..) | Self::Configuration(_) => 0,
        }
    }
}

fn checksum(length: &[u8], seq: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(length), seq), payload)
}

#[cfg(test)]
pub(super) mod tests;
