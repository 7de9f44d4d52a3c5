//! Stories of loss that must not happen, on a disk that forgets, tears, reorders and fails.

mod away;
mod campaign;
pub(crate) mod hanging;
pub(crate) mod memory;
mod model;
mod rounds;
mod turning;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::keys::Bounds;
use tjern_readings::reading::TIMES_US;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::core::{Core, PENDING_MAX};
use super::disk::{self, Disk};
use super::recovery::ATTEMPTS_MAX;
use super::sealed::{self, SealedKind};
use super::segment;
use super::shelf::GAPS_MAX;
use super::{Spool, SpoolSettings};
use campaign::{Reached, Variant};
use memory::{EIO, ENOSPC, Lie, Memory, Plan};
use model::{History, Lake, live, open, readings, sensor, settings, settle, upload};

/// Lives of one spool, each ended by a cut at a random call, then a last one in which all is counted.
fn lives(seed: u64, first: Memory) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut history = History::default();
    let mut disk = first;
    for _ in 0..3 {
        live(&disk, 40, &mut random, &mut history)?;
        let cut = random.u64(..150);
        disk = disk.image(&mut random, Plan::CutAt(cut));
    }
    let last = disk.image(&mut random, Plan::Well);
    settle(&last, &mut history)
}

/// Fresh seeds, or the one that `TJERN_SEED` names: what a failure prints can be run again.
fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let named = std::env::var("TJERN_SEED").ok().map(|seed| seed.parse::<u64>().expect("TJERN_SEED is a number"));
    let (base, count) = named.map_or_else(|| (fastrand::u64(..), count), |seed| (seed, 1));
    println!("seeds {base} and {} after it", count - 1);
    (0..count).map(move |index| base.wrapping_add(index))
}

fn seed() -> u64 {
    seeds(1).next().expect("one")
}

/// A power cut at any call, with any part of what was not synced on disk: nothing acknowledged is lost,
/// nothing is there twice, and the spool starts.
#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
    for seed in seeds(30) {
        let mut random = fastrand::Rng::with_seed(seed);
        let cut = random.u64(..200);
        lives(seed, Memory::new(Plan::CutAt(cut))).unwrap_or_else(|error| panic!("TJERN_SEED={seed}: {error}"));
    }
}

/// Over 5,000 crash images at every boundary of workloads of 200 steps, and each rare branch is reached.
#[test]
fn every_boundary_of_a_workload_is_a_crash_that_loses_nothing() {
    let (seed, reached) = (seed(), Reached::default());
    let result = campaign::run(seed, 5_000, Variant::default(), &reached);
    println!("TJERN_SEED={seed}: {reached:?}");
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(reached.all(), "a rare branch was not reached: {reached:?}");
    assert!(reached.images.load(Relaxed) >= 5_000);
}

/// The canaries: a build that skips the sync of files, or that of folders, takes any folder for its own, or uses a number
/// twice, is caught by the same campaign.
#[test]
fn a_build_that_skips_a_sync_or_uses_a_number_twice_is_caught() {
    let seed = seed();
    let lying =
        [Lie::Syncs, Lie::FileSyncs, Lie::FolderSyncs, Lie::AnyFolder].map(|lie| Variant { lie, ..Variant::default() });
    for variant in lying.into_iter().chain([Variant { reuses_numbers: true, ..Variant::default() }]) {
        let caught = campaign::run(seed, 3_000, variant, &Reached::default());
        println!("{variant:?}: {caught:?}");
        assert!(caught.is_err(), "TJERN_SEED={seed}: {variant:?} would pass");
    }
}

/// Lives in which every call fails with EIO and with ENOSPC, once or for a while.
fn errors_at_each_call(seed: u64, lie: Lie) -> Result<(), String> {
    let calls = {
        let disk = Memory::new(Plan::Well);
        live(&disk, 24, &mut fastrand::Rng::with_seed(seed), &mut History::default())?;
        disk.calls()
    };
    for (call, error) in (0..calls).flat_map(|call| [(call, EIO), (call, ENOSPC)]) {
        let disk = Memory::new(Plan::FailWith(call, 1 + call % 7, error)).telling(lie);
        let mut history = History::default();
        let mut random = fastrand::Rng::with_seed(seed);
        let lived = live(&disk, 24, &mut random, &mut history);
        let settled = lived.and_then(|()| settle(&disk.image(&mut random, Plan::Well), &mut history));
        settled.map_err(|failure| format!("TJERN_SEED={seed}, error {error} at call {call}: {failure}"))?;
    }
    Ok(())
}

