//! The formulas of the tests, as expressions over the columns `time` (microseconds), `value`,
//! `month` and, of counters, `instrument`.
//!
//! IOOS Manual for Real-Time Quality Control of In-situ Temperature and Salinity Data 2.1 (2020),
//! tests 1 and 4 to 9, and `ioos_qc` 3.0.0, which computes them; `docs/quality.md` says where we differ
//! and why. Counters that go backward and probes in the air are our own.

use polars::prelude::*;
use tjern_lake::rollup::counting::WRAPPED_PART;

use super::flags::{Bits, FAIL, GOOD, NOT_EVALUATED, SUSPECT};
use super::rules::SensorRules;
use super::series::seasonal;
use crate::register::{Ends, Limits, Months, Parameters, Test};

/// So much of a window has to lie between its first reading and its last.
const COVERED_PERCENT: i64 = 90;

/// Fewer readings say nothing about a stretch.
const STRETCH_READINGS_MIN: i64 = 3;

const US_PER_SECOND: f64 = 1e6;

/// What some tests say, as an expression of bits, and whether it looks at `month`.
pub(super) struct Formula {
    /// Columns that the tests look at, each computed once.
    pub(super) columns: Vec<Expr>,
    pub(super) tests: Expr,
    pub(super) needs_months: bool,
    /// Whether it looks at `instrument`, too.
    pub(super) needs_instruments: bool,
}

impl Formula {
    /// Of tests that look at nothing but times and values, and perhaps at months.
    fn of(tests: Expr, needs_months: bool) -> Self {
        Self { columns: vec![], tests, needs_months, needs_instruments: false }
    }
}

/// Range and climatology: each value by itself.
#[expect(clippy::unnecessary_wraps, reason = "as the others")]
pub(super) fn of_a_point(rules: &SensorRules) -> Option<Formula> {
    let plausible = (rules.plausible != Ends::default()).then(|| outside(rules.plausible));
    let range = seasons(rules, Test::Range, span);
    // What is no number is never plausible, whatever the range.
    let mut range = when(col("value").is_finite().not()).then(flag(FAIL)).otherwise(range);
    if let Some(outside) = plausible {
        let inside = when(range.clone().eq(flag(NOT_EVALUATED))).then(flag(GOOD)).otherwise(range);
        range = when(outside).then(flag(FAIL)).otherwise(inside);
    }
    let climatology = seasons(rules, Test::Climatology, span);
    let tests = bits(range, Bits::Range) + bits(climatology, Bits::Climatology);
    Some(Formula::of(tests, seasonal(rules, &[Test::Range, Test::Climatology])))
}

/// How long after the value before it.
pub(super) fn of_a_gap(rules: &SensorRules) -> Option<Formula> {
    rules.lines(Test::Gap).next()?;
    let gap = seasons(rules, Test::Gap, |parameters| match parameters {
        Parameters::Gap { longer_us } => {
            let since_us = col("time") - before("time");
            when(since_us.lt_eq(lit(longer_us))).then(flag(GOOD)).otherwise(flag(FAIL))
        }
        _ => flag(NOT_EVALUATED),
    });
    Some(Formula::of(bits(gap, Bits::Gap), seasonal(rules, &[Test::Gap])))
}

/// What goes out and back again: a spike; for a counter, what the readings on both sides of it
/// agree without.
pub(super) fn of_a_spike(rules: &SensorRules) -> Option<Formula> {
    let near = near_before(rules).and((after("time") - col("time")).lt_eq(lit(rules.reach_us)));
    if rules.counter {
        rules.lines(Test::Backward).next()?;
        let (before, value, after) = (before("value"), col("value"), after("value"));
        let came_back = fell(rules, &before, &after).not();
        let alone = fell(rules, &before, &value).or(fell(rules, &value, &after)).and(came_back);
        let same = one_before().and(one_after());
        let backward = seasons(rules, Test::Backward, |_| {
            let said = near.clone().and(same.clone()).and(alone.clone());
            when(said).then(flag(FAIL)).otherwise(flag(NOT_EVALUATED))
        });
        let formula = Formula::of(bits(backward, Bits::Backward), seasonal(rules, &[Test::Backward]));
        return Some(Formula { needs_instruments: true, ..formula });
    }
    rules.lines(Test::Spike).next()?;
    let (came, went) = (col("value") - before("value"), after("value") - col("value"));
    let opposite = (came.clone() * went.clone()).lt(lit(0.0));
    let (came, went) = (came.abs(), went.abs());
    let smaller = when(came.clone().lt(went.clone())).then(came).otherwise(went);
    let size = when(opposite).then(smaller).otherwise(lit(0.0));
    let spike = seasons(rules, Test::Spike, |parameters| match parameters {
        Parameters::Spike(limits) => when(near.clone()).then(above(&size, limits)).otherwise(flag(NOT_EVALUATED)),
        _ => flag(NOT_EVALUATED),
    });
    Some(Formula::of(bits(spike, Bits::Spike), seasonal(rules, &[Test::Spike])))
}

