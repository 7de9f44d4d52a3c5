//! The spool over a real folder: group commit, restarts, copies taken at any moment, a second process.

use std::path::Path;
use std::time::Duration;

use tjern_gateway::spool::{SealedKind, Spool, SpoolError, SpoolSettings};
use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::SensorId;

fn settings(dir: &Path, sync_every: Duration) -> SpoolSettings {
    SpoolSettings {
        dir: dir.to_owned(),
        max_bytes: 1 << 28,
        sync_every,
        source: "landfall-01".parse().expect("valid"),
        configuration: None,
    }
}

fn open(dir: &Path) -> Spool {
    Spool::open(settings(dir, Duration::from_secs(5)), Clock::manual(0)).expect("opened")
}

fn sensor() -> SensorId {
    "landfalltjern/water_temperature".parse().expect("valid")
}

fn readings(from: i64, count: i64) -> Vec<Reading> {
    (from..from + count).map(|number| Reading::of(sensor(), number, number as f64)).collect()
}

async fn values(spool: &Spool) -> Vec<i64> {
    let mut values = Vec::new();
    for object in spool.sealed().await.iter().filter(|object| object.kind == SealedKind::Batch) {
        let bytes = spool.bytes(object).await.expect("read");
        let batch = batch::decode(&bytes).expect("a batch");
        values.extend(batch.readings().expect("readings").iter().map(|reading| reading.time_us));
    }
    values
}

/// Waits until something holds, within a minute.
async fn until(what: impl Fn() -> bool) {
    let looking = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !what() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it comes to hold within a minute");
}

/// An hourly site loses nothing: what comes after a quiet time is synced at once, the next waits its turn.
#[tokio::test]
async fn the_first_reading_after_a_quiet_time_is_synced_at_once() {
    let place = tempfile::tempdir().expect("a folder");
    let hour = Duration::from_secs(3600);
    let spool = Spool::open(settings(place.path(), hour), Clock::manual(0)).expect("opened");
    spool.append(readings(0, 1)).await;
    until(|| spool.status().synced_seq == 1).await;
    spool.append(readings(1, 1)).await;
    // An answer comes after the append was carried out.
    assert_eq!(spool.sealed().await, []);
    assert_eq!((spool.status().synced_seq, spool.status().unsynced_readings), (1, 1));
}

/// What waits for its turn gets it without being asked for.
#[tokio::test]
async fn a_group_is_synced_when_its_time_has_come() {
    let place = tempfile::tempdir().expect("a folder");
    let spool = Spool::open(settings(place.path(), Duration::from_millis(50)), Clock::manual(0)).expect("opened");
    for number in 0..10 {
        spool.append(readings(number, 1)).await;
    }
    until(|| spool.status().synced_seq == 10).await;
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let place = tempfile::tempdir().expect("a folder");
    let spool = open(place.path());
    let epoch = spool.epoch();
    spool.append(readings(0, 10)).await;
    spool.close().await;
    let spool = open(place.path());
    assert_eq!((spool.epoch(), spool.status().next_seq), (epoch, 11));
    assert_eq!(spool.newest_time_us(&sensor()), Some(9));
    spool.append(readings(10, 5)).await;
    assert!(spool.seal().await);
    assert_eq!(values(&spool).await, (0..15).collect::<Vec<_>>());
    for object in spool.sealed().await {
        spool.remove(&object).await;
    }
    spool.close().await;
    let spool = open(place.path());
    assert_eq!((spool.epoch(), spool.status().next_seq), (epoch, 16));
    assert_eq!(spool.newest_time_us(&sensor()), Some(14), "the slot is taken, though its reading has left");
    assert_eq!(spool.newest_time_us(&"mast/wind_speed".parse().expect("valid")), None);
}

#[tokio::test]
async fn a_second_opening_is_refused_with_a_hint() {
    let place = tempfile::tempdir().expect("a folder");
    let _spool = open(place.path());
    let refused = Spool::open(settings(place.path(), Duration::from_secs(5)), Clock::manual(0));
    assert!(matches!(&refused, Err(error @ SpoolError::Locked { .. }) if error.to_string().contains("hint:")));
}

/// A process that is killed leaves its files as they are: each copy of the folder, taken between any two
/// steps, holds all that was acknowledged by then.
#[tokio::test]
async fn a_copy_taken_at_any_moment_holds_what_was_acknowledged() {
    let place = tempfile::tempdir().expect("a folder");
    let spool = open(&place.path().join("spool"));
    let mut removed = 0;
    for step in 0..12 {
        spool.append(readings(step * 10, 10)).await;
        assert!(spool.sync().await);
        if step % 3 == 1 {
            assert!(spool.seal().await);
        }
        if step % 4 == 3 {
            for object in spool.sealed().await {
                removed = removed.max(object.bounds.last);
                spool.remove(&object).await;
            }
        }
        let image = place.path().join(format!("image-{step}"));
        copy_folder(&place.path().join("spool"), &image);
        let copy = open(&image);
        assert!(copy.seal().await);
        assert_eq!(values(&copy).await, (removed..(step + 1) * 10).collect::<Vec<_>>(), "step {step}");
        assert_eq!(copy.status().next_seq, (step + 1) * 10 + 1);
        copy.close().await;
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Many small appends, and a sync now and then: the segments turn over, nothing is lost on the way.
#[tokio::test]
async fn segments_turn_over() {
    let place = tempfile::tempdir().expect("a folder");
    let spool = Spool::open(settings(place.path(), Duration::from_millis(1)), Clock::manual(0)).expect("opened");
    for round in 0..600 {
        spool.append(readings(round * 100, 100)).await;
    }
    assert!(spool.seal().await);
    assert_eq!(values(&spool).await, (0..60_000).collect::<Vec<_>>());
    spool.close().await;
    let segments = std::fs::read_dir(place.path())
        .expect("listed")
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".segment")));
    assert_eq!(segments.count(), 1, "sealed segments are removed");
}

/// What the buses learn lies in the spool's folder; a later version may put more there.
#[tokio::test]
async fn a_folder_that_is_not_the_spools_own_does_not_keep_it_from_opening() {
    let place = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(place.path().join("learned")).expect("created");
    std::fs::write(place.path().join("learned/north.toml"), "version = 1\n").expect("written");
    let spool = open(place.path());
    spool.append(readings(1, 3)).await;
    spool.close().await;
    let spool = open(place.path());
    assert!(spool.seal().await);
    assert_eq!(values(&spool).await, [1, 2, 3]);
    assert!(place.path().join("learned/north.toml").exists(), "and it is left alone");
    spool.close().await;
}
