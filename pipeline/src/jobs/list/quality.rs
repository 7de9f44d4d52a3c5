//! `quality`: readings through the tests, what came and what it changes.

use std::time::Duration;

use async_trait::async_trait;
use tjern_lake::{Lake, Table, TableName};
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::jobs::job::{Done, Job, JobError};
use crate::jobs::unchanged::{LOOK, Unchanged};
use crate::quality::{LEASE, control_within};

/// The tables of the register that it goes by.
const REGISTER: [TableName; 4] =
    [TableName::Sensors, TableName::QualityRules, TableName::Events, TableName::Installations];

/// How old a look at them may be. What this process registers is known at once.
const REGISTER_LOOK: Duration = Duration::from_secs(60 * 60);

/// Where `readings` and the register's tables are as they were, nothing is looked at again. The register's files count
/// for nothing: they hold once they are registered.
#[derive(Debug)]
pub(super) struct Quality {
    bounds: Bounds,
    seen: Unchanged<[i64; 5]>,
}

impl Quality {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, seen: Unchanged::default() }
    }
}

async fn versions(lake: &Lake) -> Result<[i64; 5], JobError> {
    let version = |table: Option<Table>| table.map_or(-1, |table| table.version());
    let readings = Table::open_within(lake, TableName::Readings, LOOK).await.map_err(JobError::failed)?;
    let mut versions = [version(readings), -1, -1, -1, -1];
    for (known, name) in versions.iter_mut().skip(1).zip(REGISTER) {
        *known = version(Table::open_within(lake, name, REGISTER_LOOK).await.map_err(JobError::failed)?);
    }
    Ok(versions)
}

#[async_trait]
impl Job for Quality {
    fn undone(&self) -> &'static str {
        "what came is not tested against its neighbours yet; its plausible range is"
    }

    /// It gives its lease back.
    fn heeds_stop(&self) -> bool {
        true
    }

    async fn run(&mut self, lake: &Lake, stop: &CancellationToken) -> Result<Done, JobError> {
        let mut seen = versions(lake).await?;
        if self.seen.since(&seen, lake.clock().now_us()) {
            return Ok(Done::new("no new reading and no new rule since the last run").worked(false));
        }
        let outcome = control_within(lake, &self.bounds, stop).await.map_err(JobError::failed)?;
        if outcome.held_elsewhere {
            let minutes = LEASE.as_secs() / 60;
            let said = format!("another process is at it (or was killed at it within {minutes} min)");
            return Ok(Done { held_elsewhere: true, ..Done::new(said).worked(false) });
        }
        if outcome.unfinished && stop.is_cancelled() {
            return Err(JobError::Interrupted);
        }
        if !outcome.unfinished {
            // What it committed itself is nothing new.
            seen[0] = outcome.version.unwrap_or(seen[0]);
            self.seen.done(seen, lake.clock().now_us());
        }
        let left =
            if outcome.unfinished { "; others replaced some meanwhile, which the next run looks at" } else { "" };
        let spilled = match outcome.spilled_bytes {
            0 => String::new(),
            bytes => format!("; {bytes} bytes of rows did not fit into memory and went to disk"),
        };
        let said = format!(
            "{} readings got other flags, {} of {} files were rewritten{spilled}{left}",
            outcome.rows_changed, outcome.files_rewritten, outcome.files_seen
        );
        let done =
            Done::new(said).with("readings_flagged", outcome.rows_changed).with("files_seen", outcome.files_seen);
        let done = done.with("spilled_bytes", outcome.spilled_bytes);
        Ok(done.with("files_rewritten", outcome.files_rewritten).worked(outcome.rows_changed > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW_US, Place, Row};

    /// A rule was written into `quality.csv` while the register job was not due yet. Quality control ran, saw the file,
    /// and held the rule for applied: until the next reading came, or for six hours.
    #[tokio::test]
    async fn an_edit_that_is_registered_later_is_applied_then() {
        let place = Place::new();
        let sensors = ["t,Cel,sample,public,-2,40"];
        place.register(&sensors).await;
        place.ingest(&[Row::new("t", NOW_US, 10.0)]).await;
        let mut job = Quality::new(Bounds::default());
        let run = async |job: &mut Quality| {
            let done = job.run(&place.lake, &CancellationToken::new()).await.expect("done");
            (done.worked, place.readings().await[0].quality)
        };
        assert_eq!(run(&mut job).await, (true, 1));
        assert_eq!(run(&mut job).await, (false, 1), "its own commit is nothing new");
        let rule = "sensors,test,months,parameters\ntjern/t,climatology,7,suspect=12..25\n";
        std::fs::write(place.folder.path().join("quality.csv"), rule).expect("written");
        assert_eq!(run(&mut job).await, (false, 1));
        place.register(&sensors).await;
        assert_eq!(run(&mut job).await, (true, 3));
    }
}
