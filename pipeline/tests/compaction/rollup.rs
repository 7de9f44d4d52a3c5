//! Hours and days are summed up in no more memory than was given, however much was imported since the last time.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, lexsort_to_indices, take_record_batch};
use futures::TryStreamExt;
use jiff::tz::TimeZone;
use tjern_lake::{FileReader, Lake, Operation, Table, TableName, schema};
use tjern_pipeline::bounds::Bounds;
use tjern_pipeline::rollup::{RollupOutcome, rollup_within};

use crate::memory::memory;
use crate::place::{ALONE, HOUR_US, a_lake, commit, file, rows};
use crate::quality::{DAY_US, MEMORY_BYTES, TIMES, bounds};

/// A month of so many sensors, a reading every ten minutes, so that the hours do not fit either.
const SENSORS: i64 = 75;
const MONTH_ROWS: i64 = 31 * 144;
const FILE_ROWS: i64 = MONTH_ROWS * SENSORS / 40;
/// What a row takes at the least while it is sorted: nine numbers and three texts of 8 to 40 bytes.
const ROW_BYTES: u64 = 128;
/// The same of an hour: fourteen numbers and a name.
const HOUR_BYTES: u64 = 128;
/// 2024-10-01, on which a month of 31 days begins.
const MONTH_US: i64 = DAY_US - 3 * 24 * HOUR_US;

/// Imports the month in files that each go over all sensors, in the order of time, as sources send.
async fn fill(lake: &Lake) {
    let mut table = Table::open_or_create(lake, TableName::Readings).await.expect("a table");
    let mut files = Vec::new();
    for index in 0..40 {
        // Not on a window's border: what lies there may be of the window before.
        let time_us = |number: i64| MONTH_US + (number / SENSORS * 10 + 1) * 60 * 1_000_000;
        files.push(file(lake, &rows(index * FILE_ROWS, FILE_ROWS, SENSORS, time_us)).await);
    }
    table.commit(commit(Operation::Ingest, files, vec![])).await.expect("committed");
}

/// What comes late for the first sensor and for the last: all that lies between them is of files that are written anew.
async fn late(lake: &Lake) {
    let mut table = Table::open_or_create(lake, TableName::Readings).await.expect("a table");
    let late = rows(SENSORS * MONTH_ROWS, 2 * SENSORS, SENSORS, |number| MONTH_US + HOUR_US + number * 1_000);
    let ends = [0, SENSORS - 1].map(|place| late.slice(usize::try_from(place).expect("small"), 1));
    let late = concat_batches(&late.schema(), &ends).expect("rows");
    let file = file(lake, &late).await;
    table.commit(commit(Operation::Ingest, vec![file], vec![])).await.expect("committed");
}

async fn run(lake: &Lake, bounds: &Bounds) -> (RollupOutcome, Option<u64>) {
    let before = memory();
    let outcome = rollup_within(lake, &TimeZone::UTC, bounds).await.expect("summed up");
    (outcome, before.zip(memory()).map(|((had, _), (_, most))| most.saturating_sub(had)))
}

/// All rows of a table, in one order.
async fn all(lake: &Lake, name: TableName) -> RecordBatch {
    let (mut held, wanted) = (Vec::new(), schema::arrow(name));
    let table = Table::open(lake, name).await.expect("opened").expect("there");
    for file in table.files() {
        assert!(file.sorted, "{file:?}");
        let rows = FileReader::open(lake, name, &file).await.expect("opened").rows(8_192).expect("rows");
        for batch in rows.try_collect::<Vec<RecordBatch>>().await.expect("read") {
            let columns = batch.columns().iter().zip(wanted.fields());
            let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()).expect("cast"));
            held.push(RecordBatch::try_new(Arc::clone(&wanted), columns.collect()).expect("the table's columns"));
        }
    }
    let whole = concat_batches(&wanted, &held).expect("rows");
    let keys = whole
        .columns()
        .iter()
        .take(3)
        .map(|values| arrow::compute::SortColumn { values: Arc::clone(values), options: None });
    let order = lexsort_to_indices(&keys.collect::<Vec<_>>(), None).expect("an order");
    take_record_batch(&whole, &order).expect("rows")
}

/// A city imports a river's month, and the rollup after it held every reading of it, twice: out of memory at each try, for
/// ever. The canary is the same with memory enough, which takes more.
#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_memory_is_summed_up_within_it() {
    let _alone = ALONE.lock().await;
    let spill = tempfile::tempdir().expect("a folder");
    let readings = usize::try_from(SENSORS * MONTH_ROWS).expect("small");
    let input = u64::try_from(readings).expect("small") * ROW_BYTES;
    assert!(input > 10 * MEMORY_BYTES, "{input} bytes of rows");
    let hours = readings / 6;
    let kept = u64::try_from(hours).expect("small") * HOUR_BYTES;
    assert!(kept > MEMORY_BYTES, "{kept} bytes of hours");
    let (mut grown, mut summed_up) = (Vec::new(), Vec::new());
    for memory_bytes in [MEMORY_BYTES, 1 << 30] {
        let (_folder, lake) = a_lake();
        let bounds = bounds(memory_bytes, spill.path());
        // The first run warms up what a process makes once.
        let (_warm_folder, warm) = a_lake();
        late(&warm).await;
        run(&warm, &bounds).await;
        fill(&lake).await;
        let (outcome, everything) = run(&lake, &bounds).await;
        assert_eq!(outcome.hourly.readings_read, readings);
        assert_eq!((outcome.hourly.rows_computed, outcome.daily.rows_computed), (hours, hours / 24));
        late(&lake).await;
        let (outcome, touched) = run(&lake, &bounds).await;
        assert_eq!((outcome.hourly.rows_computed, outcome.daily.rows_computed), (2, 2), "{outcome:?}");
        eprintln!("in {memory_bytes}: {everything:?} bytes more for everything, {touched:?} for two readings");
        assert_eq!(std::fs::read_dir(spill.path()).expect("a folder").count(), 0, "nothing stays behind");
        grown.push(everything.zip(touched));
        summed_up.push([all(&lake, TableName::Hourly).await, all(&lake, TableName::Daily).await]);
    }
    assert_eq!(summed_up[0], summed_up[1]);
    assert_eq!(summed_up[0][0].num_rows(), hours);
    if let [Some((everything, touched)), Some((free, _))] = grown[..] {
        assert!(everything.max(touched) < TIMES * MEMORY_BYTES, "it took {everything} and {touched} bytes");
        // What the runs before gave back to the allocator it takes first, so that it is held against them.
        assert!(free > everything.max(touched), "the measure does not see {free} bytes");
    }
}
