//! A point on a bus of text lines: what the lines said, and which slots they are for.
//!
//! Two kinds. Without a time of the device's own the newest line stands for a slot, and for no other (`patience` says how a
//! line that is listened to finds its slot). With one, each line
//! makes a reading of that time, once however often the device repeats it; slots then only ask whether
//! anything came. A line whose time cannot be believed is taken like one without, and its reading says
//! `clock_estimated`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tjern_readings::reading::{Cause, Reading};
use tokio::time::Instant;
use tracing::{info, warn};

use super::super::BusContext;
use super::super::point::{FAILURES_TO_DOWN, Limits, PointState};
use super::super::state::DeviceCell;
use super::print_out::{End, Heard, Known, PrintOut};
use super::rejected::shown;
use super::remembered::Told;
use super::standing::{Off, Standing};
use super::stored_times::{DeviceTimes, ToldTimes};
use crate::config::{LineField, LinePoint};
use crate::grid::{Due, Moment};
use crate::lines::counters::LineFate;
use crate::lines::notation::{Doubt, Notation};
use crate::lines::time::DeviceTime;
use crate::lines::{self, nmea};

/// Whether a device sends checksums, known to all of its points: a sentence without one has lost it then. It stays over
/// lost connections, and begins anew with the bus, as a device does that was exchanged for one without.
#[derive(Debug, Clone, Default)]
pub(super) struct DeviceChecksums(Arc<AtomicBool>);

