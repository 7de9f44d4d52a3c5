//! Readings that were taken before their configuration was there are held against it once it is.
//!
//! It is looked for at no cost: each listing of the landing zone shows the configurations that lie there, and a batch that
//! names it asks for it anyway. What is found is done as if it had been there in time: readings of a sensor whose unit is
//! another one than the register's get quality 4 and the cause `unit`, in place, as quality control sets flags, and so
//! that a replay gives the same rows. A row of a higher revision would not do: what ingest refused counts after what it
//! accepted, whatever the revisions (`docs/decisions/0030-…`, `0036-…`).
//!
//! **No other column changes** ([`crate::anew`]). Each commit stands on the files that it read, moves `ingest`, so that of two
//! ingesters one is refused, and `corrections`, so that nobody corrects what it changes; the last one says that the
//! configuration's readings are checked. So a crash at any place repeats nothing and leaves nothing out. What a
//! person has said of a reading since, a row of its own or that it is valid, stays as it is.
//!
//! Limits: a commit replaces at most [`COMMIT_FILES_MAX`] files and [`COMMIT_BYTES_MAX`] bytes, or one file; batches wait until
//! all of a configuration is checked. A failure keeps nobody's batches: it is told, and tried again after a minute, then after pauses that
//! double up to an hour.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};
use futures::StreamExt;
use tjern_lake::{DataFile, FileReader, Table, TableName, schema};
use tjern_readings::reading::{Cause, Quality};

use super::configurations::{Configurations, Steps};
use super::gathered::{Gathered, Replaced};
use super::refused::Why;
use super::rows::Units;
use super::take::CommitFailure;
use super::unchecked::{self, Name, Unchecked};
use super::{IngestError, IngestOutcome, Ingester};
use crate::anew::{Anew, BATCH_ROWS};
use crate::bounds::Bounds;
use crate::correct::CorrectError;
use crate::quality::evaluate;
use crate::register::{Register, Said};
use crate::tables::{ATTEMPTS_MAX, conform};
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

impl Ingester {
    /// Checks what was taken without its configuration, where that is there now: among those that a listing has seen, or
    /// named again by a batch that was taken.
    pub(super) async fn check_late(&mut self, seen: &BTreeSet<Name>, outcome: &mut IngestOutcome) {
        let now_us = self.lake.clock().now_us();
        if self.known.unchecked.is_empty() {
            self.held.unchecked(None, now_us);
            return;
        }
        let is_there = |name: &&Name| seen.contains(*name) || self.units.contains_key(&unchecked::key(name));
        let due: Vec<Name> = self.known.unchecked.keys().filter(is_there).cloned().collect();
        if due.is_empty() || self.held.unchecked_rests(now_us) {
            return;
        }
        let mut why = None;
        for name in due {
            if let Err(error) = Box::pin(self.check(&name, outcome)).await {
                let key = unchecked::key(&name);
                tracing::warn!(%key, %error, "readings cannot be held against their configuration; it is tried again");
                why = why.or(Some(format!("readings are not held against `{key}`: {error}")));
            }
        }
        self.held.unchecked(why, now_us);
    }

    /// Checks the readings of one configuration, to the end.
    async fn check(&mut self, name: &Name, outcome: &mut IngestOutcome) -> Result<(), IngestError> {
        let mut overtaken = 0;
        while overtaken < ATTEMPTS_MAX {
            self.table.refresh().await?;
            self.learn();
            // Somebody else may have done it.
            let Some(unchecked) = self.known.unchecked.get(name).copied() else { return Ok(()) };
            let Some(units) = self.units_at(&unchecked::key(name)).await? else { return Ok(()) };
            let said = self.said().await?;
            let sensors = other_units(&units, &said.register);
            let wrong = Wrong { name, unchecked, sensors, steps: self.steps_of(name), said: &said };
            let Found { replaced, refused, is_last } = wrong.find(&self.table, &self.bounds).await.map_err(Box::new)?;
            let mut gathered = Gathered::replacing(replaced);
            gathered.transactions.extend(is_last.then(|| unchecked::done(name)).into_iter().flatten());
            refused.iter().for_each(|(sensor, rows)| gathered.refused.add(Why::Unit, &name.0, sensor, *rows));
            match self.commit(gathered).await {
                Ok(()) => {}
                Err(CommitFailure::Refused) => {
                    overtaken += 1;
                    continue;
                }
                Err(CommitFailure::Failed(error)) => return Err(error),
            }
            self.learn();
            overtaken = 0;
            outcome.late_units += refused.values().sum::<usize>();
            for (sensor, readings) in &refused {
                tracing::warn!(source = %name.0, sensor, readings, "a configuration came after its readings, and its unit is not the register's: they are kept and fail");
            }
            if is_last {
                return Ok(());
            }
        }
        Err(IngestError::Overtaken)
    }

    /// Which configuration the numbers of a source's streams have, by epoch.
    fn steps_of(&self, (source, _): &Name) -> HashMap<String, Steps> {
        let mut configurations = Configurations::default();
        let streams = self.known.progress.keys().filter(|(of, _)| of == source);
        let steps =
            streams.map(|stream| (stream.1.to_string(), configurations.of(stream, self.table.transactions()).clone()));
        steps.collect()
    }
}

/// The sensors whose unit is another one than the register's.
fn other_units(units: &Units, register: &Register) -> BTreeSet<String> {
    let differs = |sensor: &str, unit: &str| register.get(sensor).is_some_and(|row| row.unit != unit);
    units.iter().filter(|(sensor, unit)| differs(sensor, unit)).map(|(sensor, _)| sensor.clone()).collect()
}

/// Which readings fail.
struct Wrong<'a> {
    name: &'a Name,
    unchecked: Unchecked,
    sensors: BTreeSet<String>,
    steps: HashMap<String, Steps>,
    said: &'a Said,
}

/// What one commit replaces.
#[derive(Default)]
struct Found {
    replaced: Replaced,
    /// How many readings of which sensors fail by it.
    refused: BTreeMap<String, usize>,
    /// Whether there is no more.
    is_last: bool,
}

impl Wrong<'_> {
    /// Files with such readings, written anew, as many as one commit replaces.
    async fn find(&self, table: &Table, bounds: &Bounds) -> Result<Found, CorrectError> {
        let (mut found, mut bytes) = (Found::default(), 0);
        for file in table.files().into_iter().filter(|file| self.may_be_in(file)) {
            if !self.is_in(table, &file).await? {
                continue;
            }
            if found.replaced.remove.len() >= COMMIT_FILES_MAX || bytes >= COMMIT_BYTES_MAX {
                return Ok(found);
            }
            bytes += file.size;
            let anew = self.refused(table, &file, &mut found, bounds).await?;
            found.replaced.add.extend(anew.finish(table.lake()).await?);
            found.replaced.remove.push(file);
        }
        found.replaced.touched.settle();
        found.is_last = true;
        Ok(found)
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
        let mut rows = FileReader::open(table.lake(), TableName::Readings, file).await?.rows(BATCH_ROWS)?;
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
        let (source, sha256) = self.name;
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
        let evaluated = evaluate(&failed, self.said)?;
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
