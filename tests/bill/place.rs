//! A lake in a store of memory that bills as a cloud does, and what lands in it.

use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::Lake;
use tjern_pipeline::config::RegisterSection;
use tjern_pipeline::register::RegisterFiles;
use tjern_readings::batch::encode;
use tjern_readings::clock::Clock;
use tjern_readings::keys::Landed;
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::{LakeUrl, Store};
use tjern_testing::simulated::Simulated;

pub(crate) const SECOND_US: i64 = 1_000_000;
pub(crate) const HOUR_US: i64 = 3_600 * SECOND_US;

/// 2026-07-01T00:00:00Z.
pub(crate) const NOW_US: i64 = 1_782_864_000_000_000;

pub(crate) const EPOCH: Epoch = Epoch::from_bytes([9; 16]);

/// A lake.
pub(crate) struct Place {
    pub(crate) store: Arc<Simulated>,
    pub(crate) clock: Clock,
    url: LakeUrl,
}

impl Place {
    /// In a cloud.
    pub(crate) fn new() -> Self {
        Self::at("s3://city/lake".parse().expect("a lake"))
    }

    /// At this place, as far as it decides what a request costs: the objects are in memory.
    pub(crate) fn at(url: LakeUrl) -> Self {
        let clock = Clock::manual(NOW_US);
        Self { store: Arc::new(Simulated::new(clock.clone())), clock, url }
    }

    /// The lake as a new process finds it: with nothing known.
    pub(crate) fn lake(&self) -> Lake {
        let objects: Arc<dyn ObjectStore> = Arc::<Simulated>::clone(&self.store);
        Lake::over(Store::over(objects, self.url.clone())).with_clock(self.clock.clone())
    }

    /// Lands a batch, dated by the clock.
    pub(crate) async fn land(&self, source: &SourceName, first: i64, readings: &[Reading]) {
        let (bytes, batch) = encode(source, EPOCH, first, readings, None).expect("encoded");
        self.put(&Landed::Batch(EPOCH, batch.header.bounds).key(source), bytes.to_vec()).await;
    }

    pub(crate) async fn put(&self, key: &object_store::path::Path, bytes: Vec<u8>) {
        self.store.inner().put(key, bytes.into()).await.expect("put");
        self.store.date(key);
    }

    /// Takes everything away whose key begins so.
    pub(crate) async fn lose(&self, prefix: &str) {
        for key in self.store.keys().into_iter().filter(|key| key.starts_with(prefix)) {
            self.store.inner().delete(&key.into()).await.expect("gone");
        }
    }

    pub(crate) fn ahead(&self, by_us: i64) {
        self.clock.set_us(self.clock.now_us() + by_us);
    }
}

pub(crate) fn gateway(number: i64) -> SourceName {
    format!("gateway-{number:03}").parse().expect("valid")
}

/// A register in which so many gateways are places, each with six sensors that are everybody's.
pub(crate) fn files(folder: &Path, gateways: i64) -> RegisterFiles {
    let files = RegisterFiles { required: true, ..RegisterSection::default().files(folder, &TimeZone::UTC) };
    let sites = (0..gateways).map(|number| format!("{},Tjernet\n", gateway(number)));
    std::fs::write(&files.sites, format!("site,name_nb\n{}", sites.collect::<String>())).expect("written");
    let sensor = |place: &SourceName, n: i64| format!("{place}/q{n},{place},q{n},Cel,sample,public\n");
    let lines = (0..gateways).flat_map(|number| (0..6).map(move |n| sensor(&gateway(number), n)));
    let text = format!("id,site,quantity,unit,kind,class\n{}", lines.collect::<String>());
    std::fs::write(&files.sensors, text).expect("written");
    files
}
