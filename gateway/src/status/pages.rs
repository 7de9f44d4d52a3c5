//! The pages of the status, each made once a second at most: all who ask meanwhile are handed the same bytes.
//!
//! A page of ten thousand points takes a while to make; so many who ask at once, and so often, cost no more than one. It is made on
//! the listener's thread (`run/listener`), where nobody polls, and holds the locks of the buses' states only while it copies what
//! they say.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::metrics;
use super::report::{GatewayStatus, HealthState};

/// A page is handed out for so long.
pub(super) const KEPT: Duration = Duration::from_secs(1);

pub(super) const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    Status,
    Metrics,
    Health,
}

/// A page as it was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) status: &'static str,
    pub(super) kind: &'static str,
    pub(super) body: Bytes,
}

/// What a page was made from, and when.
type Kept = Option<(Instant, Option<Made>)>;

/// The pages of a gateway. Clones share them.
#[derive(Clone)]
pub(super) struct Pages(Arc<Inner>);

struct Inner {
    gather: Box<dyn Fn() -> GatewayStatus + Send + Sync>,
    kept: [Mutex<Kept>; 3],
}

impl fmt::Debug for Pages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pages").finish_non_exhaustive()
    }
}

impl Page {
    fn make(self, status: GatewayStatus) -> Option<Made> {
        let ok = "200 OK";
        let (status, kind, body) = match self {
            Self::Status => (ok, JSON, serde_json::to_string(&status).ok()?),
            Self::Metrics => (ok, METRICS, metrics::text(&Arc::new(status)).ok()?),
            Self::Health => {
                let is_failing = status.health.state == HealthState::Failing;
                let code = if is_failing { "503 Service Unavailable" } else { ok };
                (code, JSON, serde_json::to_string(&status.health).ok()? + "\n")
            }
        };
        Some(Made { status, kind, body: body.into() })
    }
}

impl Pages {
    /// Of what this gathers.
    pub(super) fn new(gather: impl Fn() -> GatewayStatus + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { gather: Box::new(gather), kept: Default::default() }))
    }

    /// A page that is at most [`KEPT`] old; nothing where it cannot be made.
    pub(super) async fn get(&self, page: Page) -> Option<Made> {
        // Who asks while it is made waits for it.
        let mut kept = self.0.kept[page as usize].lock().await;
        match &*kept {
            Some((at, made)) if at.elapsed() < KEPT => made.clone(),
            _ => {
                let begun = Instant::now();
                let made = page.make((self.0.gather)());
                *kept = Some((begun, made.clone()));
                made
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::future::join_all;

    use super::*;

    /// A gateway without a bus.
    pub(in crate::status) const STATUS: &str = r#"{"version":"0.1.0","gateway":"landfall-01","time_us":1700000010000000,"uptime_s":90,
        "health":{"state":"ok","details":[]},
        "configuration":{"path":"gateway.toml","sha256":"0123456789abcdef","reloads":0,"refusals":0,"refused":null},
        "spool":{"epoch":"e","bytes":1,"sealed_objects":0,"unsealed_readings":0,"unsynced_readings":0,
            "dropped_readings":0,"dropped_batches":0,"torn_tails":0,"bad_records":0,"in_trouble":false},
        "upload":{"waiting_batches":0,"waiting_bytes":0,"oldest_waiting_us":null,"last_success_us":null,
            "last_error":null,"last_lag_us":null,"requests":3,"uploaded_batches":2,"uploaded_bytes":4000},"buses":[]}"#;

    /// Pages of what says how often it was gathered.
    fn counted() -> (Pages, Arc<AtomicU64>) {
        let gathered = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&gathered);
        let gather = move || {
            let uptime_s = counts.fetch_add(1, Ordering::Relaxed) + 1;
            GatewayStatus { uptime_s, ..serde_json::from_str(STATUS).expect("a status") }
        };
        (Pages::new(gather), gathered)
    }

    /// Twenty-four scripts that asked as often as they could cost a bus of 2,000 points 1,800 slots a second.
    #[tokio::test(start_paused = true)]
    async fn however_many_ask_a_page_is_made_once_a_second() {
        let (pages, gathered) = counted();
        for (page, made) in [(Page::Status, 1), (Page::Metrics, 2), (Page::Health, 3)] {
            let asked = (0..100).map(|_| pages.get(page));
            let bodies: Vec<Bytes> = join_all(asked).await.into_iter().map(|made| made.expect("a page").body).collect();
            assert!(bodies.iter().all(|body| body.as_ptr() == bodies[0].as_ptr()), "{page:?}: the same bytes");
            assert_eq!(gathered.load(Ordering::Relaxed), made, "{page:?}");
        }
        tokio::time::advance(KEPT / 2).await;
        let body = |made: Option<Made>| String::from_utf8(made.expect("a page").body.to_vec()).expect("text");
        assert!(body(pages.get(Page::Status).await).contains("\"uptime_s\":1,"));
        tokio::time::advance(KEPT / 2).await;
        assert!(body(pages.get(Page::Status).await).contains("\"uptime_s\":4,"), "it is not kept for ever");
        assert_eq!(gathered.load(Ordering::Relaxed), 4);
    }
}
