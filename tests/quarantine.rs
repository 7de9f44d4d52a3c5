//! What lies in quarantine as an operator meets it, by the real binary: found, looked into, tried again, with statuses that
//! a script can go by.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tjern_readings::batch::encode;
use tjern_readings::keys::{Bounds, Landed, quarantine};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};

const EPOCH: Epoch = Epoch::from_bytes([4; 16]);

/// A city whose lake has one bad batch of five readings and one that is not bad.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        let text = format!("version = 1\nlake = \"file://{}\"\n", place.lake().display());
        fs::write(place.folder.path().join("tjern.toml"), text).expect("written");
        place.put(&key(1, 5), b"no batch at all");
        place.put(&key(6, 8), &batch(6, 8));
        assert_eq!(place.run(&["ingest"]).status.code(), Some(0));
        place
    }

    fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    fn put(&self, key: &object_store::path::Path, bytes: &[u8]) {
        let path = self.lake().join(key.as_ref());
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, bytes).expect("written");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(arguments, &self.folder.path().join("tjern.toml"))
    }

    fn quarantine(&self, arguments: &[&str]) -> Output {
        self.run(&[&["quarantine"][..], arguments].concat())
    }

    fn rows(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_tjern"))
            .args(["query", "SELECT count(*), sum(seq) FROM readings", "--format", "csv", "--config"])
            .arg(self.folder.path().join("tjern.toml"))
            .output()
            .expect("the binary runs");
        out(&output).lines().nth(1).unwrap_or_default().to_owned()
    }
}

fn run(arguments: &[&str], config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
    let output = command.arg("pipeline").args(arguments).arg("--config").arg(config).env("NO_COLOR", "1").output();
    let output = output.expect("the binary runs");
    eprintln!("{arguments:?}: {}{}", out(&output), told(&output));
    output
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn source() -> SourceName {
    "elva-01".parse().expect("valid")
}

fn key(first: i64, last: i64) -> object_store::path::Path {
    Landed::Batch(EPOCH, Bounds::new(first, last).expect("in order")).key(&source())
}

fn batch(first: i64, last: i64) -> Vec<u8> {
    let sensor = || "elva/level".parse().expect("valid");
    let readings: Vec<_> =
        (first..=last).map(|number| Reading::of(sensor(), (495_000 + number) * 3_600_000_000, 1.0)).collect();
    encode(&source(), EPOCH, first, &readings, None).expect("encoded").0.to_vec()
}

/// The name of the bad batch, as `ls` says it.
fn name() -> String {
    quarantine(&key(1, 5)).as_ref().trim_start_matches("quarantine/").to_owned()
}

#[test]
fn what_is_set_aside_is_listed_for_people_and_for_programs() {
    let place = Place::new();
    let listed = place.quarantine(&["ls"]);
    assert_eq!(listed.status.code(), Some(0));
    let text = out(&listed);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "an object in two lines: {text}");
    assert!(lines[0].ends_with(&format!("{:>10}  {}", 15, name())), "{text}");
    assert!(lines[1].contains("the batch is damaged"), "{text}");
    assert!(told(&listed).contains("quarantine: 1 object"), "{}", told(&listed));
    let line = out(&place.quarantine(&["ls", "--json"]));
    let line: Value = serde_json::from_str(&line).expect("one line of JSON");
    assert_eq!((&line["name"], &line["bytes"]), (&name().into(), &15.into()));
    assert_eq!(line["landed"], key(1, 5).as_ref());
    assert!(line["moved"].as_str().is_some_and(|moved| moved.ends_with('Z')), "{line}");
    assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("damaged")), "{line}");
}

