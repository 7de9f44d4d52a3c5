//! A Modbus device while it is polled: its rounds, what its answers mean, what is known of it.
//!
//! A **round** is everything of the device that is due at a moment: when a point's slot has begun and its share of
//! the spread is over, all that is due rides along, planned into as few requests as bus time allows. A round ends
//! where the slot of one of its points does; what was not read by then is due again, in its new slot, and goes
//! first. So nothing queues, and no point starves another. A slot that passes is missed, and never made up for. Where a slot's
//! first request fails for a reason that passes, it is asked again in the same slot (`outcome`).
//!
//! No I/O and no waiting: the actor of the bus does both.

mod answered;
mod outcome;
mod point;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tjern_readings::reading::{Cause, Reading};
use tjern_readings::sensor::SensorId;
use tokio::time::Instant;

use super::BusContext;
use super::cost::{Costs, Turnaround, Wire};
use super::health::{Budget, Health, Policy};
use super::learned::{DeviceMemory, fingerprint};
use super::plan::{Group, Rules, Wanted, plan};
use super::point::{Limits, PointState};
use super::refusal::Refusals;
use super::state::DeviceCell;
use crate::config::{ModbusDevice, ReadLimits};
use crate::grid::Due;
use crate::modbus::transport::ReadRequest;
use point::{Point, share};

/// Plans that are kept: one a combination of points that are due together.
const PLANS_MAX: usize = 8;

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
    plans: Vec<(Vec<usize>, Vec<Arc<Planned>>)>,
    pending: VecDeque<Arc<Planned>>,
    /// The points of the round that began last; kept for its room.
    due_points: Vec<usize>,
    /// Where a slot of the round's points ends.
    round_until_us: i64,
    /// When a round may begin.
    wake_us: i64,
    /// What is left of the round is to be planned anew.
    replan: bool,
    /// A round asks at most one question that serves no point.
    proved: bool,
    /// Points that are asked for once more in their slot, and not before that.
    later: HashMap<usize, Later>,
}

/// When a point is asked for once more, and in which slot.
#[derive(Debug, Clone, Copy)]
struct Later {
    at: Instant,
    slot_us: i64,
    times: u32,
    /// Why not now.
    cause: Cause,
}

/// A request of a plan.
#[derive(Debug)]
pub(super) struct Planned {
    group: Group,
    /// Those of its points: all rounds of its answers share them.
    sensors: Arc<[SensorId]>,
}

/// A request that a device is asked.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// For these points.
    Read(Arc<Planned>),
    /// To find out what it refuses.
    Proof(ReadRequest),
}

impl Planned {
    /// Whom its answer serves, in the order of its sensors.
    fn points(&self) -> impl Iterator<Item = usize> + '_ {
        self.group.members.iter().map(|member| member.point)
    }
}

