//! `recompute`: a sensor was configured wrongly for months. Its stored values go back to what the device
//! said, by the configuration that was in force, and from there to what they should have been.
//!
//! How a configuration makes values is not known here: whoever calls brings [`Formulas`]. What cannot be gone back
//! is left as it is and listed. The reading as it came is computed again, whatever was made of it since; flags that a
//! person gave it stay. Doing it again changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;
use tjern_lake::{Lake, Table};
use tjern_readings::reading::{Cause, Quality};
use tjern_readings::sensor::{SensorId, SourceName};

use super::moments::{Moment, Moments, Stored, Wanted};
use super::origin::Origins;
use super::write::Corrected;
use super::{Author, CorrectError, Prepare, Prepared, Record, correct, utc};
use crate::bounds::Bounds;
use crate::register::Said;

/// How values are made under a configuration, and how they should have been.
pub trait Formulas: Send + Sync {
    /// The formula for a sensor's values that were made under this configuration.
    ///
    /// # Errors
    /// Why there is none, for a person.
    fn formula(&self, configuration: &str, sensor: &SensorId) -> Result<Formula, String>;

    /// What is to be changed, for the record.
    fn words(&self) -> serde_json::Value;
}

/// From a stored value (or the reason why there is none) to what it should have been; an error says why that
/// is not known.
pub type Formula = Box<dyn Fn(Result<f64, Cause>) -> Result<Again, String> + Send + Sync>;

/// What becomes of a stored reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Again {
    /// It has this value.
    Value(f64),
    /// It has no value.
    Missing(Cause),
    /// The change has no bearing on it.
    AsItIs,
}

/// Which readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Of which sensor.
    pub sensor: SensorId,
    /// From this time on, in microseconds since 1970.
    pub from_us: i64,
    /// Up to and without this one.
    pub to_us: i64,
}

impl Period {
    pub(crate) fn words(&self) -> serde_json::Value {
        json!({ "sensor": self.sensor.as_str(), "from": utc(self.from_us), "to": utc(self.to_us) })
    }

    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted { sensors: vec![self.sensor.as_str()], from_us: self.from_us, to_us: self.to_us }
    }
}

/// A reading that gets another value.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Its time, in microseconds since 1970.
    pub time_us: i64,
    /// Its value until now.
    pub before: Option<f64>,
    /// Its value from now on.
    pub after: Option<f64>,
}

/// A reading that was left as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Left {
    /// Its time, in microseconds since 1970.
    pub time_us: i64,
    /// Its value.
    pub value: Option<f64>,
    /// Why.
    pub reason: Arc<str>,
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecomputeOutcome {
    /// How many readings there are in the period.
    pub readings: usize,
    /// How many got another value.
    pub corrected: usize,
    /// How many had the right one already.
    pub already: usize,
    /// How many had none to begin with: the device had not answered.
    pub without_value: usize,
    /// What was left.
    pub left: Vec<Left>,
    /// Of a dry run: what would be changed.
    pub would_change: Vec<Changed>,
}

/// Computes a sensor's readings again.
///
/// # Errors
/// [`CorrectError`]; nothing was changed then.
pub async fn recompute(
    lake: &Lake,
    period: &Period,
    formulas: &dyn Formulas,
    author: &Author,
    dry_run: bool,
) -> Result<RecomputeOutcome, CorrectError> {
    recompute_within(lake, period, formulas, author, dry_run, &Bounds::default()).await
}

/// The same within these bounds.
///
/// # Errors
/// [`CorrectError`]; nothing was changed then.
pub async fn recompute_within(
    lake: &Lake,
    period: &Period,
    formulas: &dyn Formulas,
    author: &Author,
    dry_run: bool,
    bounds: &Bounds,
) -> Result<RecomputeOutcome, CorrectError> {
    let mut words = period.words();
    if let (Some(words), serde_json::Value::Object(change)) = (words.as_object_mut(), formulas.words()) {
        words.extend(change);
    }
    recompute_as(lake, period, formulas, Record::new(lake, "recompute", author, words), dry_run, bounds).await
}

