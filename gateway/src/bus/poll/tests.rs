//! A bus of devices and a line that are simulated, in simulated time: who keeps which slots.

use std::collections::HashMap;
use std::fmt::Write;

use super::*;
use crate::bus::state::BusStates;
use crate::bus::{DeviceTimes, LeftBehind, Newest, OnDisk};
use crate::config::{Bus, BusKind, Config};
use crate::modbus::tcp::TOGETHER_PATIENCE_MAX;
use crate::modbus::transport::{ReadRequest, Table};
use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_readings::reading::Cause;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const START_US: i64 = 1_700_000_000_000_000;

/// A line with devices of one unit id each that answer after their turnaround, or not at all.
struct Line {
    wire: Wire,
    timeout: Duration,
    turnarounds: HashMap<u8, Duration>,
    /// From when on they do not answer.
    dead: HashMap<u8, Duration>,
    /// A converter answers for it that it is not there.
    absent: Option<(u8, Duration)>,
    stumbles: Option<Stumble>,
    /// Since the start.
    now: Duration,
    drained_at: Duration,
    asked: u64,
    /// Who was asked when, since the start.
    asked_at: Vec<(u8, Duration)>,
    most_together: usize,
    /// Of several requests at once one that is not answered keeps no other waiting.
    is_parallel: bool,
}

/// What fails first in each slot.
struct Stumble {
    /// Of which unit; of all where there is none.
    unit: Option<u8>,
    cause: Cause,
    every: Duration,
    /// For so long; the first request alone where that is nothing.
    lasts: Duration,
    last: Option<u128>,
}

impl Stumble {
    fn happens(&mut self, unit: u8, now: Duration) -> bool {
        if self.unit.is_some_and(|own| own != unit) {
            return false;
        }
        let slot = now.as_nanos() / self.every.as_nanos();
        let into = now - self.every * u32::try_from(slot).expect("few");
        let is_first = self.last.replace(slot) != Some(slot);
        into < self.lasts || is_first
    }
}

impl Line {
    fn new(bus: &Bus) -> Self {
        let (wire, timeout) = (Wire::of(&bus.kind), bus.timeout);
        Self {
            wire,
            timeout,
            turnarounds: HashMap::new(),
            dead: HashMap::new(),
            absent: None,
            stumbles: None,
            now: Duration::ZERO,
            drained_at: Duration::ZERO,
            asked: 0,
            asked_at: Vec::new(),
            most_together: 0,
            is_parallel: false,
        }
    }

    fn is_dead(&self, unit: u8) -> bool {
        self.dead.get(&unit).is_some_and(|since| self.now >= *since)
    }

    /// As a master does it: after a lost answer the line is left alone for as long as it was waited for.
    fn read(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        self.read_within(self.timeout, unit, request)
    }

    fn read_within(&mut self, patience: Duration, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        self.asked += 1;
        self.asked_at.push((unit, self.now));
        self.now = self.now.max(self.drained_at) + self.wire.time(request);
        if self.is_dead(unit) {
            self.now += patience;
            self.drained_at = self.now + patience;
            return Err(Failure::new(Cause::Timeout, "no answer"));
        }
        if self.absent.is_some_and(|(absent, since)| absent == unit && self.now >= since) {
            self.now += self.timeout;
            let cause = if request.count() == 1 { Cause::Exception11 } else { Cause::Exception10 };
            return Err(Failure::new(cause, "the device answered: the target did not"));
        }
        if self.stumbles.as_mut().is_some_and(|stumble| stumble.happens(unit, self.now)) {
            let cause = self.stumbles.as_ref().expect("it is there").cause;
            if cause == Cause::Timeout {
                self.now += self.timeout;
                self.drained_at = self.now + self.timeout;
            }
            self.now += Duration::from_millis(5);
            return Err(Failure::new(cause, "it stumbles"));
        }
        self.now += self.turnarounds.get(&unit).copied().unwrap_or(Duration::from_millis(10));
        let count = usize::from(request.count());
        let is_bits = matches!(request.table(), Table::Coil | Table::Discrete);
        Ok(if is_bits { Answer::Bits(vec![true; count]) } else { Answer::Registers(vec![7; count]) })
    }
}

