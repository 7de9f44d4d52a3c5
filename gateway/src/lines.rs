//! Numbers from lines of text. No I/O.
//!
//! [`LineSplitter`] cuts what is received into lines; [`read`] says what a line means to a point:
//! nothing (it is not for it), a number, or why there is none. A decimal comma is understood where
//! the comma does not separate columns.

pub mod delimited;
pub mod nmea;
pub mod pattern;

use tjern_readings::reading::Cause;

use crate::config::LineField;

/// Longer lines are dropped: no logger writes them, a wrong baud rate does.
pub const LINE_MAX: usize = 1_024;

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

/// Cuts bytes into lines.
#[derive(Debug)]
pub struct LineSplitter {
    terminator: Vec<u8>,
    buffer: Vec<u8>,
    overlong: bool,
    dropped: u64,
}

impl LineSplitter {
    /// A splitter for lines that end with `terminator`, which is not empty.
    #[must_use]
    pub fn new(terminator: &str) -> Self {
        Self { terminator: terminator.as_bytes().to_vec(), buffer: Vec::new(), overlong: false, dropped: 0 }
    }

    /// How many lines were too long.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets a line that was begun: the connection it came over is gone.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.overlong = false;
    }

    /// Takes what was received, and hands out each whole line without its end (a carriage return
    /// before it is not part of the line either).
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            self.buffer.push(*byte);
            if self.buffer.ends_with(&self.terminator) {
                lines.extend(self.end_line());
            } else if self.buffer.len() > LINE_MAX + self.terminator.len() {
                self.overlong = true;
                // What may be the first half of the terminator stays.
                let keep = self.terminator.len() - 1;
                self.buffer.drain(..self.buffer.len() - keep);
            }
        }
        lines
    }

    fn end_line(&mut self) -> Option<String> {
        let overlong = std::mem::take(&mut self.overlong);
        let mut line = std::mem::take(&mut self.buffer);
        line.truncate(line.len() - self.terminator.len());
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if overlong || line.len() > LINE_MAX {
            self.dropped += 1;
            return None;
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_that_never_ends_costs_no_memory_and_no_later_line() {
        let mut splitter = LineSplitter::new("\n");
        assert!(splitter.feed(&vec![b'x'; 100 * LINE_MAX]).is_empty());
        assert!(splitter.buffer.len() <= LINE_MAX + 2);
        assert_eq!(splitter.feed(b"tail\n12.5\r\n"), ["12.5"]);
        assert_eq!(splitter.dropped(), 1);
    }

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
        fn lines_do_not_depend_on_how_the_bytes_are_cut(
            lines in prop::collection::vec("[a-z0-9.;]{0,40}", 0..10),
            cuts in prop::collection::vec(0_usize..400, 0..10),
            terminator in prop::sample::select(vec!["\n", "\r\n", "#", "\r", "END"]),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}{terminator}")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let mut splitter = LineSplitter::new(terminator);
            let got: Vec<String> = cuts.windows(2).flat_map(|cut| splitter.feed(&text.as_bytes()[cut[0]..cut[1]])).collect();
            prop_assert_eq!(got, lines);
        }

        #[test]
        fn no_bytes_make_the_decoders_panic(bytes: Vec<u8>) {
            let mut splitter = LineSplitter::new("\n");
            for line in splitter.feed(&bytes).into_iter().chain([String::from_utf8_lossy(&bytes).into_owned()]) {
                let _ = nmea::read("MTW", 1, &line);
                let _ = delimited::read(2, ";", &line);
            }
        }
    }
}
