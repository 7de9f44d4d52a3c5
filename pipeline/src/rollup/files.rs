//! The files of a rollup table that a commit takes away and brings.

use std::collections::HashSet;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use datafusion::execution::context::SessionContext;
use tjern_lake::rollup::{Selection, Window};
use tjern_lake::{DataFile, Lake, Table, write_file};

use super::RollupError;
use super::months::month;
use super::read::rollup_schema;
use crate::frames::texts;
use crate::tables::{collect, conform, sorted};

/// A file has no more rows than this, so that a city of many sensors need not rewrite a whole month
/// for one of them.
const FILE_ROWS_MAX: usize = 1 << 20;

const ORDER: [&str; 3] = ["sensor", "time", "quality"];

/// What a commit will be made of.
pub(crate) struct Rewrite<'a> {
    lake: &'a Lake,
    table: &'a Table,
    context: &'a SessionContext,
    pub(crate) add: Vec<DataFile>,
    pub(crate) remove: Vec<DataFile>,
    pub(crate) rows_computed: usize,
}

impl<'a> Rewrite<'a> {
    pub(crate) const fn new(lake: &'a Lake, table: &'a Table, context: &'a SessionContext) -> Self {
        Self { lake, table, context, add: Vec::new(), remove: Vec::new(), rows_computed: 0 }
    }

    /// Adds the rows of one month to what else the table will have.
    pub(crate) async fn append(&mut self, rows: RecordBatch) -> Result<(), RollupError> {
        self.rows_computed += rows.num_rows();
        self.write(&rows).await
    }

    /// Takes away every row of a window that starts at this moment or later. Files that hold nothing else go, those that
    /// hold nothing of it stay as they are. Where one is written again, `closed` windows before that moment, which are computed
    /// anew, are not in it.
    pub(crate) async fn take_away_from(&mut self, from_us: i64, closed: &Selection) -> Result<(), RollupError> {
        let reaches = |file: &DataFile| file.time_us.is_none_or(|(_, last_us)| last_us >= from_us);
        for file in self.table.files().into_iter().filter(reaches) {
            if file.time_us.is_none_or(|(first_us, _)| first_us < from_us) {
                let stays = |sensor: &str, start_us: i64| start_us < from_us && !closed.contains(sensor, start_us);
                self.keep(vec![file.clone()], stays, Vec::new()).await?;
            }
            self.remove.push(file);
        }
        Ok(())
    }

    /// Puts `rows` in the place of what the table has of `windows`, all of which start in `month`.
    /// `touched` are all windows that this commit replaces, for files that reach beyond the month.
    pub(crate) async fn replace(
        &mut self,
        month: Window,
        windows: &Selection,
        touched: &Selection,
        rows: RecordBatch,
    ) -> Result<(), RollupError> {
        self.rows_computed += rows.num_rows();
        let files = self.files_with(month, windows);
        self.keep(files.clone(), |sensor, start_us| !touched.contains(sensor, start_us), vec![rows]).await?;
        self.remove.extend(files);
        Ok(())
    }

    /// Writes those rows of some files that stay, and others with them.
    async fn keep(
        &mut self,
        files: Vec<DataFile>,
        stays: impl Fn(&str, i64) -> bool,
        mut rows: Vec<RecordBatch>,
    ) -> Result<(), RollupError> {
        for batch in collect(self.context, self.table.provider_of(files)).await? {
            let batch = conform(&batch, &rollup_schema())?;
            let sensors = texts(batch.column(0))?;
            let starts = batch.column(1).as_primitive::<TimestampMicrosecondType>().clone();
            let stay: BooleanArray =
                (0..batch.num_rows()).map(|row| Some(stays(sensors.value(row), starts.value(row)))).collect();
            rows.push(filter_record_batch(&batch, &stay)?);
        }
        for rows in by_month(&concat_batches(&rollup_schema(), &rows)?)? {
            self.write(&rows).await?;
        }
        Ok(())
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

    async fn write(&mut self, rows: &RecordBatch) -> Result<(), RollupError> {
        let rows = sorted(rows, &ORDER)?;
        for start in (0..rows.num_rows()).step_by(FILE_ROWS_MAX) {
            let part = rows.slice(start, FILE_ROWS_MAX.min(rows.num_rows() - start));
            self.add.push(write_file(self.lake, self.table.name(), &[part]).await?);
        }
        Ok(())
    }
}

fn by_month(rows: &RecordBatch) -> Result<Vec<RecordBatch>, RollupError> {
    let starts = rows.column(1).as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>();
    let months: Vec<Window> = starts.values().iter().map(|start_us| month(*start_us)).collect();
    let mut distinct = months.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let parts = distinct.into_iter().map(|wanted| {
        let mask: BooleanArray = months.iter().map(|month| Some(*month == wanted)).collect();
        Ok(filter_record_batch(rows, &mask)?)
    });
    parts.collect()
}