fn us(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).expect("short")
}

/// Polls a bus for so long; everything that would have been stored.
fn poll(bus: &Bus, policy: Policy, line: &mut Line, until: Duration) -> (Vec<Reading>, Polling) {
    let (readings, _received) = mpsc::channel(1);
    let clock = Clock::manual(START_US);
    let context = BusContext {
        clock,
        readings,
        left: LeftBehind::default(),
        newest: Newest::from_fn(|_| None),
        stop: CancellationToken::new(),
        states: BusStates::new(),
        learned: None,
        device_times: DeviceTimes::default(),
        on_disk: OnDisk::default(),
    };
    let (BusKind::ModbusTcp { devices, .. } | BusKind::ModbusRtu { devices, .. }) = bus.kind.clone() else {
        panic!("a Modbus bus")
    };
    let limits = Limits { timeout: bus.timeout, down_report: bus.down_report };
    let setting = Setting {
        name: bus.name.clone(),
        kind: "simulated",
        wire: line.wire,
        limits,
        policy,
        in_flight: bus.kind.in_flight(),
    };
    let mut polling = Polling::new(&setting, &devices, BusMemory::new(), &context);
    let (start, mut stored) = (Instant::now(), Vec::new());
    while line.now < until {
        let (now_us, now) = (START_US + us(line.now), start + line.now);
        stored.extend(polling.look(now_us, now));
        let mut jobs = polling.next_together(now);
        if jobs.len() > 1 {
            stored.extend(together(&mut polling, line, jobs, (start, now_us)));
            continue;
        }
        let Some((index, job)) = jobs.pop() else {
            line.now += polling.pause(now_us, now).max(Duration::from_micros(100));
            continue;
        };
        let (asked, drained_at) = (line.now, line.drained_at);
        let Asked { unit, request } = polling.asked(&(index, job.clone()));
        let result = line.read(unit, request);
        let is_told =
            |failure: &Failure| matches!(failure.cause, Cause::Exception5 | Cause::Exception6 | Cause::Unreachable);
        let is_drained = result.as_ref().is_err_and(|failure| !is_told(failure));
        let drain = if is_drained { line.timeout } else { Duration::ZERO };
        let took = line.now - asked.max(drained_at);
        let (answered_us, is_measure) = (START_US + us(line.now), asked >= drained_at);
        let timing = Timing {
            asked_us: now_us,
            answered_us,
            now: start + line.now,
            took,
            is_measure,
            cost: took + drain,
            turn: 0,
        };
        stored.extend(polling.ended((index, &job), result.as_ref(), timing));
    }
    (stored, polling)
}

/// Several requests at once, to a server that answers them one after the other, or each when it can: all of them, or none counts.
fn together(
    polling: &mut Polling,
    line: &mut Line,
    jobs: Vec<(usize, Job)>,
    (start, asked_us): (Instant, i64),
) -> Vec<Reading> {
    line.most_together = line.most_together.max(jobs.len());
    let (began, mut before, mut answers) = (line.now, line.now, Vec::new());
    let mut asked: Vec<(Asked, &(usize, Job))> = jobs.iter().map(|one| (polling.asked(one), one)).collect();
    if line.is_parallel {
        asked.sort_by_key(|(asked, _)| line.is_dead(asked.unit));
    }
    let patience = line.timeout.min(TOGETHER_PATIENCE_MAX);
    for (place, (Asked { unit, request }, one)) in asked.iter().enumerate() {
        match line.read_within(patience, *unit, *request) {
            Ok(answer) => answers.push((answer, line.now, *one)),
            Err(failure) => {
                let cost = line.drained_at - began;
                let failure = failure.of_silent(asked[place..].iter().map(|(asked, _)| asked.unit).collect());
                polling.fell_through(&jobs, &failure, (cost, start + line.now));
                return Vec::new();
            }
        }
    }
    let mut readings = Vec::new();
    for (answer, at, (index, job)) in &answers {
        let took = *at - std::mem::replace(&mut before, *at);
        let (answered_us, now) = (START_US + us(*at), start + *at);
        let timing = Timing { asked_us, answered_us, now, took, is_measure: true, cost: took, turn: 0 };
        readings.extend(polling.ended((*index, job), Ok(answer), timing));
    }
    polling.went_well(start + line.now);
    readings
}

