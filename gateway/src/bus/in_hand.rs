//! Readings between a bus and the spool, for the moment in which the bus is given up.
//!
//! A bus whose readings find no place waits; a gateway that ends does not wait for ever, and gives it up. What it had in
//! hand then lies here, for whoever fills the spool. Limit: one transaction's readings a bus, since each has
//! no more than that in hand.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tjern_readings::rows::Rows;

/// What buses had in hand when they were given up. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LeftBehind(Arc<Mutex<Rows>>);

impl LeftBehind {
    /// Takes all of it.
    pub(crate) fn take(&self) -> Rows {
        std::mem::take(&mut *self.lock())
    }

    /// Held for a few instructions, none of which can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readings that nobody else has yet: dropped before they are handed on, they are left behind and not lost.
#[derive(Debug)]
pub(super) struct InHand<'a> {
    readings: Rows,
    left: &'a LeftBehind,
}

impl<'a> InHand<'a> {
    pub(super) const fn new(readings: Rows, left: &'a LeftBehind) -> Self {
        Self { readings, left }
    }

    pub(super) fn hand_on(mut self) -> Rows {
        std::mem::take(&mut self.readings)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if !self.readings.is_empty() {
            self.left.lock().append(std::mem::take(&mut self.readings));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tjern_readings::clock::Clock;
    use tjern_readings::reading::Reading;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::bus::state::BusStates;
    use crate::bus::{BusContext, DeviceTimes, Newest, OnDisk};

    fn readings(value: f64) -> Rows {
        vec![Reading::of("mast/wind_speed".parse().expect("a sensor"), 1, value)].into()
    }

    /// A disk stood still, the gateway was stopped, and what each bus had in hand was dropped without a word.
    #[tokio::test]
    async fn a_bus_that_is_given_up_leaves_behind_what_it_has_in_hand() {
        let (sender, mut received) = mpsc::channel(1);
        let left = LeftBehind::default();
        let context = BusContext {
            clock: Clock::manual(0),
            readings: sender,
            left: left.clone(),
            newest: Newest::from_fn(|_| None),
            stop: CancellationToken::new(),
            states: BusStates::new(),
            learned: None,
            device_times: DeviceTimes::default(),
            on_disk: OnDisk::default(),
        };
        context.store(readings(1.0)).await;
        assert_eq!(left.take(), Rows::default(), "what was handed on is not left behind");
        assert!(context.store(readings(2.0)).now_or_never().is_none(), "there is no place");
        assert_eq!(left.take(), readings(2.0));
        assert_eq!(received.recv().await, Some(readings(1.0)));
        drop(received);
        context.store(readings(3.0)).await;
        assert!(context.stop.is_cancelled());
        assert_eq!(left.take(), readings(3.0), "nobody takes them: they can still be counted");
    }
}
