//! Validation: a person has looked at a sensor's readings of a period and answers for them. Their `level`
//! becomes 2; nothing else changes, flags neither, and that is asserted.
//!
//! Of each time the newest word is validated: a correction that comes later is a row of its own, and raw again. The commit
//! says who, when and why, and so does a record that stays (see [`correct`](crate::correct)). It removes
//! files, so it is made on the version whose files were read and never rebased; where somebody else was first it is made
//! again as long as those files are there. `:validation/<id>` says which took
//! place, so that a lost reply repeats nothing; doing it again changes nothing.
//!
//! Quality control looks at what was validated, or taken back, as at readings that came: tests of the neighbours go by
//! a validated reading as it is, and one whose word was taken back gets the flags of the rules of its day.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int8Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int8Type, Int16Type, Int64Type, TimestampMicrosecondType};
use datafusion::execution::context::SessionContext;
use tjern_lake::{Commit, CommitError, DataFile, FileWriter, Lake, Operation, Table, TableName, schema};

use crate::correct::recompute::Period;
use crate::correct::{Author, CorrectError, Moments, Record};
use crate::tables::{ATTEMPTS_MAX, collect, conform, engine, sorted};

/// The level of what a person validated.
pub const VALIDATED: i8 = 2;

/// The level of what a person took their word back for.
const PROVISIONAL: i8 = 1;

/// Before the id of one that took place. No source has such a name.
pub(crate) const VALIDATION: &str = ":validation/";

/// How often a commit is tried on files that are still there: others commit every few seconds, and none of them keeps
/// from it for long.
const COMMITS_MAX: u32 = 50;

