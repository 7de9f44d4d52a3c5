//! From registers to a value: types, orders, and scaling that gives what people expect. No I/O.
//!
//! A device holds a number in one, two or four 16-bit registers. `abcd` means the most significant
//! register first, each with its most significant byte first, as the specification has it; devices
//! do otherwise. `cdab` reverses the registers, `badc` swaps the bytes in each, `dcba` does both.
//!
//! Scaling is decimal arithmetic wherever it can be: 125 × 0.1 is 12.5 and 3 × 0.1 is 0.3, the `f64`
//! nearest to what a pocket calculator shows, and not 0.30000000000000004. That holds for whole raw
//! numbers as long as the sum, written with enough decimals to be whole, stays within 2⁵³; past that
//! it is plain floating-point arithmetic in the order of the formula `raw × scale + offset`.

use std::str::FromStr;

use tjern_readings::reading::{Cause, exact_i64, exact_u64};

/// How a number lies in registers, or that it is a single bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberType {
    /// A coil or a discrete input: 0 or 1.
    Bool,
    /// One register, unsigned.
    U16,
    /// One register, two's complement.
    I16,
    /// Two registers, unsigned.
    U32,
    /// Two registers, two's complement.
    I32,
    /// Two registers, IEEE 754 binary32.
    F32,
    /// Four registers, unsigned.
    U64,
    /// Four registers, two's complement.
    I64,
    /// Four registers, IEEE 754 binary64.
    F64,
}

impl NumberType {
    /// Every type, with the word that stands in configurations.
    pub const ALL: &[(&str, Self)] = &[
        ("bool", Self::Bool),
        ("u16", Self::U16),
        ("i16", Self::I16),
        ("u32", Self::U32),
        ("i32", Self::I32),
        ("f32", Self::F32),
        ("u64", Self::U64),
        ("i64", Self::I64),
        ("f64", Self::F64),
    ];

    /// How many addresses it takes: registers, or one bit.
    #[must_use]
    pub const fn width(self) -> u16 {
        match self {
            Self::Bool | Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
        }
    }
}

/// In which order the bytes of a number lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// Most significant register first, most significant byte first.
    #[default]
    Abcd,
    /// Registers reversed.
    Cdab,
    /// Bytes swapped in each register.
    Badc,
    /// Both.
    Dcba,
}

impl Order {
    /// Every order, with the word that stands in configurations.
    pub const ALL: &[(&str, Self)] =
        &[("abcd", Self::Abcd), ("cdab", Self::Cdab), ("badc", Self::Badc), ("dcba", Self::Dcba)];

    const fn reverses_registers(self) -> bool {
        matches!(self, Self::Cdab | Self::Dcba)
    }

    const fn swaps_bytes(self) -> bool {
        matches!(self, Self::Badc | Self::Dcba)
    }

    /// Each order is its own inverse.
    fn arrange(self, registers: &mut [u16]) {
        if self.reverses_registers() {
            registers.reverse();
        }
        if self.swaps_bytes() {
            registers.iter_mut().for_each(|register| *register = register.swap_bytes());
        }
    }
}

/// A word that is not on a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no {what}: it is one of {known}")]
pub struct UnknownWord {
    word: String,
    what: &'static str,
    known: String,
}

pub(crate) fn find_word<T: Copy>(word: &str, what: &'static str, all: &[(&str, T)]) -> Result<T, UnknownWord> {
    all.iter().find(|(known, _)| *known == word).map(|(_, found)| *found).ok_or_else(|| UnknownWord {
        word: word.to_owned(),
        what,
        known: all.iter().map(|(known, _)| format!("`{known}`")).collect::<Vec<_>>().join(", "),
    })
}

impl FromStr for NumberType {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        find_word(word, "type", Self::ALL)
    }
}

impl FromStr for Order {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        find_word(word, "order", Self::ALL)
    }
}

/// The raw number in exactly as many registers as its type takes.
///
/// # Errors
/// [`Cause::Malformed`] for another count of registers, [`Cause::Precision`] for an integer beyond
/// 2⁵³, [`Cause::NotANumber`] for NaN and infinities.
pub fn decode(kind: NumberType, order: Order, registers: &[u16]) -> Result<f64, Cause> {
    let mut arranged = [0_u16; 4];
    let width = usize::from(kind.width());
    if registers.len() != width || kind == NumberType::Bool {
        return Err(Cause::Malformed);
    }
    let arranged = &mut arranged[..width];
    arranged.copy_from_slice(registers);
    order.arrange(arranged);
    let bits = arranged.iter().fold(0_u64, |bits, register| bits << 16 | u64::from(*register));
    interpret(kind, bits)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the bits are no wider than the type")]
fn interpret(kind: NumberType, bits: u64) -> Result<f64, Cause> {
    let float = |value: f64| if value.is_finite() { Ok(value) } else { Err(Cause::NotANumber) };
    match kind {
        NumberType::Bool | NumberType::U16 | NumberType::U32 | NumberType::U64 => exact_u64(bits),
        NumberType::I16 => Ok(f64::from(bits as i16)),
        NumberType::I32 => Ok(f64::from(bits as i32)),
        NumberType::I64 => exact_i64(bits as i64),
        NumberType::F32 => float(f64::from(f32::from_bits(bits as u32))),
        NumberType::F64 => float(f64::from_bits(bits)),
    }
}

/// The registers of a raw number, for devices that we play ourselves. What the type cannot hold is
/// rounded and clamped.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` clamps, as documented")]
pub fn encode(kind: NumberType, order: Order, raw: f64) -> Vec<u16> {
    let whole = raw.round();
    let bits = match kind {
        NumberType::Bool => u64::from(whole != 0.0),
        NumberType::U16 => u64::from(whole as u16),
        NumberType::I16 => u64::from(whole as i16 as u16),
        NumberType::U32 => u64::from(whole as u32),
        NumberType::I32 => u64::from(whole as i32 as u32),
        NumberType::F32 => u64::from((raw as f32).to_bits()),
        NumberType::U64 => whole as u64,
        NumberType::I64 => whole as i64 as u64,
        NumberType::F64 => raw.to_bits(),
    };
    let mut registers: Vec<u16> = (0..kind.width()).rev().map(|place| (bits >> (16 * place)) as u16).collect();
    order.arrange(&mut registers);
    registers
}

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

#[cfg(test)]
mod tests;
