//! Which sensors are meant: one, or all of a place.

use std::fmt;
use std::str::FromStr;

use tjern_readings::sensor::{SensorId, is_part};

/// Which sensors: one by its id, or all of a place, `place/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorPattern(String);

/// A text that names no sensors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no sensors: write an id, like `landfalltjern/water_temperature`, or all of a place, like `landfalltjern/*`"
)]
pub struct UnknownPattern(String);

impl SensorPattern {
    /// Whether a sensor is one of these.
    #[must_use]
    pub fn matches(&self, sensor: &SensorId) -> bool {
        match self.0.strip_suffix('*') {
            Some(place) => sensor.as_str().starts_with(place),
            None => sensor.as_str() == self.0,
        }
    }
}

impl FromStr for SensorPattern {
    type Err = UnknownPattern;

    fn from_str(text: &str) -> Result<Self, UnknownPattern> {
        let is_place = |place: &str| place.split('/').all(is_part) && place.split('/').count() <= 4;
        let is_pattern = match text.strip_suffix("/*") {
            Some(place) => is_place(place),
            None => text.parse::<SensorId>().is_ok_and(|sensor| !sensor.is_system()),
        };
        if is_pattern { Ok(Self(text.to_owned())) } else { Err(UnknownPattern(text.to_owned())) }
    }
}

impl fmt::Display for SensorPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_sensors() {
        for good in ["a/b", "a/b/c", "a/*", "a/b/c/d/*"] {
            assert!(good.parse::<SensorPattern>().is_ok(), "{good}");
        }
        for bad in ["", "a", "*", "/*", "a*", "a/*/b", "A/b", "_system/x", "_system/*", "a/b/c/d/e/*"] {
            assert!(bad.parse::<SensorPattern>().is_err(), "{bad}");
        }
    }
}
