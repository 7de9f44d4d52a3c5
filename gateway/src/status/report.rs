//! The shape of `/status`: what a gateway says of itself, as JSON. Times are microseconds since 1970 UTC.
//!
//! Keys are added and never renamed; a reader that does not know one leaves it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tjern_readings::clock::Clock;

use crate::bus::lines::standing::Off;
use crate::bus::state::{DeviceSnapshot, DeviceState, PointSnapshot};
use crate::clock::ClockWord;
use crate::dating::written;
use crate::lines::counters::LineCounts;
use crate::modbus::stats::WireCounts;
use crate::spool::SpoolStatus;
use crate::upload::UploadSnapshot;

/// How a gateway is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Of the software.
    pub version: String,
    /// Its name.
    pub gateway: String,
    /// When this was said.
    pub time_us: i64,
    /// For how long it has run.
    pub uptime_s: u64,
    /// Whether all is well.
    pub health: Health,
    /// What it runs by.
    pub configuration: ConfigurationReport,
    /// Its clock.
    #[serde(default)]
    pub clock: Option<ClockReport>,
    /// Its spool.
    pub spool: SpoolReport,
    /// Its upload.
    pub upload: UploadReport,
    /// Its buses, in the order of the configuration.
    pub buses: Vec<BusReport>,
}

/// Whether all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The worst of what follows.
    pub state: HealthState,
    /// What somebody should look at.
    pub details: Vec<String>,
}

/// How well a gateway is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Nothing to do.
    #[default]
    Ok,
    /// It does its work; something around it wants to be looked at.
    Warning,
    /// It does not do its work.
    Failing,
}

/// What a gateway runs by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationReport {
    /// The file.
    pub path: String,
    /// The SHA-256 (hex) of what is in force.
    pub sha256: String,
    /// Reloads that were carried out since the start.
    pub reloads: u64,
    /// Reloads that were refused since the start.
    pub refusals: u64,
    /// Reloads since the start that found the configuration as it was.
    #[serde(default)]
    pub unchanged: u64,
    /// Why the last reload changed nothing, if it was refused.
    pub refused: Option<Refusal>,
}

/// A reload that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When.
    pub time_us: i64,
    /// Why.
    pub reason: String,
}

/// A clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReport {
    /// Whether it is believed: until then readings wait for it on disk, or have an estimated time after `[clock] patience`, and
    /// at once where it was believed before.
    pub is_known: bool,
    /// Whether the machine's time service has synchronised it, a few minutes ago; `None` where none says so.
    pub is_synchronised: Option<bool>,
    /// How far it is ahead of the true time, in milliseconds, where chrony reckons it.
    pub ahead_ms: Option<i64>,
    /// How far it fell back, in milliseconds, while it is not believed for that.
    #[serde(default)]
    pub fallen_ms: Option<i64>,
    /// The last time that was believed, while it is not for that: before it a start believes a right clock with `[clock] trusted`
    /// only, and after it of itself.
    #[serde(default)]
    pub believed_until_us: Option<i64>,
    /// How often it fell back and was not believed, since the start.
    #[serde(default)]
    pub falls: u64,
}

impl ClockReport {
    pub(super) fn new(clock: &Clock, word: ClockWord) -> Self {
        let doubt = clock.doubt();
        let fallen_ms = doubt.map(|doubt| doubt.behind_us / 1_000);
        Self {
            is_known: clock.is_set() && fallen_ms.is_none(),
            is_synchronised: word.is_synchronised,
            ahead_ms: word.ahead_ms,
            fallen_ms,
            believed_until_us: doubt.map(|doubt| doubt.since_us),
            falls: clock.falls(),
        }
    }
}

/// A spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolReport {
    /// Its epoch.
    pub epoch: String,
    /// What it takes of the disk.
    pub bytes: u64,
    /// Sealed objects that wait.
    pub sealed_objects: u64,
    /// Readings on disk that are not sealed.
    pub unsealed_readings: u64,
    /// Readings that are not on disk.
    pub unsynced_readings: u64,
    /// Readings that were lost for want of room, since the start.
    pub dropped_readings: u64,
    /// Batches whose place a gap took because the spool was full, since the start.
    pub dropped_batches: u64,
    /// Sealed objects for which the lake has no place, since the start.
    #[serde(default)]
    pub set_aside_objects: u64,
    /// Segments with a torn tail, found at the start.
    pub torn_tails: u64,
    /// Damaged records and files that were found.
    pub bad_records: u64,
    /// Whether the disk refuses readings at present.
    pub in_trouble: bool,
    /// Why, and what may help.
    #[serde(default)]
    pub writing_trouble: Option<String>,
    /// Why batches cannot be written at present.
    #[serde(default)]
    pub sealing_trouble: Option<String>,
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadReport {
    /// Sealed objects that wait for the lake.
    pub waiting_batches: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// The time of the oldest reading that waits.
    pub oldest_waiting_us: Option<i64>,
    /// When the lake last answered as it should.
    pub last_success_us: Option<i64>,
    /// What went wrong last, unless all is well again.
    pub last_error: Option<String>,
    /// How long after its newest reading's time the last batch was in the lake.
    pub last_lag_us: Option<i64>,
    /// Requests since the start.
    pub requests: u64,
    /// Batches that the lake took since the start.
    pub uploaded_batches: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
}

