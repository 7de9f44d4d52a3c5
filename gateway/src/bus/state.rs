//! What is known of each bus at this moment, for metrics, `watch` and the watchdog.
//!
//! An actor writes, anybody reads: [`BusStates`] is cheap to clone, and [`BusStates::snapshot`] copies what is
//! known into plain structs. Nobody waits for a reader for longer than it takes to copy the points of one device: they
//! lie in one piece behind one lock, which an actor takes once an answer. Counters begin
//! at zero when an actor begins, `turns` excepted, which goes on for as long as the process lives: the watchdog
//! asks whether it grows. Nothing here is on disk.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tjern_readings::reading::Cause;
use tjern_readings::sensor::SensorId;

use super::lines::standing::Stands;
use super::point::FAILURES_TO_DOWN;
use crate::grid::Moment;
use crate::lines::counters::{LineCounters, LineCounts};
use crate::modbus::Strangers;
use crate::modbus::stats::{WireCounts, WireStats};

/// Of a number that may not be there yet.
const NONE: u64 = u64::MAX;

/// Every bus of a gateway. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct BusStates(Arc<Mutex<Vec<Arc<BusState>>>>);

/// A bus.
#[derive(Debug, Clone, PartialEq)]
pub struct BusSnapshot {
    /// Its name.
    pub bus: String,
    /// Its kind, as the configuration has it.
    pub kind: String,
    /// Its devices, in the order of the configuration. Those on a bus of text lines are as their points are.
    pub devices: Vec<DeviceSnapshot>,
    /// Whether its line or its server was there when it was last needed; `None` before that.
    pub line: Option<LineState>,
    /// What was counted on its wire, on a Modbus RTU bus: errors of the port's hardware among it.
    pub wire: Option<WireCounts>,
    /// Answers with another transaction id than that of a request that waits, on a Modbus TCP bus.
    pub strangers: Option<u64>,
    /// What was counted of its lines, on a bus of text lines.
    pub lines: Option<LineCounts>,
    /// How often its actor came round: it grows at least once a second while the actor lives and no
    /// transaction takes longer.
    pub turns: u64,
}

/// Whether a bus's line, or the server that it is reached through, is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineState {
    /// It is.
    Up,
    /// It is not: why, in the words of whoever tried.
    Missing(String),
    /// It is, and never falls silent, so that nothing can be asked on it.
    Babbles(String),
}

/// A device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSnapshot {
    /// Its name.
    pub device: String,
    /// Its address on a Modbus bus.
    pub unit_id: Option<u8>,
    /// Whether it answers.
    pub state: DeviceState,
    /// How long its last answer took, the wire included.
    pub round_trip_us: Option<u64>,
    /// Requests without an answer in time; on a bus of text lines, slots without a line in time.
    pub timeouts: u64,
    /// Requests that nothing could be sent for, since its line or its server is missing, or that the server closed the
    /// connection on; on a bus of text lines,
    /// slots.
    pub unreachable: u64,
    /// Answers that were exceptions.
    pub exceptions: u64,
    /// Answers with a wrong checksum, or that made no sense.
    pub broken_frames: u64,
    /// How far its own time is ahead of the gateway's, where it is days behind or not to be believed; less than 0: behind.
    pub time_ahead_us: Option<i64>,
    /// What is read from it.
    pub points: Vec<PointSnapshot>,
}

/// Whether a device answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceState {
    /// It was not asked yet, or its line is missing and it has not missed three slots by that.
    Unknown,
    /// Its last answer was one.
    Healthy,
    /// It missed an answer lately.
    Suspect,
    /// It does not answer, and is asked after pauses only; or its line is missing.
    Down,
}

/// A point.
#[derive(Debug, Clone, PartialEq)]
pub struct PointSnapshot {
    /// Whose readings these are.
    pub sensor: String,
    /// The last slot that ended, with a value or without one.
    pub slot_us: Option<i64>,
    /// Its value, if one was got.
    pub value: Option<f64>,
    /// Why there is none.
    pub cause: Option<Cause>,
    /// When it ended, on the wall clock.
    pub answered_us: Option<i64>,
    /// How long that took, where a value was got.
    pub round_trip_us: Option<u64>,
    /// Slots that passed without a poll.
    pub missed: u64,
    /// The point's period.
    pub every_us: i64,
    /// Its device talks, and says nothing new of it, since then.
    pub nothing_new_since_us: Option<i64>,
}

impl DeviceState {
    /// Every state, with its word.
    pub const ALL: &[(&str, Self)] =
        &[("unknown", Self::Unknown), ("healthy", Self::Healthy), ("suspect", Self::Suspect), ("down", Self::Down)];

