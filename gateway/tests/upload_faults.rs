//! Uploads over a store that fails before a put, after a put, and that belongs to somebody else: each
//! reading arrives once, whatever became of the replies.

#[path = "common/uploading.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod uploading;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutOptions, PutPayload, PutResult, Result};
use tokio_util::sync::CancellationToken;

use tjern_gateway::config::Config;
use tjern_gateway::run::{RunError, RunOptions, run};
use tjern_gateway::spool::{Spool, SpoolSettings};
use tjern_gateway::upload::{self, UploadLimits, UploadSettings};
use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::configuration::ConfigText;
use tjern_readings::keys::{Bounds, Landed, source_folder};
use tjern_readings::sensor::Epoch;
use tjern_readings::store::Store;
use uploading::between::{Behind, Between};
use uploading::{copy_folder, readings, source, spool_settings, uploading};

/// What goes wrong with a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is not applied.
    Before,
    /// It is applied, and the reply is lost.
    After,
    /// It is applied, and the store's own retry says that the object exists.
    AfterAsExisting,
    /// It is not applied, and the store says that the object exists (a conflict that passed).
    BeforeAsExisting,
    /// The client below breaks down over it.
    Panic,
    /// It is neither applied nor answered: one half of the connection is gone.
    Silence,
    /// Somebody else answers that it is applied: a captive portal, over plain HTTP.
    Forged,
    /// It is not applied, and from then on a captive portal answers in the store's place.
    BeforePortal,
}

/// A line that fails.
#[derive(Debug)]
struct BadLine {
    puts: AtomicU64,
    /// Faults by the number of the put.
    faults: Mutex<BTreeMap<u64, Fault>>,
    away: AtomicBool,
    /// A defect that is met where no request is under way.
    defect: AtomicBool,
    /// How often it was asked while it was away, and how often for a listing.
    refused: AtomicU64,
    lists: AtomicU64,
    /// A captive portal answers whatever is asked, and how often it did where an object was asked for.
    portal: AtomicBool,
    pages: AtomicU64,
    /// What is small lands, and batches do not.
    loses_batches: AtomicBool,
    /// Who asks for what is not there is refused.
    hides_missing: AtomicBool,
}

/// A store in memory behind one.
type Faulty = Behind<BadLine>;

impl Faulty {
    fn new(faults: impl IntoIterator<Item = (u64, Fault)>) -> Arc<Self> {
        let faults = Mutex::new(faults.into_iter().collect());
        let count = || AtomicU64::new(0);
        Arc::new(Self::this(BadLine {
            puts: count(),
            faults,
            away: AtomicBool::new(false),
            defect: AtomicBool::new(false),
            refused: count(),
            lists: count(),
            portal: AtomicBool::new(false),
            pages: count(),
            loses_batches: AtomicBool::new(false),
            hides_missing: AtomicBool::new(false),
        }))
    }
}

fn error() -> Error {
    Error::Generic { store: "Faulty", source: "the line is down".into() }
}

#[async_trait]
impl Between for BadLine {
    fn asked(&self) -> Result<()> {
        if !self.away.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(error())
    }

    fn asked_for_a_listing(&self) -> Result<()> {
        assert!(!self.defect.load(Ordering::Relaxed), "on purpose");
        self.lists.fetch_add(1, Ordering::Relaxed);
        if self.portal.load(Ordering::Relaxed) {
            // A page is no listing.
            return Err(error());
        }
        self.asked()
    }

    fn missing(&self, error: Error) -> Error {
        if self.hides_missing.load(Ordering::Relaxed) {
            return Error::PermissionDenied { path: String::new(), source: error.into() };
        }
        error
    }

