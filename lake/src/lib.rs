//! The tables of Tjern: Delta snapshots and commits, the scan that reads them, the SQL session.
//!
//! Data goes one way: [`log`] reads a table's Delta log (files and transactions in one pass; `states` keeps what was read),
//! [`table`] pins a version of it, [`commit`] is the one module that writes to a log, [`write`] makes
//! the Parquet files that a commit names and [`read`] reads one of them, [`scan`] hands a pinned version to DataFusion,
//! [`rollup`] says which windows of hours and days commits touched and computes them, and [`session`] puts all tables and views
//! of a lake before an SQL planner that reaches nothing else.
//!
//! Delta is used at reader version 1, writer version 2, unpartitioned, without table features, so
//! that Spark, DuckDB, Polars and Python's `deltalake` read the same folders.
#![forbid(unsafe_code)]

pub mod commit;
pub mod engine;
pub mod file;
pub mod functions;
pub mod lease;
pub mod log;
pub mod metrics;
mod newest;
pub mod precedence;
pub mod read;
mod recent;
pub mod rollup;
pub mod scan;
pub mod schema;
pub mod session;
mod states;
pub mod table;
mod unreadable;
pub mod versions;
pub mod views;
pub mod write;
mod yielding;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deltalake_core::logstore::{LogStoreRef, StorageConfig, logstore_with};
use log::LogState;
use newest::Newest;
use object_store::ObjectStore;
use recent::Recent;
use rollup::touched::KnownTouched;
use states::{Handle, KnownStates, Moment};
use tjern_readings::clock::Clock;
use tjern_readings::store::{LakeUrl, ProofError, Store, StoreError};
use tokio::sync::watch;
use url::Url;

pub use commit::{Commit, CommitError, Operation};
pub use file::DataFile;
pub use lease::{Held, KeptLease, Lease};
pub use log::Followed;
pub use log::damage::Damage;
pub use log::expired::Expired;
pub use read::FileReader;
pub use schema::TableName;
pub use session::{Access, SessionSettings, session};
pub use table::{Changes, Table};
pub use versions::{Version, Versions};
pub use write::{FileWriter, write_file};

/// An open lake: its store, the clock by which times are written into it, and what is known of its
/// tables. Clones share what is known.
#[derive(Debug, Clone)]
pub struct Lake {
    store: Store,
    objects: Arc<dyn ObjectStore>,
    clock: Clock,
    states: Arc<KnownStates>,
    newest: Arc<Newest>,
    touched: Arc<KnownTouched>,
    /// Whether it is one of personal readings.
    is_personal: bool,
    /// Whether its store was found to refuse a second create, and all tables to be there.
    is_ready: Arc<AtomicBool>,
}

