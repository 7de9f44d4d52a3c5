//! `tjern pipeline erase`: a sensor's readings of a period leave the lake for good.
//!
//! stdout gets data: of a dry run a line for each thing that would go, with `--json` one line of JSON. stderr says what
//! was done, and what waits for what.

use std::io::Write;

use clap::Args;
use serde_json::json;
use tjern_lake::Lake;
use tjern_pipeline::erase::{
    EraseOutcome, EraseSettings, Erasure, Found, JOB, Remembered, Request, Retired, Wait, find, is_known, retire,
};
use tjern_pipeline::jobs::Run;
use tjern_pipeline::jobs::list::{EraseOnce, EraseOrder};
use tjern_pipeline::jobs::once::{self, Finished};
use tjern_readings::clock::Clock;
use tjern_readings::sensor::{SensorId, SourceName};

use super::change::{AuthorArguments, PeriodArguments};
use super::job::{self, JobArguments, Workplace};
use crate::failure::Failure;
use tjern_gateway::say;

/// What `erase` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern pipeline erase --sensor home-7/indoor_temperature --from 2026-01-01 --to 2026-07-01 \\\n      \
    --reason \"the resident asked for it\" --dry-run --config tjern.toml\n  \
    tjern pipeline erase --sensor home-7/indoor_temperature --from 2026-01-01 --to 2026-07-01 \\\n      \
    --reason \"the resident asked for it\" --by \"the data protection officer\" --config tjern.toml\n  \
    tjern pipeline erase --continue --config tjern.toml\n  \
    tjern pipeline erase --retired home-7-01 --dry-run --config tjern.toml\n\n\
    The readings leave the tables, what has landed, quarantine, records and releases at once, and the log that tells of\n\
    them: queries of earlier versions fail. The erasure is remembered in `erasures/` of the lake: whatever brings the\n\
    readings again, they are left out. It cannot be undone.\n\n\
    A landed batch that is the newest of its source goes as soon as the source sends the next; then the erasure is\n\
    complete. The job `erase` of `tjern pipeline run` sees to it, or --continue. Of a source that sends no more to this\n\
    lake (its gateway writes to the personal lake now, or is gone) --retired ends the open epochs, and goes on.\n\n\
    Exit status: 0 nothing is left (or a dry run), 1 it failed, or something has to wait: stderr says what and for what,\n\
    and it goes on by itself or with --continue; 2 wrong usage or configuration, or nothing knows the sensor. The same\n\
    readings asked for once more, while their erasure is not complete, are that erasure."
)]
pub(crate) struct EraseArguments {
    /// Of which sensor
    #[arg(long, value_name = "ID", required_unless_present_any = GOING_ON)]
    sensor: Option<SensorId>,
    /// From this time on: with an offset, or in the city's clock, like 2026-04-01 or 2026-04-01T08:30
    #[arg(long, value_name = "TIME", required_unless_present_any = GOING_ON)]
    from: Option<String>,
    /// Up to and without this time
    #[arg(long, value_name = "TIME", required_unless_present_any = GOING_ON)]
    to: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT", required_unless_present_any = GOING_ON)]
    reason: Option<String>,
    /// Who does this [default: the user's name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Go on with erasures that are not complete
    #[arg(long = "continue", conflicts_with_all = NEW)]
    go_on: bool,
    /// Look at everything again, for complete erasures too: after parts of a lake were restored
    #[arg(long, conflicts_with_all = NEW)]
    again: bool,
    /// End the open epochs of a source that sends no more to this lake, and go on: its newest batch waits for nothing then
    #[arg(long, value_name = "SOURCE", conflicts_with_all = NEW)]
    retired: Option<SourceName>,
    /// Only print what would go: what, its key, how many erased readings it has (`?` where it cannot be read)
    #[arg(long, conflicts_with_all = ["go_on", "again"])]
    dry_run: bool,
    /// Erase although nothing knows the sensor: what is still to come of it is left out
    #[arg(long, conflicts_with_all = ["go_on", "again"])]
    allow_unknown: bool,
    #[command(flatten)]
    job: JobArguments,
}

/// Flags that go on with what was asked for before.
const GOING_ON: [&str; 3] = ["go_on", "again", "retired"];

/// Flags of a new erasure.
const NEW: [&str; 5] = ["sensor", "from", "to", "reason", "by"];

