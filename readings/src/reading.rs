//! A reading: one value of one sensor at one moment, or the reason why there is none.
//!
//! Invariants, kept by the constructors: a value is finite; there is a cause wherever there is no
//! value; what comes from a device has quality [`Quality::NotEvaluated`] or [`Quality::Missing`], or
//! [`Quality::Fail`] where a person said that the sensor is under maintenance.
//! Nothing here does I/O or reads a clock.

use std::fmt;
use std::str::FromStr;

use crate::sensor::SensorId;

/// Integers beyond 2⁵³ have no exact `f64`.
const EXACT_INTEGER_MAX: u64 = 1 << 53;

/// The times that a reading can have, in microseconds since 1970: the years 1900 to 2199. What lies
/// outside is a broken clock or a broken file, and a single such row would make every job that works
/// by windows of time walk through the centuries.
pub const TIMES_US: std::ops::Range<i64> = -2_208_988_800_000_000..7_258_118_400_000_000;

/// A QARTOD flag (Manual for Real-Time Oceanographic Data Quality Control Flags, U.S. IOOS 2020,
/// table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum Quality {
    /// Passed the tests.
    Good = 1,
    /// As it came from the device.
    NotEvaluated = 2,
    /// Of doubtful or high interest: shown, with care.
    Suspect = 3,
    /// Wrong: never shown nor published as a value.
    Fail = 4,
    /// No value was got; the cause says why.
    Missing = 9,
}

impl Quality {
    /// The flag's number, as it stands in files.
    #[must_use]
    pub const fn code(self) -> i8 {
        self as i8
    }

    /// The flag with this number, if there is one.
    #[must_use]
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            1 => Some(Self::Good),
            2 => Some(Self::NotEvaluated),
            3 => Some(Self::Suspect),
            4 => Some(Self::Fail),
            9 => Some(Self::Missing),
            _ => None,
        }
    }
}

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// Why a reading has no value, or is not good. A closed list: other words are refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Cause {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Cause {
            /// Every cause there is.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word that stands in files.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

causes! {
    /// No answer within the bus's `timeout`.
    Timeout = "timeout",
    /// Nothing could be asked: the port is missing, the connection was refused or broke, or the line never falls silent.
    Unreachable = "unreachable",
    /// Modbus exception 1: illegal function.
    Exception1 = "exception_1",
    /// Modbus exception 2: illegal data address.
    Exception2 = "exception_2",
    /// Modbus exception 3: illegal data value.
    Exception3 = "exception_3",
    /// Modbus exception 4: server device failure.
    Exception4 = "exception_4",
    /// Modbus exception 5: acknowledge.
    Exception5 = "exception_5",
    /// Modbus exception 6: server device busy.
    Exception6 = "exception_6",
    /// Modbus exception 8: memory parity error.
    Exception8 = "exception_8",
    /// Modbus exception 10: gateway path unavailable.
    Exception10 = "exception_10",
    /// Modbus exception 11: gateway target device failed to respond.
    Exception11 = "exception_11",
    /// A Modbus exception code that the specification does not define.
    ExceptionOther = "exception_other",
    /// The frame's CRC, or the line's checksum, was wrong.
    Crc = "crc",
    /// The answer had another length, unit or function than the one asked for.
    Malformed = "malformed",
    /// The text line came, but not with the field that was asked for, or not as a number.
    NoMatch = "no_match",
    /// The device sent NaN or an infinity, or a decimal digit over nine.
    NotANumber = "not_a_number",
    /// An integer beyond 2⁵³, which a 64-bit float cannot hold exactly.
    Precision = "precision",
    /// The device says by a value of its own that it has none.
    NotAvailable = "not_available",
    /// The clock was not synchronised: the time is an estimate.
    ClockEstimated = "clock_estimated",
    /// Somebody was working on the sensor: the value is what came, and no measurement.
    Maintenance = "maintenance",
    /// The time lies more than 10 min in the future (set by ingest).
    Future = "future",
    /// The register does not name this source for this sensor (set by ingest).
    NotAssigned = "not_assigned",
    /// The configuration's unit differs from the register's (set by ingest).
    Unit = "unit",
}

impl Cause {
    /// Whether the device answered, and it was the words of its answer that were no value.
    #[must_use]
    pub const fn is_of_words(self) -> bool {
        matches!(self, Self::NotANumber | Self::Precision | Self::NotAvailable)
    }