    fn page(&self) -> Option<&'static str> {
        self.portal.load(Ordering::Relaxed).then(|| {
            self.pages.fetch_add(1, Ordering::Relaxed);
            "<html>log in</html>"
        })
    }

    async fn put(
        &self,
        objects: &InMemory,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let number = self.puts.fetch_add(1, Ordering::Relaxed);
        let forged = self.portal.load(Ordering::Relaxed).then_some(Fault::Forged);
        let fault = forged.or_else(|| self.faults.lock().expect("whole").remove(&number));
        let is_batch = matches!(Landed::parse(location), Some((_, Landed::Batch(..))));
        let fault = fault.or_else(|| (is_batch && self.loses_batches.load(Ordering::Relaxed)).then_some(Fault::Before));
        let existing = || Error::AlreadyExists { path: location.to_string(), source: "it exists".into() };
        match fault {
            None => objects.put_opts(location, payload, options).await,
            Some(Fault::Before) => Err(error()),
            Some(Fault::BeforeAsExisting) => Err(existing()),
            Some(Fault::Panic) => panic!("on purpose"),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Forged) => Ok(PutResult { e_tag: Some("abc".to_owned()), version: None }),
            Some(Fault::BeforePortal) => {
                self.portal.store(true, Ordering::Relaxed);
                Err(error())
            }
            Some(fault) => {
                objects.put_opts(location, payload, options).await?;
                Err(if fault == Fault::After { error() } else { existing() })
            }
        }
    }
}

fn spool_in(dir: &FilePath) -> Spool {
    let settings = SpoolSettings { configuration: Some("ab".repeat(32)), ..spool_settings(dir) };
    Spool::open(settings, Clock::manual(0)).expect("opened")
}

fn settings(store: &Arc<Faulty>) -> UploadSettings {
    let lake: tjern_readings::store::LakeUrl = "memory:///".parse().expect("a lake");
    UploadSettings {
        store: Some(Store::over(Arc::clone(store) as Arc<dyn ObjectStore>, lake.clone())),
        every: Duration::from_millis(20),
        configuration: Some(("ab".repeat(32), "version = 1\n".to_owned())),
        ..UploadSettings::new(lake, source())
    }
}

fn one_at_a_time(store: &Arc<Faulty>) -> UploadSettings {
    let limits = UploadLimits { in_flight: 1, ..UploadLimits::default() };
    UploadSettings { limits, ..settings(store) }
}

/// Seals each of so many batches of ten.
async fn fill(spool: &Spool, batches: Range<u64>) {
    for batch in batches {
        spool.append(readings(batch * 10..batch * 10 + 10)).await;
        assert!(spool.seal().await);
    }
}