/// What went wrong with a lake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] StoreError),
    /// The store may overwrite where it should refuse.
    #[error(transparent)]
    Proof(#[from] Box<ProofError>),
    /// The store failed.
    #[error("the lake's store failed at `{key}`: {source}")]
    Store {
        /// Which object.
        key: String,
        /// Why.
        source: Box<object_store::Error>,
    },
    /// A table's log makes no sense.
    #[error("the log of table `{table}` is damaged at `{place}`: {what}; hint: {}", way_back(*table, place))]
    Log {
        /// Which table.
        table: TableName,
        /// Which object of the log.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// Another program raised the table's protocol.
    #[error(
        "table `{table}` needs Delta reader version {reader}, this software reads version 1; hint: undo the table feature that another program switched on"
    )]
    Protocol {
        /// Which table.
        table: TableName,
        /// The version that the table asks for.
        reader: i64,
    },
    /// Another program gave a table what keeps this software from writing to it; it reads it all the same.
    #[error(
        "another program gave table `{table}` {what}: it is read as before, and what would be written is refused; hint: \"A setting of another program\" in docs/backup.md says how it is taken back"
    )]
    Restricted {
        /// Which table.
        table: TableName,
        /// What it was given.
        what: String,
    },
    /// Delta refused.
    #[error("table `{table}`: {source}")]
    Delta {
        /// Which table.
        table: TableName,
        /// Why.
        source: Box<deltalake_core::DeltaTableError>,
    },
    /// The SQL engine failed.
    #[error("{}", engine::Said(.0))]
    Engine(Box<datafusion::error::DataFusionError>),
    /// Parquet could not be written.
    #[error("cannot write a file of table `{table}`: {source}")]
    Parquet {
        /// Which table.
        table: TableName,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A data file cannot be read.
    #[error("cannot read the data file `{key}`: {source}; hint: `tjern pipeline verify` looks at all of them")]
    Unreadable {
        /// Which object.
        key: String,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A data file's bytes are not those that were written.
    #[error(
        "the data file `tables/{table}/{path}` is damaged: its SHA-256 is {found}, and the log says {written}; nothing of it is written anew; hint: \"A damaged data file\" in docs/backup.md says what brings it back; `tjern pipeline verify` names all of them"
    )]
    Altered {
        /// Which table.
        table: TableName,
        /// Which file, in the table's folder.
        path: String,
        /// What its bytes are by now, in hex.
        found: String,
        /// What they were, in hex.
        written: String,
    },
    /// A data file that the table has is not in the store.
    #[error(
        "the data file `tables/{table}/{path}` is not there; hint: \"A damaged data file\" in docs/backup.md says what brings it back; `tjern pipeline verify` names all of them"
    )]
    Missing {
        /// Which table.
        table: TableName,
        /// Which file, in the table's folder.
        path: String,
    },
    /// A time zone that the data base does not know.
    #[error("time zone: {0}; hint: write a name like \"Europe/Oslo\"")]
    TimeZone(#[from] jiff::Error),
}

impl LakeError {
    /// Whether the store was found not to refuse a second create: several who write would lose rows.
    #[must_use]
    pub fn is_careless(&self) -> bool {
        matches!(self, Self::Proof(error) if matches!(**error, ProofError::NotCreateOnly { .. }))
    }

    /// Whether the log of hours or days is damaged: readings and the register have all that they had.
    #[must_use]
    pub const fn is_of_rollups(&self) -> bool {
        matches!(self, Self::Log { table: TableName::Hourly | TableName::Daily, .. })
    }

    /// The data file that is damaged, by its path in the table's folder, where this is what went wrong: its bytes are others, they
    /// are no Parquet, or it is not there.
    #[must_use]
    pub fn damaged_file(&self) -> Option<&str> {
        match self {
            Self::Altered { path, .. } | Self::Missing { path, .. } => Some(path),
            // The store's own failures pass.
            Self::Unreadable { source: parquet::errors::ParquetError::External(_), .. } => None,
            Self::Unreadable { key, .. } => key.splitn(3, '/').nth(2),
            _ => None,
        }
    }

    /// Whether a data file that was to be read is not there any more: vacuum may have taken it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let Self::Unreadable { source: parquet::errors::ParquetError::External(source), .. } = self else {
            return false;
        };
        let mut inner: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = inner {
            if let Some(object_store::Error::NotFound { .. }) = error.downcast_ref::<object_store::Error>() {
                return true;
            }
            inner = error.source();
        }
        false
    }

    /// The store failed at an object.
    #[must_use]
    pub fn store(key: impl ToString, source: object_store::Error) -> Self {
        Self::Store { key: key.to_string(), source: Box::new(source) }
    }
}

/// What brings a damaged log back, by what of it is damaged.
#[must_use]
pub fn way_back(table: TableName, place: &str) -> String {
    let row = match (table, place.contains("checkpoint")) {
        (_, true) => "where the commits are there, move the checkpoint and `_last_checkpoint` away: ".to_owned(),
        (TableName::Hourly | TableName::Daily, false) => {
            format!("move `tables/{table}` away, and `tjern pipeline rollup` makes it anew: ")
        }
        _ => String::new(),
    };
    format!("{row}see \"What is lost when\" in docs/backup.md")
}

