//! The job: what changed in `readings` is tested, and whatever else changes its flags by it.
//!
//! A commit of its own rewrites the files in which a flag differs; every other column of every row is
//! the same, which is counted and hashed before it commits. It notes of which rows the quality changed, so that rollups need not
//! take all of a rewritten file for new. Six transactions say how far this has
//! come: the version of `readings` whose changes were seen, the newest words of the register's sensors,
//! rules, events and installations, and the version of the tests themselves. While these stand still only what came
//! since is looked at, and around it: work is bounded by what came and not by what lies there.
//!
//! Files that came since are written into one; an older one in which a flag changes is rewritten by
//! itself, in its own order, so that what compaction has sealed stays sealed and is never sorted again. A commit that somebody else was before is
//! repeated while its files are still there: readings that came meanwhile are new to the next run, and
//! what they change is found then. A damaged file is left as it is, all others go on, and the run ends with an error that names it:
//! what was seen is not moved, so that it is looked at when it is whole again. One process works at a time (a lease), and one that has
//! lost the lease begins no group of files more; the fence, not the lease, keeps the data right.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use tjern_lake::read::refuse_damaged;
use tjern_lake::rollup::{Instruments, TOUCHED_NOTE};
use tjern_lake::{Changes, Commit, CommitError, DataFile, Held, Lake, LakeError, Lease, Operation, Table, TableName};
use tokio_util::sync::CancellationToken;

use super::pass::{Pass, Rewritten};
use super::rules::{Margins, RULES_VERSION, Rulebook, SensorRules};
use super::scope::{Scope, Sensors, Span};
use crate::anew::AnewError;
use crate::bounds::Bounds;
use crate::frames::FrameError;
use crate::register::{
    EventRow, Events, InstallationRow, Keyed, Kind, RegisterError, RuleRow, SensorRow, Target, Versioned, Versions,
    events_history, installations_history, register_of, rules_history, sensors_history,
};
use crate::tables::{ATTEMPTS_MAX, let_go};

/// The version of `readings` up to which changes were seen.
const SEEN: &str = "quality";
/// The newest word of the register's sensors that was applied, in microseconds.
const REGISTER: &str = "quality/register";
/// The newest word of the register's rules that was applied, in microseconds.
const RULES: &str = "quality/rules";
/// The newest word of the register's events that was applied, in microseconds.
const EVENTS: &str = "quality/events";
/// The newest word of the register's installations that was applied, in microseconds.
const INSTALLATIONS: &str = "quality/installations";
/// The version of the tests.
const VERSION: &str = "quality/version";

/// What a commit says of the tests by which its rows were judged, under a key of its own.
pub(crate) fn note() -> (String, serde_json::Value) {
    ("tjern.quality".to_owned(), format!("rules {RULES_VERSION}").into())
}

/// The lease's name.
pub(crate) const JOB: &str = "quality";

/// How long a lease is held by a process that was killed at it.
pub const LEASE: Duration = Duration::from_secs(5 * 60);

/// Where nothing was found wrong the seen version is moved only when looking again would cost this many files, or
/// commits: those of sensors that nobody registered are never wrong, and compaction puts their files away.
const SEEN_FILES_MAX: usize = 64;
const SEEN_VERSIONS_MAX: i64 = 64;

/// So many files are looked at together; how many rows and bytes follows from the memory.
const GROUP_FILES_MAX: usize = 64;

/// A sorted file of this size stays a file of its own, also where it is new: a person's word or an erasure wrote it anew.
const ALONE_BYTES_MIN: i64 = 4 << 20;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ControlOutcome {
    /// How many files were looked at for what had to change.
    pub files_seen: usize,
    /// How many of them were rewritten.
    pub files_rewritten: usize,
    /// How many rows got another flag, other tests or another level.
    pub rows_changed: usize,
    /// Bytes of rows that did not fit into memory while they were sorted, and went to disk.
    pub spilled_bytes: usize,
    /// Whether another process holds the lease.
    pub held_elsewhere: bool,
    /// Whether it was told to stop, or somebody else replaced files meanwhile, so that the next run has to look at them.
    pub unfinished: bool,
    /// The version of `readings` after its own commits, where nobody else committed meanwhile.
    pub version: Option<i64>,
}

