//! What others say on an RTU line: requests and answers out of a stream of bytes. No I/O.
//!
//! A listener hears both sides. It knows frames by their length and CRC ([`super::frame`]) and the pauses only
//! where they are longer than any adapter's lump: after such a pause nothing that was begun goes on. What
//! belongs to no frame is counted, and one byte is given up at a time, so that the next whole frame is found
//! wherever it begins.
//!
//! A frame of eight bytes can be a request or an answer (three bytes of bits): it is the answer if it has
//! exactly the shape that the last request asked for, and not that request once more (an echo).
//!
//! Limits: a request is paired with the next frame of its unit and function, or with nothing once another
//! request is heard; bytes that happen to have a frame's shape and CRC (one in 65,536) are taken for one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::{FRAME_MAX, Length, answer_length, request_length};

/// After so long a pause nothing goes on: longer than an adapter holds bytes back (16 ms), and than 3.5
/// characters at 1,200 baud.
const PAUSE: Duration = Duration::from_millis(40);

/// A frame that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) frame: Vec<u8>,
    pub(crate) what: What,
    /// When its first and its last byte came.
    pub(crate) first: Instant,
    pub(crate) last: Instant,
    /// How long nothing was heard before it.
    pub(crate) gap: Option<Duration>,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Request,
    /// To the request whose last byte came so long before.
    Answer {
        turnaround: Option<Duration>,
        asked: Option<(u16, u16)>,
    },
    Exception {
        turnaround: Option<Duration>,
        code: u8,
    },
    /// The request once more.
    Echo,
}

/// What was heard so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) answers: u64,
    pub(crate) exceptions: u64,
    pub(crate) echoes: u64,
    pub(crate) unanswered: u64,
    /// Answers to nothing that was heard.
    pub(crate) unasked: u64,
    /// Runs of bytes that belong to no frame, and how many bytes.
    pub(crate) broken: u64,
    pub(crate) foreign_bytes: u64,
}

/// The decoder of a line.
#[derive(Debug, Default)]
pub(crate) struct Sniffer {
    bytes: VecDeque<(u8, Instant)>,
    open: Option<Heard>,
    last: Option<Instant>,
    in_broken: bool,
    tally: Tally,
}

impl Sniffer {
    /// What came at a moment; the frames that are whole now.
    pub(crate) fn feed(&mut self, bytes: &[u8], at: Instant) -> Vec<Heard> {
        let mut heard = Vec::new();
        if self.bytes.back().is_some_and(|(_, last)| at.saturating_duration_since(*last) > PAUSE) {
            self.sort(&mut heard, true);
        }
        self.bytes.extend(bytes.iter().map(|byte| (*byte, at)));
        self.sort(&mut heard, false);
        heard
    }

    /// Nothing came until now.
    pub(crate) fn pause(&mut self, now: Instant) -> Vec<Heard> {
        let mut heard = Vec::new();
        if self.bytes.back().is_some_and(|(_, last)| now.saturating_duration_since(*last) > PAUSE) {
            self.sort(&mut heard, true);
        }
        heard
    }

    /// Nothing comes any more.
    pub(crate) fn end(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        self.sort(&mut heard, true);
        self.tally.unanswered += u64::from(self.open.take().is_some());
        heard
    }

    pub(crate) const fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes frames from the front. What may still become a frame waits, unless nothing goes on.
    fn sort(&mut self, heard: &mut Vec<Heard>, is_over: bool) {
        while !self.bytes.is_empty() {
            let front: Vec<u8> = self.bytes.iter().take(FRAME_MAX).map(|(byte, _)| *byte).collect();
            let lengths = [request_length(&front), answer_length(&front)];
            if let Some((length, what)) = self.recognise(&front, lengths) {
                heard.push(self.take(length, what));
            } else if !is_over && lengths.iter().any(|length| length.may_become(&front)) {
                return;
            } else {
                self.bytes.pop_front();
                self.tally.foreign_bytes += 1;
                self.tally.broken += u64::from(!self.in_broken);
                self.in_broken = true;
            }
        }
    }

