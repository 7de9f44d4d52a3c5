//! Windows of sensors, as ranges of neighbouring windows; and which readings they need, for a scan.
//!
//! A range goes from the start of its first window up to and without the end of its last. Nothing here
//! does I/O.

use std::collections::{BTreeSet, HashMap};

use datafusion::logical_expr::{Expr, Operator};
use datafusion::prelude::{col, lit};
use datafusion::scalar::ScalarValue;

use super::nature::{Kind, Natures};
use super::spans::Spans;
use super::windows::{Grid, Window};
use crate::DataFile;

/// More names than this are not listed in a filter: it reads from the first name to the last.
const LISTED_SENSORS_MAX: usize = 256;
/// So many ranges of sensors are named one by one.
const LISTED_RANGES_MAX: usize = 64;
/// So many ranges of time are told apart, whoever's they are.
const LISTED_TIMES_MAX: usize = 16;

/// Windows of some sensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    by_sensor: HashMap<String, Vec<Window>>,
    /// Of every sensor that is not named.
    others: Vec<Window>,
}

/// What a query asks for, as far as it is told before it runs: more than that may be handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Of these sensors; none: of all.
    pub sensors: Option<BTreeSet<String>>,
    /// Windows that start at this moment or later.
    pub from_us: i64,
    /// Windows that start at this moment or before.
    pub to_us: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { sensors: None, from_us: i64::MIN, to_us: i64::MAX }
    }
}

impl Bounds {
    /// What filters on `sensor` and `time` leave; what is not understood leaves everything.
    #[must_use]
    pub fn of(filters: &[Expr]) -> Self {
        let mut bounds = Self::default();
        filters.iter().for_each(|filter| bounds.narrow(filter));
        bounds
    }

    /// The windows that may be asked for: from the first moment to the end of the last window.
    fn range(&self, grid: &Grid) -> Window {
        Window { start_us: self.from_us, end_us: grid.window(self.to_us).end_us }
    }

    fn narrow(&mut self, filter: &Expr) {
        if let Expr::BinaryExpr(binary) = filter
            && binary.op == Operator::And
        {
            self.narrow(&binary.left);
            self.narrow(&binary.right);
        } else if let Some(names) = names_of(filter) {
            self.sensors = Some(match self.sensors.take() {
                Some(known) => known.intersection(&names).cloned().collect(),
                None => names,
            });
        } else if let Some((from_us, to_us)) = times_of(filter) {
            self.from_us = self.from_us.max(from_us);
            self.to_us = self.to_us.min(to_us);
        }
    }
}

fn is_column(expression: &Expr, name: &str) -> bool {
    matches!(expression, Expr::Column(column) if column.name == name)
}

fn text(expression: &Expr) -> Option<String> {
    let Expr::Literal(scalar, _) = expression else { return None };
    scalar.try_as_str().flatten().map(str::to_owned)
}

fn moment_of(expression: &Expr) -> Option<i64> {
    match expression {
        Expr::Literal(ScalarValue::TimestampMicrosecond(Some(time_us), _), _) => Some(*time_us),
        _ => None,
    }
}

/// The sensors that a filter lets through, where it is of the kind `sensor = 'a'`, `sensor IN ('a', 'b')`
/// or an `OR` of such.
fn names_of(filter: &Expr) -> Option<BTreeSet<String>> {
    match filter {
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            let (mut names, others) = (names_of(&binary.left)?, names_of(&binary.right)?);
            names.extend(others);
            Some(names)
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
            let name = if is_column(&binary.left, "sensor") {
                text(&binary.right)
            } else if is_column(&binary.right, "sensor") {
                text(&binary.left)
            } else {
                None
            };
            name.map(|name| BTreeSet::from([name]))
        }
        Expr::InList(list) if !list.negated && is_column(&list.expr, "sensor") => list.list.iter().map(text).collect(),
        _ => None,
    }
}

