//! A lost table comes back row for row, flags and levels too. A replay that made validations before quality control called
//! 210.67 °C validated, which had failed, and published it; and it called validated what landed after the person had looked.
//!
//! The oracle is the table before it was lost. The canary is a replay that takes everything, judges it, and then makes all
//! corrections.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::tz::TimeZone;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::{Table, TableName};
use tjern_pipeline::bounds::Bounds;
use tjern_pipeline::compact::CompactSettings;
use tjern_pipeline::config::RegisterSection;
use tjern_pipeline::correct::Author;
use tjern_pipeline::correct::again::{MadeAgain, Pending, pending};
use tjern_pipeline::correct::recompute::{Formulas, Period, recompute};
use tjern_pipeline::correct::revise::{ReviseLayout, revise};
use tjern_pipeline::erase::{EraseSettings, Request, erase};
use tjern_pipeline::import::Decimal;
use tjern_pipeline::ingest::replay::replay;
use tjern_pipeline::ingest::{IngestSettings, accept_configuration, ingest, missing_configurations};
use tjern_pipeline::quality::control;
use tjern_pipeline::register::{RegisterFiles, register};
use tjern_pipeline::replay::{ReplayInOrderError, Replayed, replay_in_order};
use tjern_pipeline::validate::validate;
use tjern_readings::keys::Landed;
use tjern_readings::reading::Reading;
use tjern_testing::simulated::Fault;

use crate::corrections::Doubled;
use crate::support::{HOUR_US, NOW_US, Place, SETTINGS, source};

const SENSORS: &str = "id,site,quantity,unit,kind,class,low,high\n\
    tarn/water_temperature,tarn,water_temperature,Cel,sample,public,-2,40\n\
    tarn/level,tarn,level,m,sample,public,,\n\
    tarn/wind,tarn,wind,m/s,sample,public,,\n";

const ROWS: &str = "SELECT sensor, time, value, quality, cause, lag_ms, source, epoch, seq, revision, level, tests FROM readings \
    ORDER BY sensor, time, source, epoch, seq, revision";

/// Landed batches stay for as long as a test.
const KEPT: IngestSettings = IngestSettings { landing_grace: Duration::from_secs(90 * 24 * 3_600), ..SETTINGS };

const BEGUN_US: i64 = NOW_US - 48 * HOUR_US;

fn at(hour: i64) -> i64 {
    BEGUN_US + hour * HOUR_US
}

fn of(sensor: &str, hour: i64, value: f64) -> Reading {
    Reading::of(sensor.parse().expect("valid"), at(hour), value)
}

fn author() -> Author {
    Author { by: "the bathing water office".to_owned(), reason: None }
}

fn period(sensor: &str, from: i64, to: i64) -> Period {
    Period { sensor: sensor.parse().expect("valid"), from_us: at(from), to_us: at(to) }
}

struct City {
    place: Place,
    folder: tempfile::TempDir,
}

impl City {
    async fn new() -> Self {
        let city = Self { place: Place::new(), folder: tempfile::tempdir().expect("a folder") };
        let files = RegisterSection::default().files(city.folder.path(), &TimeZone::UTC);
        let files = RegisterFiles { required: true, ..files };
        std::fs::write(&files.sites, "site,name_nb\ntarn,Tjernet\n").expect("written");
        std::fs::write(&files.sensors, SENSORS).expect("written");
        register(&city.place.lake(), &files).await.expect("registered");
        city
    }

    /// An hour later these land, and are ingested and judged.
    async fn come(&self, name: &str, first: i64, readings: &[Reading], configuration: Option<&str>) {
        self.place.ahead(HOUR_US);
        self.place.land_readings(name, first, readings, configuration).await;
        ingest(&self.place.lake(), &KEPT).await.expect("ingested");
        control(&self.place.lake()).await.expect("judged");
    }

