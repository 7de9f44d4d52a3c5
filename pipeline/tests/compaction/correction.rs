//! A sensor that was configured wrongly for years is computed again in no more memory than was given.

use object_store::ObjectStoreExt;
use tjern_lake::{Lake, Operation, Table, TableName};
use tjern_pipeline::bounds::Bounds;
use tjern_pipeline::correct::Author;
use tjern_pipeline::correct::recompute::{Again, Formula, Formulas, Period, recompute_within};
use tjern_readings::keys::Landed;
use tjern_readings::sensor::SensorId;

use crate::memory::memory;
use crate::place::{ALONE, a_lake, commit, file, numbers, rows};
use crate::quality::{DAY_US, MEMORY_BYTES, TIMES, bounds};

const FILES: i64 = 42;
const FILE_ROWS: i64 = 8_192;
/// What a row takes at the least while it is sorted: ten numbers and three texts of 8 to 40 bytes.
const ROW_BYTES: u64 = 128;

/// A reading's number is what it should have been less one.
struct OneMore;

impl Formulas for OneMore {
    fn formula(&self, _: &str, _: &SensorId) -> Result<Formula, String> {
        Ok(Box::new(|stored| match stored {
            Ok(value) => Ok(Again::Value(value + 1.0)),
            Err(_) => Ok(Again::AsItIs),
        }))
    }

    fn words(&self) -> serde_json::Value {
        serde_json::json!({ "offset": 1.0 })
    }
}

/// So many files of one sensor's readings, in no order, and the configuration that they were measured under.
async fn fill(lake: &Lake, count: i64) -> Table {
    let mut table = Table::open_or_create(lake, TableName::Readings).await.expect("a table");
    let sha256 = "ab".repeat(32);
    let source = "landfall-01".parse().expect("valid");
    lake.objects().put(&Landed::Configuration(sha256.clone()).key(&source), "1".into()).await.expect("put");
    let mut files = Vec::new();
    for index in 0..count {
        // Numbers jump about, so that times are in no order.
        let time_us = |number: i64| DAY_US + number * 7_919 % (FILES * FILE_ROWS) * 1_000_000;
        files.push(file(lake, &rows(index * FILE_ROWS, FILE_ROWS, 1, time_us)).await);
    }
    let mut commit = commit(Operation::Ingest, files, vec![]);
    let step = format!(":configuration/landfall-01/0123456789abcdef0123456789abcdef/{:020}/{sha256}", 0);
    commit.transactions.push((step, 1));
    table.commit(commit).await.expect("committed");
    table
}

async fn run(lake: &Lake, count: i64, bounds: &Bounds) -> Option<u64> {
    let period = Period {
        sensor: "tarn-000/level".parse().expect("valid"),
        from_us: DAY_US,
        to_us: DAY_US + FILES * FILE_ROWS * 1_000_000,
    };
    let author = Author { by: "a technician".to_owned(), reason: None };
    let before = memory();
    let outcome = recompute_within(lake, &period, &OneMore, &author, false, bounds).await.expect("computed");
    let grown = before.zip(memory()).map(|((had, _), (_, most))| most.saturating_sub(had));
    assert_eq!(outcome.left, []);
    assert_eq!(i64::try_from(outcome.corrected).expect("small"), count * FILE_ROWS);
    grown
}

/// It sorted within a fixed gigabyte, whatever the configuration said. The canary is the same with memory enough, which takes more.
#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_memory_is_computed_again_within_it() {
    let _alone = ALONE.lock().await;
    let spill = tempfile::tempdir().expect("a folder");
    let input = u64::try_from(FILES * FILE_ROWS).expect("small") * ROW_BYTES;
    assert!(input > 10 * MEMORY_BYTES, "{input} bytes of rows");
    // The first run warms up what a process makes once.
    let (_warm_folder, warm) = a_lake();
    fill(&warm, 1).await;
    run(&warm, 1, &bounds(MEMORY_BYTES, spill.path())).await;
    let mut grown = Vec::new();
    for memory_bytes in [MEMORY_BYTES, 1 << 30] {
        let (_folder, lake) = a_lake();
        let mut table = fill(&lake, FILES).await;
        let before = table.files().len();
        grown.extend(run(&lake, FILES, &bounds(memory_bytes, spill.path())).await);
        table.refresh().await.expect("read");
        assert!(table.files().len() > before);
        let rows: i64 = table.files().iter().filter_map(|file| file.rows).sum();
        assert_eq!(rows, 2 * FILES * FILE_ROWS);
        // The values are one more than the numbers, of which each stands there twice.
        let error = numbers(&table).await.expect_err("the values were corrected");
        let sum = (FILES * FILE_ROWS - 1) * FILES * FILE_ROWS;
        assert_eq!(error, format!("the values' sum is {}, the numbers' {sum}", sum + FILES * FILE_ROWS));
        assert_eq!(std::fs::read_dir(spill.path()).expect("a folder").count(), 0, "nothing stays behind");
    }
    eprintln!("{input} bytes of rows in {MEMORY_BYTES}, and freely: {grown:?} bytes more");
    if let [bounded, free] = grown[..] {
        assert!(bounded < TIMES * MEMORY_BYTES, "it took {bounded} bytes");
        assert!(free > bounded, "the measure does not see {free} bytes");
    }
}
