//! The actor of a bus of lines that are asked for, before a device on a bad line: no slot has another one's value.
//!
//! The device answers each question with the moment at which it came, so that a late answer, half of one, or two halves
//! of two are numbers that a reading's slot refutes. Every few seconds the actor is begun anew, as a restart or a reload
//! does it. `TJERN_FAULTS_SEED` plays one seed. Nothing is held back until the next question, and no byte is changed: in
//! a line without a checksum nobody could tell.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_readings::reading::Reading;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Actor, Times};
use crate::bus::point::Limits;
use crate::bus::state::BusStates;
use crate::bus::{BusContext, DeviceTimes, LeftBehind, Newest, OnDisk, READINGS_QUEUE};
use crate::config::{BusKind, Config};
use crate::modbus::faults::device::{Device, Habits, Words};
use crate::modbus::faults::{
    Broken, Dial, LONGEST, TIMEOUT, TURNAROUND_MAX_MS, caught_by, environment, line_faults, with_broken,
};
use crate::simulate::bad_line::{Framing, LineFaults};

const SEEDS: u64 = 200;
const START_US: i64 = 1_700_000_000_000_000;
const LIVES: Duration = Duration::from_secs(30);
/// An actor is begun anew after this.
const LIFE: Duration = Duration::from_millis(3_700);
const TICK: Duration = Duration::from_millis(5);
const PERIODS_MS: [i64; 3] = [150, 250, 400];

fn config() -> Config {
    let mut text = format!(
        "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n\
         [[bus]]\nname = \"line\"\nkind = \"text-lines\"\naddress = \"127.0.0.1:1\"\npoll = \"?\\n\"\ntimeout = \"{}ms\"\n\
         [[bus.device]]\nname = \"logger\"\n",
        TIMEOUT.as_millis()
    );
    for every in PERIODS_MS {
        text += &format!(
            "[[bus.device.point]]\nsensor = \"line/every-{every}/number\"\ncolumn = 1\nevery = \"{every}ms\"\n"
        );
    }
    Config::parse(&ConfigText::new("test.toml", text)).expect("a good configuration")
}

async fn actor(config: &Config, dial: &Dial, context: BusContext) -> Actor {
    let bus = &config.buses()[0];
    let limits = Limits { timeout: bus.timeout, down_report: bus.down_report };
    let BusKind::TextLines { place, poll, framing, points } = &bus.kind else { unreachable!("lines of text") };
    let wire = (place.clone(), poll.clone(), framing.clone());
    let times = Times::load(None, bus.name.clone(), points, OnDisk::default()).await;
    let mut actor = Actor::new(bus.name.clone(), wire, (points.clone(), times), limits, context);
    actor.dial = Some(dial.clone());
    actor
}

/// What is wrong with a reading, if it has a value.
fn check(reading: &Reading) -> Result<u64, String> {
    let Some(value) = reading.value else { return Ok(0) };
    let every_ms: i64 = reading.sensor.as_str().split(['-', '/']).nth(2).and_then(|ms| ms.parse().ok()).unwrap_or(0);
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of half a minute, or wrong anyway")]
    let asked_us = START_US.saturating_add((value as i64).saturating_mul(1_000));
    let latest_us = reading.time_us + every_ms * 1_000;
    // The device counts whole milliseconds; the gateway's clock moves in steps.
    let slack_us = i64::try_from(2 * TICK.as_micros()).unwrap_or(0);
    if asked_us < reading.time_us || asked_us > latest_us + slack_us {
        return Err(format!("{reading:?} has an answer to what was asked {value} ms after the start"));
    }
    Ok(1)
}

/// What a line without checksums allows to be told: nothing that is held back, and no other bytes.
fn faults(rng: &mut Rng, seed: u64) -> LineFaults {
    let faults = LineFaults { merge: 0.0, swap: 0.0, corrupt: 0.0, ..line_faults(rng, seed) };
    // A line without its end, and the whole one right after it, are one line to anybody.
    if rng.bool() { LineFaults { duplicate: 0.0, ..faults } } else { LineFaults { truncate: 0.0, ..faults } }
}

async fn play(seed: u64) -> Result<[u64; 2], String> {
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed ^ 0x11E5);
    let start = Instant::now();
    let device = Device {
        framing: Framing::Lines,
        units: 1,
        faults: faults(&mut rng, seed),
        seed,
        turnaround: Duration::from_millis(rng.u64(..=TURNAROUND_MAX_MS)),
        words: Words::OfMoment,
        habits: Habits::default(),
        moment: Arc::new(move || u64::try_from(start.elapsed().as_millis()).unwrap_or(0)),
    };
    assert!(device.faults.longest == LONGEST);
    let (dial, _line) = device.start();
    let (clock, config) = (Clock::manual(START_US), config());
    let (readings, mut received) = mpsc::channel(READINGS_QUEUE);
    let context = BusContext {
        clock: clock.clone(),
        readings,
        left: LeftBehind::default(),
        newest: Newest::from_fn(|_| None),
        stop: CancellationToken::new(),
        states: BusStates::default(),
        learned: None,
        device_times: DeviceTimes::default(),
        on_disk: OnDisk::default(),
    };
    let lives = tokio::spawn(async move {
        while start.elapsed() < LIVES {
            let stop = CancellationToken::new();
            let context = BusContext { stop: stop.clone(), ..context.clone() };
            let running = tokio::spawn(actor(&config, &dial, context).await.run());
            let begun = Instant::now();
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

fn play_seed(seed: u64) -> Result<[u64; 2], String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(play(seed))
}

#[test]
fn polled_lines() {
    let seeds = match environment("TJERN_FAULTS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..environment("TJERN_FAULTS_SEEDS").unwrap_or(SEEDS),
    };
    let mut sum = [0; 2];
    for seed in seeds.clone() {
        match play_seed(seed) {
            Ok(counts) => sum = [sum[0] + counts[0], sum[1] + counts[1]],
            Err(detail) => panic!(
                "a wrong value at seed {seed}: {detail}\nreplay: TJERN_FAULTS_SEED={seed} cargo test -p tjern-gateway --lib bus::lines::faults::polled_lines"
            ),
        }
    }
    let [readings, values] = sum;
    println!("polled lines: seeds {seeds:?}, {readings} readings, {values} values");
    assert!(values * 2 > readings, "most readings have a value, or nothing is shown");
}

#[test]
fn a_canary_that_asks_while_an_answer_may_come_is_caught() {
    let found = with_broken(Broken::Quiet, || caught_by(|seed| play_seed(seed).is_err()));
    println!("caught by seed {found}");
}

#[test]
fn a_canary_that_joins_what_is_left_with_what_comes_is_caught() {
    let found = with_broken(Broken::Leftovers, || caught_by(|seed| play_seed(seed).is_err()));
    println!("caught by seed {found}");
}
