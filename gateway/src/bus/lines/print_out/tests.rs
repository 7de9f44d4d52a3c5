//! Loggers that print their memory around the two days on which the clock is changed: each row is stored at its moment, or
//! counted. `TJERN_HOUR_SEED` plays one seed, `TJERN_HOUR_SEEDS` so many.

use std::collections::BTreeSet;

use fastrand::Rng;
use jiff::Timestamp;

use super::*;
use crate::lines::time::{DeviceTime, TimeFormat, TimePlace, read_zone};

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const SEEDS: u64 = 500;

/// A zone, when its summer ends and begins, and by how many minutes its clocks change.
const DAYS: [(&str, &str, &str, i64); 3] = [
    ("Europe/Oslo", "2026-10-25T01:00:00Z", "2026-03-29T01:00:00Z", 60),
    ("America/New_York", "2026-11-01T06:00:00Z", "2026-03-08T07:00:00Z", 60),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z", "2026-10-03T15:30:00Z", 30),
];

/// By which rule a moment is chosen.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Order,
    /// As it was: the first, unless something newer is stored.
    GoesOn,
}

/// A logger with a row each `period_us`, which prints its newest rows.
#[derive(Debug, Clone)]
struct Logger {
    zone: &'static str,
    change_us: i64,
    back_us: i64,
    period_us: i64,
    phase_us: i64,
    memory: usize,
    order: Order,
    asked: bool,
    every_us: i64,
    /// Up to when it writes rows.
    stops_us: i64,
    /// When it prints what it has by then, and what the gateway's clock says.
    prints: Vec<(i64, i64)>,
    is_clock_known: bool,
    restarts: BTreeSet<usize>,
}

/// What became of the rows, by their true moments.
#[derive(Debug, Default)]
struct Outcome {
    printed: BTreeSet<i64>,
    stored: BTreeSet<i64>,
    undecided: BTreeSet<i64>,
    /// A time, and the row that was stored with it.
    wrong: Vec<(i64, i64)>,
}

fn us(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a time").as_microsecond()
}

fn times(zone: &str) -> DeviceTime {
    let format = TimeFormat::new("%Y-%m-%d %H:%M:%S").expect("a format");
    let place = TimePlace::Column { column: 1, separator: ";".into() };
    DeviceTime { place, format, zone: read_zone(zone).expect("a zone") }
}

impl Outcome {
    fn take(&mut self, stored: &mut StoredTimes, time_us: i64, row_us: i64) {
        if stored.insert(time_us) == Told::New {
            if time_us == row_us {
                self.stored.insert(row_us);
            } else {
                self.wrong.push((time_us, row_us));
            }
        }
    }

    fn settle(&mut self, stored: &mut StoredTimes, print_out: &mut PrintOut<i64>) {
        for Settled { time_us, said, .. } in print_out.settled() {
            match time_us {
                Some(time_us) => self.take(stored, time_us, said),
                None => {
                    self.undecided.insert(said);
                }
            }
        }
    }
}

impl Logger {
    /// The technician's: ten minutes, Oslo's autumn, printed five seconds after each row.
    fn of_oslo(memory: usize, order: Order) -> Self {
        let change_us = us("2026-10-25T01:00:00Z");
        let prints = (-18..=30).map(|row| change_us + row * 10 * MINUTE_US + 5 * SECOND_US);
        Self {
            zone: "Europe/Oslo",
            change_us,
            back_us: 60 * MINUTE_US,
            period_us: 10 * MINUTE_US,
            phase_us: 0,
            memory,
            order,
            asked: true,
            every_us: SECOND_US,
            stops_us: i64::MAX,
            prints: prints.map(|at_us| (at_us, at_us)).collect(),
            is_clock_known: true,
            restarts: BTreeSet::new(),
        }
    }

    fn random(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (zone, autumn, spring, back) = DAYS[rng.usize(..DAYS.len())];
        let change_us = us(if rng.u8(..8) > 0 { autumn } else { spring });
        let period_us = if rng.bool() { rng.i64(1..=60) * MINUTE_US } else { rng.i64(60..=3_600) * SECOND_US };
        let asked = rng.u8(..4) > 0;
        let mut logger = Self {
            zone,
            change_us,
            back_us: back * MINUTE_US,
            period_us,
            phase_us: rng.i64(0..period_us / SECOND_US) * SECOND_US,
            memory: if rng.bool() { rng.usize(1..=6) } else { rng.usize(1..=150) },
            order: if rng.bool() { Order::Rising } else { Order::Falling },
            asked,
            every_us: [SECOND_US, 10 * MINUTE_US, 60 * MINUTE_US, period_us][rng.usize(..4)],
            stops_us: i64::MAX,
            prints: Vec::new(),
            is_clock_known: rng.u8(..8) > 0,
            restarts: BTreeSet::new(),
        };
        logger.prints = logger.random_prints(&mut rng);
        let often = [0.0, 0.1, 0.5][rng.usize(..3)];
        logger.restarts = (0..logger.prints.len()).filter(|_| rng.f64() < often).collect();
        logger
    }

