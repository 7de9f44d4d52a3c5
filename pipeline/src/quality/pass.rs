//! One pass over some files and what lies around them: what they touch, what is wrong in them, and
//! how they are written anew.
//!
//! DataFusion reads and sorts, within its memory; the walk judges; what is written is counted and
//! hashed against what was read, but for the three columns that are ours to change.

use std::collections::BTreeSet;

use arrow::array::{AsArray, BooleanArray, Int32Array, RecordBatch};
use arrow::datatypes::{Int8Type, Int32Type, TimestampMicrosecondType};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::prelude::{DataFrame, Expr, col, lit};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use tjern_lake::rollup::Spans;
use tjern_lake::{DataFile, FileWriter, Lake, Table, TableName, precedence, schema};

use super::control::ControlError;
use super::scope::{Scope, Sensors, Span, times_of};
use super::walk::{Judged, Walk, column};
use crate::frames::texts;
use crate::tables::{conform, engine};

/// The number of the file that a row comes from; below 0: from one around it.
const FILE: &str = "file";

/// More sensors than this are asked for by their least and greatest name.
const LISTED_SENSORS_MAX: usize = 256;

/// The columns that quality control may change.
const OURS: [&str; 3] = ["quality", "tests", "level"];

/// What flags follow from, and the order in which the walk wants rows.
const NEEDED: [&str; 12] =
    ["sensor", "time", "value", "quality", "cause", "tests", "level", "revision", "received", "source", "epoch", "seq"];

/// What a pass wrote, to be committed.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    pub(super) add: Vec<DataFile>,
    pub(super) remove: Vec<DataFile>,
    pub(super) rows_changed: usize,
    /// The rows whose `quality` changed: nothing else of what changed here is summed up.
    pub(super) touched: Spans,
}

/// The engine of a run.
pub(super) struct Pass {
    lake: Lake,
    context: SessionContext,
}

impl Pass {
    pub(super) fn new(lake: &Lake) -> Result<Self, ControlError> {
        Ok(Self { lake: lake.clone(), context: engine(lake)? })
    }

    /// Adds what the rows of a file touch to the scope. A file that vacuum took already counts as far
    /// as the log says that it reached.
    pub(super) async fn touched(
        &self,
        table: &Table,
        file: &DataFile,
        sensors: &mut Sensors<'_>,
        scope: &mut Scope,
    ) -> Result<(), ControlError> {
        let rows =
            self.context.read_table(table.provider_of(vec![file.clone()]))?.select_columns(&["sensor", "time"])?;
        let mut batches = rows.execute_stream().await?;
        loop {
            let batch = match batches.try_next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(()),
                Err(error) if is_gone(&error) => {
                    let (from_us, to_us) = file.time_us.unwrap_or((i64::MIN, i64::MAX));
                    sensors.touch_all(file.sensor.as_ref(), Span { from_us, to_us }, scope);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let names = texts(batch.column(0))?;
            let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                let name = names.value(row);
                if let Some(known) = sensors.get(name) {
                    let at = Span { from_us: times.value(row), to_us: times.value(row) };
                    scope.touch(name, at, known.margins);
                }
            }
        }
    }

    /// Which of these files have a row whose flags are not what they should be.
    pub(super) async fn survey(
        &self,
        table: &Table,
        files: Vec<DataFile>,
        sensors: &mut Sensors<'_>,
        scope: &Scope,
    ) -> Result<Vec<DataFile>, ControlError> {
        let scope = scope.of(&files);
        if scope.is_empty() {
            return Ok(Vec::new());
        }
        let reads = scope.reads(sensors);
        let filter = inside(&scope, &reads);
        let mut parts = Vec::new();
        for (number, file) in files.iter().enumerate() {
            parts.push(self.part(table, vec![file.clone()], number_of(number), Some(&filter), &NEEDED)?);
        }
        let rows = self.with_others(table, &files, &reads, &filter, parts, &NEEDED)?;
        let mut wrong = BTreeSet::new();
        Walk { sensors, scope: &scope }
            .run(rows.execute_stream().await?, |judged: Judged| {
                let from = column(&judged.rows, FILE).as_primitive::<Int32Type>();
                let changed = (0..from.len()).filter(|row| judged.changed.value(*row));
                wrong.extend(changed.filter_map(|row| usize::try_from(from.value(row)).ok()));
                Ok::<_, ControlError>(())
            })
            .await?;
        Ok(files.into_iter().enumerate().filter(|(number, _)| wrong.contains(number)).map(|(_, file)| file).collect())
    }

