//! Sorted files whose flags change, each written anew as it lies there: its rows come and go in their own order, and what
//! the walk judged is put in as they pass. So one late reading in a sealed file sorts its neighbourhood and not the
//! file, and what is held of a file of any size are a few batches and the encoded bytes.
//!
//! The walk judges in the order of sensor and time, which is the file's. Rows of one moment lie in any order in the file:
//! they are known by all that identifies a row, and rows that are the same in all of it are the same.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};
use futures::StreamExt;
use futures::stream::BoxStream;
use tjern_lake::rollup::Spans;
use tjern_lake::{DataFile, FileReader, Lake, LakeError, TableName};

use super::control::ControlError;
use super::judge::{Flags, Judged, column};
use super::pass::{FILE, Rewritten};
use super::walk::Take;
use crate::anew::{Anew, BATCH_ROWS};
use crate::bounds::Bounds;
use crate::frames::texts;

/// The columns that quality control may change.
pub(super) const OURS: [&str; 3] = ["quality", "tests", "level"];

/// Files that were judged, and those of them that are being written anew.
pub(super) struct InPlace<'a> {
    lake: &'a Lake,
    bounds: &'a Bounds,
    files: Vec<Judging>,
}

struct Judging {
    file: DataFile,
    copying: Option<Copying>,
    /// Whether it has a wrong flag, and is not in an order in which it could be put in.
    is_left: bool,
}

impl<'a> InPlace<'a> {
    /// Of these files, which rows name by their places.
    pub(super) fn of(files: Vec<DataFile>, lake: &'a Lake, bounds: &'a Bounds) -> Self {
        let files = files.into_iter().map(|file| Judging { file, copying: None, is_left: false }).collect();
        Self { lake, bounds, files }
    }

    /// What was written, and the files with wrong flags that are not sorted.
    pub(super) async fn finish(self) -> Result<(Rewritten, Vec<DataFile>), ControlError> {
        let (mut rewritten, mut left) = (Rewritten::default(), Vec::new());
        for Judging { file, copying, is_left } in self.files {
            if is_left {
                left.push(file);
            } else if let Some(copying) = copying {
                rewritten.rows_changed += copying.rows_changed;
                rewritten.touched.merge(&copying.touched);
                rewritten.add.extend(copying.finish(self.lake).await?);
                rewritten.remove.push(file);
            }
        }
        Ok((rewritten, left))
    }
}

impl Take for InPlace<'_> {
    async fn take(&mut self, judged: Judged) -> Result<(), ControlError> {
        let from = column(&judged.rows, FILE).as_primitive::<Int32Type>().clone();
        let mut rows = vec![Vec::new(); self.files.len()];
        for row in (0..from.len()).filter(|row| judged.changed.value(*row)) {
            if let Some(rows) = usize::try_from(from.value(row)).ok().and_then(|number| rows.get_mut(number)) {
                rows.push(row);
            }
        }
        if rows.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let known = Identities::of(&judged.rows)?;
        for (judging, rows) in self.files.iter_mut().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
            if !judging.file.sorted {
                judging.is_left = true;
                continue;
            }
            let copying = match &mut judging.copying {
                Some(copying) => copying,
                None => judging.copying.insert(Copying::open(&judging.file, self.lake, self.bounds).await?),
            };
            judged.note_touched(rows.iter().copied(), &mut copying.touched)?;
            for row in rows {
                let flags = (judged.quality.value(row), optional(&judged.tests, row), judged.level.value(row));
                copying.put_in(self.lake, &known.of_row(row), flags).await?;
            }
        }
        Ok(())
    }
}

fn optional(numbers: &Int32Array, row: usize) -> Option<i32> {
    numbers.is_valid(row).then(|| numbers.value(row))
}

/// What a row is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity<'a> {
    sensor: &'a str,
    time_us: i64,
    source: &'a str,
    epoch: &'a str,
    seq: i64,
    revision: i16,
    received_us: i64,
    /// As bits: what is no number is the same as itself.
    value: Option<u64>,
    flags: Flags,
}

impl Identity<'_> {
    fn moment(&self) -> (&str, i64) {
        (self.sensor, self.time_us)
    }
}

/// The columns of a batch that say what its rows are known by.
struct Identities {
    sensors: StringArray,
    sources: StringArray,
    epochs: StringArray,
    rows: RecordBatch,
}

impl Identities {
    fn of(rows: &RecordBatch) -> Result<Self, ControlError> {
        let text = |name| texts(column(rows, name));
        Ok(Self { sensors: text("sensor")?, sources: text("source")?, epochs: text("epoch")?, rows: rows.clone() })
    }

    fn len(&self) -> usize {
        self.rows.num_rows()
    }

    fn moment(&self, row: usize) -> (&str, i64) {
        let times = column(&self.rows, "time").as_primitive::<TimestampMicrosecondType>();
        (self.sensors.value(row), times.value(row))
    }

