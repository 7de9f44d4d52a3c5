//! Sessions on the newest versions of the tables, shared by requests.
//!
//! A request sees a snapshot that is at most [`limits::SNAPSHOT_AGE_MAX`] old. Whoever finds it older
//! looks for newer tables, as often as that is worth what it costs ([`looks`](crate::looks)), one at a time; the others
//! wait for that one. Where the lake cannot be read,
//! or a table is gone that was there, the older snapshot and what was made of it serve on, and
//! `/health` says so: the pages show each value's age anyway.

use std::sync::Arc;
use std::time::Duration;

use datafusion::prelude::SessionContext;
use jiff::tz::TimeZone;
use tjern_lake::session::session_on;
use tjern_lake::{Access, Lake, LakeError, SessionSettings, Table, TableName};
use tjern_readings::clock::Clock;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::latest::{self, SensorNow};
use crate::limits::{self, Limits};
use crate::looks::Looks;
use crate::named::{self, NamedQuery};
use crate::pages::curve::{self, Curves};
use crate::parameters::ParameterError;
use crate::rows::ColumnError;
use crate::sql::{self, Answer, SqlError};
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

/// A value that is made anew when it is too old, by one request at a time.
struct Kept<T> {
    age_max: Duration,
    /// What was dear to make is kept for so many times as long as the making took.
    thrift: u32,
    value: Mutex<Making<T>>,
}

/// What was made last, when, until when it serves, and why there is nothing newer.
struct Making<T> {
    value: Option<(Served, Arc<T>)>,
    failure: Option<String>,
}

/// From when on and for how long something serves: by the lake's clock and by the machine's own, whichever ends first.
/// One may be set back, or stand still, as that of a test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Served {
    from_us: i64,
    from: Instant,
    lasts: Duration,
}

impl Served {
    fn of(from_us: i64, from: Instant, lasts: Duration) -> Self {
        Self { from_us, from, lasts }
    }

    fn serves(self, now_us: i64) -> bool {
        let age_us = u128::try_from(now_us.saturating_sub(self.from_us));
        age_us.is_ok_and(|age_us| age_us < self.lasts.as_micros()) && self.from.elapsed() < self.lasts
    }
}

impl<T> Kept<T> {
    const fn new(age_max: Duration, thrift: u32) -> Self {
        Self { age_max, thrift, value: Mutex::const_new(Making { value: None, failure: None }) }
    }

    /// The value; where no newer one can be made, the older one.
    async fn get<E: std::fmt::Display>(
        &self,
        clock: &Clock,
        make: impl Future<Output = Result<T, E>>,
    ) -> Result<Arc<T>, E> {
        let mut kept = self.value.lock().await;
        if let Some((served, value)) = &kept.value
            && served.serves(clock.now_us())
        {
            return Ok(Arc::clone(value));
        }
        // The age counts from before the making: a slow making must not hide an old value.
        let (from_us, began) = (clock.now_us(), Instant::now());
        let made = make.await;
        let served = Served::of(from_us, began, self.age_max.max(began.elapsed().saturating_mul(self.thrift)));
        match (made, &mut kept.value) {
            (Ok(value), _) => {
                let value = Arc::new(value);
                *kept = Making { value: Some((served, Arc::clone(&value))), failure: None };
                Ok(value)
            }
            (Err(error), Some((tried, value))) => {
                tracing::warn!(%error, "what was made before serves on");
                *tried = served;
                let value = Arc::clone(value);
                kept.failure = Some(error.to_string());
                Ok(value)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Why there is nothing newer, where there should be.
    async fn failure(&self) -> Option<String> {
        self.value.lock().await.failure.clone()
    }
}

/// The newest snapshot that could be had.
#[derive(Default)]
struct Snapshot {
    context: Option<SessionContext>,
    tried: Option<Served>,
    failure: Option<String>,
    /// Tables that were there once: they do not go, unless the lake does.
    seen: Vec<TableName>,
}

/// Answers queries of one kind of people.
pub(crate) struct Engine {
    lake: Lake,
    looks: Looks,
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
            settings: SessionSettings { access, timezone, memory_bytes: limits::SESSION_MEMORY_BYTES },
            turns: Arc::new(Semaphore::new(at_once_max)),
            page_turns: Arc::new(Semaphore::new(limits::PAGES_AT_ONCE_MAX)),
            workshop,
            snapshot: Mutex::default(),
            latest: Kept::new(limits::SNAPSHOT_AGE_MAX, 0),
            curves: Kept::new(limits::CURVES_AGE_MAX, limits::CURVES_THRIFT),
        }
    }

    pub(crate) fn now_us(&self) -> i64 {
        self.lake.clock().now_us()
    }

    /// The snapshot's session.
    async fn context(&self) -> Result<SessionContext, EngineError> {
        let mut snapshot = self.snapshot.lock().await;
        if snapshot.tried.is_none_or(|tried| !tried.serves(self.now_us())) {
            let tried = Served::of(self.now_us(), Instant::now(), limits::SNAPSHOT_AGE_MAX);
            match self.open_in_time(&snapshot.seen).await {
                Ok((context, seen)) => {
                    *snapshot = Snapshot { context: Some(context), tried: Some(tried), failure: None, seen };
                }
                Err(failure) => {
                    tracing::warn!(%failure, "cannot look for newer tables");
                    snapshot.tried = Some(Served::of(self.now_us(), Instant::now(), limits::SNAPSHOT_AGE_MAX));
                    snapshot.failure = Some(failure);
                }
            }
        }
        match (&snapshot.context, &snapshot.failure) {
            (Some(context), _) => Ok(context.clone()),
            (None, failure) => Err(EngineError::Lake(failure.clone().unwrap_or_default())),
        }
    }

    async fn open_in_time(&self, seen: &[TableName]) -> Result<(SessionContext, Vec<TableName>), String> {
        match tokio::time::timeout(limits::REFRESH_TIME_MAX, Box::pin(self.open(seen))).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no answer within {} s", limits::REFRESH_TIME_MAX.as_secs())),
        }
    }

