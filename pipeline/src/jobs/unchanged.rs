//! Whether anything that a job works on has changed since its last run.
//!
//! A job that runs every minute or two and finds nothing new would ask a store for the same things some hundred
//! times a day, and each request is billed. So a job remembers what it saw when it was last done, and looks
//! again only where that changed, or was long ago.

use std::time::Duration;

/// How old a look at a table may be by which a job finds out whether there is anything to do. What this process
/// commits is known at once; this is for what others do.
pub(super) const LOOK: Duration = Duration::from_secs(10 * 60);

/// However little changes, a job is done this often.
const EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// What was seen when a job was last done, and when that was.
#[derive(Debug)]
pub(super) struct Unchanged<T>(Option<(T, i64)>);

impl<T> Default for Unchanged<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Unchanged<T> {
    /// Whether the job was done not long ago and saw the same.
    pub(super) fn since(&self, seen: &T, now_us: i64) -> bool {
        self.0.as_ref().is_some_and(|(last, done_us)| {
            let age_us = now_us.saturating_sub(*done_us);
            last == seen && age_us >= 0 && u128::try_from(age_us).is_ok_and(|age_us| age_us < EVERY.as_micros())
        })
    }

    /// The job was done, and saw this before it began.
    pub(super) fn done(&mut self, seen: T, now_us: i64) {
        self.0 = Some((seen, now_us));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_or_is_long_ago_is_looked_at_again() {
        let mut unchanged = Unchanged::default();
        assert!(!unchanged.since(&1, 0));
        unchanged.done(1, 10);
        assert!(unchanged.since(&1, 20));
        assert!(!unchanged.since(&2, 20), "something changed");
        let long_us = i64::try_from(EVERY.as_micros()).expect("small");
        assert!(!unchanged.since(&1, 10 + long_us), "it is long ago");
        assert!(!unchanged.since(&1, 5), "the clock was set back");
    }
}
