//! What was dear to make, kept for as long as it serves and made anew by one request at a time.
//!
//! It serves for a time, by two clocks, and as long as the tables are at the versions that it was made of. What was begun
//! after somebody asked is new enough for him, so of many who ask at once one makes it, whatever is committed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tjern_lake::Versions;
use tjern_readings::clock::Clock;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A value that is made anew when it is too old, by one request at a time.
pub(crate) struct Kept<T> {
    age_max: Duration,
    /// What was dear to make is kept for so many times as long as the making took.
    thrift: u32,
    value: Mutex<Making<T>>,
}

/// What was made last, of which versions, when, until when it serves, and why there is nothing newer.
struct Making<T> {
    value: Option<(Served, Arc<T>)>,
    of: Option<Versions>,
    failure: Option<String>,
}

/// From when on and for how long something serves: by the lake's clock and by the machine's own, whichever ends first.
/// One may be set back, or stand still, as that of a test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served {
    from_us: i64,
    from: Instant,
    lasts: Duration,
}

impl Served {
    pub(crate) fn of(from_us: i64, from: Instant, lasts: Duration) -> Self {
        Self { from_us, from, lasts }
    }

    pub(crate) fn serves(self, now_us: i64) -> bool {
        let age_us = u128::try_from(now_us.saturating_sub(self.from_us));
        age_us.is_ok_and(|age_us| age_us < self.lasts.as_micros()) && self.from.elapsed() < self.lasts
    }
}

impl<T> Kept<T> {
    pub(crate) const fn new(age_max: Duration, thrift: u32) -> Self {
        Self { age_max, thrift, value: Mutex::const_new(Making { value: None, of: None, failure: None }) }
    }

    /// The value; where no newer one can be made, the older one. It is made of the tables at these versions or newer
    /// ones, where that matters.
    pub(crate) async fn get<E: std::fmt::Display>(
        &self,
        clock: &Clock,
        of: Option<Versions>,
        make: impl Future<Output = Result<T, E>>,
    ) -> Result<Arc<T>, E> {
        let asked = Instant::now();
        let mut kept = self.value.lock().await;
        if let Some((served, value)) = &kept.value
            && served.serves(clock.now_us())
            // What was begun after it was asked for is new enough, whoever has seen what meanwhile.
            && (of.is_none() || of == kept.of || served.from >= asked)
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
                *kept = Making { value: Some((served, Arc::clone(&value))), of, failure: None };
                Ok(value)
            }
            (Err(error), Some((tried, value))) => {
                tracing::warn!(%error, "what was made before serves on");
                *tried = served;
                let value = Arc::clone(value);
                kept.of = of;
                kept.failure = Some(error.to_string());
                Ok(value)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Why there is nothing newer, where there should be.
    pub(crate) async fn failure(&self) -> Option<String> {
        self.value.lock().await.failure.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tjern_lake::{TableName, Version};

    #[tokio::test]
    async fn many_who_ask_at_once_cost_as_much_as_one() {
        let (made, clock) = (AtomicU32::new(0), Clock::manual(0));
        let ask = async |kept: &Kept<u32>| {
            let make = async {
                tokio::task::yield_now().await;
                Ok::<_, String>(made.fetch_add(1, Ordering::Relaxed))
            };
            kept.get(&clock, None, make).await.map(|value| *value)
        };
        let kept = Kept::new(Duration::from_secs(3600), 0);
        futures::future::join_all((0..20).map(|_| ask(&kept))).await;
        assert_eq!(made.load(Ordering::Relaxed), 1);
        let old = Kept::new(Duration::ZERO, 0);
        assert_eq!((ask(&old).await, ask(&old).await), (Ok(1), Ok(2)));
    }

    /// A commit is seen with the next answer, and who asks while that is made gets it too.
    #[tokio::test]
    async fn what_was_made_of_older_versions_is_made_anew_once() {
        let versions = |version| {
            Some([(TableName::Readings, Version { version, digest: None, id: None })].into_iter().collect::<Versions>())
        };
        let (made, clock) = (AtomicU32::new(0), Clock::manual(0));
        let kept = Kept::new(Duration::from_secs(3600), 0);
        let ask = async |of: i64| {
            let make = async {
                tokio::task::yield_now().await;
                Ok::<_, String>(made.fetch_add(1, Ordering::Relaxed))
            };
            kept.get(&clock, versions(of), make).await.map(|value| *value)
        };
        assert_eq!((ask(1).await, ask(1).await), (Ok(0), Ok(0)));
        let many = futures::future::join_all((0..20).map(|number| ask(2 + number % 3))).await;
        assert_eq!(many[0], Ok(1));
        assert!(made.load(Ordering::Relaxed) <= 3, "twenty at once make it {} times", made.load(Ordering::Relaxed));
        let old = kept.get(&clock, versions(9), async { Err("no".to_owned()) }).await;
        assert!(old.is_ok_and(|old| *old >= 1) && kept.failure().await.is_some(), "what was made before serves on");
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let (kept, clock) = (Kept::new(Duration::from_secs(1), 0), Clock::manual(0));
        assert_eq!(kept.get(&clock, None, async { Err::<u32, _>("no") }).await, Err("no"));
        assert_eq!(kept.get(&clock, None, async { Ok::<_, &str>(7) }).await.as_deref(), Ok(&7));
    }

    /// A query that fails must not take away the numbers that were there.
    #[tokio::test]
    async fn what_was_made_serves_on_where_nothing_newer_can_be_made() {
        let (kept, clock) = (Kept::new(Duration::ZERO, 0), Clock::manual(0));
        assert_eq!(kept.get(&clock, None, async { Ok::<_, &str>(7) }).await.as_deref(), Ok(&7));
        assert_eq!(kept.get(&clock, None, async { Err::<u32, _>("no") }).await.as_deref(), Ok(&7));
        assert_eq!(kept.failure().await.as_deref(), Some("no"));
        assert_eq!(kept.get(&clock, None, async { Ok::<_, &str>(8) }).await.as_deref(), Ok(&8));
        assert_eq!(kept.failure().await, None);
    }
}
