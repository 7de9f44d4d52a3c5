//! The register: what the city says of its sites and sensors, of instruments, of what befell them, and by
//! which rules readings are tested; from CSV files into tables with history.
//!
//! Either everything in the files is right or nothing is written: all problems of all files are
//! told at once, each with file, line and column. What was there before matters too: unit and kind of
//! a sensor that has readings do not change (a rollup of metres and feet would be of neither), and
//! what has readings in the common lake is not declared `personal` after the fact. The tables are
//! tiny, so a change rewrites a table's files in one commit; without a change there is no commit.
//!
//! Two processes may be at work: what an ingest took by the register before this one is found ([`fence`](mod@fence)). Readings that
//! were there before their sensor's first line are held against it later ([`first`](mod@first)).
//!
//! `sites` is written before `sensors`, and the others after them: a crash between them leaves a site
//! without sensors, and the next run goes on.

mod events;
mod fence;
mod file;
mod first;
mod history;
mod installations;
mod rows;
mod rules;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::prelude::{col, lit};
use jiff::tz::TimeZone;
use tjern_lake::{Commit, CommitError, Lake, LakeError, Operation, Table, TableName, write_file};

pub use events::{EventRow, Events, NotGood, at as not_good_at};
pub use file::RegisterProblem;
pub use history::Changes;
pub use installations::InstallationRow;
pub use rows::{Class, EventKind, Kind, SensorRow, SiteRow};
pub use rules::{Ends, Limits, Months, Parameters, Rule, RuleRow, Target, Test, rules_of_text};

use crate::erase::{Erasures, ErasuresError};
use crate::tables::{ATTEMPTS_MAX, collect, engine};
use file::Lined;
pub(crate) use first::Unheld;
use history::apply;
pub(crate) use history::{Versioned, newest};
pub(crate) use installations::Keyed;
pub(crate) use rules::read_rules;
pub(crate) use table::register_of;

/// The application transaction of both tables: two first registrations at once would else both
/// be let through, since neither removes a file.
const TRANSACTION: &str = "register";

/// How old a look at a table may be by which others go. What this process registers is known at once.
const LOOK: Duration = Duration::from_secs(60);

/// The files of the register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterFiles {
    /// `sites.csv`.
    pub sites: PathBuf,
    /// `sensors.csv`.
    pub sensors: PathBuf,
    /// Whether somebody named them: then they must be there. Else both may be absent.
    pub required: bool,
    /// `installations.csv`. Where it is absent its table stays as it is.
    pub installations: OptionalFile,
    /// `events.csv`. Where it is absent its table stays as it is.
    pub events: OptionalFile,
    /// `quality.csv`. Where it is absent its table stays as it is.
    pub rules: OptionalFile,
    /// The clock by which people write times in them: the city's.
    pub timezone: TimeZone,
    /// Whether a `sensors.csv` without a line may end all sensors: somebody said so.
    pub may_end_all: bool,
}

/// A file that a register may do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionalFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether somebody named it: then it must be there.
    pub required: bool,
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegisterOutcome {
    /// Whether there were files at all.
    pub found: bool,
    /// What changed in `sites`.
    pub sites: Changes,
    /// What changed in `sensors`.
    pub sensors: Changes,
    /// What changed in `installations`.
    pub installations: Changes,
    /// What changed in `events`.
    pub events: Changes,
    /// What changed in `quality_rules`.
    pub rules: Changes,
    /// How many sensors got their first line and had readings already, which ingest holds against it now.
    pub earlier: usize,
}

