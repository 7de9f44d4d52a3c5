//! What a sensor's values are, and so how they may be put together: what the register says of it, now
//! or once. Kinds do not change, so a row that was closed counts too.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::error::{DataFusionError, Result};
use datafusion::prelude::SessionContext;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// What they are.
    pub kind: Kind,
    /// Whether they are radians, and not degrees.
    pub radians: bool,
}

impl Nature {
    /// What nobody registered.
    pub const UNKNOWN: Self = Self { kind: Kind::Sample, radians: false };
}

/// What the register says of all sensors.
#[derive(Debug, Default)]
pub struct Natures {
    natures: HashMap<String, (i64, Nature)>,
    first_registered_us: HashMap<String, i64>,
    newest_us: i64,
}

impl Natures {
    /// Reads a version of the table `sensors`; without one no sensor is known.
    ///
    /// # Errors
    /// Where the table cannot be read, or has a kind that there is not.
    pub async fn read(context: &SessionContext, sensors: Option<&Table>) -> Result<Self> {
        let mut known = Self::default();
        let Some(sensors) = sensors else { return Ok(known) };
        let rows = context.read_table(sensors.provider())?.select_columns(&["id", "kind", "unit", "valid_from"])?;
        for batch in rows.collect().await? {
            let text = |column: usize| cast(batch.column(column), &DataType::Utf8);
            let (ids, kinds, units) = (text(0)?, text(1)?, text(2)?);
            let valid_from = batch.column(3).as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                let id = ids.as_string::<i32>().value(row);
                let kind = kinds.as_string::<i32>().value(row).parse().map_err(|what| {
                    DataFusionError::Execution(format!(
                        "table `sensors`, sensor `{id}`, column `kind`: {what}; hint: register `sensors.csv` again"
                    ))
                })?;
                let radians = units.is_valid(row) && units.as_string::<i32>().value(row) == "rad";
                known.add(id, Nature { kind, radians }, valid_from.value(row));
            }
        }
        Ok(known)
    }

    fn add(&mut self, id: &str, nature: Nature, valid_from_us: i64) {
        let newest = self.natures.entry(id.to_owned()).or_insert((valid_from_us, nature));
        if newest.0 < valid_from_us {
            *newest = (valid_from_us, nature);
        }
        let first = self.first_registered_us.entry(id.to_owned()).or_insert(i64::MAX);
        *first = valid_from_us.min(*first);
        self.newest_us = self.newest_us.max(valid_from_us);
    }

    /// How a sensor's values are put together.
    #[must_use]
    pub fn get(&self, sensor: &str) -> Nature {
        self.natures.get(sensor).map_or(Nature::UNKNOWN, |(_, nature)| *nature)
    }

    /// Whether a sensor counts.
    #[must_use]
    pub fn is_counter(&self, sensor: &str) -> bool {
        self.get(sensor).kind == Kind::Counter
    }

    /// All sensors that count.
    pub fn counters(&self) -> impl Iterator<Item = &str> {
        self.natures.iter().filter(|(_, (_, nature))| nature.kind == Kind::Counter).map(|(id, _)| id.as_str())
    }

    /// The newest row that is taken into account, in microseconds since 1970 UTC; 0 without any.
    #[must_use]
    pub const fn newest_us(&self) -> i64 {
        self.newest_us
    }

    /// The sensors that were first registered after a moment as what unknown ones are not: what was
    /// summed up of them before was summed up wrongly.
    #[must_use]
    pub fn new_since(&self, seen_us: i64) -> BTreeSet<String> {
        let late = self.first_registered_us.iter().filter(|(_, first)| **first > seen_us).map(|(id, _)| id);
        late.filter(|id| self.get(id) != Nature::UNKNOWN).cloned().collect()
    }
}
