//! A store in memory that dates its objects by a test's clock, takes its time, and fails as it is told.
//!
//! Faults, as a client of a cloud sees them: a put that was applied and whose reply was lost; a process that
//! dies at a call, before or after that call did its work (all its later calls fail).

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tjern_readings::clock::Clock;
use tjern_readings::store::local::Unreadable;
use tokio::time::Instant;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The reply of this put (from 1) is lost.
    LostReply(u64),
    /// The process dies at this call (from 1), before it did anything.
    DeadBefore(u64),
    /// The process dies at this call, after it did its work.
    DeadAfter(u64),
    /// Objects whose key ends so are not handed out.
    Withheld(&'static str),
    /// What lies in this folder (its key ends with `/`) is neither listed nor handed out: a folder without rights.
    Locked(&'static str),
    /// Nothing can be put into this folder: its disk is full, or may only be read.
    Full(&'static str),
    /// What lies in this folder is not removed: one that may be read and not written to.
    Undeletable(&'static str),
}

impl Fault {
    /// Whether so many calls and puts ([`Simulated::counted`]) did not come as far as this one: nothing went wrong.
    #[must_use]
    pub const fn is_beyond(self, (calls, puts): (u64, u64)) -> bool {
        match self {
            Self::LostReply(at) => puts < at,
            Self::DeadBefore(at) | Self::DeadAfter(at) => calls < at,
            _ => false,
        }
    }
}

/// The store. Clones of its objects ([`Simulated::inner`]) are the test's own hands, without faults.
#[derive(Debug)]
pub struct Simulated {
    inner: Arc<InMemory>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    dates_us: Mutex<HashMap<Path, i64>>,
    fault: Mutex<Fault>,
    calls: AtomicU64,
    puts: AtomicU64,
    is_dead: AtomicBool,
    /// How often a request gives way to others.
    yields: AtomicU64,
    /// By how much a request puts the test's clock on, in microseconds.
    cost_us: AtomicI64,
    /// Held by who puts the clock on.
    passing: Mutex<()>,
    /// How long a request takes, and what tokio's and the test's clock said when that was set.
    latency: Mutex<Option<(Duration, Instant, i64)>>,
}

/// So often a request that is charged lets others begin.
const BEGIN_TOGETHER: usize = 8;

fn lost(what: &str) -> Error {
    Error::Generic { store: "Simulated", source: what.to_owned().into() }
}

impl Simulated {
    /// An empty one, that dates by this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let shared = Shared {
            clock,
            dates_us: Mutex::default(),
            fault: Mutex::new(Fault::None),
            calls: AtomicU64::new(0),
            puts: AtomicU64::new(0),
            is_dead: AtomicBool::new(false),
            yields: AtomicU64::new(0),
            cost_us: AtomicI64::new(0),
            passing: Mutex::new(()),
            latency: Mutex::new(None),
        };
        Self { inner: Arc::new(InMemory::new()), shared: Arc::new(shared) }
    }

    /// The objects without faults, for a test's own hands.
    #[must_use]
    pub fn inner(&self) -> Arc<InMemory> {
        Arc::clone(&self.inner)
    }

    /// From now on this goes wrong; calls are counted from here.
    pub fn fail(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
        self.shared.calls.store(0, Ordering::SeqCst);
        self.shared.puts.store(0, Ordering::SeqCst);
        self.shared.is_dead.store(false, Ordering::SeqCst);
    }

    /// How many calls and puts there were since.
    #[must_use]
    pub fn counted(&self) -> (u64, u64) {
        (self.shared.calls.load(Ordering::SeqCst), self.shared.puts.load(Ordering::SeqCst))
    }

    /// From now on each request takes so long, and the test's clock goes with tokio's.
    pub fn take(&self, latency: Duration) {
        let now = (latency, Instant::now(), self.shared.clock.now_us());
        *self.shared.latency.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// From now on each request puts the test's clock on by so much, and nobody waits: for tests whose clients are behind
    /// real sockets, which know no other clock than the machine's. Requests that begin together end together, as far as that
    /// is seen; where it is not, their times add up: what is measured may be too long, and is never too short.
    pub fn charge(&self, latency: Duration) {
        let cost_us = i64::try_from(latency.as_micros()).unwrap_or(i64::MAX);
        self.shared.cost_us.store(cost_us, Ordering::SeqCst);
    }

    /// From now on each request lets the others of its thread go on so often before it is done.
    pub fn give_way(&self, times: u64) {
        self.shared.yields.store(times, Ordering::SeqCst);
    }

    /// Brings the test's clock to where tokio's is.
    pub fn tick(&self) {
        self.shared.tick();
    }

    /// An object was changed just now.
    pub fn date(&self, key: &Path) {
        self.shared.date(key);
    }

    /// The keys of all objects.
    ///
    /// # Panics
    /// Where memory fails.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let listed = self.inner.list(None).map_ok(|meta| meta.location.to_string()).try_collect::<Vec<_>>();
        listed.now_or_never().expect("memory does not wait").expect("listed")
    }
}

impl Shared {
    fn tick(&self) {
        if let Some((_, began, began_us)) = *self.latency.lock().unwrap_or_else(PoisonError::into_inner) {
            self.clock.set_us(began_us + i64::try_from(began.elapsed().as_micros()).expect("small"));
        }
    }

    fn date(&self, key: &Path) {
        let mut dates_us = self.dates_us.lock().unwrap_or_else(PoisonError::into_inner);
        dates_us.entry(key.clone()).or_insert_with(|| self.clock.now_us());
    }

    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let dates_us = self.dates_us.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(us) = dates_us.get(&meta.location) {
            meta.last_modified = (UNIX_EPOCH + Duration::from_micros(u64::try_from(*us).expect("after 1970"))).into();
        }
        meta
    }

    /// What a request is charged passes.
    async fn pass(&self) {
        let cost_us = self.cost_us.load(Ordering::SeqCst);
        if cost_us == 0 {
            return;
        }
        let ends_us = self.clock.now_us() + cost_us;
        // Those that begin together begin before the first of them ends.
        for _ in 0..BEGIN_TOGETHER {
            tokio::task::yield_now().await;
        }
        let _one = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.set_us(self.clock.now_us().max(ends_us));
    }

    /// A request on its way. Says whether its process dies once it did its work.
    async fn enter(&self, key: Option<&Path>) -> Result<bool> {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner).map(|(latency, ..)| latency);
        if let Some(latency) = latency {
            tokio::time::sleep(latency).await;
            self.tick();
        }
        self.pass().await;
        for _ in 0..self.yields.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(lost("the process is dead"));
        }
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        match *self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Fault::DeadBefore(at) if at == call => {
                self.is_dead.store(true, Ordering::SeqCst);
                Err(lost("the process died"))
            }
            Fault::DeadAfter(at) if at == call => Ok(true),
            Fault::Withheld(end) if key.is_some_and(|key| key.as_ref().ends_with(end)) => Err(lost("withheld")),
            Fault::Locked(folder) if key.is_some_and(|key| key.as_ref().starts_with(folder)) => Err(lost("locked")),
            _ => Ok(false),
        }
    }

    /// A listing as far as its folders can be read: of one that cannot, an error stands for all that lies in it.
    fn readable(&self, metas: Vec<Result<ObjectMeta>>) -> Vec<Result<ObjectMeta>> {
        let Fault::Locked(folder) = *self.fault.lock().unwrap_or_else(PoisonError::into_inner) else { return metas };
        let is_locked =
            |meta: &Result<ObjectMeta>| meta.as_ref().is_ok_and(|meta| meta.location.as_ref().starts_with(folder));
        let mut readable = Vec::new();
        let mut is_told = false;
        for meta in metas {
            if !is_locked(&meta) {
                readable.push(meta);
            } else if !std::mem::replace(&mut is_told, true) {
                let denied = std::io::ErrorKind::PermissionDenied.into();
                readable.push(Err(Unreadable::new(folder.to_owned(), denied).into()));
            }
        }
        readable
    }

    fn may_remove(&self, key: &Path) -> Result<()> {
        match *self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Fault::Undeletable(folder) if key.as_ref().starts_with(folder) => Err(lost("it may not be removed")),
            _ => Ok(()),
        }
    }

    fn may_put(&self, key: &Path) -> Result<()> {
        match *self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Fault::Full(folder) if key.as_ref().starts_with(folder) => Err(lost("No space left on device")),
            _ => Ok(()),
        }
    }

    fn leave(&self, dies: bool) -> Result<()> {
        if dies {
            self.is_dead.store(true, Ordering::SeqCst);
            return Err(lost("the process died"));
        }
        Ok(())
    }

    /// Whether this put's reply is lost.
    fn put(&self) -> bool {
        let put = self.puts.fetch_add(1, Ordering::SeqCst) + 1;
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) == Fault::LostReply(put)
    }
}