/// Erases, or says what would be erased.
pub(crate) async fn execute(arguments: &EraseArguments) -> Result<(), Failure> {
    if arguments.dry_run {
        return look(arguments).await;
    }
    let began_us = Clock::system().now_us();
    let (place, order) = match Box::pin(prepare(arguments)).await {
        Ok(prepared) => prepared,
        Err(failure) => return not_begun(arguments, failure, began_us),
    };
    let mut working = EraseOnce::new(EraseSettings::of(&place.city.jobs), order);
    let name = job::name_in(&arguments.job, JOB);
    let finished = Box::pin(once::command(&name, &mut working, &place.lake, &place.stop)).await;
    let erasure = working.remembered().map(|remembered| &remembered.erasure);
    let written = if arguments.job.json { write_line(&finished.run, erasure) } else { Ok(()) };
    // Also where nobody reads the line any more.
    tell(working.remembered(), working.outcome(), &finished).and(written)
}

/// Says that nothing was begun, and so nothing is remembered of what was asked for: a full disk may be the reason.
fn not_begun(arguments: &EraseArguments, failure: Failure, began_us: i64) -> Result<(), Failure> {
    if is_new(arguments) && !failure.is_of_the_usage() {
        say!("erase: the erasure is not remembered, and nothing was erased: ask for it again");
    }
    if arguments.job.json {
        let run = job::not_begun(&job::name_in(&arguments.job, JOB), &failure, began_us);
        write_line(&run, None)?;
    }
    Err(failure)
}

/// The line of a job, with the record of what was asked for.
fn write_line(run: &Run, erasure: Option<&Erasure>) -> Result<(), Failure> {
    let mut line = job::line_of(run);
    line["erasure"] = json!(erasure);
    writeln!(std::io::stdout(), "{line}").map_err(Failure::failed)
}

/// Opens the lake, and finds out what is asked for.
async fn prepare(arguments: &EraseArguments) -> Result<(Workplace, EraseOrder), Failure> {
    if is_new(arguments) {
        let by = AuthorArguments::new(arguments.by.clone(), arguments.reason.clone()).author()?.by;
        let place = Workplace::open(&arguments.job).await?;
        let request = request(arguments, &place, by).await?;
        return Ok((place, EraseOrder::New(request)));
    }
    let place = Workplace::open(&arguments.job).await?;
    if let Some(source) = &arguments.retired {
        end_epochs(&place.lake, source).await?;
    }
    Ok((place, EraseOrder::GoOn { again: arguments.again }))
}

/// Whether it goes on with nothing that was asked for before.
const fn is_new(arguments: &EraseArguments) -> bool {
    !arguments.go_on && !arguments.again && arguments.retired.is_none()
}

/// Which readings are to be erased; refused where nothing knows their sensor.
async fn request(arguments: &EraseArguments, place: &Workplace, by: String) -> Result<Request, Failure> {
    let (Some(sensor), Some(from), Some(to), Some(reason)) =
        (&arguments.sensor, &arguments.from, &arguments.to, &arguments.reason)
    else {
        return Err(Failure::wrong("--sensor, --from, --to and --reason say what is to be erased"));
    };
    if reason.trim().is_empty() {
        return Err(Failure::wrong("--reason says nothing"));
    }
    let period = PeriodArguments::new(sensor.clone(), from.clone(), to.clone()).period(&place.city.timezone)?;
    let request =
        Request { sensor: period.sensor, from_us: period.from_us, to_us: period.to_us, reason: reason.clone(), by };
    if !arguments.allow_unknown && !Box::pin(is_known(&place.lake, &request.sensor)).await.map_err(Failure::failed)? {
        return Err(Failure::wrong(format!(
            "nothing knows `{}`: it is not in the register, and nothing in the lake tells of it; hint: is it written right? \
             --allow-unknown erases what is still to come of it",
            request.sensor
        )));
    }
    Ok(request)
}

/// Says what would go.
async fn look(arguments: &EraseArguments) -> Result<(), Failure> {
    let place = Workplace::look(&arguments.job).await?;
    if let Some(source) = &arguments.retired {
        return look_at_epochs(&place.lake, source, arguments.job.json).await;
    }
    let request = request(arguments, &place, String::new()).await?;
    let found = find(&place.lake, &request).await.map_err(Failure::failed)?;
    tell_found(&found, arguments.job.json)
}

