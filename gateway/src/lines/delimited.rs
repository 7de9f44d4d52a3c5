//! Columns: `2026-08-21;12.3;45`.
//!
//! The separator `whitespace` is any run of blanks and tabs, as tables for people have it. A column may
//! stand in double quotes, as RFC 4180 has them (section 2, rules 5 to 7): what separates columns then may
//! stand in it, and a quote is written twice. A quote that never ends is a quote.

use std::borrow::Cow;

use tjern_readings::reading::Cause;

use super::Notation;

/// The word for a separator that is any run of blanks and tabs.
pub const WHITESPACE: &str = "whitespace";

/// The number in a column, counted from 1.
///
/// # Errors
/// [`Cause::NoMatch`] where the column is missing or no number, [`Cause::NotAvailable`] where it is
/// empty.
pub fn read((column, separator): (usize, &str), notation: &mut Notation, line: &str) -> Result<f64, Cause> {
    let (text, quoted) = self::column(column, separator, line).ok_or(Cause::NoMatch)?;
    notation.read(&text, separator != "," || quoted)
}

/// The text of a column, counted from 1, and whether it stood in quotes.
#[must_use]
pub fn column<'line>(column: usize, separator: &str, line: &'line str) -> Option<(Cow<'line, str>, bool)> {
    let mut rest = if separator == WHITESPACE { line.trim_ascii() } else { line };
    for _ in 1..column {
        rest = split(rest, separator)?.1?;
    }
    split(rest, separator).map(|(text, _)| text).filter(|_| column > 0)
}

/// The first column, whether it stood in quotes, and what stands behind the separator after it.
type Split<'line> = ((Cow<'line, str>, bool), Option<&'line str>);

fn split<'line>(line: &'line str, separator: &str) -> Option<Split<'line>> {
    if let Some((text, rest)) = quoted(line)
        && let Some(after) = after(rest, separator)
    {
        return Some(((text, true), after));
    }
    let (text, rest) = match separator {
        WHITESPACE => match line.split_once([' ', '\t']) {
            Some((text, rest)) => (text, Some(rest.trim_ascii_start())),
            None => (line, None),
        },
        _ => match line.split_once(separator) {
            Some((text, rest)) => (text, Some(rest)),
            None => (line, None),
        },
    };
    Some(((text.into(), false), rest))
}

/// The text in quotes that a line begins with, and what comes behind them.
fn quoted(line: &str) -> Option<(Cow<'_, str>, &str)> {
    let inner = line.trim_ascii_start().strip_prefix('"')?;
    let mut at = 0;
    loop {
        let quote = at + inner.get(at..)?.find('"')?;
        if !inner[quote + 1..].starts_with('"') {
            let text = &inner[..quote];
            let text = if at == 0 { text.into() } else { text.replace("\"\"", "\"").into() };
            return Some((text, &inner[quote + 1..]));
        }
        at = quote + 2;
    }
}

/// What follows quotes: the separator with the next column behind it, or the end of the line.
fn after<'line>(rest: &'line str, separator: &str) -> Option<Option<&'line str>> {
    if rest.trim_ascii().is_empty() && (separator == WHITESPACE || !rest.starts_with(separator)) {
        return Some(None);
    }
    if separator == WHITESPACE {
        return rest.starts_with([' ', '\t']).then(|| Some(rest.trim_ascii_start()));
    }
    let rest = if rest.starts_with(separator) { rest } else { rest.trim_ascii_start() };
    rest.strip_prefix(separator).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(column: usize, separator: &str, line: &str) -> Result<f64, Cause> {
        super::read((column, separator), &mut Notation::default(), line)
    }

    #[test]
    fn columns_count_from_one() {
        let line = "2026-08-21; 12,3;;x";
        assert_eq!(read(2, ";", line), Ok(12.3));
        assert_eq!(read(3, ";", line), Err(Cause::NotAvailable));
        assert_eq!(read(4, ";", line), Err(Cause::NoMatch));
        assert_eq!(read(5, ";", line), Err(Cause::NoMatch));
        assert_eq!(read(0, ";", line), Err(Cause::NoMatch));
        assert_eq!(read(2, ",", "1,2,3"), Ok(2.0));
        assert_eq!(read(2, "\t", "a\t-7"), Ok(-7.0));
        assert_eq!(read(2, "\t", "a\t"), Err(Cause::NotAvailable));
    }

    #[test]
    fn a_table_for_people_has_columns_too() {
        let line = "  2026-08-21 12:00   12.3\t -4  ";
        assert_eq!(read(3, WHITESPACE, line), Ok(12.3));
        assert_eq!(read(4, WHITESPACE, line), Ok(-4.0));
        assert_eq!(read(5, WHITESPACE, line), Err(Cause::NoMatch));
    }

    #[test]
    fn a_column_in_quotes_may_hold_the_separator() {
        let line = "\"Landfall; north\";\"12,5\" ; \"said \"\"7\"\"\";4";
        assert_eq!(column(1, ";", line), Some(("Landfall; north".into(), true)));
        assert_eq!(read(2, ";", line), Ok(12.5));
        assert_eq!(column(3, ";", line), Some(("said \"7\"".into(), true)));
        assert_eq!(read(4, ";", line), Ok(4.0));
        assert_eq!(read(2, ",", "\"2026-08-21 10:00:00\",\"12,5\""), Ok(12.5), "quoted, a comma is decimal");
        assert_eq!(read(2, ";", "5\" pipe;7"), Ok(7.0));
        assert_eq!(read(2, ";", "\"never ends;7"), Ok(7.0));
        assert_eq!(read(2, WHITESPACE, "\"a b\"  7"), Ok(7.0));
        assert_eq!(read(2, "\t", "\"a\"\t"), Err(Cause::NotAvailable));
    }

    proptest! {
        #[test]
        fn what_has_no_quotes_is_what_stands_between_separators(
            line in "[a-z0-9,;. ]{0,30}", separator in prop::sample::select(vec![";", ",", "; ", "ab"]), at in 1_usize..6,
        ) {
            let expected = line.split(separator).nth(at - 1).map(str::to_owned);
            prop_assert_eq!(column(at, separator, &line).map(|(text, _)| text.into_owned()), expected);
        }

        #[test]
        fn what_was_quoted_is_read_again(
            columns in prop::collection::vec("[a-z\"; ,°]{0,8}", 1..6), at in 0_usize..6,
        ) {
            let line: Vec<String> = columns.iter().map(|text| format!("\"{}\"", text.replace('"', "\"\""))).collect();
            let got = column(at + 1, ";", &line.join(";")).map(|(text, _)| text.into_owned());
            prop_assert_eq!(got.as_ref(), columns.get(at));
        }
    }
}
