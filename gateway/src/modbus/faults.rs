//! The masters before devices on bad lines, a million polls: not one wrong value.
//!
//! Each seed is a line with faults of its own (`simulate::bad_line`), three devices on it, and a master that polls
//! them over a pipe in memory on tokio's paused clock. Every register and every bit says where it stands and which
//! poll asked for it (`device::word`), so an answer of another request is a wrong value and not a lucky one. An
//! answer that is refused costs a reading and is counted; one that is taken must be right. Now and then, and more often
//! right after an answer that did not come, the master is begun anew, as a restart or a reload does it: it knows nothing
//! of what the devices still have to say. Then no answer is later than two timeouts; where the master stays, one may be
//! late by five.
//!
//! `TJERN_FAULTS_SEED=7` plays one seed, `TJERN_FAULTS_SEEDS` and `TJERN_FAULTS_POLLS` more or fewer of them (1,000 seeds
//! and a million polls over the wires without), `TJERN_FAULTS_FIRST` others. The canaries take a wall
//! down and must be caught.

mod bearing;
pub(crate) mod device;
mod pipe;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tjern_readings::reading::Cause;

use self::bearing::Bearing;
use self::device::{Device, Words};
use super::ioctl::LineErrors;
use super::mbap::Stream;
use super::rtu::{RtuMaster, RtuPlace};
use super::tcp::TcpMaster;
use super::timing::Line;
use super::transport::{Answer, Asked, Failure, ReadRequest, Table};
use super::{Manners, Master};
use crate::config::{Parity, Serial};
use crate::simulate::bad_line::{Framing, LineFaults, Tally};

pub(crate) use self::device::{Dial, FarEnd};
pub(crate) use self::pipe::Pipe;

/// What a connection in memory and a socket have in common.
pub(super) trait AnyStream: Stream + Send + std::fmt::Debug {}

impl<S: Stream + Send + std::fmt::Debug> AnyStream for S {}

impl Stream for Pipe {}

/// A wall that a canary takes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Transaction ids are not compared.
    Ids,
    /// The line is not listened to before a request.
    Drain,
    /// A unit that owes an answer is asked at once.
    Probe,
    /// A master that is begun anew takes the line for one on which nothing is owed.
    Restart,
    /// A unit that answers no probe is believed at once.
    Knock,
    /// An answer is believed whatever came with it.
    Beside,
    /// Copies of answers are not noticed.
    Copies,
    /// A request whose connection broke is forgotten, and sent again.
    HangUp,
    /// A line of text is asked for while an answer to an earlier question may come.
    Quiet,
    /// What is left of a line of text is joined with what comes.
    Leftovers,
}

thread_local! {
    static BROKEN: Cell<Option<Broken>> = const { Cell::new(None) };
    static HARDWARE: Cell<Option<LineErrors>> = const { Cell::new(None) };
}

/// From now on the hardware of this thread's lines in memory says this.
pub(super) fn set_hardware(errors: LineErrors) {
    HARDWARE.set(Some(errors));
}

/// What it says, where it says anything.
pub(super) fn hardware() -> Option<LineErrors> {
    HARDWARE.get()
}

/// Whether this thread's canary has that wall down.
pub(crate) fn is_broken(wall: Broken) -> bool {
    BROKEN.get() == Some(wall)
}

const SEEDS: u64 = 1_000;
pub(crate) const TIMEOUT: Duration = Duration::from_millis(100);
/// A client waits once for an answer, and once more for those it gave up on.
pub(crate) const LONGEST: Duration = Duration::from_millis(190);
/// Where a master knows what it asked before, its answers may be as late as this.
const LATEST: Duration = Duration::from_millis(500);
/// The longest that a device takes by itself: with [`LONGEST`] an answer is never later than the two waits together.
pub(crate) const TURNAROUND_MAX_MS: u64 = 8;
const UNITS: u8 = 3;

/// The wires that are driven, and each one's share of a seed's polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Tcp,
    /// Several requests at once.
    Together,
    Rtu,
    RtuTcp,
}

impl Wire {
    const fn framing(self) -> Framing {
        match self {
            Self::Tcp | Self::Together => Framing::Tcp,
            Self::Rtu | Self::RtuTcp => Framing::Rtu,
        }
    }