impl Job {
    pub(super) fn request(&self) -> ReadRequest {
        match self {
            Self::Read(planned) => planned.group.request,
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
        let shown = device.points.iter().map(|point| PointState::shown(&point.common)).collect();
        let cell = DeviceCell::new(&device.name, Some(device.unit_id), shown);
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
            due_points: Vec::new(),
            round_until_us: i64::MAX,
            wake_us: i64::MIN,
            replan: false,
            proved: false,
            later: HashMap::new(),
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

    /// The clock was set forward by so much: its points miss none of the slots that it passed over.
    pub(super) fn follow_step_forward(&mut self, now_us: i64, by_us: i64) {
        self.points.iter_mut().for_each(|point| point.state.schedule.follow_step_forward(now_us, by_us));
    }

    /// What one of its answers takes, if it may be asked together with others: one that does not answer, or of which
    /// nothing is known yet, is found out by asking it alone.
    pub(super) fn in_company(&self) -> Option<Duration> {
        let is_sociable = self.health.is_sociable() && self.gap.is_zero() && self.due_proof().is_none();
        self.turnaround.planned().filter(|_| is_sociable)
    }

    /// What is asked only to find out what it refuses.
    fn due_proof(&self) -> Option<ReadRequest> {
        if self.proved { None } else { self.refusals.proof() }
    }

    /// It was asked together with others, and not all answered: what is due is asked again, alone where it was silent.
    pub(super) fn ask_again(&mut self, was_silent: bool) {
        self.replan = true;
        if was_silent {
            self.health.was_silent_in_company();
        }
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
        let mut due_points = std::mem::take(&mut self.due_points);
        due_points.clear();
        // When the round may begin at the earliest, and when its next one may.
        let (mut ready_us, mut next_us, mut readings) = (i64::MAX, i64::MAX, Vec::new());
        for (index, point) in self.points.iter_mut().enumerate() {
            let (missed, schedule) = (point.state.schedule.missed(), &mut point.state.schedule);
            let (due, slot_end_us) = schedule.look(now_us);
            if schedule.missed() != missed {
                self.cell.latest()[index].missed = schedule.missed();
            }
            let point_next_us = slot_end_us.saturating_add(point.spread_us);
            let Some(due) = due else {
                self.wake_us = self.wake_us.min(point_next_us);
                continue;
            };
            let rest = if point.refused.is_some() { rest.max(point.resting(now)) } else { rest };
            let later = self.later.get(&index).filter(|later| later.slot_us == due.slot_us && later.at > now);
            let rest = rest.max(later.map(|later| (later.at, later.cause)));
            if let Some((until, cause)) = rest {
                let until_us = after(now_us, until.saturating_duration_since(now));
                if until_us >= slot_end_us {
                    let latest = &mut self.cell.latest()[index];
                    let ended = point.end(due, Err(cause), (now_us, now_us), turn, latest);
                    self.later.remove(&index);
                    readings.extend(ended.map(|ended| ended.reading(point.state.sensor.clone())));
                    self.wake_us = self.wake_us.min(point_next_us);
                } else {
                    self.wake_us = self.wake_us.min(until_us);
                }
                continue;
            }
            let is_at_once = due.first || behind;
            ready_us = ready_us.min(if is_at_once { now_us } else { due.slot_us.saturating_add(point.spread_us) });
            next_us = next_us.min(point_next_us);
            self.round_until_us = self.round_until_us.min(slot_end_us);
            due_points.push(index);
        }
        if ready_us <= now_us {
            self.pending = self.planned(&due_points);
        }
        self.wake_us = self.wake_us.min(if ready_us <= now_us { next_us } else { ready_us });
        self.due_points = due_points;
        readings
    }

    /// The bus ends: slots in which a point waits to be asked once more end with why it was not answered. One that has just
    /// begun is left to who begins after this, and polls it.
    pub(super) fn give_up(&mut self, now_us: i64, turn: u64) -> Vec<Reading> {
        let mut readings = Vec::new();
        for (index, later) in std::mem::take(&mut self.later) {
            let point = &mut self.points[index];
            let is_its = |due: &Due| due.slot_us == later.slot_us;
            let is_fresh = point.state.schedule.grid().is_fresh(later.slot_us, now_us);
            let Some(due) = point.state.schedule.due(now_us).filter(is_its).filter(|_| !is_fresh) else { continue };
            let latest = &mut self.cell.latest()[index];
            let ended = point.end(due, Err(later.cause), (now_us, now_us), turn, latest);
            readings.extend(ended.map(|ended| ended.reading(point.state.sensor.clone())));
        }
        readings
    }

    /// The requests for these points, those that waited longest first.
    fn planned(&mut self, due: &[usize]) -> VecDeque<Arc<Planned>> {
        let known = self.plans.iter().position(|(points, _)| points == due);
        let plan = match known {
            Some(index) => self.plans[index].1.clone(),
            None => {
                let plan = self.plan(due);
                if self.plans.len() >= PLANS_MAX {
                    self.plans.remove(0);
                }
                self.plans.push((due.to_vec(), plan.clone()));
                plan
            }
        };
        let mut pending = plan;
        let served = |planned: &Arc<Planned>| planned.points().map(|point| self.points[point].served).min();
        pending.sort_by_cached_key(served);
        pending.into()
    }

    fn plan(&self, due: &[usize]) -> Vec<Arc<Planned>> {
        let wanted = due.iter().map(|index| {
            let one = self.points[*index].wanted(*index);
            Wanted { alone: one.alone || self.refusals.is_refused(&one), ..one }
        });
        let barriers = self.refusals.barriers();
        let count_max = |table| self.refusals.count_max(table);
        let costs = Costs::new(self.wire, self.reads, self.turnaround.planned());
        let rules = Rules { costs, barriers: &barriers, count_max: &count_max };
        let planned = |group: Group| {
            let sensor = |member: &Wanted| self.points[member.point].state.sensor.clone();
            Arc::new(Planned { sensors: group.members.iter().map(sensor).collect(), group })
        };
        plan(wanted.collect(), &rules).into_iter().map(planned).collect()
    }

    /// What the device is asked next.
    pub(super) fn take(&mut self) -> Option<Job> {
        if let Some(proof) = self.due_proof() {
            self.proved = true;
            return Some(Job::Proof(proof));
        }
        self.pending.pop_front().map(Job::Read)
    }
}

fn after(time_us: i64, duration: Duration) -> i64 {
    time_us.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}
