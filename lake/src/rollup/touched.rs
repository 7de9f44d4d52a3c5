//! What commits of `readings` touched: which moments of which sensors another version has other rows of.
//!
//! | a commit of | touched |
//! |---|---|
//! | compaction | nothing: the rows are the same |
//! | retention | nothing: what was summed up stays |
//! | validation | nothing: it changes levels, and hours and days have none |
//! | anything with a note ([`TOUCHED_NOTE`](super::spans::TOUCHED_NOTE)) | what the note says: quality control's rewritten files, erasure |
//! | anything else | the rows of the files that it added and, but for quality control, of those that it removed |
//!
//! A commit never changes, so what it touched is kept in memory, for [`KEPT_COMMITS`] commits. Where a commit was
//! cleaned away, or vacuum was faster than we at a file, it cannot be told what was touched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use futures::{StreamExt, TryStreamExt};

use super::spans::Spans;
use crate::log::{CommitEntries, Tip, commits_listed, read_commit};
use crate::{DataFile, FileReader, Lake, LakeError, Operation, TableName};

/// So many commits are looked at together.
const LOOKED_AT_ONCE: usize = 8;

/// What so many commits touched is kept.
pub const KEPT_COMMITS: usize = 4_096;
/// And no more spans than this.
const KEPT_SPANS: usize = 1 << 20;

/// So many rows are decoded at once.
const BATCH_ROWS: usize = 8_192;

/// What commits touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// By new, corrected and judged readings.
    pub spans: Spans,
    /// By erasure.
    pub erased: Spans,
}

impl Touched {
    fn spans_count(&self) -> usize {
        self.spans.count() + self.erased.count()
    }
}

/// What commits touched, by version.
#[derive(Debug, Default)]
pub(crate) struct KnownTouched(Mutex<BTreeMap<i64, (Tip, Known)>>);

/// None: it cannot be told.
type Known = Option<Arc<Touched>>;

impl KnownTouched {
    fn get(&self, version: i64, tip: Tip) -> Option<Known> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&version).filter(|(of, _)| *of == tip).map(|(_, touched)| touched.clone())
    }

    fn keep(&self, version: i64, tip: Tip, touched: Known) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(version, (tip, touched));
        let spans = |known: &BTreeMap<i64, (Tip, Known)>| -> usize {
            known.values().filter_map(|(_, touched)| touched.as_ref()).map(|touched| touched.spans_count()).sum()
        };
        // The oldest are the first that nobody asks for any more.
        while known.len() > 1 && (known.len() > KEPT_COMMITS || spans(&known) > KEPT_SPANS) {
            known.pop_first();
        }
    }
}

/// What the commits of `readings` between two versions touched, whichever is the older one: those after it, up to
/// and with the newer. None: it cannot be told, or there are more than `commits_max`.
///
/// # Errors
/// [`LakeError`], where the log or a file cannot be read.
pub async fn touched_between(
    lake: &Lake,
    one: i64,
    other: i64,
    commits_max: usize,
) -> Result<Option<Touched>, LakeError> {
    let (after, until) = (one.min(other), one.max(other));
    let mut touched = Touched::default();
    if after == until {
        return Ok(Some(touched));
    }
    if usize::try_from(until - after).unwrap_or(usize::MAX) > commits_max {
        return Ok(None);
    }
    let Some(commits) = commits_listed(lake, TableName::Readings, after, until).await? else { return Ok(None) };
    let looks = commits.into_iter().map(|(version, tip, key)| async move {
        if let Some(known) = lake.known_touched().get(version, tip) {
            return Ok(known);
        }
        let entries = read_commit(lake, TableName::Readings, &key).await?;
        let touched = touched_by(lake, entries).await?.map(Arc::new);
        lake.known_touched().keep(version, tip, touched.clone());
        Ok::<_, LakeError>(touched)
    });
    let mut looks = futures::stream::iter(looks).buffered(LOOKED_AT_ONCE);
    while let Some(of_commit) = looks.try_next().await? {
        let Some(of_commit) = of_commit else { return Ok(None) };
        touched.spans.merge(&of_commit.spans);
        touched.erased.merge(&of_commit.erased);
    }
    touched.spans.settle();
    touched.erased.settle();
    Ok(Some(touched))
}

/// What one commit touched; none where it cannot be told.
async fn touched_by(lake: &Lake, commit: CommitEntries) -> Result<Option<Touched>, LakeError> {
    let is = |operation: Operation| commit.operation.as_deref() == Some(operation.word());
    let mut touched = Touched::default();
    if [Operation::Compact, Operation::Retention, Operation::Validate].into_iter().any(is) {
        return Ok(Some(touched));
    }
    if let Some(noted) = commit.touched.as_ref().and_then(Spans::noted) {
        // Only who says what was erased may take what was summed up of it.
        *(if is(Operation::Erase) { &mut touched.erased } else { &mut touched.spans }) = noted;
        return Ok(Some(touched));
    }
    let mut files = commit.added.clone();
    if !is(Operation::Quality) {
        let removed = commit.removed.iter().map(|removed| {
            // Whoever removes a file need not say how big it was; then it cannot be read.
            Some(DataFile { path: removed.path.clone(), size: removed.size?, ..DataFile::default() })
        });
        let Some(removed) = removed.collect::<Option<Vec<_>>>() else { return Ok(None) };
        files.extend(removed);
    }
    for file in files {
        match add_moments(lake, &file, &mut touched.spans).await {
            Ok(()) => {}
            Err(error) if error.is_gone() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    touched.spans.settle();
    Ok(Some(touched))
}

async fn add_moments(lake: &Lake, file: &DataFile, spans: &mut Spans) -> Result<(), LakeError> {
    each_run(lake, file, |sensor, times_us| spans.add(sensor, times_us.iter().copied())).await
}

/// Hands on sensor and times of every row of a file of `readings`, a run of rows of one sensor at a time.
///
/// # Errors
/// [`LakeError`], where the file cannot be read.
pub async fn each_run(lake: &Lake, file: &DataFile, mut take: impl FnMut(&str, &[i64])) -> Result<(), LakeError> {
    let reader = FileReader::open(lake, TableName::Readings, file).await?;
    let mut batches = reader.places(BATCH_ROWS)?;
    while let Some(batch) = batches.try_next().await? {
        let sensors = batch.column(0).as_dictionary::<Int32Type>();
        let (keys, names) = (sensors.keys(), sensors.values().as_string::<i32>());
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
        let mut begin = 0;
        for row in 1..=keys.len() {
            if row == keys.len() || keys.value(row) != keys.value(begin) {
                if keys.is_valid(begin)
                    && let Ok(key) = usize::try_from(keys.value(begin))
                {
                    take(names.value(key), &times[begin..row]);
                }
                begin = row;
            }
        }
    }
    Ok(())
}
