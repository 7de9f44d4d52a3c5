//! From registers to a raw number: types and orders. No I/O.
//!
//! A device holds a number in one to four 16-bit registers. `abcd` means the most significant
//! register first, each with its most significant byte first, as the specification has it; devices
//! do otherwise. `cdab` reverses the registers, `badc` swaps the bytes in each, `dcba` does both: of
//! two registers, of three, or of four. A number of four registers may also be two of two registers
//! each, with the halves in the other order than the registers in them: `efghabcd`, `cdabghef`, and the
//! same with the bytes of each register swapped. Those are all the orders that devices have, since each
//! byte keeps its register. Every order is its own inverse.
//!
//! A value is an `f64`: integers beyond 2⁵³ are not rounded but refused ([`Cause::Precision`]).

mod no_value;
mod recompute;

use std::str::FromStr;

use tjern_readings::reading::{Cause, exact_i64, exact_u64};

pub(crate) use no_value::WrittenNumbers;
pub use no_value::{NoValue, NotRepresentable, WrittenNumber};
pub use recompute::{Again, Change, Formula, FormulaError, NotRecoverable};
pub use tjern_readings::scaling::Scaling;

/// How a number lies in registers, or that it is a single bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NumberType {
    /// A coil or a discrete input: 0 or 1.
    Bool,
    /// One bit of a register, from 0 for the least significant: 0 or 1.
    Bit(u8),
    /// The low byte of a register, unsigned.
    U8,
    /// The low byte of a register, two's complement.
    I8,
    /// The high byte of a register, unsigned.
    HighU8,
    /// The high byte of a register, two's complement.
    HighI8,
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
    /// Three registers, unsigned.
    U48,
    /// Three registers, two's complement.
    I48,
    /// Four registers, unsigned.
    U64,
    /// Four registers, two's complement.
    I64,
    /// Four registers, IEEE 754 binary64.
    F64,
    /// One register, four decimal digits of four bits each.
    Bcd16,
    /// Two registers, eight decimal digits.
    Bcd32,
    /// Four registers, sixteen decimal digits.
    Bcd64,
}

impl NumberType {
    /// Every type that has a word of its own in configurations, with that word. A bit of a register and
    /// the high byte of one are `bool` and `u8`, `i8` with a key more.
    pub const ALL: &[(&str, Self)] = &[
        ("bool", Self::Bool),
        ("u8", Self::U8),
        ("i8", Self::I8),
        ("u16", Self::U16),
        ("i16", Self::I16),
        ("u32", Self::U32),
        ("i32", Self::I32),
        ("f32", Self::F32),
        ("u48", Self::U48),
        ("i48", Self::I48),
        ("u64", Self::U64),
        ("i64", Self::I64),
        ("f64", Self::F64),
        ("bcd16", Self::Bcd16),
        ("bcd32", Self::Bcd32),
        ("bcd64", Self::Bcd64),
    ];

    /// How many addresses it takes: registers, or one bit.
    #[must_use]
    #[inline]
    pub const fn width(self) -> u16 {
        match self {
            Self::Bool | Self::Bit(_) | Self::U8 | Self::I8 | Self::HighU8 | Self::HighI8 => 1,
            Self::U16 | Self::I16 | Self::Bcd16 => 1,
            Self::U32 | Self::I32 | Self::F32 | Self::Bcd32 => 2,
            Self::U48 | Self::I48 => 3,
            Self::U64 | Self::I64 | Self::F64 | Self::Bcd64 => 4,
        }
    }

