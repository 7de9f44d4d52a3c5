//! The slim binary as a technician runs it: started, told to end, started again.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{device, point, simulator, soon, unit, word};
use tjern_gateway::simulate::Simulation;
use tjern_readings::batch;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::interval;

/// What a small box has to spare for it.
const MEMORY_MAX_KIB: u64 = 64 * 1_024;

/// A folder with a configuration, a spool and a lake.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new(lake: &str, buses: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().display();
        let lake = lake.replace("ROOT", &root.to_string());
        let text = format!(
            "version = 1\ngateway = \"site-01\"\nlake = \"{lake}\"\n[spool]\ndir = \"{root}/spool\"\nsync_every = \"100ms\"\n[upload]\nevery = \"300ms\"\n{buses}"
        );
        std::fs::write(folder.path().join("gateway.toml"), text).expect("the configuration is written");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &[&str]) -> Command {
        let mut words: Vec<&str> = program.to_vec();
        words.extend([env!("CARGO_BIN_EXE_tjern-gateway"), "run", "--config"]);
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(self.path("gateway.toml"))
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, program: &[&str]) -> Gateway {
        let mut child = self.command(program).spawn().expect("the gateway starts");
        let log = BufReader::new(child.stderr.take().expect("piped")).lines();
        Gateway { child, log, seen: Vec::new() }
    }

    /// Every batch in the landing zone: its epoch, its bounds, in the order of the keys.
    fn batches(&self) -> Vec<(String, i64, i64)> {
        let mut files = Vec::new();
        collect(&self.path("lake/landing/site-01"), &mut files);
        files.retain(|file| file.extension().is_some_and(|extension| extension == "arrow"));
        files.sort();
        let decoded = files.iter().map(|file| {
            let bytes = std::fs::read(file).expect("readable");
            batch::decode(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        });
        decoded
            .map(|batch| (batch.header.epoch.to_string(), batch.header.bounds.first, batch.header.bounds.last))
            .collect()
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { collect(&entry.path(), files) } else { files.push(entry.path()) }
    }
}

/// A gateway that runs.
struct Gateway {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    seen: Vec<String>,
}

impl Gateway {
    /// Waits for a line of the log.
    async fn says(&mut self, words: &str) {
        soon(words, async {
            while let Ok(Some(line)) = self.log.next_line().await {
                self.seen.push(line);
                if self.seen.last().is_some_and(|line| line.contains(words)) {
                    return;
                }
            }
            panic!("it ended without saying {words:?}:\n{}", self.seen.join("\n"));
        })
        .await;
    }

    /// The most memory that it had at a time.
    fn peak_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id().expect("it runs"))).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends a signal and waits for the end; it has to be status 0, and nothing on stdout.
    async fn ends_at(mut self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status().await.expect("kill runs");
        assert!(sent.success());
        let mut rest = String::new();
        soon("the rest of the log", self.log.get_mut().read_to_string(&mut rest)).await.expect("text");
        let status = soon("the end", self.child.wait()).await.expect("a status");
        assert_eq!(status.code(), Some(0), "{}\n{rest}", self.seen.join("\n"));
        let mut out = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut out).await.expect("text");
        assert_eq!(out, "", "stdout is for data");
    }
}

async fn output(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = soon("the end", command.output()).await.expect("it runs");
    (status.code(), String::from_utf8(stderr).expect("UTF-8"))
}

fn tcp_bus(address: &str) -> String {
    let body = "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"";
    format!(
        "[[bus]]\nname = \"tcp\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{}{}",
        device(1),
        point("tarn/water_temperature", body)
    )
}

