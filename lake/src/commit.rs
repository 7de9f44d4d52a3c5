//! The one module that commits to a Delta log.
//!
//! Two rules stand above all. A commit that removes files is made on the snapshot whose files were
//! read, is never rebased (delta-rs overlooks some concurrent removals when it rebases), and carries
//! the table's fence transaction: if anything was committed meanwhile it is refused, and its maker
//! looks again. A commit that only adds may be rebased by delta-rs, whose conflict checks then
//! refuse it if one of its transactions was moved by somebody else.
//!
//! Files that no commit names yet are vacuum's once they are old enough. Before it removes any, it commits how old
//! that is ([`Table::cut_off`]); a file written before what the table says then is not committed any more, since it
//! may be gone. A commit that removes files is refused if vacuum's came in between; one that only adds is not rebased
//! once its files are [`REBASED_US`] old.
//!
//! A checkpoint is made by Delta, which takes an emptied commit for one that brought nothing: before one is made, the log
//! is looked at for such a commit, and nothing is committed where there is one.
//!
//! After any error other than a conflict it is open whether the commit took place: the maker
//! refreshes the table and looks at its own transaction before it repeats anything.

use std::collections::BTreeMap;

use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, PROTOCOL, TransactionError};
use deltalake_core::kernel::{Action, MetadataExt, StructType, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use serde_json::Value;

use crate::log::damage;
use crate::states::Handle;
use crate::{DataFile, LakeError, Table, TableName, schema};

/// How a table is made: what statistics are kept of, and how long what was removed stays.
pub(crate) fn create_properties(table: TableName) -> [(String, Option<String>); 4] {
    [
        ("delta.dataSkippingStatsColumns", table.sort_columns().join(",")),
        ("delta.logRetentionDuration", "interval 1 days".to_owned()),
        ("delta.deletedFileRetentionDuration", "interval 1 days".to_owned()),
        ("delta.checkpointInterval", COMMITS_PER_CHECKPOINT.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), Some(value)))
}

/// How many commits there are between two checkpoints.
const COMMITS_PER_CHECKPOINT: u32 = 50;

/// delta-rs's handle grows slower with each commit; a new one starts from a checkpoint.
const COMMITS_PER_HANDLE: u32 = COMMITS_PER_CHECKPOINT;

/// How often delta-rs may rebase a commit that only adds.
const REBASES_MAX: usize = 15;

/// A commit that only adds files older than this is not rebased: it looks at what was committed meanwhile itself.
const REBASED_US: i64 = 10 * 60 * 1_000_000;

/// The transaction that says before when vacuum may have taken what was not committed, in milliseconds since 1970.
const CUT_OFF: &str = "vacuum";

/// The key under which a commit says what it was for.
const OPERATION_KEY: &str = "tjern.operation";

/// What a commit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// New readings.
    Ingest,
    /// The same rows in fewer files.
    Compact,
    /// Windows of a rollup.
    Rollup,
    /// Rows of the register.
    Register,
    /// The same readings with other flags.
    Quality,
    /// Readings that were kept long enough leave.
    Retention,
    /// Readings of a higher revision.
    Correct,
    /// The same readings with a person's word on them.
    Validate,
    /// No rows: how old a file must be that vacuum may take.
    Vacuum,
    /// Readings leave for good.
    Erase,
}

impl Operation {
    /// The word that stands in the log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Compact => "compact",
            Self::Rollup => "rollup",
            Self::Register => "register",
            Self::Quality => "quality",
            Self::Retention => "retention",
            Self::Correct => "correct",
            Self::Validate => "validate",
            Self::Vacuum => "vacuum",
            Self::Erase => "erase",
        }
    }
}

/// A commit to be made.
#[derive(Debug, Clone)]
pub struct Commit {
    /// What it is for.
    pub operation: Operation,
    /// The files that it adds; they are written already.
    pub add: Vec<DataFile>,
    /// The files that it removes; they belong to the version that the table is pinned at.
    pub remove: Vec<DataFile>,
    /// The applications whose last number it moves.
    pub transactions: Vec<(String, i64)>,
    /// What else stands in the log beside it.
    pub notes: BTreeMap<String, Value>,
}

