//! `compact`: small files into big, sorted ones.

use async_trait::async_trait;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::compact::{LEASE, compact};
use crate::jobs::job::{Done, Job, JobError};

#[derive(Debug)]
pub(super) struct Compact;

#[async_trait]
impl Job for Compact {
    fn undone(&self) -> &'static str {
        "small files stay small, so that queries take longer"
    }

    fn heeds_stop(&self) -> bool {
        true
    }

    async fn run(&mut self, lake: &Lake, stop: &CancellationToken) -> Result<Done, JobError> {
        let outcome = compact(lake, stop).await.map_err(JobError::failed)?;
        if outcome.held_elsewhere {
            let minutes = LEASE.as_secs() / 60;
            let said = format!("another process is at it (or was killed at it within {minutes} min)");
            return Ok(Done { held_elsewhere: true, ..Done::new(said).worked(false) });
        }
        if stop.is_cancelled() {
            return Err(JobError::Interrupted);
        }
        let said = format!("{} files became {}", outcome.removed, outcome.added);
        let done = Done::new(said).with("removed", outcome.removed).with("added", outcome.added);
        Ok(done.worked(outcome.removed > 0))
    }
}