    /// An hour later somebody answers for a period, or takes their word back.
    async fn validate(&self, period: &Period, undo: bool) {
        self.place.ahead(HOUR_US);
        let outcome = validate(&self.place.lake(), period, &author(), undo).await.expect("validated");
        assert!(outcome.changed > 0, "{outcome:?}");
        control(&self.place.lake()).await.expect("judged");
    }

    /// Two days in which readings came late, were corrected, validated and erased.
    async fn lived() -> Self {
        let city = Self::new().await;
        let (lake, sha256) = (city.place.lake(), "ab".repeat(32));
        city.place.put(&Landed::Configuration(sha256.clone()).key(&source("mast-01")), b"1".to_vec()).await;
        let water =
            |hour: i64| of("tarn/water_temperature", hour, if hour == 3 { 210.67 } else { 18.0 + hour as f64 / 10.0 });
        city.come("landfall-01", 1, &(0..12).map(water).collect::<Vec<_>>(), None).await;
        city.validate(&period("tarn/water_temperature", 0, 12), false).await;
        // Nobody has seen this one: it came from another gateway, for the same hours.
        let late = |hour: i64, value| {
            Reading::of("tarn/water_temperature".parse().expect("valid"), at(hour) + HOUR_US / 2, value)
        };
        city.come("late-01", 1, &[late(5, 77.0), late(6, 18.6)], None).await;
        let level = |hour: i64| of("tarn/level", hour, 1.0 + hour as f64 / 100.0);
        city.come("mast-01", 1, &(0..6).map(level).collect::<Vec<_>>(), Some(&sha256)).await;
        city.place.ahead(HOUR_US);
        recompute(&lake, &period("tarn/level", 0, 48), &Doubled, &author(), false).await.expect("computed again");
        control(&lake).await.expect("judged");
        city.validate(&period("tarn/level", 0, 3), false).await;
        // Nobody computed these again.
        city.come("mast-01", 7, &(6..9).map(level).collect::<Vec<_>>(), Some(&sha256)).await;
        city.validate(&period("tarn/water_temperature", 0, 2), true).await;
        // All that was validated here goes with the erasure: made again, it is of nothing.
        city.come("home-01", 1, &(0..4).map(|hour| of("tarn/wind", hour, 3.0)).collect::<Vec<_>>(), None).await;
        city.come("home-01", 5, &[of("tarn/wind", 30, 4.0)], None).await;
        city.validate(&period("tarn/wind", 0, 5), false).await;
        city.erase().await;
        city.come("landfall-01", 13, &(12..20).map(water).collect::<Vec<_>>(), None).await;
        city
    }

    async fn erase(&self) {
        self.place.ahead(HOUR_US);
        let compact = CompactSettings { spill_folder: self.folder.path().to_owned(), ..CompactSettings::default() };
        let settings =
            EraseSettings { ingest: KEPT, register: None, compact, datasets: Vec::new(), timezone: TimeZone::UTC };
        let Period { sensor, from_us, to_us } = period("tarn/wind", 0, 4);
        let request = Request { sensor, from_us, to_us, reason: "asked for".into(), by: "an officer".into() };
        let (_, outcome) = erase(&self.place.lake(), &settings, &request).await.expect("erased");
        assert_eq!((outcome.rows, outcome.done.len()), (4, 1), "{outcome:?}");
        control(&self.place.lake()).await.expect("judged");
    }

    async fn rows(&self) -> Vec<String> {
        self.place.ask(ROWS).await.split("; ").map(str::to_owned).collect()
    }

    async fn lose_readings(&self) {
        let (objects, folder) = (self.place.store.inner(), Path::from("tables/readings"));
        let keys: Vec<_> =
            objects.list(Some(&folder)).map_ok(|meta| meta.location).try_collect().await.expect("listed");
        let gone = futures::stream::iter(keys.into_iter().map(Ok)).boxed();
        objects.delete_stream(gone).try_collect::<Vec<_>>().await.expect("removed");
        self.place.ahead(24 * HOUR_US);
    }

