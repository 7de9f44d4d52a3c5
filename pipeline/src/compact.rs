//! Compaction: many small files become few big ones, sorted by `(sensor, time)` and not overlapping.
//!
//! **It never changes the multiset of rows**: their count and the sum of their hashes are reckoned
//! from the files that are read and from the rows that are written, and a difference stops the job
//! before anything is committed. The commit removes the old files and adds the new ones on the
//! snapshot that was read, under the table's fence; if somebody committed meanwhile, it is tried
//! again only while every file that was read is still there.
//!
//! One process compacts at a time (a lease); the fence, not the lease, keeps the data right.

mod windows;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::Array;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::DataFusionError;
use datafusion::prelude::{DataFrame, col, lit};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use tjern_lake::{
    Commit, CommitError, DataFile, FileWriter, Lake, LakeError, Lease, Operation, Table, TableName, schema,
};
use tokio_util::sync::CancellationToken;

use crate::tables::{ATTEMPTS_MAX, conform, engine};
use windows::{Merge, Window};

/// A file that reaches this size is finished, and the next one begun.
pub const FILE_BYTES_MAX: u64 = 128 << 20;

/// The lease's name.
const JOB: &str = "compact";

/// How long a lease is held by a process that was killed at it.
pub const LEASE: Duration = Duration::from_secs(5 * 60);

/// What a run of compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactOutcome {
    /// Files that were merged away.
    pub removed: usize,
    /// Files that took their place.
    pub added: usize,
    /// Whether another process holds the lease.
    pub held_elsewhere: bool,
}

/// Why compaction stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The engine failed while it read or sorted.
    #[error("cannot sort the readings: {0}")]
    Engine(#[from] DataFusionError),
    /// What was written is not what was read. Nothing was committed.
    #[error(
        "compaction read {read} rows and wrote {written}, or changed one: nothing was committed; hint: run it again, and report it with the log"
    )]
    Changed {
        /// Rows read.
        read: i64,
        /// Rows written.
        written: i64,
    },
    /// The commit failed for another reason than somebody else's.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Merges what is worth merging in `readings`, until it is done or told to stop: then the merge under
/// way is dropped, which leaves the table as it was.
///
/// # Errors
/// [`CompactError`]; the table is then as it was.
pub async fn compact(lake: &Lake, stop: &CancellationToken) -> Result<CompactOutcome, CompactError> {
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else {
        return Ok(CompactOutcome::default());
    };
    let merges = windows::plan(&table.files(), FILE_BYTES_MAX, lake.clock().now_us());
    if merges.is_empty() {
        return Ok(CompactOutcome::default());
    }
    let Some(lease) = Lease::take(lake, JOB, LEASE).await? else {
        return Ok(CompactOutcome { held_elsewhere: true, ..CompactOutcome::default() });
    };
    let result = stop.run_until_cancelled(merge_all(&mut table, merges)).await;
    lease.give_back().await?;
    result.unwrap_or_else(|| Ok(CompactOutcome::default()))
}

async fn merge_all(table: &mut Table, merges: Vec<Merge>) -> Result<CompactOutcome, CompactError> {
    let mut outcome = CompactOutcome::default();
    for merge in merges {
        if !merge.files.iter().all(|file| table.is_active(file)) {
            continue;
        }
        let written = rewrite(table, &merge).await?;
        let (removed, added) = (merge.files.len(), written.len());
        if replace(table, merge.files, written).await? {
            outcome.removed += removed;
            outcome.added += added;
        }
    }
    Ok(outcome)
}

/// Commits the new files in place of the old ones. Returns whether the old ones were all still there.
async fn replace(table: &mut Table, old: Vec<DataFile>, new: Vec<DataFile>) -> Result<bool, CompactError> {
    for _ in 0..ATTEMPTS_MAX {
        let commit = Commit {
            operation: Operation::Compact,
            add: new.clone(),
            remove: old.clone(),
            transactions: Vec::new(),
            notes: BTreeMap::new(),
        };
        match table.commit(commit).await {
            Ok(_) => return Ok(true),
            Err(CommitError::Conflict { .. }) => {
                table.refresh().await?;
                if !old.iter().all(|file| table.is_active(file)) {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Others commit faster than we do: their files are small, ours will be merged another time.
    Ok(false)
}

/// Writes the rows of a merge's files anew, sorted, a window at a time.
async fn rewrite(table: &Table, merge: &Merge) -> Result<Vec<DataFile>, CompactError> {
    let context = engine(table.lake())?;
    let rows = || context.read_table(table.provider_of(merge.files.clone()));
    let read = Multiset::of(rows()?).await?;
    let mut written = Multiset::default();
    let mut files = Vec::new();
    for window in &merge.windows {
        let sorted = in_window(rows()?, *window)?
            .sort(["sensor", "time", "revision", "received", "seq"].map(|name| col(name).sort(true, true)).to_vec())?;
        write_sorted(table, sorted, &mut written, &mut files).await?;
    }
    if read != written {
        return Err(CompactError::Changed { read: read.rows, written: written.rows });
    }
    Ok(files)
}

fn in_window(rows: DataFrame, window: Window) -> Result<DataFrame, DataFusionError> {
    let at = |time_us| lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())));
    rows.filter(col("time").gt_eq(at(window.from_us)).and(col("time").lt(at(window.to_us))))
}

async fn write_sorted(
    table: &Table,
    sorted: DataFrame,
    written: &mut Multiset,
    files: &mut Vec<DataFile>,
) -> Result<(), CompactError> {
    let wanted = schema::arrow(TableName::Readings);
    let mut batches = sorted.execute_stream().await?;
    let mut writer: Option<FileWriter> = None;
    while let Some(batch) = batches.next().await {
        let batch = conform(&batch?, &wanted).map_err(|error| DataFusionError::ArrowError(Box::new(error), None))?;
        if batch.num_rows() == 0 {
            continue;
        }
        written.add(batch.columns())?;
        let mut open = match writer.take() {
            Some(open) => open,
            None => FileWriter::sealed(TableName::Readings)?,
        };
        open.write(&batch)?;
        if u64::try_from(open.bytes()).unwrap_or(u64::MAX) >= FILE_BYTES_MAX {
            files.push(open.finish(table.lake()).await?);
        } else {
            writer = Some(open);
        }
    }
    if let Some(open) = writer {
        files.push(open.finish(table.lake()).await?);
    }
    Ok(())
}

/// Rows without their order: how many, and the sum of their hashes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Multiset {
    rows: i64,
    hashes: u64,
}

impl Multiset {
    async fn of(rows: DataFrame) -> Result<Self, CompactError> {
        let wanted = schema::arrow(TableName::Readings);
        let mut batches = rows.execute_stream().await?;
        let mut multiset = Self::default();
        while let Some(batch) = batches.next().await {
            let batch =
                conform(&batch?, &wanted).map_err(|error| DataFusionError::ArrowError(Box::new(error), None))?;
            multiset.add(batch.columns())?;
        }
        Ok(multiset)
    }

    fn add(&mut self, columns: &[arrow::array::ArrayRef]) -> Result<(), DataFusionError> {
        let rows = columns.first().map_or(0, |column| column.len());
        let mut hashes = vec![0; rows];
        create_hashes(columns, &RandomState::default(), &mut hashes)?;
        self.rows += i64::try_from(rows).unwrap_or(i64::MAX);
        self.hashes = hashes.into_iter().fold(self.hashes, u64::wrapping_add);
        Ok(())
    }
}