    /// Writes files anew, each group into one, with the flags that their rows should have. A group
    /// in which none changes is left as it is.
    pub(super) async fn rewrite(
        &self,
        table: &Table,
        groups: &[Vec<DataFile>],
        sensors: &mut Sensors<'_>,
        scope: &Scope,
    ) -> Result<Rewritten, ControlError> {
        let files: Vec<DataFile> = groups.iter().flatten().cloned().collect();
        let scope = scope.of(&files);
        if scope.is_empty() {
            return Ok(Rewritten::default());
        }
        let wanted = schema::arrow(TableName::Readings);
        let columns: Vec<&str> = wanted.fields().iter().map(|field| field.name().as_str()).collect();
        let mut parts = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            parts.push(self.part(table, group.clone(), number_of(number), None, &columns)?);
        }
        let reads = scope.reads(sensors);
        let rows = self.with_others(table, &files, &reads, &inside(&scope, &reads), parts, &columns)?;
        let mut writing = groups.iter().map(|_| Writing::new()).collect::<Result<Vec<_>, _>>()?;
        Walk { sensors, scope: &scope }
            .run(rows.execute_stream().await?, |judged: Judged| {
                let from = column(&judged.rows, FILE).as_primitive::<Int32Type>();
                writing
                    .iter_mut()
                    .enumerate()
                    .try_for_each(|(number, writing)| writing.take(&judged, from, number_of(number)))
            })
            .await?;
        let mut rewritten = Rewritten::default();
        for (writing, group) in writing.into_iter().zip(groups) {
            if writing.rows_changed > 0 {
                rewritten.rows_changed += writing.rows_changed;
                rewritten.touched.merge(&writing.touched);
                rewritten.add.push(self.finish(table, group, writing).await?);
                rewritten.remove.extend(group.iter().cloned());
            }
        }
        Ok(rewritten)
    }

    /// The written file, once it is shown that its rows are those of the files that it replaces.
    async fn finish(&self, table: &Table, group: &[DataFile], writing: Writing) -> Result<DataFile, ControlError> {
        let mut read = Rows::default();
        let rows = self.context.read_table(table.provider_of(group.to_vec()))?;
        let mut batches = rows.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            read.add(&conform(&batch, &schema::arrow(TableName::Readings))?)?;
        }
        if read != writing.written {
            return Err(ControlError::Changed { read: read.count, written: writing.written.count });
        }
        Ok(writing.writer.finish(&self.lake).await?)
    }

    /// Rows of some files, with their number.
    fn part(
        &self,
        table: &Table,
        files: Vec<DataFile>,
        number: i32,
        filter: Option<&Expr>,
        columns: &[&str],
    ) -> Result<DataFrame, ControlError> {
        let rows = self.context.read_table(table.provider_of(files))?;
        let rows = match filter {
            Some(filter) => rows.filter(filter.clone())?,
            None => rows,
        };
        Ok(rows.select_columns(columns)?.with_column(FILE, lit(number))?)
    }

    /// These rows and those around them, in order.
    fn with_others(
        &self,
        table: &Table,
        files: &[DataFile],
        reads: &[Span],
        filter: &Expr,
        parts: Vec<DataFrame>,
        columns: &[&str],
    ) -> Result<DataFrame, ControlError> {
        let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let near = |file: &DataFile| {
            !paths.contains(file.path.as_str()) && reads.iter().any(|span| span.overlaps(times_of(file)))
        };
        let others: Vec<DataFile> = table.files().into_iter().filter(near).collect();
        let mut rows = self.part(table, others, -1, Some(filter), columns)?;
        for part in parts {
            rows = rows.union(part)?;
        }
        let mut order = vec![col("sensor").sort(true, true), col("time").sort(true, true)];
        order.extend(precedence::last());
        Ok(rows.sort(order)?)
    }
}

