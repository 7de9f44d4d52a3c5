//! `tjern pipeline replay`: an empty table `readings` built anew from what has landed, and the corrections that the
//! lake has records of.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tjern_lake::Lake;
use tjern_pipeline::bounds::Bounds;
use tjern_pipeline::correct::again::{MadeAgain, Pending, pending};
use tjern_pipeline::correct::recompute::Formulas;
use tjern_pipeline::ingest::IngestOutcome;
use tjern_pipeline::ingest::replay::{self, ReplayError, Replayable, Standing};
use tjern_pipeline::register::register;
use tjern_pipeline::replay::{ReplayInOrderError, Replayed, replay_in_order};

use super::job::{JobArguments, Workplace};
use super::recompute::FromConfigurations;
use super::register_failure;
use crate::failure::Failure;
use crate::progress::Bar;
use tjern_gateway::say;

/// How often a line is written where there is no terminal.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What `replay` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern pipeline replay --dry-run --config tjern.toml\n  tjern pipeline replay --config tjern.toml\n\n\
    It takes, from the lowest number of each source and epoch that lies in `landing/`, what ingest would have taken, into an\n\
    empty table `readings`. Numbers below are noted as from before the replay: nobody waits for them. Corrections\n\
    (`recompute`, `validate`) are made again from their records in `corrections/`; the values of a `revise` stand in its file, which\n\
    has to be given again. Each is made of what had landed by its time, and before a validation quality control looks at that, so that\n\
    flags and levels are what they were. What lies in quarantine stays there. Stop `tjern pipeline run` first. Killed, it goes on\n\
    when it is run again. What is lost and what is not: docs/backup.md.\n\n\
    stdout: with --dry-run what would be taken, a line a source and epoch (CSV); with --json one line of JSON.\n\
    Exit status: 0 done, 1 failed, 2 wrong usage or configuration, or `readings` is not empty."
)]
pub(crate) struct ReplayArguments {
    /// Only say what would be taken, and what is missing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    job: JobArguments,
}

/// Builds `readings` anew, or says what that would take.
pub(crate) async fn execute(arguments: &ReplayArguments) -> Result<(), Failure> {
    let opened =
        if arguments.dry_run { Workplace::look(&arguments.job).await } else { Workplace::open(&arguments.job).await };
    let place = opened?;
    let (standing, found) = replay::look(&place.lake).await.map_err(Failure::failed)?;
    if let Standing::Taken { rows } = standing {
        return Err(Failure::wrong(ReplayError::Taken { rows }));
    }
    if arguments.dry_run {
        return say(arguments, &place.lake, standing, &found).await;
    }
    tell_what_is_missing(&found);
    // The flags of what comes follow from the register.
    register(&place.lake, &place.city.jobs.register).await.map_err(register_failure)?;
    let total = found.iter().map(|stream| stream.batches).sum();
    let told = Told::new(total);
    let (listener, settings, bounds) = (told.clone(), place.city.jobs.ingest, Bounds::from(&place.city.jobs.compact));
    let listener = move |outcome: &IngestOutcome| listener.show(outcome);
    let formulas = |one: &Pending| -> Option<Box<dyn Formulas>> { Some(Box::new(FromConfigurations::of_record(one)?)) };
    let working = Box::pin(replay_in_order(&place.lake, &settings, &bounds, &formulas, &tell_of, listener));
    let done = place.stop.run_until_cancelled(working).await;
    told.end();
    let Some(done) = done else {
        return Err(Failure::failed("interrupted; hint: run it again, and it goes on where it was"));
    };
    let Replayed { ingested, corrections } = done.map_err(|error| match error {
        ReplayInOrderError::Replay(ReplayError::Taken { .. }) => Failure::wrong(error),
        error => Failure::failed(error),
    })?;
    finished(arguments, &ingested, &corrections)
}

/// What became of a correction.
fn tell_of(one: &Pending, became: &MadeAgain) {
    let had = one.word("rows").and_then(Value::as_u64).unwrap_or_default();
    match became {
        MadeAgain::Rows(rows) if u64::try_from(*rows).is_ok_and(|rows| rows < had) => {
            say!("replay: made again, {rows} readings of the {had} that it was of: {}", shown(one));
        }
        MadeAgain::Rows(rows) => say!("replay: made again, {rows} readings: {}", shown(one)),
        MadeAgain::Not(why) => say!("replay: not made again: {}: {why}", shown(one)),
    }
}

