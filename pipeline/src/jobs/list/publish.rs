//! `publish-<dataset>`: a release of an open dataset, where there is something new.

use async_trait::async_trait;
use jiff::tz::TimeZone;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::erase::EraseSettings;
use crate::jobs::job::{Done, Job, JobError};
use crate::publish::{Dataset, PublishOutcome, Recalled, publish_within, recall};

#[derive(Debug)]
pub(super) struct Publish {
    pub(super) dataset: Dataset,
    pub(super) timezone: TimeZone,
    pub(super) bounds: Bounds,
    /// What withdrawing former releases needs.
    pub(super) settings: EraseSettings,
}

#[async_trait]
impl Job for Publish {
    fn undone(&self) -> &'static str {
        "the newest release is the one before"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        // Mostly `register` has done it.
        let recalled = Box::pin(recall(lake, &self.settings)).await.map_err(JobError::failed)?;
        let outcome =
            publish_within(lake, &self.dataset, &self.timezone, &self.bounds).await.map_err(JobError::failed)?;
        let name = &self.dataset.name;
        let done = match outcome {
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
        };
        Ok(withdrawn(done, recalled))
    }
}

/// Says of a run also which releases it withdrew.
pub(super) fn withdrawn(done: Done, recalled: Recalled) -> Done {
    let Recalled { withdrawn, released } = recalled;
    if withdrawn == 0 {
        return done;
    }
    let anew = if released.is_empty() { String::new() } else { format!(", made anew: {}", released.join(", ")) };
    let said =
        format!("{}; releases withdrawn, since readings in them are public no more: {withdrawn}{anew}", done.said);
    Done { said, ..done }.with("withdrawn", withdrawn).worked(true)
}
