//! The records of a segment: bytes to and from what the log holds. No I/O.
//!
//! ```text
//! length u32 | crc32c u32 | first seq u64 | payload (`length` bytes, the first of them the kind)
//! ```
//!
//! Little endian. The CRC covers length, first seq and payload. A record is whole in itself: it can be
//! read without any other. `docs/spool-format.md` draws each kind byte by byte.

use tjern_readings::reading::{Quality, Reading};
use tjern_readings::round::RoundSpan;
use tjern_readings::rows::{Span, Spans};
use tjern_readings::sensor::SensorId;

use super::known_sensors::KnownSensors;

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
            Self::Newest(_) | Self::Estimated(_) | Self::Sealed(_) | Self::Sensors(..) => 0,
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

/// The bytes of a record of the newest times that nobody estimated.
pub(crate) fn encode_estimated(first_seq: i64, sure: &[(SensorId, Option<i64>)]) -> Vec<u8> {
    let mut payload = vec![KIND_ESTIMATED];
    put_count(&mut payload, sure.len());
    for (sensor, time_us) in sure {
        put_text(&mut payload, sensor.as_str());
        payload.extend_from_slice(&time_us.unwrap_or(NO_TIME_US).to_le_bytes());
    }
    frame(first_seq, &payload)
}

/// The bytes of a mark: all up to `sealed_to` is sealed.
pub(crate) fn encode_sealed(first_seq: i64, sealed_to: i64) -> Vec<u8> {
    let mut payload = vec![KIND_SEALED];
    payload.extend_from_slice(&sealed_to.to_le_bytes());
    frame(first_seq, &payload)
}

/// The bytes of a part of a segment's list of sensors.
pub(crate) fn encode_sensors(first_seq: i64, first_place: u16, sensors: &[SensorId]) -> Vec<u8> {
    let mut payload = vec![KIND_SENSORS];
    payload.extend_from_slice(&first_place.to_le_bytes());
    put_count(&mut payload, sensors.len());
    sensors.iter().for_each(|sensor| put_text(&mut payload, sensor.as_str()));
    frame(first_seq, &payload)
}

/// Adds the bytes of one record of the next readings, goes on behind them, and says how many it takes: those that can be told
/// by places, or those that cannot.
pub(crate) fn encode_next(
    records: &mut Vec<u8>,
    first_seq: i64,
    readings: &mut Spans<'_>,
    known: &mut KnownSensors,
) -> usize {
    let left = readings.len();
    add_frame(records, first_seq, |payload| put_indexed(payload, readings, known));
    if readings.len() == left {
        let in_full: Vec<Reading> = not_plain(readings.clone().first(READINGS_MAX), known);
        readings.advance(in_full.len());
        records.extend(encode_readings(first_seq, in_full.iter()));
    }
    left - readings.len()
}

/// The first readings that cannot be told by places.
fn not_plain(readings: Spans<'_>, known: &mut KnownSensors) -> Vec<Reading> {
    readings.flat_map(Span::readings).take_while(|reading| place(reading, known).is_none()).collect()
}

/// The place of a reading's sensor, where that, time and value say all of it.
#[inline]
fn place(reading: &Reading, known: &mut KnownSensors) -> Option<u16> {
    let Reading { sensor, time_us: _, value, quality, cause, lag_ms } = reading;
    let is_plain =
        value.is_some_and(f64::is_finite) && *quality == Quality::NotEvaluated && cause.is_none() && lag_ms.is_none();
    if is_plain { known.listed(sensor) } else { None }
}

