//! Corrections: what was stored wrongly gets a row with a higher `revision`, and what was before stays
//! readable.
//!
//! [`recompute`] goes back to what a device said and from there to the right value; [`revise`] takes a
//! person's word. Both look at the newest word of each `(sensor, time)`, and the row that they add is of the
//! same reading: sensor, time, source, epoch and number stay, the revision counts up. Quality control and rollups
//! see it as they see a new reading.
//!
//! A correction is one commit or none. `corrections` counts them, so that of two at once one is refused
//! and looks again; `:correction/<id>` says which took place, so that a lost reply repeats
//! nothing. Who did it, when and why stands in the commit's notes, and for as long as the lake in
//! `corrections/<id>.json` (see [`record`](self)), which counts only if the table has its transaction.

pub mod again;
mod moments;
mod origin;
pub mod recompute;
mod record;
pub mod revise;
mod write;

use std::time::Duration;

use datafusion::error::DataFusionError;
use tjern_lake::{Commit, CommitError, DataFile, Lake, LakeError, Operation, Table, TableName};

use crate::anew::AnewError;
use crate::erase::ErasuresError;
use crate::frames::FrameError;
use crate::quality::QualityError;
use crate::register::RegisterError;
use crate::tables::{ATTEMPTS_MAX, let_go};

pub(crate) use moments::{Moment, Moments, Stored, Wanted};
pub use record::Author;
pub(crate) use record::Record;

/// Counts the corrections of `readings`.
pub(crate) const CORRECTIONS: &str = "corrections";

/// Before the id of one that took place. No source has such a name.
pub(crate) const CORRECTION: &str = ":correction/";

/// How long the pause is after a commit of which it is open whether it took place.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a correction was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorrectError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The register could not be read.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Rows could not be evaluated.
    #[error(transparent)]
    Quality(#[from] QualityError),
    /// It is not known what was erased.
    #[error(transparent)]
    Erasures(#[from] ErasuresError),
    /// The query engine failed.
    #[error("{}", tjern_lake::engine::Said(.0))]
    Engine(#[from] DataFusionError),
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A reading was corrected more often than a revision can count.
    #[error("`{sensor}` at {time} was corrected {} times: that is as far as `revision` counts", i16::MAX)]
    Revisions {
        /// Which sensor.
        sensor: String,
        /// Its reading's time.
        time: String,
    },
    /// A file could not be written anew.
    #[error(transparent)]
    Anew(#[from] AnewError),
    /// Columns could not be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Nobody can answer for readings that no test has looked at.
    #[error(
        "quality control has not looked yet at {count} of the readings of `{sensor}`, the first at {first}: nothing was validated; hint: `tjern pipeline quality`, look at the flags, then validate again"
    )]
    Unjudged {
        /// Which sensor.
        sensor: String,
        /// How many readings of the period.
        count: usize,
        /// The first one's time.
        first: String,
    },
    /// The lease ran out while files were written, and may be another process's by now.
    #[error(
        "the lease of `{job}` ran out while files were written: nothing was committed; hint: did the machine stand still?"
    )]
    Lost {
        /// Whose lease.
        job: &'static str,
    },
    /// Others have been writing readings anew for too long.
    #[error(
        "others have been writing readings anew for {minutes} min (the job `quality`, an erasure, another validation, or `ingest` with a configuration that came late): nothing was validated; hint: run it again when they are done, `tjern pipeline status` says how the jobs ran"
    )]
    Held {
        /// How long they were waited for.
        minutes: u64,
    },
    /// It was told to stop.
    #[error("interrupted; hint: run it again, what is done is not done twice")]
    Interrupted,
    /// Others corrected each time.
    #[error("other corrections came first {ATTEMPTS_MAX} times in a row; hint: make one at a time")]
    Contended,
}

/// What a correction brings, worked out on one version of the table.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) files: Vec<DataFile>,
    pub(crate) rows: usize,
}

/// Works a correction out, again where another one came first.
pub(crate) trait Prepare {
    async fn prepare(&mut self, table: &Table) -> Result<Prepared, CorrectError>;
}

/// Makes a correction. Returns how many rows it added; with none it commits nothing.
pub(crate) async fn correct(
    lake: &Lake,
    record: &Record,
    correction: &mut impl Prepare,
) -> Result<usize, CorrectError> {
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else { return Ok(0) };
    for _ in 0..ATTEMPTS_MAX {
        let prepared = correction.prepare(&table).await?;
        if prepared.rows == 0 {
            return Ok(0);
        }
        let record = record.with_rows(prepared.rows);
        record.write(lake).await?;
        let count = table.transaction(CORRECTIONS).unwrap_or(0) + 1;
        if commit(&mut table, &record, prepared.files.clone(), count).await? {
            return Ok(prepared.rows);
        }
        // It may have been an erasure that came first, and be over.
        let_go(lake, TableName::Readings, &prepared.files).await;
    }
    Err(CorrectError::Contended)
}

/// Commits the files; false where another correction came first, on which they were not worked out.
async fn commit(table: &mut Table, record: &Record, add: Vec<DataFile>, count: i64) -> Result<bool, CorrectError> {
    let own = format!("{CORRECTION}{}", record.id());
    let transactions = vec![(CORRECTIONS.to_owned(), count), (own.clone(), 1)];
    let commit = Commit { operation: Operation::Correct, add, remove: Vec::new(), transactions, notes: record.notes() };
    let mut failure = None;
    for _ in 0..ATTEMPTS_MAX {
        match table.commit(commit.clone()).await {
            Ok(_) => return Ok(true),
            Err(CommitError::Failed(error)) => {
                tracing::warn!(%error, "it is open whether a commit took place: looking again");
                failure = Some(error);
                tokio::time::sleep(PAUSE).await;
            }
            Err(CommitError::Restricted(error)) => return Err((*error).into()),
            Err(_) => failure = None,
        }
        table.refresh().await?;
        if table.transaction(&own).is_some() {
            return Ok(true);
        }
        if table.transaction(CORRECTIONS).unwrap_or(0) + 1 != count {
            return Ok(false);
        }
    }
    failure.map_or(Err(CorrectError::Contended), |error| Err(error.into()))
}

/// A time for people and programs: RFC 3339 in UTC.
pub(crate) fn utc(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us).map_or_else(|_| time_us.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests;
