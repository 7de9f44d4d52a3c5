//! The lines of a text as they are written, beside the records that a reader of CSV makes of them: in which line a record
//! begins, however lines end, and whether a text of it that goes on over several lines was meant to.
//!
//! Limit: what the reader has read ahead, and the record that it is at, are in memory a second time.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// What has been read and not been looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Tape(Arc<Mutex<Vec<u8>>>);

impl Tape {
    /// Takes the next bytes.
    fn take(&self, length: usize) -> Vec<u8> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let length = length.min(held.len());
        held.drain(..length).collect()
    }
}

/// Hands bytes over, and writes them down.
pub(super) struct Taped<R> {
    pub(super) inner: R,
    pub(super) tape: Tape,
}

impl<R: Read> Read for Taped<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.tape.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&into[..read]);
        Ok(read)
    }
}

/// Where the records of a text stand.
#[derive(Debug)]
pub(super) struct Written {
    tape: Tape,
    /// How many bytes were taken from the tape.
    taken: u64,
    /// How many lines have ended.
    ended: u64,
    /// Whether the last byte was a carriage return: a line feed after it ends no line more.
    is_after_return: bool,
}

/// A record as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// The line in which it begins, from 1.
    pub(super) line: u64,
    bytes: Vec<u8>,
}

impl Written {
    pub(super) const fn new(tape: Tape) -> Self {
        Self { tape, taken: 0, ended: 0, is_after_return: false }
    }

    /// The record that ends before a byte of the text, the first after the one that was asked for last.
    pub(super) fn record(&mut self, end_byte: u64) -> Raw {
        let length = usize::try_from(end_byte.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        let bytes = self.tape.take(length);
        self.taken += bytes.len() as u64;
        // Lines with nothing on them stand before it, and at times the second half of the former line's end.
        let begin = bytes.iter().position(|byte| !is_end(*byte)).unwrap_or(bytes.len());
        self.pass(&bytes[..begin]);
        let line = self.ended + 1;
        self.pass(&bytes[begin..]);
        Raw { line, bytes: bytes[begin..].to_vec() }
    }

    fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let is_second_half = *byte == b'\n' && self.is_after_return;
            self.ended += u64::from(is_end(*byte) && !is_second_half);
            self.is_after_return = *byte == b'\r';
        }
    }
}

impl Raw {
    /// Whether its quotes are as RFC 4180 (section 2) has them: around a whole field, and twice within one.
    pub(super) fn is_quoted_well(&self, separator: u8) -> bool {
        let mut bytes = self.bytes.iter().copied().peekable();
        loop {
            if bytes.peek() == Some(&b'"') {
                bytes.next();
                loop {
                    match bytes.next() {
                        None => return false,
                        Some(b'"') if bytes.peek() == Some(&b'"') => drop(bytes.next()),
                        Some(b'"') => break,
                        Some(_) => {}
                    }
                }
                if bytes.peek().is_some_and(|byte| *byte != separator && !is_end(*byte)) {
                    return false;
                }
            }
            match bytes.find(|byte| *byte == separator || is_end(*byte)) {
                Some(byte) if byte == separator => {}
                _ => return true,
            }
        }
    }
}

const fn is_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Raw {
        Raw { line: 1, bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn quotes_are_well_where_they_stand_around_a_field() {
        for text in ["a,b\r\n", "\"a\"\"b\",c", "a,\"b\nc\"\n", "\"\",\"\"", "", "a\"b,c", ","] {
            assert!(raw(text).is_quoted_well(b','), "{text:?}");
        }
        for text in ["a,\"b\nc", "a,\"b\"c,d", "\"a\nb,\"6,c", "\"a\"\"", "a;\"b"] {
            let separator = if text.contains(';') { b';' } else { b',' };
            assert!(!raw(text).is_quoted_well(separator), "{text:?}");
        }
    }
}
