//! A table that was lost is built anew from landed batches: with the rows that ingest had made, and no other.
//!
//! The oracle is ingest's own table before it was lost. The canary is a replay that does what looks sufficient (the
//! table is empty, so take what lies there): killed half way it leaves half of the rows, or doubles them.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::tz::TimeZone;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::{Lake, Table, TableName};
use tjern_pipeline::ingest::replay::{ReplayError, Replayable, Standing, finish, look, replay};
use tjern_pipeline::ingest::{IngestOutcome, IngestSettings, Ingester, ingest, missing, open_runs};
use tjern_pipeline::maintain::retain;
use tjern_pipeline::rollup::rollup;
use tjern_readings::batch::decode;
use tjern_readings::keys::Landed;
use tjern_readings::reading::{Cause, Reading};

use crate::exactly_once::{commit_plainly, landed};
use crate::support::{EPOCH, HOUR_US, NOW_US, Place, SECOND_US, SETTINGS, source};
use tjern_testing::simulated::Fault;

const DAY_US: i64 = 24 * HOUR_US;

/// Every column but `received`.
const ROWS: &str = "SELECT sensor, time, value, quality, cause, lag_ms, source, epoch, seq, revision, level, tests FROM readings \
    ORDER BY source, epoch, seq, revision";

/// All that the rows are.
async fn rows(place: &Place) -> Vec<String> {
    place.ask(ROWS).await.split("; ").map(str::to_owned).collect()
}

/// The table `readings` is lost: its folder is gone.
async fn lose_readings(place: &Place) {
    let folder = Path::from("tables/readings");
    let keys: Vec<_> =
        place.store.inner().list(Some(&folder)).map_ok(|meta| meta.location).try_collect().await.expect("listed");
    let gone = futures::stream::iter(keys.into_iter().map(Ok)).boxed();
    place.store.inner().delete_stream(gone).try_collect::<Vec<_>>().await.expect("removed");
}

async fn whole_replay(lake: &Lake, settings: &IngestSettings) -> Result<IngestOutcome, ReplayError> {
    let outcome = replay(lake, settings, |_| {}).await?;
    finish(lake).await?;
    Ok(outcome)
}

/// What looks sufficient.
async fn careless(lake: &Lake) -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::open_or_create(lake, TableName::Readings).await?;
    if !table.files().is_empty() {
        return Ok(());
    }
    let metas: Vec<_> = lake.objects().list(Some(&Path::from("landing"))).try_collect().await?;
    for meta in metas {
        let bytes = lake.objects().get(&meta.location).await?.bytes().await?;
        if let Ok(batch) = decode(&bytes) {
            commit_plainly(lake, &mut table, &batch).await?;
        }
    }
    Ok(())
}

/// A reading from twenty minutes ahead, and one that failed: as ingest judged them, so must a replay.
fn odd_readings() -> [Reading; 3] {
    let sensor = || "tarn/wind".parse().expect("valid");
    [
        Reading::of(sensor(), NOW_US + 2 * HOUR_US + 20 * 60 * SECOND_US, 3.0),
        Reading::missing(sensor(), NOW_US, Cause::Timeout),
        Reading::of(sensor(), NOW_US, -0.0),
    ]
}

/// A city that was ingested, and lost its readings a month later.
async fn lost_city() -> (Place, Vec<String>) {
    let place = landed().await;
    place.land_readings("mast-01", 1, &odd_readings(), None).await;
    let settings = IngestSettings { landing_grace: Duration::from_secs(90 * 24 * 3_600), ..SETTINGS };
    ingest(&place.lake(), &settings).await.expect("ingested");
    let before = rows(&place).await;
    lose_readings(&place).await;
    place.ahead(30 * DAY_US);
    (place, before)
}