fn config(head: &str, devices: &str) -> Bus {
    let text = format!(
        "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n[[bus]]\nname = \"north\"\n{head}\n{devices}"
    );
    Bus::clone(&Config::parse(&ConfigText::new("test.toml", text)).expect("good").buses()[0])
}

fn device(unit_id: u8, registers: &[u16], every: &str) -> String {
    let mut text = format!("[[bus.device]]\nname = \"device-{unit_id}\"\nunit_id = {unit_id}\n");
    for register in registers {
        let _ = write!(
            text,
            "[[bus.device.point]]\nsensor = \"unit-{unit_id}/r{register}\"\nregister = \"input:{register}\"\ntype = \"u16\"\nevery = \"{every}\"\n"
        );
    }
    text
}

const RTU: &str = "kind = \"modbus-rtu\"\nport = \"/dev/ttyS9\"\nbaud = 19200\n";
const TCP: &str = "kind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\n";
const TOGETHER: &str = "kind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\nin_flight = 8\n";

/// So many requests at once.
fn at_once(in_flight: usize) -> String {
    format!("{TCP}in_flight = {in_flight}\n")
}

/// The share of the slots in a span that a device's points have values for, at worst.
fn kept(readings: &[Reading], unit_id: u8, every: Duration, (from, to): (Duration, Duration)) -> f64 {
    let mut slots: HashMap<&str, Vec<i64>> = HashMap::new();
    let site = format!("unit-{unit_id}/");
    let span = START_US + us(from)..START_US + us(to);
    for reading in readings.iter().filter(|reading| reading.sensor.as_str().starts_with(&site)) {
        let slots = slots.entry(reading.sensor.as_str()).or_default();
        assert!(slots.last().is_none_or(|last| *last < reading.time_us), "a slot is stored once, in its order");
        slots.push(reading.time_us);
        if reading.value.is_none() || !span.contains(&reading.time_us) {
            slots.pop();
        }
    }
    let all = us(to - from) / us(every);
    let share = |slots: &Vec<i64>| {
        f64::from(u32::try_from(slots.len()).expect("few")) / f64::from(u32::try_from(all).expect("few"))
    };
    slots.values().map(share).fold(1.0, f64::min) * f64::from(u8::from(!slots.is_empty()))
}

/// One of ten devices dies, and `timeout` is as long as `every`: what the others keep from ten seconds after it.
fn with_one_dead(head: &str, every_ms: u64, policy: Policy) -> f64 {
    with_dead((head, false), every_ms, policy, (&[4], Duration::from_millis(300)))
}

/// The same, of these that die together, so long after a slot began.
fn with_dead(
    (head, is_parallel): (&str, bool),
    every_ms: u64,
    policy: Policy,
    (dead, phase): (&[u8], Duration),
) -> f64 {
    let every = format!("{every_ms}ms");
    let devices: String = (1..=10).map(|unit_id| device(unit_id, &[0], &every)).collect();
    let bus = config(&format!("{head}timeout = \"{every}\""), &devices);
    let mut line = Line { is_parallel, ..Line::new(&bus) };
    let died = Duration::from_secs(20) + phase;
    line.dead = dead.iter().map(|unit_id| (*unit_id, died)).collect();
    let end = died + Duration::from_secs(10) + Duration::from_millis(every_ms) * 200;
    let (readings, _) = poll(&bus, policy, &mut line, end + Duration::from_millis(every_ms));
    let span = (died + Duration::from_secs(10), end);
    let others = (1..=10).filter(|unit_id| !dead.contains(unit_id));
    others.map(|unit_id| kept(&readings, unit_id, Duration::from_millis(every_ms), span)).fold(1.0, f64::min)
}