/// Puts the next readings that can be told by places, and goes on behind them; nothing where that is none.
fn put_indexed(payload: &mut Vec<u8>, readings: &mut Spans<'_>, known: &mut KnownSensors) {
    let Some((first_us, _)) = readings.peek(1).and_then(|first| first.times_us()) else { return };
    let begin = payload.len();
    payload.push(KIND_INDEXED);
    put_count(payload, 0);
    payload.extend_from_slice(&first_us.to_le_bytes());
    let mut told = Told { payload, time_us: first_us, place: 0 };
    let mut count = 0;
    while let Some(span) = readings.peek(READINGS_MAX - count) {
        let more = match span {
            Span::Round(round) => told.put_round(&round, known),
            Span::Readings(readings) => told.put_readings(readings, known),
        };
        readings.advance(more);
        count += more;
        if more < span.len() {
            break;
        }
    }
    if count == 0 {
        payload.truncate(begin);
    } else {
        payload[begin + 1..begin + 3].copy_from_slice(&count_bytes(count));
    }
}

/// Readings that are told by places, each by how far it is from the one before.
struct Told<'payload> {
    payload: &'payload mut Vec<u8>,
    time_us: i64,
    place: i64,
}

impl Told<'_> {
    /// All of a part of a round, or the first of them that can be told so.
    fn put_round(&mut self, round: &RoundSpan<'_>, known: &mut KnownSensors) -> usize {
        if let Some(places) = known.places(round.list) {
            let places = &places[round.begin..];
            places.iter().zip(round.values).for_each(|(place, value)| self.put(*place, round.time_us, *value));
            return round.values.len();
        }
        let listed = |sensor: &SensorId| known.listed(sensor);
        let listed = round.sensors().iter().map_while(listed);
        listed.zip(round.values).map(|(place, value)| self.put(place, round.time_us, *value)).count()
    }

    /// The first that can be told so.
    fn put_readings(&mut self, readings: &[Reading], known: &mut KnownSensors) -> usize {
        let told = readings.iter().map_while(|reading| {
            let (place, value) = (place(reading, known)?, reading.value?);
            self.put(place, reading.time_us, value);
            Some(())
        });
        told.count()
    }

    #[inline]
    fn put(&mut self, place: u16, time_us: i64, value: f64) {
        let place = i64::from(place);
        put_difference(self.payload, place.wrapping_sub(self.place));
        put_difference(self.payload, time_us.wrapping_sub(self.time_us));
        self.payload.extend_from_slice(&value.to_bits().to_le_bytes());
        (self.place, self.time_us) = (place, time_us);
    }
}

/// Zigzag, then seven bits a byte, the lowest first, with the eighth set where more follow.
#[inline]
fn put_difference(payload: &mut Vec<u8>, difference: i64) {
    let mut rest = (difference.wrapping_shl(1) ^ (difference >> 63)).cast_unsigned();
    while rest >= 0x80 {
        payload.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    payload.push(rest as u8);
}

fn frame(first_seq: i64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len());
    add_frame(&mut bytes, first_seq, |bytes| bytes.extend_from_slice(payload));
    bytes
}

/// Adds a record whose payload is put behind its frame; none where nothing is put.
fn add_frame(records: &mut Vec<u8>, first_seq: i64, put: impl FnOnce(&mut Vec<u8>)) {
    let begin = records.len();
    records.resize(begin + FRAME_BYTES, 0);
    put(records);
    if records.len() == begin + FRAME_BYTES {
        return records.truncate(begin);
    }
    let (frame, payload) = records[begin..].split_at_mut(FRAME_BYTES);
    let length = u32::try_from(payload.len()).expect("a payload is at most PAYLOAD_MAX").to_le_bytes();
    let seq = first_seq.to_le_bytes();
    frame[..4].copy_from_slice(&length);
    frame[4..8].copy_from_slice(&checksum(&length, &seq, payload).to_le_bytes());
    frame[8..].copy_from_slice(&seq);
}

fn checksum(length: &[u8], seq: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(length), seq), payload)
}

fn put_count(payload: &mut Vec<u8>, count: usize) {
    payload.extend_from_slice(&count_bytes(count));
}

