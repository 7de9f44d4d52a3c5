//! Compaction: many small files become few big ones, sorted by `(sensor, time)` and not overlapping.
//!
//! **It never changes the multiset of rows**: their count and the sum of their hashes are reckoned
//! from the files that are read and from the new files, which are read back for it ([`mod@rewrite`]), and a difference stops the
//! job before anything is committed. The commit removes the old files and adds the new ones on the
//! snapshot that was read, under the table's fence; if somebody committed meanwhile, it is tried
//! again only while every file that was read is still there.
//!
//! **Memory is bounded** by [`CompactSettings::memory_bytes`], whatever there is to merge: half of it is for rows that
//! are gathered and sorted ([`sort`]), what is more goes to disk, and files are cut so that one under way takes a
//! quarter. Beside that come the distinct texts, the footers, and a row group of one file.
//!
//! **Threads** ([`CompactSettings::threads`]) share the work ([`mod@rewrite`]) and take no more memory together than one. The files
//! are the same to the byte whatever their number.
//!
//! One process compacts at a time (a lease, short and renewed); the fence, not the lease, keeps the data right.

mod gathered;
mod merge;
mod multiset;
mod rewrite;
mod run;
mod sort;
mod spill;
mod texts;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use tjern_lake::{Commit, CommitError, DataFile, Held, Lake, LakeError, Lease, Operation, Table, TableName};
use tokio_util::sync::CancellationToken;

use crate::tables::{ATTEMPTS_MAX, let_go};
use rewrite::{Rewritten, rewrite};
use windows::Merge;

pub(crate) use multiset::Multiset;

/// The lease's name.
pub const JOB: &str = "compact";

/// How long a process that was killed at it keeps others from compacting. While one is at work it renews its lease.
pub const LEASE: Duration = Duration::from_secs(60);

/// What compaction may take, and what it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactSettings {
    /// The memory that it may take, in bytes.
    pub memory_bytes: u64,
    /// The size of the files that it makes, in bytes; a quarter of the memory where that is less.
    pub target_bytes: u64,
    /// The folder for rows that do not fit into memory: a disk, and not a file system in memory.
    pub spill_folder: PathBuf,
    /// Threads that encode, the caller's among them; from two on, as many sort and write to the disk while others read.
    pub threads: usize,
}

/// A file's columns keep no more threads than this busy.
const THREADS_MAX: usize = 4;

/// As many threads as this process may use cores, but no more than have something to do.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX)
}

impl Default for CompactSettings {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            target_bytes: 128 << 20,
            spill_folder: std::env::temp_dir(),
            threads: threads(),
        }
    }
}

impl CompactSettings {
    /// A file that reaches this size is finished, and the next one begun.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.target_bytes.min(self.memory_bytes / 4)
    }
}

/// What a run of compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactOutcome {
    /// Files that were merged away.
    pub removed: usize,
    /// Files that took their place.
    pub added: usize,
    /// Rows that were written anew.
    pub rows: i64,
    /// Sorted runs that did not fit into memory and went to disk.
    pub spilled_runs: u64,
    /// Their bytes.
    pub spilled_bytes: u64,
    /// Whether another process holds the lease.
    pub held_elsewhere: bool,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The merge under way, from 1.
    pub merge: usize,
    /// How many there are.
    pub merges: usize,
    /// Bytes that were read, and bytes whose rows were written, of all merges.
    pub done: u64,
    /// What that comes to in the end.
    pub total: u64,
}

/// Whoever wants to know how far a run is; called often.
pub type Watcher<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// Why compaction stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Rows that do not fit into memory could not be written to disk. Nothing was committed.
    #[error(
        "compaction cannot write rows that do not fit into its memory to `{folder}`: {source}; hint: `[compact] spill` names a folder on a disk with room for the rows, `[compact] memory` how much is kept in memory"
    )]
    Spill {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The rows could not be sorted. Nothing was committed.
    #[error("cannot sort the readings: {0}")]
    Sort(String),
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
    /// What was written is not in order. Nothing was committed.
    #[error(
        "compaction wrote `{path}`, and its rows are not in the order of sensor and time: nothing was committed; hint: run it again, and report it with the log"
    )]
    Unsorted {
        /// Which file.
        path: String,
    },
    /// The commit failed for another reason than somebody else's.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A part of a merge's work that was done.
#[derive(Debug, Clone, Copy)]
enum Step {
    Read { bytes: u64 },
    Written { rows: u64 },
}

