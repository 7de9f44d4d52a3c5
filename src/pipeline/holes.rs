//! `tjern pipeline holes`: numbers of sources that were passed and have not come.
//!
//! stdout gets the data: a table of them. With `--json` it is a line of JSON a run of numbers.

use std::fmt::Write as _;
use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;
use tjern_lake::{Table, TableName};
use tjern_pipeline::correct::Author;
use tjern_pipeline::ingest::{Accepted, Missing, accept, missing};
use tjern_readings::keys::Bounds;
use tjern_readings::sensor::{Epoch, SourceName};

use super::change::AuthorArguments;
use super::job::{JobArguments, Workplace};
use crate::failure::Failure;
use tjern_gateway::say;

/// What is to be done with numbers that are missing.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  tjern pipeline holes ls --config tjern.toml\n  \
    tjern pipeline holes accept elva-01 0909… 21-24 --reason \"the box burnt down\" --by \"a technician\" --config tjern.toml\n\n\
    Exit status: 0 done, 1 failed, or there is no such hole, 2 wrong usage or configuration.")]
pub(crate) enum HolesCommand {
    /// Lists what was passed and has not come
    Ls(JobArguments),
    /// Says of a hole that it will never be filled: the watch tells of it no more. What comes after all is taken
    Accept(AcceptArguments),
}

/// What `accept` is told.
#[derive(Debug, Args)]
pub(crate) struct AcceptArguments {
    /// Whose numbers
    #[arg(value_name = "SOURCE")]
    source: SourceName,
    /// Of which epoch, as `ls` says it
    #[arg(value_name = "EPOCH")]
    epoch: Epoch,
    /// Which numbers: a hole, or a part of one
    #[arg(value_name = "FIRST-LAST", value_parser = bounds)]
    numbers: Bounds,
    /// Why: it is kept with the lake
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who does this [default: the user's name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    job: JobArguments,
}

fn bounds(text: &str) -> Result<Bounds, String> {
    let wrong = || format!("`{text}` is no run of numbers; hint: write it as `ls` does, `21-24`");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |digits: &str| digits.parse::<i64>().map_err(|_| wrong());
    Bounds::new(number(first)?, number(last)?).ok_or_else(wrong)
}

/// Does what was asked.
pub(crate) async fn execute(command: HolesCommand) -> Result<(), Failure> {
    match command {
        HolesCommand::Ls(arguments) => list(&arguments).await,
        HolesCommand::Accept(arguments) => Box::pin(accept_one(&arguments)).await,
    }
}

/// What a run of numbers is, in a word or two.
pub(crate) const fn kind(run: &Missing) -> &'static str {
    match run {
        Missing { before_replay: true, .. } => "before the replay",
        Missing { accepted: true, .. } => "accepted",
        Missing { gap: true, .. } => "gap",
        _ => "hole",
    }
}

/// Data, to stdout.
pub(crate) fn write_out(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(Failure::failed),
    }
}

async fn list(arguments: &JobArguments) -> Result<(), Failure> {
    let place = Workplace::look(arguments).await?;
    let table = Table::open(&place.lake, TableName::Readings).await.map_err(Failure::failed)?;
    let found = table.as_ref().map(missing).unwrap_or_default();
    let mut text = String::new();
    for run in &found {
        let _ = if arguments.json {
            writeln!(text, "{}", json!(run))
        } else {
            writeln!(text, "{:<17}  {}  {}  {}-{}", kind(run), run.source, run.epoch, run.first, run.last)
        };
    }
    write_out(&text)?;
    let holes = found.iter().filter(|run| kind(run) == "hole").count();
    say!("holes: {holes}, of {} runs of numbers that are missing", found.len());
    Ok(())
}

async fn accept_one(arguments: &AcceptArguments) -> Result<(), Failure> {
    let AcceptArguments { source, epoch, numbers, reason, by, job } = arguments;
    if reason.trim().is_empty() {
        return Err(Failure::wrong("--reason says nothing; hint: say why they will never come"));
    }
    let author: Author = AuthorArguments::new(by.clone(), Some(reason.clone())).author()?;
    let place = Workplace::open(job).await?;
    let accepted = accept(&place.lake, source, *epoch, *numbers, &author).await.map_err(Failure::failed)?;
    let (first, last) = (numbers.first, numbers.last);
    if job.json {
        let is_new = accepted == Accepted::Now;
        let line = json!({"source": source.as_str(), "epoch": epoch.to_string(), "first": first, "last": last, "accepted": true, "new": is_new});
        write_out(&format!("{line}\n"))?;
    }
    let before = if accepted == Accepted::Before { " before" } else { "" };
    say!("holes: {first} to {last} of {source} were accepted{before}; should they come after all, they are taken");
    Ok(())
}
