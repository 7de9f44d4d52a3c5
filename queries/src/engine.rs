//! Sessions on the newest versions of the tables, shared by requests.
//!
//! A request sees a snapshot that is at most [`limits::SNAPSHOT_AGE_MAX`] old, and none that lacks a commit that this process
//! knows of, or was told of ([`told`](crate::told)). Whoever finds it older
//! looks for newer tables, as often as that is worth what it costs ([`looks`](crate::looks)), one at a time; the others
//! wait for that one. Where the lake cannot be read,
//! or a table is gone that was there, the older snapshot and what was made of it serve on, and
//! `/health` says so: the pages show each value's age anyway.

use std::sync::Arc;
use std::time::Duration;

use datafusion::prelude::SessionContext;
use jiff::tz::TimeZone;
use tjern_lake::session::session_on;
use tjern_lake::{Access, Lake, LakeError, SessionSettings, Table, TableName, Version, Versions};
use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::damaged::Damaged;
use crate::kept::{Kept, Served};
use crate::latest::{self, SensorNow};
use crate::limits::{self, Limits};
use crate::looks::Looks;
use crate::named::{self, NamedQuery};
use crate::pages::curve::{self, Curves};
use crate::parameters::ParameterError;
use crate::rows::ColumnError;
use crate::sql::{self, Answer, SqlError};
use crate::told::{Tidings, Told};
use crate::workshop::Workshop;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The lake cannot be read.
    #[error("the lake cannot be read: {0}")]
    Lake(String),
    /// This listener answers no SQL of people.
    #[error("no SQL is answered here; hint: ask the staff's listener")]
    NoSql,
    /// Too many ask at once.
    #[error("too many queries at once; hint: try again in a moment")]
    Busy,
    /// The query was refused, or failed.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The named query was asked wrongly.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The product's own query does not answer what it promises.
    #[error(transparent)]
    Column(#[from] ColumnError),
}

/// Functions that make a value of any size of a few letters, which no limit counts. Not answered here;
/// `FROM generate_series(…)`, which makes rows as they are asked for, is.
const GROWING: [&str; 7] = ["array_repeat", "array_resize", "generate_series", "lpad", "range", "repeat", "rpad"];

/// The newest snapshot that could be had.
#[derive(Default)]
struct Snapshot {
    context: Option<SessionContext>,
    tried: Option<Served>,
    failure: Option<String>,
    /// Of which tables, and their versions. A table that was there once does not go, unless the lake does.
    versions: Versions,
    /// The last change that the pipeline had told when these were looked for.
    changes: u64,
    /// The tables that have no answer, since their logs are damaged.
    damaged: Damaged,
}

/// A session that was opened, on these versions.
struct Opened {
    context: SessionContext,
    versions: Versions,
    /// The tables that it has no answer about.
    damaged: Damaged,
}

/// What was found of `readings`, by which the looks at the other tables go.
#[derive(Debug, Clone, Copy, Default)]
struct Readings {
    /// For how long nothing came.
    rest: Duration,
    /// Whether it was found as the pipeline tells.
    is_as_told: bool,
}

/// Answers queries of one kind of people.
pub(crate) struct Engine {
    lake: Lake,
    looks: Looks,
    /// What the pipeline of another process tells, where it is asked.
    told: Option<Told>,
    settings: SessionSettings,
    /// Of those who ask.
    turns: Arc<Semaphore>,
    /// Of the pages.
    page_turns: Arc<Semaphore>,
    workshop: Option<Workshop>,
    snapshot: Mutex<Snapshot>,
    latest: Kept<Vec<SensorNow>>,
    curves: Kept<Curves>,
}

impl Engine {
    /// For everybody: named queries only.
    pub(crate) fn public(lake: Lake, looks: Looks, timezone: TimeZone) -> Self {
        Self::new(lake, looks, Access::Public, timezone, limits::NAMED_AT_ONCE_MAX, None)
    }

    /// For the staff, whose SQL is answered in a workshop.
    pub(crate) fn staff(lake: Lake, looks: Looks, timezone: TimeZone, workshop: Workshop) -> Self {
        Self::new(lake, looks, Access::Staff, timezone, limits::SQL_AT_ONCE_MAX, Some(workshop))
    }