/// The epochs of a source, if something of it has landed.
async fn epochs_of(lake: &Lake, source: &SourceName, dry_run: bool) -> Result<Vec<Retired>, Failure> {
    let epochs = retire(lake, source, dry_run).await.map_err(Failure::failed)?;
    if epochs.is_empty() {
        let hint = "`tjern pipeline erase --continue` names what waits: landing/<source>/…";
        return Err(Failure::wrong(format!("nothing of the source `{source}` has landed here; hint: {hint}")));
    }
    Ok(epochs)
}

/// Ends the epochs of a source that sends no more.
async fn end_epochs(lake: &Lake, source: &SourceName) -> Result<(), Failure> {
    let epochs = epochs_of(lake, source, false).await?;
    let open = epochs.iter().filter(|epoch| !epoch.was_ended);
    for Retired { epoch, last, .. } in open.clone() {
        say!("erase: {source} sends no more: its epoch {epoch} ends with {last}");
    }
    say!("erase: {} of {} epochs of {source} were ended", open.count(), epochs.len());
    Ok(())
}

/// Says which epochs of a source would be ended.
async fn look_at_epochs(lake: &Lake, source: &SourceName, json: bool) -> Result<(), Failure> {
    let epochs = epochs_of(lake, source, true).await?;
    let open: Vec<_> = epochs.iter().filter(|epoch| !epoch.was_ended).collect();
    let mut stdout = std::io::stdout().lock();
    if json {
        let epoch = |Retired { epoch, last, .. }: &&Retired| json!({ "source": source.as_str(), "epoch": epoch.to_string(), "last": last });
        let line = json!({ "would_end": open.iter().map(epoch).collect::<Vec<_>>() });
        writeln!(stdout, "{line}").map_err(Failure::failed)?;
    } else {
        for Retired { epoch, last, .. } in &open {
            writeln!(stdout, "epoch\t{source}/{epoch}\t{last}").map_err(Failure::failed)?;
        }
    }
    say!("erase: {} of {} epochs of {source} would be ended; nothing was changed", open.len(), epochs.len());
    Ok(())
}

fn tell_found(found: &[Found], json: bool) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    if json {
        writeln!(stdout, "{}", json!({ "would_remove": found })).map_err(Failure::failed)?;
    } else {
        for Found { what, key, rows } in found {
            let rows = rows.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
            writeln!(stdout, "{what}\t{key}\t{rows}").map_err(Failure::failed)?;
        }
    }
    let unseen = found.iter().filter(|found| found.what == Found::UNSEEN).count();
    let hold = found.len() - unseen;
    let unseen = if unseen > 0 { format!("; {unseen} could not be looked at") } else { String::new() };
    say!("erase: {hold} things hold readings that would be erased{unseen}; nothing was changed");
    Ok(())
}

/// Says what was done, what waits, and under which id the erasure is remembered: also where the run failed.
fn tell(remembered: Option<&Remembered>, outcome: Option<&EraseOutcome>, finished: &Finished) -> Result<(), Failure> {
    if let Some(Remembered { erasure, was_there }) = remembered {
        let Erasure { id, by, at, .. } = erasure;
        if *was_there {
            say!("erase: these readings were asked for before, by {by} at {at}: it goes on with that erasure");
        }
        say!("erase: remembered as {id}");
    }
    let is_complete = outcome.is_some_and(|outcome| !outcome.held_elsewhere && outcome.waits.is_empty());
    if !is_complete && remembered.is_some() {
        say!("erase: it is not complete; the job `erase` goes on with it, or `tjern pipeline erase --continue`");
    }
    let Some(outcome) = outcome else { return job::tell(finished) };
    if outcome.held_elsewhere && outcome.waits.is_empty() {
        return Err(Failure::failed(
            "erase: another process is at it (or was killed at it a moment ago); hint: `--continue` goes on once it is done",
        ));
    }
    job::tell(finished)?;
    for release in &outcome.released {
        say!("erase: released anew: {release}");
    }
    for (dataset, why) in &outcome.unmade {
        say!("erase: {dataset} has no newest release until `tjern pipeline publish` makes one: {why}");
    }
    for Wait { what, why, .. } in &outcome.waits {
        say!("erase: waits: {what}: {why}");
    }
    match outcome.waits.len() {
        0 => Ok(()),
        count => Err(Failure::failed(format!(
            "erase: {count} things wait; hint: the job `erase` goes on with them, or `tjern pipeline erase --continue`"
        ))),
    }
}
