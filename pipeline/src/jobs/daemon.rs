//! All jobs on their schedules, until they are told to stop.
//!
//! Three lines run side by side: one ingests, so that a long compaction keeps no reading waiting; one does
//! what else is to be done to the lake, a job at a time, so that memory is asked for once; one watches, also
//! the other two. Within a line nothing overlaps, and a run that was due while another was at work happens
//! once and not twice. A job that fails says what is not done and is tried again after a pause; none needs
//! anybody to clean up behind it.
//!
//! Stopping waits for no job: one that heeds the word gives its lease back and ends between two commits, any other is left
//! where it waits for the store, as if it had been killed. What it did not finish is done by the next run.
//!
//! Where the lake cannot be written when it starts, it starts all the same: jobs fail until it can be, and are tried again
//! ([`super::prepared`]). What keeps all of them from their work is told once for all, and what goes on is told more and more
//! seldom ([`super::quiet`]).
//!
//! Waiting goes by the wall clock, which is looked at once a minute: one that was set is noticed.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::tz::TimeZone;
use tjern_lake::{Lake, LakeError};
use tokio_util::sync::CancellationToken;

use super::job::JobError;
use super::list::{Entry, Line, entries_of};
use super::once::{Finished, once};
use super::prepared::Prepared;
use super::quiet::Quiet;
use super::record::{self, Outcome, Run};
use super::schedule::Turn;
use super::settings::JobSettings;
use super::states::States;

/// How long is waited before the clock is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Says in `states` which jobs there will be, before any of them was looked at: whoever asks for one in the first moments is not told
/// that there is no such job.
pub fn announce(lake: &Lake, settings: &JobSettings, states: &States) {
    announce_entries(&entries_of(lake, settings), &settings.off, states);
}

fn announce_entries(entries: &[Entry], off: &BTreeSet<String>, states: &States) {
    for entry in entries.iter().filter(|entry| !off.contains(&entry.name)) {
        states.announce(&entry.name, entry.schedule.to_string());
    }
}

/// Runs all jobs until `stop` is cancelled, and says in `states` how they fare.
pub async fn run(lake: Lake, settings: JobSettings, states: States, stop: CancellationToken) {
    let entries = entries_of(&lake, &settings).into_iter().filter(|entry| !settings.off.contains(&entry.name));
    let entries = entries.map(prepared);
    let rhythm = Rhythm { timezone: settings.timezone, jitter: settings.jitter };
    run_entries(&lake, entries.collect(), &rhythm, &states, &stop).await;
}

/// The same entry, of a job that waits for its lake to be ready. The watch waits for nothing: it tells that the lake cannot be
/// written.
fn prepared(entry: Entry) -> Entry {
    if entry.line == Line::Watch { entry } else { Entry { job: Box::new(Prepared(entry.job)), ..entry } }
}

/// What the turns of all jobs go by.
struct Rhythm {
    timezone: TimeZone,
    jitter: Duration,
}

async fn run_entries(lake: &Lake, entries: Vec<Entry>, rhythm: &Rhythm, states: &States, stop: &CancellationToken) {
    let mut lines: [Vec<Waiting>; 3] = Default::default();
    for entry in entries {
        let line = match entry.line {
            Line::Ingest => 0,
            Line::Upkeep => 1,
            Line::Watch => 2,
        };
        lines[line].push(Waiting::new(lake, rhythm, entry, states).await);
    }
    let told = Told::default();
    join_all(lines.into_iter().map(|jobs| Box::pin(keep(lake, jobs, states, &told, stop)))).await;
}

/// A job that waits for its turn.
struct Waiting {
    entry: Entry,
    turn: Turn,
    /// How it ran last, and what of it is written in the lake.
    last: Option<Run>,
    written: Option<Run>,
}

impl Waiting {
    async fn new(lake: &Lake, rhythm: &Rhythm, entry: Entry, states: &States) -> Self {
        let name = &entry.name;
        let last = record::read(lake, name).await.unwrap_or_else(|error| {
            tracing::warn!(job = name, %error, "how a job ran last cannot be read; it is run as if for the first time");
            None
        });
        let now_us = lake.clock().now_us();
        let mut turn = Turn::first(name, &entry.schedule, &rhythm.timezone, rhythm.jitter, last.as_ref(), now_us);
        states.add(name, entry.schedule.to_string(), last.clone(), turn.next_us(now_us));
        Self { turn, written: last.clone(), last, entry }
    }
}