/// The same under a record that says what is to be changed.
pub(crate) async fn recompute_as(
    lake: &Lake,
    period: &Period,
    formulas: &dyn Formulas,
    record: Record,
    dry_run: bool,
    bounds: &Bounds,
) -> Result<RecomputeOutcome, CorrectError> {
    let said = Said::load(lake).await?;
    let mut recomputing = Recomputing { period, formulas, said, dry_run, bounds, outcome: RecomputeOutcome::default() };
    if dry_run {
        if let Some(table) = Table::open(lake, tjern_lake::TableName::Readings).await? {
            recomputing.prepare(&table).await?;
        }
        return Ok(recomputing.outcome);
    }
    correct(lake, &record, &mut recomputing).await?;
    Ok(recomputing.outcome)
}

struct Recomputing<'a> {
    period: &'a Period,
    formulas: &'a dyn Formulas,
    said: Said,
    dry_run: bool,
    bounds: &'a Bounds,
    outcome: RecomputeOutcome,
}

impl Prepare for Recomputing<'_> {
    async fn prepare(&mut self, table: &Table) -> Result<Prepared, CorrectError> {
        let mut outcome = RecomputeOutcome::default();
        let mut known =
            Known { period: self.period, formulas: self.formulas, origins: Origins::new(table), made: HashMap::new() };
        let mut moments = Moments::open(table, &self.period.wanted(), self.bounds).await?;
        let mut corrected = Corrected::new(table.lake(), &self.said, self.bounds);
        while let Some(moment) = moments.next().await? {
            outcome.readings += 1;
            let newest = moment.newest();
            let again = match known.again(&moment).await? {
                Ok(again) => again,
                Err(reason) => {
                    outcome.left.push(Left { time_us: newest.time_us, value: newest.value, reason });
                    continue;
                }
            };
            let row = match again {
                Again::AsItIs => {
                    outcome.without_value += 1;
                    continue;
                }
                Again::Value(value) => with_value(newest, value),
                Again::Missing(cause) => without_value(newest, cause),
            };
            if is_same(newest, &row) {
                outcome.already += 1;
                continue;
            }
            outcome.corrected += 1;
            if self.dry_run {
                let (before, after) = (newest.value, row.value);
                outcome.would_change.push(Changed { time_us: newest.time_us, before, after });
            } else {
                corrected.add(newest, row).await?;
            }
        }
        self.outcome = outcome;
        corrected.finish().await
    }
}

/// A row that had no value until now gets the quality of one that came.
pub(super) fn with_value(newest: &Stored, value: f64) -> Stored {
    if newest.value.is_some() {
        return Stored { value: Some(value), ..newest.clone() };
    }
    Stored { value: Some(value), quality: Quality::NotEvaluated.code(), cause: None, tests: None, ..newest.clone() }
}

fn without_value(newest: &Stored, cause: Cause) -> Stored {
    let quality = Quality::Missing.code();
    Stored { value: None, quality, cause: Some(cause.word().to_owned()), tests: None, ..newest.clone() }
}

pub(super) fn is_same(one: &Stored, other: &Stored) -> bool {
    one.value.map(f64::to_bits) == other.value.map(f64::to_bits) && one.cause == other.cause
}

/// The formulas of the configurations that were met.
struct Known<'a> {
    period: &'a Period,
    formulas: &'a dyn Formulas,
    origins: Origins<'a>,
    made: HashMap<(SourceName, String), Result<Formula, Arc<str>>>,
}

impl Known<'_> {
    async fn again(&mut self, moment: &Moment) -> Result<Result<Again, Arc<str>>, CorrectError> {
        let Some(came) = moment.as_it_came() else {
            return Ok(Err("the reading as it came is not stored".into()));
        };
        let cause = || came.cause.as_deref().and_then(|word| word.parse().ok()).unwrap_or(Cause::NotAvailable);
        let stored = came.value.ok_or_else(cause);
        if stored.is_err_and(|cause| !cause.is_of_words()) {
            return Ok(Ok(Again::AsItIs));
        }
        let Some(name) = self.origins.configuration(came).await? else {
            let reason = "it is not known under which configuration it was measured: its batch named none, or is gone";
            return Ok(Err(reason.into()));
        };
        if !self.made.contains_key(&name) {
            let text = self.origins.text(&name.0, &name.1).await?;
            let formula = text.and_then(|text| self.formulas.formula(&text, &self.period.sensor).map_err(Arc::from));
            self.made.insert(name.clone(), formula);
        }
        Ok(match &self.made[&name] {
            Ok(formula) => formula(stored).map_err(Arc::from),
            Err(reason) => Err(Arc::clone(reason)),
        })
    }
}
