//! Rows that are gathered in memory, and handed out in order.
//!
//! Files that were sorted before are runs that stand one after another, and the sort finds and merges these. Equal rows
//! keep the order in which they were added.

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;

use super::sort::{Ordering, SortError};
use super::windows::Window;

/// A gathered batch has at most so many rows, so that a row's place is one number.
pub(super) const BATCH_ROWS: usize = 1 << BATCH_BITS;
const BATCH_BITS: u32 = 13;
/// So many batches are handed out together at the most, for the same reason.
pub(super) const BATCHES_MAX: usize = 1 << (32 - BATCH_BITS);
/// A row's key, and what a sort of keys needs besides.
const KEY_BYTES: usize = size_of::<Key>() * 3 / 2;

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

/// Rows with texts as numbers.
#[derive(Default)]
pub(super) struct Gathered {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Gathered {
    pub(super) fn add(&mut self, rows: RecordBatch) {
        self.bytes += rows.get_array_memory_size();
        self.rows += rows.num_rows();
        self.batches.push(rows);
    }

    /// What it takes, and will take while it is sorted.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes + self.rows * KEY_BYTES
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) const fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Adds what was gathered later.
    pub(super) fn append(&mut self, mut later: Self) {
        self.batches.append(&mut later.batches);
        self.rows += later.rows;
        self.bytes += later.bytes;
    }

    /// Hands everything out, window by window in order, at most so many rows at a time.
    pub(super) fn hand_out(
        self,
        windows: &[Window],
        ranks: &[u32],
        rows_max: usize,
        sink: &mut dyn FnMut(usize, RecordBatch) -> Result<(), SortError>,
    ) -> Result<(), SortError> {
        let held: Vec<_> = self.batches.iter().collect();
        let orderings: Vec<_> = self.batches.iter().map(Ordering::of).collect();
        let by_window = keys(&orderings, windows, ranks);
        for (window, mut keys) in by_window.into_iter().enumerate() {
            keys.sort_by(|one, other| {
                (one.sensor, one.time_us).cmp(&(other.sensor, other.time_us)).then_with(|| {
                    let rest = |key: &Key| orderings[key.place().0].rest(key.place().1);
                    rest(one).cmp(&rest(other))
                })
            });
            for some in keys.chunks(rows_max) {
                let places: Vec<_> = some.iter().map(Key::place).collect();
                sink(window, interleave_record_batch(&held, &places)?)?;
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