#[test]
fn one_object_is_looked_into() {
    let place = Place::new();
    for name in [name(), key(1, 5).to_string()] {
        let shown = place.quarantine(&["show", &name]);
        assert_eq!(shown.status.code(), Some(0), "by its name and by where it had landed");
        let text = out(&shown);
        for (line, words) in [("landed as", "landing/elva-01/"), ("bytes", "15"), ("now", "damaged")] {
            let found = text.lines().find(|text| text.starts_with(line));
            assert!(found.is_some_and(|found| found.contains(words)), "{line}: {text}");
        }
    }
    let line: Value = serde_json::from_str(&out(&place.quarantine(&["show", &name(), "--json"]))).expect("JSON");
    assert_eq!((&line["readable"], line["sha256"].as_str().map(str::len)), (&false.into(), Some(64)));
    assert!(line["now"].as_str().is_some_and(|now| now.contains("damaged")), "{line}");
    // After an update that reads it.
    place.put(&quarantine(&key(1, 5)), &batch(1, 5));
    let text = out(&place.quarantine(&["show", &name()]));
    assert!(text.contains("readings       5") && text.contains("it can be read"), "{text}");
    let line: Value = serde_json::from_str(&out(&place.quarantine(&["show", &name(), "--json"]))).expect("JSON");
    assert_eq!((&line["readable"], &line["now"]), (&true.into(), &Value::Null));
}

