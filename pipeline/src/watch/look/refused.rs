//! Readings that ingest refused, or could not judge: late ones and imports too, and what came while nobody watched.

use std::collections::HashMap;

use jiff::tz::TimeZone;

use super::super::alert::{Condition, Kind};
use super::local;
use crate::ingest::{Refused, Why, mark};
use crate::register::Register;

/// For how long it is told of readings that were refused.
const REFUSED_US: i64 = 3_600 * 1_000_000;

/// What was refused within the last hour, or since the watch looked last: up to `told_us`, all was told.
#[must_use]
pub fn refused(
    refused: &[Refused],
    register: &Register,
    told_us: i64,
    now_us: i64,
    timezone: &TimeZone,
) -> Vec<Condition> {
    let lately = |one: &&Refused| one.last_us > told_us || now_us.saturating_sub(one.last_us) < REFUSED_US;
    let lately: Vec<&Refused> = refused.iter().filter(lately).collect();
    if lately.is_empty() {
        return Vec::new();
    }
    let sensors: HashMap<String, &str> = register.iter().map(|row| (mark(row.id.as_str()), row.id.as_str())).collect();
    lately.into_iter().map(|one| condition(one, sensors.get(&one.mark).copied(), timezone)).collect()
}

fn condition(one: &Refused, sensor: Option<&str>, timezone: &TimeZone) -> Condition {
    let Refused { why, source, mark, rows, last_us } = one;
    let last = local(*last_us, timezone);
    let of_sensor = format!("{} {source}", sensor.unwrap_or(mark));
    let named = sensor.unwrap_or("sensors of others");
    let kept = format!("{rows} readings by now are kept and fail, the last came {last}");
    let (kind, subject, text) = match why {
        Why::NotAssigned => (
            Kind::NotAssigned,
            of_sensor,
            format!(
                "{source} writes {named}, and the register's `sources` do not name it: {kept}; hint: correct sensors.csv, or the gateway's configuration"
            ),
        ),
        Why::Unit => (
            Kind::Unit,
            of_sensor,
            format!(
                "{source} writes {named}, and its unit is not that of the register: {kept}; hint: correct sensors.csv, or the gateway's configuration"
            ),
        ),
        Why::Future => (
            Kind::Future,
            source.to_string(),
            format!("{source} sends readings of the future: {kept}; hint: its clock, or a device's, is ahead"),
        ),
        Why::Misnamed => (
            Kind::Configuration,
            source.to_string(),
            format!(
                "{source}'s batches name their configuration by what is no SHA-256: the units of {rows} readings by now are held against nothing, the last came {last}; hint: docs/batch-format.md says what the program that writes them has to put there"
            ),
        ),
    };
    Condition { kind, subject, text }
}
