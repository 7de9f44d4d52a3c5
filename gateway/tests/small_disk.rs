//! A disk that is full, under the real binary: it says so, polls on, and recovers by itself once there is room.
//!
//! The disk is a file system in memory of a few megabytes, mounted where nobody else sees it. That needs root, or the
//! right to a user namespace; where neither is had, the test says that it skips. `just crash` runs it and shows what it
//! says. What a full disk does at each single call is shown by injection in the spool's own tests.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::skipped::skip;
use common::{Buses, PATIENCE, config, device, point, simulator, soon, unit, word};
use tjern_gateway::simulate::Simulation;
use tjern_gateway::spool::{Spool, SpoolLook, SpoolSettings};
use tjern_gateway::status::client::{StatusAddress, get_within};
use tjern_readings::clock::Clock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, Command};

const DISK: &str = "TJERN_SMALL_DISK";

/// Points enough to fill a segment within some seconds.
const POINTS: u16 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_nothing_and_is_recovered_from() {
    match std::env::var_os(DISK) {
        Some(disk) => full_and_free_again(Path::new(&disk)).await,
        None => on_a_small_disk("a_full_disk_ends_nothing_and_is_recovered_from").await,
    }
}

/// The file of told times is small enough for a disk that has no room for readings: what was never on disk was in it, and
/// after a new start what the logger printed again was taken for stored, and lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_disk_refused_is_stored_when_the_logger_prints_it_again() {
    match std::env::var_os(DISK) {
        Some(disk) => refused_and_printed_again(Path::new(&disk)).await,
        None => on_a_small_disk("what_a_full_disk_refused_is_stored_when_the_logger_prints_it_again").await,
    }
}

/// The canary: a build that takes what it handed on for stored, and so tells times ahead of their readings, is caught by the
/// same story.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_tells_times_ahead_of_their_readings_is_caught() {
    match std::env::var_os(DISK) {
        Some(disk) => refused_and_printed_again_too_soon(Path::new(&disk)).await,
        None => on_a_small_disk("a_build_that_tells_times_ahead_of_their_readings_is_caught").await,
    }
}

/// Runs a test again where a small disk is mounted.
async fn on_a_small_disk(test: &str) {
    let place = tempfile::tempdir().expect("a folder");
    let disk = place.path().display().to_string();
    let this = std::env::current_exe().expect("this binary");
    let script = "mount -t tmpfs -o size=4m tjern \"$1\" || exit 77; exec \"$2\" --nocapture --exact \"$3\"";
    for flags in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", script, "sh", &disk]).arg(&this).arg(test).env(DISK, &disk);
        let Ok(output) = soon("the test on a small disk", command.kill_on_drop(true).output()).await else { continue };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // 77 is ours; 1 is unshare's own, before anything ran.
        if output.status.success() {
            println!("{}", text(&output.stdout));
            return;
        }
        let ran = text(&output.stdout).contains("running 1 test");
        assert!(!ran, "{}\n{}", text(&output.stdout), text(&output.stderr));
    }
    skip(test, "a small disk can be mounted neither as root nor in a user namespace");
}

fn configure(disk: &Path, address: &str) -> PathBuf {
    let points: String = (0..POINTS)
        .map(|register| {
            // A segment has room for some seconds of them, and a batch is due twice a second.
            let body = format!("register = \"input:{register}\"\ntype = \"u16\"\nevery = \"200ms\"");
            point(&format!("tarn/depth-{register}m/water_temperature"), &body)
        })
        .collect();
    let text = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"file:///proc/no-lake-here\"\n[spool]\ndir = \"{0}/spool\"\nsync_every = \"50ms\"\nmax_bytes = \"1MiB\"\nmax_disk_share = 1.0\n\
         [upload]\nevery = \"500ms\"\n[status]\nlisten = \"unix:{0}/status.sock\"\n[[bus]]\nname = \"tcp\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{1}{points}",
        disk.display(),
        device(1),
    );
    let path = disk.join("gateway.toml");
    std::fs::write(&path, text).expect("the configuration is written");
    path
}

