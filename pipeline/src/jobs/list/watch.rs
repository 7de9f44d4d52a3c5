//! `watch`: what is wrong is told once, and told when it is over.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::jobs::job::{Done, Job, JobError};
use crate::jobs::schedule::Schedule;
use crate::watch::{WatchSettings, Watcher};

#[derive(Debug)]
pub(super) struct Watch(Watcher);

impl Watch {
    pub(super) fn new(settings: WatchSettings, schedules: BTreeMap<String, Schedule>, bounds: Bounds) -> Self {
        Self(Watcher::new(settings, schedules).within(bounds))
    }
}

#[async_trait]
impl Job for Watch {
    fn undone(&self) -> &'static str {
        "what is wrong is not told to everybody; it waits in the lake"
    }

    /// What was told is written down before it stops: else it would be told again.
    fn heeds_stop(&self) -> bool {
        true
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let outcome = self.0.run(lake).await.map_err(JobError::failed)?;
        if outcome.held_elsewhere {
            let said = "another process is telling".to_owned();
            return Ok(Done { held_elsewhere: true, ..Done::new(said).worked(false) });
        }
        let said = format!(
            "{} wrong now; {} begun, {} over; {} told",
            outcome.open, outcome.begun, outcome.ended, outcome.told
        );
        let done = Done::new(said).with("open", outcome.open).with("begun", outcome.begun);
        let done = done.with("ended", outcome.ended).with("told", outcome.told);
        Ok(done.worked(outcome.begun + outcome.ended + outcome.told > 0))
    }
}