/// A dead device, or a street without power (three of ten die in the same moment), wherever in a slot that is, and `timeout` is as
/// long as `every`. Where several are asked at once, whoever was asked together with a dead one waited for it; of three each was
/// found out by such a wait of its own, and the others kept two slots in three.
#[test]
fn a_dead_device_costs_the_others_less_than_a_slot_in_twenty() {
    let (two, eight) = (at_once(2), at_once(8));
    let buses = [
        ((TCP, false), "TCP, one at a time"),
        ((RTU, false), "RTU"),
        ((two.as_str(), false), "TCP, two at once, answered in their order"),
        ((two.as_str(), true), "TCP, two at once"),
        ((eight.as_str(), false), "TCP, eight at once, answered in their order"),
        ((eight.as_str(), true), "TCP, eight at once"),
    ];
    for (bus, name) in buses {
        for every_ms in [500, 1_000, 2_000, 5_000, 10_000] {
            for (dead, tenths) in [(&[4][..], [0, 3, 5, 9]), (&[1, 4, 10], [0, 1, 5, 9])] {
                for phase in tenths.map(|tenths| Duration::from_millis(every_ms) * tenths / 10) {
                    let kept = with_dead(bus, every_ms, Policy::DEFAULT, (dead, phase));
                    let what = format!("{name}, every and timeout {every_ms} ms, {dead:?} dead {phase:?} into a slot");
                    assert!(kept >= 0.95, "{what}: the others keep {kept:.3}");
                }
            }
        }
    }
}

/// Were a gateway that asks the dead device at every slot to pass, the test above would prove nothing.
#[test]
fn a_gateway_that_does_not_think_of_it_is_caught() {
    for head in [TCP, RTU] {
        let kept = with_one_dead(head, 1_000, Policy::CARELESS);
        assert!(kept < 0.9, "the others keep {kept:.3}");
    }
}

#[test]
fn a_dead_device_reports_itself_and_does_not_flood() {
    let devices: String = (1..=3).map(|unit_id| device(unit_id, &[0], "1s")).collect();
    let bus = config(&format!("{RTU}timeout = \"200ms\"\ndown_report = \"60s\""), &devices);
    let mut line = Line::new(&bus);
    line.dead.insert(2, Duration::ZERO);
    let (readings, polling) = poll(&bus, Policy::DEFAULT, &mut line, Duration::from_secs(601));
    let rows = readings.iter().filter(|reading| reading.sensor.as_str() == "unit-2/r0");
    let times: Vec<i64> = rows.map(|row| (row.time_us - START_US) / 1_000_000).collect();
    assert!((12..=13).contains(&times.len()), "three, and one a minute: {times:?}");
    assert!(line.asked < 2 * 601 + 60, "{} requests", line.asked);
    assert_eq!(polling.missed(), 0, "its slots end with a cause");
}

