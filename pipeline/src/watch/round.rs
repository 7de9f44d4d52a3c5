//! A round of the watch: look, compare with what was wrong before, tell.
//!
//! Where the state cannot be written, what changes is told all the same, and the state is kept in memory until it can
//! be: a full disk stops what comes, and is told by nobody else. Two processes both tell then, as one does that is
//! started again.
//!
//! A round in which nothing changes costs the store little: the table's newest version, the jobs' folder, the
//! state. Only where something is to be written or told, a lease is taken and the state read anew, so that of two
//! processes that watch, one tells.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use tjern_lake::{Lake, LakeError, Lease, Table, TableName};
use tjern_readings::keys;

use super::alert::Condition;
use super::look::readings::Slow;
use super::look::strays::Strays;
use super::look::{self, Seen, configurations, disks, holes, jobs, readings, refused, tokens};
use super::settings::WatchSettings;
use super::state::{Alert, State};
use super::tell::{MAIL, tell, ways};
use crate::bounds::Bounds;
use crate::ingest;
use crate::jobs::record::{self, Moment, Run};
use crate::jobs::schedule::Schedule;
use crate::register::{self, Register, RegisterError};

/// The lease's name.
pub(crate) const JOB: &str = "watch";

/// How long a lease lasts: telling takes a minute or two where receivers are slow.
pub(crate) const LEASE: Duration = Duration::from_secs(5 * 60);

/// How old a look at the readings may be; what this process commits is known at once.
const LOOK: Duration = Duration::from_secs(60);

/// How long the register is believed before it is read again.
const REGISTER_US: i64 = 10 * 60 * 1_000_000;

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The register could not be read.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// What was found could not be written down. It was told all the same.
    #[error(
        "the lake cannot be written: {source}; {told} events were told from memory; hint: look for a full disk, or one that may only be read"
    )]
    Unwritten {
        /// How many events were told, each way counted.
        told: usize,
        /// Why.
        source: LakeError,
    },
    /// Something was not told. It stays in its queue.
    #[error("{events} events are not told yet: {why}")]
    Untold {
        /// How many wait, on all ways.
        events: usize,
        /// Why.
        why: String,
    },
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchOutcome {
    /// How much is wrong.
    pub open: usize,
    /// What began.
    pub begun: usize,
    /// What is over.
    pub ended: usize,
    /// Events that were told, each way counted.
    pub told: usize,
    /// Whether another process is telling.
    pub held_elsewhere: bool,
}

/// Keeps what was learned between two rounds.
#[derive(Debug)]
pub struct Watcher {
    settings: WatchSettings,
    schedules: BTreeMap<String, Schedule>,
    register: Option<(i64, Register)>,
    runs: HashMap<Path, (i64, Option<Run>)>,
    slow: Slow,
    strays: Strays,
    bounds: Bounds,
    /// Up to when values that were taken by then were held against their limits.
    values_us: Option<i64>,
    kept: Option<Kept>,
}

/// A state that could not be written.
#[derive(Debug)]
struct Kept {
    state: State,
    /// What stands in the lake instead. Where that is another one by now, somebody could write, and told.
    stored: Option<State>,
}

impl Watcher {
    /// A watch that has looked at nothing yet. `schedules` are those of the jobs.
    #[must_use]
    pub fn new(settings: WatchSettings, schedules: BTreeMap<String, Schedule>) -> Self {
        let (runs, slow, strays) = (HashMap::new(), Slow::default(), Strays::default());
        Self {
            settings,
            schedules,
            register: None,
            runs,
            slow,
            strays,
            bounds: Bounds::default(),
            values_us: None,
            kept: None,
        }
    }

    /// The same, which looks at readings within these bounds.
    #[must_use]
    pub fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Looks, and tells what is new.
    ///
    /// # Errors
    /// [`WatchError`]; what was found is in the state then, or is found again by the next round.
    pub async fn run(&mut self, lake: &Lake) -> Result<WatchOutcome, WatchError> {
        let now_us = lake.clock().now_us();
        let stored = State::read(lake).await?;
        let state = self.state(stored.as_ref(), now_us);
        let (seen, conditions) = self.look(lake, &state, now_us).await?;
        let next = self.next(&state, &seen, &conditions, now_us);
        let quiet = next == state && next.queues.values().all(|queue| queue.events.is_empty());
        if quiet && self.kept.is_none() && !state.is_new(now_us) && state.values.is_some() {
            self.values_us = self.values(&state, &seen, now_us);
            return Ok(WatchOutcome { open: next.alerts.len(), ..WatchOutcome::default() });
        }
        let lease = match Lease::take(lake, JOB, LEASE).await {
            Ok(Some(lease)) => lease,
            Ok(None) => {
                return Ok(WatchOutcome { open: state.alerts.len(), held_elsewhere: true, ..WatchOutcome::default() });
            }
            Err(error) => return Err(self.tell_unwritten(stored, &seen, conditions, error, now_us).await),
        };
        let worked = self.work(lake, &seen, conditions, now_us).await;
        let given_back = lease.give_back().await;
        let outcome = worked?;
        given_back?;
        Ok(outcome)
    }

