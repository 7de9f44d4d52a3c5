//! A configuration that changes while the gateway runs: what did not change goes on, what is wrong changes
//! nothing, and no slot is stored twice.

mod common;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{PATIENCE, device, point, simulator, soon, unit, word};
use tjern_gateway::config::Config;
use tjern_gateway::run::{RELOAD_QUEUE, RunError, RunOptions, Service, run_as_service};
use tjern_gateway::simulate::{Simulation, Simulator};
use tjern_gateway::status::client::{StatusAddress, get_within, status};
use tjern_gateway::status::report::{GatewayStatus, HealthState};
use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// A gateway that runs, and the file that it reads again when it is told to.
struct Site {
    folder: tempfile::TempDir,
    reloads: mpsc::Sender<()>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

impl Site {
    fn start(buses: &str) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_ansi(false).try_init();
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), "file", buses);
        let config = Config::load(&folder.path().join("gateway.toml")).unwrap_or_else(|error| panic!("{error}"));
        let (reloads, wishes) = mpsc::channel(RELOAD_QUEUE);
        let stop = CancellationToken::new();
        let options = RunOptions { clock: Clock::system(), stop: stop.clone(), store: None };
        let service = Service { reloads: Some(wishes), ..Service::default() };
        let running = tokio::spawn(run_as_service(config, options, service));
        Self { folder, reloads, stop, running }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self) -> StatusAddress {
        StatusAddress::Unix(self.path("status.sock"))
    }

    /// Waits until the status is like this.
    async fn until(&self, what: &str, is: impl Fn(&GatewayStatus) -> bool) -> GatewayStatus {
        soon(what, async {
            let mut looks = interval(Duration::from_millis(20));
            loop {
                looks.tick().await;
                if let Ok(status) = status(&self.address()).await
                    && is(&status)
                {
                    return status;
                }
            }
        })
        .await
    }

    /// Changes the file, and has it read.
    async fn reload(&self, lake: &str, buses: &str) -> GatewayStatus {
        let count = |status: &GatewayStatus| {
            let configuration = &status.configuration;
            configuration.reloads + configuration.refusals + configuration.unchanged
        };
        let before = count(&self.until("a status", |_| true).await);
        write(self.folder.path(), lake, buses);
        self.reloads.send(()).await.expect("it runs");
        self.until("the reload", |status| count(status) > before).await
    }

    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        soon("the end", self.running).await.expect("no panic").expect("it ends well");
        assert!(!self.folder.path().join("status.sock").exists(), "the socket goes with the gateway");
        self.folder
    }
}

fn write(folder: &Path, lake: &str, buses: &str) {
    let root = folder.display();
    let text = format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"file://{root}/{lake}\"\n[spool]\ndir = \"{root}/spool\"\nsync_every = \"50ms\"\n\
        [upload]\nevery = \"200ms\"\n[status]\nlisten = \"unix:{root}/status.sock\"\n{buses}"
    );
    std::fs::write(folder.join("gateway.toml"), text).expect("written");
}

fn bus(name: &str, simulator: &Simulator, points: &str) -> String {
    let address = simulator.address().expect("TCP");
    format!("[[bus]]\nname = \"{name}\"\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{}{points}", device(1))
}

fn polled(sensor: &str, every: &str) -> String {
    point(sensor, &format!("register = \"input:0\"\ntype = \"u16\"\nevery = \"{every}\"\nunit = \"Cel\""))
}

async fn device_of(value: u16) -> Simulator {
    let (unit, _) = unit(1, vec![word(0, value)]);
    simulator(Simulation::ModbusTcp(vec![unit])).await
}

/// Every reading in the lake: configuration, sensor and time.
fn landed(folder: &Path) -> Vec<(String, String, i64)> {
    let (mut files, mut readings) = (Vec::new(), Vec::new());
    collect(&folder.join("file/landing"), &mut files);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "arrow"));
    files.sort();
    for file in files {
        let batch = batch::decode(&std::fs::read(file).expect("readable")).expect("a batch");
        let configuration = batch.header.configuration.clone().unwrap_or_default();
        let rows = batch.readings().expect("rows");
        readings.extend(rows.iter().map(|row| (configuration.clone(), row.sensor.to_string(), row.time_us)));
    }
    readings
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() { collect(&entry.path(), files) } else { files.push(entry.path()) }
    }
}

fn life(status: &GatewayStatus, bus: &str) -> (u64, u64) {
    let bus = status.buses.iter().find(|known| known.name == bus).unwrap_or_else(|| panic!("no {bus}"));
    (bus.incarnation, bus.turns)
}

