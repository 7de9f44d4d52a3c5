//! `tjern pipeline`: each job once, to the end, or all of them on their schedules.

use std::path::Path;

use clap::ValueEnum;
use tjern_gateway::cli::stop_on_signals;
use tjern_lake::{Lake, Table};
use tjern_pipeline::publish::PublishOutcome;
use tjern_pipeline::{compact, ingest, jobs, publish, quality, register, rollup, vacuum};
use tokio_util::sync::CancellationToken;

use crate::config::City;
use crate::failure::Failure;

/// A job of the pipeline.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Job {
    /// Landed batches into the table `readings`
    Ingest,
    /// Readings through the tests of quality control: what came, and what it changes
    Quality,
    /// Small files into big, sorted ones
    Compact,
    /// Readings into hours and days
    Rollup,
    /// Removes what nobody needs any more: files that were compacted away, old commits
    Vacuum,
    /// Open datasets
    Publish,
    /// sites.csv and sensors.csv into the register
    Register,
    /// All of them on their schedules, until SIGINT or SIGTERM
    Run,
}

/// Does a job.
pub(crate) async fn execute(job: Job, config: &Path, dry_run: bool) -> Result<(), Failure> {
    if dry_run && !matches!(job, Job::Vacuum) {
        return Err(Failure::wrong(
            "--dry-run is for `vacuum`; hint: the other jobs remove nothing that is not replaced",
        ));
    }
    let city = City::load(config)?;
    let lake = Lake::open(&city.lake).map_err(Failure::failed)?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(Failure::failed)?;
    Table::create_all(&lake).await.map_err(Failure::failed)?;
    if let Job::Run = job {
        Box::pin(jobs::run(lake, city.jobs, stop)).await;
        return Ok(());
    }
    // A job can be stopped anywhere; compaction gives its lease back first.
    let working = Box::pin(once(job, &lake, &city, dry_run, &stop));
    let done = if let Job::Compact = job { Some(working.await) } else { stop.run_until_cancelled(working).await };
    match done {
        Some(said) if !stop.is_cancelled() => {
            eprintln!("{}", said?);
            Ok(())
        }
        _ => Err(Failure::failed("interrupted; what was not done is done by the next run")),
    }
}

async fn once(job: Job, lake: &Lake, city: &City, dry_run: bool, stop: &CancellationToken) -> Result<String, Failure> {
    match job {
        Job::Ingest => {
            let done = ingest::ingest(lake, &city.jobs.ingest).await.map_err(Failure::failed)?;
            Ok(format!(
                "ingest: {} rows of {} batches; {} holes or gaps passed, {} waited for, {} batches in quarantine",
                done.rows, done.batches, done.passed, done.waiting, done.quarantined
            ))
        }
        Job::Quality => {
            let done = quality::control(lake).await.map_err(Failure::failed)?;
            if done.held_elsewhere {
                let minutes = quality::LEASE.as_secs() / 60;
                return Ok(format!("quality: another process is at it (or was killed at it within {minutes} min)"));
            }
            let left = if done.unfinished {
                "; others replaced some files meanwhile, which the next run looks at"
            } else {
                ""
            };
            Ok(format!(
                "quality: {} readings got other flags, {} of {} files were rewritten{left}",
                done.rows_changed, done.files_rewritten, done.files_seen
            ))
        }
        Job::Compact => {
            let done = compact::compact(lake, stop).await.map_err(Failure::failed)?;
            if done.held_elsewhere {
                let minutes = compact::LEASE.as_secs() / 60;
                return Ok(format!("compact: another process is at it (or was killed at it within {minutes} min)"));
            }
            Ok(format!("compact: {} files became {}", done.removed, done.added))
        }
        Job::Rollup => {
            let done = rollup::rollup(lake, &city.timezone).await.map_err(Failure::failed)?;
            Ok(format!("rollup: {} hourly and {} daily rows", done.hourly.rows_computed, done.daily.rows_computed))
        }
        Job::Register => {
            let done = register::register(lake, &city.jobs.register).await.map_err(register_failure)?;
            if !done.found {
                return Ok("register: there is no sites.csv and no sensors.csv".to_owned());
            }
            let changed = |changes: register::Changes| {
                format!("{} new, {} changed, {} ended", changes.added, changes.changed, changes.closed)
            };
            Ok(format!(
                "register: sites {}; sensors {}; rules {}",
                changed(done.sites),
                changed(done.sensors),
                changed(done.rules)
            ))
        }
        Job::Vacuum => vacuum_all(lake, city, dry_run).await,
        Job::Publish => publish_all(lake, city).await,
        Job::Run => Ok(String::new()),
    }
}

/// A dry run writes the keys of what would go to stdout, a line each.
async fn vacuum_all(lake: &Lake, city: &City, dry_run: bool) -> Result<String, Failure> {
    let tables = vacuum::vacuum(lake, city.jobs.retention, dry_run).await.map_err(Failure::failed)?;
    if dry_run {
        let keys = tables.iter().flat_map(|table| table.files.iter().chain(&table.log));
        let text: String = keys.map(|key| format!("{key}\n")).collect();
        std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).map_err(Failure::failed)?;
    }
    let files: usize = tables.iter().map(|table| table.files.len()).sum();
    let log: usize = tables.iter().map(|table| table.log.len()).sum();
    let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
    let done = if dry_run { "would remove" } else { "removed" };
    Ok(format!("vacuum: {done} {files} data files and {log} objects of logs, {bytes} bytes"))
}

/// What is wrong with the register's files is the city's to mend, as a configuration is.
pub(crate) fn register_failure(error: register::RegisterError) -> Failure {
    match error {
        register::RegisterError::Unreadable { .. } | register::RegisterError::Wrong(_) => Failure::wrong(error),
        _ => Failure::failed(error),
    }
}

async fn publish_all(lake: &Lake, city: &City) -> Result<String, Failure> {
    let mut said = Vec::new();
    for section in &city.jobs.publish {
        let dataset = section.dataset();
        let outcome = publish::publish(lake, &dataset, &city.timezone).await.map_err(Failure::failed)?;
        said.push(match outcome {
            PublishOutcome::Published(release) => format!("publish: {} {}", release.dataset, release.version),
            PublishOutcome::NothingNew { version } => format!("publish: {} {version} is up to date", dataset.name),
            PublishOutcome::Empty => format!("publish: {} has no public reading yet", dataset.name),
        });
    }
    Ok(if said.is_empty() { "publish: nothing is to be published".to_owned() } else { said.join("\n") })
}
