//! Releases with readings that are public no more are withdrawn, whatever fails on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;
use object_store::path::Path;
use tjern_lake::Lake;
use tjern_pipeline::config::{PublishSection, default_publications};
use tjern_pipeline::jobs::{Done, Job, JobError, JobSettings, Schedule, Schedules, entries};
use tjern_pipeline::publish::publish;
use tjern_pipeline::register::register;
use tjern_pipeline::watch::WatchSection;
use tjern_testing::simulated::Fault;
use tokio_util::sync::CancellationToken;

use crate::support::{HOUR_US, SETTINGS};
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
        // As they are.
        let is_internal = std::fs::read_to_string(self.path("sensors.csv")).is_ok_and(|text| text.contains("internal"));
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
            register: self.files(if is_internal { "internal" } else { "public" }),
            publish,
            watch: WatchSection::default()
                .settings(self.folder.path(), self.lake().store().url(), &TimeZone::UTC)
                .expect("no secrets"),
            timezone: TimeZone::UTC,
        }
    }

    /// A job of a daemon with this dataset, or with others.
    pub(crate) fn job(&self, name: &str, publish: Vec<PublishSection>) -> Box<dyn Job> {
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

pub(crate) async fn run(job: &mut Box<dyn Job>, lake: &Lake) -> Result<Done, JobError> {
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
    assert!(!world.naming(OTHERS[0]).await.is_empty(), "the others are released anew");
}

/// A file that somebody put beside the releases kept every dataset from being withdrawn, and from being published, for good;
/// and all releases were read again each minute.
#[tokio::test]
async fn a_file_that_nobody_can_read_keeps_nothing_published() {
    let world = released().await;
    let notes = Path::from("open/andre/notes/places.csv");
    world.place.put(&notes, b"place,phone\nElva,12345678\n".to_vec()).await;
    let lake = world.lake();
    let mut job = world.job("register", vec![section(&dataset().name, None)]);
    world.files("internal");
    let told = run(&mut job, &lake).await.expect_err("it is told").to_string();
    assert!(told.contains(notes.as_ref()) && told.contains("cannot be read"), "{told}");
    assert_eq!(world.naming(SENSOR).await, Vec::<String>::new());
    let before = lake.store().requests();
    run(&mut job, &lake).await.expect("it was told");
    let spent = lake.store().requests().since(&before);
    assert_eq!((spent.gets, spent.lists), (0, 0), "nothing is read again: {spent:?}");
    // Neither does it keep another dataset from being published.
    world.land(73, [2], false).await;
    world.ingest().await;
    let mut publish = world.job(&format!("publish-{}", dataset().name), vec![section(&dataset().name, None)]);
    let done = run(&mut publish, &lake).await.expect("published");
    assert_eq!(done.did["released"], true, "{done:?}");
}

/// The disk of one dataset was full, or its next release could not be made for another reason: no release of any dataset
/// was withdrawn.
#[tokio::test]
async fn a_dataset_that_cannot_be_made_anew_is_withdrawn_with_all_others() {
    let world = World::empty().await;
    world.land(1, 0..2, true).await;
    world.ingest().await;
    let names = ["alle", "andre"];
    let sections = || names.map(|name| section(name, None)).to_vec();
    for section in sections() {
        publish(&world.lake(), &section.dataset(), &TimeZone::UTC).await.expect("published");
    }
    let versions: Vec<String> = world.fetched("alle").into_iter().collect();
    let [version] = versions.as_slice() else { panic!("{versions:?}") };
    world.place.ahead(HOUR_US);
    let (_, readings) = version.split_once("-v").expect("of a version of readings");
    let occupied = format!("open/alle/2026-07-01T01-00-00Z-v{readings}/alle.csv");
    world.place.put(&Path::from(occupied.as_str()), b"sensor,time\n".to_vec()).await;
    world.files("internal");
    let mut job = world.job("register", sections());
    let told = run(&mut job, &world.lake()).await.expect_err("it is told").to_string();
    assert!(told.contains("`alle`") && told.contains("there already"), "{told}");
    assert_eq!(world.naming(SENSOR).await, Vec::<String>::new());
    assert_eq!(world.place.keys("open/alle/latest.json"), Vec::<String>::new(), "none of its releases is left");
    assert_eq!(world.place.keys("open/andre/latest.json").len(), 1);
    assert_eq!(world.fetched("andre").len(), 1, "the other one is made anew");
}

/// What the store does not let go is tried again, and keeps no other release.
#[tokio::test]
async fn a_release_that_the_store_keeps_is_tried_again_alone() {
    let world = released().await;
    let other = section("andre", None);
    publish(&world.lake(), &other.dataset(), &TimeZone::UTC).await.expect("published");
    let lake = world.lake();
    let mut job = world.job("register", vec![section(&dataset().name, None), other]);
    world.files("internal");
    world.place.ahead(HOUR_US);
    world.place.store.fail(Fault::Undeletable("open/andre/"));
    let told = run(&mut job, &lake).await.expect_err("it is told").to_string();
    assert!(told.contains("open/andre/") && told.contains("cannot be removed"), "{told}");
    let left = world.naming(SENSOR).await;
    assert!(!left.is_empty() && left.iter().all(|key| key.starts_with("open/andre/")), "{left:?}");
    world.place.store.fail(Fault::None);
    run(&mut job, &lake).await.expect("withdrawn");
    assert_eq!(world.naming(SENSOR).await, Vec::<String>::new());
}

/// A process was killed before it named its release, which it had made by an earlier word of the register.
#[tokio::test]
async fn a_release_that_was_never_named_is_recalled_too() {
    let world = released().await;
    let sections = || vec![section(&dataset().name, None)];
    let made = world.objects().await;
    world.files("internal");
    run(&mut world.job("register", sections()), &world.lake()).await.expect("withdrawn");
    assert_eq!(world.naming(SENSOR).await, Vec::<String>::new());
    // It wrote them after that.
    for (key, bytes) in made.into_iter().filter(|(key, _)| key.as_ref().ends_with(".csv")) {
        let later = key.as_ref().replace("2026-07-01T00-", "2026-07-01T05-");
        world.place.put(&Path::from(later), bytes.to_vec()).await;
    }
    assert_eq!(world.naming(SENSOR).await.len(), 1);
    run(&mut world.job(&format!("publish-{}", dataset().name), sections()), &world.lake()).await.expect("published");
    assert_eq!(world.naming(SENSOR).await, Vec::<String>::new());
}