/// Why flags were not brought up to date.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The register could not be read.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A rule in the lake makes no sense.
    #[error("a rule of `quality_rules` for `{sensors}`, column `{column}`: {what}; hint: register `quality.csv` again")]
    Rule {
        /// Whose rule.
        sensors: String,
        /// Which column.
        column: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Columns could not pass.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The query engine failed.
    #[error("{}", tjern_lake::engine::Said(.0))]
    Engine(#[from] DataFusionError),
    /// Polars refused.
    #[error("polars: {0}")]
    Polars(#[from] polars::error::PolarsError),
    /// Polars panicked.
    #[error("the tests panicked: {what}; nothing was committed; hint: report it with the log")]
    Panicked {
        /// What it said.
        what: String,
    },
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// A file could not be written anew. Nothing of it was committed.
    #[error(transparent)]
    Anew(#[from] AnewError),
    /// A file has another order than it declares. Nothing of it was committed.
    #[error(
        "`{path}` is not sorted as it says: a row of `{sensor}` is not at its place; hint: `tjern pipeline verify` reads all files"
    )]
    Order {
        /// Which file.
        path: String,
        /// Whose row.
        sensor: String,
    },
}

/// By what a run judges, and how far the last ones came by it.
struct Basis {
    rulebook: Rulebook,
    /// The newest words of sensors and rules.
    sensors_us: i64,
    rules_us: i64,
    events_us: i64,
    installations_us: i64,
    /// The sensors whose every reading is judged anew.
    anew: BTreeSet<String>,
    versions: Versions,
}

impl Basis {
    /// How far it has come once it is applied to a version of `readings`.
    fn transactions(&self, readings: &Table) -> Vec<(String, i64)> {
        vec![
            (SEEN.to_owned(), readings.version()),
            (REGISTER.to_owned(), self.sensors_us),
            (RULES.to_owned(), self.rules_us),
            (EVENTS.to_owned(), self.events_us),
            (INSTALLATIONS.to_owned(), self.installations_us),
            (VERSION.to_owned(), RULES_VERSION),
        ]
    }
}

/// Brings the flags of all readings to what the register and the rules say now. With nothing to do it
/// commits nothing.
///
/// # Errors
/// [`ControlError`]; what was not done is done by the next run.
pub async fn control(lake: &Lake) -> Result<ControlOutcome, ControlError> {
    control_within(lake, &Bounds::default(), &CancellationToken::new()).await
}

/// The same within these bounds, until it is told to stop: then the files under way are dropped, what was committed stays,
/// and the outcome is `unfinished`.
///
/// # Errors
/// [`ControlError`]; what was not done is done by the next run.
pub async fn control_within(
    lake: &Lake,
    bounds: &Bounds,
    stop: &CancellationToken,
) -> Result<ControlOutcome, ControlError> {
    Box::pin(control_by(lake, bounds, stop, SensorRules::margins)).await
}

/// The same with other margins, so that a test can see what happens with too narrow ones.
pub(super) async fn control_by(
    lake: &Lake,
    bounds: &Bounds,
    stop: &CancellationToken,
    margins: fn(&SensorRules) -> Margins,
) -> Result<ControlOutcome, ControlError> {
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else { return Ok(ControlOutcome::default()) };
    let basis = basis(lake, &table).await?;
    let mut sensors = Sensors::new(&basis.rulebook, margins);
    let pass = Pass::new(lake, bounds)?;
    let seen = table.transaction(SEEN).unwrap_or(0);
    let changes = table.changes_since_but(seen, &[Operation::Compact, Operation::Quality]).await?;
    let Some(scope) = scope_of(&basis, &changes, &pass, &mut sensors, stop).await? else {
        return Ok(ControlOutcome { unfinished: true, ..ControlOutcome::default() });
    };
    let moved = !basis.anew.is_empty()
        || changes.added.len() + changes.gone.len() > SEEN_FILES_MAX
        || table.version() - seen > SEEN_VERSIONS_MAX;
    if scope.is_empty() && !moved {
        return Ok(ControlOutcome { files_seen: changes.added.len(), ..ControlOutcome::default() });
    }
    let Some(lease) = Lease::take(lake, JOB, LEASE).await? else {
        return Ok(ControlOutcome { held_elsewhere: true, ..ControlOutcome::default() });
    };
    let lease = lease.keep();
    let new: BTreeSet<String> =
        if changes.unclear { BTreeSet::new() } else { changes.added.iter().map(|file| file.path.clone()).collect() };
    let began = table.version();
    let work = Work {
        pass,
        bounds,
        stop,
        sensors,
        scope,
        new,
        transactions: basis.transactions(&table),
        register: basis.versions.clone(),
        moved,
        held: lease.held(),
        pending: None,
        damaged: None,
        commits: 0,
        outcome: ControlOutcome::default(),
    };
    let result = async {
        // What was erased before the lease was had is not to be read. What else came meanwhile is new to the next run.
        table.refresh().await?;
        Box::pin(work.all(&mut table)).await
    };
    let result = result.await;
    lease.give_back().await?;
    let (mut outcome, commits) = result?;
    outcome.version = (table.version() == began + commits).then_some(began + commits);
    Ok(outcome)
}

/// What is to be looked at again: around what came and went, and all of the sensors that are judged anew. None where it is
/// told to stop.
async fn scope_of(
    basis: &Basis,
    changes: &Changes,
    pass: &Pass,
    sensors: &mut Sensors<'_>,
    stop: &CancellationToken,
) -> Result<Option<Scope>, ControlError> {
    let mut scope = Scope::default();
    for sensor in basis.rulebook.register().iter().map(|row| row.id.as_str()) {
        if (changes.unclear || basis.anew.contains(sensor))
            && let Some(known) = sensors.get(sensor)
        {
            scope.touch(sensor, Span::ALL, known.margins);
        }
    }
    if !changes.unclear {
        for file in changes.added.iter().chain(&changes.gone) {
            if stop.is_cancelled() {
                return Ok(None);
            }
            pass.touched(file, sensors, &mut scope).await?;
        }
    }
    scope.settle();
    Ok(Some(scope))
}

/// What the register and the rules say, held against what was applied.
async fn basis(lake: &Lake, table: &Table) -> Result<Basis, ControlError> {
    let (sensors_version, sensors) = sensors_history(lake).await?;
    let (rules_version, rules) = rules_history(lake).await?;
    let (events_version, events) = events_history(lake).await?;
    let (installations_version, installations) = installations_history(lake).await?;
    let versions = Versions::of([
        (TableName::Sensors, sensors_version),
        (TableName::Installations, installations_version),
        (TableName::QualityRules, rules_version),
        (TableName::Events, events_version),
    ]);
    let register = register_of(&sensors);
    let now = rules.iter().filter(|row| row.valid_to_us.is_none());
    let read = now.map(|row| {
        let wrong = |(column, what)| ControlError::Rule { sensors: row.row.sensors.clone(), column, what };
        row.row.rule().map_err(wrong)
    });
    let held = events.iter().filter(|row| row.valid_to_us.is_none()).map(|row| row.row.row.clone());
    let rulebook = Rulebook::new(register, read.collect::<Result<_, _>>()?)
        .with_events(Events::of(held))
        .with_instruments(instruments(&installations));
    let applied = |name: &str| table.transaction(name).unwrap_or(i64::MIN);
    let all = applied(VERSION) != RULES_VERSION;
    let mut anew: BTreeSet<String> =
        changed(&sensors, applied(REGISTER)).map(|row: &SensorRow| row.id.to_string()).collect();
    let targets: Vec<Target> =
        changed(&rules, applied(RULES)).filter_map(|row: &RuleRow| row.sensors.parse().ok()).collect();
    let befallen = Events::of(changed(&events, applied(EVENTS)).map(|row: &Keyed<EventRow>| row.row.clone()));
    let exchanged = changed(&installations, applied(INSTALLATIONS)).map(|row| row.row.sensor.to_string());
    anew.extend(exchanged.filter(|id| rulebook.register().get(id).is_some_and(|row| row.kind == Kind::Counter)));
    for row in rulebook.register().iter() {
        if all || !befallen.of_sensor(row.id.as_str()).is_empty() || targets.iter().any(|target| meets(target, row)) {
            anew.insert(row.id.to_string());
        }
    }
    let (sensors_us, rules_us, events_us) = (newest_us(&sensors), newest_us(&rules), newest_us(&events));
    let installations_us = newest_us(&installations);
    Ok(Basis { rulebook, sensors_us, rules_us, events_us, installations_us, anew, versions })
}

/// Which instruments hung at each sensor, by the lines that hold.
fn instruments(installations: &[Versioned<Keyed<InstallationRow>>]) -> HashMap<String, Instruments> {
    let mut lines: HashMap<String, Vec<_>> = HashMap::new();
    for row in installations.iter().filter(|row| row.valid_to_us.is_none()).map(|row| &row.row.row) {
        lines.entry(row.sensor.to_string()).or_default().push(row.installed());
    }
    lines.into_iter().map(|(sensor, lines)| (sensor, Instruments::of(lines))).collect()
}

fn meets(target: &Target, row: &SensorRow) -> bool {
    match target {
        Target::All => true,
        Target::Quantity(quantity) => row.id.quantity() == quantity,
        Target::Sensor(sensor) => row.id.as_str() == sensor,
    }
}

/// The rows that began or ended after a moment.
fn changed<T>(history: &[Versioned<T>], after_us: i64) -> impl Iterator<Item = &T> {
    let newer = move |row: &&Versioned<T>| row.valid_from_us.max(row.valid_to_us.unwrap_or(i64::MIN)) > after_us;
    history.iter().filter(newer).map(|row| &row.row)
}

fn newest_us<T>(history: &[Versioned<T>]) -> i64 {
    history.iter().map(|row| row.valid_from_us.max(row.valid_to_us.unwrap_or(i64::MIN))).max().unwrap_or(0)
}

/// A run under way.
struct Work<'a> {
    pass: Pass,
    bounds: &'a Bounds,
    stop: &'a CancellationToken,
    sensors: Sensors<'a>,
    scope: Scope,
    new: BTreeSet<String>,
    transactions: Vec<(String, i64)>,
    /// By which versions of the register's tables it judges.
    register: Versions,
    /// Whether the transactions are to be moved though nothing was found.
    moved: bool,
    /// Whether the lease is: what is written without it may have come after others looked for what was to be erased.
    held: Held,
    /// What was written and is not committed: the last commit carries the transactions.
    pending: Option<Rewritten>,
    /// The first file that was found damaged.
    damaged: Option<LakeError>,
    /// How many commits it made.
    commits: i64,
    outcome: ControlOutcome,
}

