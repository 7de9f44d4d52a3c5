//! The one module that reads the wall clock.
//!
//! Everything that needs to know what time it is takes a [`Clock`], so that tests can set it.
//! Waiting is the runtime's own business (`tokio::time`).
//!
//! A machine without a battery begins in 1970, or where it was switched off, until somebody tells it the
//! time. For as long, a clock can be made to **estimate**: it goes on from the newest time that is known, on
//! the monotonic clock, and says so; what was dated meanwhile is dated again once it is set.
//!
//! A clock that was right may fall back while it runs: a battery clock that is read again, a time server that is wrong. One
//! that is **guarded** does not follow it (`guard`).

mod guard;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use guard::Doubt;
use guard::Guard;

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;

/// What time it is. Clones share their hands, whether they estimate, and what they believe.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    hands: Hands,
    estimate: Option<Arc<Estimate>>,
    guard: Option<Arc<Guard>>,
}

#[derive(Debug, Clone, Default)]
enum Hands {
    #[default]
    Machine,
    Manual(Arc<ManualHands>),
}

#[derive(Debug)]
struct ManualHands {
    wall_us: AtomicI64,
    monotonic_us: AtomicI64,
}

#[derive(Debug)]
struct Estimate {
    /// How far it is before the monotonic clock.
    ahead_us: i64,
    /// What it said last; [`LASTS`] while it lasts.
    ended_us: AtomicI64,
    /// How far the wall clock was before it when it ended.
    offset_us: AtomicI64,
}

/// The end of an estimate that lasts.
const LASTS: i64 = i64::MAX;

