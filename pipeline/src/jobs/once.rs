//! One run of one job: what came of it is told, counted and written down.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tjern_lake::Lake;
use tokio_util::sync::CancellationToken;

use super::job::{Done, Job, JobError};
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
    let heeds_stop = job.heeds_stop();
    // One job's defect is that job's trouble: the others, and who runs beside them, go on.
    let running = AssertUnwindSafe(job.run(lake, stop)).catch_unwind();
    let ended = if heeds_stop { Some(running.await) } else { stop.run_until_cancelled(running).await };
    let result = match ended {
        Some(Ok(result)) => result,
        Some(Err(payload)) => panicked(payload.as_ref()),
        None => Err(JobError::Interrupted),
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
            let (said, did) = match &error {
                JobError::Partly { done, .. } => (done.said.clone(), done.did.clone()),
                _ => Default::default(),
            };
            let partly = matches!(error, JobError::Partly { .. });
            let interrupted = matches!(error, JobError::Interrupted);
            let outcome = if interrupted { Outcome::Interrupted } else { Outcome::Failed };
            let not_done = Some(job.undone().to_owned());
            let run = Run { said, did, partly, error: Some(error.to_string()), not_done, ..run(outcome) };
            Finished { run, worked: false, error: Some(error) }
        }
    }
}

fn panicked(payload: &(dyn Any + Send)) -> Result<Done, JobError> {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    Err(JobError::failed(format!("it panicked: {text}; hint: this is a defect of the software, please report it")))
}

/// Runs a job once, as a command does: how it ran last is read before and written after.
pub async fn command(name: &str, job: &mut dyn Job, lake: &Lake, stop: &CancellationToken) -> Finished {
    let before = record::read(lake, name).await.unwrap_or_else(|error| {
        tracing::warn!(job = name, %error, "how it ran last cannot be read");
        None
    });
    job.runs_once_only();
    let finished = once(name, job, lake, before.as_ref(), stop).await;
    if finished.run.outcome == Outcome::HeldElsewhere {
        return finished;
    }
    if let Err(error) = record::write(lake, &finished.run).await {
        tracing::warn!(job = name, %error, "how it ran cannot be written down");
    }
    finished
}
