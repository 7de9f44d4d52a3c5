//! How much memory the real binary needs where much is asked of it: ARCHITECTURE.md says that it runs within 64 MB.
//!
//! A thousand points twice a second, a lake that is away at first, so that batches pile up and then go out several at a
//! time, a configuration that is read again, a status that is asked for. What counts is the peak of resident memory that
//! the kernel noted (`VmHWM`), the program's own pages included: those of a build without optimisation here, which are
//! more. What is private and can be written is bounded by the kernel besides (`RLIMIT_DATA`, threads' stacks
//! included): a gateway that asked for more would end.

mod common;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{PATIENCE, simulator, soon, unit, word};
use tjern_gateway::simulate::Simulation;
use tjern_gateway::status::client::{StatusAddress, get_within, status};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::interval;

/// What a small box has to spare for it, in the unit of /proc and of `ulimit`.
const MEMORY_MAX_KIB: u64 = 64_000_000 / 1_024;

const UNITS: u8 = 20;
const POINTS: u16 = 50;

/// Enough for ten of each point.
const READINGS: i64 = UNITS as i64 * POINTS as i64 * 10;

fn configure(root: &Path, address: &str) -> PathBuf {
    let mut text = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"file://{0}/lake\"\n[spool]\ndir = \"{0}/spool\"\nsync_every = \"1s\"\n[upload]\nevery = \"1s\"\n\
         [status]\nlisten = \"unix:{0}/status\"\n[[bus]]\nname = \"tcp\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\nin_flight = 4\n",
        root.display(),
    );
    for unit in 1..=UNITS {
        let _ = write!(
            text,
            "[[bus.device]]\nname = \"meter-{unit}\"\nunit_id = {unit}\nprofile = \"meter\"\nplace = \"hall/meter-{unit}\"\n"
        );
    }
    text += "[[profile]]\nname = \"meter\"\n";
    for point in 0..POINTS {
        let _ = write!(
            text,
            "[[profile.point]]\nquantity = \"number-{point}\"\nregister = \"input:{point}\"\ntype = \"u16\"\nevery = \"500ms\"\n"
        );
    }
    let path = root.join("gateway.toml");
    std::fs::write(&path, text).expect("the configuration is written");
    path
}

/// Started by a shell that bounds it first.
fn start(config: &Path) -> Child {
    let mut command = Command::new("sh");
    let bounded = format!("ulimit -d {MEMORY_MAX_KIB} && exec \"$0\" run --config \"$1\"");
    command.args(["-c", &bounded, env!("CARGO_BIN_EXE_tjern-gateway")]).arg(config);
    command.env("NO_COLOR", "1").env_remove("RUST_LOG").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().expect("the gateway starts")
}

/// How many readings are in the landing zone, from the names of its batches.
fn landed(lake: &Path) -> i64 {
    let epochs = std::fs::read_dir(lake.join("landing/site-01")).into_iter().flatten().flatten();
    let files = epochs.flat_map(|epoch| std::fs::read_dir(epoch.path()).into_iter().flatten().flatten());
    let count = |path: PathBuf| {
        let (first, last) = path.file_stem()?.to_str()?.split_once('-')?;
        Some(last.parse::<i64>().ok()? - first.parse::<i64>().ok()? + 1)
    };
    let batches = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|kind| kind == "arrow"));
    batches.filter_map(count).sum()
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    soon(what, async {
        let mut looks = interval(Duration::from_millis(100));
        while !is().await {
            looks.tick().await;
        }
    })
    .await;
}

fn peak_kib(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().expect("it runs"))).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().await.expect("kill runs").success());
}

#[tokio::test]
async fn a_busy_gateway_runs_within_64_mb() {
    let folder = tempfile::tempdir().expect("a folder");
    let units = (1..=UNITS).map(|id| unit(id, (0..POINTS).map(|address| word(address, address)).collect()).0);
    let simulator = simulator(Simulation::ModbusTcp(units.collect())).await;
    let config = configure(folder.path(), &simulator.address().expect("TCP").to_string());
    // No folder can be made where a file lies: the lake is away.
    let lake = folder.path().join("lake");
    std::fs::write(&lake, "in the way").expect("a file");
    let mut gateway = start(&config);
    let mut log = BufReader::new(gateway.stderr.take().expect("piped")).lines();
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        while let Ok(Some(line)) = log.next_line().await {
            said.push(line);
        }
        said.join("\n")
    });
    let address = StatusAddress::Unix(folder.path().join("status"));
    let waiting = async || status(&address).await.is_ok_and(|status| status.upload.waiting_batches >= 3);
    until("batches that wait", waiting).await;
    std::fs::remove_file(&lake).expect("the lake comes back");
    signal(&gateway, "HUP").await;
    for _ in 0..20 {
        soon("metrics", get_within(PATIENCE, &address, "/metrics")).await.expect("it answers");
    }
    until("the lake has them", async || landed(&lake) >= READINGS).await;
    let peak_kib = peak_kib(&gateway);
    signal(&gateway, "TERM").await;
    let ended = soon("the end", gateway.wait()).await.expect("a status");
    let said = soon("the rest of the log", said).await.expect("text");
    assert_eq!(ended.code(), Some(0), "{said}");
    println!("{} readings, at most {peak_kib} KiB", landed(&lake));
    assert!(peak_kib < MEMORY_MAX_KIB, "{peak_kib} KiB are more than 64 MB");
    drop(simulator);
}
