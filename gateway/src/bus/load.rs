//! What a bus is asked to do, and whether it can: the requests, the load, the shortest period.
//!
//! The same planner makes these requests that makes them while the bus is polled. On a serial line a request's time
//! follows from the line's speed; with it goes the device's turnaround once it was measured, and without it the load
//! is what it is at least. On TCP nothing follows from anything: where a device was not measured, the pauses that are
//! configured are the least that it takes, and without any the load is not known, and never guessed. What devices were found to refuse is in the plan as it is in the one that is polled; so are the
//! pauses that are configured: a device's `gap` after each answer, and, where `idle_close` makes a connection anew for each
//! round, its `connect_pause`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tracing::warn;

use super::cost::{Costs, Wire};
use super::learned::{self, BusMemory};
use super::plan::{Group, Rules, Wanted, plan};
use super::refusal::Refusals;
use crate::config::{Bus, BusKind, Connection, ModbusDevice};
use crate::modbus::transport::{ReadRequest, Table};

/// From this share of its time on a bus is nearly full: a failure or two, and slots are missed.
pub const LOAD_HIGH: f64 = 0.8;

/// Slots of one device are laid side by side up to so many; past that, each period counts for itself.
const SLOTS_MAX: u64 = 10_000;

/// What was measured on a bus when it was polled before.
#[derive(Debug, Clone, Default)]
pub struct Measured(BusMemory);

/// What a bus is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct BusLoad {
    /// Its name.
    pub bus: String,
    /// What it is asked, in the order of the configuration and of the addresses. A bus of text lines is asked
    /// nothing that can be planned.
    pub requests: Vec<PlannedRequest>,
    /// The share of its time that they take, as far as that is known; 1 is all of it. `None` where nothing is.
    pub share: Option<f64>,
    /// Whether what a device takes is not in the share, or in part, since it was not measured yet.
    pub is_at_least: bool,
    /// The shortest period that it keeps for all its points: what reading each of them once takes.
    pub shortest: Option<Duration>,
}

/// A request that is sent again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRequest {
    /// Who is asked.
    pub device: String,
    /// Its address on the bus.
    pub unit_id: u8,
    /// What is asked.
    pub request: ReadRequest,
    /// Whom the answer serves.
    pub sensors: Vec<String>,
    /// How often it is sent, on the average.
    pub every: Duration,
    /// What it takes of the bus, as far as that is known.
    pub time: Option<Duration>,
    /// Whether the device was found to refuse it: then it is asked after growing pauses only, and reckoned as if it were not.
    pub is_refused: bool,
}

impl Measured {
    /// What a gateway with this folder (`<spool dir>/learned`) has measured on a bus. Blocks while it reads.
    #[must_use]
    pub fn load(folder: &Path, bus: &str, now_us: i64) -> Self {
        Self(learned::load(folder, bus, now_us))
    }
}

impl BusLoad {
    /// Whether it is asked for more than it can do.
    #[must_use]
    pub fn is_too_much(&self) -> bool {
        self.share.is_some_and(|share| share > 1.0)
    }

    /// Whether it is nearly full, or more than that.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.share.is_some_and(|share| share > LOAD_HIGH)
    }
}

/// Reckons what a bus is asked to do.
#[must_use]
pub fn reckon(bus: &Bus, measured: &Measured) -> BusLoad {
    let none: &[ModbusDevice] = &[];
    let devices = match &bus.kind {
        BusKind::ModbusTcp { devices, .. }
        | BusKind::ModbusRtu { devices, .. }
        | BusKind::ModbusRtuTcp { devices, .. } => devices,
        BusKind::TextLines { .. } => none,
    };
    let (wire, reconnect) = (Wire::of(&bus.kind), reconnect(&bus.kind, devices));
    let mut load =
        BusLoad { bus: bus.name.clone(), requests: Vec::new(), share: None, is_at_least: false, shortest: None };
    if devices.is_empty() {
        return load;
    }
    let (mut share, mut shortest, mut is_known) = (reconnect.share, reconnect.pause, true);
    for device in devices {
        let memory = measured.0.get(&device.unit_id);
        let turnaround = memory.and_then(|memory| memory.turnaround);
        // What was learned holds for the points that it was learned with.
        let learned = memory.filter(|memory| memory.fingerprint == learned::fingerprint(device));
        let refusals = Refusals::new(learned.map(|memory| memory.learned.clone()).unwrap_or_default());
        let device = DeviceLoad { device, wire, turnaround, refusals };
        load.is_at_least |= turnaround.is_none();
        let whole = device.plan(&(0..device.device.points.len()).collect::<Vec<_>>());
        is_known &= whole.iter().all(|group| device.time(group.request).is_some());
        shortest += whole.iter().map(|group| device.least(group.request)).sum::<Duration>();
        let requests = device.requests();
        let part = |one: &PlannedRequest| device.least(one.request).as_secs_f64() / one.every.as_secs_f64();
        share += requests.iter().map(part).sum::<f64>();
        load.requests.extend(requests);
    }
    let says_something = is_known || share > 0.0;
    (load.share, load.shortest) = (says_something.then_some(share), says_something.then_some(shortest));
    load
}

