//! What a simulated sensor measures: a function of time, and of nothing else.

use std::f64::consts::TAU;

const SECOND_US: f64 = 1e6;
const DAY_S: f64 = 86_400.0;
const YEAR_S: f64 = 365.2425 * DAY_S;
/// The warmest moment of a day, and of a year, as shares of them.
const WARMEST_OF_DAY: f64 = 0.66;
const WARMEST_OF_YEAR: f64 = 0.58;
/// The noise changes this often.
const NOISE_S: f64 = 30.0;

/// A mean, the swing of a year and of a day, and noise that is the same whenever it is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signal {
    /// The mean of many years.
    pub mean: f64,
    /// How far the warmest day is above it.
    pub yearly_amplitude: f64,
    /// How far the warmest hour is above the day's mean.
    pub daily_amplitude: f64,
    /// The largest noise.
    pub noise: f64,
    /// Which noise.
    pub seed: u64,
}

impl Signal {
    /// A value that never changes.
    #[must_use]
    pub const fn constant(value: f64) -> Self {
        Self { mean: value, yearly_amplitude: 0.0, daily_amplitude: 0.0, noise: 0.0, seed: 0 }
    }

    /// The value at a moment, in microseconds since 1970.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a float's precision is a signal's")]
    pub fn at(&self, time_us: i64) -> f64 {
        let seconds = time_us as f64 / SECOND_US;
        let swing = |period_s: f64, warmest: f64| (TAU * (seconds / period_s - warmest)).cos();
        self.mean
            + self.yearly_amplitude * swing(YEAR_S, WARMEST_OF_YEAR)
            + self.daily_amplitude * swing(DAY_S, WARMEST_OF_DAY)
            + self.noise * self.noise_at(seconds)
    }

    /// Between −1 and 1, smooth between its nodes.
    #[expect(clippy::cast_possible_truncation, reason = "a node's number is small")]
    fn noise_at(&self, seconds: f64) -> f64 {
        let place = seconds / NOISE_S;
        let node = place.floor();
        let (before, after) = (self.noise_of(node as i64), self.noise_of(node as i64 + 1));
        before + (after - before) * (place - node)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits of noise are enough")]
    fn noise_of(&self, node: i64) -> f64 {
        let mut mixed = self.seed ^ node.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for shift in [30, 27, 31] {
            mixed = (mixed ^ (mixed >> shift)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        }
        (mixed >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_signal_stays_within_its_swings_and_moves_slowly(seed: u64, time_us in 0_i64..4_000_000_000_000_000) {
            let signal = Signal { mean: 12.0, yearly_amplitude: 8.0, daily_amplitude: 1.5, noise: 0.2, seed };
            let value = signal.at(time_us);
            prop_assert!((value - 12.0).abs() <= 9.7);
            prop_assert!((signal.at(time_us + 1_000_000) - value).abs() < 0.05);
            prop_assert_eq!(signal.at(time_us), value);
        }
    }
}
