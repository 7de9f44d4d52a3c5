//! A lake that is copied while gateways, ingest, compaction, rollups and vacuum are at work, is destroyed, comes back,
//! and goes on: what is lost is what docs/backup.md says, and no row more.
//!
//! Each request lets all the others go on before it is done, so that everybody's work falls between the requests of the copy.
//! The canary copies in the order that looks natural (the files of a table, then its log): what was committed
//! in between is named by the log and is not there.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::tz::TimeZone;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::{Lake, Table, TableName};
use tjern_pipeline::backup::manifest::{Manifest, list};
use tjern_pipeline::backup::restore::{Part, refuse_unfinished, restore};
use tjern_pipeline::backup::{BackupError, backup};
use tjern_pipeline::compact::{CompactSettings, compact};
use tjern_pipeline::erase::EraseSettings;
use tjern_pipeline::ingest::{Ingester, Polling, ingest, open_runs};
use tjern_pipeline::rollup::rollup;
use tjern_pipeline::vacuum::vacuum;
use tjern_pipeline::verify::verify;
use tjern_readings::store::Store;
use tokio_util::sync::CancellationToken;

use crate::support::{HOUR_US, Place, SECOND_US, SETTINGS};
use tjern_testing::simulated::{Fault, Simulated};

const SOURCES: [&str; 3] = ["landfall-01", "elva-01", "mast-01"];

/// Every column of every row.
const ROWS: &str = "SELECT * FROM readings ORDER BY source, epoch, seq, revision";

/// Where backups lie.
struct Backups(Arc<Simulated>);

impl Backups {
    fn new(place: &Place) -> Self {
        Self(Arc::new(Simulated::new(place.clock.clone())))
    }

    fn store(&self) -> Store {
        let objects: Arc<dyn ObjectStore> = Arc::<Simulated>::clone(&self.0);
        Store::over(objects, "s3://elsewhere/backups".parse().expect("a place"))
    }

    fn count(&self, folder: &str) -> usize {
        self.0.keys().iter().filter(|key| key.starts_with(folder)).count()
    }
}

async fn back_up(lake: &Lake, target: &Store) -> Result<String, BackupError> {
    backup(lake, target, None, &mut |_, _| {}).await.map(|outcome| outcome.id)
}

fn erasing() -> EraseSettings {
    let compact = CompactSettings::default();
    EraseSettings { ingest: SETTINGS, register: None, compact, datasets: Vec::new(), timezone: TimeZone::UTC }
}

async fn bring_back(lake: &Lake, target: &Store, part: Part) -> Result<(usize, usize), BackupError> {
    let outcome = restore(lake, target, None, part, false, &erasing(), &mut |_, _| {}).await?;
    Ok((outcome.objects, outcome.there))
}