#[tokio::test]
async fn a_replay_gives_the_rows_that_ingest_had_made() {
    let (place, before) = lost_city().await;
    assert!(before.iter().any(|row| row.contains("future")), "{before:?}");
    let outcome = whole_replay(&place.lake(), &SETTINGS).await.expect("replayed");
    assert_eq!((outcome.rows, outcome.cleaned), (before.len(), 0), "what was taken just now stays for its grace");
    assert_eq!(rows(&place).await, before);
    let again = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((again.rows, again.quarantined, again.passed), (0, 0, 0), "ingest goes on from there");
    let refused = whole_replay(&place.lake(), &SETTINGS).await.expect_err("there are rows");
    assert!(
        matches!(refused, ReplayError::Taken { rows } if rows == i64::try_from(before.len()).expect("few")),
        "{refused}"
    );
    assert_eq!(rows(&place).await, before);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Careless,
}

async fn once(kind: Kind, place: &Place) -> bool {
    match kind {
        Kind::Ours => match whole_replay(&place.lake(), &SETTINGS).await {
            Ok(_) | Err(ReplayError::Taken { .. }) => true,
            Err(_) => false,
        },
        Kind::Careless => careless(&place.lake()).await.is_ok(),
    }
}

/// At which faults the rows were not those that were lost, and how many faults there were.
async fn wrong_at(kind: Kind, fault: fn(u64) -> Fault) -> (Vec<u64>, u64) {
    let mut wrong = Vec::new();
    for at in 1.. {
        let (place, before) = lost_city().await;
        place.store.fail(fault(at));
        once(kind, &place).await;
        let requests = place.store.counted();
        place.store.fail(Fault::None);
        while !once(kind, &place).await {}
        let is_same = match kind {
            Kind::Ours => rows(&place).await == before,
            // Of the canary only the count is asked: its flags are of no account.
            Kind::Careless => rows(&place).await.len() == before.len(),
        };
        if !is_same {
            wrong.push(at);
        }
        if fault(at).is_beyond(requests) {
            return (wrong, at - 1);
        }
    }
    unreachable!("a run ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_anywhere_goes_on_and_gives_the_same_rows() {
    for fault in [Fault::LostReply as fn(u64) -> Fault, Fault::DeadBefore, Fault::DeadAfter] {
        let (wrong, faults) = wrong_at(Kind::Ours, fault).await;
        println!("{faults} faults");
        assert_eq!(wrong, Vec::<u64>::new());
        assert!(faults >= 4, "{faults}");
    }
    let (wrong, faults) = wrong_at(Kind::Careless, Fault::DeadBefore).await;
    assert!(!wrong.is_empty(), "the canary lives: {faults} faults and not one was found");
}

/// A daemon that was not stopped takes what lies there too: whichever comes first, the rows are the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_beside_a_replay_doubles_and_loses_nothing() {
    for _ in 0..8 {
        let (place, before) = lost_city().await;
        let (one, other) = (place.lake(), place.lake());
        let _ = tokio::join!(whole_replay(&one, &SETTINGS), ingest(&other, &SETTINGS));
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        assert_eq!(rows(&place).await, before);
    }
}

/// Ten days of a gateway, of which landing keeps a week and a bit.
async fn long_lived() -> (Place, Vec<String>) {
    let place = Place::new();
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened");
    for day in 0..10 {
        place.land("landfall-01", day * 6 + 1, day * 6 + 6).await;
        ingester.run_everything().await.expect("ingested");
        place.ahead(DAY_US);
    }
    ingester.run_everything().await.expect("ingested");
    let all = rows(&place).await;
    (place, all)
}

fn numbers(found: &Replayable) -> (Option<i64>, Option<i64>, Option<(i64, i64)>) {
    (found.first, found.last, found.before)
}

