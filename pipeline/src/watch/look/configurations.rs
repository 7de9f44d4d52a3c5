//! Configurations that batches name and that are not in the lake, one by one.
//!
//! Bounded: of a source at most [`TOLD_MAX`] are told apart, the longest missing first, and the others together. A source that
//! names another one in each batch fills nobody's mailbox.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use tjern_readings::sensor::SourceName;

use super::super::alert::{Condition, Kind};
use super::local;
use crate::ingest::MissingConfiguration;

/// So many missing configurations of a source are told apart.
const TOLD_MAX: usize = 20;

/// Those that are missing, but for those of which a person said that they will never come.
#[must_use]
pub fn configurations(missing: &[MissingConfiguration], timezone: &TimeZone) -> Vec<Condition> {
    let mut by_source: BTreeMap<&SourceName, Vec<&MissingConfiguration>> = BTreeMap::new();
    for one in missing.iter().filter(|one| !one.accepted) {
        by_source.entry(&one.source).or_default().push(one);
    }
    let mut told = Vec::new();
    for (source, mut of_source) in by_source {
        of_source.sort_by_key(|one| (one.since_us, &one.sha256));
        told.extend(of_source.iter().take(TOLD_MAX).map(|one| condition(one, timezone)));
        let others = of_source.len().saturating_sub(TOLD_MAX);
        if others > 0 {
            let text = format!(
                "{others} more configurations that {source}'s batches name are not in the lake; hint: `tjern pipeline configurations ls` names them"
            );
            told.push(Condition { kind: Kind::Configuration, subject: format!("{source}/others"), text });
        }
    }
    told
}

fn condition(
    MissingConfiguration { source, sha256, since_us, .. }: &MissingConfiguration,
    zone: &TimeZone,
) -> Condition {
    let since = local(*since_us, zone);
    let text = format!(
        "the configuration {sha256} that {source}'s batches name is not in the lake: the units of its readings since {since} are held \
         against the register's once it comes; hint: restart its gateway, which uploads it; if it never will, \
         `tjern pipeline configurations accept {source} {sha256} --reason …`"
    );
    Condition { kind: Kind::Configuration, subject: format!("{source}/{sha256}"), text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(number: usize, accepted: bool) -> MissingConfiguration {
        let source = "stray-01".parse().expect("valid");
        let since_us = 1_000 - i64::try_from(number).expect("small");
        MissingConfiguration { source, sha256: format!("{number:064x}"), since_us, accepted }
    }

    /// A source that names a new configuration in each batch would send a mail for each of them.
    #[test]
    fn what_is_told_apart_is_bounded() {
        let all: Vec<_> = (0..1_000).map(|number| missing(number, number % 2 == 0)).collect();
        let told = configurations(&all, &TimeZone::UTC);
        assert_eq!(told.len(), TOLD_MAX + 1);
        assert_eq!(told[0].subject, format!("stray-01/{:064x}", 999), "the one that is missing for longest");
        let others = &told[TOLD_MAX];
        assert!(others.subject == "stray-01/others" && others.text.starts_with("480 more"), "{others:?}");
        assert_eq!(configurations(&[missing(4, true)], &TimeZone::UTC), [], "that it never comes is known");
    }
}
