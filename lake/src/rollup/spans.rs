//! Which moments of which sensors something touched, in bounded memory.
//!
//! A span goes from the first to the last of the moments that fell into one hour (UTC), so from spans follow
//! the same windows as from the moments themselves: no window is shorter than an hour, and both ends of a
//! span were touched. Where there are more than [`SPANS_MAX`] a sensor's become one: too many windows
//! then, never too few.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::windows::{DAY_US, HOUR_US};

/// So many spans are told apart: 16 bytes each.
pub const SPANS_MAX: usize = 1 << 21;

/// So many spans a commit names; one that touched more is read.
pub const NOTED_SPANS_MAX: usize = 1 << 10;

/// Under this key a commit says which rows it changed, where its files do not show it: `[[sensor, first, last], …]`, times in
/// microseconds since 1970 UTC, both included.
pub const TOUCHED_NOTE: &str = "tjern.touched";

/// From the first to the last moment, both included, in microseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first moment.
    pub first_us: i64,
    /// The last one.
    pub last_us: i64,
}

/// Spans of sensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans {
    by_sensor: HashMap<String, Vec<Span>>,
    count: usize,
    /// Whether a sensor's spans had to become one.
    coarse: bool,
}

impl Spans {
    /// Whether nothing was touched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_sensor.is_empty()
    }

    /// Whether there were more than could be told apart, so that more seems touched than was.
    #[must_use]
    pub const fn is_coarse(&self) -> bool {
        self.coarse
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The sensors and their spans, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Span])> {
        self.by_sensor.iter().map(|(sensor, spans)| (sensor.as_str(), spans.as_slice()))
    }

    /// Adds moments of one sensor, quickest in their order.
    pub fn add(&mut self, sensor: &str, times_us: impl IntoIterator<Item = i64>) {
        for time_us in times_us {
            self.push(sensor, Span { first_us: time_us, last_us: time_us });
        }
    }

    /// Adds what others are.
    pub fn merge(&mut self, others: &Self) {
        self.coarse |= others.coarse;
        for (sensor, spans) in others.iter() {
            spans.iter().for_each(|span| self.push(sensor, *span));
        }
    }

    /// Adds one span.
    pub fn push(&mut self, sensor: &str, span: Span) {
        if self.count >= SPANS_MAX {
            self.settle();
            self.coarsen();
        }
        let spans = match self.by_sensor.get_mut(sensor) {
            Some(spans) => spans,
            None => self.by_sensor.entry(sensor.to_owned()).or_default(),
        };
        if let Some(last) = spans.last_mut()
            && let Some(joined) = joined(*last, span, 0)
        {
            *last = joined;
            return;
        }
        spans.push(span);
        self.count += 1;
    }

    /// Puts them in order, and together what is of one hour.
    pub fn settle(&mut self) {
        self.join(0);
    }

    fn join(&mut self, gap_us: i64) {
        self.count = 0;
        for spans in self.by_sensor.values_mut() {
            spans.sort_unstable();
            let mut kept: Vec<Span> = Vec::with_capacity(spans.len());
            for span in spans.drain(..) {
                match kept.last().and_then(|last| joined(*last, span, gap_us)) {
                    Some(joined) => *kept.last_mut().expect("there is a last one") = joined,
                    None => kept.push(span),
                }
            }
            self.count += kept.len();
            *spans = kept;
        }
    }

    fn coarsen(&mut self) {
        if self.count >= SPANS_MAX / 2 {
            self.coarse = true;
            self.join(i64::MAX);
        }
    }

    /// What a commit says of them; nothing where there are too many. Near ones are put together first.
    #[must_use]
    pub fn note(&self) -> Option<Value> {
        let mut fewer = self.clone();
        for gap_us in [0, HOUR_US, DAY_US, 31 * DAY_US, i64::MAX] {
            fewer.join(gap_us);
            if fewer.count <= NOTED_SPANS_MAX {
                break;
            }
        }
        fewer.note_exactly()
    }

    /// The same, but nothing that lies between two of them is named: who is told of an erasure takes what is named away.
    #[must_use]
    pub fn note_exactly(&self) -> Option<Value> {
        let named = |(sensor, spans): (&str, &[Span])| -> Vec<Value> {
            spans.iter().map(|span| json!([sensor, span.first_us, span.last_us])).collect()
        };
        if self.count > NOTED_SPANS_MAX {
            return None;
        }
        let mut noted: Vec<Value> = self.iter().flat_map(named).collect();
        noted.sort_by_key(Value::to_string);
        Some(Value::Array(noted))
    }

    /// What a commit said of them; nothing where it makes no sense.
    #[must_use]
    pub fn noted(note: &Value) -> Option<Self> {
        let mut spans = Self::default();
        for entry in note.as_array()? {
            let [sensor, first, last] = entry.as_array()?.as_slice() else { return None };
            let (first_us, last_us) = (first.as_i64()?, last.as_i64()?);
            if first_us > last_us {
                return None;
            }
            spans.push(sensor.as_str()?, Span { first_us, last_us });
        }
        spans.settle();
        Some(spans)
    }
}

