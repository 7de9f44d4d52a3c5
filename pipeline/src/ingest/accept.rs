//! A person says of a hole that it will never be filled: a gateway burnt down with its disk, and the alarm shall end.
//!
//! It changes what an open run of numbers is (`:open/…`, 4) and nothing else. The numbers stay open: should they come after
//! all, they are taken. Who said it, when and why stands in `corrections/`, as of a correction; the table has the
//! transaction of it. The commit counts as one of ingest's, so that of the two at once one is refused.

use serde_json::json;
use tjern_lake::{Commit, CommitError, Lake, LakeError, Operation, Table, TableName};
use tjern_readings::keys::Bounds;
use tjern_readings::sensor::{Epoch, SourceName};

use super::landing::Stream;
use super::progress::{self, INGEST, Open};
use super::sequence::shrink;
use crate::correct::{Author, CORRECTION, Record};
use crate::tables::ATTEMPTS_MAX;

/// Why nothing was accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// There is no such hole.
    #[error(
        "the numbers {first} to {last} of {source_name}, epoch {epoch}, are no hole; hint: `tjern pipeline holes ls` says what is"
    )]
    NoHole {
        /// Whose numbers.
        source_name: SourceName,
        /// Of which epoch.
        epoch: Epoch,
        /// The first.
        first: i64,
        /// The last.
        last: i64,
    },
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Others committed all the time.
    #[error("others committed {ATTEMPTS_MAX} times in a row; hint: run it again")]
    Busy,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is accepted now.
    Now,
    /// It was before.
    Before,
}

/// Accepts numbers that lie in one hole.
///
/// # Errors
/// [`AcceptError`]; nothing was changed then.
pub async fn accept(
    lake: &Lake,
    source: &SourceName,
    epoch: Epoch,
    bounds: Bounds,
    author: &Author,
) -> Result<Accepted, AcceptError> {
    let no_hole = || AcceptError::NoHole { source_name: source.clone(), epoch, first: bounds.first, last: bounds.last };
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else { return Err(no_hole()) };
    let what =
        json!({ "source": source.as_str(), "epoch": epoch.to_string(), "first": bounds.first, "last": bounds.last });
    let record = Record::new(lake, "accept hole", author, what).with_rows(usize::try_from(bounds.count()).unwrap_or(0));
    let own = format!("{CORRECTION}{}", record.id());
    let stream = (source.clone(), epoch);
    let mut is_written = false;
    for _ in 0..ATTEMPTS_MAX {
        if table.transaction(&own).is_some() {
            return Ok(Accepted::Now);
        }
        let hole = match standing(&table, &stream, bounds) {
            Standing::Hole(hole) => hole,
            Standing::Accepted => return Ok(Accepted::Before),
            Standing::Other => return Err(no_hole()),
        };
        if !std::mem::replace(&mut is_written, true) {
            record.write(lake).await?;
        }
        let commit = Commit {
            operation: Operation::Ingest,
            add: Vec::new(),
            remove: Vec::new(),
            transactions: moved(&table, &stream, bounds, hole, own.clone()),
            notes: record.notes(),
        };
        match table.commit(commit).await {
            Ok(_) => return Ok(Accepted::Now),
            Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
            // It may have taken place all the same.
            Err(error) => {
                table.refresh().await?;
                return table.transaction(&own).map(|_| Accepted::Now).ok_or(error.into());
            }
        }
    }
    Err(AcceptError::Busy)
}

/// What numbers are.
enum Standing {
    /// They lie in this hole.
    Hole(Bounds),
    Accepted,
    Other,
}

fn standing(table: &Table, stream: &Stream, bounds: Bounds) -> Standing {
    let runs = progress::open_runs(table.transactions());
    let found =
        runs.into_iter().find(|run| (&run.source, run.epoch) == (&stream.0, stream.1) && run.bounds.contains(bounds));
    match found {
        Some(run) if run.accepted => Standing::Accepted,
        Some(run) if !run.dropped => Standing::Hole(run.bounds),
        _ => Standing::Other,
    }
}

fn moved(table: &Table, stream: &Stream, bounds: Bounds, hole: Bounds, own: String) -> Vec<(String, i64)> {
    let mut transactions = vec![
        // Whoever ingests at this moment is refused, or refuses this.
        (INGEST.to_owned(), table.transaction(INGEST).unwrap_or(0) + 1),
        (own, 1),
        (progress::open(stream, bounds), Open::Accepted as i64),
    ];
    if hole != bounds {
        transactions.push((progress::open(stream, hole), Open::Closed as i64));
        transactions.extend(shrink(hole, bounds).map(|rest| (progress::open(stream, rest), Open::Hole as i64)));
    }
    transactions
}
