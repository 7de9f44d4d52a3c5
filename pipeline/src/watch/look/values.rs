//! Values outside of what was set: the newest one of a sensor, and any other that was taken since the watch looked last. A gateway that
//! sends once an hour has six values of ten minutes in a batch: one over its limit is told though the newest is not.

use jiff::tz::TimeZone;

use super::super::alert::{Condition, Kind};
use super::super::settings::LimitSection;
use super::local;
use super::readings::{Newest, Seen};

/// Sensors with a value outside of a limit that is set for them.
#[must_use]
pub fn limits(seen: &Seen, limits: &[LimitSection], timezone: &TimeZone) -> Vec<Condition> {
    let over = seen.sensors.iter().filter_map(|(sensor, newest)| {
        let text = limits.iter().filter(|limit| limit.sensor.fits(sensor)).find_map(|limit| {
            let of_newest = newest.value.and_then(|value| Some(format!("is {value}, {}", beyond(limit, value)?)));
            of_newest.or_else(|| of_others(limit, newest, timezone))
        })?;
        Some(Condition { kind: Kind::Limit, subject: sensor.clone(), text: format!("{sensor} {text}") })
    });
    over.collect()
}

/// Which side of a limit a value is on, where it is outside.
fn beyond(limit: &LimitSection, value: f64) -> Option<String> {
    let high = limit.high.filter(|high| value > *high).map(|high| format!("over its limit of {high}"));
    high.or_else(|| limit.low.filter(|low| value < *low).map(|low| format!("under its limit of {low}")))
}

/// The same of the values that were taken lately: the highest, and where that is within its limit the lowest.
fn of_others(limit: &LimitSection, newest: &Newest, timezone: &TimeZone) -> Option<String> {
    [newest.highest, newest.lowest].into_iter().flatten().find_map(|(time_us, value)| {
        let beyond = beyond(limit, value)?;
        Some(format!("was {value} at {}, {beyond}; newer values are not", local(time_us, timezone)))
    })
}
