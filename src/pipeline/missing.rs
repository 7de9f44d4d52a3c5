//! What the commands share that tell of what is missing ([`super::holes`], [`super::configurations`]): a table of it, and a
//! person's word that it will never come.
//!
//! stdout gets the data; with `--json` it is a line of JSON each.

use std::fmt::Write as _;
use std::io::Write;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tjern_lake::{Table, TableName};
use tjern_pipeline::correct::Author;
use tjern_pipeline::ingest::Accepted;

use super::change::AuthorArguments;
use super::job::{JobArguments, Workplace};
use crate::failure::Failure;

/// A person's word that something will never come.
#[derive(Debug, Args)]
pub(crate) struct WordArguments {
    /// Why: it is kept with the lake
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who does this [default: the user's name]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    job: JobArguments,
}

impl WordArguments {
    /// Who says it, and the lake that it is said of.
    pub(crate) async fn given(&self) -> Result<(Author, Workplace), Failure> {
        if self.reason.trim().is_empty() {
            return Err(Failure::wrong("--reason says nothing; hint: say why nothing of it will ever come"));
        }
        let author = AuthorArguments::new(self.by.clone(), Some(self.reason.clone())).author()?;
        Ok((author, Workplace::open(&self.job).await?))
    }

    /// Writes what was accepted, as a line of JSON where that is asked for. Returns what is said of it to people.
    pub(crate) fn told(&self, accepted: Accepted, mut line: Value) -> Result<&'static str, Failure> {
        if self.job.json {
            line["accepted"] = json!(true);
            line["new"] = json!(accepted == Accepted::Now);
            write_out(&format!("{line}\n"))?;
        }
        Ok(if accepted == Accepted::Before { "accepted before" } else { "accepted" })
    }
}

/// Lists what `readings` says is missing, `line` by line, and returns it. Nothing is written, and no table is made.
pub(crate) async fn list<T: Serialize>(
    arguments: &JobArguments,
    find: impl FnOnce(&Table) -> Vec<T>,
    line: impl Fn(&T) -> String,
) -> Result<Vec<T>, Failure> {
    let place = Workplace::look(arguments).await?;
    let table = Table::open(&place.lake, TableName::Readings).await.map_err(Failure::failed)?;
    let found = table.as_ref().map(find).unwrap_or_default();
    let mut text = String::new();
    for one in &found {
        let _ = if arguments.json { writeln!(text, "{}", json!(one)) } else { writeln!(text, "{}", line(one)) };
    }
    write_out(&text)?;
    Ok(found)
}

/// Data, to stdout.
pub(crate) fn write_out(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(Failure::failed),
    }
}
