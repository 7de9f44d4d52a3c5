//! `quality`: readings through the tests, what came and what it changes.

use async_trait::async_trait;
use tjern_lake::{Lake, Table, TableName};
use tokio_util::sync::CancellationToken;

use super::register::{Texts, texts};
use crate::jobs::job::{Done, Job, JobError};
use crate::jobs::unchanged::Unchanged;
use crate::quality::{LEASE, control};
use crate::register::RegisterFiles;

/// With the register's files, in which the rules stand: where they and `readings` are as they were, nothing is
/// looked at again.
#[derive(Debug)]
pub(super) struct Quality {
    files: RegisterFiles,
    seen: Unchanged<(i64, Texts)>,
}

impl Quality {
    pub(super) fn new(files: RegisterFiles) -> Self {
        Self { files, seen: Unchanged::default() }
    }
}

#[async_trait]
impl Job for Quality {
    fn undone(&self) -> &'static str {
        "what came is not tested against its neighbours yet; its plausible range is"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let readings = Table::open(lake, TableName::Readings).await.map_err(JobError::failed)?;
        let seen = (readings.map_or(-1, |table| table.version()), texts(&self.files).await);
        if self.seen.since(&seen, lake.clock().now_us()) {
            return Ok(Done::new("no new reading and no new rule since the last run").worked(false));
        }
        let outcome = control(lake).await.map_err(JobError::failed)?;
        if outcome.held_elsewhere {
            let minutes = LEASE.as_secs() / 60;
            let said = format!("another process is at it (or was killed at it within {minutes} min)");
            return Ok(Done { held_elsewhere: true, ..Done::new(said).worked(false) });
        }
        if !outcome.unfinished {
            self.seen.done(seen, lake.clock().now_us());
        }
        let left =
            if outcome.unfinished { "; others replaced some meanwhile, which the next run looks at" } else { "" };
        let said = format!(
            "{} readings got other flags, {} of {} files were rewritten{left}",
            outcome.rows_changed, outcome.files_rewritten, outcome.files_seen
        );
        let done =
            Done::new(said).with("readings_flagged", outcome.rows_changed).with("files_seen", outcome.files_seen);
        Ok(done.with("files_rewritten", outcome.files_rewritten).worked(outcome.rows_changed > 0))
    }
}
