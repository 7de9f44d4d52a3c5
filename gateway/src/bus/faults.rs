//! The actor of a bus before devices on bad lines: no reading holds another register's value, or another slot's.
//!
//! As in `modbus::faults`, with all that stands above a master: plan, shared requests, repeats, devices that go down.
//! Each `u64` that is polled holds its own address and the moment at which its request arrived, so that a reading
//! can be held against its sensor and its slot. Every few seconds the actor is begun anew, as a restart or a reload does
//! it. `TJERN_FAULTS_SEED` plays one seed.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_readings::reading::Reading;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::cost::Wire;
use super::health::Policy;
use super::learned::{BusMemory, Keeper};
use super::modbus::Actor;
use super::point::Limits;
use super::poll::Setting;
use super::{BusContext, DeviceTimes, LeftBehind, Newest, OnDisk};
use crate::config::{BusKind, Config};
use crate::modbus::Master;
use crate::modbus::faults::device::{Device, Habits, MOMENT_BITS, Words};
use crate::modbus::faults::{Dial, LONGEST, TIMEOUT, TURNAROUND_MAX_MS, environment, line_faults};
use crate::modbus::transport::ReadRequest;
use crate::simulate::bad_line::Framing;

const SEEDS: u64 = 50;
const START_US: i64 = 1_700_000_000_000_000;
const LIVES: Duration = Duration::from_secs(30);
/// An actor is begun anew after this.
const LIFE: Duration = Duration::from_millis(7_300);
/// How often the clock is set to what it is.
const TICK: Duration = Duration::from_millis(5);
const UNITS: u8 = 3;
const POINTS: u16 = 6;

/// A bus with points near and far from one another, of periods that meet now and then.
fn config(name: &str) -> Config {
    let kind = if name == "together" { "tcp" } else { name };
    let mut text = format!(
        "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n\
         [[bus]]\nname = \"line\"\nkind = \"modbus-{kind}\"\ntimeout = \"{}ms\"\n",
        TIMEOUT.as_millis()
    );
    text += match kind {
        "tcp" => "address = \"127.0.0.1:502\"\n",
        "rtu" => "port = \"/dev/null\"\nbaud = 19200\n",
        _ => "address = \"127.0.0.1:502\"\nbaud = 19200\n",
    };
    text += if name == "together" { "in_flight = 8\n" } else { "" };
    for unit in 1..=UNITS {
        text += &format!("[[bus.device]]\nname = \"device-{unit}\"\nunit_id = {unit}\n");
        for point in 0..POINTS {
            let address = u16::from(unit) * 1_000 + point * 4 + if point > 3 { 400 } else { 0 };
            let (table, every) =
                (["input", "holding"][usize::from(point % 2)], [200, 500, 1_000][usize::from(point % 3)]);
            text += &format!(
                "[[bus.device.point]]\nsensor = \"line/at-{address}/number\"\nregister = \"{table}:{address}\"\ntype = \"u64\"\nevery = \"{every}ms\"\n"
            );
        }
    }
    Config::parse(&ConfigText::new("test.toml", text)).expect("a good configuration")
}

/// Of every other line the devices are silent where nobody configured anything.
fn is_on_the_map(request: ReadRequest) -> bool {
    let place = request.address() % 1_000;
    let end = place + request.count();
    end <= 16 || place >= 416 && end <= 424
}

pub(super) fn actor(config: &Config, dial: &Dial, context: BusContext) -> Actor {
    let bus = std::sync::Arc::clone(&config.buses()[0]);
    let limits = Limits { timeout: bus.timeout, down_report: bus.down_report };
    let (wire, kind) = (Wire::of(&bus.kind), bus.kind.word());
    let mut master = Master::of(&bus.kind, bus.timeout).expect("a Modbus bus");
    match &mut master {
        Master::Tcp(master) => master.dial = Some(dial.clone()),
        Master::Rtu(master) => master.dial = Some(dial.clone()),
    }
    let (BusKind::ModbusTcp { devices, .. }
    | BusKind::ModbusRtu { devices, .. }
    | BusKind::ModbusRtuTcp { devices, .. }) = &bus.kind
    else {
        unreachable!("a Modbus bus")
    };
    let keeper = Keeper::of_devices(None, bus.name.clone());
    let (name, policy, in_flight) = (bus.name.clone(), Policy::DEFAULT, bus.kind.in_flight());
    let setting = Setting { name, kind, wire, limits, policy, in_flight };
    Actor::new(setting, master, devices, (keeper, BusMemory::new()), context)
}

