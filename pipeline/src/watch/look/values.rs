//! Values outside of what was set.

use super::super::alert::{Condition, Kind};
use super::super::settings::LimitSection;
use super::readings::Seen;

/// Sensors whose newest value is outside of a limit that is set for them.
#[must_use]
pub fn limits(seen: &Seen, limits: &[LimitSection]) -> Vec<Condition> {
    let newest = seen.sensors.iter().filter_map(|(sensor, newest)| Some((sensor, newest.value?)));
    let over = newest.filter_map(|(sensor, value)| {
        let text = limits.iter().filter(|limit| limit.sensor.fits(sensor)).find_map(|limit| {
            let high = limit.high.filter(|high| value > *high).map(|high| format!("over its limit of {high}"));
            high.or_else(|| limit.low.filter(|low| value < *low).map(|low| format!("under its limit of {low}")))
        })?;
        Some(Condition { kind: Kind::Limit, subject: sensor.clone(), text: format!("{sensor} is {value}, {text}") })
    });
    over.collect()
}
