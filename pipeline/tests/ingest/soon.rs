//! How soon what landed can be queried. What a day costs is played with the whole city: `tests/bill`.

use std::time::Duration;

use tjern_lake::{Table, TableName};
use tjern_pipeline::ingest::{Ingester, Polling, watermark};

use crate::support::{NOW_US, Place, SECOND_US, SETTINGS, source};

/// As a cloud is polled: what a configuration has by itself.
fn polling() -> Polling {
    Polling::of(&"s3://city/lake".parse().expect("a lake"))
}

/// How long after it landed each batch could be queried, in microseconds.
async fn latencies(place: &Place, sources: i64, every_s: i64, minutes: i64) -> Vec<i64> {
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling());
    let mut random = fastrand::Rng::with_seed(7);
    let mut due: Vec<(i64, i64)> = Vec::new();
    for source in 0..sources {
        let phase_us = random.i64(0..every_s * SECOND_US);
        due.extend(
            (0..minutes * 60 / every_s)
                .map(|n| (NOW_US + phase_us + n * every_s * SECOND_US + random.i64(0..2 * SECOND_US), source)),
        );
    }
    due.sort_unstable();
    let mut numbers = vec![0; usize::try_from(sources).expect("small")];
    let mut underway: Vec<(i64, i64, i64)> = Vec::new();
    let mut late_us = Vec::new();
    let mut due = due.into_iter().peekable();
    while due.peek().is_some() || !underway.is_empty() {
        tokio::time::sleep(Duration::from_secs(2)).await;
        place.store.tick();
        while let Some((landed_us, source)) = due.next_if(|(landed_us, _)| *landed_us <= place.clock.now_us()) {
            let number = &mut numbers[usize::try_from(source).expect("small")];
            *number += 1;
            let now_us = place.clock.now_us();
            place.clock.set_us(landed_us);
            place.land(&format!("gateway-{source:03}"), *number, *number).await;
            place.clock.set_us(now_us);
            underway.push((landed_us, source, *number));
        }
        let outcome = ingester.run().await.expect("ingested");
        if outcome.batches == 0 {
            continue;
        }
        place.store.tick();
        let now_us = place.clock.now_us();
        let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
        underway.retain(|(landed_us, gateway, number)| {
            let taken = watermark(&table, &source(&format!("gateway-{gateway:03}")), crate::support::EPOCH);
            let is_there = taken.is_some_and(|taken| taken >= *number);
            if is_there {
                late_us.push(now_us - landed_us);
            }
            !is_there
        });
    }
    late_us
}

/// By nearest rank: of few values the 99th is the worst.
fn percentile(values: &mut [i64], hundredths: usize) -> i64 {
    values.sort_unstable();
    values[(values.len() * hundredths).div_ceil(100) - 1]
}

/// By tokio's paused clock: nothing here is timed by the machine. A look is made every 2 s, as the daemon does.
#[tokio::test(start_paused = true)]
async fn what_a_source_sends_every_minute_is_queryable_within_five_seconds() {
    for (latency_ms, sources, minutes) in [(0, 1, 40), (50, 1, 40), (50, 20, 12)] {
        let place = Place::new();
        place.store.take(Duration::from_millis(latency_ms));
        let mut late_us = latencies(&place, sources, 60, minutes).await;
        let settled = &mut late_us[usize::try_from(sources).expect("small") * 3..];
        let (median, high) = (percentile(settled, 50), percentile(settled, 99));
        println!(
            "{sources} sources, {latency_ms} ms a request: median {} ms, 99th percentile {} ms",
            median / 1_000,
            high / 1_000
        );
        assert!(high < 5 * SECOND_US, "{sources} sources, {latency_ms} ms a request: {high} us");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_source_sends_every_half_hour_is_queryable_within_a_minute() {
    let place = Place::new();
    place.store.take(Duration::from_millis(50));
    let mut late_us = latencies(&place, 5, 1_800, 24 * 60).await;
    let worst = percentile(&mut late_us, 100);
    println!("half-hourly sources: at worst {} ms", worst / 1_000);
    assert!(worst < 60 * SECOND_US, "{worst} us");
}
