//! Sorts any number of rows within a bound on memory, by window, sensor and time.
//!
//! Rows are gathered with their texts as numbers until they take the sorter's share of memory; then they are
//! sorted and written to disk as a run, and more are gathered. At the end what is gathered is handed out
//! at once where nothing was written, or else the runs are merged, so many at a time as memory allows, in
//! several rounds if need be. Rows that are equal in all that orders them come in any order.
//!
//! Files that were sorted before are runs that stand one after another, and the sort finds and merges these.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{
    DataType, Field, Int16Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType, UInt32Type,
};
use arrow::error::ArrowError;

use super::merge::merge;
use super::multiset::Multiset;
use super::run::{Run, RunWriter};
use super::texts::{Texts, Translation};
use super::windows::Window;

/// Rows that are handed out together.
pub(super) const OUT_ROWS: usize = 8 << 10;
/// Rows of a batch on disk: a run that is merged takes one of these.
const RUN_ROWS: usize = 4 << 10;
/// A gathered batch has at most so many rows, so that a row's place is one number.
pub(super) const BATCH_ROWS: usize = 1 << BATCH_BITS;
const BATCH_BITS: u32 = 13;
const BATCHES_MAX: usize = 1 << (32 - BATCH_BITS);
/// A row's key, and what a sort of keys needs besides.
const KEY_BYTES: usize = size_of::<Key>() * 3 / 2;

/// What sorting may take, and where it writes what is too much.
#[derive(Debug, Clone)]
pub(super) struct SortLimits {
    /// For the rows that are gathered; the runs that are merged take half of it.
    pub(super) memory_bytes: usize,
    /// Where runs are written.
    pub(super) folder: PathBuf,
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
    windows: Vec<Window>,
    schema: SchemaRef,
    texts: Texts,
    translations: Vec<Translation>,
    batches: Vec<RecordBatch>,
    bytes: usize,
    rows: usize,
    runs: Vec<Run>,
    pub(super) read: Multiset,
    pub(super) cost: SortCost,
}

/// What orders rows first, and where a row lies: its batch, and its place in it.
#[derive(Debug, Clone, Copy)]
struct Key {
    time_us: i64,
    sensor: u32,
    row: u32,
}

impl Key {
    const fn place(&self) -> (usize, usize) {
        ((self.row >> BATCH_BITS) as usize, (self.row & ((1 << BATCH_BITS) - 1)) as usize)
    }
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
            windows,
            schema: numbered(schema),
            texts: Texts::default(),
            translations,
            batches: Vec::new(),
            bytes: 0,
            rows: 0,
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
        self.bytes += numbered.get_array_memory_size();
        self.rows += numbered.num_rows();
        self.batches.push(numbered);
        if self.bytes + self.rows * KEY_BYTES >= self.limits.memory_bytes || self.batches.len() == BATCHES_MAX {
            self.spill()?;
        }
        Ok(())
    }

    /// Hands everything out. Returns what was read, and what it took.
    pub(super) fn finish(mut self, sink: &mut Sink<'_>) -> Result<(Multiset, SortCost), SortError> {
        if self.runs.is_empty() {
            self.hand_out(OUT_ROWS, sink)?;
            return Ok((self.read, self.cost));
        }
        self.spill()?;
        let Self { limits, schema, mut texts, mut runs, read, mut cost, .. } = self;
        let at_once = runs_at_once(&limits, &schema);
        while runs.len() > at_once {
            let several: Vec<_> = runs.drain(..at_once).collect();
            let mut writer = RunWriter::new(&limits.folder, &schema)?;
            merge(several, RUN_ROWS, &mut texts, &mut |window, rows, _: &mut Texts| writer.write(window, &rows))?;
            // To the end of the queue: each run is merged about equally often.
            runs.push(counted(writer.finish()?, &mut cost));
        }
        merge(runs, OUT_ROWS, &mut texts, sink)?;
        Ok((read, cost))
    }

    /// Writes what is gathered as a run.
    fn spill(&mut self) -> Result<(), SortError> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let mut writer = RunWriter::new(&self.limits.folder, &self.schema)?;
        self.hand_out(RUN_ROWS, &mut |window, rows, _| writer.write(window, &rows))?;
        self.runs.push(counted(writer.finish()?, &mut self.cost));
        Ok(())
    }

    /// Hands out what is gathered, in order, and forgets it.
    fn hand_out(&mut self, rows_max: usize, sink: &mut Sink<'_>) -> Result<(), SortError> {
        let batches = std::mem::take(&mut self.batches);
        (self.bytes, self.rows) = (0, 0);
        let held: Vec<_> = batches.iter().collect();
        let orderings: Vec<_> = batches.iter().map(Ordering::of).collect();
        let by_window = keys(&orderings, &self.windows, self.texts.ranks());
        for (window, mut keys) in by_window.into_iter().enumerate() {
            keys.sort_by(|one, other| {
                (one.sensor, one.time_us).cmp(&(other.sensor, other.time_us)).then_with(|| {
                    let rest = |key: &Key| orderings[key.place().0].rest(key.place().1);
                    rest(one).cmp(&rest(other))
                })
            });
            for some in keys.chunks(rows_max) {
                let places: Vec<_> = some.iter().map(Key::place).collect();
                sink(window, interleave_record_batch(&held, &places)?, &mut self.texts)?;
            }
        }
        Ok(())
    }
}

/// The keys of all rows, by the windows that they lie in.
fn keys(orderings: &[Ordering], windows: &[Window], ranks: &[u32]) -> Vec<Vec<Key>> {
    let mut by_window = vec![Vec::new(); windows.len()];
    let mut window = 0;
    for (batch, ordering) in (0_u32..).zip(orderings) {
        for (row, (sensor, time_us)) in (0_u32..).zip(ordering.sensor.iter().zip(ordering.time_us.iter())) {
            if !windows[window].contains(*time_us) {
                // The planner made windows of the files' own statistics; a foreign file's may be wrong, and
                // its row then joins the nearest window.
                window = windows.partition_point(|window| window.to_us <= *time_us).min(windows.len() - 1);
            }
            let key = Key { time_us: *time_us, sensor: ranks[*sensor as usize], row: batch << BATCH_BITS | row };
            by_window[window].push(key);
        }
    }
    by_window
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
