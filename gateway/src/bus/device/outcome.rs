//! What a request's end means to a device: readings, what it refuses, how healthy it is, whether it is asked once more.

use tjern_readings::reading::Cause;
use tjern_readings::rows::Rows;
use tracing::{info, warn};

use super::super::health::{Budget, Change};
use super::super::refusal::Verdict;
use super::super::state::DeviceState as Shown;
use super::answered::Answered;
use super::point::Point;
use super::{Company, Device, Job, Later, Planned, Timing, after};
use crate::modbus::transport::{Answer, Failure, ReadRequest};
use crate::modbus::{PAUSE_MAX, PAUSE_MIN};

/// A device that is busy is asked for so many times more in a slot: for twelve seconds.
const BUSY_TIMES_MAX: u32 = 5;

/// A period of at least so many timeouts leaves the time to ask once more after a failure.
const RETRY_PERIODS: u32 = 4;

impl Device {
    /// A request ended: what is to be written down of it.
    pub(in crate::bus) fn ended(
        &mut self,
        job: &Job,
        result: Result<&Answer, &Failure>,
        timing: Timing,
        mut company: Company<'_>,
    ) -> Rows {
        let (bus, was_healthy) = (company.bus, self.health.is_healthy());
        if result.is_ok() && was_healthy && timing.is_measure {
            let device_time = timing.took.saturating_sub(self.wire.time(job.request()));
            // On TCP a plan is the same whatever an answer takes: a byte costs next to nothing beside it.
            if self.turnaround.note(device_time) && self.wire.is_serial() {
                self.plans.clear();
            }
        }
        self.note_health(result.err(), timing, &mut company);
        let planned = match job {
            Job::Read(planned) => planned,
            Job::Proof(request) => {
                self.proved_by(bus, *request, result.err(), timing.answered_us);
                return Rows::default();
            }
        };
        match result {
            Ok(answer) => {
                let request = planned.group.request;
                if self.refusals.answered(request) {
                    self.plans.clear();
                }
                self.end(planned, |point| point.decode(answer, request.address()), timing)
            }
            Err(failure) if is_refusal(failure) => self.refuse(bus, planned, failure, timing),
            Err(failure) if was_healthy && self.may_ask_again(planned, failure, timing) => {
                self.replan = true;
                Rows::default()
            }
            Err(failure) => {
                self.ask_later(planned, failure, timing, company.budget);
                self.end(planned, |_| Err(failure.cause), timing)
            }
        }
    }

    fn end(&mut self, planned: &Planned, raw: impl Fn(&Point) -> Result<f64, Cause>, timing: Timing) -> Rows {
        let (mut answered, mut relents) = (Answered::new(&planned.sensors), false);
        let mut latest = self.cell.latest();
        for index in planned.points() {
            let point = &mut self.points[index];
            let raw = raw(point);
            if raw.is_ok() {
                relents |= point.refused.take().is_some();
                self.later.remove(&index);
            }
            if self.later.get(&index).is_some_and(|later| later.at > timing.now) {
                answered.add(None);
                continue;
            }
            let due = point.state.schedule.due(timing.asked_us);
            let times_us = (timing.asked_us, timing.answered_us);
            answered.add(due.and_then(|due| point.end(due, raw, times_us, timing.turn, &mut latest[index])));
        }
        drop(latest);
        if relents {
            // A device that has begun to answer what it refused may answer more of it.
            self.points.iter_mut().filter_map(|point| point.refused.as_mut()).for_each(|rest| rest.until = timing.now);
        }
        answered.rows()
    }

    fn refuse(&mut self, bus: &str, planned: &Planned, failure: &Failure, timing: Timing) -> Rows {
        let verdict = self.refusals.refused(&planned.group, timing.answered_us);
        self.plans.clear();
        match verdict {
            Verdict::Point => {
                planned.points().for_each(|point| self.points[point].refuse(timing.now, failure.cause));
                return self.end(planned, |_| Err(failure.cause), timing);
            }
            Verdict::Split => {}
            Verdict::Apart => planned.points().for_each(|point| self.points[point].alone = true),
        }
        let points = planned.sensors.len();
        info!(bus, device = self.name, points, "a shared request was refused: looking for what is bad in it");
        self.replan = true;
        Rows::default()
    }

    fn proved_by(&mut self, bus: &str, request: ReadRequest, failure: Option<&Failure>, now_us: i64) {
        if failure.is_some_and(|failure| !is_refusal(failure)) {
            return;
        }
        self.refusals.proved(request, failure.is_some(), now_us);
        self.plans.clear();
        self.replan = self.has_work();
        info!(bus, device = self.name, "what it refuses is known: its points share requests round that");
    }

