//! Servers that close the connection: where one unit is asked that does not answer, and where nobody is served.
//!
//! A whole bus on the runtime's paused clock, with the real masters, before devices on a line in memory. What it would
//! cost: each other unit its slot, as long as nothing may be asked of a server that is taken for missing, and two lines of the log a
//! slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::rows::Rows;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::faults::actor;
use super::state::{BusStates, DeviceState, LineState};
use super::told::Log;
use super::{BusContext, DeviceTimes, LeftBehind, Newest, OnDisk};
use crate::config::Config;
use crate::modbus::faults::device::{Device, Habits, Words};
use crate::simulate::bad_line::{Framing, LineFaults};

const START_US: i64 = 1_700_000_000_000_000;
const UNITS: u8 = 10;
const DEAD: u8 = 5;
const TICK: Duration = Duration::from_millis(5);
const BEGINS: Duration = Duration::from_millis(20_300);
const ENDS: Duration = Duration::from_secs(220);
const STOPS: Duration = Duration::from_secs(300);

fn config(kind: &str, every: &str) -> Config {
    let (kind, more) = match kind {
        "together" => ("tcp", "in_flight = 8\n"),
        kind => (kind, ""),
    };
    let mut text = format!(
        "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n\
         [[bus]]\nname = \"line\"\nkind = \"modbus-{kind}\"\naddress = \"127.0.0.1:502\"\ntimeout = \"500ms\"\n{more}"
    );
    for unit in 1..=UNITS {
        text += &format!(
            "[[bus.device]]\nname = \"device-{unit}\"\nunit_id = {unit}\n[[bus.device.point]]\n\
             sensor = \"line/unit-{unit}/number\"\nregister = \"input:8\"\ntype = \"u32\"\nevery = \"{every}\"\n"
        );
    }
    Config::parse(&ConfigText::new("test.toml", text)).expect("a good configuration")
}

/// What came of a life of the bus: the states of the devices are from before and after [`ENDS`].
struct Life {
    readings: Vec<Reading>,
    log: Vec<String>,
    while_away: (Vec<DeviceState>, Option<LineState>),
    afterwards: (Vec<DeviceState>, Option<LineState>),
}

fn states(states: &BusStates) -> (Vec<DeviceState>, Option<LineState>) {
    let bus = states.snapshot().remove(0);
    (bus.devices.iter().map(|device| device.state).collect(), bus.line)
}

/// Devices before which a bus's server hangs up on requests to these units, while it is away.
fn devices(start: Instant, is_away: Arc<AtomicBool>, framing: Framing, hangs_up: fn(u8) -> bool) -> Device {
    Device {
        framing,
        units: UNITS,
        faults: LineFaults::default(),
        seed: 5,
        turnaround: Duration::from_millis(3),
        words: Words::OfMoment,
        habits: Habits {
            hangs_up: Arc::new(move |unit| is_away.load(Ordering::Relaxed) && hangs_up(unit)),
            ..Habits::default()
        },
        moment: Arc::new(move || u64::try_from(start.elapsed().as_millis()).unwrap_or(0)),
    }
}

fn context(clock: &Clock, states: &BusStates) -> (BusContext, mpsc::Receiver<Rows>) {
    let (readings, received) = mpsc::channel(super::READINGS_QUEUE);
    let context = BusContext {
        clock: clock.clone(),
        readings,
        left: LeftBehind::default(),
        newest: Newest::from_fn(|_| None),
        stop: CancellationToken::new(),
        states: states.clone(),
        learned: None,
        device_times: DeviceTimes::default(),
        on_disk: OnDisk::default(),
    };
    (context, received)
}

/// A bus whose server hangs up on requests to these units, from [`BEGINS`] to [`ENDS`].
async fn live(kind: &str, hangs_up: fn(u8) -> bool) -> Life {
    fastrand::seed(5);
    let (start, away) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let framing = if kind.starts_with("rtu") { Framing::Rtu } else { Framing::Tcp };
    let (dial, _line) = devices(start, Arc::clone(&away), framing, hangs_up).start();
    let (clock, bus_states) = (Clock::manual(START_US), BusStates::new());
    let (context, mut received) = context(&clock, &bus_states);
    let stop = context.stop.clone();
    let (log, _told) = Log::listen();
    let running = tokio::spawn(actor(&config(kind, "1s"), &dial, context).run());
    let (mut stored, mut while_away) = (Vec::new(), None);
    while start.elapsed() < STOPS {
        let passed = start.elapsed();
        clock.set_us(START_US + i64::try_from(passed.as_micros()).expect("short"));
        away.store((BEGINS..ENDS).contains(&passed), Ordering::Relaxed);
        if while_away.is_none() && passed >= ENDS {
            while_away = Some(states(&bus_states));
        }
        sleep(TICK).await;
        while let Ok(more) = received.try_recv() {
            stored.extend(more);
        }
    }
    let afterwards = states(&bus_states);
    stop.cancel();
    running.await.expect("the actor ends");
    Life { readings: stored, log: log.lines(), while_away: while_away.expect("it came to that"), afterwards }
}

fn lived(kind: &str, hangs_up: fn(u8) -> bool) -> Life {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(live(kind, hangs_up))
}

