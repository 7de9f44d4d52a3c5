//! Which time readings get that were taken while the clock was not known.
//!
//! ```text
//! the clock is believed      readings ─────────────────────────────▶ spool
//! not yet                    readings ─▶ held on disk ─┬─ it comes ─▶ spool, on their slots, nothing marked
//!                                                      └─ never, or a power cut before ─▶ spool, as estimated,
//!                                                         `clock_estimated`
//! it fell back while we ran  readings, by the time that passed since ─▶ spool, `clock_estimated` (`doubt`)
//! ```
//!
//! Invariants: no reading is lost or stored twice, whatever is cut off; readings enter the spool in the order
//! in which they were taken, but for those with a device's own time, which need no clock and do not wait; no slot
//! is stored twice where the estimate runs into the time that comes. A disk that refuses to move what is held
//! stops nobody: it is asked again, and what comes meanwhile goes before it; once a part may have moved, it waits
//! in memory instead. Limits: [`Dater`] holds for `patience`, or until the held ones fill their share of the
//! spool; after that, or while what an earlier run held is still there, it marks at once. [`BEHIND_MAX`].

mod doubt;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use tjern_readings::clock::{Clock, SECOND_US};
use tjern_readings::reading::{Cause, Reading, TIMES_US};
use tjern_readings::rows::Rows;
use tjern_readings::sensor::SensorId;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::bus::DeviceTimes;
use crate::clock::{BEHIND_MAX_US, Witness, known_us, working};
use crate::config::{Bus, BusKind, Config};
use crate::grid::Grid;
use crate::maintenance::{Maintenance, MaintenanceTold};
use crate::spool::{Spool, SpoolSettings, Undated};
use crate::system::SystemReadings;
use doubt::Doubts;

/// The most readings that wait in memory behind a move that was begun and is stuck.
const BEHIND_MAX: usize = 100_000;

/// A disk that refuses is asked again after this.
const RETRY_US: i64 = SECOND_US;

/// What is known of the sensors.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sensors {
    buses: Vec<Arc<Bus>>,
    /// Gathered when the first is asked for: while the clock is known nobody does.
    grids: OnceLock<HashMap<SensorId, Grid>>,
    /// Those whose devices say what time it is.
    own_time: HashSet<SensorId>,
    /// The SHA-256 (hex) of the configuration.
    sha256: Option<String>,
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
    device_times: DeviceTimes,
    known_us: i64,
    began_us: i64,
    doubts: Doubts,
    /// The latest that the clock said while it was believed, and whether it is before that now.
    seen_us: i64,
    is_behind: bool,
    hold: Hold,
    /// What moves to the spool, and how it is dated: what an earlier run left, or this one held.
    leaving: Option<(Undated, Option<i64>)>,
    /// On the monotonic clock.
    try_again_us: i64,
    /// What came after the move was begun.
    behind: Vec<Reading>,
    behind_dropped: usize,
    /// Readings went from memory in this run: nobody knows which.
    has_lost: bool,
    /// The newest slot of each sensor that this run held.
    held_slots: HashMap<SensorId, i64>,
    /// The newest time of each sensor among what is not in the spool yet.
    held_newest: Arc<Mutex<HashMap<SensorId, i64>>>,
    /// The last slot of a sensor that was dated when the clock came.
    redated: HashMap<SensorId, i64>,
}

#[derive(Debug)]
enum Hold {
    /// Nothing is held yet.
    Empty,
    /// On disk.
    Held(Box<Undated>),
    /// No longer: what comes is marked.
    Over,
}

impl Sensors {
    /// Those of a configuration.
    pub(crate) fn of(config: &Config) -> Self {
        let mut own_time = HashSet::new();
        for bus in config.buses() {
            if let BusKind::TextLines { points, .. } = &bus.kind {
                let own = points.iter().filter(|point| point.time.is_some());
                own_time.extend(own.map(|point| point.common.sensor.clone()));
            }
        }
        Self { buses: config.buses().to_vec(), grids: OnceLock::new(), own_time, sha256: Some(config.sha256()) }
    }

