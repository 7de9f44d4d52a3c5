//! A sensor whose first line in the register comes after its readings: they are held against its unit and sources all the
//! same, once, and a register without a new sensor costs nothing.
//!
//! A gateway was switched on before somebody had written its sensors down. What another gateway had sent under the same name, and a
//! level in centimetres, stood in the lake as good readings of a sensor in metres for good, and only a line of a log said so.

use jiff::tz::TimeZone;
use tjern_lake::{Lake, Table, TableName};
use tjern_pipeline::compact::{CompactSettings, compact};
use tjern_pipeline::config::RegisterSection;
use tjern_pipeline::correct::Author;
use tjern_pipeline::correct::recompute::Period;
use tjern_pipeline::ingest::{IngestOutcome, Ingester, Polling, Why, ingest, refused};
use tjern_pipeline::register::{RegisterFiles, RegisterOutcome, register};
use tjern_pipeline::rollup::rollup;
use tjern_pipeline::validate::validate;
use tjern_readings::keys::Landed;
use tjern_readings::reading::{Cause, Reading};
use tjern_testing::simulated::Fault;
use tokio_util::sync::CancellationToken;

use crate::support::{HOUR_US, NOW_US, Place, SECOND_US, SETTINGS, source};

const HEADER: &str = "id,site,quantity,unit,kind,class,sources";

/// A sensor that was registered before anything came.
const FIRST: &str = "tarn/water_temperature,tarn,water_temperature,Cel,sample,public,";

/// The level in metres, from one gateway only.
const LEVEL: &str = "tarn/level,tarn,level,m,sample,public,landfall-01";

/// The level in another unit.
const CONFIGURATION: &str = "[[bus.device.point]]\nsensor = \"tarn/level\"\nunit = \"cm\"\n";

/// For how long a lease of quality control stands after its holder has died.
const LEASE_US: i64 = 301 * SECOND_US;

/// All of a row but when it was received.
const ALL: &str = "SELECT sensor, time, value, quality, cause, source, seq, revision, level, tests FROM readings \
    ORDER BY sensor, time, source, revision";

/// A city's files.
struct City {
    place: Place,
    files: RegisterFiles,
    _folder: tempfile::TempDir,
}

impl City {
    async fn with(lines: &[&str]) -> Self {
        let (place, folder) = (Place::new(), tempfile::tempdir().expect("a folder"));
        let files = RegisterFiles { required: true, ..RegisterSection::default().files(folder.path(), &TimeZone::UTC) };
        std::fs::write(&files.sites, "site,name_nb\ntarn,Tjernet\n").expect("written");
        let city = Self { place, files, _folder: folder };
        city.register(&city.place.lake(), lines).await.expect("registered");
        city
    }

    async fn register(&self, lake: &Lake, lines: &[&str]) -> Result<RegisterOutcome, String> {
        let text = [&[HEADER], lines].concat().join("\n") + "\n";
        std::fs::write(&self.files.sensors, text).expect("written");
        register(lake, &self.files).await.map_err(|error| error.to_string())
    }

    /// From the gateway that is meant, under a configuration with another unit and under one that agrees; and from another one.
    async fn land(&self) {
        let place = &self.place;
        let key = |sha256: &str| Landed::Configuration(sha256.to_owned()).key(&source("landfall-01"));
        place.put(&key(&"c0".repeat(32)), CONFIGURATION.as_bytes().to_vec()).await;
        place.put(&key(&"c1".repeat(32)), CONFIGURATION.replace("cm", "m").into_bytes()).await;
        let missing = Reading::missing("tarn/level".parse().expect("valid"), NOW_US - 4 * HOUR_US, Cause::Timeout);
        let wrong = [level(6, 410.0), water(6), level(5, 411.0), missing.clone()];
        place.land_readings("landfall-01", 1, &wrong, Some(&"c0".repeat(32))).await;
        place.land_readings("landfall-01", 5, &[level(3, 4.1), water(3)], Some(&"c1".repeat(32))).await;
        place.land_readings("stray-01", 1, &[level(6, 7.0), water(5), missing], None).await;
    }

    async fn ingest(&self) -> IngestOutcome {
        ingest(&self.place.lake(), &SETTINGS).await.expect("ingested")
    }

    /// How many readings of which reason the watch is told of.
    async fn told(&self) -> Vec<(Why, i64)> {
        let all = refused(&self.readings().await).into_iter();
        all.map(|one| (one.why, one.rows)).collect()
    }

    async fn readings(&self) -> Table {
        Table::open(&self.place.lake(), TableName::Readings).await.expect("opened").expect("there")
    }

