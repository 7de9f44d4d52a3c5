//! The campaign of the readings that wait for the clock: every boundary of their way into the spool is a crash image.
//!
//! A workload of [`STEPS`] steps (a box polls, syncs, gets the time or waits for it in vain, is killed, loses its power, has a
//! disk that refuses) runs on a disk that hands out its state before every write, sync, rename and unlink. Of each state
//! [`CRASHES`] are images. On each, the box must start with a right clock, move what was held at once, and have everything
//! that was acknowledged once, under its slot or marked as estimated; no folder of held readings is left.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::spool::tests::memory::{Crash, EIO, ENOSPC, Lie, Plan, Snapshot};

/// Steps of one workload.
const STEPS: usize = 60;

/// What is looked at of each boundary.
const CRASHES: [Crash; 4] = [Crash::Nothing, Crash::All, Crash::Torn, Crash::Sectors];

/// The most workloads that are run to reach each rare branch.
const WORKLOADS_MAX: u64 = 12;

/// More boundaries than a workload has.
const BOUNDARIES_MAX: usize = 16_384;

/// So long the box waits for the clock.
const PATIENCE_US: i64 = 40 * MINUTE_US;

/// How often each rare branch was reached.
#[derive(Debug, Default)]
struct Reached {
    images: AtomicU64,
    held: AtomicU64,
    decided: AtomicU64,
    half_moved: AtomicU64,
    left_behind: AtomicU64,
    dated: AtomicU64,
    estimated: AtomicU64,
    refused: AtomicU64,
}

fn count(counter: &AtomicU64, more: impl Into<u64>) {
    counter.fetch_add(more.into(), Ordering::Relaxed);
}

impl Reached {
    fn all(&self) -> bool {
        let Self { images, held, decided, half_moved, left_behind, dated, estimated, refused } = self;
        let rare = [images, held, decided, half_moved, left_behind, dated, estimated, refused];
        rare.into_iter().all(|counter| counter.load(Ordering::Relaxed) > 0)
    }
}

/// A box on a disk that is watched.
struct Workload {
    site: Site,
    disk: Memory,
    random: fastrand::Rng,
    lie: Lie,
    /// Numbers that are on disk, in the order in which that came to be known.
    acknowledged: Vec<Range<usize>>,
    marks: Arc<Mutex<usize>>,
    snapshots: SyncSender<Snapshot>,
    /// From here on nothing was acknowledged.
    since: usize,
}

impl Workload {
    fn new(seed: u64, lie: Lie) -> (Self, Receiver<Snapshot>) {
        let (snapshots, boundaries) = sync_channel(BOUNDARIES_MAX);
        let marks = Arc::default();
        let disk = Memory::new(Plan::Well).telling(lie).watched(snapshots.clone(), Arc::clone(&marks));
        let site = Site { patience_us: PATIENCE_US, disk: Some(disk.clone()), ..Site::new() };
        let random = fastrand::Rng::with_seed(seed);
        (Self { site, disk, random, lie, acknowledged: Vec::new(), marks, snapshots, since: 0 }, boundaries)
    }

    async fn run(&mut self, reached: &Reached) {
        let mut on = self.site.boot(Boot::Year1970, 0);
        for _ in 0..STEPS {
            match self.random.u8(..100) {
                0..35 => {
                    let minutes = self.random.i64(1..8);
                    self.site.run(&mut on, minutes * MINUTE_US).await;
                }
                35..60 => self.sync(&on).await,
                60..74 => {
                    let is_held = matches!(on.dater.hold, Hold::Held(_));
                    self.site.set_clock(&on);
                    self.site.run(&mut on, 2 * SECOND_US).await;
                    count(&reached.dated, is_held && on.clock.is_set());
                }
                74..80 => on = self.boot_after(on, Crash::All),
                80..89 => {
                    let crash = [Crash::Torn, Crash::Sectors][self.random.usize(..2)];
                    on = self.boot_after(on, crash);
                }
                89..94 => {
                    let error = if self.random.bool() { EIO } else { ENOSPC };
                    self.disk.refuse(self.random.u64(1..30), error);
                    self.site.run(&mut on, 2 * MINUTE_US).await;
                    count(&reached.refused, on.spool.status().in_trouble || on.dater.is_waiting());
                }
                _ => drop(on.spool.seal().await),
            }
        }
        self.disk.cut();
    }