/// The spool goes on, and loses nothing.
#[test]
fn an_error_at_any_call_ends_nothing_and_loses_nothing() {
    errors_at_each_call(seed(), Lie::None).unwrap_or_else(|failure| panic!("{failure}"));
}

/// The canary: a build that takes a write or a sync which failed for one that worked is caught by the same.
#[test]
fn a_build_that_overlooks_an_error_is_caught() {
    let seed = seed();
    let caught = errors_at_each_call(seed, Lie::Errors);
    println!("{caught:?}");
    assert!(caught.is_err(), "TJERN_SEED={seed}: it would pass");
}

/// The folder is deleted at any moment of a life: what no batch had is written anew under its numbers, and the batches that went
/// with it are told as gaps.
#[test]
fn a_folder_that_is_deleted_costs_its_batches_and_nothing_else() {
    for seed in seeds(50) {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Memory::new(Plan::Well);
        let (mut core, mut lake) = (open(&disk, 1 << 20), Lake::default());
        let (mut appended, mut deleted) = (0, 0);
        for _ in 0..40 {
            match random.u8(..10) {
                0..5 => {
                    core.append(readings(appended, 7));
                    appended += 7;
                }
                5..7 => assert!(core.sync()),
                7 => assert!(core.seal()),
                8 => upload(&mut core, &mut lake, |_| false).expect("uploaded"),
                _ => {
                    let batches = core.offered();
                    let is_batch = |object: &&sealed::SealedObject| object.kind == SealedKind::Batch;
                    deleted += batches.iter().filter(is_batch).map(|batch| batch.bounds.count()).sum::<i64>();
                    disk.delete();
                    batches.iter().for_each(|object| core.give_up(object));
                    assert_eq!(core.offered(), batches, "not before the folder is known to be ours");
                    assert!(core.sync(), "TJERN_SEED={seed}: {:?}", core.status());
                    batches.iter().for_each(|object| core.give_up(object));
                }
            }
        }
        assert!(core.sync());
        drop(core);
        let mut core = open(&disk.image(&mut random, Plan::Well), 1 << 20);
        assert!(core.seal());
        upload(&mut core, &mut lake, |_| false).expect("uploaded");
        lake.check_cover().unwrap_or_else(|error| panic!("TJERN_SEED={seed}: {error}"));
        let (values, missing) = lake.values().expect("once");
        assert_eq!((missing, values.len() as i64), (deleted, appended as i64 - deleted), "TJERN_SEED={seed}");
    }
}

/// A folder that cannot be listed ended the gateway, and a watchdog started it again and again: nothing was polled.
#[test]
fn a_folder_that_cannot_be_listed_is_read_later_and_polling_goes_on() {
    let (disk, _) = with_records(&[3, 2]);
    disk.make_unlistable(Path::new(""));
    let mut core = open(&disk, 1 << 20);
    assert!(core.in_trouble() && core.status().is_unread);
    // The slot that was read before the restart is read again after it.
    core.append(readings(4, 6));
    assert!(!core.sync() && !core.seal() && core.offered().is_empty());
    disk.heal();
    assert!(core.sync(), "{:?}", core.status());
    assert!(!core.status().is_unread && core.status().next_seq == 11);
    drop(core);
    let (values, missing, status) = all_of(&disk);
    assert_eq!((values, missing, status.bad_records), ((0..10).collect(), 0, 0));
}

/// It can never be listed again: what is in it waits for a person, and everything else goes on under numbers past it.
#[test]
fn a_folder_of_sealed_files_that_can_never_be_listed_is_moved_aside() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(0, 10));
    assert!(core.seal());
    core.append(readings(10, 5));
    assert!(core.sync());
    let (epoch, folder) = (core.log.epoch, super::sealed::folder(core.log.epoch));
    drop(core);
    disk.make_unlistable(&folder);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(15, 5));
    let tries = (0..ATTEMPTS_MAX + 2).take_while(|_| !core.sync()).count();
    assert_eq!(tries as u32, ATTEMPTS_MAX - 1, "a disk that is away for a moment is waited for");
    assert!(core.seal(), "{:?}", core.status());
    let status = core.status();
    assert_eq!((status.epoch, status.bad_records, status.next_seq), (epoch, 1, 21));
    let offered: Vec<Bounds> = core.offered().iter().map(|object| object.bounds).collect();
    assert_eq!(offered, [Bounds { first: 11, last: 15 }, Bounds { first: 16, last: 20 }]);
    let aside = format!("{}.unreadable-", folder.display());
    let kept = disk.files().into_iter().filter(|file| file.display().to_string().starts_with(&aside)).count();
    assert_eq!(kept, 1, "{:?}", disk.files());
}

