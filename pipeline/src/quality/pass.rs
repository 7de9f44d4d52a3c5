//! One pass over some files and what lies around them: what they touch, what is wrong in them, and
//! how they are written anew.
//!
//! DataFusion reads and sorts, within the job's memory; the walk judges; what is written is counted and
//! hashed against what was read, but for the three columns that are ours to change ([`crate::anew`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::Int32Type;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SessionContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{DataFrame, Expr, col, lit};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use tjern_lake::rollup::Spans;
use tjern_lake::rollup::touched::each_run;
use tjern_lake::{DataFile, FileReader, Lake, LakeError, Table, TableName, precedence, schema};

use super::control::ControlError;
use super::in_place::{InPlace, OURS};
use super::judge::{Judged, column};
use super::scope::{Scope, Sensors, Span, times_of};
use super::walk::{Take, Walk, held_rows};
use crate::anew::{Anew, BATCH_ROWS};
use crate::bounds::Bounds;
use crate::tables::engine_within;

/// The number of the file that a row comes from; below 0: from one around it.
pub(super) const FILE: &str = "file";
const AROUND: i32 = -1;

/// More sensors than this are asked for by their least and greatest name.
const LISTED_SENSORS_MAX: usize = 256;

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
    /// Of rows that did not fit into memory while they were sorted.
    pub(super) spilled_bytes: usize,
}

/// The engine of a run.
pub(super) struct Pass {
    lake: Lake,
    context: SessionContext,
    bounds: Bounds,
    /// The paths of files that were found damaged.
    left_out: BTreeSet<String>,
}

impl Pass {
    pub(super) fn new(lake: &Lake, bounds: &Bounds) -> Result<Self, ControlError> {
        let (lake, context) = (lake.clone(), engine_within(lake, bounds)?);
        Ok(Self { lake, context, bounds: bounds.clone(), left_out: BTreeSet::new() })
    }

    /// Reads a file no more around others.
    pub(super) fn leave_out(&mut self, file: &DataFile) {
        self.left_out.insert(file.path.clone());
    }

    /// The files that are read beside these, as what is judged in them looks at their rows.
    pub(super) fn neighbours(
        &self,
        table: &Table,
        files: &[DataFile],
        sensors: &mut Sensors<'_>,
        scope: &Scope,
    ) -> Vec<DataFile> {
        self.around(table, files, &scope.of(files).reads(sensors))
    }

    /// The files around some of them that have readings in these spans.
    fn around(&self, table: &Table, files: &[DataFile], reads: &[Span]) -> Vec<DataFile> {
        let mut others = table.files();
        others.retain(|file| {
            let is_near = || reads.iter().any(|span| span.overlaps(times_of(file)));
            !files.iter().any(|own| own.path == file.path) && !self.left_out.contains(&file.path) && is_near()
        });
        others
    }

    /// Adds what the rows of a file touch to the scope. A file that vacuum took already counts as far
    /// as the log says that it reached.
    pub(super) async fn touched(
        &self,
        file: &DataFile,
        sensors: &mut Sensors<'_>,
        scope: &mut Scope,
    ) -> Result<(), ControlError> {
        let read = each_run(&self.lake, file, |name, times_us| {
            if let Some(margins) = sensors.get(name).map(|known| known.margins) {
                for time_us in times_us {
                    scope.touch(name, Span { from_us: *time_us, to_us: *time_us }, margins);
                }
            }
        });
        match read.await {
            // One that is damaged counts so too: if it is in the table still, it is named when it is to be judged.
            Err(LakeError::Unreadable { .. }) => {
                let (from_us, to_us) = file.time_us.unwrap_or((i64::MIN, i64::MAX));
                sensors.touch_all(file.sensor.as_ref(), Span { from_us, to_us }, scope);
                Ok(())
            }
            read => Ok(read?),
        }
    }

    /// Writes those of these files anew that have a row whose flags are not what they should be, each as it lies there.
    /// Returns those of them that are not sorted.
    pub(super) async fn in_place(
        &self,
        table: &Table,
        files: Vec<DataFile>,
        sensors: &mut Sensors<'_>,
        scope: &Scope,
    ) -> Result<(Rewritten, Vec<DataFile>), ControlError> {
        let scope = scope.of(&files);
        if scope.is_empty() {
            return Ok((Rewritten::default(), Vec::new()));
        }
        let reads = scope.reads(sensors);
        let numbered = files.iter().cloned().zip(0..).chain(of_others(self.around(table, &files, &reads)));
        let rows = in_order(self.rows(table, numbered.collect(), Some(&inside(&scope, &reads)), &NEEDED)?)?;
        let mut in_place = InPlace::of(files, &self.lake, &self.bounds);
        let held_rows = held_rows(&self.bounds);
        let sorted = Sorted::of(rows).await?;
        Walk { sensors, scope: &scope, held_rows }.run(sorted.rows(&self.context)?, &mut in_place).await?;
        let (rewritten, unsorted) = in_place.finish().await?;
        Ok((Rewritten { spilled_bytes: sorted.spilled_bytes(), ..rewritten }, unsorted))
    }

