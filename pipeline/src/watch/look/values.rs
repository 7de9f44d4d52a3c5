//! Values outside of what was set, and readings that do not fit the register.

use super::super::alert::{Condition, Kind};
use super::super::settings::LimitSection;
use super::readings::{Misfit, Seen};

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

/// Readings that the register gives to others, or has in another unit.
#[must_use]
pub fn misfits(seen: &Seen) -> Vec<Condition> {
    let told = seen.misfits.iter().map(|Misfit { cause, sensor, source, rows }| {
        let (kind, what) = if cause == "unit" {
            (Kind::Unit, "its unit is not that of the register")
        } else {
            (Kind::NotAssigned, "the register's `sources` do not name it")
        };
        let text = format!(
            "{source} writes {sensor}, and {what}: {rows} readings of the last hour are kept and fail; hint: correct sensors.csv, or the gateway's configuration"
        );
        Condition { kind, subject: format!("{sensor} {source}"), text }
    });
    told.collect()
}
