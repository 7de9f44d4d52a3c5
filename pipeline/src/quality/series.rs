//! The tests of QARTOD on sensors' series: values in, flags out, no I/O. Polars computes them.
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
use super::formulas::{self, Formula};
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
    Ok(flags_of_alike(&[(series, rules)])?.pop().unwrap_or_default())
}

/// The `tests` of each reading of several sensors whose rules are alike ([`SensorRules::are_alike`]): a plan of Polars
/// takes longer to make than to run over a day's readings, so they share it.
///
/// # Errors
/// What Polars refuses.
pub(crate) fn flags_of_alike(all: &[(&Series, &SensorRules)]) -> PolarsResult<Vec<Vec<i32>>> {
    let Some((_, rules)) = all.first() else { return Ok(Vec::new()) };
    let margins = rules.margins();
    flags_of_apart(all, rules, margins.before_us.saturating_add(margins.after_us).saturating_add(1))
}

/// The same with another distance between the series, so that a test can see what happens with too short a one.
pub(super) fn flags_of_apart(
    all: &[(&Series, &SensorRules)],
    rules: &SensorRules,
    apart_us: i64,
) -> PolarsResult<Vec<Vec<i32>>> {
    let (mut found, mut line) = (Vec::with_capacity(all.len()), Line::default());
    for (series, own) in all {
        if !line.push(series, own, apart_us) {
            found.extend(std::mem::take(&mut line).flags(rules)?);
            line.push(series, own, apart_us);
        }
    }
    found.extend(line.flags(rules)?);
    Ok(found)
}

/// Series one after another, each put off so far that none of its readings is within the margins of another's.
#[derive(Default)]
struct Line {
    /// When a reading was taken.
    time_us: Vec<i64>,
    /// Where on the line it stands.
    place_us: Vec<i64>,
    value: Vec<Option<f64>>,
    counts: Vec<bool>,
    /// Which instrument of its sensor measured it.
    instrument: Vec<i64>,
    tests: Vec<i32>,
    /// Where each series ends.
    ends: Vec<usize>,
}

impl Line {
    /// Adds a series, if there is room: the first one always has it.
    fn push(&mut self, series: &Series, own: &SensorRules, apart_us: i64) -> bool {
        let Some((first_us, last_us)) = series.time_us.first().zip(series.time_us.last()) else {
            self.ends.push(self.time_us.len());
            return true;
        };
        let put_off = self.place_us.last().map_or(Some(0), |end| end.checked_add(apart_us)?.checked_sub(*first_us));
        let Some(put_off_us) = put_off.filter(|put_off| last_us.checked_add(*put_off).is_some()) else { return false };
        self.place_us.extend(series.time_us.iter().map(|time_us| time_us + put_off_us));
        self.time_us.extend(&series.time_us);
        self.value.extend(&series.value);
        self.counts.extend(&series.counts);
        let instrument = |time_us: &i64| i64::try_from(own.instruments.number(*time_us)).unwrap_or(i64::MAX);
        self.instrument.extend(series.time_us.iter().map(instrument));
        let came = series.time_us.iter().zip(&series.came);
        self.tests.extend(
            came.map(|(time_us, came)| Bits::Came.put(*came) | Bits::Event.put(event(*time_us, &own.not_good))),
        );
        self.ends.push(self.time_us.len());
        true
    }

    /// The tests of each series.
    fn flags(mut self, rules: &SensorRules) -> PolarsResult<Vec<Vec<i32>>> {
        let has_value = |line: &Self, row: usize| line.value[row].is_some();
        let counts = |line: &Self, row: usize| line.counts[row] && has_value(line, row);
        self.apply(formulas::of_a_point(rules), has_value)?;
        for (value, tests) in self.value.iter().zip(&mut self.tests) {
            *tests = if value.is_some() { *tests } else { 0 };
        }
        self.apply(formulas::of_a_gap(rules), counts)?;
        self.apply(formulas::of_a_spike(rules), |line, row| counts(line, row) && !failed(line.tests[row]))?;
        // What stands out alone is nobody's neighbour, suspect or failed.
        let alone = |tests: i32| failed(tests) || Bits::Spike.get(tests) >= SUSPECT;
        self.apply(formulas::of_a_stretch(rules), |line, row| counts(line, row) && !alone(line.tests[row]))?;
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        Ok(begins.zip(&self.ends).map(|(begin, end)| self.tests[begin..*end].to_vec()).collect())
    }

    /// Adds to the tests of some readings, all with a value, what a formula says of these.
    fn apply(&mut self, formula: Option<Formula>, is_in: impl Fn(&Self, usize) -> bool) -> PolarsResult<()> {
        let rows: Vec<usize> = (0..self.time_us.len()).filter(|row| is_in(self, *row)).collect();
        let Some(formula) = formula.filter(|_| !rows.is_empty()) else { return Ok(()) };
        let mut columns = vec![];
        if formula.needs_months {
            let months: Vec<i8> = rows.iter().map(|row| month_of(self.time_us[*row])).collect();
            columns.push(Column::new("month".into(), months));
        }
        if formula.needs_instruments {
            let instruments: Vec<i64> = rows.iter().map(|row| self.instrument[*row]).collect();
            columns.push(Column::new("instrument".into(), instruments));
        }
        let places_us: Vec<i64> = rows.iter().map(|row| self.place_us[*row]).collect();
        let values: Vec<f64> = rows.iter().map(|row| self.value[*row].unwrap_or(f64::NAN)).collect();
        columns.push(Column::new("time".into(), places_us));
        columns.push(Column::new("value".into(), values));
        let frame = DataFrame::new(rows.len(), columns)?.lazy().with_columns(formula.columns);
        let frame = frame.select([formula.tests.alias("tests")]).collect()?;
        let found = frame.column("tests")?.as_materialized_series().i32()?.clone();
        for (row, found) in rows.into_iter().zip(found.iter()) {
            self.tests[row] |= found.unwrap_or(0);
        }
        Ok(())
    }
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
