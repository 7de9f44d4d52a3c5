//! What the gateway's tests share: configurations as text, buses that run, readings that arrive.

#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test binary uses its own share")]

pub mod skipped;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tjern_gateway::bus::state::BusStates;
use tjern_gateway::bus::{self, BusContext, DeviceTimes, LeftBehind, Newest, OnDisk};
use tjern_gateway::config::Config;
use tjern_gateway::modbus::transport::Table;
use tjern_gateway::simulate::{Faults, Signal, SimulatedRegister, SimulatedUnit, Simulation, Simulator};
use tjern_gateway::value::{NumberType, Order, Scaling};
use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_readings::reading::Reading;
use tjern_readings::rows::Rows;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine, short enough to notice.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What has to come about within [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// A configuration with these buses.
pub fn config(buses: &str) -> Config {
    let head = "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n";
    match Config::parse(&ConfigText::new("test.toml", format!("{head}{buses}"))) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

/// A point's table.
pub fn point(sensor: &str, rest: &str) -> String {
    format!("[[bus.device.point]]\nsensor = \"{sensor}\"\n{rest}\n")
}

/// A device's table, without its points.
pub fn device(unit_id: u8) -> String {
    format!("[[bus.device]]\nname = \"device-{unit_id}\"\nunit_id = {unit_id}\n")
}

/// A register that always holds the same value.
pub fn register(
    table: Table,
    address: u16,
    kind: NumberType,
    order: Order,
    scaling: Scaling,
    value: f64,
) -> SimulatedRegister {
    SimulatedRegister { table, address, kind, order, scaling, signal: Signal::constant(value) }
}

/// An input register of one word.
pub fn word(address: u16, value: u16) -> SimulatedRegister {
    register(Table::Input, address, NumberType::U16, Order::Abcd, Scaling::default(), f64::from(value))
}

/// A unit that behaves, and the knobs to change that.
pub fn unit(unit_id: u8, registers: Vec<SimulatedRegister>) -> (SimulatedUnit, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    (SimulatedUnit { unit_id, registers, faults: Arc::clone(&faults) }, faults)
}

pub async fn simulator(simulation: Simulation) -> Simulator {
    Simulator::start(simulation, Clock::system()).await.expect("a simulator starts")
}

/// The buses of a configuration, running; their readings arrive here.
pub struct Buses {
    received: mpsc::Receiver<Rows>,
    stop: CancellationToken,
    actors: JoinSet<()>,
    waiting: Vec<Reading>,
    states: BusStates,
}

impl Buses {
    pub fn start(config: &Config) -> Self {
        Self::start_with(config, None)
    }

    /// The same, with a folder for what is learned.
    pub fn start_with(config: &Config, learned: Option<PathBuf>) -> Self {
        // What the buses say is shown with a test that fails.
        let _ = tracing_subscriber::fmt().with_test_writer().with_ansi(false).try_init();
        let (readings, received) = mpsc::channel(bus::READINGS_QUEUE);
        let stop = CancellationToken::new();
        let newest = Newest::from_fn(|_| None);
        let states = BusStates::new();
        let context = BusContext {
            clock: Clock::system(),
            readings,
            left: LeftBehind::default(),
            newest,
            stop: stop.clone(),
            states: states.clone(),
            learned,
            device_times: DeviceTimes::default(),
            on_disk: OnDisk::kept(),
        };
        let mut actors = JoinSet::new();
        for bus in config.buses() {
            actors.spawn(bus::run(std::sync::Arc::clone(bus), context.clone()));
        }
        Self { received, stop, actors, waiting: Vec::new(), states }
    }

    /// What the buses tell of themselves.
    pub const fn states(&self) -> &BusStates {
        &self.states
    }

    /// The next reading.
    pub async fn next(&mut self) -> Reading {
        while self.waiting.is_empty() {
            let more = soon("a reading", self.received.recv()).await;
            self.waiting = more.expect("the buses run").into();
        }
        self.waiting.remove(0)
    }

    /// The first reading that is like this; those before it are forgotten.
    pub async fn first(&mut self, what: &str, is: impl Fn(&Reading) -> bool) -> Reading {
        soon(what, async {
            loop {
                let reading = self.next().await;
                if is(&reading) {
                    return reading;
                }
            }
        })
        .await
    }

    /// Ends the buses, and gives all that they read and nobody took.
    pub async fn rest(mut self) -> Vec<Reading> {
        self.stop.cancel();
        soon("the end of the buses", async { while self.actors.join_next().await.is_some() {} }).await;
        let mut rest = self.waiting;
        while let Ok(more) = self.received.try_recv() {
            rest.extend(Vec::from(more));
        }
        rest
    }

    /// Ends the buses, which has to be quick.
    pub async fn end(mut self) {
        self.stop.cancel();
        soon("the end of the buses", async { while self.actors.join_next().await.is_some() {} }).await;
    }
}
