//! Days of a gateway's uploads on a clock that runs as fast as the work is done: an outage of 72 hours, what
//! is new before what waited, a link with a limit, and what a day costs in requests.

#[path = "common/uploading.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod uploading;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tjern_gateway::spool::{Spool, SpoolSettings};
use tjern_gateway::system::SystemReadings;
use tjern_gateway::upload::{self, UploadLimits, UploadSettings, UploadState};
use tjern_readings::clock::Clock;
use tjern_readings::keys::Landed;
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::sensor::SensorId;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uploading::lake::{Lake, Put};
use uploading::source;

const HOUR: Duration = Duration::from_secs(3_600);

/// The first full hour of a day.
const START_US: i64 = 20_000 * 86_400 * 1_000_000;

/// What 72 hours at 500 readings a second may take: 4 GiB.
const OUTAGE_READINGS: u64 = 72 * 3_600 * 500;
const OUTAGE_BYTES: u64 = 4 << 30;

/// A gateway between its buses and its lake, in simulated time.
struct Site {
    spool: Spool,
    clock: Clock,
    began: Instant,
    state: UploadState,
    stop: CancellationToken,
    uploader: JoinHandle<()>,
}

impl Site {
    fn start(dir: &Path, lake: &Arc<Lake>, change: impl FnOnce(&mut UploadSettings)) -> Self {
        let clock = Clock::manual(START_US);
        let settings = SpoolSettings {
            dir: dir.to_owned(),
            max_bytes: OUTAGE_BYTES,
            sync_every: Duration::from_secs(5),
            source: source(),
            configuration: Some("ab".repeat(32)),
        };
        let spool = Spool::open(settings, clock.clone()).expect("opened");
        let state = UploadState::default();
        let mut settings = UploadSettings {
            configuration: Some(("ab".repeat(32), "version = 1\n".to_owned())),
            store: Some(lake.store()),
            clock: clock.clone(),
            state: state.clone(),
            ..UploadSettings::new(Lake::url(), source())
        };
        change(&mut settings);
        let stop = CancellationToken::new();
        let uploader = tokio::spawn(upload::run(spool.clone(), settings, stop.clone()));
        Self { spool, clock, began: Instant::now(), state, stop, uploader }
    }

    fn now_us(&self) -> i64 {
        START_US + i64::try_from(self.began.elapsed().as_micros()).expect("days")
    }

    /// Lets so much time pass.
    async fn pass(&self, duration: Duration) {
        sleep(duration).await;
        self.clock.set_us(self.now_us());
    }

    async fn end(self) {
        // A gateway that stops has no patience with a slow lake.
        assert!(self.spool.seal().await);
        while !self.spool.sealed().await.is_empty() {
            self.pass(Duration::from_secs(60)).await;
        }
        self.stop.cancel();
        self.uploader.await.expect("it ends");
        assert!(self.spool.sealed().await.is_empty(), "something is left: {:?}", self.state.snapshot());
        self.spool.close().await;
    }
}

/// Half a thousand sensors as they are: temperatures that drift, levels in millimetres, counters, states,
/// and now and then none.
struct Sensors {
    ids: Vec<SensorId>,
    values: Vec<f64>,
    random: fastrand::Rng,
}

impl Sensors {
    fn new(count: usize) -> Self {
        let quantities = ["water_temperature", "level", "energy", "pump_state", "flow"];
        let id = |index: usize| format!("site-{}/{}", index / 5, quantities[index % 5]).parse().expect("valid");
        Self { ids: (0..count).map(id).collect(), values: vec![10.0; count], random: fastrand::Rng::with_seed(7) }
    }