/// The files of a period with the new levels.
struct Rewritten {
    add: Vec<DataFile>,
    /// Those that they replace.
    remove: Vec<DataFile>,
    /// How many rows changed.
    changed: usize,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValidateOutcome {
    /// How many readings there are in the period.
    pub readings: usize,
    /// How many got another level.
    pub changed: usize,
    /// How many of the period failed a test (quality 4), or have no value.
    pub failed: usize,
}

/// Validates a sensor's readings of a period; with `undo` takes it back.
///
/// # Errors
/// [`CorrectError`]; nothing was validated then.
pub async fn validate(
    lake: &Lake,
    period: &Period,
    author: &Author,
    undo: bool,
) -> Result<ValidateOutcome, CorrectError> {
    let kind = if undo { "validate --undo" } else { "validate" };
    validate_as(lake, period, &Record::new(lake, kind, author, period.words()), undo).await
}

/// The same under a record that says what is to be changed.
pub(crate) async fn validate_as(
    lake: &Lake,
    period: &Period,
    record: &Record,
    undo: bool,
) -> Result<ValidateOutcome, CorrectError> {
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else { return Ok(ValidateOutcome::default()) };
    for _ in 0..ATTEMPTS_MAX {
        let (newest, mut outcome) = newest(&table, period).await?;
        let rewritten = rewrite(&table, period, &newest, undo).await?;
        outcome.changed = rewritten.changed;
        if rewritten.changed == 0 {
            return Ok(outcome);
        }
        let record = record.with_rows(rewritten.changed);
        record.write(lake).await?;
        if commit(&mut table, &record, &rewritten).await? {
            return Ok(outcome);
        }
    }
    Err(CorrectError::Contended)
}

/// Commits the files, again and again while those that they replace are there: what came meanwhile came after this
/// person's word. False where somebody replaced one.
async fn commit(table: &mut Table, record: &Record, rewritten: &Rewritten) -> Result<bool, CorrectError> {
    let own = format!("{VALIDATION}{}", record.id());
    let commit = Commit {
        operation: Operation::Validate,
        add: rewritten.add.clone(),
        remove: rewritten.remove.clone(),
        transactions: vec![(own.clone(), 1)],
        notes: record.notes(),
    };
    for _ in 0..COMMITS_MAX {
        match table.commit(commit.clone()).await {
            Ok(_) => return Ok(true),
            Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
            Err(error) => {
                table.refresh().await?;
                return if table.transaction(&own).is_some() { Ok(true) } else { Err(error.into()) };
            }
        }
        if !rewritten.remove.iter().all(|file| table.is_active(file)) {
            return Ok(false);
        }
    }
    Err(CorrectError::Contended)
}

/// What a row is known by: time, source, epoch, number, revision.
type Identity = (i64, String, String, i64, i16);

/// The newest word of each time of the period.
async fn newest(table: &Table, period: &Period) -> Result<(BTreeSet<Identity>, ValidateOutcome), CorrectError> {
    let mut moments = Moments::open(table, &period.wanted()).await?;
    let (mut newest, mut outcome) = (BTreeSet::new(), ValidateOutcome::default());
    while let Some(moment) = moments.next().await? {
        let row = moment.newest();
        outcome.readings += 1;
        outcome.failed += usize::from(row.value.is_none() || row.quality == 4);
        newest.insert((row.time_us, row.source.clone(), row.epoch.clone(), row.seq, row.revision));
    }
    Ok((newest, outcome))
}

/// The files of the period, written with the new levels.
async fn rewrite(
    table: &Table,
    period: &Period,
    newest: &BTreeSet<Identity>,
    undo: bool,
) -> Result<Rewritten, CorrectError> {
    let context = engine(table.lake())?;
    let (mut add, mut remove, mut changed) = (Vec::new(), Vec::new(), 0);
    for file in table.files().into_iter().filter(|file| may_hold(file, period)) {
        let rows = rows_of(&context, table, &file).await?;
        let (after, count) = leveled(&rows, period, newest, undo)?;
        if count > 0 {
            changed += count;
            let mut writer = FileWriter::sealed(TableName::Readings)?;
            writer.write(&after)?;
            add.push(writer.finish(table.lake()).await?);
            remove.push(file);
        }
    }
    Ok(Rewritten { add, remove, changed })
}

fn may_hold(file: &DataFile, period: &Period) -> bool {
    let sensor = period.sensor.as_str();
    let in_sensors = file.sensor.as_ref().is_none_or(|(low, high)| low.as_str() <= sensor && sensor <= high.as_str());
    in_sensors && file.time_us.is_none_or(|(first, last)| first < period.to_us && period.from_us <= last)
}

/// A file's rows, in the order that it declares.
async fn rows_of(context: &SessionContext, table: &Table, file: &DataFile) -> Result<RecordBatch, CorrectError> {
    let schema = schema::arrow(TableName::Readings);
    let batches = collect(context, table.provider_of(vec![file.clone()])).await?;
    let batches = batches.iter().map(|batch| conform(batch, &schema)).collect::<Result<Vec<_>, _>>()?;
    let rows = concat_batches(&schema, &batches)?;
    Ok(if file.sorted { sorted(&rows, &TableName::Readings.sort_columns())? } else { rows })
}

fn leveled(
    rows: &RecordBatch,
    period: &Period,
    newest: &BTreeSet<Identity>,
    undo: bool,
) -> Result<(RecordBatch, usize), CorrectError> {
    let text = |index: usize| rows.column(index).as_string::<i32>();
    let (sensors, sources, epochs) = (text(0), text(6), text(7));
    let times = rows.column(1).as_primitive::<TimestampMicrosecondType>();
    let numbers = rows.column(8).as_primitive::<Int64Type>();
    let revisions = rows.column(9).as_primitive::<Int16Type>();
    let levels = rows.column(LEVEL).as_primitive::<Int8Type>();
    let is_meant = |row: usize| {
        sensors.value(row) == period.sensor.as_str() && (period.from_us..period.to_us).contains(&times.value(row)) && {
            let (source, epoch) = (sources.value(row).to_owned(), epochs.value(row).to_owned());
            newest.contains(&(times.value(row), source, epoch, numbers.value(row), revisions.value(row)))
        }
    };
    let mut changed = 0;
    let level = |row: usize| match levels.value(row) {
        VALIDATED if undo && is_meant(row) => PROVISIONAL,
        level if undo || level == VALIDATED || !is_meant(row) => level,
        _ => VALIDATED,
    };
    let after: Int8Array = (0..rows.num_rows()).map(level).map(Some).collect();
    for row in 0..rows.num_rows() {
        changed += usize::from(after.value(row) != levels.value(row));
    }
    let mut columns = rows.columns().to_vec();
    columns[LEVEL] = Arc::new(after) as ArrayRef;
    let after = RecordBatch::try_new(rows.schema(), columns)?;
    for (index, column) in after.columns().iter().enumerate().filter(|(index, _)| *index != LEVEL) {
        assert!(Arc::ptr_eq(column, rows.column(index)), "validation changes levels only");
    }
    assert_eq!(after.num_rows(), rows.num_rows(), "validation neither adds nor drops rows");
    Ok((after, changed))
}

/// Where `level` stands among the columns of `readings`.
const LEVEL: usize = 10;

#[cfg(test)]
mod tests;
