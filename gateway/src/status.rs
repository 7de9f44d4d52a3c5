//! How a gateway is, for people and for machines: gathered from snapshots when somebody asks.
//!
//! ```text
//! bus actors ── BusStates ┐
//! spool ─────── probe     ├─ StatusSource ── GatewayStatus ── /status (JSON), /metrics, /health, `watch`
//! upload ────── UploadState ┘
//! ```
//!
//! Who asks holds nobody up: a snapshot copies what the actors wrote. Nothing here holds the spool's folder.

pub mod client;
pub mod http;
pub mod metrics;
mod pages;
pub mod report;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tjern_readings::clock::Clock;
use tjern_readings::sensor::SensorId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::cost::Wire;
use crate::bus::state::{BusStates, LineState};
use crate::clock::ClockWord;
use crate::config::{Bus, BusKind, Config};
use crate::maintenance::MaintenanceTold;
use crate::modbus::transport::{REGISTERS_MAX, ReadRequest, Table};
use crate::spool::SpoolProbe;
use crate::upload::UploadState;
use report::{
    BusReport, ClockReport, ConfigurationReport, DeviceReport, GatewayStatus, Health, LinesReport, PointReport,
    Refusal, SpoolReport, UploadReport, WireReport,
};

/// A bus comes round at least once a second, or when a transaction ends. So much is granted to a machine that
/// is busy otherwise, and to a connection that is made.
const TURN_BOUND_MIN: Duration = Duration::from_secs(15);

/// A turn asks once more at most, and each time waits for an answer, then for a late one.
pub(crate) const TURN_TIMEOUTS: u32 = 6;

/// An answer that was lost is asked for once more, perhaps over a new connection.
const ATTEMPTS: u32 = 2;

/// Each attempt may follow a probe.
const TRANSACTIONS: u32 = 2 * ATTEMPTS;

/// A lake that leaves a question open for longer is told of: a cloud's client has given up twice over by then.
const LAKE_SILENCE: Duration = Duration::from_secs(180);

/// An uploader that waits for a cloud's client for longer waits for nothing: no request lasts a third of it, with all of its
/// repetitions.
pub(crate) const UPLOAD_BOUND: Duration = Duration::from_secs(600);

/// A bus that is read now, in one of its lives.
#[derive(Debug, Clone)]
pub(crate) struct BusPlace {
    name: String,
    incarnation: u64,
    bound: Duration,
}

/// How often a bus has come round.
#[derive(Debug, Clone)]
pub(crate) struct BusTurns {
    pub(crate) name: String,
    pub(crate) incarnation: u64,
    pub(crate) turns: u64,
    /// It comes round at least this often.
    pub(crate) bound: Duration,
}

/// What a gateway's status is gathered from. Clones share it.
#[derive(Debug, Clone)]
pub struct StatusSource(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    started: Instant,
    gateway: String,
    spool: SpoolProbe,
    buses: BusStates,
    upload: UploadState,
    /// Nothing bounds how long it may keep silent.
    lake_is_a_folder: bool,
    maintenance: MaintenanceTold,
    time_service: watch::Receiver<ClockWord>,
    now: Mutex<Now>,
}

/// What a reload or a look of the watchdog changes.
#[derive(Debug)]
struct Now {
    configuration: ConfigurationReport,
    places: Vec<BusPlace>,
    units: HashMap<String, String>,
    stuck: Vec<String>,
}

/// What a turn may take besides its timeouts: the pauses that a device wants, and what the line's speed costs.
fn patience(kind: &BusKind) -> Duration {
    let (devices, connect_pause) = match kind {
        BusKind::ModbusTcp { devices, connection, .. } | BusKind::ModbusRtuTcp { devices, connection, .. } => {
            (devices, connection.pause)
        }
        BusKind::ModbusRtu { devices, .. } => (devices, Duration::ZERO),
        BusKind::TextLines { .. } => return Duration::ZERO,
    };
    let gap = devices.iter().map(|device| device.gap).max().unwrap_or_default();
    let longest =
        ReadRequest::new(Table::Holding, 0, REGISTERS_MAX).map_or(Duration::ZERO, |read| Wire::of(kind).time(read));
    (gap + connect_pause) * ATTEMPTS + longest * TRANSACTIONS
}

