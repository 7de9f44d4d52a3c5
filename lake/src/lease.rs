//! A lease: at most one process does a job at a time, so that none does work in vain.
//!
//! It is an object that is created only if it is not there, and taken over once it has run out: by one alone, however many
//! come for it at once ([`taking`]). Who works long
//! renews it ([`Lease::keep`]), so that it can be short: a holder that was killed stands in nobody's way for long. It
//! saves work and does not guard data: two that both believe to hold it (a clock that jumped, a
//! pause longer than the lease) are kept apart by the fence of the commit itself. Who leaves files behind where it lost the
//! lease asks [`Held::is_held`] before it makes them.
//!
//! A lease says since when its holder is at work: what was written since then may be about to be committed, so vacuum
//! leaves it however old it is ([`Lease::oldest_since_us`]).

mod taking;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tjern_readings::clock::Clock;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion};
use serde::{Deserialize, Serialize};

use crate::{Lake, LakeError};

/// How far another holder's clock may be ahead of ours. One that is further ahead would keep everybody waiting for
/// as long, so its lease counts as run out.
const SKEW_MAX_US: i64 = 10 * 60 * 1_000_000;

/// A lease that is held. Give it back with [`Lease::give_back`]; one that is not runs out by itself.
#[derive(Debug)]
pub struct Lease {
    lake: Lake,
    key: Path,
    record: Record,
    lasts_us: i64,
}

/// A lease that is renewed three times while it lasts, until it is given back or dropped.
#[derive(Debug)]
pub struct KeptLease {
    renewing: JoinHandle<Lease>,
    stop: tokio::sync::watch::Sender<bool>,
    held: Held,
}

/// Until when a kept lease is known to be held: for the work that is done under it.
#[derive(Debug, Clone)]
pub struct Held {
    clock: Clock,
    until_us: Arc<AtomicI64>,
}

impl Held {
    /// Whether nobody else can have the lease. It asks nobody: a process that stood still for longer than the lease lasts
    /// knows it by the clock, before anything of it goes on.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.clock.now_us() < self.until_us.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    holder: String,
    until_us: i64,
    /// Since when its holder is at work; earlier versions did not say it.
    #[serde(default = "long_ago")]
    since_us: i64,
}

const fn long_ago() -> i64 {
    i64::MIN
}

/// A lease as it lies there.
#[derive(Debug, Clone)]
struct Found {
    record: Record,
    /// Which of the store's versions it is.
    version: UpdateVersion,
}

impl Record {
    /// A lease that cannot be read is one that has run out.
    fn read(bytes: &[u8]) -> Self {
        let unreadable = Self { holder: String::new(), until_us: i64::MIN, since_us: i64::MIN };
        serde_json::from_slice(bytes).unwrap_or(unreadable)
    }
}