    /// What was polled is acknowledged, where all of it is on disk.
    async fn sync(&mut self, on: &Machine) {
        let held = match &on.dater.hold {
            Hold::Held(undated) => undated.sync().await,
            Hold::Empty | Hold::Over => true,
        };
        let leaving = match &on.dater.leaving {
            Some((undated, _)) => undated.sync().await,
            None => true,
        };
        if on.spool.sync().await && held && leaving && on.dater.behind.is_empty() {
            let to = self.site.polled.len();
            self.acknowledged.push(self.since..to);
            *self.marks.lock().unwrap_or_else(PoisonError::into_inner) = self.acknowledged.len();
            self.since = to;
        }
    }

    /// The power goes, or the process is killed, and the box boots again.
    fn boot_after(&mut self, on: Machine, crash: Crash) -> Machine {
        self.disk.cut();
        drop(on);
        let image = Memory::image_of(&self.disk.state(), crash, &mut self.random);
        self.disk = image.telling(self.lie).watched(self.snapshots.clone(), Arc::clone(&self.marks));
        self.site.disk = Some(self.disk.clone());
        self.since = self.site.polled.len();
        let boot = if self.random.u8(..4) == 0 { Boot::Right } else { Boot::Year1970 };
        let off_us = self.random.i64(0..20) * MINUTE_US;
        self.site.boot(boot, off_us)
    }
}

/// What is asked of an image, of a box that had polled this and had acknowledged so much of it.
async fn check(image: Memory, site: &Site, acknowledged: &[Range<usize>], reached: &Reached) -> Result<(), String> {
    count(&reached.images, 1_u8);
    let files = image.files();
    count(&reached.decided, files.iter().any(|file| file.ends_with("undated/decision")));
    count(&reached.left_behind, files.iter().any(|file| file.starts_with("undated.moved")));
    let mut site = Site { disk: Some(image), true_us: site.true_us, polled: site.polled.clone(), ..Site::new() };
    let mut on = site.boot(Boot::Right, HOUR_US);
    if on.spool.status().is_unread {
        return Err("the spool did not start: its folder was not read".to_owned());
    }
    if let Some((undated, _)) = &on.dater.leaving {
        count(&reached.held, 1_u8);
        count(&reached.half_moved, undated.moved_before(&on.spool) > 0);
    }
    let before = site.polled.len();
    site.run(&mut on, 2 * MINUTE_US).await;
    if on.dater.is_waiting() || Undated::is_there(&on.spool) {
        return Err("what was held did not move".to_owned());
    }
    on.dater.end().await;
    if !on.spool.sync().await {
        return Err("it does not write".to_owned());
    }
    on.spool.close().await;
    let mut stored = site.stored().await;
    // Where the disk refused for a while, what was polled meanwhile went before what was held.
    stored.sort_by(|one, other| one.value.partial_cmp(&other.value).expect("numbers"));
    count(&reached.estimated, marked(&stored) > 0);
    let numbers: HashSet<usize> =
        stored.iter().filter_map(|reading| reading.value).map(|value| value as usize).collect();
    let slot_of = |number: usize| {
        let (_, sensor, true_us) = &site.polled[number];
        (sensor.clone(), sensors().grid(sensor).expect("known").slot_of(*true_us))
    };
    // The slot in which the clock comes is polled twice, and the second time nothing is taken: it is held already.
    let is_polled_twice = |number: usize| numbers.iter().any(|other| slot_of(*other) == slot_of(number));
    let is_acknowledged = |number: usize| {
        let is_told = number >= before || acknowledged.iter().any(|range| range.contains(&number));
        is_told && !is_polled_twice(number)
    };
    let faults = site.faults_but_for(&stored, |number| !is_acknowledged(number as usize));
    if faults.is_empty() { Ok(()) } else { Err(format!("{faults:?}")) }
}

/// A runtime of a test, whose time passes when nobody has anything to do.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

