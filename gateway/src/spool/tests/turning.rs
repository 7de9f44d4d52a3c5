//! A new epoch for what is new, while what waits drains under the old one.

use super::memory::{Memory, Plan};
use super::model::{Lake, open, readings, upload};
use crate::spool::sealed::SealedKind;

/// Some batches wait; a new epoch begins; more readings come. Says what was acknowledged.
fn turn(disk: &Memory) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    let mut core = open(disk, 1 << 20);
    for from in [0, 10, 20] {
        core.append(readings(from, 10));
        if core.seal() {
            acknowledged = (0..from + 10).collect();
        }
    }
    core.append(readings(30, 5));
    if core.begin_live_epoch() {
        acknowledged = (0..35).collect();
    }
    core.append(readings(35, 5));
    if core.sync() {
        acknowledged = (0..40).collect();
    }
    acknowledged
}

/// What the lake has in the end, and that nothing is lost, doubled, or closed too early.
fn settle(disk: &Memory, acknowledged: &[u64]) {
    let mut core = open(disk, 1 << 20);
    assert!(core.seal());
    let mut lake = Lake::default();
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (values, missing) = lake.values().expect("once");
    assert_eq!(missing, 0);
    assert!(acknowledged.iter().all(|value| values.contains(value)), "{acknowledged:?} of {values:?}");
    for ((epoch, _, kind), (bounds, bytes)) in &lake.objects {
        if *kind == SealedKind::Closed {
            let ends = lake.objects.iter().filter(|((of, _, kind), _)| of == epoch && *kind != SealedKind::Closed);
            let last = ends.map(|(_, (bounds, _))| bounds.last).max();
            assert_eq!((Some(bounds.last), bytes.as_slice()), (last, format!("{}\n", bounds.last).as_bytes()));
            assert_ne!(*epoch, core.log.epoch, "an epoch that goes on is not closed");
        }
    }
}

#[test]
fn what_is_new_has_an_epoch_of_its_own_and_the_old_one_is_closed_behind_its_last() {
    let disk = Memory::new(Plan::Well);
    assert_eq!(turn(&disk).len(), 40);
    let core = open(&disk, 1 << 20);
    let offered = core.offered();
    let kinds: Vec<_> = offered.iter().map(|object| object.kind).collect();
    assert_eq!(&kinds[..5], [SealedKind::Batch; 4].iter().chain(&[SealedKind::Closed]).copied().collect::<Vec<_>>());
    assert_eq!(offered[4].bounds.last, 35);
    assert!(offered[..5].iter().all(|object| object.epoch != core.log.epoch));
    drop(core);
    settle(&disk, &(0..40).collect::<Vec<_>>());
}

/// The power goes at every call, and any part of what was not synced is on disk.
#[test]
fn a_power_cut_while_a_new_epoch_begins_loses_nothing_and_doubles_nothing() {
    let calls = {
        let disk = Memory::new(Plan::Well);
        turn(&disk);
        disk.calls()
    };
    let seed = super::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for cut in 0..=calls {
        for _ in 0..4 {
            let disk = Memory::new(Plan::CutAt(cut));
            let acknowledged = turn(&disk);
            settle(&disk.image(&mut random, Plan::Well), &acknowledged);
        }
    }
}

/// The canary: where nothing is really synced, the same must be seen to lose.
#[test]
fn a_turn_on_a_disk_that_does_not_sync_is_found_out() {
    let mut random = fastrand::Rng::with_seed(super::seed());
    let found = (0..40).filter(|cut| {
        let disk = Memory::lying(Plan::CutAt(60 + cut));
        let acknowledged = turn(&disk);
        let image = disk.image(&mut random, Plan::Well);
        std::panic::catch_unwind(|| settle(&image, &acknowledged)).is_err()
    });
    assert!(found.count() > 0, "a build without a sync would pass");
}

/// A disk that fails at any call: all goes on, under the one epoch or the other.
#[test]
fn an_error_while_a_new_epoch_begins_loses_nothing() {
    let calls = {
        let disk = Memory::new(Plan::Well);
        turn(&disk);
        disk.calls()
    };
    for call in 0..calls {
        let disk = Memory::new(Plan::FailFrom(call, 1 + call % 5));
        let mut core = open(&disk, 1 << 20);
        for from in [0, 10, 20] {
            core.append(readings(from, 10));
            core.seal();
        }
        core.begin_live_epoch();
        core.append(readings(30, 10));
        for _ in 0..10 {
            if core.seal() {
                break;
            }
        }
        drop(core);
        settle(&disk.image(&mut fastrand::Rng::with_seed(call), Plan::Well), &(0..40).collect::<Vec<_>>());
    }
}

