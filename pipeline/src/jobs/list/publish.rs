//! `publish-<dataset>`: a release of an open dataset, where there is something new.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use tjern_lake::Lake;
use tjern_readings::keys::OPEN;
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
        // Mostly `register` has done it. What it cannot do of other datasets is nothing to this one.
        let recalled = Box::pin(recall(lake, &self.settings)).await;
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
        let recalled = match recalled {
            Ok(recalled) => recalled,
            Err(error) => {
                let error =
                    format!("releases that hold readings which are public no more cannot be withdrawn: {error}");
                return Err(JobError::Partly { error, done: Box::new(done) });
            }
        };
        let ours = ours(&recalled, name);
        if let Some(error) = trouble(&recalled).filter(|_| ours == Recalled::default()) {
            tracing::warn!(error, "other datasets");
        }
        let done = withdrawn(done, recalled);
        match trouble(&ours) {
            None => Ok(done),
            Some(error) => Err(JobError::Partly { error, done: Box::new(done) }),
        }
    }
}

/// What of this dataset could not be withdrawn.
fn ours(recalled: &Recalled, dataset: &str) -> Recalled {
    let folder = format!("{OPEN}/{dataset}/");
    let of = |keys: &BTreeMap<String, String>| {
        let ours = keys.iter().filter(|(key, _)| key.starts_with(&folder));
        ours.map(|(key, why)| (key.clone(), why.clone())).collect()
    };
    // It is made anew by this very run.
    Recalled { unreadable: of(&recalled.unreadable), stays: of(&recalled.stays), ..Recalled::default() }
}

/// What could not be done where releases are withdrawn.
pub(super) fn trouble(recalled: &Recalled) -> Option<String> {
    let Recalled { unmade, unreadable, stays, .. } = recalled;
    let of = |what: &str, reasons: &BTreeMap<String, String>| {
        let (first, why) = reasons.first_key_value()?;
        let more = if reasons.len() > 1 { format!(" (and {} more)", reasons.len() - 1) } else { String::new() };
        Some(format!("{what}: `{first}`{more}: {why}"))
    };
    let found = [
        of("readings that are public no more may still be published in what is not withdrawn", stays),
        of("nobody knows whether readings that are public no more are in a file of a release", unreadable),
        of("a dataset's newest release was withdrawn, and there is no new one until `publish` makes it", unmade),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    (!found.is_empty()).then(|| found.join("; "))
}

/// Says of a run also which releases it withdrew.
pub(super) fn withdrawn(done: Done, recalled: Recalled) -> Done {
    let Recalled { withdrawn, released, .. } = recalled;
    if withdrawn == 0 {
        return done;
    }
    let anew = if released.is_empty() { String::new() } else { format!(", made anew: {}", released.join(", ")) };
    let said =
        format!("{}; releases withdrawn, since readings in them are public no more: {withdrawn}{anew}", done.said);
    Done { said, ..done }.with("withdrawn", withdrawn).worked(true)
}
