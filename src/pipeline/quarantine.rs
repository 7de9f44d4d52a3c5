//! `tjern pipeline quarantine`: what could not be read.
//!
//! stdout gets the data: a table of what lies there, all that is known of one object, what became of a retry. With
//! `--json` it is a line of JSON an object.

use std::fmt::Write as _;
use std::io::IsTerminal;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;
use tjern_lake::Lake;
use tjern_pipeline::quarantine::{Kept, Looked, Retried, find, list, look, retry};

use super::job::{JobArguments, Workplace};
use super::missing::write_out;
use crate::failure::Failure;
use tjern_gateway::say;

/// What is to be done with what lies in quarantine.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  tjern pipeline quarantine ls --config tjern.toml\n  \
    tjern pipeline quarantine show elva-01/…/00000000000000000006-00000000000000000007.arrow --config tjern.toml\n  \
    tjern pipeline quarantine retry --all --config tjern.toml\n\n\
    Exit status: 0 done, 1 failed, or something that was tried again is refused again, 2 wrong usage or configuration.")]
pub(crate) enum QuarantineCommand {
    /// Lists it
    Ls(JobArguments),
    /// Says all that is known of one object, and whether it can be read now
    Show(ShowArguments),
    /// Puts objects back into the landing zone, if they can be read now, and ingests
    Retry(RetryArguments),
}

/// What `show` is told.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The object's name, as `ls` says it
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    job: JobArguments,
}

/// What `retry` is told.
#[derive(Debug, Args)]
pub(crate) struct RetryArguments {
    /// The objects' names, as `ls` says them
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// Everything that lies there
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    job: JobArguments,
}

/// Does what was asked.
pub(crate) async fn execute(command: QuarantineCommand) -> Result<(), Failure> {
    match command {
        QuarantineCommand::Ls(arguments) => list_all(&arguments).await,
        QuarantineCommand::Show(arguments) => show(&arguments).await,
        QuarantineCommand::Retry(arguments) => Box::pin(retry_some(&arguments)).await,
    }
}

async fn found(lake: &Lake, name: &str) -> Result<Kept, Failure> {
    let kept = find(lake, name).await.map_err(Failure::failed)?;
    let missing = || format!("`{name}` is not in quarantine; hint: `tjern pipeline quarantine ls` lists what is");
    kept.ok_or_else(|| Failure::failed(missing()))
}

async fn list_all(arguments: &JobArguments) -> Result<(), Failure> {
    let place = Workplace::look(arguments).await?;
    let kept = list(&place.lake).await.map_err(Failure::failed)?;
    let mut text = String::new();
    for one in &kept {
        if arguments.json {
            let _ = writeln!(text, "{}", json!(one));
        } else {
            let moved = local(&one.moved, &place.city.timezone);
            let _ = writeln!(text, "{moved:<16}  {:>10}  {}\n{:30}{}", one.bytes, one.name, "", one.reason);
        }
    }
    if !arguments.json && !kept.is_empty() && std::io::stdout().is_terminal() {
        text.insert_str(0, &format!("{:<16}  {:>10}  name, and why it is here\n", "moved", "bytes"));
    }
    write_out(&text)?;
    let count = kept.len();
    say!("quarantine: {count} {}", if count == 1 { "object" } else { "objects" });
    Ok(())
}

/// People read the city's time.
fn local(moved: &str, timezone: &TimeZone) -> String {
    let time = moved.parse::<Timestamp>().map(|time| time.to_zoned(timezone.clone()));
    time.map_or_else(|_| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

/// So many characters of a text are shown that anybody may have written.
const SHOWN_CHARS: usize = 80;

/// The begin of such a text, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|char| if char.is_control() { '?' } else { char }).collect()
}

async fn show(arguments: &ShowArguments) -> Result<(), Failure> {
    let place = Workplace::look(&arguments.job).await?;
    let kept = found(&place.lake, &arguments.name).await?;
    let Looked { kept, sha256, now } = look(&place.lake, kept).await.map_err(Failure::failed)?;
    if arguments.job.json {
        let mut line = json!(kept);
        line["sha256"] = json!(sha256);
        line["readable"] = json!(now.is_ok());
        line["now"] = json!(now.err());
        return write_out(&format!("{line}\n"));
    }
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("name", &kept.name);
    line("landed as", &kept.landed);
    line("moved", &format!("{} ({})", local(&kept.moved, &place.city.timezone), kept.moved));
    line("reason", &kept.reason);
    line("bytes", &kept.bytes.to_string());
    line("sha-256", sha256.as_deref().unwrap_or("-"));
    match now {
        Ok(header) => {
            line("readings", &header.bounds.count().to_string());
            line("written by", &plain(&header.software));
            let misnamed = if header.misnames_configuration() { "what stands there is no name of one" } else { "-" };
            line("configuration", header.named_configuration().unwrap_or(misnamed));
            line("now", "it can be read: `retry` gives it to ingest");
        }
        Err(reason) => line("now", &reason),
    }
    write_out(&text)
}

async fn retry_some(arguments: &RetryArguments) -> Result<(), Failure> {
    let place = Workplace::open(&arguments.job).await?;
    let mut objects = Vec::new();
    if arguments.all {
        objects = list(&place.lake).await.map_err(Failure::failed)?;
    }
    for name in &arguments.names {
        objects.push(found(&place.lake, name).await?);
    }
    let done = retry(&place.lake, &place.city.jobs.ingest, objects).await.map_err(Failure::failed)?;
    let mut text = String::new();
    let (mut stay, mut removed) = (0, 0);
    for (kept, became) in &done {
        let why = match became {
            Retried::Taken => None,
            Retried::Refused(why) | Retried::Removed(why) => Some(why),
        };
        stay += usize::from(matches!(became, Retried::Refused(_)));
        removed += usize::from(matches!(became, Retried::Removed(_)));
        let _ = if arguments.job.json {
            writeln!(text, "{}", json!({"name": kept.name, "taken": why.is_none(), "refused": why}))
        } else {
            writeln!(text, "{}  {}", kept.name, why.map_or_else(|| "taken".to_owned(), |why| format!("refused: {why}")))
        };
    }
    write_out(&text)?;
    if stay + removed > 0 {
        let removed = if removed > 0 { format!(", {removed} were refused and removed") } else { String::new() };
        return Err(Failure::failed(format!("{stay} of {} stay in quarantine{removed}", done.len())));
    }
    say!("quarantine: {} taken", done.len());
    Ok(())
}
