//! Readings that were taken before their configuration was there, or before their sensor's first line in the register, are held
//! against it once it is.
//!
//! A configuration is looked for at no cost: each listing of the landing zone shows those that lie there, and a batch that
//! names one asks for it anyway. Of first lines `readings` is told by who registers (`register::first`); what this process has
//! registered is known without a request, what another one has with the next version that is read. What is found is done as if
//! configuration or line had been there in time: readings of a sensor whose unit is
//! another one than the register's get quality 4 and the cause `unit`, and those of a source that it does not name
//! `not_assigned`, in place, as quality control sets flags, and so
//! that a replay gives the same rows. A row of a higher revision would not do: what ingest refused counts after what it
//! accepted, whatever the revisions (`docs/decisions/0030-…`, `0036-…`, `0041-…`).
//!
//! **No other column changes** ([`crate::anew`]). Each commit stands on the files that were read, moves `ingest`, so that of two
//! ingesters one is refused, and `corrections`, so that nobody corrects what it changes; the last one says that the
//! readings are held. So a crash at any place repeats nothing and leaves nothing out. What a
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
//! Limits: one configuration at a time, and all first lines together. A failure keeps nobody's batches: it is told, and that subject is tried again after a
//! minute, then after pauses that double up to an hour.

mod search;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tjern_lake::{KeptLease, Lease, Table, TableName};
use tjern_readings::clock::SECOND_US;

use super::configurations::Configurations;
use super::gathered::Gathered;
use super::landing::Stream;
use super::refused::Why;
use super::rows::Units;
use super::take::CommitFailure;
use super::unchecked::{self, Name};
use super::{IngestError, IngestOutcome, Ingester};
use crate::correct::CORRECTIONS;
use crate::quality;
use crate::register::{Register, Said, Unheld};
use crate::tables::ATTEMPTS_MAX;
use search::{Epochs, Found, Refused, Search, Wrong};

/// For how long a look waits for a search. One that takes longer goes on beside ingest.
const LOOK_WAITS: Duration = Duration::from_secs(1);

/// For how long checks rest where another process has the lease.
const LEASED_PAUSE_US: i64 = 10 * SECOND_US;

/// What came after readings that are to be held against it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The configuration that their batches name.
    Configuration(Name),
    /// The first lines of their sensors in the register.
    FirstLines,
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(name) => write!(formatter, "`{}`", unchecked::key(name)),
            Self::FirstLines => formatter.write_str("the lines of sensors that are new in the register"),
        }
    }
}

/// Which configurations are there, and what is being checked.
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

/// What readings are being held against, under the lease.
#[derive(Debug)]
struct Checking {
    subject: Subject,
    lease: KeptLease,
    /// What the register said when it began.
    said: Arc<Said>,
    /// Files without a reading that fails.
    clean: HashSet<String>,
    /// The search, and how often readings had been corrected when it began.
    search: Option<(Search, i64)>,
}

