//! `retention`: readings that are older than they shall be leave the table.

use std::time::Duration;

use async_trait::async_trait;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::jobs::job::{Done, Job, JobError};
use crate::maintain::retain;

/// With how long readings stay, if not for ever.
#[derive(Debug)]
pub(super) struct Retention(pub(super) Option<Duration>);

#[async_trait]
impl Job for Retention {
    fn undone(&self) -> &'static str {
        "readings that are too old stay"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let Some(keep) = self.0 else {
            return Ok(Done::new("readings stay for ever: `[retention] readings` is not set").worked(false));
        };
        let gone = retain(lake, keep, false).await.map_err(JobError::failed)?;
        let rows: i64 = gone.iter().filter_map(|file| file.rows).sum();
        let done = Done::new(format!("{} files with {rows} readings removed", gone.len()));
        Ok(done.with("files", gone.len()).with("rows", rows).worked(!gone.is_empty()))
    }
}
