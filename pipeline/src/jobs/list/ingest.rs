//! `ingest`: landed batches into the table `readings`.

use async_trait::async_trait;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use crate::ingest::{IngestOutcome, IngestSettings, Ingester};
use crate::jobs::job::{Done, Job, JobError};

/// It keeps what it knows of the table between its runs, and forgets it after an error.
#[derive(Debug)]
pub(super) struct Ingest {
    settings: IngestSettings,
    ingester: Option<Ingester>,
}

impl Ingest {
    pub(super) const fn new(settings: IngestSettings) -> Self {
        Self { settings, ingester: None }
    }

    async fn once(&mut self, lake: &Lake) -> Result<IngestOutcome, JobError> {
        let mut ingester = match self.ingester.take() {
            Some(open) => open,
            None => Ingester::open(lake, self.settings).await.map_err(JobError::failed)?,
        };
        let outcome = ingester.run().await.map_err(JobError::failed)?;
        self.ingester = Some(ingester);
        Ok(outcome)
    }
}

#[async_trait]
impl Job for Ingest {
    fn undone(&self) -> &'static str {
        "what has landed is not in the tables yet; it stays in the landing zone"
    }

    async fn run(&mut self, lake: &Lake, _stop: &CancellationToken) -> Result<Done, JobError> {
        let IngestOutcome { batches, rows, passed, waiting, quarantined, cleaned } = self.once(lake).await?;
        let said = format!(
            "{rows} rows of {batches} batches; {passed} holes or gaps passed, {waiting} waited for, {quarantined} batches in quarantine"
        );
        let done = Done::new(said).with("rows", rows).with("batches", batches).with("passed", passed);
        let done = done.with("waiting", waiting).with("quarantined", quarantined).with("cleaned", cleaned);
        Ok(done.worked(batches + passed + quarantined > 0))
    }
}
