//! The actor of a Modbus bus.
//!
//! Each turn it looks at the clock, takes the point that is due and was read longest ago, reads it
//! with what shares its request and hands the readings on. So no point starves another, whatever the
//! bus is asked for: on a bus that is too slow for its periods all points get a share, the slots that
//! pass are counted, and the log says how many. Nothing queues.
//! A device that is down is asked after pauses only; what of it falls due meanwhile ends at once
//! with the cause that it went down for. A line that is missing is tried again by its master.

use std::sync::Arc;
use std::time::Duration;

use tjern_readings::reading::{Cause, Reading};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::BusContext;
use super::health::{Change, Health};
use super::plan::{Group, Wanted, plan};
use super::point::{Limits, PointState};
use super::state::{BusState, DeviceCell, DeviceState as Shown};
use crate::config::{ModbusDevice, ModbusPoint};
use crate::grid::{Due, LOOK_AGAIN, wait};
use crate::modbus::Master;
use crate::modbus::transport::{Answer, Failure, Table};
use crate::value::{self, NumberType, Order};

/// A period of at least so many timeouts leaves the time to ask once more after a failure.
const RETRY_PERIODS: u32 = 4;

/// How often it is looked whether slots were missed: a line a minute, not a line a slot.
const MISSED_LOOK: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Actor {
    name: String,
    master: Master,
    devices: Vec<DeviceState>,
    limits: Limits,
    context: BusContext,
    state: Arc<BusState>,
    line_is_there: Option<bool>,
    turns: u64,
    missed_noted: u64,
    missed_looked: Instant,
}

#[derive(Debug)]
struct DeviceState {
    name: String,
    unit_id: u8,
    points: Vec<ModbusPointState>,
    health: Health,
    cell: Arc<DeviceCell>,
}

#[derive(Debug)]
struct ModbusPointState {
    state: PointState,
    table: Table,
    address: u16,
    kind: NumberType,
    order: Order,
    /// A shared request was refused: it gets one of its own.
    alone: bool,
    /// The turn of the bus that ended its last slot; 0 for none.
    served: u64,
}

