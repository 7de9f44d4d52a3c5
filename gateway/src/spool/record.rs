//! The records of a segment: bytes to and from what the log holds. No I/O.
//!
//! ```text
//! length u32 | crc32c u32 | first seq u64 | payload (`length` bytes, the first of them the kind)
//! ```
//!
//! Little endian. The CRC covers length, first seq and payload. A record is whole in itself: it can be
//! read without any other. `docs/spool-format.md` draws each kind byte by byte.

use tjern_readings::reading::{Quality, Reading};
use tjern_readings::sensor::SensorId;

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
    /// Every number up to this one is in a sealed file.
    Sealed(i64),
}

impl Record {
    /// How many numbers the record takes.
    pub(crate) fn count(&self) -> i64 {
        match self {
            Self::Readings(readings) => i64::try_from(readings.len()).unwrap_or(i64::MAX),
            Self::Newest(_) | Self::Sealed(_) => 0,
        }
    }
}

/// The bytes of a record of readings.
pub(crate) fn encode_readings<'a>(first_seq: i64, readings: impl ExactSizeIterator<Item = &'a Reading>) -> Vec<u8> {
    let mut payload = vec![KIND_READINGS];
    put_count(&mut payload, readings.len());
    for reading in readings {
        put_reading(&mut payload, reading);
    }
    frame(first_seq, &payload)
}

/// The bytes of a record of the newest times.
pub(crate) fn encode_newest(first_seq: i64, newest: &[(SensorId, i64)]) -> Vec<u8> {
    let mut payload = vec![KIND_NEWEST];
    put_count(&mut payload, newest.len());
    for (sensor, time_us) in newest {
        put_text(&mut payload, sensor.as_str());
        payload.extend_from_slice(&time_us.to_le_bytes());
    }
    frame(first_seq, &payload)
}

/// The bytes of a mark: all up to `sealed_to` is sealed.
pub(crate) fn encode_sealed(first_seq: i64, sealed_to: i64) -> Vec<u8> {
    let mut payload = vec![KIND_SEALED];
    payload.extend_from_slice(&sealed_to.to_le_bytes());
    frame(first_seq, &payload)
}

fn frame(first_seq: i64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload is at most PAYLOAD_MAX").to_le_bytes();
    let seq = first_seq.to_le_bytes();
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len());
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum(&length, &seq, payload).to_le_bytes());
    bytes.extend_from_slice(&seq);
    bytes.extend_from_slice(payload);
    bytes
}

fn checksum(length: &[u8], seq: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(length), seq), payload)
}

fn put_count(payload: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("a record has at most READINGS_MAX entries");
    payload.extend_from_slice(&count.to_le_bytes());
}

fn put_text(payload: &mut Vec<u8>, text: &str) {
    payload.push(u8::try_from(text.len()).expect("a sensor id has at most 159 bytes"));
    payload.extend_from_slice(text.as_bytes());
}

fn put_reading(payload: &mut Vec<u8>, reading: &Reading) {
    let flag = |bit: u8, set: bool| if set { bit } else { 0 };
    put_text(payload, reading.sensor.as_str());
    payload.extend_from_slice(&reading.time_us.to_le_bytes());
    payload.push(
        flag(HAS_VALUE, reading.value.is_some())
            | flag(HAS_CAUSE, reading.cause.is_some())
            | flag(HAS_LAG, reading.lag_ms.is_some()),
    );
    payload.extend_from_slice(&reading.quality.code().to_le_bytes());
    if let Some(value) = reading.value {
        payload.extend_from_slice(&value.to_bits().to_le_bytes());
    }
    if let Some(cause) = reading.cause {
        put_text(payload, cause.word());
    }
    if let Some(lag_ms) = reading.lag_ms {
        payload.extend_from_slice(&lag_ms.to_le_bytes());
    }
}

/// A record that was found whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Its first number; for records without numbers, the one that comes next.
    pub(crate) first_seq: i64,
    /// What it says; `None` for a whole record of a kind that this version does not know.
    pub(crate) record: Option<Record>,
    /// How many bytes it takes.
    pub(crate) length: usize,
}

/// The first number that the bytes claim, if their length makes sense: cheap, for looking ahead.
pub(crate) fn claimed_seq(bytes: &[u8]) -> Option<i64> {
    let length = u32::from_le_bytes(fixed(bytes, 0)?) as usize;
    let plausible = (1..=PAYLOAD_MAX).contains(&length) && bytes.len() >= FRAME_BYTES + length;
    plausible.then(|| fixed(bytes, 8).map(i64::from_le_bytes)).flatten()
}