/// Why a commit was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Somebody else committed meanwhile. Refresh, look again, decide again.
    #[error("table `{table}` moved on while a commit was prepared on version {version}")]
    Conflict {
        /// Which table.
        table: TableName,
        /// The version that the commit was built on.
        version: i64,
    },
    /// A file was written so long ago that vacuum may have taken it. Nothing was committed: it has to be written again.
    #[error(
        "a file of table `{table}` was written so long before its commit that vacuum may have taken it: `{path}`; nothing was committed; hint: the next run writes it again; `[vacuum] retention` says how long that takes"
    )]
    Stale {
        /// Which table.
        table: TableName,
        /// Which file, in the table's folder.
        path: String,
    },
    /// Another program gave the table what keeps others from writing, or from removing. Nothing was committed, and nothing will be
    /// until that is taken back.
    #[error(transparent)]
    Restricted(Box<LakeError>),
    /// Something failed; the commit may have taken place all the same.
    #[error(transparent)]
    Failed(#[from] LakeError),
}

impl Table {
    /// Makes a commit on the version that the table is pinned at. Returns the new version, to which
    /// the table has moved on.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] if the commit was refused, [`CommitError::Stale`] if vacuum may have taken one of its
    /// files, [`CommitError::Restricted`] if another program locked the table, [`CommitError::Failed`] if it is open whether it
    /// took place.
    ///
    /// # Panics
    /// If a removed file does not belong to the pinned version: its maker read something else.
    pub async fn commit(&mut self, commit: Commit) -> Result<i64, CommitError> {
        for file in &commit.remove {
            assert!(self.is_active(file), "a commit removes files of the version that it was built on");
        }
        let table = self.name();
        let version = self.version();
        if let Some(file) = commit.add.iter().find(|file| Some(file.modified_ms) < self.cut_off_ms()) {
            return Err(CommitError::Stale { table, path: file.path.clone() });
        }
        if (version + 2) % i64::from(COMMITS_PER_CHECKPOINT) == 0 {
            // Delta makes a checkpoint with this one.
            damage::refuse_emptied(&self.lake, table).await?;
        }
        let handle = self.handle_at_version().await?;
        let now_us = self.lake.clock().now_us();
        let delta = &handle.delta;
        let snapshot = delta.snapshot().map_err(|source| failed(table, source))?;
        let prepared = properties(&commit, self.transaction(&fence(table)), table, now_us);
        let mut actions = actions(&commit, table, now_us / 1_000);
        if !commit.add.is_empty() {
            actions.extend(widened(table, snapshot).map_err(|source| failed(table, source))?);
        }
        let committed = CommitBuilder::from(prepared)
            .with_actions(actions)
            .build(Some(snapshot), delta.log_store(), delta_operation(&commit))
            .await;
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) if is_conflict(&error) => return Err(CommitError::Conflict { table, version }),
            Err(DeltaTableError::Transaction { source }) if restriction(table, &source).is_some() => {
                let restricted = restriction(table, &source).map(|error| CommitError::Restricted(Box::new(error)));
                return Err(restricted.unwrap_or_else(|| failed(table, source.into())));
            }
            Err(error) => return Err(self.told(error).await),
        };
        self.lake.keep_handle(table, handle);
        self.reach(i64::try_from(committed.version()).unwrap_or(i64::MAX)).await?;
        Ok(self.version())
    }

    /// Says in the log that vacuum may take what was written before this moment and is not committed.
    ///
    /// # Errors
    /// As [`Table::commit`]; nothing may be taken then.
    pub async fn cut_off(&mut self, before_us: i64) -> Result<(), CommitError> {
        let before_ms = self.cut_off_ms().map_or(before_us / 1_000, |known_ms| known_ms.max(before_us / 1_000));
        let transactions = vec![(CUT_OFF.to_owned(), before_ms)];
        let (operation, add, remove, notes) = (Operation::Vacuum, Vec::new(), Vec::new(), BTreeMap::new());
        self.commit(Commit { operation, add, remove, transactions, notes }).await.map(drop)
    }

    /// What vacuum said last. A moment that has not come yet is the word of a clock that was ahead, and counts for nothing: it would
    /// refuse every file that anybody writes until then.
    fn cut_off_ms(&self) -> Option<i64> {
        let now_ms = self.lake.clock().now_us() / 1_000;
        self.transaction(CUT_OFF).filter(|before_ms| *before_ms <= now_ms)
    }

    /// What another program gave the table that keeps commits from it, or removals: one that only adds may go on for years while all
    /// that rewrite files fail.
    ///
    /// # Errors
    /// [`LakeError::Restricted`]; [`LakeError`] where it cannot be found out.
    pub async fn refuse_restrictions(&self) -> Result<(), LakeError> {
        let table = self.name();
        let handle = self.handle_at_version().await.map_err(lake_error)?;
        let snapshot =
            handle.delta.snapshot().map_err(|source| LakeError::Delta { table, source: Box::new(source) })?;
        let known = snapshot.snapshot();
        let looked = PROTOCOL.can_write_to(known).and_then(|()| PROTOCOL.check_append_only(known));
        let restricted = looked.err().and_then(|source| restriction(table, &source));
        self.lake.keep_handle(table, handle);
        restricted.map_or(Ok(()), Err)
    }

    /// Writes a checkpoint of the version that the table is pinned at.
    ///
    /// # Errors
    /// [`LakeError::Delta`]; without it more of the log is read, and nothing is wrong. [`LakeError::Log`] where a commit was
    /// emptied.
    pub async fn write_checkpoint(&mut self) -> Result<(), LakeError> {
        let table = self.name();
        damage::refuse_emptied(&self.lake, table).await?;
        let handle = self.handle_at_version().await.map_err(lake_error)?;
        let written = deltalake_core::checkpoints::create_checkpoint(&handle.delta, None).await;
        written.map_err(|source| LakeError::Delta { table, source: Box::new(source) })
    }

    /// Why Delta failed: where it is a log that it cannot read, what to do about that.
    async fn told(&self, source: DeltaTableError) -> CommitError {
        match damage::refuse_what_delta_cannot_read(&self.lake, self.name()).await {
            Err(error @ LakeError::Log { .. }) => CommitError::Failed(error),
            _ => failed(self.name(), source),
        }
    }

    async fn handle_at_version(&self) -> Result<Handle, CommitError> {
        let table = self.name();
        let version = u64::try_from(self.version()).unwrap_or_default();
        let known = self.lake.take_handle(table).filter(|handle| handle.commits < COMMITS_PER_HANDLE);
        if let Some(mut handle) = known {
            // Where the commits between were removed it cannot be carried forward, and begins anew.
            if handle.delta.load_version(version).await.is_ok() {
                handle.commits += 1;
                return Ok(handle);
            }
        }
        let mut handle = Handle { delta: DeltaTable::new(self.lake.log_store(table)?), commits: 1 };
        if let Err(source) = handle.delta.load_version(version).await {
            return Err(self.told(source).await);
        }
        Ok(handle)
    }
}

