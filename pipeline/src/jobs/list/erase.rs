//! `erase`: what is left of erased readings goes, as soon as it may.

use async_trait::async_trait;
use tjern_lake::{Lake, Table, TableName};
use tokio_util::sync::CancellationToken;

use crate::erase::{EraseOutcome, EraseSettings, Erasures, LEASE, Wait, go_on, is_settled};
use crate::jobs::job::{Done, Job, JobError};
use crate::jobs::unchanged::Unchanged;

/// It keeps what it knows of erasures: while the table knows of no other, and nothing is left, nothing is asked for.
#[derive(Debug)]
pub(super) struct Erase {
    settings: EraseSettings,
    known: Erasures,
    seen: Unchanged<Option<i64>>,
}

impl Erase {
    pub(super) fn new(settings: EraseSettings) -> Self {
        Self { settings, known: Erasures::default(), seen: Unchanged::default() }
    }
}

#[async_trait]
impl Job for Erase {
    fn undone(&self) -> &'static str {
        "erased readings are still somewhere in the lake, and come no further"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let now_us = lake.clock().now_us();
        let readings = Table::open(lake, TableName::Readings).await.map_err(JobError::failed)?;
        let count = readings.as_ref().and_then(Erasures::count_in);
        let settled = readings.as_ref().is_none_or(|readings| is_settled(readings, &self.known));
        if settled && self.seen.since(&count, now_us) {
            return Ok(Done::new("nothing is left of what was erased").worked(false));
        }
        self.known = Erasures::load(lake).await.map_err(JobError::failed)?;
        if self.known.is_empty() {
            self.seen.done(count, now_us);
            return Ok(Done::new("nothing was ever erased").worked(false));
        }
        let outcome = go_on(lake, &self.settings, false).await.map_err(JobError::failed)?;
        if outcome.held_elsewhere {
            let seconds = LEASE.as_secs();
            let said = match outcome.waits.first() {
                Some(Wait { what, why, .. }) => format!("{what} wait: {why}"),
                None => format!("another process is at it (or was killed at it less than {seconds} s ago)"),
            };
            return Ok(Done { held_elsewhere: true, ..Done::new(said).worked(false) });
        }
        self.known = Erasures::load(lake).await.map_err(JobError::failed)?;
        let readings = Table::open(lake, TableName::Readings).await.map_err(JobError::failed)?;
        self.seen.done(readings.as_ref().and_then(Erasures::count_in), now_us);
        Ok(summary(&outcome))
    }
}

/// What a run did, for people and programs.
#[must_use]
pub fn summary(outcome: &EraseOutcome) -> Done {
    let EraseOutcome { rows, files, summed, landed, quarantined, records, withdrawn, released, .. } = outcome;
    let EraseOutcome { leftovers, log, done, waits, unmade, .. } = outcome;
    let said = format!(
        "{rows} rows of {files} files erased, {summed} hours and days computed again; {landed} landed batches, {quarantined} \
         in quarantine, {records} records, {withdrawn} releases, {leftovers} old files and {log} objects of logs removed; {} \
         erasures complete, {} things wait",
        done.len(),
        waits.len()
    );
    let said =
        unmade.iter().fold(said, |said, (dataset, why)| format!("{said}; {dataset} was not released anew: {why}"));
    let worked = rows + summed + landed + quarantined + records + withdrawn + leftovers + log + done.len() > 0;
    let numbers = [
        ("rows", rows),
        ("files", files),
        ("summed", summed),
        ("landed", landed),
        ("quarantined", quarantined),
        ("records", records),
        ("withdrawn", withdrawn),
        ("leftovers", leftovers),
        ("log_objects", log),
        ("complete", &done.len()),
        ("waits", &waits.len()),
    ];
    let done = numbers.into_iter().fold(Done::new(said), |done, (name, number)| done.with(name, *number));
    done.with("released", released.clone()).worked(worked)
}
