//! `compact`: small files into big, sorted ones.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::compact::{CompactOutcome, CompactSettings, LEASE, Progress, compact};
use crate::jobs::job::{Done, Job, JobError};

/// How often a long run says how far it is.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// With what it may take, and who is told how far it is.
pub struct Compact {
    settings: CompactSettings,
    watcher: Box<dyn FnMut(Progress) + Send>,
}

impl std::fmt::Debug for Compact {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Compact").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Compact {
    /// Says in the log now and then how far it is.
    #[must_use]
    pub fn new(settings: CompactSettings) -> Self {
        let mut last = Instant::now();
        Self::watched(settings, move |Progress { merge, merges, done, total }| {
            if last.elapsed() >= SAID_EVERY {
                last = Instant::now();
                let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
                tracing::info!(merge, merges, percent, "compacting");
            }
        })
    }

    /// Tells this watcher how far it is.
    #[must_use]
    pub fn watched(settings: CompactSettings, watcher: impl FnMut(Progress) + Send + 'static) -> Self {
        Self { settings, watcher: Box::new(watcher) }
    }
}

#[async_trait]
impl Job for Compact {
    fn undone(&self) -> &'static str {
        "small files stay small, so that queries take longer"
    }

    fn heeds_stop(&self) -> bool {
        true
    }

    async fn run(&mut self, lake: &Lake, stop: &CancellationToken) -> Result<Done, JobError> {
        let outcome = compact(lake, &self.settings, stop, &mut self.watcher).await.map_err(JobError::failed)?;
        if outcome.held_elsewhere {
            let seconds = LEASE.as_secs();
            let said = format!("another process is at it (or was killed at it less than {seconds} s ago)");
            return Ok(Done { held_elsewhere: true, ..Done::new(said).worked(false) });
        }
        if stop.is_cancelled() {
            return Err(JobError::Interrupted);
        }
        let CompactOutcome { removed, added, rows, spilled_bytes, .. } = outcome;
        let spilled = match spilled_bytes {
            0 => String::new(),
            bytes => format!("; {bytes} bytes of rows did not fit into memory and went to disk"),
        };
        let done = Done::new(format!("{removed} files became {added}, {rows} rows{spilled}"));
        let done = done.with("removed", removed).with("added", added).with("rows", rows);
        Ok(done.with("spilled_bytes", spilled_bytes).worked(removed > 0))
    }
}
