//! What was ingested and refused, or could not be judged, for the watch: how often, and when last.
//!
//! It stands in the application transactions of `readings`, moved by the commit that brings the rows, so that nothing is
//! told that is not there and nothing is missed: late batches, imports, whatever came while nobody watched. It costs no
//! request.
//!
//! `:refused/<why>/<source>/<mark>/at` and `…/rows`. A mark stands for a sensor, whose name is in no log, since what
//! is erased must be nowhere (`docs/decisions/0020-erasure.md`); [`mark`] makes it of a name. Bounded: of a source and a
//! reason there are at most [`MARKS_MAX`] marks, and one for all others.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest, Sha256};
use tjern_lake::Table;
use tjern_readings::reading::Cause;
use tjern_readings::sensor::SourceName;

/// What stands before refusals. No source has such a name.
const PREFIX: &str = ":refused/";

/// So many sensors of a source are told apart.
const MARKS_MAX: usize = 20;

/// The mark of all others.
const OTHERS: &str = "others";

/// The mark of what is the source's fault, and not a sensor's.
const SOURCE: &str = "source";

/// Why readings were refused, or not judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// The register gives the sensor to others.
    NotAssigned,
    /// The register has it in another unit.
    Unit,
    /// They are of the future.
    Future,
    /// Their batch names its configuration by what is no name of one: units were not held against the register's.
    Misnamed,
}

impl Why {
    const ALL: [Self; 4] = [Self::NotAssigned, Self::Unit, Self::Future, Self::Misnamed];

    const fn word(self) -> &'static str {
        match self {
            Self::NotAssigned => "not_assigned",
            Self::Unit => "unit",
            Self::Future => "future",
            Self::Misnamed => "misnamed",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.word() == word)
    }

    /// Why ingest gave a reading this cause.
    pub(super) const fn of_cause(cause: Cause) -> Option<Self> {
        match cause {
            Cause::NotAssigned => Some(Self::NotAssigned),
            Cause::Unit => Some(Self::Unit),
            Cause::Future => Some(Self::Future),
            _ => None,
        }
    }
}

/// Readings that were refused, or not judged, of one source and for one reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// Why.
    pub why: Why,
    /// Who sent them.
    pub source: SourceName,
    /// Of which sensor, as [`mark`] has it; another word where it is not one sensor's.
    pub mark: String,
    /// How many so far.
    pub rows: i64,
    /// When the last of them were ingested, in microseconds since 1970.
    pub last_us: i64,
}

/// What stands for a sensor.
#[must_use]
pub fn mark(sensor: &str) -> String {
    Sha256::digest(sensor).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// All that was refused, in order.
#[must_use]
pub fn refused(table: &Table) -> Vec<Refused> {
    let mut found: Vec<_> = read(table.transactions()).into_values().collect();
    found.sort();
    found
}

type Key = (Why, SourceName, String);

fn read(transactions: &HashMap<String, i64>) -> BTreeMap<Key, Refused> {
    let mut found: BTreeMap<Key, Refused> = BTreeMap::new();
    for (app_id, number) in transactions {
        let Some(rest) = app_id.strip_prefix(PREFIX) else { continue };
        let [why, source, mark, field] = rest.split('/').collect::<Vec<_>>()[..] else { continue };
        let (Some(why), Ok(source)) = (Why::of_word(why), source.parse::<SourceName>()) else { continue };
        let key = (why, source.clone(), mark.to_owned());
        let one = found.entry(key).or_insert(Refused { why, source, mark: mark.to_owned(), rows: 0, last_us: 0 });
        match field {
            "rows" => one.rows = *number,
            "at" => one.last_us = *number,
            _ => {}
        }
    }
    found
}

/// What one commit refuses.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<Key, usize>);

impl Tally {
    /// Rows of a source are refused; of a sensor, where it is that sensor's fault.
    pub(super) fn add(&mut self, why: Why, source: &SourceName, sensor: &str, rows: usize) {
        let mark = match why {
            Why::NotAssigned | Why::Unit => mark(sensor),
            Why::Future | Why::Misnamed => SOURCE.to_owned(),
        };
        *self.0.entry((why, source.clone(), mark)).or_default() += rows;
    }

    /// The transactions that say so.
    pub(super) fn transactions(&self, known: &HashMap<String, i64>, now_us: i64) -> Vec<(String, i64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut all = read(known);
        let mut touched: BTreeSet<Key> = BTreeSet::new();
        for ((why, source, mark), rows) in &self.0 {
            let of_source = || all.keys().filter(|(known, name, _)| (known, name) == (why, source));
            let is_known = of_source().any(|(.., known)| known == mark);
            let mark = if is_known || of_source().count() < MARKS_MAX { mark.clone() } else { OTHERS.to_owned() };
            let key = (*why, source.clone(), mark.clone());
            let new = Refused { why: *why, source: source.clone(), mark, rows: 0, last_us: 0 };
            let one = all.entry(key.clone()).or_insert(new);
            one.rows = one.rows.saturating_add(i64::try_from(*rows).unwrap_or(i64::MAX));
            one.last_us = now_us;
            touched.insert(key);
        }
        let moved = touched.iter().filter_map(|key| all.get(key)).flat_map(|one| {
            let name = format!("{PREFIX}{}/{}/{}", one.why.word(), one.source, one.mark);
            [(format!("{name}/at"), one.last_us), (format!("{name}/rows"), one.rows)]
        });
        moved.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> SourceName {
        "stray-01".parse().expect("valid")
    }

    #[test]
    fn what_is_refused_adds_up_over_commits_and_names_no_sensor() {
        let mut transactions = HashMap::new();
        for round in 1..=3 {
            let mut tally = Tally::default();
            tally.add(Why::Unit, &source(), "tarn/level", 2);
            tally.add(Why::Future, &source(), "tarn/level", 1);
            tally.add(Why::Future, &source(), "tarn/wind", 1);
            transactions.extend(tally.transactions(&transactions, round));
        }
        assert!(transactions.keys().all(|name| !name.contains("level")), "{transactions:?}");
        let found: Vec<_> =
            read(&transactions).into_values().map(|one| (one.why, one.mark, one.rows, one.last_us)).collect();
        assert_eq!(found, [(Why::Unit, mark("tarn/level"), 6, 3), (Why::Future, SOURCE.to_owned(), 6, 3)]);
    }

    /// A gateway with another's configuration of ten thousand points: the log does not grow with it.
    #[test]
    fn what_is_told_apart_is_bounded() {
        let mut transactions = HashMap::new();
        for round in 0..5 {
            let mut tally = Tally::default();
            for sensor in 0..200 {
                tally.add(Why::NotAssigned, &source(), &format!("tarn/q{}", round * 100 + sensor), 1);
            }
            transactions.extend(tally.transactions(&transactions, round));
        }
        let found = read(&transactions);
        assert_eq!(found.len(), MARKS_MAX + 1);
        assert_eq!(found.values().map(|one| one.rows).sum::<i64>(), 1_000, "and none is left out");
    }
}
