//! What a gateway claims at each start is cleaned up, but for the newest of an epoch: by it a copy of a spool is found, however old it is.
//! A gateway that restarted every hour left 33 bytes an hour for good, and each of its looks listed all of them.

use std::time::Duration;

use tjern_pipeline::ingest::replay::look;
use tjern_pipeline::ingest::{IngestSettings, ingest};
use tjern_readings::keys::{Landed, claimed_number, epoch_claim};
use tjern_readings::sensor::Epoch;

use crate::support::{EPOCH, HOUR_US, Place, SETTINGS, source};

const DAY_US: i64 = 24 * HOUR_US;

async fn claim(place: &Place, epoch: Epoch, number: i64) {
    place.put(&epoch_claim(&source("landfall-01"), epoch, number), b"of a run\n".to_vec()).await;
}

fn claims(place: &Place) -> Vec<i64> {
    place.keys("landing").iter().filter_map(|key| claimed_number(&key.as_str().into())).collect()
}

#[tokio::test]
async fn of_what_a_gateway_claimed_the_newest_stays() {
    let place = Place::new();
    for first in [1, 7, 13] {
        place.land("landfall-01", first, first + 5).await;
        claim(&place, EPOCH, first + 6).await;
        place.ahead(DAY_US);
    }
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(claims(&place), [7, 13, 19], "within the grace all stay");
    place.ahead(5 * DAY_US);
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(claims(&place), [13, 19], "the first is older than the grace");
    place.ahead(90 * DAY_US);
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(claims(&place), [19], "the newest stays, however old it is");
    claim(&place, EPOCH, 25).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(claims(&place), [25], "until there is a newer one");
}

/// A copy of the spool may have looked before a claim was made, and make its own an hour after: it must find that it is taken.
#[tokio::test]
async fn however_short_the_grace_a_claim_stays_for_a_day() {
    let place = Place::new();
    let settings = IngestSettings { landing_grace: Duration::from_secs(60), ..SETTINGS };
    place.land("landfall-01", 1, 6).await;
    claim(&place, EPOCH, 7).await;
    claim(&place, EPOCH, 8).await;
    place.ahead(23 * HOUR_US);
    ingest(&place.lake(), &settings).await.expect("ingested");
    assert_eq!(claims(&place), [7, 8]);
    place.ahead(2 * HOUR_US);
    ingest(&place.lake(), &settings).await.expect("ingested");
    assert_eq!(claims(&place), [8]);
}

/// Of an epoch that was closed long ago its newest claim is left, and nothing follows from it.
#[tokio::test]
async fn an_epoch_of_which_a_claim_is_left_is_none_to_wait_for() {
    let place = Place::new();
    place.land("landfall-01", 1, 6).await;
    for number in [3, 5] {
        claim(&place, EPOCH, number).await;
    }
    place.put(&Landed::Closed(EPOCH).key(&source("landfall-01")), b"6\n".to_vec()).await;
    for _ in 0..3 {
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        place.ahead(30 * DAY_US);
    }
    assert_eq!((place.keys("landing").len(), claims(&place)), (1, vec![5]), "{:?}", place.keys("landing"));
    let outcome = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((outcome.rows, outcome.waiting, outcome.passed), (0, 0, 0));
    assert_eq!(place.numbers().await, "6 6 21");
    assert!(look(&place.lake()).await.expect("looked").1.is_empty(), "there is nothing to replay");
}