impl BusPlace {
    pub(crate) fn new(bus: &Bus, incarnation: u64) -> Self {
        // Each of several answers has the timeout from the one before.
        let together = u32::try_from(bus.kind.in_flight()).unwrap_or(u32::MAX);
        let timeouts = TURN_TIMEOUTS.saturating_mul(together);
        let bound = TURN_BOUND_MIN + bus.timeout.saturating_mul(timeouts) + patience(&bus.kind);
        Self { name: bus.name.clone(), incarnation, bound }
    }
}

impl StatusSource {
    pub(crate) fn new(
        clock: Clock,
        (spool, buses, upload): (SpoolProbe, BusStates, UploadState),
        config: &Config,
        places: Vec<BusPlace>,
    ) -> Self {
        let configuration = ConfigurationReport {
            path: config.path().display().to_string(),
            sha256: config.sha256(),
            reloads: 0,
            refusals: 0,
            unchanged: 0,
            refused: None,
        };
        let now = Now { configuration, places, units: units(config), stuck: Vec::new() };
        let gateway = config.gateway().as_str().to_owned();
        let (started, maintenance, now) = (Instant::now(), MaintenanceTold::default(), Mutex::new(now));
        let lake_is_a_folder = config.lake().local_folder().is_some();
        let (_, time_service) = watch::channel(ClockWord::default());
        let inner =
            Inner { clock, started, gateway, spool, buses, upload, lake_is_a_folder, maintenance, time_service, now };
        Self(Arc::new(inner))
    }

    /// The same, which tells as well what is under maintenance, or why that is not known.
    pub(crate) fn with_maintenance(self, maintenance: MaintenanceTold) -> Self {
        // Whoever has the only handle gets it back as it was.
        let inner = Arc::into_inner(self.0).expect("nobody has another handle while it is made");
        Self(Arc::new(Inner { maintenance, ..inner }))
    }

    /// The same, which tells as well what the machine's time service says.
    pub(crate) fn with_time_service(self, time_service: watch::Receiver<ClockWord>) -> Self {
        let inner = Arc::into_inner(self.0).expect("nobody has another handle while it is made");
        Self(Arc::new(Inner { time_service, ..inner }))
    }

    /// A reload took a configuration over.
    pub(crate) fn taken_over(&self, config: &Config, places: Vec<BusPlace>) {
        let mut now = self.now();
        now.configuration.sha256 = config.sha256();
        now.configuration.reloads += 1;
        now.configuration.refused = None;
        (now.places, now.units) = (places, units(config));
    }

    /// A reload found the configuration as it is.
    pub(crate) fn unchanged(&self) {
        let mut now = self.now();
        now.configuration.unchanged += 1;
        now.configuration.refused = None;
    }

    /// A reload changed nothing.
    pub(crate) fn refused(&self, reason: String) {
        let time_us = self.0.clock.now_us();
        let mut now = self.now();
        now.configuration.refusals += 1;
        now.configuration.refused = Some(Refusal { time_us, reason });
    }

    /// What makes no progress.
    pub(crate) fn set_stuck(&self, stuck: Vec<String>) {
        self.now().stuck = stuck;
    }

    /// How often each bus has come round.
    pub(crate) fn turns(&self) -> Vec<BusTurns> {
        let turns = |place: &BusPlace| BusTurns {
            turns: self.0.buses.turns(&place.name).unwrap_or_default(),
            name: place.name.clone(),
            incarnation: place.incarnation,
            bound: place.bound,
        };
        self.now().places.iter().map(turns).collect()
    }

