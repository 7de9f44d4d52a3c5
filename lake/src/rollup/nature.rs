//! What a sensor's values are, and so how they may be put together: what the register says of it, now
//! or once. Kinds do not change, so a row that was closed counts too. What may change is at what a counter begins again, and which
//! instrument hung where: what was summed up by an earlier word is summed up again ([`Natures::changed_since`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;

use super::counting::{Counting, Installed, Instruments};
use super::{INSTALLATIONS_TRANSACTION, REGISTER_TRANSACTION};
use crate::Table;

/// What a sensor's values are: how they may be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The value at a moment.
    Sample,
    /// The mean over an interval that ends at the reading's time.
    IntervalMean,
    /// The sum over an interval that ends at the reading's time.
    IntervalSum,
    /// A count that only grows, until it wraps or is reset.
    Counter,
    /// A direction: the mean of 350° and 10° is 0°.
    Angle,
    /// A state: its numbers are names.
    State,
}

impl Kind {
    /// Every one there is.
    pub const ALL: &[Self] =
        &[Self::Sample, Self::IntervalMean, Self::IntervalSum, Self::Counter, Self::Angle, Self::State];

    /// The word that stands in files and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::IntervalMean => "interval_mean",
            Self::IntervalSum => "interval_sum",
            Self::Counter => "counter",
            Self::Angle => "angle",
            Self::State => "state",
        }
    }

    /// Whether a reading's time is the end of what it stands for.
    #[must_use]
    pub const fn is_interval(self) -> bool {
        matches!(self, Self::IntervalMean | Self::IntervalSum)
    }

    /// Whether its values may be added up.
    #[must_use]
    pub const fn is_summable(self) -> bool {
        matches!(self, Self::Sample | Self::IntervalMean | Self::IntervalSum)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> std::result::Result<Self, String> {
        Self::ALL.iter().copied().find(|known| known.word() == word).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|known| known.word()).collect();
            format!("`{word}` is none of {}", known.join(", "))
        })
    }
}

/// How a sensor's values are put together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nature {
    /// What they are.
    pub kind: Kind,
    /// Whether they are radians, and not degrees.
    pub radians: bool,
    /// At what a counter begins again.
    pub wraps_at: Option<f64>,
}

impl Nature {
    /// What nobody registered.
    pub const UNKNOWN: Self = Self { kind: Kind::Sample, radians: false, wraps_at: None };
}

/// The newest words of the register that something was made by, in microseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Words {
    /// Of its sensors.
    pub sensors_us: i64,
    /// Of its installations.
    pub installations_us: i64,
}

impl Words {
    /// By which a rollup was made.
    #[must_use]
    pub fn of(rollup: &Table) -> Self {
        let word = |transaction: &str| rollup.transaction(transaction).unwrap_or(i64::MIN);
        Self { sensors_us: word(REGISTER_TRANSACTION), installations_us: word(INSTALLATIONS_TRANSACTION) }
    }

    /// Whether all of these words are known to who knows others.
    #[must_use]
    pub const fn are_known_to(&self, others: &Self) -> bool {
        self.sensors_us <= others.sensors_us && self.installations_us <= others.installations_us
    }

    /// As a commit says them.
    #[must_use]
    pub fn transactions(&self) -> [(String, i64); 2] {
        [(REGISTER_TRANSACTION, self.sensors_us), (INSTALLATIONS_TRANSACTION, self.installations_us)]
            .map(|(transaction, word_us)| (transaction.to_owned(), word_us))
    }
}

/// What the register says of all sensors.
#[derive(Debug, Default)]
pub struct Natures {
    /// By the time from which each counts.
    natures: HashMap<String, BTreeMap<i64, Nature>>,
    /// Of each sensor all lines there ever were.
    installed: HashMap<String, Vec<Line>>,
    /// By the lines that hold.
    instruments: HashMap<String, Instruments>,
    words: Words,
}

/// A line about an instrument, and when it held.
#[derive(Debug)]
struct Line {
    installed: Installed,
    from_us: i64,
    to_us: Option<i64>,
}

impl Line {
    const fn held_at(&self, time_us: i64) -> bool {
        self.from_us <= time_us
            && match self.to_us {
                None => true,
                Some(to_us) => time_us < to_us,
            }
    }

    fn word_us(&self) -> i64 {
        self.from_us.max(self.to_us.unwrap_or(i64::MIN))
    }
}

/// A column of text, as engines hand it out.
fn texts(batch: &RecordBatch, column: usize) -> Result<impl Fn(usize) -> Option<String>> {
    let column = cast(batch.column(column), &DataType::Utf8)?;
    Ok(move |row| column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_owned()))
}

impl Natures {
    /// Reads a version of the tables `sensors` and `installations`; without one nothing is known.
    ///
    /// # Errors
    /// Where a table cannot be read, or has a kind that there is not.
    pub async fn read(
        context: &SessionContext,
        sensors: Option<&Table>,
        installations: Option<&Table>,
    ) -> Result<Self> {
        let mut known = Self::default();
        if let Some(sensors) = sensors {
            known.read_sensors(context, sensors).await?;
        }
        if let Some(installations) = installations {
            known.read_installations(context, installations).await?;
        }
        let holds = |line: &&Line| line.to_us.is_none();
        let instruments = known.installed.iter().map(|(sensor, lines)| (sensor.clone(), of_lines(lines, holds)));
        known.instruments = instruments.collect();
        Ok(known)
    }

