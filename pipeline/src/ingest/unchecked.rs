//! Configurations that batches named and that were not in the store when their readings were taken: no I/O.
//!
//! The units of those readings are not held against the register's yet. That stands in the application transactions of
//! `readings`, moved by the commit that brings the rows, so that a process that was started again, and any other one, knows
//! it: `:unchecked/<source>/<sha256>/<field>`.
//!
//! | field | number |
//! |---|---|
//! | `since` | when the first of them was taken, in microseconds since 1970; 0 once all are checked |
//! | `from`, `until` | the least and the greatest time of those readings |
//! | `accepted` | 1 where a person said that the configuration will never come; it stays so |
//!
//! Which numbers they have is known by `configurations`. See `docs/decisions/0036-…`.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::TimestampMicrosecondType;
use object_store::path::Path;
use tjern_lake::Table;
use tjern_readings::clock::SECOND_US;
use tjern_readings::keys::{Landed, is_sha256};
use tjern_readings::sensor::SourceName;

const DAY_US: i64 = 86_400 * SECOND_US;

/// What stands before what is not checked. No source has such a name.
const PREFIX: &str = ":unchecked/";

/// A configuration: whose, and the SHA-256 of its text.
pub(super) type Name = (SourceName, String);

/// What is not checked, by configuration.
pub(super) type All = BTreeMap<Name, Unchecked>;

/// The readings of a configuration that are not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unchecked {
    /// When the first of them was taken.
    pub(super) since_us: i64,
    /// Their least time.
    pub(super) from_us: i64,
    /// Their greatest time.
    pub(super) until_us: i64,
    /// Whether a person said that it will never come.
    pub(super) accepted: bool,
}

/// A configuration that is not in the store, and that readings wait for which were taken without it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingConfiguration {
    /// Whose it is.
    pub source: SourceName,
    /// The SHA-256 (hex) of its text: its name in the landing zone.
    pub sha256: String,
    /// When the first of those readings was taken, in microseconds since 1970.
    pub since_us: i64,
    /// Whether a person said that it will never come: nobody is told of it. Should it come after all, it counts.
    pub accepted: bool,
}

/// The configurations that are missing, in order.
#[must_use]
pub fn missing_configurations(table: &Table) -> Vec<MissingConfiguration> {
    let all = read(table.transactions()).into_iter();
    all.map(|((source, sha256), Unchecked { since_us, accepted, .. })| MissingConfiguration {
        source,
        sha256,
        since_us,
        accepted,
    })
    .collect()
}

/// Where a configuration lies once it is there.
pub(super) fn key((source, sha256): &Name) -> Path {
    Landed::Configuration(sha256.clone()).key(source)
}

/// What is not checked.
pub(super) fn read(transactions: &HashMap<String, i64>) -> All {
    let names = transactions.keys().filter_map(|app_id| named(app_id));
    names.filter_map(|name| Some((name.clone(), of(transactions, &name)?))).collect()
}

/// The configuration of which a transaction says something. What an earlier version took for a name, and is none, never comes.
pub(super) fn named(app_id: &str) -> Option<Name> {
    let mut parts = app_id.strip_prefix(PREFIX)?.split('/');
    let (source, sha256) = (parts.next()?.parse().ok()?, parts.next()?);
    is_sha256(sha256).then(|| (source, sha256.to_owned()))
}

/// What of a configuration is not checked, if anything is.
pub(super) fn of(transactions: &HashMap<String, i64>, name: &Name) -> Option<Unchecked> {
    let number = |field| transactions.get(&app_id(name, field)).copied().unwrap_or(0);
    let accepted = number("accepted") > 0;
    let one = Unchecked { since_us: number("since"), from_us: number("from"), until_us: number("until"), accepted };
    (one.since_us > 0).then_some(one)
}

impl Unchecked {
    /// After these rows were taken too, the first of all at a moment; none where there are no rows.
    pub(super) fn with(before: Option<Self>, rows: &RecordBatch, now_us: i64) -> Option<Self> {
        let times = rows.column(1).as_primitive::<TimestampMicrosecondType>();
        // Whole days: when a reading was measured that is erased since is nobody's to know.
        let from_us = min(times)?.div_euclid(DAY_US).saturating_mul(DAY_US);
        let until_us = max(times)?.div_euclid(DAY_US).saturating_add(1).saturating_mul(DAY_US);
        let before = before.unwrap_or(Self { since_us: now_us, from_us, until_us, accepted: false });
        Some(Self { from_us: before.from_us.min(from_us), until_us: before.until_us.max(until_us), ..before })
    }

    /// The transactions that say so.
    pub(super) fn moved(self, name: &Name) -> [(String, i64); 3] {
        let fields = [("since", self.since_us), ("from", self.from_us), ("until", self.until_us)];
        fields.map(|(field, number)| (app_id(name, field), number))
    }
}

/// The transactions that say that all of a configuration are checked.
pub(super) fn done(name: &Name) -> [(String, i64); 3] {
    ["since", "from", "until"].map(|field| (app_id(name, field), 0))
}

/// The transaction that says that it will never come.
pub(super) fn accepted(name: &Name) -> (String, i64) {
    (app_id(name, "accepted"), 1)
}

fn app_id((source, sha256): &Name, field: &str) -> String {
    format!("{PREFIX}{source}/{sha256}/{field}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, TimestampMicrosecondArray};

    use super::*;

    fn rows(times_us: &[i64]) -> RecordBatch {
        let times = TimestampMicrosecondArray::from(times_us.to_vec()).with_timezone("UTC");
        let other = Int32Array::from(vec![0; times_us.len()]);
        RecordBatch::try_from_iter_with_nullable([
            ("sensor", Arc::new(other) as arrow::array::ArrayRef, false),
            ("time", Arc::new(times) as arrow::array::ArrayRef, false),
        ])
        .expect("rows")
    }

    #[test]
    fn what_is_not_checked_survives_the_log_until_it_is() {
        let name: Name = ("landfall-01".parse().expect("valid"), "ab".repeat(32));
        let first = Unchecked::with(None, &rows(&[5, 3]), 10);
        let all = Unchecked::with(first, &rows(&[-7, 4]), 20).expect("rows");
        let wanted = Unchecked { since_us: 10, from_us: -DAY_US, until_us: DAY_US, accepted: false };
        assert_eq!(all, wanted, "whole days");
        let mut transactions = HashMap::from(all.moved(&name));
        assert_eq!(read(&transactions), All::from([(name.clone(), all)]));
        transactions.extend(done(&name));
        assert_eq!(read(&transactions), All::new());
        assert_eq!(Unchecked::with(None, &rows(&[]), 30), None, "nothing was taken");
        transactions.extend(all.moved(&name).into_iter().chain([accepted(&name)]));
        assert!(read(&transactions)[&name].accepted);
        transactions.extend(done(&name));
        transactions.extend(first.expect("rows").moved(&name));
        assert!(read(&transactions)[&name].accepted, "for good");
        transactions.insert(":unchecked/landfall-01/c0ffee/since".to_owned(), 10);
        assert_eq!(read(&transactions).len(), 1, "that is no name, and nothing is waited for under it");
    }
}