    fn read(&mut self, time_us: i64) -> Vec<Reading> {
        let mut readings = Vec::with_capacity(self.ids.len());
        for (index, sensor) in self.ids.iter().enumerate() {
            let value = &mut self.values[index];
            *value = match index % 5 {
                0 => f64::from((*value as f32) + (self.random.f32() - 0.5) * 0.02),
                1 => ((*value * 1_000.0).round() + f64::from(self.random.i8(-2..=2))) / 1_000.0,
                2 => *value + f64::from(self.random.u8(..4)),
                3 => f64::from(self.random.u8(..200) / 199),
                // Every bit of it is noise.
                _ => 10.0 + self.random.f64(),
            };
            readings.push(if self.random.u16(..) < 60 {
                Reading::missing(sensor.clone(), time_us, Cause::Timeout)
            } else {
                Reading::of(sensor.clone(), time_us, *value)
            });
        }
        readings
    }
}

/// 72 hours without a lake at 500 readings a second, in at most 4 GiB. CI lives through a share of it and reckons
/// with what each reading takes; `TJERN_OUTAGE_S=259200` is the whole (`just campaign`).
#[tokio::test(start_paused = true)]
async fn an_outage_of_72_hours_at_500_readings_a_second_fits_into_4_gib() {
    let seconds: u64 = std::env::var("TJERN_OUTAGE_S").map_or(1_200, |text| text.parse().expect("TJERN_OUTAGE_S"));
    let place = tempfile::tempdir().expect("a folder");
    let lake = Lake::new(Duration::from_millis(200));
    lake.away.store(true, Ordering::Relaxed);
    let site = Site::start(place.path(), &lake, |_| {});
    let mut sensors = Sensors::new(500);
    for _ in 0..seconds {
        site.pass(Duration::from_secs(1)).await;
        site.spool.append(sensors.read(site.now_us())).await;
    }
    assert!(site.spool.seal().await);
    let (status, sealed) = (site.spool.status(), site.spool.sealed().await);
    let sealed_bytes: u64 = sealed.iter().map(|object| object.length).sum();
    let readings = seconds * 500;
    let log_bytes = status.bytes - sealed_bytes;
    // The log does not grow with the outage: what is sealed leaves it.
    let whole = log_bytes + sealed_bytes * (OUTAGE_READINGS / 500) / seconds;
    println!(
        "{readings} readings in {seconds} s: {:.2} bytes each in {} batches, and {log_bytes} of log; 72 hours take {:.2} GiB of {}",
        sealed_bytes as f64 / readings as f64,
        sealed.len(),
        whole as f64 / (1u64 << 30) as f64,
        OUTAGE_BYTES >> 30
    );
    assert!(whole <= OUTAGE_BYTES, "{whole} bytes");
    assert_eq!((status.dropped_readings, status.dropped_batches), (0, 0));
    let snapshot = site.state.snapshot();
    assert!(snapshot.last_error.is_some() && snapshot.oldest_waiting_us <= Some(START_US + 1_000_000), "{snapshot:?}");
    lake.away.store(false, Ordering::Relaxed);
    // More than the pauses after so many failures, and the time of so many puts.
    while site.state.snapshot().waiting_batches > 0 {
        site.pass(Duration::from_secs(60)).await;
    }
    site.end().await;
    let numbers: i64 = lake
        .puts()
        .iter()
        .map(|put| match put.landed {
            Landed::Batch(_, bounds) => bounds.count(),
            _ => 0,
        })
        .sum();
    assert_eq!(numbers, i64::try_from(readings).expect("few"), "every reading is in the lake, once");
}

fn numbered(number: u64, time_us: i64) -> Vec<Reading> {
    vec![Reading::of("landfalltjern/water_temperature".parse().expect("valid"), time_us, number as f64)]
}