/// Numbers that left the landing zone long ago are nobody's hole: not waited for, not told as missing, and
/// taken if somebody still has them.
#[tokio::test]
async fn what_was_before_the_lowest_number_is_noted_and_not_waited_for() {
    let (place, all) = long_lived().await;
    lose_readings(&place).await;
    let (standing, found) = look(&place.lake()).await.expect("looked");
    assert_eq!(standing, Standing::Empty);
    let lowest = found[0].first.expect("something lies there");
    assert!((13..=19).contains(&lowest), "a week and a bit lies there, from {lowest}");
    assert_eq!(numbers(&found[0]), (Some(lowest), Some(60), Some((1, lowest - 1))));
    let outcome = whole_replay(&place.lake(), &SETTINGS).await.expect("replayed");
    assert_eq!((outcome.passed, outcome.waiting), (0, 0));
    let gone = usize::try_from(lowest - 1).expect("few");
    assert_eq!(rows(&place).await, all[gone..]);
    let table = Table::open(&place.lake(), TableName::Readings).await.expect("opened").expect("there");
    assert_eq!(open_runs(&table), [], "nobody is told of a hole");
    let noted: Vec<_> = missing(&table).iter().map(|run| (run.first, run.last, run.before_replay)).collect();
    assert_eq!(noted, [(1, lowest - 1, true)]);
    // Somebody finds a copy of the second day.
    place.land("landfall-01", 7, 12).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let wanted: Vec<_> = all[6..12].iter().chain(&all[gone..]).cloned().collect();
    assert_eq!(rows(&place).await, wanted);
}

/// An epoch that is finished and has left the landing zone is not a hole either.
#[tokio::test]
async fn an_epoch_of_which_only_the_end_is_there_is_noted_too() {
    let place = Place::new();
    place.put(&Landed::Closed(EPOCH).key(&source("elva-01")), b"30\n".to_vec()).await;
    place.land("landfall-01", 1, 6).await;
    place.ahead(30 * DAY_US);
    whole_replay(&place.lake(), &SETTINGS).await.expect("replayed");
    let table = Table::open(&place.lake(), TableName::Readings).await.expect("opened").expect("there");
    assert_eq!(open_runs(&table), []);
    assert_eq!(table.transaction(&format!(":closed/elva-01/{EPOCH}")), Some(30));
    assert_eq!(missing(&table).len(), 1);
}

/// A table whose readings all left by retention is no lost table: a replay would bring them back.
#[tokio::test]
async fn a_table_that_retention_emptied_is_not_replayed() {
    let place = Place::new();
    place.land("landfall-01", 1, 6).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    retain(&place.lake().of_persons(), Duration::from_secs(3_600), false).await.expect("removed");
    assert_eq!(place.ask("SELECT count(*) FROM readings").await, "0");
    let refused = whole_replay(&place.lake(), &SETTINGS).await.expect_err("it was ingested");
    assert!(matches!(refused, ReplayError::Taken { rows: 0 }), "{refused}");
}

/// What was set aside stays so, its numbers stay open, and the mended batch fills them.
#[tokio::test]
async fn quarantine_is_left_alone() {
    let (place, before) = lost_city().await;
    let kept = place.keys("quarantine");
    assert_eq!(kept.len(), 2, "a batch and its reason: {kept:?}");
    whole_replay(&place.lake(), &SETTINGS).await.expect("replayed");
    assert_eq!(place.keys("quarantine"), kept);
    place.land("elva-01", 6, 7).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(rows(&place).await.len(), before.len() + 2);
}

/// Hours and days of years outlive the readings; their versions are those of a table that is gone, and must not keep
/// what comes now from being summed up.
#[tokio::test]
async fn hours_and_days_stay_and_go_on() {
    let (place, _) = long_lived().await;
    rollup(&place.lake(), &TimeZone::UTC).await.expect("summed up");
    let hours = place.ask("SELECT count(*), sum(count) FROM hourly").await;
    lose_readings(&place).await;
    whole_replay(&place.lake(), &SETTINGS).await.expect("replayed");
    rollup(&place.lake(), &TimeZone::UTC).await.expect("summed up");
    assert_eq!(place.ask("SELECT count(*), sum(count) FROM hourly").await, hours);
    place.land("landfall-01", 61, 66).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    rollup(&place.lake(), &TimeZone::UTC).await.expect("summed up");
    assert_eq!(place.ask("SELECT count(*), sum(count) FROM hourly").await, "66 66");
}

