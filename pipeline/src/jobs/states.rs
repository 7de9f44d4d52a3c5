//! How the jobs of this process fare: what `/health` and `/metrics` show, gathered while they run.
//!
//! It starts empty with the process; what lasts is in the lake (`record`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::record::{Moment, Outcome, Run};

/// From so many failures in a row on a job is failing: one may be a hiccup of the store.
pub const FAILURES_MAX: u32 = 3;

/// A job that is due for so long and has not begun, or is at work for so long, is late.
pub const LATE_AFTER_US: i64 = 60 * 60 * 1_000_000;

/// What is known of the jobs of this process. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct States(Arc<Mutex<BTreeMap<String, JobState>>>);

/// What is known of a job.
#[derive(Debug, Clone, Default)]
pub struct JobState {
    /// When it is due, in words.
    pub schedule: String,
    /// How often it ended how, in this process.
    pub done: u64,
    /// See `done`.
    pub failed: u64,
    /// See `done`.
    pub held_elsewhere: u64,
    /// How long it was at work, in this process, in microseconds.
    pub busy_us: i64,
    /// The sums of what it did, in numbers.
    pub did: BTreeMap<String, u64>,
    /// How it ran last, perhaps before this process.
    pub last: Option<Run>,
    /// Since when it is at work.
    pub running_since_us: Option<i64>,
    /// When it is due next.
    pub next_us: Option<i64>,
}

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It does its work.
    Ok,
    /// It failed [`FAILURES_MAX`] times in a row.
    Failing,
    /// It should have begun, or ended, long ago.
    Late,
}

/// How a job is, as `/health` tells it.
#[derive(Debug, Clone, Serialize)]
pub struct JobHealth {
    /// In a word.
    pub status: Condition,
    /// When it is due, in words.
    pub schedule: String,
    /// When it is due next, UTC.
    pub next: Option<Moment>,
    /// Since when it is at work, UTC.
    pub running_since: Option<Moment>,
    /// How many runs failed in a row.
    pub failures: u32,
    /// How it ran last.
    pub last: Option<Run>,
}

impl JobState {
    /// How the job is at this moment.
    #[must_use]
    pub fn condition(&self, now_us: i64) -> Condition {
        if self.failures() >= FAILURES_MAX {
            return Condition::Failing;
        }
        let waits_since = self.running_since_us.or(self.next_us);
        let late = waits_since.is_some_and(|since_us| now_us.saturating_sub(since_us) > LATE_AFTER_US);
        if late { Condition::Late } else { Condition::Ok }
    }

    /// How many runs failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.last.as_ref().map_or(0, |run| run.failures)
    }

    /// As `/health` tells it.
    #[must_use]
    pub fn health(&self, now_us: i64) -> JobHealth {
        JobHealth {
            status: self.condition(now_us),
            schedule: self.schedule.clone(),
            next: self.next_us.map(Moment),
            running_since: self.running_since_us.map(Moment),
            failures: self.failures(),
            last: self.last.clone(),
        }
    }
}

impl States {
    /// All jobs, as they are now.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, JobState> {
        self.lock().clone()
    }

    /// How all jobs are, by name, and whether all are well.
    #[must_use]
    pub fn health(&self, now_us: i64) -> (bool, BTreeMap<String, JobHealth>) {
        let jobs: BTreeMap<_, _> =
            self.lock().iter().map(|(name, state)| (name.clone(), state.health(now_us))).collect();
        (jobs.values().all(|job| job.status == Condition::Ok), jobs)
    }

    /// A job is to come; what is known of it already stays.
    pub(super) fn announce(&self, name: &str, schedule: String) {
        self.lock().entry(name.to_owned()).or_insert(JobState { schedule, ..JobState::default() });
    }

    pub(super) fn add(&self, name: &str, schedule: String, last: Option<Run>, next_us: i64) {
        let state = JobState { schedule, last, next_us: Some(next_us), ..JobState::default() };
        self.lock().insert(name.to_owned(), state);
    }

    pub(super) fn is_due(&self, name: &str, next_us: i64) {
        if let Some(state) = self.lock().get_mut(name) {
            state.next_us = Some(next_us);
        }
    }

    pub(super) fn began(&self, name: &str, now_us: i64) {
        if let Some(state) = self.lock().get_mut(name) {
            state.running_since_us = Some(now_us);
        }
    }

    pub(super) fn ended(&self, run: &Run, next_us: i64) {
        let mut jobs = self.lock();
        let Some(state) = jobs.get_mut(&run.job) else { return };
        match run.outcome {
            Outcome::Done => state.done += 1,
            Outcome::Failed => state.failed += 1,
            Outcome::HeldElsewhere => state.held_elsewhere += 1,
            Outcome::Interrupted => {}
        }
        for (name, value) in &run.did {
            if let Some(number) = value.as_u64() {
                *state.did.entry(name.clone()).or_default() += number;
            }
        }
        state.busy_us = state.busy_us.saturating_add(run.ended.0.saturating_sub(run.began.0).max(0));
        state.running_since_us = None;
        state.next_us = Some(next_us);
        state.last = Some(run.clone());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, JobState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