/// A bus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BusReport {
    /// Its name.
    pub name: String,
    /// Its kind, as the configuration has it.
    pub kind: String,
    /// Grows with every bus that a reload begins: the same number is the same life.
    pub incarnation: u64,
    /// How often it has come round.
    pub turns: u64,
    /// Whether its line or its server was there and could be used when it was last needed; nothing before that.
    #[serde(default)]
    pub line_up: Option<bool>,
    /// Why it is not there, or cannot be used.
    #[serde(default)]
    pub line_error: Option<String>,
    /// It is there, and never falls silent.
    #[serde(default)]
    pub line_babbles: bool,
    /// What was counted on its wire, where anything is.
    pub wire: Option<WireReport>,
    /// Answers with another transaction id than that of a request that waits, on a Modbus TCP bus.
    #[serde(default)]
    pub strangers: Option<u64>,
    /// What was counted of its lines, on a bus of text lines.
    #[serde(default)]
    pub lines: Option<LinesReport>,
    /// Its devices.
    pub devices: Vec<DeviceReport>,
}

/// What was counted on a wire since its bus began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireReport {
    /// How often the port or the connection was opened.
    pub opened: u64,
    /// Requests that were heard back.
    pub echoes: u64,
    /// Whole frames that answered something else, or came too late.
    pub strangers: u64,
    /// Bytes that belonged to no frame.
    pub noise_bytes: u64,
    /// Requests that were not sent, since the line never fell silent.
    #[serde(default)]
    pub never_silent: u64,
    /// Answers that were not believed, since another or strange bytes came with them.
    #[serde(default)]
    pub doubted: u64,
    /// The port's hardware: characters without their stop bit.
    pub frame: u64,
    /// Characters that came too fast.
    pub overrun: u64,
    /// Characters with a wrong parity.
    pub parity: u64,
    /// Breaks.
    pub line_break: u64,
    /// Characters that found the kernel's buffer full.
    pub buffer_overrun: u64,
}

impl From<&WireCounts> for WireReport {
    fn from(counts: &WireCounts) -> Self {
        Self {
            opened: counts.opened,
            echoes: counts.echoes,
            strangers: counts.strangers,
            noise_bytes: counts.noise,
            never_silent: counts.never_silent,
            doubted: counts.doubted,
            frame: counts.hardware.frame,
            overrun: counts.hardware.overrun,
            parity: counts.hardware.parity,
            line_break: counts.hardware.line_break,
            buffer_overrun: counts.hardware.buffer_overrun,
        }
    }
}

/// What was counted of text lines since their bus began. A line may be in several counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinesReport {
    /// Whole lines that came.
    pub lines: u64,
    /// Lines that were too long, ended before their length, or began where nobody listened.
    pub dropped: u64,
    /// Sentences with a wrong checksum, or without one where the device sent one before.
    pub bad_checksums: u64,
    /// Lines in which a point found its place, and no number there.
    pub unparsed: u64,
    /// Lines that were for no point.
    pub unwanted: u64,
    /// Lines whose time could not be read or believed.
    pub bad_times: u64,
    /// Values of a time that was stored already.
    pub repeated: u64,
    /// Values of a time among those too many to be remembered one by one: stored already, or lost.
    #[serde(default)]
    pub forgotten: u64,
    /// Values of a time that comes twice when summer ends, of which nothing told which it is: not stored.
    #[serde(default)]
    pub undecided: u64,
}

