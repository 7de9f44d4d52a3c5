//! Modbus as a client that only reads.
//!
//! [`transport`] holds what may go over the wire (four reads, nothing else) and what may come back;
//! [`tcp`] and [`rtu`] are the two kinds of wire, [`master`] is either. Each keeps its connection or port
//! across errors in its own way; a client context of the library lives until its first error only, since
//! what it has buffered could otherwise become the next answer. [`timing`] says what a line allows, `sniff`
//! understands what others say on one.

pub mod master;
pub mod rtu;
pub mod stats;
pub mod tcp;
pub mod timing;
pub mod transport;

mod answering;
mod connect;
mod copies;
mod far_line;
#[cfg(test)]
pub(crate) mod faults;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod ioctl;
mod mbap;
mod owed;
mod pacer;
mod parked;
mod patience;
mod port;
mod read_map;
pub(crate) mod sniff;
mod wire;

/// How often a line that is missing is tried again at most, and at least.
pub(crate) const PAUSE_MIN: std::time::Duration = std::time::Duration::from_millis(500);
pub(crate) const PAUSE_MAX: std::time::Duration = std::time::Duration::from_secs(5);

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

pub use ioctl::LineErrors;
pub use master::{Manners, Master};
pub use read_map::ReadMap;

pub(crate) use mbap::Strangers;
pub(crate) use port::{may_be_a_port, open_serial};

#[cfg(test)]
pub(crate) use frame::crc as frame_crc;
