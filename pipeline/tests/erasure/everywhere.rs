//! What was erased is nowhere, and everything else is as it was.

use std::collections::BTreeSet;

use object_store::path::Path;
use tjern_pipeline::compact::{CompactSettings, Progress, compact};
use tjern_pipeline::erase::{Erasures, erase, find, go_on};
use tjern_pipeline::register::register;
use tjern_pipeline::status::status;
use tokio_util::sync::CancellationToken;

use crate::support::{EPOCH, HOUR_US};
use crate::world::{FROM_US, GATEWAY, OTHERS, SENSOR, World, request};

/// The folder of a key, a log's and a release's by itself.
fn place_of(key: &str) -> String {
    let parts: Vec<_> = key.split('/').collect();
    match parts.as_slice() {
        ["tables", table, "_delta_log", name] => {
            let kind = if name.ends_with(".parquet") { "checkpoint" } else { "log" };
            format!("{kind} of {table}")
        }
        ["tables", table, ..] => format!("files of {table}"),
        ["open", _, "latest.json"] => "latest".to_owned(),
        ["open", .., file] => format!("release's {}", file.rsplit('.').next().unwrap_or_default()),
        [folder, ..] => (*folder).to_owned(),
        [] => String::new(),
    }
}

fn places(traces: &[(String, String)]) -> BTreeSet<String> {
    traces.iter().map(|(key, _)| place_of(key)).collect()
}

/// A lake as the readings left it, erased to the end; the objects before are handed out beside it.
async fn erased_to_the_end() -> (World, Vec<(Path, bytes::Bytes)>) {
    let world = World::full().await;
    let before = world.objects().await;
    erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    let next = 1 + 36 * 11;
    world.land(next, [20], false).await;
    world.place.land("elva-01", 37, 40).await;
    world.ingest().await;
    let outcome = go_on(&world.lake(), &world.settings(), false).await.expect("gone on");
    assert_eq!((outcome.waits, outcome.done.len()), (vec![], 1));
    (world, before)
}

#[tokio::test]
async fn erased_readings_are_nowhere_and_all_others_are_as_they_were() {
    let world = World::full().await;
    let full = places(&world.traces().await);
    println!("before: {full:?}");
    for place in ["files of readings", "log of readings", "checkpoint of readings", "files of hourly", "files of daily"]
        .into_iter()
        .chain(["landing", "quarantine", "corrections", "release's csv", "release's parquet", "jobs"])
    {
        assert!(full.contains(place), "the world has none in {place}: {full:?}");
    }
    let others = world.others().await;
    let before = world.objects().await;
    let told = find(&world.lake(), &request()).await.expect("found");
    let kinds: BTreeSet<&str> = told.iter().map(|found| found.what).collect();
    println!("a dry run tells of {kinds:?}, {} things", told.len());
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    assert!(world.objects().await == before, "a dry run changes nothing");
    let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    println!("{outcome:?}");
    let newest: Vec<String> = outcome.waits.iter().map(|wait| wait.what.clone()).collect();
    assert_eq!(newest.len(), 2, "the newest batches of two open epochs wait: {newest:?}");
    let left: Vec<String> = world.traces().await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, newest, "nothing else is left");
    assert_eq!(world.others().await, others);
    let found = status(&world.lake(), &world.settings().compact).await.expect("found");
    assert_eq!(found.erasures, std::slice::from_ref(&erasure));
    // Their sources go on, and the last of it goes with ingest, or with the job.
    let next = 1 + 36 * 11;
    world.land(next, [20], false).await;
    world.place.land("elva-01", 37, 40).await;
    world.ingest().await;
    let outcome = go_on(&world.lake(), &world.settings(), false).await.expect("gone on");
    assert_eq!((outcome.done, outcome.waits), (vec![erasure.id.clone()], vec![]));
    assert_eq!(world.traces().await, []);
    let found = status(&world.lake(), &world.settings().compact).await.expect("found");
    assert_eq!(found.erasures, []);
    let again = go_on(&world.lake(), &world.settings(), false).await.expect("nothing to do");
    assert_eq!(again, Default::default());
}

/// The hours and days are those of a lake in which the readings never were.
#[tokio::test]
async fn sums_are_those_of_readings_that_never_were() {
    let world = World::empty().await;
    world.land(1, -2..6, true).await;
    world.ingest().await;
    world.sum_up().await;
    erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    let other = World::empty().await;
    other.land(1, -2..6, false).await;
    other.ingest().await;
    other.sum_up().await;
    assert_eq!(world.sums().await, other.sums().await);
    // What comes later is added to them as to any others.
    world.land(1 + 36 * 8, [6], false).await;
    other.land(1 + 24 * 6 + 36 * 2, [6], false).await;
    for world in [&world, &other] {
        world.ingest().await;
        world.sum_up().await;
    }
    assert_eq!(world.sums().await, other.sums().await);
}

/// The canary: an erasure that leaves out any one place is caught by the scan.
#[tokio::test]
async fn a_place_that_is_left_out_is_caught() {
    let (world, before) = erased_to_the_end().await;
    assert_eq!(world.traces().await, []);
    let gone: BTreeSet<String> = {
        let old = World::of(&before, world.place.clock.now_us()).await;
        places(&old.traces().await)
    };
    let clean = world.objects().await;
    for place in &gone {
        let mut objects = clean.clone();
        for (key, bytes) in &before {
            if place_of(key.as_ref()) == *place {
                objects.retain(|(other, _)| other != key);
                objects.push((key.clone(), bytes.clone()));
            }
        }
        let canary = World::of(&objects, world.place.clock.now_us()).await;
        let caught = canary.traces().await;
        assert_eq!(places(&caught), BTreeSet::from([place.clone()]), "{caught:?}");
    }
    println!("caught in each of {gone:?}");
}

