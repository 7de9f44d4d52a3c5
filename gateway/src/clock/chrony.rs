//! What chrony says of the clock: one question over its monitoring port, where it answers every user of the machine.
//!
//! Source of the format: chrony's `candm.h`, version 6 of the protocol: `REQ_TRACKING` and `RPY_TRACKING`, all numbers
//! big-endian, in one datagram each. A question is as long as its answer, or chrony drops it. Nothing is asked but this, nothing is
//! ever set, and nobody waits longer than [`PATIENCE`].

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use thiserror::Error;

/// Where chrony answers unless its configuration says otherwise (`cmdport`).
pub(super) const DOOR: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 323));

/// It answers within a millisecond, or the system says at once that nobody is there.
const PATIENCE: Duration = Duration::from_secs(1);

const VERSION: u8 = 6;
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
const ASK_TRACKING: u16 = 33;
const TELL_TRACKING: u16 = 5;
const LENGTH: usize = 104;

/// Its leap status where it follows no source yet.
const UNSYNCHRONISED: u16 = 3;

/// The source that it names where it follows nobody but itself (`local`).
const ITSELF: u32 = 0x7F7F_0101;

/// A clock that chrony is still moving by more than this is not yet right: it moves slowly where it must not step.
const OFF_MAX_S: f64 = 1.0;

/// It may have followed a source after the clock was looked at.
const FOLLOWED_AHEAD_MAX_US: i64 = 5_000_000;

/// Chrony runs, and does not say how the clock is.
#[derive(Debug, Error)]
pub enum ChronyError {
    /// No answer.
    #[error("chrony does not answer at {door}: {source}; hint: is `cmdport` 0 in its configuration?")]
    Silent {
        /// Where it was asked.
        door: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// An answer in another form.
    #[error("what answers at {door} is not chrony's protocol in version {VERSION} ({length} bytes)")]
    Unreadable {
        /// Where it was asked.
        door: SocketAddr,
        /// How long the answer was.
        length: usize,
    },
}

/// How chrony keeps the clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tracking {
    source: u32,
    leap: u16,
    /// When a source was last followed, by the clock.
    followed_us: i64,
    behind_s: f64,
}

impl Tracking {
    /// Whether it was synchronised since chrony began, and is right to a second. A source that is gone since changes nothing.
    #[must_use]
    pub fn is_synchronised(self) -> bool {
        self.follows() && self.behind_s.abs() <= OFF_MAX_S
    }

    /// Whether it followed a source since so long ago, by a clock that says this, and is right to a second. That it was
    /// synchronised is no word about who set the clock since: it finds that out, and goes on to say it until it hears its sources.
    #[must_use]
    pub fn has_followed_since(self, wall_us: i64, ago_us: i64) -> bool {
        let ahead_us = FOLLOWED_AHEAD_MAX_US;
        let since = wall_us.saturating_sub(ago_us)..=wall_us.saturating_add(ahead_us);
        self.is_synchronised() && since.contains(&self.followed_us)
    }

    /// When a source was last followed, by the clock that it set; nothing where the clock is not right to a second for it.
    #[must_use]
    pub fn followed_us(self) -> Option<i64> {
        self.is_synchronised().then_some(self.followed_us)
    }

    /// How far the clock is ahead of the true time, in milliseconds, as chrony reckons; `None` where it follows no source.
    #[must_use]
    pub fn ahead_ms(self) -> Option<i64> {
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        let ahead_ms = (self.behind_s * -1_000.0).round() as i64;
        self.follows().then_some(ahead_ms)
    }

    /// Whether it follows nobody but itself.
    #[must_use]
    pub const fn follows_itself(self) -> bool {
        self.source == ITSELF
    }

    const fn follows(self) -> bool {
        self.leap != UNSYNCHRONISED && self.source != ITSELF
    }
}

/// Asks. Blocks for [`PATIENCE`] at most.
pub(super) fn ask(door: SocketAddr) -> Result<Tracking, ChronyError> {
    let mut answer = [0; 2 * LENGTH];
    let length = exchange(door, &mut answer).map_err(|source| ChronyError::Silent { door, source })?;
    tracking(&answer[..length]).ok_or(ChronyError::Unreadable { door, length })
}

fn exchange(door: SocketAddr, answer: &mut [u8]) -> io::Result<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Connected: only who was asked may answer, and a closed port is told at once.
    socket.connect(door)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&question())?;
    socket.recv(answer)
}

fn question() -> [u8; LENGTH] {
    let mut question = [0; LENGTH];
    question[..2].copy_from_slice(&[VERSION, QUESTION]);
    question[4..6].copy_from_slice(&ASK_TRACKING.to_be_bytes());
    question
}