/// Why nothing was registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A file could not be read.
    #[error("cannot read the register's file `{path}`: {source}; hint: `[register]` in tjern.toml says where it is")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The files were read, and these things are wrong with them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<RegisterProblem>),
    /// What stands in a table is not what this software wrote there.
    #[error("the register's table makes no sense: {what}; hint: restore an earlier version of it")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It is not known what was erased.
    #[error(transparent)]
    Erasures(#[from] ErasuresError),
    /// Others changed the table each time.
    #[error("table `{table}` was changed by others {ATTEMPTS_MAX} times in a row; hint: run one `register` at a time")]
    Contended {
        /// Which table.
        table: TableName,
    },
    /// The query engine failed.
    #[error("{}", tjern_lake::engine::Said(.0))]
    Engine(#[from] DataFusionError),
    /// Rows could not be put into columns.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
}

impl RegisterError {
    /// Whether it is the city's files that have to be mended.
    #[must_use]
    pub const fn is_of_the_files(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::Wrong(_))
    }

    fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// The sensors that are registered now, in memory.
#[derive(Debug, Clone, Default)]
pub struct Register {
    sensors: HashMap<String, SensorRow>,
    /// Since when each is registered, where that is known.
    since_us: HashMap<String, i64>,
    /// When the first line of each began that ever was, where that is known.
    first_us: HashMap<String, i64>,
    /// Those that have no line now, and whose last one said `personal`.
    personal_last: HashSet<String>,
}

impl Register {
    /// A register of these sensors.
    pub fn of(sensors: impl IntoIterator<Item = SensorRow>) -> Self {
        let sensors = sensors.into_iter().map(|row| (row.id.as_str().to_owned(), row)).collect();
        Self { sensors, ..Self::default() }
    }

    /// Since when a sensor is registered without a break, in microseconds since 1970, whatever of its row was changed
    /// since; `None` where it is not, or the register was not read from the lake.
    #[must_use]
    pub fn since_us(&self, sensor: &str) -> Option<i64> {
        self.since_us.get(sensor).copied()
    }

    /// The sensors that are registered and whose first line is one of these.
    pub(crate) fn unheld(&self, unheld: Unheld) -> BTreeSet<String> {
        let firsts = self.first_us.iter().map(|(sensor, first_us)| (sensor.as_str(), *first_us));
        unheld.sensors(firsts.filter(|(sensor, _)| self.sensors.contains_key(*sensor)))
    }

    /// A sensor's row, if it is registered.
    #[must_use]
    pub fn get(&self, sensor: &str) -> Option<&SensorRow> {
        self.sensors.get(sensor)
    }

    /// Whether a sensor's readings are kept out of the common lake: its line says `personal`, or, where it has none now, its last one
    /// did. Half a file, or a line that was taken out by mistake, lets nobody in.
    #[must_use]
    pub fn is_personal(&self, sensor: &str) -> bool {
        let is_now = self.get(sensor).map(|row| row.class == Class::Personal);
        is_now.unwrap_or_else(|| self.personal_last.contains(sensor))
    }

    /// Whether there is any such sensor.
    #[must_use]
    pub fn has_personal(&self) -> bool {
        !self.personal_last.is_empty() || self.sensors.values().any(|row| row.class == Class::Personal)
    }

    /// All sensors, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &SensorRow> {
        self.sensors.values()
    }

    /// How many sensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sensors.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sensors.is_empty()
    }
}

/// What the register says now of each sensor, and of what befell it: what a reading can be judged by alone.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// The sensors.
    pub register: Register,
    /// The events that hold.
    pub events: Events,
    /// The versions of the tables that say so.
    pub(crate) versions: Versions,
}

/// Versions of tables of the register, by which rows were judged; -1 where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Versions(BTreeMap<&'static str, i64>);

impl Versions {
    pub(crate) fn of(versions: impl IntoIterator<Item = (TableName, i64)>) -> Self {
        Self(versions.into_iter().map(|(table, version)| (table.as_str(), version)).collect())
    }

    /// What a commit says of them beside its rows, under a key of its own.
    pub(crate) fn note(&self) -> (String, serde_json::Value) {
        ("tjern.register".to_owned(), serde_json::json!(self.0))
    }
}

