//! The one module that reads the wall clock.
//!
//! Everything that needs to know what time it is takes a [`Clock`], so that tests can set it.
//! Waiting is the runtime's own business (`tokio::time`).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;

/// What time it is. Clones of a manual clock share their hands.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is set.
    #[must_use]
    pub fn manual(now_us: i64) -> Self {
        Self(Some(Arc::new(AtomicI64::new(now_us))))
    }

    /// Microseconds since 1970 UTC.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        self.0.as_ref().map_or_else(system_now_us, |hands| hands.load(Ordering::Relaxed))
    }

    /// Sets a manual clock; the machine's clock is left alone.
    pub fn set_us(&self, now_us: i64) {
        if let Some(hands) = &self.0 {
            hands.store(now_us, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn system_now_us() -> i64 {
    let micros = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}
