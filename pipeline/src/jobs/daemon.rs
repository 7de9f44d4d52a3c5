//! All jobs on their schedules, until they are told to stop.
//!
//! Two lines run side by side, so that a long compaction does not keep readings waiting: one ingests,
//! the other does everything else in turn. Within a line nothing overlaps, and a run that was due
//! while another was at work happens once and not twice. A job that fails says so and is tried again
//! when it is next due; none needs anybody to clean up behind it. Stopping waits for the job under way.

use tjern_lake::Lake;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::job::JobError;
use super::list::{Entry, Line, entries};
use super::once::once;
use super::record::{self, Run};
use super::schedule::Schedule;
use super::settings::JobSettings;

/// Runs all jobs until `stop` is cancelled.
pub async fn run(lake: Lake, settings: JobSettings, stop: CancellationToken) {
    let (first, second): (Vec<_>, Vec<_>) =
        entries(&settings).into_iter().partition(|entry| entry.line == Line::Ingest);
    tokio::join!(Box::pin(keep(&lake, first, &stop)), Box::pin(keep(&lake, second, &stop)));
}

struct Due {
    entry: Entry,
    last: Option<Run>,
    written: Option<Run>,
    next: Instant,
}

async fn keep(lake: &Lake, entries: Vec<Entry>, stop: &CancellationToken) {
    let now = Instant::now();
    let due = |entry| Due { entry, last: None, written: None, next: now };
    let mut dues: Vec<Due> = entries.into_iter().map(due).collect();
    while let Some(next) = dues.iter().map(|due| due.next).min() {
        if stop.run_until_cancelled(tokio::time::sleep_until(next)).await.is_none() {
            break;
        }
        let Some(due) = dues.iter_mut().find(|due| due.next == next) else { break };
        one_run(lake, due, stop).await;
        let Schedule::Every(every) = due.entry.schedule;
        due.next = (next + every).max(Instant::now());
    }
    // What was uploaded at the very end is taken too.
    for due in dues.iter_mut().filter(|due| due.entry.line == Line::Ingest) {
        one_run(lake, due, stop).await;
    }
}

async fn one_run(lake: &Lake, due: &mut Due, stop: &CancellationToken) {
    let Entry { name, job, .. } = &mut due.entry;
    // Stopping waits for the job under way: only one that gives a lease back is told.
    let never = CancellationToken::new();
    let told = if job.heeds_stop() { stop } else { &never };
    let finished = once(name, job.as_mut(), lake, due.last.as_ref(), told).await;
    let run = finished.run;
    match &finished.error {
        Some(JobError::Interrupted) => {}
        Some(error) => {
            let not_done = run.not_done.as_deref();
            tracing::error!(job = name, %error, not_done, "a job failed; it is tried again");
        }
        None if finished.worked => tracing::info!(job = name, "{}", run.said),
        None => {}
    }
    if run.is_news(due.written.as_ref()) {
        match record::write(lake, &run).await {
            Ok(()) => due.written = Some(run.clone()),
            Err(error) => tracing::warn!(job = name, %error, "how a job ran cannot be written down"),
        }
    }
    due.last = Some(run);
}
