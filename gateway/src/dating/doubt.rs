//! What is made of a clock that fell back while the gateway ran: it is told, and who keeps the clock is asked whether that was
//! meant so.
//!
//! The clock itself does not follow (`Clock::guarded`). It is believed again where it comes back; where the time service has set it
//! since; and, where none says anything, if it went back to where it was before it sprang forward.
//!
//! Then what was dated before the fall was ahead, and is no word about the clock any more, for the next start neither
//! (`Spool::distrust`): that would not believe a clock that is right.
//!
//! What the service set before the fall is no word about it, and once the clock has come to that time again it looks as if it were
//! one. So when the service set the clock last is looked at now and then while the clock is believed, and as soon as it is not; what was
//! seen and said nothing never counts.

use tjern_readings::clock::{Clock, Doubt, SECOND_US};
use tracing::{info, warn};

use super::written;
use crate::clock::Witness;

/// Who keeps the clock is asked again after this.
const ASK_AGAIN_US: i64 = SECOND_US;

/// The same while the clock is believed: less than a clock has to fall, so that what the service set since lies in the future of one
/// that fell.
const LOOK_AGAIN_US: i64 = 600 * SECOND_US;

/// What was told of a doubt, and when it was last weighed.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// How many falls were told of.
    told: u64,
    lasts: bool,
    /// On the monotonic clock.
    ask_at_us: i64,
    /// When the time service had set the clock, as it was seen last.
    seen_us: Option<i64>,
}

impl Doubts {
    /// Looks whether the clock is doubted, and whether it still has to be: whether it is believed from now on, and what it said before
    /// it fell was wrong. Chrony may be silent for a second: it is not asked on a thread that the buses wait for.
    pub(super) async fn weigh(&mut self, clock: &Clock, witness: &Witness) -> bool {
        let doubt = clock.doubt();
        self.tell(clock, doubt);
        let now_us = clock.monotonic_us();
        if now_us < self.ask_at_us {
            return false;
        }
        self.ask_at_us = now_us.saturating_add(if doubt.is_some() { ASK_AGAIN_US } else { LOOK_AGAIN_US });
        let (witness, wall_us) = (witness.clone(), clock.wall_us());
        let Ok(mark) = tokio::task::spawn_blocking(move || witness.mark()).await else { return false };
        let is_old = mark.time_us().is_some() && mark.time_us() == self.seen_us;
        self.seen_us = mark.time_us().or(self.seen_us);
        let Some(doubt) = doubt else { return false };
        let is_meant = if is_old { Some(false) } else { mark.is_since(wall_us, doubt.for_us) };
        let was_ahead = is_meant.unwrap_or(doubt.is_back);
        if was_ahead {
            clock.believe();
            self.tell(clock, None);
        }
        was_ahead
    }

    fn tell(&mut self, clock: &Clock, doubt: Option<Doubt>) {
        let falls = clock.falls();
        if falls > self.told {
            self.told = falls;
            self.lasts = true;
            self.ask_at_us = i64::MIN;
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
