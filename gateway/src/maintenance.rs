//! Maintenance: readings of sensors that somebody is working on are marked, so that nobody takes them
//! for weather.
//!
//! A thermometer in a technician's hand measures the hand. `tjern-gateway maintenance on` writes into
//! `maintenance.toml` in the spool's folder which sensors that holds for, from when until when; a gateway
//! reads the file when it starts and when it has changed, and gives readings whose *time* lies within the
//! quality 4 and the cause `maintenance`. The value stays: it is what came. A reading without a value
//! keeps its own cause. Since the file says from when until when, it does not matter when it is read, and
//! the command works without a gateway too.

mod file;
mod marking;
mod pattern;

use tjern_readings::reading::Reading;

pub use file::{FILE, MaintenanceError, change, read};
pub(crate) use marking::{Maintenance, MaintenanceTold};
pub use pattern::{SensorPattern, UnknownPattern};

/// A time of maintenance: the end is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Whose.
    pub sensors: SensorPattern,
    /// From when, in microseconds since 1970 UTC.
    pub from_us: i64,
    /// Until when.
    pub until_us: i64,
}

impl Window {
    fn holds(&self, reading: &Reading) -> bool {
        (self.from_us..self.until_us).contains(&reading.time_us) && self.sensors.matches(&reading.sensor)
    }
}

/// Begins maintenance of some sensors, or makes one that is under way longer.
pub fn begin(windows: &mut Vec<Window>, sensors: SensorPattern, now_us: i64, until_us: i64) {
    let under_way = windows
        .iter_mut()
        .find(|window| window.sensors == sensors && window.from_us <= now_us && now_us < window.until_us);
    match under_way {
        Some(window) => window.until_us = until_us,
        None => windows.push(Window { sensors, from_us: now_us, until_us }),
    }
}

/// Ends what is under way or to come: of these sensors, or all of it. How many times of maintenance that were.
pub fn end(windows: &mut Vec<Window>, sensors: Option<&SensorPattern>, now_us: i64) -> usize {
    let ends =
        |window: &&mut Window| window.until_us > now_us && sensors.is_none_or(|sensors| *sensors == window.sensors);
    let ended = windows.iter_mut().filter(ends).map(|window| window.until_us = now_us).count();
    windows.retain(|window| window.from_us < window.until_us);
    ended
}

#[cfg(test)]
mod testing {
    use tjern_readings::clock::SECOND_US;

    use super::SensorPattern;

    pub(super) const NOW_US: i64 = 1_790_000_000 * SECOND_US;
    pub(super) const HOUR_US: i64 = 3_600 * SECOND_US;

    pub(super) fn pattern(text: &str) -> SensorPattern {
        text.parse().expect("a pattern")
    }
}