/// Reads the record at the start of `bytes`; `None` if there is no whole one.
pub(crate) fn decode(bytes: &[u8]) -> Option<Found> {
    let first_seq = claimed_seq(bytes)?;
    let length = u32::from_le_bytes(fixed(bytes, 0)?) as usize;
    let payload = &bytes[FRAME_BYTES..FRAME_BYTES + length];
    if checksum(&bytes[..4], &bytes[8..FRAME_BYTES], payload) != u32::from_le_bytes(fixed(bytes, 4)?) {
        return None;
    }
    Some(Found { first_seq, record: decode_payload(payload), length: FRAME_BYTES + length })
}

fn fixed<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn decode_payload(payload: &[u8]) -> Option<Record> {
    let mut rest = Rest(payload);
    let record = match rest.byte()? {
        KIND_READINGS => {
            let count = u16::from_le_bytes(rest.take()?);
            Record::Readings((0..count).map(|_| rest.reading()).collect::<Option<_>>()?)
        }
        KIND_NEWEST => {
            let count = u16::from_le_bytes(rest.take()?);
            let mut entry = || Some((rest.text()?.parse().ok()?, i64::from_le_bytes(rest.take()?)));
            Record::Newest((0..count).map(|_| entry()).collect::<Option<_>>()?)
        }
        KIND_SEALED => Record::Sealed(i64::from_le_bytes(rest.take()?)),
        _ => return None,
    };
    rest.0.is_empty().then_some(record)
}

/// What is not yet read of a payload.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn reading(&mut self) -> Option<Reading> {
        let sensor = self.text()?.parse().ok()?;
        let time_us = i64::from_le_bytes(self.take()?);
        let flags = self.byte()?;
        let quality = Quality::from_code(i8::from_le_bytes(self.take()?))?;
        let value = if flags & HAS_VALUE == 0 { None } else { Some(f64::from_bits(u64::from_le_bytes(self.take()?))) };
        let cause = if flags & HAS_CAUSE == 0 { None } else { Some(self.text()?.parse().ok()?) };
        let lag_ms = if flags & HAS_LAG == 0 { None } else { Some(i32::from_le_bytes(self.take()?)) };
        Some(Reading { sensor, time_us, value, quality, cause, lag_ms })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tjern_readings::reading::Cause;

    use super::*;

    fn reading() -> impl Strategy<Value = Reading> {
        let sensor = "[a-z0-9][a-z0-9_-]{0,30}(/[a-z0-9][a-z0-9_-]{0,30}){1,4}";
        let cause = proptest::option::of(proptest::sample::select(Cause::ALL));
        (sensor, any::<i64>(), proptest::option::of(proptest::num::f64::NORMAL), cause, any::<Option<i32>>()).prop_map(
            |(sensor, time_us, value, cause, lag_ms)| Reading {
                sensor: sensor.parse().expect("valid"),
                time_us,
                value,
                quality: if value.is_some() { Quality::NotEvaluated } else { Quality::Missing },
                cause,
                lag_ms,
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            seq in 1..i64::MAX,
            readings in proptest::collection::vec(reading(), 1..READINGS_MAX),
        ) {
            let bytes = encode_readings(seq, readings.iter());
            prop_assert!(bytes.len() <= FRAME_BYTES + PAYLOAD_MAX);
            let found = decode(&bytes).expect("whole");
            prop_assert_eq!(found, Found { first_seq: seq, record: Some(Record::Readings(readings)), length: bytes.len() });
        }

        #[test]
        fn a_damaged_record_is_never_taken_for_a_whole_one(
            readings in proptest::collection::vec(reading(), 1..9),
            at: proptest::sample::Index,
            bit in 0..8_u32,
            cut: proptest::sample::Index,
        ) {
            let whole = encode_readings(7, readings.iter());
            let mut flipped = whole.clone();
            flipped[at.index(whole.len())] ^= 1 << bit;
            prop_assert_eq!(decode(&flipped), None);
            prop_assert_eq!(decode(&whole[..cut.index(whole.len())]), None);
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = decode_payload(&bytes);
        }
    }

    #[test]
    fn snapshots_and_marks_come_back() {
        let newest =
            vec![("mast/wind_speed".parse().expect("valid"), -5), ("mast/wind_gust".parse().expect("valid"), 9)];
        let found = decode(&encode_newest(3, &newest)).expect("whole");
        assert_eq!(found.record, Some(Record::Newest(newest)));
        let found = decode(&encode_sealed(4, 3)).expect("whole");
        assert_eq!((found.first_seq, found.record), (4, Some(Record::Sealed(3))));
    }

    #[test]
    fn a_whole_record_of_a_later_kind_is_stepped_over() {
        let bytes = frame(9, &[200, 1, 2, 3]);
        assert_eq!(decode(&bytes), Some(Found { first_seq: 9, record: None, length: bytes.len() }));
    }
}
