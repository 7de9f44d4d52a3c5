//! What the machine's time service says of the clock, asked now and then: for `/status`, and for
//! `_system/<gateway>/clock_offset_ms`.
//!
//! That sensor says once how far the clock was ahead when one came that was not known at the start; otherwise what chrony
//! reckons, where it keeps the clock. What the kernel knows besides (`adjtimex`) the unit's `ProtectClock` keeps from us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tjern_readings::clock::Clock;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::{ClockWord, Witness};

/// So often it is asked: one value an hour is written down.
const EVERY: Duration = Duration::from_secs(600);

/// What it said last. Clones share it; it is asked as long as there is one.
#[derive(Debug, Clone)]
pub(super) struct TimeService {
    said: watch::Receiver<ClockWord>,
    _asking: Arc<AbortOnDropHandle<()>>,
}

impl TimeService {
    /// Begins to ask. Needs a runtime.
    pub(super) fn begin(witness: Witness) -> Self {
        let (say, said) = watch::channel(ClockWord::default());
        Self { said, _asking: Arc::new(AbortOnDropHandle::new(tokio::spawn(ask(witness, say)))) }
    }

    /// What it said last.
    pub(super) fn said(&self) -> watch::Receiver<ClockWord> {
        self.said.clone()
    }

    /// Who says how far the clock is ahead of the true time, in milliseconds, where that is known.
    pub(super) fn offset_ms(self, clock: Clock) -> impl Fn() -> Option<i64> + Send + 'static {
        let has_come = AtomicBool::new(false);
        move || {
            let came_ms = clock.offset_us().filter(|_| !has_come.swap(true, Ordering::Relaxed)).map(|us| -us / 1_000);
            came_ms.or_else(|| self.said.borrow().ahead_ms)
        }
    }
}

async fn ask(witness: Witness, say: watch::Sender<ClockWord>) {
    loop {
        let witness = witness.clone();
        // Chrony may be silent: not on a thread that the buses wait for.
        let word = tokio::task::spawn_blocking(move || witness.word()).await;
        say.send_replace(word.unwrap_or_default());
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> (watch::Sender<ClockWord>, TimeService) {
        let (say, said) = watch::channel(ClockWord::default());
        (say, TimeService { said, _asking: Arc::new(AbortOnDropHandle::new(tokio::spawn(async {}))) })
    }

    /// `_system/<gateway>/clock_offset_ms` was never written.
    #[tokio::test]
    async fn how_far_the_clock_was_off_is_told_once_when_it_came() {
        let wall = Clock::manual(1_000_000_000);
        let clock = wall.estimating_from(900_000_000);
        let (say, service) = silent();
        let offset_ms = service.clone().offset_ms(clock.clone());
        assert_eq!(offset_ms(), None, "nobody knows");
        clock.settle();
        assert_eq!((offset_ms(), offset_ms()), (Some(-100_000), None));
        assert_eq!(service.clone().offset_ms(wall)(), None, "it was believed from the start");
        say.send_replace(ClockWord { is_synchronised: Some(true), ahead_ms: Some(3) });
        assert_eq!((offset_ms(), offset_ms()), (Some(3), Some(3)), "chrony says it from then on");
    }
}
