//! `tjern pipeline erase`, by the real binary: told first, then done, and done to the end once the source goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tjern_lake::{Lake, Lease};
use tjern_readings::batch::encode;
use tjern_readings::keys::Landed;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};

const SENSOR: &str = "home-7/indoor_temperature";
const OTHER: &str = "tarn/water_temperature";
/// 2026-06-08T00:00:00Z, as an hour.
const HOUR: i64 = 494_688;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        let lake = place.path("lake");
        let config = format!("version = 1\ntimezone = \"UTC\"\nlake = \"file://{}\"\n", lake.display());
        place.write("tjern.toml", config);
        place.write("sites.csv", "site,name_nb\nhome-7,Et hjem\ntarn,Tjernet\n");
        place.class("public");
        assert_eq!(place.run(&["register"]).status.code(), Some(0));
        place
    }

    fn class(&self, class: &str) {
        let text = format!(
            "id,site,quantity,unit,kind,class\n{SENSOR},home-7,indoor_temperature,Cel,sample,{class}\n\
             {OTHER},tarn,water_temperature,Cel,sample,public\n"
        );
        self.write("sensors.csv", text);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("written");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let config = self.path("tjern.toml");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
        command.arg("pipeline").args(arguments).arg("--config").arg(config);
        let output = command.env("NO_COLOR", "1").output().expect("the binary runs");
        eprintln!("{}", said(&output));
        output
    }

    fn ask(&self, sql: &str) -> Vec<String> {
        let config = self.path("tjern.toml");
        let output = Command::new(env!("CARGO_BIN_EXE_tjern"))
            .args(["query", sql, "--format", "csv", "--config"])
            .arg(config)
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").lines().skip(1).map(str::to_owned).collect()
    }

    /// Lands four hours of readings from an hour on, numbered from `first`.
    fn land(&self, first: i64, hour: i64, sensors: &[&str]) {
        let source: SourceName = "landfall-01".parse().expect("valid");
        let of_hour = |hour: i64| {
            let reading = move |sensor: &&str| {
                let value = if *sensor == SENSOR { 21.734_375 } else { 4.25 };
                Reading::of(sensor.parse().expect("valid"), hour * 3_600_000_000, value)
            };
            sensors.iter().map(reading).collect::<Vec<_>>()
        };
        let readings: Vec<_> = (hour..hour + 4).flat_map(of_hour).collect();
        let (bytes, batch) = encode(&source, Epoch::from_bytes([3; 16]), first, &readings, None).expect("encoded");
        let key = Landed::Batch(Epoch::from_bytes([3; 16]), batch.header.bounds).key(&source);
        let path = self.path("lake").join(key.as_ref());
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, bytes).expect("written");
    }

    /// The files of the lake in which a sequence of bytes stands.
    fn files_with(&self, bytes: &[u8]) -> Vec<PathBuf> {
        fn walk(folder: &Path, bytes: &[u8], found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
                if entry.is_dir() {
                    walk(&entry, bytes, found);
                } else if fs::read(&entry).expect("read").windows(bytes.len()).any(|some| some == bytes) {
                    found.push(entry);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path("lake"), bytes, &mut found);
        found
    }
}

