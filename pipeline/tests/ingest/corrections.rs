//! What people correct, over a store that dies and loses replies: done once, whatever comes between, and a record counts
//! only with its transaction.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Int16Array, RecordBatch};
use jiff::tz::TimeZone;
use object_store::ObjectStoreExt;
use tjern_lake::{Commit, Lake, Operation, Table, TableName, write_file};
use tjern_pipeline::correct::Author;
use tjern_pipeline::correct::recompute::{Again, Formula, Formulas, Period, recompute};
use tjern_pipeline::correct::revise::{ReviseLayout, revise};
use tjern_pipeline::import::Decimal;
use tjern_pipeline::ingest::ingest;
use tjern_pipeline::quality::LEASE;
use tjern_pipeline::validate::validate;
use tjern_readings::batch::decode;
use tjern_readings::keys::Landed;
use tjern_readings::sensor::SensorId;
use tjern_testing::simulated::Fault;

use crate::exactly_once::plain_rows;
use crate::support::{EPOCH, HOUR_US, NOW_US, Place, SETTINGS, bounds, reading, source};

const SENSOR: &str = "landfall-01/q1";

/// Twice what was stored.
pub(crate) struct Doubled;

impl Formulas for Doubled {
    fn formula(&self, _: &str, _: &SensorId) -> Result<Formula, String> {
        Ok(Box::new(|stored| match stored {
            Ok(value) => Ok(Again::Value(value * 2.0)),
            Err(_) => Ok(Again::AsItIs),
        }))
    }

    fn words(&self) -> serde_json::Value {
        serde_json::json!({ "scale": 2.0 })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Recompute,
    Revise,
    Validate,
    /// Adds the rows of a higher revision without looking whether that was done.
    Careless,
}

/// A lake with two sensors' readings, and a file with a person's word.
struct Scene {
    place: Place,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let place = Place::new();
        let sha256 = "ab".repeat(32);
        place.put(&Landed::Configuration(sha256.clone()).key(&source("landfall-01")), b"1".to_vec()).await;
        let readings: Vec<_> = (1..=12).map(|number| reading("landfall-01", number)).collect();
        place.land_readings("landfall-01", 1, &readings, Some(&sha256)).await;
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        let scene = Self { place, folder: tempfile::tempdir().expect("a folder") };
        let time = jiff::Timestamp::from_microsecond(reading("landfall-01", 1).time_us).expect("a time");
        std::fs::write(scene.file(), format!("sensor,time,value\n{SENSOR},{time},11.5\n")).expect("written");
        scene
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("revised.csv")
    }

    async fn correct(&self, kind: Kind) -> bool {
        let lake = self.place.lake();
        let author = Author { by: "a technician".to_owned(), reason: None };
        let period = Period {
            sensor: SENSOR.parse().expect("valid"),
            from_us: NOW_US - 2_000 * HOUR_US,
            to_us: NOW_US + HOUR_US,
        };
        match kind {
            Kind::Recompute => recompute(&lake, &period, &Doubled, &author, false).await.is_ok(),
            Kind::Revise => {
                let layout = ReviseLayout { separator: b',', decimal: Decimal::Point, zone: TimeZone::UTC };
                revise(&lake, &self.file(), &layout, &author, false).await.is_ok()
            }
            Kind::Validate => validate(&lake, &period, &author, false).await.is_ok(),
            Kind::Careless => careless(&lake).await.is_ok(),
        }
    }

    async fn rows(&self) -> String {
        let sql = "SELECT sensor, seq, revision, value, level, count(*) FROM readings \
                   GROUP BY sensor, seq, revision, value, level ORDER BY sensor, seq, revision";
        self.place.ask(sql).await
    }

    /// How many records there are, and how many of them have their transaction.
    async fn records(&self) -> (usize, usize) {
        let table = Table::open(&self.place.lake(), TableName::Readings).await.expect("opened").expect("there");
        let keys = self.place.keys("corrections/");
        let counts = |key: &&String| {
            let id = key.trim_start_matches("corrections/").trim_end_matches(".json");
            let names = [format!(":correction/{id}"), format!(":validation/{id}")];
            names.iter().any(|name| table.transaction(name).is_some())
        };
        (keys.len(), keys.iter().filter(counts).count())
    }
}

async fn careless(lake: &Lake) -> Result<(), Box<dyn std::error::Error>> {
    let key = Landed::Batch(EPOCH, bounds(1, 12)).key(&source("landfall-01"));
    let batch = decode(&lake.objects().get(&key).await?.bytes().await?)?;
    let rows = plain_rows(&batch)?;
    let mut columns = rows.columns().to_vec();
    columns[9] = Arc::new(Int16Array::from(vec![1; rows.num_rows()]));
    let file = write_file(lake, TableName::Readings, &[RecordBatch::try_new(rows.schema(), columns)?]).await?;
    let mut table = Table::open(lake, TableName::Readings).await?.ok_or("no table")?;
    let (operation, notes) = (Operation::Correct, BTreeMap::new());
    table.commit(Commit { operation, add: vec![file], remove: Vec::new(), transactions: Vec::new(), notes }).await?;
    Ok(())
}

/// Corrects with each of the faults in turn, until one lies beyond the last request, and then again without one. Returns
/// at which it was not as if nothing had happened, and how many faults there were.
async fn wrong_at(kind: Kind, fault: fn(u64) -> Fault) -> (Vec<u64>, u64) {
    let quiet = Scene::new().await;
    assert!(quiet.correct(kind).await, "without a fault nothing fails");
    let wanted = quiet.rows().await;
    let mut wrong = Vec::new();
    for at in 1.. {
        let scene = Scene::new().await;
        scene.place.store.fail(fault(at));
        let went_well = scene.correct(kind).await;
        let requests = scene.place.store.counted();
        scene.place.store.fail(Fault::None);
        // Whoever asked sees an error, or nothing at all where the process died, and asks again. Its lease has run out by then.
        scene.place.ahead(i64::try_from(LEASE.as_micros()).expect("minutes"));
        assert!(scene.correct(kind).await, "{kind:?} again after {:?}", fault(at));
        let (records, counted) = scene.records().await;
        let is_right = scene.rows().await == wanted && (kind == Kind::Careless || counted == 1) && records <= 2;
        if !is_right {
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
async fn a_correction_that_dies_or_loses_a_reply_anywhere_is_made_once() {
    for kind in [Kind::Recompute, Kind::Revise, Kind::Validate] {
        for fault in [Fault::DeadBefore as fn(u64) -> Fault, Fault::DeadAfter, Fault::LostReply] {
            let (wrong, faults) = wrong_at(kind, fault).await;
            println!("{kind:?}: {faults} times {:?} and so on", fault(1));
            assert_eq!(wrong, Vec::<u64>::new(), "{kind:?}, {:?}", fault(1));
            let is_lost_reply = matches!(fault(1), Fault::LostReply(_));
            assert!(faults >= if is_lost_reply { 3 } else { 6 }, "a file, a record and a commit at least: {faults}");
        }
    }
}

/// The canary: who adds rows without looking whether that was done adds them twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_careless_correction_is_caught() {
    let (wrong, faults) = wrong_at(Kind::Careless, Fault::DeadAfter).await;
    assert!(!wrong.is_empty(), "the canary lives: {faults} faults and not one was found");
}
