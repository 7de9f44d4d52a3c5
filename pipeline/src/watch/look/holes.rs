//! Numbers of a source that are missing.

use super::super::alert::{Condition, Kind};
use crate::ingest::OpenRun;

/// Holes that were waited for in vain, and gaps that a gateway made itself: readings that it had to drop.
#[must_use]
pub fn holes(open: &[OpenRun]) -> Vec<Condition> {
    let told = open.iter().map(|OpenRun { source, epoch, bounds, dropped }| {
        let what = if *dropped { "were dropped by the gateway, whose spool was full" } else { "never came" };
        let text = format!(
            "{source}: {} readings {what} (numbers {} to {} of epoch {epoch})",
            bounds.count(),
            bounds.first,
            bounds.last
        );
        Condition { kind: Kind::Hole, subject: format!("{source}/{epoch}/{}-{}", bounds.first, bounds.last), text }
    });
    told.collect()
}
