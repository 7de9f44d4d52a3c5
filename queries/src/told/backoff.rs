//! How long to wait after the pipeline did not tell: longer each time, and never the same for two servers.

use std::time::Duration;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// No pause is longer.
const CEILING: Duration = Duration::from_secs(60);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// The pause after one more failure: between half and all of twice the one before.
    pub(super) fn next_pause(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.0.min(16)).min(CEILING);
        self.0 = self.0.saturating_add(1);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked.
    pub(super) const fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_ceiling_and_begin_again() {
        let mut backoff = Backoff::default();
        for whole_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            let pause_ms = backoff.next_pause().as_millis();
            assert!((whole_ms / 2..=whole_ms).contains(&pause_ms), "{pause_ms} of {whole_ms}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }
}