/// The end of an estimate of which no moment is told from others any more.
const NAMES_NOTHING: i64 = i64::MIN;

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self { hands: Hands::Machine, estimate: None, guard: None }
    }

    /// A clock that stands still until it is set.
    #[must_use]
    pub fn manual(now_us: i64) -> Self {
        let hands = ManualHands { wall_us: AtomicI64::new(now_us), monotonic_us: AtomicI64::new(0) };
        Self { hands: Hands::Manual(Arc::new(hands)), estimate: None, guard: None }
    }

    /// The same clock, but what it says begins at `start_us` and goes on from there until
    /// [`Self::settle`].
    #[must_use]
    pub fn estimating_from(&self, start_us: i64) -> Self {
        let estimate = Estimate {
            ahead_us: start_us.saturating_sub(self.monotonic_us()),
            ended_us: AtomicI64::new(LASTS),
            offset_us: AtomicI64::new(0),
        };
        Self { hands: self.hands.clone(), estimate: Some(Arc::new(estimate)), guard: None }
    }

    /// The same clock, but once its wall clock is believed it is not followed back by more than so much: what was believed last
    /// goes on with the monotonic clock, until the wall clock is back or [`Self::believe`] says that it is right.
    #[must_use]
    pub fn guarded(&self, back_max_us: i64) -> Self {
        Self { guard: Some(Arc::new(Guard::new(back_max_us))), ..self.clone() }
    }

    /// Microseconds since 1970 UTC.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        match &self.estimate {
            Some(estimate) if estimate.lasts() => estimate.at(self.monotonic_us()),
            _ => self.guard.as_ref().map_or_else(|| self.wall_us(), |guard| guard.now_us(|| self.both_us())),
        }
    }

    fn both_us(&self) -> (i64, i64) {
        (self.wall_us(), self.monotonic_us())
    }

    /// Whether it is the machine's, and no simulation's that goes on only when it is told to.
    #[must_use]
    pub const fn is_of_the_machine(&self) -> bool {
        matches!(self.hands, Hands::Machine)
    }

    /// What the wall clock says, right or wrong.
    #[must_use]
    pub fn wall_us(&self) -> i64 {
        match &self.hands {
            Hands::Machine => system_now_us(),
            Hands::Manual(hands) => hands.wall_us.load(Ordering::Relaxed),
        }
    }

    /// Microseconds on a clock that nobody sets.
    #[must_use]
    pub fn monotonic_us(&self) -> i64 {
        static START: OnceLock<Instant> = OnceLock::new();
        match &self.hands {
            Hands::Machine => micros(START.get_or_init(Instant::now).elapsed()),
            Hands::Manual(hands) => hands.monotonic_us.load(Ordering::Relaxed),
        }
    }

    /// Whether what it says is the wall clock's word, and no estimate.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.estimate.as_ref().is_none_or(|estimate| !estimate.lasts())
    }

    /// Ends the estimate: from now on the wall clock is believed. How far it is before what was estimated.
    pub fn settle(&self) -> i64 {
        let Some(estimate) = &self.estimate else { return 0 };
        if estimate.lasts() {
            let ended_us = estimate.at(self.monotonic_us());
            estimate.offset_us.store(self.wall_us().saturating_sub(ended_us), Ordering::Release);
            estimate.ended_us.store(ended_us, Ordering::Release);
            self.follow();
        }
        estimate.offset_us.load(Ordering::Acquire)
    }

    /// How far the wall clock was before the estimate when that ended; `None` where there was none, or it
    /// lasts.
    #[must_use]
    pub fn offset_us(&self) -> Option<i64> {
        let estimate = self.estimate.as_ref().filter(|estimate| !estimate.lasts())?;
        Some(estimate.offset_us.load(Ordering::Acquire))
    }

    /// Whether it was believed from the start: no time that it told is an estimate.
    #[must_use]
    pub const fn was_always_known(&self) -> bool {
        self.estimate.is_none()
    }

    /// Whether a moment that lay at or before now when this clock named it was estimated. After the
    /// estimate it can be told from the others: it lies before the estimate's end, and, where the wall clock
    /// was behind, in the future of what is told now: a wall clock that falls later on is not asked.
    #[must_use]
    pub fn is_estimate(&self, time_us: i64) -> bool {
        let Some(estimate) = &self.estimate else { return false };
        match estimate.ended_us.load(Ordering::Acquire) {
            LASTS => true,
            ended_us if time_us > ended_us => false,
            _ => estimate.offset_us.load(Ordering::Acquire) >= 0 || time_us > self.now_us(),
        }
    }

    /// Looks at the wall clock: why it is not believed, if it is not. An estimate that lasts is no doubt.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        let guard = self.guard.as_ref().filter(|_| self.is_set())?;
        guard.now_us(|| self.both_us());
        guard.doubt(self.monotonic_us())
    }

    /// Ends a doubt: from now on the wall clock is believed. It may come once more to times that an estimate of before named: those
    /// are its own now.
    pub fn believe(&self) {
        if let Some(estimate) = self.estimate.as_ref().filter(|estimate| !estimate.lasts()) {
            estimate.ended_us.store(NAMES_NOTHING, Ordering::Release);
        }
        self.follow();
    }

    fn follow(&self) {
        if let Some(guard) = &self.guard {
            guard.believe(|| self.both_us());
        }
    }

    /// Whether a moment that lay at or before now when this clock named it was named while the wall clock was not believed.
    #[must_use]
    pub fn is_doubtful(&self, time_us: i64) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is_doubtful(time_us, self.wall_us()))
    }

    /// How often the wall clock fell back and was not believed.
    #[must_use]
    pub fn falls(&self) -> u64 {
        self.guard.as_ref().map_or(0, |guard| guard.falls())
    }

    /// Sets a manual clock; the machine's clock is left alone.
    pub fn set_us(&self, now_us: i64) {
        if let Hands::Manual(hands) = &self.hands {
            hands.wall_us.store(now_us, Ordering::Relaxed);
        }
    }

    /// Lets time pass on a manual clock: both of its hands go on.
    pub fn advance_us(&self, passed_us: i64) {
        if let Hands::Manual(hands) = &self.hands {
            hands.wall_us.fetch_add(passed_us, Ordering::Relaxed);
            hands.monotonic_us.fetch_add(passed_us, Ordering::Relaxed);
        }
    }
}

