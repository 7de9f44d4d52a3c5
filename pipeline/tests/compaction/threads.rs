//! Compaction's files are the same whatever the number of threads.

use tjern_lake::{Operation, Table, TableName};
use tjern_pipeline::compact::{CompactSettings, compact};
use tokio_util::sync::CancellationToken;

use crate::place::{ALONE, HOUR_US, a_lake, commit, file, rows};

const FILES: i64 = 24;
const FILE_ROWS: i64 = 8_192;

/// The bytes of all sealed files, in the order of their times, and how many runs went to disk.
async fn sealed(threads: usize, memory_bytes: u64) -> (Vec<Vec<u8>>, u64) {
    let (folder, lake) = a_lake();
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("a table");
    let day_us = 20_000 * 24 * HOUR_US;
    let mut files = Vec::new();
    for index in 0..FILES {
        // Numbers jump about, so that neither sensors nor times are in order.
        let time_us = |number: i64| day_us + (number * 7_919 + index) % 86_400 * 1_000_000;
        files.push(file(&lake, &rows(index * FILE_ROWS, FILE_ROWS, 40, time_us)).await);
    }
    files.push(file(&lake, &rows(FILES * FILE_ROWS, 1, 1, |_| day_us + 90 * 24 * HOUR_US)).await);
    table.commit(commit(Operation::Ingest, files, vec![])).await.expect("committed");
    let spill = tempfile::tempdir().expect("a folder");
    let spill_folder = spill.path().to_owned();
    let settings = CompactSettings { memory_bytes, target_bytes: 128 << 10, spill_folder, threads };
    let outcome = compact(&lake, &settings, &CancellationToken::new(), &mut |_| ()).await.expect("compacted");
    assert_eq!(outcome.rows, FILES * FILE_ROWS);
    assert_eq!(std::fs::read_dir(spill.path()).expect("a folder").count(), 0, "nothing stays behind");
    table.refresh().await.expect("read");
    let mut files = table.files();
    files.retain(|file| file.sorted && file.rows > Some(1));
    files.sort_by_key(|file| (file.time_us, file.sensor.clone()));
    let folder = folder.path().join("tables/readings");
    let bytes = files.iter().map(|file| std::fs::read(folder.join(&file.path)).expect("read")).collect();
    (bytes, outcome.spilled_runs)
}

/// Threads are done when they are done: were a file to depend on it, no two machines would agree on one, and no fault could be
/// played again. With several threads there are other runs, so that the same files are no accident.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_the_same_on_any_number_of_threads() {
    let _alone = ALONE.lock().await;
    let (alone, runs) = sealed(1, 4 << 20).await;
    assert!(alone.len() > 2 && runs > 2, "{} files of {runs} runs", alone.len());
    for threads in [2, 5] {
        let (together, runs_together) = sealed(threads, 4 << 20).await;
        assert!(together == alone, "{threads} threads make other files: {} and {}", together.len(), alone.len());
        assert!(runs_together > runs, "the next run is gathered while one is written");
    }
}
