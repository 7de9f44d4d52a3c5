//! Readings whose sensors are told by their places in the segment's list, each by how far it is from the one before; and which of the
//! next readings can be told so.

use tjern_readings::reading::{Quality, Reading};
use tjern_readings::round::RoundSpan;
use tjern_readings::rows::{Span, Spans};
use tjern_readings::sensor::SensorId;

use super::write::{add_frame, count_bytes, encode_readings, put_count};
use super::{KIND_INDEXED, READINGS_MAX};
use crate::spool::known_sensors::KnownSensors;

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
