//! Ingest, register, quality control, compaction, rollups, checkpoints and vacuum over a store that fails, a life a
//! seed: nothing is lost, nothing is there twice, and neither memory nor requests grow without bound.
//!
//! The fault model stands in `tjern_testing::faults`; a life is told in `life.rs`, what must be true of it in
//! `oracle.rs`. Of each life the seed is the whole input; what it prints when it fails plays it again:
//! `TJERN_STORM_SEED`. `TJERN_STORM_SEEDS` and `TJERN_STORM_FIRST` play more or others.
//!
//! Canary: an ingest that takes an error to mean "not committed" is caught.

mod believer;
mod life;
mod oracle;
mod sky;

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tjern_testing::faults::{Fault, Kind, Tally};

use life::{Ingesting, Life};
use sky::Sky;

/// How many seeds are played by default, from one that is drawn: other lives each time. `just storms` plays a thousand.
const SEEDS: u64 = 300;

/// After so many lives the process has all that it makes once, and the longest of them are among them as a rule.
const LIVES_WARM: u64 = 50;

/// By how much the peak of all later lives may be above that of those: what 250 lives leave behind with 150 KiB each is more.
const GROWTH_KIB_MAX: u64 = 32 << 10;

/// Tests of one process that measure it, or would be measured with it, take turns.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most requests of one life: more would be a storm of our own.
const REQUESTS_MAX: u64 = 6_000;

/// How many lives are lived over HTTP, and how many requests of a thousand fail there.
const HTTP_SEEDS: u64 = 4;
const HTTP_PER_MILLE: u64 = 60;

fn number_of(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number")))
}

/// Plays one life in a runtime of its own, whose clock passes by itself while everybody waits.
fn play(seed: u64, ingesting: Ingesting) -> Result<Tally, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let lived =
        runtime.block_on(AssertUnwindSafe(Box::pin(Life::live(seed, Sky::memory(seed), ingesting))).catch_unwind());
    match lived {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(format!("it panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
        }
    }
}

/// The most memory that this process had since it was last asked, in KiB; none where the system does not say (proc(5),
/// `VmHWM` and `clear_refs`).
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// How much more the process took at its peak than before; none where the system does not say.
fn growth_kib(before: Option<u64>) -> Option<u64> {
    Some(peak_kib()?.saturating_sub(before?))
}

type Failed = Mutex<Vec<(u64, String)>>;

/// Plays lives on all cores.
fn play_all(seeds: Range<u64>, total: &Mutex<Tally>, failed: &Failed) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match play(seed, Ingesting::Real) {
                        Ok(tally) if tally.requests() <= REQUESTS_MAX => total.lock().expect("whole").add(&tally),
                        Ok(tally) => failed.lock().expect("whole").push((seed, format!("{tally:?}"))),
                        Err(what) => failed.lock().expect("whole").push((seed, what)),
                    }
                }
            });
        }
    });
}

/// Every kind of request suffers every fault that befalls it, or the model is not what it says.
fn assert_all_faults(tally: &Tally) {
    for kind in [Kind::Put, Kind::Get, Kind::List, Kind::Delete] {
        for fault in Fault::of(kind) {
            assert!(tally.faults.contains_key(&(kind, *fault)), "{fault:?} never befell a {kind:?}");
        }
    }
}

#[test]
fn a_store_that_fails_loses_and_doubles_nothing() {
    let _alone = alone();
    if let Some(seed) = number_of("TJERN_STORM_SEED") {
        let tally = play(seed, Ingesting::Real).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        println!("seed {seed}: {} requests, {} failed", tally.requests(), tally.faults());
        return;
    }
    let first = number_of("TJERN_STORM_FIRST").unwrap_or_else(|| fastrand::u64(1..1 << 40));
    let seeds = number_of("TJERN_STORM_SEEDS").unwrap_or(SEEDS);
    let (total, failed) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    peak_kib();
    let warm = seeds.min(LIVES_WARM);
    play_all(first..first + warm, &total, &failed);
    let before = peak_kib();
    play_all(first + warm..first + seeds, &total, &failed);
    let growth = growth_kib(before);
    let total = total.into_inner().expect("whole");
    println!(
        "{seeds} seeds from {first}: {} requests, {} failed; peak of the first {warm} {before:?} KiB, of the others {growth:?} KiB more",
        total.requests(),
        total.faults(),
    );
    for (fault, count) in &total.faults {
        println!("  {fault:?}: {count}");
    }
    for (seed, what) in failed.lock().expect("whole").iter() {
        println!(
            "seed {seed}: {what}\n  play it again: TJERN_STORM_SEED={seed} cargo test --workspace --test storms -- --nocapture a_store_that_fails"
        );
    }
    let failed = failed.into_inner().expect("whole");
    assert!(failed.is_empty(), "{} of {seeds} seeds failed, see above", failed.len());
    if seeds >= SEEDS {
        assert_all_faults(&total);
    }
    assert!(growth.is_none_or(|growth| growth <= GROWTH_KIB_MAX), "it grew by {growth:?} KiB");
}

/// The canary: what is kept of each life is seen, though what was given back before is used again.
#[test]
fn memory_that_lives_leave_behind_is_seen() {
    let _alone = alone();
    let Some(before) = peak_kib().and_then(|_| peak_kib()) else {
        println!("skipped: this system does not say how much memory a process has");
        return;
    };
    let mut kept = Vec::new();
    for life in 0..SEEDS - LIVES_WARM {
        kept.push(vec![u8::try_from(life % 255).expect("small") + 1; 1 << 20]);
    }
    let growth = growth_kib(Some(before)).expect("it said so before");
    assert!(growth > GROWTH_KIB_MAX, "{growth} KiB of {} lives", kept.len());
}

/// The same lives over HTTP: answers that break off, 429 with `Retry-After`, resets, 409, stalls, and what the
/// client of S3 makes of them. Its pauses are real, so they are few.
#[test]
fn an_s3_server_that_fails_loses_and_doubles_nothing() {
    let _alone = alone();
    let seeds = number_of("TJERN_STORM_SEED").map_or(1..=HTTP_SEEDS, |seed| seed..=seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    for seed in seeds {
        let living = async { Box::pin(Life::live(seed, Sky::http(seed, HTTP_PER_MILLE).await, Ingesting::Real)).await };
        let lived = runtime.block_on(Box::pin(living));
        lived.unwrap_or_else(|what| {
            panic!(
                "seed {seed}: {what}\n  play it again: TJERN_STORM_SEED={seed} cargo test --workspace --test storms -- --nocapture an_s3_server"
            )
        });
    }
}

/// An ingest that repeats a commit whose reply was lost, as if nothing had come of it, is what every one of
/// these rules is there to prevent: the harness has to see it.
#[test]
fn the_harness_catches_an_ingest_that_believes_errors() {
    let _alone = alone();
    let caught = (1..=40).find_map(|seed| play(seed, Ingesting::BelievesErrors).err().map(|what| (seed, what)));
    let (seed, what) = caught.expect("an ingest that doubles rows passed 40 lives");
    println!("caught with seed {seed}: {what}");
    assert!(what.contains("twice"), "caught for another reason: {what}");
}