/// What looks natural: one folder after the other, and a table's log after its files. As `cp -r` in two steps.
async fn copy_plainly(lake: &Lake, target: &Store) {
    let objects = lake.store().objects();
    for logs in [false, true] {
        let metas: Vec<_> = objects.list(None).try_collect().await.expect("listed");
        let chosen = metas.into_iter().filter(|meta| meta.location.as_ref().contains("_delta_log") == logs);
        for meta in chosen {
            let Ok(found) = objects.get(&meta.location).await else { continue };
            let bytes = found.bytes().await.expect("read");
            target.objects().put(&meta.location, bytes.into()).await.expect("put");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copier {
    Ours,
    Plain,
}

/// Runs a city, in which everything is at work at once, until it was copied and compacted some times. Returns how many
/// readings each gateway sent.
async fn lively_city(copier: Copier) -> (Place, Backups, i64) {
    let place = Place::new();
    let backups = Backups::new(&place);
    let lake = place.lake();
    Table::create_all(&lake).await.expect("created");
    place.store.give_way(3);
    // The line to the backups is slow: commits are made while files are copied.
    backups.0.give_way(100);
    let (copies, compactions, rounds) = (Cell::new(0), Cell::new(0), Cell::new(0));
    // The others are at work until the last copy is done.
    let is_done = Cell::new(false);
    let is_over = || is_done.get();
    let sent = Cell::new(0);
    let gateways = async {
        while !is_over() {
            for name in SOURCES {
                place.land(name, sent.get() + 1, sent.get() + 3).await;
            }
            sent.set(sent.get() + 3);
            place.ahead(2 * SECOND_US);
            let seen = rounds.get();
            while rounds.get() == seen && !is_over() {
                tokio::task::yield_now().await;
            }
        }
    };
    let taking = async {
        let polling = Polling { every_us: SECOND_US, idle_us: SECOND_US };
        let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling);
        while !is_over() {
            ingester.run().await.expect("ingested");
            rounds.set(rounds.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    let upkeep = async {
        while !is_over() {
            let seen = rounds.get();
            while rounds.get() < seen + 6 && !is_over() {
                tokio::task::yield_now().await;
            }
            let never = CancellationToken::new();
            compact(&lake, &CompactSettings::default(), &never, &mut |_| {}).await.expect("compacted");
            rollup(&lake, &TimeZone::UTC).await.expect("summed up");
            // Files that were compacted away stay for a minute here, and for a day in a city.
            vacuum(&lake, Duration::from_secs(60), false).await.expect("vacuumed");
            compactions.set(compactions.get() + 1);
        }
    };
    let copying = async {
        let own = place.lake();
        while !is_over() {
            match copier {
                Copier::Ours => _ = back_up(&own, &backups.store()).await.expect("copied"),
                Copier::Plain => copy_plainly(&own, &backups.store()).await,
            }
            copies.set(copies.get() + 1);
            place.ahead(1);
            is_done.set(copies.get() >= 5 && compactions.get() >= 5);
        }
    };
    tokio::join!(gateways, taking, upkeep, copying);
    place.store.give_way(0);
    backups.0.give_way(0);
    (place, backups, sent.get())
}

async fn remove(place: &Place, folder: Option<&str>) {
    let folder = folder.map(Path::from);
    let inner = place.store.inner();
    let keys: Vec<_> = inner.list(folder.as_ref()).map_ok(|meta| meta.location).try_collect().await.expect("listed");
    let gone = futures::stream::iter(keys.into_iter().map(Ok)).boxed();
    inner.delete_stream(gone).try_collect::<Vec<_>>().await.expect("removed");
}

async fn rows(place: &Place) -> Vec<String> {
    place.ask(ROWS).await.split("; ").map(str::to_owned).collect()
}

/// Each reading that the gateways sent, by source and number.
async fn identities(place: &Place) -> Vec<String> {
    place
        .ask("SELECT source, seq, sensor, time, value FROM readings ORDER BY 1, 2")
        .await
        .split("; ")
        .map(str::to_owned)
        .collect()
}

async fn is_sound(place: &Place) -> bool {
    let verdict = verify(&place.lake(), &mut |_, _| {}).await;
    verdict.is_ok_and(|verdict| verdict.problems.is_empty())
}

/// The tables are lost. What landed after the backup is in the landing zone: nothing is lost at all.
#[tokio::test]
async fn lost_tables_come_back_from_a_backup_and_the_landing_zone_without_a_loss() {
    let (place, backups, sent) = Box::pin(lively_city(Copier::Ours)).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let wanted = identities(&place).await;
    assert_eq!(wanted.len(), 3 * usize::try_from(sent).expect("few"));
    remove(&place, Some("tables")).await;
    let (put, _) = bring_back(&place.lake(), &backups.store(), Part::Everything).await.expect("brought back");
    assert!(put > 3 && is_sound(&place).await);
    let before = identities(&place).await.len();
    let outcome = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((outcome.rows, outcome.passed), (wanted.len() - before, 0), "ingest goes on where the backup ends");
    assert_eq!(identities(&place).await, wanted);
    rollup(&place.lake(), &TimeZone::UTC).await.expect("summed up");
    assert_eq!(place.ask("SELECT sum(count) FROM hourly").await, wanted.len().to_string());
}

/// All is lost. Each of many backups is whole: its rows are those that were sent up to some number, of each source,
/// and what came after is missing as a hole once the gateway goes on.
#[tokio::test]
async fn every_backup_that_was_made_beside_the_work_is_whole() {
    let (place, backups, sent) = Box::pin(lively_city(Copier::Ours)).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let all = identities(&place).await;
    let ids = list(&backups.store()).await.expect("listed");
    assert!(ids.len() >= 4, "{}", ids.len());
    let mut before = 0;
    // Some of them, the newest last.
    for id in ids.iter().rev().step_by(ids.len().div_ceil(6)).collect::<Vec<_>>().into_iter().rev() {
        remove(&place, None).await;
        restore(&place.lake(), &backups.store(), Some(id), Part::Everything, false, &erasing(), &mut |_, _| {})
            .await
            .expect("brought back");
        assert!(is_sound(&place).await, "{id}");
        let tables = identities(&place).await.len();
        assert!(tables >= before, "a later backup has more");
        before = tables;
        assert!(id == &ids[0] || tables > 0, "only the first may have come before all readings");
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        let there = identities(&place).await;
        for name in SOURCES {
            let own = |rows: &[String]| rows.iter().filter(|row| row.starts_with(name)).cloned().collect::<Vec<_>>();
            let (found, sent) = (own(&there), own(&all));
            assert_eq!(found, sent[..found.len()], "{name} at {id}: without a hole, up to some number");
        }
    }
    // The gateway goes on with its own numbers, and says by them what is lost.
    let found = place.ask("SELECT max(seq) FROM readings WHERE source = 'landfall-01'").await;
    let found: i64 = found.parse().expect("a number");
    place.land("landfall-01", sent + 1, sent + 3).await;
    place.ahead(2 * HOUR_US);
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let table = Table::open(&place.lake(), TableName::Readings).await.expect("opened").expect("there");
    let lost: i64 = open_runs(&table).iter().map(|run| run.bounds.count()).sum();
    assert_eq!(lost, sent - found);
}

#[tokio::test]
async fn a_copy_in_the_order_that_looks_natural_is_caught() {
    let (place, backups, _) = Box::pin(lively_city(Copier::Plain)).await;
    remove(&place, None).await;
    let (from, to) = (backups.0.inner(), place.store.inner());
    let keys: Vec<_> = from.list(None).map_ok(|meta| meta.location).try_collect().await.expect("listed");
    for key in keys {
        let bytes = from.get(&key).await.expect("there").bytes().await.expect("read");
        to.put(&key, bytes.into()).await.expect("put");
    }
    assert!(!is_sound(&place).await, "the canary lives: the log names what is not there");
}

/// A city of some days, without latency.
async fn quiet_city() -> (Place, Backups) {
    let place = Place::new();
    let lake = place.lake();
    Table::create_all(&lake).await.expect("created");
    for batch in 0..12 {
        for name in SOURCES {
            place.land(name, batch * 3 + 1, batch * 3 + 3).await;
        }
        ingest(&lake, &SETTINGS).await.expect("ingested");
        place.ahead(HOUR_US);
    }
    let backups = Backups::new(&place);
    (place, backups)
}

/// Killed at any request to the lake or to the backups' store: the next run goes on, copies nothing twice, and the
/// backup is whole.
#[tokio::test]
async fn a_backup_that_breaks_off_goes_on_where_it_was() {
    let (place, _) = quiet_city().await;
    let wanted = rows(&place).await;
    let mut faults = 0;
    for at in (1..).step_by(5) {
        let backups = Backups::new(&place);
        backups.0.fail(Fault::DeadAfter(at));
        let broke_off = back_up(&place.lake(), &backups.store()).await.is_err();
        let (_, first) = backups.0.counted();
        // Unless it was the reply to the manifest itself that was lost.
        let is_whole = backups.count("manifests") == 1;
        assert!(is_whole || broke_off, "without a fault there is a backup");
        backups.0.fail(Fault::None);
        back_up(&place.lake(), &backups.store()).await.expect("copied");
        let (_, second) = backups.0.counted();
        let (objects, manifests) = (backups.count("objects"), backups.count("manifests"));
        let copied = u64::try_from(objects + manifests).expect("few");
        assert!(first + second <= copied + 1, "{first} and {second} puts for {copied} objects");
        faults += 1;
        if !broke_off {
            break;
        }
        let fresh = Place::new();
        bring_back(&fresh.lake(), &backups.store(), Part::Everything).await.expect("brought back");
        assert_eq!(rows(&fresh).await, wanted);
    }
    assert!(faults > 10, "{faults}");
}

/// The second backup of a day costs what the day brought.
#[tokio::test]
async fn what_was_copied_is_not_copied_again() {
    let (place, backups) = quiet_city().await;
    back_up(&place.lake(), &backups.store()).await.expect("copied");
    let again = backup(&place.lake(), &backups.store(), None, &mut |_, _| {}).await.expect("copied");
    assert_eq!((again.copied, again.copied_bytes), (0, 0));
    place.land("landfall-01", 37, 39).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let more = backup(&place.lake(), &backups.store(), None, &mut |_, _| {}).await.expect("copied");
    assert_eq!(more.copied, 3, "a batch, a file and a commit");
    let entries = Manifest::read(&backups.store(), &more.id).await.expect("read").entries;
    assert!(entries.iter().all(|entry| entry.sha256.is_some()));
}

/// Killed at any request: nothing works on the lake until the restore is finished, and then it is whole.
#[tokio::test]
async fn a_restore_that_breaks_off_is_refused_by_all_others_and_goes_on() {
    let (place, backups) = quiet_city().await;
    let wanted = rows(&place).await;
    back_up(&place.lake(), &backups.store()).await.expect("copied");
    let mut refused = 0;
    for at in (1..).step_by(7) {
        let fresh = Place::new();
        fresh.store.fail(Fault::DeadAfter(at));
        let broke_off = bring_back(&fresh.lake(), &backups.store(), Part::Everything).await.is_err();
        let (calls, _) = fresh.store.counted();
        fresh.store.fail(Fault::None);
        let has_log = fresh.keys("tables").iter().any(|key| key.contains("_delta_log"));
        let is_refused = refuse_unfinished(&fresh.lake()).await.is_err();
        assert!(
            is_refused || !has_log || !broke_off || is_sound(&fresh).await,
            "half a table is there, and nothing says so"
        );
        refused += u64::from(is_refused);
        if broke_off && !is_refused && has_log {
            // It broke off after everything was done.
            continue;
        }
        if broke_off {
            bring_back(&fresh.lake(), &backups.store(), Part::Everything).await.expect("brought back");
        }
        refuse_unfinished(&fresh.lake()).await.expect("finished");
        assert_eq!(rows(&fresh).await, wanted);
        if calls < at {
            break;
        }
    }
    assert!(refused > 10, "{refused}");
}

/// A restore is no way to replace what is there.
#[tokio::test]
async fn a_lake_with_tables_is_refused_and_landed_batches_come_back_all_the_same() {
    let (place, backups) = quiet_city().await;
    back_up(&place.lake(), &backups.store()).await.expect("copied");
    let wanted = rows(&place).await;
    let error = bring_back(&place.lake(), &backups.store(), Part::Everything).await.expect_err("there are tables");
    assert!(matches!(error, BackupError::Taken { .. }), "{error}");
    let landed = place.keys("landing");
    remove(&place, Some("landing")).await;
    bring_back(&place.lake(), &backups.store(), Part::Landing).await.expect("brought back");
    assert_eq!(place.keys("landing"), landed);
    let outcome = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((outcome.rows, outcome.quarantined), (0, 0), "what is in is known");
    assert_eq!(rows(&place).await, wanted);
}

/// A byte that fell over in the store of the backups must not become a reading.
#[tokio::test]
async fn a_damaged_object_is_told_and_does_not_stay_in_the_lake() {
    let (place, backups) = quiet_city().await;
    back_up(&place.lake(), &backups.store()).await.expect("copied");
    let name = backups
        .0
        .keys()
        .into_iter()
        .find(|key| key.contains("landfall-01") && key.contains(".arrow"))
        .expect("a batch");
    let mut bytes =
        backups.0.inner().get(&Path::from(name.as_str())).await.expect("there").bytes().await.expect("read").to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    backups.0.inner().put(&Path::from(name.as_str()), bytes.into()).await.expect("put");
    let fresh = Place::new();
    let error = bring_back(&fresh.lake(), &backups.store(), Part::Everything).await.expect_err("damaged");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    let key = name.split('@').next().and_then(|name| name.splitn(3, '/').nth(2)).expect("a key").to_owned();
    assert!(!fresh.keys("landing").contains(&key), "{key}");
}

/// A table that was made anew has commits of the same names: each backup keeps those that were its own.
#[tokio::test]
async fn two_tables_of_one_name_do_not_mix() {
    let (place, backups) = quiet_city().await;
    let first = back_up(&place.lake(), &backups.store()).await.expect("copied");
    let wanted = rows(&place).await;
    remove(&place, Some("tables")).await;
    remove(&place, Some("landing")).await;
    place.ahead(HOUR_US);
    for batch in 0..12 {
        place.land("other-01", batch + 1, batch + 1).await;
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    }
    let other = rows(&place).await;
    let second = back_up(&place.lake(), &backups.store()).await.expect("copied");
    for (id, wanted) in [(first, wanted), (second, other)] {
        let fresh = Place::new();
        restore(&fresh.lake(), &backups.store(), Some(&id), Part::Everything, false, &erasing(), &mut |_, _| {})
            .await
            .expect("brought back");
        assert_eq!(rows(&fresh).await, wanted);
    }
}

/// Old backups leave, and with them what only they named; the newest is whole after that.
#[tokio::test]
async fn old_backups_leave_and_the_newest_stays_whole() {
    let (place, backups) = quiet_city().await;
    back_up(&place.lake(), &backups.store()).await.expect("copied");
    compact(&place.lake(), &CompactSettings::default(), &CancellationToken::new(), &mut |_| {})
        .await
        .expect("compacted");
    place.ahead(40 * 24 * HOUR_US);
    let wanted = rows(&place).await;
    let keep = Some(Duration::from_secs(30 * 24 * 3_600));
    let outcome = backup(&place.lake(), &backups.store(), keep, &mut |_, _| {}).await.expect("copied");
    assert_eq!(outcome.removed_backups, 1);
    assert!(outcome.removed_objects >= 12, "the files that were compacted: {}", outcome.removed_objects);
    let fresh = Place::new();
    bring_back(&fresh.lake(), &backups.store(), Part::Everything).await.expect("brought back");
    assert_eq!(rows(&fresh).await, wanted);
}

impl Backups {
    /// What was copied.
    fn objects(&self) -> Vec<String> {
        self.0.keys().into_iter().filter(|key| key.starts_with("objects/")).collect()
    }
}

/// The first backup of a lake broke off on Friday and went on on Monday, while the nightly one of another lake removed what no
/// manifest named for more than a day. The manifest of Monday named what was gone, and said so when it was needed.
#[tokio::test]
async fn what_another_lakes_backup_may_remove_is_copied_again() {
    let (place, backups) = quiet_city().await;
    let wanted = rows(&place).await;
    backups.0.fail(Fault::DeadAfter(20));
    back_up(&place.lake(), &backups.store()).await.expect_err("broken off");
    backups.0.fail(Fault::None);
    let friday = backups.objects();
    assert!(friday.len() > 8, "{friday:?}");
    place.ahead(3 * 24 * HOUR_US);
    let other = Lake::over(Store::open(&"memory:///".parse().expect("a lake")).expect("opened"))
        .with_clock(place.clock.clone());
    Table::create_all(&other).await.expect("created");
    let other_target = backups.store();
    let pruning = async {
        // As soon as the other one has listed what is there.
        while backups.0.counted().0 < 3 {
            tokio::task::yield_now().await;
        }
        backup(&other, &other_target, Some(Duration::from_secs(24 * 3_600)), &mut |_, _| {}).await.expect("copied");
    };
    backups.0.give_way(20);
    let lake = place.lake();
    let target = backups.store();
    let (copied, ()) = tokio::join!(back_up(&lake, &target), pruning);
    let id = copied.expect("copied");
    backups.0.give_way(0);
    let fresh = Place::new();
    restore(&fresh.lake(), &backups.store(), Some(&id), Part::Everything, false, &erasing(), &mut |_, _| {})
        .await
        .expect("brought back");
    assert_eq!(rows(&fresh).await, wanted);
}

/// Two lakes that were set up by one script in one second have logs of the same names, times and lengths.
#[tokio::test]
async fn objects_of_two_lakes_are_told_apart() {
    let (place, backups) = quiet_city().await;
    let other = Place { store: Arc::clone(&place.store), clock: place.clock.clone() };
    let objects: Arc<dyn ObjectStore> = Arc::<Simulated>::clone(&other.store);
    let other =
        Lake::over(Store::over(objects, "s3://city/other".parse().expect("a lake"))).with_clock(place.clock.clone());
    back_up(&place.lake(), &backups.store()).await.expect("copied");
    let first = backups.objects();
    let again = backup(&other, &backups.store(), None, &mut |_, _| {}).await.expect("copied");
    assert_eq!((again.copied, backups.objects().len()), (first.len(), 2 * first.len()));
}
