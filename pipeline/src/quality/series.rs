//! The tests of QARTOD on one sensor's series: values in, flags out, no I/O. Polars computes them.
//!
//! Three steps, each on what the one before left. First each reading by itself: range, season,
//! event. Then spikes, among the readings that count (the newest word of their moment, with a value,
//! not failed so far): a value that is none must not make its neighbours wrong. Last what looks at a
//! stretch, among those that are no spikes: rate, flat line, attenuation, exposure.
//!
//! `formulas` has them. Every one of them stands on comparisons and on least and
//! greatest values, never on running sums of floating-point numbers: those would depend on where a
//! window of readings was cut.

use polars::prelude::*;

use super::flags::{Bits, FAIL, SUSPECT};
use super::formulas;
use super::rules::SensorRules;
use crate::register::{NotGood, Test, not_good_at};
use tjern_readings::reading::Quality;

/// Readings of one sensor, sorted by time. Of several of one moment at most one counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    /// When.
    pub(crate) time_us: Vec<i64>,
    /// What; none where no value was got.
    pub(crate) value: Vec<Option<f64>>,
    /// The flag that it came with, in two bits.
    pub(crate) came: Vec<i32>,
    /// Whether it is the newest word of its moment.
    pub(crate) counts: Vec<bool>,
}

/// The `tests` of each reading; 0 where there is no value.
///
/// # Errors
/// What Polars refuses.
pub(crate) fn flags(series: &Series, rules: &SensorRules) -> PolarsResult<Vec<i32>> {
    let mut tests: Vec<i32> = series.came.iter().map(|came| Bits::Came.put(*came)).collect();
    for (row, tests) in tests.iter_mut().enumerate() {
        *tests |= Bits::Event.put(event(series.time_us[row], &rules.not_good));
    }
    let valued = Part::of(series, |row| series.value[row].is_some());
    valued.apply(formulas::of_a_point(rules), &mut tests)?;
    for (row, tests) in tests.iter_mut().enumerate() {
        *tests = if series.value[row].is_some() { *tests } else { 0 };
    }
    let counting = Part::of(series, |row| series.counts[row] && series.value[row].is_some());
    counting.apply(formulas::of_a_gap(rules), &mut tests)?;
    let usable = Part::of(series, |row| series.counts[row] && series.value[row].is_some() && !failed(tests[row]));
    usable.apply(formulas::of_a_spike(rules), &mut tests)?;
    // What stands out alone is nobody's neighbour, suspect or failed.
    let alone = |tests: i32| failed(tests) || Bits::Spike.get(tests) >= SUSPECT;
    let steady = Part::of(series, |row| series.counts[row] && series.value[row].is_some() && !alone(tests[row]));
    steady.apply(formulas::of_a_stretch(rules), &mut tests)?;
    Ok(tests)
}

/// Whether a reading is no measurement, whatever its neighbours say: nothing but its own tests and
/// spikes are evaluated when this is asked, and a gap says nothing of a value.
const fn failed(tests: i32) -> bool {
    let places = [Bits::Range, Bits::Came, Bits::Climatology, Bits::Event, Bits::Spike, Bits::Backward];
    let mut index = 0;
    while index < places.len() {
        if places[index].get(tests) == FAIL {
            return true;
        }
        index += 1;
    }
    false
}

/// What events say of a moment.
pub(super) fn event(time_us: i64, not_good: &[NotGood]) -> i32 {
    match not_good_at(not_good, time_us) {
        None => 0,
        Some(Quality::Suspect) => SUSPECT,
        Some(_) => FAIL,
    }
}

/// Some readings of a series, all with a value.
struct Part {
    rows: Vec<usize>,
    time_us: Vec<i64>,
    value: Vec<f64>,
}

impl Part {
    fn of(series: &Series, is_in: impl Fn(usize) -> bool) -> Self {
        let rows: Vec<usize> = (0..series.time_us.len()).filter(|row| is_in(*row)).collect();
        let time_us = rows.iter().map(|row| series.time_us[*row]).collect();
        let value = rows.iter().map(|row| series.value[*row].unwrap_or(f64::NAN)).collect();
        Self { rows, time_us, value }
    }

    /// Adds what a formula says to the `tests` of these readings.
    fn apply(self, formula: Option<formulas::Formula>, tests: &mut [i32]) -> PolarsResult<()> {
        let Some(formula) = formula.filter(|_| !self.rows.is_empty()) else { return Ok(()) };
        let mut columns = vec![];
        if formula.needs_months {
            let months: Vec<i8> = self.time_us.iter().map(|time_us| month_of(*time_us)).collect();
            columns.push(Column::new("month".into(), months));
        }
        columns.push(Column::new("time".into(), self.time_us));
        columns.push(Column::new("value".into(), self.value));
        let frame = DataFrame::new(self.rows.len(), columns)?.lazy().with_columns(formula.columns);
        let frame = frame.select([formula.tests.alias("tests")]).collect()?;
        let found = frame.column("tests")?.as_materialized_series().i32()?.clone();
        for (row, found) in self.rows.into_iter().zip(found.iter()) {
            tests[row] |= found.unwrap_or(0);
        }
        Ok(())
    }
}

/// The month, 1 to 12, of a moment in UTC (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", civil_from_days).
fn month_of(time_us: i64) -> i8 {
    let days = time_us.div_euclid(86_400_000_000) + 719_468;
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    i8::try_from(month).unwrap_or_default()
}

/// Whether any rule of these tests holds in some months only.
pub(super) fn seasonal(rules: &SensorRules, tests: &[Test]) -> bool {
    tests.iter().any(|test| rules.lines(*test).any(|(months, _)| months != crate::register::Months::ALL))
}

#[cfg(test)]
mod tests {
    use super::month_of;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn months_are_the_calendars(time_us in -62_135_596_800_000_000_i64..253_402_300_799_999_999) {
            let time = jiff::Timestamp::from_microsecond(time_us).expect("within years 1 to 9999");
            prop_assert_eq!(month_of(time_us), time.to_zoned(jiff::tz::TimeZone::UTC).month());
        }
    }
}
