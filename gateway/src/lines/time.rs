//! A device's own time: where in a line it stands, how it is written, in which zone. No I/O, no clock.
//!
//! A local time that comes twice when summer ends is two moments: which of them is meant the lines around it say
//! (`repeated_hour`). A time is believed from 2001 on (a clock that lost its battery counts from 2000) and up to
//! [`FUTURE_MAX_US`] after the gateway's.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use regex::Regex;

use super::{delimited, nmea};

/// So far ahead of the gateway's a device's clock may be: what is further is refused by ingest too.
pub const FUTURE_MAX_US: i64 = 600 * 1_000_000;

/// 2001-01-01.
const BELIEVED_FROM_US: i64 = 978_307_200 * 1_000_000;

/// A moment that formats are tried with: no field of it can be taken for another.
const TRIAL: &str = "2026-11-22T13:46:00Z";

/// Where a line says what time it is, and how.
#[derive(Debug, Clone)]
pub struct DeviceTime {
    /// Where it stands.
    pub place: TimePlace,
    /// How it is written.
    pub format: TimeFormat,
    /// What zone a time without one is in.
    pub zone: TimeZone,
}

/// Where in a line a time stands.
#[derive(Debug, Clone)]
pub enum TimePlace {
    /// A field of the NMEA sentence, counted from 1 after the address.
    Field(usize),
    /// A column, counted from 1.
    Column {
        /// Which one.
        column: usize,
        /// What stands between columns.
        separator: String,
    },
    /// The group `time` of a pattern, which may find it anywhere in the line.
    Pattern(Regex),
}

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// Seconds since 1970 UTC, perhaps with decimals.
    Unix,
    /// Milliseconds since 1970 UTC.
    UnixMillis,
    /// RFC 3339, or ISO 8601 without an offset.
    Rfc3339,
    /// As `strptime` has it.
    Strptime(String),
}

/// The moments that a line's time may mean: one, or two where a local time comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moments {
    early_us: i64,
    late_us: i64,
    is_skipped: bool,
}

impl TimeFormat {
    /// The format that a configuration names: `unix`, `unix_ms`, `rfc3339`, or one of `strptime`.
    ///
    /// # Errors
    /// What is wrong with it: a time that was written with it must be read as the same.
    pub fn new(text: &str) -> Result<Self, String> {
        let format = match text {
            "unix" => return Ok(Self::Unix),
            "unix_ms" => return Ok(Self::UnixMillis),
            "rfc3339" => return Ok(Self::Rfc3339),
            other => Self::Strptime(other.to_owned()),
        };
        let trial: Timestamp = TRIAL.parse().map_err(|error| format!("no trial: {error}"))?;
        let hint = "hint: write `unix`, `unix_ms`, `rfc3339`, or fields like \"%Y-%m-%d %H:%M:%S\"";
        let written = jiff::fmt::strtime::format(text, &trial.to_zoned(TimeZone::UTC))
            .map_err(|error| format!("`{text}` is no format of a time: {error}; {hint}"))?;
        match format.read(&written, &TimeZone::UTC) {
            Some(moments) if moments.early_us == trial.as_microsecond() => Ok(format),
            _ => Err(format!("`{text}` does not say year, month, day, hour and minute; {hint}")),
        }
    }

    /// A time as a device writes it that writes whole seconds.
    fn write(&self, time_us: i64, zone: &TimeZone) -> String {
        let seconds = time_us.div_euclid(1_000_000);
        let time = Timestamp::from_second(seconds).unwrap_or_default();
        match self {
            Self::Unix => seconds.to_string(),
            Self::UnixMillis => (seconds * 1_000).to_string(),
            Self::Rfc3339 => time.to_string(),
            // It was tried when the configuration was read.
            Self::Strptime(format) => {
                jiff::fmt::strtime::format(format, &time.to_zoned(zone.clone())).unwrap_or_default()
            }
        }
    }

    fn read(&self, text: &str, zone: &TimeZone) -> Option<Moments> {
        match self {
            Self::Unix => unix(text),
            Self::UnixMillis => text.parse::<i64>().ok()?.checked_mul(1_000).map(Moments::one),
            Self::Rfc3339 => match text.parse::<Timestamp>() {
                Ok(time) => Some(Moments::one(time.as_microsecond())),
                Err(_) => in_zone(text.parse().ok()?, zone),
            },
            Self::Strptime(format) => {
                let fields = BrokenDownTime::parse(format, text).ok()?;
                if fields.offset().is_some() || fields.timestamp().is_some() {
                    return Some(Moments::one(fields.to_timestamp().ok()?.as_microsecond()));
                }
                in_zone(fields.to_datetime().ok()?, zone)
            }
        }
    }
}

