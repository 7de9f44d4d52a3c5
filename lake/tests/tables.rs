//! What a lake's tables promise whatever happens between two commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use jiff::tz::TimeZone;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::session::MEMORY_BYTES;
use tjern_lake::{
    Access, Commit, CommitError, DataFile, Lake, Operation, SessionSettings, Table, TableName, Version, schema,
    session, write_file,
};
use tjern_readings::clock::Clock;
use tjern_readings::store::{LakeUrl, Store};

#[path = "tables/damage.rs"]
mod damage;
#[path = "tables/latest.rs"]
mod latest;

const HOUR_US: i64 = 3_600_000_000;

struct Row {
    sensor: &'static str,
    hour: i64,
    value: Option<f64>,
    quality: i8,
    cause: Option<&'static str>,
    revision: i16,
    /// Microseconds after the beginning of its hour.
    received_us: i64,
    source: &'static str,
    epoch: &'static str,
    seq: i64,
}

fn row(sensor: &'static str, hour: i64, value: f64) -> Row {
    Row {
        sensor,
        hour,
        value: Some(value),
        quality: 1,
        cause: None,
        revision: 0,
        received_us: 1,
        source: "landfall-01",
        epoch: "abababababababababababababababab",
        seq: hour + 1,
    }
}

fn readings(rows: &[Row]) -> RecordBatch {
    let text = |of: fn(&Row) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let time = |of: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        text(|row| row.sensor),
        time(|row| row.hour * HOUR_US),
        Arc::new(rows.iter().map(|row| row.value).collect::<Float64Array>()),
        Arc::new(Int8Array::from_iter_values(rows.iter().map(|row| row.quality))),
        Arc::new(StringArray::from_iter(rows.iter().map(|row| row.cause))),
        Arc::new(Int32Array::new_null(rows.len())),
        text(|row| row.source),
        text(|row| row.epoch),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.seq))),
        Arc::new(Int16Array::from_iter_values(rows.iter().map(|row| row.revision))),
        Arc::new(Int8Array::from_iter_values(rows.iter().map(|_| 0))),
        Arc::new(Int32Array::new_null(rows.len())),
        time(|row| row.hour * HOUR_US + row.received_us),
    ];
    RecordBatch::try_new(schema::arrow(TableName::Readings), columns).expect("the table's columns")
}

fn a_lake() -> (tempfile::TempDir, Lake) {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Lake::open(&LakeUrl::folder(folder.path()).expect("absolute")).expect("opened");
    (folder, lake)
}

fn commit(operation: Operation, add: Vec<DataFile>, remove: Vec<DataFile>, txn: Option<(&str, i64)>) -> Commit {
    let transactions = txn.into_iter().map(|(app_id, number)| (app_id.to_owned(), number)).collect();
    Commit { operation, add, remove, transactions, notes: BTreeMap::new() }
}

async fn append(table: &mut Table, rows: &[Row], txn: Option<(&str, i64)>) -> Result<i64, CommitError> {
    let file = write_file(table.lake(), TableName::Readings, &[readings(rows)]).await.expect("written");
    table.commit(commit(Operation::Ingest, vec![file], vec![], txn)).await
}

async fn ask(lake: &Lake, access: Access, sql: &str) -> String {
    let timezone = TimeZone::get("Europe/Oslo").expect("known");
    let settings = SessionSettings { access, timezone, memory_bytes: MEMORY_BYTES };
    let context = session(lake, &settings).await.expect("opened");
    let answer = async { context.sql(sql).await?.collect().await };
    match answer.await {
        Ok(batches) => pretty_format_batches(&batches).expect("shown").to_string(),
        Err(error) => format!("error: {error}"),
    }
}

async fn count(lake: &Lake) -> String {
    ask(lake, Access::Staff, "SELECT count(*) AS n, sum(value) AS s FROM readings").await
}

#[tokio::test]
async fn a_table_is_read_as_it_was_committed() {
    let (_folder, lake) = a_lake();
    assert!(Table::open(&lake, TableName::Readings).await.expect("looked").is_none());
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    append(&mut table, &[row("a/b", 0, 1.0), row("a/b", 1, 2.0)], Some(("landfall-01/e", 2))).await.expect("committed");
    let other = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    assert_eq!((other.version(), other.transaction("landfall-01/e")), (1, Some(2)));
    assert_eq!(other.files(), table.files());
    assert!(other.files()[0].sorted && other.files()[0].unique);
    assert!(count(&lake).await.contains("| 2 | 3.0 |"), "{}", count(&lake).await);
}