/// Both as one, where they lie in one hour, overlap, or are no farther apart than a gap that is not 0.
fn joined(one: Span, other: Span, gap_us: i64) -> Option<Span> {
    let both = Span { first_us: one.first_us.min(other.first_us), last_us: one.last_us.max(other.last_us) };
    let one_hour = both.first_us.div_euclid(HOUR_US) == both.last_us.div_euclid(HOUR_US);
    let overlap = one.first_us <= other.last_us && other.first_us <= one.last_us;
    let apart_us = other.first_us.saturating_sub(one.last_us);
    (one_hour || overlap || (gap_us > 0 && (0..=gap_us).contains(&apart_us))).then_some(both)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::windows::Grid;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn too_many_for_a_commit_are_put_together() {
        let mut spans = Spans::default();
        for day in 0..5_000 {
            spans.add("a/b", [day * 10 * DAY_US]);
        }
        spans.settle();
        let noted = Spans::noted(&spans.note().expect("few enough")).expect("understood");
        let span = Span { first_us: 0, last_us: 49_990 * DAY_US };
        assert_eq!(noted.iter().collect::<Vec<_>>(), [("a/b", [span].as_slice())]);
        for sensor in 0..5_000 {
            spans.add(&format!("a/{sensor}"), [0]);
        }
        assert_eq!(spans.note(), None);
    }

    /// A thousand hours that were erased are not the years in which they lie.
    #[test]
    fn what_was_erased_is_named_exactly_or_not_at_all() {
        let mut spans = Spans::default();
        for day in 0..1_024 {
            spans.add("a/b", [day * 10 * DAY_US]);
        }
        assert_eq!(Spans::noted(&spans.note_exactly().expect("few enough")).expect("understood"), spans);
        spans.add("a/b", [10_240 * DAY_US]);
        assert_eq!(spans.note_exactly(), None);
    }

    #[test]
    fn a_note_that_makes_no_sense_is_none() {
        for note in [json!("x"), json!([["a/b", 1]]), json!([["a/b", 2, 1]]), json!([[1, 1, 2]])] {
            assert_eq!(Spans::noted(&note), None, "{note}");
        }
    }

    proptest! {
        /// From spans follow exactly the windows of the moments, in whatever order those came.
        #[test]
        fn spans_touch_the_windows_of_their_moments(
            minutes in prop::collection::vec(0..4_000_i64, 1..200),
            zone in prop::sample::select(vec!["Europe/Oslo", "Asia/Kathmandu", "Australia/Lord_Howe"]),
        ) {
            let moments: Vec<i64> =
                minutes.iter().map(|minute| 1_743_120_000_000_000 + minute * 60_000_000).collect();
            let mut spans = Spans::default();
            spans.add("a/b", moments.iter().copied());
            spans.settle();
            let noted = Spans::noted(&spans.note().expect("few")).expect("understood");
            prop_assert_eq!(&noted, &spans);
            for grid in [Grid::Hours, Grid::Days(TimeZone::get(zone).expect("known"))] {
                let of_moments: BTreeSet<_> = moments.iter().map(|time_us| grid.window(*time_us)).collect();
                let ends = spans.iter().flat_map(|(_, spans)| spans.iter().flat_map(|span| [span.first_us, span.last_us]));
                prop_assert_eq!(ends.map(|time_us| grid.window(time_us)).collect::<BTreeSet<_>>(), of_moments);
            }
        }
    }
}
