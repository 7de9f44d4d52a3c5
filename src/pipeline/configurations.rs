//! `tjern pipeline configurations`: configurations that batches name and that are not in the lake.
//!
//! stdout gets the data: a table of them. With `--json` it is a line of JSON a configuration.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::json;
use tjern_lake::{Table, TableName};
use tjern_pipeline::correct::Author;
use tjern_pipeline::ingest::{Accepted, accept_configuration, missing_configurations};
use tjern_pipeline::status::Unchecked;
use tjern_readings::keys::is_sha256;
use tjern_readings::sensor::SourceName;

use super::change::AuthorArguments;
use super::holes::write_out;
use super::job::{JobArguments, Workplace};
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
    /// Why: it is kept with the lake
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who does this [default: the user's name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    job: JobArguments,
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
    let place = Workplace::look(arguments).await?;
    let table = Table::open(&place.lake, TableName::Readings).await.map_err(Failure::failed)?;
    let found: Vec<Unchecked> =
        table.as_ref().map(missing_configurations).unwrap_or_default().into_iter().map(Unchecked::from).collect();
    let mut text = String::new();
    for one in &found {
        let _ = if arguments.json {
            writeln!(text, "{}", json!(one))
        } else {
            writeln!(text, "{:<8}  {}  {}  since {}", kind(one), one.source, one.configuration, one.since)
        };
    }
    write_out(&text)?;
    let missing = found.iter().filter(|one| !one.accepted).count();
    say!("configurations: {missing} are missing, {} more were accepted", found.len() - missing);
    Ok(())
}

async fn accept_one(arguments: &AcceptArguments) -> Result<(), Failure> {
    let AcceptArguments { source, configuration, reason, by, job } = arguments;
    if reason.trim().is_empty() {
        return Err(Failure::wrong("--reason says nothing; hint: say why it will never come"));
    }
    let author: Author = AuthorArguments::new(by.clone(), Some(reason.clone())).author()?;
    let place = Workplace::open(job).await?;
    let accepted = accept_configuration(&place.lake, source, configuration, &author).await.map_err(Failure::failed)?;
    if job.json {
        let is_new = accepted == Accepted::Now;
        let line = json!({"source": source.as_str(), "configuration": configuration, "accepted": true, "new": is_new});
        write_out(&format!("{line}\n"))?;
    }
    let before = if accepted == Accepted::Before { " before" } else { "" };
    say!(
        "configurations: {configuration} of {source} was accepted{before}; should it come after all, its readings are held against it"
    );
    Ok(())
}
