//! How the jobs fare for Prometheus, as OpenMetrics text. Made anew for every scrape: nothing is counted twice.
//!
//! Labels are names of jobs and of what they count, which the configuration and the code know: nothing from
//! outside makes a series.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tjern_lake::Lake;
use tjern_lake::metrics::StoreMetrics;
use tjern_readings::clock::Clock;

use super::states::{Condition, JobState, States};

type Labels = Vec<(&'static str, String)>;

/// The jobs before Prometheus; register it with a process's metrics.
#[derive(Debug)]
pub struct JobMetrics {
    states: States,
    clock: Clock,
}

impl JobMetrics {
    /// Of these jobs.
    #[must_use]
    pub const fn new(states: States, clock: Clock) -> Self {
        Self { states, clock }
    }
}

/// The text of `/metrics`: the jobs, and what is asked of the lake's store.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn text(states: &States, lake: &Lake) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(JobMetrics::new(states.clone(), lake.clock().clone())));
    registry.register_collector(Box::new(StoreMetrics::new(lake)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for JobMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let jobs: Vec<_> = self.states.all().into_iter().collect();
        let now_us = self.clock.now_us();
        counters(&mut encoder, &jobs)?;
        let mut gauge = |name: &str, help: &str, value: &dyn Fn(&JobState) -> Option<f64>| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (job, state) in &jobs {
                if let Some(value) = value(state) {
                    family.encode_family(&labels(job))?.encode_gauge(&value)?;
                }
            }
            Ok(())
        };
        let flag = |flag: bool| Some(f64::from(u8::from(flag)));
        gauge("tjern_job_healthy", "Whether the job does its work", &|job| {
            flag(job.condition(now_us) == Condition::Ok)
        })?;
        gauge("tjern_job_running", "Whether the job is at work", &|job| flag(job.running_since_us.is_some()))?;
        gauge("tjern_job_failures_in_a_row", "Runs that failed since the last that did not", &|job| {
            Some(f64::from(job.failures()))
        })?;
        gauge("tjern_job_next_timestamp_seconds", "When the job is due next", &|job| job.next_us.map(seconds))?;
        gauge("tjern_job_last_run_timestamp_seconds", "When the last run began", &|job| {
            job.last.as_ref().map(|run| seconds(run.began.0))
        })?;
        gauge("tjern_job_last_success_timestamp_seconds", "When the last run that did not fail began", &|job| {
            job.last.as_ref().and_then(|run| run.succeeded).map(|moment| seconds(moment.0))
        })?;
        gauge("tjern_job_last_run_seconds", "How long the last run took", &|job| {
            job.last.as_ref().map(|run| seconds(run.ended.0.saturating_sub(run.began.0)))
        })
    }
}

/// `_total` is added to the names.
fn counters(encoder: &mut DescriptorEncoder<'_>, jobs: &[(String, JobState)]) -> fmt::Result {
    let mut family = encoder.encode_descriptor("tjern_job_runs", "Runs that ended", None, MetricType::Counter)?;
    for (job, state) in jobs {
        let outcomes = [("done", state.done), ("failed", state.failed), ("held_elsewhere", state.held_elsewhere)];
        for (outcome, count) in outcomes {
            let labels: Labels = vec![("job", job.clone()), ("outcome", outcome.to_owned())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
    }
    let mut family = encoder.encode_descriptor("tjern_job_busy_seconds", "Time at work", None, MetricType::Counter)?;
    for (job, state) in jobs {
        family.encode_family(&labels(job))?.encode_counter::<NoLabelSet, _, f64>(&seconds(state.busy_us), None)?;
    }
    let help = "What the runs did, by what is counted (rows, batches, files, …)";
    let mut family = encoder.encode_descriptor("tjern_job_did", help, None, MetricType::Counter)?;
    for (job, state) in jobs {
        for (what, count) in &state.did {
            let labels: Labels = vec![("job", job.clone()), ("what", what.clone())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(count, None)?;
        }
    }
    Ok(())
}

fn labels(job: &str) -> Labels {
    vec![("job", job.to_owned())]
}

#[expect(clippy::cast_precision_loss, reason = "a time")]
fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}
