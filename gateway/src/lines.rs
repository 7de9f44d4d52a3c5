//! Numbers from lines of text. No I/O.
//!
//! [`LineSplitter`] cuts what is received into lines; [`read`] says what a line means to a point:
//! nothing (it is not for it), a number, or why there is none; [`time`] what time it says it is. A decimal
//! comma is understood where the comma does not separate columns.

pub mod counters;
pub mod delimited;
pub mod nmea;
pub mod pattern;
pub(crate) mod pauses;
pub(crate) mod repeated_hour;
pub mod splitter;
pub mod time;

use tjern_readings::reading::Cause;

pub use splitter::{Framing, LINE_MAX, LineSplitter};

use crate::config::LineField;

/// What a line means to a point; `None` where it is not for it.
#[must_use]
pub fn read(field: &LineField, line: &str) -> Option<Result<f64, Cause>> {
    match field {
        LineField::Nmea { sentence, field } => nmea::read(sentence, *field, line),
        LineField::Column { column, separator } => Some(delimited::read(*column, separator, line)),
        LineField::Pattern(regex) => pattern::read(regex, line),
    }
}

/// A field's text as a number. An empty field is how devices say that they have none.
fn number(text: &str, comma_is_decimal: bool) -> Result<f64, Cause> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Cause::NotAvailable);
    }
    let parsed = text.parse().ok().or_else(|| {
        let with_point = (comma_is_decimal && text.matches(',').count() == 1).then(|| text.replace(',', "."))?;
        with_point.parse().ok()
    });
    match parsed {
        Some(value) if f64::is_finite(value) => Ok(value),
        Some(_) => Err(Cause::NotANumber),
        None => Err(Cause::NoMatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_as_loggers_write_them() {
        assert_eq!(number(" +12.5 ", true), Ok(12.5));
        assert_eq!(number("12,5", true), Ok(12.5));
        assert_eq!(number("12,5", false), Err(Cause::NoMatch));
        assert_eq!(number("", true), Err(Cause::NotAvailable));
        assert_eq!(number("nan", true), Err(Cause::NotANumber));
        assert_eq!(number("1e999", true), Err(Cause::NotANumber));
        assert_eq!(number("ERR", true), Err(Cause::NoMatch));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes: Vec<u8>, column in 0_usize..4) {
            let mut splitter = LineSplitter::new(Framing::Terminator { text: "\n".to_owned(), max: LINE_MAX });
            let lines = splitter.feed(&bytes);
            for line in lines.into_iter().chain([String::from_utf8_lossy(&bytes).into_owned()]) {
                let _ = (nmea::read("MTW", column, &line), nmea::field(&line, column), nmea::has_checksum(&line));
                for separator in [";", ",", "\"", delimited::WHITESPACE] {
                    let _ = delimited::read(column, separator, &line);
                }
            }
        }
    }
}
