//! `tjern pipeline compact` that is stopped midway, by a word or by force, at several moments: as an operator's `systemctl
//! restart` or a machine that ran out of memory does it. The table reads as before, the next run does the rest, and nothing
//! stays behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tjern_readings::batch::encode;
use tjern_readings::keys::Landed;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Commits of ingest, and how many readings each has: two of a month that is merged first and soon, and two of the one after
/// it whose rows do not fit into the memory.
const COMMITS: [i64; 4] = [20_000, 20_000, 260_000, 260_000];

const EPOCH: Epoch = Epoch::from_bytes([6; 16]);

/// 2026-03-01T00:00:00Z: months that ended before.
const FROM_US: i64 = 1_772_323_200_000_000;

/// A city with a lake of small files.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        place.configure();
        for (commit, rows) in COMMITS.into_iter().enumerate() {
            place.land(commit, rows);
            let output = place.run(&["ingest"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        place
    }

    fn configure(&self) {
        fs::create_dir_all(self.spill()).expect("created");
        let lake = self.path("lake");
        let text = format!(
            "version = 1\nlake = \"file://{}\"\n[compact]\nmemory = \"64MB\"\nspill = \"spill\"\n",
            lake.display()
        );
        fs::write(self.path("tjern.toml"), text).expect("written");
    }

    /// The same lake once more, in a folder of its own.
    fn copied(&self) -> Self {
        let copy = Self { folder: tempfile::tempdir().expect("a folder") };
        copy_all(&self.path("lake"), &copy.path("lake"));
        copy.configure();
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spill(&self) -> PathBuf {
        self.path("spill")
    }

    fn lease(&self) -> PathBuf {
        self.path("lake/jobs/compact.json")
    }

    /// A batch of fifty sensors, each every few minutes over four weeks.
    fn land(&self, commit: usize, rows: i64) {
        let source: SourceName = "landfall-01".parse().expect("valid");
        let step_us = 28 * 86_400_000_000 / (rows / 50).max(1);
        let before = i64::try_from(commit).expect("few");
        let reading = |number: i64| {
            let time_us = FROM_US + before / 2 * 31 * 86_400_000_000 + number / 50 * step_us + before * 1_000_000;
            // Eighths are added up exactly, in any order.
            let value = f64::from(u32::try_from(number * 7_919 % 100_003).expect("small")) / 8.0;
            Reading::of(format!("tarn/q{:02}", number % 50).parse().expect("valid"), time_us, value)
        };
        let first = COMMITS[..commit].iter().sum::<i64>() + 1;
        let readings: Vec<Reading> = (0..rows).map(reading).collect();
        let (bytes, batch) = encode(&source, EPOCH, first, &readings, None).expect("encoded");
        let path = self.path("lake").join(Landed::Batch(EPOCH, batch.header.bounds).key(&source).as_ref());
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(path, bytes).expect("written");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
        command.args(words).arg("--config").arg(self.path("tjern.toml")).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(&[&["pipeline"][..], words].concat()).output().expect("the binary runs")
    }

    /// What the table reads: by sensor how many rows and numbers, and the sums of numbers, values and times.
    fn reads(&self) -> String {
        let sql = "SELECT sensor, count(*), count(DISTINCT seq), sum(seq), sum(value), sum(CAST(time AS BIGINT) / 1000000), \
                   min(received), max(received) FROM readings GROUP BY sensor ORDER BY sensor";
        let output = self.command(&["query", sql, "--format", "csv"]).output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The names in a folder of the table.
    fn names(&self, folder: &str, extension: &str) -> BTreeSet<String> {
        let listed = fs::read_dir(self.path("lake/tables/readings").join(folder)).expect("a folder");
        let names = listed.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(extension)).collect()
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            fs::copy(path, target).expect("copied");
        }
    }
}

/// When it is stopped.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// It has just begun.
    Lease,
    /// The first of its files lies in the table's folder, and no commit names it.
    File,
    /// A merge is committed, the next one is under way.
    Commit,
    /// Rows are on the disk that did not fit into the memory.
    Spill,
}

/// Whether a process holds a file in this folder: those of rows have no name.
fn holds_a_file_in(folder: &Path, process: u32) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.into_iter().any(|link| link.starts_with(folder))
}