    /// Whether this sensor's times are by our clock, and so a word about it.
    pub(crate) fn are_ours(&self, sensor: &SensorId) -> bool {
        !self.own_time.contains(sensor)
    }

    fn grid(&self, sensor: &SensorId) -> Option<Grid> {
        let gather =
            || self.buses.iter().flat_map(|bus| bus.commons()).map(|common| (common.sensor.clone(), common.terms.grid));
        self.grids.get_or_init(|| gather().collect()).get(sensor).copied()
    }

    /// Whether a reading's time is the device's, and not that of a slot. One of a slot that has a value says that its time is an
    /// estimate; of one without a value only the bus knows that made it, since a logger's times lie on the grid as well.
    fn has_own_time(&self, reading: &Reading, device_times: &DeviceTimes) -> bool {
        self.own_time.contains(&reading.sensor)
            && match reading.value {
                Some(_) => reading.cause.is_none(),
                None => device_times.take_own(reading),
            }
    }

    fn is_on_grid(&self, reading: &Reading) -> bool {
        let grid = self.grid(&reading.sensor);
        grid.is_some_and(|grid| grid.slot_of(reading.time_us) == reading.time_us)
    }

    /// The reading with the time that it has by a clock which was so far before the estimate: a slot's is
    /// the slot in which the poll began, and the rest of the way is its lag.
    fn date(&self, offset_us: Option<i64>, mut reading: Reading) -> Reading {
        let Some(offset_us) = offset_us else {
            estimated(&mut reading);
            return reading;
        };
        let asked_us = reading.time_us.saturating_add(offset_us);
        match self.grid(&reading.sensor).filter(|_| self.is_on_grid(&reading)) {
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
        let held_newest = leftover.as_ref().map(Undated::newest).unwrap_or_default();
        let newest_us = spool.newest_of_all_us().max(leftover.as_ref().and_then(Undated::newest_of_all_us));
        // What a device says of its time is no word about ours.
        let sure_us = spool.newest_sure_us(|sensor| sensors.are_ours(sensor));
        let known_us = known_us(sure_us, wall.wall_us());
        let newest_us = Some(crate::clock::known_us(newest_us, wall.wall_us()));
        let clock = if policy.trusted {
            wall.clone()
        } else {
            working(wall, known_us, newest_us, &policy.witness).guarded(BEHIND_MAX_US)
        };
        if !clock.is_set() {
            say_that_it_is_not_known(wall.wall_us(), known_us);
        }
        let began_us = wall.monotonic_us();
        let dater = Self {
            maintenance: Maintenance::of(settings.dir.clone(), clock.clone(), policy.witness.root().to_owned()),
            system: None,
            spool,
            settings,
            clock: clock.clone(),
            policy,
            sensors,
            device_times: DeviceTimes::default(),
            known_us,
            began_us,
            doubts: Doubts::default(),
            seen_us: i64::MIN,
            is_behind: false,
            hold: Hold::Empty,
            // Its run is over: nobody can say any more what time it was.
            leaving: leftover.map(|leftover| (leftover, None)),
            try_again_us: began_us,
            behind: Vec::new(),
            behind_dropped: 0,
            has_lost: false,
            held_slots: HashMap::new(),
            held_newest: Arc::new(Mutex::new(held_newest)),
            redated: HashMap::new(),
        };
        (dater, clock)
    }

    /// The same, with the gateway's own readings.
    pub(crate) fn with_system(mut self, system: Option<SystemReadings>) -> Self {
        self.system = system;
        self
    }

    /// The same, which knows what the buses know of their devices' own times.
    pub(crate) fn with_device_times(mut self, device_times: DeviceTimes) -> Self {
        self.device_times = device_times;
        self
    }

    /// What is under maintenance, or why that is not known.
    pub(crate) fn maintenance_told(&self) -> MaintenanceTold {
        self.maintenance.told()
    }

    /// After a reload: what the sensors are from now on. What is held keeps the configuration that it was measured under.
    pub(crate) async fn set_sensors(&mut self, sensors: Sensors) {
        if let Some(sha256) = &sensors.sha256 {
            self.settings.configuration = Some(sha256.clone());
            if let Hold::Held(undated) = &self.hold {
                undated.set_configuration(sha256.clone()).await;
            }
        }
        self.sensors = sensors;
    }

    /// The newest time of a sensor, in the spool or on its way there.
    pub(crate) fn newest_of(&self) -> impl Fn(&SensorId) -> Option<i64> + Send + Sync + 'static {
        let (spool, held) = (self.spool.clone(), Arc::clone(&self.held_newest));
        move |sensor| spool.newest_time_us(sensor).max(locked(&held).get(sensor).copied())
    }