/// After fifty commits the log has a checkpoint; what is read from it must be what the commits said.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_holds_what_the_commits_said() {
    let (folder, lake) = a_lake();
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    for hour in 0..52 {
        append(&mut table, &[row("a/b", hour, 1.0)], Some(("ingest", hour))).await.expect("committed");
    }
    let log = folder.path().join("tables/readings/_delta_log");
    assert!(log.join("_last_checkpoint").exists(), "no checkpoint was made");
    for version in 0..=49 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).expect("there");
    }
    let other = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    assert_eq!((other.version(), other.transaction("ingest")), (52, Some(51)));
    assert_eq!(other.files(), table.files(), "statistics and tags survive the checkpoint");
    assert!(count(&lake).await.contains("| 52 | 52.0 |"));
}

/// Of two ingesters with the same numbers one is refused: otherwise every row stood there twice.
#[tokio::test]
async fn a_stale_ingest_is_refused() {
    let (_folder, lake) = a_lake();
    let mut one = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    let mut other = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    append(&mut one, &[row("a/b", 0, 1.0)], Some(("ingest", 1))).await.expect("first");
    let refused = append(&mut other, &[row("a/b", 0, 1.0)], Some(("ingest", 1))).await;
    assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
    other.refresh().await.expect("refreshed");
    assert_eq!(other.transaction("ingest"), Some(1));
    assert!(count(&lake).await.contains("| 1 | 1.0 |"));
}

/// delta-rs's own `optimize()` doubles every row here: both compactors commit (field notes of the
/// design). Ours is fenced, so the second is refused.
#[tokio::test]
async fn of_two_compactors_one_is_refused() {
    let (_folder, lake) = a_lake();
    let mut one = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    append(&mut one, &[row("a/b", 0, 1.0)], None).await.expect("committed");
    append(&mut one, &[row("a/b", 1, 2.0)], None).await.expect("committed");
    let mut other = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    for (table, wins) in [(&mut one, true), (&mut other, false)] {
        let merged = [readings(&[row("a/b", 0, 1.0), row("a/b", 1, 2.0)])];
        let file = write_file(&lake, TableName::Readings, &merged).await.expect("written");
        let removed = table.files();
        let result = table.commit(commit(Operation::Compact, vec![file], removed, None)).await;
        assert_eq!(result.is_ok(), wins, "{result:?}");
    }
    assert!(count(&lake).await.contains("| 2 | 3.0 |"), "{}", count(&lake).await);
}

/// An ingest that a compaction came before is refused, and goes through when it is repeated with the
/// same file; a compaction of files that are gone never does.
#[tokio::test]
async fn an_ingest_outlives_a_compaction_but_not_the_reverse() {
    let (_folder, lake) = a_lake();
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    append(&mut table, &[row("a/b", 0, 1.0)], None).await.expect("committed");
    let mut ingester = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    let mut compactor = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    let compacted = |files: Vec<Row>| async {
        let files = files;
        write_file(&lake, TableName::Readings, &[readings(&files)]).await.expect("written")
    };
    let file = compacted(vec![row("a/b", 0, 1.0)]).await;
    let removed = table.files();
    table.commit(commit(Operation::Compact, vec![file], removed, None)).await.expect("compacted");
    let file = write_file(&lake, TableName::Readings, &[readings(&[row("a/b", 1, 2.0)])]).await.expect("written");
    let again = || commit(Operation::Ingest, vec![file.clone()], vec![], Some(("ingest", 1)));
    let refused = ingester.commit(again()).await;
    assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
    ingester.refresh().await.expect("refreshed");
    ingester.commit(again()).await.expect("repeated");
    let file = compacted(vec![row("a/b", 0, 1.0)]).await;
    let removed = compactor.files();
    let late = compactor.commit(commit(Operation::Compact, vec![file], removed, None)).await;
    assert!(matches!(late, Err(CommitError::Conflict { .. })), "{late:?}");
    assert!(count(&lake).await.contains("| 2 | 3.0 |"), "{}", count(&lake).await);
}

