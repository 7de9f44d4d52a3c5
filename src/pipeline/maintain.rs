//! `tjern pipeline checkpoint` and `retention`: the jobs, or with `--dry-run` what they would do.

use std::io::Write;

use clap::Args;
use serde_json::json;
use tjern_lake::DataFile;
use tjern_pipeline::maintain::{self, Checkpointed};

use super::job::{self, JobArguments, Workplace};
use crate::failure::Failure;
use tjern_gateway::say;

/// What both are told.
#[derive(Debug, Args)]
pub(crate) struct DryRunArguments {
    /// Only print what would be done, a line each; with --json one line of JSON
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    job: JobArguments,
}

/// A dry run writes a line a table: its name, the version, and that of the checkpoint before.
pub(crate) async fn checkpoint(arguments: &DryRunArguments) -> Result<(), Failure> {
    if !arguments.dry_run {
        return job::execute("checkpoint", &arguments.job).await;
    }
    let place = Workplace::look(&arguments.job).await?;
    let made = maintain::checkpoint(&place.lake, true).await.map_err(Failure::failed)?;
    if arguments.job.json {
        let value = |table: &Checkpointed| json!({ "table": table.table.as_str(), "version": table.version, "former": table.former });
        say(&json!({ "would_write": made.iter().map(value).collect::<Vec<_>>() }).to_string())?;
    } else {
        for table in &made {
            let former = table.former.map_or_else(|| "none".to_owned(), |version| version.to_string());
            say(&format!("{}\tversion {}\tformer {former}", table.table, table.version))?;
        }
    }
    say!("checkpoint: would write {} checkpoints", made.len());
    Ok(())
}

/// A dry run writes a line a file: its key, its rows, and the times of its first and last reading.
pub(crate) async fn retention(arguments: &DryRunArguments) -> Result<(), Failure> {
    if !arguments.dry_run {
        return job::execute("retention", &arguments.job).await;
    }
    let place = Workplace::look(&arguments.job).await?;
    let gone = match place.city.jobs.keep {
        Some(keep) => maintain::retain(&place.lake, keep, true).await.map_err(Failure::failed)?,
        None => {
            say!("retention: readings stay for ever: `[retention] readings` is not set");
            Vec::new()
        }
    };
    if arguments.job.json {
        let value = |file: &DataFile| {
            let (first, last) = file.time_us.unzip();
            json!({ "key": key(file), "rows": file.rows, "first": first.map(time), "last": last.map(time) })
        };
        say(&json!({ "would_remove": gone.iter().map(value).collect::<Vec<_>>() }).to_string())?;
    } else {
        for file in &gone {
            let rows = file.rows.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
            let (first, last) = file.time_us.map_or_else(Default::default, |(first, last)| (time(first), time(last)));
            say(&format!("{}\t{rows} rows\t{first}\t{last}", key(file)))?;
        }
    }
    let rows: i64 = gone.iter().filter_map(|file| file.rows).sum();
    say!("retention: would remove {} files with {rows} readings", gone.len());
    Ok(())
}

/// Where a file of readings lies.
fn key(file: &DataFile) -> String {
    format!("tables/readings/{}", file.path)
}

fn time(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us).map_or_else(|_| format!("{time_us} us"), |time| time.to_string())
}

fn say(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(Failure::failed)
}
