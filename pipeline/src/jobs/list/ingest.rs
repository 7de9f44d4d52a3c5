//! `ingest`: landed batches into the table `readings`.

use async_trait::async_trait;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::bounds::Bounds;
use crate::ingest::{IngestError, IngestOutcome, IngestSettings, Ingester, ingest};
use crate::jobs::job::{Done, Job, JobError};

/// It keeps what it knows of the table between its runs, and forgets it after an error; but for one that held back
/// a source only.
#[derive(Debug)]
pub(super) struct Ingest {
    settings: IngestSettings,
    bounds: Bounds,
    ingester: Option<Ingester>,
}

impl Ingest {
    pub(super) const fn new(settings: IngestSettings, bounds: Bounds) -> Self {
        Self { settings, bounds, ingester: None }
    }

    async fn once(&mut self, lake: &Lake) -> Result<IngestOutcome, IngestError> {
        let mut ingester = match self.ingester.take() {
            Some(open) => open,
            None => Ingester::open(lake, self.settings).await?.within(self.bounds.clone()),
        };
        let result = ingester.run().await;
        if matches!(result, Ok(_) | Err(IngestError::HeldBack { .. })) {
            self.ingester = Some(ingester);
        }
        result
    }
}

fn done(outcome: IngestOutcome) -> Done {
    let IngestOutcome { batches, rows, erased, passed, waiting, quarantined, cleaned, late_units } = outcome;
    let left_out = if erased == 0 { String::new() } else { format!(", {erased} left out since they were erased") };
    let failed = match late_units {
        0 => String::new(),
        _ => format!("; {late_units} readings fail by the unit of a configuration that came after them"),
    };
    let said = format!(
        "{rows} rows of {batches} batches{left_out}{failed}; {passed} holes or gaps passed, {waiting} waited for, {quarantined} batches in quarantine"
    );
    let done = Done::new(said).with("rows", rows).with("batches", batches).with("passed", passed);
    let done = done.with("waiting", waiting).with("quarantined", quarantined).with("cleaned", cleaned);
    let done = done.with("erased", erased);
    let done = if late_units == 0 { done } else { done.with("late_units", late_units) };
    done.worked(batches + passed + quarantined + late_units > 0)
}

#[async_trait]
impl Job for Ingest {
    fn undone(&self) -> &'static str {
        "what has landed is not in the tables yet; it stays in the landing zone"
    }

    fn heeds_stop(&self) -> bool {
        true
    }

    async fn run(&mut self, lake: &Lake, stop: &CancellationToken) -> Result<Done, JobError> {
        let result = if stop.is_cancelled() {
            // What was uploaded at the very end, due or not.
            ingest(lake, &self.settings).await
        } else {
            stop.run_until_cancelled(self.once(lake)).await.ok_or(JobError::Interrupted)?
        };
        match result {
            Ok(outcome) => Ok(done(outcome)),
            Err(error @ IngestError::HeldBack { outcome, .. }) => {
                Err(JobError::Partly { error: error.to_string(), done: Box::new(done(outcome)) })
            }
            Err(error) => Err(JobError::failed(error)),
        }
    }
}
