//! How numbers stand in a point's lines: which mark is the decimal one, and what a value can hold. No I/O.
//!
//! `1,000` is a thousand to one device and one to another. Where the configuration says which mark is the decimal one, the other parts
//! groups of three digits and is nothing else. Where it does not, a decimal comma is understood as it always was, and a number that
//! may be meant otherwise leaves a [`Doubt`]. A device does not write both: once a point's numbers had a decimal point, a comma
//! that may part thousands is no decimal comma any more.

use std::borrow::Cow;

use tjern_readings::reading::{Cause, exact_u64};

use crate::value::NoValue;

/// The mark before a number's decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecimalMark {
    /// `1,234.5`
    Point,
    /// `1.234,5`
    Comma,
}

impl DecimalMark {
    /// Both, with the words that stand in configurations.
    pub const ALL: &[(&str, Self)] = &[("point", Self::Point), ("comma", Self::Comma)];

    const fn marks(self) -> [char; 2] {
        match self {
            Self::Point => ['.', ','],
            Self::Comma => [',', '.'],
        }
    }
}

/// What cannot be known of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Its comma may part thousands, and is taken as the decimal one.
    TakenAsDecimal,
    /// Its comma seems to part thousands: there is no value.
    NotTaken,
}

/// How the numbers of a point are written, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Notation {
    decimal: Option<DecimalMark>,
    no_value: NoValue,
    /// One of them had a decimal point.
    has_point: bool,
    /// What the last one left open.
    doubt: Option<Doubt>,
}

impl Notation {
    /// With the decimal mark that is configured, if one is, and the numbers that mean that there is none.
    #[must_use]
    pub fn new(decimal: Option<DecimalMark>, no_value: NoValue) -> Self {
        Self { decimal, no_value, ..Self::default() }
    }

    /// What the number that was read last left open.
    pub(crate) const fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// A field's text as a number. An empty field is how devices say that they have none.
    pub(super) fn read(&mut self, text: &str, comma_is_free: bool) -> Result<f64, Cause> {
        self.doubt = None;
        let text = text.trim();
        if text.is_empty() {
            return Err(Cause::NotAvailable);
        }
        let plain = match self.decimal {
            Some(decimal) => ungrouped(text, decimal).ok_or(Cause::NoMatch)?,
            None => self.as_ever(text, comma_is_free)?,
        };
        match plain.parse::<f64>() {
            Ok(value) if !value.is_finite() => Err(Cause::NotANumber),
            // A device may say that it has none by a number that is too long for a value.
            Ok(value) if is_too_long(&plain) => self.no_value.sift(value).and(Err(Cause::Precision)),
            Ok(value) => Ok(value),
            Err(_) => Err(Cause::NoMatch),
        }
    }

    /// A text with a point where its decimals begin, where nobody said which mark it has.
    fn as_ever<'text>(&mut self, text: &'text str, comma_is_free: bool) -> Result<Cow<'text, str>, Cause> {
        if !text.contains(',') {
            self.has_point |= text.contains('.') && text.parse::<f64>().is_ok();
            return Ok(text.into());
        }
        let parts_thousands = ungrouped(text, DecimalMark::Point).is_some() && !unsigned(text).starts_with('0');
        let is_decimal = comma_is_free && text.matches(',').count() == 1 && !text.contains('.');
        self.has_point |= parts_thousands && text.contains('.');
        if parts_thousands && comma_is_free {
            let is_taken = is_decimal && !self.has_point;
            self.doubt = Some(if is_taken { Doubt::TakenAsDecimal } else { Doubt::NotTaken });
            return if is_taken { Ok(text.replace(',', ".").into()) } else { Err(Cause::NoMatch) };
        }
        if is_decimal { Ok(text.replace(',', ".").into()) } else { Err(Cause::NoMatch) }
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

