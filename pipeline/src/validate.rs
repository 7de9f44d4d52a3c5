//! Validation: a person has looked at a sensor's readings of a period and answers for them. Their `level`
//! becomes 2; nothing else changes, flags neither, and that is asserted.
//!
//! Only what quality control has looked at can be validated: its flags stand from then on, and a person who has not seen that a
//! value failed answers for nothing. Of a sensor that nobody registered there is nothing to test.
//!
//! A file goes through batch by batch beside the newest words of its readings ([`crate::anew`]), in its own order, so that it
//! may have any size; only of a file that is not sorted the words of its whole time are held.
//!
//! Of each time the newest word is validated: a correction that comes later is a row of its own, and raw again. The commit
//! says who, when and why, and so does a record that stays (see [`correct`](crate::correct)). It removes
//! files, so it is made on the version whose files were read and never rebased; where somebody else was first it is made
//! again as long as those files are there. `:validation/<id>` says which took
//! place, so that a lost reply repeats nothing; doing it again changes nothing.
//!
//! From before a file is read until it is committed the lease of quality control is held ([`turn`](self)): an erasure leaves nothing
//! behind in a file that was read before and written after it, and of many at once none works in vain. The fence keeps
//! the data right, also where a lease was lost.
//!
//! Quality control looks at what was validated, or taken back, as at readings that came: tests of the neighbours go by
//! a validated reading as it is, and one whose word was taken back gets the flags of the rules of its day.

mod turn;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, Int8Array, RecordBatch};
use arrow::datatypes::{Int8Type, Int16Type, Int64Type, TimestampMicrosecondType};
use futures::StreamExt;
use tjern_lake::{Commit, CommitError, DataFile, FileReader, Held, Lake, Operation, Table, TableName};
use tokio_util::sync::CancellationToken;

use crate::anew::{Anew, BATCH_ROWS};
use crate::bounds::Bounds;
use crate::correct::recompute::Period;
use crate::correct::{Author, CorrectError, Moment, Moments, Record, Wanted, utc};
use crate::frames::texts;
use crate::quality;
use crate::register::Said;
use crate::tables::{ATTEMPTS_MAX, let_go};

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
    validate_within(lake, period, author, undo, &Bounds::default(), &CancellationToken::new()).await
}

/// The same within these bounds, whatever the size of the files and of the period, until it is told to stop.
///
/// # Errors
/// [`CorrectError`]; nothing was validated then. Of one that was interrupted it is open.
pub async fn validate_within(
    lake: &Lake,
    period: &Period,
    author: &Author,
    undo: bool,
    bounds: &Bounds,
    stop: &CancellationToken,
) -> Result<ValidateOutcome, CorrectError> {
    let kind = if undo { "validate --undo" } else { "validate" };
    validate_as(lake, period, &Record::new(lake, kind, author, period.words()), undo, bounds, stop).await
}

/// The same under a record that says what is to be changed.
pub(crate) async fn validate_as(
    lake: &Lake,
    period: &Period,
    record: &Record,
    undo: bool,
    bounds: &Bounds,
    stop: &CancellationToken,
) -> Result<ValidateOutcome, CorrectError> {
    let lease = turn::turn(lake, stop).await?;
    let held = lease.held();
    let working = Box::pin(validate_alone(lake, period, record, undo, bounds, &held));
    let done = stop.run_until_cancelled(working).await;
    if let Err(error) = lease.give_back().await {
        tracing::warn!(%error, "a lease cannot be given back; it runs out by itself");
    }
    done.ok_or(CorrectError::Interrupted)?
}

