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

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tjern_lake::{TableName, Version, Versions};
use tokio::sync::watch;

use self::address::PipelineAddress;

/// What was told last. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Told(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: PipelineAddress,
    state: Mutex<State>,
    /// The same versions, for those who wait for them.
    versions: watch::Sender<Versions>,
    /// Whether it was said that it tells of what is not there.
    is_doubted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Changes that were told, counted: none of them has the number of another one.
    changes: u64,
    tables: BTreeMap<TableName, Change>,
    contact: Contact,
}

/// What was told of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) version: Version,
    /// Which change this is.
    pub(crate) number: u64,
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
}

impl Tidings {
    /// What is told of a table, if anything is.
    pub(crate) fn of(&self, table: TableName) -> Option<Change> {
        self.tables.get(&table).copied()
    }
}

impl Told {
    pub(crate) fn by(address: PipelineAddress) -> Self {
        let shared = Shared {
            address,
            state: Mutex::default(),
            versions: watch::Sender::default(),
            is_doubted: AtomicBool::new(false),
        };
        Self(Arc::new(shared))
    }

    pub(crate) fn address(&self) -> &PipelineAddress {
        &self.0.address
    }

    /// What is told now; nothing where the pipeline is silent.
    pub(crate) fn now(&self) -> Tidings {
        let state = self.lock();
        Tidings { changes: state.changes, tables: state.tables.clone() }
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
        if !matches!(std::mem::replace(&mut state.contact, Contact::Lost(why.to_owned())), Contact::Lost(_)) {
            tracing::warn!(
                pipeline = %self.0.address,
                "the pipeline does not tell of its commits: {why}; until it does the store is asked for them"
            );
        }
        drop(state);
        self.0.versions.send_replace(Versions::default());
    }

    /// A look found less than what was told.
    pub(crate) fn doubt(&self, table: TableName, told: Version, found: Option<Version>) {
        if self.0.is_doubted.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            pipeline = %self.0.address, %table, told = told.version, found = found.map(|found| found.version),
            "the pipeline tells of a commit that is not in this lake; the store is asked as if it were silent; hint: is the \
             pipeline at `[serve] pipeline` this lake's?"
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
        json!({ "pipeline": self.0.address.to_string(), "told": versions, "reason": reason })
    }

    /// Whether the pipeline tells now.
    pub(crate) fn is_told(&self) -> bool {
        matches!(self.lock().contact, Contact::Told)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(readings: i64, digest: u64) -> Versions {
        [(TableName::Readings, Version { version: readings, digest: Some(digest) })].into_iter().collect()
    }

    /// What is told once more is no change; another commit of the same number is one, and so is a table that begins anew.
    #[test]
    fn a_change_is_what_differs_and_what_is_silent_tells_nothing() {
        let told = Told::by("http://127.0.0.1:1".parse().expect("an address"));
        let number = || told.now().of(TableName::Readings).map(|change| change.number);
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
}