/// What became of two hours without a lake and an hour with it: how long what came after the outage took
/// to land, and whether anything was lost, doubled or closed too early.
async fn after_two_hours(live_first_after: Option<Duration>) -> Vec<Duration> {
    let place = tempfile::tempdir().expect("a folder");
    // Slow enough for the old to take ten minutes.
    let lake = Lake::new(Duration::from_secs(20));
    let site = Site::start(place.path(), &lake, |settings| settings.live_first_after = live_first_after);
    let mut count = 0;
    site.pass(Duration::from_secs(600)).await;
    lake.away.store(true, Ordering::Relaxed);
    let (mut back_at, mut appended_at) = (Instant::now(), BTreeMap::new());
    for second in (0..3 * 3_600).step_by(10) {
        site.pass(Duration::from_secs(10)).await;
        site.spool.append(numbered(count, site.now_us())).await;
        appended_at.insert(count, Instant::now());
        count += 1;
        if second == 2 * 3_600 {
            lake.away.store(false, Ordering::Relaxed);
            back_at = Instant::now();
        }
    }
    while site.state.snapshot().waiting_batches > 0 {
        site.pass(Duration::from_secs(60)).await;
    }
    site.end().await;
    let by_epoch = lake.readings(&source()).await;
    let values: Vec<u64> = by_epoch.values().flatten().map(|reading| reading.value.expect("a value") as u64).collect();
    assert_eq!((values.len() as u64, values.iter().collect::<BTreeSet<_>>().len() as u64), (count, count));
    assert_eq!(by_epoch.len(), if live_first_after.is_some() { 2 } else { 1 });
    let puts = lake.puts();
    for (index, put) in puts.iter().enumerate() {
        if let Landed::Closed(epoch) = put.landed {
            let later = puts[index..].iter().filter(|put| matches!(put.landed, Landed::Batch(of, _) if of == epoch));
            assert_eq!(later.count(), 0, "an epoch is closed behind its last batch");
        }
    }
    let closed = puts.iter().filter(|put| matches!(put.landed, Landed::Closed(_))).count();
    assert_eq!(closed, by_epoch.len() - 1);
    let mut waits = Vec::new();
    for put in &puts {
        let Landed::Batch(epoch, bounds) = put.landed else { continue };
        for seq in bounds.first..=bounds.last {
            let value = by_epoch[&epoch][usize::try_from(seq - 1).expect("positive")].value.expect("a value") as u64;
            // The lake is found again within a minute.
            if appended_at[&value] > back_at + Duration::from_secs(120) {
                waits.push(put.at - appended_at[&value]);
            }
        }
    }
    waits
}

/// After an outage dashboards showed hours that had passed, until the last of them was there.
#[tokio::test(start_paused = true)]
async fn after_a_long_outage_what_is_new_goes_first_under_a_new_epoch() {
    // A period, the puts before it (of what was new then, and of what is old), and its own.
    let limit = Duration::from_secs(60 + 3 * 20 + 10);
    let waits = after_two_hours(Some(HOUR)).await;
    let longest = waits.iter().max().expect("some");
    assert!(*longest <= limit, "what is new waited {longest:?}");
    // The canary: oldest first is seen to be slower.
    let longest = after_two_hours(None).await.into_iter().max().expect("some");
    assert!(longest > 2 * limit, "what is new waited {longest:?} only, behind two hours");
}

/// An outage that was short needs no epoch.
#[tokio::test(start_paused = true)]
async fn a_short_outage_begins_no_epoch() {
    let place = tempfile::tempdir().expect("a folder");
    let lake = Lake::new(Duration::from_millis(200));
    let site = Site::start(place.path(), &lake, |settings| settings.live_first_after = Some(3 * HOUR));
    lake.away.store(true, Ordering::Relaxed);
    for number in 0..720 {
        site.pass(Duration::from_secs(10)).await;
        site.spool.append(numbered(number, site.now_us())).await;
    }
    lake.away.store(false, Ordering::Relaxed);
    site.pass(HOUR).await;
    site.end().await;
    assert_eq!(lake.readings(&source()).await.len(), 1);
}

