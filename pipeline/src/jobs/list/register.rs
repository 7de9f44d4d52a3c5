//! `register`: the city's files into the register, and the flags of readings where it says something new.

use async_trait::async_trait;
use serde_json::{Value, json};
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::jobs::job::{Done, Job, JobError};
use crate::jobs::unchanged::Unchanged;
use crate::quality::requalify;
use crate::register::{Changes, RegisterError, RegisterFiles, register};

/// With the city's files, and what was in them when they were last registered.
#[derive(Debug)]
pub(super) struct Register {
    files: RegisterFiles,
    seen: Unchanged<[Option<Vec<u8>>; 2]>,
}

impl Register {
    pub(super) fn new(files: RegisterFiles) -> Self {
        Self { files, seen: Unchanged::default() }
    }

    async fn texts(&self) -> [Option<Vec<u8>>; 2] {
        [tokio::fs::read(&self.files.sites).await.ok(), tokio::fs::read(&self.files.sensors).await.ok()]
    }
}

#[async_trait]
impl Job for Register {
    fn undone(&self) -> &'static str {
        "the register is as it was before"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let texts = self.texts().await;
        if self.seen.since(&texts, lake.clock().now_us()) {
            return Ok(Done::new("sites.csv and sensors.csv are as they were").worked(false));
        }
        let done = register(lake, &self.files).await.map_err(failure)?;
        let flags = requalify(lake).await.map_err(JobError::failed)?;
        self.seen.done(texts, lake.clock().now_us());
        let said = if done.found {
            format!(
                "sites {}; sensors {}; installations {}; events {}; {} readings got another flag",
                text(done.sites),
                text(done.sensors),
                text(done.installations),
                text(done.events),
                flags.rows_changed
            )
        } else {
            "there is no sites.csv and no sensors.csv".to_owned()
        };
        let tables = [done.sites, done.sensors, done.installations, done.events];
        let changes = tables.into_iter().map(count).sum::<usize>() + flags.rows_changed;
        let said = Done::new(said).with("sites", value(done.sites)).with("sensors", value(done.sensors));
        let done = said.with("installations", value(done.installations)).with("events", value(done.events));
        Ok(done.with("readings_flagged", flags.rows_changed).worked(changes > 0))
    }
}

/// What is wrong with the register's files is the city's to mend, as a configuration is.
fn failure(error: RegisterError) -> JobError {
    match error {
        RegisterError::Unreadable { .. } | RegisterError::Wrong(_) => JobError::wrong(error),
        _ => JobError::failed(error),
    }
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