    /// A session, and which tables there are. A table that nobody has made yet is empty; one that was
    /// there and is gone is a lake that went away.
    async fn open(&self, seen: &[TableName]) -> Result<(SessionContext, Vec<TableName>), String> {
        let (mut tables, mut readings_rest) = (Vec::new(), Duration::ZERO);
        let wanted = TableName::ALL.into_iter().filter(|name| self.shows(*name));
        // `readings` is the first of all: the others go by it.
        for name in wanted {
            let table = self.look(name, readings_rest).await.map_err(|error| error.to_string())?;
            if name == TableName::Readings {
                readings_rest = table.as_ref().map(Table::rests_for).unwrap_or_default();
            }
            if table.is_none() && seen.contains(&name) {
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
        let seen = tables.iter().filter(|(_, table)| table.is_some()).map(|(name, _)| *name).collect();
        Ok((context, seen))
    }

    /// Whether who asks may see anything of a table.
    fn shows(&self, name: TableName) -> bool {
        let is_staffs = matches!(name, TableName::Installations | TableName::Events | TableName::QualityRules);
        self.settings.access == Access::Staff || !is_staffs
    }

    /// A table, looked for as far as what is known of it is too old.
    async fn look(&self, name: TableName, readings_rest: Duration) -> Result<Option<Table>, LakeError> {
        // What was known a while ago says how often things change.
        let Some(known) = Table::open_within(&self.lake, name, Duration::MAX).await? else {
            return Table::open_within(&self.lake, name, self.looks.age_max_of_none()).await;
        };
        let rests = known.rests_for();
        let readings_rest = if name == TableName::Readings { rests } else { readings_rest };
        Table::open_within(&self.lake, name, self.looks.age_max(name, rests, readings_rest)).await
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
        self.latest.get(self.lake.clock(), async { Ok(latest::read(&self.own("latest", &[]).await?)?) }).await
    }

    /// The curves of the front page.
    pub(crate) async fn curves(&self) -> Result<Arc<Curves>, EngineError> {
        self.curves.get(self.lake.clock(), async { Ok(curve::read(&self.own("curves", &[]).await?)?) }).await
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
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn many_who_ask_at_once_cost_as_much_as_one() {
        let (made, clock) = (AtomicU32::new(0), Clock::manual(0));
        let ask = async |kept: &Kept<u32>| {
            let make = async {
                tokio::task::yield_now().await;
                Ok::<_, String>(made.fetch_add(1, Ordering::Relaxed))
            };
            kept.get(&clock, make).await.map(|value| *value)
        };
        let kept = Kept::new(Duration::from_secs(3600), 0);
        futures::future::join_all((0..20).map(|_| ask(&kept))).await;
        assert_eq!(made.load(Ordering::Relaxed), 1);
        let old = Kept::new(Duration::ZERO, 0);
        assert_eq!((ask(&old).await, ask(&old).await), (Ok(1), Ok(2)));
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let (kept, clock) = (Kept::new(Duration::from_secs(1), 0), Clock::manual(0));
        assert_eq!(kept.get(&clock, async { Err::<u32, _>("no") }).await, Err("no"));
        assert_eq!(kept.get(&clock, async { Ok::<_, &str>(7) }).await.as_deref(), Ok(&7));
    }

    /// A query that fails must not take away the numbers that were there.
    #[tokio::test]
    async fn what_was_made_serves_on_where_nothing_newer_can_be_made() {
        let (kept, clock) = (Kept::new(Duration::ZERO, 0), Clock::manual(0));
        assert_eq!(kept.get(&clock, async { Ok::<_, &str>(7) }).await.as_deref(), Ok(&7));
        assert_eq!(kept.get(&clock, async { Err::<u32, _>("no") }).await.as_deref(), Ok(&7));
        assert_eq!(kept.failure().await.as_deref(), Some("no"));
        assert_eq!(kept.get(&clock, async { Ok::<_, &str>(8) }).await.as_deref(), Ok(&8));
        assert_eq!(kept.failure().await, None);
    }

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
}