/// The newest segment's inode is damaged: which numbers it gave out nobody knows, so none of them is given again,
/// and the file stays for a person.
#[test]
fn a_segment_whose_inode_is_damaged_ends_the_epoch_and_stays() {
    let (disk, path) = with_records(&[3, 2]);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(5, 4));
    assert!(core.sync());
    let (epoch, newest) = (core.log.epoch, core.log.active.as_ref().expect("written").path.clone());
    assert_ne!(path, newest);
    drop(core);
    disk.damage_inode(&newest);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(9, 1));
    assert!(core.seal(), "{:?}", core.status());
    assert_ne!(core.log.epoch, epoch, "a number would be given twice");
    assert_eq!(core.status().bad_records, 1);
    assert!(disk.files().contains(&newest), "{:?}", disk.files());
}

/// One file of which the disk does not say what it is holds up no other.
#[test]
fn a_sealed_file_whose_inode_is_damaged_becomes_a_gap() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    for from in [0, 10, 20] {
        core.append(readings(from, 10));
        assert!(core.seal());
    }
    let damaged = core.offered()[1].clone();
    drop(core);
    disk.damage_inode(&damaged.path());
    let mut core = open(&disk, 1 << 20);
    let offered = core.offered();
    assert_eq!(offered.len(), 3);
    core.give_up(&offered[1]);
    let mut lake = Lake::default();
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, missing) = lake.values().expect("once");
    assert_eq!((values.len(), missing), (20, 10));
}

/// A card that is read only, or full before the spool was ever there: the gateway polls, and what it read is written
/// once the disk lets it.
#[tokio::test]
async fn a_disk_that_lets_nothing_be_written_is_waited_for() {
    const EROFS: i32 = 30;
    let disk = Memory::new(Plan::FailWith(0, 40, EROFS));
    let settings = SpoolSettings { sync_every: Duration::from_millis(5), ..settings(1 << 20) };
    let spool = Spool::over(Arc::new(disk), settings, Clock::manual(0));
    assert!(spool.status().in_trouble);
    spool.append(readings(0, 10)).await;
    let written = async {
        while !spool.sync().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.expect("the disk is well again");
    assert_eq!((spool.status().synced_seq, spool.status().in_trouble), (10, false));
}

/// Two copies of a folder seal what was in it into the same batches, whatever each of them reads then; what they read
/// themselves they have to claim.
#[test]
fn what_an_earlier_run_left_is_sealed_for_itself() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    assert_eq!(core.status().claim, None, "nobody else can know of a new epoch");
    core.append(readings(0, 5));
    assert!(core.sync());
    drop(core);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(5, 3));
    assert!(core.seal());
    let bounds: Vec<_> = core.offered().iter().map(|object| (object.bounds.first, object.bounds.last)).collect();
    assert_eq!(bounds, [(1, 5), (6, 8)]);
    let claim = core.status().claim.expect("an earlier run began the epoch");
    let covered: Vec<_> = core.offered().iter().map(|object| claim.covers(object)).collect();
    assert_eq!((claim.first_seq, covered), (6, vec![false, true]));
    assert!(core.renew(&std::collections::HashMap::new()));
    assert_eq!(core.status().claim, None);
}

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

