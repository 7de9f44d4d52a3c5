//! Sessions on the newest versions of the tables, shared by requests.
//!
//! A request sees a snapshot that is at most [`limits::SNAPSHOT_AGE_MAX`] old. Whoever finds it older
//! looks for newer tables, one at a time; the others wait for that one. Where the lake cannot be read
//! the older snapshot serves on, and `/health` says so: the pages show each value's age anyway.

use std::sync::Arc;
use std::time::Duration;

use datafusion::prelude::SessionContext;
use jiff::tz::TimeZone;
use tjern_lake::{Access, Lake, SessionSettings};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::latest::{self, SensorNow};
use crate::limits::{self, Limits};
use crate::named::{self, NamedQuery};
use crate::pages::curve::{self, Curves};
use crate::parameters::ParameterError;
use crate::rows::ColumnError;
use crate::sql::{self, Answer, SqlError};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The lake cannot be read.
    #[error("the lake cannot be read: {0}")]
    Lake(String),
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

/// A value that is made anew when it is too old, by one request at a time.
struct Kept<T> {
    age_max: Duration,
    /// What was dear to make is kept for so many times as long as the making took.
    thrift: u32,
    value: Mutex<Option<(Instant, Arc<T>)>>,
}

impl<T> Kept<T> {
    const fn new(age_max: Duration, thrift: u32) -> Self {
        Self { age_max, thrift, value: Mutex::const_new(None) }
    }

    async fn get<E>(&self, make: impl Future<Output = Result<T, E>>) -> Result<Arc<T>, E> {
        let mut kept = self.value.lock().await;
        if let Some((until, value)) = &*kept
            && Instant::now() < *until
        {
            return Ok(Arc::clone(value));
        }
        // The age counts from before the making: a slow making must not hide an old value.
        let began = Instant::now();
        let value = Arc::new(make.await?);
        let until = (began + self.age_max).max(began + began.elapsed().saturating_mul(self.thrift));
        *kept = Some((until, Arc::clone(&value)));
        Ok(value)
    }
}

/// The newest snapshot that could be had.
#[derive(Default)]
struct Snapshot {
    context: Option<SessionContext>,
    tried: Option<Instant>,
    failure: Option<String>,
}

/// Answers queries of one kind of people.
pub(crate) struct Engine {
    lake: Lake,
    settings: SessionSettings,
    turns: Semaphore,
    snapshot: Mutex<Snapshot>,
    latest: Kept<Vec<SensorNow>>,
    curves: Kept<Curves>,
}

impl Engine {
    pub(crate) fn new(lake: Lake, access: Access, timezone: TimeZone, at_once_max: usize) -> Self {
        Self {
            lake,
            settings: SessionSettings { access, timezone, memory_bytes: limits::SESSION_MEMORY_BYTES },
            turns: Semaphore::new(at_once_max),
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
        if snapshot.tried.is_none_or(|tried| tried.elapsed() >= limits::SNAPSHOT_AGE_MAX) {
            let tried = Instant::now();
            match self.open().await {
                Ok(context) => *snapshot = Snapshot { context: Some(context), tried: Some(tried), failure: None },
                Err(failure) => {
                    tracing::warn!(%failure, "cannot look for newer tables");
                    snapshot.tried = Some(Instant::now());
                    snapshot.failure = Some(failure);
                }
            }
        }
        match (&snapshot.context, &snapshot.failure) {
            (Some(context), _) => Ok(context.clone()),
            (None, failure) => Err(EngineError::Lake(failure.clone().unwrap_or_default())),
        }
    }

    async fn open(&self) -> Result<SessionContext, String> {
        let opening = Box::pin(tjern_lake::session(&self.lake, &self.settings));
        match tokio::time::timeout(limits::REFRESH_TIME_MAX, opening).await {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", limits::REFRESH_TIME_MAX.as_secs())),
        }
    }

    /// Why the newest look for newer tables failed, where it did.
    pub(crate) async fn failure(&self) -> Option<String> {
        self.snapshot.lock().await.failure.clone()
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, EngineError> {
        match tokio::time::timeout(limits::TURN_WAIT_MAX, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(EngineError::Busy),
        }
    }

    /// Answers SQL of the staff.
    pub(crate) async fn sql(&self, sql: &str) -> Result<Answer, EngineError> {
        let _turn = self.turn().await?;
        let context = self.context().await?;
        Ok(sql::run_limited(&context, sql, Limits::SQL).await?)
    }

    /// Answers a named query.
    pub(crate) async fn named(&self, query: &NamedQuery, given: &[(String, String)]) -> Result<Answer, EngineError> {
        let values = query.bind(given, self.now_us())?;
        let _turn = self.turn().await?;
        let context = self.context().await?;
        Ok(sql::run_bound(&context, &query.sql, values, Limits::NAMED).await?)
    }

    /// Answers a named query of the pages' own.
    async fn own(&self, name: &str, given: &[(&str, &str)]) -> Result<Answer, EngineError> {
        let given: Vec<_> = given.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let query = named::find(name).ok_or_else(|| EngineError::Lake(format!("there is no query `{name}`")))?;
        Box::pin(self.named(query, &given)).await
    }

    /// What is known of each sensor now.
    pub(crate) async fn latest(&self) -> Result<Arc<Vec<SensorNow>>, EngineError> {
        self.latest.get(async { Ok(latest::read(&self.own("latest", &[]).await?)?) }).await
    }

    /// The curves of the front page.
    pub(crate) async fn curves(&self) -> Result<Arc<Curves>, EngineError> {
        self.curves.get(async { Ok(curve::read(&self.own("curves", &[]).await?)?) }).await
    }

    /// The curves of one place.
    pub(crate) async fn place(&self, site: &str, every: &str, days: u32) -> Result<Curves, EngineError> {
        let from = format!("now-{days}d");
        Ok(curve::read(&self.own("place", &[("site", site), ("every", every), ("from", &from)]).await?)?)
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
        let made = AtomicU32::new(0);
        let ask = async |kept: &Kept<u32>| {
            let make = async {
                tokio::task::yield_now().await;
                Ok::<_, ()>(made.fetch_add(1, Ordering::Relaxed))
            };
            kept.get(make).await.map(|value| *value)
        };
        let kept = Kept::new(Duration::from_secs(3600), 0);
        futures::future::join_all((0..20).map(|_| ask(&kept))).await;
        assert_eq!(made.load(Ordering::Relaxed), 1);
        let old = Kept::new(Duration::ZERO, 0);
        assert_eq!((ask(&old).await, ask(&old).await), (Ok(1), Ok(2)));
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let kept = Kept::new(Duration::from_secs(1), 0);
        assert_eq!(kept.get(async { Err::<u32, _>("no") }).await, Err("no"));
        assert_eq!(kept.get(async { Ok::<_, &str>(7) }).await.as_deref(), Ok(&7));
    }
}