impl Actor {
    pub(super) fn new(
        (name, kind): (String, &'static str),
        master: Master,
        devices: Vec<ModbusDevice>,
        limits: Limits,
        context: BusContext,
    ) -> Self {
        let alone = devices.len() == 1;
        let new = |device| DeviceState::new(device, alone, limits, &context);
        let devices: Vec<_> = devices.into_iter().map(new).collect();
        let cells = devices.iter().map(|device| Arc::clone(&device.cell)).collect();
        let state = context.states.begin(&name, kind, cells);
        if let Some(stats) = master.stats() {
            state.count_wire(stats);
        }
        Self {
            state,
            name,
            master,
            devices,
            limits,
            context,
            line_is_there: None,
            turns: 0,
            missed_noted: 0,
            missed_looked: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.context.stop.clone();
        while !stop.is_cancelled() {
            self.state.turn();
            let now_us = self.context.clock.now_us();
            self.follow_clock(now_us);
            if let Some((device, point)) = self.most_urgent(now_us) {
                self.serve(device, point, now_us).await;
                self.note_missed();
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.pause(now_us)) => {}
            }
        }
        debug!(bus = self.name, missed = self.missed(), "bus stopped");
    }

    fn points(&self) -> impl Iterator<Item = &PointState> {
        self.devices.iter().flat_map(|device| &device.points).map(|point| &point.state)
    }

    fn missed(&self) -> u64 {
        self.points().map(|point| point.schedule.missed()).sum()
    }

    fn note_missed(&mut self) {
        if self.missed_looked.elapsed() < MISSED_LOOK {
            return;
        }
        let missed = self.missed();
        if missed > self.missed_noted {
            let slots = missed - self.missed_noted;
            warn!(
                bus = self.name,
                slots,
                "slots passed without a poll: the bus is slower than its points' `every`, or the clock was set forward"
            );
        }
        (self.missed_noted, self.missed_looked) = (missed, Instant::now());
    }

    fn follow_clock(&mut self, now_us: i64) {
        let mut stepped = 0;
        for point in self.devices.iter_mut().flat_map(|device| &mut device.points) {
            stepped += usize::from(point.state.schedule.follow_step_back(now_us));
            point.state.schedule.look(now_us);
        }
        if stepped > 0 {
            warn!(
                bus = self.name,
                points = stepped,
                "the clock was set back by more than a period: going on from the time it says"
            );
        }
    }

    fn pause(&self, now_us: i64) -> Duration {
        let next_us = self.points().map(|point| point.schedule.next_us(now_us)).min();
        next_us.map_or(LOOK_AGAIN, |next_us| wait(next_us, self.context.clock.now_us()))
    }

    /// The device and the point that are due and were served longest ago, if ever; among those the one
    /// with the oldest slot.
    fn most_urgent(&self, now_us: i64) -> Option<(usize, usize)> {
        let urgency = |(device, state): (usize, &DeviceState)| {
            let (served, slot_us, point) = state.most_urgent(now_us)?;
            Some((served, slot_us, device, point))
        };
        let most_urgent = self.devices.iter().enumerate().filter_map(urgency).min();
        most_urgent.map(|(_, _, device, point)| (device, point))
    }

    /// Reads a point, and what of its device and slot shares its request.
    async fn serve(&mut self, index: usize, point: usize, now_us: i64) {
        self.turns += 1;
        let turn = self.turns;
        let device = &mut self.devices[index];
        let Some(Due { slot_us, .. }) = device.points[point].state.schedule.due(now_us) else { return };
        let due = device.due_in(slot_us, now_us);
        if let Some(cause) = device.health.resting(Instant::now()) {
            let points: Vec<(usize, Due)> = due.iter().map(|(wanted, due)| (wanted.point, *due)).collect();
            let readings = device.fail(&points, cause, (now_us, self.context.clock.now_us()), turn);
            return self.context.store(readings).await;
        }
        let groups = plan(due.iter().map(|(wanted, _)| *wanted).collect());
        let holds = |group: &Group| group.members.iter().any(|member| member.point == point);
        let Some(group) = groups.into_iter().find(holds) else { return };
        let asked = Instant::now();
        let result = self.ask(index, &group, now_us).await;
        let took_us = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        let answered_us = self.context.clock.now_us();
        self.note_line(result.as_ref().err());
        let device = &mut self.devices[index];
        device.note_health(&self.name, result.as_ref().err());
        device.show(took_us, result.as_ref().err());
        let members = group.members.iter().filter_map(|member| due.iter().find(|(wanted, _)| wanted == member));
        let points: Vec<(usize, Due)> = members.map(|(wanted, due)| (wanted.point, *due)).collect();
        let readings = match result {
            Ok(answer) => device.succeed(&group, &points, &answer, (now_us, answered_us), turn),
            Err(failure) if device.read_apart(&self.name, &group, &failure) => Vec::new(),
            Err(failure) => device.fail(&points, failure.cause, (now_us, answered_us), turn),
        };
        device.note_new_failures(&self.name, &points);
        self.context.store(readings).await;
    }

    /// One transaction, and one more where the first answer was lost on a healthy line.
    async fn ask(&mut self, index: usize, group: &Group, now_us: i64) -> Result<Answer, Failure> {
        let device = &self.devices[index];
        let (unit, healthy) = (device.unit_id, device.health.is_healthy());
        let result = self.master.read(unit, group.request).await;
        let lost = result
            .as_ref()
            .is_err_and(|failure| matches!(failure.cause, Cause::Timeout | Cause::Crc | Cause::Malformed));
        if !(lost && healthy) || self.context.stop.is_cancelled() {
            return result;
        }
        let periods = group.members.iter().map(|member| device_period(&self.devices[index], member.point));
        let timeouts_us = i64::try_from((self.limits.timeout * RETRY_PERIODS).as_micros()).unwrap_or(i64::MAX);
        if periods.min().is_none_or(|every_us| every_us < timeouts_us) {
            return result;
        }
        debug!(bus = self.name, unit, slot_us = now_us, "asking once more: {:?}", result.as_ref().err());
        self.master.read(unit, group.request).await
    }

    /// A line a change, not a line a poll.
    fn note_line(&mut self, failure: Option<&Failure>) {
        let is_there = failure.is_none_or(|failure| failure.cause != Cause::Unreachable);
        if self.line_is_there == Some(is_there) {
            return;
        }
        match failure {
            Some(failure) if !is_there => warn!(bus = self.name, "not reachable, trying again: {}", failure.detail),
            _ => info!(bus = self.name, "reachable"),
        }
        self.line_is_there = Some(is_there);
    }
}

fn device_period(device: &DeviceState, point: usize) -> i64 {
    device.points[point].state.schedule.grid().every_us()
}

impl DeviceState {
    fn new(device: ModbusDevice, alone: bool, limits: Limits, context: &BusContext) -> Self {
        let new = |point| ModbusPointState::new(point, limits, context);
        let points: Vec<_> = device.points.into_iter().map(new).collect();
        let cells = points.iter().map(|point| point.state.cell()).collect();
        let cell = DeviceCell::new(&device.name, Some(device.unit_id), cells);
        Self { name: device.name, unit_id: device.unit_id, points, health: Health::new(alone), cell }
    }

    /// The point that is due and was served longest ago: when that was, its slot, which it is.
    fn most_urgent(&self, now_us: i64) -> Option<(u64, i64, usize)> {
        let due = |(index, point): (usize, &ModbusPointState)| {
            Some((point.served, point.state.schedule.due(now_us)?.slot_us, index))
        };
        self.points.iter().enumerate().filter_map(due).min()
    }