/// Waits until something holds, within a minute.
async fn until(what: impl AsyncFn() -> bool) {
    let looking = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !what().await {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it comes to hold within a minute");
}

/// Runs the uploader until nothing waits any more.
async fn upload_all(spool: &Spool, settings: UploadSettings) {
    let (running, stop) = uploading(spool, settings);
    until(async || spool.sealed().await.is_empty()).await;
    stop.cancel();
    running.await.expect("ended");
}

/// What the lake has: the values, each once, and per epoch numbers without a hole or an overlap.
async fn landed(store: &Faulty) -> (BTreeSet<u64>, BTreeSet<Epoch>) {
    let (mut values, mut next) = (BTreeSet::new(), BTreeMap::<Epoch, i64>::new());
    let objects: Vec<ObjectMeta> =
        store.objects.list(Some(&source_folder(&source()))).try_collect().await.expect("listed");
    let mut keys: Vec<_> = objects.into_iter().map(|object| object.location).collect();
    keys.sort();
    for key in keys {
        let (epoch, bounds) = match Landed::parse(&key) {
            Some((_, Landed::Batch(epoch, bounds) | Landed::Gap(epoch, bounds))) => (epoch, bounds),
            _ => continue,
        };
        let first = next.entry(epoch).or_insert(1);
        assert_eq!(bounds.first, *first, "{key}");
        *first = bounds.last + 1;
        let bytes = store.objects.get(&key).await.expect("there").bytes().await.expect("read");
        for reading in batch::decode(&bytes).expect("a batch").readings().expect("readings") {
            assert!(values.insert(reading.value.expect("a value") as u64), "{reading:?} is there twice");
        }
    }
    (values, next.into_keys().collect())
}

/// The reply of every put in turn is lost, or comes as another one than it should.
#[tokio::test]
async fn a_lost_reply_neither_loses_nor_doubles() {
    for fault in [Fault::Before, Fault::After, Fault::AfterAsExisting, Fault::BeforeAsExisting] {
        // The first put is the configuration's.
        for put in 0..7 {
            let place = tempfile::tempdir().expect("a folder");
            let (spool, store) = (spool_in(place.path()), Faulty::new([(put, fault)]));
            fill(&spool, 0..6).await;
            upload_all(&spool, settings(&store)).await;
            let (values, epochs) = landed(&store).await;
            assert_eq!((values, epochs.len()), ((0..60).collect(), 1), "{fault:?} of put {put}");
            spool.close().await;
        }
    }
}

/// The canary: an uploader that takes "already exists" for its own success is seen to lose.
#[tokio::test]
async fn an_uploader_that_believes_is_found_out() {
    let place = tempfile::tempdir().expect("a folder");
    let (spool, store) = (spool_in(place.path()), Faulty::new([(2, Fault::BeforeAsExisting)]));
    fill(&spool, 0..6).await;
    for object in spool.sealed().await {
        let (key, bytes) = (object.landed().key(&source()), spool.bytes(&object).await.expect("read"));
        match store.put_opts(&key, PutPayload::from_bytes(bytes), object_store::PutMode::Create.into()).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => spool.remove(&object).await,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(spool.sealed().await.is_empty());
    let listed: Vec<ObjectMeta> = store.objects.list(None).try_collect().await.expect("listed");
    assert_eq!(listed.len(), 5, "one batch of six is lost, and the uploader does not know");
}

/// Many puts fail in many ways: seeds are printed, `TJERN_SEED` names one.
#[tokio::test]
async fn a_bad_line_neither_loses_nor_doubles() {
    let seed =
        std::env::var("TJERN_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("TJERN_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let kinds = [Fault::Before, Fault::After, Fault::AfterAsExisting, Fault::BeforeAsExisting];
    let mut faults = Vec::new();
    for put in 0..60 {
        if random.bool() {
            faults.push((put, kinds[random.usize(..kinds.len())]));
        }
    }
    let place = tempfile::tempdir().expect("a folder");
    let (spool, store) = (spool_in(place.path()), Faulty::new(faults));
    fill(&spool, 0..20).await;
    upload_all(&spool, settings(&store)).await;
    assert_eq!(landed(&store).await.0, (0..200).collect(), "TJERN_SEED={seed}");
}

/// A lake that is away for hours costs nothing but time, and the configuration arrives with it.
#[tokio::test]
async fn a_lake_that_comes_back_gets_everything() {
    let place = tempfile::tempdir().expect("a folder");
    let (spool, store) = (spool_in(place.path()), Faulty::new([]));
    store.away.store(true, Ordering::Relaxed);
    fill(&spool, 0..3).await;
    let (running, stop) = uploading(&spool, settings(&store));
    until(async || store.refused.load(Ordering::Relaxed) > 5).await;
    assert_eq!(spool.status().sealed_count, 3);
    store.away.store(false, Ordering::Relaxed);
    let key = Landed::Configuration("ab".repeat(32)).key(&source());
    until(async || spool.sealed().await.is_empty() && store.objects.get(&key).await.is_ok()).await;
    assert_eq!(landed(&store).await.0, (0..30).collect());
    stop.cancel();
    running.await.expect("ended");
}

/// A mobile connection of which one half is gone stalled uploads and seals for as long as the largest batch would take
/// at the link's rate: two and a quarter hours at 2 KiB/s.
#[tokio::test(start_paused = true)]
async fn a_connection_that_hangs_is_given_up_and_readings_are_sealed_meanwhile() {
    let place = tempfile::tempdir().expect("a folder");
    let (spool, store) = (spool_in(place.path()), Faulty::new([(1, Fault::Silence)]));
    fill(&spool, 0..1).await;
    let limits = UploadLimits { bytes_per_s: NonZeroU64::new(2 << 10), ..UploadLimits::default() };
    let settings = UploadSettings { limits, every: Duration::from_secs(10), ..settings(&store) };
    let state = settings.state.clone();
    let (stop, began) = (CancellationToken::new(), tokio::time::Instant::now());
    let running = tokio::spawn(upload::run(spool.clone(), settings, stop.clone()));
    let mut sealed_at = None;
    while state.snapshot().last_error.is_none() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if began.elapsed() == Duration::from_secs(2) {
            spool.append(readings(10..20)).await;
        }
        if sealed_at.is_none() && spool.status().sealed_count == 2 {
            sealed_at = Some(began.elapsed());
        }
        assert!(began.elapsed() < Duration::from_secs(120), "nobody is told that nothing is sent");
    }
    // At its time, and a period later where a round is under way.
    assert!(sealed_at.is_some_and(|at| at < Duration::from_secs(25)), "sealed at {sealed_at:?}");
    while !spool.sealed().await.is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed() < Duration::from_secs(300));
    }
    assert_eq!(landed(&store).await.0, (0..20).collect());
    stop.cancel();
    running.await.expect("ended");
}