/// What a disk had refused was taken for stored by those who asked, and was not read again after a power cut. A spool that
/// dropped readings says nothing any more: nobody knows whether they are among those that are asked about.
#[test]
fn what_is_not_on_disk_is_not_confirmed() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 26);
    let ask = |core: &mut Core| {
        let (reply, answer) = oneshot::channel();
        core.confirm(reply);
        answer
    };
    assert_eq!(ask(&mut core).try_recv(), Ok(()), "nothing came");
    core.append(readings(0, 10));
    let mut first = ask(&mut core);
    assert_eq!(first.try_recv(), Err(TryRecvError::Empty), "written is not synced");
    disk.refuse(1_000, ENOSPC);
    assert!(!core.sync());
    core.append(readings(10, 10));
    let mut second = ask(&mut core);
    assert!(!core.sync());
    assert_eq!((first.try_recv(), second.try_recv()), (Err(TryRecvError::Empty), Err(TryRecvError::Empty)));
    while !core.sync() {}
    assert_eq!((first.try_recv(), second.try_recv()), (Ok(()), Ok(())));

    core.pending_max = 5;
    disk.refuse(1_000, ENOSPC);
    core.append(readings(20, 3));
    assert!(!core.sync());
    let mut third = ask(&mut core);
    core.append(readings(23, 3));
    assert_eq!(core.status().dropped_readings, 1);
    while !core.sync() {}
    assert_eq!(third.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(ask(&mut core).try_recv(), Err(TryRecvError::Closed));
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

/// Puts some records on disk, and gives the disk and the segment that holds them.
fn with_records(counts: &[u64]) -> (Memory, PathBuf) {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    let mut from = 0;
    for count in counts {
        core.append(readings(from, *count));
        from += count;
        assert!(core.sync());
    }
    (disk, core.log.active.as_ref().expect("written").path.clone())
}

fn all_of(disk: &Memory) -> (Vec<u64>, i64, super::SpoolStatus) {
    let mut core = open(disk, 1 << 20);
    let status = core.status();
    let mut lake = Lake::default();
    assert!(core.seal());
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, missing) = lake.values().expect("once");
    (values.into_iter().collect(), missing, status)
}

/// A bad record in the middle costs its own readings and no other's, and a gap says so.
#[test]
fn a_bad_record_is_stepped_over_and_its_numbers_are_covered_by_a_gap() {
    let (disk, path) = with_records(&[3, 2, 4]);
    let first = super::record::encode_readings(1, readings(0, 3).iter()).len();
    disk.damage(&path, |bytes| bytes[segment::RECORDS_AT + first + 20] ^= 1);
    let (values, missing, status) = all_of(&disk);
    assert_eq!((values, missing), (vec![0, 1, 2, 5, 6, 7, 8], 2));
    assert_eq!((status.bad_records, status.next_seq), (1, 10));
    assert!(disk.files().iter().any(|file| file.starts_with("kept")), "{:?}", disk.files());
}

/// A block that cannot be read costs the readings in it, and not the whole segment; what could be read of the
/// damaged place is kept, and the rest is read once.
#[test]
fn an_unreadable_block_costs_its_own_readings_only() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    for from in (0..1_000).step_by(10) {
        core.append(readings(from, 10));
        assert!(core.sync());
    }
    let path = core.log.active.as_ref().expect("written").path.clone();
    drop(core);
    disk.make_unreadable(&path, segment::RECORDS_AT * 3 + 7);
    let (values, missing, status) = all_of(&disk);
    assert_eq!((values.len() as i64 + missing, status.bad_records), (1_000, 1));
    assert!((1..200).contains(&missing), "{missing} readings are lost");
    assert!(values.contains(&0) && values.contains(&999));
    assert!(disk.files().iter().any(|file| file.starts_with("kept")), "{:?}", disk.files());
}

/// The newest segment cut at any byte, with anything behind the cut: what is before it counts.
#[test]
fn a_torn_tail_with_anything_behind_it_is_cut() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let (whole, path) = with_records(&[3, 2, 4]);
    let ends: Vec<usize> = [(0, 3), (3, 2), (5, 4)]
        .iter()
        .scan(segment::RECORDS_AT, |at, (from, count)| {
            *at += super::record::encode_readings(1, readings(*from, *count).iter()).len();
            Some(*at)
        })
        .collect();
    for cut in (segment::RECORDS_AT..ends[2]).step_by(3) {
        let disk = whole.image(&mut random, Plan::Well);
        let garbage: Vec<u8> = (0..random.usize(..600)).map(|_| random.u8(..)).collect();
        disk.damage(&path, |bytes| {
            bytes.truncate(cut);
            bytes.extend(garbage);
        });
        let (values, missing, _) = all_of(&disk);
        let left = match ends.iter().filter(|end| **end <= cut).count() {
            0 => 0,
            1 => 3,
            _ => 5,
        };
        assert_eq!((values, missing), ((0..left).collect(), 0), "TJERN_SEED={seed}, cut at {cut}");
    }
}