impl Estimate {
    fn lasts(&self) -> bool {
        self.ended_us.load(Ordering::Acquire) == LASTS
    }

    const fn at(&self, monotonic_us: i64) -> i64 {
        self.ahead_us.saturating_add(monotonic_us)
    }
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn system_now_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_goes_on_from_what_was_known_until_the_clock_is_set() {
        let wall = Clock::manual(5);
        let clock = wall.estimating_from(1_000);
        wall.advance_us(10);
        assert_eq!((clock.now_us(), clock.wall_us(), clock.is_set()), (1_010, 15, false));
        wall.set_us(9_000);
        assert_eq!(clock.now_us(), 1_010, "a step is not believed by itself");
        assert!(clock.is_estimate(1_010) && clock.offset_us().is_none());
        assert_eq!((clock.settle(), clock.now_us(), clock.offset_us()), (7_990, 9_000, Some(7_990)));
        assert!(clock.is_set() && clock.is_estimate(1_010) && !clock.is_estimate(9_000));
        wall.advance_us(50);
        assert_eq!((clock.settle(), clock.now_us()), (7_990, 9_050), "it is settled once");
    }

    #[test]
    fn a_clock_that_was_right_all_along_settles_back() {
        let wall = Clock::manual(500);
        let clock = wall.estimating_from(10_000);
        wall.advance_us(100);
        assert_eq!((clock.settle(), clock.now_us()), (-9_500, 600));
        assert!(clock.is_estimate(10_050) && !clock.is_estimate(600));
    }

    /// A clock that fell long after an estimate had settled back: each time since was told as an estimate's.
    #[test]
    fn what_is_told_while_a_clock_has_fallen_is_no_estimate_of_before() {
        let wall = Clock::manual(NOW_US);
        let clock = wall.estimating_from(NOW_US + 300 * SECOND_US).guarded(BOUND_US);
        wall.advance_us(SECOND_US);
        let under_way_us = clock.now_us();
        assert_eq!(clock.settle(), -300 * SECOND_US);
        wall.advance_us(SECOND_US);
        assert_eq!(clock.now_us(), NOW_US + 2 * SECOND_US);
        wall.set_us(900_000_000 * SECOND_US);
        wall.advance_us(SECOND_US);
        let told_us = clock.now_us();
        assert!(clock.is_doubtful(told_us) && !clock.is_estimate(told_us), "it goes on from what was believed");
        assert!(clock.is_estimate(under_way_us), "this was under way when the clock came");
        wall.advance_us(HOUR_US);
        assert!(clock.doubt().is_some() && !clock.is_estimate(clock.now_us()));
    }

    /// The estimate was ahead, the clock that ended it hours more, and then one came that was right.
    #[test]
    fn a_clock_that_is_believed_again_has_its_times_to_itself() {
        let wall = Clock::manual(20);
        let clock = wall.estimating_from(NOW_US + 300 * SECOND_US).guarded(BOUND_US);
        wall.set_us(NOW_US + HOUR_US);
        clock.settle();
        wall.set_us(NOW_US);
        assert!(clock.doubt().is_some());
        clock.believe();
        wall.advance_us(SECOND_US);
        assert_eq!((clock.now_us(), clock.is_estimate(NOW_US + SECOND_US)), (NOW_US + SECOND_US, false));
    }

    const HOUR_US: i64 = 3_600 * SECOND_US;
    const BOUND_US: i64 = 900 * SECOND_US;
    const NOW_US: i64 = 1_800_000_000 * SECOND_US;

