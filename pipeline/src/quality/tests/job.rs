//! The job over tables: what it changes, and what it leaves alone.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use tjern_readings::store::Store;
use tjern_testing::simulated::Simulated;

use super::*;
use crate::bounds::Bounds;
use crate::testing::commit;
use tjern_lake::{Lake, Operation, Table, TableName, write_file};
use tokio_util::sync::CancellationToken;

/// Helsinki's −327.68 °C, on the day before somebody registered the sensor.
#[tokio::test]
async fn what_came_before_its_sensor_was_registered_fails_afterwards() {
    let place = Place::new();
    let rows = [Row::new("t", NOW_US, -327.68), Row::new("t", NOW_US + HOUR_US, 18.5), Row::new("u", NOW_US, -327.68)];
    place.ingest(&rows).await;
    assert_eq!(control(&place.lake).await.expect("done").rows_changed, 0);
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    let outcome = control(&place.lake).await.expect("done");
    assert_eq!((outcome.files_rewritten, outcome.rows_changed), (1, 2));
    let mut after = place.readings().await;
    after.sort_by_key(|row| (row.sensor.clone(), row.time_us));
    let qualities: Vec<_> = after.iter().map(|row| row.quality).collect();
    assert_eq!(qualities, [4, 1, 2]);
    let unflagged = |row: Row| Row { quality: 2, tests: None, ..row };
    assert_eq!(after.into_iter().map(unflagged).collect::<Vec<_>>(), rows);
    let version = place.version(TableName::Readings).await;
    assert_eq!(control(&place.lake).await.expect("done").files_rewritten, 0);
    assert_eq!(place.version(TableName::Readings).await, version, "nothing to do, and a commit");
}

/// Quality control was off for longer than vacuum keeps what compaction replaced: it failed at every run after that, −327.68 °C was
/// never judged, and went out.
#[tokio::test]
async fn a_file_that_vacuum_took_before_it_was_looked_at_stops_nothing() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    place.ingest(&[Row::new("t", NOW_US, 18.5)]).await;
    control(&place.lake).await.expect("done");
    place.ingest(&[Row::new("t", NOW_US + HOUR_US, -327.68)]).await;
    place.ingest(&[Row::new("t", NOW_US + 2 * HOUR_US, 18.0)]).await;
    place.compact().await;
    let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let folder = place.folder.path().join("lake/tables/readings");
    let mut taken = 0;
    for file in std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()) {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".parquet") && !table.files().iter().any(|kept| kept.path.ends_with(name)) {
            std::fs::remove_file(&file).expect("removed");
            taken += 1;
        }
    }
    assert!(taken >= 3, "compaction replaced {taken}");
    control(&place.lake).await.expect("what is gone counts as far as it reached");
    let mut after = place.readings().await;
    after.sort_by_key(|row| row.time_us);
    assert_eq!(after.iter().map(|row| row.quality).collect::<Vec<_>>(), [1, 4, 1]);
}

#[tokio::test]
async fn a_corrected_range_takes_its_own_flags_back_and_no_others() {
    let place = Place::new();
    let register = place.register(&["t,Cel,sample,public,0,10"]).await;
    let came = [Row::new("t", NOW_US, 15.0), Row::new("t", NOW_US + HOUR_US, 5.0).quality(4)];
    let evaluated = evaluate(&batch_of(&came), &register.into()).expect("evaluated");
    assert_eq!(rows_of(&evaluated).iter().map(|row| row.quality).collect::<Vec<_>>(), [4, 4]);
    place.ingest(&rows_of(&evaluated)).await;
    place.register(&["t,Cel,sample,public,0,20"]).await;
    control(&place.lake).await.expect("done");
    assert_eq!(place.readings().await.iter().map(|row| row.quality).collect::<Vec<_>>(), [1, 4]);
}