    /// Waits until the spool's task answers; `false` once it has ended.
    pub(crate) async fn spool_answers(&self) -> bool {
        self.0.spool.answers().await
    }

    /// Whether the uploader waits for what must long have ended: a cloud's client gives up by itself, and says so. A folder
    /// may be silent for ever, and a new start would not help.
    pub(crate) fn upload_hangs(&self) -> bool {
        !self.0.lake_is_a_folder && self.0.upload.hangs_for().is_some_and(|waited| waited > UPLOAD_BOUND)
    }

    /// How the gateway is.
    #[must_use]
    pub fn status(&self) -> GatewayStatus {
        let inner = &*self.0;
        let (spool, buses) = (inner.spool.status(), self.buses());
        let now = self.now();
        let mut status = GatewayStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway: inner.gateway.clone(),
            time_us: inner.clock.now_us(),
            uptime_s: inner.started.elapsed().as_secs(),
            health: Health::default(),
            configuration: now.configuration.clone(),
            clock: Some(ClockReport::new(&inner.clock, *inner.time_service.borrow())),
            spool: SpoolReport::from(&spool),
            upload: UploadReport::from(inner.upload.snapshot()),
            buses,
        };
        let silent = inner.upload.waits_for().filter(|waited| *waited > LAKE_SILENCE);
        let notes = report::Notes { stuck: &now.stuck, maintenance: inner.maintenance.trouble(), silent };
        status.health = report::health(&status, notes);
        status
    }

    fn buses(&self) -> Vec<BusReport> {
        let snapshots = self.0.buses.snapshot();
        let worked_on = self.0.maintenance.at(self.0.clock.now_us());
        let now = self.now();
        let report = |place: &BusPlace| {
            let bus = snapshots.iter().find(|bus| bus.bus == place.name)?;
            let devices = bus.devices.iter().map(|device| {
                let points = device.points.iter().map(|point| {
                    let sensor = || point.sensor.parse::<SensorId>().ok();
                    let is_worked_on = !worked_on.is_empty()
                        && sensor().is_some_and(|sensor| worked_on.iter().any(|sensors| sensors.matches(&sensor)));
                    PointReport::new(point, now.units.get(&point.sensor), is_worked_on)
                });
                DeviceReport::new(device, points.collect())
            });
            Some(BusReport {
                name: bus.bus.clone(),
                kind: bus.kind.clone(),
                incarnation: place.incarnation,
                turns: bus.turns,
                line_up: bus.line.as_ref().map(|line| *line == LineState::Up),
                line_error: bus.line.as_ref().and_then(|line| match line {
                    LineState::Up => None,
                    LineState::Missing(why) | LineState::Babbles(why) => Some(why.clone()),
                }),
                line_babbles: matches!(bus.line, Some(LineState::Babbles(_))),
                wire: bus.wire.as_ref().map(WireReport::from),
                strangers: bus.strangers,
                lines: bus.lines.as_ref().map(LinesReport::from),
                devices: devices.collect(),
            })
        };
        now.places.iter().filter_map(report).collect()
    }

    /// Held for as long as copying takes; nothing in that can panic half-way.
    fn now(&self) -> MutexGuard<'_, Now> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The unit of each sensor, where the configuration has one.
fn units(config: &Config) -> HashMap<String, String> {
    let commons = config.buses().iter().flat_map(|bus| match &bus.kind {
        BusKind::ModbusTcp { devices, .. }
        | BusKind::ModbusRtu { devices, .. }
        | BusKind::ModbusRtuTcp { devices, .. } => {
            devices.iter().flat_map(|device| &device.points).map(|point| &point.common).collect::<Vec<_>>()
        }
        BusKind::TextLines { points, .. } => points.iter().map(|point| &point.common).collect(),
    });
    commons.filter_map(|common| Some((common.sensor.as_str().to_owned(), common.terms.unit.clone()?))).collect()
}
