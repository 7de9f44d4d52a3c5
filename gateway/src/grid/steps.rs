//! Whether the clock was set between two looks at it: what it says is held against the time that passed. No I/O, no clock: the
//! caller says both.

use tokio::time::Instant;

/// Clocks that are read one after the other, and one that is slewed, differ by less.
const STEP_LEAST_US: i64 = 100_000;

/// What the clock did besides going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It says less than before.
    Back,
    /// It is so much further than the time that passed.
    Forward(i64),
}

/// Looks at a clock, and at the time that passes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Steps {
    looked: Option<(i64, Instant)>,
}

impl Steps {
    /// What the clock did since the last look.
    #[inline]
    pub(crate) fn look(&mut self, now_us: i64, now: Instant) -> Option<Step> {
        let (before_us, before) = self.looked.replace((now_us, now))?;
        let went_us = now_us.saturating_sub(before_us);
        if went_us < 0 {
            return Some(Step::Back);
        }
        if went_us < STEP_LEAST_US {
            return None;
        }
        let passed_us = i64::try_from(now.saturating_duration_since(before).as_micros()).unwrap_or(i64::MAX);
        let ahead_us = went_us.saturating_sub(passed_us);
        (ahead_us >= STEP_LEAST_US).then_some(Step::Forward(ahead_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_step_is_told_from_time_that_passes() {
        let (mut steps, start) = (Steps::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(steps.look(5_000_000, at(0)), None, "nobody looked before");
        assert_eq!(steps.look(6_050_000, at(1)), None);
        assert_eq!(steps.look(3_605_050_000, at(1)), Some(Step::Forward(3_599_000_000)));
        assert_eq!(steps.look(7_205_050_000, at(3_601)), None, "an hour without a look");
        assert_eq!(steps.look(7_205_049_999, at(3_601)), Some(Step::Back));
    }
}
