//! Compaction takes no more memory than it was given, whatever there is to merge.

use std::path::Path;

use tjern_lake::{Lake, Operation, Table, TableName};
use tjern_pipeline::compact::{CompactOutcome, CompactSettings, Progress, compact};
use tokio_util::sync::CancellationToken;

use crate::place::{ALONE, HOUR_US, a_lake, commit, file, numbers, rows};

const MEMORY_BYTES: u64 = 4 << 20;
const FILES: i64 = 80;
const FILE_ROWS: i64 = 8_192;
/// What a row takes while it is gathered: thirteen columns, texts as numbers.
const ROW_BYTES: u64 = 67;

/// The process's memory, and the most that it had since it was last asked, in bytes.
pub(crate) fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
    };
    let now = (field("VmRSS:")?, field("VmHWM:")?);
    // Begins the most anew (proc(5), clear_refs).
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    Some(now)
}

/// Many files of one old day, each over the whole of it, so that all are merged at once.
async fn fill(lake: &Lake) -> Table {
    let mut table = Table::open_or_create(lake, TableName::Readings).await.expect("a table");
    let day_us = 20_000 * 24 * HOUR_US;
    let mut files = Vec::new();
    for index in 0..FILES {
        // Numbers jump about, so that neither sensors nor times are in order.
        let time_us = |number: i64| day_us + (number * 7_919 + index) % 86_400 * 1_000_000;
        files.push(file(lake, &rows(index * FILE_ROWS, FILE_ROWS, 40, time_us)).await);
    }
    let newest = rows(FILES * FILE_ROWS, 1, 1, |_| day_us + 90 * 24 * HOUR_US);
    files.push(file(lake, &newest).await);
    table.commit(commit(Operation::Ingest, files, vec![])).await.expect("committed");
    table
}

async fn run(lake: &Lake, memory_bytes: u64, spill: &Path) -> (CompactOutcome, Vec<Progress>, Option<u64>) {
    // Each thread has a heap of its own beside what is bounded: as many on every machine.
    let settings =
        CompactSettings { memory_bytes, spill_folder: spill.to_owned(), threads: 2, ..CompactSettings::default() };
    let mut seen = Vec::new();
    let before = memory();
    let stop = CancellationToken::new();
    let outcome = compact(lake, &settings, &stop, &mut |progress| seen.push(progress)).await.expect("compacted");
    let grown = before.zip(memory()).map(|((had, _), (_, most))| most.saturating_sub(had));
    (outcome, seen, grown)
}

/// A city that imports ten years at once must not lose its server to it. The canary is the same with memory
/// enough: that takes more than was allowed here, so the measure sees what it shall.
#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_memory_is_compacted_within_it() {
    let _alone = ALONE.lock().await;
    let spill = tempfile::tempdir().expect("a folder");
    let (_folder, lake) = a_lake();
    let (_other_folder, other) = a_lake();
    let table = fill(&lake).await;
    fill(&other).await;
    let before = numbers(&table).await.expect("read");
    let input = u64::try_from(before.0).expect("rows") * ROW_BYTES;
    assert!(input > 10 * MEMORY_BYTES, "{input} bytes");
    let (outcome, seen, grown) = run(&lake, MEMORY_BYTES, spill.path()).await;
    let (free, _, grown_free) = run(&other, 1 << 30, spill.path()).await;
    eprintln!("{input} bytes of rows in {MEMORY_BYTES}: {outcome:?}, {grown:?} bytes more; freely: {grown_free:?}");
    assert_eq!((outcome.removed, outcome.rows), (80, FILES * FILE_ROWS));
    assert!(outcome.spilled_runs > 10 && outcome.spilled_bytes > 8 * MEMORY_BYTES, "{outcome:?}");
    assert_eq!((free.removed, free.spilled_runs), (80, 0));
    let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    assert!(table.files().iter().all(|file| file.sorted));
    assert_eq!(numbers(&table).await.expect("read"), before);
    assert_eq!(std::fs::read_dir(spill.path()).expect("a folder").count(), 0, "nothing stays behind");
    assert!(seen.is_sorted_by_key(|progress| progress.done) && seen.len() > 80);
    assert!(seen.last().is_some_and(|last| last.done == last.total), "{:?}", seen.last());
    let (again, ..) = run(&lake, MEMORY_BYTES, spill.path()).await;
    assert_eq!((again.removed, again.rows), (0, 0), "it never comes to rest");
    if let Some((bounded, free)) = grown.zip(grown_free) {
        assert!(bounded < 4 * MEMORY_BYTES, "it took {bounded} bytes");
        assert!(free > 5 * MEMORY_BYTES, "the measure does not see {free} bytes");
    }
}