/// The fence transaction of a table: every commit that removes files moves it.
fn fence(table: TableName) -> String {
    format!("fence/{table}")
}

fn properties(commit: &Commit, fenced: Option<i64>, table: TableName, now_us: i64) -> CommitProperties {
    let mut transactions: Vec<_> =
        commit.transactions.iter().map(|(app_id, number)| Transaction::new(app_id, *number)).collect();
    let removes = !commit.remove.is_empty();
    if removes {
        transactions.push(Transaction::new(fence(table), fenced.unwrap_or(0) + 1));
    }
    let is_old = |file: &DataFile| now_us.saturating_sub(file.modified_ms.saturating_mul(1_000)) > REBASED_US;
    let is_rebased = !removes && !commit.add.iter().any(is_old);
    let operation = (OPERATION_KEY.to_owned(), Value::from(commit.operation.word()));
    CommitProperties::default()
        .with_application_transactions(transactions)
        .with_max_retries(if is_rebased { REBASES_MAX } else { 0 })
        // Cleaning lists the whole log: a job's work and not every commit's.
        .with_cleanup_expired_logs(Some(false))
        .with_metadata(commit.notes.clone().into_iter().chain([operation]))
}

fn actions(commit: &Commit, table: TableName, now_ms: i64) -> Vec<Action> {
    let removes = commit.remove.iter().map(|file| Action::Remove(file.to_remove(now_ms)));
    let adds = commit.add.iter().map(|file| Action::Add(file.to_add(table.sort_columns())));
    removes.chain(adds).collect()
}

