//! What was set aside is found, looked into and tried again, and nothing of it is lost on the way.

use object_store::ObjectStoreExt;
use tjern_pipeline::ingest::{IngestOutcome, ingest};
use tjern_pipeline::quarantine::{Retried, find, list, look, retry};
use tjern_readings::keys::{self, Landed};
use tjern_testing::simulated::Fault;

use crate::support::{EPOCH, Place, SETTINGS, bounds, source};

/// A batch that this software can read lies in quarantine, as after an update that reads tomorrow's format.
async fn readable_by_now() -> Place {
    let place = Place::new();
    let key = place.land("landfall-01", 1, 5).await;
    let good = place.store.inner().get(&key).await.expect("there").bytes().await.expect("read");
    place.store.inner().put(&key, b"as yesterday's software saw it".to_vec().into()).await.expect("put");
    place.land("landfall-01", 6, 9).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    place.store.inner().put(&keys::quarantine(&key), good.into()).await.expect("put");
    assert_eq!(place.numbers().await, "4 4 30");
    place
}

#[tokio::test]
async fn what_can_be_read_by_now_fills_its_numbers() {
    let place = readable_by_now().await;
    let lake = place.lake();
    let kept = list(&lake).await.expect("listed");
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].reason.contains("the batch is damaged") && kept[0].moved.ends_with('Z'), "{kept:?}");
    let found = find(&lake, &kept[0].name).await.expect("looked").expect("there");
    assert_eq!(found, kept[0]);
    assert_eq!(find(&lake, &kept[0].landed).await.expect("looked"), Some(found.clone()), "by where it had landed, too");
    let looked = look(&lake, found).await.expect("looked");
    assert_eq!(looked.now.expect("readable").bounds, bounds(1, 5));
    let done = retry(&lake, &SETTINGS, kept).await.expect("tried");
    assert_eq!(done[0].1, Retried::Taken);
    assert_eq!(place.numbers().await, "9 9 45");
    assert_eq!(place.keys("quarantine"), Vec::<String>::new());
    assert_eq!(ingest(&lake, &SETTINGS).await.expect("ingested"), IngestOutcome::default());
}

/// Killed anywhere while it tries again: the batch is in one place at least, and counts once.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_can_be_killed_anywhere() {
    for at in 1.. {
        let place = readable_by_now().await;
        let kept = list(&place.lake()).await.expect("listed");
        place.store.fail(Fault::DeadAfter(at));
        let done = retry(&place.lake(), &SETTINGS, kept).await;
        let calls = place.store.counted().0;
        place.store.fail(Fault::None);
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        let left = list(&place.lake()).await.expect("listed");
        let again = retry(&place.lake(), &SETTINGS, left).await.expect("tried");
        assert!(again.iter().all(|(_, became)| *became == Retried::Taken), "killed at request {at}: {again:?}");
        assert_eq!(place.numbers().await, "9 9 45", "killed at request {at}");
        if calls < at {
            assert!(done.is_ok() && at > 8, "{at} requests");
            return;
        }
    }
}

/// What is still bad stays, with what is wrong with it now; so does what others' readings stand in the way of.
#[tokio::test]
async fn what_is_bad_or_in_the_way_stays_in_quarantine() {
    let place = Place::new();
    let bad = Landed::Batch(EPOCH, bounds(1, 2)).key(&source("elva-01"));
    place.put(&bad, b"no batch".to_vec()).await;
    place.land("landfall-01", 1, 10).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let clone: Vec<_> = (4..=8).map(|number| crate::support::reading("landfall-01", number + 100)).collect();
    place.land_readings("landfall-01", 4, &clone, None).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let lake = place.lake();
    let before = place.keys("quarantine");
    let kept = list(&lake).await.expect("listed");
    assert_eq!(kept.len(), 2, "{kept:?}");
    let done = retry(&lake, &SETTINGS, kept).await.expect("tried");
    let refused: Vec<_> = done.iter().filter(|(_, became)| matches!(became, Retried::Refused(_))).collect();
    assert_eq!(refused.len(), 2, "{done:?}");
    assert_eq!(place.keys("quarantine"), before, "nothing is lost");
    assert_eq!(place.numbers().await, "10 10 55");
    assert!(lake.objects().head(&bad).await.is_err(), "what is bad does not go back to the landing zone");
}
