//! A Modbus device while it is polled: its rounds, what its answers mean, what is known of it.
//!
//! A **round** is everything of the device that is due at a moment: when a point's slot has begun and its share of
//! the spread is over, all that is due rides along, planned into as few requests as bus time allows. A round ends
//! where the slot of one of its points does; what was not read by then is due again, in its new slot, and goes
//! first. So nothing queues, and no point starves another. A slot that passes is missed, and never made up for.
//!
//! No I/O and no waiting: the actor of the bus does both.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tjern_readings::reading::{Cause, Reading};
use tokio::time::Instant;
use tracing::{info, warn};

use super::BusContext;
use super::cost::{Costs, Turnaround, Wire};
use super::health::{Budget, Change, Health, Policy};
use super::learned::{DeviceMemory, fingerprint};
use super::plan::{Group, Rules, Wanted, plan};
use super::point::{Limits, PointState};
use super::refusal::{Refusals, Verdict};
use super::state::{DeviceCell, DeviceState as Shown};
use crate::config::{ModbusDevice, ModbusPoint, ReadLimits};
use crate::grid::Due;
use crate::modbus::transport::{Answer, Failure, ReadRequest, Table};
use crate::value::{NumberType, Order};

/// A period of at least so many timeouts leaves the time to ask once more after a failure.
const RETRY_PERIODS: u32 = 4;

/// Plans that are kept: one a combination of points that are due together.
const PLANS_MAX: usize = 8;

/// A point that its device refuses is asked for after pauses that double, from and to this.
const REFUSED_PAUSE_MIN: Duration = Duration::from_secs(1);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) unit_id: u8,
    pub(super) health: Health,
    pub(super) cell: Arc<DeviceCell>,
    points: Vec<Point>,
    wire: Wire,
    reads: ReadLimits,
    timeout: Duration,
    turnaround: Turnaround,
    refusals: Refusals,
    /// How much longer than the line's own silence it is left alone before a request and after its answer.
    pub(super) gap: Duration,
    fingerprint: String,
    plans: Vec<(Vec<usize>, Vec<Arc<Group>>)>,
    pending: VecDeque<Arc<Group>>,
    /// Where a slot of the round's points ends.
    round_until_us: i64,
    /// When a round may begin.
    wake_us: i64,
    /// What is left of the round is to be planned anew.
    replan: bool,
    /// A round asks at most one question that serves no point.
    proved: bool,
}

#[derive(Debug)]
struct Point {
    state: PointState,
    table: Table,
    address: u16,
    kind: NumberType,
    order: Order,
    /// How long after its slot its poll begins.
    spread_us: i64,
    /// It overlaps another, and gets a request of its own.
    alone: bool,
    /// It is not asked for, since its device refuses it.
    refused: Option<Box<Refused>>,
    /// The turn of the bus that ended its last slot; 0 for none.
    served: u64,
}

/// A point that its device refuses.
#[derive(Debug, Clone, Copy)]
struct Refused {
    until: Instant,
    times: u32,
    cause: Cause,
}

/// A request that a device is asked.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// For these points.
    Read(Arc<Group>),
    /// To find out what it refuses.
    Proof(ReadRequest),
}

impl Job {
    pub(super) fn request(&self) -> ReadRequest {
        match self {
            Self::Read(group) => group.request,
            Self::Proof(request) => *request,
        }
    }
}

/// When a request was asked and how it ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) asked_us: i64,
    pub(super) answered_us: i64,
    pub(super) now: Instant,
    /// From the request to its end.
    pub(super) took: Duration,
    /// Whether that says something about the device, and not about what was before.
    pub(super) is_measure: bool,
    /// What it kept the bus from, the drain included.
    pub(super) cost: Duration,
    /// The bus's count of turns.
    pub(super) turn: u64,
}

/// What else there is on the bus.
#[derive(Debug)]
pub(super) struct Company<'bus> {
    pub(super) bus: &'bus str,
    pub(super) budget: &'bus mut Budget,
    /// Whether another device is healthy.
    pub(super) others: bool,
}

