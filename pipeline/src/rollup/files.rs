//! The files of a rollup table that a commit takes away and brings.
//!
//! Nothing is held as a whole: what stays of old files is read in order and put together with what is new as it comes
//! ([`super::merge`]), and files are written a month at a time. What is held is the encoded file under way of each month that the rows
//! under way are of, which is one, but where somebody else has put months together.

use std::collections::{BTreeMap, HashSet};

use arrow::array::AsArray;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use datafusion::execution::context::SessionContext;
use datafusion::prelude::col;
use tjern_lake::rollup::{Selection, Window};
use tjern_lake::{DataFile, FileWriter, Lake, LakeError, Table};

use super::RollupError;
use super::merge::{Kept, last_place, take_to};
use super::months::month;
use super::read::rollup_schema;
use crate::bounds::Bounds;
use crate::tables::{engine_within, sorted};

/// A file has no more rows than this, so that a city of many sensors need not rewrite a whole month
/// for one of them.
const FILE_ROWS_MAX: usize = 1 << 20;

const ORDER: [&str; 3] = ["sensor", "time", "quality"];

/// What a commit will be made of.
pub(crate) struct Rewrite<'a> {
    lake: &'a Lake,
    table: &'a Table,
    /// Reads what stays, while another one reads what is summed up.
    context: SessionContext,
    /// What the encoded files under way may take together; a row group that is not encoded yet may take half as much.
    open_bytes_max: usize,
    /// By the month of their windows.
    open: BTreeMap<Window, FileWriter>,
    pub(crate) add: Vec<DataFile>,
    pub(crate) remove: Vec<DataFile>,
    pub(crate) rows_computed: usize,
}

impl<'a> Rewrite<'a> {
    pub(crate) fn new(lake: &'a Lake, table: &'a Table, bounds: &Bounds) -> Result<Self, LakeError> {
        let open_bytes = bounds.file_bytes.min(bounds.memory_bytes / 8);
        Ok(Self {
            lake,
            table,
            context: engine_within(lake, &bounds.part(2))?,
            open_bytes_max: usize::try_from(open_bytes).unwrap_or(usize::MAX),
            open: BTreeMap::new(),
            add: Vec::new(),
            remove: Vec::new(),
            rows_computed: 0,
        })
    }

    /// Adds rows to what else the table will have, after those that were added before.
    pub(crate) async fn append(&mut self, rows: &RecordBatch) -> Result<(), RollupError> {
        self.rows_computed += rows.num_rows();
        self.write(rows).await
    }

    /// Takes away every row of a window that starts at this moment or later. Files that hold nothing else go, those that
    /// hold nothing of it stay as they are. Where one is written again, `closed` windows before that moment, which are computed
    /// anew, are not in it.
    pub(crate) async fn take_away_from(&mut self, from_us: i64, closed: &Selection) -> Result<(), RollupError> {
        let reaches = |file: &DataFile| file.time_us.is_none_or(|(_, last_us)| last_us >= from_us);
        for file in self.table.files().into_iter().filter(reaches) {
            if file.time_us.is_none_or(|(first_us, _)| first_us < from_us) {
                let stays = |sensor: &str, start_us: i64| start_us < from_us && !closed.contains(sensor, start_us);
                let mut kept = self.kept(vec![file.clone()], stays).await?;
                while let Some(rows) = kept.next().await? {
                    self.write(&rows).await?;
                }
                self.end_files().await?;
            }
            self.remove.push(file);
        }
        Ok(())
    }