impl Said {
    /// What the tables say; nothing where they are not there.
    ///
    /// # Errors
    /// As [`load`].
    pub async fn load(lake: &Lake) -> Result<Self, RegisterError> {
        let (events_version, events) = events_history(lake).await?;
        let events = events.into_iter().filter(|row| row.valid_to_us.is_none()).map(|row| row.row.row);
        let (sensors_version, sensors) = sensors_history(lake).await?;
        let versions = [(TableName::Sensors, sensors_version), (TableName::Events, events_version)];
        let versions = Versions::of(versions);
        Ok(Self { register: register_of(&sensors), events: Events::of(events), versions })
    }
}

impl From<Register> for Said {
    fn from(register: Register) -> Self {
        Self { register, ..Self::default() }
    }
}

/// The register that is valid now; an empty one where there is no table.
///
/// # Errors
/// [`RegisterError`], where the lake fails or the table makes no sense.
pub async fn load(lake: &Lake) -> Result<Register, RegisterError> {
    Ok(register_of(&sensors_history(lake).await?.1))
}

/// Whether the lake has a register: any line of it, be it of the past, or the word that its files have none.
///
/// # Errors
/// [`LakeError`].
pub async fn is_there(lake: &Lake) -> Result<bool, LakeError> {
    let sensors = Table::open_within(lake, TableName::Sensors, LOOK).await?;
    Ok(sensors.is_some_and(|table| !table.files().is_empty() || table.transaction(TRANSACTION).is_some()))
}

/// The table `sensors` with its history, and its version; -1 where there is none.
pub(crate) async fn sensors_history(lake: &Lake) -> Result<(i64, Vec<Versioned<SensorRow>>), RegisterError> {
    match Table::open_within(lake, TableName::Sensors, LOOK).await? {
        None => Ok((-1, Vec::new())),
        Some(table) => Ok((table.version(), history_of(lake, &table, table::sensors_of).await?)),
    }
}

/// The table `events` with its history, and its version; -1 where there is none.
pub(crate) async fn events_history(lake: &Lake) -> Result<(i64, Vec<Versioned<Keyed<EventRow>>>), RegisterError> {
    match Table::open_within(lake, TableName::Events, LOOK).await? {
        None => Ok((-1, Vec::new())),
        Some(table) => Ok((table.version(), history_of(lake, &table, table::events_of).await?)),
    }
}

/// The table `installations` with its history, and its version; -1 where there is none.
pub(crate) async fn installations_history(
    lake: &Lake,
) -> Result<(i64, Vec<Versioned<Keyed<InstallationRow>>>), RegisterError> {
    match Table::open_within(lake, TableName::Installations, LOOK).await? {
        None => Ok((-1, Vec::new())),
        Some(table) => Ok((table.version(), history_of(lake, &table, table::installations_of).await?)),
    }
}

/// The table `quality_rules` with its history, and its version; -1 where there is none.
pub(crate) async fn rules_history(lake: &Lake) -> Result<(i64, Vec<Versioned<RuleRow>>), RegisterError> {
    match Table::open_within(lake, TableName::QualityRules, LOOK).await? {
        None => Ok((-1, Vec::new())),
        Some(table) => Ok((table.version(), history_of(lake, &table, table::rules_of).await?)),
    }
}