/// A script goes by the status: what cannot be retried stays, and is no success.
#[test]
fn what_cannot_be_retried_stays_and_is_status_1() {
    let place = Place::new();
    for which in ["--all", &name()] {
        let refused = place.quarantine(&["retry", which]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(out(&refused).starts_with(&format!("{}  refused: ", name())), "{}", out(&refused));
        assert!(told(&refused).contains("1 of 1 stay in quarantine"), "{}", told(&refused));
    }
    let refused = place.quarantine(&["retry", "--all", "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    let line: Value = serde_json::from_str(&out(&refused)).expect("one line of JSON");
    assert_eq!((&line["name"], &line["taken"]), (&name().into(), &false.into()));
    assert!(line["refused"].as_str().is_some_and(|why| why.contains("damaged")), "{line}");
    assert!(place.lake().join(quarantine(&key(1, 5)).as_ref()).is_file(), "it stays as it came");
    assert_eq!(place.rows(), "3,21");
}

#[test]
fn what_can_be_read_by_now_is_taken_once() {
    let place = Place::new();
    place.put(&quarantine(&key(1, 5)), &batch(1, 5));
    let taken = place.quarantine(&["retry", &name(), "--json"]);
    assert_eq!(taken.status.code(), Some(0));
    let line: Value = serde_json::from_str(&out(&taken)).expect("one line of JSON");
    assert_eq!((&line["taken"], &line["refused"]), (&true.into(), &Value::Null));
    assert_eq!(place.rows(), "8,36");
    let again = place.quarantine(&["retry", "--all"]);
    assert_eq!((again.status.code(), out(&again)), (Some(0), String::new()), "there is nothing left");
    assert!(told(&again).contains("0 taken"), "{}", told(&again));
    assert_eq!(out(&place.quarantine(&["ls", "--json"])), "");
}

#[test]
fn what_is_not_there_is_status_1_and_what_makes_no_sense_is_status_2() {
    let place = Place::new();
    for asked in [["show", "elva-01/nothing"], ["retry", "elva-01/nothing"]] {
        let missing = place.quarantine(&asked);
        assert_eq!((missing.status.code(), out(&missing)), (Some(1), String::new()));
        assert!(told(&missing).contains("hint: `tjern pipeline quarantine ls`"), "{}", told(&missing));
    }
    for asked in [&["retry"][..], &["retry", "x", "--all"], &["show"], &["empty"]] {
        assert_eq!(place.quarantine(asked).status.code(), Some(2), "{asked:?}");
    }
    let nowhere = place.folder.path().join("nowhere.toml");
    assert_eq!(run(&["quarantine", "ls"], &nowhere).status.code(), Some(2));
    fs::write(&nowhere, "version = 1\nlake = \"nowhere\"\n").expect("written");
    assert_eq!(run(&["quarantine", "ls"], &nowhere).status.code(), Some(2));
}

/// What was set aside left a hole. A person who knows that it will never be filled says so, and why.
#[test]
fn a_hole_that_will_never_be_filled_is_accepted() {
    let place = Place::new();
    let listed = out(&place.run(&["holes", "ls"]));
    assert_eq!(listed, format!("hole               elva-01  {EPOCH}  1-5\n"));
    let epoch = EPOCH.to_string();
    let accept = |numbers: &str, reason: &str| {
        place.run(&[
            "holes",
            "accept",
            "elva-01",
            &epoch,
            numbers,
            "--reason",
            reason,
            "--by",
            "a technician",
            "--json",
        ])
    };
    assert_eq!(accept("6-8", "lost").status.code(), Some(1), "that is no hole");
    for (numbers, reason) in [("1..5", "lost"), ("5-1", "lost"), ("1-5", " ")] {
        assert_eq!(accept(numbers, reason).status.code(), Some(2), "{numbers} {reason}");
    }
    let accepted = accept("1-5", "the box burnt down");
    assert_eq!(accepted.status.code(), Some(0));
    let line: Value = serde_json::from_str(&out(&accepted)).expect("one line of JSON");
    assert_eq!((&line["first"], &line["last"], &line["new"]), (&1.into(), &5.into(), &true.into()));
    let line: Value = serde_json::from_str(&out(&place.run(&["holes", "ls", "--json"]))).expect("JSON");
    assert_eq!((&line["accepted"], &line["gap"]), (&true.into(), &false.into()));
    assert!(out(&place.run(&["status"])).contains(&format!("holes and gaps: 0\n  accepted elva-01/{EPOCH} 1-5\n")));
    let records = fs::read_dir(place.lake().join("corrections")).expect("records");
    let said: Vec<_> = records.map(|one| fs::read_to_string(one.expect("there").path()).expect("read")).collect();
    assert!(said.len() == 1 && said[0].contains("the box burnt down") && said[0].contains("a technician"), "{said:?}");
}

/// A gateway is gone, and with it the configuration that its last batch names: a person says that it will never come.
#[test]
fn a_configuration_that_will_never_come_is_accepted() {
    let place = Place::new();
    let sha256 = "fe".repeat(32);
    let sensor = || "elva/level".parse().expect("valid");
    let readings = [Reading::of(sensor(), 495_100 * 3_600_000_000, 1.0)];
    let (bytes, header) = encode(&source(), EPOCH, 9, &readings, Some(&sha256)).expect("encoded");
    place.put(&Landed::Batch(EPOCH, header.header.bounds).key(&source()), &bytes);
    assert_eq!(place.run(&["ingest"]).status.code(), Some(0));
    let listed = out(&place.run(&["configurations", "ls"]));
    assert!(listed.starts_with(&format!("missing   elva-01  {sha256}  since ")), "{listed}");
    let accept = |sha256: &str, reason: &str| {
        let asked =
            ["configurations", "accept", "elva-01", sha256, "--reason", reason, "--by", "a technician", "--json"];
        place.run(&asked)
    };
    assert_eq!(accept(&"ab".repeat(32), "lost").status.code(), Some(1), "nothing waits for it");
    for (sha256, reason) in [("fefe", "lost"), ("../x", "lost"), (sha256.as_str(), " ")] {
        assert_eq!(accept(sha256, reason).status.code(), Some(2), "{sha256} {reason}");
    }
    for is_new in [true, false] {
        let accepted = accept(&sha256, "the box burnt down");
        assert_eq!(accepted.status.code(), Some(0));
        let line: Value = serde_json::from_str(&out(&accepted)).expect("one line of JSON");
        assert_eq!((&line["configuration"], &line["new"]), (&sha256.as_str().into(), &is_new.into()));
    }
    let line: Value = serde_json::from_str(&out(&place.run(&["configurations", "ls", "--json"]))).expect("JSON");
    assert_eq!((&line["source"], &line["accepted"]), (&"elva-01".into(), &true.into()));
    let status = out(&place.run(&["status"]));
    assert!(status.contains("units are not checked: 0\n  accepted elva-01 fefe"), "{status}");
    let records = fs::read_dir(place.lake().join("corrections")).expect("records");
    let said: Vec<_> = records.map(|one| fs::read_to_string(one.expect("there").path()).expect("read")).collect();
    assert!(said.len() == 1 && said[0].contains("the box burnt down") && said[0].contains(&sha256), "{said:?}");
}
