//! Who is served next on a Modbus bus: everything of an actor but waiting and the wire.
//!
//! Of the devices that have something due, the one that used least of the bus is served: each transaction is charged
//! with the time that it kept the bus, the drain after a lost answer included (start-time fair queueing: Goyal, Vin,
//! Cheng, SIGCOMM 1996). So on a bus that is asked for too much each device has an equal share, what one does not
//! need goes to the others, and neither long reads nor timeouts of one starve another. Who was idle has no credit.
//!
//! Pure but for the jitter of pauses: the caller says what time it is and how long a transaction took.

use std::time::Duration;

use tjern_readings::reading::Reading;
use tjern_readings::rows::Rows;
use tokio::time::Instant;
use tracing::{info, warn};

use super::BusContext;
use super::cost::Wire;
use super::device::{Company, Device, Job, Timing};
use super::health::{Budget, Policy};
use super::learned::BusMemory;
use super::point::Limits;
use super::together::Together;
use crate::config::ModbusDevice;
use crate::grid::steps::{Step, Steps};
use crate::grid::{LOOK_AGAIN, wait};
use crate::modbus::transport::{Answer, Asked, Failure};

/// What is asked together is expected to be answered within so long: nobody waits longer for his turn.
const TOGETHER_MAX: Duration = Duration::from_millis(50);

/// What holds for a whole bus.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) wire: Wire,
    pub(super) limits: Limits,
    pub(super) policy: Policy,
    /// How many requests may be under way at once.
    pub(super) in_flight: usize,
}

#[derive(Debug)]
pub(super) struct Polling {
    name: String,
    devices: Vec<Served>,
    /// Which of them may have something to be asked: all that have are among them.
    busy: Vec<usize>,
    budget: Budget,
    together: Together,
    /// The bus's share clock: what the device that is served had used.
    served_ns: u64,
    turns: u64,
    steps: Steps,
    /// Before that no device has anything to look at.
    wake_us: i64,
}

#[derive(Debug)]
struct Served {
    device: Device,
    /// What it used of the bus, without credit for idleness.
    used_ns: u64,
    turn: u64,
}

impl Polling {
    pub(super) fn new(
        setting: &Setting,
        devices: &[ModbusDevice],
        mut memory: BusMemory,
        context: &BusContext,
    ) -> Self {
        let serve = |configured: &ModbusDevice| {
            let remembered = memory.remove(&configured.unit_id);
            let pace = (setting.wire, setting.policy);
            let mut device = Device::new(&setting.name, configured, pace, setting.limits, context);
            remembered.into_iter().for_each(|memory| device.remember(memory));
            Served { device, used_ns: 0, turn: 0 }
        };
        Self {
            name: setting.name.clone(),
            devices: devices.iter().map(serve).collect(),
            busy: Vec::new(),
            budget: Budget::default(),
            together: Together::new(setting.in_flight),
            served_ns: 0,
            turns: 0,
            steps: Steps::default(),
            wake_us: i64::MIN,
        }
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().map(|served| &served.device)
    }

    pub(super) fn missed(&self) -> u64 {
        self.devices().map(Device::missed).sum()
    }

    /// What is worth to be remembered.
    pub(super) fn memory(&self) -> BusMemory {
        self.devices().map(|device| (device.unit_id, device.memory())).collect()
    }

    /// Looks at the clock: rounds that are due begin. What ended without being asked comes back.
    pub(super) fn look(&mut self, now_us: i64, now: Instant) -> Vec<Reading> {
        let step = self.steps.look(now_us, now);
        if step.is_none() && now_us < self.wake_us {
            return Vec::new();
        }
        step.into_iter().for_each(|step| self.follow(step, now_us));
        let mut readings = Vec::new();
        for index in 0..self.devices.len() {
            if self.devices[index].device.wake_us() > now_us {
                continue;
            }
            self.turns += 1;
            let rest = self.devices[index].device.health.resting(self.budget, self.others(index), now);
            readings.extend(self.devices[index].device.refresh((now_us, now), rest, self.turns));
            if self.devices[index].device.has_work() && !self.busy.contains(&index) {
                self.busy.push(index);
            }
        }
        self.wake_us = self.devices().map(Device::wake_us).min().unwrap_or(i64::MAX);
        readings
    }

    /// The clock was set: its points go on from the time that it says.
    fn follow(&mut self, step: Step, now_us: i64) {
        let devices = self.devices.iter_mut().map(|served| &mut served.device);
        match step {
            Step::Forward(by_us) => devices.for_each(|device| device.follow_step_forward(now_us, by_us)),
            Step::Back => {
                let points: usize = devices.map(|device| device.follow_step_back(now_us)).sum();
                if points > 0 {
                    warn!(
                        bus = self.name,
                        points, "the clock was set back by more than a period: going on from the time it says"
                    );
                }
            }
        }
    }

    /// Whether another device of the bus is healthy.
    fn others(&self, index: usize) -> bool {
        let is_other = |(other, served): (usize, &Served)| other != index && served.device.health.is_healthy();
        self.devices.iter().enumerate().any(is_other)
    }