/// From the first to the last moment that a filter lets through, where it compares `time` with one.
fn times_of(filter: &Expr) -> Option<(i64, i64)> {
    match filter {
        Expr::Between(between) if !between.negated && is_column(&between.expr, "time") => {
            Some((moment_of(&between.low)?, moment_of(&between.high)?))
        }
        Expr::BinaryExpr(binary) => {
            let (operator, time_us) = if is_column(&binary.left, "time") {
                (binary.op, moment_of(&binary.right)?)
            } else if is_column(&binary.right, "time") {
                (binary.op.swap()?, moment_of(&binary.left)?)
            } else {
                return None;
            };
            match operator {
                Operator::Eq => Some((time_us, time_us)),
                Operator::Gt | Operator::GtEq => Some((time_us, i64::MAX)),
                Operator::Lt | Operator::LtEq => Some((i64::MIN, time_us)),
                _ => None,
            }
        }
        _ => None,
    }
}

impl Selection {
    /// Every window that a query asks for.
    #[must_use]
    pub fn all(bounds: &Bounds, grid: &Grid) -> Self {
        let range = bounds.range(grid);
        let ranges = if range.start_us < range.end_us { vec![range] } else { Vec::new() };
        match &bounds.sensors {
            Some(sensors) => {
                let named = sensors.iter().filter(|_| !ranges.is_empty());
                let by_sensor = named.map(|sensor| (sensor.clone(), ranges.clone())).collect();
                Self { by_sensor, others: Vec::new() }
            }
            None => Self { by_sensor: HashMap::new(), others: ranges },
        }
    }

    /// The windows that spans lie in.
    #[must_use]
    pub fn touched(spans: &Spans, natures: &Natures, grid: &Grid) -> Self {
        let mut selection = Self::default();
        for (sensor, spans) in spans.iter() {
            let kind = natures.get(sensor).kind;
            let windows = spans.iter().map(|span| Window {
                start_us: window_of(grid, kind, span.first_us).start_us,
                end_us: window_of(grid, kind, span.last_us).end_us,
            });
            selection.by_sensor.insert(sensor.to_owned(), merged(windows.collect()));
        }
        selection
    }

    /// Adds a range of one sensor, which may be a single moment.
    pub fn insert(&mut self, sensor: &str, range: Window) {
        let ranges = self.by_sensor.entry(sensor.to_owned()).or_default();
        ranges.push(range);
        *ranges = merged(std::mem::take(ranges));
    }

    /// Adds the windows of another selection that names every sensor.
    pub fn extend(&mut self, other: &Self) {
        for (sensor, ranges) in &other.by_sensor {
            let known = self.by_sensor.entry(sensor.clone()).or_default();
            known.extend_from_slice(ranges);
            *known = merged(std::mem::take(known));
        }
    }

    /// Those windows that may be asked for.
    #[must_use]
    pub fn within(&self, bounds: &Bounds, grid: &Grid) -> Self {
        let range = bounds.range(grid);
        let is_wanted = |sensor: &str| bounds.sensors.as_ref().is_none_or(|names| names.contains(sensor));
        let named = self.by_sensor.iter().filter(|(sensor, _)| is_wanted(sensor));
        let by_sensor = named.map(|(sensor, ranges)| (sensor.clone(), overlapping(ranges, range)));
        Self {
            by_sensor: by_sensor.filter(|(_, ranges)| !ranges.is_empty()).collect(),
            others: overlapping(&self.others, range),
        }
    }

    /// Those windows that start at a moment, which is the border of two windows, or later.
    #[must_use]
    pub fn from(&self, from_us: i64) -> Self {
        let cut = |ranges: &[Window]| -> Vec<Window> {
            let later = ranges.iter().filter(|range| range.end_us > from_us);
            later.map(|range| Window { start_us: range.start_us.max(from_us), ..*range }).collect()
        };
        let by_sensor = self.by_sensor.iter().map(|(sensor, ranges)| (sensor.clone(), cut(ranges)));
        Self { by_sensor: by_sensor.filter(|(_, ranges)| !ranges.is_empty()).collect(), others: cut(&self.others) }
    }

    /// Those windows that end by a moment, which is the border of two windows.
    #[must_use]
    pub fn until(&self, until_us: i64) -> Self {
        let before = Window { start_us: i64::MIN, end_us: until_us };
        let by_sensor = self.by_sensor.iter().map(|(sensor, ranges)| (sensor.clone(), overlapping(ranges, before)));
        Self {
            by_sensor: by_sensor.filter(|(_, ranges)| !ranges.is_empty()).collect(),
            others: overlapping(&self.others, before),
        }
    }