async fn register(lake: &Lake, sensors: &[(&str, &str, Option<f64>, Option<f64>)]) {
    let mut table = Table::open_or_create(lake, TableName::Sensors).await.expect("created");
    let text = |of: fn(&str) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(sensors.iter().map(|(id, ..)| of(id))))
    };
    let always = |word: &'static str| -> ArrayRef { Arc::new(StringArray::from(vec![word; sensors.len()])) };
    let nothing = || -> ArrayRef { Arc::new(StringArray::new_null(sensors.len())) };
    let rows = RecordBatch::try_new(
        schema::arrow(TableName::Sensors),
        vec![
            text(|id| id),
            text(|id| id.split('/').next().unwrap_or_default()),
            text(|id| id.rsplit('/').next().unwrap_or_default()),
            nothing(),
            nothing(),
            nothing(),
            always("Cel"),
            always("sample"),
            Arc::new(StringArray::from_iter_values(sensors.iter().map(|(_, class, ..)| class))),
            nothing(),
            Arc::new(sensors.iter().map(|(_, _, low, _)| *low).collect::<Float64Array>()),
            Arc::new(sensors.iter().map(|(_, _, _, high)| *high).collect::<Float64Array>()),
            nothing(),
            Arc::new(TimestampMicrosecondArray::from(vec![0; sensors.len()]).with_timezone("UTC")),
            Arc::new(TimestampMicrosecondArray::new_null(sensors.len()).with_timezone("UTC")),
            Arc::new(Float64Array::new_null(sensors.len())),
        ],
    )
    .expect("the table's columns");
    let file = write_file(lake, TableName::Sensors, &[rows]).await.expect("written");
    table.commit(commit(Operation::Register, vec![file], vec![], None)).await.expect("committed");
}

/// One row per sensor and time, the newest revision, and never one that failed: Helsinki once told
/// its bathers −327.68 °C.
#[tokio::test]
async fn observations_show_the_newest_word_and_no_failure() {
    let (_folder, lake) = a_lake();
    register(&lake, &[("a/t", "public", Some(-2.0), Some(35.0)), ("b/t", "internal", None, None)]).await;
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    let rows = [
        row("a/t", 0, 17.0),
        Row { quality: 2, ..row("a/t", 1, -327.68) },
        Row { quality: 4, ..row("a/t", 2, 20.0) },
        row("b/t", 0, 5.0),
        row("c/t", 0, 6.0),
    ];
    append(&mut table, &rows, None).await.expect("committed");
    append(&mut table, &[Row { revision: 1, ..row("a/t", 0, 17.5) }], None).await.expect("committed");
    let all = "SELECT sensor, value FROM observations ORDER BY sensor";
    let staff = ask(&lake, Access::Staff, all).await;
    let shown: Vec<_> = staff.lines().skip(3).filter(|line| line.starts_with('|')).collect();
    assert_eq!(shown, ["| a/t    | 17.5  |", "| b/t    | 5.0   |", "| c/t    | 6.0   |"], "{staff}");
    let public = ask(&lake, Access::Public, all).await;
    assert!(public.contains("a/t") && !public.contains("b/t") && !public.contains("c/t"), "{public}");
}

#[tokio::test]
async fn the_public_has_no_way_to_what_is_not_public() {
    let (_folder, lake) = a_lake();
    register(&lake, &[("a/t", "public", None, None), ("b/t", "internal", None, None)]).await;
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    append(&mut table, &[row("a/t", 0, 1.0), row("b/t", 0, 2.0)], None).await.expect("committed");
    for name in ["readings", "all_readings", "all_sensors", "newest_revisions", "settled_readings"] {
        let answer = ask(&lake, Access::Public, &format!("SELECT * FROM {name}")).await;
        assert!(answer.starts_with("error"), "{name}: {answer}");
    }
    for name in ["sensors", "latest", "observations", "hourly"] {
        let answer = ask(&lake, Access::Public, &format!("SELECT * FROM {name}")).await;
        assert!(!answer.contains("b/t") && !answer.starts_with("error"), "{name}: {answer}");
    }
}

#[tokio::test]
async fn an_empty_lake_answers() {
    let (_folder, lake) = a_lake();
    for name in ["readings", "observations", "hourly", "daily", "latest", "sites", "sensors"] {
        let answer = ask(&lake, Access::Staff, &format!("SELECT count(*) FROM {name}")).await;
        assert!(answer.contains("| 0 "), "{name}: {answer}");
    }
}

#[tokio::test]
async fn a_query_reaches_no_file() {
    let (_folder, lake) = a_lake();
    for sql in [
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "SELECT * FROM '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
    ] {
        let answer = ask(&lake, Access::Staff, sql).await;
        assert!(answer.starts_with("error"), "{sql}: {answer}");
    }
}

#[tokio::test]
async fn sorted_files_are_merged_and_not_sorted_again() {
    let (_folder, lake) = a_lake();
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    append(&mut table, &[row("a/t", 0, 1.0), row("b/t", 0, 2.0)], None).await.expect("committed");
    append(&mut table, &[row("a/t", 5, 1.0), row("b/t", 5, 2.0)], None).await.expect("committed");
    let plan = ask(&lake, Access::Staff, "EXPLAIN SELECT sensor, time FROM readings ORDER BY sensor, time").await;
    assert!(plan.contains("SortPreservingMergeExec") && !plan.contains("SortExec: expr"), "{plan}");
    let pruned =
        ask(&lake, Access::Staff, "EXPLAIN SELECT value FROM readings WHERE time > TIMESTAMP '1970-01-01T03:00:00Z'")
            .await;
    assert_eq!(pruned.matches(".parquet").count(), 1, "{pruned}");
}

