//! `tjern pipeline revise`: a person's word on readings, from a file.

use std::path::PathBuf;

use clap::Args;
use tjern_pipeline::bounds::Bounds;
use tjern_pipeline::correct::revise::{ReviseError, ReviseLayout, revise_within};
use tjern_pipeline::import::Decimal;
use tjern_pipeline::times::zone;

use super::change::{self, AuthorArguments, LakeArguments};
use super::job::Workplace;
use crate::failure::Failure;
use tjern_gateway::say;

/// What `revise` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern pipeline revise july.csv --by \"the water authority\" --reason \"the reference thermometer\" --config tjern.toml\n  \
    tjern pipeline revise july.csv --decimal-comma --separator ';' --dry-run --config tjern.toml\n\n\
    The file is CSV with a line that names its columns: `sensor`, `time`, and `value` or `quality` or both.\n\
    Quality is 1 (good), 3 (suspect) or 4 (fail: it withdraws a value). Each line is about a reading that is stored.\n\
    The readings get a higher revision; what was before stays in `readings`. Doing it again changes nothing.\n\n\
    Exit status: 0 done, 1 failed, 2 wrong usage, configuration or file: then nothing was revised."
)]
pub(crate) struct ReviseArguments {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The clock of times without an offset [default: the city's]
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// What stands between columns
    #[arg(long, value_name = "CHARACTER", default_value = ",")]
    separator: char,
    /// Decimals stand after a comma
    #[arg(long)]
    decimal_comma: bool,
    /// Only say what would be revised
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    author: AuthorArguments,
    #[command(flatten)]
    lake: LakeArguments,
}

/// Revises what a file says.
pub(crate) async fn execute(arguments: &ReviseArguments) -> Result<(), Failure> {
    let author = arguments.author.author_of(arguments.dry_run)?;
    let separator =
        u8::try_from(arguments.separator).map_err(|_| Failure::wrong("--separator is one plain character"))?;
    let own = arguments.timezone.as_deref().map(zone).transpose().map_err(Failure::wrong)?;
    let Workplace { city, lake, stop } = change::open_or_look(&arguments.lake, arguments.dry_run).await?;
    let decimal = if arguments.decimal_comma { Decimal::Comma } else { Decimal::Point };
    let bounds = Bounds::from(&city.jobs.compact);
    let layout = ReviseLayout { separator, decimal, zone: own.unwrap_or(city.timezone) };
    let working = Box::pin(revise_within(&lake, &arguments.file, &layout, &author, arguments.dry_run, &bounds));
    let Some(done) = stop.run_until_cancelled(working).await else {
        return Err(Failure::failed("interrupted; hint: run it again, what is done is not done twice"));
    };
    let outcome = done.map_err(|error| match error {
        ReviseError::Unreadable { .. } | ReviseError::Wrong(_) => Failure::wrong(error),
        error => Failure::failed(error),
    })?;
    let done = if arguments.dry_run { "would be revised" } else { "were revised" };
    say!("revise: {} readings {done}, {} are so already", outcome.revised, outcome.already);
    Ok(())
}