/// Ingest may have evaluated a batch by the register of a minute ago.
#[tokio::test]
async fn what_came_in_by_an_older_register_is_found_later() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    place.ingest(&[Row::new("t", NOW_US, 10.0).quality(1)]).await;
    control(&place.lake).await.expect("done");
    place.ingest(&[Row::new("t", NOW_US + HOUR_US, 99.0)]).await;
    let outcome = control(&place.lake).await.expect("done");
    assert_eq!((outcome.files_rewritten, outcome.rows_changed), (1, 1));
}

#[tokio::test]
async fn without_tables_there_is_nothing_to_do() {
    let place = Place::new();
    assert_eq!(control(&place.lake).await.expect("done"), ControlOutcome::default());
    Table::open_or_create(&place.lake, TableName::Readings).await.expect("created");
    assert_eq!(control(&place.lake).await.expect("done"), ControlOutcome::default());
}

/// Ice, maintenance: what the register says of a time holds for its readings, and is taken back with it.
#[tokio::test]
async fn readings_in_an_event_are_not_good() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    let rows: Vec<Row> = (0..4).map(|hour| Row::new("t", NOW_US + hour * HOUR_US, 10.0)).collect();
    place.ingest(&rows).await;
    control(&place.lake).await.expect("done");
    let events = place.folder.path().join("events.csv");
    let said = "sensor,kind,began,ended,quality\n\
        tjern/t,maintenance,2026-07-01T07:00:00Z,2026-07-01T08:00:00Z,\ntjern/*,ice,2026-07-01T08:00:00Z,2026-07-01T09:00:00Z,3\n";
    std::fs::write(&events, said).expect("written");
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    control(&place.lake).await.expect("done");
    let qualities = |rows: &[Row]| {
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| row.time_us);
        rows.iter().map(|row| row.quality).collect::<Vec<_>>()
    };
    assert_eq!(qualities(&place.readings().await), [1, 4, 3, 1]);
    std::fs::write(&events, "sensor,kind,began\n").expect("written");
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    control(&place.lake).await.expect("done");
    assert_eq!(qualities(&place.readings().await), [1, 1, 1, 1]);
}

/// The commit says by which rules, and rewrites nothing else.
#[tokio::test]
async fn a_commit_names_the_version_of_the_rules() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    place.ingest(&[Row::new("t", NOW_US, 10.0)]).await;
    control(&place.lake).await.expect("done");
    let version = place.version(TableName::Readings).await.expect("a version");
    let log = place.folder.path().join(format!("lake/tables/readings/_delta_log/{version:020}.json"));
    let commit = std::fs::read_to_string(log).expect("the commit");
    assert!(commit.contains(&format!("\"tjern.quality\":\"rules {RULES_VERSION}\"")), "{commit}");
    // The same parameters under the same version of the tests: an edit of the register is another version.
    let versions = [TableName::Events, TableName::Installations, TableName::QualityRules, TableName::Sensors];
    let mut told = Vec::new();
    for name in versions {
        told.push(format!("\"{}\":{}", name.as_str(), place.version(name).await.unwrap_or(-1)));
    }
    assert!(commit.contains(&format!("\"tjern.register\":{{{}}}", told.join(","))), "{commit}");
}

/// A rule that changes is applied to what lies there, of its own sensors.
#[tokio::test]
async fn a_changed_rule_is_applied_to_what_lies_there() {
    let place = Place::new();
    let sensors = ["t,Cel,sample,public,-2,40", "u,Cel,sample,public,-2,40"];
    place.register(&sensors).await;
    place.ingest(&[Row::new("t", NOW_US, 10.0)]).await;
    place.ingest(&[Row::new("u", NOW_US, 10.0)]).await;
    control(&place.lake).await.expect("done");
    let rule = "sensors,test,months,parameters\ntjern/t,climatology,7,suspect=12..25\n";
    std::fs::write(place.folder.path().join("quality.csv"), rule).expect("written");
    place.register(&sensors).await;
    assert_eq!(control(&place.lake).await.expect("done").rows_changed, 1);
    let mut rows = place.readings().await;
    rows.sort_by(|one, other| one.sensor.cmp(&other.sensor));
    assert_eq!(rows.iter().map(|row| row.quality).collect::<Vec<_>>(), [3, 1]);
}