/// A converter says for a dead unit that it is not there, after as long as it waited itself. Were that taken for an answer, it would be
/// asked at each slot; elsewhere something was kept of each such answer, until the memory was full.
#[test]
fn a_unit_for_which_its_converter_answers_that_it_is_absent_is_down() {
    for (registers, cause) in [(&[0][..], Cause::Exception11), (&[0, 1], Cause::Exception10)] {
        let devices: String = (1..=10).map(|unit_id| device(unit_id, registers, "1s")).collect();
        let bus = config(&format!("{TCP}timeout = \"1s\"\ndown_report = \"60s\""), &devices);
        let (died, end) = (Duration::from_millis(20_300), Duration::from_secs(1_831));
        let mut line = Line::new(&bus);
        line.absent = Some((4, died));
        let (readings, polling) = poll(&bus, Policy::DEFAULT, &mut line, end);
        let span = (died + Duration::from_secs(10), end - Duration::from_secs(1));
        for unit_id in (1..=10).filter(|unit_id| *unit_id != 4) {
            let kept = kept(&readings, unit_id, Duration::from_secs(1), span);
            assert!(kept >= 0.95, "unit {unit_id} keeps {kept:.3}");
        }
        let lost: Vec<&Reading> =
            readings.iter().filter(|row| row.sensor.as_str() == "unit-4/r0" && row.value.is_none()).collect();
        assert!(lost.iter().all(|row| row.cause == Some(cause)), "{lost:?}");
        assert!((30..=35).contains(&lost.len()), "three, and one a minute: {}", lost.len());
        let absent = polling.devices().find(|device| device.unit_id == 4).expect("it is there");
        assert_eq!(absent.health.shown(), crate::bus::state::DeviceState::Down);
        // What is kept of it grows with nothing: two plans at most, and what is due at once.
        assert!(absent.kept() <= 2 + registers.len(), "{} things are kept", absent.kept());
    }
}

#[test]
fn a_device_with_long_reads_starves_nobody() {
    // Three requests of 125 registers take 0.96 s of each second at 9600 baud, the nine others 0.32 s.
    let many: Vec<u16> = (0..375).collect();
    let small: String = (2..=10).map(|unit_id| device(unit_id, &[0], "1s")).collect();
    let head = RTU.replace("19200", "9600");
    let bus = config(&head, &(device(1, &many, "1s") + &small));
    let mut line = Line::new(&bus);
    let (readings, polling) = poll(&bus, Policy::DEFAULT, &mut line, Duration::from_secs(121));
    let span = (Duration::from_secs(20), Duration::from_secs(120));
    for unit_id in 2..=10 {
        let kept = kept(&readings, unit_id, Duration::from_secs(1), span);
        assert!(kept >= 0.95, "unit {unit_id} keeps {kept:.3}");
    }
    let greedy = kept(&readings, 1, Duration::from_secs(1), span);
    assert!(greedy >= 0.5, "what the others do not need is its: {greedy:.3}");
    assert!(polling.missed() > 0);
}

#[test]
fn a_slow_device_takes_no_more_than_its_share() {
    // Each of its ten requests takes half a second: it alone would need five seconds of each.
    let far: Vec<u16> = (0..10).map(|index| index * 1_000).collect();
    let small: String = (2..=5).map(|unit_id| device(unit_id, &[0, 1_000], "1s")).collect();
    for (head, small_ms) in [(TCP, 50), (TOGETHER, 50), (TOGETHER, 10)] {
        let bus = config(head, &(device(1, &far, "1s") + &small));
        let mut line = Line::new(&bus);
        line.turnarounds.insert(1, Duration::from_millis(480));
        line.turnarounds.extend((2..=5).map(|unit_id| (unit_id, Duration::from_millis(small_ms))));
        let (readings, _) = poll(&bus, Policy::DEFAULT, &mut line, Duration::from_secs(121));
        let span = (Duration::from_secs(20), Duration::from_secs(120));
        for unit_id in 2..=5 {
            let kept = kept(&readings, unit_id, Duration::from_secs(1), span);
            assert!(kept >= 0.95, "unit {unit_id} keeps {kept:.3}");
        }
        assert!(kept(&readings, 1, Duration::from_secs(1), span) > 0.05, "and none of its points starves");
        assert_eq!(line.most_together > 1, small_ms == 10, "who is slow is not asked together with others");
    }
}

