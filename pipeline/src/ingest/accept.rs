//! A person says of what is missing that it will never come: a gateway burnt down with its disk, and the alarm shall end.
//!
//! Of a hole it changes what an open run of numbers is (`:open/…`, 4) and nothing else: should the numbers come after
//! all, they are taken. Of a configuration it adds one word to what is not checked (`:unchecked/…/accepted`): should it come after
//! all, its readings are checked. Who said it, when and why stands in `corrections/`, as of a correction; the table has the
//! transaction of it. The commit counts as one of ingest's, so that of the two at once one is refused.

use serde_json::json;
use tjern_lake::{Commit, CommitError, Lake, LakeError, Operation, Table, TableName};
use tjern_readings::keys::Bounds;
use tjern_readings::sensor::{Epoch, SourceName};

use super::landing::Stream;
use super::progress::{self, INGEST, Open};
use super::sequence::shrink;
use super::unchecked;
use crate::correct::{Author, CORRECTION, Record};
use crate::tables::ATTEMPTS_MAX;

/// The kind of the record of a configuration that will never come.
pub(crate) const ACCEPT_CONFIGURATION: &str = "accept configuration";

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
    /// Nothing waits for such a configuration.
    #[error(
        "no readings of {source_name} wait for the configuration `{sha256}`; hint: `tjern pipeline configurations ls` says which ones are missing"
    )]
    NotMissing {
        /// Whose it would be.
        source_name: SourceName,
        /// Its name.
        sha256: String,
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
    let Some(table) = Table::open(lake, TableName::Readings).await? else { return Err(no_hole()) };
    let what =
        json!({ "source": source.as_str(), "epoch": epoch.to_string(), "first": bounds.first, "last": bounds.last });
    let record = Record::new(lake, "accept hole", author, what).with_rows(usize::try_from(bounds.count()).unwrap_or(0));
    let stream = (source.clone(), epoch);
    commit(lake, table, &record, |table| match standing(table, &stream, bounds) {
        Standing::Hole(hole) => Ok(Some(moved(&stream, bounds, hole))),
        Standing::Accepted => Ok(None),
        Standing::Other => Err(no_hole()),
    })
    .await
}

/// Accepts that a configuration will never come.
///
/// # Errors
/// [`AcceptError`]; nothing was changed then.
pub async fn accept_configuration(
    lake: &Lake,
    source: &SourceName,
    sha256: &str,
    author: &Author,
) -> Result<Accepted, AcceptError> {
    let what = json!({ "source": source.as_str(), "configuration": sha256 });
    let record = Record::new(lake, ACCEPT_CONFIGURATION, author, what).with_rows(0);
    accept_configuration_as(lake, source, sha256, &record).await
}

/// The same by a record that is there, of a table that was built anew.
pub(crate) async fn accept_configuration_as(
    lake: &Lake,
    source: &SourceName,
    sha256: &str,
    record: &Record,
) -> Result<Accepted, AcceptError> {
    let not_missing = || AcceptError::NotMissing { source_name: source.clone(), sha256: sha256.to_owned() };
    let Some(table) = Table::open(lake, TableName::Readings).await? else { return Err(not_missing()) };
    let name = (source.clone(), sha256.to_owned());
    commit(lake, table, record, |table| match unchecked::read(table.transactions()).get(&name) {
        Some(one) if one.accepted => Ok(None),
        Some(_) => Ok(Some(vec![unchecked::accepted(&name)])),
        None => Err(not_missing()),
    })
    .await
}

/// Moves what is to be moved at the table's newest version, with the record of who did it; nothing where that was done before.
async fn commit(
    lake: &Lake,
    mut table: Table,
    record: &Record,
    moves: impl Fn(&Table) -> Result<Option<Vec<(String, i64)>>, AcceptError>,
) -> Result<Accepted, AcceptError> {
    let own = format!("{CORRECTION}{}", record.id());
    let mut is_written = false;
    for _ in 0..ATTEMPTS_MAX {
        if table.transaction(&own).is_some() {
            return Ok(Accepted::Now);
        }
        let Some(mut transactions) = moves(&table)? else { return Ok(Accepted::Before) };
        // Whoever ingests at this moment is refused, or refuses this.
        transactions.extend([(INGEST.to_owned(), table.transaction(INGEST).unwrap_or(0) + 1), (own.clone(), 1)]);
        if !std::mem::replace(&mut is_written, true) {
            record.write(lake).await?;
        }
        let commit = Commit {
            operation: Operation::Ingest,
            add: Vec::new(),
            remove: Vec::new(),
            transactions,
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

fn moved(stream: &Stream, bounds: Bounds, hole: Bounds) -> Vec<(String, i64)> {
    let mut transactions = vec![(progress::open(stream, bounds), Open::Accepted as i64)];
    if hole != bounds {
        transactions.push((progress::open(stream, hole), Open::Closed as i64));
        transactions.extend(shrink(hole, bounds).map(|rest| (progress::open(stream, rest), Open::Hole as i64)));
    }
    transactions
}