/// Brings the register's tables to what the files say. Missing tables are created.
///
/// # Errors
/// [`RegisterError::Wrong`] with everything that is wrong with the files; nothing is written then.
pub async fn register(lake: &Lake, files: &RegisterFiles) -> Result<RegisterOutcome, RegisterError> {
    // What is wrong with the files costs no request.
    let read = read_files(files).await?;
    let sites_table = Table::open_or_create(lake, TableName::Sites).await?;
    let sensors_table = Table::open_or_create(lake, TableName::Sensors).await?;
    let Some(read) = read else { return Ok(RegisterOutcome::default()) };
    let FileRows { sites, sensors, installations, events, rules } = read;
    let history = history_of(lake, &sensors_table, table::sensors_of).await?;
    refuse_to_end_all(files, &history, &sensors)?;
    refuse_unknown_sensors(files, &history, &sensors, installations.as_deref(), events.as_deref())?;
    refuse_what_readings_forbid(lake, &files.sensors, &history, &sensors).await?;
    let sites = Replacement {
        rows: sites.into_iter().map(|line| line.row).collect(),
        key: |row: &SiteRow| row.site.as_str(),
        read: table::sites_of,
        write: table::sites_batch,
    };
    let sites = sites.commit(lake, sites_table).await?;
    let personal = fence::personal(lake, &sensors);
    let sensors = Replacement {
        rows: sensors.into_iter().map(|line| line.row).collect(),
        key: |row: &SensorRow| row.id.as_str(),
        read: table::sensors_of,
        write: table::sensors_batch,
    };
    let sensors = sensors.commit(lake, sensors_table).await?;
    let earlier = first::tell(lake).await?;
    if !earlier.is_empty() {
        let (count, first) = (earlier.len(), earlier.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", "));
        tracing::warn!(
            sensors = count,
            first,
            "sensors are registered now that have readings already: ingest holds those against their units and sources now; hint: `tjern pipeline recompute`, `revise` or `erase` what is wrong"
        );
    }
    fence::keep_out(lake, &files.sensors, &personal).await?;
    let installations =
        replace(lake, TableName::Installations, installations, table::installations_of, table::installations_batch);
    let installations = installations.await?;
    let events = replace(lake, TableName::Events, events, table::events_of, table::events_batch).await?;
    let rules = match rules {
        Some(lines) => {
            let rows = lines.into_iter().map(|line| line.row).collect();
            let rules = Replacement { rows, key: RuleRow::key, read: table::rules_of, write: table::rules_batch };
            rules.commit(lake, Table::open_or_create(lake, TableName::QualityRules).await?).await?
        }
        None => Changes::default(),
    };
    Ok(RegisterOutcome { found: true, sites, sensors, installations, events, rules, earlier: earlier.len() })
}

/// How the rows of one of the optional tables become columns.
type Write<T> = fn(&[Versioned<Keyed<T>>]) -> Result<RecordBatch, ArrowError>;

/// Brings one of the optional tables to what its file says, where there is a file.
async fn replace<T: Clone + PartialEq>(
    lake: &Lake,
    name: TableName,
    lines: Option<Vec<Lined<Keyed<T>>>>,
    read: Read<Keyed<T>>,
    write: Write<T>,
) -> Result<Changes, RegisterError> {
    let Some(lines) = lines else { return Ok(Changes::default()) };
    let rows = lines.into_iter().map(|line| line.row).collect();
    let replacement = Replacement { rows, key: |row: &Keyed<T>| row.key.as_str(), read, write };
    replacement.commit(lake, Table::open_or_create(lake, name).await?).await
}

/// The rows of all files.
struct FileRows {
    sites: Vec<Lined<SiteRow>>,
    sensors: Vec<Lined<SensorRow>>,
    installations: Option<Vec<Lined<Keyed<InstallationRow>>>>,
    events: Option<Vec<Lined<Keyed<EventRow>>>>,
    rules: Option<Vec<Lined<RuleRow>>>,
}