/// A job that opens a table would else read again what the job before it read: up to fifty commits a time.
#[tokio::test(flavor = "multi_thread")]
async fn opening_a_table_again_costs_one_listing() {
    let (_folder, lake) = a_lake();
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    for hour in 0..30 {
        append(&mut table, &[row("a/b", hour, 1.0)], None).await.expect("committed");
    }
    let opened = |lake: Lake| async move {
        let before = lake.store().requests();
        let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
        let spent = lake.store().requests().since(&before);
        (table.version(), table.files().len(), spent.lists, spent.gets)
    };
    assert_eq!(opened(lake.clone()).await, (30, 30, 1, 0), "what was committed through this lake is known");
    append(&mut table, &[row("a/b", 31, 1.0)], None).await.expect("committed");
    assert_eq!(opened(lake.clone()).await, (31, 31, 1, 0));
}

/// Who only reads, or wants to know whether there is anything to do, need not have the very newest version. In a cloud
/// each listing is billed.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_may_be_old_costs_nothing_or_one_get() {
    let (objects, clock) = (Arc::new(object_store::memory::InMemory::new()), Clock::manual(0));
    let process = || {
        let objects: Arc<dyn object_store::ObjectStore> = Arc::<object_store::memory::InMemory>::clone(&objects);
        Lake::over(Store::over(objects, "s3://city/lake".parse().expect("a lake"))).with_clock(clock.clone())
    };
    let (reader, writer) = (process(), process());
    let mut table = Table::open_or_create(&writer, TableName::Readings).await.expect("created");
    append(&mut table, &[row("a/b", 0, 1.0)], None).await.expect("committed");
    let look = async |second: i64, age: u64| {
        clock.set_us(second * 1_000_000);
        let before = reader.store().requests();
        let age = std::time::Duration::from_secs(age);
        let table = Table::open_within(&reader, TableName::Readings, age).await.expect("looked").expect("there");
        let spent = reader.store().requests().since(&before);
        (table.version(), spent.lists, spent.gets)
    };
    let (version, lists, _) = look(0, 60).await;
    assert_eq!((version, lists), (1, 1), "nothing was known");
    assert_eq!(look(30, 60).await, (1, 0, 0));
    append(&mut table, &[row("a/b", 1, 1.0)], None).await.expect("committed");
    assert_eq!(look(59, 60).await, (1, 0, 0), "the other process's commit is not seen yet");
    assert_eq!(look(61, 60).await, (2, 0, 2), "it, and that there is no other");
    assert_eq!(look(200, 60).await, (2, 0, 1));
    let (version, lists, _) = look(700, 60).await;
    assert_eq!((version, lists), (2, 1), "a listing every ten minutes");
    // What this process commits is known at once.
    let mut own = Table::open(&reader, TableName::Readings).await.expect("opened").expect("there");
    append(&mut own, &[row("a/b", 2, 1.0)], None).await.expect("committed");
    assert_eq!(look(700, 60).await, (3, 0, 0));
}

/// Who was told of a version asks for the commits up to it; a listing is for what is far ahead, is not there, or is no
/// step ahead.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_of_costs_a_get_each() {
    let objects: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let process = || {
        let store = Store::over(Arc::clone(&objects), "s3://city/lake".parse().expect("a lake"));
        Lake::over(store).with_clock(Clock::manual(0))
    };
    let (reader, writer) = (process(), process());
    let mut table = Table::open_or_create(&writer, TableName::Readings).await.expect("created");
    Table::open(&reader, TableName::Readings).await.expect("opened").expect("there");
    let mut hours = 1_i64..;
    for (commits, lists) in [(1, 0), (16, 0), (17, 1)] {
        for hour in hours.by_ref().take(commits) {
            append(&mut table, &[row("a/b", hour, 1.0)], None).await.expect("committed");
        }
        let told = table.known_version();
        let before = reader.store().requests();
        let seen = Table::open_told(&reader, TableName::Readings, told).await.expect("opened").expect("there");
        let spent = reader.store().requests().since(&before);
        assert_eq!((seen.known_version(), spent.lists), (told, lists), "{commits} commits");
        assert_eq!(spent.gets, u64::try_from(commits).expect("few"), "{commits} commits");
    }
    let before = reader.store().requests();
    let not_there = Version { version: 50, digest: None, id: None };
    let seen = Table::open_told(&reader, TableName::Readings, not_there).await.expect("opened").expect("there");
    assert_eq!(seen.known_version(), table.known_version());
    assert_eq!(reader.store().requests().since(&before).lists, 1, "what is not there is looked for");
}

