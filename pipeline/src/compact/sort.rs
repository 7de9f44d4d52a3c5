//! Sorts any number of rows within a bound on memory, by window, sensor and time.
//!
//! Rows are gathered with their texts as numbers ([`super::gathered`]) until they take the sorter's share of memory; then
//! they are sorted and written to disk as runs, and more are gathered. Where there are several threads the share has a part
//! for each and one more: the threads sort and write theirs ([`super::spill`]) while the next rows are gathered. At the end what is
//! gathered is handed out at once where nothing was written, or else the runs are merged, so many at a time as memory allows, in
//! several rounds if need be. Rows that are equal in all that orders them come in the order in which they were
//! added: what is handed out is the same whatever the memory and the number of threads.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    DataType, Field, Int16Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType, UInt32Type,
};
use arrow::error::ArrowError;

use super::gathered::{BATCH_ROWS, BATCHES_MAX, Gathered};
use super::merge::merge;
use super::multiset::Multiset;
use super::run::{Run, RunWriter};
use super::spill::Spill;
use super::texts::{Texts, Translation};
use super::windows::Window;

/// Rows that are handed out together.
pub(super) const OUT_ROWS: usize = 8 << 10;
/// Rows of a batch on disk: a run that is merged takes one of these.
const RUN_ROWS: usize = 4 << 10;

/// What sorting may take, and where it writes what is too much.
#[derive(Debug, Clone)]
pub(super) struct SortLimits {
    /// For the rows that are gathered; the runs that are merged take half of it.
    pub(super) memory_bytes: usize,
    /// Where runs are written.
    pub(super) folder: PathBuf,
    /// Threads that there are: so many runs are written while the next one is gathered, and with one thread none.
    pub(super) threads: usize,
}

impl SortLimits {
    /// Runs that are written while the next one is gathered.
    const fn spills_max(&self) -> usize {
        if self.threads > 1 { self.threads } else { 0 }
    }

    /// What the rows of a run take at the most.
    const fn run_bytes(&self) -> usize {
        self.memory_bytes / (self.spills_max() + 1)
    }
}

/// Why rows could not be sorted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SortError {
    /// A run could not be written.
    #[error("cannot write to the folder `{folder}`: {source}")]
    Spill { folder: PathBuf, source: std::io::Error },
    /// Rows are not what they have to be.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// Whoever takes the rows has gone.
    #[error("stopped")]
    Stopped,
}

/// What sorting took.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct SortCost {
    /// Runs that were written.
    pub(super) runs: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// Takes sorted rows: the window's place among the windows, and rows with texts as numbers.
pub(super) type Sink<'a> = dyn FnMut(usize, RecordBatch, &mut Texts) -> Result<(), SortError> + 'a;

/// Gathers rows and hands them out in order.
pub(super) struct Sorter {
    limits: SortLimits,
    windows: Arc<[Window]>,
    schema: SchemaRef,
    texts: Texts,
    translations: Vec<Translation>,
    gathered: Gathered,
    /// What was gathered before, and may be written as a run each, the oldest first.
    waiting: Vec<Gathered>,
    /// Runs that are being written, the oldest first.
    spills: VecDeque<Spill>,
    runs: Vec<Run>,
    pub(super) read: Multiset,
    pub(super) cost: SortCost,
}

/// The columns that order rows, in their order.
pub(super) struct Ordering {
    pub(super) sensor: ScalarBuffer<u32>,
    pub(super) time_us: ScalarBuffer<i64>,
    revision: ScalarBuffer<i16>,
    received_us: ScalarBuffer<i64>,
    seq: ScalarBuffer<i64>,
}

impl Ordering {
    /// The columns of rows with texts as numbers.
    pub(super) fn of(rows: &RecordBatch) -> Self {
        let column = |name: &str| rows.column_by_name(name).expect("readings have the columns that order them");
        let times = |name| column(name).as_primitive::<TimestampMicrosecondType>().values().clone();
        Self {
            sensor: column("sensor").as_primitive::<UInt32Type>().values().clone(),
            time_us: times("time"),
            revision: column("revision").as_primitive::<Int16Type>().values().clone(),
            received_us: times("received"),
            seq: column("seq").as_primitive::<Int64Type>().values().clone(),
        }
    }

    /// What orders the rows of one sensor and time.
    pub(super) fn rest(&self, row: usize) -> (i16, i64, i64) {
        (self.revision[row], self.received_us[row], self.seq[row])
    }
}

