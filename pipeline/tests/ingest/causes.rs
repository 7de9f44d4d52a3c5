//! What speaks against a reading is told with it, and the rest of its batch is untouched.

use jiff::tz::TimeZone;
use object_store::ObjectStoreExt;
use tjern_lake::{Table, TableName};
use tjern_pipeline::config::RegisterSection;
use tjern_pipeline::ingest::{Ingester, ingest};
use tjern_pipeline::register::{RegisterFiles, register};
use tjern_pipeline::rollup::rollup;
use tjern_readings::keys::Landed;
use tjern_readings::reading::{Cause, Reading};

use crate::support::{HOUR_US, NOW_US, Place, SECOND_US, SETTINGS, source};

const MINUTE_US: i64 = 60 * SECOND_US;

/// Water in °C, written by landfall-01 only; a level in metres that anybody may write; wind is not registered.
const SENSORS: &str = "id,site,quantity,unit,kind,class,sources\n\
    tarn/water_temperature,tarn,water_temperature,Cel,sample,public,landfall-01\n\
    tarn/level,tarn,level,m,sample,public,\n";

const CONFIGURATION: &str = "[[bus.device.point]]\nsensor = \"tarn/water_temperature\"\nunit = \"Cel\"\n\
    [[bus.device.point]]\nsensor = \"tarn/level\"\nunit = \"cm\"\n";

async fn registered(place: &Place) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let files = RegisterFiles { required: true, ..RegisterSection::default().files(folder.path(), &TimeZone::UTC) };
    std::fs::write(&files.sites, "site,name_nb\ntarn,Tjernet\n").expect("written");
    std::fs::write(&files.sensors, SENSORS).expect("written");
    register(&place.lake(), &files).await.expect("registered");
    folder
}

fn of(sensor: &str, time_us: i64, value: f64) -> Reading {
    Reading::of(sensor.parse().expect("valid"), time_us, value)
}

const ALL: &str = "SELECT seq, sensor, value, quality, cause FROM readings ORDER BY source, seq";

/// Ten minutes are what clocks may be wrong by; the past has no limit, since spools drain for days.
#[tokio::test]
async fn readings_from_the_future_are_kept_and_fail() {
    let place = Place::new();
    let readings = [
        of("tarn/wind", NOW_US - 365 * 24 * HOUR_US, 1.0),
        of("tarn/wind", NOW_US + 10 * MINUTE_US, 2.0),
        of("tarn/wind", NOW_US + 10 * MINUTE_US + 1, 3.0),
        Reading::missing("tarn/wind".parse().expect("valid"), NOW_US + HOUR_US, Cause::Timeout),
    ];
    place.land_readings("landfall-01", 1, &readings, None).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(
        place.ask(ALL).await,
        "1 tarn/wind 1.0 2 ; 2 tarn/wind 2.0 2 ; 3 tarn/wind 3.0 4 future; 4 tarn/wind  9 timeout"
    );
}

/// A gateway that was given another's configuration must not pass for the one that the city relies on. A sensor that
/// the register does not know keeps its quality, and one without named sources may be written by anybody.
#[tokio::test]
async fn a_source_that_is_not_named_fails_for_that_sensor_only() {
    let place = Place::new();
    let _folder = registered(&place).await;
    for (name, hour) in [("landfall-01", 2), ("stray-01", 1)] {
        let readings = ["tarn/water_temperature", "tarn/level", "tarn/wind"]
            .map(|sensor| of(sensor, NOW_US - hour * HOUR_US, 4.0));
        place.land_readings(name, 1, &readings, None).await;
    }
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(
        place.ask(ALL).await,
        "1 tarn/water_temperature 4.0 2 ; 2 tarn/level 4.0 2 ; 3 tarn/wind 4.0 2 ; \
         1 tarn/water_temperature 4.0 4 not_assigned; 2 tarn/level 4.0 2 ; 3 tarn/wind 4.0 2 "
    );
    let public = place.ask("SELECT sensor, count(*) FROM observations GROUP BY sensor ORDER BY sensor").await;
    assert_eq!(public, "tarn/level 2; tarn/water_temperature 1; tarn/wind 2", "what failed is shown to nobody");
}

/// What a stray gateway says of a slot comes later than the word of the one that measures there, with a value or
/// without: it must not take the good value out of the city's sight.
#[tokio::test]
async fn a_refused_reading_never_stands_before_an_accepted_one() {
    let place = Place::new();
    let _folder = registered(&place).await;
    let sensor = "tarn/water_temperature";
    let slots = [NOW_US - HOUR_US, NOW_US - 2 * HOUR_US];
    let good = slots.map(|time_us| of(sensor, time_us, 4.0));
    place.land_readings("landfall-01", 1, &good, None).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    place.ahead(MINUTE_US);
    let missing = Reading::missing(sensor.parse().expect("valid"), slots[1], Cause::Timeout);
    place.land_readings("stray-01", 1, &[of(sensor, slots[0], 39.0), missing], None).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(
        place.ask("SELECT value, quality, cause FROM readings WHERE source = 'stray-01' ORDER BY seq").await,
        "39.0 4 not_assigned;  9 not_assigned"
    );
    let shown = "SELECT value, source FROM observations ORDER BY time";
    assert_eq!(place.ask(shown).await, "4.0 landfall-01; 4.0 landfall-01");
    assert_eq!(place.ask("SELECT value, heard_quality FROM latest WHERE value IS NOT NULL").await, "4.0 2");
    rollup(&place.lake(), &TimeZone::UTC).await.expect("rolled up");
    assert_eq!(place.ask("SELECT quality, sum(count), sum(sum) FROM daily GROUP BY quality").await, "2 2 8.0");
}

