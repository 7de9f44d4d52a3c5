//! Released segments stay readable.

use super::*;

/// Released segments stay readable: these bytes were written by version 1 of the format.
#[test]
fn the_golden_segment_is_read() {
    let bytes = include_bytes!("../../../tests/golden/segment-1");
    let header = segment::Header::decode(bytes).expect("readable for ever");
    let contents = segment::read(bytes, &[], header.first_seq);
    let epoch = tjern_readings::sensor::Epoch::from_bytes([7; 16]);
    assert_eq!((header.epoch, header.first_seq, header.generation, header.sealed_to), (epoch, 41, 3, 40));
    assert_eq!(contents.records, golden_records());
    assert_eq!((contents.bad_records, contents.torn_tail), (0, None));
    assert_eq!(golden_bytes(), bytes, "version 1 is still what is written");
}

/// The same for readings by place, with their list and a group that begins in the next block. These bytes were made
/// by another program, from the words of `docs/spool-format.md`.
#[test]
fn the_golden_segment_with_places_is_read() {
    use super::super::record::{self, Record};
    use tjern_readings::reading::Reading;
    let bytes = include_bytes!("../../../tests/golden/segment-1-places");
    let header = segment::Header::decode(bytes).expect("readable for ever");
    let contents = segment::read(bytes, &[], header.first_seq);
    let names: Vec<_> =
        ["landfalltjern/water_temperature", "mast/depth-2m/wind_speed"].map(|name| name.parse().expect("valid")).into();
    let at = |place: usize, later_us: i64, value| {
        Reading::of(Clone::clone(&names[place]), 1_751_360_400_000_000 + later_us, value)
    };
    let (first, second) = (vec![at(1, 0, 17.25), at(0, 0, -0.0), at(1, -3_600_000_000, 5e-324)], vec![at(0, 1, 1e300)]);
    let list = || (41, Record::Sensors(0, names.clone()));
    assert_eq!(
        contents.named(),
        [list(), list(), (41, Record::Readings(first.clone())), (44, Record::Readings(second.clone()))]
    );
    assert_eq!((contents.bad_records, contents.torn_tail), (0, None));
    let mut known = record::tests::listed(&names);
    let list = record::encode_sensors(41, 0, &names);
    let mut written = [list.clone(), list].concat();
    record::encode_next(&mut written, 41, &mut (&first).into(), &mut known);
    assert_eq!(&bytes[4096..4096 + written.len()], written, "this is still what is written");
    let mut written = Vec::new();
    record::encode_next(&mut written, 44, &mut (&second).into(), &mut known);
    assert_eq!(&bytes[8192..8192 + written.len()], written);
}

fn golden_records() -> Vec<(i64, super::super::record::Record)> {
    use super::super::record::Record;
    use tjern_readings::reading::{Cause, Quality, Reading};
    let water: tjern_readings::sensor::SensorId = "landfalltjern/water_temperature".parse().expect("valid");
    let wind: tjern_readings::sensor::SensorId = "mast/depth-2m/wind_speed".parse().expect("valid");
    let at = |slot: i64| 1_751_360_400_000_000 + slot * 3_600_000_000;
    vec![
        (41, Record::Newest(vec![(water.clone(), at(-1)), (wind.clone(), -1)])),
        (41, Record::Readings(vec![Reading::of(water.clone(), at(0), 17.25), Reading::of(wind.clone(), at(0), -0.0)])),
        (43, Record::Sealed(42)),
        (43, Record::Readings(vec![Reading::missing(water.clone(), at(1), Cause::Timeout)])),
        (44, Record::Readings(vec![Reading::of(water, at(2), f64::MIN_POSITIVE).with_lag_ms(Some(2_500))])),
        (45, Record::Readings(vec![Reading { quality: Quality::Fail, ..Reading::of(wind, -1, 1e300) }])),
    ]
}

fn golden_bytes() -> Vec<u8> {
    use super::super::record::{Record, encode_newest, encode_readings, encode_sealed};
    let epoch = tjern_readings::sensor::Epoch::from_bytes([7; 16]);
    let header = segment::Header { epoch, first_seq: 41, generation: 3, sealed_to: 40, replaced: None };
    let mut bytes = header.encode().to_vec();
    bytes.resize(segment::RECORDS_AT, 0);
    for (seq, record) in golden_records() {
        bytes.extend(match record {
            Record::Readings(readings) => encode_readings(seq, readings.iter()),
            Record::Newest(newest) => encode_newest(seq, &newest),
            Record::Sealed(sealed_to) => encode_sealed(seq, sealed_to),
            Record::Sensors(..) | Record::Indexed(_) | Record::Estimated(_) | Record::Configuration(_) => {
                unreachable!("none is in this file")
            }
        });
    }
    bytes.resize(bytes.len() + 100, 0);
    bytes
}
