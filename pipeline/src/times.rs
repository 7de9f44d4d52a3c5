//! Times as people write them in files: with an offset, or in the clock of a place. No I/O.
//!
//! The clock of a place skips an hour in spring and has one twice in autumn. A time of the skipped hour
//! is refused; one of the double hour means two moments, and who reads it decides which.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use tjern_readings::reading::TIMES_US;

/// No clock on earth was ever further from UTC than the 15 hours and some minutes of the years before zones.
const OFFSET_MAX_S: i32 = 16 * 3_600;

/// How times are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// ISO 8601: with an offset, or without one in the clock of a place; also a date alone.
    Iso,
    /// Seconds since 1970 UTC, perhaps with decimals.
    Unix,
    /// Milliseconds since 1970 UTC.
    UnixMillis,
    /// As `strptime` has it.
    Strptime(String),
}

/// The moments that a text may mean, in microseconds since 1970: one, or the two of a double hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moments {
    pub(crate) early_us: i64,
    pub(crate) late_us: i64,
}

impl Moments {
    const fn one(time_us: i64) -> Self {
        Self { early_us: time_us, late_us: time_us }
    }

    /// The moment, if there is no doubt.
    pub(crate) const fn certain(self) -> Option<i64> {
        if self.early_us == self.late_us { Some(self.early_us) } else { None }
    }
}

impl std::str::FromStr for TimeFormat {
    type Err = String;

    /// `iso`, `unix`, `unix_ms`, or fields as `strptime` has them.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "iso" => Ok(Self::Iso),
            "unix" => Ok(Self::Unix),
            "unix_ms" => Ok(Self::UnixMillis),
            fields => {
                let hint = "hint: write `iso`, `unix`, `unix_ms`, or fields like \"%d.%m.%Y %H:%M\"";
                // No field of it can be taken for another.
                let trial = jiff::civil::datetime(2026, 11, 22, 13, 46, 0, 0);
                let format = Self::Strptime(fields.to_owned());
                let zoned = trial.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
                let written = jiff::fmt::strtime::format(fields, &zoned)
                    .map_err(|error| format!("`{text}` is no format of a time: {error}; {hint}"))?;
                let wanted = zoned.timestamp().as_microsecond();
                match format.read(&written, &TimeZone::UTC) {
                    Ok(moments) if moments.certain() == Some(wanted) => Ok(format),
                    _ => Err(format!("`{text}` does not say year, month, day, hour and minute; {hint}")),
                }
            }
        }
    }
}

impl TimeFormat {
    /// The moments that `text` means in `zone`.
    pub(crate) fn read(&self, text: &str, zone: &TimeZone) -> Result<Moments, String> {
        let moments = match self {
            Self::Iso => iso(text, zone),
            Self::Unix => decimal_us(text, 6).map(Moments::one).ok_or_else(|| no_time(text)),
            Self::UnixMillis => decimal_us(text, 3).map(Moments::one).ok_or_else(|| no_time(text)),
            Self::Strptime(format) => strptime(format, text, zone),
        }?;
        if TIMES_US.contains(&moments.early_us) && TIMES_US.contains(&moments.late_us) {
            return Ok(moments);
        }
        Err(format!("`{text}` is not within the years 1900 to 2199"))
    }
}

fn no_time(text: &str) -> String {
    format!("`{text}` is not a time")
}

fn iso(text: &str, zone: &TimeZone) -> Result<Moments, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        let offset = Pieces::parse(text).ok().and_then(|pieces| pieces.to_numeric_offset());
        if offset.is_some_and(|offset| offset.seconds().abs() > OFFSET_MAX_S) {
            return Err(format!("`{text}` is no time: no place on earth has that offset"));
        }
        return Ok(Moments::one(time.as_microsecond()));
    }
    // jiff would take the offset of "2026-07-01 08:00+02" for a part of the text that it may pass over.
    let civil = match text.len() {
        0..=10 => text.parse::<Date>().map(DateTime::from),
        _ if text.get(10..).is_none_or(|clock| clock.contains(['+', '-', 'Z', 'z', '['])) => return Err(no_time(text)),
        _ => text.parse::<DateTime>(),
    };
    in_zone(civil.map_err(|_| no_time(text))?, text, zone)
}

fn strptime(format: &str, text: &str, zone: &TimeZone) -> Result<Moments, String> {
    let refused = |error: jiff::Error| format!("`{text}` is not a time as \"{format}\" has it: {error}");
    let fields = BrokenDownTime::parse(format, text).map_err(refused)?;
    if fields.offset().is_some() || fields.timestamp().is_some() {
        return fields.to_timestamp().map(|time| Moments::one(time.as_microsecond())).map_err(refused);
    }
    in_zone(fields.to_datetime().map_err(refused)?, text, zone)
}

/// What a clock on the wall of a zone may mean.
pub(crate) fn in_zone(civil: DateTime, text: &str, zone: &TimeZone) -> Result<Moments, String> {
    let at = |offset: Offset| offset.to_timestamp(civil).map(Timestamp::as_microsecond).map_err(|_| no_time(text));
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => at(offset).map(Moments::one),
        AmbiguousOffset::Fold { before, after } => Ok(Moments { early_us: at(before)?, late_us: at(after)? }),
        AmbiguousOffset::Gap { .. } => {
            Err(format!("`{text}` does not exist there: the clock was put forward; is the time zone right?"))
        }
    }
}

