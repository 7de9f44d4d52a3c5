//! All jobs on their schedules, until they are told to stop.
//!
//! Two lines run side by side, so that a long compaction does not keep readings waiting: one ingests,
//! the other does everything else in turn. Within a line nothing overlaps, and a run that was due
//! while another was at work happens once and not twice. A job that fails says so and is tried again
//! when it is next due; none needs anybody to clean up behind it. Stopping waits for the job under way.

use std::time::Duration;

use jiff::tz::TimeZone;
use tjern_lake::Lake;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::compact::compact;
use crate::config::PublishSection;
use crate::ingest::{IngestError, IngestOutcome, IngestSettings, Ingester};
use crate::publish::publish;
use crate::quality::control;
use crate::register::{RegisterFiles, register};
use crate::rollup::rollup;
use crate::vacuum::vacuum;

/// How often the register's files are looked at.
const REGISTER_EVERY: Duration = Duration::from_secs(60);

/// How often what came is tested.
const QUALITY_EVERY: Duration = Duration::from_secs(60);

/// What to run, and when.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// How ingest behaves.
    pub ingest: IngestSettings,
    /// How often the landing zone is looked at.
    pub ingest_every: Duration,
    /// How often files are merged.
    pub compact_every: Duration,
    /// How often hours and days are summed up.
    pub rollup_every: Duration,
    /// How often what nobody needs any more is removed.
    pub vacuum_every: Duration,
    /// How long it stays before.
    pub retention: Duration,
    /// The register's files.
    pub register: RegisterFiles,
    /// The open datasets.
    pub publish: Vec<PublishSection>,
    /// The city's time zone.
    pub timezone: TimeZone,
}

/// Runs all jobs until `stop` is cancelled.
pub async fn run(lake: Lake, settings: JobSettings, stop: CancellationToken) {
    let ingesting = keep_ingesting(&lake, &settings, &stop);
    let maintaining = keep_maintaining(&lake, &settings, &stop);
    tokio::join!(Box::pin(ingesting), Box::pin(maintaining));
}

async fn keep_ingesting(lake: &Lake, settings: &JobSettings, stop: &CancellationToken) {
    let mut ingester = None;
    while !stop.is_cancelled() {
        let began = Instant::now();
        match ingest_once(lake, settings.ingest, &mut ingester).await {
            Ok(outcome) => say_ingested(&outcome),
            Err(error) => {
                tracing::error!(%error, "ingest failed; it is tried again");
                ingester = None;
            }
        }
        let due = began + settings.ingest_every;
        let _ = stop.run_until_cancelled(tokio::time::sleep_until(due)).await;
    }
    // What was uploaded at the very end is taken too.
    if let Err(error) = ingest_once(lake, settings.ingest, &mut ingester).await {
        tracing::warn!(%error, "the last ingest failed; what has landed is taken at the next start");
    }
}

async fn ingest_once(
    lake: &Lake,
    settings: IngestSettings,
    ingester: &mut Option<Ingester>,
) -> Result<IngestOutcome, IngestError> {
    if ingester.is_none() {
        *ingester = Some(Ingester::open(lake, settings).await?);
    }
    match ingester {
        Some(open) => open.run().await,
        None => Ok(IngestOutcome::default()),
    }
}

fn say_ingested(outcome: &IngestOutcome) {
    let IngestOutcome { batches, rows, passed, waiting, quarantined, cleaned } = *outcome;
    if batches + passed + quarantined > 0 {
        tracing::info!(batches, rows, passed, waiting, quarantined, cleaned, "ingested");
    }
}

/// A job of the second line.
#[derive(Debug, Clone)]
enum Job {
    Register,
    Quality,
    Compact,
    Rollup,
    Vacuum,
    Publish(PublishSection),
}

#[derive(Debug)]
struct Due {
    job: Job,
    every: Duration,
    next: Instant,
}

async fn keep_maintaining(lake: &Lake, settings: &JobSettings, stop: &CancellationToken) {
    let now = Instant::now();
    let due = |job, every| Due { job, every, next: now };
    let mut dues = vec![
        due(Job::Register, REGISTER_EVERY),
        due(Job::Quality, QUALITY_EVERY),
        due(Job::Rollup, settings.rollup_every),
        due(Job::Compact, settings.compact_every),
        due(Job::Vacuum, settings.vacuum_every),
    ];
    dues.extend(settings.publish.iter().map(|section| due(Job::Publish(section.clone()), section.every.duration())));
    while let Some(next) = dues.iter().map(|due| due.next).min() {
        if stop.run_until_cancelled(tokio::time::sleep_until(next)).await.is_none() {
            return;
        }
        let Some(due) = dues.iter_mut().find(|due| due.next == next) else { return };
        if let Err(error) = do_job(&due.job, lake, settings, stop).await {
            tracing::error!(job = due.job.name(), error, "a job failed; it is tried again when it is next due");
        }
        due.next = (next + due.every).max(Instant::now());
    }
}

impl Job {
    const fn name(&self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Quality => "quality",
            Self::Compact => "compact",
            Self::Rollup => "rollup",
            Self::Vacuum => "vacuum",
            Self::Publish(_) => "publish",
        }
    }
}

async fn do_job(job: &Job, lake: &Lake, settings: &JobSettings, stop: &CancellationToken) -> Result<(), String> {
    let failed = |error: &dyn std::error::Error| error.to_string();
    match job {
        Job::Register => {
            let _ = register(lake, &settings.register).await.map_err(|error| failed(&error))?;
        }
        Job::Quality => {
            let outcome = control(lake).await.map_err(|error| failed(&error))?;
            if outcome.rows_changed > 0 {
                tracing::info!(rows = outcome.rows_changed, files = outcome.files_rewritten, "tested");
            }
        }
        Job::Compact => {
            let outcome = compact(lake, stop).await.map_err(|error| failed(&error))?;
            if outcome.removed > 0 {
                tracing::info!(removed = outcome.removed, added = outcome.added, "compacted");
            }
        }
        Job::Rollup => drop(rollup(lake, &settings.timezone).await.map_err(|error| failed(&error))?),
        Job::Vacuum => {
            let tables = vacuum(lake, settings.retention, false).await.map_err(|error| failed(&error))?;
            let objects: usize = tables.iter().map(|table| table.files.len() + table.log.len()).sum();
            if objects > 0 {
                let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
                tracing::info!(objects, bytes, "vacuumed");
            }
        }
        Job::Publish(section) => {
            let dataset = section.dataset();
            drop(publish(lake, &dataset, &settings.timezone).await.map_err(|error| failed(&error))?);
        }
    }
    Ok(())
}