/// Whether an object of `erasures/` is the record of one, and no note about it.
fn is_record(entry: &std::io::Result<fs::DirEntry>) -> bool {
    let name = entry.as_ref().expect("an entry").file_name().into_string().expect("text");
    name.strip_suffix(".json").is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// A resident asks for it: the officer looks first, erases, and sees to it that it is done.
#[test]
fn a_residents_readings_are_erased() {
    let place = Place::new();
    place.land(1, HOUR, &[SENSOR, OTHER]);
    place.land(9, HOUR + 4, &[SENSOR, OTHER]);
    for job in ["ingest", "rollup", "publish"] {
        assert_eq!(place.run(&[job]).status.code(), Some(0));
    }
    let day = jiff::Timestamp::from_second(HOUR * 3_600).expect("a time");
    let (from, to) = (day.to_string(), (day + jiff::SignedDuration::from_hours(24)).to_string());
    let erase = ["erase", "--sensor", SENSOR, "--from", &from, "--to", &to];
    assert_eq!(place.run(&erase).status.code(), Some(2), "a reason is asked for");
    let erase =
        [&erase[..], &["--reason", "the resident asked for it", "--by", "the data protection officer"]].concat();
    let dry = place.run(&[&erase[..], &["--dry-run"]].concat());
    assert_eq!(dry.status.code(), Some(0));
    let told = String::from_utf8(dry.stdout).expect("text");
    for what in ["file of readings\t", "rows of hourly\t", "rows of daily\t", "landed batch\t"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    let count = format!("SELECT count(*) FROM readings WHERE sensor = '{SENSOR}'");
    assert_eq!(place.ask(&count), ["8"], "a dry run changes nothing");
    assert!(!place.path("lake/erasures").exists());
    let output = place.run(&[&erase[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1), "the newest batch waits");
    let text = said(&output);
    assert!(
        text.contains("erase: waits: landing/landfall-01/") && text.contains("the newest of an open epoch"),
        "{text}"
    );
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!((&line["did"]["rows"], &line["erasure"]["sensor"]), (&8.into(), &SENSOR.into()), "{line}");
    assert_eq!((&line["job"], &line["outcome"]), (&"erase".into(), &"done".into()), "{line}");
    assert!(line["did"]["waits"][0]["why"].is_string() && line["began"].is_string(), "{line}");
    let id = line["erasure"]["id"].as_str().expect("an id");
    assert!(text.contains(&format!("remembered as {id}")) && text.contains("it is not complete"), "{text}");
    // The officer asks again, since it was not complete: it is the same erasure.
    let again = place.run(&[&erase[..], &["--json"]].concat());
    let line: serde_json::Value = serde_json::from_slice(&again.stdout).expect("one line of JSON");
    assert_eq!((again.status.code(), &line["erasure"]["id"]), (Some(1), &id.into()), "{line}");
    assert!(said(&again).contains("asked for before, by the data protection officer"), "{}", said(&again));
    assert_eq!(fs::read_dir(place.path("lake/erasures")).expect("there").filter(is_record).count(), 1);
    assert_eq!(place.ask(&count), ["0"]);
    assert_eq!(place.ask("SELECT count(*) FROM readings"), ["8"]);
    let status = said(&place.run(&["status"]));
    assert!(status.contains("erasures that are not complete: 1") && status.contains(SENSOR), "{status}");
    place.class("personal");
    let refused = place.run(&["register"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("tjern pipeline erase --continue"), "{}", said(&refused));
    // The source goes on, and sends again what was erased.
    place.land(17, HOUR + 48, &[OTHER]);
    place.land(1, HOUR, &[SENSOR, OTHER]);
    assert_eq!(place.run(&["ingest"]).status.code(), Some(0));
    assert_eq!(place.run(&["erase", "--continue"]).status.code(), Some(0));
    assert_eq!(place.ask(&count), ["0"]);
    assert_eq!(place.files_with(&21.734_375_f64.to_le_bytes()), Vec::<PathBuf>::new());
    assert_eq!(place.files_with(b"21.734375"), Vec::<PathBuf>::new());
    let landed: Vec<_> = fs::read_dir(place.path(&format!("lake/landing/landfall-01/{}", Epoch::from_bytes([3; 16]))))
        .expect("there")
        .collect();
    assert_eq!(landed.len(), 1, "{landed:?}");
    let verified = place.run(&["verify"]);
    assert_eq!(verified.status.code(), Some(0));
    assert_eq!(place.run(&["register"]).status.code(), Some(0), "nothing is left of it here");
    assert_eq!(place.run(&["erase", "--again"]).status.code(), Some(0));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new();
    let refused = |arguments: &[&str]| {
        assert_eq!(place.run(arguments).status.code(), Some(2), "{arguments:?}");
    };
    let period = ["--from", "2026-06-01", "--to", "2026-06-02"];
    refused(&["erase"]);
    refused(&[&["erase", "--sensor", "No Sensor", "--reason", "x"][..], &period].concat());
    refused(&[&["erase", "--sensor", SENSOR, "--reason", " "][..], &period].concat());
    refused(&["erase", "--sensor", SENSOR, "--reason", "x", "--from", "2026-06-02", "--to", "2026-06-01"]);
    refused(&["erase", "--continue", "--sensor", SENSOR]);
    assert!(!place.path("lake/erasures").exists());
}

impl Place {
    /// The commits and checkpoints of a table's log.
    fn log(&self, table: &str) -> Vec<String> {
        let names = fs::read_dir(self.path("lake/tables").join(table).join("_delta_log")).expect("a log");
        let mut names: Vec<_> =
            names.map(|name| name.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

/// A letter was left out: nothing was found, "1 erasures complete" was said, and the logs of all tables were gone, with every
/// version that others still read. So it is where the sensor is there and has no reading in the period.
#[test]
fn an_erasure_that_finds_nothing_costs_no_log() {
    let place = Place::new();
    place.land(1, HOUR, &[OTHER]);
    for job in ["ingest", "rollup"] {
        assert_eq!(place.run(&[job]).status.code(), Some(0));
    }
    let before = ["readings", "hourly", "daily"].map(|table| place.log(table));
    let erase = |sensor: &str, flags: &[&str]| {
        let asked =
            ["erase", "--sensor", sensor, "--from", "2026-06-01", "--to", "2026-07-01", "--reason", "asked for"];
        place.run(&[&asked[..], &["--by", "an officer"], flags].concat())
    };
    for flags in [&[][..], &["--dry-run"]] {
        let refused = erase("tarn/water_temperatur", flags);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains("nothing knows `tarn/water_temperatur`"), "{}", said(&refused));
    }
    assert!(!place.path("lake/erasures").exists());
    // A run that has to wait for others' work has done nothing: the next one is the first that may find something.
    let lake =
        Lake::open(&format!("file://{}", place.path("lake").display()).parse().expect("a lake")).expect("opened");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let busy = runtime.block_on(Lease::take(&lake, "quality", Duration::from_secs(600))).expect("asked").expect("free");
    let waits = erase("tarn/water_temperatur", &["--allow-unknown"]);
    assert!(waits.status.code() == Some(1) && said(&waits).contains("quality"), "{}", said(&waits));
    runtime.block_on(busy.give_back()).expect("given back");
    // One that was killed at it holds the lease for a minute more: who asks meanwhile is told that it is remembered, and how.
    let killed = runtime.block_on(Lease::take(&lake, "erase", Duration::from_secs(60))).expect("asked").expect("free");
    let held = erase("tarn/water_temperatur", &["--allow-unknown", "--json"]);
    let line: serde_json::Value = serde_json::from_slice(&held.stdout).expect("one line of JSON");
    assert_eq!((held.status.code(), &line["outcome"]), (Some(1), &"held_elsewhere".into()), "{line}");
    let id = line["erasure"]["id"].as_str().expect("an id");
    assert!(said(&held).contains(&format!("remembered as {id}")), "{}", said(&held));
    assert!(said(&held).contains("another process is at it"), "{}", said(&held));
    runtime.block_on(killed.give_back()).expect("given back");
    for (sensor, flags) in [("tarn/water_temperatur", &["--allow-unknown"][..]), (SENSOR, &[])] {
        let output = erase(sensor, flags);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    for (table, before) in ["readings", "hourly", "daily"].into_iter().zip(before) {
        let now = place.log(table);
        assert!(before.iter().all(|name| now.contains(name)), "{table}: {before:?} became {now:?}");
    }
    // What is there is erased, and then the log goes.
    let first = place.log("readings").remove(0);
    let output = erase(OTHER, &[]);
    assert_eq!(output.status.code(), Some(1), "the newest batch waits: {}", said(&output));
    assert!(!place.log("readings").contains(&first));
    assert_eq!(place.ask("SELECT count(*) FROM readings"), ["0"]);
}

/// "Is it gone?", an auditor asked, and was told of hours and of a day: those at the borders, which were computed again without it.
#[test]
fn a_dry_run_of_what_was_erased_finds_nothing() {
    let place = Place::new();
    for (first, hour) in [(1, HOUR), (5, HOUR + 4), (9, HOUR + 8)] {
        place.land(first, hour, &[SENSOR]);
    }
    place.land(13, HOUR + 48, &[OTHER]);
    for job in ["ingest", "rollup"] {
        assert_eq!(place.run(&[job]).status.code(), Some(0));
    }
    let asked = |to: &str, flags: &[&str]| {
        let period = ["erase", "--sensor", SENSOR, "--from", "2026-06-08T02:30:00Z", "--to", to];
        place.run(&[&period[..], &["--reason", "asked for", "--by", "an officer"], flags].concat())
    };
    let finds = |to: &str| {
        let output = asked(to, &["--dry-run", "--json"]);
        let line: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
        let found = line["would_remove"].as_array().expect("a list");
        found
            .iter()
            .map(|one| format!("{} {}", one["what"].as_str().unwrap_or_default(), one["rows"]))
            .collect::<Vec<_>>()
    };
    let before = finds("2026-06-08T06:30:00Z");
    assert!(
        before.contains(&"rows of hourly 5".to_owned()) && before.contains(&"rows of daily 1".to_owned()),
        "{before:?}"
    );
    assert_eq!(asked("2026-06-08T06:30:00Z", &[]).status.code(), Some(0));
    assert_eq!(place.ask(&format!("SELECT count(*) FROM hourly WHERE sensor = '{SENSOR}'")), ["8"], "hours were left");
    assert_eq!(finds("2026-06-08T06:30:00Z"), Vec::<String>::new());
    // The canary: of more than was erased the rest is found.
    let more = finds("2026-06-08T07:30:00Z");
    assert!(
        more.contains(&"file of readings 1".to_owned()) && more.contains(&"rows of daily 1".to_owned()),
        "{more:?}"
    );
}

/// A dry run of a replay told people of a hole where an officer had erased a batch.
#[test]
fn what_was_erased_is_no_hole_to_a_replay() {
    let place = Place::new();
    place.land(1, HOUR, &[OTHER]);
    place.land(5, HOUR + 4, &[SENSOR]);
    place.land(9, HOUR + 8, &[OTHER]);
    assert_eq!(place.run(&["ingest"]).status.code(), Some(0));
    let erase = ["erase", "--sensor", SENSOR, "--from", "2026-06-01", "--to", "2026-07-01", "--reason", "asked for"];
    assert_eq!(place.run(&[&erase[..], &["--by", "an officer"]].concat()).status.code(), Some(0));
    fs::remove_dir_all(place.path("lake/tables/readings")).expect("lost");
    let output = place.run(&["replay", "--dry-run"]);
    assert_eq!(output.status.code(), Some(0));
    let table = String::from_utf8(output.stdout.clone()).expect("text");
    let epoch = Epoch::from_bytes([3; 16]);
    assert_eq!(table.lines().nth(1), Some(&*format!("landfall-01,{epoch},2,0,1,12,,,,5-8")), "{table}");
    let told = said(&output);
    assert!(told.contains("numbers 5 to 8") && told.contains("went with an erasure"), "{told}");
    assert!(!told.contains("are a hole"), "{told}");
    fs::remove_file(place.path("lake/landing/landfall-01").join(epoch.to_string()).join(name(9, 12))).expect("lost");
    place.land(17, HOUR + 12, &[OTHER]);
    let told = said(&place.run(&["replay", "--dry-run"]));
    assert!(told.contains("numbers 9 to 16") && told.contains("are a hole"), "a real one is: {told}");
}

fn name(first: i64, last: i64) -> String {
    format!("{first:020}-{last:020}.arrow")
}