    /// Whether there is no window.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_sensor.is_empty() && self.others.is_empty()
    }

    /// How many ranges there are.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.by_sensor.values().map(Vec::len).sum::<usize>() + self.others.len()
    }

    /// The sensors that are named, and their ranges, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Window])> {
        self.by_sensor.iter().map(|(sensor, ranges)| (sensor.as_str(), ranges.as_slice()))
    }

    /// The ranges of one sensor, in order.
    #[must_use]
    pub fn of(&self, sensor: &str) -> &[Window] {
        self.by_sensor.get(sensor).unwrap_or(&self.others)
    }

    /// The ranges of every sensor that is not named.
    #[must_use]
    pub fn of_others(&self) -> &[Window] {
        &self.others
    }

    /// Whether the window of a sensor that starts at a moment is one of them.
    #[must_use]
    pub fn contains(&self, sensor: &str, start_us: i64) -> bool {
        contains(self.of(sensor), start_us)
    }

    /// Whether a file may hold a reading of the sensors that are named and of the time from their first window to their
    /// last: quick to say, and mostly enough.
    #[must_use]
    pub fn may_be_in(&self, file: &DataFile) -> bool {
        let ranges = || self.by_sensor.values().flatten();
        let (first, last) = (self.by_sensor.keys().min(), self.by_sensor.keys().max());
        let (Some(from_us), Some(to_us)) =
            (ranges().map(|range| range.start_us).min(), ranges().map(|range| range.end_us).max())
        else {
            return false;
        };
        let times = file.time_us.is_none_or(|(low, high)| low <= to_us && from_us <= high);
        let sensors = file
            .sensor
            .as_ref()
            .is_none_or(|(low, high)| first.is_some_and(|first| first <= high) && last.is_some_and(|last| low <= last));
        times && sensors
    }

    /// The filter that lets through the readings in these windows and few others. Readings of intervals carry their
    /// interval's end, so the end of a window is let through too. Filters on one column come first: by those
    /// a scan leaves out files, row groups and pages.
    #[must_use]
    pub fn readings(&self) -> Expr {
        if self.is_empty() {
            return lit(false);
        }
        let named = self.by_sensor.values().flatten();
        let times = times_filter(&coalesced(named.chain(&self.others).copied().collect()));
        if !self.others.is_empty() {
            return times;
        }
        let filter = self.sensors_filter().and(times);
        if self.by_sensor.len() < 2 || self.ranges() > LISTED_RANGES_MAX {
            return filter;
        }
        let mut exact: Vec<_> = self.by_sensor.iter().collect();
        exact.sort();
        let exact = exact.into_iter().map(|(sensor, ranges)| col("sensor").eq(lit(sensor)).and(times_filter(ranges)));
        exact.reduce(Expr::or).map_or(lit(false), |exact| filter.and(exact))
    }

    fn sensors_filter(&self) -> Expr {
        let mut names: Vec<&str> = self.by_sensor.keys().map(String::as_str).collect();
        names.sort_unstable();
        match (names.first(), names.last()) {
            (Some(first), Some(last)) if names.len() > LISTED_SENSORS_MAX => {
                col("sensor").between(lit(*first), lit(*last))
            }
            _ => col("sensor").in_list(names.into_iter().map(lit).collect(), false),
        }
    }
}

/// The window that a reading belongs to.
#[must_use]
pub fn window_of(grid: &Grid, kind: Kind, time_us: i64) -> Window {
    grid.window(if kind.is_interval() { time_us.saturating_sub(1) } else { time_us })
}

/// Whether one of these ranges, which are in order, has a moment.
#[must_use]
pub fn contains(ranges: &[Window], time_us: i64) -> bool {
    let after = ranges.partition_point(|range| range.start_us <= time_us);
    after.checked_sub(1).is_some_and(|place| ranges[place].contains(time_us))
}

/// What of these ranges lies in another one.
fn overlapping(ranges: &[Window], with: Window) -> Vec<Window> {
    let cut =
        |range: &Window| Window { start_us: range.start_us.max(with.start_us), end_us: range.end_us.min(with.end_us) };
    ranges.iter().map(cut).filter(|range| range.start_us < range.end_us).collect()
}

/// In order, neighbours and what overlaps put together.
fn merged(mut ranges: Vec<Window>) -> Vec<Window> {
    ranges.sort_unstable();
    let mut kept: Vec<Window> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match kept.last_mut() {
            Some(last) if range.start_us <= last.end_us => last.end_us = last.end_us.max(range.end_us),
            _ => kept.push(range),
        }
    }
    kept
}

