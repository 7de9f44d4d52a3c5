//! Readings that were taken before their configuration was there are held against it once it is.
//!
//! It is looked for at no cost: each listing of the landing zone shows the configurations that lie there, and a batch that
//! names it asks for it anyway. What is found is done as if it had been there in time: readings of a sensor whose unit is
//! another one than the register's get quality 4 and the cause `unit`, in place, as quality control sets flags, and so
//! that a replay gives the same rows. A row of a higher revision would not do: what ingest refused counts after what it
//! accepted, whatever the revisions (`docs/decisions/0030-…`, `0036-…`).
//!
//! **No other column changes** ([`crate::anew`]). Each commit stands on the files that were read, moves `ingest`, so that of two
//! ingesters one is refused, and `corrections`, so that nobody corrects what it changes; the last one says that the
//! configuration's readings are checked. So a crash at any place repeats nothing and leaves nothing out. What a
//! person has said of a reading since, a row of its own or that it is valid, stays as it is.
//!
//! **Nobody erases meanwhile.** From before the version is known whose files are read, until what was written of them is
//! committed or let go, the lease of quality control is held, which an erasure takes too: no file that it did not
//! see has a row that it was to remove. Where another process has the lease, the check rests; where it lost the lease (a machine that
//! stood still), it removes what it wrote and begins anew.
//!
//! **No batch waits for it.** Files are read and written by a task of its own (`search`); a look waits for it at most
//! [`LOOK_WAITS`], makes at most one commit, and comes back to it at the next one. What was found is kept for as long as its files are
//! there, whoever commits meanwhile.
//!
//! Limits: one configuration at a time. A failure keeps nobody's batches: it is told, and that configuration is tried again after a
//! minute, then after pauses that double up to an hour.

mod search;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tjern_lake::{KeptLease, Lease};
use tjern_readings::clock::SECOND_US;

use super::configurations::{Configurations, Steps};
use super::gathered::Gathered;
use super::refused::Why;
use super::rows::Units;
use super::take::CommitFailure;
use super::unchecked::{self, Name};
use super::{IngestError, IngestOutcome, Ingester};
use crate::correct::CORRECTIONS;
use crate::quality;
use crate::register::{Register, Said};
use crate::tables::ATTEMPTS_MAX;
use search::{Found, Search, Wrong};

/// For how long a look waits for a search. One that takes longer goes on beside ingest.
const LOOK_WAITS: Duration = Duration::from_secs(1);

/// For how long checks rest where another process has the lease.
const LEASED_PAUSE_US: i64 = 10 * SECOND_US;

/// Which configurations are there, and the one that is being checked.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Seen in the landing zone, and not checked yet.
    there: BTreeSet<Name>,
    checking: Option<Checking>,
    /// Until when another process is left alone.
    rests_until_us: i64,
    /// How often in a row somebody else was before.
    overtaken: usize,
}

/// A configuration whose readings are being checked, under the lease.
#[derive(Debug)]
struct Checking {
    name: Name,
    lease: KeptLease,
    /// What the register said when it began.
    said: Arc<Said>,
    /// Files without a reading that fails.
    clean: HashSet<String>,
    /// The search, and how often readings had been corrected when it began.
    search: Option<(Search, i64)>,
}

/// What became of a configuration in a look.
enum Came {
    /// A commit was made.
    Committed,
    /// The next look goes on.
    UnderWay,
    /// There is nothing to be done.
    Nothing,
}

impl Checks {
    fn rests(&self, now_us: i64) -> bool {
        // A clock that was set back ends the pause.
        (now_us..=now_us.saturating_add(LEASED_PAUSE_US)).contains(&self.rests_until_us.saturating_sub(1))
    }

    fn overtaken(&mut self) -> Result<Came, IngestError> {
        self.overtaken += 1;
        if self.overtaken > ATTEMPTS_MAX { Err(IngestError::Overtaken) } else { Ok(Came::UnderWay) }
    }
}

impl Ingester {
    /// Goes on with checking what was taken without its configuration, where that is there now: among those that a
    /// listing has seen, or named again by a batch that was taken. At most one commit, within a bounded time.
    pub(super) async fn check_late(&mut self, seen: &BTreeSet<Name>, outcome: &mut IngestOutcome) {
        let unchecked = &self.known.unchecked;
        self.held.still_unchecked(|name| unchecked.contains_key(name));
        self.checks.there.extend(seen.iter().filter(|name| unchecked.contains_key(*name)).cloned());
        let now_us = self.lake.clock().now_us();
        let mut tried = BTreeSet::new();
        while let Some(name) = self.due_for_check(&tried, now_us) {
            match Box::pin(self.check(&name, outcome)).await {
                Ok(Came::Committed) => return self.held.checked(&name),
                Ok(Came::UnderWay) => return,
                Ok(Came::Nothing) => {}
                Err(error) => {
                    let key = unchecked::key(&name);
                    tracing::warn!(%key, %error, "readings cannot be held against their configuration; it is tried again");
                    self.held.check_failed(&name, format!("readings are not held against `{key}`: {error}"), now_us);
                    self.end_check().await;
                }
            }
            tried.insert(name);
        }
    }