/// A segment is left after an error, with records in it that were never synced and whose numbers went to
/// other readings in the next one. If the first of them is torn, those behind it must not count.
#[test]
fn records_behind_the_end_of_a_left_segment_do_not_count() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 26);
    core.append(readings(0, 5));
    assert!(core.sync());
    let path = core.log.active.as_ref().expect("written").path.clone();
    // Three records that are written and not synced; then the segment is left, and they are written anew.
    for from in [5, 7, 9] {
        core.append(readings(from, 2));
    }
    core.log.leave(core.synced_seq);
    core.written = 0;
    assert!(core.sync());
    drop(core);
    let synced = super::record::encode_readings(1, readings(0, 5).iter()).len();
    disk.damage(&path, |bytes| bytes[segment::RECORDS_AT + synced + 20] ^= 1);
    let (values, missing, _) = all_of(&disk);
    assert_eq!((values, missing), ((0..11).collect(), 0));
}

/// A spool that no longer knows which numbers it gave out begins a new epoch; what it has goes out under
/// the old one, which is then finished.
#[test]
fn a_damaged_newest_header_ends_the_epoch() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 26);
    core.append(readings(0, 5));
    assert!(core.sync());
    drop(core);
    let mut core = open(&disk, 1 << 26);
    core.append(readings(5, 5));
    assert!(core.sync());
    let (former, path) = (core.log.epoch, core.log.active.as_ref().expect("written").path.clone());
    drop(core);
    disk.damage(&path, |bytes| bytes[40] ^= 1);
    let mut core = open(&disk, 1 << 26);
    assert_ne!(core.log.epoch, former);
    core.append(readings(10, 5));
    let mut lake = Lake::default();
    assert!(core.seal());
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, _) = lake.values().expect("once");
    assert_eq!(values.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    let closed = lake.objects.iter().find(|((_, _, kind), _)| *kind == SealedKind::Closed);
    let ((epoch, _, _), (bounds, text)) = closed.expect("a word that the epoch is finished");
    assert_eq!((*epoch, *bounds, text.as_slice()), (former, Bounds { first: 5, last: 5 }, b"5\n".as_slice()));
}

/// Nothing but garbage in the folder: the spool starts.
#[test]
fn a_folder_full_of_garbage_starts_a_new_epoch() {
    let (disk, path) = with_records(&[3]);
    disk.damage(&path, |bytes| bytes.iter_mut().for_each(|byte| *byte = 0xff));
    let (values, missing, status) = all_of(&disk);
    assert_eq!((values, missing, status.next_seq), (vec![], 0, 1));
}

/// A restart within a slot must know that the slot is taken, also when its reading has left for the lake.
#[test]
fn the_newest_time_of_a_sensor_survives_its_readings() {
    let (disk, _) = with_records(&[7]);
    for _ in 0..3 {
        let mut core = open(&disk, 1 << 20);
        assert_eq!(super::locked(&core.known).newest_us(&sensor(6)), Some(6));
        let mut lake = Lake::default();
        assert!(core.seal());
        upload(&mut core, &mut lake, |_| false).expect("uploaded");
    }
}

/// The lake has other readings under a former epoch's numbers, and `kept` is full: the batch was offered again in every
/// round, for ever, and each time an error was told.
#[test]
fn a_contested_batch_that_kept_has_no_room_for_is_offered_no_more_and_holds_up_nothing() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(0, 5));
    assert!(core.seal());
    core.append(readings(5, 5));
    assert!(core.begin_live_epoch());
    core.disk.create_folder(std::path::Path::new("kept")).expect("created");
    let most = usize::try_from(super::kept::KEPT_BYTES_MAX).expect("fits");
    core.disk.write(std::path::Path::new("kept/of-before"), &vec![7; most]).expect("written");
    let contested = core.offered().remove(0);
    let before = core.status();
    core.set_aside(&contested);
    core.set_aside(&contested);
    let status = core.status();
    assert_eq!((status.set_aside_objects, status.bytes), (1, before.bytes), "counted once, and still in the bound");
    assert_eq!(core.offered().len() + 1, before.sealed_count, "everything else is offered as before");
    assert!(!core.offered().contains(&contested));
    assert!(core.disk.read(&contested.path()).is_ok(), "it is not lost");
    // The next start tries again, and there is room by then.
    drop(core);
    disk.damage(&PathBuf::from("kept/of-before"), Vec::clear);
    let mut core = open(&disk.image(&mut fastrand::Rng::with_seed(1), Plan::Well), 1 << 20);
    assert_eq!(core.offered().first(), Some(&contested));
    core.set_aside(&contested);
    assert!(!core.offered().contains(&contested) && core.disk.read(&contested.path()).is_err());
}

