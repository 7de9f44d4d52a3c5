//! Personal readings are in a lake of their own, and nowhere in the common one's tables.

use std::path::Path as FilePath;

use jiff::tz::TimeZone;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tjern_lake::{Table, TableName};
use tjern_pipeline::config::RegisterSection;
use tjern_pipeline::ingest::{IngestOutcome, ingest, open_runs};
use tjern_pipeline::quarantine::list;
use tjern_pipeline::register::{RegisterFiles, register};
use tjern_pipeline::rollup::rollup;
use tjern_readings::reading::Reading;

use crate::support::{HOUR_US, NOW_US, Place, SETTINGS};

/// A pseudonym for a flat, and what its meter says; and a sensor of the stairs, which everybody may know of.
const SENSORS: &str = "id,site,quantity,unit,kind,class\n\
    flat-k7/energy,flat-k7,energy,W.h,counter,personal\n\
    stairs/air_temperature,stairs,air_temperature,Cel,sample,public\n";

const SITES: &str = "site,name_nb\nflat-k7,\nstairs,Trappa\n";

fn files(folder: &FilePath) -> RegisterFiles {
    let files = RegisterFiles { required: true, ..RegisterSection::default().files(folder, &TimeZone::UTC) };
    std::fs::write(&files.sites, SITES).expect("written");
    std::fs::write(&files.sensors, SENSORS).expect("written");
    files
}

fn of(sensor: &str, hour: i64, value: f64) -> Reading {
    Reading::of(sensor.parse().expect("valid"), NOW_US - (100 - hour) * HOUR_US, value)
}

/// Whether any object of the tables of readings has the sensor's name in it; its rows are asked for by SQL as well,
/// since files are compressed.
async fn is_in_tables(place: &Place, sensor: &str) -> bool {
    for table in ["readings", "hourly", "daily"] {
        for key in place.keys(&format!("tables/{table}/")) {
            let bytes = place.store.inner().get(&Path::from(key)).await.expect("there").bytes().await.expect("read");
            if bytes.windows(sensor.len()).any(|window| window == sensor.as_bytes()) {
                return true;
            }
        }
        if place.ask(&format!("SELECT count(*) FROM {table} WHERE sensor = '{sensor}'")).await != "0" {
            return true;
        }
    }
    false
}

/// A gateway that was given the wrong lake sends a flat's meter into the common one. Nothing of it gets into a file
/// that staff, or anybody with the bucket, reads; nothing of it is lost; and all others are taken.
#[tokio::test]
async fn no_byte_of_a_personal_sensor_is_in_the_common_lakes_tables() {
    let place = Place::new();
    let folder = tempfile::tempdir().expect("a folder");
    register(&place.lake(), &files(folder.path())).await.expect("registered");
    place.land_readings("stairs-01", 1, &[of("stairs/air_temperature", 1, 18.0)], None).await;
    let mixed = [of("stairs/air_temperature", 2, 18.5), of("flat-k7/energy", 2, 4_711.0)];
    place.land_readings("stairs-01", 2, &mixed, None).await;
    place.land_readings("stairs-01", 4, &[of("stairs/air_temperature", 3, 19.0)], None).await;
    let outcome = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((outcome.rows, outcome.quarantined), (2, 1));
    rollup(&place.lake(), &TimeZone::UTC).await.expect("summed up");
    assert!(!is_in_tables(&place, "flat-k7/energy").await);
    assert!(is_in_tables(&place, "stairs/air_temperature").await, "the test sees what is there");
    let kept = list(&place.lake()).await.expect("listed");
    assert!(kept[0].reason.contains("`flat-k7/energy`") && kept[0].reason.contains("personal_lake"), "{kept:?}");
    let table = Table::open(&place.lake(), TableName::Readings).await.expect("opened").expect("there");
    assert_eq!(open_runs(&table).len(), 1, "the watch tells of the numbers that are missing");
}

/// In its own lake the same sensor is taken like any other; so is one that does not belong there, since nothing is lost.
#[tokio::test]
async fn a_personal_sensor_is_taken_in_its_own_lake() {
    let place = Place::new();
    let lake = || place.lake().of_persons();
    let folder = tempfile::tempdir().expect("a folder");
    register(&lake(), &files(folder.path())).await.expect("registered");
    let mixed = [of("flat-k7/energy", 1, 4_711.0), of("stairs/air_temperature", 1, 18.0), of("flat-k8/energy", 1, 1.0)];
    place.land_readings("flats-01", 1, &mixed, None).await;
    let outcome = ingest(&lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(outcome, IngestOutcome { batches: 1, rows: 3, ..IngestOutcome::default() });
    assert!(is_in_tables(&place, "flat-k7/energy").await);
    register(&lake(), &files(folder.path())).await.expect("a personal sensor may have readings here");
    assert!(
        register(&place.lake(), &files(folder.path())).await.is_err(),
        "the canary of the line above: in a common lake it may not"
    );
}