/// How old a look may be by which a run finds out whether there is anything to merge: what this process commits is known at once, and
/// what others do can wait. It looks anew once it has the lease.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// Merges what is worth merging in `readings`, until it is done or told to stop: then the merge under
/// way is dropped, which leaves the table as it was.
///
/// # Errors
/// [`CompactError`]; the merge under way has then changed nothing.
pub async fn compact(
    lake: &Lake,
    settings: &CompactSettings,
    stop: &CancellationToken,
    watcher: Watcher<'_>,
) -> Result<CompactOutcome, CompactError> {
    let Some(mut table) = Table::open_within(lake, TableName::Readings, LOOK).await? else {
        return Ok(CompactOutcome::default());
    };
    if planned(&table, settings, &BTreeSet::new()).is_empty() {
        return Ok(CompactOutcome::default());
    }
    let Some(lease) = Lease::take(lake, JOB, LEASE).await? else {
        return Ok(CompactOutcome { held_elsewhere: true, ..CompactOutcome::default() });
    };
    let lease = lease.keep();
    let mut outcome = CompactOutcome::default();
    let held = lease.held();
    let merging = merge_all(&mut table, settings, &held, watcher, &mut outcome);
    let result = stop.run_until_cancelled(merging).await;
    lease.give_back().await?;
    result.unwrap_or(Ok(())).map(|()| outcome)
}

/// What is worth merging, without damaged files.
fn planned(table: &Table, settings: &CompactSettings, damaged: &BTreeSet<String>) -> Vec<Merge> {
    let mut files = table.files();
    files.retain(|file| !damaged.contains(&file.path));
    windows::plan(&files, settings.file_bytes(), table.lake().clock().now_us())
}

/// How many merges are worth their work now, and the bytes of their files.
#[must_use]
pub fn backlog(table: &Table, settings: &CompactSettings) -> (usize, u64) {
    let merges = planned(table, settings, &BTreeSet::new());
    (merges.len(), merges.iter().map(Merge::bytes).sum())
}

/// The start of the oldest window whose files are not as few, sorted and apart as they will be, in microseconds.
#[must_use]
pub fn oldest_unsealed_us(table: &Table, settings: &CompactSettings) -> Option<i64> {
    windows::oldest_unsealed_us(&table.files(), settings.file_bytes(), table.lake().clock().now_us())
}

/// A damaged file stays as it is, and all others are merged as if it were not there; then it is an error that names it.
async fn merge_all(
    table: &mut Table,
    settings: &CompactSettings,
    held: &Held,
    watcher: Watcher<'_>,
    outcome: &mut CompactOutcome,
) -> Result<(), CompactError> {
    let (mut damaged, mut first) = (BTreeSet::new(), None::<LakeError>);
    loop {
        let merged = merge_sound(table, settings, held, &damaged, watcher, outcome).await;
        match merged {
            Ok(()) => return first.map_or(Ok(()), |error| Err(error.into())),
            Err(CompactError::Lake(error)) if error.damaged_file().is_some_and(|path| !damaged.contains(path)) => {
                damaged.extend(error.damaged_file().map(str::to_owned));
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn merge_sound(
    table: &mut Table,
    settings: &CompactSettings,
    held: &Held,
    damaged: &BTreeSet<String>,
    watcher: Watcher<'_>,
    outcome: &mut CompactOutcome,
) -> Result<(), CompactError> {
    // Others may have committed while the lease was waited for.
    table.refresh().await?;
    let mut merges = planned(table, settings, damaged);
    if merges.iter().any(Merge::reaches_over_a_border) {
        // What is cut is merged with what lies in its windows by the same run.
        merges.retain(Merge::reaches_over_a_border);
        merge_each(table, merges, settings, held, watcher, outcome).await?;
        if outcome.held_elsewhere {
            return Ok(());
        }
        table.refresh().await?;
        merges = planned(table, settings, damaged);
        merges.retain(|merge| !merge.reaches_over_a_border());
    }
    merge_each(table, merges, settings, held, watcher, outcome).await
}

async fn merge_each(
    table: &mut Table,
    merges: Vec<Merge>,
    settings: &CompactSettings,
    held: &Held,
    watcher: Watcher<'_>,
    outcome: &mut CompactOutcome,
) -> Result<(), CompactError> {
    let count = merges.len();
    let total = merges.iter().map(|merge| 2 * merge.bytes()).sum();
    let mut before = 0;
    for (index, merge) in merges.into_iter().enumerate() {
        let (bytes, rows) = (merge.bytes(), merge.rows().max(1));
        let (mut read, mut written) = (0, 0);
        let mut told = |step| {
            match step {
                Step::Read { bytes } => read += bytes,
                Step::Written { rows } => written += rows,
            }
            let share = u128::from(bytes) * u128::from(written.min(rows)) / u128::from(rows);
            let done = before + read + u64::try_from(share).unwrap_or(0);
            watcher(Progress { merge: index + 1, merges: count, done, total });
        };
        if merge.files.iter().all(|file| table.is_active(file)) {
            let Rewritten { files, rows, cost } = rewrite(table, &merge, settings, &mut told).await?;
            outcome.spilled_runs += cost.runs;
            outcome.spilled_bytes += cost.bytes;
            if !held.is_held() {
                // It ran out, and whoever has it by now may have looked for what was to be erased.
                let_go(table.lake(), table.name(), &files).await;
                outcome.held_elsewhere = true;
                return Ok(());
            }
            let (removed, added) = (merge.files.len(), files.len());
            if replace(table, merge.files, files).await? {
                outcome.removed += removed;
                outcome.added += added;
                outcome.rows += rows;
            }
        }
        before += 2 * bytes;
    }
    Ok(())
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