impl fmt::Display for Simulated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Simulated")
    }
}

impl Simulated {
    fn listing(&self, metas: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (first, each) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        let shared = Arc::clone(&self.shared);
        let metas = futures::stream::once(metas.collect::<Vec<_>>());
        let metas = metas.flat_map(move |metas| futures::stream::iter(shared.readable(metas)));
        let request = async move { first.enter(None).await.and_then(|dies| first.leave(dies)) };
        let rest = metas.map_ok(move |meta| each.dated(meta));
        futures::stream::once(request)
            .map_ok(move |()| None)
            .chain(rest.map_ok(Some))
            .try_filter_map(futures::future::ok)
            .boxed()
    }
}

#[async_trait]
impl ObjectStore for Simulated {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let dies = self.shared.enter(Some(location)).await?;
        self.shared.may_put(location)?;
        let is_lost = self.shared.put();
        let put = self.inner.put_opts(location, payload, options).await;
        if put.is_ok() {
            self.shared.dates_us.lock().unwrap_or_else(PoisonError::into_inner).remove(location);
            self.shared.date(location);
        }
        self.shared.leave(dies)?;
        if is_lost { Err(lost("the reply of a put was lost")) } else { put }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("the pipeline puts objects whole")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let dies = self.shared.enter(Some(location)).await?;
        let mut got = self.inner.get_opts(location, options).await?;
        got.meta = self.shared.dated(got.meta);
        self.shared.leave(dies)?;
        Ok(got)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let dies = self.shared.enter(Some(location)).await?;
        let got = self.inner.get_ranges(location, ranges).await?;
        self.shared.leave(dies)?;
        Ok(got)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (shared, inner) = (Arc::clone(&self.shared), Arc::clone(&self.inner));
        let deleted = locations.and_then(move |key| {
            let (shared, inner) = (Arc::clone(&shared), Arc::clone(&inner));
            async move {
                let dies = shared.enter(Some(&key)).await?;
                shared.may_remove(&key)?;
                let one = futures::stream::once(futures::future::ok(key.clone())).boxed();
                let _: Vec<_> = inner.delete_stream(one).try_collect().await?;
                shared.dates_us.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                shared.leave(dies)?;
                Ok(key)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let dies = self.shared.enter(None).await?;
        self.shared.leave(dies)?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let dies = self.shared.enter(Some(to)).await?;
        self.inner.copy_opts(from, to, options).await?;
        self.shared.date(to);
        self.shared.leave(dies)
    }
}
