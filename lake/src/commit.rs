//! The one module that commits to a Delta log.
//!
//! Two rules stand above all. A commit that removes files is made on the snapshot whose files were
//! read, is never rebased (delta-rs overlooks some concurrent removals when it rebases), and carries
//! the table's fence transaction: if anything was committed meanwhile it is refused, and its maker
//! looks again. A commit that only adds may be rebased by delta-rs, whose conflict checks then
//! refuse it if one of its transactions was moved by somebody else.
//!
//! After any error other than a conflict it is open whether the commit took place: the maker
//! refreshes the table and looks at its own transaction before it repeats anything.

use std::collections::BTreeMap;

use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use serde_json::Value;

use crate::states::Handle;
use crate::{DataFile, LakeError, Table, TableName};

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
    /// Something failed; the commit may have taken place all the same.
    #[error(transparent)]
    Failed(#[from] LakeError),
}

impl Table {
    /// Makes a commit on the version that the table is pinned at. Returns the new version, to which
    /// the table has moved on.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] if the commit was refused, [`CommitError::Failed`] if that is open.
    ///
    /// # Panics
    /// If a removed file does not belong to the pinned version: its maker read something else.
    pub async fn commit(&mut self, commit: Commit) -> Result<i64, CommitError> {
        for file in &commit.remove {
            assert!(self.is_active(file), "a commit removes files of the version that it was built on");
        }
        let table = self.name();
        let version = self.version();
        let handle = self.handle_at_version().await?;
        let delta = &handle.delta;
        let snapshot = delta.snapshot().map_err(|source| failed(table, source))?;
        let prepared = properties(&commit, self.transaction(&fence(table)), table);
        let committed = CommitBuilder::from(prepared)
            .with_actions(actions(&commit, table, self.lake.clock().now_us() / 1_000))
            .build(Some(snapshot), delta.log_store(), delta_operation(&commit))
            .await;
        if let Err(error) = committed {
            return Err(if is_conflict(&error) {
                CommitError::Conflict { table, version }
            } else {
                failed(table, error)
            });
        }
        self.lake.keep_handle(table, handle);
        self.refresh().await?;
        Ok(self.version())
    }

    /// Writes a checkpoint of the version that the table is pinned at.
    ///
    /// # Errors
    /// [`LakeError::Delta`]; without it more of the log is read, and nothing is wrong.
    pub async fn write_checkpoint(&mut self) -> Result<(), LakeError> {
        let table = self.name();
        let handle = self.handle_at_version().await.map_err(|error| match error {
            CommitError::Failed(error) => error,
            CommitError::Conflict { .. } => unreachable!("nothing is committed"),
        })?;
        let written = deltalake_core::checkpoints::create_checkpoint(&handle.delta, None).await;
        written.map_err(|source| LakeError::Delta { table, source: Box::new(source) })
    }

    async fn handle_at_version(&self) -> Result<Handle, CommitError> {
        let table = self.name();
        let version = u64::try_from(self.version()).unwrap_or_default();
        let known = self.lake.take_handle(table).filter(|handle| handle.commits < COMMITS_PER_HANDLE);
        let mut handle = match known {
            Some(handle) => handle,
            None => Handle { delta: DeltaTable::new(self.lake.log_store(table)?), commits: 0 },
        };
        handle.delta.load_version(version).await.map_err(|source| failed(table, source))?;
        handle.commits += 1;
        Ok(handle)
    }
}

/// The fence transaction of a table: every commit that removes files moves it.
fn fence(table: TableName) -> String {
    format!("fence/{table}")
}

fn properties(commit: &Commit, fenced: Option<i64>, table: TableName) -> CommitProperties {
    let mut transactions: Vec<_> =
        commit.transactions.iter().map(|(app_id, number)| Transaction::new(app_id, *number)).collect();
    let removes = !commit.remove.is_empty();
    if removes {
        transactions.push(Transaction::new(fence(table), fenced.unwrap_or(0) + 1));
    }
    let operation = (OPERATION_KEY.to_owned(), Value::from(commit.operation.word()));
    CommitProperties::default()
        .with_application_transactions(transactions)
        .with_max_retries(if removes { 0 } else { REBASES_MAX })
        // Cleaning lists the whole log: a job's work and not every commit's.
        .with_cleanup_expired_logs(Some(false))
        .with_metadata(commit.notes.clone().into_iter().chain([operation]))
}

fn actions(commit: &Commit, table: TableName, now_ms: i64) -> Vec<Action> {
    let removes = commit.remove.iter().map(|file| Action::Remove(file.to_remove(now_ms)));
    let adds = commit.add.iter().map(|file| Action::Add(file.to_add(table.sort_columns())));
    removes.chain(adds).collect()
}

/// What Delta itself calls it, for readers of the history.
fn delta_operation(commit: &Commit) -> DeltaOperation {
    match commit.operation {
        Operation::Compact => DeltaOperation::Optimize { predicate: None, target_size: 0 },
        Operation::Quality => DeltaOperation::Update { predicate: None },
        Operation::Retention | Operation::Erase => DeltaOperation::Delete { predicate: None },
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

fn failed(table: TableName, source: DeltaTableError) -> CommitError {
    CommitError::Failed(LakeError::Delta { table, source: Box::new(source) })
}
