//! A configuration that comes after the batches that name it: their units are checked all the same, once, at no cost while
//! it is missing.
//!
//! A gateway uploads batches and configurations apart. A level in centimetres under a register that says metres, whose
//! configuration's upload was tried again for an hour, was a hundred times too high for good, and nobody compared.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tjern_lake::{Lake, Table, TableName, write_file};
use tjern_pipeline::compact::{CompactSettings, compact};
use tjern_pipeline::config::RegisterSection;
use tjern_pipeline::correct::Author;
use tjern_pipeline::correct::revise::{ReviseLayout, revise};
use tjern_pipeline::import::Decimal;
use tjern_pipeline::ingest::{
    Accepted, Ingester, Polling, Why, accept_configuration, ingest, missing_configurations, refused,
};
use tjern_pipeline::quality::control;
use tjern_pipeline::register::{RegisterFiles, register};
use tjern_pipeline::rollup::rollup;
use tjern_readings::batch::decode;
use tjern_readings::keys::Landed;
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::store::counted::LISTING_PAGE;
use tjern_testing::simulated::Fault;
use tokio_util::sync::CancellationToken;

use crate::exactly_once::plain_rows;
use crate::support::{EPOCH, HOUR_US, NOW_US, Place, SECOND_US, SETTINGS, bounds, source};

/// Anybody may write both.
const SENSORS: &str = "id,site,quantity,unit,kind,class\ntarn/level,tarn,level,m,sample,public\n\
    tarn/water_temperature,tarn,water_temperature,Cel,sample,public\n";

/// The level in another unit than the register has it in.
const CONFIGURATION: &str = "[[bus.device.point]]\nsensor = \"tarn/water_temperature\"\nunit = \"Cel\"\n\
    [[bus.device.point]]\nsensor = \"tarn/level\"\nunit = \"cm\"\n";

/// So many looks a check may take in a test.
const LOOKS_MAX: usize = 200;

/// For how long a lease of quality control stands after its holder has died.
const LEASE_US: i64 = 301 * SECOND_US;

/// All of a row but when it was received.
const ALL: &str = "SELECT sensor, time, value, quality, cause, source, seq, revision, level, tests FROM readings \
    ORDER BY sensor, time, source, revision";

fn sha256() -> String {
    "fe".repeat(32)
}

fn configuration() -> object_store::path::Path {
    Landed::Configuration(sha256()).key(&source("landfall-01"))
}

async fn lands(place: &Place) {
    place.put(&configuration(), CONFIGURATION.as_bytes().to_vec()).await;
}

async fn registered() -> (Place, tempfile::TempDir) {
    let (place, folder) = (Place::new(), tempfile::tempdir().expect("a folder"));
    let files = RegisterFiles { required: true, ..RegisterSection::default().files(folder.path(), &TimeZone::UTC) };
    std::fs::write(&files.sites, "site,name_nb\ntarn,Tjernet\n").expect("written");
    std::fs::write(&files.sensors, SENSORS).expect("written");
    register(&place.lake(), &files).await.expect("registered");
    (place, folder)
}

fn of(sensor: &str, hours: i64, value: f64) -> Reading {
    Reading::of(sensor.parse().expect("valid"), NOW_US - hours * HOUR_US, value)
}

/// Both sensors at two hours, one without a value; and the same level from another gateway, which names no configuration.
async fn land(place: &Place) {
    let missing = Reading::missing("tarn/level".parse().expect("valid"), NOW_US - 3 * HOUR_US, Cause::Timeout);
    let readings = [
        of("tarn/level", 5, 410.0),
        of("tarn/water_temperature", 5, 4.0),
        of("tarn/level", 4, 412.0),
        of("tarn/water_temperature", 4, 4.5),
        missing,
    ];
    place.land_readings("landfall-01", 1, &readings, Some(&sha256())).await;
    place.land_readings("elva-01", 1, &[of("tarn/level", 2, 4.0)], None).await;
}

/// How many readings the watch is told to fail by their unit, and which configurations are missing.
async fn told(lake: &Lake) -> (i64, usize) {
    let table = Table::open(lake, TableName::Readings).await.expect("opened").expect("there");
    let by_unit = refused(&table).into_iter().filter(|one| one.why == Why::Unit).map(|one| one.rows).sum();
    (by_unit, missing_configurations(&table).len())
}

