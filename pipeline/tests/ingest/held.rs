//! A source that cannot be read holds back itself: the others are taken, and cleaned up behind.

use tjern_lake::{Table, TableName};
use tjern_pipeline::ingest::{IngestError, IngestOutcome, Ingester, ingest, open_runs};
use tjern_readings::keys::Landed;
use tjern_testing::simulated::Fault;

use crate::support::{EPOCH, HOUR_US, Place, SECOND_US, SETTINGS, bounds, source, taken_long_ago};

/// The first batch of a source of five readings.
const FIRST: &str = "00000000000000000001-00000000000000000005.arrow";

fn held(result: Result<IngestOutcome, IngestError>) -> (IngestOutcome, String) {
    match result {
        Err(IngestError::HeldBack { outcome, count: 1, why }) => (*outcome, why),
        other => panic!("one source is held back: {other:?}"),
    }
}

/// One batch that the store refused (a right that is missing on it) kept what was taken long ago in the landing zone
/// for ever, and whatever lay behind the first 20,000 objects from being looked at.
#[tokio::test]
async fn a_refused_batch_keeps_nothing_from_being_taken_or_cleaned() {
    let place = Place::new();
    place.land("elva-01", 1, 5).await;
    taken_long_ago(&place, vec!["landfall-01".to_owned()], 20_500).await;
    place.ahead(HOUR_US);
    place.land("vind-01", 1, 6).await;
    place.store.fail(Fault::Withheld(FIRST));
    let (outcome, why) = held(ingest(&place.lake(), &SETTINGS).await);
    assert!(why.contains("landing/elva-01/"), "{why}");
    let kept = 7 * 24 + 7;
    assert_eq!(
        (outcome.rows, outcome.cleaned),
        (6, 20_500 - kept),
        "what lies behind it, and all but a week and a 24th"
    );
    place.store.fail(Fault::None);
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").rows, 5);
}

/// A source whose first batch cannot be had: the hundreds that lie behind it were downloaded each time one tried, and
/// thrown away.
#[tokio::test]
async fn nothing_is_downloaded_of_a_source_that_waits_for_a_batch() {
    let place = Place::new();
    for batch in 0..300 {
        place.land("elva-01", batch * 5 + 1, batch * 5 + 5).await;
    }
    place.land("vind-01", 1, 6).await;
    place.store.fail(Fault::Withheld(FIRST));
    let lake = place.lake();
    let before = lake.store().requests();
    let (outcome, _) = held(ingest(&lake, &SETTINGS).await);
    assert_eq!(outcome.rows, 6, "the other source's");
    let gets = lake.store().requests().since(&before).gets;
    assert!(gets < 60, "{gets} gets to find out that one batch cannot be had");
    place.store.fail(Fault::None);
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").rows, 1_500);
}

/// A daemon goes on for the others as ever, asks for what is refused ever more seldom, and takes it once it can.
#[tokio::test]
async fn a_daemon_goes_on_for_the_others_and_tries_again() {
    let place = Place::new();
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened");
    place.land("vind-01", 1, 6).await;
    ingester.run().await.expect("ingested");
    place.land("elva-01", 1, 5).await;
    place.store.fail(Fault::Withheld(FIRST));
    let (mut told, mut taken) = (None, 0);
    for second in (0..600).step_by(2) {
        place.ahead(2 * SECOND_US);
        if second % 60 == 0 {
            let first = 7 + second / 60;
            place.land("vind-01", first, first).await;
        }
        match ingester.run().await {
            Ok(outcome) => taken += outcome.rows,
            Err(IngestError::HeldBack { outcome, .. }) => {
                told.get_or_insert(second);
                taken += outcome.rows;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(taken, 10, "the other source's readings of ten minutes");
    assert!((60..120).contains(&told.expect("it is told")), "after three tries, found by a look everywhere: {told:?}");
    let before = lake.store().requests();
    for _ in 0..300 {
        place.ahead(2 * SECOND_US);
        held(ingester.run().await);
    }
    let spent = lake.store().requests().since(&before).billed();
    assert!(spent < 150, "ten minutes of trying again cost {spent} requests");
    place.store.fail(Fault::None);
    place.ahead(120 * SECOND_US);
    assert_eq!(ingester.run().await.expect("nothing is held back any more").rows, 5);
}

/// A source's folder lost its rights. Nothing follows from what was not seen: no hole is passed, no epoch finished, no
/// object removed, however long it lasts.
#[tokio::test]
async fn nothing_follows_from_a_folder_that_was_not_read() {
    let place = Place::new();
    place.land("elva-01", 1, 5).await;
    place.land("elva-01", 6, 8).await;
    place.land("vind-01", 1, 6).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    place.land("elva-01", 11, 12).await;
    place.put(&Landed::Closed(EPOCH).key(&source("elva-01")), b"20\n".to_vec()).await;
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened");
    place.store.fail(Fault::Locked("landing/elva-01/"));
    let before = place.keys("landing/elva-01");
    for day in 1..=30 {
        place.ahead(24 * HOUR_US);
        place.land("vind-01", 6 + day, 6 + day).await;
        let (outcome, why) = held(ingester.run().await);
        assert_eq!((outcome.rows, outcome.passed), (1, 0), "day {day}");
        assert!(why.contains("`landing/elva-01/` cannot be read: permission denied"), "{why}");
    }
    assert_eq!(place.keys("landing/elva-01"), before);
    let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    assert_eq!(open_runs(&table), []);
    place.store.fail(Fault::None);
    place.ahead(60 * SECOND_US);
    let outcome = ingester.run().await.expect("nothing is held back any more");
    assert_eq!((outcome.rows, outcome.passed), (2, 2), "9 and 10, and what is missing at its end");
    let holes: Vec<_> = open_runs(&Table::open(&lake, TableName::Readings).await.expect("opened").expect("there"));
    assert_eq!(holes.iter().map(|run| run.bounds).collect::<Vec<_>>(), [bounds(9, 10), bounds(13, 20)]);
}