    /// Whether it has to look at the clock now and then.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.clock.is_set() || self.leaving.is_some() || self.clock.doubt().is_some()
    }

    /// Takes readings, in the order in which they were made.
    pub(crate) async fn take(&mut self, readings: impl Into<Rows>) {
        let readings = readings.into();
        self.look_at_maintenance().await;
        self.look().await;
        self.look_back();
        let (oldest_us, newest_us) = readings.spans().times_us().unwrap_or_default();
        let are_of_our_time = TIMES_US.contains(&oldest_us) && TIMES_US.contains(&newest_us);
        let mut ready = if are_of_our_time && self.has_nothing_to_say(oldest_us, newest_us) {
            readings
        } else {
            self.take_one_by_one(readings.into()).await.into()
        };
        if let Some(system) = self.system.as_mut().filter(|_| self.clock.is_set() && !ready.is_empty()) {
            let mut own = system.due();
            own.iter_mut().filter(|reading| self.clock.is_doubtful(reading.time_us)).for_each(estimated);
            ready.extend(own);
        }
        self.pass_on(ready).await;
    }

    /// Sends the word once all that was taken is on disk. While anything is held that is not known: `reply` is dropped.
    pub(crate) async fn confirm(&mut self, at_once: bool, reply: oneshot::Sender<()>) {
        let holds = self.leaving.is_some() || matches!(self.hold, Hold::Held(_));
        if !holds && !self.has_lost {
            self.spool.confirm(at_once, reply).await;
        }
    }

    /// Whether readings of these times go on as they come: the clock was always known, and nobody worked on a sensor.
    fn has_nothing_to_say(&self, oldest_us: i64, newest_us: i64) -> bool {
        let is_under_way = self.maintenance.is_under_way(oldest_us, newest_us);
        let is_sure = self.clock.was_always_known() && self.clock.falls() == 0 && !self.is_behind;
        is_sure && self.redated.is_empty() && !is_under_way
    }

    /// Looks at each reading: those that are ready come back, with all that is to be said of them.
    async fn take_one_by_one(&mut self, mut readings: Vec<Reading>) -> Vec<Reading> {
        let came = readings.len();
        // No batch may hold such a time, and one would keep all others of its batch out of the lake.
        readings.retain(|reading| TIMES_US.contains(&reading.time_us));
        if readings.len() < came {
            error!(readings = came - readings.len(), "the clock is centuries off: these are not kept");
        }
        let (mut ready, mut held) = self.sorted(readings);
        // What is held is dated once more, perhaps after a restart: where it is measured in a window that stays with it.
        self.maintenance.mark_held(&mut held);
        self.hold(held, &mut ready).await;
        self.maintenance.mark(&mut ready);
        ready
    }

    /// Those whose times are certain, and those that wait for the clock.
    fn sorted(&mut self, readings: Vec<Reading>) -> (Vec<Reading>, Vec<Reading>) {
        let (mut ready, mut held) = (Vec::with_capacity(readings.len()), Vec::new());
        for mut reading in readings {
            if self.sensors.has_own_time(&reading, &self.device_times) {
                ready.push(reading);
            } else if !self.clock.is_estimate(reading.time_us) {
                // The slot in which the clock came was polled by the estimate already.
                let is_stored = self.redated.get(&reading.sensor) == Some(&reading.time_us);
                if self.clock.is_doubtful(reading.time_us) || self.is_said_again(&reading) {
                    estimated(&mut reading);
                }
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
        (ready, held)
    }

    /// Looks whether the clock was set back by so little that it is followed: until it has come to that time again, times come twice.
    fn look_back(&mut self) {
        if self.policy.trusted || !self.clock.is_set() || self.clock.doubt().is_some() {
            return;
        }
        let now_us = self.clock.now_us();
        (self.is_behind, self.seen_us) = (now_us < self.seen_us, self.seen_us.max(now_us));
    }

    /// Whether a reading's time is one that its sensor had before the clock was set back: one of the two is not right.
    fn is_said_again(&self, reading: &Reading) -> bool {
        self.is_behind && self.spool.newest_time_us(&reading.sensor) >= Some(reading.time_us)
    }

    /// Hands readings to the spool, or keeps them behind a move whose readings are counted by its numbers.
    async fn pass_on(&mut self, readings: Rows) {
        if !self.leaving.as_ref().is_some_and(|(undated, _)| undated.is_decided()) {
            self.spool.append(readings).await;
            return;
        }
        readings.iter().for_each(|reading| note(&mut locked(&self.held_newest), &reading));
        self.behind.extend(readings);
        let surplus = self.behind.len().saturating_sub(BEHIND_MAX);
        if surplus > 0 && self.behind_dropped == 0 {
            error!("too many readings wait in memory for the disk: the oldest are dropped");
        }
        self.behind.drain(..surplus);
        self.behind_dropped += surplus;
        self.has_lost |= surplus > 0;
    }

    /// Holds readings, or marks them where nothing is held any more.
    async fn hold(&mut self, readings: Vec<Reading>, ready: &mut Vec<Reading>) {
        if readings.is_empty() {
            return;
        }
        if matches!(self.hold, Hold::Empty) {
            let (spool, settings, clock) = (self.spool.clone(), self.settings.clone(), self.clock.clone());
            // It makes folders and reads them: not on a thread that the buses wait for.
            let opening = tokio::task::spawn_blocking(move || begin_hold(&spool, &settings, clock));
            self.hold = opening.await.unwrap_or(Hold::Over);
        }
        match &self.hold {
            Hold::Held(undated) => {
                for reading in &readings {
                    note(&mut self.held_slots, reading);
                    note(&mut locked(&self.held_newest), reading);
                }
                undated.hold(readings).await;
            }
            Hold::Empty | Hold::Over => {
                ready.extend(readings.into_iter().map(|reading| self.sensors.date(None, reading)));
            }
        }
    }

    /// Looks whether the clock has come, or was waited for long enough.
    pub(crate) async fn look(&mut self) {
        if self.clock.monotonic_us() >= self.try_again_us {
            self.release().await;
        }
        if !self.policy.trusted && self.doubts.weigh(&self.clock, &self.policy.witness).await {
            self.spool.distrust(self.clock.now_us()).await;
            // What it said before was wrong, and what it says now is right.
            self.seen_us = i64::MIN;
        }
        if self.clock.is_set() {
            return;
        }
        if self.is_believed().await {
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

    /// Whether the machine's clock is believed now. Chrony may be silent for a second: no bus's thread waits for it.
    fn is_believed(&self) -> impl Future<Output = bool> + use<> {
        let (witness, wall_us, known_us) = (self.policy.witness.clone(), self.clock.wall_us(), self.known_us);
        let asking = tokio::task::spawn_blocking(move || witness.believes(wall_us, known_us));
        async move { asking.await.unwrap_or(false) }
    }

    async fn give_up_holding(&mut self, offset_us: Option<i64>) {
        if offset_us.is_some() {
            // Also where the move does not come about yet: what is polled from now on knows these slots.
            for (sensor, time_us) in self.held_slots.drain() {
                note(&mut self.redated, &self.sensors.date(offset_us, Reading::of(sensor, time_us, 0.0)));
            }
            self.redated.clone_into(&mut locked(&self.held_newest));
        }
        if let Hold::Held(undated) = std::mem::replace(&mut self.hold, Hold::Over) {
            self.leaving = Some((*undated, offset_us));
            self.release().await;
        }
    }

    async fn look_at_maintenance(&mut self) {
        let spool = self.spool.clone();
        self.maintenance.look(async move { spool.is_at_hand().await.is_ok() }).await;
    }

    /// Tries to move what shall leave. What waited behind it follows.
    async fn release(&mut self) {
        if self.leaving.is_none() {
            return;
        }
        self.look_at_maintenance().await;
        let Some((mut undated, offset_us)) = self.leaving.take() else { return };
        let Self { spool, sensors, redated, maintenance, .. } = self;
        let mut date = |offset_us: Option<i64>, reading: Reading| {
            let mut dated = sensors.date(offset_us, reading);
            if offset_us.is_some() {
                note(redated, &dated);
            }
            maintenance.mark(std::slice::from_mut(&mut dated));
            dated
        };
        if !undated.release(spool, offset_us, &mut date).await {
            self.leaving = Some((undated, offset_us));
            self.try_again_us = self.clock.monotonic_us().saturating_add(RETRY_US);
            return;
        }
        undated.leave().await;
        self.spool.append(std::mem::take(&mut self.behind)).await;
        let dropped = std::mem::take(&mut self.behind_dropped);
        if dropped > 0 {
            error!(readings = dropped, "these were dropped from memory while the disk refused");
        }
    }

    /// Brings what is held to disk.
    pub(crate) async fn end(mut self) {
        if !self.behind.is_empty() {
            self.release().await;
        }
        let lost = self.behind.len() + self.behind_dropped;
        if lost > 0 {
            error!(readings = lost, "the disk did not take these until the end: they are lost");
        }
        let held = match self.hold {
            Hold::Held(undated) => Some(*undated),
            Hold::Empty | Hold::Over => None,
        };
        for undated in self.leaving.into_iter().map(|(undated, _)| undated).chain(held) {
            undated.close().await;
        }
    }
}

/// Its time is an estimate. A reading without a value, or that is none of the weather, has a cause that says more.
fn estimated(reading: &mut Reading) {
    if reading.value.is_some() && reading.cause != Some(Cause::Maintenance) {
        reading.cause = Some(Cause::ClockEstimated);
    }
}

/// A time as people read it.
pub(crate) fn written(time_us: i64) -> String {
    Timestamp::from_microsecond(time_us).map_or_else(|_| time_us.to_string(), |time| time.to_string())
}

fn say_that_it_is_not_known(wall_us: i64, known_us: i64) {
    warn!(
        clock = written(wall_us),
        newest_known = written(known_us),
        "the clock is not known yet: readings are taken, and dated once it is; hint: is a time server reachable? where the clock is \
         right and the newest time that is known is not, a clock was once ahead: set `trusted` in `[clock]`"
    );
}

/// Begins to hold readings, where none of an earlier run are still there.
fn begin_hold(spool: &Spool, settings: &SpoolSettings, clock: Clock) -> Hold {
    if Undated::is_there(spool) {
        // How those are dated may be decided: nothing can join them.
        warn!("an earlier run's readings without a certain time are still there: those of this one are marked");
        return Hold::Over;
    }
    match Undated::open(spool, settings, clock) {
        Ok(undated) => Hold::Held(Box::new(undated)),
        Err(error) => {
            error!("readings without a certain time cannot be held, and are marked: {error}");
            Hold::Over
        }
    }
}

/// A lock that is held for a few instructions, none of which can panic half-way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(newest: &mut HashMap<SensorId, i64>, reading: &Reading) {
    let newest_us = newest.entry(reading.sensor.clone()).or_insert(reading.time_us);
    *newest_us = reading.time_us.max(*newest_us);
}

#[cfg(test)]
mod tests;
