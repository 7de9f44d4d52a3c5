//! One run of one job: what came of it is told, counted and written down.

use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use super::job::{Job, JobError};
use super::record::{self, Outcome, Run};

/// A run, and why it failed where it did.
#[derive(Debug)]
pub struct Finished {
    /// As it is written down.
    pub run: Run,
    /// Whether there was anything to do.
    pub worked: bool,
    /// Why it failed.
    pub error: Option<JobError>,
}

/// Runs a job once. `before` is how it ran last.
pub async fn once(
    name: &str,
    job: &mut dyn Job,
    lake: &Lake,
    before: Option<&Run>,
    stop: &CancellationToken,
) -> Finished {
    let began_us = lake.clock().now_us();
    let result = if job.heeds_stop() {
        job.run(lake, stop).await
    } else {
        stop.run_until_cancelled(job.run(lake, stop)).await.unwrap_or(Err(JobError::Interrupted))
    };
    let ended_us = lake.clock().now_us();
    let run = |outcome| Run::new(name, began_us, ended_us, outcome).after(before);
    match result {
        Ok(done) => {
            let outcome = if done.held_elsewhere { Outcome::HeldElsewhere } else { Outcome::Done };
            let run = Run { said: done.said, did: done.did, ..run(outcome) };
            Finished { run, worked: done.worked, error: None }
        }
        Err(error) => {
            let interrupted = matches!(error, JobError::Interrupted);
            let outcome = if interrupted { Outcome::Interrupted } else { Outcome::Failed };
            let not_done = Some(job.undone().to_owned());
            let run = Run { error: Some(error.to_string()), not_done, ..run(outcome) };
            Finished { run, worked: false, error: Some(error) }
        }
    }
}

/// Runs a job once, as a command does: how it ran last is read before and written after.
pub async fn command(name: &str, job: &mut dyn Job, lake: &Lake, stop: &CancellationToken) -> Finished {
    let before = record::read(lake, name).await.unwrap_or_else(|error| {
        tracing::warn!(job = name, %error, "how it ran last cannot be read");
        None
    });
    let finished = once(name, job, lake, before.as_ref(), stop).await;
    if finished.run.outcome == Outcome::HeldElsewhere {
        return finished;
    }
    if let Err(error) = record::write(lake, &finished.run).await {
        tracing::warn!(job = name, %error, "how it ran cannot be written down");
    }
    finished
}
