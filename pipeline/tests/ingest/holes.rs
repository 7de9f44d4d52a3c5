//! Numbers that are missing: explained by their gateway, filled after all, or accepted by a person.

use tjern_lake::{Table, TableName};
use tjern_pipeline::correct::Author;
use tjern_pipeline::ingest::{AcceptError, Accepted, Ingester, accept, dropped, ingest, missing, open_runs};
use tjern_readings::keys::{Bounds, Landed};

use crate::support::{EPOCH, HOUR_US, Place, SETTINGS, bounds, source};

async fn readings(place: &Place) -> Table {
    Table::open(&place.lake(), TableName::Readings).await.expect("opened").expect("there")
}

/// Which numbers are missing, and whether they were dropped.
async fn open(place: &Place) -> Vec<(Bounds, bool)> {
    open_runs(&readings(place).await).into_iter().map(|run| (run.bounds, run.dropped)).collect()
}

async fn drop_numbers(place: &Place, first: i64, last: i64) {
    place.put(&Landed::Gap(EPOCH, bounds(first, last)).key(&source("elva-01")), b"{}".to_vec()).await;
}

/// A hole of the numbers 3 to 20 that was waited for in vain.
async fn with_a_hole() -> Place {
    let place = Place::new();
    place.land("elva-01", 1, 2).await;
    place.land("elva-01", 21, 30).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    place.ahead(2 * HOUR_US);
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").passed, 1);
    assert_eq!(open(&place).await, [(bounds(3, 20), false)]);
    place
}

/// A gateway that was out of reach for a day, its spool full, says what it dropped an hour after the city gave up: the
/// word was ignored, and the alarm about a hole that nobody could explain went on for ever.
#[tokio::test]
async fn a_gap_that_comes_too_late_explains_its_hole() {
    let place = with_a_hole().await;
    assert_eq!(dropped(&readings(&place).await), []);
    drop_numbers(&place, 3, 9).await;
    drop_numbers(&place, 10, 12).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let wanted = [(bounds(3, 9), true), (bounds(10, 12), true), (bounds(13, 20), false)];
    assert_eq!(open(&place).await, wanted);
    let told = dropped(&readings(&place).await);
    assert_eq!((told.len(), told[0].readings, told[0].last_us), (1, 10, place.clock.now_us()));
    let version = readings(&place).await.version();
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(readings(&place).await.version(), version, "it is explained once");
    // Restored from its disk after all: what was dropped is taken as ever.
    place.land("elva-01", 10, 12).await;
    place.land("elva-01", 13, 20).await;
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").rows, 11);
    assert_eq!(open(&place).await, [(bounds(3, 9), true)]);
}

/// A person knows that the box burnt down: it is told no more, and what comes all the same is taken.
#[tokio::test]
async fn a_hole_that_a_person_accepts_is_nobodys_trouble_and_can_be_filled() {
    let place = with_a_hole().await;
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened");
    ingester.run().await.expect("ingested");
    let author = Author { by: "a technician".to_owned(), reason: Some("the box burnt down".to_owned()) };
    let name = source("elva-01");
    let accepting = |first, last| accept(&lake, &name, EPOCH, bounds(first, last), &author);
    assert_eq!(accepting(5, 20).await.expect("accepted"), Accepted::Now);
    assert_eq!(accepting(6, 7).await.expect("accepted"), Accepted::Before);
    for (first, last) in [(1, 2), (2, 4), (21, 22), (31, 40)] {
        assert!(matches!(accepting(first, last).await, Err(AcceptError::NoHole { .. })), "{first} to {last}");
    }
    let found: Vec<_> =
        missing(&readings(&place).await).iter().map(|run| (run.first, run.last, run.accepted)).collect();
    assert_eq!(found, [(3, 4, false), (5, 20, true)]);
    let records = place.keys("corrections");
    assert_eq!(records.len(), 1, "who, when and why, once: {records:?}");
    // The daemon knows of it though another process did it.
    drop_numbers(&place, 5, 6).await;
    place.land("elva-01", 7, 20).await;
    assert_eq!(ingester.run_everything().await.expect("ingested").rows, 14);
    let found: Vec<_> =
        missing(&readings(&place).await).iter().map(|run| (run.first, run.last, run.accepted)).collect();
    assert_eq!(found, [(3, 4, false), (5, 6, true)]);
}