    /// Whether an answer that was lost on a healthy line leaves the time to ask once more in the same slot.
    fn may_ask_again(&self, planned: &Planned, failure: &Failure, timing: Timing) -> bool {
        let is_silence = matches!(failure.cause, Cause::Timeout | Cause::Crc | Cause::Malformed);
        if !is_silence && !is_absent(failure) && (failure.cause != Cause::Unreachable || failure.is_of_line()) {
            return false;
        }
        let enough_us = after(0, self.timeout * RETRY_PERIODS);
        let done_us = after(timing.answered_us, 2 * timing.cost + self.timeout);
        planned.points().all(|point| {
            let schedule = &self.points[point].state.schedule;
            schedule.grid().every_us() >= enough_us && schedule.next_us(timing.asked_us) > done_us
        })
    }

    /// Points whose slot leaves the time for it are asked for once more in it, where that costs the others nothing: a line that is
    /// missing until it is back, and a device that is busy a few times, as often as the bus's time allows for all that are.
    fn ask_later(&mut self, planned: &Planned, failure: &Failure, timing: Timing, budget: &mut Budget) {
        let is_busy = matches!(failure.cause, Cause::Exception5 | Cause::Exception6);
        if !is_busy && !failure.is_of_line() {
            return;
        }
        let budgeted = is_busy.then(|| budget.for_busy(timing.cost, timing.now));
        for index in planned.points() {
            let state = &self.points[index].state;
            let Some(due) = state.schedule.due(timing.asked_us) else { continue };
            let times =
                self.later.get(&index).filter(|later| later.slot_us == due.slot_us).map_or(0, |later| later.times);
            // Who was busy in its last slot already is asked once, as one that was silent.
            let is_over = is_busy && (times >= BUSY_TIMES_MAX || state.failures() > 0);
            let pause = (PAUSE_MIN * 2_u32.pow(times.min(8))).min(PAUSE_MAX);
            let at = budgeted.max(Some(timing.now + pause)).unwrap_or(timing.now);
            let at_us = after(timing.answered_us, at.saturating_duration_since(timing.now));
            let done_us = after(at_us, 2 * timing.cost + self.timeout);
            if is_over || state.schedule.next_us(timing.asked_us) <= done_us {
                self.later.remove(&index);
                continue;
            }
            let later = Later { at, slot_us: due.slot_us, times: times + 1, cause: failure.cause };
            self.later.insert(index, later);
            budgeted.into_iter().for_each(|until| budget.spend_on_busy(until));
            self.wake_us = self.wake_us.min(at_us);
        }
    }

    fn note_health(&mut self, failure: Option<&Failure>, timing: Timing, company: &mut Company<'_>) {
        let change = match failure {
            None => self.health.answered(),
            // A converter says for it that it does not answer.
            Some(failure) if failure.is_exception() && !is_absent(failure) => self.health.answered(),
            // Not the device's fault: its line is missing.
            Some(failure) if failure.is_of_line() => Change::None,
            Some(failure) => {
                self.health.failed(failure.cause, (timing.cost, timing.now), company.budget, company.others)
            }
        };
        match (change, failure) {
            (Change::Down, Some(failure)) => {
                warn!(bus = company.bus, device = self.name, unit = self.unit_id, "down: {failure}");
            }
            (Change::Back, _) => info!(bus = company.bus, device = self.name, unit = self.unit_id, "answers again"),
            _ => {}
        }
        let took_us = u64::try_from(timing.took.as_micros()).unwrap_or(u64::MAX);
        self.cell.note(took_us, failure.map(|failure| (failure.cause, failure.is_exception())));
        let is_there = failure.is_none_or(|failure| !failure.is_of_line());
        self.cell.set_state(if is_there { self.health.shown() } else { Shown::Unknown });
    }

    /// Points whose device answers, but not with a value for them: a line when that begins.
    pub(in crate::bus) fn note_new_failures(&self, bus: &str, job: &Job) {
        let Job::Read(planned) = job else { return };
        let ended = planned.points().filter(|point| !self.later.contains_key(point));
        for point in ended.map(|point| &self.points[point].state) {
            let Some(cause) = point.cause() else { continue };
            let lost = matches!(cause, Cause::Timeout | Cause::Unreachable | Cause::Crc | Cause::Malformed);
            if point.failures() == 1 && !lost {
                warn!(bus, device = self.name, sensor = point.sensor.as_str(), %cause, "the device answers, but not with a value for this point");
            }
        }
    }
}

const fn is_refusal(failure: &Failure) -> bool {
    matches!(failure.cause, Cause::Exception2 | Cause::Exception3)
}

/// A converter answers for a device that is not there.
const fn is_absent(failure: &Failure) -> bool {
    matches!(failure.cause, Cause::Exception10 | Cause::Exception11)
}