/// The zone that a configuration names: `UTC`, `Europe/Oslo`, or a fixed offset, `+01:00`.
///
/// # Errors
/// What is wrong with it.
pub fn read_zone(text: &str) -> Result<TimeZone, String> {
    let refused = || {
        format!("`{text}` is no time zone; hint: write `UTC`, a name like `Europe/Oslo`, or an offset like `+01:00`")
    };
    if let Some(rest) = text.strip_prefix(['+', '-']) {
        let (hours, minutes) = rest.split_once(':').ok_or_else(refused)?;
        let number = |text: &str| text.parse::<i32>().ok().filter(|_| text.len() == 2 && !text.starts_with('+'));
        let (hours, minutes) = (number(hours).ok_or_else(refused)?, number(minutes).ok_or_else(refused)?);
        let seconds = Some(hours * 3_600 + minutes * 60).filter(|_| hours <= 14 && minutes < 60).ok_or_else(refused)?;
        let sign = if text.starts_with('-') { -1 } else { 1 };
        return Offset::from_seconds(sign * seconds).map(TimeZone::fixed).map_err(|_| refused());
    }
    TimeZone::get(text).map_err(|_| refused())
}

impl DeviceTime {
    /// A time as it stands in a line of a device that writes whole seconds.
    #[must_use]
    pub fn write(&self, time_us: i64) -> String {
        self.format.write(time_us, &self.zone)
    }

    /// What time a line says it is; `None` where it says none that can be read.
    #[must_use]
    pub fn read(&self, line: &str) -> Option<Moments> {
        let text = match &self.place {
            TimePlace::Field(field) => nmea::field(line, *field)?.into(),
            TimePlace::Column { column, separator } => delimited::column(*column, separator, line)?.0,
            TimePlace::Pattern(regex) => regex.captures(line)?.name("time")?.as_str().into(),
        };
        self.format.read(text.trim(), &self.zone)
    }
}

impl Moments {
    const fn one(time_us: i64) -> Self {
        Self { early_us: time_us, late_us: time_us, is_skipped: false }
    }

    /// The moment that is meant, where it is one.
    #[must_use]
    pub const fn only_us(self) -> Option<i64> {
        if self.early_us == self.late_us { Some(self.early_us) } else { None }
    }

    /// The first of the two.
    #[must_use]
    pub const fn early_us(self) -> i64 {
        self.early_us
    }

    /// The second of the two.
    #[must_use]
    pub const fn late_us(self) -> i64 {
        self.late_us
    }

    /// Whether its zone's clocks never show it: who writes it does not change to summer time.
    #[must_use]
    pub const fn is_skipped(self) -> bool {
        self.is_skipped
    }

    /// Those of them that can be believed now, if one can.
    #[must_use]
    pub fn believed(self, now_us: i64) -> Option<Self> {
        let believed = BELIEVED_FROM_US..=now_us.saturating_add(FUTURE_MAX_US);
        match (believed.contains(&self.early_us), believed.contains(&self.late_us)) {
            (true, true) => Some(self),
            (true, false) => Some(Self { late_us: self.early_us, ..self }),
            (false, true) => Some(Self { early_us: self.late_us, ..self }),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Moments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [early, late] =
            [self.early_us, self.late_us].map(|time_us| Timestamp::from_microsecond(time_us).unwrap_or_default());
        if early == late { write!(formatter, "{early}") } else { write!(formatter, "{early} or {late}") }
    }
}

fn unix(text: &str) -> Option<Moments> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.bytes().any(|byte| !byte.is_ascii_digit()) {
        return None;
    }
    let micros: i64 = format!("{decimals:0<6}").get(..6)?.parse().ok()?;
    let micros = if whole.starts_with('-') { -micros } else { micros };
    whole.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(micros).map(Moments::one)
}