impl Device {
    pub(super) fn new(
        bus: &str,
        device: &ModbusDevice,
        (wire, policy): (Wire, Policy),
        limits: Limits,
        context: &BusContext,
    ) -> Self {
        let fingerprint = fingerprint(device);
        let share = share(bus, &device.name);
        let points: Vec<Point> = device.points.iter().map(|point| Point::new(point, share, limits, context)).collect();
        let cells = points.iter().map(|point| point.state.cell()).collect();
        let cell = DeviceCell::new(&device.name, Some(device.unit_id), cells);
        Self {
            name: device.name.clone(),
            unit_id: device.unit_id,
            health: Health::new(policy),
            cell,
            points,
            wire,
            reads: device.reads,
            timeout: limits.timeout,
            turnaround: Turnaround::default(),
            refusals: Refusals::default(),
            gap: device.gap.saturating_sub(wire.silence()),
            fingerprint,
            plans: Vec::new(),
            pending: VecDeque::new(),
            round_until_us: i64::MAX,
            wake_us: i64::MIN,
            replan: false,
            proved: false,
        }
    }

    /// Takes what was learned before, if its points are still the same.
    pub(super) fn remember(&mut self, memory: DeviceMemory) {
        self.turnaround = Turnaround::kept(memory.turnaround);
        if memory.fingerprint == self.fingerprint {
            self.refusals = Refusals::new(memory.learned);
        }
    }

    /// What is worth to be remembered.
    pub(super) fn memory(&self) -> DeviceMemory {
        DeviceMemory {
            fingerprint: self.fingerprint.clone(),
            turnaround: self.turnaround.settled(),
            learned: self.refusals.learned().clone(),
        }
    }

