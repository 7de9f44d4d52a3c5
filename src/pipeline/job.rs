//! A job once, to the end: what every command of a job shares.
//!
//! stderr gets a sentence of what was done; with `--json` stdout gets one line of JSON, also where it failed.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tjern_gateway::cli::stop_on_signals;
use tjern_lake::{Lake, Table, TableName};
use tjern_pipeline::backup::restore;
use tjern_pipeline::jobs::list::PERSONAL;
use tjern_pipeline::jobs::once::{self, Finished};
use tjern_pipeline::jobs::{Entry, JobError, Outcome, Run, entries_of};
use tjern_readings::clock::Clock;
use tjern_readings::store::{Access, Store};
use tokio_util::sync::CancellationToken;

use crate::config::{City, OpenStore};
use crate::failure::Failure;
use tjern_gateway::say;

/// What every job is told.
#[derive(Debug, Args)]
pub(crate) struct JobArguments {
    /// The configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Work on the lake of personal readings (`personal_lake`)
    #[arg(long)]
    pub(crate) personal: bool,
    /// Write what was done as one line of JSON to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// The lake of a city that is meant; of a city whose jobs are then those of that lake.
pub(crate) fn lake_of(mut city: City, is_personal: bool, open: OpenStore) -> Result<(City, Lake), Failure> {
    if !is_personal {
        let store = open(&city.lake, &Access::from_environment()).map_err(Failure::failed)?;
        return Ok((city, Lake::over(store)));
    }
    let missing =
        || Failure::wrong("this city has no lake of personal readings; hint: `personal_lake` in tjern.toml names it");
    let personal = city.personal.take().ok_or_else(missing)?;
    let lake = personal.open_by(open)?;
    Ok((City { lake: personal.lake, jobs: personal.jobs, ..city }, lake))
}

/// A city's lake, ready to be worked on, and the word to stop.
pub(crate) struct Workplace {
    pub(crate) city: City,
    pub(crate) lake: Lake,
    pub(crate) stop: CancellationToken,
}

impl Workplace {
    /// Reads the configuration, opens the lake and hears signals. The lake has its tables then.
    pub(crate) async fn open(arguments: &JobArguments) -> Result<Self, Failure> {
        let place = Self::opened(arguments, Store::open_with).await?;
        Table::create_all(&place.lake).await.map_err(Failure::failed)?;
        Ok(place)
    }

    /// The same for who only looks: it needs no right to write, and a table or a folder that is not there stays so.
    pub(crate) async fn look(arguments: &JobArguments) -> Result<Self, Failure> {
        Self::opened(arguments, Store::look).await
    }

    async fn opened(arguments: &JobArguments, open: OpenStore) -> Result<Self, Failure> {
        let (city, lake) = lake_of(City::load(&arguments.config)?, arguments.personal, open)?;
        let stop = CancellationToken::new();
        stop_on_signals(&stop).map_err(Failure::failed)?;
        refuse_unfinished(&lake).await?;
        Ok(Self { city, lake, stop })
    }
}

/// Nothing works on a lake whose tables are being brought back.
pub(crate) async fn refuse_unfinished(lake: &Lake) -> Result<(), Failure> {
    restore::refuse_unfinished(lake).await.map_err(Failure::failed)
}

/// Makes a lake ready for a daemon. Returns false where it cannot be written now: what can be read is served then, and its jobs
/// go on by themselves once there is room.
///
/// # Errors
/// Where its store overlooks conditions, so that several writers would lose rows; where it cannot be read; and where there is no
/// table yet, so that nothing could be served.
pub(crate) async fn prepare(lake: &Lake) -> Result<bool, Failure> {
    refuse_unfinished(lake).await?;
    let Err(error) = Table::create_all(lake).await else { return Ok(true) };
    let has_readings = Table::open(lake, TableName::Readings).await.is_ok_and(|table| table.is_some());
    if error.is_careless() || !has_readings {
        return Err(Failure::failed(error));
    }
    let lake = lake.store().url();
    tracing::error!(%lake, "the lake cannot be written: {error}; what is there is served, what lands waits, and the jobs go on once it can be");
    Ok(false)
}

/// Opens the lake for a job; with `--json` the job's line says so where that fails.
pub(crate) async fn open_for(name: &str, arguments: &JobArguments) -> Result<Workplace, Failure> {
    or_line(name, arguments, Workplace::open(arguments)).await
}

/// What comes of opening a lake for a job; with `--json` the job's line says so where that fails.
pub(crate) async fn or_line<T>(
    name: &str,
    arguments: &JobArguments,
    opening: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let began_us = Clock::system().now_us();
    let opened = opening.await;
    if let (Err(failure), true) = (&opened, arguments.json) {
        write_line(&not_begun(&name_in(arguments, name), failure, began_us))?;
    }
    opened
}

/// The run of a job that did not begin.
pub(crate) fn not_begun(name: &str, failure: &Failure, began_us: i64) -> Run {
    let run = Run::new(name, began_us, Clock::system().now_us(), Outcome::Failed);
    let not_done = Some("all of it: it did not begin".to_owned());
    Run { error: Some(failure.text().to_owned()), not_done, ..run }
}

/// A job's name in the lake that is meant.
pub(crate) fn name_in(arguments: &JobArguments, name: &str) -> String {
    if arguments.personal { format!("{PERSONAL}{name}") } else { name.to_owned() }
}

/// Runs the job of a name.
pub(crate) async fn execute(name: &str, arguments: &JobArguments) -> Result<(), Failure> {
    let place = open_for(name, arguments).await?;
    run_all(named(&place, name), &place, arguments.json).await
}

/// The job of a name, as it is called in the lake that is worked on.
pub(crate) fn named(place: &Workplace, name: &str) -> Vec<Entry> {
    let is_meant = |entry: &Entry| entry.name.strip_prefix(PERSONAL).unwrap_or(&entry.name) == name;
    entries_of(&place.lake, &place.city.jobs).into_iter().filter(is_meant).collect()
}

/// Runs jobs one after the other. One that fails does not keep the others from their work.
pub(crate) async fn run_all(entries: Vec<Entry>, place: &Workplace, json: bool) -> Result<(), Failure> {
    let mut failure = None;
    for mut entry in entries {
        let finished = Box::pin(once::command(&entry.name, entry.job.as_mut(), &place.lake, &place.stop)).await;
        if json {
            write_line(&finished.run)?;
        }
        if let Err(failed) = tell(&finished) {
            failure.get_or_insert(failed);
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Says what a run did; where it failed, why, and what it did not do.
pub(crate) fn tell(finished: &Finished) -> Result<(), Failure> {
    let Finished { run, error, .. } = finished;
    let Some(error) = error else {
        say!("{}: {}", run.job, run.said);
        return Ok(());
    };
    let undone = run.not_done.as_deref().unwrap_or_default();
    let text = format!("{}: {error}; not done: {undone}", run.job);
    Err(if let JobError::Wrong(_) = error { Failure::wrong(text) } else { Failure::failed(text) })
}

fn write_line(run: &Run) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{}", line_of(run)).map_err(Failure::failed)
}

/// The documented line of `--json`.
pub(crate) fn line_of(run: &Run) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "a duration")]
    let seconds = (run.ended.0 - run.began.0) as f64 / 1e6;
    let mut line = json!({
        "job": run.job, "outcome": run.outcome, "began": run.began, "ended": run.ended, "seconds": seconds,
        "said": run.said, "did": run.did,
    });
    if let Some(error) = &run.error {
        line["error"] = json!(error);
        line["not_done"] = json!(run.not_done);
    }
    line
}