/// A gateway that is stopped ends within its patience, and what is left goes out at the next start.
#[tokio::test]
async fn stopping_without_a_lake_ends_and_keeps_what_is_left() {
    let place = tempfile::tempdir().expect("a folder");
    let (spool, store) = (spool_in(place.path()), Faulty::new([]));
    store.away.store(true, Ordering::Relaxed);
    spool.append(readings(0..10)).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let began = tokio::time::Instant::now();
    upload::run(spool.clone(), settings(&store), stop).await;
    assert!(began.elapsed() <= upload::FINAL_PATIENCE + Duration::from_secs(1));
    let epoch = spool.epoch();
    spool.close().await;
    store.away.store(false, Ordering::Relaxed);
    let spool = spool_in(place.path());
    assert_eq!(spool.epoch(), epoch);
    upload_all(&spool, settings(&store)).await;
    assert_eq!(landed(&store).await.0, (0..10).collect());
}

/// A reply that is lost now and then is no lake that is away: a gateway that stopped at such a moment left batches in its
/// spool, of which some were in the lake already, and whoever took the box away for repair took them along.
#[tokio::test]
async fn a_gateway_that_stops_between_lost_replies_leaves_nothing_behind() {
    let place = tempfile::tempdir().expect("a folder");
    let every_other = (0..80).filter(|put| put % 2 == 1).map(|put| (put, Fault::After));
    let (spool, store) = (spool_in(place.path()), Faulty::new(every_other));
    fill(&spool, 0..20).await;
    let stop = CancellationToken::new();
    stop.cancel();
    upload::run(spool.clone(), one_at_a_time(&store), stop).await;
    assert_eq!(spool.status().sealed_count, 0);
    assert_eq!(landed(&store).await.0, (0..200).collect());
}

/// The last put before the end failed, and the first reply at the end is lost.
#[tokio::test]
async fn two_lost_replies_around_the_end_are_no_lake_that_is_away() {
    let place = tempfile::tempdir().expect("a folder");
    // The configuration and a batch arrive first.
    let (spool, store) = (spool_in(place.path()), Faulty::new([(2, Fault::Before), (3, Fault::After)]));
    fill(&spool, 0..2).await;
    // After a failure nothing is tried for half a second, but at the end.
    let settings = UploadSettings { every: Duration::from_secs(3600), ..one_at_a_time(&store) };
    let (state, stop) = (settings.state.clone(), CancellationToken::new());
    let running = tokio::spawn(upload::run(spool.clone(), settings, stop.clone()));
    until(async || state.snapshot().last_error.is_some()).await;
    stop.cancel();
    running.await.expect("ended");
    assert_eq!(spool.status().sealed_count, 0);
    assert_eq!(landed(&store).await.0, (0..20).collect());
    assert_eq!(store.puts.load(Ordering::Relaxed), 4, "both faults were met");
}

/// A spool that was copied while it held unsent readings: both copies send theirs, under two epochs.
#[tokio::test]
async fn a_cloned_spool_begins_a_new_epoch() {
    let place = tempfile::tempdir().expect("a folder");
    let store = Faulty::new([]);
    let spool = spool_in(&place.path().join("one"));
    fill(&spool, 0..3).await;
    upload_all(&spool, settings(&store)).await;
    copy_folder(&place.path().join("one"), &place.path().join("other"));
    fill(&spool, 3..5).await;
    upload_all(&spool, settings(&store)).await;
    let clone = spool_in(&place.path().join("other"));
    assert_eq!(clone.epoch(), spool.epoch());
    clone.append(readings(1000..1010)).await;
    clone.seal().await;
    upload_all(&clone, settings(&store)).await;
    assert_ne!(clone.epoch(), spool.epoch());
    let (values, epochs) = landed(&store).await;
    assert_eq!(values, (0..50).chain(1000..1010).collect());
    assert_eq!(epochs.len(), 2);
    // Restarted, the clone goes on under its own epoch.
    let epoch = clone.epoch();
    clone.close().await;
    let clone = spool_in(&place.path().join("other"));
    assert_eq!((clone.epoch(), clone.status().next_seq), (epoch, 11));
}

