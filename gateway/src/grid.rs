//! The grid of slots: when a point is due, and what moment its value stands for.
//!
//! Slots are the multiples of `every` since 1970 plus `phase`, in wall-clock microseconds. They are
//! absolute: a late poll does not move the next one, so nothing drifts. A point is never queued: it
//! is due or it is not, and slots that pass while it waits are counted as missed. No I/O, no clock:
//! the caller says what time it is, as often as it likes, so that a stepped clock is noticed (`steps`): slots that
//! it passes over are no slots that anybody missed.

pub(crate) mod steps;

use std::time::Duration;

use tjern_readings::configuration::Period;

/// However far the next slot is, the clock is looked at again after this: it may have been stepped.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Of a period: how long after its slot a first poll still counts, and from where a lag is noted.
const TENTH: i64 = 10;

/// Requests are spread over one part in so many of the period: with that and the time of an answer or two, a reading
/// is still within a tenth.
const SPREAD_PART: i64 = 12;

/// However long a period is, its requests are spread over no more than this.
const SPREAD_MAX_US: i64 = 30_000_000;

/// A lag below this is not noted, however short the period.
const LAG_MIN_US: i64 = 1_000_000;

/// A moment in microseconds, or none, in the eight bytes of the first: a gateway has several of each of its points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(i64);

impl Moment {
    /// No moment. No clock says this one.
    pub(crate) const NONE: Self = Self(i64::MIN);

    /// This one.
    #[inline]
    pub(crate) const fn of(time_us: Option<i64>) -> Self {
        match time_us {
            Some(time_us) => Self(time_us),
            None => Self::NONE,
        }
    }

    /// In microseconds.
    #[inline]
    pub(crate) const fn get(self) -> Option<i64> {
        if self.0 == Self::NONE.0 { None } else { Some(self.0) }
    }

    /// This one, where it is later.
    #[inline]
    pub(crate) fn raise(&mut self, time_us: i64) {
        self.0 = self.0.max(time_us);
    }
}

/// The slots of one point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    every_us: i64,
    phase_us: i64,
}

impl Grid {
    /// The multiples of `every` plus `phase`.
    #[must_use]
    pub fn new(every: Period, phase: Duration) -> Self {
        Self { every_us: every.micros(), phase_us: i64::try_from(phase.as_micros()).unwrap_or(0) }
    }

    /// The period in microseconds.
    #[must_use]
    pub const fn every_us(self) -> i64 {
        self.every_us
    }

    /// The slot that a moment lies in: the last one that has begun.
    #[must_use]
    #[inline]
    pub const fn slot_of(self, time_us: i64) -> i64 {
        time_us - (time_us - self.phase_us).rem_euclid(self.every_us)
    }

    /// Whether a slot began so short a time ago that a value of now stands for it.
    #[must_use]
    #[inline]
    pub const fn is_fresh(self, slot_us: i64, now_us: i64) -> bool {
        now_us - slot_us < self.every_us / TENTH
    }

    /// How long after its slot a poll is begun, for a share from 0 to 1: over less than a tenth of the period, so
    /// that a poll is still fresh and has no lag to note, and at most 30 s.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a share of at most 30 s")]
    pub fn spread_us(self, share: f64) -> i64 {
        ((self.every_us / SPREAD_PART).min(SPREAD_MAX_US) as f64 * share.clamp(0.0, 1.0)) as i64
    }

    /// How far behind its slot an answer came, where that is worth a note; less than nothing for one that was there before.
    #[must_use]
    #[inline]
    pub fn lag_ms(self, slot_us: i64, answered_us: i64) -> Option<i32> {
        let lag_us = answered_us - slot_us;
        let noted = lag_us.abs() > (self.every_us / TENTH).max(LAG_MIN_US);
        let bound = if lag_us < 0 { i32::MIN } else { i32::MAX };
        noted.then(|| i32::try_from(lag_us / 1_000).unwrap_or(bound))
    }
}

/// A slot that shall be polled now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The slot.
    pub slot_us: i64,
    /// Whether it is the first since the start, which may be polled for a sign of life only.
    pub first: bool,
}

/// Where a point stands on its grid.
#[derive(Debug, Clone)]
pub struct Schedule {
    grid: Grid,
    done_us: Moment,
    /// The slot that was due when the clock was looked at last, and was not polled yet.
    waiting_us: Moment,
    missed: u64,
    /// The slot in which the clock was looked at last.
    looked_us: i64,
}