async fn keep(lake: &Lake, mut jobs: Vec<Waiting>, states: &States, told: &Told, stop: &CancellationToken) {
    loop {
        let now_us = lake.clock().now_us();
        let turns = jobs.iter_mut().map(|job| {
            let next_us = job.turn.next_us(now_us);
            // Another one than was told, where the clock was set back.
            states.is_due(&job.entry.name, next_us);
            (next_us, job)
        });
        let Some((next_us, job)) = turns.min_by_key(|(next_us, _)| *next_us) else { return };
        if stop.is_cancelled() {
            break;
        }
        if next_us <= now_us {
            run_once(lake, job, states, told, stop).await;
            continue;
        }
        let wait = Duration::from_micros(u64::try_from(next_us - now_us).unwrap_or_default()).min(LOOK_EVERY);
        let _ = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
    // What was uploaded at the very end is taken too. It is known to a job that heeds the word that this is the end.
    let never = CancellationToken::new();
    for job in jobs.iter_mut().filter(|job| job.entry.line == Line::Ingest) {
        let stop = if job.entry.job.heeds_stop() { stop } else { &never };
        run_once(lake, job, states, told, stop).await;
    }
}

async fn run_once(lake: &Lake, waiting: &mut Waiting, states: &States, told: &Told, stop: &CancellationToken) {
    let Entry { name, job, line, .. } = &mut waiting.entry;
    states.began(name, lake.clock().now_us());
    let finished = Box::pin(once(name, job.as_mut(), lake, waiting.last.as_ref(), stop)).await;
    let now_us = lake.clock().now_us();
    waiting.turn.ran(&finished.run, now_us);
    let next_us = waiting.turn.next_us(now_us);
    // Known before it is told: who reads the log and asks then shall not hear of the run before.
    states.ended(&finished.run, next_us);
    if *line != Line::Watch && finished.run.outcome == Outcome::Done {
        told.lake_is_ready();
    }
    // What a part of the work waits for is told once, and not every few seconds.
    let is_told = finished.run.partly && waiting.last.as_ref().is_some_and(|last| last.error == finished.run.error);
    if !is_told {
        told.of_a_run(name, &finished, next_us, now_us);
    }
    let run = finished.run;
    if run.is_news(waiting.written.as_ref()) {
        match record::write(lake, &run).await {
            Ok(()) => {
                told.written();
                waiting.written = Some(run.clone());
            }
            Err(error) => told.unwritten(name, &error, now_us),
        }
    }
    waiting.last = Some(run);
}

/// What the log was told of what goes on.
#[derive(Debug, Default)]
struct Told(Mutex<Quiet>);

impl Told {
    /// What it is told about beside the jobs, whose names are single words: that no job can work, and that none is written down.
    const LAKE: &str = "the lake";
    const RECORDS: &str = "the records";

    fn of_a_run(&self, name: &str, finished: &Finished, next_us: i64, now_us: i64) {
        let Finished { run, worked, error } = finished;
        match error {
            Some(JobError::Interrupted) => {}
            Some(JobError::NotReady(error)) => {
                if self.quiet().tells(Self::LAKE, error, now_us) {
                    tracing::error!("no job works: {error}; what is to be done waits, each job tries again by itself");
                }
            }
            Some(JobError::Partly { error, done }) => {
                tracing::error!(job = name, "partly failed: {error}; done: {}", done.said);
            }
            Some(error) => {
                if !self.quiet().tells(name, &error.to_string(), now_us) {
                    return;
                }
                let not_done = run.not_done.as_deref().unwrap_or_default();
                let seconds = next_us.saturating_sub(now_us) / 1_000_000;
                tracing::error!(
                    job = name,
                    failures = run.failures,
                    "failed: {error}; not done: {not_done}; it is tried again in {seconds} s"
                );
            }
            None => {
                let is_over = run.outcome == Outcome::Done && self.quiet().is_over(name);
                if *worked {
                    tracing::info!(job = name, "{}", run.said);
                } else if is_over {
                    tracing::info!(job = name, "it does its work again");
                }
            }
        }
    }

    /// A job worked, so that its lake is ready.
    fn lake_is_ready(&self) {
        if self.quiet().is_over(Self::LAKE) {
            tracing::info!("the lake can be worked on again: the jobs go on");
        }
    }

    /// The lake does not take how jobs ran: of all of them for one reason, as a rule.
    fn unwritten(&self, name: &str, error: &LakeError, now_us: i64) {
        let mut quiet = self.quiet();
        // Where no job works that says it all.
        if !quiet.is_told(Self::LAKE) && quiet.tells(Self::RECORDS, "", now_us) {
            tracing::warn!(job = name, %error, "how a job ran cannot be written down");
        }
    }

    fn written(&self) {
        self.quiet().is_over(Self::RECORDS);
    }

    fn quiet(&self) -> MutexGuard<'_, Quiet> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
