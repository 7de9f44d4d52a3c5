//! Which readings fail by what came after them, and their files written anew: beside ingest, in a task of its own.
//!
//! It is handed a table at a version and what is to be looked for, and hands out files that nobody names yet; it
//! commits nothing. A damaged file is left as it is, and is an error once nothing else is found. Whoever lets it go before its end lets go of the files that it wrote. Once the lease may be somebody else's it
//! removes them itself.
//!
//! Under which configurations readings of new sensors came is known once they are read: those configurations are asked for then, each once a
//! search, and of each only the sensors are kept whose unit is another one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int8Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};
use futures::StreamExt;
use tjern_lake::{DataFile, FileReader, Held, Lake, LakeError, Table, TableName, schema};
use tjern_readings::reading::{Cause, Quality};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::configurations::Steps;
use super::super::gathered::Replaced;
use super::super::take::units_in_store;
use super::super::unchecked::{self, Name};
use super::other_units;
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
        work.spawn(wrong.find(table, bounds, clean));
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

/// Under which configuration the numbers of a source's epochs came.
pub(super) type Epochs = HashMap<String, Steps>;

/// How many readings fail: why, whose, and of which sensor.
pub(super) type Refused = BTreeMap<(Cause, String, String), usize>;

/// Which readings fail.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Those of these sensors
    pub(super) sensors: BTreeSet<String>,
    /// between these times, where those are known,
    pub(super) times_us: Option<(i64, i64)>,
    /// whose unit differs by their configuration: by source and by the configuration's SHA-256.
    differing: HashMap<String, HashMap<String, BTreeSet<String>>>,
    /// Which configuration numbers have, by source and epoch.
    steps: HashMap<String, Epochs>,
    /// Whether the sensors' first lines came after their readings: then it matters who wrote those, and every configuration does.
    pub(super) is_of_first_lines: bool,
    pub(super) said: Arc<Said>,
    /// The lease under which it is done; none before there is one.
    held: Option<Held>,
    /// What says, once there is no more of them, that all are held.
    pub(super) done: Vec<(String, i64)>,
}

/// What one commit replaces.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) replaced: Replaced,
    /// How many readings fail by it.
    pub(super) refused: Refused,
    /// The files in which there is no such reading.
    pub(super) clean: Vec<String>,
    /// Whether there is no more.
    pub(super) is_last: bool,
    /// What says so then.
    pub(super) done: Vec<(String, i64)>,
}

impl Wrong {
    /// No reading of these streams fails.
    pub(super) fn nothing(
        said: Arc<Said>,
        held: Option<Held>,
        done: Vec<(String, i64)>,
        steps: HashMap<String, Epochs>,
    ) -> Self {
        let (sensors, differing) = (BTreeSet::new(), HashMap::new());
        Self { sensors, times_us: None, differing, steps, is_of_first_lines: false, said, held, done }
    }

    /// By a configuration these sensors have another unit than the register says.
    pub(super) fn differ(&mut self, (source, sha256): &Name, sensors: BTreeSet<String>) {
        self.differing.entry(source.to_string()).or_default().insert(sha256.clone(), sensors);
    }

    /// Whether no file can have such a reading.
    pub(super) fn is_nowhere(&self, table: &Table) -> bool {
        !table.files().iter().any(|file| self.may_be_in(file))
    }

