//! Under which configuration readings were measured, whatever the file says when they are sealed.

use super::*;
use crate::spool::record::{self, Record};

const FIRST: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222222222222222222222222222";
const THIRD: &str = "3333333333333333333333333333333333333333333333333333333333333333";

/// Which values the sealed batches of a spool have, by the configuration that they name.
fn sealed_under(core: &mut Core) -> Vec<(Option<String>, Vec<u64>)> {
    assert!(core.seal());
    let batches = core.offered().into_iter().filter(|object| object.kind == SealedKind::Batch);
    let mut found: Vec<(Option<String>, Vec<u64>)> = Vec::new();
    for object in batches {
        let batch = batch::decode(&core.disk.read(&object.path()).expect("there")).expect("whole");
        let values = batch.readings().expect("whole").into_iter().map(|reading| reading.value.expect("a value") as u64);
        match found.last_mut().filter(|(configuration, _)| *configuration == batch.header.configuration) {
            Some((_, before)) => before.extend(values),
            None => found.push((batch.header.configuration.clone(), values.collect())),
        }
    }
    found
}

fn named(found: &[(&str, std::ops::Range<u64>)]) -> Vec<(Option<String>, Vec<u64>)> {
    found.iter().map(|(configuration, values)| (Some((*configuration).to_owned()), values.clone().collect())).collect()
}

/// A scale of 10 by mistake, a power cut, and the file mended: the values were sealed under the mended file, and `recompute`
/// said that they were right.
#[test]
fn what_was_read_before_a_power_cut_names_the_configuration_of_then() {
    let disk = Memory::new(Plan::Well);
    let mut core = model::open_under(&disk, 1 << 20, FIRST);
    core.append(readings(0, 5));
    assert!(core.sync());
    let mut core = model::open_under(&disk.image(&mut fastrand::Rng::with_seed(1), Plan::Well), 1 << 20, SECOND);
    core.append(readings(5, 3));
    assert_eq!(sealed_under(&mut core), named(&[(FIRST, 0..5), (SECOND, 5..8)]));
}

/// The disk refuses at a reload: what waits in memory was read under the old file.
#[test]
fn what_waits_for_a_disk_at_a_reload_names_the_configuration_of_then() {
    let disk = Memory::new(Plan::Well);
    let mut core = model::open_under(&disk, 1 << 20, FIRST);
    core.append(readings(0, 5));
    assert!(core.sync());
    disk.refuse(1_000_000, EIO);
    core.append(readings(5, 5));
    assert!(!core.seal());
    core.set_configuration(SECOND.to_owned());
    core.append(readings(10, 5));
    core.take_measured(readings(15, 2).into(), Some(THIRD));
    core.append(readings(17, 1));
    assert!(!core.sync());
    disk.refuse(0, EIO);
    assert!(core.sync());
    let mut core = model::open_under(&disk.image(&mut fastrand::Rng::with_seed(1), Plan::Well), 1 << 20, THIRD);
    core.append(readings(18, 2));
    assert_eq!(
        sealed_under(&mut core),
        named(&[(FIRST, 0..10), (SECOND, 10..15), (THIRD, 15..17), (SECOND, 17..18), (THIRD, 18..20)])
    );
}

/// Earlier versions' logs say nothing of it: what they left names no configuration, and not that of today.
#[test]
fn what_a_log_without_the_word_holds_names_none() {
    let disk = Memory::new(Plan::Well);
    let mut core = model::open_under(&disk, 1 << 20, FIRST);
    core.append(readings(0, 5));
    assert!(core.sync());
    let path = core.log.active.as_ref().expect("written").path.clone();
    let bytes = disk.read(&path).expect("there");
    let word = record::encode_configuration(1, Some(FIRST));
    // An unknown kind is what an earlier version sees there, and none is what it writes; here both words are not readable.
    let places: Vec<usize> = (0..bytes.len() - word.len()).filter(|at| bytes[*at..].starts_with(&word)).collect();
    assert_eq!(places.len(), 2, "the word stands there twice");
    places.iter().for_each(|at| disk.damage(&path, |bytes| bytes[at + 20] ^= 1));
    let mut core = model::open_under(&disk, 1 << 20, SECOND);
    assert_eq!(sealed_under(&mut core), [(None, vec![0, 1, 2, 3, 4])]);
}

/// Released segments stay readable: these bytes say under which configuration their readings were measured, and when that changed.
#[test]
fn the_golden_segment_with_configurations_is_read() {
    let bytes = include_bytes!("../../../tests/golden/segment-1-configurations");
    let header = segment::Header::decode(bytes).expect("readable for ever");
    let contents = segment::read(bytes, &[], header.first_seq);
    let word = |seq: i64, configuration: Option<&str>| (seq, Record::Configuration(configuration.map(str::to_owned)));
    let (first, second) = (readings(0, 2), readings(2, 1));
    assert_eq!(
        contents.records,
        [
            word(41, Some(FIRST)),
            word(41, Some(FIRST)),
            (41, Record::Readings(first.clone())),
            word(43, Some(SECOND)),
            (43, Record::Readings(second.clone())),
            word(44, None),
        ]
    );
    assert_eq!((contents.bad_records, contents.torn_tail), (0, None));
    let mut written = record::encode_configuration(41, Some(FIRST)).repeat(2);
    written.extend(record::encode_readings(41, first.iter()));
    written.extend(record::encode_configuration(43, Some(SECOND)));
    written.extend(record::encode_readings(43, second.iter()));
    written.extend(record::encode_configuration(44, None));
    assert_eq!(&bytes[4096..4096 + written.len()], written, "this is still what is written");
}
