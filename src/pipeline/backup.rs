//! `tjern pipeline backup` and `restore`: a lake copied while everything runs, and brought back.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;
use tjern_gateway::cli::stop_on_signals;
use tjern_lake::Lake;
use tjern_pipeline::backup::manifest::{Header, Manifest, list};
use tjern_pipeline::backup::restore::{Part, restore};
use tjern_pipeline::backup::{BackupError, backup, refuse_within};
use tjern_pipeline::erase::{EraseSettings, Wait};
use tjern_pipeline::jobs::list::erase_summary;
use tjern_readings::configuration::Period;
use tjern_readings::store::{Access, LakeUrl, Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::job::{JobArguments, lake_of};
use crate::config::{City, OpenStore};
use crate::failure::Failure;
use crate::progress::Bar;
use tjern_gateway::say;

/// How often a line is written where there is no terminal.
const TOLD_EVERY: Duration = Duration::from_secs(10);

const MIB: u64 = 1 << 20;

/// What `backup` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tjern pipeline backup --to file:///mnt/backup/tjern --config tjern.toml\n  \
    tjern pipeline backup --to s3://other-bucket/tjern --credentials backup.env --keep 30d --config tjern.toml\n\n\
    Everything may run meanwhile. What was copied before is not copied again, also where a backup broke off. Make one at least as\n\
    often as `[ingest] landing_grace` is long; a day is usual. What is lost when: docs/backup.md.\n\n\
    Exit status: 0 done, 1 failed (then there is no new backup), 2 wrong usage or configuration.")]
pub(crate) struct BackupArguments {
    /// Where the backups lie: another folder or bucket than the lake, and none that has backups of a lake of the other kind
    #[arg(long, value_name = "URL")]
    to: LakeUrl,
    /// Remove backups that are older, like 30d; the newest always stays
    #[arg(long, value_name = "PERIOD")]
    keep: Option<Period>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    job: JobArguments,
}

/// How the store of the backups is reached.
#[derive(Debug, Args)]
struct AccessArguments {
    /// A file of NAME=value lines with the credentials of that store, in place of the environment's
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
}

/// What `restore` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern pipeline restore --from file:///mnt/backup/tjern --list --config tjern.toml\n  \
    tjern pipeline restore --from file:///mnt/backup/tjern --dry-run --config tjern.toml\n  \
    tjern pipeline restore --from file:///mnt/backup/tjern --config tjern.toml\n\n\
    Stop `tjern pipeline run` first; gateways may run. It only creates: landed batches that are there stay, and a table that is\n\
    there is refused. Broken off, it goes on when it is run again. Then: `tjern pipeline verify`, and start the pipeline.\n\n\
    Exit status: 0 done, 1 failed, 2 wrong usage or configuration, or the lake has tables."
)]
pub(crate) struct RestoreArguments {
    /// Where the backups lie
    #[arg(long, value_name = "URL")]
    from: LakeUrl,
    /// Which backup [default: the newest of this lake, or the one whose restore was begun]
    #[arg(long, value_name = "ID")]
    at: Option<String>,
    /// Only a part of it
    #[arg(long, value_name = "PART")]
    only: Option<Only>,
    /// Only say what would be brought back
    #[arg(long, conflicts_with = "list")]
    dry_run: bool,
    /// Only name the backups that there are
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    job: JobArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Only {
    /// The tables, and the records of corrections
    Tables,
    /// The landing zone and quarantine
    Landing,
}

const fn part(only: Option<Only>) -> Part {
    match only {
        None => Part::Everything,
        Some(Only::Tables) => Part::Tables,
        Some(Only::Landing) => Part::Landing,
    }
}

impl AccessArguments {
    fn access(&self, url: &LakeUrl) -> Result<Access, Failure> {
        match &self.credentials {
            Some(path) => Access::from_file(path, url).map_err(Failure::wrong),
            None => Ok(Access::from_environment()),
        }
    }
}

/// A lake as it lies there. No table is created: a restore needs that there are none.
fn lake(job: &JobArguments, open: OpenStore) -> Result<Lake, Failure> {
    Ok(lake_of(City::load(&job.config)?, job.personal, open)?.1)
}

fn stopping() -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(Failure::failed)?;
    Ok(stop)
}

/// Where somebody may have written a folder's name wrong.
fn absent(error: StoreError) -> Failure {
    if let StoreError::Absent { .. } = error { Failure::wrong(error) } else { Failure::failed(error) }
}

fn failure(error: BackupError) -> Failure {
    match error {
        BackupError::Within { .. }
        | BackupError::Unknown { .. }
        | BackupError::Taken { .. }
        | BackupError::Kind { .. }
        | BackupError::Several { .. } => Failure::wrong(error),
        error => Failure::failed(error),
    }
}