/// A release that is named is one that is there, and none that was withdrawn.
#[tokio::test]
async fn the_newest_release_is_never_a_withdrawn_one() {
    let (world, before) = erased_to_the_end().await;
    let after = world.objects().await;
    let named = |objects: &[(Path, bytes::Bytes)]| -> String {
        let latest = objects.iter().find(|(key, _)| key.as_ref() == "open/innetemperatur/latest.json");
        let release: serde_json::Value = serde_json::from_slice(&latest.expect("there").1).expect("JSON");
        release["version"].as_str().expect("text").to_owned()
    };
    let (old, new) = (named(&before), named(&after));
    assert_ne!(old, new);
    let of = |version: &str| -> BTreeSet<String> {
        let folder = format!("open/innetemperatur/{version}/");
        after.iter().filter_map(|(key, _)| key.as_ref().strip_prefix(&folder).map(str::to_owned)).collect()
    };
    assert_eq!(of(&old), BTreeSet::from(["withdrawn.json".to_owned()]));
    assert_eq!(of(&new).len(), 3);
    let withdrawn = after.iter().filter(|(key, _)| key.as_ref().ends_with("withdrawn.json"));
    for (key, bytes) in withdrawn {
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        assert!(!text.contains(SENSOR) && !text.contains("resident"), "anybody may read {key}: {text}");
    }
}

/// A sensor becomes personal only once nothing of it is left in the common lake.
#[tokio::test]
async fn a_sensor_becomes_personal_when_its_readings_are_gone() {
    let world = World::empty().await;
    world.land(1, 0..2, true).await;
    world.ingest().await;
    let refused = register(&world.lake(), &world.files("personal")).await.expect_err("it has readings").to_string();
    assert!(refused.contains(&format!("tjern pipeline erase --sensor {SENSOR}")), "{refused}");
    erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    let refused = register(&world.lake(), &world.files("personal")).await.expect_err("a batch waits").to_string();
    assert!(refused.contains("still being erased") && refused.contains("erase --continue"), "{refused}");
    world.land(1 + 72, [2], false).await;
    world.ingest().await;
    go_on(&world.lake(), &world.settings(), false).await.expect("gone on");
    register(&world.lake(), &world.files("personal")).await.expect("nothing is left");
    assert!(!Erasures::load(&world.lake()).await.expect("loaded").is_open_for(SENSOR));
    // Readings outside of what was erased are readings.
    let world = World::empty().await;
    world.land(1, -1..1, true).await;
    world.land(1 + 72, [1], false).await;
    world.ingest().await;
    erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    let refused = register(&world.lake(), &world.files("personal")).await.expect_err("some stay").to_string();
    assert!(refused.contains("has readings in the common lake"), "{refused}");
}

/// Rows that do not fit into compaction's memory lie in files without a name: nothing of them can be left behind.
#[tokio::test]
async fn what_does_not_fit_into_memory_has_no_name_on_disk() {
    let world = World::empty().await;
    world.land(1, -4..4, true).await;
    world.ingest().await;
    world.place.ahead(2 * HOUR_US);
    let spill_folder = world.path("spill");
    std::fs::create_dir(&spill_folder).expect("a folder");
    let names = || std::fs::read_dir(&spill_folder).expect("a folder").count();
    let settings =
        CompactSettings { memory_bytes: 2, spill_folder: spill_folder.clone(), ..CompactSettings::default() };
    let mut looks = 0;
    let mut watcher = |_: Progress| {
        looks += 1;
        assert_eq!(names(), 0, "a run on disk has a name");
    };
    let outcome = compact(&world.lake(), &settings, &CancellationToken::new(), &mut watcher).await.expect("compacted");
    assert!(outcome.spilled_runs > 0 && looks > 0, "{outcome:?}");
    assert_eq!(names(), 0);
}

/// Only what is covered goes: to the microsecond, and of that sensor alone.
#[tokio::test]
async fn the_ends_of_the_period_are_kept_to_the_microsecond() {
    let world = World::empty().await;
    let mut request = request();
    (request.from_us, request.to_us) = (FROM_US + 3_600_000_000, FROM_US + 3 * 3_600_000_000);
    world.land(1, 0..2, true).await;
    world.ingest().await;
    let count = format!("SELECT count(*), min(time) FROM readings WHERE sensor = '{SENSOR}'");
    assert!(world.place.ask(&count).await.starts_with("24 "));
    erase(&world.lake(), &world.settings(), &request).await.expect("erased");
    assert!(world.place.ask(&count).await.starts_with("22 "));
    for other in OTHERS {
        let count = format!("SELECT count(*) FROM readings WHERE sensor = '{other}'");
        assert_eq!(world.place.ask(&count).await, "24");
    }
    let landed = world.place.keys(&format!("landing/{GATEWAY}/{EPOCH}"));
    assert_eq!(landed.len(), 1, "the first batch went whole, the second holds nothing: {landed:?}");
}
