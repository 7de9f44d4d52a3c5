//! What a day of a small site costs in requests to its store: the whole gateway, with its bus polled and its own readings, on a
//! clock that runs as fast as the work is done.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use common::{device, point, simulator, unit, word};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_gateway::config::Config;
use tjern_gateway::run::{RunOptions, run};
use tjern_gateway::simulate::Simulation;
use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_testing::s3::S3Server;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// 2026-12-01 00:03:20 UTC, on no hour.
const START_US: i64 = 1_796_083_400 * 1_000_000;

const DAY: Duration = Duration::from_secs(86_400);

/// How often the clock is set.
const TICK: Duration = Duration::from_millis(500);

const SENSORS: u16 = 6;

/// A configuration with six sensors that are read each hour, on two devices.
fn configuration(folder: &Path, server: &S3Server, address: &str, host: &str) -> Config {
    let variables =
        server.variables().into_iter().map(|(name, value)| format!("{name}={}\n", value.replace("127.0.0.1", host)));
    std::fs::write(folder.join("lake.env"), variables.collect::<String>()).expect("written");
    let points = |unit_id: u8| -> String {
        let body = |register| format!("register = \"input:{register}\"\ntype = \"u16\"\nevery = \"1h\"");
        let registers = 0..SENSORS / 2;
        registers
            .map(|register| point(&format!("tjern-{unit_id}-{register}/water_temperature"), &body(register)))
            .collect()
    };
    let text = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"{}\"\n[spool]\ndir = \"{1}/spool\"\n[clock]\ntrusted = true\n\
         [upload]\ncredentials_file = \"{1}/lake.env\"\n[[bus]]\nname = \"tarn\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{2}{3}{4}{5}",
        server.lake("site"),
        folder.display(),
        device(1),
        points(1),
        device(2),
        points(2),
    );
    Config::parse(&ConfigText::new("test.toml", text)).unwrap_or_else(|error| panic!("{error}"))
}

/// How many readings of each sensor are in the lake.
async fn landed(server: &S3Server) -> BTreeMap<String, usize> {
    let store = server.store("site");
    let objects: Vec<_> = store.objects().list(None).try_collect().await.expect("listed");
    let mut readings = BTreeMap::new();
    for object in objects.into_iter().filter(|object| object.location.as_ref().ends_with(".arrow")) {
        let bytes = store.objects().get(&object.location).await.expect("there").bytes().await.expect("read");
        for reading in batch::decode(&bytes).expect("a batch").readings().expect("readings") {
            *readings.entry(reading.sensor.to_string()).or_default() += 1;
        }
    }
    readings
}

/// A day of it against a store that is reached by this name of this machine: how many requests of each method that took.
async fn day(host: &str) -> BTreeMap<String, u64> {
    let folder = tempfile::tempdir().expect("a folder");
    let server = S3Server::start(1_000).await;
    let words = || (0..SENSORS / 2).map(|register| word(register, 40 + register)).collect();
    let simulator = simulator(Simulation::ModbusTcp(vec![unit(1, words()).0, unit(2, words()).0])).await;
    let config = configuration(folder.path(), &server, &simulator.address().expect("TCP").to_string(), host);
    let (clock, stop, began) = (Clock::manual(START_US), CancellationToken::new(), Instant::now());
    let gateway = tokio::spawn(run(config, RunOptions { clock: clock.clone(), stop: stop.clone(), store: None }));
    while began.elapsed() < DAY {
        sleep(TICK).await;
        clock.set_us(START_US + i64::try_from(began.elapsed().as_micros()).expect("a day"));
    }
    let counts = server.counts();
    stop.cancel();
    gateway.await.expect("no panic").expect("it ends well");
    let readings = landed(&server).await;
    let polled = readings.iter().filter(|(sensor, _)| sensor.starts_with("tjern-")).collect::<Vec<_>>();
    assert_eq!(polled.len(), usize::from(SENSORS), "{readings:?}");
    assert!(polled.iter().all(|(_, count)| (23..=25).contains(*count)), "{readings:?}");
    let own = readings.get("_system/site-01/uptime_s").copied().unwrap_or_default();
    assert!((22..=24).contains(&own), "the gateway's own readings: {readings:?}");
    counts
}

/// How many requests only looked at what is there.
fn looks(counts: &BTreeMap<String, u64>) -> u64 {
    ["GET", "HEAD"].iter().filter_map(|method| counts.get(*method)).sum()
}

/// A store bills each request. Where anybody can answer in the lake's place, each batch is looked at once more.
#[tokio::test(start_paused = true)]
async fn a_day_of_six_hourly_sensors_costs_under_a_hundred_requests() {
    let (trusted, plain) = (day("127.0.0.1").await, day("0.0.0.0").await);
    for (name, counts) in [("a store that is trusted", &trusted), ("one over plain HTTP", &plain)] {
        let all: u64 = counts.values().sum();
        println!("{name}: {all} requests in a day: {counts:?}");
        assert!(all < 100, "{name}: {all} requests: {counts:?}");
        // The bill of a city counts a gateway at a cloud with so many (`tests/bill/day.rs`).
        assert!(name.ends_with("plain HTTP") || all <= 60, "{name}: {all} requests: {counts:?}");
        assert!(counts["PUT"] >= 23, "{name}: a batch an hour at least: {counts:?}");
    }
    assert!(looks(&plain) >= looks(&trusted) + 23, "each batch is looked at: {plain:?}, {trusted:?}");
}
