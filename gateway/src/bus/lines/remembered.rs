//! A set of times in bounded memory: which times of a sensor were stored.
//!
//! Loggers write at equal steps, so that times are kept as runs of them, in whatever order they come: a year of ten-minute
//! values is one run, and one more for each hole. Where there are more than [`RUNS_MAX`] runs the oldest of them are
//! forgotten, and only between which times they lay is known ([`RANGES_MAX`] such ranges).
//!
//! Invariants: what was never told is never [`Told::Repeated`]; what was told is never [`Told::New`]. What lies in a range
//! is [`Told::Forgotten`]: it may be either. No I/O, no clock.

use std::collections::BTreeMap;

/// How many runs of a sensor's times are remembered one by one: at least half as many times again, however they come.
pub(super) const RUNS_MAX: usize = 2_048;

/// Of how many ranges it is known that times in them are forgotten. The two that are nearest to each other become one.
pub(super) const RANGES_MAX: usize = 16;

/// No more times are told to another one: two million ten-minute values are forty years.
const MERGED_MAX: i64 = 1 << 21;

/// What is known of a time that a device tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It was not told before.
    New,
    /// It was.
    Repeated,
    /// It lies among times that are not remembered one by one.
    Forgotten,
}

/// Times at equal steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first_us: i64,
    pub(super) last_us: i64,
    /// Zero where it is one time.
    pub(super) step_us: i64,
}

impl Run {
    const fn one(time_us: i64) -> Self {
        Self { first_us: time_us, last_us: time_us, step_us: 0 }
    }

    const fn is_one(self) -> bool {
        self.step_us == 0
    }

    /// Whether a time between its ends is one of it.
    fn has(self, time_us: i64) -> bool {
        time_us == self.first_us || time_us.abs_diff(self.first_us).checked_rem(self.step_us.unsigned_abs()) == Some(0)
    }

    /// What of it lies before and after a time between its ends that is none of it.
    fn split(self, time_us: i64) -> [Self; 2] {
        let steps = (time_us - self.first_us) / self.step_us;
        let before_us = self.first_us + steps * self.step_us;
        [Self { last_us: before_us, ..self }, Self { first_us: before_us + self.step_us, ..self }].map(Self::plain)
    }

    fn plain(self) -> Self {
        if self.first_us == self.last_us { Self::one(self.first_us) } else { self }
    }

    /// The run that both are, one after the other. Two single times are one only if they `may_pair`.
    fn join(self, next: Self, may_pair: bool) -> Option<Self> {
        let gap_us = next.first_us.checked_sub(self.last_us)?;
        let fits = |run: Self| run.is_one() || run.step_us == gap_us;
        let may = may_pair || !(self.is_one() && next.is_one());
        (may && fits(self) && fits(next)).then_some(Self {
            first_us: self.first_us,
            last_us: next.last_us,
            step_us: gap_us,
        })
    }
}

/// The times of one sensor that were stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredTimes {
    /// By their first times; no two overlap.
    runs: BTreeMap<i64, Run>,
    /// In their order; no two overlap.
    forgotten: Vec<(i64, i64)>,
}

impl StoredTimes {
    /// Of runs in their order, of which no two overlap.
    pub(super) fn new(runs: impl Iterator<Item = Run>, forgotten: impl Iterator<Item = (i64, i64)>) -> Self {
        let mut times = Self { runs: runs.map(|run| (run.first_us, run.plain())).collect(), forgotten: Vec::new() };
        forgotten.for_each(|range| times.forget(range));
        times.keep(RUNS_MAX);
        times
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.forgotten.is_empty()
    }

