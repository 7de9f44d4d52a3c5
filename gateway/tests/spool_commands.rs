//! `tjern-gateway spool …` beside a gateway that runs: what it shows, what it finds, and that it changes nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tjern_gateway::spool::{Spool, SpoolSettings};
use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::reading::{Cause, Reading};

struct Site {
    folder: tempfile::TempDir,
}

/// What a command printed, and its status.
struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().display();
        let text = format!(
            "version = 1\ngateway = \"site-01\"\nlake = \"file://{root}/lake\"\n[spool]\ndir = \"{root}/spool\"\n"
        );
        std::fs::write(folder.path().join("gateway.toml"), text).expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn spool(&self) -> Spool {
        let settings = SpoolSettings {
            dir: self.path("spool"),
            max_bytes: 1 << 28,
            sync_every: Duration::from_secs(5),
            source: "site-01".parse().expect("valid"),
            configuration: None,
        };
        Spool::open(settings, Clock::manual(0)).expect("opened")
    }

    fn say(&self, words: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
        command.arg("spool").args(words).env("NO_COLOR", "1").env_remove("RUST_LOG").current_dir(self.folder.path());
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Said { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn readings(from: i64, count: i64) -> Vec<Reading> {
    let at = |slot: i64| 1_751_360_400_000_000 + slot * 1_000_000;
    let sensor = || "tarn/water_temperature".parse().expect("valid");
    let mut readings: Vec<_> =
        (from..from + count).map(|slot| Reading::of(sensor(), at(slot), slot as f64 / 4.0)).collect();
    readings[0] = Reading::missing(sensor(), at(from), Cause::Timeout).with_lag_ms(Some(7));
    readings
}

/// Twenty readings in a sealed batch, ten on disk and not sealed.
async fn filled(site: &Site) -> Spool {
    let spool = site.spool();
    spool.append(readings(0, 20)).await;
    assert!(spool.seal().await);
    spool.append(readings(20, 10)).await;
    assert!(spool.sync().await);
    spool
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(files(&entry));
        } else {
            found.push((entry.clone(), std::fs::read(&entry).expect("read")));
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_is_shown_while_a_gateway_has_it_and_nothing_is_changed() {
    let site = Site::new();
    let spool = filled(&site).await;
    let before = files(&site.path("spool"));
    let list = site.say(&["ls", "--config", "gateway.toml"]);
    assert_eq!(list.status, Some(0), "{}", list.err);
    let epoch = spool.epoch().to_string();
    let lines: Vec<Vec<&str>> = list.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][0..5], ["what", "epoch", "first", "last", "readings"]);
    let told: Vec<_> = lines[1..].iter().map(|line| line[..5].to_vec()).collect();
    let epoch = epoch.as_str();
    assert_eq!(
        told,
        [["batch", epoch, "1", "20", "20"], ["segment", epoch, "1", "30", "30"], ["unsealed", epoch, "21", "30", "10"]]
    );
    let csv = site.say(&["cat", "--spool", "spool"]);
    let lines: Vec<&str> = csv.out.lines().collect();
    assert_eq!((csv.status, lines.len()), (Some(0), 31), "{}", csv.err);
    assert_eq!(lines[0], "epoch,seq,sensor,time,value,quality,cause,lag_ms");
    assert_eq!(lines[1], format!("{epoch},1,tarn/water_temperature,2025-07-01T09:00:00.000000Z,,9,timeout,7"));
    assert_eq!(lines[30], format!("{epoch},30,tarn/water_temperature,2025-07-01T09:00:29.000000Z,7.25,2,,"));
    let json = site.say(&["cat", "--spool", "spool", "--format", "json"]);
    assert_eq!(
        json.out.lines().last().expect("a line"),
        format!(
            "{{\"epoch\":\"{epoch}\",\"seq\":30,\"sensor\":\"tarn/water_temperature\",\"time\":\"2025-07-01T09:00:29.000000Z\",\"value\":7.25,\"quality\":2,\"cause\":null,\"lag_ms\":null}}"
        )
    );
    let verified = site.say(&["verify", "--spool", "spool"]);
    assert_eq!((verified.status, verified.out.lines().count()), (Some(0), 1), "{}{}", verified.out, verified.err);
    assert_eq!(files(&site.path("spool")), before, "it is only looked at");
    spool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_what_a_lake_would_have() {
    let site = Site::new();
    let spool = filled(&site).await;
    let exported = site.say(&["export", "rescued", "--spool", "spool"]);
    assert_eq!(exported.status, Some(0), "{}", exported.err);
    assert!(exported.err.contains("10 readings are not sealed yet"), "{}", exported.err);
    let refused = site.say(&["export", "more", "--config", "gateway.toml", "--seal"]);
    assert_eq!(refused.status, Some(1), "{}", refused.err);
    assert!(refused.err.contains("in use by another process"), "{}", refused.err);
    let epoch = spool.epoch();
    spool.close().await;
    let sealed = site.say(&["export", "rescued", "--config", "gateway.toml", "--seal"]);
    assert_eq!(sealed.status, Some(0), "{}", sealed.err);
    let found = files(&site.path("rescued"));
    let names: Vec<_> = found
        .iter()
        .map(|(path, _)| path.strip_prefix(site.path("rescued")).expect("within").display().to_string())
        .collect();
    let name = |first: i64, last: i64| format!("landing/site-01/{epoch}/{first:020}-{last:020}.arrow");
    assert_eq!(names, [name(1, 20), name(21, 30)]);
    let values: Vec<Reading> = found
        .iter()
        .flat_map(|(_, bytes)| batch::decode(bytes).expect("a batch").readings().expect("readings"))
        .collect();
    assert_eq!(values, [readings(0, 20), readings(20, 10)].concat());
    let spool = site.spool();
    assert_eq!(spool.sealed().await.len(), 2, "nothing was taken out");
    spool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_with_its_file_and_its_place() {
    let site = Site::new();
    let spool = filled(&site).await;
    spool.close().await;
    std::fs::create_dir_all(site.path("spool/learned")).expect("created");
    std::fs::create_dir_all(site.path("spool/undated")).expect("created");
    std::fs::write(site.path("spool/maintenance.toml"), "version = 1\n").expect("written");
    let verified = site.say(&["verify", "--spool", "spool"]);
    assert_eq!(verified.status, Some(0), "{}{}", verified.out, verified.err);
    assert!(!verified.out.contains("nothing that the spool wrote"), "the gateway's own files: {}", verified.out);
    let (segment, mut bytes) = files(&site.path("spool"))
        .into_iter()
        .find(|(path, _)| path.extension().is_some_and(|kind| kind == "segment"))
        .expect("one");
    // In the first record behind the header; the second stays whole.
    bytes[4096 + 40] ^= 1;
    std::fs::write(&segment, &bytes).expect("written");
    let verified = site.say(&["verify", "--spool", "spool"]);
    assert_eq!(verified.status, Some(1), "{}{}", verified.out, verified.err);
    let name = segment.file_name().expect("a name").to_string_lossy();
    assert!(verified.out.contains(&format!("wrong: {name} at 4096: no whole record")), "{}", verified.out);
    let (batch, mut bytes) = files(&site.path("spool/sealed")).remove(0);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&batch, &bytes).expect("written");
    let verified = site.say(&["verify", "--spool", "spool"]);
    assert_eq!(verified.status, Some(1));
    assert_eq!(verified.out.lines().filter(|line| line.starts_with("wrong: ")).count(), 2, "{}", verified.out);
    let shown = site.say(&["cat", "--spool", "spool"]);
    assert_eq!(shown.status, Some(1), "what is left out is told");
    assert!(shown.err.contains("left out: sealed/"), "{}", shown.err);
}

#[test]
fn a_place_is_needed_and_has_to_be_there() {
    let site = Site::new();
    assert_eq!(site.say(&["ls"]).status, Some(2));
    let absent = site.say(&["ls", "--spool", "nowhere"]);
    assert_eq!(absent.status, Some(1));
    assert!(absent.err.contains("nowhere") && absent.err.contains("hint:"), "{}", absent.err);
}