    fn new(
        lake: Lake,
        looks: Looks,
        access: Access,
        timezone: TimeZone,
        at_once_max: usize,
        workshop: Option<Workshop>,
    ) -> Self {
        Self {
            lake,
            looks,
            told: None,
            settings: SessionSettings { access, timezone, memory_bytes: limits::SESSION_MEMORY_BYTES },
            turns: Arc::new(Semaphore::new(at_once_max)),
            page_turns: Arc::new(Semaphore::new(limits::PAGES_AT_ONCE_MAX)),
            workshop,
            snapshot: Mutex::default(),
            latest: Kept::new(limits::SNAPSHOT_AGE_MAX, 0),
            curves: Kept::new(limits::CURVES_AGE_MAX, limits::CURVES_THRIFT),
        }
    }

    /// The same, which is told of commits.
    pub(crate) fn with_told(mut self, told: Option<&Told>) -> Self {
        self.told = told.cloned();
        self
    }

    pub(crate) fn now_us(&self) -> i64 {
        self.lake.clock().now_us()
    }

    /// The snapshot's session.
    async fn context(&self) -> Result<SessionContext, EngineError> {
        let snapshot = self.newest().await;
        match (&snapshot.context, &snapshot.failure) {
            (Some(context), _) => Ok(context.clone()),
            (None, failure) => Err(EngineError::Lake(failure.clone().unwrap_or_default())),
        }
    }