    /// The cause for a Modbus exception code.
    #[must_use]
    pub const fn exception(code: u8) -> Self {
        match code {
            1 => Self::Exception1,
            2 => Self::Exception2,
            3 => Self::Exception3,
            4 => Self::Exception4,
            5 => Self::Exception5,
            6 => Self::Exception6,
            8 => Self::Exception8,
            10 => Self::Exception10,
            11 => Self::Exception11,
            _ => Self::ExceptionOther,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// A cause that is not on the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a known cause")]
pub struct UnknownCause(pub String);

impl FromStr for Cause {
    type Err = UnknownCause;

    fn from_str(word: &str) -> Result<Self, UnknownCause> {
        Self::ALL.iter().copied().find(|cause| cause.word() == word).ok_or_else(|| UnknownCause(word.to_owned()))
    }
}

/// One value of one sensor at one moment. Its number in the spool's count (`seq`) is not part of
/// it: the spool gives that.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Which sensor.
    pub sensor: SensorId,
    /// The moment the value stands for, in microseconds since 1970 UTC: the slot of a polled sensor,
    /// the end of an interval.
    pub time_us: i64,
    /// In the sensor's unit; always finite.
    pub value: Option<f64>,
    /// As far as it is known where the reading was made.
    pub quality: Quality,
    /// Why there is no value.
    pub cause: Option<Cause>,
    /// How far behind its slot the answer came, in milliseconds, where that is worth a note; below 0 for a line of text from before it.
    pub lag_ms: Option<i32>,
}

impl Reading {
    /// A reading of a value; NaN and infinities become a missing reading with a cause.
    #[must_use]
    #[inline]
    pub fn of(sensor: SensorId, time_us: i64, value: f64) -> Self {
        if !value.is_finite() {
            return Self::missing(sensor, time_us, Cause::NotANumber);
        }
        Self { sensor, time_us, value: Some(value), quality: Quality::NotEvaluated, cause: None, lag_ms: None }
    }

    /// A reading of nothing, and why.
    #[must_use]
    #[inline]
    pub const fn missing(sensor: SensorId, time_us: i64, cause: Cause) -> Self {
        Self { sensor, time_us, value: None, quality: Quality::Missing, cause: Some(cause), lag_ms: None }
    }

    /// A reading of whichever of the two it is.
    #[must_use]
    #[inline]
    pub fn from_result(sensor: SensorId, time_us: i64, result: Result<f64, Cause>) -> Self {
        match result {
            Ok(value) => Self::of(sensor, time_us, value),
            Err(cause) => Self::missing(sensor, time_us, cause),
        }
    }

    /// The same with a note of how far behind its slot the answer came.
    #[must_use]
    #[inline]
    pub fn with_lag_ms(mut self, lag_ms: Option<i32>) -> Self {
        self.lag_ms = lag_ms;
        self
    }
}

/// An unsigned integer as a value, if an `f64` holds it exactly.
///
/// # Errors
/// [`Cause::Precision`] beyond 2⁵³.
#[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
pub const fn exact_u64(integer: u64) -> Result<f64, Cause> {
    if integer > EXACT_INTEGER_MAX { Err(Cause::Precision) } else { Ok(integer as f64) }
}

/// A signed integer as a value, if an `f64` holds it exactly.
///
/// # Errors
/// [`Cause::Precision`] beyond ±2⁵³.
#[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
pub const fn exact_i64(integer: i64) -> Result<f64, Cause> {
    if integer.unsigned_abs() > EXACT_INTEGER_MAX { Err(Cause::Precision) } else { Ok(integer as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensor() -> SensorId {
        "landfalltjern/water_temperature".parse().expect("valid")
    }

    #[test]
    fn a_value_that_is_no_number_is_missing_and_says_why() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let reading = Reading::of(sensor(), 0, value);
            assert_eq!(
                (reading.value, reading.quality, reading.cause),
                (None, Quality::Missing, Some(Cause::NotANumber))
            );
        }
    }

    #[test]
    fn integers_are_exact_or_refused() {
        assert_eq!(exact_u64(1 << 53), Ok(9_007_199_254_740_992.0));
        assert_eq!(exact_u64((1 << 53) + 1), Err(Cause::Precision));
        assert_eq!(exact_i64(-(1 << 53)), Ok(-9_007_199_254_740_992.0));
        assert_eq!(exact_i64(i64::MIN), Err(Cause::Precision));
    }

    #[test]
    fn causes_are_a_closed_list() {
        for cause in Cause::ALL {
            assert_eq!(cause.word().parse(), Ok(*cause));
        }
        assert!("because".parse::<Cause>().is_err());
        assert_eq!(Cause::exception(2).word(), "exception_2");
    }

    #[test]
    fn times_are_those_of_three_centuries() {
        let year = |year: i64| (year - 1970) * 365 + (year - 1969).div_euclid(4) - (year - 1901).div_euclid(100);
        let correction = |year: i64| (year - 1601).div_euclid(400);
        let start_us = |number: i64| (year(number) + correction(number)) * 86_400_000_000;
        assert_eq!(TIMES_US, start_us(1900)..start_us(2200));
    }

    #[test]
    fn quality_numbers_are_those_of_qartod() {
        for code in i8::MIN..=i8::MAX {
            assert_eq!(Quality::from_code(code).map(Quality::code), [1, 2, 3, 4, 9].contains(&code).then_some(code));
        }
    }
}