/// A table's columns with texts as numbers.
fn numbered(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(..) => Arc::new(Field::new(field.name(), DataType::UInt32, field.is_nullable())),
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// Rows with texts as they are.
pub(super) fn with_texts(rows: &RecordBatch, texts: &mut Texts, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |column: &ArrayRef| match column.data_type() {
        DataType::UInt32 => texts.decode(column.as_primitive::<UInt32Type>()),
        _ => Ok(Arc::clone(column)),
    };
    RecordBatch::try_new(Arc::clone(schema), rows.columns().iter().map(column).collect::<Result<_, _>>()?)
}

impl Sorter {
    /// For rows of these columns (texts as dictionaries) that lie in these windows, which are in order.
    pub(super) fn new(limits: SortLimits, windows: Vec<Window>, schema: &Schema) -> Self {
        let translations = schema.fields().iter().map(|_| Translation::default()).collect();
        Self {
            limits,
            windows: windows.into(),
            schema: numbered(schema),
            texts: Texts::default(),
            translations,
            gathered: Gathered::default(),
            waiting: Vec::new(),
            spills: VecDeque::new(),
            runs: Vec::new(),
            read: Multiset::default(),
            cost: SortCost::default(),
        }
    }

    /// Adds rows; at most [`BATCH_ROWS`] at a time.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<(), SortError> {
        assert!(rows.num_rows() <= BATCH_ROWS, "a batch of {} rows", rows.num_rows());
        let Self { texts, translations, schema, read, .. } = self;
        let columns = rows.columns().iter().zip(translations.iter_mut()).map(|(column, known)| -> ArrayRef {
            if let DataType::Dictionary(..) = column.data_type() {
                return Arc::new(texts.encode(column, known));
            }
            Arc::clone(column)
        });
        let numbered = RecordBatch::try_new(Arc::clone(schema), columns.collect())?;
        read.add(rows, |column| translations[column].hashes.as_slice());
        self.gathered.add(numbered);
        if self.gathered.bytes() >= self.limits.run_bytes() {
            self.waiting.push(std::mem::take(&mut self.gathered));
        }
        if self.is_too_much() {
            self.spill()?;
        }
        Ok(())
    }

    /// Whether no more can be gathered, given what is being written.
    fn is_too_much(&self) -> bool {
        let held = || self.waiting.iter().chain([&self.gathered]);
        self.waiting.len() + self.spills.len() > self.limits.spills_max()
            || held().map(Gathered::bytes).sum::<usize>() >= self.limits.memory_bytes
            || held().map(Gathered::batches).sum::<usize>() == BATCHES_MAX
    }

    /// Hands everything out. Returns what was read, and what it took.
    pub(super) fn finish(mut self, sink: &mut Sink<'_>) -> Result<(Multiset, SortCost), SortError> {
        if self.runs.is_empty() && self.spills.is_empty() {
            let Self { waiting, gathered, windows, mut texts, read, cost, .. } = self;
            let ranks = texts.ranks().to_vec();
            let mut all = Gathered::default();
            waiting.into_iter().chain([gathered]).for_each(|rows| all.append(rows));
            all.hand_out(&windows, &ranks, OUT_ROWS, &mut |window, rows| sink(window, rows, &mut texts))?;
            return Ok((read, cost));
        }
        self.spill()?;
        self.await_spills(0)?;
        let Self { limits, schema, mut texts, mut runs, read, mut cost, .. } = self;
        let at_once = runs_at_once(&limits, &schema);
        let mut first = 0;
        while runs.len() > at_once {
            // Neighbours, and the result in their place, so that equal rows stay in their order; each is merged about equally often.
            if first + at_once > runs.len() {
                first = 0;
            }
            let several: Vec<_> = runs.drain(first..first + at_once).collect();
            let mut writer = RunWriter::new(&limits.folder, &schema)?;
            merge(several, RUN_ROWS, &mut texts, &mut |window, rows, _: &mut Texts| writer.write(window, &rows))?;
            runs.insert(first, counted(writer.finish()?, &mut cost));
            first += 1;
        }
        merge(runs, OUT_ROWS, &mut texts, sink)?;
        Ok((read, cost))
    }

    /// Begins to write what is held, in runs. Comes back when there is room to gather more.
    fn spill(&mut self) -> Result<(), SortError> {
        self.waiting.push(std::mem::take(&mut self.gathered));
        for gathered in std::mem::take(&mut self.waiting).into_iter().filter(|gathered| !gathered.is_empty()) {
            let writer = RunWriter::new(&self.limits.folder, &self.schema)?;
            let (windows, ranks) = (Arc::clone(&self.windows), self.texts.ranks().to_vec());
            let write = move || write_run(gathered, &windows, &ranks, writer);
            self.spills.push_back(Spill::begin(&self.limits.folder, write)?);
        }
        self.await_spills(self.limits.spills_max())
    }

    /// Waits for the oldest runs until at most so many are being written.
    fn await_spills(&mut self, left: usize) -> Result<(), SortError> {
        while self.spills.len() > left
            && let Some(oldest) = self.spills.pop_front()
        {
            self.runs.push(counted(oldest.end()?, &mut self.cost));
        }
        Ok(())
    }
}

/// Writes what is gathered as a run.
fn write_run(gathered: Gathered, windows: &[Window], ranks: &[u32], mut writer: RunWriter) -> Result<Run, SortError> {
    gathered.hand_out(windows, ranks, RUN_ROWS, &mut |window, rows| writer.write(window, &rows))?;
    writer.finish()
}

/// How many runs may be merged at once: a batch of each is held, and the rows that are handed out.
fn runs_at_once(limits: &SortLimits, schema: &Schema) -> usize {
    let width = |field: &Arc<Field>| field.data_type().primitive_width().unwrap_or(8) + 1;
    let row_bytes: usize = schema.fields().iter().map(width).sum();
    // Twice: a batch is there when the rows of the one before it have not all been handed out yet.
    (limits.memory_bytes / 2 / (2 * row_bytes * RUN_ROWS)).clamp(2, 128)
}

fn counted(run: Run, cost: &mut SortCost) -> Run {
    cost.runs += 1;
    cost.bytes += run.bytes;
    run
}

#[cfg(test)]
mod tests;
