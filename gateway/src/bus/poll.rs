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
use tokio::time::Instant;
use tracing::warn;

use super::BusContext;
use super::cost::Wire;
use super::device::{Company, Device, Job, Timing};
use super::health::{Budget, Policy};
use super::learned::BusMemory;
use super::point::Limits;
use crate::config::ModbusDevice;
use crate::grid::{LOOK_AGAIN, wait};
use crate::modbus::transport::{Answer, Failure};

/// What holds for a whole bus.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) wire: Wire,
    pub(super) limits: Limits,
    pub(super) policy: Policy,
}

#[derive(Debug)]
pub(super) struct Polling {
    name: String,
    devices: Vec<Served>,
    budget: Budget,
    /// The bus's share clock: what the device that is served had used.
    served_ns: u64,
    turns: u64,
    looked_us: i64,
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
            budget: Budget::default(),
            served_ns: 0,
            turns: 0,
            looked_us: i64::MIN,
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
        if now_us < self.looked_us {
            let follow = |served: &mut Served| served.device.follow_step_back(now_us);
            let points: usize = self.devices.iter_mut().map(follow).sum();
            if points > 0 {
                warn!(
                    bus = self.name,
                    points, "the clock was set back by more than a period: going on from the time it says"
                );
            }
        }
        self.looked_us = now_us;
        let mut readings = Vec::new();
        for index in 0..self.devices.len() {
            if self.devices[index].device.wake_us() > now_us {
                continue;
            }
            self.turns += 1;
            let rest = self.devices[index].device.health.resting(self.budget, self.others(index), now);
            readings.extend(self.devices[index].device.refresh((now_us, now), rest, self.turns));
        }
        readings
    }

    /// Whether another device of the bus is healthy.
    fn others(&self, index: usize) -> bool {
        let is_other = |(other, served): (usize, &Served)| other != index && served.device.health.is_healthy();
        self.devices.iter().enumerate().any(is_other)
    }

    /// Which device is asked next, and what.
    pub(super) fn next(&mut self, now: Instant) -> Option<(usize, Job)> {
        let rank = |(index, served): (usize, &Served)| {
            let resting = || served.device.health.resting(self.budget, self.others(index), now).is_some();
            let eligible = served.device.has_work() && !resting();
            eligible.then(|| (served.used_ns.max(self.served_ns), served.turn, index))
        };
        let (start_ns, _, index) = self.devices.iter().enumerate().filter_map(rank).min()?;
        self.turns += 1;
        self.served_ns = start_ns;
        let served = &mut self.devices[index];
        (served.used_ns, served.turn) = (start_ns, self.turns);
        Some((index, served.device.take()?))
    }

    /// How much longer a device is left alone than any is.
    pub(super) fn gap(&self, index: usize) -> Duration {
        self.devices[index].device.gap
    }

    /// The unit id of a device.
    pub(super) fn unit_id(&self, index: usize) -> u8 {
        self.devices[index].device.unit_id
    }

    /// A request ended: what is to be written down.
    pub(super) fn ended(
        &mut self,
        (index, job): (usize, &Job),
        result: Result<&Answer, &Failure>,
        mut timing: Timing,
    ) -> Vec<Reading> {
        timing.turn = self.turns;
        let others = self.others(index);
        let served = &mut self.devices[index];
        let cost_ns = u64::try_from(timing.cost.as_nanos()).unwrap_or(u64::MAX);
        served.used_ns = served.used_ns.saturating_add(cost_ns);
        let company = Company { bus: &self.name, budget: &mut self.budget, others };
        let readings = served.device.ended(job, result, timing, company);
        served.device.note_new_failures(&self.name, job);
        readings
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