    /// Checks all that can be checked now.
    pub(super) async fn check_to_the_end(&mut self, outcome: &mut IngestOutcome) {
        while self.due_for_check(&BTreeSet::new(), self.lake.clock().now_us()).is_some() {
            self.check_late(&BTreeSet::new(), outcome).await;
        }
    }

    /// Lets go of what is under way, and gives its lease back: for who uses the ingester no more.
    pub async fn leave(mut self) {
        self.end_check().await;
    }

    /// The configuration that is being checked, or else the next one that is there.
    fn due_for_check(&self, tried: &BTreeSet<Name>, now_us: i64) -> Option<Name> {
        if let Some(checking) = &self.checks.checking {
            return Some(checking.name.clone());
        }
        if self.checks.rests(now_us) {
            return None;
        }
        let is_there = |name: &Name| self.checks.there.contains(name) || self.units.contains_key(&unchecked::key(name));
        let is_due = |name: &&Name| is_there(name) && !tried.contains(*name) && !self.held.check_rests(name, now_us);
        self.known.unchecked.keys().find(is_due).cloned()
    }

    async fn check(&mut self, name: &Name, outcome: &mut IngestOutcome) -> Result<Came, IngestError> {
        let is_known = self.checks.checking.as_ref().is_some_and(|checking| checking.search.is_some());
        if !is_known && let Some(came) = self.begin_check(name).await? {
            return Ok(came);
        }
        let Some((search, _)) = self.checks.checking.as_mut().and_then(|checking| checking.search.as_mut()) else {
            return Ok(Came::UnderWay);
        };
        match search.found(LOOK_WAITS).await {
            None => Ok(Came::UnderWay),
            Some(found) => Box::pin(self.replace(name, found.map_err(Box::new)?, outcome)).await,
        }
    }

    /// Begins a search; or says why there is none.
    async fn begin_check(&mut self, name: &Name) -> Result<Option<Came>, IngestError> {
        let Some(wrong) = self.wrong(name).await? else { return Ok(Some(Came::Nothing)) };
        if wrong.sensors.is_empty() {
            // Nothing is to be read, so nothing is to be kept from others.
            self.end_check().await;
            return Box::pin(self.commit_check(name, Found { is_last: true, ..Found::default() })).await.map(Some);
        }
        if self.checks.checking.is_some() {
            self.begin_search(wrong);
            return Ok(None);
        }
        let Some(lease) = Lease::take(&self.lake, quality::JOB, quality::LEASE).await? else {
            self.checks.rests_until_us = self.lake.clock().now_us().saturating_add(LEASED_PAUSE_US);
            return Ok(Some(Came::UnderWay));
        };
        let (lease, said) = (lease.keep(), wrong.said);
        let checking = Checking { name: name.clone(), lease, said, clean: HashSet::new(), search: None };
        self.checks.checking = Some(checking);
        // What was erased before the lease was had is not to be read.
        let Some(wrong) = self.wrong(name).await? else { return Ok(Some(Came::Nothing)) };
        self.begin_search(wrong);
        Ok(None)
    }

    /// Begins a search at the version that the table is pinned at. The lease is held.
    fn begin_search(&mut self, wrong: Wrong) {
        let corrected = self.table.transaction(CORRECTIONS).unwrap_or(0);
        let Some(checking) = &mut self.checks.checking else { return };
        if !Arc::ptr_eq(&checking.said, &wrong.said) {
            checking.clean.clear();
            checking.said = Arc::clone(&wrong.said);
        }
        let search = Search::begin(self.table.clone(), self.bounds.clone(), wrong, checking.clean.clone());
        checking.search = Some((search, corrected));
    }