/// A spool that was restored from a copy: what its former life sent since, in other batches, is not sent
/// again.
#[tokio::test]
async fn a_restored_spool_does_not_send_twice_what_its_former_life_sent() {
    let place = tempfile::tempdir().expect("a folder");
    let store = Faulty::new([]);
    let spool = spool_in(&place.path().join("one"));
    spool.append(readings(0..50)).await;
    assert!(spool.sync().await);
    copy_folder(&place.path().join("one"), &place.path().join("other"));
    spool.append(readings(50..60)).await;
    upload_all(&spool, settings(&store)).await;
    spool.close().await;
    let restored = spool_in(&place.path().join("other"));
    restored.append(readings(1000..1010)).await;
    assert!(restored.seal().await);
    upload_all(&restored, settings(&store)).await;
    assert_eq!(landed(&store).await.0, (0..60).chain(1000..1010).collect());
}

/// Another one's bytes under our key, found only when the put is refused.
#[tokio::test]
async fn other_bytes_under_our_key_are_never_taken_for_ours() {
    let place = tempfile::tempdir().expect("a folder");
    let (spool, store) = (spool_in(place.path()), Faulty::new([]));
    fill(&spool, 0..2).await;
    upload_all(&spool, settings(&store)).await;
    let former = spool.epoch();
    let (running, stop) = uploading(&spool, settings(&store));
    // Once the uploader has looked, a clone is faster.
    let before = store.lists.load(Ordering::Relaxed);
    until(async || store.lists.load(Ordering::Relaxed) > before).await;
    let foreign = batch::encode(&source(), former, 21, &readings(500..510), None).expect("encoded").0;
    let key = Landed::Batch(former, Bounds { first: 21, last: 30 }).key(&source());
    store.objects.put(&key, PutPayload::from_bytes(foreign)).await.expect("put");
    fill(&spool, 2..3).await;
    until(async || spool.epoch() != former && spool.sealed().await.is_empty()).await;
    stop.cancel();
    running.await.expect("ended");
    assert_ne!(spool.epoch(), former);
    let (values, _) = landed(&store).await;
    assert_eq!(values, (0..30).chain(500..510).collect());
}

/// A folder of this machine as the lake, opened when it is needed.
#[tokio::test]
async fn a_local_lake_is_created_and_filled() {
    let place = tempfile::tempdir().expect("a folder");
    let lake = tjern_readings::store::LakeUrl::folder(&place.path().join("lake")).expect("absolute");
    let spool = spool_in(&place.path().join("spool"));
    fill(&spool, 0..2).await;
    let store = Faulty::new([]);
    upload_all(&spool, UploadSettings { store: None, lake: lake.clone(), ..settings(&store) }).await;
    let objects = Store::open(&lake).expect("opened").objects();
    let listed: Vec<ObjectMeta> = objects.list(Some(&source_folder(&source()))).try_collect().await.expect("listed");
    let landed = listed.iter().filter(|meta| Landed::parse(&meta.location).is_some()).count();
    assert_eq!((landed, listed.len()), (3, 4), "what landed, and what was created twice: {listed:?}");
}

/// An uploader that was gone once left the gateway polling until its spool was full, and beyond.
#[tokio::test]
async fn a_gateway_whose_uploader_is_gone_fails() {
    let place = tempfile::tempdir().expect("a folder");
    let text = format!(
        "version = 1\ngateway = \"test\"\nlake = \"memory:///\"\n[spool]\ndir = \"{}\"\n",
        place.path().display()
    );
    let config = Config::parse(&ConfigText::new("test.toml", text)).expect("good");
    let faulty = Faulty::new([]);
    faulty.defect.store(true, Ordering::Relaxed);
    let store = settings(&faulty).store;
    let options = RunOptions { clock: Clock::system(), stop: CancellationToken::new(), store };
    let result = tokio::time::timeout(Duration::from_secs(120), run(config, options)).await.expect("it ends");
    assert!(matches!(result, Err(RunError::Ended { task: "the task that uploads" })), "{result:?}");
}