impl Schedule {
    /// A point that was not polled yet: it is due at once.
    #[must_use]
    pub const fn new(grid: Grid) -> Self {
        Self { grid, done_us: Moment::NONE, waiting_us: Moment::NONE, missed: 0, looked_us: grid.phase_us }
    }

    /// The grid.
    #[must_use]
    pub const fn grid(&self) -> Grid {
        self.grid
    }

    /// How many slots passed without a poll.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// The slot that a moment lies in, without a division where it is the one of the last look, or the next.
    #[inline]
    fn slot_of(&self, time_us: i64) -> i64 {
        let (every_us, since_us) = (self.grid.every_us, time_us.saturating_sub(self.looked_us));
        match since_us {
            _ if since_us < 0 => self.grid.slot_of(time_us),
            _ if since_us < every_us => self.looked_us,
            _ if since_us - every_us < every_us => self.looked_us + every_us,
            _ => self.grid.slot_of(time_us),
        }
    }

    /// The slot that is due, if one is.
    #[must_use]
    #[inline]
    pub fn due(&self, now_us: i64) -> Option<Due> {
        let slot_us = self.slot_of(now_us);
        match self.done_us.get() {
            None => Some(Due { slot_us, first: true }),
            Some(done_us) => (slot_us > done_us).then_some(Due { slot_us, first: false }),
        }
    }

    /// When to look again, if nothing is due.
    #[must_use]
    pub fn next_us(&self, now_us: i64) -> i64 {
        self.slot_of(now_us).saturating_add(self.grid.every_us)
    }

    /// Looks at the clock: slots that passed unpolled since the last look are missed, also those of a
    /// point that was never polled. The slot that is due, if one is, and when the one ends that it is now.
    #[inline]
    pub fn look(&mut self, now_us: i64) -> (Option<Due>, i64) {
        self.looked_us = self.slot_of(now_us);
        let due = self.due(now_us);
        if let Some(due) = due {
            self.count_passed(due.slot_us);
            self.waiting_us = Moment::of(Some(due.slot_us));
        }
        (due, self.looked_us.saturating_add(self.grid.every_us))
    }

    /// Notes that a slot is polled, and counts those that passed since the last one.
    #[inline]
    pub fn begin(&mut self, due: Due) {
        self.count_passed(due.slot_us);
        // One that the clock came to meanwhile still waits.
        let waiting_us = self.waiting_us.get().filter(|waiting_us| *waiting_us > due.slot_us);
        (self.waiting_us, self.done_us) = (Moment::of(waiting_us), Moment::of(Some(due.slot_us)));
    }

    #[inline]
    fn count_passed(&mut self, slot_us: i64) {
        let after_done_us = self.done_us.get().map(|done_us| done_us.saturating_add(self.grid.every_us));
        let first_us = self.waiting_us.get().or(after_done_us).unwrap_or(slot_us);
        let passed_us = slot_us - first_us;
        if passed_us >= self.grid.every_us {
            self.missed += (passed_us / self.grid.every_us).unsigned_abs();
        }
    }

    /// A clock that was set forward by so much passed over slots in which nobody could have polled: those before it are
    /// counted, and none of them.
    pub fn follow_step_forward(&mut self, now_us: i64, by_us: i64) {
        let Some(due) = self.due(now_us) else { return };
        let under_way_us = self.grid.slot_of(now_us.saturating_sub(by_us));
        self.count_passed(under_way_us.saturating_add(self.grid.every_us).min(due.slot_us));
        self.waiting_us = Moment::of(Some(due.slot_us));
    }

    /// A clock that was set back by more than a period would leave the point waiting for a time that
    /// has been: it goes on from the slot that the clock now says. Whether that happened.
    pub fn follow_step_back(&mut self, now_us: i64) -> bool {
        let slot_us = self.grid.slot_of(now_us);
        let stepped = self.done_us.get().is_some_and(|done_us| done_us > slot_us.saturating_add(self.grid.every_us));
        if stepped {
            (self.waiting_us, self.done_us) = (Moment::NONE, Moment::of(Some(slot_us)));
        }
        stepped
    }
}

