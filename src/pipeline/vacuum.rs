//! `tjern pipeline vacuum`: removes what nobody needs any more, or only says what that would be.

use std::io::Write;

use clap::Args;
use object_store::path::Path;
use serde_json::{Value, json};
use tjern_pipeline::jobs::list::vacuum_summary;
use tjern_pipeline::vacuum::{TableVacuum, vacuum};

use super::job::{self, JobArguments, Workplace};
use crate::failure::Failure;
use tjern_gateway::say;

/// What `vacuum` is told.
#[derive(Debug, Args)]
pub(crate) struct VacuumArguments {
    /// Only print what would be removed, a key a line; with --json one line of JSON
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    job: JobArguments,
}

/// A dry run writes the keys of what would go to stdout, a line each, or all of them by their tables as one line of JSON.
pub(crate) async fn execute(arguments: &VacuumArguments) -> Result<(), Failure> {
    if !arguments.dry_run {
        return job::execute("vacuum", &arguments.job).await;
    }
    let place = Workplace::look(&arguments.job).await?;
    let tables = vacuum(&place.lake, place.city.jobs.retention, true).await.map_err(Failure::failed)?;
    let text: String = if arguments.job.json {
        format!("{}\n", json!({ "would_remove": tables.iter().map(value).collect::<Vec<_>>() }))
    } else {
        let keys = tables.iter().flat_map(|table| table.files.iter().chain(&table.log));
        keys.map(|key| format!("{key}\n")).collect()
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::failed)?;
    say!("vacuum: {}", vacuum_summary(&tables, "would remove").said);
    Ok(())
}

/// What would go of a table.
fn value(of: &TableVacuum) -> Value {
    let keys = |keys: &[Path]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({ "table": of.table.as_str(), "files": keys(&of.files), "log_objects": keys(&of.log), "bytes": of.bytes })
}