/// What is wrong with a reading, if it has a value.
fn check(reading: &Reading) -> Result<u64, String> {
    let Some(value) = reading.value else { return Ok(0) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below 2⁵³")]
    let number = value as u64;
    let (address, moment_ms) = (number >> MOMENT_BITS, number & ((1 << MOMENT_BITS) - 1));
    let own = format!("line/at-{address}/number");
    let asked_us = START_US + i64::try_from(moment_ms).unwrap_or(i64::MAX) * 1_000;
    // The longest period, and what repeats of a request may take.
    let latest_us = reading.time_us + 1_000_000 + 20 * i64::try_from(TIMEOUT.as_micros()).unwrap_or(0);
    if own != reading.sensor.as_str() || asked_us < reading.time_us || asked_us > latest_us {
        return Err(format!("{reading:?} has what stood at {address} {moment_ms} ms after the start"));
    }
    Ok(1)
}

async fn play(kind: &str, seed: u64) -> Result<[u64; 2], String> {
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed ^ 0xB5);
    let start = Instant::now();
    let device = Device {
        framing: if kind.starts_with("rtu") { Framing::Rtu } else { Framing::Tcp },
        units: UNITS,
        faults: line_faults(&mut rng, seed),
        seed,
        turnaround: Duration::from_millis(rng.u64(..=TURNAROUND_MAX_MS)),
        words: Words::OfMoment,
        habits: if seed % 2 == 1 { Habits { bears: is_on_the_map, ..Habits::default() } } else { Habits::default() },
        moment: Arc::new(move || u64::try_from(start.elapsed().as_millis()).unwrap_or(0)),
    };
    assert!(device.faults.longest == LONGEST);
    let (dial, _line) = device.start();
    let clock = Clock::manual(START_US);
    let (readings, mut received) = mpsc::channel(super::READINGS_QUEUE);
    let newest = Newest::from_fn(|_| None);
    let states = super::BusStates::default();
    let context = BusContext {
        clock: clock.clone(),
        readings,
        left: LeftBehind::default(),
        newest,
        stop: CancellationToken::new(),
        states,
        learned: None,
        device_times: DeviceTimes::default(),
        on_disk: OnDisk::default(),
    };
    let config = config(kind);
    let lives = tokio::spawn(async move {
        while start.elapsed() < LIVES {
            let (stop, begun) = (CancellationToken::new(), Instant::now());
            let context = BusContext { stop: stop.clone(), ..context.clone() };
            let running = tokio::spawn(actor(&config, &dial, context).run());
            while begun.elapsed() < LIFE {
                clock.set_us(START_US + i64::try_from(start.elapsed().as_micros()).unwrap_or(0));
                sleep(TICK).await;
            }
            stop.cancel();
            running.await.expect("the actor ends");
        }
    });
    let mut counts = [0; 2];
    while let Some(readings) = received.recv().await {
        for reading in readings {
            counts[0] += 1;
            counts[1] += check(&reading)?;
        }
    }
    lives.await.expect("they end");
    Ok(counts)
}

fn campaign(kind: &str) {
    let seeds = match environment("TJERN_FAULTS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..environment("TJERN_FAULTS_SEEDS").unwrap_or(SEEDS),
    };
    let mut sum = [0; 2];
    for seed in seeds.clone() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        match runtime.expect("a runtime").block_on(play(kind, seed)) {
            Ok(counts) => sum = [sum[0] + counts[0], sum[1] + counts[1]],
            Err(detail) => panic!(
                "a wrong value at seed {seed}: {detail}\nreplay: TJERN_FAULTS_SEED={seed} cargo test -p tjern-gateway --lib bus::faults::{}",
                if kind == "rtu-tcp" { "over_tcp" } else { kind }
            ),
        }
    }
    let [readings, values] = sum;
    println!("{kind} bus: seeds {seeds:?}, {readings} readings, {values} values");
    assert!(values * 2 > readings, "most readings have a value, or nothing is shown");
}

#[test]
fn tcp() {
    campaign("tcp");
}

#[test]
fn together() {
    campaign("together");
}

#[test]
fn rtu() {
    campaign("rtu");
}

#[test]
fn over_tcp() {
    campaign("rtu-tcp");
}
