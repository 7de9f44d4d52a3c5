//! The table that `watch` shows: every point of a gateway with its value, age, round trip and state.
//!
//! Text from a status and nothing else. What came from elsewhere is stripped of what would drive a terminal.
//! Times are local: this is for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::status::report::{DeviceReport, GatewayStatus, HealthState, PointReport};

/// A value older than so many periods is late.
const LATE_PERIODS: i64 = 2;

/// And a second is granted, however short the period.
const LATE_MIN_US: i64 = 1_000_000;

const HEADINGS: [&str; 7] = ["BUS", "DEVICE", "SENSOR", "VALUE", "AGE", "ROUND TRIP", "STATE"];

/// Columns of numbers stand to the right.
const RIGHT: [bool; 7] = [false, false, false, true, true, true, false];

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: usize,
    /// Characters in a line.
    pub columns: usize,
}

impl Size {
    /// No terminal.
    pub const UNBOUNDED: Self = Self { rows: usize::MAX, columns: usize::MAX };
}

/// The table; each line ends with a line's end, and none is longer than there is room.
#[must_use]
pub fn table(status: &GatewayStatus, size: Size) -> String {
    let mut lines = head(status, &TimeZone::system());
    let rows: Vec<[String; 7]> = rows(status);
    lines.extend(aligned(&rows));
    if lines.len() >= size.rows {
        let hidden = lines.len() - size.rows.saturating_sub(2);
        lines.truncate(size.rows.saturating_sub(2));
        lines.push(format!("… and {hidden} more lines: `--once` shows all"));
    }
    let cut = |line: String| line.chars().take(size.columns).collect::<String>().trim_end().to_owned() + "\n";
    lines.into_iter().map(cut).collect()
}

fn head(status: &GatewayStatus, zone: &TimeZone) -> Vec<String> {
    let spool = &status.spool;
    let upload = &status.upload;
    let mut lines = vec![
        format!(
            "{}  {}  up {}  configuration {}",
            plain(&status.gateway),
            local(status.time_us, zone),
            span(i64::try_from(status.uptime_s).unwrap_or(i64::MAX).saturating_mul(1_000_000)),
            status.configuration.sha256.get(..8).unwrap_or_default(),
        ),
        format!(
            "spool {}  waiting {} ({})  uploaded {}  last success {}",
            bytes(spool.bytes),
            upload.waiting_batches,
            bytes(upload.waiting_bytes),
            upload.uploaded_batches,
            upload.last_success_us.map_or_else(|| "never".to_owned(), |time_us| local(time_us, zone)),
        ),
    ];
    for (bus, counts) in status.buses.iter().filter_map(|bus| Some((bus, bus.lines?))) {
        let wrong = counts.kinds().into_iter().filter(|(_, count)| *count > 0);
        let wrong: String = wrong.map(|(kind, count)| format!("  {count} {}", kind.replace('_', " "))).collect();
        lines.push(format!("lines on {}: {}{wrong}", plain(&bus.name), counts.lines));
    }
    if status.health.state != HealthState::Ok {
        lines.extend(status.health.details.iter().map(|detail| format!("! {}", plain(detail))));
    }
    lines.push(String::new());
    lines
}

fn rows(status: &GatewayStatus) -> Vec<[String; 7]> {
    let mut rows = Vec::new();
    for bus in &status.buses {
        for device in &bus.devices {
            rows.extend(device.points.iter().map(|point| row(&bus.name, device, point, status.time_us)));
        }
    }
    rows
}

fn row(bus: &str, device: &DeviceReport, point: &PointReport, now_us: i64) -> [String; 7] {
    let value = match (point.value, &point.unit) {
        (None, _) => "-".to_owned(),
        (Some(value), None) => number(value),
        (Some(value), Some(unit)) => format!("{} {}", number(value), plain(unit)),
    };
    let age_us = point.answered_us.map(|answered_us| now_us.saturating_sub(answered_us).max(0));
    [
        plain(bus),
        plain(&device.name),
        plain(&point.sensor),
        value,
        age_us.map_or_else(|| "-".to_owned(), span),
        point.round_trip_us.and_then(|time_us| i64::try_from(time_us).ok()).map_or_else(|| "-".to_owned(), span),
        state(device, point, age_us),
    ]
}

/// A float in the wrong byte order may have hundreds of digits.
fn number(value: f64) -> String {
    let is_far = value != 0.0 && !(1e-6..1e16).contains(&value.abs());
    if is_far { format!("{value:e}") } else { value.to_string() }
}

/// A word for how a point is: what is wrong with the value first, then with the device.
fn state(device: &DeviceReport, point: &PointReport, age_us: Option<i64>) -> String {
    let late_us = point.every_us.saturating_mul(LATE_PERIODS).saturating_add(LATE_MIN_US);
    let word = match (&point.cause, age_us) {
        (Some(cause), _) => plain(cause),
        (None, None) => "waiting".to_owned(),
        (None, Some(age_us)) if age_us > late_us => "late".to_owned(),
        _ => "ok".to_owned(),
    };
    match device.state.as_str() {
        "suspect" | "down" => format!("{word}, device {}", device.state),
        _ => word,
    }
}

