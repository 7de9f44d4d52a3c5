//! The real program on a box whose clock is wrong: it begins in 1970, and somebody sets it, or the power goes before; or it falls
//! back while the program runs.
//!
//! Nothing in the program knows of this. Its clock is set by a library before the system's (`common/wrong_clock.c`, as
//! libfaketime does it), which a C compiler makes in a moment; without one, or on a machine that says that its own clock was never
//! synchronised, this skips and says so. For Linux with glibc and 64 bits.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::skipped::skip;
use common::{device, point, simulator, soon, unit, word};
use tjern_gateway::clock::Witness;
use tjern_gateway::simulate::Simulation;
use tjern_gateway::spool::SpoolLook;
use tjern_gateway::status::client::{StatusAddress, status};
use tjern_gateway::status::report::HealthState;
use tjern_readings::batch;
use tjern_readings::clock::{Clock, SECOND_US};
use tjern_readings::reading::{Cause, Reading};
use tokio::process::{Child, Command};
use tokio::time::interval;

/// 1970-01-01, ten minutes after the power came.
const BOOT_US: i64 = 600 * SECOND_US;

/// 2027-03-01 12:00 UTC.
const RIGHT_US: i64 = 1_803_902_400 * SECOND_US;

/// 1998-01-01.
const FALLEN_US: i64 = 883_612_800 * SECOND_US;

const DAY_US: i64 = 86_400 * SECOND_US;

const SENSOR: &str = "tarn/level";

/// How often it is polled.
const EVERY_US: i64 = SECOND_US / 10;

/// So many readings make a story.
const SEVERAL: usize = 5;

/// A box: its folder, its clock, its configuration.
struct Site {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Site {
    /// A box whose clock can be set; nothing, and the reason on stderr, where that cannot be had.
    async fn new(device_address: &str) -> Option<Self> {
        if !Witness::system().believes(RIGHT_US, RIGHT_US) {
            skip("wrong_clock", "this machine says that its clock was never synchronised, and nothing sets it here");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("wrong_clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/wrong_clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).stdin(Stdio::null());
        match compiler.status().await {
            Ok(status) => assert!(status.success(), "the library is compiled"),
            Err(error) => {
                skip("wrong_clock", &format!("there is no C compiler (`cc`): {error}"));
                return None;
            }
        }
        let body = "register = \"input:0\"\ntype = \"u16\"\nevery = \"100ms\"";
        let text = format!(
            "version = 1\ngateway = \"site-01\"\nlake = \"file://{0}/lake\"\n[spool]\ndir = \"{0}/spool\"\nsync_every = \"50ms\"\n\
             [upload]\nevery = \"100ms\"\n[status]\nlisten = \"unix:{0}/status\"\n[[bus]]\nname = \"b\"\nkind = \"modbus-tcp\"\naddress = \"{device_address}\"\n\
             timeout = \"60s\"\n{1}{2}",
            folder.path().display(),
            device(1),
            point(SENSOR, body),
        );
        std::fs::write(folder.path().join("gateway.toml"), text).expect("written");
        Some(Self { folder, library })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets the box's clock.
    fn set_clock(&self, time_us: i64) {
        let ahead_us = time_us - Clock::system().now_us();
        std::fs::write(self.path("ahead.new"), ahead_us.to_string()).expect("written");
        // Whole at any moment.
        std::fs::rename(self.path("ahead.new"), self.path("ahead")).expect("renamed");
    }

    fn start(&self) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
        command.args(["run", "--config"]).arg(self.path("gateway.toml")).env_remove("RUST_LOG").kill_on_drop(true);
        command.env("LD_PRELOAD", &self.library).env("WRONG_CLOCK", self.path("ahead")).stdin(Stdio::null());
        command.spawn().expect("it starts")
    }

    /// What the lake has of the sensor, in the order of time.
    fn landed(&self) -> Vec<Reading> {
        let mut readings: Vec<Reading> =
            batches(&self.path("lake")).iter().flat_map(|path| readings_in(path)).collect();
        readings.sort_by_key(|reading| reading.time_us);
        readings
    }

    /// What waits on disk for a time.
    fn held(&self) -> usize {
        let mut count = 0;
        let each = |_, _, reading: &Reading| {
            count += usize::from(reading.sensor.as_str() == SENSOR);
            Ok::<(), std::convert::Infallible>(())
        };
        // It may not be there yet, or be on its way.
        let look = SpoolLook::at(&self.path("spool/undated"));
        let _ = look.map(|look| look.each_reading(each));
        count
    }

    /// Whether the program says that the time is known, and whether it says that all is well.
    async fn says(&self) -> (bool, HealthState) {
        let status = status(&StatusAddress::Unix(self.path("status"))).await.expect("it answers");
        (status.clock.expect("it has one").is_known, status.health.state)
    }

    /// Waits until it says so: its page is made anew once a second.
    async fn says_soon(&self, wanted: (bool, HealthState)) {
        soon("it says so", async {
            let mut looks = interval(Duration::from_millis(50));
            while self.says().await != wanted {
                looks.tick().await;
            }
        })
        .await;
    }

    /// Waits until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        soon(what, async {
            let mut looks = interval(Duration::from_millis(50));
            while !holds(self) {
                looks.tick().await;
            }
        })
        .await;
    }
}

