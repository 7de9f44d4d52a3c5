//! A backlog over a slow link without `max_rate`, on a clock that runs as fast as the work is done: it drains, and nothing goes
//! over the link twice.

#[path = "common/uploading.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod uploading;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tjern_gateway::spool::{SealedObject, Spool};
use tjern_gateway::upload::UploadSettings;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::SensorId;
use tokio::time::{Instant, sleep, timeout};
use uploading::lake::Lake;
use uploading::{source, spool_in, uploading};

/// What a gateway of three thousand points has in a minute's batch, about.
const ROWS: u64 = 12_000;

/// A spool with so many batches of about 107 kB.
async fn backlog(dir: &Path, batches: u64) -> Spool {
    let spool = spool_in(dir);
    let sensor: SensorId = "landfalltjern/flow".parse().expect("valid");
    let mut random = fastrand::Rng::with_seed(7);
    for batch in 0..batches {
        let time_us = |row| i64::try_from(batch * ROWS + row).expect("few");
        let rows: Vec<_> = (0..ROWS).map(|row| Reading::of(sensor.clone(), time_us(row), random.f64())).collect();
        spool.append(rows).await;
        assert!(spool.seal().await);
    }
    let sealed = spool.sealed().await;
    assert!(sealed.iter().all(|object| (80_000..140_000).contains(&object.length)), "{sealed:?}");
    spool
}

/// Uploads for so long at most; how long it took, or nothing where something is left.
async fn drained(spool: &Spool, lake: &Arc<Lake>, within: Duration) -> Option<Duration> {
    let settings = UploadSettings { store: Some(lake.store()), ..UploadSettings::new(Lake::url(), source()) };
    let (state, began) = (settings.state.clone(), Instant::now());
    let batches = spool.sealed().await.len() as u64;
    let (running, stop) = uploading(spool, settings);
    while !spool.sealed().await.is_empty() && began.elapsed() < within {
        sleep(Duration::from_secs(5)).await;
    }
    let took = spool.sealed().await.is_empty().then(|| began.elapsed());
    stop.cancel();
    running.await.expect("ended");
    let counted = state.snapshot().uploaded_batches;
    assert!(took.is_none() || counted == batches, "{counted} of {batches} batches were counted");
    took
}

fn sent_twice(lake: &Lake) -> usize {
    lake.arrivals.lock().expect("whole").values().filter(|count| **count > 1).count()
}

/// Four batches shared the link, each had thirty seconds whatever its size, and what had landed beside one that failed was sent
/// again round after round: three thousand points over 9,000 bytes a second never caught up with an hour's outage.
#[tokio::test(start_paused = true)]
async fn a_backlog_drains_over_a_slow_link() {
    let (place, lake) = (tempfile::tempdir().expect("a folder"), Lake::behind_a_link(9_000));
    let spool = backlog(place.path(), 20).await;
    let bytes: u64 = spool.sealed().await.iter().map(|object| object.length).sum();
    let took = drained(&spool, &lake, Duration::from_secs(3_600)).await.expect("it drains");
    let least = Duration::from_secs(bytes / 9_000);
    println!("{bytes} bytes took {took:?}; the link needs {least:?}");
    assert!(took < least + least / 4, "the link was not used for what it is: {took:?} for {least:?}");
    assert_eq!(sent_twice(&lake), 0);
}

/// A link that is slower than any that was reckoned with: fewer go at once, until one has the whole of it.
#[tokio::test(start_paused = true)]
async fn on_a_link_that_is_slower_still_fewer_go_at_once() {
    let (place, lake) = (tempfile::tempdir().expect("a folder"), Lake::behind_a_link(1_024));
    let spool = backlog(place.path(), 12).await;
    let took = drained(&spool, &lake, Duration::from_secs(4 * 3_600)).await.expect("it drains");
    println!("twelve batches took {took:?}");
    assert_eq!(sent_twice(&lake), 0);
}

/// Puts an object within half a minute, as every request had it.
async fn within_half_a_minute(spool: &Spool, lake: &Lake, object: &SealedObject) -> bool {
    let (key, bytes) = (object.landed().key(&source()), spool.bytes(object).await.expect("read"));
    let put = lake.put_opts(&key, PutPayload::from_bytes(bytes.clone()), PutMode::Create.into());
    match timeout(Duration::from_secs(30), put).await {
        Ok(Ok(_)) => true,
        Ok(Err(Error::AlreadyExists { .. })) => {
            lake.get(&key).await.expect("there").bytes().await.expect("read") == bytes
        }
        _ => false,
    }
}

/// The canary: the rule that was is seen to drain nothing.
#[tokio::test(start_paused = true)]
async fn half_a_minute_for_each_request_never_drains_it() {
    let (place, lake) = (tempfile::tempdir().expect("a folder"), Lake::behind_a_link(9_000));
    let (spool, began) = (backlog(place.path(), 20).await, Instant::now());
    while began.elapsed() < Duration::from_secs(3_600) && !spool.sealed().await.is_empty() {
        let objects = spool.sealed().await;
        let sending = objects.iter().map(async |object| (within_half_a_minute(&spool, &lake, object).await, object));
        let mut results = std::pin::pin!(stream::iter(sending).buffered(4));
        while let Some((true, object)) = results.next().await {
            spool.remove(object).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!(spool.sealed().await.len() >= 18, "{} of 20 are left", spool.sealed().await.len());
}