    /// What is asked next: nothing, one request, or several where the bus is known to bear them, and as long as all of
    /// them are expected to be answered within [`TOGETHER_MAX`].
    pub(super) fn next_together(&mut self, now: Instant) -> Vec<(usize, Job)> {
        let Some(first) = self.next(now, |_| true) else { return Vec::new() };
        let (most, mut jobs) = (self.together.most(now), vec![first]);
        // A proof was taken already, and is no longer due.
        let is_read = jobs.iter().all(|(_, job)| matches!(job, Job::Read(_)));
        let mut left = Some(TOGETHER_MAX).filter(|_| is_read && most > 1);
        while jobs.len() < most {
            let last = jobs.last().and_then(|(index, _)| self.devices[*index].device.in_company());
            left = left.zip(last).and_then(|(left, last)| left.checked_sub(last));
            let Some(left) = left else { break };
            let fits = |device: &Device| device.in_company().is_some_and(|pace| pace <= left);
            let Some(another) = self.next(now, fits) else { break };
            jobs.push(another);
        }
        jobs
    }

    /// Which device is asked next, and what.
    fn next(&mut self, now: Instant, may_be: impl Fn(&Device) -> bool) -> Option<(usize, Job)> {
        // Only a look at the clock gives a device something to be asked.
        self.busy.retain(|index| self.devices[*index].device.has_work());
        let rank = |index: &usize| {
            let (index, served) = (*index, &self.devices[*index]);
            let resting = || served.device.health.resting(self.budget, self.others(index), now).is_some();
            let eligible = may_be(&served.device) && !resting();
            eligible.then(|| (served.used_ns.max(self.served_ns), served.turn, index))
        };
        let (start_ns, _, index) = self.busy.iter().filter_map(rank).min()?;
        self.turns += 1;
        self.served_ns = start_ns;
        let served = &mut self.devices[index];
        (served.used_ns, served.turn) = (start_ns, self.turns);
        Some((index, served.device.take()?))
    }

    /// How much longer devices are left alone than any is.
    pub(super) fn gap(&self, jobs: &[(usize, Job)]) -> Duration {
        jobs.iter().map(|(index, _)| self.devices[*index].device.gap).max().unwrap_or_default()
    }

    /// What is asked of whom.
    pub(super) fn asked(&self, (index, job): &(usize, Job)) -> Asked {
        Asked { unit: self.devices[*index].device.unit_id, request: job.request() }
    }

    /// A request ended: what is to be written down.
    pub(super) fn ended(
        &mut self,
        (index, job): (usize, &Job),
        result: Result<&Answer, &Failure>,
        mut timing: Timing,
    ) -> Rows {
        timing.turn = self.turns;
        let others = self.others(index);
        let served = &mut self.devices[index];
        let cost_ns = u64::try_from(timing.cost.as_nanos()).unwrap_or(u64::MAX);
        served.used_ns = served.used_ns.saturating_add(cost_ns);
        let company = Company { bus: &self.name, budget: &mut self.budget, others };
        let readings = served.device.ended(job, result, timing, company);
        self.wake_us = self.wake_us.min(served.device.wake_us());
        served.device.note_new_failures(&self.name, job);
        readings
    }

    /// All of several requests were answered.
    pub(super) fn went_well(&mut self, now: Instant) {
        self.together.succeeded(now);
    }

    /// Of several requests one was not answered, which kept the bus for so long: all are asked again, one after the other. Those
    /// that were silent pay for it, so that the others are asked first, and are asked alone from then on: of several that
    /// are dead each would cost all others such a wait.
    pub(super) fn fell_through(&mut self, jobs: &[(usize, Job)], failure: &Failure, (cost, now): (Duration, Instant)) {
        let is_silent = |device: &Device| failure.silent().contains(&device.unit_id);
        let silent = jobs.iter().filter(|(index, _)| is_silent(&self.devices[*index].device)).count();
        // Where that is not known it was everybody.
        let payers = if silent > 0 { silent } else { jobs.len() };
        let share = cost / u32::try_from(payers).unwrap_or(u32::MAX).max(1);
        let share_ns = u64::try_from(share.as_nanos()).unwrap_or(u64::MAX);
        for (index, _) in jobs {
            let served = &mut self.devices[*index];
            let was_silent = is_silent(&served.device);
            if was_silent || silent == 0 {
                served.used_ns = served.used_ns.saturating_add(share_ns);
            }
            served.device.ask_again(was_silent);
            self.wake_us = self.wake_us.min(served.device.wake_us());
        }
        if self.together.failed(now) {
            info!(
                bus = self.name,
                requests = jobs.len(),
                "not all requests that were asked together were answered: they are asked one after the other; {failure}; hint: if it happens often, a device does not bear the bus's `in_flight`"
            );
        }
    }

    /// The bus ends: what is to be written down of slots in which somebody waits to be asked once more.
    pub(super) fn give_up(&mut self, now_us: i64) -> Vec<Reading> {
        let turn = self.turns;
        self.devices.iter_mut().flat_map(|served| served.device.give_up(now_us, turn)).collect()
    }

    /// How long there is nothing to do.
    pub(super) fn pause(&self, now_us: i64, now: Instant) -> Duration {
        let pause = |(index, served): (usize, &Served)| {
            let rest = served.device.health.resting(self.budget, self.others(index), now);
            let rest = rest.filter(|_| served.device.has_work()).map(|(until, _)| until - now);
            rest.unwrap_or(LOOK_AGAIN).min(wait(served.device.wake_us(), now_us))
        };
        self.devices.iter().enumerate().map(pause).min().unwrap_or(LOOK_AGAIN)
    }
}

#[cfg(test)]
mod tests;