/// What is asked together is what would be asked one after the other: the same slots, each point once.
#[test]
fn several_at_once_keep_every_slot() {
    let devices: String = (1..=20).map(|unit_id| device(unit_id, &[0, 1_000], "1s")).collect();
    let until = Duration::from_secs(61);
    let rows = |head: &str, at_once: usize| {
        let bus = config(head, &devices);
        let mut line = Line::new(&bus);
        let quick = (1..=20).map(|unit_id| (unit_id, Duration::from_millis(2)));
        line.turnarounds.extend(quick);
        let (readings, polling) = poll(&bus, Policy::DEFAULT, &mut line, until);
        assert_eq!((polling.missed(), line.most_together), (0, at_once));
        let mut rows: Vec<(String, i64)> =
            readings.into_iter().map(|reading| (reading.sensor.to_string(), reading.time_us)).collect();
        rows.sort_unstable();
        rows
    };
    assert_eq!(rows(TOGETHER, 8), rows(TCP, 0));
}

#[test]
fn a_full_bus_is_used_to_the_full() {
    let devices: String = (1..=4).map(|unit_id| device(unit_id, &[0, 1_000, 2_000, 3_000], "250ms")).collect();
    let bus = config(RTU, &devices);
    let mut line = Line::new(&bus);
    let until = Duration::from_secs(60);
    poll(&bus, Policy::DEFAULT, &mut line, until);
    let one = line.wire.time(ReadRequest::new(Table::Input, 0, 1).expect("within")) + Duration::from_millis(10);
    let possible = until.as_secs_f64() / one.as_secs_f64();
    let asked = f64::from(u32::try_from(line.asked).expect("few"));
    assert!(asked >= 0.98 * possible, "{asked} of {possible:.0} requests");
}

/// Ten meters that were all asked at the full ten minutes drew their answers in one burst, and a bus was full that had nothing to
/// do for the rest of the time.
#[test]
fn requests_are_spread_over_a_tenth_of_the_period_and_half_a_minute_at_most() {
    let (devices, turnaround) = (10, Duration::from_millis(10));
    for (every, every_s, spread_s) in [("10s", 10, 1), ("100s", 100, 10), ("1h", 3_600, 30)] {
        let points: String = (1..=devices).map(|unit_id| device(unit_id, &[0], every)).collect();
        let bus = config(TCP, &points);
        let mut line = Line::new(&bus);
        poll(&bus, Policy::DEFAULT, &mut line, Duration::from_secs(4 * every_s + every_s / 2));
        let began = u64::try_from(START_US / 1_000_000).expect("positive") % every_s;
        let (period, spread) = (Duration::from_secs(every_s), Duration::from_secs(spread_s));
        let mut slots: HashMap<u64, Vec<Duration>> = HashMap::new();
        for (_, at) in &line.asked_at {
            let at = *at + Duration::from_secs(began);
            let slot = at.as_secs() / every_s;
            slots.entry(slot).or_default().push(at - period * u32::try_from(slot).expect("few"));
        }
        // With the start everybody is asked at once, to find out who lives.
        slots.remove(&0);
        assert!(slots.len() >= 3, "{every}: {slots:?}");
        for (slot, starts) in slots {
            assert_eq!(starts.len(), usize::from(devices), "{every}, slot {slot}: each is asked once");
            // Who begins last may find the others of its moment before it.
            let last = *starts.iter().max().expect("some");
            assert!(last < spread + turnaround * u32::from(devices), "{every}, slot {slot}: {starts:?}");
            assert!(last >= spread / 2, "{every}, slot {slot}, hardly any spread: {starts:?}");
            let mut quarters: Vec<u128> =
                starts.iter().map(|start| start.as_millis() * 4 / spread.as_millis()).collect();
            quarters.sort_unstable();
            quarters.dedup();
            assert!(quarters.len() >= 3, "{every}, slot {slot}, at {} moments: {starts:?}", quarters.len());
        }
    }
}