impl From<datafusion::error::DataFusionError> for LakeError {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl Lake {
    /// Opens a lake. A local folder is created; a cloud is not contacted yet.
    ///
    /// # Errors
    /// [`LakeError::Open`].
    pub fn open(url: &LakeUrl) -> Result<Self, LakeError> {
        Ok(Self::over(Store::open(url)?))
    }

    /// A lake over an open store.
    #[must_use]
    pub fn over(store: Store) -> Self {
        let objects = store.objects();
        // A folder of this machine bills nothing, and the system keeps its files in memory by itself.
        let is_folder = store.url().local_folder().is_some();
        let objects = if is_folder { objects } else { Arc::new(Recent::new(objects)) };
        Self {
            store,
            objects,
            clock: Clock::system(),
            states: Arc::default(),
            newest: Arc::default(),
            touched: Arc::default(),
            is_personal: false,
            is_ready: Arc::default(),
        }
    }

    /// The same lake with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same lake as one of personal readings: those of sensors of the class `personal` are taken here, and nowhere else.
    #[must_use]
    pub const fn of_persons(mut self) -> Self {
        self.is_personal = true;
        self
    }

    /// Whether it is one of personal readings.
    #[must_use]
    pub const fn is_personal(&self) -> bool {
        self.is_personal
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    pub(crate) fn note_ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// The lake's store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The lake's objects, keyed from its root. Small data files may come from memory: what lies in the store itself
    /// is what [`Lake::store`] hands out.
    #[must_use]
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// The clock.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// At which version each table is, by what anything of this process that shares the lake has seen or committed; who
    /// waits for a change learns of it at once.
    #[must_use]
    pub fn versions(&self) -> watch::Receiver<Versions> {
        self.states.versions()
    }

    /// What commits of `readings` touched, as far as somebody asked.
    pub(crate) fn known_touched(&self) -> &KnownTouched {
        &self.touched
    }

    /// The newest state of a table, read from where the last look at it left off.
    pub(crate) async fn newest_state(&self, table: TableName) -> Result<Option<Arc<LogState>>, LakeError> {
        self.states.newest(self, table).await
    }

    /// The state of a table that a look found that is at most so old, or that was seen since.
    pub(crate) async fn state_within(
        &self,
        table: TableName,
        age: Duration,
    ) -> Result<Option<Arc<LogState>>, LakeError> {
        self.states.within(self, table, age).await
    }

    /// The state of a table carried forward to a version that somebody told of.
    pub(crate) async fn state_reaching(
        &self,
        table: TableName,
        told: Version,
    ) -> Result<Option<Arc<LogState>>, LakeError> {
        self.states.reaching(self, table, told).await
    }

    /// Lets everybody know what a look found that began at a moment: a listing, or a commit, which was the newest.
    pub(crate) fn saw_state(&self, table: TableName, state: &Arc<LogState>, looked: Moment) {
        self.states.note(self, table, Some(Arc::clone(state)), looked, true);
    }

    /// What settled files said of their sensors.
    pub(crate) fn newest(&self) -> &Newest {
        &self.newest
    }

    /// Delta's view of a table, kept from the last commit on it.
    pub(crate) fn take_handle(&self, table: TableName) -> Option<Handle> {
        self.states.take_handle(table)
    }

    /// Keeps Delta's view of a table for the next commit.
    pub(crate) fn keep_handle(&self, table: TableName, handle: Handle) {
        self.states.keep_handle(table, handle);
    }

    /// Delta's view of a table's folder. The URL is of use within this process only: our store is
    /// keyed from the lake's root wherever that lies, so Delta shall not reason about real paths.
    pub(crate) fn log_store(&self, table: TableName) -> Result<LogStoreRef, LakeError> {
        let refused = |source| LakeError::Delta { table, source: Box::new(source) };
        let url = Url::parse(&format!("memory:///{}/", tjern_readings::keys::table(table.as_str())));
        let url = url.map_err(|error| refused(deltalake_core::DeltaTableError::Generic(error.to_string())))?;
        logstore_with(self.objects(), &url, StorageConfig::default()).map_err(refused)
    }
}
