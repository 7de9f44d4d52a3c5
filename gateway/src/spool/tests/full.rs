//! Disks that are full, bounds that hold or are lowered, and what has to go for them.

use super::*;

/// There is room in the segment and nowhere else: that is no disk that refuses readings, and must be told all the same.
#[test]
fn batches_that_cannot_be_written_are_told_with_what_waits_for_them() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(3, 5));
    assert!(core.sync());
    let oldest_us = readings(3, 1)[0].time_us;
    assert_eq!((core.status().sealing_trouble, core.status().overdue_us), (None, None), "not due yet");
    disk.refuse(1, ENOSPC);
    assert!(!core.seal());
    let status = core.status();
    assert!(status.sealing_trouble.is_some_and(|error| error.contains("space")) && !status.in_trouble);
    assert_eq!(status.overdue_us, Some(oldest_us));
    assert!(core.seal());
    assert_eq!((core.status().sealing_trouble, core.status().overdue_us), (None, None));
}

/// A full disk: polling goes on into memory, the oldest go first, and are counted; once there is room
/// again everything else is written.
#[test]
fn a_full_disk_keeps_the_newest_readings_in_memory() {
    let disk = Memory::new(Plan::FailFrom(31, 400));
    let mut core = open(&disk, 1 << 26);
    let mut appended = 0;
    while disk.calls() < 431 {
        core.append(readings(appended, 1_000));
        appended += 1_000;
        core.sync();
    }
    assert!(core.status().dropped_readings > 0, "{:?}", core.status());
    assert!(core.pending.len() <= PENDING_MAX);
    while core.in_trouble() {
        core.sync();
    }
    let mut lake = Lake::default();
    assert!(core.seal());
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, _) = lake.values().expect("once");
    assert_eq!(values.len() as u64 + core.status().dropped_readings, appended);
    assert!(values.contains(&(appended - 1)));
}

/// A start on a full disk: "the spool writes again" stood in the log, nothing was written, and the first reading was refused.
#[test]
fn a_disk_that_took_no_reading_yet_is_not_said_to_take_them_again() {
    let disk = Memory::new(Plan::Well);
    disk.refuse(1, ENOSPC);
    let mut core = open(&disk, 1 << 26);
    assert!(core.in_trouble() && core.recovery_due.is_some());
    assert!(core.sync(), "the folder is there now");
    assert!(core.in_trouble(), "nothing was written");
    core.append(readings(0, 3));
    assert!(core.sync());
    assert!(!core.in_trouble());
}

/// The spool's bound holds; what had to go is covered by gaps with the bounds of the batches that went.
#[test]
fn a_full_spool_drops_its_oldest_batches_and_says_which() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    let mut lake = Lake::default();
    let mut random = fastrand::Rng::with_seed(7);
    let mut appended = 0;
    while core.status().dropped_batches < 20 {
        let mut some = readings(appended, 500);
        some.iter_mut().for_each(|reading| reading.time_us = random.i64(TIMES_US));
        core.append(some);
        appended += 500;
        assert!(core.seal());
        assert!(core.status().bytes <= 1 << 20, "{:?}", core.status());
    }
    let dropped = core.status().dropped_readings;
    drop(core);
    // The gaps are on disk: they survive a cut at once.
    let mut core = open(&disk.image(&mut random, Plan::Well), 1 << 20);
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, missing) = lake.values().expect("once");
    assert_eq!((missing as u64, values.len() as u64 + dropped), (dropped, appended));
    assert!(values.iter().next() > Some(&0) && values.contains(&(appended - 1)), "the oldest must go, not the newest");
}

/// Years without a lake left a gap for each batch that went, a block of the disk each, without any bound.
#[test]
fn an_outage_of_years_leaves_no_more_gaps_than_one_of_days() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    let (mut random, mut appended) = (fastrand::Rng::with_seed(13), 0);
    while core.status().dropped_batches < 5 * GAPS_MAX as u64 {
        core.append(readings(appended, 3));
        appended += 3;
        assert!(core.seal());
        assert!(core.status().bytes <= 1 << 20, "{:?}", core.status());
    }
    let status = core.status();
    drop(core);
    let image = disk.image(&mut random, Plan::Well);
    let files = image.files();
    let gaps = files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "gap"));
    assert_eq!(gaps.count(), GAPS_MAX);
    assert!(files.len() as u64 * disk::BLOCK_BYTES <= 1 << 20, "{} files", files.len());
    let mut lake = Lake::default();
    upload(&mut open(&image, 1 << 20), &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, missing) = lake.values().expect("once");
    assert_eq!((missing as u64, values.len() as u64 + status.dropped_readings), (status.dropped_readings, appended));
}

