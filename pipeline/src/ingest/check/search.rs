//! Which readings fail by their configuration, and their files written anew: beside ingest, in a task of its own.
//!
//! It is handed a table at a version and what is to be looked for, and hands out files that nobody names yet; it
//! commits nothing. A damaged file is left as it is, and is an error once nothing else is found. Whoever lets it go before its end lets go of the files that it wrote. Once the lease may be somebody else's it
//! removes them itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};
use futures::StreamExt;
use tjern_lake::{DataFile, FileReader, Held, LakeError, Table, TableName, schema};
use tjern_readings::reading::{Cause, Quality};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::configurations::Steps;
use super::super::gathered::Replaced;
use super::super::unchecked::{Name, Unchecked};
use crate::anew::{Anew, BATCH_ROWS};
use crate::bounds::Bounds;
use crate::correct::CorrectError;
use crate::quality::{self, evaluate};
use crate::register::Said;
use crate::tables::{conform, let_go};
use crate::validate::VALIDATED;

/// So many files, and bytes of files, are replaced by one commit.
const COMMIT_FILES_MAX: usize = 64;
const COMMIT_BYTES_MAX: i64 = 256 << 20;

/// What may change of a row.
const MAY_CHANGE: [&str; 3] = ["quality", "cause", "tests"];

/// Where these stand among the columns of `readings`.
const QUALITY: usize = 3;
const CAUSE: usize = 4;
const LEVEL: usize = 10;
const TESTS: usize = 11;

/// A search under way, or over.
#[derive(Debug)]
pub(super) struct Search {
    /// The version whose files it looks at.
    pub(super) version: i64,
    work: JoinSet<Result<Found, CorrectError>>,
    found: Option<Found>,
}

impl Search {
    /// Begins. Files that are `clean` are not looked at.
    pub(super) fn begin(table: Table, bounds: Bounds, wrong: Wrong, clean: HashSet<String>) -> Self {
        let version = table.version();
        let mut work = JoinSet::new();
        work.spawn(async move { wrong.find(&table, &bounds, &clean).await });
        Self { version, work, found: None }
    }

    /// What was found, if that is known within this time. It stays for who asks again.
    pub(super) async fn found(&mut self, within: Duration) -> Option<Result<Found, CorrectError>> {
        if self.found.is_none() {
            match timeout(within, self.work.join_next()).await {
                Err(_) | Ok(None) => return None,
                Ok(Some(Ok(Ok(found)))) => self.found = Some(found),
                Ok(Some(Ok(Err(error)))) => return Some(Err(error)),
                Ok(Some(Err(ended))) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime ends.
                    Err(_) => return None,
                },
            }
        }
        self.found.clone().map(Ok)
    }

    /// Stops it, and comes back once it does nothing any more.
    pub(super) async fn stop(mut self) {
        self.work.shutdown().await;
    }
}

/// Which readings fail.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Those under this configuration
    pub(super) name: Name,
    /// of these times
    pub(super) unchecked: Unchecked,
    /// and of these sensors, whose unit is another one.
    pub(super) sensors: BTreeSet<String>,
    /// Which configuration the numbers of the source's streams have, by epoch.
    pub(super) steps: HashMap<String, Steps>,
    pub(super) said: Arc<Said>,
    /// The lease under which it is done; none before there is one.
    pub(super) held: Option<Held>,
}

/// What one commit replaces.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) replaced: Replaced,
    /// How many readings of which sensors fail by it.
    pub(super) refused: BTreeMap<String, usize>,
    /// The files in which there is no such reading.
    pub(super) clean: Vec<String>,
    /// Whether there is no more.
    pub(super) is_last: bool,
}