/// Looks until no reading waits for its configuration. Returns what was done in all.
async fn looks_until_checked(ingester: &mut Ingester, place: &Place) -> (usize, usize) {
    let mut done = (0, 0);
    for _ in 0..LOOKS_MAX {
        let outcome = ingester.run().await.expect("ingested");
        done = (done.0 + outcome.late_units, done.1 + outcome.rows);
        if told(&place.lake()).await.1 == 0 {
            return done;
        }
        place.ahead(2 * SECOND_US);
    }
    panic!("it is never checked")
}

/// What a configuration says holds for its readings whenever it comes: the rows are those of a lake where it came first,
/// in every column, and so are the hours. All the rest is untouched.
#[tokio::test(flavor = "multi_thread")]
async fn units_are_checked_whenever_the_configuration_comes() {
    let (first, _folder) = registered().await;
    lands(&first).await;
    land(&first).await;
    ingest(&first.lake(), &SETTINGS).await.expect("ingested");
    let (late, _folder) = registered().await;
    land(&late).await;
    let mut ingester = Ingester::open(&late.lake(), SETTINGS).await.expect("opened");
    ingester.run().await.expect("ingested");
    assert_eq!(late.ask("SELECT DISTINCT cause FROM readings WHERE value IS NOT NULL").await, "");
    assert_eq!(told(&late.lake()).await, (0, 1));
    rollup(&late.lake(), &TimeZone::UTC).await.expect("rolled up");
    // What was merged since is written anew too.
    let stop = CancellationToken::new();
    late.ahead(2 * HOUR_US);
    land_more(&late).await;
    compact(&late.lake(), &CompactSettings::default(), &stop, &mut |_| ()).await.expect("compacted");
    lands(&late).await;
    late.ahead(60 * SECOND_US);
    assert_eq!(looks_until_checked(&mut ingester, &late).await, (2, 6));
    land_more(&first).await;
    ingest(&first.lake(), &SETTINGS).await.expect("ingested");
    let wanted = first.ask(ALL).await;
    assert!(wanted.contains("410.0 4 unit") && wanted.contains("4.0 2  elva-01"), "{wanted}");
    assert_eq!(late.ask(ALL).await, wanted);
    assert_eq!((told(&late.lake()).await, told(&first.lake()).await), ((2, 0), (2, 0)));
    for place in [&first, &late] {
        rollup(&place.lake(), &TimeZone::UTC).await.expect("rolled up");
        control(&place.lake()).await.expect("judged");
        rollup(&place.lake(), &TimeZone::UTC).await.expect("rolled up");
    }
    assert_eq!(late.ask(ALL).await, first.ask(ALL).await, "and quality control says the same of them");
    let hours = "SELECT sensor, time, quality, count, sum FROM hourly ORDER BY sensor, time, quality";
    assert_eq!(late.ask(hours).await, first.ask(hours).await);
    assert_eq!(late.ask("SELECT max(value) FROM observations WHERE sensor = 'tarn/level'").await, "4.0");
    late.ahead(60 * SECOND_US);
    assert_eq!(ingester.run().await.expect("ingested").late_units, 0, "it is done");
}

/// A batch of another gateway, so that there is something to merge, and that other files are beside.
async fn land_more(place: &Place) {
    let readings: Vec<_> = (0..6).map(|number| of("tarn/water_temperature", 30 + number, 3.0)).collect();
    place.land_readings("berg-01", 1, &readings, None).await;
}

/// A process that was started again knows what waits, and so does another one.
#[tokio::test]
async fn what_waits_for_its_configuration_is_known_after_a_restart() {
    let (place, _folder) = registered().await;
    land(&place).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    lands(&place).await;
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").late_units, 2);
    assert_eq!(told(&place.lake()).await, (2, 0));
}

/// Somebody looked at the level meanwhile and wrote down what it was: that word is about metres, and stays.
#[tokio::test]
async fn what_a_person_said_since_stays() {
    let (place, folder) = registered().await;
    land(&place).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let time = jiff::Timestamp::from_microsecond(NOW_US - 5 * HOUR_US).expect("a time");
    let file = folder.path().join("revised.csv");
    std::fs::write(&file, format!("sensor,time,value\ntarn/level,{time},4.1\n")).expect("written");
    let layout = ReviseLayout { separator: b',', decimal: Decimal::Point, zone: TimeZone::UTC };
    let author = Author { by: "a technician".to_owned(), reason: None };
    revise(&place.lake(), &file, &layout, &author, false).await.expect("revised");
    lands(&place).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let shown = "SELECT value, revision FROM observations WHERE sensor = 'tarn/level' ORDER BY time";
    assert_eq!(place.ask(shown).await, "4.1 1; 4.0 0");
    let came = "SELECT value, quality, cause FROM readings WHERE seq = 1 AND source = 'landfall-01' AND revision = 0";
    assert_eq!(place.ask(came).await, "410.0 4 unit");
}