/// Few ranges that hold all of these: the widest gaps stay.
fn coalesced(ranges: Vec<Window>) -> Vec<Window> {
    let ranges = merged(ranges);
    if ranges.len() <= LISTED_TIMES_MAX {
        return ranges;
    }
    let mut gaps: Vec<(i64, usize)> = ranges
        .windows(2)
        .enumerate()
        .map(|(place, pair)| (pair[1].start_us.saturating_sub(pair[0].end_us), place + 1))
        .collect();
    gaps.sort_unstable_by(|one, other| other.cmp(one));
    let cuts: BTreeSet<usize> = gaps.into_iter().take(LISTED_TIMES_MAX - 1).map(|(_, place)| place).collect();
    let mut few: Vec<Window> = Vec::with_capacity(LISTED_TIMES_MAX);
    for (place, range) in ranges.into_iter().enumerate() {
        match few.last_mut() {
            Some(last) if !cuts.contains(&place) => last.end_us = range.end_us,
            _ => few.push(range),
        }
    }
    few
}

fn times_filter(ranges: &[Window]) -> Expr {
    let inside = ranges.iter().map(|range| {
        let from = (range.start_us > i64::MIN).then(|| col("time").gt_eq(moment(range.start_us)));
        let to = (range.end_us < i64::MAX).then(|| col("time").lt_eq(moment(range.end_us)));
        match (from, to) {
            (Some(from), Some(to)) => from.and(to),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => lit(true),
        }
    });
    inside.reduce(Expr::or).unwrap_or_else(|| lit(false))
}

/// A moment as SQL knows it.
#[must_use]
pub fn moment(time_us: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(start_us: i64, end_us: i64) -> Window {
        Window { start_us, end_us }
    }

    #[test]
    fn bounds_are_found_in_what_a_query_says() {
        let filters = [
            col("sensor").in_list(vec![lit("a"), lit("b")], false).and(col("quality").eq(lit(1))),
            col("sensor").eq(lit("b")).or(lit("c").eq(col("sensor"))),
            col("time").gt_eq(moment(10)).and(moment(20).gt(col("time"))),
            col("time").between(moment(5), moment(15)),
        ];
        let bounds = Bounds { sensors: Some(BTreeSet::from(["b".to_owned()])), from_us: 10, to_us: 15 };
        assert_eq!(Bounds::of(&filters), bounds);
    }

    /// A filter that is not understood must not take a window away.
    #[test]
    fn what_is_not_understood_leaves_everything() {
        let filters = [
            col("sensor").not_eq(lit("a")),
            col("sensor").in_list(vec![lit("a")], true),
            col("time").not_eq(moment(3)),
            col("sensor").eq(lit("a")).or(col("quality").eq(lit(1))),
            col("last_time").eq(moment(4)),
        ];
        assert_eq!(Bounds::of(&filters), Bounds::default());
    }

    #[test]
    fn neighbours_become_one_range() {
        let mut selection = Selection::default();
        for (start_us, end_us) in [(20, 30), (0, 10), (10, 20), (40, 50)] {
            selection.insert("a", range(start_us, end_us));
        }
        assert_eq!(selection.of("a"), [range(0, 30), range(40, 50)]);
        assert!(selection.contains("a", 29) && !selection.contains("a", 30) && !selection.contains("b", 0));
        assert_eq!(selection.from(20).of("a"), [range(20, 30), range(40, 50)]);
        assert_eq!(selection.until(20).of("a"), [range(0, 20)]);
        assert_eq!(selection.until(i64::MIN), Selection::default());
        let bounds = Bounds { from_us: 45, ..Bounds::default() };
        assert_eq!(selection.within(&bounds, &Grid::Hours).of("a"), [range(45, 50)]);
    }

    #[test]
    fn many_ranges_become_few_and_hold_all() {
        let ranges: Vec<Window> = (0..1_000).map(|place| range(place * place, place * place + 1)).collect();
        let few = coalesced(ranges.clone());
        assert_eq!(few.len(), LISTED_TIMES_MAX);
        assert!(ranges.iter().all(|range| contains(&few, range.start_us)));
    }
}
