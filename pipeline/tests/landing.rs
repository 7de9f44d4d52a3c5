//! From the landing zone to the table and on to few files: every reading once, whatever comes between.

use std::sync::Arc;
use std::time::Duration;

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use jiff::tz::TimeZone;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::session::MEMORY_BYTES;
use tjern_lake::{Access, Lake, SessionSettings, Table, TableName, session};
use tjern_pipeline::compact::{CompactOutcome, CompactSettings, compact};
use tjern_pipeline::ingest::{IngestOutcome, IngestSettings, ingest};
use tjern_readings::batch::encode;
use tjern_readings::clock::Clock;
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::LakeUrl;
use tokio_util::sync::CancellationToken;

const HOUR_US: i64 = 3_600_000_000;
const EPOCH: Epoch = Epoch::from_bytes([9; 16]);

struct Place {
    _folder: tempfile::TempDir,
    lake: Lake,
    clock: Clock,
    settings: IngestSettings,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Later than any object's own time, so that patience and grace can be tried.
        let clock = Clock::manual(Clock::system().now_us() + HOUR_US);
        let lake = Lake::open(&LakeUrl::folder(folder.path()).expect("absolute")).expect("opened");
        let settings = IngestSettings {
            hole_patience: Duration::from_secs(24 * 3600),
            landing_grace: Duration::from_secs(7 * 24 * 3600),
        };
        Self { _folder: folder, lake: lake.with_clock(clock.clone()), clock, settings }
    }

    async fn land_from(&self, source: &str, first: i64, last: i64) {
        let source: SourceName = source.parse().expect("valid");
        let readings: Vec<_> = (first..=last).map(reading).collect();
        let (bytes, batch) = encode(&source, EPOCH, first, &readings, None).expect("encoded");
        self.put(&Landed::Batch(EPOCH, batch.header.bounds).key(&source), bytes.to_vec()).await;
    }

    async fn land(&self, first: i64, last: i64) {
        self.land_from("landfall-01", first, last).await;
    }

    async fn put(&self, key: &Path, bytes: Vec<u8>) {
        self.lake.objects().put(key, bytes.into()).await.expect("put");
    }

    async fn ingest(&self) -> IngestOutcome {
        ingest(&self.lake, &self.settings).await.expect("ingested")
    }

    async fn compact(&self) -> CompactOutcome {
        let stop = CancellationToken::new();
        compact(&self.lake, &CompactSettings::default(), &stop, &mut |_| ()).await.expect("compacted")
    }

    async fn ask(&self, sql: &str) -> String {
        let settings = SessionSettings { access: Access::Staff, timezone: TimeZone::UTC, memory_bytes: MEMORY_BYTES };
        let context = session(&self.lake, &settings).await.expect("opened");
        let batches = context.sql(sql).await.expect("planned").collect().await.expect("answered");
        let shown = pretty_format_batches(&batches).expect("shown").to_string();
        let row = shown.lines().nth(3).unwrap_or_default();
        row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ")
    }

    /// Rows, distinct numbers, and the sum of the numbers.
    async fn numbers(&self) -> String {
        self.ask("SELECT count(*), count(DISTINCT seq), sum(seq) FROM readings").await
    }

    async fn objects_under(&self, folder: &str) -> Vec<String> {
        let objects = self.lake.objects();
        let listed = objects.list(Some(&Path::from(folder))).map_ok(|meta| meta.location.to_string());
        listed.try_collect().await.expect("listed")
    }
}

fn reading(number: i64) -> Reading {
    let sensor = if number % 2 == 0 { "landfalltjern/water_temperature" } else { "elva/water_temperature" };
    let sensor = sensor.parse().expect("valid");
    if number % 7 == 0 {
        return Reading::missing(sensor, number * HOUR_US, Cause::Timeout);
    }
    Reading::of(sensor, number * HOUR_US, 10.0)
}

fn key(first: i64, last: i64) -> Path {
    let bounds = Bounds::new(first, last).expect("in order");
    Landed::Batch(EPOCH, bounds).key(&"landfall-01".parse().expect("valid"))
}