/// What a dry run says.
async fn say(
    arguments: &ReplayArguments,
    lake: &Lake,
    standing: Standing,
    found: &[Replayable],
) -> Result<(), Failure> {
    let corrections = pending(lake).await.map_err(Failure::failed)?;
    let text = if arguments.job.json {
        let corrections: Vec<_> = corrections.iter().map(words).collect();
        format!("{}\n", json!({ "readings": standing, "streams": found, "corrections": corrections }))
    } else {
        table(found)
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::failed)?;
    tell_what_is_missing(found);
    for one in &corrections {
        say!("replay: a correction would be made again: {}", shown(one));
    }
    let batches: usize = found.iter().map(|stream| stream.batches).sum();
    let what =
        if standing == Standing::UnderWay { "a replay is under way and would go on" } else { "nothing was changed" };
    say!("replay: {batches} batches of {} sources and epochs lie in landing/; {what}", found.len());
    Ok(())
}

fn table(found: &[Replayable]) -> String {
    let mut text = "source,epoch,batches,gaps,first,last,missing_before,holes,closed,erased\n".to_owned();
    let number = |number: Option<i64>| number.map(|number| number.to_string()).unwrap_or_default();
    for stream in found {
        let Replayable { source, epoch, batches, gaps, first, last, before, holes, closed, erased } = stream;
        let before = before.map(run).unwrap_or_default();
        let [holes, erased] = [holes, erased].map(|runs| runs.iter().copied().map(run).collect::<Vec<_>>().join(" "));
        let (first, last, closed) = (number(*first), number(*last), number(*closed));
        let _ = writeln!(text, "{source},{epoch},{batches},{gaps},{first},{last},{before},{holes},{closed},{erased}");
    }
    text
}

fn run((first, last): (i64, i64)) -> String {
    format!("{first}-{last}")
}

fn tell_what_is_missing(found: &[Replayable]) {
    for Replayable { source, epoch, before, holes, erased, .. } in found {
        if let Some((first, last)) = before {
            say!("replay: {source}: numbers {first} to {last} of epoch {epoch} are not in landing/ any more");
        }
        for (first, last) in erased {
            say!("replay: {source}: numbers {first} to {last} of epoch {epoch} went with an erasure");
        }
        for (first, last) in holes {
            say!("replay: {source}: numbers {first} to {last} of epoch {epoch} are a hole");
        }
    }
}

fn shown(one: &Pending) -> String {
    let sensor = one.word("sensor").and_then(Value::as_str).map(|sensor| format!(" of {sensor}")).unwrap_or_default();
    format!("{}{sensor} by {} at {} ({})", one.kind, one.by, one.at, one.id)
}

fn words(one: &Pending) -> Value {
    json!({ "id": one.id, "kind": one.kind, "by": one.by, "at": one.at })
}

fn finished(
    arguments: &ReplayArguments,
    outcome: &IngestOutcome,
    corrections: &[(Pending, MadeAgain)],
) -> Result<(), Failure> {
    let IngestOutcome { batches, rows, passed, waiting, quarantined, .. } = outcome;
    if arguments.job.json {
        let became = |(one, became): &(Pending, MadeAgain)| {
            let mut line = words(one);
            match became {
                MadeAgain::Rows(rows) => line["rows"] = json!(rows),
                MadeAgain::Not(why) => line["not"] = json!(why),
            }
            line
        };
        let corrections: Vec<_> = corrections.iter().map(became).collect();
        let line = json!({ "batches": batches, "rows": rows, "passed": passed, "waiting": waiting, "quarantined": quarantined, "corrections": corrections });
        writeln!(std::io::stdout(), "{line}").map_err(Failure::failed)?;
    }
    let again = corrections.iter().filter(|(_, became)| matches!(became, MadeAgain::Rows(_))).count();
    say!(
        "replay: {rows} readings of {batches} batches; {passed} holes and gaps passed, {waiting} waited for, {quarantined} batches to quarantine; \
         {again} of {} corrections made again; hours and days follow with the next `rollup`",
        corrections.len()
    );
    Ok(())
}

/// How far it is: a bar in a terminal, lines elsewhere.
#[derive(Clone)]
struct Told(Arc<Mutex<Telling>>);

struct Telling {
    total: usize,
    bar: Option<Bar>,
    last: Instant,
}

impl Told {
    fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(Bar::new);
        Self(Arc::new(Mutex::new(Telling { total, bar, last: Instant::now() })))
    }

    fn show(&self, outcome: &IngestOutcome) {
        let mut telling = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, total) = (outcome.batches, telling.total);
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        if let Some(bar) = &mut telling.bar {
            bar.show(count(done), count(total), &format!("{} readings", outcome.rows));
        } else if telling.last.elapsed() >= TOLD_EVERY {
            telling.last = Instant::now();
            say!("replay: {done} of {total} batches, {} readings", outcome.rows);
        }
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bar = None;
    }
}