    const fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Healthy => 1,
            Self::Suspect => 2,
            Self::Down => 3,
        }
    }

    fn of_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).map_or(Self::Unknown, |(_, state)| *state)
    }
}

impl BusStates {
    /// No bus yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of every bus, in the order in which they began.
    #[must_use]
    pub fn snapshot(&self) -> Vec<BusSnapshot> {
        let buses = locked(&self.0).clone();
        buses.iter().map(|bus| bus.snapshot()).collect()
    }

    /// How often a bus has come round: asked every few seconds, and of ten thousand points a snapshot costs something.
    pub(crate) fn turns(&self, bus: &str) -> Option<u64> {
        let buses = locked(&self.0);
        buses.iter().find(|known| known.bus == bus).map(|known| known.turns.load(Ordering::Relaxed))
    }

    /// Takes a bus out that is no longer read.
    pub fn forget(&self, bus: &str) {
        locked(&self.0).retain(|known| known.bus != bus);
    }

    /// An actor begins, or begins anew.
    pub(crate) fn begin(&self, bus: &str, kind: &'static str, devices: Vec<Arc<DeviceCell>>) -> Arc<BusState> {
        let mut buses = locked(&self.0);
        let before = buses.iter_mut().find(|known| known.bus == bus);
        let turns = AtomicU64::new(before.as_ref().map_or(0, |known| known.turns.load(Ordering::Relaxed)));
        let state = Arc::new(BusState {
            bus: bus.to_owned(),
            kind,
            devices,
            turns,
            line: Mutex::new(None),
            wire: OnceLock::new(),
            strangers: OnceLock::new(),
            lines: OnceLock::new(),
        });
        match before {
            Some(known) => *known = Arc::clone(&state),
            None => buses.push(Arc::clone(&state)),
        }
        state
    }
}

/// A bus, as its actor writes it.
#[derive(Debug)]
pub(crate) struct BusState {
    bus: String,
    kind: &'static str,
    devices: Vec<Arc<DeviceCell>>,
    turns: AtomicU64,
    line: Mutex<Option<LineState>>,
    wire: OnceLock<WireStats>,
    strangers: OnceLock<Strangers>,
    lines: OnceLock<Arc<LineCounters>>,
}

impl BusState {
    /// Shows what is counted on its wire.
    pub(crate) fn count_wire(&self, stats: WireStats) {
        // It is called once, by the actor that began this state.
        let _ = self.wire.set(stats);
    }

    /// Shows how many answers were to no open request.
    pub(crate) fn count_strangers(&self, strangers: Strangers) {
        // It is called once, by the actor that began this state.
        let _ = self.strangers.set(strangers);
    }

    /// The actor came round.
    pub(crate) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Its line or its server was found there, or missing.
    pub(crate) fn set_line(&self, line: LineState) {
        *locked(&self.line) = Some(line);
    }

    /// Shows what is counted of its lines.
    pub(crate) fn count_lines(&self, counters: &Arc<LineCounters>) {
        // It is called once, by the actor that began this state.
        let _ = self.lines.set(Arc::clone(counters));
    }

    fn snapshot(&self) -> BusSnapshot {
        BusSnapshot {
            bus: self.bus.clone(),
            kind: self.kind.to_owned(),
            devices: self.devices.iter().map(|device| device.snapshot()).collect(),
            line: locked(&self.line).clone(),
            wire: self.wire.get().map(WireStats::counts),
            strangers: self.strangers.get().map(Strangers::count),
            lines: self.lines.get().map(|lines| lines.counts()),
            turns: self.turns.load(Ordering::Relaxed),
        }
    }
}

/// A device, as the actor of its bus writes it.
#[derive(Debug)]
pub(crate) struct DeviceCell {
    device: String,
    unit_id: Option<u8>,
    state: AtomicU8,
    round_trip_us: AtomicU64,
    timeouts: AtomicU64,
    unreachable: AtomicU64,
    exceptions: AtomicU64,
    broken_frames: AtomicU64,
    points: Vec<ShownPoint>,
    /// Of each of them, in the same order.
    latest: Mutex<Vec<Latest>>,
    /// Of those whose device says a time of its own, and nothing new or of another day: by their places.
    stands: Mutex<HashMap<usize, Shown>>,
}

/// How it stands with what a device says of a point, and since when.
#[derive(Debug, Clone, Copy)]
struct Shown {
    stands: Stands,
    since_us: i64,
}

/// What does not change of a point: whose readings it makes, and its period.
#[derive(Debug)]
pub(crate) struct ShownPoint {
    pub(crate) sensor: SensorId,
    pub(crate) every_us: i64,
}

