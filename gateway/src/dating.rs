//! Which time readings get that were taken while the clock was not known.
//!
//! ```text
//! the clock is believed      readings ─────────────────────────────▶ spool
//! not yet                    readings ─▶ held on disk ─┬─ it comes ─▶ spool, on their slots, nothing marked
//!                                                      └─ never, or a power cut before ─▶ spool, as estimated,
//!                                                         `clock_estimated`
//! ```
//!
//! Invariants: no reading is lost or stored twice, whatever is cut off; readings enter the spool in the order
//! in which they were taken, but for those with a device's own time, which need no clock and do not wait; no slot
//! is stored twice where the estimate runs into the time that comes. Limits: [`Dater`] holds for `patience`, or
//! until the held ones fill their share of the spool; after that it marks at once.

use std::collections::{HashMap, HashSet};

use tjern_readings::clock::Clock;
use tjern_readings::reading::{Cause, Reading, TIMES_US};
use tjern_readings::sensor::SensorId;
use tracing::{error, info, warn};

use crate::clock::{Witness, known_us, working};
use crate::config::{BusKind, Config};
use crate::grid::Grid;
use crate::maintenance::Maintenance;
use crate::spool::{Spool, SpoolSettings, Undated};
use crate::system::SystemReadings;

/// What is known of the sensors.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sensors {
    grids: HashMap<SensorId, Grid>,
    /// Those whose devices say what time it is.
    own_time: HashSet<SensorId>,
}

/// How a clock that is not known is dealt with.
#[derive(Debug, Clone)]
pub(crate) struct ClockPolicy {
    /// How long readings wait for it.
    pub(crate) patience_us: i64,
    /// It is right, whatever it says.
    pub(crate) trusted: bool,
    /// Who is asked.
    pub(crate) witness: Witness,
}

/// The way of readings into the spool.
#[derive(Debug)]
pub(crate) struct Dater {
    maintenance: Maintenance,
    /// The gateway's own readings, which join others once the clock is known.
    system: Option<SystemReadings>,
    spool: Spool,
    settings: SpoolSettings,
    clock: Clock,
    policy: ClockPolicy,
    sensors: Sensors,
    known_us: i64,
    began_us: i64,
    hold: Hold,
    /// What an earlier run left.
    leftover: Option<Undated>,
    /// The last slot of a sensor that was dated when the clock came.
    redated: HashMap<SensorId, i64>,
}

#[derive(Debug)]
enum Hold {
    /// Nothing is held yet.
    Empty,
    /// On disk.
    Held(Undated),
    /// No longer: what comes is marked.
    Over,
}

impl Sensors {
    /// Those of a configuration.
    pub(crate) fn of(config: &Config) -> Self {
        let mut sensors = Self::default();
        for bus in config.buses() {
            match &bus.kind {
                BusKind::ModbusTcp { devices, .. }
                | BusKind::ModbusRtu { devices, .. }
                | BusKind::ModbusRtuTcp { devices, .. } => {
                    let points = devices.iter().flat_map(|device| &device.points);
                    sensors.grids.extend(points.map(|point| (point.common.sensor.clone(), point.common.grid)));
                }
                BusKind::TextLines { points, .. } => {
                    let own = points.iter().filter(|point| point.time.is_some());
                    sensors.own_time.extend(own.map(|point| point.common.sensor.clone()));
                    sensors.grids.extend(points.iter().map(|point| (point.common.sensor.clone(), point.common.grid)));
                }
            }
        }
        sensors
    }

    /// Whether a reading's time is the device's, and not that of a slot.
    fn has_own_time(&self, reading: &Reading) -> bool {
        self.own_time.contains(&reading.sensor) && (reading.cause.is_none() || !self.is_on_grid(reading))
    }

    fn is_on_grid(&self, reading: &Reading) -> bool {
        let grid = self.grids.get(&reading.sensor);
        grid.is_some_and(|grid| grid.slot_of(reading.time_us) == reading.time_us)
    }

    /// The reading with the time that it has by a clock which was so far before the estimate: a slot's is
    /// the slot in which the poll began, and the rest of the way is its lag.
    fn date(&self, offset_us: Option<i64>, mut reading: Reading) -> Reading {
        let Some(offset_us) = offset_us else {
            if reading.value.is_some() {
                reading.cause = Some(Cause::ClockEstimated);
            }
            return reading;
        };
        let asked_us = reading.time_us.saturating_add(offset_us);
        match self.grids.get(&reading.sensor).filter(|_| self.is_on_grid(&reading)) {
            Some(grid) => {
                let answered_us = asked_us + i64::from(reading.lag_ms.unwrap_or(0)) * 1_000;
                reading.time_us = grid.slot_of(asked_us);
                reading.lag_ms = grid.lag_ms(reading.time_us, answered_us);
            }
            None => reading.time_us = asked_us,
        }
        reading
    }
}

impl Dater {
    /// The way into this spool, and the clock to work with. Blocks while it reads what an earlier run left.
    pub(crate) fn begin(
        spool: Spool,
        settings: SpoolSettings,
        wall: &Clock,
        sensors: Sensors,
        policy: ClockPolicy,
    ) -> (Self, Clock) {
        let leftover = Undated::is_there(&spool).then(|| Undated::open(&spool, &settings, wall.clone()));
        let leftover = leftover.transpose().unwrap_or_else(|error| {
            error!("readings without a certain time cannot be had, and wait for the next start: {error}");
            None
        });
        let newest_us = spool.newest_of_all_us().max(leftover.as_ref().and_then(Undated::newest_of_all_us));
        let known_us = known_us(newest_us, wall.wall_us());
        let clock = if policy.trusted { wall.clone() } else { working(wall, known_us, &policy.witness) };
        if !clock.is_set() {
            warn!(
                "the clock is not known yet: readings are taken, and dated once it is; hint: is a time server reachable?"
            );
        }
        let began_us = wall.monotonic_us();
        let dater = Self {
            maintenance: Maintenance::of(settings.dir.clone()),
            system: None,
            spool,
            settings,
            clock: clock.clone(),
            policy,
            sensors,
            known_us,
            began_us,
            hold: Hold::Empty,
            leftover,
            redated: HashMap::new(),
        };
        (dater, clock)
    }

