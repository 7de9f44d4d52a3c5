//! What a bad line does to a device's answers, from a seed: one wire's faults for the simulator and the tests.
//!
//! A [`BadLine`] is handed whole answers and says, as a few [`Act`]s, what becomes of them. No I/O, no
//! clock: the same faults, the same seed and the same answers give the same acts.
//!
//! Invariants, so that a client that does everything right can be right every time:
//!
//! - An answer is late by less than [`LineFaults::longest`]: no client can wait for ever, and on RTU nothing but
//!   time tells two answers of one shape apart. What is held back comes with the next answer.
//! - RTU: damage is never such that a run of the bytes on the wire passes for a frame that no device sent
//!   ([`Guard`]): what CRC-16 cannot notice is computed away and counted. Between a frame
//!   and its copy there is no silence that parts frames, since a copy after one is a new answer to anybody. Nor is there between the
//!   answer before, where that is repeated, and the new one, which is whole then and in time.
//! - TCP: it has no checksum of its own, so damage is to what a client can check: the header, the function, the
//!   count. A damaged transaction id is half the range away, never that of a request soon to come. A stream loses
//!   no byte in its middle: after an answer without its end nothing comes with it.

mod faults;
mod guard;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
pub use faults::{BadFaults, LineFaults};
pub use guard::{Guard, crc};

/// How the bytes of an answer are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Modbus TCP: a header with a transaction id and a length.
    Tcp,
    /// Modbus RTU, on a serial line or over TCP: a CRC, and silence.
    Rtu,
    /// Lines of text. Nothing is computed away: a line without a checksum may hold a wrong number.
    Lines,
}

/// What happens next on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Nothing, for so long.
    Wait(Duration),
    /// These bytes come.
    Send(Vec<u8>),
    /// The connection or the port is gone; what follows comes over the next one, if anything still does.
    Close,
}

/// How often each thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Answers that it was handed.
    pub answers: u64,
    /// Those that came later.
    pub delayed: u64,
    /// In pieces.
    pub split: u64,
    /// In one lump with the next.
    pub merged: u64,
    /// Twice.
    pub duplicated: u64,
    /// With the answer before once more.
    pub repeated: u64,
    /// Without their end.
    pub truncated: u64,
    /// After the next.
    pub swapped: u64,
    /// With wrong bytes.
    pub corrupted: u64,
    /// Not at all.
    pub dropped: u64,
    /// Connections that ended.
    pub disconnected: u64,
    /// Connections that ended with a request passed on.
    pub hung_up: u64,
    /// Damage that no checksum would have noticed, and that was not done.
    pub undetectable: u64,
}

impl Tally {
    /// Each count with its name, in the order of the fields.
    #[must_use]
    pub const fn counts(&self) -> [(&'static str, u64); 13] {
        [
            ("answers", self.answers),
            ("delayed", self.delayed),
            ("split", self.split),
            ("merged", self.merged),
            ("duplicated", self.duplicated),
            ("repeated", self.repeated),
            ("truncated", self.truncated),
            ("swapped", self.swapped),
            ("corrupted", self.corrupted),
            ("dropped", self.dropped),
            ("disconnected", self.disconnected),
            ("hung_up", self.hung_up),
            ("undetectable", self.undetectable),
        ]
    }

    /// The sum of two.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            answers: self.answers + other.answers,
            delayed: self.delayed + other.delayed,
            split: self.split + other.split,
            merged: self.merged + other.merged,
            duplicated: self.duplicated + other.duplicated,
            repeated: self.repeated + other.repeated,
            truncated: self.truncated + other.truncated,
            swapped: self.swapped + other.swapped,
            corrupted: self.corrupted + other.corrupted,
            dropped: self.dropped + other.dropped,
            disconnected: self.disconnected + other.disconnected,
            hung_up: self.hung_up + other.hung_up,
            undetectable: self.undetectable + other.undetectable,
        }
    }
}

/// So many answers are held back at most.
const HELD_MAX: usize = 4;
/// The longest pause inside a frame that comes in pieces, as a share of the longest delay.
const PAUSE_SHARE: u64 = 20;
/// Between a frame and the next of one answer: under the 1.75 ms that part frames on the fastest line, so that to
/// any receiver they came together.
const BREATH_US: u64 = 1_000;
const PIECES_MAX: usize = 5;
/// So long after a connection ended an answer comes that was under way. No longer than any answer may be late.
const HUNG_UP: Duration = Duration::from_millis(50);

/// A line, and what it still holds back.
#[derive(Debug)]
pub struct BadLine {
    faults: LineFaults,
    framing: Framing,
    rng: Rng,
    before: Vec<Vec<u8>>,
    after: Vec<Vec<u8>>,
    /// The answer that was sent last, if it was sent whole.
    last: Option<Vec<u8>>,
    guard: Guard,
    tally: Tally,
}