/// Makes a backup.
pub(crate) async fn execute(arguments: &BackupArguments) -> Result<(), Failure> {
    // What is refused leaves no folder behind.
    let lake = lake(&arguments.job, Store::open_there)?;
    super::job::refuse_unfinished(&lake).await?;
    refuse_within(&lake, &arguments.to).map_err(failure)?;
    let target = Store::open_with(&arguments.to, &arguments.access.access(&arguments.to)?).map_err(Failure::failed)?;
    let stop = stopping()?;
    let mut told = Told::new("backup");
    let keep = arguments.keep.map(Period::duration);
    let mut watcher = |done, total| told.show(done, total);
    let working = Box::pin(backup(&lake, &target, keep, &mut watcher));
    let Some(done) = stop.run_until_cancelled(working).await else {
        return Err(Failure::failed(
            "interrupted: there is no new backup; hint: run it again, what was copied is there",
        ));
    };
    drop(told);
    let outcome = done.map_err(failure)?;
    if arguments.job.json {
        let line = json!({
            "backup": outcome.id, "objects": outcome.objects, "bytes": outcome.bytes, "copied": outcome.copied,
            "copied_bytes": outcome.copied_bytes, "removed_backups": outcome.removed_backups,
            "removed_objects": outcome.removed_objects,
        });
        writeln!(std::io::stdout(), "{line}").map_err(Failure::failed)?;
    }
    say!(
        "backup: {}: {} objects, {} bytes, of which {} and {} were copied now; {} old backups and {} objects were removed",
        outcome.id,
        outcome.objects,
        outcome.bytes,
        outcome.copied,
        outcome.copied_bytes,
        outcome.removed_backups,
        outcome.removed_objects
    );
    Ok(())
}

/// Brings a backup back, or says which there are.
pub(crate) async fn execute_restore(arguments: &RestoreArguments) -> Result<(), Failure> {
    let from = &arguments.from;
    let (city, looked) = lake_of(City::load(&arguments.job.config)?, arguments.job.personal, Store::look)?;
    let target = Store::open_there(from, &arguments.access.access(from)?).map_err(absent)?;
    if arguments.list {
        return list_all(&target, arguments.job.json).await;
    }
    let stop = stopping()?;
    let lake = if arguments.dry_run { looked } else { lake_to_fill(arguments, looked, &target, &city).await? };
    let erasing = EraseSettings::of(&city.jobs);
    let mut told = Told::new("restore");
    let mut watcher = |done, total| told.show(done, total);
    let (part, at) = (part(arguments.only), arguments.at.as_deref());
    let working = Box::pin(restore(&lake, &target, at, part, arguments.dry_run, &erasing, &mut watcher));
    let Some(done) = stop.run_until_cancelled(working).await else {
        return Err(Failure::failed("interrupted; hint: run it again, and it goes on where it was"));
    };
    drop(told);
    let outcome = done.map_err(failure)?;
    if arguments.job.json {
        let line = json!({
            "backup": outcome.backup, "objects": outcome.objects, "bytes": outcome.bytes, "there": outcome.there,
            "dry_run": arguments.dry_run, "erased": outcome.erased,
        });
        writeln!(std::io::stdout(), "{line}").map_err(Failure::failed)?;
    }
    let done = if arguments.dry_run { "would be brought back" } else { "were brought back" };
    say!(
        "restore: {} of {}: {} objects, {} bytes {done}, {} were there",
        outcome.backup.id,
        outcome.backup.ended,
        outcome.objects,
        outcome.bytes,
        outcome.there
    );
    let erased = erase_summary(&outcome.erased);
    if erased.worked {
        say!("restore: erased again: {}", erased.said);
    }
    for Wait { what, why, .. } in &outcome.erased.waits {
        say!("restore: an erasure waits: {what}: {why}");
    }
    Ok(())
}

/// The lake, once it is known that something can be brought back into it: else a folder that is not there stays so.
async fn lake_to_fill(
    arguments: &RestoreArguments,
    looked: Lake,
    target: &Store,
    city: &City,
) -> Result<Lake, Failure> {
    let (part, at) = (part(arguments.only), arguments.at.as_deref());
    if looked.store().url().local_folder().is_some_and(|folder| !folder.exists()) {
        Box::pin(restore(&looked, target, at, part, true, &EraseSettings::of(&city.jobs), &mut |_, _| {}))
            .await
            .map_err(failure)?;
    }
    lake(&arguments.job, Store::open_with)
}

async fn list_all(target: &Store, json: bool) -> Result<(), Failure> {
    for id in list(target).await.map_err(failure)? {
        let line = match Manifest::read(target, &id).await {
            Ok(Manifest { header, .. }) if json => json!(header).to_string(),
            Ok(Manifest { header, .. }) => {
                let Header { ended, objects, bytes, lake, .. } = &header;
                let kind = if header.personal == Some(true) { " (personal)" } else { "" };
                format!("{id}  {ended}  {objects} objects, {bytes} bytes  {lake}{kind}")
            }
            Err(error) if json => json!({ "id": id, "error": error.to_string() }).to_string(),
            Err(error) => format!("{id}  {error}"),
        };
        writeln!(std::io::stdout(), "{line}").map_err(Failure::failed)?;
    }
    Ok(())
}

/// How far it is: a bar in a terminal, lines elsewhere.
struct Told {
    what: &'static str,
    bar: Option<Bar>,
    last: Instant,
}

impl Told {
    fn new(what: &'static str) -> Self {
        Self { what, bar: std::io::stderr().is_terminal().then(Bar::new), last: Instant::now() }
    }

    fn show(&mut self, done: u64, total: u64) {
        if let Some(bar) = &mut self.bar {
            bar.show(done, total, &format!("{} of {} MiB", done / MIB, total / MIB));
        } else if self.last.elapsed() >= TOLD_EVERY {
            self.last = Instant::now();
            say!("{}: {done} of {total} bytes", self.what);
        }
    }
}