impl Work<'_> {
    /// Returns what was done, in how many commits.
    async fn all(mut self, table: &mut Table) -> Result<(ControlOutcome, i64), ControlError> {
        let stays = |file: &DataFile| file.sorted && file.size >= ALONE_BYTES_MIN;
        let is_new = |file: &DataFile| self.new.contains(&file.path) && !stays(file);
        let (new, old): (Vec<_>, Vec<_>) = table.files().into_iter().partition(is_new);
        for files in groups(new, self.bounds) {
            if self.has_lost_its_lease() {
                break;
            }
            let files = self.still_there(table, files);
            self.outcome.files_seen += files.len();
            self.gather(table, files).await?;
        }
        let near: Vec<_> = old.into_iter().filter(|file| self.scope.may_touch(file)).collect();
        for files in groups(near, self.bounds) {
            if self.has_lost_its_lease() {
                break;
            }
            let files = self.still_there(table, files);
            self.outcome.files_seen += files.len();
            let Some((rewritten, unsorted)) = Box::pin(self.in_place(table, files)).await? else { break };
            self.take(table, rewritten).await?;
            for file in unsorted {
                self.gather(table, vec![file]).await?;
            }
        }
        self.outcome.unfinished |= self.stop.is_cancelled();
        let last = self.pending.take();
        if !self.outcome.unfinished && (last.is_some() || self.moved) {
            let transactions = std::mem::take(&mut self.transactions);
            self.commit(table, last.unwrap_or_default(), transactions).await?;
        } else if let Some(last) = last {
            self.commit(table, last, Vec::new()).await?;
        }
        match self.damaged {
            Some(damaged) => Err(damaged.into()),
            None => Ok((self.outcome, self.commits)),
        }
    }

    /// Whether what it writes from now on would be let go: whoever has the lease by now does the work.
    fn has_lost_its_lease(&mut self) -> bool {
        let is_lost = !self.held.is_held();
        self.outcome.unfinished |= is_lost;
        is_lost
    }

    /// Writes files anew as they lie there; nothing where it is told to stop.
    async fn in_place(
        &mut self,
        table: &Table,
        mut files: Vec<DataFile>,
    ) -> Result<Option<(Rewritten, Vec<DataFile>)>, ControlError> {
        loop {
            let Self { pass, sensors, scope, stop, .. } = self;
            let working = pass.in_place(table, files.clone(), sensors, scope);
            match stop.run_until_cancelled(working).await {
                Some(Err(error)) => files = self.without_damaged(table, files, error).await?,
                done => return done.transpose(),
            }
        }
    }

    /// Writes files anew into sorted ones, if a flag in them is wrong and there is time.
    async fn gather(&mut self, table: &mut Table, mut files: Vec<DataFile>) -> Result<(), ControlError> {
        loop {
            let Self { pass, sensors, scope, stop, .. } = self;
            let working = pass.gather(table, files.clone(), sensors, scope);
            match stop.run_until_cancelled(working).await {
                Some(Ok(rewritten)) => return self.take(table, rewritten).await,
                Some(Err(error)) => files = self.without_damaged(table, files, error).await?,
                None => return Ok(()),
            }
        }
    }

    /// Those of the files that are not damaged, where an error came of one that is, or of one around them. Such a file may be found
    /// by its SHA-256, or sooner by what cannot be decoded. One around them is not asked any more in this run.
    async fn without_damaged(
        &mut self,
        table: &Table,
        files: Vec<DataFile>,
        error: ControlError,
    ) -> Result<Vec<DataFile>, ControlError> {
        let around = self.pass.neighbours(table, &files, &mut self.sensors, &self.scope);
        let (before, mut sound) = (files.len(), Vec::new());
        for file in files {
            if !self.is_damaged(table, &file).await? {
                sound.push(file);
            }
        }
        self.outcome.unfinished = true;
        if sound.len() < before {
            return Ok(sound);
        }
        let mut is_found = false;
        for file in around {
            if self.is_damaged(table, &file).await? {
                is_found = true;
            }
        }
        if is_found { Ok(sound) } else { Err(error) }
    }

    async fn is_damaged(&mut self, table: &Table, file: &DataFile) -> Result<bool, ControlError> {
        match refuse_damaged(table.lake(), TableName::Readings, file).await {
            Ok(()) => Ok(false),
            Err(error) if error.damaged_file().is_some() => {
                self.pass.leave_out(file);
                self.damaged.get_or_insert(error);
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The files that nobody replaced since the run began.
    fn still_there(&mut self, table: &Table, mut files: Vec<DataFile>) -> Vec<DataFile> {
        let before = files.len();
        files.retain(|file| table.is_active(file));
        self.outcome.unfinished |= files.len() < before;
        files
    }

    /// Takes what was written; what was before it is committed.
    async fn take(&mut self, table: &mut Table, rewritten: Rewritten) -> Result<(), ControlError> {
        self.outcome.spilled_bytes += rewritten.spilled_bytes;
        if rewritten.add.is_empty() {
            return Ok(());
        }
        match self.pending.replace(rewritten) {
            Some(before) => self.commit(table, before, Vec::new()).await,
            None => Ok(()),
        }
    }

    async fn commit(
        &mut self,
        table: &mut Table,
        rewritten: Rewritten,
        transactions: Vec<(String, i64)>,
    ) -> Result<(), ControlError> {
        let Rewritten { add, remove, rows_changed, touched, .. } = rewritten;
        if !self.held.is_held() {
            let_go(table.lake(), table.name(), &add).await;
            self.outcome.unfinished = true;
            return Ok(());
        }
        let mut notes = BTreeMap::from([note(), self.register.note()]);
        // Else whoever sums up would have to take every row of a rewritten file for a new one.
        notes.extend(touched.note().map(|note| (TOUCHED_NOTE.to_owned(), note)));
        for _ in 0..ATTEMPTS_MAX {
            if !remove.iter().all(|file| table.is_active(file)) {
                break;
            }
            let commit = Commit {
                operation: Operation::Quality,
                add: add.clone(),
                remove: remove.clone(),
                transactions: transactions.clone(),
                notes: notes.clone(),
            };
            match table.commit(commit).await {
                Ok(_) => {
                    self.outcome.files_rewritten += remove.len();
                    self.outcome.rows_changed += rows_changed;
                    self.commits += 1;
                    return Ok(());
                }
                Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
                Err(error) => return Err(error.into()),
            }
        }
        // Somebody replaced them, or commits faster than we do: the next run looks again.
        self.outcome.unfinished = true;
        Ok(())
    }
}

/// Files in the order of their times, few enough together.
fn groups(mut files: Vec<DataFile>, bounds: &Bounds) -> Vec<Vec<DataFile>> {
    files.sort_by_key(|file| file.time_us);
    let mut groups: Vec<Vec<DataFile>> = Vec::new();
    let (rows_max, bytes_max) = (bounds.rows(), bounds.open_bytes());
    let (mut rows, mut bytes) = (0_i64, 0_i64);
    for file in files {
        rows += file.rows.unwrap_or(rows_max);
        bytes += file.size;
        let fits = |group: &&mut Vec<DataFile>| group.len() < GROUP_FILES_MAX && rows <= rows_max && bytes <= bytes_max;
        match groups.last_mut().filter(fits) {
            Some(group) => group.push(file),
            None => {
                (rows, bytes) = (file.rows.unwrap_or(rows_max), file.size);
                groups.push(vec![file]);
            }
        }
    }
    groups
}
