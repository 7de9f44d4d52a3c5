//! Merges runs into one order, with one batch of each in memory.
//!
//! Rows of one sensor and about the same time come in long stretches from one run, so a run is followed until
//! its next row comes after the next one of another. Of rows that are equal in all that orders them those of the
//! former run come first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;

use super::run::{Run, RunReader};
use super::sort::{Ordering, Sink, SortError};
use super::texts::Texts;

/// What orders rows across runs: window, sensor, time, and the rest.
type Key = (usize, u32, i64, (i16, i64, i64));

/// A run, and its batch under way.
struct Cursor {
    run: RunReader,
    window: usize,
    ordering: Option<Ordering>,
    row: usize,
    /// The place of its batch among those that are held.
    held: usize,
}

impl Cursor {
    /// Moves on to the next batch, and returns it; at the end of the run there is none.
    fn advance(&mut self) -> Result<Option<RecordBatch>, SortError> {
        self.row = 0;
        self.ordering = None;
        let Some((window, rows)) = self.run.next()? else { return Ok(None) };
        self.ordering = Some(Ordering::of(&rows));
        self.window = window;
        Ok(Some(rows))
    }

    fn key(&self, ranks: &[u32]) -> Option<Key> {
        let ordering = self.ordering.as_ref()?;
        let (row, rank) = (self.row, ranks[ordering.sensor[self.row] as usize]);
        Some((self.window, rank, ordering.time_us[row], ordering.rest(row)))
    }

    /// Whether the row that it is at was the last of its batch.
    fn is_past_batch(&self) -> bool {
        self.ordering.as_ref().is_some_and(|ordering| self.row == ordering.sensor.len())
    }
}

/// Rows that will be handed out together.
struct Pending {
    held: Vec<RecordBatch>,
    places: Vec<(usize, usize)>,
    window: usize,
}

impl Pending {
    fn hold(&mut self, rows: RecordBatch) -> usize {
        self.held.push(rows);
        self.held.len() - 1
    }

    /// Hands them out, and holds no more than what the runs are at.
    fn hand_out(&mut self, cursors: &mut [Cursor], texts: &mut Texts, sink: &mut Sink<'_>) -> Result<(), SortError> {
        if !self.places.is_empty() {
            let held: Vec<_> = self.held.iter().collect();
            let rows = interleave_record_batch(&held, &self.places)?;
            self.places.clear();
            sink(self.window, rows, texts)?;
        }
        let held = std::mem::take(&mut self.held);
        for cursor in cursors.iter_mut().filter(|cursor| cursor.ordering.is_some()) {
            cursor.held = self.hold(held[cursor.held].clone());
        }
        Ok(())
    }
}

/// Hands out the rows of all runs in order, at most `rows_max` at a time.
pub(super) fn merge(runs: Vec<Run>, rows_max: usize, texts: &mut Texts, sink: &mut Sink<'_>) -> Result<(), SortError> {
    let ranks = texts.ranks().to_vec();
    let mut pending = Pending { held: Vec::new(), places: Vec::with_capacity(rows_max), window: 0 };
    let mut cursors = Vec::with_capacity(runs.len());
    let mut heap = BinaryHeap::with_capacity(runs.len());
    for run in runs {
        let mut cursor = Cursor { run: run.read()?, window: 0, ordering: None, row: 0, held: 0 };
        if let Some(rows) = cursor.advance()? {
            cursor.held = pending.hold(rows);
        }
        heap.extend(cursor.key(&ranks).map(|key| Reverse((key, cursors.len()))));
        cursors.push(cursor);
    }
    while let Some(Reverse((key, index))) = heap.pop() {
        if key.0 != pending.window || pending.places.len() >= rows_max {
            pending.hand_out(&mut cursors, texts, sink)?;
            pending.window = key.0;
        }
        let others = heap.peek().map(|Reverse(first)| *first);
        let next = follow((&mut cursors[index], index), &mut pending, rows_max, others, &ranks)?;
        heap.extend(next.map(|key| Reverse((key, index))));
    }
    pending.hand_out(&mut cursors, texts, sink)
}

/// Takes rows of one run until another's comes first. Returns the key of its next row.
fn follow(
    (cursor, index): (&mut Cursor, usize),
    pending: &mut Pending,
    rows_max: usize,
    others: Option<(Key, usize)>,
    ranks: &[u32],
) -> Result<Option<Key>, SortError> {
    loop {
        pending.places.push((cursor.held, cursor.row));
        cursor.row += 1;
        if cursor.is_past_batch()
            && let Some(rows) = cursor.advance()?
        {
            cursor.held = pending.hold(rows);
        }
        let next = cursor.key(ranks);
        let goes_on =
            next.is_some_and(|key| key.0 == pending.window && others.is_none_or(|others| (key, index) < others));
        if !goes_on || pending.places.len() >= rows_max {
            return Ok(next);
        }
    }
}