/// What an hour of looks costs.
async fn cost_of_an_hour(place: &Place) -> u64 {
    let lake = place.lake();
    let polling = Polling::of(&"s3://city/lake".parse().expect("a lake"));
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling);
    ingester.run().await.expect("ingested");
    let before = lake.store().requests();
    for _ in 0..1_800 {
        place.ahead(2 * SECOND_US);
        ingester.run().await.expect("ingested");
    }
    lake.store().requests().since(&before).billed()
}

/// A gateway whose configuration never comes would ask the store for it for years.
#[tokio::test]
async fn a_configuration_that_is_missing_costs_no_request() {
    let (with, _folder) = registered().await;
    lands(&with).await;
    let (without, _folder) = registered().await;
    let mut costs = Vec::new();
    for place in [&with, &without] {
        land(place).await;
        costs.push(cost_of_an_hour(place).await);
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(told(&without.lake()).await, (0, 1));
}

/// A listing goes past the configurations of a source where a page ends among them: not of one that is waited for.
#[tokio::test]
async fn the_last_of_more_configurations_than_a_page_has_is_found() {
    let (place, _folder) = registered().await;
    for number in 0..LISTING_PAGE + 5 {
        let name = Landed::Configuration(format!("{number:064x}"));
        place.put(&name.key(&source("landfall-01")), b"1".to_vec()).await;
    }
    land(&place).await;
    let mut ingester = Ingester::open(&place.lake(), SETTINGS).await.expect("opened");
    ingester.run().await.expect("ingested");
    lands(&place).await;
    place.ahead(60 * SECOND_US);
    assert_eq!(looks_until_checked(&mut ingester, &place).await.0, 2);
}

/// A configuration that the store will not hand out keeps nobody's batches, and is told.
#[tokio::test]
async fn a_configuration_that_cannot_be_read_is_told_and_tried_again() {
    let (place, _folder) = registered().await;
    land(&place).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    lands(&place).await;
    place.land_readings("elva-01", 2, &[of("tarn/level", 1, 4.2)], None).await;
    place.store.fail(Fault::Withheld(".toml"));
    let error = ingest(&place.lake(), &SETTINGS).await.expect_err("told").to_string();
    assert!(error.contains("are not held against `landing/landfall-01/config/"), "{error}");
    assert_eq!(place.ask("SELECT count(*) FROM readings WHERE source = 'elva-01'").await, "2");
    place.store.fail(Fault::None);
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").late_units, 2);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    /// Adds the rows that fail without looking whether that was done, and without taking those away that did not.
    Careless,
}

async fn checked(kind: Kind, lake: &Lake) -> bool {
    match kind {
        Kind::Ours => ingest(lake, &SETTINGS).await.is_ok(),
        Kind::Careless => careless(lake).await.is_ok(),
    }
}

async fn careless(lake: &Lake) -> Result<(), Box<dyn std::error::Error>> {
    let key = Landed::Batch(EPOCH, bounds(1, 5)).key(&source("landfall-01"));
    let rows = plain_rows(&decode(&lake.objects().get(&key).await?.bytes().await?)?)?;
    let mut table = Table::open(lake, TableName::Readings).await?.ok_or("no table")?;
    let file = write_file(lake, TableName::Readings, &[rows]).await?;
    let (operation, notes) = (tjern_lake::Operation::Correct, BTreeMap::new());
    let commit = tjern_lake::Commit { operation, add: vec![file], remove: vec![], transactions: vec![], notes };
    table.commit(commit).await?;
    Ok(())
}

async fn waiting() -> (Place, tempfile::TempDir) {
    let (place, folder) = registered().await;
    land(&place).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    lands(&place).await;
    (place, folder)
}

/// Checks with each of the faults in turn, until one lies beyond the last request, and then again without one. Returns at
/// which it was not as if nothing had happened, and how many faults there were.
async fn wrong_at(kind: Kind, fault: fn(u64) -> Fault) -> (Vec<u64>, u64) {
    let (quiet, _folder) = waiting().await;
    assert!(checked(kind, &quiet.lake()).await, "without a fault nothing fails");
    let wanted = quiet.ask(ALL).await;
    let mut wrong = Vec::new();
    for at in 1.. {
        let (place, _folder) = waiting().await;
        place.store.fail(fault(at));
        let went_well = checked(kind, &place.lake()).await;
        let requests = place.store.counted();
        place.store.fail(Fault::None);
        // Whoever looks next does what is left, once the lease of the one that died has run out.
        place.ahead(LEASE_US);
        let mut looks = 0;
        while (kind == Kind::Ours || !went_well) && !checked(kind, &place.lake()).await {
            looks += 1;
            assert!(looks < 100, "it is never checked: fault at {at}");
        }
        if place.ask(ALL).await != wanted || (kind == Kind::Ours && told(&place.lake()).await != (2, 0)) {
            wrong.push(at);
        }
        if fault(at).is_beyond(requests) {
            assert!(went_well, "without a fault nothing fails");
            return (wrong, at - 1);
        }
    }
    unreachable!("a run ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_dies_or_loses_a_reply_anywhere_is_made_once() {
    for fault in [Fault::DeadBefore as fn(u64) -> Fault, Fault::DeadAfter, Fault::LostReply] {
        let (wrong, faults) = wrong_at(Kind::Ours, fault).await;
        println!("{faults} times {:?} and so on", fault(1));
        assert_eq!(wrong, Vec::<u64>::new(), "{:?}", fault(1));
        assert!(faults >= 2, "a file and a commit at least: {faults}");
    }
    let (wrong, faults) = wrong_at(Kind::Careless, Fault::DeadAfter).await;
    assert!(!wrong.is_empty(), "the canary lives: {faults} faults and not one was found");
}

/// Two servers find it in the same second, and one of them takes a batch that names it, while files are merged.
#[tokio::test(flavor = "multi_thread")]
async fn two_ingesters_check_it_once() {
    let (quiet, _folder) = waiting().await;
    quiet.land_readings("landfall-01", 6, &[of("tarn/level", 1, 414.0)], Some(&sha256())).await;
    ingest(&quiet.lake(), &SETTINGS).await.expect("ingested");
    let wanted = quiet.ask(ALL).await;
    for at in 1..10 {
        let (place, _folder) = waiting().await;
        place.land_readings("landfall-01", 6, &[of("tarn/level", 1, 414.0)], Some(&sha256())).await;
        place.store.fail(Fault::LostReply(at));
        let (one, other, third) = (place.lake(), place.lake(), place.lake());
        let (settings, stop) = (CompactSettings::default(), CancellationToken::new());
        let mut quietly = |_| ();
        let merging = compact(&third, &settings, &stop, &mut quietly);
        // Any may fail; what counts is what is there after another one went on.
        let _ = tokio::join!(ingest(&one, &SETTINGS), ingest(&other, &SETTINGS), merging);
        place.store.fail(Fault::None);
        place.ahead(LEASE_US);
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        assert_eq!(place.ask(ALL).await, wanted, "the reply of put {at} was lost");
        assert_eq!(told(&place.lake()).await, (3, 0), "the reply of put {at} was lost");
    }
}

/// Twenty files of readings that wait for their configuration, which has come.
async fn waiting_in_many_files() -> (Place, tempfile::TempDir) {
    let (place, folder) = registered().await;
    let mut ingester = Ingester::open(&place.lake(), SETTINGS).await.expect("opened");
    for number in 0..20 {
        let readings = [of("tarn/level", 30 - number, 410.0), of("tarn/water_temperature", 30 - number, 4.0)];
        place.land_readings("landfall-01", 2 * number + 1, &readings, Some(&sha256())).await;
        ingester.run_everything().await.expect("ingested");
    }
    assert_eq!(told(&place.lake()).await, (0, 1));
    lands(&place).await;
    (place, folder)
}

fn data_files(place: &Place) -> usize {
    place.keys("tables/readings/").iter().filter(|key| key.ends_with(".parquet") && !key.contains("_delta_log")).count()
}

/// Where each request takes two seconds: how long a look took in which a batch came that names no such configuration, the
/// check's files all waiting; and whether the check was made by then.
async fn look_beside_a_check(to_the_end: bool) -> (Duration, bool, Place, Ingester, tempfile::TempDir) {
    let (place, folder) = waiting_in_many_files().await;
    let mut ingester = Ingester::open(&place.lake(), SETTINGS).await.expect("opened");
    place.land_readings("elva-01", 1, &[of("tarn/level", 2, 4.0)], None).await;
    place.store.take(Duration::from_secs(2));
    let began = tokio::time::Instant::now();
    if to_the_end {
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    } else {
        assert_eq!(ingester.run().await.expect("ingested").rows, 1);
    }
    let took = began.elapsed();
    place.store.take(Duration::ZERO);
    let is_made = told(&place.lake()).await.1 == 0;
    (took, is_made, place, ingester, folder)
}

/// A configuration came, and everything that had been measured under it was written anew before the next batch was looked at:
/// for minutes nothing of any gateway could be seen. The canary is who checks all of it at once.
#[tokio::test(start_paused = true)]
async fn a_check_keeps_no_batch_waiting_and_writes_no_file_twice() {
    let (took, is_made, place, mut ingester, _folder) = look_beside_a_check(false).await;
    assert!(!is_made, "there is more to be done than a look does");
    assert_eq!(place.ask("SELECT count(*) FROM readings WHERE source = 'elva-01'").await, "1");
    let (all_took, all_made, ..) = look_beside_a_check(true).await;
    assert!(all_made && all_took > 3 * took, "the canary lives: {took:?} and {all_took:?}");
    // Others commit meanwhile: what was found is kept.
    let before = data_files(&place);
    place.land_readings("elva-01", 2, &[of("tarn/level", 1, 4.1)], None).await;
    ingest_beside(&place).await;
    let done = looks_until_checked(&mut ingester, &place).await;
    assert_eq!(done.0, 20);
    assert_eq!(place.ask("SELECT count(*) FROM readings WHERE quality = 4 AND cause = 'unit'").await, "20");
    // Some were written before they were counted.
    assert!(data_files(&place) <= before + 1 + 20, "{} files, {before} before", data_files(&place));
    assert_eq!(data_files(&place), 20 + 1 + 1 + 20, "each was written anew once");
    // The lease is given back.
    assert_eq!(place.keys("jobs/").iter().filter(|key| key.contains("quality")).count(), 0);
}

/// Another process takes a batch.
async fn ingest_beside(place: &Place) {
    let mut other = Ingester::open(&place.lake(), SETTINGS).await.expect("opened");
    assert_eq!(other.run().await.expect("ingested").rows, 1);
    other.leave().await;
}

/// A configuration whose units are those of the register: nothing is read and nothing written but that it is checked.
#[tokio::test]
async fn a_configuration_that_agrees_costs_a_commit_and_no_file() {
    let (place, _folder) = registered().await;
    land(&place).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let before = data_files(&place);
    place.put(&configuration(), CONFIGURATION.replace("cm", "m").into_bytes()).await;
    let outcome = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((outcome.late_units, told(&place.lake()).await, data_files(&place)), (0, (0, 0), before));
}

/// A file in which a bit turned over is written anew by nobody: its wrong value would get a SHA-256 of its own. It keeps no other
/// file from being checked, and the check goes on once the file is whole again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_left_as_it_is_and_the_others_are_checked() {
    let (place, _folder) = registered().await;
    land(&place).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let table = Table::open(&place.lake(), TableName::Readings).await.expect("opened").expect("there");
    let file = table.files().swap_remove(0);
    let key = Path::from(format!("tables/readings/{}", file.path));
    let sound = place.store.inner().get(&key).await.expect("there").bytes().await.expect("read").to_vec();
    let mut altered = sound.clone();
    // In who wrote it, so that it can be read as before.
    let software = tjern_readings::batch::SOFTWARE.as_bytes();
    let at = altered.windows(software.len()).position(|bytes| bytes == software).expect("who wrote it");
    altered[at] ^= 1;
    overwrite(&place, &key, altered).await;
    place.land_readings("landfall-01", 6, &[of("tarn/level", 1, 414.0)], Some(&sha256())).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    lands(&place).await;
    let refused = ingest(&place.lake(), &SETTINGS).await.expect_err("one is damaged").to_string();
    assert!(refused.contains(key.as_ref()) && refused.contains("docs/backup.md"), "{refused}");
    assert_eq!(told(&place.lake()).await, (1, 1), "the other one is done");
    let mut table = Table::open(&place.lake(), TableName::Readings).await.expect("opened").expect("there");
    table.refresh().await.expect("refreshed");
    assert!(table.is_active(&file), "it is left as it is");
    overwrite(&place, &key, sound).await;
    place.ahead(60 * SECOND_US);
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").late_units, 2);
    assert_eq!(told(&place.lake()).await, (3, 0));
}

async fn overwrite(place: &Place, key: &Path, bytes: Vec<u8>) {
    place.store.inner().put(key, bytes.into()).await.expect("put");
    place.store.date(key);
}

/// A gateway is gone, and with it the text that its last batches name. Nothing ended that alarm.
#[tokio::test]
async fn a_configuration_that_will_never_come_is_accepted_for_good() {
    let (place, _folder) = registered().await;
    land(&place).await;
    let other = "ab".repeat(32);
    place.land_readings("landfall-01", 6, &[of("tarn/level", 1, 414.0)], Some(&other)).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let author = Author { by: "a technician".to_owned(), reason: Some("the box burnt down".to_owned()) };
    let accept = async |sha256: &str| {
        accept_configuration(&place.lake(), &source("landfall-01"), sha256, &author)
            .await
            .map_err(|error| error.to_string())
    };
    let accepted = async || {
        let table = Table::open(&place.lake(), TableName::Readings).await.expect("opened").expect("there");
        let all = missing_configurations(&table).into_iter();
        all.map(|one| (one.sha256, one.accepted)).collect::<Vec<_>>()
    };
    assert_eq!(accepted().await, [(other.clone(), false), (sha256(), false)], "each by itself");
    assert_eq!(accept(&sha256()).await, Ok(Accepted::Now));
    assert_eq!(accept(&sha256()).await, Ok(Accepted::Before));
    let refused = accept(&"cd".repeat(32)).await.expect_err("nobody names it");
    assert!(refused.contains("no readings of landfall-01 wait"), "{refused}");
    assert_eq!(accepted().await, [(other.clone(), false), (sha256(), true)]);
    // More of it comes, from a spool that was found: it stays accepted.
    place.land_readings("landfall-01", 7, &[of("tarn/level", 1, 415.0)], Some(&sha256())).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(accepted().await, [(other.clone(), false), (sha256(), true)]);
    // And should it come after all, it counts.
    lands(&place).await;
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").late_units, 3);
    assert_eq!(accepted().await, [(other, false)]);
    assert_eq!(place.keys("corrections/").len(), 1, "who said so, and why");
}

/// A writer that puts anything in place of a configuration's name: it went into keys, into the log of the table, into status and
/// mails. Its readings are taken, and nothing is looked for under such a name.
#[tokio::test]
async fn what_is_no_name_of_a_configuration_is_never_taken_for_one() {
    let nonsense = [
        String::new(),
        "../../../tables/readings/_delta_log/x".to_owned(),
        "a\u{1b}[2J\r\nBcc: all@example.org\0".to_owned(),
        "f".repeat(1 << 20),
        "FE".repeat(32),
        "fe".repeat(31),
        format!("{}/", "fe".repeat(32)),
    ];
    for (number, word) in nonsense.iter().enumerate() {
        let (place, _folder) = registered().await;
        place.land_readings("stray-01", 1, &[of("tarn/level", 3, 4.0), of("tarn/level", 2, 4.1)], Some(word)).await;
        let lake = place.lake();
        let before = lake.store().requests();
        let outcome = ingest(&lake, &SETTINGS).await.expect("ingested");
        let spent = lake.store().requests().since(&before);
        assert_eq!((outcome.rows, outcome.quarantined), (2, 0), "{number}: readings are readings");
        let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
        assert_eq!(missing_configurations(&table), [], "{number}");
        let names = table
            .transactions()
            .keys()
            .any(|name| name.starts_with(":unchecked/") || (!word.is_empty() && name.contains(word.as_str())));
        assert!(!names, "{number}: {:?}", table.transactions().keys().map(|name| name.len()).collect::<Vec<_>>());
        let told: Vec<_> = refused(&table).into_iter().map(|one| (one.why, one.rows)).collect();
        assert_eq!(told, [(Why::Misnamed, 2)], "{number}: the watch says it");
        println!("{number}: {spent:?}");
    }
    // The canary: a name that could be one is looked for.
    let (place, _folder) = registered().await;
    place.land_readings("stray-01", 1, &[of("tarn/level", 3, 4.0)], Some(&sha256())).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(told(&place.lake()).await, (0, 1));
}
