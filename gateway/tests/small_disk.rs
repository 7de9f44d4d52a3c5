//! A disk that is full, under the real binary: it says so, polls on, and recovers by itself once there is room.
//!
//! The disk is a file system in memory of a few megabytes, mounted where nobody else sees it. That needs root, or the
//! right to a user namespace; where neither is had, the test says that it skips. `just crash` runs it and shows what it
//! says. What a full disk does at each single call is shown by injection in the spool's own tests.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{PATIENCE, device, point, simulator, soon, unit, word};
use tjern_gateway::simulate::Simulation;
use tjern_gateway::spool::SpoolLook;
use tjern_gateway::status::client::{StatusAddress, get_within};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const DISK: &str = "TJERN_SMALL_DISK";

/// Points enough to fill a segment within seconds.
const POINTS: u16 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_nothing_and_is_recovered_from() {
    match std::env::var_os(DISK) {
        Some(disk) => full_and_free_again(Path::new(&disk)).await,
        None => on_a_small_disk().await,
    }
}

/// Runs this test again where a small disk is mounted.
async fn on_a_small_disk() {
    let place = tempfile::tempdir().expect("a folder");
    let disk = place.path().display().to_string();
    let this = std::env::current_exe().expect("this binary");
    let script = "mount -t tmpfs -o size=4m tjern \"$1\" || exit 77; exec \"$2\" --nocapture";
    for flags in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", script, "sh", &disk]).arg(&this).env(DISK, &disk);
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
    println!("skipped: a small disk can be mounted neither as root nor in a user namespace");
}

fn configure(disk: &Path, address: &str) -> PathBuf {
    let points: String = (0..POINTS)
        .map(|register| {
            let body = format!("register = \"input:{register}\"\ntype = \"u16\"\nevery = \"50ms\"");
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

async fn full_and_free_again(disk: &Path) {
    let registers = (0..POINTS).map(|address| word(address, address)).collect();
    let simulator = simulator(Simulation::ModbusTcp(vec![unit(1, registers).0])).await;
    let config = configure(disk, &simulator.address().expect("TCP").to_string());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.args(["run", "--config"]).arg(config).env("NO_COLOR", "1").env_remove("RUST_LOG").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the gateway starts");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
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
    let id = child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().await.expect("kill runs").success());
    soon("the end of its log", async { while let Ok(Some(_)) = log.next_line().await {} }).await;
    assert!(soon("the end", child.wait()).await.expect("a status").success());
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