impl Wrong {
    /// Files with such readings, written anew, as many as one commit replaces.
    async fn find(&self, table: &Table, bounds: &Bounds, clean: &HashSet<String>) -> Result<Found, CorrectError> {
        let (mut found, mut bytes, mut damaged) = (Found::default(), 0, None);
        let is_due = |file: &DataFile| !clean.contains(&file.path) && self.may_be_in(file);
        for file in table.files().into_iter().filter(is_due) {
            if !self.is_in(table, &file).await? {
                found.clean.push(file.path);
                continue;
            }
            if found.replaced.remove.len() >= COMMIT_FILES_MAX || bytes >= COMMIT_BYTES_MAX {
                return Ok(found);
            }
            let anew = match self.refused(table, &file, &mut found, bounds).await {
                Err(error @ CorrectError::Lake(LakeError::Altered { .. })) => {
                    damaged.get_or_insert(error);
                    continue;
                }
                written => written?,
            };
            bytes += file.size;
            found.replaced.add.extend(anew.finish(table.lake()).await?);
            found.replaced.remove.push(file);
            if self.held.as_ref().is_some_and(|held| !held.is_held()) {
                // An erasure may have begun before the last of them was there, and be over.
                let_go(table.lake(), TableName::Readings, &found.replaced.add).await;
                return Err(CorrectError::Lost { job: quality::JOB });
            }
        }
        found.replaced.touched.settle();
        found.is_last = damaged.is_none();
        match damaged {
            Some(error) if found.replaced.remove.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    fn may_be_in(&self, file: &DataFile) -> bool {
        let Unchecked { from_us, until_us, .. } = self.unchecked;
        let in_time = file.time_us.is_none_or(|(first, last)| first <= until_us && from_us <= last);
        let in_sensors = |(low, high): &(String, String)| self.sensors.iter().any(|one| low <= one && one <= high);
        in_time && !self.sensors.is_empty() && file.sensor.as_ref().is_none_or(in_sensors)
    }

    async fn is_in(&self, table: &Table, file: &DataFile) -> Result<bool, CorrectError> {
        let mut rows = FileReader::open(table.lake(), TableName::Readings, file).await?.rows(BATCH_ROWS)?;
        while let Some(batch) = rows.next().await {
            if !self.rows_of(&conform(&batch?, &schema::arrow(TableName::Readings))?).is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a file anew in which these readings fail.
    async fn refused(
        &self,
        table: &Table,
        file: &DataFile,
        found: &mut Found,
        bounds: &Bounds,
    ) -> Result<Anew, CorrectError> {
        let mut anew = Anew::of(file, &MAY_CHANGE, bounds);
        let rows = FileReader::open_unaltered(table.lake(), TableName::Readings, file).await?;
        let mut rows = rows.rows(BATCH_ROWS)?;
        while let Some(batch) = rows.next().await {
            let batch = conform(&batch?, &schema::arrow(TableName::Readings))?;
            anew.read(&batch)?;
            let wrong = self.rows_of(&batch);
            let sensors = batch.column(0).as_string::<i32>();
            let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
            for row in &wrong {
                *found.refused.entry(sensors.value(*row).to_owned()).or_default() += 1;
                found.replaced.touched.add(sensors.value(*row), [times.value(*row)]);
            }
            anew.write(table.lake(), &self.flagged(&batch, &wrong)?).await?;
        }
        Ok(anew)
    }

    /// The rows of a batch that fail: those that ingest would have refused for their unit, and did not refuse.
    fn rows_of(&self, batch: &RecordBatch) -> Vec<usize> {
        let text = |column: usize| batch.column(column).as_string::<i32>();
        let (sensors, causes, sources, epochs) = (text(0), text(CAUSE), text(6), text(7));
        let values = batch.column(2).as_primitive::<Float64Type>();
        let numbers = batch.column(8).as_primitive::<Int64Type>();
        let revisions = batch.column(9).as_primitive::<Int16Type>();
        let levels = batch.column(LEVEL).as_primitive::<Int8Type>();
        let (source, sha256) = &self.name;
        let was_refused = |row: usize| {
            let refused = [Cause::NotAssigned, Cause::Unit].map(Cause::word);
            causes.is_valid(row) && refused.contains(&causes.value(row))
        };
        let is_under_it = |row: usize| {
            let steps = self.steps.get(epochs.value(row));
            steps.and_then(|steps| steps.at(numbers.value(row))) == Some(sha256.as_str())
        };
        let is_wrong = |row: &usize| {
            sources.value(*row) == source.as_str()
                && self.sensors.contains(sensors.value(*row))
                && values.is_valid(*row)
                && revisions.value(*row) == 0
                && levels.value(*row) != VALIDATED
                && !was_refused(*row)
                && is_under_it(*row)
        };
        (0..batch.num_rows()).filter(is_wrong).collect()
    }

    /// The batch with the flags and the cause that ingest would have given these rows.
    fn flagged(&self, batch: &RecordBatch, wrong: &[usize]) -> Result<RecordBatch, CorrectError> {
        let mut qualities = batch.column(QUALITY).as_primitive::<Int8Type>().values().to_vec();
        let mut tests: Vec<Option<i32>> = batch.column(TESTS).as_primitive::<Int32Type>().iter().collect();
        let mut causes: Vec<Option<&str>> = batch.column(CAUSE).as_string::<i32>().iter().collect();
        for row in wrong {
            (qualities[*row], tests[*row], causes[*row]) = (Quality::Fail.code(), None, Some(Cause::Unit.word()));
        }
        let failed = replaced(batch, qualities.clone(), tests.clone(), &causes)?;
        let evaluated = evaluate(&failed, &self.said)?;
        let judged = evaluated.column(TESTS).as_primitive::<Int32Type>();
        for row in wrong {
            qualities[*row] = evaluated.column(QUALITY).as_primitive::<Int8Type>().value(*row);
            tests[*row] = judged.is_valid(*row).then(|| judged.value(*row));
        }
        Ok(replaced(batch, qualities, tests, &causes)?)
    }
}

fn replaced(
    batch: &RecordBatch,
    qualities: Vec<i8>,
    tests: Vec<Option<i32>>,
    causes: &[Option<&str>],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut columns = batch.columns().to_vec();
    let set: [(usize, ArrayRef); 3] = [
        (QUALITY, Arc::new(Int8Array::from(qualities))),
        (TESTS, Arc::new(Int32Array::from(tests))),
        (CAUSE, Arc::new(StringArray::from(causes.to_vec()))),
    ];
    for (place, column) in set {
        columns[place] = column;
    }
    RecordBatch::try_new(batch.schema(), columns)
}
