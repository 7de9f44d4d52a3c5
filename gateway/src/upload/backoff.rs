//! How long to wait after a failure: longer each time, never the same for two gateways.

use std::time::Duration;

/// The pause after the first failure, where uploads are not more frequent themselves.
const FIRST: Duration = Duration::from_secs(1);

/// No pause begins shorter, however frequent uploads are.
const FLOOR: Duration = Duration::from_millis(50);

/// No pause is longer.
pub(crate) const CEILING: Duration = Duration::from_secs(60);

/// Counts failures in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
    first: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Pauses that grow up to `every`, or a second if that is less, and at most [`CEILING`]: who uploads often
    /// need not wait a minute to see that the lake is back.
    pub(crate) fn new(every: Duration) -> Self {
        Self { failures: 0, first: every.clamp(FLOOR, FIRST), ceiling: every.clamp(FIRST, CEILING) }
    }

    /// The pause after one more failure: between half and all of twice the one before.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1 << self.failures.min(16)).min(self.ceiling);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_ceiling_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(3600));
        for whole_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let pause_ms = backoff.next_pause().as_millis();
            assert!((whole_ms / 2..=whole_ms).contains(&pause_ms), "{pause_ms} of {whole_ms}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
        let mut brisk = Backoff::new(Duration::from_millis(1));
        assert!((0..100).all(|_| brisk.next_pause() <= FIRST));
    }

    /// A lake that comes back is asked by a hundred gateways in the same moment, and goes again.
    #[test]
    fn gateways_that_lost_the_lake_together_do_not_come_back_together() {
        let asked_at = || {
            let mut backoff = Backoff::new(Duration::from_secs(60));
            (0..8).map(|_| backoff.next_pause()).sum::<Duration>()
        };
        let mut at: Vec<_> = (0..100).map(|_| asked_at()).collect();
        at.sort();
        let together = at.iter().map(|one| at.iter().filter(|other| other.abs_diff(*one) < FIRST).count()).max();
        assert!(together < Some(25), "{together:?} of a hundred within a second of one another");
    }
}