/// A level in centimetres under a register that says metres is a hundred times too high, and plausible.
#[tokio::test]
async fn another_unit_than_the_registers_fails_for_that_sensor_only() {
    let place = Place::new();
    let _folder = registered(&place).await;
    let sha256 = "ab".repeat(32);
    let key = Landed::Configuration(sha256.clone()).key(&source("landfall-01"));
    place.put(&key, CONFIGURATION.as_bytes().to_vec()).await;
    let readings = ["tarn/water_temperature", "tarn/level"].map(|sensor| of(sensor, NOW_US - HOUR_US, 4.0));
    place.land_readings("landfall-01", 1, &readings, Some(&sha256)).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(place.ask(ALL).await, "1 tarn/water_temperature 4.0 2 ; 2 tarn/level 4.0 4 unit");
}

/// The register may change while the daemon runs: what is ingested after it is judged by it.
#[tokio::test]
async fn a_running_ingester_takes_the_register_of_its_day() {
    let place = Place::new();
    let mut ingester = Ingester::open(&place.lake(), SETTINGS).await.expect("opened");
    let reading = |hour: i64| [of("tarn/water_temperature", NOW_US - hour * HOUR_US, 4.0)];
    place.land_readings("stray-01", 1, &reading(3), None).await;
    ingester.run().await.expect("ingested");
    let _folder = registered(&place).await;
    place.land_readings("stray-01", 2, &reading(2), None).await;
    place.ahead(MINUTE_US);
    ingester.run().await.expect("ingested");
    // The one from before is held against its sensor's first line beside it (`first_lines`).
    assert_eq!(place.ask("SELECT quality, cause FROM readings WHERE seq = 2").await, "4 not_assigned");
}

/// A probe was taken out of the water, and the register says so. Its readings were "not evaluated" until quality
/// control came by, and the residents' page had the temperature of the air.
#[tokio::test]
async fn what_is_read_out_of_the_water_is_never_shown() {
    let place = Place::new();
    let folder = registered(&place).await;
    let files = RegisterFiles { required: true, ..RegisterSection::default().files(folder.path(), &TimeZone::UTC) };
    let at = |hours: i64| jiff::Timestamp::from_microsecond(NOW_US + hours * HOUR_US).expect("a time");
    let events = format!(
        "sensor,kind,began,ended,quality\ntarn/water_temperature,out_of_water,{},,\ntarn/level,maintenance,{},{},3\n",
        at(-2),
        at(-3),
        at(-1)
    );
    std::fs::write(&files.events.path, events).expect("written");
    register(&place.lake(), &files).await.expect("registered");
    let hours = [-3, -2, -1].into_iter().flat_map(|hour| {
        ["tarn/water_temperature", "tarn/level"].map(|sensor| of(sensor, NOW_US + hour * HOUR_US, 4.0))
    });
    place.land_readings("landfall-01", 1, &hours.collect::<Vec<_>>(), None).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let asked = "SELECT sensor, quality FROM readings ORDER BY sensor, time";
    assert_eq!(
        place.ask(asked).await,
        "tarn/level 3; tarn/level 3; tarn/level 2; tarn/water_temperature 2; tarn/water_temperature 4; \
         tarn/water_temperature 4"
    );
    let shown = place.ask("SELECT sensor, quality, heard_quality FROM latest ORDER BY sensor").await;
    assert_eq!(shown, "tarn/level 2 2; tarn/water_temperature 2 4", "the last that was measured in water");
}

/// A reading that fails in March and not in April is explained by the register of its day: the commit names it.
#[tokio::test]
async fn a_commit_of_ingest_names_the_register_by_which_it_judged() {
    let place = Place::new();
    let _folder = registered(&place).await;
    place.land_readings("landfall-01", 1, &[of("tarn/level", NOW_US - HOUR_US, 4.0)], None).await;
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    let table = Table::open(&place.lake(), TableName::Readings).await.expect("opened").expect("there");
    let key = format!("tables/readings/_delta_log/{:020}.json", table.version()).as_str().into();
    let commit = place.store.inner().get(&key).await.expect("there").bytes().await.expect("read");
    let commit = String::from_utf8_lossy(&commit).into_owned();
    let mut told = Vec::new();
    for name in [TableName::Events, TableName::Sensors] {
        let version = Table::open(&place.lake(), name).await.expect("opened").map_or(-1, |table| table.version());
        told.push(format!("\"{}\":{version}", name.as_str()));
    }
    assert!(commit.contains(&format!("\"tjern.register\":{{{}}}", told.join(","))), "{commit}");
    assert!(commit.contains("\"tjern.quality\":\"rules "), "{commit}");
}