    async fn replay(&self) -> Result<Replayed, ReplayInOrderError> {
        let lake = self.place.lake();
        let formulas = |_: &Pending| -> Option<Box<dyn Formulas>> { Some(Box::new(Doubled)) };
        replay_in_order(&lake, &KEPT, &Bounds::default(), &formulas, &|_, _| (), |_| ()).await
    }

    /// All readings first, then quality control, then whatever people said of them.
    async fn careless(&self) {
        let lake = self.place.lake();
        replay(&lake, &KEPT, |_| ()).await.expect("replayed");
        for one in pending(&lake).await.expect("read") {
            control(&lake).await.expect("judged");
            one.make(&lake, Some(&Doubled), &Bounds::default()).await.expect("made");
        }
        control(&lake).await.expect("judged");
    }
}

#[tokio::test]
async fn a_lost_table_comes_back_with_its_flags_and_levels() {
    let city = City::lived().await;
    let before = city.rows().await;
    let has = |rows: &[String], parts: [&str; 2]| {
        rows.iter().any(|row| row.contains(&format!(" {} ", parts[0])) && row.contains(&format!(" {} ", parts[1])))
    };
    assert!(has(&before, ["210.67 4", "2"]) && has(&before, ["77.0 4", "1"]), "{before:#?}");
    city.lose_readings().await;
    let replayed = city.replay().await.expect("replayed");
    assert_eq!(city.rows().await, before);
    assert_eq!(replayed.corrections.len(), 5, "{:?}", replayed.corrections);
    assert!(replayed.corrections.iter().all(|(_, became)| matches!(became, MadeAgain::Rows(_))), "{replayed:?}");
    assert!(matches!(city.replay().await, Err(ReplayInOrderError::Replay(_))), "there are rows");
    assert_eq!(city.rows().await, before);
    // The canary.
    city.lose_readings().await;
    city.careless().await;
    assert_ne!(city.rows().await, before, "the canary lives: what landed later is as if it had been seen");
}

/// A batch that went with an erasure told that what is before it will not come, whatever the moment that was replayed: all
/// batches before it were passed at once and then came as fillings, a commit each, with names that stay in the log for good.
#[tokio::test]
async fn what_went_with_an_erasure_makes_no_hole_of_what_landed_later() {
    let city = City::new().await;
    let water = |hour: i64| of("tarn/water_temperature", hour, 18.0);
    city.come("landfall-01", 1, &[water(0), water(1)], None).await;
    city.validate(&period("tarn/water_temperature", 0, 2), false).await;
    let wind = |hours: std::ops::Range<i64>| hours.map(|hour| of("tarn/wind", hour, 3.0)).collect::<Vec<_>>();
    for (first, hours) in [(1, 10..12), (3, 12..14), (5, 0..4), (9, 14..16)] {
        city.come("home-01", first, &wind(hours), None).await;
    }
    city.erase().await;
    let before = city.rows().await;
    city.lose_readings().await;
    city.replay().await.expect("replayed");
    assert_eq!(city.rows().await, before);
    let table = Table::open(&city.place.lake(), TableName::Readings).await.expect("opened").expect("there");
    let is_run = |name: &str| name.rsplit('/').next().is_some_and(|last| last.contains('-'));
    let runs: Vec<_> = table.transactions().keys().filter(|name| name.contains("home-01/") && is_run(name)).collect();
    assert!(
        runs.len() == 1 && runs[0].starts_with(":open/"),
        "but what went with the erasure nothing is noted: {runs:?}"
    );
}