fn aligned(rows: &[[String; 7]]) -> Vec<String> {
    let mut widths = HEADINGS.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String; 7]| {
        let mut line = String::new();
        for ((cell, width), right) in cells.iter().zip(widths).zip(RIGHT) {
            line += &if right { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") };
        }
        line
    };
    std::iter::once(&HEADINGS.map(str::to_owned)).chain(rows).map(line).collect()
}

/// Without what would drive a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn local(time_us: i64, zone: &TimeZone) -> String {
    Timestamp::from_microsecond(time_us).map_or_else(
        |_| "at an unknown time".to_owned(),
        |time| time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
    )
}

/// A length of time in its largest unit, with a digit more where that is small.
fn span(time_us: i64) -> String {
    let milliseconds = time_us / 1_000;
    let seconds = milliseconds / 1_000;
    match seconds {
        _ if milliseconds < 1_000 => format!("{milliseconds} ms"),
        0..120 => format!("{seconds}.{} s", milliseconds % 1_000 / 100),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..10_240 => format!("{count} B"),
        10_240..10_485_760 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A status as a gateway sends it: keys stay as they are for as long as there are gateways.
    const STATUS: &str = r#"{"version":"0.1.0","gateway":"landfall-01","time_us":1700000010000000,"uptime_s":90,
        "health":{"state":"warning","details":["device `meter` on bus `north` is down"]},
        "configuration":{"path":"gateway.toml","sha256":"0123456789abcdef","reloads":0,"refusals":0,"refused":null},
        "spool":{"epoch":"e","bytes":1048576,"sealed_objects":1,"unsealed_readings":2,"unsynced_readings":0,
            "dropped_readings":0,"dropped_batches":0,"torn_tails":0,"bad_records":0,"in_trouble":false},
        "upload":{"waiting_batches":1,"waiting_bytes":2000,"oldest_waiting_us":null,"last_success_us":1700000000000000,
            "last_error":null,"last_lag_us":null,"requests":3,"uploaded_batches":2,"uploaded_bytes":4000},
        "a_key_of_later":true,
        "buses":[{"name":"north","kind":"modbus-tcp","incarnation":1,"turns":5,"wire":null,"devices":[
            {"name":"logger","unit_id":1,"state":"healthy","round_trip_us":8000,"timeouts":0,"exceptions":0,
             "broken_frames":0,"points":[
                {"sensor":"tarn/water_temperature","unit":"Cel","every_us":1000000,"slot_us":1700000009000000,
                 "value":11.5,"cause":null,"answered_us":1700000009500000,"round_trip_us":8000,"missed":0},
                {"sensor":"tarn/depth","unit":null,"every_us":1000000,"slot_us":null,
                 "value":null,"cause":null,"answered_us":null,"round_trip_us":null,"missed":0},
                {"sensor":"tarn/level","unit":null,"every_us":1000000,"slot_us":1700000000000000,
                 "value":3,"cause":null,"answered_us":1700000000000000,"round_trip_us":900,"missed":9}]},
            {"name":"meter","unit_id":2,"state":"down","round_trip_us":null,"timeouts":3,"exceptions":0,
             "broken_frames":0,"points":[
                {"sensor":"tarn/energy","unit":null,"every_us":1000000,"slot_us":1700000009000000,
                 "value":null,"cause":"timeout","answered_us":1700000009500000,"round_trip_us":null,"missed":0}]}]}]}"#;

    fn status() -> GatewayStatus {
        serde_json::from_str(STATUS).expect("a status")
    }

    /// Sixty digits of a float in the wrong byte order left no room for its state.
    #[test]
    fn a_number_is_never_long() {
        let shown = [0.0, -12.5, 1e-6, 1e16, f64::MIN_POSITIVE, f64::MAX].map(number);
        assert_eq!(
            shown,
            ["0", "-12.5", "0.000001", "1e16", "2.2250738585072014e-308", "1.7976931348623157e308"].map(String::from)
        );
    }

    #[test]
    fn every_point_has_a_line_with_value_age_round_trip_and_state() {
        let shown = table(&status(), Size::UNBOUNDED);
        for line in [
            "! device `meter` on bus `north` is down",
            "BUS    DEVICE  SENSOR                     VALUE     AGE  ROUND TRIP  STATE",
            "north  logger  tarn/water_temperature  11.5 Cel  500 ms        8 ms  ok",
            "north  logger  tarn/depth                     -       -           -  waiting",
            "north  logger  tarn/level                     3  10.0 s        0 ms  late",
            "north  meter   tarn/energy                    -  500 ms           -  timeout, device down",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "no {line:?} in:\n{shown}");
        }
    }

    #[test]
    fn a_small_terminal_is_not_overrun() {
        let shown = table(&status(), Size { rows: 7, columns: 30 });
        assert_eq!(shown.lines().count(), 6, "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 30), "{shown}");
        assert!(shown.contains("… and 4 more lines"), "{shown}");
    }

    #[test]
    fn names_do_not_drive_the_terminal() {
        let mut status = status();
        status.buses[0].name = "\u{1b}[2Jnorth".to_owned();
        assert!(!table(&status, Size::UNBOUNDED).contains('\u{1b}'));
    }

    #[test]
    fn times_are_local() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert!(local(1_700_000_000_000_000, &zone).starts_with("2023-11-15 00:13:20"));
    }
}
