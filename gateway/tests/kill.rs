//! `kill -9` of the real binary, fifty times at a moment that a seed chooses, over one spool and one lake.
//!
//! Before each kill the spool is looked at from outside: what is written there by then has to be in the lake at the
//! end, once. So has every number, from 1 on.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{device, point, simulator, soon, unit, word};
use tjern_gateway::simulate::Simulation;
use tjern_gateway::spool::SpoolLook;
use tjern_readings::batch;
use tjern_readings::keys::Bounds;
use tjern_readings::reading::Reading;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

const KILLS: u32 = 50;

/// The longest that a gateway lives after it said that it started.
const LIFE_MAX_MS: u64 = 400;

const VALUES: [u16; 3] = [11, 222, 3_333];

/// A reading as it is told apart: whose, and which slot.
type Slot = (String, i64);

/// Something in the landing zone that covers numbers.
#[derive(Debug, Clone)]
struct Landed {
    epoch: String,
    bounds: Bounds,
    /// None in a gap.
    readings: Vec<Reading>,
}

fn seed() -> u64 {
    let named = std::env::var("TJERN_SEED").ok().map(|seed| seed.parse().expect("TJERN_SEED is a number"));
    let seed = named.unwrap_or_else(|| fastrand::u64(..));
    println!("TJERN_SEED={seed}");
    seed
}

fn configure(root: &Path, address: &str) -> PathBuf {
    let points: String = (0..VALUES.len())
        .map(|register| {
            let body = format!("register = \"input:{register}\"\ntype = \"u16\"\nevery = \"50ms\"");
            point(&format!("tarn/depth-{register}m/water_temperature"), &body)
        })
        .collect();
    let text = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"file://{0}/lake\"\n[spool]\ndir = \"{0}/spool\"\nsync_every = \"20ms\"\n[upload]\nevery = \"70ms\"\n\
         [[bus]]\nname = \"tcp\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{1}{points}",
        root.display(),
        device(1),
    );
    let path = root.join("gateway.toml");
    std::fs::write(&path, text).expect("the configuration is written");
    path
}

struct Gateway {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Gateway {
    fn start(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
        command.args(["run", "--config"]).arg(config).env("NO_COLOR", "1").env_remove("RUST_LOG").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the gateway starts");
        let log = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self { child, log }
    }

