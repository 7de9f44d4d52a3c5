//! The flags of rows that were read with their neighbours: what the tests say of each, and which of them change.
//!
//! Several sensors are judged together where their rules are alike. No I/O. A row outside of its sensor's spans keeps the
//! flags that it has, and so does one that a person validated.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int8Array, Int32Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int8Type, Int32Type, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use polars::prelude::PolarsResult;
use tjern_lake::rollup::Spans;
use tjern_readings::reading::Quality;

use super::control::ControlError;
use super::flags::{aggregate, came, came_with};
use super::rules::{Margins, SensorRules};
use super::scope::Span;
use super::series::{Series, flags_of_alike};
use crate::frames::texts;

/// Level of readings that went through the tests.
pub(super) const PROVISIONAL: i8 = 1;
/// Level of readings that a person vouches for: their flags stand.
pub(super) const VALIDATED: i8 = 2;

/// Rows of one sensor, with what they have and what they shall have.
pub(super) struct Judged {
    /// The rows as they were read.
    pub(super) rows: RecordBatch,
    /// Their new flags.
    pub(super) quality: Int8Array,
    /// Their new tests.
    pub(super) tests: Int32Array,
    /// Their new level.
    pub(super) level: Int8Array,
    /// Which of them change.
    pub(super) changed: BooleanArray,
}

impl Judged {
    /// Notes those of some rows of which the quality changes, in their order: nothing else that changes is summed up.
    pub(super) fn note_touched(
        &self,
        some: impl IntoIterator<Item = usize>,
        touched: &mut Spans,
    ) -> Result<(), ControlError> {
        let before = column(&self.rows, "quality").as_primitive::<Int8Type>();
        let times = column(&self.rows, "time").as_primitive::<TimestampMicrosecondType>();
        let sensors = texts(column(&self.rows, "sensor"))?;
        for row in some.into_iter().filter(|row| before.value(*row) != self.quality.value(*row)) {
            touched.add(sensors.value(row), [times.value(row)]);
        }
        Ok(())
    }
}

/// Rows of one sensor, of which some have all of their neighbours beside them.
pub(super) struct Whole {
    pub(super) rows: RecordBatch,
    /// Which of the rows are to be handed on; the others are neighbours.
    pub(super) range: Range<usize>,
    /// By what they are judged; `None`: nothing is known of the sensor.
    pub(super) rules: Option<Arc<SensorRules>>,
    pub(super) margins: Margins,
    /// Which of them are judged anew.
    pub(super) spans: Vec<Span>,
}

/// Judges the rows of several sensors.
pub(super) fn judge(all: Vec<Whole>) -> Result<Vec<Judged>, ControlError> {
    let read: Vec<Read> = all.iter().map(Whole::read).collect();
    let mut found = tests_of(&all, &read)?;
    let each = all.into_iter().zip(read).enumerate();
    each.map(|(place, (whole, read))| whole.judged(&read, std::mem::take(&mut found[place]))).collect()
}

/// The tests of what was read: in one go of all sensors whose rules are alike.
fn tests_of(all: &[Whole], read: &[Read]) -> PolarsResult<Vec<Vec<i32>>> {
    let mut alike: Vec<(&SensorRules, Vec<usize>)> = Vec::new();
    for (place, rules) in all.iter().enumerate().filter_map(|(place, whole)| Some((place, whole.rules.as_deref()?))) {
        match alike.iter_mut().find(|(others, _)| others.are_alike(rules)) {
            Some((_, places)) => places.push(place),
            None => alike.push((rules, vec![place])),
        }
    }
    let mut tests = vec![Vec::new(); all.len()];
    for (_, places) in alike {
        let with_rules = |place: &usize| Some((&read[*place].series, all[*place].rules.as_deref()?));
        let series: Vec<_> = places.iter().filter_map(with_rules).collect();
        for (place, found) in places.iter().zip(flags_of_alike(&series)?) {
            tests[*place] = found;
        }
    }
    Ok(tests)
}

/// The rows of one sensor that have a say, as a series.
struct Read {
    rows: Vec<usize>,
    series: Series,
}

