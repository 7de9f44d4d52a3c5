//! Records as bytes, but for readings that are told by places (`by_place`).

use tjern_readings::reading::Reading;
use tjern_readings::sensor::SensorId;

use super::{
    FRAME_BYTES, HAS_CAUSE, HAS_LAG, HAS_VALUE, KIND_CONFIGURATION, KIND_ESTIMATED, KIND_NEWEST, KIND_READINGS,
    KIND_SEALED, KIND_SENSORS, NO_TIME_US, checksum,
};

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

/// The bytes of the word under which configuration the readings behind it were measured.
pub(crate) fn encode_configuration(first_seq: i64, configuration: Option<&str>) -> Vec<u8> {
    let mut payload = vec![KIND_CONFIGURATION];
    put_text(&mut payload, configuration.unwrap_or_default());
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

pub(super) fn frame(first_seq: i64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + payload.len());
    add_frame(&mut bytes, first_seq, |bytes| bytes.extend_from_slice(payload));
    bytes
}

/// Adds a record whose payload is put behind its frame; none where nothing is put.
pub(super) fn add_frame(records: &mut Vec<u8>, first_seq: i64, put: impl FnOnce(&mut Vec<u8>)) {
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

pub(super) fn put_count(payload: &mut Vec<u8>, count: usize) {
    payload.extend_from_slice(&count_bytes(count));
}

pub(super) fn count_bytes(count: usize) -> [u8; 2] {
    u16::try_from(count).expect("a record has at most READINGS_MAX entries").to_le_bytes()
}

fn put_text(payload: &mut Vec<u8>, text: &str) {
    payload.push(u8::try_from(text.len()).expect("a sensor id has at most 159 bytes, a hash 64"));
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