    /// How many bits the number itself has.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bool | Self::Bit(_) => 1,
            Self::U8 | Self::I8 | Self::HighU8 | Self::HighI8 => 8,
            _ => 16 * self.width() as u32,
        }
    }

    /// Whether it is less than a register: others may lie in the same one.
    #[must_use]
    pub const fn is_part_of_register(self) -> bool {
        self.bits() < 16
    }

    /// The high byte where this is the low one of a register.
    #[must_use]
    pub const fn high(self) -> Option<Self> {
        match self {
            Self::U8 => Some(Self::HighU8),
            Self::I8 => Some(Self::HighI8),
            _ => None,
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
    /// Of four registers: the two halves exchanged.
    Efghabcd,
    /// Of four registers: the halves exchanged, bytes swapped in each register.
    Fehgbadc,
    /// Of four registers: the registers exchanged in each half.
    Cdabghef,
    /// Of four registers: the registers exchanged in each half, bytes swapped in each register.
    Dcbahgfe,
}

impl Order {
    /// The orders of numbers of any width, with the words that stand in configurations.
    pub const ALL: &[(&str, Self)] =
        &[("abcd", Self::Abcd), ("cdab", Self::Cdab), ("badc", Self::Badc), ("dcba", Self::Dcba)];

    /// The orders of numbers of four registers, letter by letter: those of [`Order::ALL`] and four more.
    pub const OF_FOUR_REGISTERS: &[(&str, Self)] = &[
        ("abcdefgh", Self::Abcd),
        ("ghefcdab", Self::Cdab),
        ("badcfehg", Self::Badc),
        ("hgfedcba", Self::Dcba),
        ("efghabcd", Self::Efghabcd),
        ("fehgbadc", Self::Fehgbadc),
        ("cdabghef", Self::Cdabghef),
        ("dcbahgfe", Self::Dcbahgfe),
    ];

    /// Whether numbers of this type can lie in this order.
    #[must_use]
    pub const fn fits(self, kind: NumberType) -> bool {
        kind.width() == 4 || matches!(self, Self::Abcd | Self::Cdab | Self::Badc | Self::Dcba)
    }

    const fn reverses_registers(self) -> bool {
        matches!(self, Self::Cdab | Self::Dcba)
    }

    const fn exchanges_halves(self) -> bool {
        matches!(self, Self::Efghabcd | Self::Fehgbadc)
    }

    const fn exchanges_in_halves(self) -> bool {
        matches!(self, Self::Cdabghef | Self::Dcbahgfe)
    }

    const fn swaps_bytes(self) -> bool {
        matches!(self, Self::Badc | Self::Dcba | Self::Fehgbadc | Self::Dcbahgfe)
    }

    /// Each order is its own inverse.
    fn arrange(self, registers: &mut [u16]) {
        if self.reverses_registers() {
            registers.reverse();
        }
        match registers {
            [first, second, third, fourth] if self.exchanges_halves() => {
                std::mem::swap(first, third);
                std::mem::swap(second, fourth);
            }
            [first, second, third, fourth] if self.exchanges_in_halves() => {
                std::mem::swap(first, second);
                std::mem::swap(third, fourth);
            }
            _ => {}
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
        find_word(word, "order", Self::OF_FOUR_REGISTERS).or_else(|_| find_word(word, "order", Self::ALL))
    }
}

/// The raw number in exactly as many registers as its type takes.
///
/// # Errors
/// [`Cause::Malformed`] for another count of registers, [`Cause::Precision`] for an integer beyond
/// 2⁵³, [`Cause::NotANumber`] for NaN, infinities and decimal digits over nine.
pub fn decode(kind: NumberType, order: Order, registers: &[u16]) -> Result<f64, Cause> {
    interpret(kind, bits(kind, order, registers)?)
}

/// The number's own bits, the most significant first.
#[inline]
fn bits(kind: NumberType, order: Order, registers: &[u16]) -> Result<u64, Cause> {
    let width = usize::from(kind.width());
    if registers.len() != width || kind == NumberType::Bool {
        return Err(Cause::Malformed);
    }
    let joined = |registers: &[u16]| match *registers {
        [one] => u64::from(one),
        [high, low] => u64::from(high) << 16 | u64::from(low),
        _ => registers.iter().fold(0_u64, |bits, register| bits << 16 | u64::from(*register)),
    };
    let bits = if order == Order::Abcd {
        joined(registers)
    } else {
        let mut arranged = [0_u16; 4];
        let arranged = &mut arranged[..width];
        arranged.copy_from_slice(registers);
        order.arrange(arranged);
        joined(arranged)
    };
    Ok(match kind {
        NumberType::Bit(bit) => bits.checked_shr(u32::from(bit)).unwrap_or(0) & 1,
        NumberType::U8 | NumberType::I8 => bits & 0xFF,
        NumberType::HighU8 | NumberType::HighI8 => bits >> 8,
        _ => bits,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the bits are no wider than the type")]
#[inline]
fn interpret(kind: NumberType, bits: u64) -> Result<f64, Cause> {
    let float = |value: f64| if value.is_finite() { Ok(value) } else { Err(Cause::NotANumber) };
    match kind {
        NumberType::Bool | NumberType::Bit(_) => exact_u64(bits),
        NumberType::U8 | NumberType::HighU8 | NumberType::U16 => exact_u64(bits),
        NumberType::U32 | NumberType::U48 | NumberType::U64 => exact_u64(bits),
        NumberType::I8 | NumberType::HighI8 => Ok(f64::from(bits as i8)),
        NumberType::I16 => Ok(f64::from(bits as i16)),
        NumberType::I32 => Ok(f64::from(bits as i32)),
        // The sign of 48 bits is that of the same bits at the top of 64.
        NumberType::I48 => exact_i64((bits << 16) as i64 >> 16),
        NumberType::I64 => exact_i64(bits as i64),
        NumberType::F32 => float(f64::from(f32::from_bits(bits as u32))),
        NumberType::F64 => float(f64::from_bits(bits)),
        NumberType::Bcd16 | NumberType::Bcd32 | NumberType::Bcd64 => exact_u64(decimal_of(kind, bits)?),
    }
}

/// The number that the digits make, four bits each. Sixteen of them stay within 64 bits.
fn decimal_of(kind: NumberType, bits: u64) -> Result<u64, Cause> {
    (0..kind.bits() / 4).rev().try_fold(0_u64, |number, place| match bits >> (4 * place) & 0xF {
        digit @ 0..=9 => Ok(number * 10 + digit),
        _ => Err(Cause::NotANumber),
    })
}

/// The digits of a number, four bits each; what has no place is cut off.
fn decimal_bits(kind: NumberType, number: u64) -> u64 {
    let digit = |place: u32| number / 10_u64.pow(place) % 10;
    (0..kind.bits() / 4).fold(0, |bits, place| bits | digit(place) << (4 * place))
}

/// The registers of a raw number, for devices that we play ourselves. What the type cannot hold is
/// rounded and clamped; the rest of a register that holds a bit or a byte is zero.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` clamps, as documented")]
pub fn encode(kind: NumberType, order: Order, raw: f64) -> Vec<u16> {
    let whole = raw.round();
    let most_of_bcd = 10_u64.checked_pow(kind.bits() / 4).unwrap_or(u64::MAX) - 1;
    let bits = match kind {
        NumberType::Bool => u64::from(whole != 0.0),
        NumberType::Bit(bit) => u64::from(whole != 0.0) << bit,
        NumberType::U8 => u64::from(whole as u8),
        NumberType::I8 => u64::from(whole as i8 as u8),
        NumberType::HighU8 => u64::from(whole as u8) << 8,
        NumberType::HighI8 => u64::from(whole as i8 as u8) << 8,
        NumberType::U16 => u64::from(whole as u16),
        NumberType::I16 => u64::from(whole as i16 as u16),
        NumberType::U32 => u64::from(whole as u32),
        NumberType::I32 => u64::from(whole as i32 as u32),
        NumberType::F32 => u64::from((raw as f32).to_bits()),
        NumberType::U48 => (whole as u64).min((1 << 48) - 1),
        NumberType::I48 => (whole as i64).clamp(-1 << 47, (1 << 47) - 1) as u64 & ((1 << 48) - 1),
        NumberType::U64 => whole as u64,
        NumberType::I64 => whole as i64 as u64,
        NumberType::F64 => raw.to_bits(),
        NumberType::Bcd16 | NumberType::Bcd32 | NumberType::Bcd64 => {
            decimal_bits(kind, (whole as u64).min(most_of_bcd))
        }
    };
    let mut registers: Vec<u16> = (0..kind.width()).rev().map(|place| (bits >> (16 * place)) as u16).collect();
    order.arrange(&mut registers);
    registers
}

#[cfg(test)]
mod tests;
