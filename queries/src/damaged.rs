//! Tables that have no answer, since their logs are damaged: looked at ever more seldom, until somebody mended them. No I/O.
//!
//! Of such a table nothing is known that a look could carry forward: its log is read from the last checkpoint on each time, up to
//! fifty requests. A minute at most after it was mended it is there again.

use std::collections::BTreeMap;
use std::time::Duration;

use tjern_lake::TableName;
use tokio::time::Instant;

/// The pause after the first look that found a table damaged; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(2);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Damaged tables, by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Damaged(BTreeMap<&'static str, Rest>);

/// A table that is left alone.
#[derive(Debug, Clone)]
struct Rest {
    why: String,
    pause: Duration,
    until: Instant,
}

impl Damaged {
    /// Whether a table is left alone, as one was found `before`: what was found then is kept.
    pub(crate) fn rests(&mut self, before: &Self, table: TableName, now: Instant) -> bool {
        let known = before.0.get(table.as_str()).filter(|rest| now < rest.until);
        self.0.extend(known.map(|rest| (table.as_str(), rest.clone())));
        known.is_some()
    }

    /// A look found a table damaged, as it may have been `before`.
    pub(crate) fn found(&mut self, before: &Self, table: TableName, why: String, now: Instant) {
        let pause = before.0.get(table.as_str()).map_or(PAUSE, |rest| (rest.pause * 2).min(PAUSE_MAX));
        self.0.insert(table.as_str(), Rest { why, pause, until: now + pause });
    }

    /// What is wrong with the first of them.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.0.values().next().map(|rest| rest.why.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server whose table of hours was damaged read its log anew each second, for as long as nobody mended it.
    #[test]
    fn a_damaged_table_is_looked_at_ever_more_seldom() {
        let began = Instant::now();
        let (mut known, mut looks) = (Damaged::default(), 0);
        for second in 0..3_600 {
            let (now, mut damaged) = (began + Duration::from_secs(second), Damaged::default());
            if !damaged.rests(&known, TableName::Hourly, now) {
                looks += 1;
                damaged.found(&known, TableName::Hourly, "no log".to_owned(), now);
            }
            assert_eq!(damaged.failure(), Some("no log"), "it is told all the same");
            known = damaged;
        }
        assert!((60..=66).contains(&looks), "{looks} looks in an hour");
        assert!(!Damaged::default().rests(&known, TableName::Daily, began), "another one is not left alone");
    }
}
