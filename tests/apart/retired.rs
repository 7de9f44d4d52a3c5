//! A sensor becomes personal, and its gateway has moved to the other lake: nothing more ever comes here.

use crate::place::{EPOCH, Place, said};

const FLAT: &str = "flat-k7/energy";

fn sensors(class: &str, more: &str) -> String {
    format!("{FLAT},flat-k7,energy,W.h,counter,{class},\n{more}")
}

/// `register` was status 2 for ever, and no line of it took effect: the newest batch waited for one that never came.
#[test]
fn a_source_that_moved_keeps_nothing_waiting() {
    let place = Place::new(&sensors("internal", ""));
    place.land("flat-01", 1, &[FLAT]);
    place.land("flat-01", 2, &[FLAT]);
    place.done(&[&["ingest"]]);
    let erase = ["erase", "--sensor", FLAT, "--from", "2026-06-01", "--to", "2026-07-01", "--reason", "it is a home"];
    let waits = place.run(&[&erase[..], &["--by", "an officer"]].concat());
    assert_eq!(waits.status.code(), Some(1));
    assert!(said(&waits).contains("erase --retired"), "{}", said(&waits));
    let all = sensors("personal", "tarn/level,tarn,level,m,sample,internal,\n");
    place.sensors(&all);
    assert_eq!(place.run(&["register"]).status.code(), Some(2), "the canary: it waits");
    let dry = place.run(&["erase", "--retired", "flat-01", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&dry.stdout), format!("epoch\tflat-01/{EPOCH}\t2\n"));
    assert_eq!(place.run(&["register"]).status.code(), Some(2), "a dry run ends nothing");
    assert_eq!(place.run(&["erase", "--retired", "flat-02"]).status.code(), Some(2), "there is no such source");
    place.done(&[&["erase", "--retired", "flat-01"], &["register"]]);
    assert_eq!(place.ask("SELECT id FROM sensors WHERE valid_to IS NULL ORDER BY id"), [FLAT, "tarn/level"]);
    let left = place.names(&format!("lake/landing/flat-01/{EPOCH}"));
    assert!(left.iter().all(|name| !name.ends_with(".arrow")), "{left:?}");
    // Where it was not true after all, nothing is lost.
    place.land("flat-01", 3, &["tarn/level"]);
    place.done(&[&["ingest"]]);
    assert_eq!(place.ask("SELECT sensor FROM readings"), ["tarn/level"]);
}