/// Waits for a moment of a run.
fn wait_for(place: &Place, moment: Moment, before: &(BTreeSet<String>, BTreeSet<String>), running: &mut Child) {
    let until = Instant::now() + PATIENCE;
    let process = running.id();
    let is_there = || match moment {
        Moment::Spill => holds_a_file_in(&place.spill(), process),
        Moment::Lease => place.lease().exists(),
        Moment::File => place.names("", ".parquet") != before.0,
        Moment::Commit => place.names("_delta_log", ".json") != before.1,
    };
    while !is_there() {
        assert!(running.try_wait().expect("its state").is_none(), "it ended before {moment:?}");
        assert!(Instant::now() < until, "waited in vain for {moment:?}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Begins a compaction, and ends it at a moment with a signal.
fn stopped(place: &Place, moment: Moment, signal: &str) -> ExitStatus {
    let before = (place.names("", ".parquet"), place.names("_delta_log", ".json"));
    let mut running = place.command(&["pipeline", "compact", "--json"]).spawn().expect("it starts");
    wait_for(place, moment, &before, &mut running);
    let kill = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", signal, &running.id().to_string()]).status();
    assert!(kill.expect("a shell").success());
    let output = running.wait_with_output().expect("it ends");
    if signal == "TERM" {
        let said = String::from_utf8_lossy(&output.stdout);
        let line: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!((&line["job"], &line["outcome"]), (&"compact".into(), &"interrupted".into()), "{line}");
    }
    output.status
}

fn spilled(place: &Place) -> usize {
    fs::read_dir(place.spill()).expect("a folder").count()
}

/// A minute goes by: a lease of one that was killed has run out then.
fn let_the_lease_run_out(place: &Place) {
    let mut lease: Value = serde_json::from_slice(&fs::read(place.lease()).expect("a lease")).expect("JSON");
    let until_us = lease["until_us"].as_i64().expect("a time");
    lease["until_us"] = (until_us - 61_000_000).into();
    fs::write(place.lease(), lease.to_string()).expect("written");
}

#[test]
fn a_compaction_that_is_stopped_anywhere_changes_nothing_and_is_done_by_the_next() {
    let whole = Place::new();
    let wanted = whole.reads();
    for moment in [Moment::Lease, Moment::File, Moment::Commit, Moment::Spill] {
        for signal in ["TERM", "KILL"] {
            let place = whole.copied();
            let status = stopped(&place, moment, signal);
            // By a signal there is no status.
            assert_eq!(status.code(), (signal == "TERM").then_some(1), "{moment:?}, {signal}: {status}");
            assert_eq!(place.reads(), wanted, "{moment:?}, {signal}");
            assert_eq!(spilled(&place), 0, "{moment:?}, {signal}: rows stay on the disk");
            assert_eq!(place.lease().exists(), signal == "KILL", "{moment:?}, {signal}: the lease");
            if signal == "KILL" {
                let waits = place.run(&["compact", "--json"]);
                let line: Value = serde_json::from_slice(&waits.stdout).expect("JSON");
                assert_eq!((waits.status.code(), &line["outcome"]), (Some(0), &"held_elsewhere".into()), "{line}");
                let_the_lease_run_out(&place);
            }
            let done = place.run(&["compact", "--json"]);
            let line: Value = serde_json::from_slice(&done.stdout).expect("JSON");
            assert_eq!(
                (done.status.code(), &line["outcome"]),
                (Some(0), &"done".into()),
                "{moment:?}, {signal}: {line}"
            );
            assert!(line["did"]["removed"].as_u64().is_some_and(|removed| removed > 0), "{line}");
            println!("{moment:?}, {signal}: {}", line["said"]);
            assert_eq!(place.reads(), wanted, "{moment:?}, {signal}, after the next run");
            assert!(!place.lease().exists() && spilled(&place) == 0, "{moment:?}, {signal}: something stays behind");
            let verified = place.run(&["verify"]);
            assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
            let again = place.run(&["compact", "--json"]);
            let line: Value = serde_json::from_slice(&again.stdout).expect("JSON");
            assert_eq!(line["did"]["removed"], 0, "the run before did all there was: {line}");
        }
    }
    // The canary of what is compared: one row more is seen.
    whole.land(COMMITS.len(), 1);
    assert!(whole.run(&["ingest"]).status.success());
    assert_ne!(whole.reads(), wanted);
}