/// All files' rows; `None` where neither is there and nobody asked for them.
async fn read_files(files: &RegisterFiles) -> Result<Option<FileRows>, RegisterError> {
    let absent = |read: &Result<_, std::io::Error>| {
        read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    let sites = tokio::fs::read(&files.sites).await;
    let sensors = tokio::fs::read(&files.sensors).await;
    if !files.required && absent(&sites) && absent(&sensors) {
        return Ok(None);
    }
    let texts = Texts {
        sites: text_of(&files.sites, sites)?,
        sensors: text_of(&files.sensors, sensors)?,
        installations: optional_text(&files.installations).await?,
        events: optional_text(&files.events).await?,
        rules: optional_text(&files.rules).await?,
    };
    texts.parse(files).map(Some).map_err(RegisterError::Wrong)
}

async fn optional_text(file: &OptionalFile) -> Result<Option<String>, RegisterError> {
    match tokio::fs::read(&file.path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !file.required => Ok(None),
        read => text_of(&file.path, read).map(Some),
    }
}

fn text_of(path: &Path, read: Result<Vec<u8>, std::io::Error>) -> Result<String, RegisterError> {
    let bytes = read.map_err(|source| RegisterError::Unreadable { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let lines = before.split(|byte| *byte == b'\n').count();
        RegisterError::Wrong(vec![RegisterProblem {
            path: path.to_owned(),
            line: u64::try_from(lines).unwrap_or(u64::MAX),
            column: None,
            message: "a character here is not UTF-8".to_owned(),
            hint: "save the file as \"CSV UTF-8\"".to_owned(),
        }])
    })
}

/// The texts of all files.
struct Texts {
    sites: String,
    sensors: String,
    installations: Option<String>,
    events: Option<String>,
    rules: Option<String>,
}

impl Texts {
    fn parse(&self, files: &RegisterFiles) -> Result<FileRows, Vec<RegisterProblem>> {
        let sites = rows::read_sites(&files.sites, &self.sites);
        let known =
            sites.as_ref().ok().map(|sites| sites.iter().map(|line| line.row.site.as_str()).collect::<BTreeSet<_>>());
        let sensors = rows::read_sensors(&files.sensors, &self.sensors, known.as_ref());
        let zone = &files.timezone;
        let installations = self.installations.as_ref();
        let installations =
            installations.map(|text| installations::read_installations(&files.installations.path, text, zone));
        let events = self.events.as_ref().map(|text| events::read_events(&files.events.path, text, zone));
        let rules = self.rules.as_ref().map(|text| rules::read_rules(&files.rules.path, text));
        match (sites, sensors, installations.transpose(), events.transpose(), rules.transpose()) {
            (Ok(sites), Ok(sensors), Ok(installations), Ok(events), Ok(rules)) => {
                Ok(FileRows { sites, sensors, installations, events, rules })
            }
            (sites, sensors, installations, events, rules) => {
                let problems = [sites.err(), sensors.err(), installations.err(), events.err(), rules.err()];
                Err(problems.into_iter().flatten().flatten().collect())
            }
        }
    }
}

/// A file that lost its lines (an editor, a sync that broke off) would else end every sensor, without a word.
fn refuse_to_end_all(
    files: &RegisterFiles,
    history: &[Versioned<SensorRow>],
    sensors: &[Lined<SensorRow>],
) -> Result<(), RegisterError> {
    let count = history.iter().filter(|row| row.valid_to_us.is_none()).count();
    if files.may_end_all || count == 0 || !sensors.is_empty() {
        return Ok(());
    }
    Err(RegisterError::Wrong(vec![RegisterProblem {
        path: files.sensors.clone(),
        line: 1,
        column: None,
        message: format!("no line follows the header: each of the {count} sensors that are registered would end"),
        hint:
            "bring the lines back; where the city has no sensor any more, `tjern pipeline register --end-all` says so"
                .to_owned(),
    }]))
}

/// A misspelt sensor would else be an event that holds for nobody. Sensors of the past are known too.
fn refuse_unknown_sensors(
    files: &RegisterFiles,
    history: &[Versioned<SensorRow>],
    sensors: &[Lined<SensorRow>],
    installations: Option<&[Lined<Keyed<InstallationRow>>]>,
    events: Option<&[Lined<Keyed<EventRow>>]>,
) -> Result<(), RegisterError> {
    let known = history.iter().map(|row| &row.row.id).chain(sensors.iter().map(|line| &line.row.id));
    let known: BTreeSet<&str> = known.map(|id| id.as_str()).collect();
    let is_known = |name: &str| match name.strip_suffix('*') {
        Some(place) => known.iter().any(|id| id.starts_with(place)),
        None => known.contains(name),
    };
    let installed = installations.unwrap_or_default().iter();
    let installed = installed.map(|line| (&files.installations, line.line, line.row.row.sensor.as_str()));
    let befell =
        events.unwrap_or_default().iter().map(|line| (&files.events, line.line, line.row.row.sensors.as_str()));
    let unknown = installed.chain(befell).filter(|(_, _, name)| !is_known(name));
    let problems: Vec<_> = unknown
        .map(|(file, line, name)| RegisterProblem {
            path: file.path.clone(),
            line,
            column: Some("sensor".to_owned()),
            message: format!("there is no sensor `{name}`"),
            hint: "add a line for it to the file of sensors".to_owned(),
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(RegisterError::Wrong(problems)) }
}

/// What the readings that are in the lake already do not allow.
async fn refuse_what_readings_forbid(
    lake: &Lake,
    path: &Path,
    history: &[Versioned<SensorRow>],
    sensors: &[Lined<SensorRow>],
) -> Result<(), RegisterError> {
    let known = newest(history, |row| row.id.as_str());
    let objections = sensors.iter().filter_map(|line| {
        let before = known.get(line.row.id.as_str()).map(|old| &old.row);
        objection(path, line, before, lake.is_personal()).map(|problem| (line.row.id.as_str(), problem))
    });
    let objections: Vec<_> = objections.collect();
    if objections.is_empty() {
        return Ok(());
    }
    let with_readings = with_readings(lake, objections.iter().map(|(sensor, _)| *sensor)).await?;
    // What is being erased may still lie somewhere, though no row is left.
    let erasures = if objections.iter().any(|(_, problem)| problem.column.as_deref() == Some(CLASS)) {
        Erasures::load(lake).await?
    } else {
        Erasures::default()
    };
    let problems = objections.into_iter().filter_map(|(sensor, mut problem)| {
        if with_readings.contains(sensor) {
            return Some(problem);
        }
        (problem.column.as_deref() == Some(CLASS) && erasures.is_open_for(sensor)).then(|| {
            problem.message =
                format!("the readings of `{sensor}` are still being erased, so it cannot become `personal` yet");
            problem.hint = "`tjern pipeline erase --continue` says what it waits for".to_owned();
            problem
        })
    });
    let problems: Vec<_> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(RegisterError::Wrong(problems)) }
}

/// So many sensors are named in a line of the log.
const NAMED_MAX: usize = 10;

/// The column that makes a sensor's readings personal.
const CLASS: &str = "class";

/// What would be wrong with a line if its sensor had readings.
fn objection(
    path: &Path,
    line: &Lined<SensorRow>,
    before: Option<&SensorRow>,
    in_personal_lake: bool,
) -> Option<RegisterProblem> {
    let sensor = &line.row;
    let problem = |column: &str, message: String, hint: String| RegisterProblem {
        path: path.to_owned(),
        line: line.line,
        column: Some(column.to_owned()),
        message,
        hint,
    };
    if sensor.class == Class::Personal && !in_personal_lake {
        let message = format!("`{}` has readings in the common lake, so it cannot become `personal`", sensor.id);
        let hint = format!(
            "erase its readings first (`tjern pipeline erase --sensor {} --from … --to … --reason …`), then register it; from then on its gateway writes to the `personal_lake`",
            sensor.id
        );
        return Some(problem(CLASS, message, hint));
    }
    let before = before?;
    let changed = if before.unit != sensor.unit {
        ("unit", &before.unit as &str, &sensor.unit as &str)
    } else if before.kind != sensor.kind {
        ("kind", before.kind.word(), sensor.kind.word())
    } else {
        return None;
    };
    let (column, old, new) = changed;
    let message = format!("`{}` has readings, so `{old}` cannot become `{new}`", sensor.id);
    Some(problem(column, message, "a new id replaces it: leave this line out and add one with another id".to_owned()))
}

/// Which of these sensors have readings, or hours and days of readings that retention removed: those are in the sensor's unit, and in
/// this lake.
async fn with_readings<'a>(
    lake: &Lake,
    sensors: impl Iterator<Item = &'a str>,
) -> Result<BTreeSet<String>, RegisterError> {
    let mut names = BTreeSet::new();
    let wanted: Vec<_> = sensors.map(lit).collect();
    for name in [TableName::Readings, TableName::Hourly, TableName::Daily] {
        let table = match Table::open(lake, name).await {
            // It stops only what needs hours: a sensor that is personal has to become so.
            Err(error) if error.is_of_rollups() => {
                tracing::warn!(%error, "whether sensors have hours or days is not known");
                continue;
            }
            opened => opened?,
        };
        let Some(table) = table else { continue };
        let found = engine(lake)?.read_table(table.provider())?;
        let found = found.filter(col("sensor").in_list(wanted.clone(), false))?;
        for batch in found.aggregate(vec![col("sensor")], vec![])?.collect().await? {
            let column =
                crate::frames::texts(batch.column(0)).map_err(|error| RegisterError::damaged(error.to_string()))?;
            names.extend(column.iter().flatten().map(str::to_owned));
        }
    }
    Ok(names)
}

