//! Bytes to lines. No I/O, no clock.
//!
//! Invariants: the lines do not depend on how the bytes are cut; what is kept of a line that has not ended
//! is bounded by the longest line and its terminator, whatever comes; a line that is dropped is counted.
//!
//! A line that is no UTF-8 is read as ISO 8859-1, where every byte is a character: nothing is lost or
//! replaced, and `12.3 °C` of an old logger is what it looks like.
//!
//! Where a line of a fixed length begins only silence can tell, or a question. Who only listens holds what came until the
//! next pause: it is lines if a whole number of them came between two pauses. Limits: lines of a fixed length between which
//! a device does not pause are never found; two stalls of the wire at the same place of two lines look like its pauses.

/// Longer lines are dropped unless the bus says otherwise: no logger writes them, a wrong baud rate does.
pub const LINE_MAX: usize = 4_096;

/// So many bytes more than one line of a fixed length are held until a pause says whether they are lines.
const HELD_MAX: usize = 4_096;

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

/// Whether lines of a fixed length are cut where they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// They are: they were asked for, or nobody made a connection.
    Known,
    /// What came since the last pause is held: it is lines if a whole number of them came by the next.
    Held,
    /// Nobody heard how what comes began: nothing of it is a line before the next pause.
    Lost,
}

/// Cuts bytes into lines.
#[derive(Debug, Clone)]
pub struct LineSplitter {
    framing: Framing,
    buffer: Vec<u8>,
    overlong: bool,
    step: Step,
    dropped: u64,
}

impl LineSplitter {
    /// A splitter for such lines.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        Self { framing, buffer: Vec::new(), overlong: false, step: Step::Known, dropped: 0 }
    }

    /// How many lines were too long, ended before their length, or began where nobody listened.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// A connection was made, and was silent so far: what was begun over another one is forgotten.
    pub fn begin_anew(&mut self) {
        self.clear();
        self.step = Step::Held;
    }

    /// What comes next is the rest of a line that nobody heard the beginning of: it is dropped when it ends.
    pub fn begin_in_the_middle(&mut self) {
        self.overlong |= matches!(self.framing, Framing::Terminator { .. });
        self.step = Step::Lost;
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.overlong = false;
    }

    /// Whether a line has begun and not ended. Blanks and control characters begin none: they are what is left of an end.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.overlong || self.buffer.iter().any(|byte| *byte > b' ')
    }

    /// Whether a pause says something about what came before it.
    #[must_use]
    pub fn waits_for_a_pause(&self) -> bool {
        matches!(self.framing, Framing::Length(_)) && (!self.buffer.is_empty() || self.step == Step::Lost)
    }

    /// Gives up a line that has begun. One that `may_go_on` is dropped when it ends; of another, nothing more comes. What
    /// belongs to a line of a fixed length nobody can tell: it is always the second.
    pub fn give_up(&mut self, may_go_on: bool) {
        self.step = Step::Known;
        if !self.has_begun() {
            return self.clear();
        }
        match self.framing {
            Framing::Terminator { .. } if may_go_on => self.overlong = true,
            Framing::Terminator { .. } => {
                self.dropped += 1;
                self.clear();
            }
            Framing::Length(length) => self.drop_held(length),
        }
    }

    /// Notes that the line has been silent for longer than within a line of a fixed length: one that is not whole by then
    /// lost bytes, and what comes next is the start of another one. Hands out the lines that were held until then.
    pub fn pause(&mut self) -> Vec<String> {
        let Framing::Length(length) = self.framing else { return Vec::new() };
        let whole = self.buffer.len() / length * length;
        if !self.is_uncounted_end(whole) {
            self.drop_held(length);
        }
        let held = std::mem::take(&mut self.buffer);
        let whole = if self.step == Step::Held { whole.min(held.len()) } else { 0 };
        self.step = Step::Held;
        held[..whole].chunks(length).map(|line| line_of(line.to_vec())).collect()
    }

    /// Whether what is held past so many bytes is nothing, or the end of a line that was not counted into its length. Where
    /// it was, a second one shows that a byte came before it that is none of the line's.
    fn is_uncounted_end(&self, whole: usize) -> bool {
        let (lines, rest) = self.buffer.split_at(whole);
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        rest.is_empty() || rest.iter().all(is_end) && !lines.last().is_some_and(is_end)
    }

    fn drop_held(&mut self, length: usize) {
        self.dropped += u64::try_from(self.buffer.len().div_ceil(length)).unwrap_or(u64::MAX);
        self.buffer.clear();
    }

    /// Takes what was received, and hands out each whole line without its end (a carriage return before
    /// it is not part of the line either; a line of a fixed length loses the line end it may hold).
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        bytes.iter().filter_map(|byte| self.take(*byte)).collect()
    }

    fn take(&mut self, byte: u8) -> Option<String> {
        self.buffer.push(byte);
        match &self.framing {
            Framing::Length(length) => self.take_of_length(*length),
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

    fn take_of_length(&mut self, length: usize) -> Option<String> {
        match self.step {
            Step::Known if self.buffer.len() == length => Some(line_of(std::mem::take(&mut self.buffer))),
            Step::Lost if self.buffer.len() == length => {
                self.drop_held(length);
                None
            }
            // Nobody knows whether that ever ends.
            Step::Held if self.buffer.len() > length.saturating_add(HELD_MAX) => {
                self.drop_held(length);
                self.step = Step::Lost;
                None
            }
            Step::Known | Step::Lost | Step::Held => None,
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

/// A line of a fixed length, without the blanks and the line end that fill it.
fn line_of(mut bytes: Vec<u8>) -> String {
    bytes.truncate(bytes.trim_ascii_end().len());
    text(bytes)
}

/// The text of bytes, each of which stays a character of its own where they are no UTF-8.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect())
}

#[cfg(test)]
mod tests;