impl LinesReport {
    /// Every count that tells of damage or of a wrong configuration, with its word.
    #[must_use]
    pub const fn kinds(&self) -> [(&'static str, u64); 8] {
        [
            ("dropped", self.dropped),
            ("bad_checksum", self.bad_checksums),
            ("unparsed", self.unparsed),
            ("unwanted", self.unwanted),
            ("bad_time", self.bad_times),
            ("repeated", self.repeated),
            ("forgotten", self.forgotten),
            ("undecided", self.undecided),
        ]
    }
}

impl From<&LineCounts> for LinesReport {
    fn from(counts: &LineCounts) -> Self {
        Self {
            lines: counts.lines,
            dropped: counts.dropped,
            bad_checksums: counts.bad_checksums,
            unparsed: counts.unparsed,
            unwanted: counts.unwanted,
            bad_times: counts.bad_times,
            repeated: counts.repeated,
            forgotten: counts.forgotten,
            undecided: counts.undecided,
        }
    }
}

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its name.
    pub name: String,
    /// Its address on a Modbus bus.
    pub unit_id: Option<u8>,
    /// `unknown`, `healthy`, `suspect` or `down`.
    pub state: String,
    /// How long its last answer took.
    pub round_trip_us: Option<u64>,
    /// Requests without an answer in time.
    pub timeouts: u64,
    /// Requests that nothing could be sent for, since its line or its server is missing, or that it hung up on.
    #[serde(default)]
    pub unreachable: u64,
    /// Answers that were exceptions.
    pub exceptions: u64,
    /// Answers that made no sense.
    pub broken_frames: u64,
    /// How far its own time is ahead of the gateway's, where it is days behind or not to be believed; less than 0: behind.
    #[serde(default)]
    pub time_ahead_us: Option<i64>,
    /// What is read from it.
    pub points: Vec<PointReport>,
}

/// A point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointReport {
    /// Whose readings these are.
    pub sensor: String,
    /// The value's unit, where the configuration has one.
    pub unit: Option<String>,
    /// Its period.
    pub every_us: i64,
    /// The last slot that ended.
    pub slot_us: Option<i64>,
    /// Its value.
    pub value: Option<f64>,
    /// Why there is none.
    pub cause: Option<String>,
    /// Whether it is under maintenance now: what is measured is marked.
    #[serde(default)]
    pub maintenance: bool,
    /// When it ended.
    pub answered_us: Option<i64>,
    /// How long that took.
    pub round_trip_us: Option<u64>,
    /// Slots that passed without a poll.
    pub missed: u64,
    /// Its device talks, and says nothing new of it, since then.
    #[serde(default)]
    pub nothing_new_since_us: Option<i64>,
}

impl From<&SpoolStatus> for SpoolReport {
    fn from(status: &SpoolStatus) -> Self {
        Self {
            epoch: status.epoch.to_string(),
            bytes: status.bytes,
            sealed_objects: status.sealed_count as u64,
            unsealed_readings: status.unsealed_readings as u64,
            unsynced_readings: status.unsynced_readings as u64,
            dropped_readings: status.dropped_readings,
            dropped_batches: status.dropped_batches,
            set_aside_objects: status.set_aside_objects,
            torn_tails: status.torn_tails,
            bad_records: status.bad_records,
            in_trouble: status.in_trouble,
            writing_trouble: status.writing_trouble.clone(),
            sealing_trouble: status.sealing_trouble.clone(),
        }
    }
}

impl From<UploadSnapshot> for UploadReport {
    fn from(snapshot: UploadSnapshot) -> Self {
        Self {
            waiting_batches: snapshot.waiting_batches,
            waiting_bytes: snapshot.waiting_bytes,
            oldest_waiting_us: snapshot.oldest_waiting_us,
            last_success_us: snapshot.last_success_us,
            last_error: snapshot.last_error,
            last_lag_us: snapshot.last_lag_us,
            requests: snapshot.requests,
            uploaded_batches: snapshot.uploaded_batches,
            uploaded_bytes: snapshot.uploaded_bytes,
        }
    }
}

impl DeviceReport {
    pub(super) fn new(device: &DeviceSnapshot, points: Vec<PointReport>) -> Self {
        Self {
            name: device.device.clone(),
            unit_id: device.unit_id,
            state: state_name(device.state).to_owned(),
            round_trip_us: device.round_trip_us,
            timeouts: device.timeouts,
            unreachable: device.unreachable,
            exceptions: device.exceptions,
            broken_frames: device.broken_frames,
            time_ahead_us: device.time_ahead_us,
            points,
        }
    }
}