    async fn read_sensors(&mut self, context: &SessionContext, sensors: &Table) -> Result<()> {
        const COLUMNS: [&str; 5] = ["id", "kind", "unit", "valid_from", "wraps_at"];
        let rows = context.read_table(sensors.provider())?.select_columns(&COLUMNS)?;
        for batch in rows.collect().await? {
            let (ids, kinds, units) = (texts(&batch, 0)?, texts(&batch, 1)?, texts(&batch, 2)?);
            let valid_from = batch.column(3).as_primitive::<TimestampMicrosecondType>();
            let wraps_at = batch.column(4).as_primitive::<Float64Type>();
            for row in 0..batch.num_rows() {
                let id = ids(row).unwrap_or_default();
                let kind = kinds(row).unwrap_or_default().parse().map_err(|what| {
                    DataFusionError::Execution(format!(
                        "table `sensors`, sensor `{id}`, column `kind`: {what}; hint: register `sensors.csv` again"
                    ))
                })?;
                let radians = units(row).is_some_and(|unit| unit == "rad");
                let wraps_at = wraps_at.is_valid(row).then(|| wraps_at.value(row));
                self.add(&id, Nature { kind, radians, wraps_at }, valid_from.value(row));
            }
        }
        Ok(())
    }

    async fn read_installations(&mut self, context: &SessionContext, installations: &Table) -> Result<()> {
        const COLUMNS: [&str; 7] = ["sensor", "instrument", "serial", "installed", "removed", "valid_from", "valid_to"];
        let rows = context.read_table(installations.provider())?.select_columns(&COLUMNS)?;
        for batch in rows.collect().await? {
            let (sensors, instruments, serials) = (texts(&batch, 0)?, texts(&batch, 1)?, texts(&batch, 2)?);
            let time = |column: usize, row: usize| {
                let times = batch.column(column).as_primitive::<TimestampMicrosecondType>();
                times.is_valid(row).then(|| times.value(row))
            };
            for row in 0..batch.num_rows() {
                let (from_us, to_us) = (time(3, row).unwrap_or_default(), time(4, row));
                let installed = Installed { instrument: instruments(row), serial: serials(row), from_us, to_us };
                let line = Line { installed, from_us: time(5, row).unwrap_or_default(), to_us: time(6, row) };
                self.words.installations_us = self.words.installations_us.max(line.word_us());
                self.installed.entry(sensors(row).unwrap_or_default()).or_default().push(line);
            }
        }
        Ok(())
    }

    fn add(&mut self, id: &str, nature: Nature, valid_from_us: i64) {
        self.natures.entry(id.to_owned()).or_default().insert(valid_from_us, nature);
        self.words.sensors_us = self.words.sensors_us.max(valid_from_us);
    }

    /// How a sensor's values are put together.
    #[must_use]
    pub fn get(&self, sensor: &str) -> Nature {
        self.at(sensor, i64::MAX)
    }

    /// How they were put together by what the register said then.
    fn at(&self, sensor: &str, seen_us: i64) -> Nature {
        let known = self.natures.get(sensor).and_then(|natures| natures.range(..=seen_us).next_back());
        known.map_or(Nature::UNKNOWN, |(_, nature)| *nature)
    }

    /// How a sensor counts.
    #[must_use]
    pub fn counting(&self, sensor: &str) -> Counting<'_> {
        Counting { wraps_at: self.get(sensor).wraps_at, instruments: self.instruments.get(sensor) }
    }

    /// Whether a sensor counts.
    #[must_use]
    pub fn is_counter(&self, sensor: &str) -> bool {
        self.get(sensor).kind == Kind::Counter
    }

    /// All sensors that count.
    pub fn counters(&self) -> impl Iterator<Item = &str> {
        self.natures.keys().map(String::as_str).filter(|id| self.is_counter(id))
    }

    /// The newest words that are taken into account; 0 without any.
    #[must_use]
    pub const fn words(&self) -> Words {
        self.words
    }

    /// The sensors of which these words said something else: what was summed up by them is wrong. Of those that were not
    /// registered it was assumed that they are samples.
    #[must_use]
    pub fn changed_since(&self, seen: Words) -> BTreeSet<String> {
        let others = self.natures.keys().filter(|id| self.at(id, seen.sensors_us) != self.get(id));
        let exchanged = self.installed.iter().filter(|(id, lines)| {
            self.is_counter(id) && {
                let then = of_lines(lines, |line: &&Line| line.held_at(seen.installations_us));
                self.instruments.get(*id) != Some(&then)
            }
        });
        others.chain(exchanged.map(|(id, _)| id)).cloned().collect()
    }
}

fn of_lines(lines: &[Line], holds: impl Fn(&&Line) -> bool) -> Instruments {
    Instruments::of(lines.iter().filter(holds).map(|line| line.installed.clone()))
}