/// Takes all the room that is left.
fn fill(path: &Path) -> u64 {
    let mut file = std::fs::File::create(path).expect("created");
    let mut bytes = 0;
    for part in [64 << 10, 4096, 1] {
        while file.write_all(&vec![1; part]).is_ok() {
            bytes += part as u64;
        }
    }
    bytes
}

type Log = Lines<BufReader<ChildStderr>>;

fn start(config: &Path) -> (Child, Log) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.args(["run", "--config"]).arg(config).env("NO_COLOR", "1").env_remove("RUST_LOG").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the gateway starts");
    let log = BufReader::new(child.stderr.take().expect("piped")).lines();
    (child, log)
}

/// Tells it to end, and gives the rest of its log.
async fn end(mut child: Child, mut log: Log) -> Vec<String> {
    let id = child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().await.expect("kill runs").success());
    let mut rest = Vec::new();
    soon("the end of its log", async {
        while let Ok(Some(line)) = log.next_line().await {
            rest.push(line);
        }
    })
    .await;
    assert!(soon("the end", child.wait()).await.expect("a status").success());
    rest
}

async fn full_and_free_again(disk: &Path) {
    let registers = (0..POINTS).map(|address| word(address, address)).collect();
    let simulator = simulator(Simulation::ModbusTcp(vec![unit(1, registers).0])).await;
    let config = configure(disk, &simulator.address().expect("TCP").to_string());
    let (child, mut log) = start(&config);
    let mut ballast = 0;
    let status = StatusAddress::Unix(disk.join("status.sock"));
    let (mut unsealed, mut refused, mut recovered) = (false, false, false);
    soon("a full disk, and its end", async {
        while let Ok(Some(line)) = log.next_line().await {
            if line.contains("gateway started") {
                ballast = fill(&disk.join("ballast"));
            } else if line.contains("the spool cannot seal a batch") {
                // The segment has room for some seconds: readings are on disk, and no batch can be.
                while !unsealed {
                    let health = get_within(PATIENCE, &status, "/health").await.expect("it tells");
                    unsealed = String::from_utf8_lossy(&health).contains("batches cannot be written");
                }
            } else if line.contains("the spool cannot write; readings wait in memory") {
                refused = true;
                std::fs::remove_file(disk.join("ballast")).expect("removed");
            } else if line.contains("the spool writes again") {
                recovered = true;
                return;
            }
        }
    })
    .await;
    assert!(refused && recovered, "it ended before");
    assert!(unsealed, "that batches could not be written was not told");
    end(child, log).await;
    let look = SpoolLook::at(&disk.join("spool")).expect("there");
    let wrong: Vec<_> = look.verify().0.into_iter().filter(|finding| finding.is_wrong).collect();
    assert_eq!(wrong, [], "a full disk damages nothing");
    let mut numbers = Vec::new();
    let each = |_, seq, _: &_| {
        numbers.push(seq);
        Ok::<(), std::convert::Infallible>(())
    };
    look.each_reading(each).expect("nothing stops it");
    let first = numbers[0];
    assert!((first..).zip(&numbers).all(|(expected, seq)| expected == *seq), "each number once, and none left out");
    println!("a disk of 4 MiB was filled with {ballast} bytes; {} readings are in the spool behind it", numbers.len());
}

const LOGGED: i64 = 12;

/// Room for files of some hundred bytes, and none for a segment.
const LITTLE_ROOM_BYTES: u64 = 48 << 10;