impl PointReport {
    pub(super) fn new(point: &PointSnapshot, unit: Option<&String>, maintenance: bool) -> Self {
        Self {
            sensor: point.sensor.clone(),
            unit: unit.cloned(),
            every_us: point.every_us,
            slot_us: point.slot_us,
            value: point.value,
            cause: point.cause.map(|cause| cause.to_string()),
            maintenance,
            answered_us: point.answered_us,
            round_trip_us: point.round_trip_us,
            missed: point.missed,
            nothing_new_since_us: point.nothing_new_since_us,
        }
    }
}

/// The word for a state.
fn state_name(state: DeviceState) -> &'static str {
    DeviceState::ALL.iter().find(|(_, known)| *known == state).map_or("unknown", |(name, _)| name)
}

/// What `/health` has besides what the status says.
pub(super) struct Notes<'now> {
    /// What makes no progress.
    pub(super) stuck: &'now [String],
    /// Why what is under maintenance is not known.
    pub(super) maintenance: Option<String>,
    /// For how long the lake has not answered a question.
    pub(super) silent: Option<Duration>,
}

/// How well a gateway is, as its status has it. A device that is down and a lake that is away are not the
/// gateway's failures: a new start would not help.
pub(super) fn health(status: &GatewayStatus, Notes { stuck, maintenance, silent }: Notes<'_>) -> Health {
    let mut failing: Vec<String> = stuck.to_vec();
    if status.spool.in_trouble {
        let why = status.spool.writing_trouble.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        failing.push(format!("the disk refuses readings: they are held in memory{why}"));
    }
    if let Some(error) = &status.spool.sealing_trouble {
        failing.push(format!("batches cannot be written, and nothing that is new is uploaded: {error}"));
    }
    let mut warnings = Vec::new();
    if let Some(refused) = &status.configuration.refused {
        warnings.push(format!("the new configuration was refused, the old one stays: {}", refused.reason));
    }
    warnings.extend(status.clock.as_ref().and_then(of_clock));
    if let Some(trouble) = maintenance {
        warnings.push(format!("what is under maintenance stays as it was: {trouble}"));
    }
    if let Some(error) = &status.upload.last_error {
        warnings.push(format!("nothing can be uploaded: {error}"));
    }
    if let Some(waited) = silent {
        let waited = waited.as_secs();
        warnings.push(format!(
            "nothing can be uploaded: the lake has not answered for {waited} s; hint: is the folder on a server that is gone, or the link slow?"
        ));
    }
    if status.spool.dropped_batches > 0 {
        warnings.push(format!("the spool was full: {} batches were dropped", status.spool.dropped_batches));
    }
    if status.spool.dropped_readings > 0 {
        let count = status.spool.dropped_readings;
        warnings.push(format!("{count} readings were lost for want of room, in memory or in the spool"));
    }
    if status.spool.bad_records > 0 {
        let count = status.spool.bad_records;
        warnings.push(format!("{count} records or files of the spool were damaged or missing: the log names them, and what could be copied is in `kept` in its folder"));
    }
    if status.spool.set_aside_objects > 0 {
        let count = status.spool.set_aside_objects;
        warnings.push(format!("the lake has no place for {count} batches of this spool: see `kept` in its folder"));
    }
    for bus in &status.buses {
        // A line a bus, and not one for each device behind it.
        if let Some(why) = &bus.line_error {
            let what = if bus.line_babbles { "cannot be asked" } else { "is not reachable" };
            warnings.push(format!("bus `{}` {what}: {why}", bus.name));
            continue;
        }
        for device in &bus.devices {
            if device.state == "down" {
                warnings.push(format!("device `{}` on bus `{}` is down", device.name, bus.name));
            }
            warnings.extend(of_times(status.time_us, &bus.name, device));
        }
    }
    let state = match (failing.is_empty(), warnings.is_empty()) {
        (false, _) => HealthState::Failing,
        (true, false) => HealthState::Warning,
        (true, true) => HealthState::Ok,
    };
    failing.extend(warnings);
    Health { state, details: failing }
}

/// What is to be said of a device that talks, where its lines have times of their own.
fn of_times(now_us: i64, bus: &str, device: &DeviceReport) -> impl Iterator<Item = String> {
    let name = &device.name;
    let stuck = || device.points.iter().filter_map(|point| Some((point, point.nothing_new_since_us?)));
    let nothing_new = stuck().min_by_key(|(_, since_us)| *since_us).map(|(point, since_us)| {
        let waited_s = now_us.saturating_sub(since_us).max(0) / 1_000_000;
        let others = match stuck().count() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        format!(
            "device `{name}` on bus `{bus}` talks, and nothing new came of `{}`{others} for {waited_s} s; hint: does it print one line again and again, or does its clock stand still?",
            point.sensor
        )
    });
    let off = device.time_ahead_us.map(|ahead_us| {
        format!("the time of device `{name}` on bus `{bus}` is {} the gateway's; hint: set its clock, and look at `time_format` and `time_zone`", Off(ahead_us))
    });
    nothing_new.into_iter().chain(off)
}

