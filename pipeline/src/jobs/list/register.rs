//! `register`: the city's files into the register; releases with readings that are public no more by it are withdrawn.

use async_trait::async_trait;
use serde_json::{Value, json};
use tjern_lake::{Lake, Table, TableName, Version};
use tokio_util::sync::CancellationToken;

use super::publish::{trouble, withdrawn};
use super::registering::{Registering, failure};
use crate::erase::EraseSettings;
use crate::jobs::job::{Done, Job, JobError};
use crate::jobs::unchanged::LOOK;
use crate::publish::{Recalled, recall};
use crate::register::{Changes, RegisterOutcome};

/// With the city's files, which `ingest` may have registered before.
#[derive(Debug)]
pub(super) struct Register {
    files: Registering,
    /// What withdrawing releases needs.
    settings: EraseSettings,
    /// The version of `sensors` by which no release holds readings that are public no more. Others register too, and a run that
    /// failed may have changed that table all the same.
    recalled: Option<Version>,
}

impl Register {
    pub(super) const fn new(files: Registering, settings: EraseSettings) -> Self {
        Self { files, settings, recalled: None }
    }

    async fn recall(&mut self, lake: &Lake) -> Result<Recalled, JobError> {
        let sensors = Table::open_within(lake, TableName::Sensors, LOOK).await.map_err(JobError::failed)?;
        let registered = sensors.map(|table| table.known_version());
        if registered.is_none() || registered == self.recalled {
            return Ok(Recalled::default());
        }
        let recalled = Box::pin(recall(lake, &self.settings)).await.map_err(JobError::failed)?;
        if recalled.stays.is_empty() {
            self.recalled = registered;
        }
        Ok(recalled)
    }
}

#[async_trait]
impl Job for Register {
    fn undone(&self) -> &'static str {
        "the register is as it was before"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let registered = self.files.register(lake).await;
        // Also where that failed: what the table says by now holds.
        let recalled = self.recall(lake).await;
        if let (Err(_), Ok(Recalled { withdrawn: 1.., .. })) = (&registered, &recalled) {
            tracing::warn!(?recalled, "releases were withdrawn, since readings in them are public no more");
        }
        let (registered, recalled) = (registered.map_err(|error| failure(error, ""))?, recalled?);
        let done = registered.map_or_else(|| Done::new("the register's files are as they were").worked(false), said);
        let (trouble, stays) = (trouble(&recalled), !recalled.stays.is_empty());
        let done = withdrawn(done, recalled);
        match trouble {
            None => Ok(done),
            Some(error) if stays => Err(JobError::failed(error)),
            // Trying again would find the same.
            Some(error) => Err(JobError::Partly { error, done: Box::new(done) }),
        }
    }
}

/// What was registered.
fn said(done: RegisterOutcome) -> Done {
    let said = if done.found {
        format!(
            "sites {}; sensors {}; installations {}; events {}; rules {}",
            text(done.sites),
            text(done.sensors),
            text(done.installations),
            text(done.events),
            text(done.rules)
        )
    } else {
        "there is no sites.csv and no sensors.csv".to_owned()
    };
    let tables = [done.sites, done.sensors, done.installations, done.events, done.rules];
    let changes = tables.into_iter().map(count).sum::<usize>();
    let said = Done::new(said).with("sites", value(done.sites)).with("sensors", value(done.sensors));
    let said = said.with("installations", value(done.installations)).with("events", value(done.events));
    said.with("rules", value(done.rules)).worked(changes > 0)
}

fn text(changes: Changes) -> String {
    format!("{} new, {} changed, {} ended", changes.added, changes.changed, changes.closed)
}

fn value(changes: Changes) -> Value {
    json!({ "added": changes.added, "changed": changes.changed, "closed": changes.closed })
}

const fn count(changes: Changes) -> usize {
    changes.added + changes.changed + changes.closed
}
