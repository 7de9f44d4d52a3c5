//! What happened on a line, for whoever shows it: counters that only grow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::frame::Passed;
use super::ioctl::LineErrors;

/// The counters of one line; clones share them.
#[derive(Debug, Clone, Default)]
pub struct WireStats(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    echoes: AtomicU64,
    strangers: AtomicU64,
    noise: AtomicU64,
    never_silent: AtomicU64,
    doubted: AtomicU64,
    frame: AtomicU64,
    overrun: AtomicU64,
    parity: AtomicU64,
    line_break: AtomicU64,
    buffer_overrun: AtomicU64,
    /// What the hardware said last: an adapter that is plugged in again begins at 0.
    hardware: Mutex<LineErrors>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WireCounts {
    /// How often the port or the connection was opened.
    pub opened: u64,
    /// Requests that were heard back.
    pub echoes: u64,
    /// Whole frames that answered something else, or came too late.
    pub strangers: u64,
    /// Bytes that belonged to no frame.
    pub noise: u64,
    /// Requests that were not sent, since the line never fell silent.
    pub never_silent: u64,
    /// Answers that were not believed, since another or strange bytes came with them.
    pub doubted: u64,
    /// What the port's hardware counts, where it does; zeros elsewhere.
    pub hardware: LineErrors,
}

impl WireStats {
    pub(super) fn opened(&self) {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn passed(&self, passed: Passed) {
        self.0.echoes.fetch_add(passed.echoes, Ordering::Relaxed);
        self.0.strangers.fetch_add(passed.strangers, Ordering::Relaxed);
        self.0.noise.fetch_add(passed.noise, Ordering::Relaxed);
    }

    /// A request was not sent: the line never fell silent for so many bytes.
    pub(super) fn never_silent(&self, bytes: usize) {
        self.0.never_silent.fetch_add(1, Ordering::Relaxed);
        self.0.noise.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// An answer was not believed, since something else came with it.
    pub(super) fn doubted(&self) {
        self.0.doubted.fetch_add(1, Ordering::Relaxed);
    }

    /// The hardware says this: what came since it said something last counts, and all of it where it began anew.
    pub(super) fn set_hardware(&self, errors: LineErrors) {
        let mut last = self.0.hardware.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *last, errors);
        let began_anew = [
            (errors.frame, before.frame),
            (errors.overrun, before.overrun),
            (errors.parity, before.parity),
            (errors.line_break, before.line_break),
            (errors.buffer_overrun, before.buffer_overrun),
        ]
        .iter()
        .any(|(now, before)| now < before);
        let before = if began_anew { LineErrors::default() } else { before };
        let add = |counter: &AtomicU64, now: u64, before: u64| counter.fetch_add(now - before, Ordering::Relaxed);
        add(&self.0.frame, errors.frame, before.frame);
        add(&self.0.overrun, errors.overrun, before.overrun);
        add(&self.0.parity, errors.parity, before.parity);
        add(&self.0.line_break, errors.line_break, before.line_break);
        add(&self.0.buffer_overrun, errors.buffer_overrun, before.buffer_overrun);
    }

    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> WireCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WireCounts {
            opened: get(&self.0.opened),
            echoes: get(&self.0.echoes),
            strangers: get(&self.0.strangers),
            noise: get(&self.0.noise),
            never_silent: get(&self.0.never_silent),
            doubted: get(&self.0.doubted),
            hardware: LineErrors {
                frame: get(&self.0.frame),
                overrun: get(&self.0.overrun),
                parity: get(&self.0.parity),
                line_break: get(&self.0.line_break),
                buffer_overrun: get(&self.0.buffer_overrun),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An adapter that was plugged in again made the counters go back, which Prometheus takes for a new start.
    #[test]
    fn a_counter_never_decreases() {
        let stats = WireStats::default();
        let errors = |frame, parity| LineErrors { frame, parity, ..LineErrors::default() };
        let mut seen = Vec::new();
        for said in [errors(5, 1), errors(5, 1), errors(7, 1), errors(1, 0), errors(1, 2)] {
            stats.set_hardware(said);
            let counts = stats.counts().hardware;
            seen.push((counts.frame, counts.parity));
        }
        assert_eq!(seen, [(5, 1), (5, 1), (7, 1), (8, 1), (8, 3)]);
    }
}