    /// What is wrong under a configuration, at the table's newest version; none where nothing waits for it, or it is not
    /// there.
    async fn wrong(&mut self, name: &Name) -> Result<Option<Wrong>, IngestError> {
        self.table.refresh().await?;
        self.learn();
        // Somebody else may have done it.
        let unchecked = self.known.unchecked.get(name).copied();
        let units = match unchecked {
            Some(_) => self.units_at(&unchecked::key(name)).await?,
            None => None,
        };
        let Some((unchecked, units)) = unchecked.zip(units) else {
            self.checks.there.remove(name);
            self.end_check().await;
            return Ok(None);
        };
        let said = self.said().await?;
        let sensors = other_units(&units, &said.register);
        let held = self.checks.checking.as_ref().map(|checking| checking.lease.held());
        Ok(Some(Wrong { name: name.clone(), unchecked, sensors, steps: self.steps_of(name), said, held }))
    }

    /// Commits what was found, where that still holds.
    async fn replace(&mut self, name: &Name, found: Found, outcome: &mut IngestOutcome) -> Result<Came, IngestError> {
        self.table.refresh().await?;
        self.learn();
        let said = self.said().await?;
        let corrected = self.table.transaction(CORRECTIONS).unwrap_or(0);
        let Some(checking) = &mut self.checks.checking else { return Ok(Came::UnderWay) };
        checking.clean.extend(found.clean.iter().cloned());
        let Some((search, corrected_then)) = &checking.search else { return Ok(Came::UnderWay) };
        let is_newest = search.version == self.table.version();
        let holds = self.known.unchecked.contains_key(name)
            && Arc::ptr_eq(&said, &checking.said)
            && *corrected_then == corrected
            && found.replaced.remove.iter().all(|file| self.table.is_active(file));
        if !holds {
            checking.search = None;
            return self.checks.overtaken();
        }
        // What came meanwhile may hold some too: another process may not have known the configuration.
        let is_last = found.is_last && is_newest;
        if !is_last && found.replaced.remove.is_empty() {
            checking.search = None;
            return Ok(Came::UnderWay);
        }
        let refused = found.refused.clone();
        let came = self.commit_check(name, Found { is_last, ..found }).await?;
        if matches!(came, Came::Committed) {
            outcome.late_units += refused.values().sum::<usize>();
            for (sensor, readings) in &refused {
                tracing::warn!(source = %name.0, sensor, readings, "a configuration came after its readings, and its unit is not the register's: they are kept and fail");
            }
        }
        Ok(came)
    }

    /// One commit. Where it is refused, what was found is kept for the next look.
    async fn commit_check(&mut self, name: &Name, found: Found) -> Result<Came, IngestError> {
        let Found { replaced, refused, is_last, .. } = found;
        let new: Vec<String> = replaced.add.iter().map(|file| file.path.clone()).collect();
        let mut gathered = Gathered::replacing(replaced);
        gathered.transactions.extend(is_last.then(|| unchecked::done(name)).into_iter().flatten());
        refused.iter().for_each(|(sensor, rows)| gathered.refused.add(Why::Unit, &name.0, sensor, *rows));
        match self.commit(gathered).await {
            Ok(()) => {}
            Err(CommitFailure::Refused) => return self.checks.overtaken(),
            Err(CommitFailure::Failed(error)) => return Err(error),
        }
        self.learn();
        self.checks.overtaken = 0;
        if is_last {
            self.checks.there.remove(name);
            self.end_check().await;
        } else if let Some(checking) = &mut self.checks.checking {
            checking.clean.extend(new);
            checking.search = None;
        }
        Ok(Came::Committed)
    }

    /// Lets go of the check under way, and gives the lease back once nothing is read or written any more.
    pub(super) async fn end_check(&mut self) {
        let Some(Checking { lease, search, .. }) = self.checks.checking.take() else { return };
        self.checks.overtaken = 0;
        if let Some((search, _)) = search {
            search.stop().await;
        }
        if let Err(error) = lease.give_back().await {
            tracing::warn!(%error, "a lease cannot be given back; it runs out by itself");
        }
    }

    /// Which configuration the numbers of a source's streams have, by epoch.
    fn steps_of(&self, (source, _): &Name) -> HashMap<String, Steps> {
        let mut configurations = Configurations::default();
        let streams = self.known.progress.keys().filter(|(of, _)| of == source);
        let steps =
            streams.map(|stream| (stream.1.to_string(), configurations.of(stream, self.table.transactions()).clone()));
        steps.collect()
    }
}

/// The sensors whose unit is another one than the register's.
fn other_units(units: &Units, register: &Register) -> BTreeSet<String> {
    let differs = |sensor: &str, unit: &str| register.get(sensor).is_some_and(|row| row.unit != unit);
    units.iter().filter(|(sensor, unit)| differs(sensor, unit)).map(|(sensor, _)| sensor.clone()).collect()
}