    fn due_in(&self, slot_us: i64, now_us: i64) -> Vec<(Wanted, Due)> {
        let due = |(index, point): (usize, &ModbusPointState)| {
            let due = point.state.schedule.due(now_us).filter(|due| due.slot_us == slot_us)?;
            Some((point.wanted(index), due))
        };
        self.points.iter().enumerate().filter_map(due).collect()
    }

    fn succeed(
        &mut self,
        group: &Group,
        points: &[(usize, Due)],
        answer: &Answer,
        (asked_us, answered_us): (i64, i64),
        turn: u64,
    ) -> Vec<Reading> {
        let first = group.request.address();
        let conclude = |(point, due): &(usize, Due)| {
            let point = &mut self.points[*point];
            let raw = point.decode(answer, first);
            point.served = turn;
            point.state.conclude(*due, raw, asked_us, answered_us)
        };
        points.iter().filter_map(conclude).collect()
    }

    fn fail(
        &mut self,
        points: &[(usize, Due)],
        cause: Cause,
        (asked_us, answered_us): (i64, i64),
        turn: u64,
    ) -> Vec<Reading> {
        let conclude = |(point, due): &(usize, Due)| {
            let point = &mut self.points[*point];
            point.served = turn;
            point.state.conclude(*due, Err(cause), asked_us, answered_us)
        };
        points.iter().filter_map(conclude).collect()
    }

    /// A device that refuses an address refuses a whole request for it: from now on its members are
    /// read apart, this slot still. Whether that is so.
    fn read_apart(&mut self, bus: &str, group: &Group, failure: &Failure) -> bool {
        let refused = matches!(failure.cause, Cause::Exception2 | Cause::Exception3);
        if !refused || group.members.len() < 2 {
            return false;
        }
        info!(
            bus,
            device = self.name,
            points = group.members.len(),
            "a shared request was refused: its points are read one by one"
        );
        group.members.iter().for_each(|member| self.points[member.point].alone = true);
        true
    }

    fn show(&self, took_us: u64, failure: Option<&Failure>) {
        self.cell.note(took_us, failure.map(|failure| (failure.cause, failure.is_exception())));
        match failure {
            Some(failure) if failure.cause == Cause::Unreachable => self.cell.set_state(Shown::Unknown),
            _ if self.health.is_healthy() => self.cell.set_state(Shown::Healthy),
            _ if self.health.is_down() => self.cell.set_state(Shown::Down),
            _ => self.cell.set_state(Shown::Suspect),
        }
    }

    fn note_health(&mut self, bus: &str, failure: Option<&Failure>) {
        let change = match failure {
            None => self.health.answered(),
            Some(failure) if failure.is_exception() => self.health.answered(),
            // Not the device's fault: its line is missing.
            Some(failure) if failure.cause == Cause::Unreachable => Change::None,
            Some(failure) => self.health.failed(failure.cause, Instant::now()),
        };
        match (change, failure) {
            (Change::Down, Some(failure)) => warn!(bus, device = self.name, unit = self.unit_id, "down: {failure}"),
            (Change::Back, _) => info!(bus, device = self.name, unit = self.unit_id, "answers again"),
            _ => {}
        }
    }

    /// A point whose device answers, but not with a value for it: a line when that begins.
    fn note_new_failures(&self, bus: &str, points: &[(usize, Due)]) {
        for point in points.iter().map(|(index, _)| &self.points[*index].state) {
            let Some(cause) = point.cause() else { continue };
            let lost = matches!(cause, Cause::Timeout | Cause::Unreachable | Cause::Crc | Cause::Malformed);
            if point.failures() == 1 && !lost {
                warn!(bus, device = self.name, sensor = point.sensor.as_str(), %cause, "the device answers, but not with a value for this point");
            }
        }
    }
}

impl ModbusPointState {
    fn new(point: ModbusPoint, limits: Limits, context: &BusContext) -> Self {
        let state = PointState::new(point.common, limits, context);
        Self {
            state,
            table: point.table,
            address: point.address,
            kind: point.kind,
            order: point.order,
            alone: false,
            served: 0,
        }
    }

    const fn wanted(&self, index: usize) -> Wanted {
        Wanted { point: index, table: self.table, address: self.address, width: self.kind.width(), alone: self.alone }
    }

    fn decode(&self, answer: &Answer, first: u16) -> Result<f64, Cause> {
        let start = usize::from(self.address.checked_sub(first).ok_or(Cause::Malformed)?);
        match answer {
            Answer::Bits(bits) => bits.get(start).map(|bit| f64::from(u8::from(*bit))).ok_or(Cause::Malformed),
            Answer::Registers(registers) => {
                let own = registers.get(start..start + usize::from(self.kind.width())).ok_or(Cause::Malformed)?;
                value::decode(self.kind, self.order, own)
            }
        }
    }
}