    /// As it stands in the name of its test.
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Together => "together",
            Self::Rtu => "rtu",
            Self::RtuTcp => "over_tcp",
        }
    }

    const fn polls(self) -> u64 {
        match self {
            Self::Tcp | Self::Together | Self::Rtu => 400,
            Self::RtuTcp => 200,
        }
    }

    /// How many requests a poll has at most.
    const fn at_once(self) -> usize {
        match self {
            Self::Together => 8,
            Self::Tcp | Self::Rtu | Self::RtuTcp => 1,
        }
    }
}

/// A master before a line in memory, as a bus makes it.
fn master(wire: Wire, bearing: Bearing, dial: Dial) -> Master {
    let manners = Manners { maps: bearing.maps(), ..Manners::patient_for(TIMEOUT) };
    let place = match wire {
        Wire::Tcp | Wire::Together => {
            let mut master = TcpMaster::new("in memory".into(), manners);
            master.dial = Some(dial);
            return Master::Tcp(Box::new(master));
        }
        Wire::Rtu => RtuPlace::Port(Serial {
            port: "in memory".into(),
            baud: 19_200,
            data_bits: 8,
            parity: Parity::None,
            stop_bits: 1,
            rs485: None,
        }),
        Wire::RtuTcp => RtuPlace::Server { address: "in memory".into(), line: Line::rtu(19_200) },
    };
    let master = RtuMaster::new(place, manners);
    let mut master = if is_broken(Broken::Restart) { master.on_a_fresh_line() } else { master };
    master.dial = Some(dial);
    master.careless.no_drain = is_broken(Broken::Drain);
    master.careless.forgets_sent = is_broken(Broken::HangUp);
    master.careless.believes_any = is_broken(Broken::Beside);
    master.careless.hasty = is_broken(Broken::Knock);
    master.owed.careless = is_broken(Broken::Probe);
    Master::Rtu(Box::new(master))
}

/// What came of the polls.
#[derive(Debug, Clone, Default)]
struct Outcome {
    polls: u64,
    values: u64,
    restarts: u64,
    /// Polls of lines on which an answer may be late by five timeouts.
    very_late: u64,
    causes: BTreeMap<String, u64>,
    line: Tally,
}

impl Outcome {
    /// Counts how a request ended.
    ///
    /// # Errors
    /// What is wrong with it.
    fn judge(
        &mut self,
        Asked { unit, request }: Asked,
        result: Result<Answer, Failure>,
        (poll, is_good): (u64, bool),
    ) -> Result<(), String> {
        match result {
            Ok(answer) if answer == device::right_answer(Words::OfPoll, unit, request, poll) => self.values += 1,
            Ok(answer) => return Err(format!("{answer:?}")),
            Err(failure) if is_good && !failure.is_exception() => return Err(format!("a good line, and {failure}")),
            Err(failure) => *self.causes.entry(failure.cause.to_string()).or_default() += 1,
        }
        Ok(())
    }

    fn and(mut self, other: Self) -> Self {
        self.polls += other.polls;
        self.values += other.values;
        self.restarts += other.restarts;
        self.very_late += other.very_late;
        other.causes.into_iter().for_each(|(cause, count)| *self.causes.entry(cause).or_default() += count);
        self.line = self.line.and(other.line);
        self
    }
}

fn told_of(result: &Result<Answer, Failure>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |_| "ok".into())
}

/// A value that is not what the device held when it was asked.
#[derive(Debug)]
struct Wrong {
    seed: u64,
    poll: u64,
    detail: String,
}

pub(crate) fn environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Every tenth line is a good one; the others have each fault seldom, or some of them often.
pub(crate) fn line_faults(rng: &mut Rng, seed: u64) -> LineFaults {
    if seed.is_multiple_of(10) {
        return LineFaults { longest: LONGEST, ..LineFaults::default() };
    }
    let mut often = || if rng.u8(..4) == 0 { rng.f64() * 0.3 } else { rng.f64() * 0.03 };
    LineFaults {
        delay: often(),
        split: often(),
        merge: often() / 2.0,
        duplicate: often(),
        repeat: often() / 2.0,
        truncate: often() / 2.0,
        swap: often() / 2.0,
        corrupt: often(),
        drop: often() / 2.0,
        disconnect: often() / 4.0,
        hang_up: often() / 4.0,
        longest: LONGEST,
    }
}

/// On every second line answers are late by up to five timeouts, and on every fourth where one of them costs all that were asked
/// for with it; but for where nothing but time tells them apart: devices that hear no probe are believed once any answer's
/// longest time is over.
fn longest(wire: Wire, bearing: Bearing, seed: u64) -> Duration {
    let every = if wire == Wire::Together { 4 } else { 2 };
    if seed / 4 % every == 1 && !matches!(bearing, Bearing::Deaf) { LATEST } else { LONGEST }
}

