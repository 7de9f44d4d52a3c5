//! `erase`: what is left of erased readings goes, as soon as it may.

use async_trait::async_trait;
use serde_json::Value;
use tjern_lake::{Lake, Table, TableName};
use tokio_util::sync::CancellationToken;

use crate::erase::{
    EraseError, EraseOutcome, EraseSettings, Erasures, LEASE, Remembered, Request, Wait, go_on, is_settled, remember,
};
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

/// What a command asks for.
#[derive(Debug, Clone)]
pub enum EraseOrder {
    /// To erase these readings.
    New(Request),
    /// To go on with what is not complete; with `again` to look at complete erasures too.
    GoOn {
        /// Whether everything is looked at as if nothing had been done.
        again: bool,
    },
}

/// `erase` as a command: what somebody asks for is remembered first, and then all is done that can be done now.
///
/// What has to wait is no failure of the run: the job goes on with it by itself, and who asked is told.
#[derive(Debug)]
pub struct EraseOnce {
    settings: EraseSettings,
    order: EraseOrder,
    remembered: Option<Remembered>,
    /// Whether it is open if the lake remembers it.
    is_open: bool,
    outcome: Option<EraseOutcome>,
}

impl EraseOnce {
    /// Not begun yet.
    #[must_use]
    pub const fn new(settings: EraseSettings, order: EraseOrder) -> Self {
        Self { settings, order, remembered: None, is_open: false, outcome: None }
    }

    /// The erasure that was asked for, once the lake remembers it: also where the run failed or was interrupted after that.
    #[must_use]
    pub const fn remembered(&self) -> Option<&Remembered> {
        self.remembered.as_ref()
    }

    /// What the run did, where it did not fail.
    #[must_use]
    pub const fn outcome(&self) -> Option<&EraseOutcome> {
        self.outcome.as_ref()
    }

    async fn work(&mut self, lake: &Lake) -> Result<EraseOutcome, EraseError> {
        let again = match &self.order {
            EraseOrder::New(request) => {
                let remembered = Box::pin(remember(lake, &self.settings, request)).await;
                self.is_open = matches!(remembered, Err(EraseError::Open { .. }));
                self.remembered = Some(remembered?);
                false
            }
            EraseOrder::GoOn { again } => *again,
        };
        Box::pin(go_on(lake, &self.settings, again)).await
    }
}

#[async_trait]
impl Job for EraseOnce {
    fn undone(&self) -> &'static str {
        if matches!(self.order, EraseOrder::New(_)) && self.remembered.is_none() {
            return if self.is_open {
                "nothing was erased, and it is open whether the erasure is remembered"
            } else {
                "nothing was erased, and nothing is remembered"
            };
        }
        "erased readings are still somewhere in the lake, and come no further"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let outcome = self.work(lake).await.map_err(JobError::failed)?;
        let done = summary(&outcome);
        // Of what the outcome says the command writes all.
        let did = match serde_json::to_value(&outcome) {
            Ok(Value::Object(did)) => did,
            _ => done.did,
        };
        let held_elsewhere = outcome.held_elsewhere;
        self.outcome = Some(outcome);
        Ok(Done { held_elsewhere, did, ..done })
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