/// The same by who holds the lease: what was erased before it was had is not to be read.
async fn validate_alone(
    lake: &Lake,
    period: &Period,
    record: &Record,
    undo: bool,
    bounds: &Bounds,
    held: &Held,
) -> Result<ValidateOutcome, CorrectError> {
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else { return Ok(ValidateOutcome::default()) };
    for _ in 0..ATTEMPTS_MAX {
        let (mut outcome, unjudged) = counted(&table, period, bounds).await?;
        if let Some((count, first_us)) = unjudged.filter(|_| !undo)
            && Said::load(lake).await?.register.get(period.sensor.as_str()).is_some()
        {
            let (sensor, first) = (period.sensor.to_string(), utc(first_us));
            return Err(CorrectError::Unjudged { sensor, count, first });
        }
        let rewritten = rewrite(&table, period, undo, bounds).await?;
        outcome.changed = rewritten.changed;
        if !held.is_held() {
            // An erasure may have begun before the last of them was there, and be over.
            let_go(lake, TableName::Readings, &rewritten.add).await;
            return Err(CorrectError::Lost { job: quality::JOB });
        }
        if rewritten.changed == 0 {
            return Ok(outcome);
        }
        let record = record.with_rows(rewritten.changed);
        record.write(lake).await?;
        if commit(&mut table, &record, &rewritten).await? {
            return Ok(outcome);
        }
        let_go(lake, TableName::Readings, &rewritten.add).await;
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
            // It may be our own, whose reply was lost and which the store's client put once more.
            Err(CommitError::Conflict { .. }) => {
                table.refresh().await?;
                if table.transaction(&own).is_some() {
                    return Ok(true);
                }
            }
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

/// How many readings of the period there are, and how many have no good value; and how many no test has looked at, with
/// the time of the first.
async fn counted(
    table: &Table,
    period: &Period,
    bounds: &Bounds,
) -> Result<(ValidateOutcome, Option<(usize, i64)>), CorrectError> {
    let mut moments = Moments::open(table, &period.wanted(), bounds).await?;
    let (mut outcome, mut unjudged) = (ValidateOutcome::default(), None);
    while let Some(moment) = moments.next().await? {
        let row = moment.newest();
        outcome.readings += 1;
        outcome.failed += usize::from(row.value.is_none() || row.quality == 4);
        if row.level < PROVISIONAL {
            let (count, first_us) = unjudged.unwrap_or((0, row.time_us));
            unjudged = Some((count + 1, first_us));
        }
    }
    Ok((outcome, unjudged))
}

/// The files of the period, written with the new levels.
async fn rewrite(table: &Table, period: &Period, undo: bool, bounds: &Bounds) -> Result<Rewritten, CorrectError> {
    let (mut add, mut remove, mut changed) = (Vec::new(), Vec::new(), 0);
    for file in table.files().into_iter().filter(|file| may_hold(file, period)) {
        if !holds(table, &file, period).await? {
            continue;
        }
        let newest = Newest::of(table, &file, period, bounds).await?;
        let mut levels = Levels { period, newest, undo, changed: 0 };
        let anew = leveled(table, &file, &mut levels, bounds).await?;
        if levels.changed > 0 {
            changed += levels.changed;
            add.extend(anew.finish(table.lake()).await?);
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

/// Whether a file holds a reading of the sensor and the period.
async fn holds(table: &Table, file: &DataFile, period: &Period) -> Result<bool, CorrectError> {
    let mut rows = FileReader::open(table.lake(), TableName::Readings, file).await?.places(BATCH_ROWS)?;
    while let Some(batch) = rows.next().await {
        if !rows_of(&batch?, period)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The rows of a batch that are of the sensor and the period.
fn rows_of(batch: &RecordBatch, period: &Period) -> Result<Vec<usize>, CorrectError> {
    let sensors = texts(batch.column(0))?;
    let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
    let is_meant = |row: &usize| {
        sensors.value(*row) == period.sensor.as_str() && (period.from_us..period.to_us).contains(&times.value(*row))
    };
    Ok((0..batch.num_rows()).filter(is_meant).collect())
}

/// Reads a file and writes it anew with the levels that its rows shall have. Nobody names what was written.
async fn leveled(
    table: &Table,
    file: &DataFile,
    levels: &mut Levels<'_>,
    bounds: &Bounds,
) -> Result<Anew, CorrectError> {
    let mut anew = Anew::of(file, &["level"], bounds);
    let mut rows = FileReader::open_unaltered(table.lake(), TableName::Readings, file).await?.rows(BATCH_ROWS)?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        anew.read(&batch)?;
        anew.write(table.lake(), &levels.of(&batch).await?).await?;
    }
    Ok(anew)
}

/// Which level the rows of a file get.
struct Levels<'a> {
    period: &'a Period,
    newest: Newest,
    undo: bool,
    changed: usize,
}

impl Levels<'_> {
    /// A batch of the file with the new levels.
    async fn of(&mut self, batch: &RecordBatch) -> Result<RecordBatch, CorrectError> {
        let meant = rows_of(batch, self.period)?;
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let Some(last_us) = meant.iter().map(|row| times.value(*row)).max() else { return Ok(batch.clone()) };
        self.newest.read_until(last_us).await?;
        let (sources, epochs) = (texts(batch.column(6))?, texts(batch.column(7))?);
        let numbers = batch.column(8).as_primitive::<Int64Type>();
        let revisions = batch.column(9).as_primitive::<Int16Type>();
        let mut levels = batch.column(LEVEL).as_primitive::<Int8Type>().values().to_vec();
        for row in meant {
            let (source, epoch) = (sources.value(row).to_owned(), epochs.value(row).to_owned());
            let identity = (times.value(row), source, epoch, numbers.value(row), revisions.value(row));
            let after = match levels[row] {
                VALIDATED if self.undo => PROVISIONAL,
                before if self.undo => before,
                _ => VALIDATED,
            };
            if after != levels[row] && self.newest.known.contains(&identity) {
                levels[row] = after;
                self.changed += 1;
            }
        }
        self.newest.forget_before(last_us);
        let mut columns = batch.columns().to_vec();
        columns[LEVEL] = Arc::new(Int8Array::from(levels));
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }
}

/// What a row is known by: time, source, epoch, number, revision.
type Identity = (i64, String, String, i64, i16);

/// The newest words of the period's moments, beside a file that is read. A sorted file is read in their order, so that
/// those of about a batch are held; of one that is not, those of the file's whole time.
struct Newest {
    moments: Moments,
    ahead: Option<Moment>,
    known: BTreeSet<Identity>,
    in_order: bool,
}

impl Newest {
    /// Of the part of the period that the file may hold.
    async fn of(table: &Table, file: &DataFile, period: &Period, bounds: &Bounds) -> Result<Self, CorrectError> {
        let (first_us, last_us) = file.time_us.unwrap_or((i64::MIN, i64::MAX));
        let (from_us, to_us) = (period.from_us.max(first_us), period.to_us.min(last_us.saturating_add(1)));
        let wanted = Wanted { from_us, to_us, ..period.wanted() };
        let mut moments = Moments::open(table, &wanted, bounds).await?;
        let ahead = moments.next().await?;
        Ok(Self { moments, ahead, known: BTreeSet::new(), in_order: file.sorted })
    }

    /// Reads the words up to a time, or all.
    async fn read_until(&mut self, last_us: i64) -> Result<(), CorrectError> {
        while let Some(moment) = &self.ahead {
            let row = moment.newest();
            if self.in_order && row.time_us > last_us {
                break;
            }
            self.known.insert((row.time_us, row.source.clone(), row.epoch.clone(), row.seq, row.revision));
            self.ahead = self.moments.next().await?;
        }
        Ok(())
    }

    /// A moment may go on in the next batch; those before it do not.
    fn forget_before(&mut self, last_us: i64) {
        if self.in_order {
            self.known = self.known.split_off(&(last_us, String::new(), String::new(), i64::MIN, i16::MIN));
        }
    }
}

/// Where `level` stands among the columns of `readings`.
const LEVEL: usize = 10;

#[cfg(test)]
mod tests;