/// A text with a point where its decimals begin and nothing between its thousands; nothing where marks stand elsewhere.
fn ungrouped(text: &str, decimal: DecimalMark) -> Option<Cow<'_, str>> {
    let [mark, group] = decimal.marks();
    if !text.contains(group) {
        return Some(if mark == '.' { text.into() } else { text.replace(mark, ".").into() });
    }
    let (whole, decimals) = match text.split_once(mark) {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (text, None),
    };
    let mut groups = unsigned(whole).split(group);
    let is_whole = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
    let begins_well = groups.next().is_some_and(|first| (1..=3).contains(&first.len()) && is_whole(first));
    let goes_on_well = groups.all(|group| group.len() == 3 && is_whole(group));
    let ends_well = decimals.is_none_or(is_whole);
    (begins_well && goes_on_well && ends_well).then(|| {
        let whole = whole.replace(group, "");
        decimals.map_or_else(|| whole.clone(), |decimals| format!("{whole}.{decimals}")).into()
    })
}

/// Whether it is a whole number that no value holds exactly: those of registers have the same bound.
fn is_too_long(text: &str) -> bool {
    let digits = unsigned(text);
    let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_whole && digits.parse().map_or(true, |number| exact_u64(number).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::WrittenNumber;
    use proptest::prelude::*;

    fn number(text: &str, comma_is_free: bool) -> Result<f64, Cause> {
        Notation::default().read(text, comma_is_free)
    }

    fn marked(decimal: DecimalMark, text: &str) -> Result<f64, Cause> {
        Notation::new(Some(decimal), NoValue::default()).read(text, true)
    }

    #[test]
    fn numbers_are_read_as_loggers_write_them() {
        assert_eq!(number(" +12.5 ", true), Ok(12.5));
        assert_eq!(number("12,5", true), Ok(12.5));
        assert_eq!(number("1,234e2", true), Ok(123.4));
        assert_eq!(number("12,5", false), Err(Cause::NoMatch));
        assert_eq!(number("", true), Err(Cause::NotAvailable));
        assert_eq!(number("nan", true), Err(Cause::NotANumber));
        assert_eq!(number("1e999", true), Err(Cause::NotANumber));
        assert_eq!(number("ERR", true), Err(Cause::NoMatch));
        for wrong in ["1,2,3", "1,5.5", "1.5,5", ",", "1.2.3", "12,5."] {
            assert!(number(wrong, true).is_err(), "{wrong}");
        }
    }

    /// 9007199254740993 was stored as …992, and 99999999999999999999 as 1e20, both as good.
    #[test]
    fn a_whole_number_that_no_value_holds_is_not_rounded() {
        assert_eq!(number("9007199254740992", true), Ok(9_007_199_254_740_992.0));
        assert_eq!(number("-9007199254740992", true), Ok(-9_007_199_254_740_992.0));
        assert_eq!(number("000000000000000000000000000007", true), Ok(7.0));
        for long in ["9007199254740993", "-9007199254740993", "+99999999999999999999"] {
            assert_eq!(number(long, true), Err(Cause::Precision), "{long}");
        }
        // With decimals it is a measured one, and as near as a float comes.
        assert_eq!(number("9007199254740993.0", true), Ok(9_007_199_254_740_992.0));
        let long = marked(DecimalMark::Point, "9,007,199,254,740,993");
        assert_eq!(long, Err(Cause::Precision));
    }

    /// A counter of twenty nines says "none": it was understood before such numbers were refused.
    #[test]
    fn a_long_number_may_still_mean_that_there_is_no_value() {
        let none = NoValue::of_text(&[WrittenNumber::Whole(99_999_999_999_999_999_999)]);
        assert_eq!(Notation::new(None, none).read("99999999999999999999", true), Err(Cause::NotAvailable));
    }

    /// A logger printed 998, 999, 1,000 and 1,001: 998, 999, 1 and 1.001 were stored as good.
    #[test]
    fn a_comma_that_may_part_thousands_leaves_a_doubt() {
        let mut notation = Notation::default();
        for (text, result, doubt) in [
            ("998", Ok(998.0), None),
            ("12,5", Ok(12.5), None),
            ("0,125", Ok(0.125), None),
            ("1234,567", Ok(1_234.567), None),
            ("1,000", Ok(1.0), Some(Doubt::TakenAsDecimal)),
            ("-12,345", Ok(-12.345), Some(Doubt::TakenAsDecimal)),
            ("999", Ok(999.0), None),
            ("1,000,000", Err(Cause::NoMatch), Some(Doubt::NotTaken)),
            ("1,234.5", Err(Cause::NoMatch), Some(Doubt::NotTaken)),
            // It has shown what its point is.
            ("1,000", Err(Cause::NoMatch), Some(Doubt::NotTaken)),
            ("12,5", Ok(12.5), None),
        ] {
            assert_eq!((notation.read(text, true), notation.doubt()), (result, doubt), "{text}");
        }
        let mut pointed = Notation::default();
        assert_eq!(pointed.read("998.5", true), Ok(998.5));
        assert_eq!(pointed.read("1,000", true), Err(Cause::NoMatch));
    }

    #[test]
    fn where_the_mark_is_configured_nothing_is_guessed() {
        use DecimalMark::{Comma, Point};
        for (decimal, text, expected) in [
            (Point, "1,000", Ok(1_000.0)),
            (Point, "-1,234,567.5", Ok(-1_234_567.5)),
            (Point, "12.345", Ok(12.345)),
            (Point, "12,5", Err(Cause::NoMatch)),
            (Point, "1,00", Err(Cause::NoMatch)),
            (Point, "1234,567", Err(Cause::NoMatch)),
            (Point, ",123", Err(Cause::NoMatch)),
            (Point, "1.000,5", Err(Cause::NoMatch)),
            (Comma, "1,000", Ok(1.0)),
            (Comma, "1.234.567,5", Ok(1_234_567.5)),
            (Comma, "1.000", Ok(1_000.0)),
            (Comma, "12.5", Err(Cause::NoMatch)),
            (Comma, "1,000,5", Err(Cause::NoMatch)),
            (Comma, "", Err(Cause::NotAvailable)),
            (Comma, "1,5e3", Ok(1_500.0)),
        ] {
            assert_eq!(marked(decimal, text), expected, "{decimal:?} {text}");
        }
    }

    proptest! {
        /// Whoever writes in one of the two ways is understood by it, to the bit.
        #[test]
        fn what_was_written_is_read_again(value in -1e12_f64..1e12, decimals in 0_usize..5) {
            let plain = format!("{value:.decimals$}");
            let (sign, digits) = plain.strip_prefix('-').map_or(("", plain.as_str()), |digits| ("-", digits));
            let (whole, rest) = digits.split_once('.').unwrap_or((digits, ""));
            let first = (whole.len() - 1) % 3 + 1;
            let groups: Vec<&str> = std::iter::once(&whole[..first])
                .chain((first..whole.len()).step_by(3).map(|at| &whole[at..at + 3])).collect();
            for (decimal, mark, group) in [(DecimalMark::Point, ".", ","), (DecimalMark::Comma, ",", ".")] {
                let tail = if rest.is_empty() { String::new() } else { format!("{mark}{rest}") };
                let text = format!("{sign}{}{tail}", groups.join(group));
                prop_assert_eq!(marked(decimal, &text), Ok(plain.parse().expect("a number")), "{}", text);
            }
        }

        #[test]
        fn no_text_makes_a_number_of_none(text in "[-+0-9.,eE]{0,12}", comma_is_free: bool) {
            let mut notations = [None, Some(DecimalMark::Point), Some(DecimalMark::Comma)]
                .map(|decimal| Notation::new(decimal, NoValue::default()));
            for notation in &mut notations {
                if let Ok(value) = notation.read(&text, comma_is_free) {
                    prop_assert!(value.is_finite() && text.bytes().any(|byte| byte.is_ascii_digit()), "{}", text);
                }
            }
        }
    }
}