impl Whole {
    fn read(&self) -> Read {
        let times = column(&self.rows, "time").as_primitive::<TimestampMicrosecondType>().values();
        let stored = Stored::of(&self.rows);
        let values = column(&self.rows, "value").as_primitive::<Float64Type>();
        let near = |time_us: i64| {
            let mut spans = self.spans.iter();
            spans.any(|span| span.widened(self.margins.before_us, self.margins.after_us).contains(time_us))
        };
        let rows: Vec<usize> = (0..self.rows.num_rows()).filter(|row| near(times[*row])).collect();
        let mut series = Series::default();
        for row in &rows {
            series.time_us.push(times[*row]);
            series.value.push(values.is_valid(*row).then(|| values.value(*row)));
            let (quality, tests, level) = stored.of_row(*row);
            series.came.push(if level == VALIDATED { came_with(quality) } else { came(quality, tests) });
            // Sorted by what counts: the last row of a moment is its newest word.
            series.counts.push(times.get(row + 1).is_none_or(|next| *next != times[*row]));
        }
        Read { rows, series }
    }

    /// Its rows with what was found of those that were read; nothing was where there are no rules.
    fn judged(self, read: &Read, found: Vec<i32>) -> Result<Judged, ControlError> {
        let stored = Stored::of(&self.rows);
        let mut new: Vec<Flags> = self.range.clone().map(|row| stored.of_row(row)).collect();
        for ((row, tests), place) in read.rows.iter().zip(found).zip(0..) {
            let in_scope = self.spans.iter().any(|span| span.contains(read.series.time_us[place]));
            let (_, _, level) = stored.of_row(*row);
            if in_scope && self.range.contains(row) && level != VALIDATED {
                let has_value = read.series.value[place].is_some();
                let quality = if has_value { aggregate(tests) } else { Quality::Missing };
                new[row - self.range.start] = (quality.code(), (tests != 0).then_some(tests), PROVISIONAL.max(level));
            }
        }
        let changed = self.range.clone().zip(&new).map(|(row, new)| Some(stored.of_row(row) != *new)).collect();
        Ok(Judged {
            rows: self.rows.slice(self.range.start, self.range.len()),
            quality: new.iter().map(|(quality, _, _)| Some(*quality)).collect(),
            tests: new.iter().map(|(_, tests, _)| *tests).collect(),
            level: new.iter().map(|(_, _, level)| Some(*level)).collect(),
            changed,
        })
    }
}

/// Quality, tests and level.
pub(super) type Flags = (i8, Option<i32>, i8);

/// The flags that rows have.
struct Stored<'a> {
    quality: &'a Int8Array,
    tests: &'a Int32Array,
    level: &'a Int8Array,
}

impl<'a> Stored<'a> {
    fn of(rows: &'a RecordBatch) -> Self {
        Self {
            quality: column(rows, "quality").as_primitive::<Int8Type>(),
            tests: column(rows, "tests").as_primitive::<Int32Type>(),
            level: column(rows, "level").as_primitive::<Int8Type>(),
        }
    }

    fn of_row(&self, row: usize) -> Flags {
        let tests = self.tests.is_valid(row).then(|| self.tests.value(row));
        (self.quality.value(row), tests, self.level.value(row))
    }
}

impl Judged {
    /// The rows that a mask chooses, with their new flags, in the columns of the table.
    pub(super) fn rewritten(&self, schema: &SchemaRef, chosen: &BooleanArray) -> Result<RecordBatch, ArrowError> {
        let columns = schema.fields().iter().map(|field| -> Result<ArrayRef, ArrowError> {
            let column: ArrayRef = match field.name().as_str() {
                "quality" => Arc::new(self.quality.clone()),
                "tests" => Arc::new(self.tests.clone()),
                "level" => Arc::new(self.level.clone()),
                name => Arc::clone(column(&self.rows, name)),
            };
            arrow::compute::filter(&arrow::compute::cast(&column, field.data_type())?, chosen)
        });
        RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
    }
}

pub(super) fn column<'a>(rows: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    rows.column_by_name(name).expect("the walk is over columns of `readings`")
}
