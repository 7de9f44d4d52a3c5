//! Numbers from lines of text. No I/O.
//!
//! [`LineSplitter`] cuts what is received into lines; [`read`] says what a line means to a point:
//! nothing (it is not for it), a number, or why there is none; [`time`] what time it says it is. [`Notation`] says how its
//! number is written.

pub mod counters;
pub mod delimited;
pub mod nmea;
pub mod notation;
pub mod pattern;
pub(crate) mod pauses;
pub(crate) mod repeated_hour;
pub mod splitter;
pub mod time;

use tjern_readings::reading::Cause;

pub use notation::{DecimalMark, Notation};
pub use splitter::{Framing, LINE_MAX, LineSplitter};

use crate::config::LineField;

/// What a line means to a point whose numbers are written like this; `None` where it is not for it.
#[must_use]
pub fn read(field: &LineField, notation: &mut Notation, line: &str) -> Option<Result<f64, Cause>> {
    match field {
        LineField::Nmea { sentence, field } => nmea::read((sentence, *field), notation, line),
        LineField::Column { column, separator } => Some(delimited::read((*column, separator), notation, line)),
        LineField::Pattern(regex) => pattern::read(regex, notation, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes: Vec<u8>, column in 0_usize..4) {
            let mut splitter = LineSplitter::new(Framing::Terminator { text: "\n".to_owned(), max: LINE_MAX });
            let lines = splitter.feed(&bytes);
            for line in lines.into_iter().chain([String::from_utf8_lossy(&bytes).into_owned()]) {
                let _ = (nmea::read(("MTW", column), &mut Notation::default(), &line), nmea::field(&line, column), nmea::has_checksum(&line));
                for separator in [";", ",", "\"", delimited::WHITESPACE] {
                    let _ = delimited::read((column, separator), &mut Notation::default(), &line);
                }
            }
        }
    }
}
