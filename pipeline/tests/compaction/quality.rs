//! Quality control takes no more memory than it was given, whatever there is to judge.

use std::path::Path;

use tjern_lake::{DataFile, FileWriter, Lake, Operation, Table, TableName};
use tjern_pipeline::bounds::Bounds;
use tjern_pipeline::compact::CompactSettings;
use tjern_pipeline::quality::{ControlOutcome, control_within};
use tjern_pipeline::register::{OptionalFile, RegisterFiles, register};
use tokio_util::sync::CancellationToken;

use crate::memory::memory;
use crate::place::{ALONE, HOUR_US, a_lake, commit, file, numbers, rows};

pub(crate) const MEMORY_BYTES: u64 = 4 << 20;
/// In how many times its own it may do. What does not grow with the rows is most of it: a row group as it is read, and as it is
/// written in two ways, and what a process makes once.
pub(crate) const TIMES: u64 = 12;
const SENSORS: i64 = 10;
pub(crate) const SENSOR_ROWS: i64 = 20_000;
/// What a row takes at the least while it is sorted: ten numbers and three texts of 8 to 40 bytes.
const ROW_BYTES: u64 = 128;
pub(crate) const DAY_US: i64 = 20_000 * 24 * HOUR_US;

/// A city with these sensors, whose values are plausible from `low` on.
async fn city(folder: &Path, lake: &Lake, low: i64) {
    let path = |name: &str| folder.join(name);
    let (mut sites, mut sensors) =
        ("site,name_nb\n".to_owned(), "id,site,quantity,unit,kind,class,low,high\n".to_owned());
    for number in 0..SENSORS {
        sites += &format!("tarn-{number:03},Tjern {number}\n");
        sensors += &format!("tarn-{number:03}/level,tarn-{number:03},level,m,sample,public,{low},\n");
    }
    std::fs::write(path("sites.csv"), sites).expect("written");
    std::fs::write(path("sensors.csv"), sensors).expect("written");
    let optional = |name: &str| OptionalFile { path: path(name), required: false };
    let files = RegisterFiles {
        sites: path("sites.csv"),
        sensors: path("sensors.csv"),
        required: true,
        installations: optional("installations.csv"),
        events: optional("events.csv"),
        rules: optional("quality.csv"),
        timezone: jiff::tz::TimeZone::UTC,
        may_end_all: false,
    };
    register(lake, &files).await.expect("registered");
}

/// One sealed file of all rows, a sensor after the other.
pub(crate) async fn sealed(lake: &Lake) -> DataFile {
    let mut writer = FileWriter::sealed(TableName::Readings).expect("made");
    for sensor in 0..SENSORS {
        for first in (0..SENSOR_ROWS).step_by(5_000) {
            // Of all numbers those of this sensor, at one a second.
            let first = sensor + first * SENSORS;
            let part = rows(first, 5_000 * SENSORS, SENSORS, |number| DAY_US + number / SENSORS * 1_000_000);
            let mine: arrow::array::BooleanArray =
                (0..5_000 * SENSORS).map(|row| Some((first + row) % SENSORS == sensor)).collect();
            writer.write(&arrow::compute::filter_record_batch(&part, &mine).expect("rows")).expect("written");
        }
    }
    writer.finish(lake).await.expect("stored")
}

/// The same rows in one file as somebody else would write it: not in our order.
async fn unsorted(lake: &Lake) -> DataFile {
    let mut writer = FileWriter::new(TableName::Readings).expect("made");
    for first in (0..SENSORS * SENSOR_ROWS).step_by(10_000) {
        writer.write(&rows(first, 10_000, SENSORS, |number| DAY_US + number / SENSORS * 1_000_000)).expect("written");
    }
    writer.finish(lake).await.expect("stored")
}

async fn readings(lake: &Lake) -> Table {
    Table::open(lake, TableName::Readings).await.expect("opened").expect("there")
}

async fn run(lake: &Lake, bounds: &Bounds) -> (ControlOutcome, Option<u64>) {
    let before = memory();
    let outcome = control_within(lake, bounds, &CancellationToken::new()).await.expect("judged");
    (outcome, before.zip(memory()).map(|((had, _), (_, most))| most.saturating_sub(had)))
}

pub(crate) fn bounds(memory_bytes: u64, spill: &Path) -> Bounds {
    let spill_folder = spill.to_owned();
    Bounds::from(&CompactSettings { memory_bytes, spill_folder, ..CompactSettings::default() })
}

