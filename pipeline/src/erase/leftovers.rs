//! What a table's newest version does not name any more: data files with erased rows, and the log that tells of them.
//!
//! Gone at once, and not after vacuum's retention: readers of earlier versions fail. First a checkpoint is written,
//! from which everybody else reads the log; then the files go, then all of the log before it, oldest first, so that a run
//! that breaks off leaves a log without a hole. Then the table says so by a transaction.
//!
//! A table in which nothing was found, in its newest version or in a file beside it, keeps its log: there is nothing to hide in
//! it, and its versions are other people's. What it says of files that vacuum took before stays until vacuum takes that too.

use std::collections::BTreeMap;

use tjern_lake::{Commit, CommitError, Lake, Operation, Table, TableName};

use super::known::Erasures;
use super::rows::count;
use super::{EraseError, Erasure, Mark};
use crate::tables::ATTEMPTS_MAX;

/// What went of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Leftovers {
    pub(super) files: usize,
    pub(super) log: usize,
}

/// How far a table is with an erasure.
pub(super) fn mark_of(table: &Table, erasure: &Erasure) -> i64 {
    table.transaction(&erasure.mark()).unwrap_or(0)
}

/// Says of a table how far it is, by a commit that moves nothing else but `others`.
pub(super) async fn mark(
    table: &mut Table,
    erasures: &Erasures,
    mark: Mark,
    others: impl Fn(&Table) -> Vec<(String, i64)>,
) -> Result<(), EraseError> {
    let mut failure = None;
    for _ in 0..ATTEMPTS_MAX {
        let behind = erasures.all().iter().filter(|erasure| mark_of(table, erasure) < mark as i64);
        let mut transactions: Vec<_> = behind.map(|erasure| (erasure.mark(), mark as i64)).collect();
        if transactions.is_empty() {
            return Ok(());
        }
        transactions.extend(others(table));
        let (add, remove, notes) = (Vec::new(), Vec::new(), BTreeMap::new());
        let commit = Commit { operation: Operation::Erase, add, remove, transactions, notes };
        match table.commit(commit).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Failed(error)) => {
                tracing::warn!(%error, "it is open whether a commit took place: looking again");
                failure = Some(error);
            }
            Err(CommitError::Restricted(error)) => return Err((*error).into()),
            Err(_) => failure = None,
        }
        table.refresh().await?;
    }
    failure.map_or(Err(EraseError::Contended { table: table.name() }), |error| Err(error.into()))
}

/// Removes what is left of erased rows beside a table's newest version, and says so. `untouched`: no row of it was erased, now
/// or by a run before.
pub(super) async fn remove(
    lake: &Lake,
    name: TableName,
    erasures: &Erasures,
    untouched: bool,
) -> Result<Leftovers, EraseError> {
    let Some(mut table) = Table::open(lake, name).await? else { return Ok(Leftovers::default()) };
    let idle = table.idle_files().await?;
    let folder = tjern_readings::keys::table(name.as_str());
    let mut files = Vec::new();
    for file in idle.iter().filter(|file| file.path.ends_with(".parquet")) {
        let holds = match count(lake, name, file, &wide(name, erasures)).await {
            Ok(rows) => rows > 0,
            // Nobody names it and nobody can say what is in it. A store that failed is another thing: the file may be somebody's who is
            // about to commit it.
            Err(error) if error.is_gone() || error.damaged_file().is_some() => true,
            Err(error) => return Err(error.into()),
        };
        if holds {
            files.push(folder.clone().join(file.path.as_str()));
        }
    }
    if untouched && files.is_empty() {
        mark(&mut table, erasures, Mark::Gone, |_| Vec::new()).await?;
        return Ok(Leftovers::default());
    }
    table.write_checkpoint().await?;
    let mut log: Vec<_> = table.log_before().await?.into_iter().map(|meta| meta.location).collect();
    log.sort();
    let gone = Leftovers { files: files.len(), log: log.len() };
    crate::vacuum::remove(lake, files).await?;
    crate::vacuum::remove(lake, log).await?;
    mark(&mut table, erasures, Mark::Gone, |_| Vec::new()).await?;
    Ok(gone)
}

/// A window that was summed up tells of readings that are not in its hour: the step of a counter comes from the
/// window before. Of files that nobody names any more everything goes that has a row of the sensor.
fn wide(name: TableName, erasures: &Erasures) -> Erasures {
    if name == TableName::Readings {
        return erasures.clone();
    }
    let always = |erasure: &Erasure| Erasure {
        from: crate::jobs::record::Moment(i64::MIN),
        to: crate::jobs::record::Moment(i64::MAX),
        ..erasure.clone()
    };
    Erasures::of(erasures.all().iter().map(always))
}