/// A page of a captive portal was taken for a token, which no header can carry: the client broke down, and the gateway ended
/// with it, start after start.
#[tokio::test]
async fn a_request_over_which_the_client_breaks_down_is_tried_again() {
    let place = tempfile::tempdir().expect("a folder");
    let spool = spool_in(place.path());
    fill(&spool, 0..4).await;
    let store = Faulty::new([(0, Fault::Panic), (2, Fault::Panic), (3, Fault::Panic)]);
    upload_all(&spool, settings(&store)).await;
    assert_eq!(landed(&store).await.0.len(), 40, "each reading once");
}

/// One of four that were under way failed, and the others, which had landed, were put once more: refused, downloaded to be
/// compared, and counted a second time.
#[tokio::test]
async fn what_landed_beside_a_failure_is_not_sent_again() {
    let place = tempfile::tempdir().expect("a folder");
    // The configuration is put first.
    let (spool, store) = (spool_in(place.path()), Faulty::new([(1, Fault::Before)]));
    fill(&spool, 0..8).await;
    let settings = settings(&store);
    let state = settings.state.clone();
    upload_all(&spool, settings).await;
    assert_eq!(store.puts.load(Ordering::Relaxed), 1 + 8 + 1, "the configuration, each batch, and one of them again");
    assert_eq!(state.snapshot().uploaded_batches, 8);
    assert_eq!(landed(&store).await.0, (0..80).collect());
}

/// What may have landed is looked for before its bytes go over the link once more.
#[tokio::test]
async fn what_landed_without_a_reply_is_not_sent_again() {
    let place = tempfile::tempdir().expect("a folder");
    let (spool, store) = (spool_in(place.path()), Faulty::new([(1, Fault::After), (3, Fault::After)]));
    fill(&spool, 0..8).await;
    let settings = settings(&store);
    let state = settings.state.clone();
    upload_all(&spool, settings).await;
    assert_eq!(store.puts.load(Ordering::Relaxed), 1 + 8);
    assert_eq!(state.snapshot().uploaded_batches, 8);
    assert_eq!(landed(&store).await.0, (0..80).collect());
}

/// A full disk, or a folder that was moved away: readings went into their segment, no batch could be written, and for hours
/// the metrics said that nothing waited and that the lake had just answered.
#[tokio::test]
async fn what_cannot_be_sealed_waits_and_is_told() {
    let place = tempfile::tempdir().expect("a folder");
    let (spool, store) = (spool_in(place.path()), Faulty::new([]));
    // What a batch would need is not there.
    let sealed = place.path().join("sealed");
    let _ = std::fs::remove_dir(&sealed);
    std::fs::write(&sealed, "").expect("written");
    spool.append(readings(7..17)).await;
    assert!(spool.sync().await);
    assert_eq!(spool.status().overdue_us, None, "readings that are not due yet are no lag");
    let settings = settings(&store);
    let (state, stop) = (settings.state.clone(), CancellationToken::new());
    let running = tokio::spawn(upload::run(spool.clone(), settings, stop.clone()));
    until(async || state.snapshot().oldest_waiting_us == Some(7)).await;
    let status = spool.status();
    assert!(status.sealing_trouble.is_some() && !status.in_trouble, "{status:?}");
    assert_eq!((state.snapshot().last_success_us, state.snapshot().waiting_batches), (None, 0));
    std::fs::remove_file(&sealed).expect("removed");
    until(async || state.snapshot().uploaded_batches == 1).await;
    until(async || state.snapshot().oldest_waiting_us.is_none()).await;
    assert_eq!(spool.status().sealing_trouble, None);
    assert!(state.snapshot().last_success_us.is_some());
    stop.cancel();
    running.await.expect("ended");
    assert_eq!(landed(&store).await.0, (7..17).collect());
}