async fn refused_and_printed_again(disk: &Path) {
    let logger = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = disk.join("gateway.toml");
    let text = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"file:///proc/no-lake-here\"\n\
         [spool]\ndir = \"{0}/spool\"\nsync_every = \"50ms\"\nmax_bytes = \"1MiB\"\nmax_disk_share = 1.0\n\
         [[bus]]\nname = \"logger\"\nkind = \"text-lines\"\naddress = \"{1}\"\npoll = \"D\\r\\n\"\ntimeout = \"300ms\"\n\
         [[bus.device]]\nname = \"mast\"\ntime_column = 1\ntime_format = \"unix\"\n\
         [[bus.device.point]]\nsensor = \"mast/air_temperature\"\ncolumn = 2\nevery = \"1s\"\n",
        disk.display(),
        logger.local_addr().expect("an address"),
    );
    std::fs::write(&config, text).expect("the configuration is written");
    let ballast = disk.join("ballast");
    let bytes = fill(&ballast);
    let file = std::fs::File::options().write(true).open(&ballast).expect("it is there");
    file.set_len(bytes - LITTLE_ROOM_BYTES).expect("shorter");
    // Held open, it would keep its room when it is removed.
    drop(file);
    let log = print_twice(&logger, &config).await;
    assert!(log.iter().any(|line| line.contains("the last readings: they are lost")), "there was room: {log:?}");
    std::fs::remove_file(&ballast).expect("removed");
    print_twice(&logger, &config).await;
    let mut values = Vec::new();
    let each = |_, _, reading: &tjern_readings::reading::Reading| {
        values.extend(reading.value);
        Ok::<(), std::convert::Infallible>(())
    };
    SpoolLook::at(&disk.join("spool")).expect("there").each_reading(each).expect("nothing stops it");
    assert_eq!(values, (0..LOGGED).map(|row| row as f64).collect::<Vec<_>>());
}

/// The same with a bus and a spool of the gateway's, and between them somebody who says of all readings that they are kept.
async fn refused_and_printed_again_too_soon(disk: &Path) {
    let logger = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = logger.local_addr().expect("an address");
    let config = config(&format!(
        "[[bus]]\nname = \"logger\"\nkind = \"text-lines\"\naddress = \"{place}\"\npoll = \"D\\r\\n\"\ntimeout = \"300ms\"\n\
         [[bus.device]]\nname = \"mast\"\ntime_column = 1\ntime_format = \"unix\"\n\
         [[bus.device.point]]\nsensor = \"mast/air_temperature\"\ncolumn = 2\nevery = \"1s\"\n",
    ));
    let ballast = disk.join("ballast");
    let bytes = fill(&ballast);
    let file = std::fs::File::options().write(true).open(&ballast).expect("it is there");
    file.set_len(bytes - LITTLE_ROOM_BYTES).expect("shorter");
    drop(file);
    let mut written = Vec::new();
    for run in 0..2 {
        let dir = disk.join("spool");
        let settings = SpoolSettings {
            dir: dir.clone(),
            max_bytes: 1 << 20,
            sync_every: Duration::from_millis(50),
            source: "site-01".parse().expect("valid"),
            configuration: None,
        };
        let spool = Spool::open(settings, Clock::system()).expect("opened");
        let mut buses = Buses::start_with(&config, Some(dir.join("learned")));
        let (mut line, _) = soon("the bus", logger.accept()).await.expect("it connects");
        for _ in 0..2 {
            let mut question = [0; 3];
            soon("a question", line.read_exact(&mut question)).await.expect("it asks");
            line.write_all(memory().as_bytes()).await.expect("it listens");
        }
        if run == 0 {
            for _ in 0..LOGGED {
                spool.append(vec![buses.next().await]).await;
            }
            assert!(!spool.sync().await, "there was room");
            buses.end().await;
            spool.close().await;
            std::fs::remove_file(&ballast).expect("removed");
        } else {
            for reading in buses.rest().await {
                written.extend(reading.value);
            }
            spool.close().await;
        }
    }
    assert!((written.len() as i64) < LOGGED, "what was never on disk is told again: {written:?}");
}

/// What the logger prints.
fn memory() -> String {
    (0..LOGGED).map(|row| format!("{};{row}\r\n", 1_700_000_000 + row * 60)).collect()
}

/// A run of the gateway in which a logger prints its memory, and what it wrote in its log when it ended. When the logger is
/// asked again, what it printed before was taken.
async fn print_twice(logger: &TcpListener, config: &Path) -> Vec<String> {
    let (child, log) = start(config);
    let (mut line, _) = soon("the gateway", logger.accept()).await.expect("it connects");
    for _ in 0..2 {
        let mut question = [0; 3];
        soon("a question", line.read_exact(&mut question)).await.expect("it asks");
        line.write_all(memory().as_bytes()).await.expect("it listens");
    }
    end(child, log).await
}