/// An answer as it will go out, and whether it is still what the device said.
struct Outgoing {
    bytes: Vec<u8>,
    whole: bool,
}

impl BadLine {
    /// A line with these faults, which all follow from the seed.
    #[must_use]
    pub fn new(faults: LineFaults, framing: Framing, seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        let (before, after) = (Vec::new(), Vec::new());
        let (guard, tally) = (Guard::default(), Tally::default());
        Self { faults, framing, rng, before, after, last: None, guard, tally }
    }

    /// What happened until now.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// What becomes of a device's answer.
    pub fn answer(&mut self, frame: Vec<u8>) -> Vec<Act> {
        self.tally.answers += 1;
        if self.roll(self.faults.drop) {
            self.tally.dropped += 1;
            return Vec::new();
        }
        if self.before.len() + self.after.len() < HELD_MAX {
            if self.roll(self.faults.merge) {
                self.tally.merged += 1;
                self.before.push(frame);
                return Vec::new();
            }
            if self.roll(self.faults.swap) {
                self.tally.swapped += 1;
                self.after.push(frame);
                return Vec::new();
            }
        }
        let last = self.last.replace(frame.clone());
        let mut frames = self.outgoing(frame);
        let is_repeated = self.repeat(last, &mut frames);
        self.deliver(&frames, is_repeated)
    }

    /// Whether the answer before goes out once more.
    fn repeat(&mut self, last: Option<Vec<u8>>, frames: &mut Vec<Outgoing>) -> bool {
        if self.framing != Framing::Rtu || !self.roll(self.faults.repeat) || frames.iter().any(|frame| !frame.whole) {
            return false;
        }
        let Some(bytes) = last else { return false };
        self.tally.repeated += 1;
        let place = if self.rng.bool() { 0 } else { frames.len() };
        frames.insert(place, Outgoing { bytes, whole: true });
        true
    }

    /// The frames that go out now, in their order.
    fn outgoing(&mut self, frame: Vec<u8>) -> Vec<Outgoing> {
        let whole = |bytes| Outgoing { bytes, whole: true };
        let mut frames: Vec<Outgoing> = std::mem::take(&mut self.before).into_iter().map(whole).collect();
        let (mut own, copied) = (whole(frame), self.roll(self.faults.duplicate));
        let copy = copied.then(|| whole(own.bytes.clone()));
        if self.roll(self.faults.corrupt) {
            self.tally.corrupted += 1;
            self.damage(&mut own.bytes);
            own.whole = false;
        }
        if self.roll(self.faults.truncate) {
            self.tally.truncated += 1;
            own.bytes.truncate(self.rng.usize(1..own.bytes.len()));
            own.whole = false;
            if self.framing == Framing::Tcp {
                frames.push(own);
                return frames;
            }
        }
        frames.push(own);
        self.tally.duplicated += u64::from(copied);
        frames.extend(copy);
        frames.extend(std::mem::take(&mut self.after).into_iter().map(whole));
        frames
    }

    fn damage(&mut self, frame: &mut [u8]) {
        match self.framing {
            Framing::Rtu | Framing::Lines => {
                for _ in 0..self.rng.usize(1..=4) {
                    let place = self.rng.usize(..frame.len());
                    frame[place] ^= self.rng.u8(1..);
                }
            }
            Framing::Tcp => {
                let place = self.rng.usize(..frame.len().min(TCP_CHECKED));
                // Of the transaction id only the bit that moves it half its range away.
                frame[place] ^= match place {
                    0 => 0x80,
                    1 => return self.damage_at(frame, 4),
                    _ => self.rng.u8(1..),
                };
            }
        }
    }

    fn damage_at(&mut self, frame: &mut [u8], place: usize) {
        frame[place] ^= self.rng.u8(1..);
    }