/// What connections that are made anew take of a bus.
#[derive(Debug, Clone, Copy, Default)]
struct Reconnect {
    share: f64,
    /// Before a round.
    pause: Duration,
}

/// Where an idle connection is closed before the next slot of whichever point comes first, each of its slots begins with the
/// pause behind a new one. Between slots of other points it may be closed as well: this is the least.
fn reconnect(kind: &BusKind, devices: &[ModbusDevice]) -> Reconnect {
    let connection = match kind {
        BusKind::ModbusTcp { connection, .. } | BusKind::ModbusRtuTcp { connection, .. } => *connection,
        BusKind::ModbusRtu { .. } | BusKind::TextLines { .. } => Connection::default(),
    };
    let every = devices.iter().flat_map(|device| &device.points).map(|point| point.common.terms.grid.every_us());
    let shortest = Duration::from_micros(every.min().map_or(0, i64::unsigned_abs));
    match connection.idle_close.filter(|idle_close| *idle_close < shortest) {
        Some(_) => {
            Reconnect { share: connection.pause.as_secs_f64() / shortest.as_secs_f64(), pause: connection.pause }
        }
        None => Reconnect::default(),
    }
}

/// Tells, when a bus begins, that it is asked for too much; it polls what the wire allows.
pub(super) fn warn_of_too_much(bus: &Bus, memory: &BusMemory) {
    let load = reckon(bus, &Measured(memory.clone()));
    let (Some(share), Some(shortest)) = (load.share.filter(|_| load.is_high()), load.shortest) else { return };
    let load_percent = format!("{:.0}", share * 100.0);
    if load.is_too_much() {
        warn!(
            bus = bus.name,
            load_percent,
            "the bus is asked for more than it can do: slots will be missed; all its points together take {shortest:.1?}"
        );
    } else {
        warn!(bus = bus.name, load_percent, "the bus is nearly full: all its points together take {shortest:.1?}");
    }
}

struct DeviceLoad<'load> {
    device: &'load ModbusDevice,
    wire: Wire,
    turnaround: Option<Duration>,
    refusals: Refusals,
}

