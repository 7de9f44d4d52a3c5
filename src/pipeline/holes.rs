//! `tjern pipeline holes`: numbers of sources that were passed and have not come.
//!
//! stdout gets the data: a table of them. With `--json` it is a line of JSON a run of numbers.

use clap::{Args, Subcommand};
use serde_json::json;
use tjern_pipeline::ingest::{Missing, accept, missing as missing_numbers};
use tjern_readings::keys::Bounds;
use tjern_readings::sensor::{Epoch, SourceName};

use super::job::JobArguments;
use super::missing::{self, WordArguments};
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
    #[command(flatten)]
    word: WordArguments,
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

async fn list(arguments: &JobArguments) -> Result<(), Failure> {
    let line = |run: &Missing| format!("{:<17}  {}  {}  {}-{}", kind(run), run.source, run.epoch, run.first, run.last);
    let found = missing::list(arguments, missing_numbers, line).await?;
    let holes = found.iter().filter(|run| kind(run) == "hole").count();
    say!("holes: {holes}, of {} runs of numbers that are missing", found.len());
    Ok(())
}

async fn accept_one(arguments: &AcceptArguments) -> Result<(), Failure> {
    let AcceptArguments { source, epoch, numbers, word } = arguments;
    let (author, place) = word.given().await?;
    let accepted = accept(&place.lake, source, *epoch, *numbers, &author).await.map_err(Failure::failed)?;
    let (first, last) = (numbers.first, numbers.last);
    let line = json!({"source": source.as_str(), "epoch": epoch.to_string(), "first": first, "last": last});
    let said = word.told(accepted, line)?;
    say!("holes: {first} to {last} of {source} were {said}; should they come after all, they are taken");
    Ok(())
}
