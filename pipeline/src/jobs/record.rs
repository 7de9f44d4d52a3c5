//! How a job ran last: a small object a job, `jobs/runs/<job>.json` in the lake.
//!
//! It lies in the lake because the same job may run as a daemon's, as a command of cron or on another
//! machine tomorrow, and because `status` and `watch` shall see it from anywhere. The newest run replaces
//! the one before; two at once leave one of the two, which does no harm: a record saves work and guards
//! nothing. A record that cannot be read counts as none.
//!
//! Runs that differ in nothing are written at most once in [`UNCHANGED_EVERY`], since a store bills each put.

use std::time::Duration;

use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys;

use super::states::FAILURES_MAX;

/// How long a run that went as the one before it is not written down.
pub const UNCHANGED_EVERY: Duration = Duration::from_secs(40 * 60);

/// The version of the record's shape.
const FORMAT: u32 = 1;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All was done, also where there was nothing to do.
    Done,
    /// Another process is at it.
    HeldElsewhere,
    /// It failed.
    Failed,
    /// It was told to stop.
    Interrupted,
}

/// A run of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The version of this shape: 1.
    pub format: u32,
    /// Which job.
    pub job: String,
    /// When it began, UTC.
    pub began: Moment,
    /// When it ended, UTC.
    pub ended: Moment,
    /// How it ended.
    pub outcome: Outcome,
    /// What it did, in a sentence.
    pub said: String,
    /// What it did, in numbers.
    #[serde(default)]
    pub did: Map<String, Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is left undone because it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_done: Option<String>,
    /// Whether only a part failed and the rest was done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partly: bool,
    /// How many runs failed in a row, this one included; 0 where it did not.
    #[serde(default)]
    pub failures: u32,
    /// When the last run that did not fail began, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<Moment>,
}

impl Run {
    /// A run that began and ended at these moments, as the first of its job.
    #[must_use]
    pub fn new(job: &str, began_us: i64, ended_us: i64, outcome: Outcome) -> Self {
        Self {
            format: FORMAT,
            job: job.to_owned(),
            began: Moment(began_us),
            ended: Moment(ended_us),
            outcome,
            said: String::new(),
            did: Map::new(),
            error: None,
            not_done: None,
            partly: false,
            failures: u32::from(outcome == Outcome::Failed),
            succeeded: (outcome == Outcome::Done).then_some(Moment(began_us)),
        }
    }

    /// The same, as the one that came after `before`.
    #[must_use]
    pub fn after(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        match self.outcome {
            Outcome::Failed => self.failures = before.failures.saturating_add(1),
            Outcome::HeldElsewhere | Outcome::Interrupted => self.failures = before.failures,
            Outcome::Done => {}
        }
        self.succeeded = self.succeeded.or(before.succeeded);
        self
    }

    /// Whether it has to be written down, given what is written.
    #[must_use]
    pub fn is_news(&self, written: Option<&Self>) -> bool {
        // The other process writes of itself.
        if self.outcome == Outcome::HeldElsewhere {
            return false;
        }
        let Some(written) = written else { return true };
        if self.failures >= FAILURES_MAX && written.failures < FAILURES_MAX {
            return true;
        }
        let age_us = self.began.0.saturating_sub(written.began.0);
        let old = u128::try_from(age_us).is_ok_and(|age_us| age_us >= UNCHANGED_EVERY.as_micros());
        old || age_us < 0 || self.outcome != written.outcome || self.error != written.error
    }
}

/// A moment in microseconds since 1970, written as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

impl std::fmt::Display for Moment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(formatter, "{time}"),
            Err(_) => write!(formatter, "{} µs", self.0),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time: Timestamp = String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(time.as_microsecond()))
    }
}

/// Writes a run down, in place of the one before.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn write(lake: &Lake, run: &Run) -> Result<(), LakeError> {
    let key = keys::job_run(&run.job);
    let bytes = serde_json::to_vec(run).unwrap_or_default();
    let put = lake.objects().put(&key, PutPayload::from(bytes)).await;
    put.map(drop).map_err(|source| LakeError::store(&key, source))
}

/// How a job ran last; `None` where it never ran, or what is written of it cannot be read.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn read(lake: &Lake, job: &str) -> Result<Option<Run>, LakeError> {
    read_key(lake, &keys::job_run(job)).await
}

/// How all jobs ran last that ever did, by name.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn read_all(lake: &Lake) -> Result<Vec<Run>, LakeError> {
    let folder = keys::job_runs();
    let listed = lake.objects().list(Some(&folder)).try_collect::<Vec<_>>().await;
    let mut found: Vec<_> = listed.map_err(|source| LakeError::store(&folder, source))?;
    found.sort_by(|one, other| one.location.cmp(&other.location));
    let mut runs = Vec::with_capacity(found.len());
    for meta in found {
        runs.extend(read_key(lake, &meta.location).await?);
    }
    Ok(runs)
}

/// The run at a key of [`keys::job_runs`].
pub(crate) async fn read_key(lake: &Lake, key: &object_store::path::Path) -> Result<Option<Run>, LakeError> {
    let failed = |source| LakeError::store(key, source);
    let found = match lake.objects().get(key).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let bytes = found.bytes().await.map_err(failed)?;
    Ok(serde_json::from_slice::<Run>(&bytes).ok().filter(|run| run.format == FORMAT))
}
