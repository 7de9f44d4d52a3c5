//! What a device sends when it has no value, as its manual writes it. No I/O.
//!
//! Devices say "no value" by a number of their own: 32767, 0x8000, 0xFFFFFFFF, −9999, NaN. It is compared
//! with the raw number, before scale and offset: bit by bit where the number comes from registers, so
//! that 0xFFFF is understood of a BCD number too, and 2⁶⁴ − 1 where a value could not be that large.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use tjern_readings::reading::Cause;

use super::{NumberType, Order, bits, decimal_bits, interpret};

/// More than any manual names.
const WRITTEN_MAX: usize = 16;

/// A number of `not_available`, as it is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WrittenNumber {
    /// Whole, also in hexadecimal.
    Whole(i128),
    /// With a point, or `nan`.
    Float(f64),
}

/// A number that a type never has.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is never read as this type")]
pub struct NotRepresentable(pub WrittenNumber);

/// The numbers by which a device says that it has no value. Clones share them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NoValue(Option<Arc<Numbers>>);

/// Apart from the points, most of which have none.
#[derive(Debug, PartialEq, Default)]
struct Numbers {
    bits: Vec<u64>,
    numbers: Vec<f64>,
    nan: bool,
}

impl NoValue {
    /// Those of a number in registers.
    ///
    /// # Errors
    /// [`NotRepresentable`] with the first number that the type never has.
    pub fn of_registers(kind: NumberType, written: &[WrittenNumber]) -> Result<Self, NotRepresentable> {
        let is_float = matches!(kind, NumberType::F32 | NumberType::F64);
        let is_nan = |number: &&WrittenNumber| is_float && number.is_nan();
        let bits = |number: &WrittenNumber| number.bits_of(kind).ok_or(NotRepresentable(*number));
        let numbers = written.iter().filter(|number| !is_nan(number));
        let bits: Vec<u64> = numbers.map(bits).collect::<Result<_, _>>()?;
        Ok(Self::of(Numbers { bits, numbers: Vec::new(), nan: written.iter().any(|number| is_nan(&number)) }))
    }

    /// Those of a number in a text.
    #[must_use]
    pub fn of_text(written: &[WrittenNumber]) -> Self {
        let numbers = written.iter().map(|number| number.as_float()).collect();
        Self::of(Numbers { bits: Vec::new(), numbers, nan: false })
    }

    fn of(numbers: Numbers) -> Self {
        Self((numbers != Numbers::default()).then(|| Arc::new(numbers)))
    }

    /// The raw number in registers, unless it is one of these.
    ///
    /// # Errors
    /// [`Cause::NotAvailable`] where it is; otherwise those of [`decode`](super::decode).
    #[inline]
    pub fn decode(&self, kind: NumberType, order: Order, registers: &[u16]) -> Result<f64, Cause> {
        let bits = bits(kind, order, registers)?;
        let none = self.0.as_deref();
        if none.is_some_and(|none| none.bits.contains(&bits)) {
            return Err(Cause::NotAvailable);
        }
        interpret(kind, bits).map_err(|cause| match cause {
            Cause::NotANumber if none.is_some_and(|none| none.nan) => Cause::NotAvailable,
            other => other,
        })
    }

    /// A raw number, unless it is one of these.
    ///
    /// # Errors
    /// [`Cause::NotAvailable`] where it is.
    #[inline]
    pub fn sift(&self, raw: f64) -> Result<f64, Cause> {
        if self.0.as_deref().is_some_and(|none| none.numbers.contains(&raw)) {
            Err(Cause::NotAvailable)
        } else {
            Ok(raw)
        }
    }
}

impl WrittenNumber {
    const fn is_nan(&self) -> bool {
        matches!(self, Self::Float(number) if number.is_nan())
    }

    #[expect(clippy::cast_precision_loss, reason = "compared with what is a float itself")]
    const fn as_float(&self) -> f64 {
        match self {
            Self::Whole(number) => *number as f64,
            Self::Float(number) => *number,
        }
    }

    /// The bits that a device sends for it. A whole number past the type's own range is taken as the
    /// bits: manuals write 0x8000 for the smallest `i16`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held against the range before")]
    fn bits_of(self, kind: NumberType) -> Option<u64> {
        match kind {
            NumberType::F32 => return Some(u64::from((self.as_float() as f32).to_bits())),
            NumberType::F64 => return Some(self.as_float().to_bits()),
            _ => {}
        }
        let whole = match self {
            Self::Whole(number) => number,
            Self::Float(number) if number.fract() == 0.0 => number as i128,
            Self::Float(_) => return None,
        };
        let end = 1_i128 << kind.bits();
        match kind {
            NumberType::Bcd16 | NumberType::Bcd32 | NumberType::Bcd64
                if (0..10_i128.pow(kind.bits() / 4)).contains(&whole) =>
            {
                Some(decimal_bits(kind, whole as u64))
            }
            NumberType::I8
            | NumberType::HighI8
            | NumberType::I16
            | NumberType::I32
            | NumberType::I48
            | NumberType::I64
                if (-end / 2..0).contains(&whole) =>
            {
                Some((whole + end) as u64)
            }
            _ => (0..end).contains(&whole).then_some(whole as u64),
        }
    }
}

impl fmt::Display for WrittenNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(formatter),
            Self::Float(number) => number.fmt(formatter),
        }
    }
}

/// `not_available` in a file: a number, or several.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WrittenNumbers(pub(crate) Vec<WrittenNumber>);

impl<'de> Deserialize<'de> for WrittenNumbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumbersVisitor)
    }
}

struct NumbersVisitor;

impl<'de> Visitor<'de> for NumbersVisitor {
    type Value = WrittenNumbers;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, \"nan\", or a list of them")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<WrittenNumbers, E> {
        self.visit_i128(i128::from(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<WrittenNumbers, E> {
        self.visit_i128(i128::from(number))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<WrittenNumbers, E> {
        Ok(WrittenNumbers(vec![WrittenNumber::Whole(number)]))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<WrittenNumbers, E> {
        Ok(WrittenNumbers(vec![WrittenNumber::Float(number)]))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<WrittenNumbers, E> {
        if text.eq_ignore_ascii_case("nan") {
            return self.visit_f64(f64::NAN);
        }
        Err(E::invalid_type(serde::de::Unexpected::Str(text), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<WrittenNumbers, A::Error> {
        let mut numbers = Vec::new();
        while let Some(WrittenNumbers(item)) = items.next_element()? {
            numbers.extend(item);
            if numbers.len() > WRITTEN_MAX {
                return Err(A::Error::custom(format!("more than {WRITTEN_MAX} numbers")));
            }
        }
        Ok(WrittenNumbers(numbers))
    }
}
