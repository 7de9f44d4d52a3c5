//! The table that `watch` shows: every point of a gateway with its value, age, round trip and state.
//!
//! Text from a status and nothing else. What came from elsewhere is stripped of what would drive a terminal.
//! Times are local: this is for people. Where there is little room names are shortened, then columns go
//! ([`layout`]): a value, its age and its state are always there, and whole, down to [`COLUMNS_MIN`] columns.

mod layout;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::status::report::{DeviceReport, GatewayStatus, HealthState, PointReport};

/// A value older than so many periods is late.
const LATE_PERIODS: i64 = 2;

/// And a second is granted, however short the period.
const LATE_MIN_US: i64 = 1_000_000;

/// In narrower terminals the table is as wide as this.
pub const COLUMNS_MIN: usize = 30;

/// So many digits of a number are shown: more are the float's own, and not the device's.
const DIGITS: usize = 12;

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

/// The table; each line ends with a line's end, and none is longer than there is room, which is [`COLUMNS_MIN`] at least.
#[must_use]
pub fn table(status: &GatewayStatus, size: Size) -> String {
    let size = Size { columns: size.columns.max(COLUMNS_MIN), ..size };
    let mut lines = head(status, &TimeZone::system());
    lines.extend(layout::lines(&rows(status), size.columns));
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

/// A number with the digits that its device may have meant: an f32 has the shortest that reads back as the same, another float
/// [`DIGITS`] at most, a whole number all of them. A float in the wrong byte order may have hundreds.
fn number(value: f64) -> String {
    let is_far = value != 0.0 && !(1e-6..1e16).contains(&value.abs());
    #[expect(clippy::cast_possible_truncation, reason = "where something is lost it is no f32")]
    let single = value as f32;
    let is_single = f64::from(single) == value;
    let is_whole = value.fract() == 0.0;
    match (is_single, is_far) {
        (true, true) => format!("{single:e}"),
        (true, false) if !is_whole => single.to_string(),
        (false, false) if is_whole => value.to_string(),
        (true, false) => value.to_string(),
        (false, _) => {
            let rounded = format!("{value:.*e}", DIGITS - 1).parse().unwrap_or(value);
            if is_far { format!("{rounded:e}") } else { rounded.to_string() }
        }
    }
}

/// A word for how a point is: what is wrong with the value first, then with the device.
fn state(device: &DeviceReport, point: &PointReport, age_us: Option<i64>) -> String {
    let late_us = point.every_us.saturating_mul(LATE_PERIODS).saturating_add(LATE_MIN_US);
    let word = match (&point.cause, age_us) {
        (Some(cause), _) => plain(cause),
        _ if point.maintenance => "maintenance".to_owned(),
        (None, None) => "waiting".to_owned(),
        (None, Some(age_us)) if age_us > late_us => "late".to_owned(),
        _ => "ok".to_owned(),
    };
    match device.state.as_str() {
        "suspect" | "down" => format!("{word}, device {}", device.state),
        _ => word,
    }
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
            ["0", "-12.5", "0.000001", "1e16", "2.22507385851e-308", "1.79769313486e308"].map(String::from)
        );
    }

    /// Ten digits of 12.354885 were those of a float that the device never had.
    #[test]
    fn a_number_has_the_digits_that_its_device_has() {
        let single = |value: f32| number(f64::from(value));
        assert_eq!([single(12.354_885), single(-0.1), single(1.5e-30)], ["12.354885", "-0.1", "1.5e-30"]);
        assert_eq!([number(0.1 + 0.2), number(1_234.567_89)], ["0.3", "1234.56789"]);
        let counts = [16_777_217.0, 4_294_967_296.0, 9_007_199_254_740_991.0];
        assert_eq!(counts.map(number), ["16777217", "4294967296", "9007199254740991"]);
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
        assert!(shown.contains("… and 8 more lines"), "{shown}");
    }

    /// On 80 columns a long sensor pushed value, age and state out to the right; whatever there is room for, they are there.
    #[test]
    fn a_value_its_age_and_its_state_are_always_there() {
        let mut status = status();
        status.buses[0].devices[0].points[0].sensor =
            "harbour-north/quay-12/water_temperature_at_the_bottom".to_owned();
        for columns in (0..=140).chain([usize::MAX]) {
            let shown = table(&status, Size { rows: usize::MAX, columns });
            let table = shown.split_once("\n\n").expect("a head and a table").1;
            let longest = table.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(columns.max(COLUMNS_MIN)), "{columns}:\n{shown}");
            let words: Vec<&str> = table.split_whitespace().collect();
            for point in [
                &["11.5", "Cel", "500", "ms"][..],
                &["3", "10.0", "s"],
                &["late"],
                &["waiting"],
                &["timeout,", "device", "down"],
            ] {
                assert!(words.windows(point.len()).any(|words| words == point), "{columns}: no {point:?} in:\n{shown}");
            }
        }
    }

    /// A value from a technician's hand was `ok`.
    #[test]
    fn what_is_under_maintenance_is_not_shown_as_well() {
        let mut status = status();
        status.buses[0].devices[0].points[0].maintenance = true;
        let shown = table(&status, Size::UNBOUNDED);
        let row = shown.lines().find(|line| line.contains("tarn/water_temperature")).unwrap_or_default();
        assert!(row.contains("11.5 Cel") && row.trim_end().ends_with("maintenance"), "{shown}");
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