    fn random_prints(&self, rng: &mut Rng) -> Vec<(i64, i64)> {
        let (first_us, last_us) = (self.change_us - 200 * MINUTE_US, self.change_us + 300 * MINUTE_US);
        let within_us = rng.i64(first_us..last_us)..=last_us;
        let mut at: Vec<i64> = if !self.asked {
            // It prints a row when it has it, or so many rows together.
            let rows = rng.usize(1..=6);
            self.rows(last_us, 600).into_iter().filter(|row_us| within_us.contains(row_us)).step_by(rows).collect()
        } else if rng.bool() {
            let step = rng.usize(1..=7_200);
            within_us.step_by(step * 1_000_000).collect()
        } else {
            (0..rng.usize(1..=60)).map(|_| rng.i64(within_us.clone())).collect()
        };
        at.sort_unstable();
        at.truncate(400);
        // Or a machine prints afterwards what it would have printed then.
        let later_us = if self.asked && rng.u8(..4) == 0 { 36 * 1_440 * MINUTE_US } else { 0 };
        let delay_us = if self.asked { 0 } else { rng.i64(0..5) * SECOND_US };
        at.into_iter().map(|at_us| (at_us, at_us + later_us + delay_us)).collect()
    }

    /// The newest rows that it has by then, so many.
    fn rows(&self, at_us: i64, count: usize) -> Vec<i64> {
        let newest = (at_us.min(self.stops_us) - self.phase_us).div_euclid(self.period_us);
        let count = i64::try_from(count).expect("few");
        (newest - count + 1..=newest).map(|row| row * self.period_us + self.phase_us).collect()
    }

    /// Whether the documents promise that each row that it prints is stored.
    fn is_promised(&self) -> bool {
        let back_us = if self.period_us * 2 <= self.back_us { self.back_us } else { 2 * self.back_us };
        i64::try_from(self.memory).is_ok_and(|rows| (rows - 3) * self.period_us >= back_us)
    }

    fn play(&self, rule: Rule) -> Outcome {
        let (time, mut stored, unread) = (times(self.zone), StoredTimes::default(), StoredTimes::default());
        let (mut outcome, mut print_out) = (Outcome::default(), PrintOut::new(self.every_us));
        for (place, (at_us, now_us)) in self.prints.iter().enumerate() {
            if self.restarts.contains(&place) {
                print_out = PrintOut::new(self.every_us);
            }
            let mut rows = self.rows(*at_us, self.memory);
            if self.order == Order::Falling {
                rows.reverse();
            }
            let known_us = Some(*now_us).filter(|_| self.is_clock_known);
            let bound_us = known_us.unwrap_or(*now_us + 366 * 1_440 * MINUTE_US);
            let heard = Heard { bound_us, now_us: known_us, asked: self.asked };
            for row_us in rows {
                let moments = time.read(&format!("{};1", time.write(row_us))).expect("a time");
                let Some(moments) = moments.believed(bound_us) else { panic!("{moments} at {now_us}") };
                outcome.printed.insert(row_us);
                let time_us = match rule {
                    Rule::Order => print_out.take(moments, row_us, heard, Known { stored: &stored, unread: &unread }),
                    Rule::GoesOn => Some(goes_on(moments, stored.newest_us(), *now_us)),
                };
                time_us.into_iter().for_each(|time_us| outcome.take(&mut stored, time_us, row_us));
                outcome.settle(&mut stored, &mut print_out);
            }
            print_out.end(End::Whole, heard, Known { stored: &stored, unread: &unread });
            outcome.settle(&mut stored, &mut print_out);
        }
        outcome
    }
}

fn goes_on(moments: Moments, stored_us: Option<i64>, now_us: i64) -> i64 {
    let (early_us, late_us) = (moments.early_us(), moments.late_us());
    match stored_us {
        Some(stored_us) if early_us > stored_us => early_us,
        Some(_) => late_us,
        None if early_us.abs_diff(now_us) <= late_us.abs_diff(now_us) => early_us,
        None => late_us,
    }
}

