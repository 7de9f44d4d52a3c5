//! Records are read as they were written, and nothing else is taken for one.

use proptest::prelude::*;
use tjern_readings::reading::{Cause, Quality};
use tjern_readings::round::Round;
use tjern_readings::rows::{Rows, Spans};

use super::read::decode_payload;
use super::write::frame;
use super::*;
use crate::spool::known_sensors::KnownSensors;

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
    let names: Vec<SensorId> = (0..300).map(|number| format!("mast/number-{number}").parse().expect("valid")).collect();
    let at = |place: usize, time_us, value| Reading::of(names[place].clone(), time_us, value);
    let some = [at(299, i64::MIN, 1.5), at(0, i64::MAX, -0.0), at(1, 0, f64::MAX), at(1, -1, 5e-324)];
    let mut bytes = Vec::new();
    let count = encode_next(&mut bytes, 9, &mut some.as_slice().into(), &mut listed(&names));
    let Some(Record::Indexed(found)) = decode(&bytes).expect("whole").record else { panic!("by place") };
    let back: Vec<_> = found.iter().map(|reading| at(reading.sensor.into(), reading.time_us, reading.value)).collect();
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
    let newest = vec![("mast/wind_speed".parse().expect("valid"), -5), ("mast/wind_gust".parse().expect("valid"), 9)];
    let found = decode(&encode_newest(3, &newest)).expect("whole");
    assert_eq!(found.record, Some(Record::Newest(newest)));
    let sure = vec![("mast/wind_speed".parse().expect("valid"), Some(-9)), ("mast/gust".parse().expect("valid"), None)];
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
