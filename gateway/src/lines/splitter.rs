//! Bytes to lines. No I/O, no clock.
//!
//! Invariants: the lines do not depend on how the bytes are cut; what is kept of a line that has not ended
//! is bounded by the longest line and its terminator, whatever comes; a line that is dropped is counted.
//!
//! A line that is no UTF-8 is read as ISO 8859-1, where every byte is a character: nothing is lost or
//! replaced, and `12.3 °C` of an old logger is what it looks like.

/// Longer lines are dropped unless the bus says otherwise: no logger writes them, a wrong baud rate does.
pub const LINE_MAX: usize = 4_096;

/// Where a line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// With this text, which is not empty; lines of more than `max` bytes are dropped.
    Terminator {
        /// What ends a line.
        text: String,
        /// The longest line.
        max: usize,
    },
    /// After so many bytes, at least one.
    Length(usize),
}

/// Cuts bytes into lines.
#[derive(Debug, Clone)]
pub struct LineSplitter {
    framing: Framing,
    buffer: Vec<u8>,
    overlong: bool,
    dropped: u64,
}

impl LineSplitter {
    /// A splitter for such lines.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        Self { framing, buffer: Vec::new(), overlong: false, dropped: 0 }
    }

    /// How many lines were too long, or ended before their length.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets a line that was begun: the connection it came over is gone.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.overlong = false;
    }

    /// What comes next is the rest of a line that nobody heard the beginning of: it is dropped when it ends.
    pub fn begin_in_the_middle(&mut self) {
        self.overlong |= matches!(self.framing, Framing::Terminator { .. });
    }

    /// Whether a line has begun and not ended. Blanks and control characters begin none: they are what is left of an end.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.overlong || self.buffer.iter().any(|byte| *byte > b' ')
    }

    /// Gives up a line that has begun. One that `may_go_on` is dropped when it ends; of another, nothing more comes. What
    /// belongs to a line of a fixed length nobody can tell: it is always the second.
    pub fn give_up(&mut self, may_go_on: bool) {
        if !self.has_begun() {
            return self.clear();
        }
        if may_go_on && matches!(self.framing, Framing::Terminator { .. }) {
            self.overlong = true;
            return;
        }
        self.dropped += 1;
        self.clear();
    }

    /// Notes that the line has been silent. A line of a fixed length that is not whole by then lost bytes;
    /// what comes next is the start of another one.
    pub fn pause(&mut self) {
        if matches!(self.framing, Framing::Length(_)) && !self.buffer.is_empty() {
            self.dropped += 1;
            self.clear();
        }
    }

    /// Takes what was received, and hands out each whole line without its end (a carriage return before
    /// it is not part of the line either; a line of a fixed length loses the line end it may hold).
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        bytes.iter().filter_map(|byte| self.take(*byte)).collect()
    }

    fn take(&mut self, byte: u8) -> Option<String> {
        self.buffer.push(byte);
        match &self.framing {
            Framing::Length(length) => {
                if self.buffer.len() < *length {
                    return None;
                }
                let mut line = std::mem::take(&mut self.buffer);
                line.truncate(line.trim_ascii_end().len());
                Some(text(line))
            }
            Framing::Terminator { text, max } => {
                let (length, max) = (text.len(), *max);
                if self.buffer.ends_with(text.as_bytes()) {
                    return self.end_line(length, max);
                }
                if self.buffer.len() > max + length {
                    self.overlong = true;
                    // What may be the first half of the terminator stays.
                    self.buffer.drain(..self.buffer.len() + 1 - length);
                }
                None
            }
        }
    }

    fn end_line(&mut self, terminator: usize, max: usize) -> Option<String> {
        let overlong = std::mem::take(&mut self.overlong);
        let mut line = std::mem::take(&mut self.buffer);
        line.truncate(line.len() - terminator);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if overlong || line.len() > max {
            self.dropped += 1;
            return None;
        }
        Some(text(line))
    }
}