    /// Writes down what changed, and tells it. The lease is held.
    async fn work(
        &mut self,
        lake: &Lake,
        seen: &Seen,
        conditions: Vec<Condition>,
        now_us: i64,
    ) -> Result<WatchOutcome, WatchError> {
        // Somebody else may have told meanwhile.
        let stored = State::read(lake).await?;
        let state = self.state(stored.as_ref(), now_us);
        let mut next = self.next(&state, seen, &conditions, now_us);
        next.values = self.values(&state, seen, now_us).map(Moment);
        let (begun, ended) = changes(&state, &next);
        if let Err(error) = next.write(lake).await {
            return Err(self.tell_unwritten(stored, seen, conditions, error, now_us).await);
        }
        self.kept = None;
        self.values_us = next.values.map(|values| values.0);
        log(&state, &next);
        let told = tell(&self.settings, Some(lake), &mut next, now_us).await;
        if let Err(WatchError::Lake(_)) = told {
            // What was told is not to be told again.
            self.kept = Some(Kept { stored: State::read(lake).await?, state: next.clone() });
        }
        Ok(WatchOutcome { open: next.alerts.len(), begun, ended, told: told?, held_elsewhere: false })
    }

    /// Tells what changed where it cannot be written down, and why not; keeps it in memory. Returns what the round
    /// ends with.
    async fn tell_unwritten(
        &mut self,
        stored: Option<State>,
        seen: &Seen,
        mut conditions: Vec<Condition>,
        error: LakeError,
        now_us: i64,
    ) -> WatchError {
        let state = self.state(stored.as_ref(), now_us);
        conditions.push(disks::unwritable(&self.settings.lake, &error));
        let mut next = self.next(&state, seen, &conditions, now_us);
        next.values = self.values(&state, seen, now_us).map(Moment);
        self.values_us = next.values.map(|values| values.0);
        log(&state, &next);
        let told = tell(&self.settings, None, &mut next, now_us).await;
        self.kept = Some(Kept { state: next, stored });
        match told {
            Ok(told) => WatchError::Unwritten { told, source: error },
            Err(WatchError::Untold { events, why }) => {
                WatchError::Untold { events, why: format!("{why}; and the lake cannot be written: {error}") }
            }
            Err(other) => other,
        }
    }

    /// The state to go on from: what is kept in memory, unless the lake has another one by now; else what is `stored`.
    fn state(&self, stored: Option<&State>, now_us: i64) -> State {
        let kept = self.kept.as_ref().filter(|kept| kept.stored.as_ref() == stored);
        let known = kept.map(|kept| &kept.state).or(stored);
        known.cloned().unwrap_or_else(|| State::new(now_us))
    }

    fn next(&self, state: &State, seen: &Seen, conditions: &[Condition], now_us: i64) -> State {
        let mut next = state.clone();
        let ways = ways(&self.settings);
        let ways: Vec<&str> = ways.iter().map(String::as_str).collect();
        // An earlier version had one queue for all receivers.
        next.share(MAIL, &ways);
        next.heard(seen.sources.clone(), now_us);
        next.refused = next.refused.max(seen.refused_us.map_or(next.refused, Moment));
        next.update(conditions, &ways, now_us);
        next
    }

    /// Since when what was taken is new to the watch. A clock that was ahead for once must not hide what comes after it.
    fn since_us(&self, state: &State, now_us: i64) -> Option<i64> {
        let known = self.values_us.max(state.values.map(|values| values.0));
        known.map(|known_us| known_us.min(now_us))
    }

    /// The same for the next round. Without a reading it is from now on.
    fn values(&self, state: &State, seen: &Seen, now_us: i64) -> Option<i64> {
        let seen_us = seen.taken_us().map(|taken_us| taken_us.min(now_us));
        seen_us.max(self.since_us(state, now_us)).or(Some(now_us))
    }