#[tokio::test]
async fn what_landed_is_ingested_once_however_often_one_looks() {
    let place = Place::new();
    place.land(1, 10).await;
    place.land(11, 20).await;
    place.land_from("elva-01", 1, 5).await;
    let first = place.ingest().await;
    assert_eq!((first.batches, first.rows), (3, 25));
    assert_eq!(place.ingest().await, IngestOutcome::default());
    place.land(21, 22).await;
    assert_eq!(place.ingest().await.rows, 2);
    assert_eq!(place.ask("SELECT count(*), count(DISTINCT source || seq) FROM readings").await, "27 27");
    let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    assert_eq!(table.version(), 2, "one commit for all sources");
}

/// Two pipelines on one lake, as in the minute when a server is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn two_ingesters_at_once_double_nothing() {
    let place = Place::new();
    for first in (1..200).step_by(10) {
        place.land(first, first + 9).await;
    }
    let runs = (0..4).map(|_| place.ingest());
    futures::future::join_all(runs).await;
    assert_eq!(place.numbers().await, "200 200 20100");
}

#[tokio::test]
async fn a_hole_is_waited_for_then_passed_and_filled_once() {
    let place = Place::new();
    place.land(1, 2).await;
    place.land(6, 8).await;
    let waiting = place.ingest().await;
    assert_eq!((waiting.rows, waiting.waiting), (2, 1));
    place.clock.set_us(place.clock.now_us() + 25 * HOUR_US);
    let passed = place.ingest().await;
    assert_eq!((passed.rows, passed.passed, passed.waiting), (3, 1, 0));
    place.land(4, 5).await;
    assert_eq!(place.ingest().await.rows, 2);
    place.land(3, 3).await;
    assert_eq!(place.ingest().await.rows, 1);
    assert_eq!(place.ingest().await, IngestOutcome::default());
    assert_eq!(place.numbers().await, "8 8 36");
}

#[tokio::test]
async fn a_gap_stops_nothing() {
    let place = Place::new();
    let source = "landfall-01".parse().expect("valid");
    place.put(&Landed::Gap(EPOCH, Bounds::new(1, 4).expect("in order")).key(&source), b"{}".to_vec()).await;
    place.land(5, 6).await;
    let outcome = place.ingest().await;
    assert_eq!((outcome.rows, outcome.passed), (2, 1));
}

/// One source's bad batch is set aside with its reason and fails nobody else.
#[tokio::test]
async fn a_bad_batch_goes_to_quarantine_alone() {
    let place = Place::new();
    place.land_from("elva-01", 1, 5).await;
    place.put(&key(1, 3), b"no Arrow at all".to_vec()).await;
    place.put(&Path::from("landing/landfall-01/notes.txt"), b"not ours".to_vec()).await;
    place.land(4, 6).await;
    let outcome = place.ingest().await;
    assert_eq!((outcome.rows, outcome.quarantined, outcome.waiting), (8, 1, 0), "nobody waits for what is known bad");
    let quarantine = place.objects_under("quarantine").await;
    assert_eq!(quarantine.len(), 2, "{quarantine:?}");
    assert!(quarantine[1].ends_with(".reason.json"));
    assert!(place.objects_under("landing").await.contains(&"landing/landfall-01/notes.txt".to_owned()));
}

/// Two clones send two different bad batches under one key: both are kept for people to look at.
#[tokio::test]
async fn quarantine_keeps_everything_that_came() {
    let place = Place::new();
    for bytes in [b"one".to_vec(), b"other".to_vec(), b"other".to_vec()] {
        place.put(&key(1, 3), bytes).await;
        place.ingest().await;
        place.clock.set_us(place.clock.now_us() + 1);
    }
    let kept = place.objects_under("quarantine").await;
    assert!(kept.iter().filter(|key| !key.ends_with(".reason.json")).count() >= 2, "{kept:?}");
    assert_eq!(place.objects_under("landing").await, Vec::<String>::new());
    place.land(1, 3).await;
    assert_eq!(place.ingest().await.rows, 3, "the mended batch fills its numbers");
}