    /// Writes files anew into sorted ones, with the flags that their rows should have. Where none changes they are left
    /// as they are.
    pub(super) async fn gather(
        &self,
        table: &Table,
        files: Vec<DataFile>,
        sensors: &mut Sensors<'_>,
        scope: &Scope,
    ) -> Result<Rewritten, ControlError> {
        let scope = scope.of(&files);
        let Some(first) = files.first().filter(|_| !scope.is_empty()) else { return Ok(Rewritten::default()) };
        let wanted = schema::arrow(TableName::Readings);
        let columns: Vec<&str> = wanted.fields().iter().map(|field| field.name().as_str()).collect();
        let reads = scope.reads(sensors);
        let own = self.rows(table, files.iter().cloned().map(|file| (file, 0)).collect(), None, &columns)?;
        let others = of_others(self.around(table, &files, &reads)).collect();
        let others = self.rows(table, others, Some(&inside(&scope, &reads)), &columns)?;
        let rows = in_order(own.union(others)?)?;
        let anew = Anew::of(first, &OURS, &self.bounds);
        let mut gathering = Gathering { lake: &self.lake, anew, rows_changed: 0, touched: Spans::default() };
        let held_rows = held_rows(&self.bounds);
        let sorted = Sorted::of(rows).await?;
        Walk { sensors, scope: &scope, held_rows }.run(sorted.rows(&self.context)?, &mut gathering).await?;
        let spilled_bytes = sorted.spilled_bytes();
        let Gathering { mut anew, rows_changed, touched, .. } = gathering;
        if rows_changed == 0 {
            return Ok(Rewritten { spilled_bytes, ..Rewritten::default() });
        }
        for file in &files {
            let rows = FileReader::open_unaltered(&self.lake, TableName::Readings, file).await?;
            let mut rows = rows.rows(BATCH_ROWS)?;
            while let Some(batch) = rows.next().await {
                anew.read(&batch?)?;
            }
        }
        Ok(Rewritten { add: anew.finish(&self.lake).await?, remove: files, rows_changed, touched, spilled_bytes })
    }

    /// Rows of some files, with the numbers of these.
    fn rows(
        &self,
        table: &Table,
        files: Vec<(DataFile, i32)>,
        filter: Option<&Expr>,
        columns: &[&str],
    ) -> Result<DataFrame, ControlError> {
        let rows = self.context.read_table(table.provider_of_numbered(files, FILE))?;
        let rows = match filter {
            Some(filter) => rows.filter(filter.clone())?,
            None => rows,
        };
        Ok(rows.select_columns(&[columns, &[FILE]].concat())?)
    }
}

/// Files around those that are judged, with the number of such.
fn of_others(files: Vec<DataFile>) -> impl Iterator<Item = (DataFile, i32)> {
    files.into_iter().map(|file| (file, AROUND))
}

/// Rows as the walk wants them.
fn in_order(rows: DataFrame) -> Result<DataFrame, ControlError> {
    let mut order = vec![col("sensor").sort(true, true), col("time").sort(true, true)];
    order.extend(precedence::last());
    Ok(rows.sort(order)?)
}

/// Rows that are sorted as they are asked for, and what that takes.
struct Sorted(Arc<dyn ExecutionPlan>);

impl Sorted {
    async fn of(rows: DataFrame) -> Result<Self, ControlError> {
        Ok(Self(rows.create_physical_plan().await?))
    }

    fn rows(&self, context: &SessionContext) -> Result<SendableRecordBatchStream, ControlError> {
        Ok(execute_stream(Arc::clone(&self.0), context.task_ctx())?)
    }

    /// What went to disk.
    fn spilled_bytes(&self) -> usize {
        fn of(plan: &dyn ExecutionPlan) -> usize {
            let own = plan.metrics().and_then(|metrics| metrics.spilled_bytes()).unwrap_or(0);
            own + plan.children().into_iter().map(|child| of(child.as_ref())).sum::<usize>()
        }
        of(self.0.as_ref())
    }
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

/// Files that become others, sorted.
struct Gathering<'a> {
    lake: &'a Lake,
    anew: Anew,
    rows_changed: usize,
    touched: Spans,
}

impl Take for Gathering<'_> {
    async fn take(&mut self, judged: Judged) -> Result<(), ControlError> {
        let from = column(&judged.rows, FILE).as_primitive::<Int32Type>();
        let mine: BooleanArray = from.iter().map(|from| Some(from == Some(0))).collect();
        if mine.true_count() == 0 {
            return Ok(());
        }
        self.rows_changed += arrow::compute::and(&mine, &judged.changed)?.true_count();
        judged.note_touched((0..mine.len()).filter(|row| mine.value(*row)), &mut self.touched)?;
        let rows = judged.rewritten(&schema::arrow(TableName::Readings), &mine)?;
        Ok(self.anew.write(self.lake, &rows).await?)
    }
}