#[test]
fn readings_keep_their_slot_though_requests_are_spread() {
    let devices: String = (1..=8).map(|unit_id| device(unit_id, &[0], "10s")).collect();
    let bus = config(TCP, &devices);
    let mut line = Line::new(&bus);
    let (readings, polling) = poll(&bus, Policy::DEFAULT, &mut line, Duration::from_secs(65));
    assert!(readings.iter().all(|reading| reading.time_us % 10_000_000 == 0 && reading.lag_ms.is_none()));
    assert_eq!(readings.len(), 8 * 7, "the first slot is fresh at the start");
    assert_eq!(polling.missed(), 0);
}

/// A switch that begins anew on the hour, a device that is busy with its own work then: its first request of each slot failed,
/// everything after it would have been answered, and no slot had a value.
#[test]
fn what_fails_first_in_a_slot_is_asked_again_in_it() {
    let (every, seconds) = (Duration::from_secs(20), Duration::from_secs);
    let devices: String = (1..=3).map(|unit_id| device(unit_id, &[0, 1_000], "20s")).collect();
    for (unit, cause, lasts_s) in [
        (Some(2), Cause::Timeout, 0),
        (Some(2), Cause::Exception5, 0),
        (Some(2), Cause::Exception6, 0),
        (Some(2), Cause::Exception6, 6),
        (Some(2), Cause::Exception10, 0),
        (Some(2), Cause::Exception11, 0),
        (None, Cause::Unreachable, 0),
        (None, Cause::Unreachable, 4),
        (None, Cause::Unreachable, 12),
    ] {
        for head in [TCP, RTU] {
            let bus = config(&format!("{head}timeout = \"500ms\""), &devices);
            let mut line = Line::new(&bus);
            line.stumbles = Some(Stumble { unit, cause, every, lasts: seconds(lasts_s), last: None });
            let (readings, polling) = poll(&bus, Policy::DEFAULT, &mut line, seconds(201));
            for unit_id in 1..=3 {
                let kept = kept(&readings, unit_id, every, (seconds(20), seconds(200)));
                assert!(kept >= 1.0, "{cause} for {lasts_s} s: unit {unit_id} keeps {kept:.3}");
            }
            assert_eq!(polling.missed(), 0, "{cause}");
        }
    }
}

/// What is asked again costs the others nothing, and who is busy for good is asked once a slot.
#[test]
fn a_device_that_is_always_busy_costs_the_others_no_slot() {
    let devices: String = (1..=10).map(|unit_id| device(unit_id, &[0], "1s")).collect();
    for head in [TCP, RTU] {
        let bus = config(&format!("{head}timeout = \"200ms\""), &devices);
        let mut line = Line::new(&bus);
        let always = Duration::from_secs(3_600);
        line.stumbles =
            Some(Stumble { unit: Some(4), cause: Cause::Exception6, every: always, lasts: always, last: None });
        let (readings, _) = poll(&bus, Policy::DEFAULT, &mut line, Duration::from_secs(121));
        for unit_id in (1..=10).filter(|unit_id| *unit_id != 4) {
            let kept =
                kept(&readings, unit_id, Duration::from_secs(1), (Duration::from_secs(20), Duration::from_secs(120)));
            assert!(kept >= 1.0, "unit {unit_id} keeps {kept:.3}");
        }
        assert!(line.asked <= 10 * 121 + 10, "{} requests", line.asked);
        let busy: Vec<_> = readings.iter().filter(|row| row.sensor.as_str() == "unit-4/r0").collect();
        assert!(!busy.is_empty() && busy.iter().all(|row| row.cause == Some(Cause::Exception6)), "{busy:?}");
    }
}