/// An answer that is repeated with one that is late by five timeouts comes when nobody waits for either any more, and may be the only
/// frame that is there: nothing tells it from an answer then (decision 28).
fn told_apart(faults: LineFaults) -> LineFaults {
    if faults.longest == LATEST { LineFaults { repeat: 0.0, ..faults } } else { faults }
}

async fn play(wire: Wire, seed: u64, polls: u64) -> Result<Outcome, Wrong> {
    // What the master draws for itself has to be the same again, too.
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed ^ 0x5EED);
    let poll = Arc::new(AtomicU64::new(0));
    let moment = Arc::clone(&poll);
    let bearing = Bearing::of(wire.framing(), seed);
    let longest = longest(wire, bearing, seed);
    let device = Device {
        framing: wire.framing(),
        units: UNITS,
        faults: told_apart(LineFaults { longest, ..line_faults(&mut rng, seed) }),
        seed,
        turnaround: Duration::from_millis(rng.u64(..=TURNAROUND_MAX_MS)),
        words: Words::OfPoll,
        habits: bearing.habits(),
        moment: Arc::new(move || moment.load(Ordering::Relaxed)),
    };
    let is_good = device.faults == LineFaults { longest, ..LineFaults::default() };
    let (dial, line) = device.start();
    // Who hears no probe does not answer the first of them, on the best of lines.
    let is_good = is_good && bearing != Bearing::Deaf;
    let mut polled = master(wire, bearing, dial.clone());
    let (mut outcome, told) = (Outcome::default(), environment("TJERN_FAULTS_SEED").is_some());
    for number in 1..=polls {
        poll.store(number, Ordering::Relaxed);
        let count = rng.usize(1..=wire.at_once());
        let asked: Vec<Asked> =
            (0..count).map(|_| Asked { unit: rng.u8(1..=UNITS), request: bearing.any_request(&mut rng) }).collect();
        outcome.polls += count as u64;
        outcome.very_late += if longest == LATEST { count as u64 } else { 0 };
        let results: Vec<Result<Answer, Failure>> = match polled.read_together(&asked).await {
            Ok(replies) => replies.into_iter().map(|reply| reply.result).collect(),
            Err(failure) => vec![Err(failure); count],
        };
        let away = results.iter().any(|result| matches!(result, Err(failure) if failure.cause == Cause::Unreachable));
        if told {
            asked.iter().zip(&results).for_each(|(asked, result)| println!("{number}: {asked:?}: {}", told_of(result)));
        }
        // Who begins anew waits for what is under way for two timeouts, and can know of nothing that is later.
        if longest == LONGEST && bearing.begins_anew(&mut rng, results.iter().any(Result::is_err)) {
            outcome.restarts += 1;
            if told {
                println!("begun anew");
            }
            polled = master(wire, bearing, dial.clone());
        }
        for (asked, result) in asked.into_iter().zip(results) {
            outcome.judge(asked, result, (number, is_good)).map_err(|detail| Wrong {
                seed,
                poll: number,
                detail: format!("{wire:?} {asked:?}: {detail}"),
            })?;
        }
        if pauses(&mut rng) || away {
            tokio::time::sleep(Duration::from_millis(rng.u64(..2_000))).await;
        }
    }
    outcome.line = line.tally();
    Ok(outcome)
}

/// Some polls wait for their slot; most come right after the one before.
fn pauses(rng: &mut Rng) -> bool {
    rng.u8(..16) == 0
}

fn play_seed(wire: Wire, seed: u64, polls: u64) -> Result<Outcome, Wrong> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(play(wire, seed, polls))
}