    fn recognise(&self, front: &[u8], [request, answer]: [Length; 2]) -> Option<(usize, What)> {
        let open = self.open.as_ref();
        let answers = answer.whole(front).map(|length| &front[..length]);
        if let Some(frame) = answers.filter(|frame| open.is_some_and(|open| is_answer_to(frame, &open.frame))) {
            return Some((frame.len(), self.answer(frame)));
        }
        if let Some(length) = request.whole(front) {
            let is_echo = open.is_some_and(|open| open.frame == front[..length]);
            return Some((length, if is_echo { What::Echo } else { What::Request }));
        }
        answers.map(|frame| (frame.len(), self.answer(frame)))
    }

    fn answer(&self, frame: &[u8]) -> What {
        let open = self.open.as_ref().filter(|open| open.frame[0] == frame[0] && open.frame[1] == frame[1] & 0x7F);
        // The turnaround is filled in where the time of the first byte is known.
        match frame[1] & 0x80 {
            0 => What::Answer { turnaround: None, asked: open.and_then(|open| asked(&open.frame)) },
            _ => What::Exception { turnaround: None, code: frame[2] },
        }
    }

    fn take(&mut self, length: usize, what: What) -> Heard {
        let taken: Vec<(u8, Instant)> = self.bytes.drain(..length).collect();
        let (first, last) = (taken[0].1, taken[length - 1].1);
        let gap = self.last.map(|last| first.saturating_duration_since(last));
        let frame: Vec<u8> = taken.into_iter().map(|(byte, _)| byte).collect();
        (self.last, self.in_broken) = (Some(last), false);
        let is_open = |open: &Heard| open.frame[0] == frame[0] && open.frame[1] == frame[1] & 0x7F;
        let mut heard = Heard { what, first, last, gap, frame: frame.clone() };
        match &mut heard.what {
            What::Request => {
                self.tally.requests += 1;
                // A broadcast is never answered.
                let before = self.open.replace(heard.clone());
                self.tally.unanswered += u64::from(before.is_some_and(|before| before.frame[0] != 0));
                return heard;
            }
            What::Echo => self.tally.echoes += 1,
            What::Answer { turnaround, .. } | What::Exception { turnaround, .. } => {
                let open = self.open.take_if(|open| is_open(open));
                *turnaround = open.as_ref().map(|open| first.saturating_duration_since(open.last));
                self.tally.unasked += u64::from(open.is_none());
            }
        }
        match heard.what {
            What::Answer { .. } => self.tally.answers += 1,
            What::Exception { .. } => self.tally.exceptions += 1,
            What::Request | What::Echo => {}
        }
        heard
    }
}

/// Address and count of a request that has them.
pub(crate) fn asked(request: &[u8]) -> Option<(u16, u16)> {
    let word = |index| Some(u16::from_be_bytes([*request.get(index)?, *request.get(index + 1)?]));
    match request.get(1)? {
        1..=4 | 15 | 16 => Some((word(2)?, word(4)?)),
        5 | 6 => Some((word(2)?, 1)),
        _ => None,
    }
}

fn is_answer_to(frame: &[u8], request: &[u8]) -> bool {
    if frame[0] != request[0] || frame[1] & 0x7F != request[1] {
        return false;
    }
    match (frame[1], asked(request)) {
        (1 | 2, Some((_, count))) => usize::from(frame[2]) == usize::from(count).div_ceil(8) && frame != request,
        (3 | 4, Some((_, count))) => usize::from(frame[2]) == usize::from(count) * 2,
        // What is written is sent back as it is, or in short.
        (5 | 6 | 8, _) => true,
        (15 | 16, _) => frame[2..6] == request[2..6],
        _ => true,
    }
}

#[cfg(test)]
#[path = "sniff/tests.rs"]
mod tests;