/// The table's columns with those that it was made without, where there are any: its files have them from now on.
fn widened(table: TableName, known: &DeltaTableState) -> Result<Option<Action>, DeltaTableError> {
    let there = known.schema();
    let mut missing = schema::delta(table);
    missing.retain(|column| there.field(column.name()).is_none());
    if missing.is_empty() {
        return Ok(None);
    }
    let columns = StructType::try_new(there.fields().cloned().chain(missing))?;
    Ok(Some(Action::Metadata(known.metadata().clone().with_schema(&columns)?)))
}

/// What Delta itself calls it, for readers of the history.
fn delta_operation(commit: &Commit) -> DeltaOperation {
    match commit.operation {
        Operation::Compact => DeltaOperation::Optimize { predicate: None, target_size: 0 },
        Operation::Quality | Operation::Validate => DeltaOperation::Update { predicate: None },
        Operation::Retention | Operation::Erase => DeltaOperation::Delete { predicate: None },
        Operation::Vacuum => DeltaOperation::VacuumStart {
            retention_check_enabled: true,
            specified_retention_millis: None,
            default_retention_millis: 24 * 3_600 * 1_000,
        },
        Operation::Ingest | Operation::Rollup | Operation::Register | Operation::Correct => {
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None }
        }
    }
}

fn is_conflict(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
            }
    )
}

/// What keeps others from writing, where that is what Delta says.
fn restriction(table: TableName, source: &TransactionError) -> Option<LakeError> {
    let what = match source {
        TransactionError::UnsupportedTableFeatures(features) => {
            let mut names: Vec<_> = features.iter().map(ToString::to_string).collect();
            names.sort();
            format!("features that this software does not write by ({})", names.join(", "))
        }
        TransactionError::DeltaTableAppendOnly => {
            "the property `delta.appendOnly`, so that no file may be replaced".to_owned()
        }
        _ => return None,
    };
    Some(LakeError::Restricted { table, what })
}

/// Of a handle that was asked for: nothing is committed by that.
fn lake_error(error: CommitError) -> LakeError {
    match error {
        CommitError::Failed(error) => error,
        CommitError::Restricted(error) => *error,
        CommitError::Conflict { .. } | CommitError::Stale { .. } => unreachable!("nothing is committed"),
    }
}

fn failed(table: TableName, source: DeltaTableError) -> CommitError {
    CommitError::Failed(LakeError::Delta { table, source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStore;
    use object_store::path::Path;
    use tjern_readings::store::Store;

    use super::*;
    use crate::Lake;

    /// A process that commits for months: delta-rs's handle grows with each commit, and each was slower than the one before.
    #[tokio::test]
    async fn a_handle_that_has_made_its_commits_is_renewed() {
        let lake = Lake::over(Store::open(&"memory:///".parse().expect("a lake")).expect("opened"));
        let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
        let (first, last) = (1, 2 * i64::from(COMMITS_PER_HANDLE) + 5);
        let mut ages = Vec::new();
        for number in first..=last {
            let transactions = vec![("ingest".to_owned(), number)];
            let (add, remove, notes) = (Vec::new(), Vec::new(), BTreeMap::new());
            let commit = Commit { operation: Operation::Ingest, add, remove, transactions, notes };
            let before = table.version();
            assert_eq!(table.commit(commit).await.expect("committed"), before + 1);
            let handle = lake.take_handle(TableName::Readings).expect("it is kept for the next commit");
            ages.push(i64::from(handle.commits));
            lake.keep_handle(TableName::Readings, handle);
        }
        let wanted: Vec<_> = (first..=last).map(|number| (number - 1) % i64::from(COMMITS_PER_HANDLE) + 1).collect();
        assert_eq!(ages, wanted, "renewed after each {COMMITS_PER_HANDLE}th commit, and not before");
        assert_eq!(Table::damage_of_log(&lake, TableName::Readings).await.expect("read"), []);
        assert_eq!(table.transaction("ingest"), Some(last), "none was lost, none was made twice");
        // What the new one begins from.
        let log = Path::from("tables/readings/_delta_log");
        let metas: Vec<_> = lake.objects().list(Some(&log)).try_collect().await.expect("listed");
        let checkpoints = metas.iter().filter(|meta| meta.location.as_ref().ends_with(".checkpoint.parquet")).count();
        assert!(checkpoints >= 2, "{checkpoints}");
    }
}