/// What is wrong with what became of the rows.
fn check(logger: &Logger, outcome: &Outcome) -> Result<(), String> {
    let at = |time_us: &i64| Timestamp::from_microsecond(*time_us).expect("a time");
    if let Some((time_us, row_us)) = outcome.wrong.first() {
        return Err(format!("the row of {} is stored at {}", at(row_us), at(time_us)));
    }
    let lost = outcome.printed.difference(&outcome.stored).find(|row_us| !outcome.undecided.contains(row_us));
    if let Some(row_us) = lost {
        return Err(format!("the row of {} is lost and was not counted", at(row_us)));
    }
    match outcome.printed.difference(&outcome.stored).next() {
        Some(row_us) if logger.is_promised() => Err(format!("the row of {} is lost", at(row_us))),
        _ => Ok(()),
    }
}

fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn each_row_is_stored_at_its_moment_or_counted() {
    let seeds = match environment("TJERN_HOUR_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..environment("TJERN_HOUR_SEEDS").unwrap_or(SEEDS),
    };
    let (mut printed, mut lost, mut promised) = (0, 0, 0);
    for seed in seeds.clone() {
        let logger = Logger::random(seed);
        let outcome = logger.play(Rule::Order);
        if let Err(error) = check(&logger, &outcome) {
            panic!(
                "seed {seed}: {error}: {logger:?}\nreplay: TJERN_HOUR_SEED={seed} cargo test -p tjern-gateway --lib print_out"
            );
        }
        printed += outcome.printed.len();
        lost += outcome.printed.len() - outcome.stored.len();
        promised += usize::from(logger.is_promised() && !outcome.printed.is_empty());
    }
    println!("seeds {seeds:?}: {printed} rows, {lost} undecided for good, {promised} loggers with a promise");
    assert!(seeds.end - seeds.start == 1 || lost * 50 < printed, "{lost} of {printed} rows are not stored");
}

#[test]
fn a_canary_that_goes_on_from_what_was_stored_is_caught() {
    let is_caught = |seed: &u64| check(&Logger::random(*seed), &Logger::random(*seed).play(Rule::GoesOn)).is_err();
    let found = (0..SEEDS).find(is_caught).expect("no seed catches it");
    println!("caught by seed {found}");
    assert!(check(&Logger::of_oslo(9, Order::Rising), &Logger::of_oslo(9, Order::Rising).play(Rule::GoesOn)).is_err());
}

/// A logger that prints its last nine rows at each question had the first hour's values in the second one, before that had
/// begun, and the second hour's were dropped.
#[test]
fn a_memory_that_is_printed_again_and_again_is_stored_whole() {
    for order in [Order::Rising, Order::Falling] {
        for memory in 1..=12 {
            let outcome = Logger::of_oslo(memory, order).play(Rule::Order);
            assert_eq!((&outcome.wrong, &outcome.stored), (&Vec::new(), &outcome.printed), "{memory} {order:?}");
        }
        // Afterwards, as a machine that plays it: its clock says nothing of what is printed.
        let mut later = Logger::of_oslo(9, order);
        later.prints.iter_mut().for_each(|(_, now_us)| *now_us += 36 * 1_440 * MINUTE_US);
        let outcome = later.play(Rule::Order);
        assert_eq!((&outcome.wrong, &outcome.stored), (&Vec::new(), &outcome.printed), "{order:?}");
    }
}

/// A logger that stopped in the first hour and prints its last rows in the second one has nothing new to tell.
#[test]
fn what_a_logger_that_stopped_prints_again_is_no_second_hour() {
    for memory in [1, 3, 9] {
        let stopped = Logger { stops_us: us("2026-10-25T00:50:00Z"), ..Logger::of_oslo(memory, Order::Rising) };
        let outcome = stopped.play(Rule::Order);
        assert_eq!((&outcome.wrong, &outcome.stored), (&Vec::new(), &outcome.printed), "{memory}");
    }
}

fn told(rows: &[&str], heard: Heard) -> Vec<(usize, Option<i64>)> {
    let (time, known) = (times("Europe/Oslo"), StoredTimes::default());
    let known = Known { stored: &known, unread: &known };
    let (mut print_out, mut told) = (PrintOut::new(10 * MINUTE_US), Vec::new());
    for (place, row) in rows.iter().enumerate() {
        let moments = time.read(&format!("2026-10-25 {row}:00;1")).expect("a time");
        told.extend(print_out.take(moments, place, heard, known).map(|time_us| (place, Some(time_us))));
    }
    print_out.end(End::Whole, heard, known);
    told.extend(print_out.settled().into_iter().map(|row| (row.said, row.time_us)));
    told.sort_unstable();
    told
}

