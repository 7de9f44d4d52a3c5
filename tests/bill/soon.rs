//! How soon what landed is in an answer over HTTP: ingest that looks every two seconds, and the real server, asked after each
//! of these looks from when a batch is committed until it is shown, and once a minute always: so one
//! that saves looks has made one not long before the commit comes.
//!
//! Nothing is timed by the machine. A request of either to the store puts the clock on by what it takes. What the pipeline
//! tells is there when [`TELLING_US`] have passed: the least time between two questions, and as much again.
//! `pipeline/tests/ingest/soon.rs` has the time to the commit.

use std::collections::BTreeMap;
use std::time::Duration;

use tjern_lake::{Table, TableName};
use tjern_pipeline::ingest::{Ingester, Polling, watermark};
use tjern_pipeline::register::register;
use tjern_readings::reading::Reading;
use tjern_readings::store::LakeUrl;

use crate::dashboard::{Dashboard, Serving};
use crate::jobs::INGEST;
use crate::place::{EPOCH, HOUR_US, NOW_US, Place, SECOND_US, files, gateway};

/// What it may take until a commit is told; see `told/listener.rs` of the server.
const TELLING_US: i64 = 200_000;

/// Between two questions so many looks of ingest pass, where nothing is committed: a dashboard on a wall.
const LOOKS_PER_QUESTION: u32 = 30;

/// A city: how many sources send how often, over what time, to which store.
#[derive(Debug, Clone, Copy)]
struct City {
    sources: i64,
    every_s: i64,
    minutes: i64,
    latency: Duration,
    is_folder: bool,
}

/// A batch on its way into an answer.
#[derive(Debug)]
struct Batch {
    landed_us: i64,
    source: i64,
    number: i64,
}

impl City {
    /// The batches, in the order of their landing: each source at its own moment, more or less.
    fn batches(&self) -> Vec<Batch> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut batches = Vec::new();
        for source in 0..self.sources {
            let phase_us = random.i64(0..self.every_s * SECOND_US);
            batches.extend((0..self.minutes * 60 / self.every_s).map(|n| {
                let landed_us = NOW_US + phase_us + n * self.every_s * SECOND_US + random.i64(0..2 * SECOND_US);
                Batch { landed_us, source, number: n + 1 }
            }));
        }
        batches.sort_unstable_by_key(|batch| (batch.landed_us, batch.source));
        batches
    }

    fn url(&self, folder: &tempfile::TempDir) -> LakeUrl {
        if self.is_folder {
            return LakeUrl::folder(&folder.path().canonicalize().expect("it is there")).expect("a lake");
        }
        "s3://city/lake".parse().expect("a lake")
    }

    /// How long after it landed each batch was in an answer, in microseconds.
    async fn latencies(&self, serving: Serving) -> Vec<i64> {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::at(self.url(&folder));
        let lake = place.lake();
        Table::create_all(&lake).await.expect("created");
        register(&lake, &files(folder.path(), self.sources)).await.expect("registered");
        let mut dashboard = Dashboard::open(&place, &lake, serving).await;
        dashboard.ask().await;
        place.store.charge(self.latency);
        let mut ingester =
            Ingester::open(&lake, INGEST).await.expect("opened").with_polling(Polling::of(lake.store().url()));
        let (mut underway, mut late_us) = (Vec::new(), Vec::new());
        let mut due = self.batches().into_iter().peekable();
        let (mut next_us, mut looks) = (NOW_US, 0_u32);
        while due.peek().is_some() || !underway.is_empty() {
            // As the daemon does: so long after the last run began.
            place.clock.set_us(next_us.max(place.clock.now_us()));
            next_us = place.clock.now_us() + 2 * SECOND_US;
            while let Some(batch) = due.next_if(|batch| batch.landed_us <= place.clock.now_us()) {
                self.land(&place, &batch).await;
                underway.push(batch);
            }
            let before = lake.versions().borrow().clone();
            ingester.run().await.expect("ingested");
            let versions = lake.versions().borrow().clone();
            if serving == Serving::Told && versions != before {
                dashboard.hears(&versions).await;
                place.ahead(TELLING_US);
            }
            let table = Table::open_within(&lake, TableName::Readings, Duration::MAX).await.expect("known");
            let table = table.expect("there");
            let is_taken = |batch: &Batch| watermark(&table, &gateway(batch.source), EPOCH) >= Some(batch.number);
            looks += 1;
            if underway.iter().any(is_taken) || looks.is_multiple_of(LOOKS_PER_QUESTION) {
                let newest = newest(&dashboard.ask().await.0);
                let now_us = place.clock.now_us();
                underway.retain(|batch: &Batch| {
                    let is_shown = newest.get(&sensor(batch.source)) >= Some(&self.time_us(batch.number));
                    if is_shown {
                        late_us.push(now_us - batch.landed_us);
                    }
                    !is_shown
                });
            }
        }
        late_us
    }

    async fn land(&self, place: &Place, batch: &Batch) {
        let now_us = place.clock.now_us();
        place.clock.set_us(batch.landed_us);
        let id = sensor(batch.source).parse().expect("valid");
        let reading = Reading::of(id, self.time_us(batch.number), 10.0);
        place.land(&gateway(batch.source), batch.number, &[reading]).await;
        place.clock.set_us(now_us);
    }

    /// What a batch's reading stands for: each has a time of its own.
    fn time_us(&self, number: i64) -> i64 {
        NOW_US - HOUR_US + number * self.every_s * SECOND_US
    }
}

