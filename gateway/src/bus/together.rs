//! How many requests a bus asks at once.
//!
//! As many as its configuration says, as long as that goes well. What was asked together and not answered whole is no value, and
//! says of nobody that he is dead: it is asked again, one request after the other, and so is everything for a pause that doubles
//! from a second to five minutes. A device that does not bear several requests so costs little, whatever was
//! configured; one that is merely slow now and then costs a second. Pure: the caller says what time it is.

use std::time::Duration;

use tokio::time::Instant;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Together {
    in_flight: usize,
    pause: Duration,
    /// One at a time until then.
    careful_until: Option<Instant>,
}

impl Together {
    pub(super) fn new(in_flight: usize) -> Self {
        Self { in_flight: in_flight.max(1), pause: Duration::ZERO, careful_until: None }
    }

    /// How many requests may go out together now.
    pub(super) fn most(&self, now: Instant) -> usize {
        if self.careful_until.is_some_and(|until| now < until) { 1 } else { self.in_flight }
    }

    /// Several were asked, and not all answered. Whether that is worth a line: the first time in a row.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let is_first = self.careful_until.is_none();
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.careful_until = Some(now + self.pause);
        is_first
    }

    /// Several were asked and all answered. Once that has gone well for as long as the last pause, it is forgotten.
    pub(super) fn succeeded(&mut self, now: Instant) {
        if self.careful_until.is_some_and(|until| now >= until + self.pause) {
            (self.pause, self.careful_until) = (Duration::ZERO, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that never bears several requests: how often it costs a second try in a day.
    #[test]
    fn a_device_that_does_not_bear_it_is_seldom_asked_so() {
        let (mut together, start) = (Together::new(8), Instant::now());
        let (mut failures, mut lines) = (0, 0);
        for second in 0..86_400 {
            let now = start + Duration::from_secs(second);
            if together.most(now) > 1 {
                failures += 1;
                lines += u64::from(together.failed(now));
            }
        }
        assert!(failures < 300 && lines == 1, "{failures} failures, {lines} lines");
    }

    #[test]
    fn one_failure_is_forgotten() {
        let (mut together, start) = (Together::new(8), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(together.failed(start));
        assert_eq!((together.most(start), together.most(at(1))), (1, 8));
        together.succeeded(at(1));
        assert!(!together.failed(at(1)), "again within a second: the same trouble");
        assert_eq!((together.most(at(2)), together.most(at(3))), (1, 8));
        together.succeeded(at(5));
        assert!(together.failed(at(5)), "it went well for a while");
        assert_eq!(together.most(at(6)), 8);
    }
}