/// A person had said that a configuration will never come, before all that still lies in the landing zone. After a replay the
/// alarm was there again, and for good.
#[tokio::test]
async fn a_configuration_that_was_accepted_long_ago_stays_accepted() {
    let city = City::new().await;
    let (lake, sha256) = (city.place.lake(), "cd".repeat(32));
    city.come("mast-01", 1, &[of("tarn/level", 0, 1.0)], Some(&sha256)).await;
    accept_configuration(&lake, &source("mast-01"), &sha256, &author()).await.expect("accepted");
    let left = city.place.keys("landing/mast-01/");
    city.come("mast-01", 2, &[of("tarn/level", 1, 1.0)], Some(&sha256)).await;
    for key in left {
        city.place.store.inner().delete(&Path::from(key)).await.expect("it has left");
    }
    city.lose_readings().await;
    let replayed = city.replay().await.expect("replayed");
    let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    let missing: Vec<_> = missing_configurations(&table).iter().map(|one| one.accepted).collect();
    assert_eq!(missing, [true], "{replayed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_it_comes_to_the_same_rows() {
    let city = City::lived().await;
    let before = city.rows().await;
    for (killed, at) in (3..).step_by(31).enumerate() {
        city.lose_readings().await;
        city.place.store.fail(Fault::DeadBefore(at));
        let first = city.replay().await;
        city.place.store.fail(Fault::None);
        if first.is_ok() {
            assert!(killed > 5, "{killed}");
            return;
        }
        // The lease of who was killed ends.
        city.place.ahead(HOUR_US);
        match city.replay().await {
            Ok(_) => {}
            Err(error) => panic!("killed at request {at}: {error}"),
        }
        assert_eq!(city.rows().await, before, "killed at request {at}");
    }
}

/// The landing zone was copied back: by its times everything landed after everybody's word. Nobody is made to answer for
/// what they may not have seen, and it is told.
#[tokio::test]
async fn a_landing_zone_that_was_copied_back_makes_nobody_answer() {
    let city = City::new().await;
    city.come("landfall-01", 1, &[of("tarn/water_temperature", 0, 18.0)], None).await;
    // By the store's times.
    city.place.ahead(-5 * HOUR_US);
    city.validate(&period("tarn/water_temperature", 0, 1), false).await;
    city.lose_readings().await;
    let replayed = city.replay().await.expect("replayed");
    let [(_, MadeAgain::Not(why))] = replayed.corrections.as_slice() else { panic!("{replayed:?}") };
    assert!(why.contains("validate again"), "{why}");
    assert_eq!(city.place.ask("SELECT level, quality FROM readings").await, "1 1");
}

/// Somebody revised, and the readings were computed again after that. Whoever revised again, as the replay said, had the revision stand
/// over the later recomputation, and nobody had told them.
#[tokio::test]
async fn a_revision_that_was_computed_again_later_says_so() {
    let city = City::new().await;
    let (lake, sha256) = (city.place.lake(), "ab".repeat(32));
    city.place.put(&Landed::Configuration(sha256.clone()).key(&source("mast-01")), b"1".to_vec()).await;
    city.come("mast-01", 1, &[of("tarn/level", 0, 1.0), of("tarn/level", 1, 1.5)], Some(&sha256)).await;
    let file = city.folder.path().join("july.csv");
    let revised = async |hour: i64| {
        let time = jiff::Timestamp::from_microsecond(at(hour)).expect("a time");
        std::fs::write(&file, format!("sensor,time,value\ntarn/level,{time},7\n")).expect("written");
        let layout = ReviseLayout { separator: b',', decimal: Decimal::Point, zone: TimeZone::UTC };
        revise(&lake, &file, &layout, &author(), false).await.expect("revised");
        city.place.ahead(HOUR_US);
    };
    revised(0).await;
    recompute(&lake, &period("tarn/level", 0, 1), &Doubled, &author(), false).await.expect("computed again");
    city.place.ahead(HOUR_US);
    revised(1).await;
    city.lose_readings().await;
    let replayed = city.replay().await.expect("replayed");
    let [(_, MadeAgain::Not(first)), (again, MadeAgain::Rows(_)), (_, MadeAgain::Not(second))] =
        replayed.corrections.as_slice()
    else {
        panic!("{replayed:?}")
    };
    assert!(first.contains("recompute again") && first.contains(&again.id), "{first}");
    assert!(second.contains("revise by that file again") && !second.contains("recompute again"), "{second}");
}
