//! The register comes before the first reading: what it forbids is in no table, also where nobody has registered before.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::place::{Place, said};

const FLAT: &str = "flat-k7/energy";
const TARN: &str = "tarn/water_temperature";

const SENSORS: &str = "flat-k7/energy,flat-k7,energy,W.h,counter,personal,\n\
    tarn/water_temperature,tarn,water_temperature,Cel,sample,public,tarn-01\n";

/// How long a daemon may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A city as it is on its first day: batches wait, and nothing was ever registered.
fn first_day() -> Place {
    let place = Place::new(SENSORS);
    place.land("flat-01", 1, &[FLAT]);
    place.land("tarn-01", 1, &[TARN]);
    // Somebody else says that it measures in the tarn.
    place.land("tarn-02", 1, &[TARN]);
    place
}

fn nothing_forbidden_came_in(place: &Place) {
    assert_eq!(place.ask(&format!("SELECT count(*) FROM readings WHERE sensor = '{FLAT}'")), ["0"]);
    let qualities = format!("SELECT quality, cause FROM readings WHERE sensor = '{TARN}' ORDER BY quality");
    assert_eq!(place.ask(&qualities), ["2,", "4,not_assigned"], "a stranger's reading fails");
    assert_eq!(place.names("lake/quarantine/flat-01").len(), 1);
    // The register goes on taking lines: no reading is in its way.
    place.done(&[&["register"], &["publish"]]);
}

/// A flat's readings were in the common lake, and in a release, in five of five first days: ingest ran before `register`.
#[test]
fn the_first_ingest_registers_first() {
    let place = first_day();
    place.done(&[&["ingest"]]);
    nothing_forbidden_came_in(&place);
}

/// An import took a flat's readings into the common lake: it never looked at what the register's files said by then.
#[test]
fn an_import_registers_first() {
    let place = Place::new(SENSORS);
    place.write("flat.csv", &format!("time,sensor,value\n2026-06-08T00:00:00Z,{FLAT},1\n"));
    place.write("tarn.csv", &format!("time,sensor,value\n2026-06-08T00:00:00Z,{TARN},1\n"));
    let import = |file: &str| {
        let file = place.path(file).display().to_string();
        place.run(&["import", &file, "--source", "import:history"])
    };
    let nobody_has_it = || assert_eq!(place.ask("SELECT count(*) FROM readings"), ["0"]);
    // Nobody has registered before.
    let refused = import("flat.csv");
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("registered as `personal`"), "{}", said(&refused));
    nobody_has_it();
    // The lake's register says something else than the file does by now.
    place.sensors(&SENSORS.replace("personal", "internal"));
    place.done(&[&["register"]]);
    place.sensors(SENSORS);
    assert_eq!(import("flat.csv").status.code(), Some(2));
    nobody_has_it();
    let taken = import("tarn.csv");
    assert_eq!(taken.status.code(), Some(0));
    assert!(!said(&taken).contains("not in the register"), "{}", said(&taken));
    assert_eq!(place.ask("SELECT count(*) FROM readings"), ["1"]);
    // A lake without a register takes nothing where the files are wrong.
    let other = Place::new(&SENSORS.replace("personal", "privat"));
    other.write("tarn.csv", &format!("time,sensor,value\n2026-06-08T00:00:00Z,{TARN},1\n"));
    let file = other.path("tarn.csv").display().to_string();
    let waits = other.run(&["import", &file, "--source", "import:history"]);
    assert_eq!(waits.status.code(), Some(2));
    assert!(said(&waits).contains("sensors.csv:2"), "{}", said(&waits));
    assert_eq!(other.ask("SELECT count(*) FROM readings"), ["0"]);
}

/// A daemon that is killed when its test ends.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_daemon_registers_first() {
    let place = first_day();
    let command = place.command("tjern.toml", &["run"]).stderr(Stdio::null()).spawn();
    let mut daemon = Daemon(command.expect("the binary starts"));
    let until = Instant::now() + PATIENCE;
    while !place.path("lake/jobs/runs/ingest.json").exists()
        || !place.path("personal/jobs/runs/personal-ingest.json").exists()
    {
        assert!(Instant::now() < until, "it did not ingest");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    daemon.0.kill().expect("killed");
    daemon.0.wait().expect("it ends");
    nothing_forbidden_came_in(&place);
}

/// A lake without a register waits for one that is right; one that has a register goes on with it, and says what is wrong.
#[test]
fn a_register_that_is_wrong_keeps_back_what_it_could_forbid() {
    let place = first_day();
    place.sensors(&SENSORS.replace("personal", "privat"));
    let waits = place.run(&["ingest"]);
    assert_eq!(waits.status.code(), Some(2));
    let told = said(&waits);
    assert!(told.contains("nothing is ingested without it") && told.contains("sensors.csv:2"), "{told}");
    assert_eq!(place.ask("SELECT count(*) FROM readings"), ["0"]);
    place.sensors(SENSORS);
    place.done(&[&["ingest"]]);
    nothing_forbidden_came_in(&place);
    place.sensors(&SENSORS.replace("personal", "privat"));
    place.land("tarn-01", 2, &[TARN]);
    let output = place.run(&["ingest"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains("held against the register as it was before"), "{}", said(&output));
    assert_eq!(place.ask("SELECT count(*) FROM readings"), ["3"]);
}
