//! A lake on a disk that is full when the pipeline starts, under the real binary: the daemon starts, says so, what is there can be read,
//! and it goes on when there is room. A command for cron fails and says why.
//!
//! The disk is a file system in memory of a few megabytes, mounted where nobody else sees it. That needs root, or the
//! right to a user namespace; where neither is had, the test says that it skips.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tjern_readings::batch::encode;
use tjern_readings::keys::Landed;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};

const DISK: &str = "TJERN_SMALL_DISK";

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn a_daemon_starts_on_a_full_disk_and_goes_on_when_there_is_room() {
    match std::env::var_os(DISK) {
        Some(disk) => full_and_free_again(Path::new(&disk)),
        None => on_a_small_disk(),
    }
}

/// Runs this test again where a small disk is mounted.
fn on_a_small_disk() {
    let place = tempfile::tempdir().expect("a folder");
    let disk = place.path().display().to_string();
    let this = std::env::current_exe().expect("this binary");
    let script = "mount -t tmpfs -o size=8m tjern \"$1\" || exit 77; exec \"$2\" --nocapture";
    for flags in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", script, "sh", &disk]).arg(&this).env(DISK, &disk);
        let Ok(output) = command.output() else { continue };
        // 77 is ours; 1 is unshare's own, before anything ran.
        if output.status.success() {
            println!("{}", text(&output.stdout));
            return;
        }
        let ran = text(&output.stdout).contains("running 1 test");
        assert!(!ran, "{}\n{}", text(&output.stdout), text(&output.stderr));
    }
    println!("skipped: a small disk can be mounted neither as root nor in a user namespace");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Takes all the room that is left.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("created");
    for part in [64 << 10, 4096, 1] {
        while file.write_all(&vec![1; part]).is_ok() {}
    }
}

/// Lands three readings, from a number on.
fn land(lake: &Path, first: i64) {
    let source: SourceName = "elva-01".parse().expect("valid");
    let sensor = || "elva/level".parse().expect("valid");
    let readings: Vec<_> =
        (first..first + 3).map(|number| Reading::of(sensor(), (495_000 + number) * 3_600_000_000, 1.0)).collect();
    let epoch = Epoch::from_bytes([4; 16]);
    let (bytes, batch) = encode(&source, epoch, first, &readings, None).expect("encoded");
    let path = lake.join(Landed::Batch(epoch, batch.header.bounds).key(&source).as_ref());
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    std::fs::write(path, &bytes).expect("written");
}

fn tjern(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
    command.args(arguments).arg("--config").arg(config).env("NO_COLOR", "1");
    command.output().expect("the binary starts")
}

fn rows(config: &Path) -> String {
    let output = tjern(config, &["query", "SELECT count(*) FROM readings", "--format", "csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().nth(1).unwrap_or_default().to_owned()
}

/// A daemon, and the lines of its log. Dropped, it is killed.
struct Daemon(Child, Receiver<String>);

impl Daemon {
    fn start(arguments: &[&str], config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern"));
        command.args(arguments).arg("--config").arg(config).env("NO_COLOR", "1");
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (sender, log) = channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] =
            [process.stdout.take().map(|one| Box::new(one) as _), process.stderr.take().map(|one| Box::new(one) as _)];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        Self(process, log)
    }

    fn waits_for(&self, words: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.1.recv_timeout(left).unwrap_or_else(|_| panic!("it did not say {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a job that works often has failed so many times in a row.
fn waits_for_failures(address: &str, count: u64) {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut stream = std::net::TcpStream::connect(address).expect("somebody listens");
        write!(stream, "GET /health/ingest HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        let health: serde_json::Value = serde_json::from_str(body).expect("JSON");
        if health["failures"].as_u64() >= Some(count) {
            return;
        }
        assert!(Instant::now() < until, "it has not failed {count} times: {body}");
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

fn full_and_free_again(disk: &Path) {
    let (lake, ballast) = (disk.join("lake"), disk.join("ballast"));
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("tjern.toml");
    let settings = format!("version = 1\nlake = \"file://{}\"\n[jobs]\nlisten = \"127.0.0.1:0\"\n", lake.display());
    std::fs::write(&config, settings).expect("written");
    land(&lake, 1);
    assert!(tjern(&config, &["pipeline", "ingest"]).status.success());
    assert_eq!(rows(&config), "3");
    land(&lake, 4);
    fill(&ballast);
    let once = tjern(&config, &["pipeline", "ingest"]);
    let told = text(&once.stderr);
    assert!(once.status.code() == Some(1) && told.contains("hint: the disk is full"), "{told}");
    let up = Daemon::start(&["up", "--http", "127.0.0.1:0", "--staff", "127.0.0.1:0"], &config);
    up.waits_for("the lake cannot be written: what is there is shown");
    up.waits_for("the page: http://");
    drop(up);
    let daemon = Daemon::start(&["pipeline", "run"], &config);
    let line = daemon.waits_for("the lake cannot be written");
    assert!(line.contains("No space left"), "{line}");
    // It is there, tells what is wrong, and is not heard again for each job and each time that it tries.
    let address = daemon.waits_for("the jobs: http://");
    let address = address.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let mut lines = vec![daemon.waits_for("no job works: ")];
    assert!(lines[0].contains("hint: the disk is full"), "{lines:?}");
    waits_for_failures(address, 4);
    lines.extend(daemon.1.try_iter());
    let told: Vec<_> = lines.iter().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect();
    assert!(told.len() <= 6, "{} lines: {told:#?}", told.len());
    assert_eq!(rows(&config), "3");
    assert!(tjern(&config, &["pipeline", "status"]).status.success());
    std::fs::remove_file(&ballast).expect("removed");
    daemon.waits_for("the lake can be worked on again");
    daemon.waits_for("3 rows of 1 batches");
    assert_eq!(rows(&config), "6");
    println!("a daemon that was started on a full disk went on when there was room");
}