/// A first start inside the hour, two rows of one written time: the first was stored as the second, and the second was lost.
#[test]
fn two_rows_of_one_written_time_are_the_two_hours() {
    let now_us = us("2026-11-30T12:00:00Z");
    let heard = Heard { bound_us: now_us, now_us: Some(now_us), asked: false };
    let expected = |times: &[&str]| -> Vec<(usize, Option<i64>)> {
        times.iter().enumerate().map(|(place, time)| (place, Some(us(&format!("2026-10-25T{time}:00Z"))))).collect()
    };
    assert_eq!(told(&["02:30", "02:30", "03:00"], heard), expected(&["00:30", "01:30", "02:00"]));
    assert_eq!(told(&["03:00", "02:30", "02:30"], heard), expected(&["02:00", "01:30", "00:30"]));
    // Of three rows alone nothing tells, and a clock that is a month on neither.
    assert_eq!(told(&["02:10", "02:20", "02:30"], heard), [(0, None), (1, None), (2, None)]);
    let then_us = us("2026-10-25T01:30:05Z");
    let then = Heard { bound_us: then_us, now_us: Some(then_us), asked: true };
    assert_eq!(told(&["02:10", "02:20", "02:30"], then), expected(&["01:10", "01:20", "01:30"]));
    let unknown = Heard { now_us: None, ..then };
    assert_eq!(told(&["02:10", "02:20", "02:30"], unknown), [(0, None), (1, None), (2, None)]);
}

/// A device that never falls silent is not waited for until the hour is over.
#[test]
fn a_stream_that_never_ends_is_decided_on_the_way() {
    let (time, mut stored, unread) = (times("Europe/Oslo"), StoredTimes::default(), StoredTimes::default());
    let (mut outcome, mut print_out) = (Outcome::default(), PrintOut::new(SECOND_US));
    let (mut held_max, first_us) = (0, us("2026-10-24T23:59:00Z"));
    for row_us in (0..2 * 3_600 + 120).map(|second| first_us + second * SECOND_US) {
        let now_us = row_us + SECOND_US / 10;
        let heard = Heard { bound_us: now_us, now_us: Some(now_us), asked: false };
        let moments = time.read(&format!("{};1", time.write(row_us))).and_then(|moments| moments.believed(now_us));
        let moments = moments.expect("a time");
        let time_us = print_out.take(moments, row_us, heard, Known { stored: &stored, unread: &unread });
        time_us.into_iter().for_each(|time_us| outcome.take(&mut stored, time_us, row_us));
        outcome.settle(&mut stored, &mut print_out);
        held_max = held_max.max(print_out.held.len());
    }
    let heard = Heard { bound_us: us("2026-10-25T02:01:00Z"), now_us: None, asked: false };
    print_out.end(End::Cut, heard, Known { stored: &stored, unread: &unread });
    outcome.settle(&mut stored, &mut print_out);
    assert_eq!((outcome.wrong, outcome.stored.len()), (Vec::new(), 2 * 3_600 + 120));
    assert!(held_max <= 61, "{held_max} rows waited");
}

/// A logger that prints each row by itself, whose clock was more than a minute fast or two slow, lost the whole second hour; and
/// one that prints an hour's row when the hour is over had the first hour's stored as the second's.
#[test]
fn rows_that_come_alone_are_stored_whatever_the_devices_clock_is_off() {
    let change_us = us("2026-10-25T01:00:00Z");
    for minutes in [1, 5, 10, 60] {
        let rows = |row: i64| change_us + row * minutes * MINUTE_US;
        let count = 130 / minutes;
        for off_s in [-3_600, -540, -190, -130, -61, -5, 0, 5, 61, 100, 300, 540] {
            let prints = (-count..=count).map(|row| (rows(row), rows(row) - off_s * SECOND_US));
            let logger = Logger {
                period_us: minutes * MINUTE_US,
                asked: false,
                every_us: minutes * MINUTE_US,
                prints: prints.collect(),
                ..Logger::of_oslo(1, Order::Rising)
            };
            let outcome = logger.play(Rule::Order);
            assert_eq!((&outcome.wrong, &outcome.stored), (&Vec::new(), &outcome.printed), "{minutes} min, {off_s} s");
        }
    }
}

/// After a restart within the hour nobody knows how far off the device is: its rows are counted, and none is stored wrong.
#[test]
fn rows_that_come_alone_are_counted_where_nothing_came_before() {
    let change_us = us("2026-10-25T01:00:00Z");
    for off_s in [-300, 300] {
        let prints = (-70..=70).map(|row| (change_us + row * MINUTE_US, change_us + (row * 60 - off_s) * SECOND_US));
        let logger = Logger {
            period_us: MINUTE_US,
            asked: false,
            every_us: MINUTE_US,
            prints: prints.collect(),
            restarts: BTreeSet::from([70 + 30]),
            ..Logger::of_oslo(1, Order::Rising)
        };
        let outcome = logger.play(Rule::Order);
        check(&logger, &outcome).expect("none is wrong, and none is lost and not counted");
        assert!((20..=32).contains(&outcome.undecided.len()), "{off_s} s: {}", outcome.undecided.len());
    }
}
