//! Numbers of a source that are missing.

use jiff::tz::TimeZone;

use super::super::alert::{Condition, Kind};
use super::local;
use crate::ingest::{Dropped, OpenRun};

/// For how long it is told that a gateway dropped readings: nothing can be done about those.
const DROPPED_US: i64 = 24 * 3_600 * 1_000_000;

/// Holes that were waited for in vain. One that was filled, explained by its gateway, or accepted by a person is none.
#[must_use]
pub fn holes(open: &[OpenRun]) -> Vec<Condition> {
    let told = open.iter().filter(|run| !run.dropped && !run.accepted).map(|OpenRun { source, epoch, bounds, .. }| {
        let (count, first, last) = (bounds.count(), bounds.first, bounds.last);
        let text = format!(
            "{source}: {count} readings never came (numbers {first} to {last} of epoch {epoch}); hint: if they never will, \
             `tjern pipeline holes accept {source} {epoch} {first}-{last} --reason …`"
        );
        Condition { kind: Kind::Hole, subject: format!("{source}/{epoch}/{first}-{last}"), text }
    });
    told.collect()
}

/// Gateways that had to drop readings within the last day.
#[must_use]
pub fn dropped(dropped: &[Dropped], now_us: i64, timezone: &TimeZone) -> Vec<Condition> {
    let lately = dropped.iter().filter(|one| now_us.saturating_sub(one.last_us) < DROPPED_US);
    let told = lately.map(|Dropped { source, epoch, readings, last_us }| {
        let since = local(*last_us, timezone);
        let text = format!(
            "{source}: readings were dropped by the gateway, whose spool was full: {readings} of epoch {epoch} by now, the last \
             known since {since}"
        );
        Condition { kind: Kind::Hole, subject: format!("{source}/{epoch}"), text }
    });
    told.collect()
}
