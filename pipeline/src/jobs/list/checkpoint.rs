//! `checkpoint`: logs that have grown since their last checkpoint get a new one.

use async_trait::async_trait;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::jobs::job::{Done, Job, JobError};
use crate::maintain::checkpoint;

#[derive(Debug)]
pub(super) struct Checkpoint;

#[async_trait]
impl Job for Checkpoint {
    fn undone(&self) -> &'static str {
        "opening a table reads more of its log, and old commits stay"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let made = checkpoint(lake, false).await.map_err(JobError::failed)?;
        let tables: Vec<_> = made.iter().map(|made| made.table.as_str()).collect();
        let done = Done::new(format!("{} checkpoints written", made.len())).with("tables", tables);
        Ok(done.worked(!made.is_empty()))
    }
}
