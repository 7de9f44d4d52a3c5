//! `tjern pipeline configurations`: configurations that batches name and that are not in the lake.
//!
//! stdout gets the data: a table of them. With `--json` it is a line of JSON a configuration.

use clap::{Args, Subcommand};
use serde_json::json;
use tjern_pipeline::ingest::{accept_configuration, missing_configurations};
use tjern_pipeline::status::Unchecked;
use tjern_readings::keys::is_sha256;
use tjern_readings::sensor::SourceName;

use super::job::JobArguments;
use super::missing::{self, WordArguments};
use crate::failure::Failure;
use tjern_gateway::say;

/// What is to be done with configurations that are missing.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  tjern pipeline configurations ls --config tjern.toml\n  \
    tjern pipeline configurations accept elva-01 fefe… --reason \"the box burnt down\" --by \"a technician\" --config tjern.toml\n\n\
    Exit status: 0 done, 1 failed, or no readings wait for it, 2 wrong usage or configuration.")]
pub(crate) enum ConfigurationsCommand {
    /// Lists those that batches name and that are not there
    Ls(JobArguments),
    /// Says of one that it will never come: the watch tells of it no more. One that comes after all counts
    Accept(AcceptArguments),
}

/// What `accept` is told.
#[derive(Debug, Args)]
pub(crate) struct AcceptArguments {
    /// Whose it is
    #[arg(value_name = "SOURCE")]
    source: SourceName,
    /// Its name: the SHA-256 of its text, as `ls` says it
    #[arg(value_name = "SHA256", value_parser = sha256)]
    configuration: String,
    #[command(flatten)]
    word: WordArguments,
}

fn sha256(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is no SHA-256; hint: write all of it as `ls` does, 64 digits of 0-9 and a-f");
    is_sha256(text).then(|| text.to_owned()).ok_or_else(wrong)
}

/// Does what was asked.
pub(crate) async fn execute(command: ConfigurationsCommand) -> Result<(), Failure> {
    match command {
        ConfigurationsCommand::Ls(arguments) => list(&arguments).await,
        ConfigurationsCommand::Accept(arguments) => Box::pin(accept_one(&arguments)).await,
    }
}

/// What one is, in a word.
pub(crate) const fn kind(one: &Unchecked) -> &'static str {
    if one.accepted { "accepted" } else { "missing" }
}

async fn list(arguments: &JobArguments) -> Result<(), Failure> {
    let find = |table: &_| missing_configurations(table).into_iter().map(Unchecked::from).collect();
    let line =
        |one: &Unchecked| format!("{:<8}  {}  {}  since {}", kind(one), one.source, one.configuration, one.since);
    let found = missing::list(arguments, find, line).await?;
    let missing = found.iter().filter(|one| !one.accepted).count();
    say!("configurations: {missing} are missing, {} more were accepted", found.len() - missing);
    Ok(())
}

async fn accept_one(arguments: &AcceptArguments) -> Result<(), Failure> {
    let AcceptArguments { source, configuration, word } = arguments;
    let (author, place) = word.given().await?;
    let accepted = accept_configuration(&place.lake, source, configuration, &author).await.map_err(Failure::failed)?;
    let said = word.told(accepted, json!({"source": source.as_str(), "configuration": configuration}))?;
    say!(
        "configurations: {configuration} of {source} was {said}; should it come after all, its readings are held against it"
    );
    Ok(())
}