/// A file of credentials on a server that hangs, or a pipe that nobody writes to: the uploader waited for it for ever,
/// `/health` said ok, and that nothing waited.
#[tokio::test]
async fn a_file_of_credentials_that_does_not_answer_is_told_and_waited_for() {
    let place = tempfile::tempdir().expect("a folder");
    let pipe = place.path().join("credentials");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let lake = tjern_readings::store::LakeUrl::folder(&place.path().join("lake")).expect("absolute");
    let spool = spool_in(&place.path().join("spool"));
    fill(&spool, 0..2).await;
    let settings = UploadSettings {
        store: None,
        lake: lake.clone(),
        credentials_file: Some(pipe.clone()),
        ..settings(&Faulty::new([]))
    };
    let (state, stop) = (settings.state.clone(), CancellationToken::new());
    let running = tokio::spawn(upload::run(spool.clone(), settings, stop.clone()));
    until(async || state.snapshot().last_error.is_some()).await;
    let snapshot = state.snapshot();
    let error = snapshot.last_error.clone().unwrap_or_default();
    assert!(error.contains("credentials does not answer"), "{error}");
    assert_eq!((snapshot.waiting_batches, snapshot.oldest_waiting_us), (2, Some(0)));
    // It answers at last; writing waits for who reads.
    let writing = tokio::task::spawn_blocking(move || std::fs::write(pipe, "# none are needed\n"));
    until(async || spool.sealed().await.is_empty()).await;
    writing.await.expect("ended").expect("written");
    stop.cancel();
    running.await.expect("ended");
    let objects = Store::open(&lake).expect("opened").objects();
    let listed: Vec<ObjectMeta> = objects.list(Some(&source_folder(&source()))).try_collect().await.expect("listed");
    assert_eq!(listed.iter().filter(|meta| Landed::parse(&meta.location).is_some()).count(), 3, "{listed:?}");
}

/// Each gateway that was told of another configuration left a thread behind, which waited for somebody to write to the pipe.
#[test]
fn a_pipe_to_which_nobody_writes_holds_no_thread_for_good() {
    let place = tempfile::tempdir().expect("a folder");
    let pipe = place.path().join("credentials");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let lake = tjern_readings::store::LakeUrl::folder(&place.path().join("lake")).expect("absolute");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("built");
    runtime.block_on(async {
        let spool = spool_in(&place.path().join("spool"));
        let settings = || UploadSettings {
            store: None,
            lake: lake.clone(),
            credentials_file: Some(pipe.clone()),
            ..settings(&Faulty::new([]))
        };
        for _ in 0..2 {
            let settings = settings();
            let state = settings.state.clone();
            let (running, _stop) = uploading(&spool, settings);
            until(async || state.snapshot().last_error.is_some()).await;
            // A reload gives up whom it replaces, too.
            running.abort();
        }
    });
    // Whatever is still at work keeps the runtime from its end.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        tell.send(())
    });
    told.recv_timeout(Duration::from_secs(60)).expect("nothing holds a thread");
}

/// A captive portal whose session ran out answers each put with a page and a tag: over plain HTTP nothing told it from the
/// store, and batches left the spool for nowhere.
#[tokio::test]
async fn a_success_that_anybody_could_have_told_is_looked_at() {
    let forged = || (1..6).map(|put| (put, Fault::Forged));
    for is_forgeable in [true, false] {
        let place = tempfile::tempdir().expect("a folder");
        let (spool, store) = (spool_in(place.path()), Faulty::new(forged()));
        fill(&spool, 0..6).await;
        upload_all(&spool, UploadSettings { is_forgeable, ..settings(&store) }).await;
        let listed: Vec<ObjectMeta> = store.objects.list(None).try_collect().await.expect("listed");
        let batches =
            listed.iter().filter(|meta| matches!(Landed::parse(&meta.location), Some((_, Landed::Batch(..)))));
        // The canary: who believes it loses five of six.
        assert_eq!(batches.count(), if is_forgeable { 6 } else { 1 });
    }
}