    /// Files with such readings, written anew, as many as one commit replaces.
    async fn find(mut self, table: Table, bounds: Bounds, clean: HashSet<String>) -> Result<Found, CorrectError> {
        let (mut found, mut bytes, mut damaged) = (Found { done: self.done.clone(), ..Found::default() }, 0, None);
        let is_due = |file: &DataFile| !clean.contains(&file.path) && self.may_be_in(file);
        let due: Vec<DataFile> = table.files().into_iter().filter(is_due).collect();
        for file in due {
            if !self.is_in(&table, &file).await? {
                found.clean.push(file.path);
                continue;
            }
            if found.replaced.remove.len() >= COMMIT_FILES_MAX || bytes >= COMMIT_BYTES_MAX {
                return Ok(found);
            }
            let anew = match self.refused(&table, &file, &mut found, &bounds).await {
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
        let in_time = |(from_us, until_us): (i64, i64)| {
            file.time_us.is_none_or(|(first, last)| first <= until_us && from_us <= last)
        };
        let in_sensors = |(low, high): &(String, String)| {
            let next = self.sensors.range::<String, _>(low..).next();
            next.is_some_and(|sensor| sensor <= high)
        };
        self.times_us.is_none_or(in_time) && !self.sensors.is_empty() && file.sensor.as_ref().is_none_or(in_sensors)
    }

    async fn is_in(&mut self, table: &Table, file: &DataFile) -> Result<bool, CorrectError> {
        let mut rows = FileReader::open(table.lake(), TableName::Readings, file).await?.rows(BATCH_ROWS)?;
        while let Some(batch) = rows.next().await {
            let batch = conform(&batch?, &schema::arrow(TableName::Readings))?;
            self.learn_of(table.lake(), &batch).await?;
            if !self.rows_of(&batch).is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks for the configurations under which these rows came, where first lines ask for them and they are not known yet. One that is
    /// not there is waited for by ingest, which holds these rows against it when it comes.
    async fn learn_of(&mut self, lake: &Lake, batch: &RecordBatch) -> Result<(), CorrectError> {
        if !self.is_of_first_lines {
            return Ok(());
        }
        let rows = Columns::of(batch);
        let mut unknown = BTreeSet::new();
        for row in (0..batch.num_rows()).filter(|row| self.sensors.contains(rows.sensors.value(*row))) {
            let source = rows.sources.value(row);
            let known = self.differing.get(source);
            let sha256 = self.configuration_of(&rows, row);
            unknown.extend(
                sha256
                    .filter(|sha256| known.is_none_or(|known| !known.contains_key(*sha256)))
                    .map(|sha256| (source.to_owned(), sha256.to_owned())),
            );
        }
        for (source, sha256) in unknown {
            let Ok(name) = source.parse().map(|source| (source, sha256)) else { continue };
            let units = units_in_store(lake, &unchecked::key(&name)).await?.unwrap_or_default();
            self.differ(&name, other_units(&units, &self.said.register));
        }
        Ok(())
    }

    fn configuration_of(&self, rows: &Columns<'_>, row: usize) -> Option<&str> {
        let steps = self.steps.get(rows.sources.value(row))?.get(rows.epochs.value(row))?;
        steps.at(rows.numbers.value(row))
    }

    /// Writes a file anew in which these readings fail.
    async fn refused(
        &mut self,
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
            self.learn_of(table.lake(), &batch).await?;
            let wrong = self.rows_of(&batch);
            let rows = Columns::of(&batch);
            let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
            for (row, cause) in &wrong {
                let (source, sensor) = (rows.sources.value(*row), rows.sensors.value(*row));
                *found.refused.entry((*cause, source.to_owned(), sensor.to_owned())).or_default() += 1;
                found.replaced.touched.add(sensor, [times.value(*row)]);
            }
            anew.write(table.lake(), &self.flagged(&batch, &wrong)?).await?;
        }
        Ok(anew)
    }

    /// The rows of a batch that fail: those that ingest would have refused, and did not refuse; and why.
    fn rows_of(&self, batch: &RecordBatch) -> Vec<(usize, Cause)> {
        let rows = Columns::of(batch);
        let revisions = batch.column(9).as_primitive::<Int16Type>();
        let levels = batch.column(LEVEL).as_primitive::<Int8Type>();
        let is_as_it_came = |row: &usize| {
            self.sensors.contains(rows.sensors.value(*row))
                && revisions.value(*row) == 0
                && levels.value(*row) != VALIDATED
        };
        let candidates = (0..batch.num_rows()).filter(is_as_it_came);
        candidates.filter_map(|row| Some((row, self.against(&rows, row)?))).collect()
    }

    /// What speaks against a reading and was not said of it, in the order in which ingest asks.
    fn against(&self, rows: &Columns<'_>, row: usize) -> Option<Cause> {
        let (sensor, source) = (rows.sensors.value(row), rows.sources.value(row));
        let was_refused_by = |cause: Cause| rows.causes.is_valid(row) && rows.causes.value(row) == cause.word();
        if was_refused_by(Cause::NotAssigned) {
            return None;
        }
        let registered = self.said.register.get(sensor);
        if self.is_of_first_lines && registered.is_some_and(|line| !line.accepts(source)) {
            return Some(Cause::NotAssigned);
        }
        if rows.values.is_null(row) || was_refused_by(Cause::Unit) {
            return None;
        }
        let differing = self.differing.get(source)?.get(self.configuration_of(rows, row)?)?;
        differing.contains(sensor).then_some(Cause::Unit)
    }

    /// The batch with the flags and the causes that ingest would have given these rows. One without a value keeps its quality.
    fn flagged(&self, batch: &RecordBatch, wrong: &[(usize, Cause)]) -> Result<RecordBatch, CorrectError> {
        let values = batch.column(2).as_primitive::<Float64Type>();
        let mut qualities = batch.column(QUALITY).as_primitive::<Int8Type>().values().to_vec();
        let mut tests: Vec<Option<i32>> = batch.column(TESTS).as_primitive::<Int32Type>().iter().collect();
        let mut causes: Vec<Option<&str>> = batch.column(CAUSE).as_string::<i32>().iter().collect();
        for (row, cause) in wrong {
            (tests[*row], causes[*row]) = (None, Some(cause.word()));
            if values.is_valid(*row) {
                qualities[*row] = Quality::Fail.code();
            }
        }
        let failed = replaced(batch, qualities.clone(), tests.clone(), &causes)?;
        let evaluated = evaluate(&failed, &self.said)?;
        let judged = evaluated.column(TESTS).as_primitive::<Int32Type>();
        for (row, _) in wrong {
            qualities[*row] = evaluated.column(QUALITY).as_primitive::<Int8Type>().value(*row);
            tests[*row] = judged.is_valid(*row).then(|| judged.value(*row));
        }
        Ok(replaced(batch, qualities, tests, &causes)?)
    }
}

/// What of rows says whether something speaks against them.
struct Columns<'a> {
    sensors: &'a StringArray,
    values: &'a Float64Array,
    causes: &'a StringArray,
    sources: &'a StringArray,
    epochs: &'a StringArray,
    numbers: &'a Int64Array,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        let text = |column: usize| batch.column(column).as_string::<i32>();
        Self {
            sensors: text(0),
            values: batch.column(2).as_primitive::<Float64Type>(),
            causes: text(CAUSE),
            sources: text(6),
            epochs: text(7),
            numbers: batch.column(8).as_primitive::<Int64Type>(),
        }
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