/// Retention had removed readings of which the landing zone still has some: these must not take the place of what was summed up
/// of all of them.
#[tokio::test]
async fn windows_that_were_closed_stay_closed() {
    const DAYS: &str = "SELECT count(*), sum(count) FROM daily";
    let (place, _) = long_lived().await;
    rollup(&place.lake(), &TimeZone::UTC).await.expect("summed up");
    assert_eq!(place.ask(DAYS).await, "6 60");
    retain(&place.lake().of_persons(), Duration::from_secs(3_600), false).await.expect("removed");
    rollup(&place.lake(), &TimeZone::UTC).await.expect("summed up");
    lose_readings(&place).await;
    whole_replay(&place.lake(), &SETTINGS).await.expect("replayed");
    assert_ne!(place.ask("SELECT count(*) FROM readings").await, "0", "some are there again");
    assert_eq!(place.ask(DAYS).await, "6 60", "before the rollup");
    rollup(&place.lake(), &TimeZone::UTC).await.expect("summed up");
    assert_eq!(place.ask(DAYS).await, "6 60");
    let fresh = Reading::of("tarn/wind".parse().expect("valid"), NOW_US, 3.0);
    place.land_readings("mast-01", 1, &[fresh], None).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    rollup(&place.lake(), &TimeZone::UTC).await.expect("summed up");
    assert_eq!(place.ask(DAYS).await, "7 61", "what comes for an open day is summed up");
}

/// The pipeline stood still for a week. What came meanwhile was landed a week ago and ingested just now: if it left
/// with its ingestion, a table lost a day later could not be built anew.
#[tokio::test]
async fn after_a_weeks_stop_there_is_still_something_to_replay() {
    let place = Place::new();
    for day in 0..8 {
        place.land("landfall-01", day * 6 + 1, day * 6 + 6).await;
        place.ahead(DAY_US);
    }
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let all = rows(&place).await;
    for _ in 0..6 {
        place.ahead(DAY_US);
        // A new process each day.
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    }
    assert_eq!(place.keys("landing").len(), 8, "six days after they were ingested all are there");
    lose_readings(&place).await;
    whole_replay(&place.lake(), &SETTINGS).await.expect("replayed");
    assert_eq!(rows(&place).await, all);
    place.ahead(6 * DAY_US);
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(place.keys("landing").len(), 8, "what was replayed stays as long");
    place.ahead(2 * DAY_US);
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(place.keys("landing").len(), 1, "and not for ever: the newest stays, as ever");
}

/// A pipeline that runs once a week takes everything late. Landing keeps what it took for a week or two, not for ever.
#[tokio::test]
async fn a_pipeline_that_is_always_late_keeps_nothing_for_ever() {
    let place = Place::new();
    let mut most = 0;
    for day in 0..100 {
        place.land("landfall-01", day * 6 + 1, day * 6 + 6).await;
        place.ahead(DAY_US);
        if day % 7 == 6 {
            ingest(&place.lake(), &SETTINGS).await.expect("ingested");
            most = most.max(place.keys("landing").len());
        }
    }
    assert!((8..=28).contains(&most), "{most} batches of seven a week");
    assert_eq!(place.numbers().await.split(' ').next(), Some("588"));
}

/// A table that was made anew under a daemon: what landing holds is in no table, whatever the daemon remembers.
#[tokio::test]
async fn a_daemon_removes_nothing_by_what_a_lost_table_knew() {
    let place = Place::new();
    let lake = place.lake();
    let mut daemon = Ingester::open(&lake, SETTINGS).await.expect("opened");
    for day in 0..4 {
        place.land("landfall-01", day * 6 + 1, day * 6 + 6).await;
        daemon.run_everything().await.expect("ingested");
        place.ahead(DAY_US / 4);
    }
    lose_readings(&place).await;
    Table::create_all(&place.lake()).await.expect("created");
    place.ahead(20 * DAY_US);
    // It may find out that its table is another one, or fail: it must not remove what nobody has.
    let _ = daemon.run_everything().await;
    assert_eq!(place.keys("landing").len(), 4);
}