/// A bucket that is full, or a key that may only read: each look at it was taken for its return, and began an epoch.
#[tokio::test(start_paused = true)]
async fn a_lake_that_lists_and_stores_nothing_is_not_back() {
    let place = tempfile::tempdir().expect("a folder");
    let lake = Lake::new(Duration::from_millis(200));
    let site = Site::start(place.path(), &lake, |settings| settings.live_first_after = Some(HOUR));
    lake.full.store(true, Ordering::Relaxed);
    for number in 0..4 * 360 {
        site.pass(Duration::from_secs(10)).await;
        site.spool.append(numbered(number, site.now_us())).await;
    }
    lake.full.store(false, Ordering::Relaxed);
    site.pass(HOUR).await;
    site.spool.append(numbered(4 * 360, site.now_us())).await;
    site.end().await;
    assert_eq!(lake.readings(&source()).await.len(), 2, "the old epoch, and one for what is new");
}

/// The power comes back after hours, and the lake is there at once: of the outage only the readings tell.
#[tokio::test(start_paused = true)]
async fn an_outage_that_a_power_cut_ended_counts_too() {
    let place = tempfile::tempdir().expect("a folder");
    let lake = Lake::new(Duration::from_millis(200));
    lake.away.store(true, Ordering::Relaxed);
    let site = Site::start(place.path(), &lake, |settings| settings.live_first_after = Some(HOUR));
    for number in 0..1_000 {
        site.pass(Duration::from_secs(10)).await;
        site.spool.append(numbered(number, site.now_us())).await;
    }
    assert!(site.spool.seal().await);
    site.uploader.abort();
    site.spool.clone().close().await;
    let now_us = site.now_us();
    drop(site);
    lake.away.store(false, Ordering::Relaxed);
    let site = Site::start(place.path(), &lake, |settings| {
        settings.live_first_after = Some(HOUR);
        settings.clock.set_us(now_us);
    });
    site.pass(Duration::from_secs(1)).await;
    site.spool.append(numbered(1_000, now_us)).await;
    site.pass(HOUR).await;
    site.end().await;
    let by_epoch = lake.readings(&source()).await;
    let counts: BTreeSet<usize> = by_epoch.values().map(Vec::len).collect();
    assert_eq!(counts, [1, 1_000].into());
}

/// Sends five minutes' backlog over a link, and gives what was put.
async fn over_a_link(limits: UploadLimits) -> Vec<Put> {
    backlog(300, limits, Duration::ZERO).await.puts()
}

/// Sends a backlog of so many seconds to a lake that takes so long for each object.
async fn backlog(seconds: usize, limits: UploadLimits, put_duration: Duration) -> Arc<Lake> {
    let place = tempfile::tempdir().expect("a folder");
    let lake = Lake::new(put_duration);
    lake.away.store(true, Ordering::Relaxed);
    let site = Site::start(place.path(), &lake, |settings| settings.limits = limits);
    let mut sensors = Sensors::new(500);
    for _ in 0..seconds {
        site.pass(Duration::from_secs(1)).await;
        site.spool.append(sensors.read(site.now_us())).await;
    }
    lake.away.store(false, Ordering::Relaxed);
    while site.state.snapshot().waiting_batches > 0 {
        site.pass(Duration::from_secs(10)).await;
    }
    site.end().await;
    lake
}

/// A backlog that was sent all at once would need memory for all of it, and starve whoever else uses the line.
#[tokio::test(start_paused = true)]
async fn no_more_objects_are_under_way_than_was_said() {
    let at_once = async |limits: UploadLimits| {
        let lake = backlog(40, limits, Duration::from_secs(2)).await;
        assert!(lake.puts().len() > 8, "{} objects", lake.puts().len());
        lake.most_at_once.load(Ordering::Relaxed)
    };
    let small = UploadLimits { batch_bytes: 4 << 10, ..UploadLimits::default() };
    for in_flight in [1, 3] {
        assert_eq!(at_once(UploadLimits { in_flight, ..small }).await, in_flight as u64);
    }
    // Over a link with a limit they would only wait for each other.
    let limited = UploadLimits { in_flight: 3, bytes_per_s: NonZeroU64::new(2_048), ..small };
    assert_eq!(at_once(limited).await, 1);
}

