//! How far the clock is off: what `_system/<gateway>/clock_offset_ms` says.
//!
//! Once, how far it was ahead when a clock came that was not known at the start; otherwise what chrony reckons, where it
//! keeps the clock. What the kernel knows besides (`adjtimex`) the unit's `ProtectClock` keeps from us.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tjern_readings::clock::Clock;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Witness;

/// So often chrony is asked: one value an hour is written down.
const EVERY: Duration = Duration::from_secs(600);

/// Who says how far the clock is ahead of the true time, in milliseconds, where that is known. Needs a runtime.
pub(super) fn of(clock: Clock, witness: Witness) -> impl Fn() -> Option<i64> + Send + 'static {
    let (tell, told) = watch::channel(None);
    let asking = AbortOnDropHandle::new(tokio::spawn(ask_chrony(witness, tell)));
    let offset_ms = offset_ms(clock, told);
    move || {
        // It asks as long as somebody wants to know.
        let _ = &asking;
        offset_ms()
    }
}

/// `told` is what chrony said last.
fn offset_ms(clock: Clock, told: watch::Receiver<Option<i64>>) -> impl Fn() -> Option<i64> + Send + 'static {
    let has_come = AtomicBool::new(false);
    move || {
        let came_ms = clock.offset_us().filter(|_| !has_come.swap(true, Ordering::Relaxed)).map(|us| -us / 1_000);
        came_ms.or_else(|| *told.borrow())
    }
}

async fn ask_chrony(witness: Witness, tell: watch::Sender<Option<i64>>) {
    loop {
        let witness = witness.clone();
        // It may be silent: not on a thread that the buses wait for.
        let answer = tokio::task::spawn_blocking(move || witness.chrony()).await;
        tell.send_replace(answer.ok().flatten().and_then(|answer| answer.ok()?.ahead_ms()));
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `_system/<gateway>/clock_offset_ms` was never written.
    #[test]
    fn how_far_the_clock_was_off_is_told_once_when_it_came() {
        let wall = Clock::manual(1_000_000_000);
        let clock = wall.estimating_from(900_000_000);
        let (tell, told) = watch::channel(None);
        let offset_ms = offset_ms(clock.clone(), told.clone());
        assert_eq!(offset_ms(), None, "nobody knows");
        clock.settle();
        assert_eq!((offset_ms(), offset_ms()), (Some(-100_000), None));
        tell.send_replace(Some(3));
        assert_eq!((offset_ms(), offset_ms()), (Some(3), Some(3)), "chrony says it from then on");
        tell.send_replace(None);
        assert_eq!(super::offset_ms(wall, told)(), None, "it was believed from the start");
    }
}