/// What a stretch of readings says: rate of change, flat line, attenuated signal, exposure; of a
/// counter, whether it goes backward.
pub(super) fn of_a_stretch(rules: &SensorRules) -> Option<Formula> {
    const TESTS: [Test; 5] =
        [Test::RateOfChange, Test::FlatLine, Test::AttenuatedSignal, Test::Exposure, Test::Backward];
    let wanted = TESTS.into_iter().filter(|test| rules.lines(*test).next().is_some());
    let tests = wanted.map(|test| bits(seasons(rules, test, |parameters| stretch(rules, parameters)), Bits::of(test)));
    let tests = tests.reduce(|one, other| one + other)?;
    let lines = TESTS.into_iter().flat_map(|test| rules.lines(test)).map(|(_, parameters)| parameters);
    let mut windows: Vec<Window> = lines.flat_map(windows_of).collect();
    windows.sort_unstable_by_key(|window| (window.period_us, window.closed == ClosedWindow::Both));
    windows.dedup();
    let columns = windows.into_iter().flat_map(Window::columns).collect();
    Some(Formula { columns, needs_instruments: rules.counter, ..Formula::of(tests, seasonal(rules, &TESTS)) })
}

/// The windows that a test looks at.
fn windows_of(parameters: Parameters) -> Vec<Window> {
    match parameters {
        Parameters::Flat { suspect_us, fail_us, .. } => {
            let window = |period_us| Window { period_us, closed: ClosedWindow::Both };
            suspect_us.into_iter().chain(fail_us).map(window).collect()
        }
        Parameters::Attenuated { period_us, .. } | Parameters::Exposure { period_us, .. } => {
            vec![Window { period_us, closed: ClosedWindow::Right }]
        }
        _ => vec![],
    }
}

fn stretch(rules: &SensorRules, parameters: Parameters) -> Expr {
    match parameters {
        Parameters::Rate { limits, per_us } => {
            let elapsed = col("time") - before("time");
            let elapsed = when(elapsed.clone().gt(lit(per_us))).then(elapsed).otherwise(lit(per_us));
            let elapsed_seconds = elapsed.cast(DataType::Float64) / lit(US_PER_SECOND);
            let rate = (col("value") - before("value")).abs() / elapsed_seconds;
            let per_seconds = per_seconds(per_us);
            let a_second = |limit: f64| limit / per_seconds;
            let limits = Limits { suspect: limits.suspect.map(a_second), fail: limits.fail.map(a_second) };
            when(near_before(rules)).then(above(&rate, limits)).otherwise(flag(NOT_EVALUATED))
        }
        Parameters::Flat { suspect_us, fail_us, tolerance, above } => {
            flat(rules, [suspect_us, fail_us], tolerance, above)
        }
        Parameters::Attenuated { limits, period_us, count } => {
            let window = Window { period_us, closed: ClosedWindow::Right };
            let enough = match count {
                Some(count) => window.count().gt_eq(lit(f64::from(count))),
                None => window.is_covered(rules),
            };
            when(enough).then(below(&window.range(), limits)).otherwise(flag(NOT_EVALUATED))
        }
        Parameters::Exposure { limits, period_us } => {
            above(&Window { period_us, closed: ClosedWindow::Right }.range(), limits)
        }
        Parameters::On => {
            let fell = fell(rules, &before("value"), &col("value"));
            let back = when(fell).then(flag(SUSPECT)).otherwise(flag(GOOD));
            when(near_before(rules).and(one_before())).then(back).otherwise(flag(NOT_EVALUATED))
        }
        Parameters::Off | Parameters::Span { .. } | Parameters::Spike(_) | Parameters::Gap { .. } => {
            flag(NOT_EVALUATED)
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "periods are shorter than 2^53 µs")]
fn per_seconds(per_us: i64) -> f64 {
    per_us as f64 / US_PER_SECOND
}

/// Stuck: within the tolerance ever since the window's beginning. It can be said only where
/// readings reach back as far.
fn flat(rules: &SensorRules, after_us: [Option<i64>; 2], tolerance: f64, above: Option<f64>) -> Expr {
    let mut result = flag(NOT_EVALUATED);
    for (after_us, bad) in after_us.into_iter().zip([SUSPECT, FAIL]) {
        let Some(period_us) = after_us else { continue };
        let window = Window { period_us, closed: ClosedWindow::Both };
        let stuck = window.range().lt(lit(tolerance));
        let good = when(result.clone().eq(flag(NOT_EVALUATED))).then(flag(GOOD)).otherwise(result.clone());
        let told = when(stuck).then(flag(bad)).otherwise(good);
        result = when(window.is_covered(rules)).then(told).otherwise(result);
    }
    match above {
        Some(above) => when(col("value").gt(lit(above))).then(result).otherwise(flag(NOT_EVALUATED)),
        None => result,
    }
}

/// The readings of a period that ends with the reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    period_us: i64,
    closed: ClosedWindow,
}

