//! `ingest`: landed batches into the table `readings`.

use async_trait::async_trait;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use super::registering::Registering;
use crate::bounds::Bounds;
use crate::ingest::{IngestError, IngestOutcome, IngestSettings, Ingester, ingest_at_the_end};
use crate::jobs::job::{Done, Job, JobError};

/// It keeps what it knows of the table between its runs, and forgets it after an error; but for one that held back
/// a source only. Before its first run the register is brought to what its files say.
#[derive(Debug)]
pub(super) struct Ingest {
    settings: IngestSettings,
    bounds: Bounds,
    register: Registering,
    /// Whether what it takes is held against a register, as far as the city has one.
    is_registered: bool,
    ingester: Option<Ingester>,
    /// Whether it was at work and did not come to an end.
    is_broken: bool,
    /// Whether nobody runs it again.
    is_only: bool,
}

impl Ingest {
    pub(super) const fn new(settings: IngestSettings, bounds: Bounds, register: Registering) -> Self {
        Self { settings, bounds, register, is_registered: false, ingester: None, is_broken: false, is_only: false }
    }

    async fn register_first(&mut self, lake: &Lake) -> Result<(), JobError> {
        if !self.is_registered {
            self.register.before_ingest(lake).await?;
            self.is_registered = true;
        }
        Ok(())
    }

    async fn once(&mut self, lake: &Lake) -> Result<IngestOutcome, IngestError> {
        if std::mem::replace(&mut self.is_broken, true) {
            self.leave().await;
        }
        let ingester = match &mut self.ingester {
            Some(open) => open,
            none => none.insert(Ingester::open(lake, self.settings).await?.within(self.bounds.clone())),
        };
        let result = if self.is_only { ingester.run_to_the_end().await } else { ingester.run().await };
        self.is_broken = false;
        if self.is_only || !matches!(result, Ok(_) | Err(IngestError::HeldBack { .. })) {
            self.leave().await;
        }
        result
    }

    /// Forgets what it knows, and gives back what it holds.
    async fn leave(&mut self) {
        if let Some(ingester) = self.ingester.take() {
            ingester.leave().await;
        }
    }
}

fn done(outcome: IngestOutcome) -> Done {
    let IngestOutcome { batches, rows, erased, repeated, overruled, .. } = outcome;
    let IngestOutcome { passed, waiting, quarantined, cleaned, late_units, late_lines, .. } = outcome;
    let left_out = outcome.left_out();
    let failed = match late_units {
        0 => String::new(),
        _ => format!("; {late_units} readings fail by the unit of a configuration that came after them"),
    };
    let unheld = match late_lines {
        0 => String::new(),
        _ => format!("; {late_lines} readings fail by their sensor's first line, which came after them"),
    };
    let said = format!(
        "{rows} rows of {batches} batches{left_out}{failed}{unheld}; {passed} holes or gaps passed, {waiting} waited for, {quarantined} batches in quarantine"
    );
    let done = Done::new(said).with("rows", rows).with("batches", batches).with("passed", passed);
    let done = done.with("waiting", waiting).with("quarantined", quarantined).with("cleaned", cleaned);
    let done = done.with("erased", erased);
    let done = if repeated == 0 { done } else { done.with("repeated", repeated) };
    let done = if overruled == 0 { done } else { done.with("validations_overruled", overruled) };
    let done = if late_units == 0 { done } else { done.with("late_units", late_units) };
    let done = if late_lines == 0 { done } else { done.with("late_lines", late_lines) };
    done.worked(batches + passed + quarantined + late_units + late_lines > 0)
}

#[async_trait]
impl Job for Ingest {
    fn undone(&self) -> &'static str {
        "what has landed is not in the tables yet; it stays in the landing zone"
    }

    fn heeds_stop(&self) -> bool {
        true
    }

    fn runs_once_only(&mut self) {
        self.is_only = true;
    }

    async fn run(&mut self, lake: &Lake, stop: &CancellationToken) -> Result<Done, JobError> {
        let result = if stop.is_cancelled() {
            self.leave().await;
            self.register_first(lake).await?;
            // What was uploaded at the very end, due or not.
            ingest_at_the_end(lake, &self.settings, self.bounds.clone()).await
        } else {
            stop.run_until_cancelled(self.register_first(lake)).await.ok_or(JobError::Interrupted)??;
            match Box::pin(stop.run_until_cancelled(self.once(lake))).await {
                Some(result) => result,
                None => {
                    self.leave().await;
                    return Err(JobError::Interrupted);
                }
            }
        };
        match result {
            Ok(outcome) => Ok(done(outcome)),
            Err(ref error @ IngestError::HeldBack { ref outcome, .. }) => {
                Err(JobError::Partly { error: error.to_string(), done: Box::new(done(**outcome)) })
            }
            Err(error) => Err(JobError::failed(error)),
        }
    }
}