    /// The same, with the gateway's own readings.
    pub(crate) fn with_system(mut self, system: Option<SystemReadings>) -> Self {
        self.system = system;
        self
    }

    /// After a reload: what the sensors are from now on.
    pub(crate) fn set_sensors(&mut self, sensors: Sensors) {
        self.sensors = sensors;
    }

    /// Whether it has to look at the clock now and then.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.clock.is_set() || self.leftover.is_some()
    }

    /// Takes readings, in the order in which they were made.
    pub(crate) async fn take(&mut self, mut readings: Vec<Reading>) {
        self.look().await;
        let came = readings.len();
        // No batch may hold such a time, and one would keep all others of its batch out of the lake.
        readings.retain(|reading| TIMES_US.contains(&reading.time_us));
        if readings.len() < came {
            error!(readings = came - readings.len(), "the clock is centuries off: these are not kept");
        }
        let (mut ready, mut held) = (Vec::new(), Vec::new());
        for reading in readings {
            if self.sensors.has_own_time(&reading) {
                ready.push(reading);
            } else if !self.clock.is_estimate(reading.time_us) {
                // The slot in which the clock came was polled by the estimate already.
                let is_stored = self.redated.get(&reading.sensor) == Some(&reading.time_us);
                ready.extend((!is_stored).then_some(reading));
            } else if let Some(offset_us) = self.clock.offset_us() {
                // It was under way when the clock came.
                let dated = self.sensors.date(Some(offset_us), reading);
                note(&mut self.redated, &dated);
                ready.push(dated);
            } else {
                held.push(reading);
            }
        }
        self.hold(held, &mut ready).await;
        self.maintenance.mark(&mut ready);
        if let Some(system) = self.system.as_mut().filter(|_| self.clock.is_set()) {
            system.join(&mut ready);
        }
        self.spool.append(ready).await;
    }

    /// Holds readings, or marks them where nothing is held any more.
    async fn hold(&mut self, readings: Vec<Reading>, ready: &mut Vec<Reading>) {
        if readings.is_empty() {
            return;
        }
        if matches!(self.hold, Hold::Empty) {
            self.hold = match Undated::open(&self.spool, &self.settings, self.clock.clone()) {
                Ok(undated) => Hold::Held(undated),
                Err(error) => {
                    error!("readings without a certain time cannot be held, and are marked: {error}");
                    Hold::Over
                }
            };
        }
        match &self.hold {
            Hold::Held(undated) => undated.hold(readings).await,
            Hold::Empty | Hold::Over => {
                ready.extend(readings.into_iter().map(|reading| self.sensors.date(None, reading)));
            }
        }
    }

    /// Looks whether the clock has come, or was waited for long enough.
    pub(crate) async fn look(&mut self) {
        if let Some(leftover) = self.leftover.take() {
            // Its run is over: nobody can say any more what time it was.
            self.release(leftover, None).await;
        }
        if self.clock.is_set() {
            return;
        }
        if self.policy.witness.believes(self.clock.wall_us(), self.known_us) {
            let offset_us = self.clock.settle();
            info!(seconds = offset_us / 1_000_000, "the clock is known: readings since the start are dated by it");
            self.give_up_holding(Some(offset_us)).await;
            return;
        }
        let waited_us = self.clock.monotonic_us() - self.began_us;
        let is_full = matches!(&self.hold, Hold::Held(undated) if undated.is_full());
        if !matches!(self.hold, Hold::Over) && (waited_us >= self.policy.patience_us || is_full) {
            warn!("the clock did not come: readings are kept with an estimated time, and say so");
            self.give_up_holding(None).await;
        }
    }

    async fn give_up_holding(&mut self, offset_us: Option<i64>) {
        if let Hold::Held(undated) = std::mem::replace(&mut self.hold, Hold::Over) {
            self.release(undated, offset_us).await;
        }
    }

    async fn release(&mut self, undated: Undated, offset_us: Option<i64>) {
        let Self { spool, sensors, redated, maintenance, .. } = self;
        let mut date = |offset_us: Option<i64>, reading: Reading| {
            let mut dated = sensors.date(offset_us, reading);
            if offset_us.is_some() {
                note(redated, &dated);
            }
            maintenance.mark(std::slice::from_mut(&mut dated));
            dated
        };
        undated.release(spool, offset_us, &mut date).await;
    }

    /// Brings what is held to disk.
    pub(crate) async fn end(self) {
        for undated in self.leftover.into_iter().chain(match self.hold {
            Hold::Held(undated) => Some(undated),
            Hold::Empty | Hold::Over => None,
        }) {
            undated.close().await;
        }
    }
}

fn note(redated: &mut HashMap<SensorId, i64>, reading: &Reading) {
    let newest_us = redated.entry(reading.sensor.clone()).or_insert(reading.time_us);
    *newest_us = reading.time_us.max(*newest_us);
}

#[cfg(test)]
mod tests;