    /// Gives the frames their times and pieces.
    fn deliver(&mut self, frames: &[Outgoing], is_repeated: bool) -> Vec<Act> {
        let mut acts = Vec::new();
        let longest_us = u64::try_from(self.faults.longest.as_micros()).unwrap_or(u64::MAX);
        let mut left_us = longest_us;
        if !is_repeated && self.roll(self.faults.delay) {
            self.tally.delayed += 1;
            let wait_us = self.rng.u64(..left_us.max(1));
            left_us -= wait_us;
            acts.push(Act::Wait(Duration::from_micros(wait_us)));
        }
        if frames.iter().any(|frame| !frame.whole) {
            self.last = None;
        }
        let Some(bytes) = self.passes(frames) else {
            self.last = None;
            return acts;
        };
        if !is_repeated && self.roll(self.faults.hang_up) {
            self.tally.hung_up += 1;
            self.last = None;
            return vec![Act::Close, Act::Wait(HUNG_UP.min(self.faults.longest)), Act::Send(bytes)];
        }
        let cuts = self.cuts(frames, longest_us / PAUSE_SHARE);
        let ends = !is_repeated && self.roll(self.faults.disconnect);
        let gone = ends.then(|| self.rng.usize(..=bytes.len()));
        let end = gone.unwrap_or(bytes.len());
        let mut sent = 0;
        for (cut, pause_us) in cuts.into_iter().filter(|(cut, _)| *cut < end) {
            acts.push(Act::Send(bytes[sent..cut].to_vec()));
            acts.push(Act::Wait(Duration::from_micros(pause_us.min(left_us))));
            left_us -= pause_us.min(left_us);
            sent = cut;
        }
        if sent < end {
            acts.push(Act::Send(bytes[sent..end].to_vec()));
        }
        if gone.is_some() {
            self.tally.disconnected += 1;
            self.last = None;
            self.guard.forget();
            acts.push(Act::Close);
        }
        acts
    }

    /// Where the bytes are cut, and how long nothing comes there.
    fn cuts(&mut self, frames: &[Outgoing], pause_max_us: u64) -> BTreeMap<usize, u64> {
        let mut cuts = BTreeMap::new();
        let split = self.roll(self.faults.split);
        self.tally.split += u64::from(split);
        let mut start = 0;
        for frame in frames {
            if start > 0 && self.rng.bool() {
                cuts.insert(start, BREATH_US);
            }
            let length = frame.bytes.len();
            if split && length > 1 {
                for _ in 1..self.rng.usize(2..=PIECES_MAX) {
                    cuts.insert(start + self.rng.usize(1..length), self.rng.u64(..pause_max_us.max(1)));
                }
            }
            start += length;
        }
        cuts
    }

    /// The bytes of all frames, unless somebody could take them for what they are not.
    fn passes(&mut self, frames: &[Outgoing]) -> Option<Vec<u8>> {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| &frame.bytes).copied().collect();
        let sizes: Vec<(usize, bool)> = frames.iter().map(|frame| (frame.bytes.len(), frame.whole)).collect();
        if self.framing != Framing::Rtu || self.guard.admits(&bytes, &sizes) {
            return Some(bytes);
        }
        self.tally.undetectable += 1;
        None
    }

    fn roll(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }
}

/// Header, unit, function and count: what of an answer over TCP a client can check.
const TCP_CHECKED: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn everything() -> LineFaults {
        "delay=0.2,split=0.2,merge=0.1,duplicate=0.1,repeat=0.1,truncate=0.1,swap=0.1,corrupt=0.2,drop=0.1,disconnect=0.05,hang_up=0.05,longest=90ms"
            .parse()
            .expect("faults")
    }

    fn rtu_frame(words: u8, seed: u8) -> Vec<u8> {
        let mut frame = vec![1, 4, words * 2];
        frame.extend((0..words * 2).map(|index| index.wrapping_mul(31) ^ seed));
        let sum = crc(&frame);
        frame.extend(sum);
        frame
    }

    proptest! {
        #[test]
        fn the_same_seed_gives_the_same_acts_and_none_is_late_for_ever(seed: u64, frames in prop::collection::vec((1_u8..40, any::<u8>()), 1..60)) {
            for framing in [Framing::Rtu, Framing::Tcp] {
                let play = || {
                    let mut line = BadLine::new(everything(), framing, seed);
                    let acts: Vec<Vec<Act>> = frames.iter().map(|(words, fill)| line.answer(rtu_frame(*words, *fill))).collect();
                    (acts, line.tally())
                };
                let (acts, tally) = play();
                prop_assert_eq!(&(acts.clone(), tally), &play());
                for acts in acts {
                    let waits = acts.iter().filter_map(|act| if let Act::Wait(wait) = act { Some(*wait) } else { None });
                    prop_assert!(waits.sum::<Duration>() <= Duration::from_millis(90));
                }
            }
        }
    }

    #[test]
    fn a_good_line_changes_nothing() {
        let mut line = BadLine::new(LineFaults::default(), Framing::Rtu, 1);
        assert_eq!(line.answer(rtu_frame(2, 7)), [Act::Send(rtu_frame(2, 7))]);
    }

    #[test]
    fn every_fault_happens() {
        let mut line = BadLine::new(everything(), Framing::Rtu, 7);
        (0..2_000).for_each(|fill| drop(line.answer(rtu_frame(3, u8::try_from(fill % 251).unwrap_or(0)))));
        let never: Vec<_> = line.tally().counts().into_iter().filter(|(_, count)| *count == 0).collect();
        assert!(never.iter().all(|(name, _)| *name == "undetectable"), "{never:?}");
    }
}