/// A lake to which only sensors write that nobody registered: each run looked at all commits since the beginning.
#[tokio::test]
async fn where_nobody_registered_anything_the_log_to_look_at_does_not_grow() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    place.ingest(&[Row::new("t", NOW_US, 10.0)]).await;
    control(&place.lake).await.expect("done");
    let mut furthest = 0;
    for round in 0..150 {
        place.ingest(&[Row::new("unregistered", NOW_US + round * HOUR_US, 10.0)]).await;
        if round % 10 == 9 {
            place.compact().await;
            control(&place.lake).await.expect("done");
            let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
            furthest = furthest.max(table.version() - table.transaction("quality").unwrap_or(0));
        }
    }
    assert!(furthest <= 80, "{furthest} commits to be looked at");
}

/// More than four groups of files.
const READINGS: i64 = 260;

/// The first run over a city's history takes long, and whoever stops the service does not wait for it: what was committed
/// stays, nobody else is kept out, and the next run does the rest.
#[tokio::test]
async fn a_run_that_is_stopped_is_finished_by_the_next() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    let mut table = Table::open_or_create(&place.lake, TableName::Readings).await.expect("a table");
    let mut files = Vec::new();
    for hour in 0..READINGS {
        let row = Row { seq: hour + 1, ..Row::new("t", NOW_US + hour * HOUR_US, 10.0) };
        files.push(write_file(&place.lake, TableName::Readings, &[batch_of(&[row])]).await.expect("written"));
    }
    table.commit(commit(Operation::Ingest, files, vec![])).await.expect("committed");
    let before = place.version(TableName::Readings).await.expect("a version");
    let (bounds, stop) = (Bounds::default(), CancellationToken::new());
    let all = usize::try_from(READINGS).expect("few");
    let stopping = async {
        // As soon as something was committed.
        while place.version(TableName::Readings).await == Some(before) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(control_within(&place.lake, &bounds, &stop), stopping);
    let outcome = outcome.expect("stopped");
    assert!(outcome.unfinished && (1..all).contains(&outcome.rows_changed), "{outcome:?}");
    let rest = control(&place.lake).await.expect("done");
    assert!(!rest.held_elsewhere && !rest.unfinished, "{rest:?}");
    assert_eq!(outcome.rows_changed + rest.rows_changed, all);
    assert!(place.readings().await.iter().all(|row| row.quality == 1));
}

/// A machine that stood still, and went on when another one had its lease: it read, judged and wrote all that was left, for hours,
/// and threw away a group after the other.
#[tokio::test]
async fn who_lost_the_lease_begins_no_further_group() {
    let place = Place::new();
    let simulated = Arc::new(Simulated::new(place.clock.clone()));
    let objects: Arc<dyn ObjectStore> = Arc::<Simulated>::clone(&simulated);
    let store = Store::over(objects, "s3://city/lake".parse().expect("a lake"));
    let place = Place { lake: Lake::over(store).with_clock(place.clock.clone()), ..place };
    for hour in 0..200 {
        place.ingest(&[Row::new("t", NOW_US + hour * HOUR_US, -327.68)]).await;
    }
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    let files = || simulated.keys().into_iter().filter(|key| key.ends_with(".parquet")).count();
    let before = files();
    // So long that a lease of five minutes is over after a few requests, and before what a group has cost.
    simulated.charge(Duration::from_secs(100));
    let outcome = control(&place.lake).await.expect("it let go");
    simulated.charge(Duration::ZERO);
    assert!(outcome.unfinished && outcome.files_rewritten == 0, "{outcome:?}");
    assert!(outcome.files_seen <= 64, "one group is of 64 files: {outcome:?}");
    assert_eq!(files(), before, "what it wrote is let go");
    place.clock.advance_us(HOUR_US);
    let outcome = control(&place.lake).await.expect("done");
    assert_eq!((outcome.files_seen, outcome.rows_changed, outcome.unfinished), (200, 200, false));
}