    /// Readings of years were dated 1998, and refused by everybody.
    #[test]
    fn a_clock_that_falls_back_is_not_followed_until_it_is_back() {
        let wall = Clock::manual(NOW_US);
        let clock = wall.guarded(BOUND_US);
        assert_eq!((clock.now_us(), clock.doubt()), (NOW_US, None));
        wall.advance_us(SECOND_US);
        assert_eq!(clock.now_us(), NOW_US + SECOND_US);
        wall.advance_us(SECOND_US);
        wall.set_us(900_000_000 * SECOND_US);
        assert_eq!(clock.now_us(), NOW_US + 2 * SECOND_US);
        wall.advance_us(HOUR_US);
        let doubt = clock.doubt().expect("it fell");
        assert_eq!((doubt.since_us, doubt.for_us, doubt.is_back), (NOW_US + SECOND_US, HOUR_US, false));
        assert_eq!(doubt.behind_us, 900_000_002 * SECOND_US);
        assert!(clock.is_doubtful(NOW_US + 2 * SECOND_US) && !clock.is_doubtful(NOW_US + SECOND_US));
        let right_us = NOW_US + HOUR_US + 5 * SECOND_US;
        wall.set_us(right_us);
        assert_eq!((clock.now_us(), clock.doubt(), clock.falls()), (right_us, None, 1));
        wall.advance_us(SECOND_US);
        assert!(clock.is_doubtful(NOW_US + HOUR_US) && !clock.is_doubtful(right_us + SECOND_US));
    }

    #[test]
    fn what_a_time_server_corrects_is_followed() {
        let wall = Clock::manual(NOW_US);
        let clock = wall.guarded(BOUND_US);
        assert_eq!(clock.now_us(), NOW_US);
        // A leap second, a step of minutes, and forward whatever it is.
        for step_us in [-SECOND_US, -600 * SECOND_US, HOUR_US, 1_000 * HOUR_US, -BOUND_US] {
            wall.advance_us(60 * SECOND_US);
            wall.set_us(wall.wall_us() + step_us);
            assert_eq!((clock.now_us(), clock.doubt()), (wall.wall_us(), None), "{step_us}");
        }
        assert_eq!((clock.falls(), clock.is_doubtful(NOW_US + 1)), (0, false));
    }

    #[test]
    fn who_knows_better_ends_a_doubt() {
        let wall = Clock::manual(NOW_US);
        let clock = wall.guarded(BOUND_US);
        assert_eq!(clock.now_us(), NOW_US);
        wall.set_us(NOW_US + 9 * HOUR_US);
        assert_eq!(clock.now_us(), NOW_US + 9 * HOUR_US, "nobody knows that it is wrong");
        wall.advance_us(60 * SECOND_US);
        wall.set_us(NOW_US + 60 * SECOND_US);
        assert!(clock.doubt().is_some_and(|doubt| doubt.is_back), "it is where it was before it sprang forward");
        let told_us = clock.now_us();
        assert_eq!(told_us, NOW_US + 9 * HOUR_US + 60 * SECOND_US);
        clock.believe();
        wall.advance_us(SECOND_US);
        assert_eq!((clock.now_us(), clock.doubt()), (NOW_US + 61 * SECOND_US, None));
        assert!(clock.is_doubtful(told_us), "what was under way then was dated by an estimate");
        wall.advance_us(10 * HOUR_US);
        assert!(!clock.is_doubtful(told_us), "the clock came to that time itself");
    }

    #[test]
    fn an_estimate_is_no_doubt_and_is_guarded_once_it_is_over() {
        let wall = Clock::manual(20);
        let clock = wall.estimating_from(NOW_US).guarded(BOUND_US);
        assert_eq!((clock.now_us(), clock.doubt()), (NOW_US, None));
        wall.set_us(NOW_US + HOUR_US);
        clock.settle();
        wall.set_us(20);
        assert_eq!((clock.now_us(), clock.is_set(), clock.doubt().is_some()), (NOW_US + HOUR_US, true, true));
    }

    #[test]
    fn the_machines_clocks_go_on() {
        let clock = Clock::system();
        let (wall_us, monotonic_us) = (clock.now_us(), clock.monotonic_us());
        assert!(wall_us > 1_600_000_000 * SECOND_US && clock.monotonic_us() >= monotonic_us);
        assert!(clock.is_set() && !clock.is_estimate(wall_us));
    }
}