    /// How many plans, requests and findings are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let learned = self.refusals.learned();
        let found = learned.holes.len() + learned.points.len() + learned.counts.len();
        self.plans.len() + self.pending.len() + found
    }

    pub(super) fn missed(&self) -> u64 {
        self.points.iter().map(|point| point.state.schedule.missed()).sum()
    }

    /// The clock was set back: how many points go on from the time it says.
    pub(super) fn follow_step_back(&mut self, now_us: i64) -> usize {
        self.wake_us = i64::MIN;
        self.points.iter_mut().map(|point| usize::from(point.state.schedule.follow_step_back(now_us))).sum()
    }

    /// What one of its answers takes, if it may be asked together with others: one that does not answer, or of which
    /// nothing is known yet, is found out by asking it alone.
    pub(super) fn in_company(&self) -> Option<Duration> {
        let is_sociable = self.health.is_healthy() && self.gap.is_zero() && self.due_proof().is_none();
        self.turnaround.planned().filter(|_| is_sociable)
    }

    /// What is asked only to find out what it refuses.
    fn due_proof(&self) -> Option<ReadRequest> {
        if self.proved { None } else { self.refusals.proof() }
    }

    /// It was asked together with others, and not all answered: what is due is asked again.
    pub(super) fn ask_again(&mut self) {
        self.replan = true;
    }

    /// Whether there is something to be asked.
    pub(super) fn has_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// When [`Self::refresh`] has something to do.
    pub(super) fn wake_us(&self) -> i64 {
        match (self.replan, self.pending.is_empty()) {
            (true, _) => i64::MIN,
            (false, true) => self.wake_us,
            (false, false) => self.wake_us.min(self.round_until_us),
        }
    }

    /// Begins a round if one is due. `rest` is until when the device is not asked, and why: slots that end before
    /// that end at once. Those, and points whose own rest lasts as long, are the readings that come back.
    pub(super) fn refresh(
        &mut self,
        (now_us, now): (i64, Instant),
        rest: Option<(Instant, Cause)>,
        turn: u64,
    ) -> Vec<Reading> {
        if self.refusals.expire(now_us) {
            self.plans.clear();
        }
        // What was not read in the last round has waited long enough.
        let behind = self.replan || self.has_work();
        self.pending.clear();
        (self.replan, self.proved, self.wake_us) = (false, self.replan && self.proved, i64::MAX);
        self.round_until_us = i64::MAX;
        let (mut round, mut ready, mut readings) = (Vec::new(), false, Vec::new());
        for (index, point) in self.points.iter_mut().enumerate() {
            point.state.look(now_us);
            let slot_end_us = point.state.schedule.next_us(now_us);
            let next_us = slot_end_us.saturating_add(point.spread_us);
            let Some(due) = point.state.schedule.due(now_us) else {
                self.wake_us = self.wake_us.min(next_us);
                continue;
            };
            if let Some((until, cause)) = rest.max(point.resting(now)) {
                let until_us = after(now_us, until.saturating_duration_since(now));
                if until_us >= slot_end_us {
                    readings.extend(point.end(due, Err(cause), (now_us, now_us), turn));
                    self.wake_us = self.wake_us.min(next_us);
                } else {
                    self.wake_us = self.wake_us.min(until_us);
                }
                continue;
            }
            let ready_us = if due.first || behind { now_us } else { due.slot_us.saturating_add(point.spread_us) };
            ready |= ready_us <= now_us;
            round.push((index, slot_end_us, ready_us, next_us));
        }
        for (_, slot_end_us, ready_us, next_us) in &round {
            self.round_until_us = self.round_until_us.min(*slot_end_us);
            self.wake_us = self.wake_us.min(if ready { *next_us } else { *ready_us });
        }
        if ready {
            self.pending = self.planned(round.into_iter().map(|(index, ..)| index).collect());
        }
        readings
    }

    /// The requests for these points, those that waited longest first.
    fn planned(&mut self, due: Vec<usize>) -> VecDeque<Arc<Group>> {
        let known = self.plans.iter().position(|(points, _)| *points == due);
        let plan = match known {
            Some(index) => self.plans[index].1.clone(),
            None => {
                let plan = self.plan(&due);
                if self.plans.len() >= PLANS_MAX {
                    self.plans.remove(0);
                }
                self.plans.push((due, plan.clone()));
                plan
            }
        };
        let mut pending = plan;
        let served = |group: &Arc<Group>| group.members.iter().map(|member| self.points[member.point].served).min();
        pending.sort_by_cached_key(served);
        pending.into()
    }

    fn plan(&self, due: &[usize]) -> Vec<Arc<Group>> {
        let wanted = due.iter().map(|index| {
            let one = self.points[*index].wanted(*index);
            Wanted { alone: one.alone || self.refusals.is_refused(&one), ..one }
        });
        let barriers = self.refusals.barriers();
        let count_max = |table| self.refusals.count_max(table);
        let costs = Costs::new(self.wire, self.reads, self.turnaround.planned());
        let rules = Rules { costs, barriers: &barriers, count_max: &count_max };
        plan(wanted.collect(), &rules).into_iter().map(Arc::new).collect()
    }

    /// What the device is asked next.
    pub(super) fn take(&mut self) -> Option<Job> {
        if let Some(proof) = self.due_proof() {
            self.proved = true;
            return Some(Job::Proof(proof));
        }
        self.pending.pop_front().map(Job::Read)
    }

    /// A request ended: what is to be written down of it.
    pub(super) fn ended(
        &mut self,
        job: &Job,
        result: Result<&Answer, &Failure>,
        timing: Timing,
        company: Company<'_>,
    ) -> Vec<Reading> {
        let (bus, was_healthy) = (company.bus, self.health.is_healthy());
        if result.is_ok() && was_healthy && timing.is_measure {
            let device_time = timing.took.saturating_sub(self.wire.time(job.request()));
            // On TCP a plan is the same whatever an answer takes: a byte costs next to nothing beside it.
            if self.turnaround.note(device_time) && self.wire.is_serial() {
                self.plans.clear();
            }
        }
        self.note_health(result.err(), timing, company);
        let group = match job {
            Job::Read(group) => group,
            Job::Proof(request) => {
                self.proved_by(bus, *request, result.err(), timing.answered_us);
                return Vec::new();
            }
        };
        match result {
            Ok(answer) => {
                if self.refusals.answered(group.request) {
                    self.plans.clear();
                }
                self.end(group, |point| point.decode(answer, group.request.address()), timing)
            }
            Err(failure) if is_refusal(failure) => self.refuse(bus, group, failure, timing),
            Err(failure) if was_healthy && self.may_ask_again(group, failure, timing) => {
                self.replan = true;
                Vec::new()
            }
            Err(failure) => self.end(group, |_| Err(failure.cause), timing),
        }
    }

    fn end(&mut self, group: &Group, raw: impl Fn(&Point) -> Result<f64, Cause>, timing: Timing) -> Vec<Reading> {
        let (mut readings, mut relents) = (Vec::with_capacity(group.members.len()), false);
        for member in &group.members {
            let point = &mut self.points[member.point];
            let raw = raw(point);
            if raw.is_ok() {
                relents |= point.refused.take().is_some();
            }
            if let Some(due) = point.state.schedule.due(timing.asked_us) {
                readings.extend(point.end(due, raw, (timing.asked_us, timing.answered_us), timing.turn));
            }
        }
        if relents {
            // A device that has begun to answer what it refused may answer more of it.
            self.points.iter_mut().filter_map(|point| point.refused.as_mut()).for_each(|rest| rest.until = timing.now);
        }
        readings
    }

    fn refuse(&mut self, bus: &str, group: &Group, failure: &Failure, timing: Timing) -> Vec<Reading> {
        let verdict = self.refusals.refused(group, timing.answered_us);
        self.plans.clear();
        match verdict {
            Verdict::Point => {
                for member in &group.members {
                    self.points[member.point].refuse(timing.now, failure.cause);
                }
                return self.end(group, |_| Err(failure.cause), timing);
            }
            Verdict::Split => {}
            Verdict::Apart => group.members.iter().for_each(|member| self.points[member.point].alone = true),
        }
        let points = group.members.len();
        info!(bus, device = self.name, points, "a shared request was refused: looking for what is bad in it");
        self.replan = true;
        Vec::new()
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
    fn may_ask_again(&self, group: &Group, failure: &Failure, timing: Timing) -> bool {
        if !matches!(failure.cause, Cause::Timeout | Cause::Crc | Cause::Malformed) {
            return false;
        }
        let enough_us = after(0, self.timeout * RETRY_PERIODS);
        let done_us = after(timing.answered_us, 2 * timing.cost + self.timeout);
        group.members.iter().all(|member| {
            let schedule = &self.points[member.point].state.schedule;
            schedule.grid().every_us() >= enough_us && schedule.next_us(timing.asked_us) > done_us
        })
    }

    fn note_health(&mut self, failure: Option<&Failure>, timing: Timing, company: Company<'_>) {
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
    pub(super) fn note_new_failures(&self, bus: &str, job: &Job) {
        let Job::Read(group) = job else { return };
        for point in group.members.iter().map(|member| &self.points[member.point].state) {
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

fn after(time_us: i64, duration: Duration) -> i64 {
    time_us.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

/// A bus begins the rounds of its devices at so many moments of the spread: each costs a timer, and a hundred devices
/// that are asked one after the other anyway need no moment each.
const SPREAD_STEPS: f64 = 16.0;

/// Where in the spread a device's requests lie, from 0 to 1: by its name, so that a restart changes nothing.
fn share(bus: &str, device: &str) -> f64 {
    let share = f64::from(crc32c::crc32c(format!("{bus}\n{device}").as_bytes())) / (f64::from(u32::MAX) + 1.0);
    (share * SPREAD_STEPS).floor() / SPREAD_STEPS
}

impl Point {
    fn new(point: &ModbusPoint, share: f64, limits: Limits, context: &BusContext) -> Self {
        Self {
            spread_us: point.common.terms.grid.spread_us(share),
            state: PointState::new(&point.common, limits, context),
            table: point.table,
            address: point.address,
            kind: point.kind,
            order: point.order,
            alone: false,
            refused: None,
            served: 0,
        }
    }

    const fn wanted(&self, index: usize) -> Wanted {
        Wanted { point: index, table: self.table, address: self.address, width: self.kind.width(), alone: self.alone }
    }

    fn resting(&self, now: Instant) -> Option<(Instant, Cause)> {
        self.refused.as_deref().filter(|refused| refused.until > now).map(|refused| (refused.until, refused.cause))
    }

    fn refuse(&mut self, now: Instant, cause: Cause) {
        let times = self.refused.as_deref().map_or(0, |refused| refused.times + 1);
        let pause = (REFUSED_PAUSE_MIN * 2_u32.saturating_pow(times.min(16))).min(REFUSED_PAUSE_MAX);
        self.refused = Some(Box::new(Refused { until: now + pause, times, cause }));
    }

    /// Ends a slot.
    fn end(
        &mut self,
        due: Due,
        raw: Result<f64, Cause>,
        (asked_us, answered_us): (i64, i64),
        turn: u64,
    ) -> Option<Reading> {
        self.served = turn;
        self.state.conclude(due, raw, asked_us, answered_us)
    }

    fn decode(&self, answer: &Answer, first: u16) -> Result<f64, Cause> {
        let start = usize::from(self.address.checked_sub(first).ok_or(Cause::Malformed)?);
        match answer {
            Answer::Bits(bits) => bits.get(start).map(|bit| f64::from(u8::from(*bit))).ok_or(Cause::Malformed),
            Answer::Registers(registers) => {
                let own = registers.get(start..start + usize::from(self.kind.width())).ok_or(Cause::Malformed)?;
                self.state.no_value().decode(self.kind, self.order, own)
            }
        }
    }
}