/// A table that was made anew, with more commits than were known of the one before it: a server that is told goes on from
/// the old one's files with the new one's commits, and shows rows that nobody has any more, or has twice, for ten minutes.
/// Who is told of which table a version is sees that at once; who is told by a daemon of before is the canary.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_anew_is_found_out_at_once_by_who_is_told() {
    for tells_the_table in [true, false] {
        let objects: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let process = || {
            let store = Store::over(Arc::clone(&objects), "s3://city/lake".parse().expect("a lake"));
            Lake::over(store).with_clock(Clock::manual(0))
        };
        let (reader, writer) = (process(), process());
        let mut table = Table::open_or_create(&writer, TableName::Readings).await.expect("created");
        for hour in 0..3 {
            append(&mut table, &[row("a/b", hour, 1.0)], None).await.expect("committed");
        }
        let known = Table::open(&reader, TableName::Readings).await.expect("opened").expect("there").known_version();
        assert!(known.id.is_some(), "{known:?}");
        let keys: Vec<_> = objects.list(None).map_ok(|meta| meta.location).try_collect().await.expect("listed");
        for key in keys {
            objects.delete(&key).await.expect("gone");
        }
        let anew = process();
        let mut table = Table::open_or_create(&anew, TableName::Readings).await.expect("created");
        for hour in 10..15 {
            append(&mut table, &[row("a/b", hour, 5.0)], None).await.expect("committed");
        }
        let told = table.known_version();
        assert!(told.version > known.version && told.is_of_another(known));
        let told = if tells_the_table { told } else { Version { id: None, ..told } };
        let before = reader.store().requests();
        let seen = Table::open_told(&reader, TableName::Readings, told).await.expect("opened").expect("there");
        let is_right = seen.files() == table.files();
        assert_eq!(is_right, tells_the_table, "{:?}", seen.files());
        if tells_the_table {
            assert_eq!(seen.known_version(), told);
            println!("it cost {}", reader.store().requests().since(&before));
            // From a checkpoint on it is the same table.
            table.write_checkpoint().await.expect("written");
            let other = Table::open(&process(), TableName::Readings).await.expect("opened").expect("there");
            assert_eq!(other.known_version().id, told.id);
            append(&mut table, &[row("a/b", 20, 5.0)], None).await.expect("committed");
            let before = reader.store().requests();
            let seen = Table::open_told(&reader, TableName::Readings, table.known_version()).await;
            assert_eq!(seen.expect("opened").expect("there").files(), table.files());
            assert_eq!(reader.store().requests().since(&before).lists, 0, "and what follows costs what it did");
        }
    }
}

/// A table that was removed and made anew (a restore, a replay) begins at version 0 again: what was
/// known of the old one must not be taken for the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_made_anew_is_noticed() {
    let (folder, lake) = a_lake();
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    for hour in 0..3 {
        append(&mut table, &[row("a/b", hour, 1.0)], None).await.expect("committed");
    }
    assert!(count(&lake).await.contains("| 3 "), "{}", count(&lake).await);
    let old = table.known_version();
    std::fs::remove_dir_all(folder.path().join("tables/readings")).expect("removed");
    assert!(
        Table::open(&lake, TableName::Readings).await.expect("looked").is_none(),
        "the old one is still believed in"
    );
    let mut anew = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    append(&mut anew, &[row("a/b", 7, 5.0)], None).await.expect("committed");
    assert!(table.refresh().await.expect("looked"), "a handle of the old one goes on as if nothing had happened");
    assert_eq!((table.version(), table.files()), (1, anew.files()));
    assert!(count(&lake).await.contains("| 1 | 5.0 |"), "{}", count(&lake).await);
    for hour in 8..10 {
        append(&mut anew, &[row("a/b", hour, 5.0)], None).await.expect("committed");
    }
    let version = anew.known_version();
    assert_eq!(version.version, old.version);
    assert!(!version.is(old), "another commit of the same number passes for the old one: {version:?}");
    let elsewhere = Lake::open(lake.store().url()).expect("opened");
    let seen = Table::open(&elsewhere, TableName::Readings).await.expect("opened").expect("there").known_version();
    assert_eq!(seen, version, "who reads a commit knows it as the one who made it");
}