impl DeviceLoad<'_> {
    /// What a request takes, as far as that is known: nobody else has the bus before the device's `gap` is over.
    fn time(&self, request: ReadRequest) -> Option<Duration> {
        let turnaround = self.turnaround.or(self.wire.is_serial().then_some(Duration::ZERO))?;
        Some(self.wire.time(request) + turnaround + self.gap())
    }

    /// What a request takes at least: of a device that was not measured on TCP the pause alone is known.
    fn least(&self, request: ReadRequest) -> Duration {
        self.time(request).unwrap_or_else(|| self.gap())
    }

    fn gap(&self) -> Duration {
        self.device.gap.saturating_sub(self.wire.silence())
    }

    fn plan(&self, points: &[usize]) -> Vec<Group> {
        let wanted = |index: &usize| {
            let point = &self.device.points[*index];
            let (table, address, width) = (point.table, point.address, point.kind.width());
            let one = Wanted { point: *index, table, address, width, alone: false };
            Wanted { alone: self.refusals.is_refused(&one), ..one }
        };
        let costs = Costs::new(self.wire, self.device.reads, self.turnaround);
        let barriers = self.refusals.barriers();
        let count_max = |table: Table| self.refusals.count_max(table);
        plan(points.iter().map(wanted).collect(), &Rules { costs, barriers: &barriers, count_max: &count_max })
    }

    /// Each request, with its average period.
    fn requests(&self) -> Vec<PlannedRequest> {
        let mut found: Vec<(Group, f64)> = Vec::new();
        for (points, per_second) in self.together() {
            for group in self.plan(&points) {
                match found.iter_mut().find(|(known, _)| *known == group) {
                    Some((_, rate)) => *rate += per_second,
                    None => found.push((group, per_second)),
                }
            }
        }
        found.sort_by_key(|(group, _)| (group.request.table(), group.request.address(), group.request.count()));
        let sensor = |one: &Wanted| self.device.points[one.point].common.sensor.as_str().to_owned();
        let planned = found.into_iter().map(|(group, per_second)| PlannedRequest {
            device: self.device.name.clone(),
            unit_id: self.device.unit_id,
            request: group.request,
            sensors: group.members.iter().map(sensor).collect(),
            every: Duration::from_secs_f64(1.0 / per_second),
            time: self.time(group.request),
            is_refused: group.members.iter().all(|one| self.refusals.is_refused(one)),
        });
        planned.collect()
    }

    /// Which points are due together, and how often a second.
    fn together(&self) -> Vec<(Vec<usize>, f64)> {
        let mut grids: BTreeMap<(i64, i64), Vec<usize>> = BTreeMap::new();
        for (index, point) in self.device.points.iter().enumerate() {
            let grid = point.common.terms.grid;
            // The first slot since 1970 is the phase.
            grids.entry((grid.every_us(), grid.slot_of(grid.every_us() - 1))).or_default().push(index);
        }
        let cycle_us = grids.keys().try_fold(1_i64, |cycle, (every, _)| lcm(cycle, *every));
        let slots = |cycle: i64| grids.keys().map(|(every, _)| (cycle / every).unsigned_abs()).sum::<u64>();
        let Some(cycle_us) = cycle_us.filter(|cycle| slots(*cycle) <= SLOTS_MAX) else {
            return grids.into_iter().map(|((every, _), points)| (points, per_second(1, every))).collect();
        };
        let mut at: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for ((every, phase), points) in &grids {
            for slot in 0..cycle_us / every {
                at.entry(slot * every + phase).or_default().extend(points);
            }
        }
        let mut sets: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
        at.into_values().for_each(|points| *sets.entry(points).or_default() += 1);
        sets.into_iter().map(|(points, times)| (points, per_second(times, cycle_us))).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a period of more than 285 years is none")]
fn per_second(times: u32, cycle_us: i64) -> f64 {
    f64::from(times) * 1e6 / cycle_us as f64
}

fn lcm(one: i64, other: i64) -> Option<i64> {
    let (mut greater, mut less) = (one, other);
    while less != 0 {
        (greater, less) = (less, greater % less);
    }
    (one / greater).checked_mul(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::plan::Barrier;
    use crate::bus::refusal;
    use crate::config::Config;
    use tjern_readings::configuration::ConfigText;

    fn bus(head: &str, points: &[(u16, &str)]) -> Bus {
        let point = |(index, (address, every)): (usize, &(u16, &str))| {
            format!(
                "[[bus.device.point]]\nsensor = \"tarn/p{index}\"\nregister = \"input:{address}\"\ntype = \"u16\"\nevery = \"{every}\"\n"
            )
        };
        let points: String = points.iter().enumerate().map(point).collect();
        let text = format!(
            "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"unused\"\n[[bus]]\nname = \"north\"\n{head}[[bus.device]]\nname = \"meter\"\nunit_id = 1\n{points}"
        );
        Bus::clone(&Config::parse(&ConfigText::new("test.toml", text)).expect("good").buses()[0])
    }

    const RTU: &str = "kind = \"modbus-rtu\"\nport = \"/dev/ttyUSB0\"\nbaud = 9600\n";

    #[test]
    fn a_lines_speed_says_what_a_request_takes() {
        // 15 characters and two silences of 3.5 at 11 bits each: 22 × 11 / 9600 = 25.2 ms.
        let load = reckon(&bus(RTU, &[(0, "100ms")]), &Measured::default());
        assert!((load.share.expect("known") - 0.252).abs() < 0.001, "{load:?}");
        assert!(load.is_at_least && !load.is_high());
        assert_eq!(load.shortest.expect("known").as_millis(), 25);
        let full = reckon(
            &bus(RTU, &[(0, "100ms"), (1_000, "100ms"), (2_000, "100ms"), (3_000, "100ms")]),
            &Measured::default(),
        );
        assert!(full.is_too_much(), "{full:?}");
    }

    #[test]
    fn points_with_several_periods_share_requests_when_their_slots_meet() {
        let load = reckon(&bus(RTU, &[(0, "1s"), (1, "10s")]), &Measured::default());
        let seen: Vec<(u16, Duration)> = load.requests.iter().map(|one| (one.request.count(), one.every)).collect();
        let tenth = Duration::from_secs_f64(10.0 / 9.0);
        assert_eq!(seen, [(1, tenth), (2, Duration::from_secs(10))], "one second in ten reads both");
    }

    /// A plan that read over the hole was shown, and another one polled.
    #[test]
    fn what_a_device_refuses_is_in_the_plan() {
        let bus = bus(RTU, &[(0, "10s"), (2, "10s"), (9, "10s")]);
        let BusKind::ModbusRtu { devices, .. } = &bus.kind else { panic!("a serial bus") };
        let requests = |fingerprint: String| -> Vec<(u16, u16, bool)> {
            let found = |first, end| refusal::Found { place: Barrier { table: Table::Input, first, end }, found_us: 0 };
            let learned = refusal::Learned {
                holes: vec![found(1, 2)],
                points: vec![found(9, 10)],
                ..refusal::Learned::default()
            };
            let memory = learned::DeviceMemory { fingerprint, learned, ..Default::default() };
            let load = reckon(&bus, &Measured(BusMemory::from([(1, memory)])));
            load.requests.iter().map(|one| (one.request.address(), one.request.count(), one.is_refused)).collect()
        };
        assert_eq!(requests(learned::fingerprint(&devices[0])), [(0, 1, false), (2, 1, false), (9, 1, true)]);
        assert_eq!(requests("of other points".to_owned()), [(0, 10, false)]);
    }

    #[test]
    fn the_pauses_that_a_device_wants_are_part_of_the_load() {
        let load = |head: &str| {
            let bus = bus(head, &[(0, "1s"), (1_000, "1s")]);
            let memory = learned::DeviceMemory { turnaround: Some(Duration::from_millis(50)), ..Default::default() };
            let load = reckon(&bus, &Measured(BusMemory::from([(1, memory)])));
            (load.share.expect("measured") * 1e3).round()
        };
        let tcp = "kind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\n";
        assert_eq!(load(tcp), 100.0);
        assert_eq!(load(&format!("{tcp}gap = \"100ms\"\n")), 300.0, "behind each of two answers");
        assert_eq!(load(&format!("{tcp}connect_pause = \"200ms\"\n")), 100.0, "the connection stays");
        assert_eq!(load(&format!("{tcp}connect_pause = \"200ms\"\nidle_close = \"500ms\"\n")), 300.0);
        assert_eq!(load(&format!("{tcp}connect_pause = \"200ms\"\nidle_close = \"5s\"\n")), 100.0);
        // The silence of 3.5 characters (4 ms at 9600 baud) is part of the gap, and not before it.
        let (without, with) = (load(RTU), load(&format!("{RTU}gap = \"104ms\"\n")));
        assert!((with - without - 200.0).abs() < 1.0, "{without} {with}");
    }

    /// A pause of 200 ms behind each answer, and an answer each 100 ms: nothing was said until the bus had run.
    #[test]
    fn pauses_that_leave_no_room_are_told_before_anything_was_measured() {
        let tcp = "kind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\n";
        let load = reckon(&bus(&format!("{tcp}gap = \"200ms\"\n"), &[(0, "100ms")]), &Measured::default());
        assert!((load.share.expect("the pause is known") - 2.0).abs() < 1e-9, "{load:?}");
        assert!(load.is_too_much() && load.is_at_least, "{load:?}");
        assert_eq!((load.shortest, load.requests[0].time), (Some(Duration::from_millis(200)), None));
        let closed = format!("{tcp}connect_pause = \"200ms\"\nidle_close = \"50ms\"\n");
        assert!(reckon(&bus(&closed, &[(0, "100ms")]), &Measured::default()).is_too_much());
        let roomy = reckon(&bus(&format!("{tcp}gap = \"200ms\"\n"), &[(0, "1s")]), &Measured::default());
        assert!((roomy.share.expect("the pause is known") - 0.2).abs() < 1e-9 && !roomy.is_high(), "{roomy:?}");
    }

    #[test]
    fn nothing_is_guessed_on_tcp() {
        let bus = bus("kind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\n", &[(0, "1s")]);
        let load = reckon(&bus, &Measured::default());
        assert_eq!((load.share, load.shortest, load.requests.len()), (None, None, 1));
        let memory = learned::DeviceMemory { turnaround: Some(Duration::from_millis(50)), ..Default::default() };
        let load = reckon(&bus, &Measured(BusMemory::from([(1, memory)])));
        assert!((load.share.expect("measured") - 0.05).abs() < 0.001 && !load.is_at_least, "{load:?}");
    }
}