fn sensor(source: i64) -> String {
    format!("{}/q0", gateway(source))
}

/// The time of each sensor's newest value in an answer of `/api/latest`.
fn newest(reply: &str) -> BTreeMap<String, i64> {
    let (_, body) = reply.split_once("\r\n\r\n").expect("a head");
    let sensors: Vec<serde_json::Value> = serde_json::from_str(body).expect("JSON");
    let of = |sensor: &serde_json::Value| {
        let time: jiff::Timestamp = sensor["time"].as_str()?.parse().expect("a time");
        Some((sensor["sensor"].as_str()?.to_owned(), time.as_microsecond()))
    };
    sensors.iter().filter_map(of).collect()
}

/// By nearest rank: of few values the 99th is the worst.
fn percentile(values: &mut [i64], hundredths: usize) -> i64 {
    values.sort_unstable();
    values[(values.len() * hundredths).div_ceil(100) - 1]
}

/// The fourth and later batches of each source, whose rhythm is known by then: the 99th percentile.
async fn minutely(city: City, serving: Serving) -> i64 {
    let mut late_us = city.latencies(serving).await;
    let settled = &mut late_us[usize::try_from(city.sources).expect("small") * 3..];
    let (median, high) = (percentile(settled, 50), percentile(settled, 99));
    println!("{city:?}, {serving:?}: median {} ms, 99th percentile {} ms", median / 1_000, high / 1_000);
    high
}

const MINUTELY: City =
    City { sources: 1, every_s: 60, minutes: 20, latency: Duration::from_millis(50), is_folder: false };
const HALF_HOURLY: City =
    City { sources: 3, every_s: 1_800, minutes: 150, latency: Duration::from_millis(50), is_folder: false };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_source_sends_every_minute_is_in_an_answer_within_five_seconds() {
    for serving in [Serving::Together, Serving::Told] {
        for city in [MINUTELY, City { sources: 20, minutes: 6, ..MINUTELY }] {
            let high = minutely(city, serving).await;
            assert!(high < 5 * SECOND_US, "{city:?}, {serving:?}: {high} us");
        }
    }
}

/// A folder bills nothing: a server of its own that nobody tells is as good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_folder_it_is_within_five_seconds_whoever_tells() {
    for serving in [Serving::Together, Serving::Told, Serving::Apart] {
        for sources in [1, 20] {
            let city = City { sources, minutes: 6, latency: Duration::ZERO, is_folder: true, ..MINUTELY };
            let high = minutely(city, serving).await;
            assert!(high < 5 * SECOND_US, "{city:?}, {serving:?}: {high} us");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_source_sends_every_half_hour_is_in_an_answer_within_a_minute() {
    for serving in [Serving::Together, Serving::Told] {
        for city in [HALF_HOURLY, City { is_folder: true, latency: Duration::ZERO, minutes: 60, ..HALF_HOURLY }] {
            let worst = percentile(&mut city.latencies(serving).await, 100);
            println!("{city:?}, {serving:?}: at worst {} ms", worst / 1_000);
            assert!(worst < 60 * SECOND_US, "{city:?}, {serving:?}: {worst} us");
        }
    }
}

/// The canary: a server that does not heed what it is told is no server of its own that keeps the minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_hear_what_it_is_told_is_caught() {
    let worst = percentile(&mut HALF_HOURLY.latencies(Serving::Apart).await, 100);
    println!("half-hourly sources, a server that asks the store: at worst {} ms", worst / 1_000);
    assert!(worst > 60 * SECOND_US, "it was caught by nothing: {worst} us");
}