/// How many slots of a span a unit has values for, of so many.
fn kept(life: &Life, unit: u8, (from, to): (Duration, Duration)) -> (usize, u64) {
    let sensor = format!("line/unit-{unit}/number");
    let us = |time: Duration| START_US + i64::try_from(time.as_micros()).expect("short");
    let of_span = |reading: &&Reading| {
        reading.sensor.as_str() == sensor && reading.value.is_some() && (us(from)..us(to)).contains(&reading.time_us)
    };
    (life.readings.iter().filter(of_span).count(), (to - from).as_secs())
}

const KINDS: [&str; 3] = ["tcp", "together", "rtu-tcp"];

/// A converter that closes the connection where a unit does not answer: the server was taken for missing, and those who were
/// asked next lost their slots, each time.
#[test]
fn a_unit_that_makes_its_converter_hang_up_costs_the_others_less_than_a_slot_in_twenty() {
    for kind in KINDS {
        let life = lived(kind, |unit| unit == DEAD);
        for unit in (1..=UNITS).filter(|unit| *unit != DEAD) {
            let (slots, all) = kept(&life, unit, (BEGINS + Duration::from_secs(10), ENDS));
            assert!(slots as u64 * 100 >= all * 95, "{kind}: unit {unit} keeps {slots} of {all} slots");
        }
        let (states, line) = &life.while_away;
        let down: Vec<usize> = (0..states.len()).filter(|index| states[*index] == DeviceState::Down).collect();
        assert_eq!(down, [usize::from(DEAD) - 1], "{kind}: {states:?}");
        assert_eq!(*line, Some(LineState::Up), "{kind}");
        let of_dead = |reading: &&Reading| reading.sensor.as_str() == "line/unit-5/number" && reading.value.is_none();
        let lost: Vec<&Reading> = life.readings.iter().filter(of_dead).collect();
        assert!(!lost.is_empty() && lost.iter().all(|reading| reading.cause == Some(Cause::Unreachable)), "{lost:?}");
    }
}

/// Each slot was two lines: not reachable, reachable.
#[test]
fn a_unit_that_makes_its_converter_hang_up_does_not_flood_the_log_and_comes_back() {
    for kind in KINDS {
        let life = lived(kind, |unit| unit == DEAD);
        let count = |text: &str| life.log.iter().filter(|line| line.contains(text)).count();
        let counts = [count("down: "), count("answers again"), count("not reachable"), count(" reachable")];
        assert_eq!(counts, [1, 1, 0, 1], "{kind}: {:#?}", life.log);
        assert!(life.log.len() <= 6, "{kind}: {:#?}", life.log);
        assert!(life.afterwards.0.iter().all(|state| *state == DeviceState::Healthy), "{kind}: {:?}", life.afterwards);
        // It is asked again within a minute, and then at each slot.
        let (slots, all) = kept(&life, DEAD, (ENDS + Duration::from_secs(70), STOPS));
        assert!(slots as u64 + 1 >= all, "{kind}: {slots} of {all}");
    }
}

/// Were each unit taken for dead there, the line would count as there, and all would be asked ever more seldom.
#[test]
fn a_server_that_hangs_up_on_everybody_is_missing_and_found_again() {
    for kind in KINDS {
        let life = lived(kind, |_| true);
        assert!(matches!(life.while_away.1, Some(LineState::Missing(_))), "{kind}: {:?}", life.while_away);
        assert_eq!(life.afterwards.1, Some(LineState::Up), "{kind}");
        assert!(life.afterwards.0.iter().all(|state| *state == DeviceState::Healthy), "{kind}: {:?}", life.afterwards);
        let count = |text: &str| life.log.iter().filter(|line| line.contains(text)).count();
        assert!(count("not reachable") == 1 && life.log.len() <= 4, "{kind}: {:#?}", life.log);
        for unit in 1..=UNITS {
            let (slots, all) = kept(&life, unit, (ENDS + Duration::from_secs(10), STOPS));
            assert!(slots as u64 * 100 >= all * 95, "{kind}: unit {unit} keeps {slots} of {all} slots afterwards");
        }
    }
}

/// A gateway that was stopped while a slot waited for its server left the slot without a word.
#[tokio::test(start_paused = true)]
async fn what_a_slot_waits_for_is_told_when_the_bus_is_stopped() {
    let (start, clock, away) = (Instant::now(), Clock::manual(START_US), Arc::new(AtomicBool::new(true)));
    let (dial, _line) = devices(start, away, Framing::Tcp, |_| true).start();
    let (context, mut received) = context(&clock, &BusStates::new());
    let stop = context.stop.clone();
    let running = tokio::spawn(actor(&config("tcp", "20s"), &dial, context).run());
    while start.elapsed() < Duration::from_secs(50) {
        clock.set_us(START_US + i64::try_from(start.elapsed().as_micros()).expect("short"));
        sleep(TICK).await;
    }
    stop.cancel();
    running.await.expect("the actor ends");
    let mut newest: Vec<(i64, Option<Cause>)> = Vec::new();
    while let Ok(rows) = received.try_recv() {
        newest.extend(rows.into_iter().map(|row| (row.time_us, row.cause)));
    }
    let told = newest.iter().filter(|row| **row == (START_US + 40_000_000, Some(Cause::Unreachable))).count();
    assert_eq!(told, usize::from(UNITS), "{newest:?}");
}