fn count_bytes(count: usize) -> [u8; 2] {
    u16::try_from(count).expect("a record has at most READINGS_MAX entries").to_le_bytes()
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
        KIND_ESTIMATED => {
            let count = u16::from_le_bytes(rest.take()?);
            let mut entry = || {
                let (sensor, time_us) = (rest.text()?.parse().ok()?, i64::from_le_bytes(rest.take()?));
                Some((sensor, Some(time_us).filter(|time_us| *time_us != NO_TIME_US)))
            };
            Record::Estimated((0..count).map(|_| entry()).collect::<Option<_>>()?)
        }
        KIND_SEALED => Record::Sealed(i64::from_le_bytes(rest.take()?)),
        KIND_SENSORS => {
            let (first, count) = (u16::from_le_bytes(rest.take()?), u16::from_le_bytes(rest.take()?));
            let names = (0..count).map(|_| rest.text()?.parse().ok()).collect::<Option<_>>()?;
            Record::Sensors(first, names)
        }
        KIND_INDEXED => Record::Indexed(rest.indexed()?),
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

    fn difference(&mut self) -> Option<i64> {
        let mut zigzag = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        None
    }

    fn indexed(&mut self) -> Option<Vec<Indexed>> {
        let count = u16::from_le_bytes(self.take()?);
        let (mut time_us, mut sensor) = (i64::from_le_bytes(self.take()?), 0_i64);
        // A reading takes ten bytes at least: a count that lies asks for no more memory than that.
        let mut found = Vec::with_capacity(usize::from(count).min(self.0.len() / 10));
        for _ in 0..count {
            sensor = sensor.checked_add(self.difference()?)?;
            time_us = time_us.wrapping_add(self.difference()?);
            let value = f64::from_bits(u64::from_le_bytes(self.take()?));
            found.push(Indexed { sensor: u16::try_from(sensor).ok()?, time_us, value });
        }
        Some(found)
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
pub(super) mod tests {
    use proptest::prelude::*;
    use tjern_readings::reading::Cause;
    use tjern_readings::round::Round;
    use tjern_readings::rows::Rows;

    use super::*;

    /// What is known where a segment has this list.
    pub(in crate::spool) fn listed(sensors: &[SensorId]) -> KnownSensors {
        let mut known = KnownSensors::default();
        known.list(sensors);
        known
    }

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

    proptest! {
        /// The log of a gateway whose answers come as rounds is byte by byte that of their readings.
        #[test]
        fn rounds_are_written_as_their_readings(
            told in proptest::collection::vec((0_usize..6, 0..9_i64, -1e9..1e9, reading(), any::<bool>()), 1..60),
            listed in proptest::collection::btree_set(0_usize..40, 0..40), begin in 0_usize..200,
        ) {
            let names: Vec<SensorId> =
                (0..40).map(|number| format!("mast/number-{number}").parse().expect("valid")).collect();
            let lists: Vec<std::sync::Arc<[SensorId]>> =
                [0..1, 0..20, 20..40, 3..9, 5..40, 0..40].map(|of| names[of].into()).into();
            let mut rows = Rows::default();
            for (list, time_us, value, reading, is_alone) in told {
                let list = std::sync::Arc::clone(&lists[list]);
                let values = (0..list.len()).map(|place| value + place as f64).collect();
                rows.append(Round::new(list, time_us, values).expect("finite").into());
                rows.extend(is_alone.then_some(reading));
            }
            let listed: Vec<SensorId> = listed.into_iter().rev().map(|number| names[number].clone()).collect();
            let plain: Vec<Reading> = rows.iter().collect();
            let (mut known, mut known_plain) = (self::listed(&listed), self::listed(&listed));
            let mut rounds = rows.spans();
            rounds.advance(begin);
            let mut readings = Spans::from(&plain);
            readings.advance(begin);
            while !readings.is_empty() {
                let (mut written, mut expected) = (Vec::new(), Vec::new());
                let count = encode_next(&mut written, 7, &mut rounds, &mut known);
                prop_assert_eq!(count, encode_next(&mut expected, 7, &mut readings, &mut known_plain));
                prop_assert!(count > 0 && decode(&written).is_some_and(|found| found.length == written.len()));
                prop_assert_eq!(written, expected);
            }
            prop_assert!(rounds.is_empty());
        }
    }

    /// Numbers that are far apart, and times at both ends of what an `i64` holds, come back as they were.
    #[test]
    fn readings_by_place_come_back() {
        let names: Vec<SensorId> =
            (0..300).map(|number| format!("mast/number-{number}").parse().expect("valid")).collect();
        let at = |place: usize, time_us, value| Reading::of(names[place].clone(), time_us, value);
        let some = [at(299, i64::MIN, 1.5), at(0, i64::MAX, -0.0), at(1, 0, f64::MAX), at(1, -1, 5e-324)];
        let mut bytes = Vec::new();
        let count = encode_next(&mut bytes, 9, &mut some.as_slice().into(), &mut listed(&names));
        let Some(Record::Indexed(found)) = decode(&bytes).expect("whole").record else { panic!("by place") };
        let back: Vec<_> =
            found.iter().map(|reading| at(reading.sensor.into(), reading.time_us, reading.value)).collect();
        assert_eq!((count, back), (4, some.to_vec()));
        assert_eq!(
            decode(&encode_sensors(9, 7, &names[..3])).expect("whole").record,
            Some(Record::Sensors(7, names[..3].to_vec()))
        );
    }

    /// What is not plain, or not in the list, is written in full, and what is plain again behind it is not.
    #[test]
    fn only_plain_readings_of_listed_sensors_are_told_by_place() {
        let listed: SensorId = "mast/gust".parse().expect("valid");
        let plain = Reading::of(listed.clone(), 1, 1.0);
        let some = [
            plain.clone(),
            plain.clone().with_lag_ms(Some(5)),
            Reading::missing(listed.clone(), 2, Cause::Timeout),
            Reading::of("mast/other".parse().expect("valid"), 3, 1.0),
            plain,
        ];
        let mut known = self::listed(&[listed]);
        let counts = [0, 1, 4].map(|from| encode_next(&mut Vec::new(), 1, &mut some[from..].into(), &mut known));
        assert_eq!(counts, [1, 3, 1]);
        let mut bytes = Vec::new();
        encode_next(&mut bytes, 2, &mut some[1..].into(), &mut known);
        assert_eq!(decode(&bytes).expect("whole").record, Some(Record::Readings(some[1..4].to_vec())));
    }

    #[test]
    fn snapshots_and_marks_come_back() {
        let newest =
            vec![("mast/wind_speed".parse().expect("valid"), -5), ("mast/wind_gust".parse().expect("valid"), 9)];
        let found = decode(&encode_newest(3, &newest)).expect("whole");
        assert_eq!(found.record, Some(Record::Newest(newest)));
        let sure =
            vec![("mast/wind_speed".parse().expect("valid"), Some(-9)), ("mast/gust".parse().expect("valid"), None)];
        let found = decode(&encode_estimated(3, &sure)).expect("whole");
        assert_eq!((found.first_seq, found.record), (3, Some(Record::Estimated(sure))));
        // Released bytes: they stay readable for ever.
        let bytes = b"\x0f\0\0\0\x70\xe5\x1e\x62\x03\0\0\0\0\0\0\0\x06\x01\0\x03a/b\xf7\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(encode_estimated(3, &[("a/b".parse().expect("valid"), Some(-9))]), bytes);
        let found = decode(&encode_sealed(4, 3)).expect("whole");
        assert_eq!((found.first_seq, found.record), (4, Some(Record::Sealed(3))));
    }

    #[test]
    fn a_whole_record_of_a_later_kind_is_stepped_over() {
        let bytes = frame(9, &[200, 1, 2, 3]);
        assert_eq!(decode(&bytes), Some(Found { first_seq: 9, record: None, length: bytes.len() }));
    }
}
