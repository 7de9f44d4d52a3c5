//! Jobs that fail, or have not run for too long.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::super::alert::{Condition, Kind};
use super::local;
use crate::jobs::record::{Outcome, Run};
use crate::jobs::schedule::Schedule;
use crate::jobs::states::FAILURES_MAX;

/// A job that failed and was not repeated since is told after so long.
const FAILED_US: i64 = 15 * 60 * 1_000_000;

/// How late a job may be beyond two further slots.
const LATE_US: i64 = 60 * 60 * 1_000_000;

/// Jobs that failed several times in a row, or whose slots passed without a run.
#[must_use]
pub fn jobs(runs: &[Run], schedules: &BTreeMap<String, Schedule>, now_us: i64, timezone: &TimeZone) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for run in runs {
        let stale = now_us.saturating_sub(run.ended.0) > FAILED_US;
        if run.outcome == Outcome::Failed && (run.failures >= FAILURES_MAX || stale) {
            let error = run.error.as_deref().unwrap_or("it did not say why");
            let undone = run.not_done.as_deref().unwrap_or_default();
            let text = format!("the job {} fails: {error}; not done: {undone}", run.job);
            conditions.push(Condition { kind: Kind::JobFailed, subject: run.job.clone(), text });
            continue;
        }
        let Some(schedule) = schedules.get(&run.job) else { continue };
        if is_late(run, schedule, now_us, timezone) {
            let text = format!("the job {} has not run since {}", run.job, local(run.began.0, timezone));
            conditions.push(Condition { kind: Kind::JobLate, subject: run.job.clone(), text });
        }
    }
    conditions
}

fn is_late(run: &Run, schedule: &Schedule, now_us: i64, timezone: &TimeZone) -> bool {
    let due_us = schedule.due_us(Some(run.began.0), now_us, timezone);
    let again_us = match schedule {
        Schedule::Every(every) => due_us.saturating_add(micros(every.saturating_mul(2))),
        Schedule::Cron(_) => due_us,
    };
    now_us.saturating_sub(again_us) > LATE_US
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