fn number_of(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn is_gone(error: &DataFusionError) -> bool {
    let mut error: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = error {
        if let Some(object_store::Error::NotFound { .. }) = inner.downcast_ref::<object_store::Error>() {
            return true;
        }
        error = inner.source();
    }
    false
}

/// The rows that the scope's sensors need.
fn inside(scope: &Scope, reads: &[Span]) -> Expr {
    let moment = |time_us: i64| lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())));
    let spans =
        reads.iter().map(|span| col("time").gt_eq(moment(span.from_us)).and(col("time").lt_eq(moment(span.to_us))));
    let time = spans.reduce(Expr::or).unwrap_or_else(|| lit(false));
    let names = scope.sensors();
    let sensors = if names.len() <= LISTED_SENSORS_MAX {
        col("sensor").in_list(names.iter().map(|name| lit(*name)).collect(), false)
    } else {
        let ends = names.first().zip(names.last());
        ends.map_or_else(|| lit(false), |(first, last)| col("sensor").between(lit(*first), lit(*last)))
    };
    time.and(sensors)
}

/// A file in the making.
struct Writing {
    writer: FileWriter,
    written: Rows,
    rows_changed: usize,
    touched: Spans,
}

impl Writing {
    fn new() -> Result<Self, ControlError> {
        // What is rewritten may have been sealed, and compaction has no reason to write it again.
        let writer = FileWriter::sealed(TableName::Readings)?;
        Ok(Self { writer, written: Rows::default(), rows_changed: 0, touched: Spans::default() })
    }

    /// Takes those of the rows that are this file's.
    fn take(&mut self, judged: &Judged, from: &Int32Array, number: i32) -> Result<(), ControlError> {
        let mine: BooleanArray = from.iter().map(|from| Some(from == Some(number))).collect();
        if mine.true_count() == 0 {
            return Ok(());
        }
        self.rows_changed += arrow::compute::and(&mine, &judged.changed)?.true_count();
        let before = column(&judged.rows, "quality").as_primitive::<Int8Type>();
        let times = column(&judged.rows, "time").as_primitive::<TimestampMicrosecondType>();
        // All of one sensor, in the order of time.
        let touched =
            (0..mine.len()).filter(|row| mine.value(*row) && before.value(*row) != judged.quality.value(*row));
        let mut touched = touched.map(|row| times.value(row)).peekable();
        if touched.peek().is_some() {
            let sensors = texts(column(&judged.rows, "sensor"))?;
            self.touched.add(sensors.value(0), touched);
        }
        let rows = judged.rewritten(&schema::arrow(TableName::Readings), &mine)?;
        self.written.add(&rows)?;
        self.writer.write(&rows)?;
        Ok(())
    }
}

/// Rows without their order and without what is ours to change: how many, and the sum of their hashes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Rows {
    count: i64,
    hashes: u64,
}

impl Rows {
    fn add(&mut self, rows: &RecordBatch) -> Result<(), ControlError> {
        let kept = rows
            .schema()
            .fields()
            .iter()
            .zip(rows.columns())
            .filter(|(field, _)| !OURS.contains(&field.name().as_str()))
            .map(|(_, column)| std::sync::Arc::clone(column))
            .collect::<Vec<_>>();
        let mut hashes = vec![0; rows.num_rows()];
        create_hashes(&kept, &RandomState::default(), &mut hashes)?;
        self.count += i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
        self.hashes = hashes.into_iter().fold(self.hashes, u64::wrapping_add);
        Ok(())
    }
}
