//! Stories of loss that must not happen, on a disk that forgets, tears, reorders and fails.

mod away;
mod campaign;
mod configurations;
mod damage;
mod full;
mod golden;
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

/// So many lives have each of their calls fail: one life in fifteen has no call at which an error that is overlooked loses anything.
const LIVES_OF_ERRORS: u64 = 8;

/// The spool goes on, and loses nothing.
#[test]
fn an_error_at_any_call_ends_nothing_and_loses_nothing() {
    for seed in seeds(LIVES_OF_ERRORS) {
        errors_at_each_call(seed, Lie::None).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// The canary: a build that takes a write or a sync which failed for one that worked is caught by the same.
#[test]
fn a_build_that_overlooks_an_error_is_caught() {
    let caught = seeds(LIVES_OF_ERRORS).find_map(|seed| errors_at_each_call(seed, Lie::Errors).err());
    println!("{caught:?}");
    assert!(caught.is_some(), "it would pass");
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

/// A batch is never larger than the contract says, whatever the sensors are called: it has fewer rows then.
#[test]
fn a_batch_stays_within_its_size() {
    let mut some = readings(0, 80_000);
    for reading in &mut some {
        let part = || -> String { (0..31).map(|_| fastrand::alphanumeric().to_ascii_lowercase()).collect() };
        reading.sensor = [part(), part(), part(), part(), part()].join("/").parse().expect("valid");
    }
    let epoch = tjern_readings::sensor::Epoch::from_bytes([7; 16]);
    let (rows, bytes) = super::core::encode((&model::settings(0).source, None), epoch, 1, &some).expect("encoded");
    assert!(bytes.len() as u64 <= batch::SIZE_MAX, "{} bytes", bytes.len());
    assert!((1..=super::core::SEAL_ROWS).contains(&rows), "{rows} rows");
}