    /// All that is wrong now.
    async fn look(&mut self, lake: &Lake, state: &State, now_us: i64) -> Result<(Seen, Vec<Condition>), WatchError> {
        let register = self.register(lake, now_us).await?;
        let table = Table::open_within(lake, TableName::Readings, LOOK).await?;
        let settings = &self.settings;
        let zone = &settings.timezone;
        let paths: Vec<_> = settings.lake.local_folder().into_iter().chain(settings.disks.clone()).collect();
        let mut conditions = disks::disks(&paths, settings.disk_free);
        conditions.extend(tokens::tokens(&settings.tokens, settings.token_warning, now_us, zone));
        let mut seen = Seen { from_us: now_us, ..Seen::default() };
        if let Some(table) = table {
            let (silent, since_us) = (settings.source_silent, self.since_us(state, now_us));
            let ways = readings::Ways { register: &register, silent, since_us, bounds: &self.bounds };
            seen = readings::look(lake, &table, ways, &mut self.slow).await?;
            conditions.extend(holes::holes(&ingest::open_runs(&table)));
            let refusals = ingest::refused(&table);
            seen.refused_us = refusals.iter().map(|one| one.last_us).max();
            conditions.extend(refused::refused(&refusals, &register, state.refused.0, now_us, zone));
            conditions.extend(configurations::configurations(&ingest::missing_configurations(&table), zone));
            conditions.extend(holes::dropped(&ingest::dropped(&table), now_us, zone));
        }
        let told = || state.alerts.values().map(Alert::condition).collect();
        conditions.extend(self.strays.look(lake, told).await?);
        let mut known = state.clone();
        known.heard(seen.sources.clone(), now_us);
        let mut heard = known.newest(&seen.sources);
        // One that was forgotten is silent no more.
        heard.retain(|source, _| known.sources.contains_key(source));
        conditions.extend(readings::silent_sources(&heard, settings.source_silent, now_us, zone));
        if !lake.is_personal() {
            // What is measured in a home, and that nothing is measured there any more, is in no message and in no log.
            conditions.extend(readings::late_sensors(&seen, &register, state.born.0, now_us, zone));
            conditions.extend(look::limits(&seen, &settings.limits, zone));
        }
        let runs = self.runs(lake).await?;
        conditions.extend(jobs::jobs(&runs, &self.schedules, now_us, &self.settings.timezone));
        Ok((seen, conditions))
    }

    async fn register(&mut self, lake: &Lake, now_us: i64) -> Result<Register, WatchError> {
        match &self.register {
            Some((read_us, register)) if (0..REGISTER_US).contains(&(now_us - read_us)) => Ok(register.clone()),
            _ => {
                let register = register::load(lake).await?;
                self.register = Some((now_us, register.clone()));
                Ok(register)
            }
        }
    }

    /// How all jobs ran last; what did not change since the last round is not read again. The watch itself is
    /// left out: it cannot tell that it does not run.
    async fn runs(&mut self, lake: &Lake) -> Result<Vec<Run>, WatchError> {
        let folder = keys::job_runs();
        let listed = lake.objects().list(Some(&folder)).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|source| LakeError::store(&folder, source))?;
        let mut known = HashMap::new();
        for meta in listed {
            let changed_us = meta.last_modified.timestamp_micros();
            let run = match self.runs.remove(&meta.location) {
                Some((read_us, run)) if read_us == changed_us => run,
                _ => record::read_key(lake, &meta.location).await?,
            };
            known.insert(meta.location, (changed_us, run));
        }
        self.runs = known;
        let mut runs: Vec<Run> = self.runs.values().filter_map(|(_, run)| run.clone()).collect();
        runs.retain(|run| run.job != "watch");
        runs.sort_by(|one, other| one.job.cmp(&other.job));
        Ok(runs)
    }
}

impl State {
    /// Whether nothing of it is in the lake yet.
    fn is_new(&self, now_us: i64) -> bool {
        self.born.0 == now_us
    }
}

/// What begins and what is over is in the log too: a city that named nobody to tell still has that.
fn log(before: &State, after: &State) {
    for (key, alert) in after.alerts.iter().filter(|(key, _)| !before.alerts.contains_key(*key)) {
        tracing::warn!(alert = key, "begun: {}", alert.text);
    }
    for (key, alert) in before.alerts.iter().filter(|(key, _)| !after.alerts.contains_key(*key)) {
        if after.has_forgotten(alert) {
            tracing::info!(alert = key, "forgotten: {}", alert.text);
        } else {
            tracing::info!(alert = key, "over: {}", alert.text);
        }
    }
}

/// How many alerts began and ended between two states.
fn changes(before: &State, after: &State) -> (usize, usize) {
    let is_in = |state: &State, key: &String, since| state.alerts.get(key).is_some_and(|alert| alert.since == since);
    let begun = after.alerts.iter().filter(|(key, alert)| !is_in(before, key, alert.since)).count();
    let is_over = |(key, alert): &(&String, &Alert)| !is_in(after, key, alert.since) && !after.has_forgotten(alert);
    let ended = before.alerts.iter().filter(is_over).count();
    (begun, ended)
}

#[cfg(test)]
mod tests;
