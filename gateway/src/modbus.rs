//! Modbus as a client that only reads.
//!
//! [`transport`] holds what may go over the wire (four reads, nothing else) and what may come back;
//! [`tcp`] and [`rtu`] are the two wires. Each keeps its connection or port across errors in its own
//! way; a client context of the library lives until its first error only, since what it has buffered
//! could otherwise become the next answer.

pub mod rtu;
pub mod tcp;
pub mod transport;

#[cfg(test)]
pub(crate) mod faults;
mod mbap;
mod port;

/// A wall that a canary takes down, so that the tests show that they would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Transaction ids are not compared.
    Ids,
    /// What came late is not forgotten before the next request.
    Drain,
}

/// Whether a wall is down: never, but in a test that says so.
#[cfg(not(test))]
const fn is_broken(_: Broken) -> bool {
    false
}

#[cfg(test)]
use faults::is_broken;

/// How often a line that is missing is tried again at most, and at least.
const PAUSE_MIN: std::time::Duration = std::time::Duration::from_millis(500);
const PAUSE_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// When a line that is missing is tried again: pauses that double, from half a second to five.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    pause: std::time::Duration,
    until: Option<tokio::time::Instant>,
}

impl Retry {
    pub(crate) fn may_try(&self) -> bool {
        self.until.is_none_or(|until| tokio::time::Instant::now() >= until)
    }

    pub(crate) fn until(&self) -> Option<tokio::time::Instant> {
        self.until
    }

    pub(crate) fn failed(&mut self) {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let jitter = 0.9 + 0.2 * fastrand::f64();
        self.until = Some(tokio::time::Instant::now() + self.pause.mul_f64(jitter));
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

pub(crate) use port::{SharedPort, open_serial};