/// What became of a subject in a look.
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
    /// Goes on with holding readings against what came after them: configurations that a listing has seen, or that were
    /// named again by a batch that was taken, and first lines. At most one commit, within a bounded time.
    pub(super) async fn check_late(&mut self, seen: &BTreeSet<Name>, outcome: &mut IngestOutcome) {
        self.hear_of_first_lines().await;
        let known = &self.known;
        self.held.still_unchecked(|subject| match subject {
            Subject::Configuration(name) => known.unchecked.contains_key(name),
            Subject::FirstLines => known.unheld.is_some(),
        });
        self.checks.there.extend(seen.iter().filter(|name| known.unchecked.contains_key(*name)).cloned());
        let now_us = self.lake.clock().now_us();
        let mut tried = BTreeSet::new();
        while let Some(subject) = self.due_for_check(&tried, now_us) {
            match Box::pin(self.check(&subject, outcome)).await {
                Ok(Came::Committed) => return self.held.checked(&subject),
                Ok(Came::UnderWay) => return,
                Ok(Came::Nothing) => {}
                Err(error) => {
                    tracing::warn!(%subject, %error, "readings cannot be held against what came after them; it is tried again");
                    let why = format!("readings are not held against {subject}: {error}");
                    self.held.check_failed(&subject, why, now_us);
                    self.end_check().await;
                }
            }
            tried.insert(subject);
        }
    }

    /// What this process has told `readings` since, which costs no request. What fails here is found by the next look.
    async fn hear_of_first_lines(&mut self) {
        let known = Table::open_within(&self.lake, TableName::Readings, Duration::MAX).await;
        let Ok(Some(known)) = known else { return };
        let is_news = Unheld::of(known.transactions()) != self.known.unheld;
        if is_news && known.version() > self.table.version() && self.table.refresh().await.is_ok() {
            self.learn();
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

    /// What is being checked, or else the next one that is there.
    fn due_for_check(&self, tried: &BTreeSet<Subject>, now_us: i64) -> Option<Subject> {
        if let Some(checking) = &self.checks.checking {
            return Some(checking.subject.clone());
        }
        if self.checks.rests(now_us) {
            return None;
        }
        let is_there =
            |name: &&Name| self.checks.there.contains(*name) || self.units.contains_key(&unchecked::key(name));
        let configurations = self.known.unchecked.keys().filter(is_there).cloned().map(Subject::Configuration);
        let first_lines = self.known.unheld.map(|_| Subject::FirstLines);
        let is_due = |subject: &Subject| !tried.contains(subject) && !self.held.check_rests(subject, now_us);
        first_lines.into_iter().chain(configurations).find(is_due)
    }

    async fn check(&mut self, subject: &Subject, outcome: &mut IngestOutcome) -> Result<Came, IngestError> {
        let is_known = self.checks.checking.as_ref().is_some_and(|checking| checking.search.is_some());
        if !is_known && let Some(came) = self.begin_check(subject).await? {
            return Ok(came);
        }
        let Some((search, _)) = self.checks.checking.as_mut().and_then(|checking| checking.search.as_mut()) else {
            return Ok(Came::UnderWay);
        };
        match search.found(LOOK_WAITS).await {
            None => Ok(Came::UnderWay),
            Some(found) => Box::pin(self.replace(subject, found.map_err(Box::new)?, outcome)).await,
        }
    }

    /// Begins a search; or says why there is none.
    async fn begin_check(&mut self, subject: &Subject) -> Result<Option<Came>, IngestError> {
        let Some(wrong) = self.wrong(subject).await? else { return Ok(Some(Came::Nothing)) };
        if wrong.is_nowhere(&self.table) {
            // Nothing is to be read, so nothing is to be kept from others.
            self.end_check().await;
            let nothing = Found { is_last: true, done: wrong.done, ..Found::default() };
            return Box::pin(self.commit_check(subject, nothing)).await.map(Some);
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
        let checking = Checking { subject: subject.clone(), lease, said, clean: HashSet::new(), search: None };
        self.checks.checking = Some(checking);
        // What was erased before the lease was had is not to be read.
        let Some(wrong) = self.wrong(subject).await? else { return Ok(Some(Came::Nothing)) };
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

    /// What is wrong by a subject, at the table's newest version; none where nothing waits for it, or it is not there.
    async fn wrong(&mut self, subject: &Subject) -> Result<Option<Wrong>, IngestError> {
        self.table.refresh().await?;
        self.learn();
        // Somebody else may have done it.
        let wrong = match subject {
            Subject::Configuration(name) => self.wrong_by_configuration(name).await?,
            Subject::FirstLines => self.wrong_by_first_lines().await?,
        };
        if wrong.is_none() {
            self.end_check().await;
        }
        Ok(wrong)
    }

    async fn wrong_by_configuration(&mut self, name: &Name) -> Result<Option<Wrong>, IngestError> {
        let unchecked = self.known.unchecked.get(name).copied();
        let units = match unchecked {
            Some(_) => self.units_at(&unchecked::key(name)).await?,
            None => None,
        };
        let Some((unchecked, units)) = unchecked.zip(units) else {
            self.checks.there.remove(name);
            return Ok(None);
        };
        let said = self.said().await?;
        let sensors = other_units(&units, &said.register);
        let mut wrong = self.wrong_of(said, unchecked::done(name).into(), |(source, _)| *source == name.0);
        wrong.times_us = Some((unchecked.from_us, unchecked.until_us));
        wrong.differ(name, sensors.clone());
        wrong.sensors = sensors;
        Ok(Some(wrong))
    }

    async fn wrong_by_first_lines(&mut self) -> Result<Option<Wrong>, IngestError> {
        let Some(unheld) = self.known.unheld else { return Ok(None) };
        let said = self.said().await?;
        let sensors = said.register.unheld(unheld);
        let mut wrong = self.wrong_of(said, vec![unheld.done()], |_| true);
        (wrong.sensors, wrong.is_of_first_lines) = (sensors, true);
        Ok(Some(wrong))
    }

    /// Nothing yet, of these streams.
    fn wrong_of(&self, said: Arc<Said>, done: Vec<(String, i64)>, is_of: impl Fn(&Stream) -> bool) -> Wrong {
        let held = self.checks.checking.as_ref().map(|checking| checking.lease.held());
        let (mut configurations, mut steps) = (Configurations::default(), HashMap::<String, Epochs>::new());
        for stream in self.known.progress.keys().filter(|stream| is_of(stream)) {
            let of_stream = configurations.of(stream, self.table.transactions()).clone();
            steps.entry(stream.0.to_string()).or_default().insert(stream.1.to_string(), of_stream);
        }
        Wrong::nothing(said, held, done, steps)
    }

    /// Commits what was found, where that still holds.
    async fn replace(
        &mut self,
        subject: &Subject,
        found: Found,
        outcome: &mut IngestOutcome,
    ) -> Result<Came, IngestError> {
        self.table.refresh().await?;
        self.learn();
        let said = self.said().await?;
        let corrected = self.table.transaction(CORRECTIONS).unwrap_or(0);
        let Some(checking) = &mut self.checks.checking else { return Ok(Came::UnderWay) };
        checking.clean.extend(found.clean.iter().cloned());
        let Some((search, corrected_then)) = &checking.search else { return Ok(Came::UnderWay) };
        let is_newest = search.version == self.table.version();
        let is_open = match subject {
            Subject::Configuration(name) => self.known.unchecked.contains_key(name),
            Subject::FirstLines => self.known.unheld.is_some(),
        };
        let holds = is_open
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
        let came = self.commit_check(subject, Found { is_last, ..found }).await?;
        if matches!(came, Came::Committed) {
            tell(subject, &refused, outcome);
        }
        Ok(came)
    }

    /// One commit. Where it is refused, what was found is kept for the next look.
    async fn commit_check(&mut self, subject: &Subject, found: Found) -> Result<Came, IngestError> {
        let Found { replaced, refused, is_last, done, .. } = found;
        let new: Vec<String> = replaced.add.iter().map(|file| file.path.clone()).collect();
        let mut gathered = Gathered::replacing(replaced);
        gathered.transactions.extend(is_last.then_some(done).into_iter().flatten());
        for ((cause, source, sensor), rows) in &refused {
            // A source that another program wrote, and that is none, is nobody's to be told of.
            if let (Some(why), Ok(source)) = (Why::of_cause(*cause), source.parse()) {
                gathered.refused.add(why, &source, sensor, *rows);
            }
        }
        match self.commit(gathered).await {
            Ok(()) => {}
            Err(CommitFailure::Refused) => return self.checks.overtaken(),
            Err(CommitFailure::Failed(error)) => return Err(error),
        }
        self.learn();
        self.checks.overtaken = 0;
        if is_last {
            if let Subject::Configuration(name) = subject {
                self.checks.there.remove(name);
            }
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
}

/// Says what fails by a commit.
fn tell(subject: &Subject, refused: &Refused, outcome: &mut IngestOutcome) {
    let count = refused.values().sum::<usize>();
    match subject {
        Subject::Configuration(_) => outcome.late_units += count,
        Subject::FirstLines => outcome.late_lines += count,
    }
    for ((cause, source, sensor), readings) in refused {
        let cause = cause.word();
        match subject {
            Subject::Configuration(_) => {
                tracing::warn!(
                    source,
                    sensor,
                    readings,
                    "a configuration came after its readings, and its unit is not the register's: they are kept and fail"
                );
            }
            Subject::FirstLines => {
                tracing::warn!(
                    source,
                    sensor,
                    readings,
                    cause,
                    "a sensor was registered after its readings, and they do not go with its line: they are kept and fail"
                );
            }
        }
    }
}

/// The sensors whose unit is another one than the register's.
pub(super) fn other_units(units: &Units, register: &Register) -> BTreeSet<String> {
    let differs = |sensor: &str, unit: &str| register.get(sensor).is_some_and(|row| row.unit != unit);
    units.iter().filter(|(sensor, unit)| differs(sensor, unit)).map(|(sensor, _)| sensor.clone()).collect()
}