/// A batch under another's key would give its readings the wrong source.
#[tokio::test]
async fn a_batch_under_a_foreign_key_is_refused() {
    let place = Place::new();
    place.land_from("elva-01", 1, 5).await;
    let source = "elva-01".parse().expect("valid");
    let stolen = Landed::Batch(EPOCH, Bounds::new(1, 5).expect("in order")).key(&source);
    let bytes = place.lake.objects().get(&stolen).await.expect("there").bytes().await.expect("read");
    place.put(&key(1, 5), bytes.to_vec()).await;
    assert_eq!(place.ingest().await.quarantined, 1);
    assert_eq!(place.numbers().await, "5 5 15");
}

/// A cloned gateway sends other readings under numbers that were used: they are not taken for known,
/// and not counted twice. The very same rows under other bounds are known.
#[tokio::test]
async fn overlapping_numbers_are_looked_at() {
    let place = Place::new();
    place.land(1, 10).await;
    place.ingest().await;
    place.land(3, 6).await;
    assert_eq!(place.ingest().await, IngestOutcome::default(), "the same rows are known");
    let readings: Vec<_> = (4..=8).map(|number| reading(number + 1)).collect();
    let (bytes, _) = encode(&"landfall-01".parse().expect("valid"), EPOCH, 4, &readings, None).expect("encoded");
    place.put(&key(4, 8), bytes.to_vec()).await;
    place.land(8, 12).await;
    assert_eq!(place.ingest().await.quarantined, 2);
    assert_eq!(place.numbers().await, "10 10 55");
}

#[tokio::test]
async fn landed_batches_leave_after_their_grace_but_for_the_newest() {
    let place = Place::new();
    place.land(1, 10).await;
    place.land(11, 20).await;
    assert_eq!(place.ingest().await.cleaned, 0);
    place.clock.set_us(place.clock.now_us() + 8 * 24 * HOUR_US);
    assert_eq!(place.ingest().await.cleaned, 1);
    assert_eq!(place.objects_under("landing").await, [key(11, 20).to_string()]);
    place.land(1, 10).await;
    assert_eq!(place.ingest().await.rows, 0, "uploaded again after its grace");
    assert_eq!(place.numbers().await, "20 20 210");
}

/// Many small files become few, with the same rows, sorted, and nobody sees a difference.
#[tokio::test]
async fn compaction_keeps_every_row() {
    let place = Place::new();
    for first in (1..480).step_by(8) {
        place.land(first, first + 7).await;
        place.ingest().await;
    }
    let everything =
        "SELECT count(*), count(DISTINCT seq), sum(seq), sum(value), count(value), max(received) FROM readings";
    let before = place.ask(everything).await;
    let observed = place.ask("SELECT count(*), sum(value) FROM observations").await;
    let outcome = place.compact().await;
    assert!(outcome.removed >= 50 && outcome.added < outcome.removed, "{outcome:?}");
    assert_eq!(place.ask(everything).await, before);
    assert_eq!(place.ask("SELECT count(*), sum(value) FROM observations").await, observed);
    let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    assert!(table.files().iter().all(|file| file.sorted && file.unique));
    let again = place.compact().await;
    assert_eq!(again.removed, 0, "a second run has nothing to do: {again:?}");
    assert_eq!(place.objects_under("jobs").await, Vec::<String>::new(), "the lease was given back");
}

/// Ingest and two compactors at once, as on a busy server: the sums stay those of what landed.
#[tokio::test(flavor = "multi_thread")]
async fn ingest_and_compaction_at_once_lose_and_double_nothing() {
    let place = Arc::new(Place::new());
    let ingesting = async {
        for first in (1..240).step_by(6) {
            place.land(first, first + 5).await;
            place.ingest().await;
        }
    };
    let compacting = || async {
        for _ in 0..15 {
            place.compact().await;
        }
    };
    tokio::join!(ingesting, compacting(), compacting());
    assert_eq!(place.numbers().await, "240 240 28920");
}