    async fn is_held(&self) -> bool {
        let table = self.readings().await;
        table.transaction(":first_lines/told") == table.transaction(":first_lines/held")
    }
}

fn of(sensor: &str, hours: i64, value: f64) -> Reading {
    Reading::of(sensor.parse().expect("valid"), NOW_US - hours * HOUR_US, value)
}

fn level(hours: i64, value: f64) -> Reading {
    of("tarn/level", hours, value)
}

fn water(hours: i64) -> Reading {
    of("tarn/water_temperature", hours, 4.0)
}

/// What the lake has where the line came first: the rows, what the watch is told, and the hours.
async fn in_time() -> City {
    let city = City::with(&[FIRST, LEVEL]).await;
    city.land().await;
    assert_eq!(city.ingest().await.late_lines, 0);
    city
}

async fn late() -> City {
    let city = City::with(&[FIRST]).await;
    city.land().await;
    city.ingest().await;
    assert_eq!(
        city.place.ask("SELECT count(*) FROM readings WHERE quality = 4").await,
        "0",
        "nobody had a line for it"
    );
    city
}

/// A line holds for the readings of its sensor whenever it comes: in every column, in what is told, and in the hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_line_holds_for_the_readings_that_were_there_before() {
    let (first, late) = (in_time().await, late().await);
    rollup(&late.place.lake(), &TimeZone::UTC).await.expect("rolled up");
    late.place.ahead(2 * HOUR_US);
    let (stop, settings) = (CancellationToken::new(), CompactSettings::default());
    compact(&late.place.lake(), &settings, &stop, &mut |_| ()).await.expect("compacted");
    assert_eq!(late.register(&late.place.lake(), &[FIRST, LEVEL]).await.expect("registered").earlier, 1);
    assert!(!late.is_held().await);
    assert_eq!(late.ingest().await.late_lines, 4);
    let wanted = first.place.ask(ALL).await;
    assert!(wanted.contains("410.0 4 unit") && wanted.contains("7.0 4 not_assigned"), "{wanted}");
    assert!(wanted.contains(" 9 not_assigned stray-01") && wanted.contains(" 9 timeout landfall-01"), "{wanted}");
    assert_eq!(late.place.ask(ALL).await, wanted);
    assert_eq!(late.told().await, [(Why::NotAssigned, 2), (Why::Unit, 2)], "the watch says it");
    assert_eq!(late.told().await, first.told().await);
    let hours = "SELECT sensor, time, quality, count, sum FROM hourly ORDER BY sensor, time, quality";
    for city in [&first, &late] {
        rollup(&city.place.lake(), &TimeZone::UTC).await.expect("rolled up");
    }
    assert_eq!(late.place.ask(hours).await, first.place.ask(hours).await);
    assert_eq!(late.place.ask("SELECT value FROM observations WHERE sensor = 'tarn/level'").await, "4.1");
    assert!(late.is_held().await);
    let version = late.readings().await.version();
    late.register(&late.place.lake(), &[FIRST, LEVEL]).await.expect("registered");
    assert_eq!(late.ingest().await.late_lines, 0, "once");
    assert_eq!(late.readings().await.version(), version);
}

/// What a person validated stands, and another sensor's readings are looked at by nobody.
#[tokio::test]
async fn what_was_validated_and_what_had_a_line_stay_as_they_are() {
    let city = late().await;
    tjern_pipeline::quality::control(&city.place.lake()).await.expect("judged");
    let (from_us, to_us) = (NOW_US - 5 * HOUR_US, NOW_US - 5 * HOUR_US + 1);
    let period = Period { sensor: "tarn/level".parse().expect("valid"), from_us, to_us };
    let author = Author { by: "a limnologist".to_owned(), reason: None };
    assert_eq!(validate(&city.place.lake(), &period, &author, false).await.expect("validated").changed, 1);
    // Had it been looked at, it would fail: it is not what the register names now.
    let others = FIRST.to_owned() + "landfall-01";
    city.register(&city.place.lake(), &[&others, LEVEL]).await.expect("registered");
    city.ingest().await;
    let of = async |sensor: &str| {
        city.place.ask(&format!("SELECT count(*) FROM readings WHERE sensor = '{sensor}' AND quality = 4")).await
    };
    assert_eq!((of("tarn/level").await, of("tarn/water_temperature").await), ("2".to_owned(), "0".to_owned()));
}

