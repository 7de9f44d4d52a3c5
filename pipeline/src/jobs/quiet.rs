//! What goes on is told when it begins, then after pauses that double, and when it is over: a log that says the same every few
//! seconds hides what else is in it. Pure: the time is given.

use std::collections::BTreeMap;

/// The pause before something is told for the second time.
const PAUSE_FIRST_US: i64 = 60 * 1_000_000;

/// The longest pause.
const PAUSE_LONGEST_US: i64 = 60 * 60 * 1_000_000;

/// What was told, by whom it is about.
#[derive(Debug, Default)]
pub(super) struct Quiet(BTreeMap<String, Told>);

#[derive(Debug)]
struct Told {
    what: String,
    at_us: i64,
    pause_us: i64,
}

impl Quiet {
    /// Whether it is to be told now. Something else about the same one is told at once.
    pub(super) fn tells(&mut self, whom: &str, what: &str, now_us: i64) -> bool {
        let pause_us = match self.0.get(whom).filter(|told| told.what == what) {
            None => PAUSE_FIRST_US,
            // A clock that was set back keeps nothing silent.
            Some(told) if (0..told.pause_us).contains(&now_us.saturating_sub(told.at_us)) => return false,
            Some(told) => told.pause_us.saturating_mul(2).min(PAUSE_LONGEST_US),
        };
        self.0.insert(whom.to_owned(), Told { what: what.to_owned(), at_us: now_us, pause_us });
        true
    }

    /// Whether it goes on, as far as was told.
    pub(super) fn is_told(&self, whom: &str) -> bool {
        self.0.contains_key(whom)
    }

    /// It is over. Returns whether it was told.
    pub(super) fn is_over(&mut self, whom: &str) -> bool {
        self.0.remove(whom).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: i64 = 1_000_000;

    #[test]
    fn what_goes_on_is_told_more_and_more_seldom_and_what_is_new_at_once() {
        let mut quiet = Quiet::default();
        let day = (0..24 * 720).map(|step| step * 5 * SECOND_US);
        let told: Vec<i64> = day.filter(|now_us| quiet.tells("lake", "it is full", *now_us)).collect();
        let minutes: Vec<i64> = told.iter().map(|now_us| now_us / SECOND_US / 60).take(9).collect();
        assert_eq!(minutes, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        assert!(told.len() < 32, "{} times a day", told.len());
        let now_us = 24 * 3_600 * SECOND_US;
        assert!(quiet.tells("lake", "it may only be read", now_us), "that is something else");
        assert!(quiet.tells("ingest", "it may only be read", now_us), "and that somebody else");
        assert!(!quiet.tells("lake", "it may only be read", now_us + SECOND_US));
        assert!(quiet.tells("lake", "it may only be read", 0), "the clock was set back");
        assert!(quiet.is_over("lake") && !quiet.is_over("lake"), "that it is over is told once");
        assert!(quiet.tells("lake", "it may only be read", SECOND_US), "it begins anew");
    }
}