    /// The newest snapshot that can be had.
    async fn newest(&self) -> MutexGuard<'_, Snapshot> {
        let mut snapshot = self.snapshot.lock().await;
        let tidings = self.told.as_ref().map(Told::now).unwrap_or_default();
        let serves = snapshot.tried.is_some_and(|tried| tried.serves(self.now_us()));
        if serves && !self.lacks_something(&snapshot, &tidings) {
            return snapshot;
        }
        let tried = Served::of(self.now_us(), Instant::now(), limits::SNAPSHOT_AGE_MAX);
        match self.open_in_time(&snapshot, &tidings).await {
            Ok(Opened { context, versions, damaged }) => {
                let failure = damaged.failure().map(str::to_owned);
                if failure.is_some() && failure != snapshot.failure {
                    tracing::warn!(failure, "what needs this table has no answer");
                }
                let changes = tidings.changes;
                *snapshot =
                    Snapshot { context: Some(context), tried: Some(tried), failure, versions, changes, damaged };
            }
            Err(failure) => {
                tracing::warn!(%failure, "cannot look for newer tables");
                snapshot.tried = Some(Served::of(self.now_us(), Instant::now(), limits::SNAPSHOT_AGE_MAX));
                snapshot.failure = Some(failure);
            }
        }
        snapshot
    }

    /// Whether there is a commit that the snapshot does not have: this process has seen one, or was told of one and has
    /// not looked since. Where the last look failed, the next one has time.
    fn lacks_something(&self, snapshot: &Snapshot, tidings: &Tidings) -> bool {
        if snapshot.failure.is_some() {
            return false;
        }
        let known = self.lake.versions().borrow().clone();
        TableName::ALL.into_iter().filter(|name| self.shows(*name)).any(|name| {
            let shown = snapshot.versions.get(name);
            let news = tidings.since(snapshot.changes, name);
            let is_told = news.is_some_and(|news| !shown.is_some_and(|shown| shown.is(news)));
            is_told || known.get(name) != shown
        })
    }

    async fn open_in_time(&self, before: &Snapshot, tidings: &Tidings) -> Result<Opened, String> {
        match tokio::time::timeout(limits::REFRESH_TIME_MAX, Box::pin(self.open(before, tidings))).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no answer within {} s", limits::REFRESH_TIME_MAX.as_secs())),
        }
    }

    /// A session, and the versions of its tables. A table that nobody has made yet is empty; one that was
    /// there and is gone is a lake that went away. Hours or days whose log is damaged are told of, and keep nobody from the rest.
    async fn open(&self, before: &Snapshot, tidings: &Tidings) -> Result<Opened, String> {
        let (mut tables, mut readings, mut damaged) = (Vec::new(), Readings::default(), Damaged::default());
        let wanted = TableName::ALL.into_iter().filter(|name| self.shows(*name));
        // `readings` is the first of all: the others go by it.
        for name in wanted {
            let told = tidings.of(name);
            // What was told before the last look is no reason for another one.
            let news = tidings.since(before.changes, name);
            if damaged.rests(&before.damaged, name, Instant::now()) {
                continue;
            }
            let table = match self.look(name, readings, told, news).await {
                Err(error) if error.is_of_rollups() => {
                    damaged.found(&before.damaged, name, error.to_string(), Instant::now());
                    continue;
                }
                looked => looked.map_err(|error| error.to_string())?,
            };
            let found = table.as_ref().map(Table::known_version);
            if let (Some(told), Some(teller)) = (told, &self.told) {
                teller.compare(name, told, found, news.is_some());
            }
            if name == TableName::Readings {
                let is_as_told = told.zip(found).is_some_and(|(told, found)| found.is(told));
                readings = Readings { rest: table.as_ref().map(Table::rests_for).unwrap_or_default(), is_as_told };
            }
            if table.is_none() && before.versions.get(name).is_some() {
                return Err(format!(
                    "the table `{name}` was there and is gone; hint: is the lake's place still there?"
                ));
            }
            tables.push((name, table));
        }
        let context = session_on(&self.lake, &self.settings, &tables).await.map_err(|error| error.to_string())?;
        for name in GROWING {
            context.deregister_udf(name);
        }
        let versions = tables.iter().filter_map(|(name, table)| Some((*name, table.as_ref()?.known_version())));
        Ok(Opened { context, versions: versions.collect(), damaged })
    }

    /// Whether who asks may see anything of a table, or of what follows from it: which instrument hung where is the staff's, and how
    /// far a counter went everybody's.
    fn shows(&self, name: TableName) -> bool {
        let is_staffs = matches!(name, TableName::Events | TableName::QualityRules);
        self.settings.access == Access::Staff || !is_staffs
    }

    /// A table, looked for as far as what is known of it is too old. What the pipeline tells of it is `told`, and `news`
    /// where nobody has looked since.
    async fn look(
        &self,
        name: TableName,
        readings: Readings,
        told: Option<Version>,
        news: Option<Version>,
    ) -> Result<Option<Table>, LakeError> {
        // What was known a while ago says how often things change.
        let known = Table::open_within(&self.lake, name, Duration::MAX).await?;
        let version = known.as_ref().map(Table::known_version);
        let is_as_told = told.zip(version).is_some_and(|(told, version)| version.is(told));
        if let (Some(news), false) = (news, is_as_told) {
            return Table::open_told(&self.lake, name, news).await;
        }
        let Some(known) = known else {
            return Table::open_within(&self.lake, name, self.looks.age_max_of_none()).await;
        };
        let rests = known.rests_for();
        let readings = if name == TableName::Readings { Readings { rest: rests, is_as_told } } else { readings };
        // A command that the pipeline has not seen in `readings` may have committed elsewhere too, and removed files.
        let looks = if is_as_told && readings.is_as_told { self.looks.told() } else { self.looks };
        Table::open_within(&self.lake, name, looks.age_max(name, rests, readings.rest)).await
    }

    /// Why there is nothing newer than what is shown, where there should be.
    pub(crate) async fn failure(&self) -> Option<String> {
        let looked = self.snapshot.lock().await.failure.clone();
        match looked {
            Some(failure) => Some(failure),
            None => self.latest.failure().await,
        }
    }

    /// Answers SQL of the staff.
    pub(crate) async fn sql(&self, sql: &str) -> Result<Answer, EngineError> {
        let workshop = self.workshop.as_ref().ok_or(EngineError::NoSql)?;
        let turn = turn(&self.turns).await?;
        let context = self.context().await?;
        let sql = sql.to_owned();
        let answering = async move { sql::run_limited(&context, &sql, Limits::SQL).await };
        Ok(workshop.answer(Limits::SQL, turn, answering).await?)
    }

    /// Answers a named query.
    pub(crate) async fn named(&self, query: &NamedQuery, given: &[(String, String)]) -> Result<Answer, EngineError> {
        self.bound(query, given, &self.turns).await
    }

    async fn bound(
        &self,
        query: &NamedQuery,
        given: &[(String, String)],
        turns: &Arc<Semaphore>,
    ) -> Result<Answer, EngineError> {
        let values = query.bind(given, self.now_us())?;
        let _turn = turn(turns).await?;
        let context = self.context().await?;
        Ok(sql::run_bound(&context, &query.sql, values, Limits::NAMED).await?)
    }

    /// Answers a named query of the pages' own.
    async fn own(&self, name: &str, given: &[(&str, &str)]) -> Result<Answer, EngineError> {
        let given: Vec<_> = given.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let query = named::find(name).ok_or_else(|| EngineError::Lake(format!("there is no query `{name}`")))?;
        Box::pin(self.bound(query, &given, &self.page_turns)).await
    }

    /// What is known of each sensor now.
    pub(crate) async fn latest(&self) -> Result<Arc<Vec<SensorNow>>, EngineError> {
        let snapshot = self.newest().await;
        let versions = snapshot.context.as_ref().map(|_| snapshot.versions.clone());
        drop(snapshot);
        let reading = async { Ok(latest::read(&self.own("latest", &[]).await?)?) };
        self.latest.get(self.lake.clock(), versions, reading).await
    }

    /// The curves of the front page.
    pub(crate) async fn curves(&self) -> Result<Arc<Curves>, EngineError> {
        // They move slowly: what came since is not worth their price.
        self.curves.get(self.lake.clock(), None, async { Ok(curve::read(&self.own("curves", &[]).await?)?) }).await
    }

    /// The curves of one place.
    pub(crate) async fn place(&self, site: &str, every: &str, days: u32) -> Result<Curves, EngineError> {
        let from = format!("now-{days}d");
        Ok(curve::read(&self.own("place", &[("site", site), ("every", every), ("from", &from)]).await?)?)
    }
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, EngineError> {
    match tokio::time::timeout(limits::TURN_WAIT_MAX, Arc::clone(turns).acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(_)) | Err(_) => Err(EngineError::Busy),
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tjern_readings::clock::Clock;

    use super::*;

    /// Whoever takes all turns of the named queries does not close the pages.
    #[tokio::test]
    async fn pages_have_turns_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().canonicalize().expect("it is there");
        let url = tjern_readings::store::LakeUrl::folder(&place).expect("a lake");
        let engine = Engine::public(Lake::open(&url).expect("it opens"), Looks::Free, TimeZone::UTC);
        let all = u32::try_from(limits::NAMED_AT_ONCE_MAX).expect("few");
        let _turns = Arc::clone(&engine.turns).acquire_many_owned(all).await.expect("turns");
        assert!(engine.latest().await.expect("a turn for the page").is_empty());
    }

    /// A server whose table of hours was damaged read its log anew each second, for as long as nobody mended it.
    #[tokio::test(start_paused = true)]
    async fn a_damaged_table_is_not_read_anew_each_second() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().canonicalize().expect("it is there");
        let url = tjern_readings::store::LakeUrl::folder(&place).expect("a lake");
        let clock = Clock::manual(1_782_885_600_000_000);
        let lake = || Lake::open(&url).expect("it opens").with_clock(clock.clone());
        Table::create_all(&lake()).await.expect("created");
        let log = place.join("tables/hourly/_delta_log/00000000000000000000.json");
        let sound = std::fs::read(&log).expect("a log");
        std::fs::write(&log, "no commit").expect("written");
        let lake = lake();
        let engine = Engine::public(lake.clone(), Looks::Free, TimeZone::UTC);
        let mut costs = Vec::new();
        for _ in 0..120 {
            let before = lake.store().requests();
            engine.context().await.expect("all the rest is answered");
            costs.push(lake.store().requests().since(&before).billed());
            assert!(engine.failure().await.is_some_and(|failure| failure.contains("hourly")), "and it is told");
            clock.set_us(clock.now_us() + 1_000_000);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let least = costs.iter().skip(1).min().copied().unwrap_or_default();
        let looks = costs.iter().skip(1).filter(|cost| **cost > least).count();
        assert!((2..=7).contains(&looks), "{looks} looks in two minutes: {costs:?}");
        std::fs::write(&log, sound).expect("written");
        clock.set_us(clock.now_us() + 61_000_000);
        tokio::time::advance(Duration::from_secs(61)).await;
        engine.context().await.expect("answered");
        assert_eq!(engine.failure().await, None, "a minute after it was mended it is there");
    }
}