/// One workload, and the images of all its boundaries.
fn one(seed: u64, lie: Lie, reached: &Reached) -> Result<(), String> {
    let (mut workload, boundaries) = Workload::new(seed, lie);
    runtime().block_on(workload.run(reached));
    let boundaries: Vec<Snapshot> = boundaries.try_iter().collect();
    assert!(boundaries.len() < BOUNDARIES_MAX, "not all boundaries were looked at");
    let halves = boundaries.chunks(boundaries.len().div_ceil(2).max(1));
    std::thread::scope(|scope| {
        let (site, acknowledged) = (&workload.site, &workload.acknowledged);
        let checks: Vec<_> = halves
            .map(|half| {
                scope.spawn(move || {
                    let (runtime, mut random) = (runtime(), fastrand::Rng::with_seed(seed));
                    for ((marks, state), crash) in
                        half.iter().flat_map(|boundary| CRASHES.map(|crash| (boundary, crash)))
                    {
                        let image = Memory::image_of(state, crash, &mut random);
                        let checked = runtime.block_on(check(image, site, &acknowledged[..*marks], reached));
                        checked.map_err(|error| format!("{crash:?}: {error}"))?;
                    }
                    Ok(())
                })
            })
            .collect();
        let ended = checks.into_iter().map(|check| check.join().unwrap_or_else(|_| Err("a check panicked".to_owned())));
        let ended: Vec<Result<(), String>> = ended.collect();
        ended.into_iter().collect()
    })
}

/// Workloads from this seed on until so many images were looked at, and each rare branch was reached.
fn run(seed: u64, images: u64, lie: Lie, reached: &Reached) -> Result<(), String> {
    for seed in (0..WORKLOADS_MAX).map(|more| seed.wrapping_add(more)) {
        one(seed, lie, reached).map_err(|error| format!("TJERN_SEED={seed}: {error}"))?;
        if reached.images.load(Ordering::Relaxed) >= images && reached.all() {
            break;
        }
    }
    Ok(())
}

/// A fresh seed, or the one that `TJERN_SEED` names.
fn seed() -> u64 {
    let named = std::env::var("TJERN_SEED").ok().map(|seed| seed.parse().expect("TJERN_SEED is a number"));
    named.unwrap_or_else(|| fastrand::u64(..))
}

/// A power cut while readings wait for the clock, while it is decided how they are dated, while they move, and while their
/// folder goes.
#[test]
fn every_boundary_of_the_way_of_held_readings_is_a_crash_that_loses_nothing() {
    let (seed, reached) = (seed(), Reached::default());
    let result = run(seed, 1_500, Lie::None, &reached);
    println!("TJERN_SEED={seed}: {reached:?}");
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(reached.all(), "a rare branch was not reached: {reached:?}");
}

/// Every call of a move fails, with the few after it, and the process is killed while the disk is sick or soon after: what was
/// decided may be on disk although nobody could say so, and what is polled meanwhile was once counted as moved.
#[test]
fn an_error_at_any_call_of_a_move_and_a_kill_lose_nothing() {
    for (after, calls) in (0..60).flat_map(|after| [1, 4, 12].map(|calls| (after, calls))) {
        let (mut workload, _boundaries) = Workload::new(after, Lie::None);
        let kept = runtime().block_on(async {
            let mut on = workload.site.boot(Boot::Year1970, 0);
            workload.site.run(&mut on, 5 * MINUTE_US).await;
            workload.sync(&on).await;
            workload.disk.refuse_after(after, calls, EIO);
            workload.site.set_clock(&on);
            workload.site.run(&mut on, MINUTE_US).await;
            workload.sync(&on).await;
            workload.disk.cut();
            let image = Memory::image_of(&workload.disk.state(), Crash::All, &mut workload.random);
            check(image, &workload.site, &workload.acknowledged, &Reached::default()).await
        });
        kept.unwrap_or_else(|error| panic!("{calls} calls fail after {after}: {error}"));
    }
}

/// The canaries: a build that begins to move before its decision is on disk, one that lets the held ones go before what was
/// appended is on disk, and one that skips the sync of files, or that of folders.
#[test]
fn a_build_that_moves_held_readings_without_a_sync_is_caught() {
    let seed = seed();
    for lie in [Lie::Decisions, Lie::Log, Lie::FileSyncs, Lie::FolderSyncs] {
        let caught = run(seed, 6_000, lie, &Reached::default());
        println!("{lie:?}: {}", caught.as_ref().err().map_or("", |error| &error[..error.len().min(200)]));
        assert!(caught.is_err(), "TJERN_SEED={seed}: {lie:?} would pass");
    }
}
