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

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use tjern_testing::faults::{Fault, Kind, Tally};

use life::{Ingesting, Life};
use sky::Sky;

/// How many seeds are played by default, from one that is drawn: other lives each time. `just storms` plays a thousand.
const SEEDS: u64 = 300;

/// The most that the process may hold at its peak, whatever the number of lives.
const MEMORY_KIB_MAX: u64 = 1 << 20;

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

/// Peak memory of this process, in KiB (proc(5), `VmHWM`).
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
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
    if let Some(seed) = number_of("TJERN_STORM_SEED") {
        let tally = play(seed, Ingesting::Real).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        println!("seed {seed}: {} requests, {} failed", tally.requests(), tally.faults());
        return;
    }
    let first = number_of("TJERN_STORM_FIRST").unwrap_or_else(|| fastrand::u64(1..1 << 40));
    let seeds = number_of("TJERN_STORM_SEEDS").unwrap_or(SEEDS);
    let (next, total) = (AtomicU64::new(first), Mutex::new(Tally::default()));
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
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
    let total = total.into_inner().expect("whole");
    println!(
        "{seeds} seeds from {first}: {} requests, {} failed; peak {} KiB",
        total.requests(),
        total.faults(),
        peak_kib()
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
    assert!(peak_kib() < MEMORY_KIB_MAX, "{} KiB", peak_kib());
}

/// The same lives over HTTP: answers that break off, 429 with `Retry-After`, resets, 409, stalls, and what the
/// client of S3 makes of them. Its pauses are real, so they are few.
#[test]
fn an_s3_server_that_fails_loses_and_doubles_nothing() {
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
    let caught = (1..=40).find_map(|seed| play(seed, Ingesting::BelievesErrors).err().map(|what| (seed, what)));
    let (seed, what) = caught.expect("an ingest that doubles rows passed 40 lives");
    println!("caught with seed {seed}: {what}");
    assert!(what.contains("twice"), "caught for another reason: {what}");
}
