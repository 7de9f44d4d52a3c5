//! What was erased does not come back with a backup from before.

use std::fs;

use tjern_readings::clock::{Clock, SECOND_US};

use crate::place::{Place, said};

const FLAT: &str = "flat-k7/energy";
const SENSORS: &str = "flat-k7/energy,flat-k7,energy,W.h,counter,internal,\n";

const ERASE: [&str; 11] = [
    "erase",
    "--sensor",
    FLAT,
    "--from",
    "2026-06-01",
    "--to",
    "2026-07-01",
    "--reason",
    "asked for",
    "--by",
    "an officer",
];

fn readings(place: &Place) -> Vec<String> {
    place.ask("SELECT count(*) FROM readings")
}

/// A resident's readings answered queries again, until a job looked within the hour; by hand nobody was told to.
#[test]
fn a_restore_erases_again_before_anybody_asks() {
    let place = Place::new(SENSORS);
    for first in 1..=3 {
        place.land("flat-01", first, &[FLAT]);
    }
    place.done(&[&["register"], &["ingest"]]);
    let backups = place.url("backups");
    place.done(&[&["backup", "--to", &backups]]);
    // The newest batch of a source waits for the next one: that is no readings in the tables.
    assert_eq!(place.run(&ERASE).status.code(), Some(1));
    assert_eq!(readings(&place), ["0"]);
    for only in [None, Some("tables")] {
        fs::rename(place.path("lake/tables"), place.path("lost")).expect("moved away");
        let mut restore = vec!["restore", "--from", &backups];
        restore.extend(only.iter().flat_map(|only| ["--only", only]));
        let output = place.run(&restore);
        assert_eq!(output.status.code(), Some(0));
        assert!(said(&output).contains("erased again: 3 rows"), "{}", said(&output));
        assert_eq!(readings(&place), ["0"], "{only:?}");
        fs::remove_dir_all(place.path("lost")).expect("removed");
    }
    // What has landed came back alone: the erasure is looked through whole.
    place.done(&[&["erase", "--retired", "flat-01"]]);
    assert_eq!(batches(&place), 0);
    let output = place.run(&["restore", "--from", &backups, "--only", "landing"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(batches(&place), 0, "{}", said(&output));
}

/// Broken off while it erased, a restore was refused for ever: what it had erased is not what the backup has.
#[test]
fn a_restore_that_broke_off_while_it_erased_goes_on() {
    let place = Place::new(SENSORS);
    for first in 1..=2 {
        place.land("flat-01", first, &[FLAT]);
    }
    place.done(&[&["register"], &["ingest"]]);
    let backups = place.url("backups");
    place.done(&[&["backup", "--to", &backups]]);
    place.run(&ERASE);
    fs::rename(place.path("lake/tables"), place.path("lost")).expect("moved away");
    // Somebody was killed at quality control just before.
    let until_us = Clock::system().now_us() + 200 * SECOND_US;
    let lease = place.path("lake/jobs/quality.json");
    fs::write(&lease, format!("{{\"holder\":\"one that was killed\",\"until_us\":{until_us}}}")).expect("written");
    let refused = place.run(&["restore", "--from", &backups]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("another process does `quality`"), "{}", said(&refused));
    assert!(said(&place.run(&["status"])).contains("not finished"), "nobody works on it");
    // What an erasure removes before it is broken off is not put once more.
    let landed = place.path(&format!("lake/landing/flat-01/{}", crate::place::EPOCH));
    fs::remove_dir_all(&landed).expect("removed");
    fs::remove_file(&lease).expect("removed");
    place.done(&[&["restore", "--from", &backups]]);
    assert_eq!((readings(&place), batches(&place)), (vec!["0".to_owned()], 0));
}

fn batches(place: &Place) -> usize {
    let folder = format!("lake/landing/flat-01/{}", crate::place::EPOCH);
    place.names(&folder).iter().filter(|name| name.ends_with(".arrow")).count()
}

/// `erase` ingests what has landed, and may be the first to do so.
#[test]
fn an_erasure_registers_first() {
    let place = Place::new(&SENSORS.replace("internal", "personal"));
    place.land("flat-01", 1, &[FLAT]);
    place.run(&ERASE);
    place.land("flat-01", 2, &[FLAT]);
    let again = place.run(&["erase", "--again"]);
    assert_eq!(readings(&place), ["0"], "{}", said(&again));
    assert_eq!(place.run(&["register"]).status.code(), Some(0), "no reading is in its way");
}
