//! Erasure: readings of one sensor leave the lake for good, and never come back.
//!
//! An erasure is a record in the lake ([`record`](self)). It is the memory: every way by which rows come into `readings`
//! leaves out what it covers ([`Erasures`]). What was there is removed by [`go_on`], which a command and a job run until
//! nothing is left. Each of its steps finds out from the lake what is to be done, and doing it again does no harm:
//!
//! 1. `readings` is told, in a commit after which rows that were prepared without the erasure are refused;
//! 2. what has landed is ingested without what is erased; landed batches that hold it go ([`landed`]), and what lies in
//!    quarantine ([`quarantined`]);
//! 3. `readings` is written again without the rows ([`rows`]), `hourly` and `daily` without what they added to them;
//! 4. records that tell of them go ([`told`]), releases are withdrawn and made anew ([`released`]);
//! 5. what no version names any more goes at once, and the log that tells of it ([`leftovers`]);
//! 6. when nothing waits any more, the erasure is noted as done.
//!
//! How far a table is stands in its own transactions (`:erasure/<id>`: 1 told, 2 no row left, 3 no file left), so a
//! table that was restored, or built anew, says by itself that it has to be done again, whatever the note says.
//!
//! One source that cannot be looked at ([`unseen`]) keeps nobody's readings from being erased; the erasure is not complete
//! before it was looked at. What nobody can read as a batch, or has no batch's key, is looked through for the sensor's name
//! ([`raw`]).
//!
//! Limits: what a process that was at work while it was erased left behind uncommitted goes with vacuum. What other
//! processes hold in memory, a gateway's own spool and what others have copied is out of its reach.

mod doomed;
mod inside;
mod known;
mod landed;
mod leftovers;
mod quarantined;
mod raw;
mod record;
pub(crate) mod released;
mod retire;
mod rows;
mod settings;
mod sources;
mod told;
mod unseen;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use datafusion::error::DataFusionError;
use object_store::path::Path;
use serde::Serialize;
use tjern_lake::{CommitError, LakeError, TableName};
use tjern_readings::sensor::SensorId;

use crate::frames::FrameError;
use crate::ingest::IngestError;
use crate::publish::PublishError;
use crate::register::RegisterError;
use crate::rollup::RollupError;

pub use known::{Erasures, ErasuresError};
pub use record::Erasure;
pub use retire::{Retired, retire};
pub use settings::EraseSettings;
pub(crate) use work::ALWAYS_US;
pub use work::{Remembered, erase, find, go_on, is_known, is_settled, remember};

/// The lease's name.
pub const JOB: &str = "erase";

/// How long a process that was killed at it keeps others from it. While one is at work it renews its lease.
pub const LEASE: Duration = Duration::from_secs(60);

/// How far a table is with an erasure, as its transactions say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// No row that it covers comes in any more.
    Told = 1,
    /// No row that it covers is in this version, nor in a later one.
    Erased = 2,
    /// No file that the table does not name holds one, and no log tells of one.
    Gone = 3,
}

/// What is to be erased, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Of which sensor.
    pub sensor: SensorId,
    /// From this time on, in microseconds since 1970.
    pub from_us: i64,
    /// Up to and without this one.
    pub to_us: i64,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
}

/// Something that holds erased readings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What it is: `file of readings`, `rows of hourly`, `landed batch`, `quarantine`, `record`, `release`; or
    /// [`Found::UNSEEN`].
    pub what: &'static str,
    /// Its key.
    pub key: String,
    /// How many erased readings it has; none where nobody can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
}

impl Found {
    /// What could not be looked at, so that nobody knows whether it holds any.
    pub const UNSEEN: &'static str = "not looked at";

    fn unseen(key: &str) -> Self {
        Self { what: Self::UNSEEN, key: key.to_owned(), rows: None }
    }

    fn new(what: &'static str, key: impl Into<Path>, rows: Option<usize>) -> Self {
        Self { what, key: key.into().to_string(), rows }
    }
}

/// Something that cannot go yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// What.
    pub what: String,
    /// For what it waits.
    pub why: String,
    /// The erasures that wait for it; none: all of them.
    #[serde(skip)]
    erasures: Option<BTreeSet<String>>,
}

impl Wait {
    /// What could not be looked at.
    fn unseen(key: &str, why: &str, ids: BTreeSet<String>) -> Self {
        let why = format!("it cannot be looked at, so nobody knows whether something of it lies there: {why}");
        Self { what: key.to_owned(), why, erasures: Some(ids) }
    }
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EraseOutcome {
    /// Rows that left `readings`.
    pub rows: usize,
    /// Files of `readings` that were written again, or went.
    pub files: usize,
    /// Rows of `hourly` and `daily` that were computed again.
    pub summed: usize,
    /// Landed batches that went.
    pub landed: usize,
    /// Objects in quarantine that went.
    pub quarantined: usize,
    /// Records that went, or lost words.
    pub records: usize,
    /// Releases that were withdrawn.
    pub withdrawn: usize,
    /// Releases that were made in their place.
    pub released: Vec<String>,
    /// Datasets of which none could be made, and why: they have no newest release until their own job makes one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unmade: BTreeMap<String, String>,
    /// Data files that no version names any more and that went.
    pub leftovers: usize,
    /// Objects of logs that went.
    pub log: usize,
    /// Erasures of which nothing is left.
    pub done: Vec<String>,
    /// What has to wait, and for what.
    pub waits: Vec<Wait>,
    /// Whether another process is at it, or at what has to end first: then it waits for that, and shall be tried again soon.
    #[serde(skip)]
    pub held_elsewhere: bool,
}

/// Why a run stopped. What was removed stays so, and the next run goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// It is not known what was erased.
    #[error(transparent)]
    Erasures(#[from] ErasuresError),
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Its record could not be written.
    #[error(
        "{source}; the erasure is not remembered, and nothing was erased; hint: make room, or give the right to write, and ask for it again"
    )]
    NotRemembered {
        /// Why.
        source: LakeError,
    },
    /// Its record could not be written, and it cannot be seen whether it is there all the same.
    #[error(
        "{source}; whether the erasure is remembered as {id} is open; hint: ask for it again: if it is, that is the same one"
    )]
    Open {
        /// Its name, if it is there.
        id: String,
        /// Why.
        source: Box<LakeError>,
    },
    /// What has landed could not be ingested.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// What has landed must not be ingested before there is a register.
    #[error("{0}")]
    Unregistered(String),
    /// Hours and days could not be computed again.
    #[error(transparent)]
    Rollup(#[from] RollupError),
    /// A release could not be made anew.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The register could not be read.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The query engine failed.
    #[error("{}", tjern_lake::engine::Said(.0))]
    Engine(#[from] DataFusionError),
    /// Columns could not pass.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// What was written is not what was to stay. Nothing was committed.
    #[error(
        "erasing was to keep {kept} rows and wrote {written}, or changed one: nothing was committed; hint: run it again, and report it with the log"
    )]
    Changed {
        /// Rows that were to stay.
        kept: i64,
        /// Rows written.
        written: i64,
    },
    /// Others changed the table each time.
    #[error("table `{table}` was changed by others again and again; hint: run it again")]
    Contended {
        /// Which table.
        table: TableName,
    },
}
