//! `register`: the city's files into the register.

use async_trait::async_trait;
use serde_json::{Value, json};
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::jobs::job::{Done, Job, JobError};
use crate::jobs::unchanged::Unchanged;
use crate::register::{Changes, RegisterError, RegisterFiles, register};

/// With the city's files, and what was in them when they were last registered.
#[derive(Debug)]
pub(super) struct Register {
    files: RegisterFiles,
    seen: Unchanged<Texts>,
}

impl Register {
    pub(super) fn new(files: RegisterFiles) -> Self {
        Self { files, seen: Unchanged::default() }
    }
}

/// What is in the register's files.
type Texts = [Option<Vec<u8>>; 5];

async fn texts(files: &RegisterFiles) -> Texts {
    let RegisterFiles { sites, sensors, installations, events, rules, .. } = files;
    let paths = [sites, sensors, &installations.path, &events.path, &rules.path];
    let mut texts = [const { None }; 5];
    for (text, path) in texts.iter_mut().zip(paths) {
        *text = tokio::fs::read(path).await.ok();
    }
    texts
}

#[async_trait]
impl Job for Register {
    fn undone(&self) -> &'static str {
        "the register is as it was before"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let texts = texts(&self.files).await;
        if self.seen.since(&texts, lake.clock().now_us()) {
            return Ok(Done::new("the register's files are as they were").worked(false));
        }
        let done = register(lake, &self.files).await.map_err(failure)?;
        self.seen.done(texts, lake.clock().now_us());
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
        Ok(said.with("rules", value(done.rules)).worked(changes > 0))
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
