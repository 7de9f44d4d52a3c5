//! The job over tables: what it changes, and what it leaves alone.

use super::*;
use tjern_lake::{Table, TableName};

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

#[tokio::test]
async fn a_corrected_range_takes_its_own_flags_back_and_no_others() {
    let place = Place::new();
    let register = place.register(&["t,Cel,sample,public,0,10"]).await;
    let came = [Row::new("t", NOW_US, 15.0), Row::new("t", NOW_US + HOUR_US, 5.0).quality(4)];
    let evaluated = evaluate(&batch_of(&came), &register).expect("evaluated");
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
