//! What an import says once more. A file that grew is another file, and all its old lines come again under another epoch: rows
//! that only repeat their source's last word of a moment are left out, so that a log which is appended to and imported
//! each night is stored once, and what a person vouched for stays.
//!
//! A row repeats another if it is of the same sensor, time and source, and has the same value (to the bit), the same flag from outside
//! and the same objection of ingest; what quality control said since is no difference. It is held against the last word that the
//! table has of its own source (no correction: those stand over whatever comes in), and where a commit has several rows of a
//! moment, the one that would count decides for all. So a file that grew changes no more than the file did.
//!
//! Gateways are not looked at: they send each number once, and a look costs a query. One query is made for a commit, of the
//! sensors and of the time of its imported rows.
//!
//! Limits: who reads what is there holds it up: where a data file cannot be read, imports of its time wait, and nobody else.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Float64Type, Int8Type, Int32Type, Int64Type, TimestampMicrosecondType};
use tjern_lake::{Table, precedence};

use crate::bounds::Bounds;
use crate::correct::{CorrectError, Moment, Moments, Stored, Wanted};
use crate::quality::came;
use crate::register::Register;
use crate::validate::VALIDATED;

/// The imported rows of a commit without what is there already.
#[derive(Debug)]
pub(super) struct Sifted {
    pub(super) rows: RecordBatch,
    /// How many repeat what is there.
    pub(super) repeated: usize,
    /// Of how many moments a person's word does not count any more, since another row does.
    pub(super) overruled: usize,
}

/// Sifts rows, which are in the order of sensors and times, by what the table has of their moments. Of a sensor that nobody registered
/// all are kept: when its first line comes, each is held against that under its own configuration, and a word under the wrong unit must not
/// have kept the right one out.
pub(super) async fn sift(
    table: &Table,
    rows: &RecordBatch,
    register: &Register,
    bounds: &Bounds,
) -> Result<Sifted, CorrectError> {
    let rows = Imported::of(rows);
    let Some(wanted) = rows.wanted() else {
        return Ok(Sifted { rows: rows.batch.clone(), repeated: 0, overruled: 0 });
    };
    let mut stored = Moments::open(table, &wanted, bounds).await?;
    let mut ahead = stored.next().await?;
    let (mut kept, mut overruled) = (vec![true; rows.len()], 0);
    for of_moment in rows.moments() {
        let moment = rows.moment(of_moment.start);
        while ahead.as_ref().is_some_and(|there| moment_of(there) < moment) {
            ahead = stored.next().await?;
        }
        let there = ahead.as_ref().filter(|there| moment_of(there) == moment);
        if register.get(moment.0).is_some() {
            rows.leave_out(of_moment.clone(), there, &mut kept);
        }
        let comes_first = |row: usize| kept[row] && there.is_some_and(|there| rows.stands_before(row, there.newest()));
        let is_vouched_for = there.is_some_and(|there| there.newest().level == VALIDATED);
        overruled += usize::from(is_vouched_for && of_moment.clone().any(comes_first));
    }
    let repeated = kept.iter().filter(|kept| !**kept).count();
    let rest = filter_record_batch(rows.batch, &BooleanArray::from(kept))?;
    Ok(Sifted { rows: rest, repeated, overruled })
}

fn moment_of(there: &Moment) -> (&str, i64) {
    (there.newest().sensor.as_str(), there.newest().time_us)
}

/// What a source says of a moment.
#[derive(Debug, PartialEq)]
struct Word<'a> {
    /// As bits: what is no number is the same as itself.
    value: Option<u64>,
    /// The flag that it came with.
    came: i32,
    cause: Option<&'a str>,
}

impl<'a> Word<'a> {
    fn stored(row: &'a Stored) -> Self {
        let (value, cause) = (row.value.map(f64::to_bits), row.cause.as_deref());
        Self { value, came: came(row.quality, row.tests), cause }
    }
}

/// Imported rows of one commit.
struct Imported<'a> {
    batch: &'a RecordBatch,
    sensors: &'a StringArray,
    causes: &'a StringArray,
    sources: &'a StringArray,
    epochs: &'a StringArray,
}

