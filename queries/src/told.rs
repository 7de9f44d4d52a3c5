//! What the pipeline's process tells of its commits, for a server in a process of its own.
//!
//! [`listener`] asks it, [`address`] says where. What was told is no truth: the log is. It says when a look is worth its
//! price, and a table whose version is as told is looked at as seldom as if the pipeline worked in this process. What was
//! told differs from what a look then found (it is another lake's pipeline; or somebody else committed, and the pipeline has not
//! seen it yet): then that table is looked at as if nothing had been told.
//!
//! Nobody waits for the pipeline: a query reads what was told last, which is forgotten as soon as the pipeline is silent.

pub(crate) mod address;
mod backoff;
pub(crate) mod listener;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tjern_lake::{TableName, Version, Versions};
use tokio::sync::watch;
use tokio::time::Instant;

use self::address::PipelineAddress;

/// Found and told may differ for a while: a command has committed, and the pipeline sees that with its next look.
const DIFFERS_MAX: Duration = Duration::from_secs(10 * 60);

/// What was told last. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Told(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: PipelineAddress,
    state: Mutex<State>,
    /// The same versions, for those who wait for them.
    versions: watch::Sender<Versions>,
}

#[derive(Debug, Default)]
struct State {
    /// Changes that were told, counted: none of them has the number of another one.
    changes: u64,
    tables: BTreeMap<TableName, Change>,
    /// Since when the log says something else of these.
    differing: BTreeMap<TableName, Instant>,
    /// Whether that was said.
    is_doubted: bool,
    contact: Contact,
}

/// What was told of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    version: Version,
    /// Which change this is.
    number: u64,
}

/// How it stands with the pipeline.
#[derive(Debug, Default)]
enum Contact {
    /// Nothing is known yet.
    #[default]
    New,
    Told,
    /// Why it tells nothing.
    Lost(String),
}

/// What is told at a moment: a copy, which nobody changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tidings {
    /// The number of the last change.
    pub(crate) changes: u64,
    tables: BTreeMap<TableName, Change>,
    differing: BTreeSet<TableName>,
}

impl Tidings {
    /// What is told of a table, if anything is.
    pub(crate) fn of(&self, table: TableName) -> Option<Version> {
        self.tables.get(&table).map(|change| change.version)
    }

    /// The same, where it was told after a change of this number, and what was told before was found. Of a table of which
    /// the log says something else no news is worth a look.
    pub(crate) fn since(&self, changes: u64, table: TableName) -> Option<Version> {
        let change = self.tables.get(&table).filter(|change| change.number > changes);
        change.filter(|_| !self.differing.contains(&table)).map(|change| change.version)
    }
}

impl Told {
    pub(crate) fn by(address: PipelineAddress) -> Self {
        Self(Arc::new(Shared { address, state: Mutex::default(), versions: watch::Sender::default() }))
    }

    pub(crate) fn address(&self) -> &PipelineAddress {
        &self.0.address
    }

    /// What is told now; nothing where the pipeline is silent.
    pub(crate) fn now(&self) -> Tidings {
        let state = self.lock();
        let differing = state.differing.keys().copied().collect();
        Tidings { changes: state.changes, tables: state.tables.clone(), differing }
    }

    /// What was told last; empty while nothing is.
    pub(crate) fn versions(&self) -> watch::Receiver<Versions> {
        self.0.versions.subscribe()
    }

    /// The pipeline told.
    fn heard(&self, versions: &Versions) {
        let mut state = self.lock();
        let mut tables = BTreeMap::new();
        for (table, version) in versions.iter() {
            let before = state.tables.get(&table).copied().filter(|change| change.version == version);
            let change = before.unwrap_or_else(|| {
                state.changes += 1;
                Change { version, number: state.changes }
            });
            tables.insert(table, change);
        }
        state.tables = tables;
        if !matches!(std::mem::replace(&mut state.contact, Contact::Told), Contact::Told) {
            tracing::info!(pipeline = %self.0.address, "the pipeline tells of its commits");
        }
        drop(state);
        self.0.versions.send_replace(versions.clone());
    }

    /// The pipeline does not tell.
    fn lost(&self, why: &str) {
        let mut state = self.lock();
        state.tables.clear();
        state.differing.clear();
        if !matches!(std::mem::replace(&mut state.contact, Contact::Lost(why.to_owned())), Contact::Lost(_)) {
            tracing::warn!(
                pipeline = %self.0.address,
                "the pipeline does not tell of its commits: {why}; until it does the store is asked for them"
            );
        }
        drop(state);
        self.0.versions.send_replace(Versions::default());
    }