impl DeviceChecksums {
    fn was_sent(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn are_sent(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct LinePointState {
    pub(super) state: PointState,
    /// Where others see how it is: among the points of its device, at this place.
    shown: (Arc<DeviceCell>, usize),
    field: LineField,
    /// How its numbers are written.
    notation: Notation,
    /// Of what they leave open so much was told.
    told_doubts: Vec<Doubt>,
    time: Option<DeviceTime>,
    /// Whether its device says anything new, and of today.
    standing: Standing,
    /// Which of its device's own times came.
    pub(super) told: ToldTimes,
    /// So many of them came in this run.
    told_rows: u64,
    /// Lines whose times come twice, until it is known which they are.
    print_out: PrintOut<Result<f64, Cause>>,
    /// Where that stays when the bus begins anew.
    device_times: DeviceTimes,
    /// The gateway began without knowing the time: whoever dates readings looks at each of them.
    is_clock_in_question: bool,
    /// Its device sends checksums.
    checksums: DeviceChecksums,
    latest: Option<Latest>,
    /// When a line with a time of its own came last.
    dated_at: Option<Instant>,
    /// The slot that waits for a line, since when.
    pub(super) waiting: Option<(Due, i64, Instant)>,
    /// The slot that was asked for once more.
    asked_again_us: Moment,
}

/// What the newest line said.
struct Latest {
    result: Result<f64, Cause>,
    at: Instant,
    /// It said a time that was not to be believed.
    misdated: bool,
    /// A slot has it: it is for no other one. What a gauge counted since its last line would be counted twice.
    is_given: bool,
}

/// What a slot is given.
enum Slot {
    /// What was said, by which line where there was one.
    Result(Result<f64, Cause>, Option<Said>),
    /// Readings came by themselves, or none is due.
    Nothing,
    /// It still waits.
    Open,
    /// It is asked for once more.
    Again,
}

/// How a line came that stands for a slot.
#[derive(Debug, Clone, Copy)]
struct Said {
    at: Instant,
    misdated: bool,
}

/// A slot waits for a line that is listened to for a tenth of its period, and no longer than this (or than `timeout`).
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// A line that came so many tenths of the patience behind the slot before, or sooner, was meant for that one.
const NEAR_TENTHS: u32 = 9;

/// Of a period: for how long a slot waits.
const PATIENCE_PART: u32 = 10;

/// How a bus is when its slots are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Its line is there.
    pub(super) is_there: bool,
    /// Its device is asked.
    pub(super) asked: bool,
    /// No slot of the bus ends before a second question and what follows it are over.
    pub(super) may_ask_again: bool,
    pub(super) time_us: i64,
}

impl LinePointState {
    /// `kept` is what an earlier run stored: it counts where none of this run did.
    pub(super) fn new(
        point: LinePoint,
        (shown, checksums): ((Arc<DeviceCell>, usize), DeviceChecksums),
        limits: Limits,
        context: &BusContext,
        kept: Option<ToldTimes>,
    ) -> Self {
        let (sensor, terms) = (point.common.sensor.clone(), &point.common.terms);
        let every = Duration::from_micros(terms.grid.every_us().unsigned_abs());
        Self {
            notation: Notation::new(point.decimal, terms.no_value.clone()),
            told_doubts: Vec::new(),
            standing: Standing::new(every, Instant::now()),
            state: PointState::new(&point.common, limits, context),
            shown,
            field: point.field,
            time: point.time,
            told: context.device_times.take(&sensor).or(kept).unwrap_or_default(),
            told_rows: 0,
            print_out: PrintOut::new(point.common.terms.grid.every_us()),
            device_times: context.device_times.clone(),
            is_clock_in_question: !context.clock.was_always_known(),
            checksums,
            latest: None,
            dated_at: None,
            waiting: None,
            asked_again_us: Moment::NONE,
        }
    }

    /// What was heard before says nothing about a slot that comes after.
    pub(super) fn forget(&mut self) {
        (self.latest, self.dated_at) = (None, None);
    }

    /// A clock that was set back by more than a period is followed, by a slot that waits as well. Whether that happened to the
    /// grid.
    pub(super) fn follow_step_back(&mut self, now_us: i64) -> bool {
        let grid = self.state.schedule.grid();
        let slot_us = grid.slot_of(now_us);
        let latest_us = slot_us.saturating_add(grid.every_us());
        if let Some((due, asked_us, _)) = self.waiting.as_mut().filter(|(due, _, _)| due.slot_us > latest_us) {
            (due.slot_us, *asked_us) = (slot_us, now_us);
        }
        self.state.schedule.follow_step_back(now_us)
    }

    /// Takes a line, and gives the reading that it makes by itself.
    pub(super) fn take(&mut self, bus: &str, line: &str, heard: Heard, fate: &mut LineFate) -> Option<Reading> {
        let result = lines::read(&self.field, &mut self.notation, line)?;
        let result = self.check(result, line);
        self.tell_doubt(bus, line);
        fate.wanted = true;
        fate.bad_checksum |= result == Err(Cause::Crc);
        fate.unparsed |= matches!(result, Err(Cause::NoMatch | Cause::NotANumber));
        let mut misdated = false;
        if let Some(time) = self.time.as_ref().filter(|_| result != Err(Cause::Crc)) {
            let said = time.read(line);
            if let (Some(moments), Some(now_us)) = (said, heard.now_us) {
                self.standing.row(moments, now_us, Instant::now());
            }
            match said.and_then(|moments| moments.believed(heard.bound_us)) {
                Some(moments) => {
                    fate.skipped_hour |= moments.is_skipped();
                    self.dated_at = Some(Instant::now());
                    let known = Known { stored: &self.told.stored, unread: &self.told.unread };
                    let time_us = self.print_out.take(moments, result, heard, known)?;
                    return self.take_dated(bus, (time_us, heard.bound_us), result, fate);
                }
                None => misdated = true,
            }
        }
        fate.bad_time |= misdated;
        // A line that says nothing does not push out one that did and is still good.
        let is_good = |latest: &Latest| latest.result.is_ok() && !latest.is_given && latest.at.elapsed() < self.every();
        let keeps = result.is_err() && self.latest.as_ref().is_some_and(is_good);
        if !keeps {
            self.latest = Some(Latest { result, at: Instant::now(), misdated, is_given: false });
        }
        None
    }

    fn check(&self, result: Result<f64, Cause>, line: &str) -> Result<f64, Cause> {
        if !matches!(self.field, LineField::Nmea { .. }) || result == Err(Cause::Crc) {
            return result;
        }
        let has_checksum = nmea::has_checksum(line);
        let lost_it = !has_checksum && self.checksums.are_sent();
        if has_checksum {
            self.checksums.was_sent();
        }
        if lost_it { Err(Cause::Crc) } else { result }
    }

    fn take_dated(
        &mut self,
        bus: &str,
        (time_us, now_us): (i64, i64),
        result: Result<f64, Cause>,
        fate: &mut LineFate,
    ) -> Option<Reading> {
        let has_number = !matches!(result, Err(Cause::NoMatch | Cause::NotANumber));
        let told = match self.told.stored.look(time_us) {
            Told::New if has_number => self.told.stored.insert(time_us),
            Told::New => self.told.unread.insert(time_us),
            told => told,
        };
        match told {
            Told::New => self.told_rows += 1,
            Told::Repeated => {
                fate.repeated += 1;
                return None;
            }
            Told::Forgotten => {
                fate.forgotten += 1;
                return None;
            }
        }
        self.standing.is_new(Instant::now());
        let failed_before = self.state.failures();
        let (device, place) = &self.shown;
        let reading = self.state.conclude_dated(time_us, result, now_us, &mut device.latest()[*place]);
        self.note_change(bus, failed_before);
        if let Some(reading) = reading.as_ref().filter(|_| self.is_clock_in_question) {
            self.device_times.note_own(reading);
        }
        reading
    }

    /// Whether the device is printing lines with times of its own.
    pub(super) const fn is_printing(&self) -> bool {
        self.print_out.has_begun()
    }

    /// What the device printed is over, if it is, and gives the readings of lines that waited.
    pub(super) fn settle(&mut self, bus: &str, end: Option<End>, heard: Heard, fate: &mut LineFate) -> Vec<Reading> {
        if let Some(end) = end {
            let known = Known { stored: &self.told.stored, unread: &self.told.unread };
            self.print_out.end(end, heard, known);
        }
        let mut readings = Vec::new();
        for row in self.print_out.settled() {
            match row.time_us {
                Some(time_us) => readings.extend(self.take_dated(bus, (time_us, heard.bound_us), row.said, fate)),
                None => {
                    fate.undecided += 1;
                    fate.undecided_at = Some(row.moments);
                }
            }
        }
        readings
    }

    fn every(&self) -> Duration {
        Duration::from_micros(self.state.schedule.grid().every_us().unsigned_abs())
    }

    /// Whether its lines say where they begin.
    pub(super) const fn is_sentence(&self) -> bool {
        matches!(self.field, LineField::Nmea { .. })
    }

    /// How many rows with times of their own it was told in this run.
    pub(super) const fn told_rows(&self) -> u64 {
        self.told_rows
    }

    /// Whether its lines say what time they are from.
    pub(super) const fn is_dated(&self) -> bool {
        self.time.is_some()
    }

    /// Ends the slot that waits, if it has what it needs or waited long enough.
    pub(super) fn turn(&mut self, bus: &str, now: Now, limits: Limits) -> Option<Reading> {
        let (due, asked_us, since) = self.waiting?;
        let now_us = now.time_us;
        let (result, said) = match self.outcome(due, (asked_us, since), now, limits) {
            Slot::Open => return None,
            Slot::Again => {
                (self.waiting, self.asked_again_us) = (None, Moment::of(Some(due.slot_us)));
                return None;
            }
            Slot::Nothing => {
                self.waiting = None;
                self.state.schedule.begin(due);
                self.note_standing(bus, now_us);
                return None;
            }
            Slot::Result(result, said) => (result, said),
        };
        self.waiting = None;
        self.standing.is_new(Instant::now());
        self.note_standing(bus, now_us);
        let failed_before = self.state.failures();
        let mut reading = {
            let (device, place) = &self.shown;
            let latest = &mut device.latest()[*place];
            result.err().into_iter().for_each(|cause| latest.note_without_line(cause));
            let ended = self.state.conclude(due, result, (asked_us, now_us), latest);
            ended.map(|ended| ended.reading(self.state.sensor.clone()))
        };
        // Nobody was asked and nothing came: there is no answer to be late.
        reading.iter_mut().filter(|_| said.is_none() && !now.asked).for_each(|reading| reading.lag_ms = None);
        if let (Some(reading), Some(said)) = (&mut reading, said) {
            self.latest.iter_mut().for_each(|latest| latest.is_given = true);
            reading.lag_ms = self.lag_ms(due, now, said);
            if said.misdated && reading.value.is_some() {
                reading.cause = Some(Cause::ClockEstimated);
            }
        }
        self.note_change(bus, failed_before);
        reading
    }

    /// How far behind its slot a line came, or before it, where that is worth a note. An answer is as late as the slot's end.
    fn lag_ms(&self, due: Due, now: Now, said: Said) -> Option<i32> {
        let ago_us = i64::try_from(said.at.elapsed().as_micros()).unwrap_or(i64::MAX);
        let came_us = if now.asked { now.time_us.max(due.slot_us) } else { now.time_us.saturating_sub(ago_us) };
        self.state.schedule.grid().lag_ms(due.slot_us, came_us)
    }

    /// How long a slot waits for its line. A device that prints on the hour is late by its own clock and by the length of
    /// what it prints, and its line is the hour's. One that says its time has no slot to be late for.
    pub(super) fn patience(&self, timeout: Duration, asked: bool) -> Duration {
        if asked || self.is_dated() { timeout } else { timeout.max((self.every() / PATIENCE_PART).min(PATIENCE_MAX)) }
    }

    /// Whether a line came so soon behind the slot before that it was meant for that one, as far as anybody can say: the one that is
    /// meant for this slot may be on its way. (Somewhat less than the patience, so that a line whose time wavers around its end is not taken
    /// for now this, now that.)
    fn is_of_slot_before(&self, latest: &Latest, (asked_us, since): (i64, Instant), due: Due, limits: Limits) -> bool {
        let every = self.every();
        let near = self.patience(limits.timeout, false).min(every / 2) * NEAR_TENTHS / 10;
        let begun = Duration::from_micros(asked_us.saturating_sub(due.slot_us).max(0).unsigned_abs());
        let age = (since.checked_sub(begun).unwrap_or(since)).saturating_duration_since(latest.at);
        !due.first && age > every.saturating_sub(near)
    }

    fn outcome(&self, due: Due, (asked_us, since): (i64, Instant), now: Now, limits: Limits) -> Slot {
        let Now { is_there, asked, .. } = now;
        let oldest = if asked { since } else { since.checked_sub(self.every()).unwrap_or(since) };
        let usable = self.latest.as_ref().filter(|latest| latest.at >= oldest && !latest.is_given);
        let waited = since.elapsed() >= self.patience(limits.timeout, asked);
        let said = usable.map(|latest| Said { at: latest.at, misdated: latest.misdated });
        // Who had no value in its last slot is asked once, so that a device that is down is not asked all the time.
        let again = asked && is_there && waited && now.may_ask_again && self.state.failures() == 0;
        let again = again && self.asked_again_us.get() != Some(due.slot_us);
        let is_early =
            !asked && usable.is_some_and(|latest| self.is_of_slot_before(latest, (asked_us, since), due, limits));
        match usable.map(|latest| latest.result) {
            _ if self.dated_at.is_some_and(|at| at >= oldest) => Slot::Nothing,
            Some(Ok(_)) if is_early && is_there && !waited => Slot::Open,
            Some(Ok(value)) => Slot::Result(Ok(value), said),
            _ if again => Slot::Again,
            Some(Err(cause)) if waited => Slot::Result(Err(cause), said),
            _ if !is_there => Slot::Result(Err(Cause::Unreachable), None),
            _ if !waited => Slot::Open,
            // A device that talks by itself may not have talked yet: that is no failure.
            _ if due.first && !asked => Slot::Nothing,
            _ => Slot::Result(Err(Cause::Timeout), None),
        }
    }

    /// What a number leaves open is told once: where its decimals begin is for the configuration to say.
    fn tell_doubt(&mut self, bus: &str, line: &str) {
        let Some(doubt) = self.notation.doubt().filter(|doubt| !self.told_doubts.contains(doubt)) else { return };
        self.told_doubts.push(doubt);
        let (sensor, line) = (self.state.sensor.as_str(), shown(line));
        let hint = "write `decimal = \"comma\"` on the point where that is its decimal mark, and `decimal = \"point\"` where it parts thousands";
        match doubt {
            Doubt::TakenAsDecimal => {
                warn!(
                    bus,
                    sensor,
                    line,
                    "a comma before three digits may part thousands, and is taken as the decimal mark; hint: {hint}"
                );
            }
            Doubt::NotTaken => {
                warn!(bus, sensor, line, "a comma seems to part thousands: the number is no value; hint: {hint}");
            }
        }
    }

    /// Shows how it stands with the device's word at the end of a slot; what begins or is over is a line in the log, for a device and not
    /// for each of its points.
    fn note_standing(&self, bus: &str, now_us: i64) {
        let Some(_) = self.time else { return };
        let stands = self.standing.stands(Instant::now());
        let (cell, place) = &self.shown;
        let (before, after) = cell.set_stands(*place, stands, now_us);
        let (device, sensor) = (cell.name(), self.state.sensor.as_str());
        match (before.nothing_new, after.nothing_new) {
            (None, Some(waited)) => {
                let waited_s = waited.as_secs();
                warn!(
                    bus,
                    device,
                    sensor,
                    "the device talks, and nothing new came for {waited_s} s; hint: does it print one line again and again, or does its clock stand still?"
                );
            }
            (Some(_), None) => info!(bus, device, "there are new readings again"),
            _ => {}
        }
        match (before.ahead_us, after.ahead_us) {
            (None, Some(ahead_us)) => {
                warn!(
                    bus,
                    device,
                    sensor,
                    "the device's time is {} the gateway's; hint: set its clock, and look at `time_format` and `time_zone`",
                    Off(ahead_us)
                );
            }
            (Some(_), None) => info!(bus, device, "the device's time is near the gateway's again"),
            _ => {}
        }
    }

    fn note_change(&self, bus: &str, failed_before: u32) {
        let sensor = self.state.sensor.as_str();
        match self.state.failures() {
            0 if failed_before >= FAILURES_TO_DOWN => info!(bus, sensor, "values again"),
            FAILURES_TO_DOWN if failed_before < FAILURES_TO_DOWN => {
                warn!(bus, sensor, "down: no value {FAILURES_TO_DOWN} times in a row")
            }
            _ => {}
        }
    }
}

impl Drop for LinePointState {
    fn drop(&mut self) {
        self.device_times.put(&self.state.sensor, std::mem::take(&mut self.told));
    }
}