/// A decimal number of seconds (or what has `digits` fewer) as microseconds, without a float between.
fn decimal_us(text: &str, digits: usize) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.trim_start_matches('-').is_empty()
        || part.len() > digits
        || !part.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    format!("{whole}{part:0<digits$}").parse().ok()
}

/// A moment of a person's: what a register's file or a command line says.
///
/// # Errors
/// What is wrong with it; also where it stands for two moments.
pub fn moment(text: &str, zone: &TimeZone) -> Result<i64, String> {
    let moments = TimeFormat::Iso.read(text, zone)?;
    moments
        .certain()
        .ok_or_else(|| format!("`{text}` came twice there, when summer time ended: write it with its offset"))
}

/// The zone of a name: `UTC`, `Europe/Oslo`, or a fixed offset, `+01:00`.
///
/// # Errors
/// What is wrong with it.
pub fn zone(text: &str) -> Result<TimeZone, String> {
    let refused = || {
        format!("`{text}` is no time zone; hint: write `UTC`, a name like `Europe/Oslo`, or an offset like `+01:00`")
    };
    if text.starts_with(['+', '-']) {
        let moment: Timestamp = format!("2026-01-01T00:00:00{text}").parse().map_err(|_| refused())?;
        let seconds = Timestamp::constant(1_767_225_600, 0).as_second() - moment.as_second();
        let seconds = i32::try_from(seconds).map_err(|_| refused())?;
        return Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| refused());
    }
    TimeZone::get(text).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn oslo() -> TimeZone {
        TimeZone::get("Europe/Oslo").expect("known")
    }

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_microsecond()
    }

    /// It became a moment of the day before.
    #[test]
    fn an_offset_that_no_place_has_is_refused() {
        for text in ["2024-01-01T00:00:00+25:00", "2024-01-01T00:00:00-16:01"] {
            assert!(TimeFormat::Iso.read(text, &TimeZone::UTC).is_err(), "{text}");
        }
        for text in ["2024-01-01T00:00:00+14:00", "2024-01-01T00:00:00-12", "2024-01-01T00:00:00Z"] {
            assert!(TimeFormat::Iso.read(text, &TimeZone::UTC).is_ok(), "{text}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, wanted) in [
            ("2026-07-01T08:00:00+02:00", "2026-07-01T06:00:00Z"),
            ("2026-07-01T06:00:00Z", "2026-07-01T06:00:00Z"),
            ("2026-07-01 08:00", "2026-07-01T06:00:00Z"),
            ("2026-07-01T08:00:00.25", "2026-07-01T06:00:00.25Z"),
            ("2026-01-01", "2025-12-31T23:00:00Z"),
        ] {
            assert_eq!(moment(text, &oslo()), Ok(us(wanted)), "{text}");
        }
        for text in ["", "soon", "2026-13-01", "01.07.2026", "1790-01-01", "2026-07-01 08:00 +nonsense"] {
            assert!(moment(text, &oslo()).is_err(), "{text:?} was read as {:?}", moment(text, &oslo()));
        }
    }

    /// An hour that is not there is a wrong zone or a wrong clock; the one that is there twice is told.
    #[test]
    fn both_days_of_summer_time_are_known() {
        let spring = moment("2026-03-29 02:30", &oslo()).expect_err("it does not exist");
        assert!(spring.contains("put forward"), "{spring}");
        let autumn = moment("2026-10-25 02:30", &oslo()).expect_err("it is there twice");
        assert!(autumn.contains("twice"), "{autumn}");
        let moments = TimeFormat::Iso.read("2026-10-25 02:30", &oslo()).expect("two");
        assert_eq!((moments.early_us, moments.late_us), (us("2026-10-25T00:30:00Z"), us("2026-10-25T01:30:00Z")));
    }

    #[test]
    fn formats_are_tried_before_they_are_believed() {
        let format: TimeFormat = "%d.%m.%Y %H:%M".parse().expect("a format");
        assert_eq!(
            format.read("01.07.2026 08:00", &oslo()).map(|read| read.certain()),
            Ok(Some(us("2026-07-01T06:00:00Z")))
        );
        assert!("%d.%m %H:%M".parse::<TimeFormat>().is_err());
        assert!("%Q".parse::<TimeFormat>().is_err());
        let unix: TimeFormat = "unix".parse().expect("known");
        assert_eq!(unix.read("1.5", &oslo()), Ok(Moments::one(1_500_000)));
        assert_eq!(unix.read("-0.000001", &oslo()), Ok(Moments::one(-1)));
        assert!(unix.read("1.5e3", &oslo()).is_err());
        assert_eq!("unix_ms".parse::<TimeFormat>().expect("known").read("1500", &oslo()), Ok(Moments::one(1_500_000)));
    }

    #[test]
    fn zones_are_names_or_offsets() {
        assert_eq!(zone("+01:00").expect("an offset"), TimeZone::fixed(jiff::tz::offset(1)));
        assert_eq!(zone("-03:30").expect("an offset").to_offset(Timestamp::UNIX_EPOCH).seconds(), -12_600);
        assert!(zone("Europe/Oslo").is_ok() && zone("UTC").is_ok());
        assert!(zone("Norway time").is_err() && zone("+1").is_err() && zone("+25:99").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,30}") {
            for format in [TimeFormat::Iso, TimeFormat::Unix, TimeFormat::UnixMillis, TimeFormat::Strptime("%Y-%m-%d %H:%M".to_owned())] {
                let _ = format.read(&text, &oslo());
            }
            let _ = zone(&text);
        }
    }
}