fn in_zone(civil: DateTime, zone: &TimeZone) -> Option<Moments> {
    let at = |offset: Offset| offset.to_timestamp(civil).ok().map(Timestamp::as_microsecond);
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => at(offset).map(Moments::one),
        // A time that the zone skips: a logger that was not told of summer time goes on with the former.
        AmbiguousOffset::Gap { before, .. } => {
            at(before).map(|time_us| Moments { is_skipped: true, ..Moments::one(time_us) })
        }
        AmbiguousOffset::Fold { before, after } => {
            Some(Moments { early_us: at(before)?, late_us: at(after)?, is_skipped: false })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_microsecond()
    }

    fn read(format: &str, zone: &str, text: &str) -> Option<Moments> {
        let format = TimeFormat::new(format).expect("a format");
        format.read(text, &read_zone(zone).expect("a zone"))
    }

    #[test]
    fn times_are_read_as_loggers_write_them() {
        let noon = Some(Moments::one(us("2026-08-21T10:00:00Z")));
        assert_eq!(read("%Y-%m-%d %H:%M:%S", "Europe/Oslo", "2026-08-21 12:00:00"), noon);
        assert_eq!(read("%d.%m.%Y %H:%M", "+01:00", "21.08.2026 11:00"), noon);
        assert_eq!(read("%d/%m/%y %I:%M %p", "UTC", "21/08/26 10:00 AM"), noon);
        assert_eq!(read("%Y,%j,%H%M", "UTC", "2026,233,1000"), noon);
        assert_eq!(read("%Y-%m-%dT%H:%M:%S%z", "Europe/Oslo", "2026-08-21T15:30:00+0530"), noon, "an offset is obeyed");
        assert_eq!(read("rfc3339", "Europe/Oslo", "2026-08-21T12:00:00"), noon);
        assert_eq!(read("rfc3339", "Europe/Oslo", "2026-08-21T10:00:00Z"), noon);
        assert_eq!(read("unix", "UTC", "1787306400"), noon);
        assert_eq!(read("unix_ms", "UTC", "1787306400000"), noon);
        assert_eq!(read("unix", "UTC", "1787306400.25"), Some(Moments::one(us("2026-08-21T10:00:00.25Z"))));
        assert_eq!(read("%H%M%S%.f,%d,%m,%Y", "UTC", "100000.00,21,08,2026"), noon, "as the sentence ZDA has it");
        assert_eq!(read("%Y-%m-%d %H:%M:%S", "UTC", "2026-02-30 12:00:00"), None);
        assert_eq!(read("unix", "UTC", "1787306400.x"), None);
    }

    #[test]
    fn a_format_that_does_not_say_when_is_refused() {
        for bad in ["%H:%M:%S", "%Y-%m-%d", "%Y-%m-%d %I:%M", "%d.%m. %H:%M", "%Q", "", "today"] {
            assert!(TimeFormat::new(bad).is_err(), "{bad}");
        }
        for bad in ["Europe/Drammen", "+1", "+25:00", "1:00", "+01:60", "++1:00"] {
            assert!(read_zone(bad).is_err(), "{bad}");
        }
        assert!(read_zone("-03:30").is_ok());
    }

    #[test]
    fn the_hour_that_comes_twice_is_two_moments_and_the_one_that_is_missing_is_told() {
        let twice = read("%Y-%m-%d %H:%M", "Europe/Oslo", "2026-10-25 02:30").expect("a time");
        assert_eq!((twice.early_us, twice.late_us), (us("2026-10-25T00:30:00Z"), us("2026-10-25T01:30:00Z")));
        assert_eq!(twice.to_string(), "2026-10-25T00:30:00Z or 2026-10-25T01:30:00Z");
        assert_eq!(twice.believed(us("2026-10-25T01:20:00Z")), Some(twice));
        let once = Moments::one(us("2026-10-25T00:30:00Z"));
        assert_eq!(twice.believed(us("2026-10-25T01:19:59Z")), Some(once), "the second is too far ahead");
        let skipped = read("%Y-%m-%d %H:%M", "Europe/Oslo", "2026-03-29 02:30").expect("a time");
        assert_eq!((skipped.only_us(), skipped.is_skipped()), (Some(us("2026-03-29T01:30:00Z")), true));
    }

    #[test]
    fn a_clock_that_is_wrong_is_not_believed() {
        let now_us = us("2026-08-21T10:00:00Z");
        for (text, believed) in [
            ("2026-08-21T10:09:00Z", true),
            ("2026-08-21T10:11:00Z", false),
            ("2000-01-01T00:00:00Z", false),
            ("1970-01-01T00:00:00Z", false),
            ("2019-05-01T00:00:00Z", true),
        ] {
            let moments = Moments::one(us(text));
            assert_eq!(moments.believed(now_us), believed.then_some(moments), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_moment_that_is_written_in_a_zone_is_read_again(
            seconds in 978_307_200_i64..2_500_000_000,
            zone in prop::sample::select(vec!["Europe/Oslo", "UTC", "+05:45", "America/St_Johns", "Australia/Lord_Howe"]),
        ) {
            let zone = read_zone(zone).expect("a zone");
            let zoned = Timestamp::from_second(seconds).expect("in range").to_zoned(zone.clone());
            let text = zoned.strftime("%Y-%m-%d %H:%M:%S").to_string();
            let moments = TimeFormat::new("%Y-%m-%d %H:%M:%S").expect("a format").read(&text, &zone).expect("a time");
            prop_assert!([moments.early_us, moments.late_us].contains(&(seconds * 1_000_000)), "{text}");
        }

        #[test]
        fn no_text_makes_a_time_panic(text in "\\PC{0,40}", format in "(%[a-zA-Z%:.0-9]|[ -~]){0,8}") {
            for format in [TimeFormat::Unix, TimeFormat::UnixMillis, TimeFormat::Rfc3339, TimeFormat::Strptime(format.clone())] {
                let _ = format.read(&text, &TimeZone::UTC);
            }
            let _ = TimeFormat::new(&format);
        }
    }
}