/// Gaps of which one tells another, in every state that a power cut can leave: nothing is told twice, and no batch that is
/// still there is given up.
#[test]
fn a_gap_that_was_widened_half_way_tells_nothing_twice() {
    let epoch = "0".repeat(32);
    let narrow = ["1-3.gap", "4-6.gap"];
    let cases: [(&[&str], &[&str]); 5] = [
        (&["1-3.gap", "4-6.gap", "7-9.arrow", "4-9.gap"], &["1-3.gap", "4-6.gap", "7-9.arrow"]),
        (&["1-3.gap", "4-6.gap", "4-9.gap"], &["1-3.gap", "4-9.gap"]),
        (&["1-3.gap", "4-9.gap"], &["1-3.gap", "4-9.gap"]),
        (&["1-3.gap", "4-6.gap", "4-6.arrow"], &["1-3.gap", "4-6.arrow"]),
        (&narrow, &narrow),
    ];
    let long = |name: &&str| {
        let (numbers, kind) = name.split_once('.').expect("a kind");
        let (first, last) = numbers.split_once('-').expect("two numbers");
        format!("{first:0>20}-{last:0>20}.{kind}")
    };
    for (there, counting) in cases {
        let disk = Memory::new(Plan::Well);
        let folder = Path::new("sealed").join(&epoch);
        disk.create_folder(&folder).expect("created");
        for name in there {
            sealed::write(&disk, &folder, &long(name), b"{}").expect("written");
        }
        let found = sealed::list(&disk, &folder, epoch.parse().expect("an epoch")).expect("listed");
        let names: Vec<String> = found.iter().map(|object| sealed::file_name(object.kind, object.bounds)).collect();
        assert_eq!(names, counting.iter().map(long).collect::<Vec<_>>(), "of {there:?}");
        assert_eq!(disk.list(&folder).expect("listed").len(), counting.len(), "the others are gone from the disk");
    }
}

/// A bound that was lowered below what is there: the spool gets below it by itself, and loses no more than
/// it must.
#[test]
fn a_lowered_bound_is_reached_and_stops_nothing() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 30);
    let mut random = fastrand::Rng::with_seed(11);
    let long: tjern_readings::sensor::SensorId = ["a-site-with-a-very-long-name"; 4].join("/").parse().expect("valid");
    // Fewer than are sealed without waiting, in more than a segment.
    for round in 0..19 {
        let mut some = readings(round * 1_000, 1_000);
        for reading in &mut some {
            // With a lag a record has the whole name.
            (reading.sensor, reading.lag_ms) = (long.clone(), Some(1));
            reading.time_us = random.i64(TIMES_US);
        }
        core.append(some);
        assert!(core.sync());
    }
    assert!(core.log.bytes() > 1 << 20);
    drop(core);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(19_000, 10));
    assert!(core.seal(), "{:?}", core.status());
    core.append(readings(19_010, 10));
    assert!(core.seal(), "{:?}", core.status());
    let status = core.status();
    assert!(status.bytes <= 1 << 20, "{status:?}");
    let mut lake = Lake::default();
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, missing) = lake.values().expect("once");
    assert_eq!(missing as u64, status.dropped_readings);
    assert_eq!(values.len() as u64 + status.dropped_readings, 19_020);
    assert!(values.contains(&19_019));
}

/// Everything is sealed when the bound is lowered below what one segment takes: it could not begin the next one
/// while the old one was there, nor remove the old one before that.
#[test]
fn a_bound_below_one_segment_stops_nothing() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 30);
    core.append(readings(0, 10));
    assert!(core.seal());
    drop(core);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(10, 10));
    assert!(core.seal(), "{:?}", core.status());
    let status = core.status();
    assert!(status.bytes <= 1 << 20 && status.dropped_readings == 0, "{status:?}");
}

/// What the lake has no place for goes before any batch that it would take.
#[test]
fn a_full_spool_drops_what_was_withdrawn_first() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    let mut random = fastrand::Rng::with_seed(7);
    let mut appended = 0;
    let mut fill = |core: &mut super::super::core::Core| {
        let mut some = readings(appended, 500);
        some.iter_mut().for_each(|reading| reading.time_us = random.i64(TIMES_US));
        core.append(some);
        appended += 500;
        assert!(core.seal());
    };
    (0..20).for_each(|_| fill(&mut core));
    let withdrawn = core.offered().split_off(8);
    withdrawn.iter().for_each(|object| core.shelf.withdraw(object));
    while core.status().dropped_batches == 0 {
        fill(&mut core);
        assert!(core.status().bytes <= 1 << 20, "{:?}", core.status());
    }
    let status = core.status();
    assert_eq!(core.shelf.withdrawn.len() as u64 + status.dropped_batches, 12);
    assert_eq!(status.dropped_readings, status.dropped_batches * 500);
    assert!(core.disk.read(&withdrawn[0].path()).is_err() && core.disk.read(&withdrawn[11].path()).is_ok());
    assert!(core.offered().iter().all(|object| object.kind == SealedKind::Batch), "no batch had to go");
}
