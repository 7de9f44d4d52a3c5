//! Scaling that gives what people expect. No I/O.
//!
//! It is decimal arithmetic wherever it can be: 125 × 0.1 is 12.5 and 3 × 0.1 is 0.3, the `f64`
//! nearest to what a pocket calculator shows, and not 0.30000000000000004. That holds for whole raw
//! numbers as long as the sum, written with enough decimals to be whole, stays within 2⁵³; past that
//! it is plain floating-point arithmetic in the order of the formula `raw × scale + offset`.

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
    pub fn apply(&self, raw: f64) -> f64 {
        self.decimal.and_then(|decimal| decimal.apply(raw)).unwrap_or_else(|| self.apply_plainly(raw))
    }

    fn apply_plainly(&self, raw: f64) -> f64 {
        if same(self.scale, 1.0) && same(self.offset, 0.0) { raw } else { raw * self.scale + self.offset }
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