    /// Begins to put other rows in the place of what the table has of `windows`, all of which start in `month`: `known` ones,
    /// and those that come. `touched` are all windows that this commit replaces, for files that reach beyond the month.
    pub(crate) async fn replace<'r>(
        &'r mut self,
        month: Window,
        windows: &Selection,
        touched: &'r Selection,
        known: &RecordBatch,
    ) -> Result<Replacing<'r, 'a>, RollupError> {
        let files = self.files_with(month, windows);
        let stays = |sensor: &str, start_us: i64| !touched.contains(sensor, start_us);
        let kept = self.kept(files.clone(), stays).await?;
        self.remove.extend(files);
        Ok(Replacing { rewrite: self, kept, known: sorted(known, &ORDER)? })
    }

    /// The rows of some files that stay, in order.
    async fn kept<'s>(
        &mut self,
        files: Vec<DataFile>,
        stays: impl Fn(&str, i64) -> bool + Send + Sync + 's,
    ) -> Result<Kept<'s>, RollupError> {
        let rows = self.context.read_table(self.table.provider_of(files))?;
        let rows = rows.sort(vec![col("sensor").sort(true, true), col("time").sort(true, true)])?;
        Ok(Kept::new(rows.execute_stream().await?, stays))
    }

    /// The files that may have a row of these windows, but for those that are taken away already.
    fn files_with(&self, month: Window, windows: &Selection) -> Vec<DataFile> {
        let gone: HashSet<&str> = self.remove.iter().map(|file| file.path.as_str()).collect();
        let sensors = || windows.iter().map(|(sensor, _)| sensor);
        let (first, last) = (sensors().min(), sensors().max());
        let may_hold = |file: &DataFile| {
            let time = file.time_us.is_none_or(|(low, high)| low < month.end_us && month.start_us <= high);
            let sensor = file.sensor.as_ref().is_none_or(|(low, high)| {
                last.is_some_and(|last| low.as_str() <= last) && first.is_some_and(|first| first <= high.as_str())
            });
            time && sensor
        };
        self.table.files().into_iter().filter(|file| may_hold(file) && !gone.contains(file.path.as_str())).collect()
    }

    /// Writes rows into the files under way of their months.
    async fn write(&mut self, rows: &RecordBatch) -> Result<(), RollupError> {
        for (month, rows) in by_month(rows)? {
            let mut rows = sorted(&rows, &ORDER)?;
            while rows.num_rows() > 0 {
                let open = match self.open.entry(month) {
                    std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                    std::collections::btree_map::Entry::Vacant(place) => {
                        let group_bytes = u64::try_from(self.open_bytes_max / 2).unwrap_or(u64::MAX);
                        place.insert(FileWriter::open_within(self.table.name(), group_bytes)?)
                    }
                };
                let there = usize::try_from(open.rows()).unwrap_or(usize::MAX);
                let part = rows.num_rows().min(FILE_ROWS_MAX.saturating_sub(there));
                open.write(&rows.slice(0, part))?;
                rows = rows.slice(part, rows.num_rows() - part);
                if there + part >= FILE_ROWS_MAX {
                    self.end_file(month).await?;
                }
            }
            while self.open.values().map(FileWriter::bytes).sum::<usize>() >= self.open_bytes_max {
                let largest = self.open.iter().max_by_key(|(_, open)| open.bytes()).map(|(month, _)| *month);
                let Some(largest) = largest else { break };
                self.end_file(largest).await?;
            }
        }
        // Encoding waits for nothing, and others share this thread.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn end_file(&mut self, month: Window) -> Result<(), LakeError> {
        if let Some(full) = self.open.remove(&month) {
            self.add.push(full.finish(self.lake).await?);
        }
        Ok(())
    }

    /// Ends the files under way: what comes next is in no order with what was written.
    pub(crate) async fn end_files(&mut self) -> Result<(), LakeError> {
        while let Some((month, _)) = self.open.first_key_value() {
            self.end_file(*month).await?;
        }
        Ok(())
    }
}

/// Rows of a month that take the place of others.
pub(crate) struct Replacing<'r, 'a> {
    rewrite: &'r mut Rewrite<'a>,
    kept: Kept<'r>,
    /// New rows that were there from the beginning.
    known: RecordBatch,
}

impl Replacing<'_, '_> {
    /// Puts new rows in, all of them after those that were put in before.
    pub(crate) async fn put(&mut self, rows: &RecordBatch) -> Result<(), RollupError> {
        let rows = sorted(rows, &ORDER)?;
        let Some(last) = last_place(&rows)? else { return Ok(()) };
        let known = take_to(&mut self.known, &last)?;
        self.merge(&concat_batches(&rollup_schema(), &[rows, known])?).await
    }

    async fn merge(&mut self, rows: &RecordBatch) -> Result<(), RollupError> {
        self.rewrite.rows_computed += rows.num_rows();
        let mut rows = sorted(rows, &ORDER)?;
        while let Some(last) = last_place(&rows)? {
            let kept = self.kept.next_until(&last).await?;
            // New rows after the last one that stays wait for more of these, if there are any before them.
            let part = match kept.as_ref().map(last_place).transpose()?.flatten() {
                Some(until) => take_to(&mut rows, &until)?,
                None => std::mem::replace(&mut rows, RecordBatch::new_empty(rollup_schema())),
            };
            let both: Vec<RecordBatch> = kept.into_iter().chain([part]).collect();
            self.rewrite.write(&concat_batches(&rollup_schema(), &both)?).await?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub(crate) async fn end(mut self) -> Result<(), RollupError> {
        let known = self.known.clone();
        self.merge(&known).await?;
        while let Some(rows) = self.kept.next().await? {
            self.rewrite.write(&rows).await?;
        }
        Ok(self.rewrite.end_files().await?)
    }
}

fn by_month(rows: &RecordBatch) -> Result<Vec<(Window, RecordBatch)>, RollupError> {
    let starts = rows.column(1).as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>();
    let mut months: Vec<Window> = Vec::with_capacity(starts.len());
    for start_us in starts.values() {
        // Neighbours are most often of one month.
        let same = months.last().filter(|last| last.contains(*start_us)).copied();
        months.push(same.unwrap_or_else(|| month(*start_us)));
    }
    let mut distinct = months.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if let [only] = distinct[..] {
        return Ok(vec![(only, rows.clone())]);
    }
    let parts = distinct.into_iter().map(|wanted| {
        let mask = months.iter().map(|month| Some(*month == wanted)).collect();
        Ok((wanted, filter_record_batch(rows, &mask)?))
    });
    parts.collect()
}