/// What is to be said of a clock that is not believed. Nothing on the machine tells one that is wrong now from one that was ahead before
/// and is right now: a person has to.
fn of_clock(clock: &ClockReport) -> Option<String> {
    if clock.is_known {
        return None;
    }
    let Some(fallen_ms) = clock.fallen_ms else {
        let hint =
            "hint: `tjern-gateway doctor` says who keeps it; `[clock] trusted` is for networks without a time server";
        return Some(format!(
            "the time is not known: readings wait on disk for it, or have an estimated time once `[clock] patience` is over; {hint}"
        ));
    };
    let fallen_s = fallen_ms / 1_000;
    let until = clock
        .believed_until_us
        .map_or_else(String::new, |until_us| format!(", which can go after {}", written(until_us)));
    Some(format!(
        "the clock fell back by {fallen_s} s while the gateway ran, and is not believed: readings are dated by the time that passed since, and say so (`clock_estimated`); hint: compare it with a watch; where it is wrong, set it right; where it is right now and was ahead before, start the gateway anew with `trusted = true` in `[clock]`{until}"
    ))
}

#[cfg(test)]
mod tests {
    use tjern_readings::clock::SECOND_US;

    use super::super::pages::tests::STATUS;
    use super::*;

    const NOW_US: i64 = 1_796_000_000 * SECOND_US;

    /// A logger that hung, and one of another year, were healthy as long as they talked.
    #[test]
    fn a_device_that_talks_and_says_nothing_new_or_of_today_is_a_warning() {
        let point = |sensor: &str, since_us: &str| {
            format!(
                r#"{{"sensor":"{sensor}","unit":null,"every_us":2000000,"slot_us":null,"value":1,"cause":null,"answered_us":null,"round_trip_us":null,"missed":0,"nothing_new_since_us":{since_us}}}"#
            )
        };
        let points = [
            point("tarn/flow", "1699999900000000"),
            point("tarn/level", "1699999850000000"),
            point("tarn/rain", "null"),
        ];
        let bus = format!(
            r#"[{{"name":"mast","kind":"text-lines","incarnation":1,"turns":5,"wire":null,"devices":[{{"name":"logger","unit_id":null,"state":"healthy",
            "round_trip_us":null,"timeouts":0,"exceptions":0,"broken_frames":0,"time_ahead_us":-34560000000000,"points":[{}]}}]}}]"#,
            points.join(",")
        );
        let status = STATUS.replace("\"buses\":[]", &format!("\"buses\":{bus}"));
        let status: GatewayStatus = serde_json::from_str(&status).expect("a status");
        let health = health(&status, Notes { stuck: &[], maintenance: None, silent: None });
        assert_eq!((health.state, health.details.len()), (HealthState::Warning, 2), "{health:?}");
        let stuck =
            "device `logger` on bus `mast` talks, and nothing new came of `tarn/level` and 1 more for 160 s; hint: ";
        assert!(health.details[0].starts_with(stuck), "{health:?}");
        let off = "the time of device `logger` on bus `mast` is 400 days behind the gateway's; hint: ";
        assert!(health.details[1].starts_with(off), "{health:?}");
    }

    /// A clock was two hours ahead and was set right by hand: the technician was told to start with `trusted`, and not for how long. It
    /// stayed there for good, and the next clock that fell was followed.
    #[test]
    fn who_set_a_clock_right_is_told_what_to_do_and_until_when() {
        let wall = Clock::manual(NOW_US);
        let clock = wall.guarded(900 * SECOND_US);
        let report = || ClockReport::new(&clock, ClockWord::default());
        assert_eq!((report().believed_until_us, of_clock(&report())), (None, None));
        wall.set_us(NOW_US - 7_200 * SECOND_US);
        let report = report();
        assert_eq!(
            (report.is_known, report.fallen_ms, report.believed_until_us),
            (false, Some(7_200_000), Some(NOW_US))
        );
        let said = of_clock(&report).unwrap_or_default();
        assert!(said.contains("compare it with a watch") && said.contains("`trusted = true`"), "{said}");
        assert!(said.ends_with("which can go after 2026-11-30T00:53:20Z"), "{said}");
    }
}