/// A daemon in which nothing lands hears of what its own process registers; and an ingest that had read the register before is refused.
#[tokio::test]
async fn a_line_is_heard_of_where_nothing_lands_and_an_earlier_register_counts_no_more() {
    let city = late().await;
    let lake = city.place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened");
    ingester.run().await.expect("ingested");
    city.register(&lake, &[FIRST, LEVEL]).await.expect("registered");
    let mut found = 0;
    for _ in 0..200 {
        city.place.ahead(2 * SECOND_US);
        found += ingester.run().await.expect("ingested").late_lines;
        if city.is_held().await {
            break;
        }
    }
    assert_eq!(found, 4);
    // Whoever has the register of before is refused: the count of ingests moved.
    city.place.land_readings("stray-01", 4, &[level(1, 7.0)], None).await;
    ingester.run_everything().await.expect("ingested");
    assert_eq!(
        city.place.ask("SELECT quality, cause FROM readings WHERE seq = 4 AND source = 'stray-01'").await,
        "4 not_assigned"
    );
}

/// Registers and ingests with each of the faults in turn, until one lies beyond the last request, and then again without one.
async fn wrong_at(fault: fn(u64) -> Fault, remembers: bool) -> (Vec<u64>, u64) {
    let wanted = in_time().await.place.ask(ALL).await;
    let mut wrong = Vec::new();
    for at in 1.. {
        let city = late().await;
        city.place.store.fail(fault(at));
        let lake = city.place.lake();
        let is_registered = city.register(&lake, &[FIRST, LEVEL]).await.is_ok();
        let went_well = is_registered && ingest(&lake, &SETTINGS).await.is_ok();
        let requests = city.place.store.counted();
        city.place.store.fail(Fault::None);
        city.place.ahead(LEASE_US);
        if remembers {
            city.register(&city.place.lake(), &[FIRST, LEVEL]).await.expect("registered");
        }
        let mut looks = 0;
        while ingest(&city.place.lake(), &SETTINGS).await.is_err() {
            looks += 1;
            assert!(looks < 100, "it is never held: fault at {at}");
        }
        let is_told_once = city.told().await == [(Why::NotAssigned, 2), (Why::Unit, 2)];
        if city.place.ask(ALL).await != wanted || !is_told_once || !city.is_held().await {
            wrong.push(at);
        }
        if fault(at).is_beyond(requests) {
            assert!(went_well, "without a fault nothing fails");
            return (wrong, at - 1);
        }
    }
    unreachable!("a run ends")
}

/// Between the register's commit and the last file that is held, a process may end anywhere. The canary is a process that registers
/// and is not followed by another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_register_that_dies_or_loses_a_reply_anywhere_is_made_up_for() {
    for fault in [Fault::DeadBefore as fn(u64) -> Fault, Fault::DeadAfter, Fault::LostReply] {
        let (wrong, faults) = wrong_at(fault, true).await;
        println!("{faults} times {:?} and so on", fault(1));
        assert_eq!(wrong, Vec::<u64>::new(), "{:?}", fault(1));
        assert!(faults >= 4, "two tables, a file and a commit at least: {faults}");
    }
    let (wrong, faults) = wrong_at(Fault::DeadAfter, false).await;
    assert!(!wrong.is_empty(), "the canary lives: {faults} faults and not one was found");
}

/// A sensor that is registered before its gateway is switched on, as it should be: one commit says that nothing is left to be
/// done, no file is read and no lease is taken. A register without a new sensor tells nobody.
#[tokio::test]
async fn a_line_that_comes_in_time_costs_a_commit_and_no_more() {
    let city = late().await;
    let version = city.readings().await.version();
    let new = "tarn/wind,tarn,wind,m/s,sample,public,landfall-01";
    city.register(&city.place.lake(), &[FIRST, new]).await.expect("registered");
    assert!(city.is_held().await);
    assert_eq!(city.readings().await.version(), version + 1);
    let changed = new.replace("landfall-01", "landfall-02");
    city.register(&city.place.lake(), &[FIRST, &changed]).await.expect("registered");
    city.register(&city.place.lake(), &[FIRST]).await.expect("registered");
    assert_eq!(city.readings().await.version(), version + 1, "no line of them is a first one");
}

/// What an hour of looks costs, where readings wait for nothing.
#[tokio::test]
async fn what_is_held_costs_no_request() {
    let mut costs = Vec::new();
    for city in [in_time().await, late().await] {
        let lake = city.place.lake();
        let polling = Polling::of(&"s3://city/lake".parse().expect("a lake"));
        let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling);
        ingester.run().await.expect("ingested");
        let before = lake.store().requests();
        for _ in 0..1_800 {
            city.place.ahead(2 * SECOND_US);
            ingester.run().await.expect("ingested");
        }
        costs.push(lake.store().requests().since(&before).billed());
    }
    assert_eq!(costs[0], costs[1]);
}