impl Window {
    fn name(self, what: &str) -> String {
        format!("{what} {:?} {}", self.closed, self.period_us)
    }

    /// What the tests ask of it.
    fn columns(self) -> [Expr; 3] {
        let options = || RollingOptionsDynamicWindow {
            window_size: Duration::new(self.period_us),
            min_periods: 1,
            closed_window: self.closed,
            fn_params: None,
        };
        let time = || col("time");
        let range = col("value").rolling_max_by(time(), options()) - col("value").rolling_min_by(time(), options());
        // A sum of ones, which is exact.
        let count = (col("value") * lit(0.0) + lit(1.0)).rolling_sum_by(time(), options());
        let first_us = time().rolling_min_by(time(), options());
        [range.alias(self.name("range")), count.alias(self.name("count")), first_us.alias(self.name("first"))]
    }

    fn range(self) -> Expr {
        col(self.name("range"))
    }

    /// How many readings.
    fn count(self) -> Expr {
        col(self.name("count"))
    }

    /// Whether readings reach back to its beginning, and are as many as the interval lets expect.
    fn is_covered(self, rules: &SensorRules) -> Expr {
        let covered = (col("time") - col(self.name("first"))).gt_eq(lit(self.period_us / 100 * COVERED_PERCENT));
        let interval_us = rules.interval_us.filter(|interval_us| *interval_us > 0);
        let half = interval_us.map_or(0, |interval_us| self.period_us / interval_us / 2);
        let least = STRETCH_READINGS_MIN.max(half);
        covered.and(self.count().gt_eq(lit(least).cast(DataType::Float64)))
    }
}

/// The lines of a test, each in its months; 0 in the others.
fn seasons(rules: &SensorRules, test: Test, formula: impl Fn(Parameters) -> Expr) -> Expr {
    rules.lines(test).fold(flag(NOT_EVALUATED), |otherwise, (months, parameters)| {
        if months == Months::ALL {
            formula(parameters)
        } else {
            when(within(months)).then(formula(parameters)).otherwise(otherwise)
        }
    })
}

fn within(months: Months) -> Expr {
    let months = (1..=12_u8).filter(|month| months.contains(*month));
    let each = months.map(|month| col("month").cast(DataType::Int32).eq(lit(i32::from(month))));
    each.reduce(Expr::or).unwrap_or_else(|| lit(false))
}

fn span(parameters: Parameters) -> Expr {
    let Parameters::Span { suspect, fail } = parameters else { return flag(NOT_EVALUATED) };
    when(outside(fail)).then(flag(FAIL)).when(outside(suspect)).then(flag(SUSPECT)).otherwise(flag(GOOD))
}

/// Ends belong to what is inside.
fn outside(ends: Ends) -> Expr {
    let low = ends.low.map(|low| col("value").lt(lit(low)));
    let high = ends.high.map(|high| col("value").gt(lit(high)));
    low.into_iter().chain(high).reduce(Expr::or).unwrap_or_else(|| lit(false))
}

fn above(what: &Expr, limits: Limits) -> Expr {
    let over = |limit: Option<f64>| limit.map_or_else(|| lit(false), |limit| what.clone().gt(lit(limit)));
    when(over(limits.fail)).then(flag(FAIL)).when(over(limits.suspect)).then(flag(SUSPECT)).otherwise(flag(GOOD))
}

fn below(what: &Expr, limits: Limits) -> Expr {
    let under = |limit: Option<f64>| limit.map_or_else(|| lit(false), |limit| what.clone().lt(lit(limit)));
    when(under(limits.fail)).then(flag(FAIL)).when(under(limits.suspect)).then(flag(SUSPECT)).otherwise(flag(GOOD))
}

fn near_before(rules: &SensorRules) -> Expr {
    (col("time") - before("time")).lt_eq(lit(rules.reach_us))
}

/// Whether a counter went backward from one value to another, and did not just begin again: `tjern_lake::rollup::counting` tells that.
fn fell(rules: &SensorRules, one: &Expr, other: &Expr) -> Expr {
    let fell = other.clone().lt(one.clone());
    let Some(wraps_at) = rules.wraps_at else { return fell };
    let within = |value: &Expr| value.clone().gt_eq(lit(0.0)).and(value.clone().lt(lit(wraps_at)));
    let further = lit(wraps_at) - one.clone() + other.clone();
    let wrapped = within(one).and(within(other)).and(further.lt_eq(lit(wraps_at * WRAPPED_PART)));
    fell.and(wrapped.not())
}

/// Whether the same instrument measured the value before.
fn one_before() -> Expr {
    col("instrument").eq(before("instrument"))
}

fn one_after() -> Expr {
    col("instrument").eq(after("instrument"))
}

fn before(column: &str) -> Expr {
    col(column).shift(lit(1))
}

fn after(column: &str) -> Expr {
    col(column).shift(lit(-1))
}

fn flag(flag: i32) -> Expr {
    lit(flag)
}

fn bits(flag: Expr, place: Bits) -> Expr {
    flag.cast(DataType::Int32) * lit(place.put(1))
}
