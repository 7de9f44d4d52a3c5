//! A lake in memory that counts, can be away and can be slow.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutOptions, PutPayload, PutResult, Result};
use tjern_readings::batch;
use tjern_readings::keys::{Landed, source_folder};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::{LakeUrl, Store};
use tokio::time::Instant;

use super::between::{Behind, Between};

/// A put that was taken: when, of what, how long.
#[derive(Debug, Clone)]
pub struct Put {
    pub at: Instant,
    pub landed: Landed,
    pub bytes: usize,
}

/// What lies between a gateway and its lake.
#[derive(Debug)]
pub struct Link {
    pub away: AtomicBool,
    /// It answers and lists, and stores nothing.
    pub full: AtomicBool,
    /// Every request, the refused ones too.
    pub requests: AtomicU64,
    pub puts: Mutex<Vec<Put>>,
    /// Puts that are under way, and how many were at once.
    pub under_way: AtomicU64,
    pub most_at_once: AtomicU64,
    /// How long a put takes.
    pub put_duration: Duration,
    /// What a link carries that all puts share.
    pub bytes_per_s: Option<u64>,
    pub link: tokio::sync::Mutex<()>,
    /// How often all bytes of an object arrived, taken or not.
    pub arrivals: Mutex<BTreeMap<Path, u32>>,
}

pub type Lake = Behind<Link>;

impl Lake {
    pub fn new(put_duration: Duration) -> Arc<Self> {
        Arc::new(Self::this(Link::over(put_duration, None)))
    }

    /// A lake behind a link that carries so many bytes a second, for all puts together.
    pub fn behind_a_link(bytes_per_s: u64) -> Arc<Self> {
        Arc::new(Self::this(Link::over(Duration::from_millis(50), Some(bytes_per_s))))
    }

    pub fn url() -> LakeUrl {
        "memory:///".parse().expect("a lake")
    }

    pub fn store(self: &Arc<Self>) -> Store {
        Store::over(Arc::clone(self) as Arc<dyn ObjectStore>, Self::url())
    }

    /// The batches in the order in which they came.
    pub fn puts(&self) -> Vec<Put> {
        self.puts.lock().expect("whole").clone()
    }

    /// What landed, by epoch and in the order of the numbers, which have no hole and no overlap.
    pub async fn readings(&self, source: &SourceName) -> BTreeMap<Epoch, Vec<Reading>> {
        let folder = source_folder(source);
        let objects: Vec<ObjectMeta> = self.objects.list(Some(&folder)).try_collect().await.expect("listed");
        let mut keys: Vec<_> = objects.into_iter().map(|object| object.location).collect();
        keys.sort();
        let mut readings = BTreeMap::<Epoch, Vec<Reading>>::new();
        for key in keys {
            let Some((_, Landed::Batch(epoch, bounds))) = Landed::parse(&key) else { continue };
            let bytes = self.objects.get(&key).await.expect("there").bytes().await.expect("read");
            let rows = batch::decode(&bytes).expect("a batch").readings().expect("readings");
            let before = readings.entry(epoch).or_default();
            assert_eq!(bounds.first, before.len() as i64 + 1, "{key}");
            before.extend(rows);
        }
        readings
    }
}

impl Link {
    fn over(put_duration: Duration, bytes_per_s: Option<u64>) -> Self {
        Self {
            away: AtomicBool::new(false),
            full: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            puts: Mutex::default(),
            under_way: AtomicU64::new(0),
            most_at_once: AtomicU64::new(0),
            put_duration,
            bytes_per_s,
            link: tokio::sync::Mutex::default(),
            arrivals: Mutex::default(),
        }
    }

    /// Carries so many bytes, a kibibyte at a time and by turns.
    async fn carry(&self, bytes: usize) {
        let Some(bytes_per_s) = self.bytes_per_s else { return };
        for _ in 0..bytes.div_ceil(1024) {
            let _turn = self.link.lock().await;
            tokio::time::sleep(Duration::from_secs_f64(1024.0 / bytes_per_s as f64)).await;
        }
    }
}

/// A put that is under way until this is dropped, as by one who gives it up.
struct UnderWay<'lake>(&'lake AtomicU64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Between for Link {
    fn asked(&self) -> Result<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match self.away.load(Ordering::Relaxed) {
            true => Err(Error::Generic { store: "Lake", source: "the line is down".into() }),
            false => Ok(()),
        }
    }

    async fn put(
        &self,
        objects: &InMemory,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Error::Generic { store: "Lake", source: "no space left".into() });
        }
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(under_way, Ordering::Relaxed);
        let bytes = payload.content_length();
        let under_way = UnderWay(&self.under_way);
        self.carry(bytes).await;
        tokio::time::sleep(self.put_duration).await;
        drop(under_way);
        *self.arrivals.lock().expect("whole").entry(location.clone()).or_default() += 1;
        let result = objects.put_opts(location, payload, options).await?;
        let Some((_, landed)) = Landed::parse(location) else { return Ok(result) };
        self.puts.lock().expect("whole").push(Put { at: Instant::now(), landed, bytes });
        Ok(result)
    }
}