/// A new rule has every reading of a sealed file judged anew, and another program's `OPTIMIZE` leaves a file in no order: ten times
/// the memory, each. A fixed gigabyte, and a file system in memory to spill to, ended servers that have no gigabyte. The
/// canary is the same with memory enough, which takes more.
#[tokio::test(flavor = "multi_thread")]
async fn ten_times_the_memory_is_judged_within_it() {
    let _alone = ALONE.lock().await;
    let spill = tempfile::tempdir().expect("a folder");
    let all = usize::try_from(SENSORS * SENSOR_ROWS).expect("small");
    let input = u64::try_from(all).expect("small") * ROW_BYTES;
    assert!(input > 10 * (MEMORY_BYTES / 2), "{input} bytes of rows, to be sorted in half of {MEMORY_BYTES}");
    let mut grown = Vec::new();
    for (is_sorted, memory_bytes) in [(true, MEMORY_BYTES), (false, MEMORY_BYTES), (true, 1 << 30)] {
        let (folder, lake) = a_lake();
        city(folder.path(), &lake, 0).await;
        let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("a table");
        // The first run warms up what a process makes once.
        let few = file(&lake, &rows(0, 1, 1, |_| DAY_US - 90 * 24 * HOUR_US)).await;
        table.commit(commit(Operation::Ingest, vec![few.clone()], vec![])).await.expect("committed");
        run(&lake, &bounds(memory_bytes, spill.path())).await;
        table.refresh().await.expect("read");
        let there = table.files();
        let new = if is_sorted { sealed(&lake).await } else { unsorted(&lake).await };
        assert_eq!(new.sorted, is_sorted);
        table.commit(commit(Operation::Compact, vec![new], there)).await.expect("committed");
        city(folder.path(), &lake, -1).await;
        let before = numbers(&readings(&lake).await).await.expect("read");
        let (outcome, more) = run(&lake, &bounds(memory_bytes, spill.path())).await;
        eprintln!("sorted: {is_sorted}, in {memory_bytes}: {outcome:?}, {more:?} bytes more");
        assert_eq!((outcome.rows_changed, outcome.files_rewritten), (all, 1));
        let table = readings(&lake).await;
        assert!(table.files().iter().all(|file| file.sorted));
        assert_eq!(numbers(&table).await.expect("read"), before);
        assert_eq!(outcome.spilled_bytes > 0, memory_bytes == MEMORY_BYTES, "{outcome:?}");
        assert_eq!(std::fs::read_dir(spill.path()).expect("a folder").count(), 0, "nothing stays behind");
        grown.extend(more);
        if is_sorted && memory_bytes == MEMORY_BYTES {
            one_late_reading(&lake, &bounds(MEMORY_BYTES, spill.path())).await;
            nowhere_to_spill(&lake, folder.path()).await;
        }
    }
    if let [sorted, unsorted, free] = grown[..] {
        assert!(sorted.max(unsorted) < TIMES * MEMORY_BYTES, "it took {sorted} and {unsorted} bytes");
        // What the runs before gave back to the allocator it takes first, so that it is held against them.
        assert!(free > sorted.max(unsorted), "the measure does not see {free} bytes");
    }
}

/// A late reading has the sealed file beside it written anew; its neighbourhood is sorted, and not the file.
async fn one_late_reading(lake: &Lake, bounds: &Bounds) {
    let late = rows(SENSORS * SENSOR_ROWS, 1, SENSORS, |_| DAY_US + 5_000_500_000);
    let mut table = readings(lake).await;
    table.commit(commit(Operation::Ingest, vec![file(lake, &late).await], vec![])).await.expect("committed");
    let (outcome, _) = run(lake, bounds).await;
    assert_eq!((outcome.files_seen, outcome.spilled_bytes), (2, 0), "{outcome:?}");
}

/// Spilled rows go to the folder of the configuration and nowhere else: where that cannot be, the run fails, and
/// says where.
async fn nowhere_to_spill(lake: &Lake, folder: &Path) {
    city(folder, lake, -2).await;
    let no_folder = folder.join("sensors.csv");
    let refused = control_within(lake, &bounds(MEMORY_BYTES, &no_folder), &CancellationToken::new()).await;
    let error = refused.expect_err("a file is no folder").to_string();
    assert!(error.contains("sensors.csv"), "{error}");
}
