//! Two compactors, eight writers and readers at once: counts and sums equal an oracle at every version, and versions
//! are contiguous. That no reader misses a file which is removed meanwhile is shown in `vacuum.rs`: here nothing removes any.
//!
//! The lease is taken away all the time, so that both compactors believe to hold it: what keeps rows from
//! being doubled is the fence of the commit, and that is what is shown. `TJERN_COMMITS` is the number of commits of each
//! writer, 25 without it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::{join, join_all};
use futures::{FutureExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::{CommitError, Lake, Operation, Table, TableName};
use tjern_pipeline::compact::{CompactSettings, JOB, compact};
use tjern_readings::keys;
use tokio_util::sync::CancellationToken;

use crate::place::{ALONE, HOUR_US, a_lake, commit, file, numbers, rows, today_us};

const WRITERS: i64 = 8;
const ROWS: i64 = 30;

/// What each version brought: its rows, and the sum of their numbers.
type Oracle = Mutex<BTreeMap<i64, (i64, i64)>>;

fn commits() -> i64 {
    std::env::var("TJERN_COMMITS").ok().and_then(|count| count.parse().ok()).unwrap_or(25)
}

async fn open(lake: &Lake) -> Table {
    Table::open(lake, TableName::Readings).await.expect("opened").expect("there")
}

/// Commits as ingest does: again with the same file where somebody else was first. Returns how often that was.
async fn write(lake: &Lake, writer: i64, oracle: &Oracle) -> usize {
    let mut table = open(lake).await;
    let mut refused = 0;
    let base_us = today_us(lake);
    for round in 0..commits() {
        let first = (writer * commits() + round) * ROWS;
        let time_us = |number: i64| base_us + number % (24 * 3_600) * 1_000_000;
        let file = file(lake, &rows(first, ROWS, 5, time_us)).await;
        let version = loop {
            let mut wanted = commit(Operation::Ingest, vec![file.clone()], vec![]);
            wanted.transactions.push((format!("writer-{writer}/e"), round));
            match table.commit(wanted).await {
                Ok(version) => break version,
                Err(CommitError::Conflict { .. }) => {
                    refused += 1;
                    table.refresh().await.expect("refreshed");
                    assert!(table.transaction(&format!("writer-{writer}/e")) < Some(round), "it was refused, and done");
                }
                Err(error) => panic!("{error}"),
            }
        };
        // The commit may have been rebased, and the table then moved on further than it.
        let own = committed_as(lake, &file.path, version).await;
        oracle.lock().expect("whole").insert(own, (ROWS, (first..first + ROWS).sum()));
    }
    refused
}

/// The version that added a file, looked for in the log itself.
async fn committed_as(lake: &Lake, path: &str, until: i64) -> i64 {
    let log = keys::table("readings").join("_delta_log");
    for version in (0..=until).rev() {
        let key = log.clone().join(format!("{version:020}.json"));
        let bytes = lake.objects().get(&key).await.expect("a version").bytes().await.expect("read");
        let text = String::from_utf8_lossy(&bytes);
        if text.lines().any(|line| line.contains("\"add\"") && line.contains(path)) {
            return version;
        }
    }
    panic!("{path} is in no version up to {until}")
}

async fn keep_compacting(lake: &Lake, stop: &CancellationToken, merged: &AtomicUsize) {
    let settings = CompactSettings::default();
    while !stop.is_cancelled() {
        let outcome = compact(lake, &settings, &CancellationToken::new(), &mut |_| ()).await.expect("compacted");
        merged.fetch_add(outcome.removed, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

async fn keep_taking_leases_away(lake: &Lake, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        // Most of the time there is none.
        let _ = lake.objects().delete(&keys::lease(JOB)).await;
        tokio::task::yield_now().await;
    }
}

/// What readers saw: at which version, how many rows, and their sum.
async fn keep_reading(lake: &Lake, stop: &CancellationToken) -> Vec<(i64, i64, i64)> {
    let mut seen = Vec::new();
    let mut table = open(lake).await;
    while !stop.is_cancelled() {
        let (count, distinct, sum) = numbers(&table).await.expect("every file is there");
        assert_eq!(count, distinct, "a row is there twice at version {}", table.version());
        seen.push((table.version(), count, sum));
        table.refresh().await.expect("refreshed");
        tokio::task::yield_now().await;
    }
    seen
}

/// What is wrong with the table, held against what was committed.
async fn verdict(lake: &Lake, oracle: &Oracle, seen: &[(i64, i64, i64)]) -> Result<(), String> {
    let oracle = oracle.lock().expect("whole").clone();
    let until = |version: i64| {
        let committed = oracle.range(..=version).map(|(_, brought)| brought);
        committed.fold((0, 0), |(count, sum), (rows, numbers)| (count + rows, sum + numbers))
    };
    let log = keys::table("readings").join("_delta_log");
    let metas: Vec<_> = lake.objects().list(Some(&log)).try_collect().await.map_err(|error| error.to_string())?;
    let name = |meta: &object_store::ObjectMeta| meta.location.filename().unwrap_or_default().to_owned();
    let versions: Vec<_> = metas.iter().map(name).filter(|name| name.len() == 25 && name.ends_with(".json")).collect();
    let wanted: Vec<_> = (0..versions.len()).map(|version| format!("{version:020}.json")).collect();
    if versions != wanted {
        return Err(format!("versions are not contiguous: {versions:?}"));
    }
    let table = open(lake).await;
    let (count, distinct, sum) = numbers(&table).await?;
    let newest = (table.version(), count, sum);
    if count != distinct {
        return Err(format!("{} rows are there twice", count - distinct));
    }
    for (version, count, sum) in seen.iter().chain([&newest]) {
        if (*count, *sum) != until(*version) {
            return Err(format!("version {version} has {count} rows, sum {sum}; {:?} were committed", until(*version)));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_compactors_eight_writers_and_readers_at_once() {
    let _alone = ALONE.lock().await;
    let (_folder, lake) = a_lake();
    Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    let (oracle, stop, merged) = (Oracle::default(), CancellationToken::new(), AtomicUsize::new(0));
    let writing = join_all((0..WRITERS).map(|writer| write(&lake, writer, &oracle))).map(|refused| {
        stop.cancel();
        refused.into_iter().sum::<usize>()
    });
    let compacting = join(keep_compacting(&lake, &stop, &merged), keep_compacting(&lake, &stop, &merged));
    let reading = join(keep_reading(&lake, &stop), keep_reading(&lake, &stop));
    let taking = keep_taking_leases_away(&lake, &stop);
    let (refused, _, (mut seen, others), ()) =
        Box::pin(async { tokio::join!(writing, compacting, reading, taking) }).await;
    seen.extend(others);
    let merged = merged.into_inner();
    eprintln!(
        "{} commits, {refused} refused and repeated, {merged} files merged, {} looks",
        WRITERS * commits(),
        seen.len()
    );
    assert!(merged > 10, "compaction had something to do");
    assert_eq!(oracle.lock().expect("whole").len(), usize::try_from(WRITERS * commits()).expect("small"));
    verdict(&lake, &oracle, &seen).await.expect("as it was committed");
}

/// The canary: a compactor that, refused, removes what is still there and commits all the same, doubles rows; the
/// verdict says so.
#[tokio::test]
async fn a_compactor_that_does_not_look_again_is_caught() {
    let (_folder, lake) = a_lake();
    let mut one = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    let oracle = Oracle::default();
    for round in 0..2 {
        let first = round * ROWS;
        let file = file(&lake, &rows(first, ROWS, 5, |number| number * HOUR_US)).await;
        let version = one.commit(commit(Operation::Ingest, vec![file], vec![])).await.expect("committed");
        oracle.lock().expect("whole").insert(version, (ROWS, (first..first + ROWS).sum()));
    }
    let mut other = open(&lake).await;
    verdict(&lake, &oracle, &[]).await.expect("nothing is wrong yet");
    let merged = || async { file(&lake, &rows(0, 2 * ROWS, 5, |number| number * HOUR_US)).await };
    let (removed, stale) = (one.files(), other.files());
    one.commit(commit(Operation::Compact, vec![merged().await], removed)).await.expect("the first one");
    verdict(&lake, &oracle, &[]).await.expect("a compaction changes nothing");
    let file = merged().await;
    let refused = other.commit(commit(Operation::Compact, vec![file.clone()], stale.clone())).await;
    assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
    other.refresh().await.expect("refreshed");
    let still = stale.into_iter().filter(|file| other.is_active(file)).collect();
    other.commit(commit(Operation::Compact, vec![file], still)).await.expect("it does not look");
    let caught = verdict(&lake, &oracle, &[]).await.expect_err("rows are doubled");
    assert!(caught.contains("twice"), "{caught}");
}