impl DeviceCell {
    /// A device that was not asked yet. Without a unit id its state is that of its points.
    pub(crate) fn new(device: &str, unit_id: Option<u8>, points: Vec<ShownPoint>) -> Arc<Self> {
        let latest = Mutex::new(vec![Latest::default(); points.len()]);
        Arc::new(Self {
            device: device.to_owned(),
            unit_id,
            state: AtomicU8::new(DeviceState::Unknown.code()),
            round_trip_us: AtomicU64::new(NONE),
            timeouts: AtomicU64::new(0),
            unreachable: AtomicU64::new(0),
            exceptions: AtomicU64::new(0),
            broken_frames: AtomicU64::new(0),
            points,
            latest,
            stands: Mutex::default(),
        })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.device
    }

    /// How it stands with a point at this time; what was known of the whole device before, and is now.
    pub(crate) fn set_stands(&self, place: usize, stands: Stands, now_us: i64) -> (Stands, Stands) {
        let mut all = locked(&self.stands);
        let before = together(&all);
        if stands == Stands::default() {
            all.remove(&place);
        } else {
            let waited_us = stands.nothing_new.and_then(|waited| i64::try_from(waited.as_micros()).ok());
            let since_us =
                all.get(&place).filter(|shown| shown.stands.nothing_new.is_some()).map(|shown| shown.since_us);
            let since_us = since_us.unwrap_or_else(|| now_us.saturating_sub(waited_us.unwrap_or_default()));
            all.insert(place, Shown { stands, since_us });
        }
        (before, together(&all))
    }

    /// How the points are, in the order in which they were named, to be written.
    pub(crate) fn latest(&self) -> MutexGuard<'_, Vec<Latest>> {
        locked(&self.latest)
    }

    pub(crate) fn set_state(&self, state: DeviceState) {
        self.state.store(state.code(), Ordering::Relaxed);
    }

    /// A transaction ended with an answer, after so long, or without one.
    pub(crate) fn note(&self, round_trip_us: u64, failure: Option<(Cause, bool)>) {
        let counter = match failure {
            None => return self.round_trip_us.store(round_trip_us, Ordering::Relaxed),
            Some((_, true)) => &self.exceptions,
            Some((Cause::Timeout, _)) => &self.timeouts,
            Some((Cause::Unreachable, _)) => &self.unreachable,
            Some((Cause::Crc | Cause::Malformed, _)) => &self.broken_frames,
            Some(_) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> DeviceSnapshot {
        let (latest, stands) = (self.latest().clone(), locked(&self.stands).clone());
        let since_us = |place| stands.get(&place).filter(|shown| shown.stands.nothing_new.is_some());
        let points = self.points.iter().zip(&latest).enumerate().map(|(place, (point, latest))| PointSnapshot {
            nothing_new_since_us: since_us(place).map(|shown| shown.since_us),
            ..latest.snapshot(point)
        });
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of_points = |count: fn(&Latest) -> u32| latest.iter().map(|point| u64::from(count(point))).sum::<u64>();
        DeviceSnapshot {
            device: self.device.clone(),
            unit_id: self.unit_id,
            state: match self.unit_id {
                Some(_) => match DeviceState::of_code(self.state.load(Ordering::Relaxed)) {
                    // Not its own fault, as far as one knows; but nobody gets values from it either.
                    DeviceState::Unknown if latest.iter().any(Latest::is_out_of_reach) => DeviceState::Down,
                    state => state,
                },
                None => {
                    let best = latest.iter().map(Latest::state).min_by_key(|state| state.code().wrapping_sub(1));
                    best.unwrap_or(DeviceState::Unknown)
                }
            },
            round_trip_us: Some(count(&self.round_trip_us)).filter(|time_us| *time_us != NONE),
            timeouts: count(&self.timeouts) + of_points(|point| point.timeouts),
            unreachable: count(&self.unreachable) + of_points(|point| point.unreachable),
            exceptions: count(&self.exceptions),
            broken_frames: count(&self.broken_frames),
            time_ahead_us: together(&stands).ahead_us,
            points: points.collect(),
        }
    }
}

/// How a point's last slot ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latest {
    pub(crate) slot_us: Moment,
    pub(crate) answered_us: Moment,
    /// Not finite where there is none.
    pub(crate) value: f64,
    pub(crate) missed: u64,
    /// That of a value; at most so much.
    pub(crate) round_trip_us: u32,
    pub(crate) cause: Option<Cause>,
    /// So many slots in a row ended without a value.
    pub(crate) failures: u32,
    /// Counted here where no request of its own stands behind a slot: on a bus of text lines.
    timeouts: u32,
    unreachable: u32,
}

impl Default for Latest {
    /// No slot has ended.
    fn default() -> Self {
        Self {
            slot_us: Moment::NONE,
            answered_us: Moment::NONE,
            value: f64::NAN,
            missed: 0,
            round_trip_us: 0,
            cause: None,
            failures: 0,
            timeouts: 0,
            unreachable: 0,
        }
    }
}

