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
