//! Flags as they stand in the column `tests`, and what follows from them.
//!
//! Each test has two bits: 0 not evaluated, 1 good, 2 suspect, 3 fail. Positions never change, since
//! they stand in tables for ever (`docs/quality.md` has them; a golden test holds them).

use tjern_readings::reading::Quality;

use crate::register::Test;

/// Two bits of `tests`.
pub(crate) const NOT_EVALUATED: i32 = 0;
/// The test found nothing.
pub(crate) const GOOD: i32 = 1;
/// Worth a look.
pub(crate) const SUSPECT: i32 = 2;
/// Not a measurement.
pub(crate) const FAIL: i32 = 3;

/// Where each test's two bits begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    /// Plausible range.
    Range = 0,
    /// The flag that the reading came with.
    Came = 2,
    /// What a season allows.
    Climatology = 4,
    /// Out and back.
    Spike = 6,
    /// Too fast.
    RateOfChange = 8,
    /// Stuck.
    FlatLine = 10,
    /// Hardly any movement.
    AttenuatedSignal = 12,
    /// Nothing before it for long.
    Gap = 14,
    /// Somebody said that readings are not good then.
    Event = 16,
    /// A counter that went backward.
    Backward = 18,
    /// Out of the water.
    Exposure = 20,
}

impl Bits {
    /// Every place, in order.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 11] = [
        Self::Range,
        Self::Came,
        Self::Climatology,
        Self::Spike,
        Self::RateOfChange,
        Self::FlatLine,
        Self::AttenuatedSignal,
        Self::Gap,
        Self::Event,
        Self::Backward,
        Self::Exposure,
    ];

    /// The place of a test that rules set.
    pub(crate) const fn of(test: Test) -> Self {
        match test {
            Test::Range => Self::Range,
            Test::Climatology => Self::Climatology,
            Test::Spike => Self::Spike,
            Test::RateOfChange => Self::RateOfChange,
            Test::FlatLine => Self::FlatLine,
            Test::AttenuatedSignal => Self::AttenuatedSignal,
            Test::Gap => Self::Gap,
            Test::Backward => Self::Backward,
            Test::Exposure => Self::Exposure,
        }
    }

    /// A flag at this place.
    pub(crate) const fn put(self, flag: i32) -> i32 {
        flag << self as i32
    }

    /// The flag at this place.
    pub(crate) const fn get(self, tests: i32) -> i32 {
        (tests >> self as i32) & 0b11
    }
}

/// What a flag from outside says. One that QARTOD does not know is none.
pub(crate) fn came_with(quality: i8) -> i32 {
    match Quality::from_code(quality) {
        Some(Quality::Good) => GOOD,
        Some(Quality::Suspect) => SUSPECT,
        Some(Quality::Fail) => FAIL,
        Some(Quality::NotEvaluated | Quality::Missing) | None => NOT_EVALUATED,
    }
}

/// The flag that a stored row came with: what its tests remember, or its quality where nobody looked
/// at it yet.
pub(crate) fn came(quality: i8, tests: Option<i32>) -> i32 {
    tests.map_or_else(|| came_with(quality), |tests| Bits::Came.get(tests))
}

/// The quality of a value: the worst of what its tests say. A gap is about the time before a
/// reading and not about its value, so it counts for nothing here.
pub(crate) fn aggregate(tests: i32) -> Quality {
    let counted = tests & !Bits::Gap.put(0b11);
    let worst = (0..16).map(|place| (counted >> (2 * place)) & 0b11).max().unwrap_or(NOT_EVALUATED);
    match worst {
        FAIL => Quality::Fail,
        SUSPECT => Quality::Suspect,
        GOOD => Quality::Good,
        _ => Quality::NotEvaluated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables that exist are read with these positions for ever.
    #[test]
    fn each_test_has_its_bits_for_ever() {
        let told: Vec<String> = Bits::ALL.iter().map(|place| format!("{place:?} {}", *place as i32)).collect();
        let golden = include_str!("tests/bits.txt");
        assert_eq!(told.join("\n"), golden.trim_end());
    }

    #[test]
    fn the_worst_test_counts_and_a_gap_does_not() {
        assert_eq!(aggregate(0), Quality::NotEvaluated);
        assert_eq!(aggregate(Bits::Gap.put(FAIL)), Quality::NotEvaluated);
        assert_eq!(aggregate(Bits::Gap.put(FAIL) | Bits::Range.put(GOOD)), Quality::Good);
        for place in Bits::ALL.into_iter().filter(|place| *place != Bits::Gap) {
            let others = Bits::Range.put(GOOD) | Bits::Spike.put(GOOD);
            assert_eq!(aggregate(others & !place.put(0b11) | place.put(SUSPECT)), Quality::Suspect);
            assert_eq!(aggregate(others | place.put(FAIL)), Quality::Fail);
        }
    }
}