/// A line that is missing for whole slots: each has its cause, and it is tried again no more often than the master bears.
#[test]
fn a_line_that_is_missing_for_long_is_told_in_each_slot() {
    let devices: String = (1..=3).map(|unit_id| device(unit_id, &[0], "20s")).collect();
    let bus = config(&format!("{TCP}timeout = \"500ms\""), &devices);
    let mut line = Line::new(&bus);
    let away = Duration::from_secs(100);
    line.stumbles = Some(Stumble { unit: None, cause: Cause::Unreachable, every: away * 10, lasts: away, last: None });
    let (readings, _) = poll(&bus, Policy::DEFAULT, &mut line, Duration::from_secs(210));
    for unit_id in 1..=3 {
        let sensor = format!("unit-{unit_id}/r0");
        let told: Vec<bool> =
            readings.iter().filter(|row| row.sensor.as_str() == sensor).map(|row| row.value.is_some()).collect();
        // At the start it is a sign of life, the second and the third are told, and then it is told now and then.
        assert_eq!(told, [false, false, true, true, true, true, true, true], "{sensor}");
    }
    assert!(line.asked < 3 * (5 * 8 + 10), "{} requests", line.asked);
}

/// A server was away, the gateway was stopped while a slot waited for it, and nothing said that the slot has no value.
#[test]
fn a_slot_that_waits_for_its_line_ends_with_the_bus() {
    let devices: String = (1..=3).map(|unit_id| device(unit_id, &[0], "20s")).collect();
    let bus = config(&format!("{TCP}timeout = \"500ms\""), &devices);
    let away = Duration::from_secs(3_600);
    // Who begins within a tenth of the period polls the slot itself.
    for (ends_s, rows) in [(41, 0), (45, 3), (55, 3)] {
        let mut line = Line::new(&bus);
        line.stumbles = Some(Stumble { unit: None, cause: Cause::Unreachable, every: away, lasts: away, last: None });
        let ends = Duration::from_secs(ends_s);
        let (readings, mut polling) = poll(&bus, Policy::DEFAULT, &mut line, ends);
        let slot_us = START_US + us(Duration::from_secs(40));
        assert!(readings.iter().all(|reading| reading.time_us < slot_us), "it waits: {readings:?}");
        let left = polling.give_up(START_US + us(ends));
        assert!(left.iter().all(|row| (row.time_us, row.cause) == (slot_us, Some(Cause::Unreachable))), "{left:?}");
        assert_eq!(left.len(), rows, "{ends:?}: {left:?}");
    }
}

/// Thirty devices that are busy after each full minute were asked again as if each had the bus for itself.
#[test]
fn who_is_busy_is_asked_again_in_a_fortieth_of_the_bus_time() {
    let (count, every, busy) = (30, Duration::from_secs(20), Duration::from_secs(6));
    let devices: String = (1..=count).map(|unit_id| device(unit_id, &[0], "20s")).collect();
    let bus = config(&format!("{TCP}timeout = \"200ms\""), &devices);
    let mut line = Line::new(&bus);
    line.stumbles = Some(Stumble { unit: None, cause: Cause::Exception6, every, lasts: busy, last: None });
    let (readings, _) = poll(&bus, Policy::DEFAULT, &mut line, every * 10 + Duration::from_secs(1));
    for unit_id in 1..=count {
        let kept = kept(&readings, unit_id, every, (every, every * 10));
        assert!(kept >= 1.0, "unit {unit_id} keeps {kept:.3}");
    }
    let each = Duration::from_millis(5);
    for slot in 1..10 {
        let (from, to) = (every * slot, every * slot + busy);
        let asked = line.asked_at.iter().filter(|(_, at)| (from..to).contains(at)).count();
        let again = u32::try_from(asked).expect("few").saturating_sub(u32::from(count));
        assert!(again > 0, "slot {slot}: nobody was asked again");
        // One may have been promised before the first second is over.
        assert!(each * again <= busy / 40 + each, "slot {slot}: {again} times in {busy:?}");
    }
}
