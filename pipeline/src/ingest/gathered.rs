//! What one commit brings: rows, and the transactions that move with them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use tjern_lake::rollup::Spans;
use tjern_lake::{DataFile, Table, TableName, schema};
use tjern_readings::keys::Bounds;

use super::ahead::Room;
use super::clean::Grace;
use super::configurations::Configurations;
use super::landing::{Known, Stream};
use super::late::Late;
use super::progress::{self, Open};
use super::refused::Tally;
use super::repeated::{Sifted, sift};
use super::rows::Rows;
use super::sequence::shrink;
use super::unchecked::{All, Name, Unchecked};
use super::{COMMIT_BATCHES_MAX, COMMIT_ROWS_MAX};
use crate::bounds::Bounds as JobBounds;
use crate::correct::CorrectError;
use crate::register::Register;
use crate::tables::sorted;

#[derive(Debug, Default)]
pub(super) struct Gathered {
    rows: Vec<RecordBatch>,
    /// Those of imports, of which not everything may be new, and whose they are.
    imported: Vec<RecordBatch>,
    pub(super) importing: BTreeSet<Stream>,
    pub(super) transactions: BTreeMap<String, i64>,
    configurations: Configurations,
    late: HashMap<Stream, Late>,
    pub(super) refused: Tally,
    pub(super) batches: usize,
    pub(super) row_count: usize,
    /// Rows that were left out, since they were erased.
    pub(super) erased: usize,
    /// Rows that were left out, since they repeat what is there.
    pub(super) repeated: usize,
    /// Moments of which a person's word does not count any more.
    pub(super) overruled: usize,
    /// The batches that hold such rows, with the erasures that they are of.
    pub(super) doomed: Vec<(Stream, Bounds, BTreeSet<String>)>,
    pub(super) passed: usize,
    /// What went to quarantine; it does not lie in the landing zone any more.
    pub(super) quarantined: Vec<(Stream, Bounds)>,
    /// Whether something was found to be known.
    pub(super) compared: bool,
    /// What is taken without the configuration that it names.
    unchecked: All,
    pub(super) replaced: Replaced,
}

/// Files that a commit replaces by others with the same rows and other flags.
#[derive(Debug, Clone, Default)]
pub(super) struct Replaced {
    pub(super) add: Vec<DataFile>,
    pub(super) remove: Vec<DataFile>,
    /// The moments whose flags are others.
    pub(super) touched: Spans,
}

impl Gathered {
    /// Nothing but files in place of others.
    pub(super) fn replacing(replaced: Replaced) -> Self {
        Self { replaced, ..Self::default() }
    }

    pub(super) const fn is_full(&self) -> bool {
        self.batches >= COMMIT_BATCHES_MAX || self.row_count >= COMMIT_ROWS_MAX
    }

    pub(super) const fn room(&self) -> Room {
        let batches = COMMIT_BATCHES_MAX.saturating_sub(self.batches);
        Room { batches, rows: COMMIT_ROWS_MAX.saturating_sub(self.row_count) }
    }

    pub(super) fn add(&mut self, stream: &Stream, rows: Rows) {
        self.batches += 1;
        self.row_count += rows.batch.num_rows();
        if stream.0.is_gateway() {
            self.rows.push(rows.batch);
        } else {
            self.importing.insert(stream.clone());
            self.imported.push(rows.batch);
        }
    }

    /// Leaves out the rows by which imports only repeat what the table has, of registered sensors.
    pub(super) async fn leave_out_repeated(
        &mut self,
        table: &Table,
        register: &Register,
        bounds: &JobBounds,
    ) -> Result<(), CorrectError> {
        if self.imported.is_empty() {
            return Ok(());
        }
        let together = concat_batches(&schema::arrow(TableName::Readings), &std::mem::take(&mut self.imported))?;
        let Sifted { rows, repeated, overruled } =
            sift(table, &sorted(&together, &TableName::Readings.sort_columns())?, register, bounds).await?;
        self.row_count -= repeated;
        (self.repeated, self.overruled) = (repeated, overruled);
        self.rows.push(rows);
        Ok(())
    }

    /// A batch that follows the watermark.
    pub(super) fn take(&mut self, stream: &Stream, bounds: Bounds, rows: Rows) {
        self.add(stream, rows);
        self.transactions.insert(progress::watermark(stream), bounds.last);
    }

    /// Under which configuration these numbers were measured; `late` where numbers after them were taken before.
    pub(super) fn remember(&mut self, known: &Known, stream: &Stream, bounds: Bounds, named: Option<&str>, late: bool) {
        let steps = self.configurations.over(stream, &known.configurations);
        self.transactions.extend(steps.set(stream, bounds, named, late));
    }

    /// These rows are taken while their configuration is not there; `known` is what the table knows to be taken so.
    pub(super) fn not_checked(&mut self, known: &All, name: Name, rows: &RecordBatch, now_us: i64) {
        let before = self.unchecked.get(&name).or_else(|| known.get(&name)).copied();
        if let Some(after) = Unchecked::with(before, rows, now_us) {
            self.transactions.extend(after.moved(&name));
            self.unchecked.insert(name, after);
        }
    }

    /// A batch that ends with this number was taken long after it had landed; `before` is what the table knows of that.
    pub(super) fn was_late(&mut self, stream: &Stream, last: i64, before: Late, grace: Grace) {
        let late = self.late.entry(stream.clone()).or_insert(before);
        *late = late.took(last, grace.now_us, grace.grace_us);
        self.transactions.extend(late.moved_from(before, &progress::watermark(stream)));
    }

    pub(super) fn pass(&mut self, stream: &Stream, bounds: Bounds, open: Open, now_us: i64) {
        let (source, epoch) = stream;
        tracing::warn!(%source, %epoch, first = bounds.first, last = bounds.last, kind = ?open, "numbers without readings are passed");
        self.transactions.insert(progress::open(stream, bounds), open as i64);
        self.transactions.insert(progress::watermark(stream), bounds.last);
        if open == Open::Gap {
            self.transactions.insert(progress::dropped(stream), now_us);
        }
        self.passed += 1;
    }

    /// Numbers of a hole are known now to have been dropped by the gateway.
    pub(super) fn turn(&mut self, stream: &Stream, dropped: Bounds, hole: Bounds, now_us: i64) {
        let (source, epoch) = stream;
        tracing::info!(%source, %epoch, first = dropped.first, last = dropped.last, "the gateway says that it dropped what was missing");
        self.transactions.insert(progress::open(stream, hole), Open::Closed as i64);
        for rest in shrink(hole, dropped) {
            self.transactions.insert(progress::open(stream, rest), Open::Hole as i64);
        }
        self.transactions.insert(progress::open(stream, dropped), Open::Gap as i64);
        self.transactions.insert(progress::dropped(stream), now_us);
    }

    /// What is left of an open run stays what it was, a hole or a gap.
    pub(super) fn fill(&mut self, stream: &Stream, bounds: Bounds, open: Bounds, kind: i64) {
        self.transactions.insert(progress::filled(stream, bounds), bounds.last);
        self.transactions.insert(progress::open(stream, open), Open::Closed as i64);
        for rest in shrink(open, bounds) {
            self.transactions.insert(progress::open(stream, rest), kind);
        }
    }

    /// All rows in the table's order, once imports were [sifted](Self::leave_out_repeated).
    pub(super) fn rows(&self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.row_count == 0 {
            return Ok(None);
        }
        let together = concat_batches(&schema::arrow(TableName::Readings), &self.rows)?;
        sorted(&together, &TableName::Readings.sort_columns()).map(Some)
    }
}
