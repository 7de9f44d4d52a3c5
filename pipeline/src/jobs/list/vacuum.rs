//! `vacuum`: what nobody needs any more leaves the tables' folders.

use std::time::Duration;

use async_trait::async_trait;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::jobs::job::{Done, Job, JobError};
use crate::vacuum::{TableVacuum, refuse_a_clock_ahead, vacuum};

/// With how long it stays.
#[derive(Debug)]
pub(super) struct Vacuum(pub(super) Duration);

#[async_trait]
impl Job for Vacuum {
    fn undone(&self) -> &'static str {
        "old files stay and take room"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        refuse_a_clock_ahead(lake).await.map_err(JobError::failed)?;
        let tables = vacuum(lake, self.0, false).await.map_err(JobError::failed)?;
        Ok(summary(&tables, "removed"))
    }
}

/// What went, or would go, of all tables together.
#[must_use]
pub fn summary(tables: &[TableVacuum], verb: &str) -> Done {
    let files: usize = tables.iter().map(|table| table.files.len()).sum();
    let log: usize = tables.iter().map(|table| table.log.len()).sum();
    let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
    let done = Done::new(format!("{verb} {files} data files and {log} objects of logs, {bytes} bytes"));
    done.with("files", files).with("log_objects", log).with("bytes", bytes).worked(files + log > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Place, Row};
    use tjern_readings::clock::Clock;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// For a minute the machine's clock was days ahead: files that others were about to commit went, and nobody could write.
    #[tokio::test]
    async fn the_job_takes_nothing_under_a_clock_that_is_ahead() {
        let place = Place::new();
        place.clock.set_us(Clock::system().now_us());
        for number in 0..3 {
            place.ingest(&[Row::new("sample", place.clock.now_us() + number, 1.0)]).await;
        }
        place.compact().await;
        place.clock.set_us(place.clock.now_us() + 3 * 86_400_000_000);
        let mut job = Vacuum(DAY);
        let would_go = vacuum(&place.lake, DAY, true).await.expect("looked");
        assert!(!would_go[0].files.is_empty());
        let failed = job.run(&place.lake, &CancellationToken::new()).await.expect_err("the clock is ahead");
        assert!(failed.to_string().contains("ahead of the store"), "{failed}");
        assert_eq!(vacuum(&place.lake, DAY, true).await.expect("looked"), would_go, "all is there");
    }
}