impl Lease {
    /// Since when the one is at work who works longest of those that hold a lease now; `None` where nobody does.
    ///
    /// # Errors
    /// [`LakeError::Store`].
    pub async fn oldest_since_us(lake: &Lake) -> Result<Option<i64>, LakeError> {
        let folder = Path::from(tjern_readings::keys::JOBS);
        let objects = lake.objects();
        let listed = objects.list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|source| LakeError::store(&folder, source))?;
        let mut oldest_us: Option<i64> = None;
        for meta in listed.objects.into_iter().filter(|meta| meta.location.extension() == Some("json")) {
            let failed = |source| LakeError::store(&meta.location, source);
            let record = match objects.get(&meta.location).await {
                Ok(found) => Record::read(&found.bytes().await.map_err(failed)?),
                // Given back meanwhile.
                Err(Error::NotFound { .. }) => continue,
                Err(source) => return Err(failed(source)),
            };
            if record.until_us > lake.clock().now_us() {
                oldest_us = Some(oldest_us.map_or(record.since_us, |oldest_us| oldest_us.min(record.since_us)));
            }
        }
        Ok(oldest_us)
    }

    /// Takes the lease of a job; `None` where somebody else holds it.
    ///
    /// # Errors
    /// [`LakeError::Store`].
    pub async fn take(lake: &Lake, job: &str, time_to_live: Duration) -> Result<Option<Self>, LakeError> {
        let key = tjern_readings::keys::lease(job);
        let now_us = lake.clock().now_us();
        let lasts_us = i64::try_from(time_to_live.as_micros()).unwrap_or(i64::MAX);
        let (holder, until_us) = (uuid::Uuid::new_v4().to_string(), now_us.saturating_add(lasts_us));
        let record = Record { holder, until_us, since_us: now_us };
        let lease = Self { lake: lake.clone(), key, record, lasts_us };
        if lease.create().await? {
            return Ok(Some(lease));
        }
        let Some(other) = lease.held().await? else { return Ok(lease.create().await?.then_some(lease)) };
        if lease.is_held_by(&other.record, now_us) {
            return Ok(None);
        }
        Ok(lease.take_over(&other, &lease.record).await?.then_some(lease))
    }

    /// Whether somebody has it by this record, which has neither run out nor is from a clock that was far ahead.
    const fn is_held_by(&self, record: &Record, now_us: i64) -> bool {
        let latest_us = now_us.saturating_add(self.lasts_us).saturating_add(SKEW_MAX_US);
        record.until_us > now_us && record.until_us <= latest_us
    }

    /// Gives the lease back, so that the next one need not wait for it to run out.
    ///
    /// # Errors
    /// [`LakeError::Store`]; the lease then runs out by itself.
    pub async fn give_back(self) -> Result<(), LakeError> {
        // Once it has run out somebody may be about to take it over.
        let lasts = self.record.until_us > self.lake.clock().now_us();
        let is_ours = lasts && self.held().await?.is_some_and(|found| found.record.holder == self.record.holder);
        if is_ours { self.delete().await } else { Ok(()) }
    }

    /// Makes the lease last as long again from now. Returns whether it is still ours: it is not where it ran
    /// out and somebody else took it.
    ///
    /// # Errors
    /// [`LakeError::Store`]; it then runs out as before, unless it is renewed again.
    pub async fn renew(&mut self) -> Result<bool, LakeError> {
        let Some(found) = self.held().await?.filter(|found| found.record.holder == self.record.holder) else {
            return Ok(false);
        };
        let now_us = self.lake.clock().now_us();
        let record = Record { until_us: now_us.saturating_add(self.lasts_us), ..self.record.clone() };
        let is_ours = if found.record.until_us > now_us {
            self.prolong(&found, &record).await?
        } else {
            self.take_over(&found, &record).await?
        };
        if is_ours {
            self.record = record;
        }
        Ok(is_ours)
    }

    /// Renews it in a task of its own from now on.
    #[must_use]
    pub fn keep(mut self) -> KeptLease {
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let until_us = Arc::new(AtomicI64::new(self.record.until_us));
        let held = Held { clock: self.lake.clock().clone(), until_us: Arc::clone(&until_us) };
        let every = Duration::from_micros(u64::try_from(self.lasts_us / 3).unwrap_or(1).max(1));
        let renewing = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                tokio::select! {
                    _ = stopped.changed() => return self,
                    _ = ticks.tick() => {}
                }
                match self.renew().await {
                    Ok(true) => until_us.store(self.record.until_us, Ordering::SeqCst),
                    Ok(false) => {
                        until_us.store(i64::MIN, Ordering::SeqCst);
                        tracing::warn!(key = %self.key, "the lease was lost; the commit itself decides who is first");
                    }
                    Err(error) => tracing::warn!(%error, "the lease could not be renewed; it is tried again"),
                }
            }
        });
        KeptLease { renewing, stop, held }
    }

    async fn create(&self) -> Result<bool, LakeError> {
        let bytes = serde_json::to_vec(&self.record).unwrap_or_default();
        let put = self.lake.objects().put_opts(&self.key, PutPayload::from(bytes), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                // The store's own retry may have met our own object.
                Ok(self.held().await?.is_some_and(|found| found.record == self.record))
            }
            // Somebody took it away at once.
            Err(Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.failed(source)),
        }
    }

    async fn held(&self) -> Result<Option<Found>, LakeError> {
        self.found_at(&self.key).await
    }

    async fn found_at(&self, key: &Path) -> Result<Option<Found>, LakeError> {
        match self.lake.objects().get(key).await {
            Ok(found) => {
                let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                let bytes = found.bytes().await.map_err(|source| self.failed(source))?;
                Ok(Some(Found { record: Record::read(&bytes), version }))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    async fn delete(&self) -> Result<(), LakeError> {
        self.delete_at(&self.key).await
    }

    async fn delete_at(&self, key: &Path) -> Result<(), LakeError> {
        match self.lake.objects().delete(key).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: Error) -> LakeError {
        LakeError::store(&self.key, source)
    }
}

impl KeptLease {
    /// For who works under it.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Ends the renewing and gives the lease back.
    ///
    /// # Errors
    /// [`LakeError::Store`]; the lease then runs out by itself.
    pub async fn give_back(mut self) -> Result<(), LakeError> {
        let _ = self.stop.send(true);
        // Where the runtime ends meanwhile, the lease runs out by itself.
        match (&mut self.renewing).await {
            Ok(lease) => lease.give_back().await,
            Err(_) => Ok(()),
        }
    }
}

impl Drop for KeptLease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tjern_readings::store::Store;

    #[tokio::test]
    async fn a_lease_is_held_by_one_and_runs_out() {
        let clock = Clock::manual(1_000_000);
        let store = Store::open(&"memory:///".parse().expect("a lake")).expect("opened");
        let lake = Lake::over(store).with_clock(clock.clone());
        let minute = Duration::from_secs(60);
        let first = Lease::take(&lake, "compact", minute).await.expect("asked").expect("free");
        assert!(Lease::take(&lake, "compact", minute).await.expect("asked").is_none());
        clock.set_us(62_000_000);
        let second = Lease::take(&lake, "compact", minute).await.expect("asked").expect("run out");
        first.give_back().await.expect("given back");
        assert!(
            Lease::take(&lake, "compact", minute).await.expect("asked").is_none(),
            "another's lease was given back"
        );
        second.give_back().await.expect("given back");
        assert!(Lease::take(&lake, "compact", minute).await.expect("asked").is_some());
    }

    /// Two servers whose clocks differ by seconds must not both believe to be alone; one whose clock is years ahead
    /// must not hold a job for years.
    #[tokio::test]
    async fn a_clock_that_is_ahead_keeps_its_lease_unless_it_is_far_ahead() {
        let store = Store::open(&"memory:///".parse().expect("a lake")).expect("opened");
        let minute = Duration::from_secs(60);
        let ours = Lake::over(store.clone()).with_clock(Clock::manual(0));
        for (ahead_us, is_held) in [(1, true), (20_000_000, true), (SKEW_MAX_US, true), (SKEW_MAX_US + 1, false)] {
            let ahead = Lake::over(store.clone()).with_clock(Clock::manual(ahead_us));
            let theirs = Lease::take(&ahead, "compact", minute).await.expect("asked").expect("free");
            let other = Lease::take(&ours, "compact", minute).await.expect("asked");
            assert_eq!(other.is_none(), is_held, "{ahead_us} µs ahead");
            theirs.give_back().await.expect("given back");
            if let Some(other) = other {
                other.give_back().await.expect("given back");
            }
        }
    }

    /// Vacuum has to know since when somebody is at work, also after the lease was renewed, and of earlier versions' too.
    #[tokio::test]
    async fn a_lease_says_since_when_its_holder_is_at_work() {
        let clock = Clock::manual(1_000_000);
        let store = Store::open(&"memory:///".parse().expect("a lake")).expect("opened");
        let lake = Lake::over(store).with_clock(clock.clone());
        let minute = Duration::from_secs(60);
        assert_eq!(Lease::oldest_since_us(&lake).await.expect("asked"), None);
        let mut first = Lease::take(&lake, "compact", minute).await.expect("asked").expect("free");
        clock.set_us(50_000_000);
        assert!(first.renew().await.expect("renewed"));
        let _second = Lease::take(&lake, "quality", minute).await.expect("asked").expect("free");
        clock.set_us(90_000_000);
        assert_eq!(Lease::oldest_since_us(&lake).await.expect("asked"), Some(1_000_000));
        first.give_back().await.expect("given back");
        assert_eq!(Lease::oldest_since_us(&lake).await.expect("asked"), Some(50_000_000));
        let earlier = PutPayload::from_static(br#"{"holder":"x","until_us":200000000}"#);
        lake.objects().put(&Path::from("jobs/compact.json"), earlier).await.expect("put");
        assert_eq!(Lease::oldest_since_us(&lake).await.expect("asked"), Some(i64::MIN));
        clock.set_us(300_000_000);
        assert_eq!(Lease::oldest_since_us(&lake).await.expect("asked"), None, "those have run out");
    }

    /// A job that works longer than its lease lasts keeps it, and who was killed at it blocks nobody for longer
    /// than one lease.
    #[tokio::test(start_paused = true)]
    async fn a_kept_lease_lasts_as_long_as_the_work_and_no_longer() {
        let clock = Clock::manual(0);
        let store = Store::open(&"memory:///".parse().expect("a lake")).expect("opened");
        let lake = Lake::over(store).with_clock(clock.clone());
        let minute = Duration::from_secs(60);
        let kept = Lease::take(&lake, "compact", minute).await.expect("asked").expect("free").keep();
        for second in 1..=300 {
            clock.set_us(second * 1_000_000);
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
            let other = Lease::take(&lake, "compact", minute).await.expect("asked");
            assert!(other.is_none(), "it ran out after {second} s");
        }
        drop(kept);
        clock.set_us(361_000_000);
        assert!(Lease::take(&lake, "compact", minute).await.expect("asked").is_some());
    }

    /// A machine that stood still for longer than the lease lasts goes on where it was. Before anything renews the lease, or finds
    /// out that another process has it, the work under it has to know.
    #[tokio::test(start_paused = true)]
    async fn who_stood_still_for_longer_than_its_lease_knows_it_at_once() {
        let clock = Clock::manual(0);
        let store = Store::open(&"memory:///".parse().expect("a lake")).expect("opened");
        let lake = Lake::over(store).with_clock(clock.clone());
        let minute = Duration::from_secs(60);
        let kept = Lease::take(&lake, "quality", minute).await.expect("asked").expect("free").keep();
        let held = kept.held();
        assert!(held.is_held());
        clock.set_us(60_000_000);
        assert!(!held.is_held(), "by the clock alone");
        let other = Lease::take(&lake, "quality", minute).await.expect("asked").expect("run out");
        clock.set_us(61_000_000);
        tokio::time::advance(Duration::from_secs(30)).await;
        tokio::task::yield_now().await;
        assert!(!held.is_held(), "it is another's");
        other.give_back().await.expect("given back");
        kept.give_back().await.expect("given back");
    }
}