    /// What is found of a table that is told of; `looked` for it after it was told. The pipeline tells of what it has seen in
    /// the log: where a look does not find that, or the two differ for long, it was another log.
    pub(crate) fn compare(&self, table: TableName, told: Version, found: Option<Version>, looked: bool) {
        let mut state = self.lock();
        if found.is_some_and(|found| found.is(told)) {
            state.differing.remove(&table);
            return;
        }
        let lacks_it = looked && found.is_none_or(|found| found.version < told.version);
        let since = *state.differing.entry(table).or_insert_with(Instant::now);
        if (!lacks_it && since.elapsed() < DIFFERS_MAX) || std::mem::replace(&mut state.is_doubted, true) {
            return;
        }
        tracing::warn!(
            pipeline = %self.0.address, %table, told = told.version, found = found.map(|found| found.version),
            "the pipeline tells of other commits than are in this lake; the store is asked as if it were silent; hint: is the \
             pipeline at `[serve] pipeline` this lake's, and does its `ingest` run?"
        );
    }

    /// How it stands, for the staff.
    pub(crate) fn report(&self) -> Value {
        let state = self.lock();
        let versions: BTreeMap<_, _> =
            state.tables.iter().map(|(table, change)| (table.as_str(), change.version.version)).collect();
        let reason = match &state.contact {
            Contact::Lost(why) => Some(why.as_str()),
            Contact::New | Contact::Told => None,
        };
        let differing: Vec<_> = state.differing.keys().map(|table| table.as_str()).collect();
        json!({ "pipeline": self.0.address.to_string(), "told": versions, "differing": differing, "reason": reason })
    }

    /// Whether it is known by what is told now which readings there are.
    pub(crate) fn is_told(&self) -> bool {
        let state = self.lock();
        state.tables.contains_key(&TableName::Readings) && !state.differing.contains_key(&TableName::Readings)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(readings: i64, digest: u64) -> Versions {
        [(TableName::Readings, Version { version: readings, digest: Some(digest), id: None })].into_iter().collect()
    }

    /// What is told once more is no change; another commit of the same number is one, and so is a table that begins anew.
    #[test]
    fn a_change_is_what_differs_and_what_is_silent_tells_nothing() {
        let told = Told::by("http://127.0.0.1:1".parse().expect("an address"));
        let number = || told.lock().tables.get(&TableName::Readings).map(|change| change.number);
        assert_eq!(number(), None);
        for (readings, digest, wanted) in [(7, 100, 1), (7, 100, 1), (8, 90, 2), (8, 91, 3), (0, 5, 4)] {
            told.heard(&versions(readings, digest));
            assert_eq!(number(), Some(wanted), "version {readings} of {digest}");
        }
        told.lost("gone");
        assert_eq!((number(), told.is_told(), told.report()["reason"].as_str()), (None, false, Some("gone")));
        told.heard(&versions(0, 5));
        assert_eq!(number(), Some(5), "what was told before the silence is told anew");
    }

    /// A pipeline of another lake must not pass for this one's, whichever of the two has more commits.
    #[test]
    fn a_table_that_is_found_otherwise_is_not_told_of_until_it_is_found_so() {
        let told = Told::by("http://127.0.0.1:1".parse().expect("an address"));
        let found = |version, digest| Some(Version { version, digest: Some(digest), id: None });
        for other in [found(5_000, 1), found(99, 1), found(100, 2), None] {
            told.heard(&versions(100, 1));
            assert!(told.is_told());
            let before = told.now();
            told.heard(&versions(101, 9));
            assert_eq!(told.now().since(before.changes, TableName::Readings), found(101, 9));
            told.compare(TableName::Readings, Version { version: 101, digest: Some(9), id: None }, other, true);
            assert_eq!((told.is_told(), told.report()["differing"][0].as_str()), (false, Some("readings")));
            told.heard(&versions(102, 7));
            assert_eq!(told.now().since(before.changes, TableName::Readings), None, "no news of it is worth a look");
            told.compare(
                TableName::Readings,
                Version { version: 102, digest: Some(7), id: None },
                found(102, 7),
                false,
            );
            assert!(told.is_told(), "{}", told.report());
        }
    }

    /// Where a daemon leaves `ingest` to others, its word is none on readings.
    #[test]
    fn who_tells_of_no_readings_does_not_tell() {
        let told = Told::by("http://127.0.0.1:1".parse().expect("an address"));
        told.heard(&[(TableName::Daily, Version { version: 1, digest: None, id: None })].into_iter().collect());
        assert!(!told.is_told() && told.report()["reason"].is_null(), "{}", told.report());
    }
}