fn tracking(answer: &[u8]) -> Option<Tracking> {
    let number = |at: usize| Some(u32::from_be_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let short = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let is_answer = answer.get(..2)? == [VERSION, ANSWER] && short(4)? == ASK_TRACKING && short(6)? == TELL_TRACKING;
    let is_whole = answer.len() >= LENGTH && short(8)? == 0;
    let seconds = i64::from(number(56)?) << 32 | i64::from(number(60)?);
    let followed_us = seconds.saturating_mul(1_000_000).saturating_add(i64::from(number(64)?) / 1_000);
    let tracking = Tracking { source: number(28)?, leap: short(54)?, followed_us, behind_s: float(number(68)?) };
    (is_answer && is_whole).then_some(tracking)
}

/// Chrony's numbers: an exponent of 7 bits and a coefficient of 25, both signed.
fn float(bits: u32) -> f64 {
    let exponent = bits.cast_signed() >> 25;
    let coefficient = (bits << 7).cast_signed() >> 7;
    f64::from(coefficient) * f64::from(exponent - 25).exp2()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What chronyd 4.3 answered that followed a server whose clock was five seconds ahead, and must not move its own.
    const FIVE_SECONDS_BEHIND: &str = "060200000021000500000000000000000000000000000000000000007f0000017f00000100000000000000000000000000010000\
        00020000000000006b0d4b4b01aec6f708a0005bdcb3249ae0931b0104ae77ddfe86da5a0a8f7527e8cefb03e487ef880082314b";
    /// The same that follows nobody.
    const FOLLOWS_NOBODY: &str = "06020000002100050000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
        00000003000000000000000000000000000000000000000000000000000000000000000000000000048000000480000000000000";
    /// The same with `local stratum 10`.
    const BY_ITSELF: &str = "060200000021000500000000000000000000000000000000000000007f7f01010000000000000000000000000000000000000000\
        000a0000000000006b0d4b5626636a7a000000000000000000000000000000000000000000000000000000000000000000000000";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }

    /// An answer of a chrony that follows a source, with the clock so far behind (a coefficient of 24 bits).
    pub(in crate::clock) fn answer(behind_ms: i32) -> Vec<u8> {
        let mut answer = bytes(FIVE_SECONDS_BEHIND);
        // Milliseconds as 1024ths: close enough, and without rounding.
        let bits = (15 << 25) | (behind_ms & 0x01FF_FFFF).cast_unsigned();
        answer[68..72].copy_from_slice(&bits.to_be_bytes());
        answer
    }

    #[test]
    fn what_chronyd_answered_is_read() {
        let five = tracking(&bytes(FIVE_SECONDS_BEHIND)).expect("read");
        assert_eq!((five.is_synchronised(), five.ahead_ms()), (false, Some(-5_000)), "it moves the clock still");
        for (what, hex) in [("follows nobody", FOLLOWS_NOBODY), ("follows itself", BY_ITSELF)] {
            let answer = tracking(&bytes(hex)).expect("read");
            assert_eq!((answer.is_synchronised(), answer.ahead_ms()), (false, None), "{what}");
        }
        for (behind_ms, ahead_ms) in [(0, 0), (512, -500), (-512, 500)] {
            let kept = tracking(&answer(behind_ms)).expect("read");
            assert_eq!((kept.is_synchronised(), kept.ahead_ms()), (true, Some(ahead_ms)));
        }
        assert!(!tracking(&answer(-1_100)).expect("read").is_synchronised());
    }

    /// Somebody set the clock back under a chrony that was synchronised: what it says of before is no word about that.
    #[test]
    fn a_source_that_was_followed_before_the_clock_fell_says_nothing() {
        // 2026-11-30 12:09:15 UTC, as chronyd had it in its answer.
        const FOLLOWED_US: i64 = 1_796_033_355_028_231;
        let followed_since = |behind_ms, after_us, ago_us| {
            tracking(&answer(behind_ms)).expect("read").has_followed_since(FOLLOWED_US + after_us, ago_us)
        };
        assert!(followed_since(0, 0, 0) && followed_since(0, 60_000_000, 61_000_000));
        assert!(!followed_since(0, 60_000_000, 59_000_000) && !followed_since(-1_100, 0, 0));
        assert!(!followed_since(0, -3_600_000_000, 60_000_000), "that was under another time");
    }

    /// Whoever listens at the port: nothing but chrony's answer is believed.
    #[test]
    fn nonsense_says_nothing() {
        let whole = bytes(FIVE_SECONDS_BEHIND);
        (0..whole.len()).for_each(|length| assert_eq!(tracking(&whole[..length]), None, "{length} bytes"));
        for at in [0, 1, 4, 5, 6, 7, 8, 9] {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(tracking(&other), None, "byte {at}");
        }
        assert_eq!(tracking(&question()), None, "our own question");
    }

    #[test]
    fn a_chrony_that_is_silent_is_told_with_a_hint() {
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        // Ours, and nobody answers there.
        let error = ask(port.local_addr().expect("an address")).expect_err("silent");
        assert!(error.to_string().contains("`cmdport`"), "{error}");
    }
}