/// Whether more passed between any two puts than a rate and one of them.
fn exceeds(puts: &[Put], bytes_per_s: u64) -> bool {
    let passed = |run: &[Put]| run.iter().map(|put| put.bytes).sum::<usize>() as f64;
    let most = |first: &Put, last: &Put| ((last.at - first.at).as_secs_f64() + 0.01) * bytes_per_s as f64;
    let runs = (0..puts.len()).flat_map(|first| (first + 1..puts.len()).map(move |last| (first, last)));
    runs.into_iter().any(|(first, last)| passed(&puts[first..last]) > most(&puts[first], &puts[last]))
}

/// A mobile link that carries 2 KiB a second: batches are cut to what it carries, and over any time no more
/// passes than that and one of them.
#[tokio::test(start_paused = true)]
async fn a_link_with_a_limit_is_not_asked_for_more() {
    let rate = 2_048;
    let limits = UploadLimits { bytes_per_s: NonZeroU64::new(rate), ..UploadLimits::default() };
    let puts = over_a_link(limits).await;
    assert!(puts.iter().all(|put| put.bytes <= 64 << 10), "{:?}", puts.iter().map(|put| put.bytes).max());
    assert!(puts.len() > 10 && !exceeds(&puts, rate), "{puts:?}");
    // The canary: without the limit it is seen to be passed.
    assert!(exceeds(&over_a_link(UploadLimits::default()).await, rate));
}

/// A day of a small site: six sensors read every hour within half a minute, and the gateway's own readings.
async fn requests_of_a_day(with_system: bool) -> (u64, u64, u64, BTreeMap<String, usize>) {
    let place = tempfile::tempdir().expect("a folder");
    let lake = Lake::new(Duration::from_millis(200));
    let site = Site::start(place.path(), &lake, |_| {});
    let system = SystemReadings::new(&source(), site.clock.clone(), site.state.clone(), || Some(3));
    let mut system = with_system.then(|| system.expect("a gateway"));
    for _ in 0..24 {
        let hour_us = site.now_us().div_euclid(3_600_000_000) * 3_600_000_000;
        for sensor in 0..6 {
            site.pass(Duration::from_secs(5)).await;
            let id = format!("tjern-{sensor}/water_temperature").parse().expect("valid");
            let mut readings = vec![Reading::of(id, hour_us, 4.0)];
            if let Some(system) = &mut system {
                readings.extend(system.due());
            }
            site.spool.append(readings).await;
        }
        site.pass(HOUR - Duration::from_secs(30)).await;
    }
    let counted = site.state.snapshot().requests;
    let syncs = site.spool.status().written.syncs;
    let requests = lake.requests.load(Ordering::Relaxed);
    site.end().await;
    let mut by_sensor = BTreeMap::new();
    for reading in lake.readings(&source()).await.into_values().flatten() {
        *by_sensor.entry(reading.sensor.to_string()).or_default() += 1;
    }
    (requests, counted, syncs, by_sensor)
}

/// A store bills each request.
#[tokio::test(start_paused = true)]
async fn six_hourly_sensors_cost_under_a_hundred_requests_a_day() {
    let (requests, counted, syncs, by_sensor) = requests_of_a_day(true).await;
    println!("{requests} requests in a day");
    assert!(requests < 100, "{requests} requests");
    assert_eq!(requests, counted, "what the metrics say");
    for sensor in 0..6 {
        assert_eq!(by_sensor[&format!("tjern-{sensor}/water_temperature")], 24);
    }
    // The hour of the start has none.
    for quantity in ["spool_age_s", "upload_lag_s", "clock_offset_ms", "uptime_s"] {
        assert_eq!(by_sensor[&format!("_system/landfall-01/{quantity}")], 23, "{by_sensor:?}");
    }
    let (without, _, syncs_without, by_sensor) = requests_of_a_day(false).await;
    assert_eq!((requests, by_sensor.len()), (without, 6), "the gateway's own readings cost no request");
    assert_eq!(syncs, syncs_without, "and no sync");
}