/// How long to wait for a deadline of the wall clock before looking at the clock again.
#[must_use]
pub fn wait(deadline_us: i64, now_us: i64) -> Duration {
    let left_us = deadline_us.saturating_sub(now_us).max(0);
    Duration::from_micros(left_us.unsigned_abs()).min(LOOK_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_US: i64 = 3_600_000_000;

    fn grid(every_ms: u64, phase_ms: u64) -> Grid {
        Grid::new(Period::from_millis(every_ms), Duration::from_millis(phase_ms))
    }

    proptest! {
        #[test]
        fn a_slot_is_a_multiple_plus_the_phase_and_the_last_that_began(
            every_ms in 1_u64..100_000_000, phase in 0.0_f64..1.0, time_us in -(1_i64 << 52)..(1_i64 << 52),
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a small number")]
            let phase_ms = (every_ms as f64 * phase) as u64;
            let grid = grid(every_ms, phase_ms);
            let slot_us = grid.slot_of(time_us);
            let phase_us = i64::try_from(phase_ms * 1_000).expect("small");
            prop_assert_eq!((slot_us - phase_us) % grid.every_us(), 0);
            prop_assert!(slot_us <= time_us && time_us < slot_us + grid.every_us());
            prop_assert_eq!(grid.slot_of(slot_us), slot_us);
        }

        /// What is remembered of the last look changes no answer.
        #[test]
        fn a_schedule_knows_the_slot_that_its_grid_says(
            every_ms in 1_u64..100_000, phase_ms in 0_u64..100_000, start_us in -(1_i64 << 52)..(1_i64 << 52),
            steps in prop::collection::vec((-200_000_000_i64..200_000_000, any::<bool>()), 1..100),
        ) {
            let grid = grid(every_ms, phase_ms % every_ms);
            let (mut schedule, mut now_us) = (Schedule::new(grid), start_us);
            for (step_us, looks) in steps {
                now_us += step_us;
                if looks {
                    schedule.look(now_us);
                }
                prop_assert_eq!(schedule.due(now_us).map(|due| due.slot_us), Some(grid.slot_of(now_us)));
                prop_assert_eq!(schedule.next_us(now_us), grid.slot_of(now_us) + grid.every_us());
            }
        }

        #[test]
        fn polls_never_drift_and_no_slot_is_polled_twice(every_ms in 1_u64..10_000, steps in prop::collection::vec(0_i64..30_000_000, 1..100)) {
            let mut schedule = Schedule::new(grid(every_ms, 0));
            let (mut now_us, mut polled) = (1_700_000_000_000_000, Vec::new());
            for step_us in steps {
                now_us += step_us;
                if let Some(due) = schedule.due(now_us) {
                    schedule.begin(due);
                    polled.push(due.slot_us);
                }
                prop_assert_eq!(schedule.due(now_us), None, "a point is due once");
            }
            prop_assert!(polled.is_sorted_by(|one, other| one < other));
            let slots = (polled[polled.len() - 1] - polled[0]) / schedule.grid().every_us() + 1;
            prop_assert_eq!(schedule.missed() + polled.len() as u64, slots.unsigned_abs(), "each slot is polled or missed");
        }
    }

    proptest! {
        /// A clock that fell to 1998 and came back counted 900 million slots of a second as missed.
        #[test]
        fn no_slot_is_missed_that_did_not_pass(
            every_ms in 10_u64..10_000,
            steps in prop::collection::vec((0_i64..30_000_000, prop_oneof![4 => Just(0), 1 => -(1_i64 << 50)..(1_i64 << 50)], 0_u8..3), 1..60),
        ) {
            let (mut schedule, mut seen) = (Schedule::new(grid(every_ms, 0)), steps::Steps::default());
            let (start, mut passed_us, mut now_us) = (tokio::time::Instant::now(), 0_i64, 1_800_000_000_000_000_i64);
            let (mut asked, mut sets) = (None, 0);
            for (step_us, set_us, work) in steps {
                passed_us += step_us;
                now_us += step_us + set_us;
                sets += u64::from(set_us != 0);
                if let Some(steps::Step::Forward(by_us)) = seen.look(now_us, start + Duration::from_micros(passed_us.unsigned_abs())) {
                    schedule.follow_step_forward(now_us, by_us);
                }
                // As a bus does it: what waits for an answer goes back with its point.
                let slot_us = schedule.grid().slot_of(now_us);
                schedule.follow_step_back(now_us);
                asked = asked.map(|due: Due| match due.slot_us > slot_us + schedule.grid().every_us() {
                    true => Due { slot_us, ..due },
                    false => due,
                });
                let due = schedule.look(now_us).0;
                // It is polled at once, or its answer comes after whatever is next, or it is not polled.
                if let Some(answered) = asked.take().or(due.filter(|_| work == 1)) {
                    schedule.begin(answered);
                }
                asked = schedule.due(now_us).filter(|_| work == 2);
            }
            let most = passed_us.unsigned_abs() / (every_ms * 1_000) + 1 + 2 * sets;
            prop_assert!(schedule.missed() <= most, "{} of {}", schedule.missed(), most);
        }
    }

    #[test]
    fn a_clock_that_is_set_forward_passes_over_slots_and_misses_none() {
        let mut schedule = Schedule::new(grid(1_000, 0));
        schedule.begin(schedule.due(10_000_000).expect("due"));
        schedule.follow_step_forward(900_000_000_000_000, 900_000_000_000_000 - 10_500_000);
        assert_eq!((schedule.missed(), schedule.look(900_000_000_000_000).0.is_some()), (0, true));
        schedule.look(900_000_003_000_000);
        assert_eq!(schedule.missed(), 3, "those that pass from then on are");
        // Two passed before the step, and the one under way ended with it.
        schedule.follow_step_forward(900_000_105_500_000, 100_000_000);
        assert_eq!(schedule.missed(), 6);
        schedule.begin(schedule.due(900_000_105_600_000).expect("due"));
        assert_eq!(schedule.missed(), 6);
        // What was asked before a step is answered after it; its slot ended with the step, and counts.
        let asked = schedule.due(900_000_106_000_000).expect("due");
        schedule.follow_step_forward(900_000_206_100_000, 100_000_000);
        schedule.begin(asked);
        let due = schedule.look(900_000_206_200_000).0.expect("due");
        schedule.begin(due);
        assert_eq!((schedule.missed(), due.slot_us), (7, 900_000_206_000_000));
    }

    #[test]
    fn slots_that_pass_unpolled_are_missed_while_they_pass() {
        let mut schedule = Schedule::new(grid(1_000, 0));
        [0, 500_000, 1_200_000, 1_300_000, 4_000_000].into_iter().for_each(|now_us| _ = schedule.look(now_us));
        assert_eq!(schedule.missed(), 4, "a point that was never polled has slots too");
        schedule.begin(schedule.due(4_500_000).expect("due"));
        assert_eq!(schedule.missed(), 4, "the slot that is polled is not missed");
        [4_900_000, 5_000_000, 7_000_000].into_iter().for_each(|now_us| _ = schedule.look(now_us));
        assert_eq!(schedule.missed(), 6);
        schedule.begin(schedule.due(8_000_000).expect("due"));
        assert_eq!(schedule.missed(), 7);
    }

    #[test]
    fn a_clock_that_is_set_back_a_day_does_not_stop_the_polling_for_a_day() {
        let mut schedule = Schedule::new(grid(3_600_000, 0));
        let now_us = 500_000 * HOUR_US;
        schedule.begin(schedule.due(now_us).expect("due at once"));
        let back_us = now_us - 24 * HOUR_US;
        assert!(schedule.follow_step_back(back_us));
        assert_eq!(schedule.due(back_us), None);
        assert_eq!(schedule.due(back_us + HOUR_US).map(|due| due.slot_us), Some(back_us + HOUR_US));
        assert!(!schedule.follow_step_back(back_us - 1_000), "a small correction only makes it wait");
    }

    #[test]
    fn polls_are_spread_and_stay_fresh() {
        assert_eq!(grid(1_200, 0).spread_us(0.5), 50_000);
        assert_eq!(grid(86_400_000, 0).spread_us(0.5), 15_000_000);
        assert!(grid(1_000, 0).is_fresh(0, grid(1_000, 0).spread_us(1.0)));
    }

    #[test]
    fn a_lag_is_noted_where_it_matters() {
        assert_eq!(grid(1_000, 0).lag_ms(0, 900_000), None);
        assert_eq!(grid(1_000, 0).lag_ms(0, 1_500_000), Some(1_500));
        assert_eq!(grid(3_600_000, 0).lag_ms(0, 300_000_000), None);
        assert_eq!(grid(3_600_000, 0).lag_ms(0, 400_000_000), Some(400_000));
        assert_eq!(grid(3_600_000, 0).lag_ms(3_600_000_000, 2_000_000), Some(-3_598_000));
    }

    #[test]
    fn a_far_deadline_is_approached_in_steps() {
        assert_eq!(wait(HOUR_US, 0), LOOK_AGAIN);
        assert_eq!(wait(250_000, 0), Duration::from_millis(250));
        assert_eq!(wait(0, 5), Duration::ZERO);
    }
}
