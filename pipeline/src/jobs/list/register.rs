//! `register`: the city's files into the register.

use async_trait::async_trait;
use serde_json::{Value, json};
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::jobs::job::{Done, Job, JobError};
use crate::register::{Changes, RegisterError, RegisterFiles, register};

/// With the city's files.
#[derive(Debug)]
pub(super) struct Register(pub(super) RegisterFiles);

#[async_trait]
impl Job for Register {
    fn undone(&self) -> &'static str {
        "the register is as it was before"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let done = register(lake, &self.0).await.map_err(failure)?;
        let said = if done.found {
            let (sites, sensors, rules) = (text(done.sites), text(done.sensors), text(done.rules));
            format!("sites {sites}; sensors {sensors}; rules {rules}")
        } else {
            "there is no sites.csv and no sensors.csv".to_owned()
        };
        let changes = count(done.sites) + count(done.sensors) + count(done.rules);
        let rules = value(done.rules);
        let done = Done::new(said).with("sites", value(done.sites)).with("sensors", value(done.sensors));
        Ok(done.with("rules", rules).worked(changes > 0))
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