/// What the lake has no place for goes before any batch that it would take.
#[test]
fn a_full_spool_drops_what_was_withdrawn_first() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    let mut random = fastrand::Rng::with_seed(7);
    let mut appended = 0;
    let mut fill = |core: &mut super::core::Core| {
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

/// A batch that turns out to be damaged is replaced by a gap; the rest goes on.
#[test]
fn a_damaged_batch_becomes_a_gap() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(0, 5));
    assert!(core.seal());
    let object = core.offered().remove(0);
    disk.damage(&object.path(), |bytes| bytes[200] ^= 1);
    core.give_up(&object);
    let gap = core.offered().remove(0);
    assert_eq!((gap.kind, gap.bounds), (SealedKind::Gap, object.bounds));
}

/// A batch of which a block cannot be read was tried again for ever, and what came behind it waited for the hole to be
/// given up. It is damaged like any other, and what can be read of it is kept.
#[test]
fn a_batch_with_an_unreadable_block_becomes_a_gap() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    core.append(readings(0, 5));
    assert!(core.seal());
    let object = core.offered().remove(0);
    disk.make_unreadable(&object.path(), 100);
    let bytes = super::sealed::read(&disk, &object).expect("what can be read");
    assert!(bytes.len() as u64 == object.length && batch::decode(&bytes).is_err());
    // A disk that failed for a moment: the batch is well when it is looked at again.
    let well = disk.image(&mut fastrand::Rng::with_seed(1), Plan::Well);
    well.heal();
    let mut spared = open(&well, 1 << 20);
    spared.give_up(&object);
    assert_eq!(spared.offered()[0].kind, SealedKind::Batch);
    core.give_up(&object);
    let gap = core.offered().remove(0);
    assert_eq!((gap.kind, gap.bounds), (SealedKind::Gap, object.bounds));
    assert!(disk.files().iter().any(|file| file.starts_with("kept")), "{:?}", disk.files());
}

/// Released segments stay readable: these bytes were written by version 1 of the format.
#[test]
fn the_golden_segment_is_read() {
    let bytes = include_bytes!("../../tests/golden/segment-1");
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
    use super::record::{self, Record};
    use tjern_readings::reading::Reading;
    let bytes = include_bytes!("../../tests/golden/segment-1-places");
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

fn golden_records() -> Vec<(i64, super::record::Record)> {
    use super::record::Record;
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
    use super::record::{Record, encode_newest, encode_readings, encode_sealed};
    let epoch = tjern_readings::sensor::Epoch::from_bytes([7; 16]);
    let header = segment::Header { epoch, first_seq: 41, generation: 3, sealed_to: 40, replaced: None };
    let mut bytes = header.encode().to_vec();
    bytes.resize(segment::RECORDS_AT, 0);
    for (seq, record) in golden_records() {
        bytes.extend(match record {
            Record::Readings(readings) => encode_readings(seq, readings.iter()),
            Record::Newest(newest) => encode_newest(seq, &newest),
            Record::Sealed(sealed_to) => encode_sealed(seq, sealed_to),
            Record::Sensors(..) | Record::Indexed(_) | Record::Estimated(_) => unreachable!("none is in this file"),
        });
    }
    bytes.resize(bytes.len() + 100, 0);
    bytes
}

/// A batch is never larger than the contract says, whatever the sensors are called: it has fewer rows then.
#[test]
fn a_batch_stays_within_its_size() {
    let mut some = readings(0, 80_000);
    for reading in &mut some {
        let part = || -> String { (0..31).map(|_| fastrand::alphanumeric().to_ascii_lowercase()).collect() };
        reading.sensor = [part(), part(), part(), part(), part()].join("/").parse().expect("valid");
    }
    let epoch = tjern_readings::sensor::Epoch::from_bytes([7; 16]);
    let (rows, bytes) = super::core::encode(&model::settings(0), epoch, 1, &some).expect("encoded");
    assert!(bytes.len() as u64 <= batch::SIZE_MAX, "{} bytes", bytes.len());
    assert!((1..=super::core::SEAL_ROWS).contains(&rows), "{rows} rows");
}
