//! Scaling that gives what people expect. No I/O.
//!
//! It is decimal arithmetic wherever it can be: 125 × 0.1 is 12.5 and 3 × 0.1 is 0.3, the `f64`
//! nearest to what a pocket calculator shows, and not 0.30000000000000004. That holds for whole raw
//! numbers as long as the sum, written with enough decimals to be whole, stays within 2⁵³; past that
//! it is plain floating-point arithmetic in the order of the formula `raw × scale + offset`.
//!
//! The way back ([`Scaling::whole_raw`], [`Scaling::nearest_raw`]) is tried and never trusted: a raw number is handed
//! out only if it gives the value to the bit.

/// `value = raw × scale + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    scale: f64,
    offset: f64,
    decimal: Option<Decimal>,
}

/// The same in whole numbers: `(raw × scale + offset) / divisor`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Decimal {
    scale: f64,
    offset: f64,
    divisor: f64,
}

/// Whole numbers up to here, and their sums, are exact.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
const DECIMALS_MAX: i32 = 12;

impl Default for Scaling {
    fn default() -> Self {
        Self::new(1.0, 0.0)
    }
}

impl Scaling {
    /// A scaling; both numbers are finite and the scale is not zero (the configuration sees to it).
    #[must_use]
    pub fn new(scale: f64, offset: f64) -> Self {
        let decimal = (0..=DECIMALS_MAX).find_map(|decimals| {
            let divisor = 10_f64.powi(decimals);
            let whole = |number: f64| {
                let scaled = (number * divisor).round();
                (scaled.abs() <= WHOLE_MAX && same(scaled / divisor, number)).then_some(scaled)
            };
            Some(Decimal { scale: whole(scale)?, offset: whole(offset)?, divisor })
        });
        Self { scale, offset, decimal }
    }

    /// The value of a raw number.
    #[must_use]
    #[inline]
    pub fn apply(&self, raw: f64) -> f64 {
        self.decimal.and_then(|decimal| decimal.apply(raw)).unwrap_or_else(|| self.apply_plainly(raw))
    }

    fn apply_plainly(&self, raw: f64) -> f64 {
        if same(self.scale, 1.0) && same(self.offset, 0.0) { raw } else { raw * self.scale + self.offset }
    }

    /// The factor.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// What is added.
    #[must_use]
    pub const fn offset(&self) -> f64 {
        self.offset
    }

    /// Whether the value is the raw number itself.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        same(self.scale, 1.0) && same(self.offset, 0.0)
    }

    /// The whole raw number that gives this value; none where there is none, or several do.
    #[must_use]
    pub fn whole_raw(&self, value: f64) -> Option<f64> {
        let near = self.undo(value).round();
        self.only_one([near - 1.0, near, near + 1.0], value)
    }

    /// The raw number of 32 bits that gives this value; none where there is none, or several do.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the nearest is looked for")]
    pub fn raw_of_32_bits(&self, value: f64) -> Option<f64> {
        let near = self.undo(value) as f32;
        let raw = [near.next_down().next_down(), near.next_down(), near, near.next_up(), near.next_up().next_up()];
        self.only_one(raw.map(f64::from), value)
    }

    /// A raw number that gives this value, the one with the fewest decimals: what a device is likely
    /// to have said. None of a subnormal value: of that the last digits are gone (IEEE 754-2019, 3.3), and numbers
    /// that are no neighbours give it.
    #[must_use]
    pub fn nearest_raw(&self, value: f64) -> Option<f64> {
        if value.is_subnormal() {
            return None;
        }
        let near = self.undo(value);
        let rounded = (0..=15).filter_map(|decimals| format!("{near:.decimals$}").parse::<f64>().ok());
        let around = [near, near.next_down(), near.next_up()];
        rounded.chain(around).find(|raw| raw.is_finite() && same(self.apply(*raw), value))
    }

    fn only_one<const N: usize>(&self, raw: [f64; N], value: f64) -> Option<f64> {
        let mut giving = raw.into_iter().filter(|raw| raw.is_finite() && same(self.apply(*raw), value));
        let found = giving.next()?;
        giving.all(|other| same(other, found)).then_some(found)
    }

    /// The raw number of a value, for devices that we play ourselves.
    #[must_use]
    pub fn undo(&self, value: f64) -> f64 {
        (value - self.offset) / self.scale
    }
}

impl Decimal {
    fn apply(&self, raw: f64) -> Option<f64> {
        let product = raw * self.scale;
        let sum = product + self.offset;
        let exact = same(raw, raw.trunc()) && product.abs() <= WHOLE_MAX && sum.abs() <= WHOLE_MAX;
        exact.then(|| sum / self.divisor)
    }
}

/// Equal to the bit but for the sign of zero: a comparison that is meant, not a mistake.
#[expect(clippy::float_cmp, reason = "exactness is the question")]
fn same(one: f64, other: f64) -> bool {
    one == other
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// With a factor so small beside the offset that neighbours give one value, nothing is guessed.
    #[test]
    fn a_raw_number_that_is_not_certain_is_none() {
        let scaling = Scaling::new(1e-20, 1e6);
        assert_eq!(scaling.whole_raw(scaling.apply(3.0)), None);
        assert_eq!(Scaling::new(0.1, 0.0).whole_raw(12.34), None);
        assert_eq!(Scaling::new(0.1, -40.0).whole_raw(-27.5), Some(125.0));
        assert_eq!(Scaling::new(0.1, 0.0).nearest_raw(Scaling::new(0.1, 0.0).apply(184.5)), Some(184.5));
    }

    proptest! {
        #[test]
        fn a_whole_number_comes_back(
            raw in -2_147_483_648_i64..4_294_967_296,
            scale in prop::sample::select(vec![1.0, 0.1, 0.01, 0.001, -0.1, 10.0, 1.8, 0.0625, 2.5, 1.0 / 3.0]),
            offset in prop::sample::select(vec![0.0, -40.0, 32.0, 273.15, 0.005]),
        ) {
            let scaling = Scaling::new(scale, offset);
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            let raw = raw as f64;
            prop_assert_eq!(scaling.whole_raw(scaling.apply(raw)), Some(raw));
        }

        /// What is handed out gives the value, whatever was asked.
        #[test]
        fn nothing_is_made_up(value in any::<f64>(), scale in 1e-6_f64..1e6, offset in -1e6_f64..1e6) {
            let scaling = Scaling::new(scale, offset);
            for raw in [scaling.whole_raw(value), scaling.raw_of_32_bits(value), scaling.nearest_raw(value)].into_iter().flatten() {
                prop_assert!(same(scaling.apply(raw), value));
            }
        }
    }
}
