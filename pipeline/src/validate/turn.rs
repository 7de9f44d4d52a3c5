//! One at a time writes files of `readings` anew: quality control, the check of units that came late, and a validation hold one
//! lease, which an erasure waits for.
//!
//! Nobody waits for ever: who was killed is in nobody's way once its lease has run out, and of who is at work for longer
//! than [`PATIENCE`] it is told.

use std::time::Duration;

use tjern_lake::{KeptLease, Lake, Lease};
use tokio_util::sync::CancellationToken;

use crate::correct::CorrectError;
use crate::quality;

/// How long is waited for others: twice as long as one that was killed keeps the lease.
pub(super) const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// The pauses between two looks: a validation takes a moment, and each look is a request that is billed.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);

/// Takes the lease, after others where they are at work, unless it is told to stop. Not to be dropped before its end: a lease that was
/// just made would be in everybody's way until it has run out.
pub(super) async fn turn(lake: &Lake, stop: &CancellationToken) -> Result<KeptLease, CorrectError> {
    let (mut waited, mut pause) = (Duration::ZERO, PAUSE_FIRST);
    loop {
        if let Some(lease) = Lease::take(lake, quality::JOB, quality::LEASE).await? {
            return Ok(lease.keep());
        }
        let minutes = PATIENCE.as_secs() / 60;
        if waited >= PATIENCE {
            return Err(CorrectError::Held { minutes });
        }
        if waited.is_zero() {
            tracing::warn!(
                "others write readings anew (quality control, an erasure, another validation): they are waited for, for {minutes} min at most"
            );
        }
        stop.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or(CorrectError::Interrupted)?;
        waited += pause;
        pause = (pause * 2).min(PAUSE_LONGEST);
    }
}
