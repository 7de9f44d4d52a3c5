//! When a job is due: so long after its last run began, or at the times of a cron expression in the city's
//! time zone.
//!
//! A run that was missed, because the machine was off or another job was at work, is due at once, and once:
//! what counts is the last run that did not fail, not how many slots have passed. A failed run is repeated
//! after a pause that doubles, see [`Schedule::pause`]. So is one that did nothing because another process is at it: that
//! one may have been killed at it, and its slot would be lost. Pure: the time is given.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tjern_readings::configuration::Period;

use super::cron::Cron;
use super::record::{Outcome, Run};

/// The pause after the first failure.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// The longest pause of a job that is due more often.
const PAUSE_SHORT: Duration = Duration::from_secs(60);
/// The longest pause of any.
const PAUSE_LONG: Duration = Duration::from_secs(10 * 60);

/// When a job is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// So long after its last run began; at once where there was none.
    Every(Duration),
    /// At these times.
    Cron(Cron),
}

impl From<Period> for Schedule {
    fn from(period: Period) -> Self {
        Self::Every(period.duration())
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(every) => write!(formatter, "every {every:?}"),
            Self::Cron(cron) => write!(formatter, "at `{cron}`"),
        }
    }
}

impl Schedule {
    /// When it is due next, given when the last run that did not fail began (microseconds since 1970). What
    /// lies in the past was missed.
    #[must_use]
    pub fn due_us(&self, last_us: Option<i64>, now_us: i64, timezone: &TimeZone) -> i64 {
        // A run of the future was written by a clock that was wrong.
        let last_us = last_us.filter(|last_us| *last_us <= now_us);
        match self {
            Self::Every(every) => last_us.map_or(now_us, |last_us| last_us.saturating_add(micros(*every))),
            Self::Cron(cron) => {
                let after = Timestamp::from_microsecond(last_us.unwrap_or(now_us)).ok();
                let due = after.and_then(|after| cron.next_after(after, timezone));
                due.map_or(i64::MAX, Timestamp::as_microsecond)
            }
        }
    }

    /// How long a job waits after so many failures in a row.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        let longest = match self {
            Self::Every(every) => (*every).clamp(PAUSE_SHORT, PAUSE_LONG),
            Self::Cron(_) => PAUSE_LONG,
        };
        let doublings = failures.saturating_sub(1).min(16);
        PAUSE_FIRST.saturating_mul(1 << doublings).min(longest)
    }
}

/// A job's next turn.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    name: String,
    schedule: Schedule,
    timezone: TimeZone,
    jitter: Duration,
    /// When the last run that did not fail began.
    succeeded_us: Option<i64>,
    /// How often in a row another process was at it.
    held: u32,
    /// When it was decided when the next one is.
    decided_us: i64,
    next_us: i64,
}

impl Turn {
    /// The first turn of a daemon, given how the job ran last, perhaps under another one.
    pub(super) fn first(
        name: &str,
        schedule: &Schedule,
        timezone: &TimeZone,
        jitter: Duration,
        last: Option<&Run>,
        now_us: i64,
    ) -> Self {
        let succeeded_us = last.and_then(|run| run.succeeded).map(|moment| moment.0);
        let mut turn = Self {
            name: name.to_owned(),
            schedule: schedule.clone(),
            timezone: timezone.clone(),
            jitter,
            succeeded_us,
            held: 0,
            decided_us: now_us,
            next_us: now_us,
        };
        // What failed last, or was told to stop, is repeated at once: its slot is not done.
        if last.is_none_or(|run| !matches!(run.outcome, Outcome::Failed | Outcome::Interrupted)) {
            turn.decide(now_us);
        }
        turn
    }

    /// When it is due. A clock that was set back does not keep a job waiting for what it thought before.
    pub(super) fn next_us(&mut self, now_us: i64) -> i64 {
        if now_us < self.decided_us {
            self.succeeded_us = self.succeeded_us.map(|last_us| last_us.min(now_us));
            self.decide(now_us);
        }
        self.next_us
    }

    /// Goes on after a run.
    pub(super) fn ran(&mut self, run: &Run, now_us: i64) {
        let is_held = run.outcome == Outcome::HeldElsewhere;
        self.held = if is_held { self.held.saturating_add(1) } else { 0 };
        if is_held {
            self.repeat(self.held, now_us);
        } else if run.outcome == Outcome::Failed && !run.partly {
            self.repeat(run.failures, now_us);
        } else {
            self.succeeded_us = Some(run.began.0);
            self.decide(now_us);
        }
    }

    /// What was due is not done, for so many times.
    fn repeat(&mut self, times: u32, now_us: i64) {
        self.decided_us = now_us;
        self.next_us = now_us.saturating_add(micros(self.schedule.pause(times)));
    }

    fn decide(&mut self, now_us: i64) {
        let due_us = self.schedule.due_us(self.succeeded_us, now_us, &self.timezone);
        self.decided_us = now_us;
        self.next_us = if due_us > now_us { due_us.saturating_add(self.delay_us(due_us)) } else { now_us };
    }

    /// The same for the same slot of the same job, so that a restart does not move it.
    fn delay_us(&self, due_us: i64) -> i64 {
        let mut hasher = DefaultHasher::new();
        (&self.name, due_us).hash(&mut hasher);
        let jitter_us = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        i64::try_from(hasher.finish() % jitter_us.saturating_add(1)).unwrap_or(0)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