/// The text of bytes, each of which stays a character of its own where they are no UTF-8.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines_until(terminator: &str) -> LineSplitter {
        LineSplitter::new(Framing::Terminator { text: terminator.to_owned(), max: LINE_MAX })
    }

    #[test]
    fn a_line_that_never_ends_costs_no_memory_and_no_later_line() {
        let mut splitter = lines_until("\n");
        for _ in 0..1_000 {
            assert!(splitter.feed(&[b'x'; LINE_MAX]).is_empty());
            assert!(splitter.buffer.len() <= LINE_MAX + 2);
        }
        assert!(splitter.buffer.capacity() <= 4 * LINE_MAX, "{}", splitter.buffer.capacity());
        assert_eq!(splitter.feed(b"tail\n12.5\r\n"), ["12.5"]);
        assert_eq!(splitter.dropped(), 1);
    }

    #[test]
    fn the_longest_line_is_as_long_as_was_said() {
        let mut splitter = LineSplitter::new(Framing::Terminator { text: "\r\n".to_owned(), max: 4 });
        assert_eq!(splitter.feed(b"1234\r\n12345\r\n123456789\r\n12\r\n"), ["1234", "12"]);
        assert_eq!(splitter.dropped(), 2);
    }

    #[test]
    fn what_is_no_utf_8_is_read_as_iso_8859_1() {
        let mut splitter = lines_until("\n");
        assert_eq!(splitter.feed(b"T=12.3\xB0C\nT=12.3\xC2\xB0C\n"), ["T=12.3°C", "T=12.3°C"]);
    }

    #[test]
    fn a_line_of_a_fixed_length_that_lost_bytes_does_not_shift_those_after_it() {
        let mut splitter = LineSplitter::new(Framing::Length(8));
        assert_eq!(splitter.feed(b"T=12.5\r\nT=1"), ["T=12.5"]);
        splitter.pause();
        assert_eq!(splitter.feed(b"T=13.5\r\n"), ["T=13.5"]);
        assert_eq!(splitter.dropped(), 1);
        splitter.pause();
        assert_eq!(splitter.dropped(), 1, "nothing had begun");
    }

    /// What came of a late answer, and the whole one after it: "12" and "34.5" made 1234.5.
    #[test]
    fn a_line_that_was_given_up_is_part_of_no_other() {
        let mut splitter = lines_until("\n");
        assert!(splitter.feed(b"12").is_empty() && splitter.has_begun());
        splitter.give_up(false);
        assert_eq!((splitter.feed(b"34.5\n"), splitter.dropped()), (vec!["34.5".to_owned()], 1));
        assert!(splitter.feed(b"12").is_empty());
        splitter.give_up(true);
        assert_eq!((splitter.feed(b"34.5\n5\n"), splitter.dropped()), (vec!["5".to_owned()], 2));
        let mut splitter = LineSplitter::new(Framing::Length(4));
        assert!(splitter.feed(b"12").is_empty());
        splitter.give_up(true);
        assert_eq!((splitter.feed(b"34.5"), splitter.dropped()), (vec!["34.5".to_owned()], 1));
    }

    #[test]
    fn half_a_line_at_the_beginning_is_none() {
        let mut splitter = lines_until("\n");
        splitter.begin_in_the_middle();
        assert_eq!((splitter.feed(b"45.5\n12345.5\n"), splitter.dropped()), (vec!["12345.5".to_owned()], 1));
    }

    #[test]
    fn what_is_left_of_an_end_begins_no_line() {
        let mut splitter = lines_until("\r");
        assert_eq!(splitter.feed(b"12\r\n"), ["12"]);
        assert!(!splitter.has_begun());
        splitter.give_up(true);
        assert_eq!((splitter.feed(b"13\r"), splitter.dropped()), (vec!["13".to_owned()], 0));
    }

    /// The bytes in the pieces that the cuts make of them.
    fn pieces<'bytes>(bytes: &'bytes [u8], cuts: &[usize]) -> Vec<&'bytes [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect()
    }

    fn framing() -> impl Strategy<Value = Framing> {
        let terminator = prop::sample::select(vec!["\n", "\r\n", "#", "\r", "END", "aab"]);
        prop_oneof![
            (terminator, 1_usize..60).prop_map(|(text, max)| Framing::Terminator { text: text.to_owned(), max }),
            (1_usize..40).prop_map(Framing::Length),
        ]
    }

    proptest! {
        #[test]
        fn the_lines_are_those_that_were_written(
            lines in prop::collection::vec("[a-z0-9.;°]{0,40}", 0..10),
            cuts in prop::collection::vec(0_usize..400, 0..10),
            terminator in prop::sample::select(vec!["\n", "\r\n", "#", "\r", "END"]),
        ) {
            let text: String = lines.iter().map(|line| format!("{line}{terminator}")).collect();
            let mut splitter = lines_until(terminator);
            let got: Vec<String> = pieces(text.as_bytes(), &cuts).into_iter().flat_map(|piece| splitter.feed(piece)).collect();
            prop_assert_eq!(got, lines);
        }

        #[test]
        fn any_bytes_give_the_same_lines_however_they_are_cut(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\r\n#ENDab".to_vec())], 0..400),
            cuts in prop::collection::vec(0_usize..400, 0..20),
            framing in framing(),
        ) {
            let (mut whole, mut cut) = (LineSplitter::new(framing.clone()), LineSplitter::new(framing));
            let expected = whole.feed(&bytes);
            let got: Vec<String> = pieces(&bytes, &cuts).into_iter().flat_map(|piece| cut.feed(piece)).collect();
            prop_assert_eq!(got, expected);
            prop_assert_eq!(cut.dropped(), whole.dropped());
            prop_assert!(cut.buffer.len() <= 80, "{} bytes are kept", cut.buffer.len());
        }
    }
}
