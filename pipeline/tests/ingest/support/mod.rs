//! What the tests of ingest share: a store with a clock of its own, latency and faults, and batches to land in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::util::pretty::pretty_format_batches;
use jiff::tz::TimeZone;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode};
use tjern_lake::session::MEMORY_BYTES;
use tjern_lake::{Access, Commit, Lake, Operation, SessionSettings, Table, TableName, session};
use tjern_pipeline::ingest::IngestSettings;
use tjern_readings::batch::encode;
use tjern_readings::clock::Clock;
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::Store;
use tjern_testing::simulated::Simulated;

pub(crate) const SECOND_US: i64 = 1_000_000;
pub(crate) const HOUR_US: i64 = 3_600 * SECOND_US;

/// 2026-07-01T00:00:00Z.
pub(crate) const NOW_US: i64 = 1_782_864_000_000_000;

pub(crate) const EPOCH: Epoch = Epoch::from_bytes([9; 16]);

/// A hole is waited for an hour, landed batches stay a week.
pub(crate) const SETTINGS: IngestSettings =
    IngestSettings { hole_patience: Duration::from_secs(3_600), landing_grace: Duration::from_secs(7 * 24 * 3_600) };

/// A lake in a simulated store.
pub(crate) struct Place {
    pub(crate) store: Arc<Simulated>,
    pub(crate) clock: Clock,
}

impl Place {
    pub(crate) fn new() -> Self {
        let clock = Clock::manual(NOW_US);
        Self { store: Arc::new(Simulated::new(clock.clone())), clock }
    }

    /// The lake as a new process finds it: with nothing known. It bills as a cloud does.
    pub(crate) fn lake(&self) -> Lake {
        let objects: Arc<dyn ObjectStore> = Arc::<Simulated>::clone(&self.store);
        Lake::over(Store::over(objects, "s3://city/lake".parse().expect("a lake"))).with_clock(self.clock.clone())
    }

    pub(crate) fn ahead(&self, by_us: i64) {
        self.clock.set_us(self.clock.now_us() + by_us);
    }

    /// Lands a batch of one reading a number.
    pub(crate) async fn land(&self, source: &str, first: i64, last: i64) -> Path {
        let readings: Vec<_> = (first..=last).map(|number| reading(source, number)).collect();
        self.land_readings(source, first, &readings, None).await
    }

    pub(crate) async fn land_readings(
        &self,
        source: &str,
        first: i64,
        readings: &[Reading],
        config: Option<&str>,
    ) -> Path {
        let source: SourceName = source.parse().expect("valid");
        let (bytes, batch) = encode(&source, EPOCH, first, readings, config).expect("encoded");
        let key = Landed::Batch(EPOCH, batch.header.bounds).key(&source);
        self.put(&key, bytes.to_vec()).await;
        key
    }

    /// As a gateway puts: only what is not there yet.
    pub(crate) async fn put(&self, key: &Path, bytes: Vec<u8>) {
        let objects = self.store.inner();
        let put = objects.put_opts(key, bytes.into(), PutMode::Create.into()).await;
        self.store.date(key);
        if let Err(error) = put {
            assert!(matches!(error, object_store::Error::AlreadyExists { .. }), "{error}");
        }
    }

    /// Rows, distinct numbers, and the sum of all numbers.
    pub(crate) async fn numbers(&self) -> String {
        self.ask("SELECT count(*), count(DISTINCT source || ' ' || seq), sum(seq) FROM readings").await
    }

    pub(crate) async fn ask(&self, sql: &str) -> String {
        let settings = SessionSettings { access: Access::Staff, timezone: TimeZone::UTC, memory_bytes: MEMORY_BYTES };
        let context = session(&self.lake(), &settings).await.expect("opened");
        let batches = context.sql(sql).await.expect("planned").collect().await.expect("answered");
        let shown = pretty_format_batches(&batches).expect("shown").to_string();
        let rows = shown.lines().skip(3).filter(|line| line.starts_with('|'));
        let words = |row: &str| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ");
        rows.map(words).collect::<Vec<_>>().join("; ")
    }

    /// The keys under a folder.
    pub(crate) fn keys(&self, folder: &str) -> Vec<String> {
        self.store.keys().into_iter().filter(|key| key.starts_with(folder)).collect()
    }
}

pub(crate) fn reading(source: &str, number: i64) -> Reading {
    let quantity = format!("{}/q{}", source.replace([':', '_'], "-"), number % 6);
    Reading::of(quantity.parse().expect("valid"), NOW_US - 1_000 * HOUR_US + number / 6 * HOUR_US, 10.0)
}

pub(crate) fn bounds(first: i64, last: i64) -> Bounds {
    Bounds::new(first, last).expect("in order")
}

pub(crate) fn source(name: &str) -> SourceName {
    name.parse().expect("valid")
}

/// Hourly batches of each source that are in the table, as far as it says, and are listed and never read
/// again: their bytes do not matter.
pub(crate) async fn taken_long_ago(place: &Place, sources: Vec<String>, hours: i64) {
    for hour in 0..hours {
        place.clock.set_us(NOW_US + (hour - hours) * HOUR_US);
        for name in &sources {
            let numbers = Landed::Batch(EPOCH, bounds(hour * 6 + 1, hour * 6 + 6));
            place.put(&numbers.key(&source(name)), vec![0]).await;
        }
    }
    let mut table = Table::open_or_create(&place.lake(), TableName::Readings).await.expect("created");
    let transactions = sources.iter().map(|name| (format!("{name}/{EPOCH}"), hours * 6)).collect();
    let (operation, notes) = (Operation::Ingest, BTreeMap::new());
    let commit = Commit { operation, add: Vec::new(), remove: Vec::new(), transactions, notes };
    table.commit(commit).await.expect("committed");
}