/// The batches below a folder.
fn batches(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let below = |path: PathBuf| if path.is_dir() { batches(&path) } else { vec![path] };
    entries.flat_map(below).filter(|path| path.extension().is_some_and(|kind| kind == "arrow")).collect()
}

fn readings_in(path: &Path) -> Vec<Reading> {
    let bytes = std::fs::read(path).expect("a batch");
    let readings = batch::decode(&bytes).and_then(|batch| batch.readings()).expect("a good one");
    readings.into_iter().filter(|reading| reading.sensor.as_str() == SENSOR).collect()
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).expect("short")
}

/// Each slot once.
fn assert_once(readings: &[Reading]) {
    for pair in readings.windows(2) {
        assert!(pair[0].time_us < pair[1].time_us, "twice: {pair:?}");
    }
}

async fn kill(mut child: Child) {
    child.kill().await.expect("it ran");
}

/// It polls from the first moment, and what it read gets the time at which it was read once that is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_boots_in_1970_dates_its_readings_when_the_clock_comes() {
    let (device, _) = unit(1, vec![word(0, 11)]);
    let device = simulator(Simulation::ModbusTcp(vec![device])).await;
    let Some(site) = Site::new(&device.address().expect("TCP").to_string()).await else { return };
    site.set_clock(BOOT_US);
    let (started, child) = (Instant::now(), site.start());
    site.until("it polls, and holds what it reads", |site| site.held() >= SEVERAL).await;
    assert!(site.landed().is_empty(), "nothing has a time yet");
    site.says_soon((false, HealthState::Warning)).await;
    site.set_clock(RIGHT_US);
    let lived_us = micros(started.elapsed());
    let after = |site: &Site| site.landed().iter().filter(|reading| reading.time_us > RIGHT_US + SECOND_US).count();
    site.until("it goes on under the clock that came", |site| after(site) >= SEVERAL).await;
    site.says_soon((true, HealthState::Ok)).await;
    kill(child).await;
    let readings = site.landed();
    assert_once(&readings);
    let before = readings.iter().filter(|reading| reading.time_us < RIGHT_US).count();
    assert!(before >= SEVERAL, "what was read before is there, at the time at which it was read: {readings:?}");
    for reading in &readings {
        assert_eq!((reading.value, reading.cause), (Some(11.0), None), "{reading:?}");
        assert_eq!(reading.time_us % EVERY_US, 0, "on its slot: {reading:?}");
        assert!(reading.time_us >= RIGHT_US - lived_us - EVERY_US, "before it was started: {reading:?}");
    }
}