/// A reload of another program begins everything anew, and what was due meanwhile is lost.
#[tokio::test]
async fn a_bus_that_did_not_change_goes_on_and_the_others_begin_anew() {
    let (north, south) = (device_of(11).await, device_of(22).await);
    let kept = bus("kept", &north, &polled("north/level", "100ms"));
    let site = Site::start(&(kept.clone() + &bus("changed", &south, &polled("south/level", "100ms"))));
    let before = site.until("both are read", |status| {
        status.buses.len() == 2 && status.buses.iter().all(|bus| bus.devices[0].points[0].value.is_some())
    });
    let before = before.await;
    soon("a reading of each in the lake", async {
        let mut looks = interval(Duration::from_millis(20));
        let has = |sensor| landed(site.folder.path()).iter().any(|(_, landed, _)| landed == sensor);
        while !(has("north/level") && has("south/level")) {
            looks.tick().await;
        }
    })
    .await;
    let more = polled("south/level", "200ms") + &polled("south/depth", "100ms");
    let after = site
        .reload("file", &(bus("new", &south, &polled("new/level", "1s")) + &bus("changed", &south, &more) + &kept))
        .await;
    assert_eq!(after.configuration.refused, None);
    // A bus reads what was learned of its devices before it says that it is there.
    let has_begun = |status: &GatewayStatus| status.buses.iter().any(|bus| bus.name == "changed");
    let after = site.until("the changed bus has begun", has_begun).await;
    assert_eq!(life(&after, "kept").0, life(&before, "kept").0, "the same life");
    assert!(life(&after, "changed").0 > life(&before, "changed").0, "a new life");
    let names: Vec<&str> = after.buses.iter().map(|bus| bus.name.as_str()).collect();
    assert!(names.iter().filter(|name| **name == "kept").count() == 1 && !names.contains(&"gone"), "{names:?}");
    assert_ne!(after.configuration.sha256, before.configuration.sha256);
    let turns = life(&after, "kept").1;
    assert!(turns >= life(&before, "kept").1, "its turns go on");
    let gone = site.reload("file", &kept).await;
    assert_eq!((gone.buses.len(), life(&gone, "kept").0), (1, life(&before, "kept").0));
    site.until("it is read on", |status| life(status, "kept").1 > turns).await;
    let hashes = [&before, &after, &gone].map(|status| status.configuration.sha256.clone());
    let folder = site.end().await;
    let readings = landed(folder.path());
    for hash in &hashes {
        let text = folder.path().join(format!("file/landing/site-01/config/{hash}.toml"));
        assert!(text.is_file(), "the lake has each configuration");
    }
    let of_old = |(hash, sensor, _): &(String, String, i64)| hash == &hashes[0] && sensor == "south/level";
    assert!(readings.iter().any(of_old), "what was read before names what it was read by");
    let wrong = |(hash, sensor, _): &(String, String, i64)| hash == &hashes[0] && sensor == "south/depth";
    assert!(!readings.iter().any(wrong), "and nothing else does");
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_that_is_said() {
    let north = device_of(11).await;
    let good = bus("north", &north, &polled("north/level", "100ms"));
    let site = Site::start(&good);
    let before = site.until("it is read", |status| status.buses.len() == 1).await;
    for (lake, buses, said) in [
        ("file", good.replace("every", "evry"), "did you mean `every`?"),
        ("other", good.clone() + &bus("south", &north, &polled("south/level", "1s")), "`lake` cannot change"),
    ] {
        let after = site.reload(lake, &buses).await;
        let refused = after.configuration.refused.clone().expect("it is refused");
        assert!(refused.reason.contains(said), "no {said:?} in {}", refused.reason);
        assert_eq!(after.configuration.sha256, before.configuration.sha256, "all or nothing");
        assert_eq!((after.buses.len(), life(&after, "north").0), (1, life(&before, "north").0));
        assert_eq!(after.health.state, HealthState::Warning);
        let health = String::from_utf8(get_within(PATIENCE, &site.address(), "/health").await.expect("it answers"))
            .expect("text");
        assert!(health.contains("refused"), "{health}");
    }
    let mended = site.reload("file", &good).await;
    assert_eq!((mended.configuration.refused, mended.configuration.refusals), (None, 2));
    site.end().await;
}

#[tokio::test]
async fn a_sensor_that_moves_to_another_bus_is_not_stored_twice_for_a_slot() {
    let (north, south) = (device_of(11).await, device_of(22).await);
    let moving = polled("tarn/level", "1s");
    let stays = |name, simulator: &Simulator| bus(name, simulator, &polled(&format!("{name}/level"), "1s"));
    let with = |name, simulator: &Simulator| bus(name, simulator, &(polled(&format!("{name}/level"), "1s") + &moving));
    let there = with("north", &north) + &stays("south", &south);
    let here = stays("north", &north) + &with("south", &south);
    let site = Site::start(&there);
    let known = |status: &GatewayStatus| {
        status
            .buses
            .iter()
            .flat_map(|bus| &bus.devices[0].points)
            .find(|point| point.sensor == "tarn/level")
            .and_then(|point| point.value)
    };
    for round in 0..6 {
        site.until("it was read", |status| known(status).is_some()).await;
        site.reload("file", if round % 2 == 0 { &here } else { &there }).await;
    }
    let folder = site.end().await;
    let readings = landed(folder.path());
    let slots: HashSet<(&str, i64)> = readings.iter().map(|(_, sensor, time_us)| (sensor.as_str(), *time_us)).collect();
    assert_eq!(slots.len(), readings.len(), "each slot once: {readings:?}");
}