/// The word that an epoch is finished waited for the next start, at which nobody knew of the epoch any more if all of it
/// had left meanwhile: the lake held it open for ever.
#[test]
fn a_word_that_the_disk_refused_is_written_while_the_spool_runs() {
    // Where the calls of the word begin: behind those of everything else.
    let calls_before_the_word = {
        let disk = Memory::new(Plan::Well);
        let mut core = open(&disk, 1 << 20);
        core.append(readings(0, 10));
        assert!(core.seal());
        core.log.begin_epoch(tjern_readings::sensor::Epoch::random(), None, 0, &core.known, None).expect("well");
        disk.calls()
    };
    for refused in 1..12 {
        let disk = Memory::new(Plan::FailFrom(calls_before_the_word, refused));
        let mut core = open(&disk, 1 << 20);
        let former = core.log.epoch;
        core.append(readings(0, 10));
        assert!(core.seal() && core.begin_live_epoch());
        assert_eq!(core.close_due, [(former, 10)], "{refused} calls refused: the word is due");
        let mut lake = Lake::default();
        for _ in 0..20 {
            for object in core.offered() {
                let Ok(bytes) = core.disk.read(&object.path()) else { continue };
                lake.put(&object, bytes).expect("taken");
                core.remove(&object);
            }
            core.seal();
        }
        let word = lake.objects.get(&(former, 10, SealedKind::Closed)).expect("the word is in the lake");
        assert_eq!((word.1.as_slice(), core.shelf.of(former).count()), (b"10\n".as_slice(), 0));
    }
}

/// The same, and the process ends before the disk is well: the next start still knows of the epoch.
#[test]
fn an_epoch_whose_word_is_due_is_known_to_the_next_start() {
    let disk = Memory::new(Plan::Well);
    let mut core = open(&disk, 1 << 20);
    let former = core.log.epoch;
    core.append(readings(0, 10));
    assert!(core.seal());
    let last = core.shelf.last_of(former).expect("sealed");
    core.log.begin_epoch(tjern_readings::sensor::Epoch::random(), None, 0, &core.known, None).expect("well");
    core.close_due.push((former, last));
    disk.refuse(1_000, super::memory::EIO);
    for object in core.offered() {
        core.remove(&object);
    }
    drop(core);
    let core = open(&disk.image(&mut fastrand::Rng::with_seed(1), Plan::Well), 1 << 20);
    assert!(core.shelf.of(former).any(|object| object.kind == SealedKind::Closed), "{:?}", core.shelf.objects);
}

/// The gateway's own readings ride with others: they cost the disk no call of their own.
#[test]
fn readings_that_ride_with_others_cause_no_sync() {
    let calls = |riding: u64| {
        let disk = Memory::new(Plan::Well);
        let mut core = open(&disk, 1 << 20);
        let before = disk.calls();
        for hour in 0..3 {
            core.append(readings(hour * 10, 1 + riding));
            assert!(core.sync() && core.seal());
        }
        disk.calls() - before
    };
    assert_eq!(calls(0), calls(4));
}

/// The word of a former epoch's end was deleted with the folder: a gap in its place would have told of a number that a batch has.
#[test]
fn the_word_that_an_epoch_is_finished_outlives_a_folder_that_is_deleted() {
    let disk = Memory::new(Plan::Well);
    turn(&disk);
    let mut core = open(&disk, 1 << 20);
    disk.delete();
    core.append(readings(40, 5));
    assert!(core.sync());
    let before = core.offered();
    before.iter().for_each(|object| core.give_up(object));
    let mut lake = Lake::default();
    upload(&mut core, &mut lake, |_| false).expect("uploaded");
    lake.check_cover().expect("covered");
    let (_, missing) = lake.values().expect("once");
    assert_eq!(missing, 35, "the batches of the former epoch");
    let closed: Vec<_> = lake.objects.iter().filter(|((_, _, kind), _)| *kind == SealedKind::Closed).collect();
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].1.0.last, closed[0].1.1.as_slice()), (35, b"35\n".as_slice()));
}
