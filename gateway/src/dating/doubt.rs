//! What is made of a clock that fell back while the gateway ran: it is told, and who keeps the clock is asked whether that was
//! meant so.
//!
//! The clock itself does not follow (`Clock::guarded`). It is believed again where it comes back; where the time service has set it
//! since; and, where none says anything, if it went back to where it was before it sprang forward.

use tjern_readings::clock::{Clock, Doubt, SECOND_US};
use tracing::{info, warn};

use super::written;
use crate::clock::Witness;

/// Who keeps the clock is asked again after this.
const ASK_AGAIN_US: i64 = SECOND_US;

/// What was told of a doubt, and when it was last weighed.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// How many falls were told of.
    told: u64,
    lasts: bool,
    /// On the monotonic clock.
    ask_at_us: i64,
}

impl Doubts {
    /// Looks whether the clock is doubted, and whether it still has to be. Chrony may be silent for a second: it is not asked on a
    /// thread that the buses wait for.
    pub(super) async fn weigh(&mut self, clock: &Clock, witness: &Witness) {
        let doubt = clock.doubt();
        self.tell(clock, doubt);
        let now_us = clock.monotonic_us();
        let Some(doubt) = doubt.filter(|_| now_us >= self.ask_at_us) else { return };
        self.ask_at_us = now_us.saturating_add(ASK_AGAIN_US);
        let (witness, wall_us) = (witness.clone(), clock.wall_us());
        let asking = tokio::task::spawn_blocking(move || witness.has_set_back(wall_us, doubt.for_us));
        if asking.await.is_ok_and(|is_meant| is_meant.unwrap_or(doubt.is_back)) {
            clock.believe();
            self.tell(clock, None);
        }
    }

    fn tell(&mut self, clock: &Clock, doubt: Option<Doubt>) {
        let falls = clock.falls();
        if falls > self.told {
            self.told = falls;
            self.lasts = true;
            warn!(
                clock = written(clock.wall_us()),
                believed = written(clock.now_us()),
                until = doubt.map(|doubt| written(doubt.since_us)),
                "the clock fell back while the gateway ran, and is not believed: readings are dated by the time that passed since, and say so \
                 (`clock_estimated`); hint: who set it? where it is right now and was ahead before, start the gateway anew with `trusted` in `[clock]` (it can go \
                 once the clock has passed `until`)"
            );
        }
        if doubt.is_none() && std::mem::take(&mut self.lasts) {
            info!(clock = written(clock.wall_us()), "the clock is believed again");
        }
    }
}