/// The power goes before the clock came: the next start knows how long after the last known time each was read, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_before_the_clock_comes_leaves_readings_with_an_estimated_time() {
    let (device, _) = unit(1, vec![word(0, 11)]);
    let device = simulator(Simulation::ModbusTcp(vec![device])).await;
    let Some(site) = Site::new(&device.address().expect("TCP").to_string()).await else { return };
    site.set_clock(RIGHT_US);
    let child = site.start();
    site.until("a day on which all is well", |site| site.landed().len() >= SEVERAL).await;
    kill(child).await;
    let known_us = site.landed().last().expect("some").time_us;
    // What it had read and not sent is known to it, too.
    let known_at_most_us = RIGHT_US + Clock::system().now_us() - set_at_us(&site, RIGHT_US);

    site.set_clock(BOOT_US);
    let (started, child) = (Instant::now(), site.start());
    site.until("it polls, and holds what it reads", |site| site.held() >= SEVERAL).await;
    kill(child).await;
    let lived_us = micros(started.elapsed());
    let held = site.held();

    site.set_clock(RIGHT_US + DAY_US);
    let child = site.start();
    let after = |site: &Site| site.landed().iter().filter(|reading| reading.time_us > RIGHT_US + DAY_US).count();
    site.until("it goes on under a clock that is right", |site| after(site) >= SEVERAL).await;
    let estimated = |site: &Site| {
        site.landed().into_iter().filter(|reading| reading.cause == Some(Cause::ClockEstimated)).collect::<Vec<_>>()
    };
    site.until("what was held is there", |site| estimated(site).len() >= held).await;
    kill(child).await;
    let (readings, estimated) = (site.landed(), estimated(&site));
    assert_once(&readings);
    assert_eq!(estimated.len(), held, "all of it, and once");
    for reading in &estimated {
        assert_eq!(reading.value, Some(11.0), "{reading:?}");
        let latest_us = known_at_most_us + lived_us + EVERY_US;
        assert!(reading.time_us > known_us && reading.time_us <= latest_us, "last known plus elapsed: {reading:?}");
    }
    let sure = readings.iter().filter(|reading| reading.cause.is_none());
    for reading in sure {
        let first_day = RIGHT_US - EVERY_US..=known_at_most_us;
        assert!(first_day.contains(&reading.time_us) || reading.time_us >= RIGHT_US + DAY_US - EVERY_US, "{reading:?}");
    }
}

/// Readings were dated 1998 as if that were sure, and the way back counted slots for years.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_falls_back_while_the_gateway_runs_is_not_believed() {
    let (device, _) = unit(1, vec![word(0, 11)]);
    let device = simulator(Simulation::ModbusTcp(vec![device])).await;
    let Some(site) = Site::new(&device.address().expect("TCP").to_string()).await else { return };
    site.set_clock(RIGHT_US);
    let right = std::fs::read_to_string(site.path("ahead")).expect("set");
    let (started, child) = (Instant::now(), site.start());
    site.until("a time in which all is well", |site| site.landed().len() >= SEVERAL).await;
    site.set_clock(FALLEN_US);
    let estimated = |site: &Site| site.landed().iter().filter(|reading| reading.cause.is_some()).count();
    site.until("it goes on by the time that passed", |site| estimated(site) >= SEVERAL).await;
    site.says_soon((false, HealthState::Warning)).await;
    std::fs::write(site.path("ahead.new"), right).expect("written");
    std::fs::rename(site.path("ahead.new"), site.path("ahead")).expect("renamed");
    let is_sure = |site: &Site| site.landed().last().is_some_and(|reading| reading.cause.is_none());
    site.until("it goes on under the clock that is back", is_sure).await;
    site.says_soon((true, HealthState::Ok)).await;
    let status = status(&StatusAddress::Unix(site.path("status"))).await.expect("it answers");
    let missed: u64 = status
        .buses
        .iter()
        .flat_map(|bus| &bus.devices)
        .flat_map(|device| &device.points)
        .map(|point| point.missed)
        .sum();
    kill(child).await;
    let lived_us = micros(started.elapsed());
    assert_eq!(status.clock.expect("it has one").falls, 1);
    assert!(i64::try_from(missed).expect("few") <= lived_us / EVERY_US, "{missed} slots of {lived_us} µs");
    let readings = site.landed();
    assert_once(&readings);
    for reading in readings {
        assert_eq!(
            (reading.value, reading.cause.unwrap_or(Cause::ClockEstimated)),
            (Some(11.0), Cause::ClockEstimated)
        );
        assert!((RIGHT_US - EVERY_US..RIGHT_US + lived_us + SECOND_US).contains(&reading.time_us), "{reading:?}");
    }
}

/// When the box's clock was set to this, by the machine's own.
fn set_at_us(site: &Site, time_us: i64) -> i64 {
    let ahead_us: i64 = std::fs::read_to_string(site.path("ahead")).expect("set").parse().expect("a number");
    time_us - ahead_us
}
