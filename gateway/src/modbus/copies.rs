//! Copies of answers: a converter that sends an answer once more by itself, a while after it.
//!
//! A copy that comes once the next request is out is an answer to that, if it has its unit, function and length, and nothing else tells
//! them apart (see `rtu`). So it is noticed where it cannot be one: while something of another length is waited for, as the
//! first probe of each unit is, and where nothing was asked. From then on the line is listened to after each answer until its copy
//! came, or its time is over. No I/O, no clock.
//!
//! Limits: a copy that comes later than [`LATEST`] is not known as one. A converter that sends one only now and then may do so
//! for the first time where it passes for an answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[cfg(test)]
use super::faults::{Broken, is_broken};
use super::wire::LUMP;

/// What comes so long after an answer is no copy of it.
pub(super) const LATEST: Duration = Duration::from_millis(100);

/// Of so many answers copies are known again: more than a line carries in [`LATEST`], but for the fastest.
const ANSWERS_MAX: usize = 16;

/// What a line answered last, and whether copies of it came.
#[derive(Debug, Default)]
pub(super) struct Copies {
    answers: VecDeque<(Vec<u8>, Instant)>,
    after: Option<Duration>,
}

impl Copies {
    /// How long after its answer a copy may come, where one ever came.
    pub(super) const fn after(&self) -> Option<Duration> {
        self.after
    }

    /// The same of an earlier connection.
    pub(super) fn remember(&mut self, after: Option<Duration>) {
        self.after = self.after.max(after);
    }

    /// An answer came.
    pub(super) fn answered(&mut self, frame: &[u8], now: Instant) {
        if self.answers.len() >= ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back((frame.to_vec(), now));
    }

    /// These bytes came while such a frame would have been no answer. Whether they say something new: copies of what was answered
    /// just before are under way then, for which nobody waited.
    pub(super) fn look(&mut self, bytes: &[u8], is_none: impl Fn(&[u8]) -> bool, now: Instant) -> bool {
        // Who sends a request twice gets its answer twice, and would notice that here.
        #[cfg(test)]
        if is_broken(Broken::Copies) || is_broken(Broken::HangUp) {
            return false;
        }
        let since = |at: &Instant| now.saturating_duration_since(*at);
        self.answers.retain(|(_, at)| since(at) <= LATEST);
        let is_copy = |(frame, _): &&(Vec<u8>, Instant)| {
            is_none(frame) && bytes.windows(frame.len()).any(|window| window == frame.as_slice())
        };
        let latest = self.answers.iter().filter(is_copy).map(|(_, at)| since(at)).max();
        let is_news = latest > self.after;
        if is_news {
            // The next may come a little later.
            self.after = latest.map(|latest| latest + LUMP);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_known_where_it_is_no_answer_and_for_as_long_as_it_may_come() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let (one, other) = ([1, 3, 2, 0, 7, 0xAA, 0xBB], [1, 3, 4, 0, 7, 0, 8, 0xCC, 0xDD]);
        let cases = [
            (&[&[0x55][..], &one].concat()[..], true, 30, Some(ms(30) + LUMP)),
            (&one, false, 30, None),
            (&other, true, 30, None),
            (&one[..6], true, 30, None),
            (&one, true, 101, None),
        ];
        for (bytes, is_none, at_ms, after) in cases {
            let mut copies = Copies::default();
            copies.answered(&one, start);
            let is_news = copies.look(bytes, |_| is_none, start + ms(at_ms));
            assert_eq!((copies.after(), is_news), (after, after.is_some()), "{bytes:02x?} after {at_ms} ms");
            assert!(!copies.look(bytes, |_| is_none, start + ms(at_ms)), "it is known");
        }
    }
}