impl<'a> Imported<'a> {
    fn of(batch: &'a RecordBatch) -> Self {
        let text = |index: usize| batch.column(index).as_string::<i32>();
        Self { batch, sensors: text(0), causes: text(4), sources: text(6), epochs: text(7) }
    }

    fn len(&self) -> usize {
        self.batch.num_rows()
    }

    fn time_us(&self, index: usize, row: usize) -> i64 {
        self.batch.column(index).as_primitive::<TimestampMicrosecondType>().value(row)
    }

    fn moment(&self, row: usize) -> (&'a str, i64) {
        (self.sensors.value(row), self.time_us(1, row))
    }

    /// Everything that is to be known of what is there; nothing where there is no row.
    fn wanted(&self) -> Option<Wanted<'a>> {
        let times = || (0..self.len()).map(|row| self.time_us(1, row));
        let (from_us, last_us) = (times().min()?, times().max()?);
        let mut sensors: Vec<&str> = (0..self.len()).map(|row| self.sensors.value(row)).collect();
        sensors.dedup();
        Some(Wanted { sensors, from_us, to_us: last_us.saturating_add(1) })
    }

    /// The rows of each moment.
    fn moments(&self) -> Vec<Range<usize>> {
        let mut moments: Vec<Range<usize>> = Vec::new();
        for row in 0..self.len() {
            match moments.last_mut() {
                Some(last) if self.moment(last.start) == self.moment(row) => last.end = row + 1,
                _ => moments.push(row..row + 1),
            }
        }
        moments
    }

    fn word(&self, row: usize) -> Word<'a> {
        let values = self.batch.column(2).as_primitive::<Float64Type>();
        let tests = self.batch.column(11).as_primitive::<Int32Type>();
        let quality = self.batch.column(3).as_primitive::<Int8Type>().value(row);
        Word {
            value: values.is_valid(row).then(|| values.value(row).to_bits()),
            came: came(quality, tests.is_valid(row).then(|| tests.value(row))),
            cause: self.cause(row),
        }
    }

    fn cause(&self, row: usize) -> Option<&'a str> {
        self.causes.is_valid(row).then(|| self.causes.value(row))
    }

    /// What decides which of a moment's new rows counts, the greatest.
    fn order(&self, row: usize) -> (bool, i64, &'a str, &'a str, i64) {
        let number = self.batch.column(8).as_primitive::<Int64Type>().value(row);
        let is_accepted = !precedence::is_refused(self.cause(row));
        (is_accepted, self.time_us(12, row), self.sources.value(row), self.epochs.value(row), number)
    }

    /// Whether a row counts before one that is there.
    fn stands_before(&self, row: usize, there: &Stored) -> bool {
        let is_accepted = !precedence::is_refused(there.cause.as_deref());
        let order = (is_accepted, there.received_us, there.source.as_str(), there.epoch.as_str(), there.seq);
        let (accepted, ..) = self.order(row);
        // A correction stands over what came in, of which it is; but not what was refused over what was not.
        accepted.cmp(&is_accepted).then(0.cmp(&there.revision)).then(self.order(row).cmp(&order)) == Ordering::Greater
    }

    /// Leaves out which of a moment's rows repeat what their source said last: all of a source, or all but the first, or none.
    fn leave_out(&self, of_moment: Range<usize>, there: Option<&Moment>, kept: &mut [bool]) {
        let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for row in of_moment {
            by_source.entry(self.sources.value(row)).or_default().push(row);
        }
        for (source, mut rows) in by_source {
            rows.sort_by_key(|row| self.order(*row));
            let Some(last) = rows.last().map(|row| self.word(*row)) else { continue };
            let said = there.and_then(|there| there.came_of(source)).map(Word::stored);
            if said.is_some_and(|said| said == last) {
                rows.iter().for_each(|row| kept[*row] = false);
            } else if rows.iter().all(|row| self.word(*row) == last) {
                rows.iter().skip(1).for_each(|row| kept[*row] = false);
            }
        }
    }
}