/// All seeds of a wire, or the one that is asked for.
fn campaign(wire: Wire) {
    let polls = environment("TJERN_FAULTS_POLLS").unwrap_or(wire.polls());
    let first = environment("TJERN_FAULTS_FIRST").unwrap_or(0);
    let seeds = match environment("TJERN_FAULTS_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + environment("TJERN_FAULTS_SEEDS").unwrap_or(SEEDS),
    };
    let mut sum = Outcome::default();
    for seed in seeds.clone() {
        match play_seed(wire, seed, polls) {
            Ok(outcome) => sum = sum.and(outcome),
            Err(Wrong { seed, poll, detail }) => panic!(
                "a wrong value at seed {seed}, poll {poll}: {detail}\nreplay: TJERN_FAULTS_SEED={seed} \
                 TJERN_FAULTS_POLLS={polls} cargo test -p tjern-gateway --lib modbus::faults::{}",
                wire.name()
            ),
        }
    }
    let Outcome { polls, values, restarts, causes, .. } = &sum;
    println!("{}: seeds {seeds:?}, {polls} polls, {values} values, {restarts} restarts; {causes:?}", wire.name());
    println!("{}: {:?}", wire.name(), sum.line);
    if seeds.end - seeds.start >= 100 {
        assert!(sum.values * 5 > sum.polls * 2, "two polls in five bring a value, or nothing is shown: {sum:?}");
        let can_be = |name: &str| name != "undetectable" && (name != "repeated" || wire.framing() == Framing::Rtu);
        let never = sum.line.counts().into_iter().find(|(name, count)| *count == 0 && can_be(name));
        assert_eq!(never, None, "a fault that never happened");
        assert!(sum.very_late * 5 > sum.polls, "few answers may be late by five timeouts: {sum:?}");
        assert!(sum.restarts > 100, "hardly any restart: {sum:?}");
    }
}

/// Does this with a wall down.
pub(crate) fn with_broken<T>(wall: Broken, act: impl FnOnce() -> T) -> T {
    BROKEN.set(Some(wall));
    let result = act();
    BROKEN.set(None);
    result
}

/// How many seeds it takes to notice.
pub(crate) fn caught_by(is_wrong: impl Fn(u64) -> bool) -> u64 {
    (1..100).find(|seed| is_wrong(*seed)).expect("what lacks that wall is caught")
}

fn caught(wire: Wire, wall: Broken) -> u64 {
    with_broken(wall, || caught_by(|seed| play_seed(wire, seed, wire.polls()).is_err()))
}

#[test]
fn tcp() {
    campaign(Wire::Tcp);
}

#[test]
fn together() {
    campaign(Wire::Together);
}

#[test]
fn rtu() {
    campaign(Wire::Rtu);
}

#[test]
fn a_canary_that_does_not_compare_transaction_ids_is_caught() {
    for wire in [Wire::Tcp, Wire::Together] {
        println!("{}: caught by seed {}", wire.name(), caught(wire, Broken::Ids));
    }
}

#[test]
fn over_tcp() {
    campaign(Wire::RtuTcp);
}

#[test]
fn a_canary_that_does_not_probe_is_caught() {
    println!("caught by seed {}", caught(Wire::Rtu, Broken::Probe));
}

#[test]
fn a_canary_that_does_not_drain_the_line_is_caught() {
    println!("caught by seed {}", caught(Wire::Rtu, Broken::Drain));
}

#[test]
fn a_canary_that_trusts_a_line_that_it_does_not_know_is_caught() {
    println!("caught by seed {}", caught(Wire::Rtu, Broken::Restart));
}

#[test]
fn a_canary_that_believes_at_once_who_answers_no_probe_is_caught() {
    println!("caught by seed {}", caught(Wire::Rtu, Broken::Knock));
}

/// Converters that send the answer before once more, in front of the new one or behind it.
#[test]
fn a_canary_that_believes_one_of_two_answers_is_caught() {
    for wire in [Wire::Rtu, Wire::RtuTcp] {
        println!("{}: caught by seed {}", wire.name(), caught(wire, Broken::Beside));
    }
}

#[test]
fn a_canary_that_forgets_what_it_sent_before_the_connection_broke_is_caught() {
    println!("caught by seed {}", caught(Wire::RtuTcp, Broken::HangUp));
}

/// A failure of a replay must be the same failure.
#[test]
fn a_seed_plays_the_same_twice() {
    for wire in [Wire::Tcp, Wire::Together, Wire::Rtu, Wire::RtuTcp] {
        for seed in [3, 14, 15] {
            let play = || play_seed(wire, seed, 200).map(|outcome| (outcome.values, outcome.causes, outcome.line));
            assert_eq!(play().expect("right"), play().expect("right"), "{wire:?}, seed {seed}");
        }
    }
}

/// The harness itself: another place, and another poll, are other words.
#[test]
fn words_say_where_they_are_from() {
    let request = |address| ReadRequest::new(Table::Holding, address, 1).expect("within");
    let right = device::right_answer(Words::OfPoll, 1, request(7), 100);
    for (unit, address, poll) in [(2, 7, 100), (1, 8, 100), (1, 7, 99), (1, 7, 1)] {
        assert_ne!(right, device::right_answer(Words::OfPoll, unit, request(address), poll));
    }
}
