//! Releases with readings that are public no more are withdrawn, whatever fails on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;
use tjern_lake::Lake;
use tjern_pipeline::config::{PublishSection, default_publications};
use tjern_pipeline::jobs::{Done, Job, JobError, JobSettings, Schedule, Schedules, entries};
use tjern_pipeline::register::register;
use tjern_pipeline::watch::WatchSection;
use tjern_testing::simulated::Fault;
use tokio_util::sync::CancellationToken;

use crate::support::SETTINGS;
use crate::world::{OTHERS, SENSOR, World, dataset};

/// A line of `events.csv`.
const EVENT: &str = "sensor,kind,began,ended\nelva/*,maintenance,2026-06-01,2026-06-02\n";

/// A dataset as a configuration names it.
fn section(name: &str, sensors: Option<&[&str]>) -> PublishSection {
    let dataset = name.parse().expect("a name");
    let sensors = sensors.map(|sensors| sensors.iter().map(|sensor| sensor.parse().expect("valid")).collect());
    let [first] = default_publications().try_into().expect("one");
    PublishSection { dataset, quantity: None, sensors, ..first }
}

/// A lake with one release, in which there are readings of all three sensors.
async fn released() -> World {
    let world = World::empty().await;
    world.land(1, 0..2, true).await;
    world.ingest().await;
    world.publish().await;
    world
}

impl World {
    fn job_settings(&self, publish: Vec<PublishSection>) -> JobSettings {
        let every = || Schedule::Every(Duration::from_secs(60));
        JobSettings {
            when: Schedules {
                ingest: every(),
                register: every(),
                quality: every(),
                rollup: every(),
                compact: every(),
                erase: every(),
                vacuum: every(),
                watch: every(),
                checkpoint: every(),
                retention: every(),
            },
            cron: BTreeMap::new(),
            off: BTreeSet::new(),
            jitter: Duration::ZERO,
            listen: None,
            ingest: SETTINGS,
            compact: self.settings().compact,
            keep: None,
            retention: Duration::from_secs(86_400),
            register: self.files("public"),
            publish,
            watch: WatchSection::default()
                .settings(self.folder.path(), self.lake().store().url(), &TimeZone::UTC)
                .expect("no secrets"),
            timezone: TimeZone::UTC,
        }
    }

    /// A job of a daemon with this dataset, or with others.
    fn job(&self, name: &str, publish: Vec<PublishSection>) -> Box<dyn Job> {
        let entry = entries(&self.job_settings(publish)).into_iter().find(|entry| entry.name == name);
        entry.expect("there is such a job").job
    }

    /// The releases of a dataset of which something may still be fetched.
    fn fetched(&self, name: &str) -> BTreeSet<String> {
        let folder = format!("open/{name}/");
        let files = self.place.keys(&folder).into_iter().filter(|key| key.ends_with(".csv"));
        files.filter_map(|key| key[folder.len()..].split('/').next().map(str::to_owned)).collect()
    }

    /// Which objects of releases have the sensor's name in them.
    async fn naming(&self, sensor: &str) -> Vec<String> {
        let objects = self.objects().await.into_iter().filter(|(key, _)| key.as_ref().starts_with("open/"));
        let names = |bytes: &[u8]| bytes.windows(sensor.len()).any(|piece| piece == sensor.as_bytes());
        objects.filter(|(_, bytes)| names(bytes)).map(|(key, _)| key.to_string()).collect()
    }
}

async fn run(job: &mut Box<dyn Job>, lake: &Lake) -> Result<Done, JobError> {
    Box::pin(job.run(lake, &CancellationToken::new())).await
}

/// The class stood in the table when the run failed at another file. The next run found nothing to change, and what was
/// public no more could be fetched until the dataset's next release, or for good.
#[tokio::test]
async fn a_run_that_fails_after_the_class_is_registered_keeps_no_release_public() {
    let world = released().await;
    let lake = world.lake();
    let mut job = world.job("register", vec![section(&dataset().name, None)]);
    run(&mut job, &lake).await.expect("registered");
    world.files("internal");
    std::fs::write(world.path("events.csv"), EVENT).expect("written");
    world.place.store.fail(Fault::Full("tables/events/"));
    run(&mut job, &lake).await.expect_err("its disk is full");
    world.place.store.fail(Fault::None);
    run(&mut job, &lake).await.expect("registered");
    assert_eq!(world.naming(SENSOR).await, Vec::<String>::new());
    assert_eq!(world.fetched(&dataset().name).len(), 1, "the others are released anew");
}

/// `tjern pipeline ingest`, by hand beside the daemon, registers before it ingests and withdraws nothing.
#[tokio::test]
async fn a_class_that_another_process_registered_is_recalled() {
    let world = released().await;
    let lake = world.lake();
    let mut job = world.job("register", vec![section(&dataset().name, None)]);
    run(&mut job, &lake).await.expect("registered");
    register(&world.lake(), &world.files("internal")).await.expect("registered by another process");
    run(&mut job, &lake).await.expect("there is nothing to register any more");
    assert_eq!(world.naming(SENSOR).await, Vec::<String>::new());
    assert!(world.naming(OTHERS[0]).await.len() >= 2, "the others are released anew");
}
