//! `tjern pipeline status` and `verify`: looking at the lake, and changing nothing.

use std::io::{IsTerminal, Write};

use serde_json::json;
use tjern_lake::Lake;
use tjern_pipeline::ingest::StrayObjects;
use tjern_pipeline::status::{Status, status as find};
use tjern_pipeline::verify::verify as read_all;
use tjern_readings::store::Store;

use super::job::{JobArguments, lake_of, refuse_unfinished};
use super::{configurations, holes};
use crate::config::City;
use crate::failure::Failure;
use crate::progress::Bar;
use tjern_gateway::say;

/// A lake whose tables are being brought back is refused: what is there is not what was, and nothing says what is missing.
async fn open(arguments: &JobArguments) -> Result<(City, Lake), Failure> {
    let (city, lake) = lake_of(City::load(&arguments.config)?, arguments.personal, Store::look)?;
    refuse_unfinished(&lake).await?;
    Ok((city, lake))
}

/// How the lake is: a table for people, one line of JSON for programs.
pub(crate) async fn status(arguments: &JobArguments) -> Result<(), Failure> {
    let (city, lake) = open(arguments).await?;
    let found = find(&lake, &city.jobs.compact).await.map_err(Failure::failed)?;
    let text = if arguments.json { format!("{}\n", json!(found)) } else { shown(&found) };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::failed)?;
    let trouble = found.damaged.into_values().chain(found.restricted.into_values()).chain(found.unreadable_erasures);
    match trouble.into_iter().next() {
        Some(damage) => Err(Failure::failed(damage)),
        None => Ok(()),
    }
}

/// A line of each table that cannot be read, or not be written to.
fn unusable_tables(status: &Status) -> Vec<String> {
    let damaged = status.damaged.keys().map(|table| format!("{table:<9} cannot be read: its log is damaged"));
    let locked = |table| format!("{table:<9} is not written to: another program locked it");
    damaged.chain(status.restricted.keys().map(locked)).collect()
}

fn shown(status: &Status) -> String {
    let mut lines = vec![format!(
        "{:<9} {:>8} {:>7} {:>9} {:>13} {:>12} {:>12} {:>12}",
        "table", "version", "files", "unsorted", "rows", "bytes", "smallest", "largest"
    )];
    let bytes = |bytes: Option<i64>| bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
    lines.extend(status.tables.iter().map(|table| {
        format!(
            "{:<9} {:>8} {:>7} {:>9} {:>13} {:>12} {:>12} {:>12}",
            table.table.as_str(),
            table.version,
            table.files,
            table.unsorted_files,
            table.rows,
            table.bytes,
            bytes(table.smallest_bytes),
            bytes(table.largest_bytes)
        )
    }));
    lines.extend(unusable_tables(status));
    let since = |moment: &Option<_>| moment.as_ref().map(ToString::to_string);
    let landed = since(&status.landed.since).map_or_else(String::new, |since| format!(", the first since {since}"));
    lines.push(format!("landed: {} batches wait for ingest{landed}", status.landed.batches));
    lines.extend(status.landed.unreadable.iter().map(|folder| format!("cannot be read, and is not counted: {folder}")));
    lines.extend(status.landed.strays.iter().map(|StrayObjects { source, objects, first }| {
        let whose = if source.is_empty() { "no source".to_owned() } else { format!("`{source}`") };
        format!("  never ingested, since their keys are no batches': {objects} objects of {whose}, the first {first}")
    }));
    let compaction = &status.compaction;
    lines.push(format!("compaction: {} merges of {} bytes wait", compaction.merges, compaction.bytes));
    let unsealed = since(&compaction.oldest_unsealed).unwrap_or_else(|| "none".to_owned());
    lines.push(format!("oldest unsealed window: {unsealed}"));
    let trouble = status.missing.iter().filter(|run| !run.before_replay && !run.accepted).count();
    lines.push(format!("holes and gaps: {trouble}"));
    lines.extend(
        status
            .missing
            .iter()
            .map(|run| format!("  {} {}/{} {}-{}", holes::kind(run), run.source, run.epoch, run.first, run.last)),
    );
    if !status.unchecked.is_empty() {
        let missing = status.unchecked.iter().filter(|one| !one.accepted).count();
        lines.push(format!("configurations that are missing, so that units are not checked: {missing}"));
        lines.extend(status.unchecked.iter().map(|one| {
            let kind = configurations::kind(one);
            format!("  {kind} {} {}, since {}", one.source, one.configuration, one.since)
        }));
    }
    if !status.unreadable_erasures.is_empty() {
        lines.push(format!(
            "erasures that cannot be read, so that nothing is ingested: {}",
            status.unreadable_erasures.len()
        ));
        lines.extend(status.unreadable_erasures.iter().map(|why| format!("  {why}")));
    }
    if !status.erasures.is_empty() {
        lines.push(format!("erasures that are not complete: {}", status.erasures.len()));
        lines.extend(status.erasures.iter().map(|erasure| {
            format!("  {} {} {} to {}, since {}", erasure.id, erasure.sensor, erasure.from, erasure.to, erasure.at)
        }));
        lines.extend(status.not_looked_at.iter().map(|(key, why)| format!("  waits for {key}: {why}")));
    }
    lines.push("jobs:".to_owned());
    lines.extend(status.jobs.iter().map(|run| {
        let said = run.error.as_deref().unwrap_or(&run.said);
        format!("  {:<20} {} {:?}: {said}", run.job, run.ended, run.outcome)
    }));
    lines.push(String::new());
    lines.join("\n")
}

/// Reads every file. A line a problem on stdout, or one line of JSON; status 1 where there is one.
pub(crate) async fn verify(arguments: &JobArguments) -> Result<(), Failure> {
    let (_, lake) = open(arguments).await?;
    let mut bar = std::io::stderr().is_terminal().then(Bar::new);
    let mut watcher = |done, total| {
        if let Some(bar) = &mut bar {
            bar.show(done, total, "reading");
        }
    };
    let verdict = read_all(&lake, &mut watcher).await.map_err(Failure::failed)?;
    drop(bar);
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        let problems: Vec<_> = verdict.problems.iter().map(|one| json!({"key": one.key, "what": one.what})).collect();
        let line = json!({
            "files": verdict.files, "rows": verdict.rows, "bytes": verdict.bytes,
            "without_sha256": verdict.without_sha256, "problems": problems,
        });
        writeln!(stdout, "{line}").map_err(Failure::failed)?;
    } else {
        for problem in &verdict.problems {
            writeln!(stdout, "{}: {}", problem.key, problem.what).map_err(Failure::failed)?;
        }
    }
    let looked = format!("{} files, {} rows, {} bytes read", verdict.files, verdict.rows, verdict.bytes);
    if verdict.without_sha256 > 0 {
        say!(
            "verify: of {} files the log has no SHA-256: another value in them is not seen; those that are written anew have one",
            verdict.without_sha256
        );
    }
    match verdict.problems.len() {
        0 => {
            say!("verify: {looked}: all is as the logs say");
            Ok(())
        }
        count => Err(Failure::failed(format!("verify: {looked}: {count} problems"))),
    }
}