/// A reply was lost, and then a captive portal's page came where the object was looked for: it counted as another's readings under
/// our numbers, and one batch after the other was set aside and never sent, or the epoch was begun anew.
#[tokio::test]
async fn a_page_in_the_place_of_an_object_is_nobodys_readings() {
    for is_former in [true, false] {
        let place = tempfile::tempdir().expect("a folder");
        let (spool, store) = (spool_in(place.path()), Faulty::new([(2, Fault::BeforePortal)]));
        fill(&spool, 0..4).await;
        assert!(!is_former || spool.begin_epoch().await);
        let epoch = spool.epoch();
        // Else an hour of trouble begins an epoch by itself.
        let live_first_after = is_former.then_some(Duration::from_secs(3_600));
        let (running, stop) =
            uploading(&spool, UploadSettings { is_forgeable: true, live_first_after, ..one_at_a_time(&store) });
        until(async || store.pages.load(Ordering::Relaxed) > 4).await;
        store.portal.store(false, Ordering::Relaxed);
        until(async || spool.sealed().await.is_empty()).await;
        stop.cancel();
        running.await.expect("ended");
        assert_eq!((spool.status().set_aside_objects, spool.epoch()), (0, epoch), "of a former epoch: {is_former}");
        assert_eq!(landed(&store).await.0, (0..40).collect());
    }
}

/// A store that answers 403 for a key that is not there (one that may list a part of the bucket only): after one put that was lost
/// nothing went out any more until a restart.
#[tokio::test]
async fn a_store_that_refuses_to_say_what_is_missing_gets_what_was_lost() {
    let place = tempfile::tempdir().expect("a folder");
    let (spool, store) = (spool_in(place.path()), Faulty::new([(2, Fault::Before), (4, Fault::After)]));
    store.hides_missing.store(true, Ordering::Relaxed);
    fill(&spool, 0..6).await;
    upload_all(&spool, one_at_a_time(&store)).await;
    assert_eq!(landed(&store).await.0, (0..60).collect());
}

/// The same for a copy: it has to know what of its own is there before it begins an epoch.
#[tokio::test]
async fn a_copy_over_a_store_that_refuses_to_say_what_is_missing_begins_a_new_epoch() {
    let place = tempfile::tempdir().expect("a folder");
    let store = Faulty::new([]);
    store.hides_missing.store(true, Ordering::Relaxed);
    let spool = spool_in(&place.path().join("one"));
    fill(&spool, 0..2).await;
    assert!(spool.sync().await);
    copy_folder(&place.path().join("one"), &place.path().join("other"));
    fill(&spool, 2..3).await;
    upload_all(&spool, settings(&store)).await;
    spool.close().await;
    let copied = spool_in(&place.path().join("other"));
    fill(&copied, 100..102).await;
    upload_all(&copied, settings(&store)).await;
    assert_eq!(landed(&store).await.0, (0..30).chain(1_000..1_020).collect());
}

/// What is new was to go first after an outage, and nothing new had come yet: a lake that took the small claim and lost the batches
/// made each restart a copy of itself, which numbered all that waited anew and left its epoch open for ever.
#[tokio::test]
async fn a_restart_before_the_first_reading_is_no_copy() {
    let (place, store) = (tempfile::tempdir().expect("a folder"), Faulty::new([]));
    let spool = spool_in(place.path());
    fill(&spool, 0..8).await;
    let former = spool.epoch();
    spool.close().await;
    let live_first = || UploadSettings { live_first_after: Some(Duration::from_secs(1)), ..settings(&store) };
    store.loses_batches.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let spool = spool_in(place.path());
        let before = store.puts.load(Ordering::Relaxed);
        let (running, stop) = uploading(&spool, live_first());
        until(async || store.puts.load(Ordering::Relaxed) > before + 5).await;
        stop.cancel();
        running.await.expect("ended");
        spool.close().await;
    }
    store.loses_batches.store(false, Ordering::Relaxed);
    let spool = spool_in(place.path());
    assert_eq!(spool.epoch(), former, "it is where it was");
    upload_all(&spool, live_first()).await;
    assert_ne!(spool.epoch(), former, "what is new goes first");
    assert_eq!(landed(&store).await, ((0..80).collect(), BTreeSet::from([former])));
    let closed = store.objects.get(&Landed::Closed(former).key(&source())).await.expect("finished");
    assert_eq!(closed.bytes().await.expect("read"), "80\n");
}
