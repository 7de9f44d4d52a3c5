//! What happened on a line, for whoever shows it: counters that only grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    frame: AtomicU64,
    overrun: AtomicU64,
    parity: AtomicU64,
    line_break: AtomicU64,
    buffer_overrun: AtomicU64,
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

    pub(super) fn set_hardware(&self, errors: LineErrors) {
        self.0.frame.store(errors.frame, Ordering::Relaxed);
        self.0.overrun.store(errors.overrun, Ordering::Relaxed);
        self.0.parity.store(errors.parity, Ordering::Relaxed);
        self.0.line_break.store(errors.line_break, Ordering::Relaxed);
        self.0.buffer_overrun.store(errors.buffer_overrun, Ordering::Relaxed);
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