    /// Waits until it polls; what it says before that is shown where it ends instead.
    async fn polls(&mut self) {
        let mut said = Vec::new();
        soon("a start", async {
            while let Ok(Some(line)) = self.log.next_line().await {
                if line.contains("gateway started") {
                    return;
                }
                said.push(line);
            }
            panic!("it did not start:\n{}", said.join("\n"));
        })
        .await;
    }
}

/// What the spool says that it has, while a gateway writes to it.
fn seen(spool: &Path) -> BTreeSet<Slot> {
    let mut slots = BTreeSet::new();
    let Ok(look) = SpoolLook::at(spool) else { return slots };
    let each = |_, _, reading: &Reading| {
        slots.insert((reading.sensor.as_str().to_owned(), reading.time_us));
        Ok::<(), std::convert::Infallible>(())
    };
    let left_out = look.each_reading(each).expect("nothing stops it");
    assert!(left_out.is_empty(), "{left_out:?}");
    slots
}

fn landed(lake: &Path) -> Vec<Landed> {
    let mut landed = Vec::new();
    for epoch in std::fs::read_dir(lake.join("landing/site-01")).into_iter().flatten().flatten() {
        let name = epoch.file_name().to_string_lossy().into_owned();
        for file in std::fs::read_dir(epoch.path()).into_iter().flatten().flatten() {
            let path = file.path();
            let Some(stem) = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else { continue };
            let bounds =
                stem.split_once('-').and_then(|(first, last)| Bounds::new(first.parse().ok()?, last.parse().ok()?));
            let (Some(bounds), Some(kind)) = (bounds, path.extension()) else { continue };
            let readings = match kind.to_str() {
                Some("arrow") => {
                    let bytes = std::fs::read(&path).expect("readable");
                    let batch = batch::decode(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    assert_eq!(batch.header.bounds, bounds, "{}", path.display());
                    batch.readings().expect("readings")
                }
                Some("gap") => Vec::new(),
                _ => continue,
            };
            landed.push(Landed { epoch: name.clone(), bounds, readings });
        }
    }
    landed
}

/// Whether each number from 1 on is there once, each slot once, and all of these slots.
fn judge(mut landed: Vec<Landed>, expected: &BTreeSet<Slot>) -> Result<usize, String> {
    landed.sort_by_key(|object| (object.epoch.clone(), object.bounds));
    let (mut next, mut slots) = (BTreeMap::new(), BTreeSet::new());
    for object in &landed {
        let next = next.entry(&object.epoch).or_insert(1);
        if object.bounds.first != *next {
            return Err(format!("{} of {} where {next} comes next", object.bounds, object.epoch));
        }
        *next = object.bounds.last + 1;
        for reading in &object.readings {
            if !slots.insert((reading.sensor.as_str().to_owned(), reading.time_us)) {
                return Err(format!("{} has two readings of {}", reading.sensor.as_str(), reading.time_us));
            }
        }
    }
    match expected.difference(&slots).next() {
        Some(lost) => Err(format!("{lost:?} was on disk before a kill, and is lost")),
        None => Ok(slots.len()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_lose_nothing_that_was_on_disk() {
    let mut random = fastrand::Rng::with_seed(seed());
    let registers = (0..).zip(VALUES).map(|(address, value)| word(address, value)).collect();
    let simulator = simulator(Simulation::ModbusTcp(vec![unit(1, registers).0])).await;
    let place = tempfile::tempdir().expect("a folder");
    let config = configure(place.path(), &simulator.address().expect("TCP").to_string());
    let (spool, lake) = (place.path().join("spool"), place.path().join("lake"));
    let mut expected = BTreeSet::new();
    for _ in 0..KILLS {
        let mut gateway = Gateway::start(&config);
        // One in eight is killed while it starts.
        if random.u8(..8) > 0 {
            gateway.polls().await;
        }
        // The moment of the fault, and no waiting for anything.
        tokio::time::sleep(Duration::from_millis(random.u64(..LIFE_MAX_MS))).await;
        expected.extend(seen(&spool));
        soon("the end", gateway.child.kill()).await.expect("killed");
    }
    let mut gateway = Gateway::start(&config);
    gateway.polls().await;
    let id = gateway.child.id().expect("it runs").to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().await.expect("kill runs").success());
    // Its log is read to the end, or it would wait for a reader.
    soon("the end of its log", async { while let Ok(Some(_)) = gateway.log.next_line().await {} }).await;
    assert!(soon("the end", gateway.child.wait()).await.expect("a status").success());
    assert_eq!(seen(&spool), BTreeSet::new(), "everything is sent");
    let landed = landed(&lake);
    let wrong = landed.iter().flat_map(|object| &object.readings).find(|reading| {
        let register: usize = reading.sensor.as_str()["tarn/depth-".len()..][..1].parse().expect("a digit");
        reading.value.is_some_and(|value| value != f64::from(VALUES[register]))
    });
    assert_eq!(wrong, None, "a value that was never served");
    let epochs: BTreeSet<_> = landed.iter().map(|object| &object.epoch).collect();
    assert_eq!(epochs.len(), 1, "a kill is no reason for a new epoch");
    let count = judge(landed.clone(), &expected).unwrap_or_else(|error| panic!("{error}"));
    println!(
        "{KILLS} kills: {count} readings in {} objects, {} of them seen before a kill",
        landed.len(),
        expected.len()
    );
    assert!(expected.len() > 30, "too few readings to say anything: {}", expected.len());
    a_judge_that_sees_nothing_is_caught(&landed, &expected);
}

/// The canary: what the judge must not let pass.
fn a_judge_that_sees_nothing_is_caught(landed: &[Landed], expected: &BTreeSet<Slot>) {
    let without_one = landed[1..].to_vec();
    let one_twice = [landed, &landed[..1]].concat();
    let mut emptied = landed.to_vec();
    emptied.iter_mut().for_each(|object| object.readings.clear());
    for tampered in [without_one, one_twice, emptied] {
        assert!(judge(tampered, expected).is_err());
    }
}