    fn of_row(&self, row: usize) -> Identity<'_> {
        let column = |name| column(&self.rows, name);
        let values = column("value").as_primitive::<Float64Type>();
        let (sensor, time_us) = self.moment(row);
        Identity {
            sensor,
            time_us,
            source: self.sources.value(row),
            epoch: self.epochs.value(row),
            seq: column("seq").as_primitive::<Int64Type>().value(row),
            revision: column("revision").as_primitive::<Int16Type>().value(row),
            received_us: column("received").as_primitive::<TimestampMicrosecondType>().value(row),
            value: values.is_valid(row).then(|| values.value(row).to_bits()),
            flags: (
                column("quality").as_primitive::<Int8Type>().value(row),
                optional(column("tests").as_primitive::<Int32Type>(), row),
                column("level").as_primitive::<Int8Type>().value(row),
            ),
        }
    }
}

/// A batch that was read and is not written yet.
struct Held {
    known: Identities,
    /// What becomes of its rows, where that is something else.
    flags: Vec<Option<Flags>>,
}

impl Held {
    fn of(rows: &RecordBatch) -> Result<Self, ControlError> {
        Ok(Self { known: Identities::of(rows)?, flags: vec![None; rows.num_rows()] })
    }

    fn last(&self) -> Option<(&str, i64)> {
        self.known.len().checked_sub(1).map(|last| self.known.moment(last))
    }

    /// The first row from this moment on.
    fn first_from(&self, moment: (&str, i64)) -> usize {
        let (mut low, mut high) = (0, self.known.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.known.moment(middle) < moment { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Puts flags to the row that this is, if it is here and has none yet.
    fn put_in(&mut self, identity: &Identity<'_>, flags: Flags) -> bool {
        for row in self.first_from(identity.moment())..self.known.len() {
            if self.known.moment(row) != identity.moment() {
                return false;
            }
            if self.flags[row].is_none() && self.known.of_row(row) == *identity {
                self.flags[row] = Some(flags);
                return true;
            }
        }
        false
    }

    /// Its rows, with what becomes of them.
    fn rows(&self) -> Result<RecordBatch, ControlError> {
        let rows = &self.known.rows;
        if self.flags.iter().all(Option::is_none) {
            return Ok(rows.clone());
        }
        let flags: Vec<Flags> =
            (0..rows.num_rows()).map(|row| self.flags[row].unwrap_or_else(|| self.known.of_row(row).flags)).collect();
        let ours: [ArrayRef; 3] = [
            Arc::new(flags.iter().map(|(quality, ..)| Some(*quality)).collect::<Int8Array>()),
            Arc::new(flags.iter().map(|(_, tests, _)| *tests).collect::<Int32Array>()),
            Arc::new(flags.iter().map(|(.., level)| Some(*level)).collect::<Int8Array>()),
        ];
        let mut columns = rows.columns().to_vec();
        for (name, ours) in OURS.into_iter().zip(ours) {
            columns[rows.schema().index_of(name)?] = ours;
        }
        Ok(RecordBatch::try_new(rows.schema(), columns)?)
    }
}

/// A file that is read and written anew at once.
struct Copying {
    path: String,
    rows: BoxStream<'static, Result<RecordBatch, LakeError>>,
    /// More than one only where a moment reaches over their border.
    held: VecDeque<Held>,
    anew: Anew,
    rows_changed: usize,
    touched: Spans,
}

impl Copying {
    async fn open(file: &DataFile, lake: &Lake, bounds: &Bounds) -> Result<Self, ControlError> {
        let rows = FileReader::open_unaltered(lake, TableName::Readings, file).await?.rows(BATCH_ROWS)?.boxed();
        let anew = Anew::of(file, &OURS, bounds);
        Ok(Self {
            path: file.path.clone(),
            rows,
            held: VecDeque::new(),
            anew,
            rows_changed: 0,
            touched: Spans::default(),
        })
    }

    /// Puts flags to a row, which comes at or after the moment of the one before.
    async fn put_in(&mut self, lake: &Lake, identity: &Identity<'_>, flags: Flags) -> Result<(), ControlError> {
        loop {
            while self.held.front().is_some_and(|held| held.last() < Some(identity.moment())) {
                self.write_first(lake).await?;
            }
            if self.held.iter_mut().any(|held| held.put_in(identity, flags)) {
                self.rows_changed += 1;
                return Ok(());
            }
            let is_past = self.held.back().is_some_and(|held| held.last() > Some(identity.moment()));
            if is_past || !self.read_next().await? {
                return Err(ControlError::Order { path: self.path.clone(), sensor: identity.sensor.to_owned() });
            }
        }
    }

    /// Reads one more batch; false where there is none.
    async fn read_next(&mut self) -> Result<bool, ControlError> {
        let Some(rows) = self.rows.next().await.transpose()? else { return Ok(false) };
        self.anew.read(&rows)?;
        self.held.push_back(Held::of(&rows)?);
        Ok(true)
    }

    async fn write_first(&mut self, lake: &Lake) -> Result<(), ControlError> {
        if let Some(held) = self.held.pop_front() {
            self.anew.write(lake, &held.rows()?).await?;
        }
        Ok(())
    }

    /// The rest of its rows, and the new files.
    async fn finish(mut self, lake: &Lake) -> Result<Vec<DataFile>, ControlError> {
        loop {
            while !self.held.is_empty() {
                self.write_first(lake).await?;
            }
            if !self.read_next().await? {
                return Ok(self.anew.finish(lake).await?);
            }
        }
    }
}