    pub(super) fn newest_us(&self) -> Option<i64> {
        let run = self.runs.last_key_value().map(|(_, run)| run.last_us);
        run.max(self.forgotten.last().map(|(_, last_us)| *last_us))
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = Run> {
        self.runs.values().copied()
    }

    pub(super) fn forgotten(&self) -> &[(i64, i64)] {
        &self.forgotten
    }

    /// Knows what another one knows as well. Of more than [`MERGED_MAX`] times that both have by themselves only the larger part.
    pub(super) fn merge(&mut self, mut other: Self) {
        if other.count() > self.count() {
            std::mem::swap(self, &mut other);
        }
        other.forgotten.iter().for_each(|range| self.forget(*range));
        if other.count() > MERGED_MAX {
            return;
        }
        for run in other.runs() {
            let (first_us, step_us) = (run.first_us, run.step_us.max(1));
            for step in 0..=(run.last_us - first_us) / step_us {
                self.insert(first_us + step * step_us);
            }
        }
    }

    /// How many times are known one by one.
    fn count(&self) -> i64 {
        self.runs().map(|run| (run.last_us - run.first_us) / run.step_us.max(1) + 1).fold(0, i64::saturating_add)
    }

    /// What is known of a time; a new one is known from then on.
    pub(super) fn insert(&mut self, time_us: i64) -> Told {
        self.insert_within(time_us, RUNS_MAX)
    }

    fn insert_within(&mut self, time_us: i64, runs_max: usize) -> Told {
        let told = self.look(time_us);
        if told == Told::New {
            self.add(time_us);
            self.keep(runs_max);
        }
        told
    }

    /// What is known of a time.
    pub(super) fn look(&self, time_us: i64) -> Told {
        if self.around(time_us).is_some_and(|run| run.has(time_us)) {
            return Told::Repeated;
        }
        let is_among = |(first_us, last_us): &(i64, i64)| (*first_us..=*last_us).contains(&time_us);
        if self.forgotten.iter().any(is_among) { Told::Forgotten } else { Told::New }
    }

    /// The run between whose ends a time lies.
    fn around(&self, time_us: i64) -> Option<Run> {
        self.runs.range(..=time_us).next_back().map(|(_, run)| *run).filter(|run| run.last_us >= time_us)
    }

    /// Puts a time in its place, and makes as few runs as it can of those beside it.
    fn add(&mut self, time_us: i64) {
        let one = Run::one(time_us);
        let mut pieces: Vec<Run> = match self.around(time_us) {
            Some(run) => {
                self.runs.remove(&run.first_us);
                let [before, after] = run.split(time_us);
                vec![before, one, after]
            }
            None => vec![one],
        };
        if let Some((_, before)) = self.runs.range(..time_us).next_back() {
            pieces.insert(0, *before);
        }
        if let Some((_, after)) = self.runs.range(time_us..).next() {
            pieces.push(*after);
        }
        for piece in &pieces {
            self.runs.remove(&piece.first_us);
        }
        // What goes on with a step that is known comes first: two times that stand alone have any step.
        let joined = joined(joined(joined(pieces, false), true), false);
        self.runs.extend(joined.into_iter().map(|run| (run.first_us, run)));
    }

    /// Forgets the oldest runs past so many.
    pub(super) fn keep(&mut self, runs_max: usize) {
        while self.runs.len() > runs_max {
            let Some((_, oldest)) = self.runs.pop_first() else { return };
            self.forget((oldest.first_us, oldest.last_us));
        }
    }

    fn forget(&mut self, (mut first_us, mut last_us): (i64, i64)) {
        self.forgotten.retain(|(other_first_us, other_last_us)| {
            let overlaps = *other_first_us <= last_us && first_us <= *other_last_us;
            if overlaps {
                (first_us, last_us) = (first_us.min(*other_first_us), last_us.max(*other_last_us));
            }
            !overlaps
        });
        let place = self.forgotten.partition_point(|(other_first_us, _)| *other_first_us < first_us);
        self.forgotten.insert(place, (first_us, last_us));
        if self.forgotten.len() > RANGES_MAX {
            let gap = |place: &usize| self.forgotten[*place].0.abs_diff(self.forgotten[*place - 1].1);
            if let Some(place) = (1..self.forgotten.len()).min_by_key(gap) {
                let (_, last_us) = self.forgotten.remove(place);
                self.forgotten[place - 1].1 = last_us;
            }
        }
    }
}

fn joined(pieces: Vec<Run>, may_pair: bool) -> Vec<Run> {
    let mut joined = Vec::<Run>::with_capacity(pieces.len());
    for piece in pieces {
        match joined.last_mut().and_then(|last| last.join(piece, may_pair).map(|run| (last, run))) {
            Some((last, run)) => *last = run,
            None => joined.push(piece),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn times_of(stored: &StoredTimes) -> Vec<i64> {
        let each = |run: Run| (run.first_us..=run.last_us).filter(move |time_us| run.has(*time_us));
        stored.runs().flat_map(each).collect()
    }

    proptest! {
        /// Whatever comes in whatever order: a plain set with no bound says the same.
        #[test]
        fn a_time_is_new_once(times in prop::collection::vec(0_i64..60, 0..200)) {
            let (mut stored, mut seen) = (StoredTimes::default(), BTreeSet::new());
            for time_us in times {
                let expected = if seen.insert(time_us) { Told::New } else { Told::Repeated };
                prop_assert_eq!(stored.insert(time_us), expected);
            }
            prop_assert_eq!(times_of(&stored), seen.into_iter().collect::<Vec<_>>());
        }

        /// With little room, too, nothing is called stored that was not, and nothing is new twice.
        #[test]
        fn little_room_costs_no_time_that_was_not_told(
            times in prop::collection::vec(0_i64..2_000, 0..400), runs_max in 1_usize..12,
        ) {
            let (mut stored, mut seen) = (StoredTimes::default(), BTreeSet::new());
            for time_us in times {
                match stored.insert_within(time_us, runs_max) {
                    Told::New => prop_assert!(seen.insert(time_us), "{} is new twice", time_us),
                    Told::Repeated => prop_assert!(seen.contains(&time_us), "{} was never told", time_us),
                    Told::Forgotten => {
                        let among = |(first_us, last_us): &(i64, i64)| (*first_us..=*last_us).contains(&time_us);
                        prop_assert!(stored.forgotten().iter().any(among));
                    }
                }
                prop_assert!(stored.runs.len() <= runs_max && stored.forgotten.len() <= RANGES_MAX);
            }
        }

        /// What either knew both know.
        #[test]
        fn two_become_one(
            one in prop::collection::vec(0_i64..60, 0..60), other in prop::collection::vec(0_i64..60, 0..60),
        ) {
            let of = |times: &[i64]| {
                let mut stored = StoredTimes::default();
                for time_us in times {
                    stored.insert(*time_us);
                }
                stored
            };
            let (mut both, seen) = (of(&one), one.iter().chain(&other).copied().collect::<BTreeSet<_>>());
            both.merge(of(&other));
            prop_assert_eq!(times_of(&both), seen.into_iter().collect::<Vec<_>>());
        }

        /// What a logger wrote at equal steps is one run in the end, in whatever order it came.
        #[test]
        fn equal_steps_are_one_run(order in Just((0_i64..200).collect::<Vec<_>>()).prop_shuffle(), step_us in 1_i64..1_000) {
            let mut stored = StoredTimes::default();
            for row in order {
                stored.insert(row * step_us);
            }
            prop_assert_eq!(stored.runs().collect::<Vec<_>>(), [Run { first_us: 0, last_us: 199 * step_us, step_us }]);
        }
    }

    /// Rain's tips, ten thousand of them, newest first: all past the room were taken for stored, and lost.
    #[test]
    fn more_times_than_are_remembered_are_stored_all() {
        let newest = 10_000_i64;
        let rows = || (0..newest).rev().map(|row| row * row);
        let mut stored = StoredTimes::default();
        assert!(rows().all(|time_us| stored.insert(time_us) == Told::New));
        assert!(rows().all(|time_us| stored.insert(time_us) != Told::New));
        assert_eq!(stored.insert(newest * newest), Told::New);
        assert!(stored.runs.len() <= RUNS_MAX);
    }
}