type Read<T> = fn(&RecordBatch) -> Result<Vec<Versioned<T>>, RegisterError>;

async fn history_of<T>(lake: &Lake, table: &Table, read: Read<T>) -> Result<Vec<Versioned<T>>, RegisterError> {
    if table.files().is_empty() {
        return Ok(Vec::new());
    }
    let context = engine(lake)?;
    let mut history = Vec::new();
    for batch in collect(&context, table.provider()).await? {
        history.extend(read(&batch)?);
    }
    Ok(history)
}

/// The rows that a table shall have, and how they become columns.
struct Replacement<T> {
    rows: Vec<T>,
    key: fn(&T) -> &str,
    read: Read<T>,
    write: fn(&[Versioned<T>]) -> Result<RecordBatch, ArrowError>,
}

impl<T: Clone + PartialEq> Replacement<T> {
    /// Rewrites the table's files in one commit, again from the newest version where another
    /// one came first.
    async fn commit(&self, lake: &Lake, mut table: Table) -> Result<Changes, RegisterError> {
        for _ in 0..ATTEMPTS_MAX {
            let history = history_of(lake, &table, self.read).await?;
            let (history, changes) = apply(&history, &self.rows, self.key, lake.clock().now_us());
            // That a file of sensors has no line is known by a commit, too: ingest waits for a register.
            let is_first_word = table.name() == TableName::Sensors && table.transaction(TRANSACTION).is_none();
            if changes.is_empty() && !(is_first_word && table.files().is_empty()) {
                return Ok(changes);
            }
            let add = if changes.is_empty() {
                Vec::new()
            } else {
                vec![write_file(lake, table.name(), &[(self.write)(&history)?]).await?]
            };
            let commit = Commit {
                operation: Operation::Register,
                add,
                remove: table.files(),
                transactions: self.transactions(&table, &history, changes),
                notes: BTreeMap::new(),
            };
            match table.commit(commit).await {
                Ok(_) => return Ok(changes),
                Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(RegisterError::Contended { table: table.name() })
    }

    /// What moves with a commit that makes this history of the table.
    fn transactions(&self, table: &Table, history: &[Versioned<T>], changes: Changes) -> Vec<(String, i64)> {
        let mut transactions = vec![(TRANSACTION.to_owned(), table.version() + 1)];
        // Lines that are new now began last.
        let began_us = history.iter().map(|row| row.valid_from_us).max().filter(|_| changes.added > 0);
        if table.name() == TableName::Sensors && table.transaction(first::FROM).is_none() {
            transactions.extend(began_us.map(|began_us| (first::FROM.to_owned(), began_us)));
        }
        transactions
    }
}

#[cfg(test)]
mod tests;