#[tokio::test]
async fn a_wrong_configuration_is_said_with_its_place_and_nothing_is_started() {
    let site = Site::new("file://ROOT/lake", &tcp_bus("10.0.0.1"));
    let (status, error) = output(site.command(&[])).await;
    assert_eq!(status, Some(2), "{error}");
    for part in ["gateway.toml:12:11", "`10.0.0.1` is no address", "hint: write host:port"] {
        assert!(error.contains(part), "no {part:?} in:\n{error}");
    }
    assert!(!site.path("spool").exists() && !site.path("lake").exists());

    // What was copied out of a browser's address line was shown as it stood.
    let site = Site::new("file://ROOT/lake", &tcp_bus("admin:hunter2@10.0.0.1:502"));
    let (status, error) = output(site.command(&[])).await;
    assert_eq!(status, Some(2), "{error}");
    assert!(error.contains("no name and no password belong before the host") && !error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let (unit, _) = unit(1, vec![word(0, 11)]);
    let simulator = simulator(Simulation::ModbusTcp(vec![unit])).await;
    let site = Site::new("file://ROOT/lake", &tcp_bus(&simulator.address().expect("TCP").to_string()));
    for _ in 0..3 {
        let before = site.batches().len();
        let mut gateway = site.start(&[]);
        gateway.says("gateway started").await;
        soon("two batches", async {
            let mut looks = interval(Duration::from_millis(100));
            while site.batches().len() < before + 2 {
                looks.tick().await;
            }
        })
        .await;
        assert!(gateway.peak_kib() < MEMORY_MAX_KIB, "{} KiB", gateway.peak_kib());
        gateway.ends_at("TERM").await;
    }
    let batches = site.batches();
    let mut next = 1;
    for (epoch, first, last) in &batches {
        assert_eq!((epoch, *first), (&batches[0].0, next), "no number twice, none left out: {batches:?}");
        next = last + 1;
    }
    let configurations = std::fs::read_dir(site.path("lake/landing/site-01/config")).expect("a folder").count();
    assert_eq!(configurations, 1, "the configuration that the batches name is there once");
}

/// The disk of the lake was not mounted at the start: batches went into the folder below it, left the spool, and were missing
/// when it was.
#[tokio::test]
async fn a_start_without_the_lakes_disk_keeps_what_it_reads() {
    let (unit, _) = unit(1, vec![word(0, 11)]);
    let simulator = simulator(Simulation::ModbusTcp(vec![unit])).await;
    let site = Site::new("file://ROOT/mnt/lake", &tcp_bus(&simulator.address().expect("TCP").to_string()));
    let landing = site.path("mnt/lake/landing/site-01");
    let landed = |least: usize| {
        let landing = landing.clone();
        async move {
            let mut looks = interval(Duration::from_millis(100));
            loop {
                looks.tick().await;
                let mut files = Vec::new();
                collect(&landing, &mut files);
                files.retain(|file| file.extension().is_some_and(|extension| extension == "arrow"));
                if files.len() >= least {
                    files.sort();
                    return files;
                }
            }
        }
    };
    let mut gateway = site.start(&[]);
    gateway.says("this is the lake from now on").await;
    soon("a batch", landed(1)).await;
    gateway.ends_at("TERM").await;
    std::fs::rename(site.path("mnt"), site.path("disk")).expect("unmounted");
    std::fs::create_dir(site.path("mnt")).expect("what a mount hides");
    let mut gateway = site.start(&[]);
    gateway.says("is its disk mounted?").await;
    assert_eq!(std::fs::read_dir(site.path("mnt")).expect("listed").count(), 0, "nothing is put there");
    // It is mounted while the gateway runs.
    std::fs::remove_dir(site.path("mnt"))
        .and_then(|()| std::fs::rename(site.path("disk"), site.path("mnt")))
        .expect("mounted");
    gateway.says("the lake is reached").await;
    let before = soon("a batch", landed(1)).await.len();
    soon("another", landed(before + 1)).await;
    gateway.ends_at("TERM").await;
    let mut next = 1;
    for file in soon("all", landed(1)).await {
        let batch = batch::decode(&std::fs::read(&file).expect("readable")).expect("a batch");
        assert_eq!(batch.header.bounds.first, next, "none left out: {}", file.display());
        next = batch.header.bounds.last + 1;
    }
}

#[tokio::test]
async fn it_runs_with_no_lake_and_no_device_and_ends_though_sigint_was_ignored() {
    let buses = tcp_bus("127.0.0.1:9")
        + "[[bus]]\nname = \"mast\"\nkind = \"text-lines\"\nport = \"/dev/there-is-no-such-port\"\n[[bus.device]]\nname = \"logger\"\n"
        + &point("mast/air_temperature", "column = 2\nevery = \"100ms\"");
    let site = Site::new("file:///proc/no-lake-here", &buses);
    let mut gateway = site.start(&["sh", "-c", "trap '' INT; exec \"$0\" \"$@\""]);
    gateway.says("gateway started").await;
    gateway.says("not reachable, trying again").await;
    gateway.ends_at("INT").await;
    assert!(site.path("spool").is_dir());
}

#[tokio::test]
async fn two_gateways_do_not_share_a_spool() {
    let site = Site::new("file://ROOT/lake", "");
    let mut gateway = site.start(&[]);
    gateway.says("gateway started").await;
    let (status, error) = output(site.command(&[])).await;
    assert_eq!(status, Some(1), "{error}");
    assert!(error.contains("in use by another process"), "{error}");
    gateway.ends_at("TERM").await;
}

#[tokio::test]
async fn a_command_that_is_not_known_is_a_matter_of_usage() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.arg("walk").env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (status, _) = output(command).await;
    assert_eq!(status, Some(2));
}