impl Latest {
    /// A slot that no request of its own stood behind ended without a line.
    pub(crate) fn note_without_line(&mut self, cause: Cause) {
        match cause {
            Cause::Timeout => self.timeouts = self.timeouts.wrapping_add(1),
            Cause::Unreachable => self.unreachable = self.unreachable.wrapping_add(1),
            _ => {}
        }
    }

    /// Whether its line has been missing for as many slots as make a device down.
    fn is_out_of_reach(&self) -> bool {
        self.failures >= FAILURES_TO_DOWN && self.cause == Some(Cause::Unreachable)
    }

    fn state(&self) -> DeviceState {
        match self.failures {
            _ if self.slot_us.get().is_none() => DeviceState::Unknown,
            0 => DeviceState::Healthy,
            failures if failures < FAILURES_TO_DOWN => DeviceState::Suspect,
            _ => DeviceState::Down,
        }
    }

    fn snapshot(&self, point: &ShownPoint) -> PointSnapshot {
        let value = Some(self.value).filter(|value| value.is_finite());
        PointSnapshot {
            sensor: point.sensor.as_str().to_owned(),
            slot_us: self.slot_us.get(),
            value,
            cause: self.cause,
            answered_us: self.answered_us.get(),
            round_trip_us: value.map(|_| self.round_trip_us.into()),
            missed: self.missed,
            every_us: point.every_us,
            nothing_new_since_us: None,
        }
    }
}

/// How it stands with a device, of whose points these are not as they should be.
fn together(stands: &HashMap<usize, Shown>) -> Stands {
    let all = || stands.values().map(|shown| shown.stands);
    let nearest = all().filter_map(|stands| stands.ahead_us).min_by_key(|ahead_us| ahead_us.unsigned_abs());
    Stands { nothing_new: all().filter_map(|stands| stands.nothing_new).max(), ahead_us: nearest }
}

/// A lock that is held for a few instructions, none of which can panic half-way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str) -> ShownPoint {
        ShownPoint { sensor: name.parse().expect("valid"), every_us: 1_000_000 }
    }

    #[test]
    fn an_actor_that_begins_anew_does_not_look_like_one_that_stands_still() {
        let states = BusStates::new();
        let first = states.begin("north", "modbus-tcp", Vec::new());
        states.begin("south", "modbus-tcp", Vec::new());
        (0..5).for_each(|_| first.turn());
        let second = states.begin("north", "modbus-tcp", Vec::new());
        second.turn();
        let seen: Vec<(String, u64)> = states.snapshot().into_iter().map(|bus| (bus.bus, bus.turns)).collect();
        assert_eq!(seen, [("north".to_owned(), 6), ("south".to_owned(), 0)]);
        assert_eq!(["north", "south", "west"].map(|bus| states.turns(bus)), [Some(6), Some(0), None]);
        states.forget("north");
        assert_eq!(states.snapshot().len(), 1);
    }

    #[test]
    fn what_an_actor_writes_is_what_is_shown() {
        let states = BusStates::new();
        let device = DeviceCell::new("logger", Some(7), vec![point("tarn/depth")]);
        states.begin("north", "modbus-rtu", vec![Arc::clone(&device)]);
        device.note(9_000, None);
        device.note(9_000, Some((Cause::Timeout, false)));
        device.note(9_000, Some((Cause::Exception2, true)));
        device.note(9_000, Some((Cause::Crc, false)));
        device.note(9_000, Some((Cause::Unreachable, false)));
        device.set_state(DeviceState::Suspect);
        device.latest()[0] = Latest { slot_us: Moment::of(Some(1)), value: 4.0, missed: 2, ..Latest::default() };
        let shown = states.snapshot().remove(0).devices.remove(0);
        assert_eq!((shown.state, shown.round_trip_us), (DeviceState::Suspect, Some(9_000)));
        assert_eq!((shown.timeouts, shown.exceptions, shown.broken_frames), (1, 1, 1));
        assert_eq!((shown.points[0].value, shown.points[0].missed), (Some(4.0), 2));
    }

    #[test]
    fn a_bus_without_units_is_as_its_best_point() {
        let device = DeviceCell::new("mast", None, vec![point("mast/wind"), point("mast/rain")]);
        assert_eq!(device.snapshot().state, DeviceState::Unknown);
        let failed = Latest { slot_us: Moment::of(Some(1)), failures: FAILURES_TO_DOWN, ..Latest::default() };
        device.latest()[0] = failed;
        assert_eq!(device.snapshot().state, DeviceState::Down);
        device.latest()[1] = Latest { failures: 0, ..failed };
        assert_eq!(device.snapshot().state, DeviceState::Healthy);
    }
}
