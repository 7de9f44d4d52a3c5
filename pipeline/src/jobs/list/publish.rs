//! `publish-<dataset>`: a release of an open dataset, where there is something new.

use async_trait::async_trait;
use jiff::tz::TimeZone;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::jobs::job::{Done, Job, JobError};
use crate::publish::{Dataset, PublishOutcome, publish_within};

#[derive(Debug)]
pub(super) struct Publish {
    pub(super) dataset: Dataset,
    pub(super) timezone: TimeZone,
    pub(super) bounds: Bounds,
}

#[async_trait]
impl Job for Publish {
    fn undone(&self) -> &'static str {
        "the newest release is the one before"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let outcome =
            publish_within(lake, &self.dataset, &self.timezone, &self.bounds).await.map_err(JobError::failed)?;
        let name = &self.dataset.name;
        Ok(match outcome {
            PublishOutcome::Published(release) => {
                Done::new(format!("{name} {}", release.version)).with("version", release.version).with("released", true)
            }
            PublishOutcome::NothingNew { version } => Done::new(format!("{name} {version} is up to date"))
                .with("version", version)
                .with("released", false)
                .worked(false),
            PublishOutcome::Empty => {
                Done::new(format!("{name} has no public reading yet")).with("released", false).worked(false)
            }
        })
    }
}
