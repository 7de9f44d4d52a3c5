//! Releases: what is in them, what never is, and what a crash leaves.

use super::*;
use crate::bounds::Bounds;
use crate::config::default_publications;
use crate::testing::{NOW_US, Place, Row};
use datafusion::prelude::{ParquetReadOptions, SessionContext};

const HOUR_US: i64 = 3_600_000_000;

fn dataset() -> Dataset {
    let mut dataset = default_publications()[0].dataset();
    dataset.publisher = Some("Kommunen".to_owned());
    dataset
}

fn oslo() -> TimeZone {
    TimeZone::get("Europe/Oslo").expect("in the data base")
}

async fn published(place: &Place) -> Release {
    match publish(&place.lake, &dataset(), &oslo()).await.expect("published") {
        PublishOutcome::Published(release) => release,
        other => panic!("expected a release, got {other:?}"),
    }
}

async fn object(place: &Place, key: &Path) -> Vec<u8> {
    place.lake.objects().get(key).await.expect("there").bytes().await.expect("read").to_vec()
}

async fn file(place: &Place, release: &Release, name: &str) -> Vec<u8> {
    object(place, &keys::release_file("badetemperatur", &release.version, name)).await
}

async fn bathing_place() -> Place {
    let place = Place::new();
    place
        .register(&[
            "water_temperature,Cel,sample,public,-2,40",
            "air_temperature,Cel,sample,public,-40,40",
            "level,m,sample,internal,,",
        ])
        .await;
    place
}

#[tokio::test]
async fn a_release_says_what_is_in_it() {
    let place = bathing_place().await;
    place
        .ingest(&[
            Row::new("water_temperature", NOW_US - HOUR_US, 18.5).quality(1),
            Row::new("water_temperature", NOW_US, 19.0).quality(1),
        ])
        .await;
    let release = published(&place).await;
    assert_eq!(release.version, "2026-07-01T06-00-00Z-v2");
    let csv = String::from_utf8(file(&place, &release, "badetemperatur.csv").await).expect("UTF-8");
    assert_eq!(
        csv,
        "sensor,site,site_name,time,local_time,value,unit,quality,revision,level\r\n\
         tjern/water_temperature,tjern,\"Tjernet, det lille\",2026-07-01T05:00:00Z,2026-07-01T07:00:00,18.5,Cel,1,0,0\r\n\
         tjern/water_temperature,tjern,\"Tjernet, det lille\",2026-07-01T06:00:00Z,2026-07-01T08:00:00,19,Cel,1,0,0\r\n"
    );
    let latest: Release =
        serde_json::from_slice(&object(&place, &keys::latest_release("badetemperatur")).await).expect("JSON");
    assert_eq!(latest, release);
    for told in &release.files {
        let bytes = file(&place, &release, &told.path).await;
        assert_eq!(ReleasedFile { rows: told.rows, ..describe_file(told.path.clone(), &bytes) }, *told);
    }
    assert_eq!(release.files.iter().map(|file| file.rows).collect::<Vec<_>>(), [Some(2), Some(2), None]);
}

#[tokio::test]
async fn the_parquet_file_has_the_same_rows() {
    let place = bathing_place().await;
    place.ingest(&[Row::new("water_temperature", NOW_US, 18.5).quality(1)]).await;
    let release = published(&place).await;
    let path = place.folder.path().join("copy.parquet");
    std::fs::write(&path, file(&place, &release, "badetemperatur.parquet").await).expect("written");
    let path = path.to_str().expect("UTF-8").to_owned();
    let rows = SessionContext::new().read_parquet(path, ParquetReadOptions::default()).await.expect("read");
    let shown =
        rows.select_columns(&["sensor", "value", "quality"]).expect("columns").to_string().await.expect("shown");
    assert!(shown.contains("| tjern/water_temperature | 18.5  | 1       |"), "{shown}");
}

#[tokio::test]
async fn the_description_has_the_shape_that_it_always_had() {
    let place = bathing_place().await;
    place.ingest(&[Row::new("water_temperature", NOW_US, 18.5).quality(1)]).await;
    let release = published(&place).await;
    let text = String::from_utf8(file(&place, &release, "datapackage.json").await).expect("UTF-8");
    let mut shape = text;
    for (place, file) in release.files.iter().enumerate() {
        shape = shape.replace(&file.sha256, &format!("<sha256 of {place}>"));
        shape = shape.replace(&format!("\"bytes\": {},", file.bytes), &format!("\"bytes\": \"<of {place}>\","));
    }
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(value(&shape), value(include_str!("golden/datapackage.json")), "{shape}");
}

/// −327.68 °C, one way and the other; and what is not public.
#[tokio::test]
async fn what_failed_or_is_not_public_never_leaves() {
    let place = bathing_place().await;
    let water = |hour: i64, value: f64| Row::new("water_temperature", NOW_US + hour * HOUR_US, value);
    place
        .ingest(&[
            water(0, 18.5).quality(1),
            water(1, -327.68).quality(4),
            water(2, -327.68),
            Row::new("water_temperature", NOW_US + 3 * HOUR_US, None),
            Row::new("air_temperature", NOW_US, 21.5).quality(1),
            Row::new("level", NOW_US, 4.0),
            Row { sensor: "unknown/water_temperature".to_owned(), ..water(0, 17.0) },
        ])
        .await;
    let release = published(&place).await;
    let csv = String::from_utf8(file(&place, &release, "badetemperatur.csv").await).expect("UTF-8");
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.contains(",18.5,"), "{csv}");
}

#[tokio::test]
async fn what_is_the_same_is_not_published_twice() {
    let place = bathing_place().await;
    assert_eq!(publish(&place.lake, &dataset(), &oslo()).await.expect("done"), PublishOutcome::Empty);
    place.ingest(&[Row::new("water_temperature", NOW_US, 18.5).quality(1)]).await;
    let first = published(&place).await;
    place.clock.set_us(NOW_US + HOUR_US);
    place.ingest(&[Row::new("air_temperature", NOW_US, 18.5).quality(1)]).await;
    let again = publish(&place.lake, &dataset(), &oslo()).await.expect("done");
    assert_eq!(again, PublishOutcome::NothingNew { version: first.version.clone() });
    place.ingest(&[Row::new("water_temperature", NOW_US + HOUR_US, 18.0).quality(1)]).await;
    let second = published(&place).await;
    assert_eq!(second.version, "2026-07-01T07-00-00Z-v4");
    assert!(!file(&place, &first, "badetemperatur.csv").await.is_empty(), "an old release is gone");
}

/// Its data files were written, its name was not: the release before is still the newest, and
/// the next run makes a whole one.
#[tokio::test]
async fn a_crash_before_the_name_leaves_no_half_release() {
    let place = bathing_place().await;
    place.ingest(&[Row::new("water_temperature", NOW_US, 18.5).quality(1)]).await;
    let first = published(&place).await;
    place.clock.set_us(NOW_US + HOUR_US);
    place.ingest(&[Row::new("water_temperature", NOW_US + HOUR_US, 19.0).quality(1)]).await;
    let before = object(&place, &keys::latest_release("badetemperatur")).await;
    let second = published(&place).await;
    // Back to where the crash would have left it.
    let description = keys::release_file("badetemperatur", &second.version, "datapackage.json");
    place.lake.objects().delete(&description).await.expect("deleted");
    place.lake.objects().put(&keys::latest_release("badetemperatur"), before.into()).await.expect("put");
    assert_eq!(newest_release(&place.lake, "badetemperatur").await.expect("read"), Some(first));
    assert_eq!(published(&place).await, second, "the same second, the same data: the same release");
    place.clock.set_us(NOW_US + 2 * HOUR_US);
    let again = publish(&place.lake, &dataset(), &oslo()).await.expect("done");
    assert_eq!(again, PublishOutcome::NothingNew { version: second.version });
}

/// A release never changes, also where a clock that was set back leads to the same name.
#[tokio::test]
async fn a_release_is_never_written_over() {
    let place = bathing_place().await;
    place.ingest(&[Row::new("water_temperature", NOW_US, 18.5).quality(1)]).await;
    let key = keys::release_file("badetemperatur", "2026-07-01T06-00-00Z-v2", "badetemperatur.csv");
    place.lake.objects().put(&key, PutPayload::from_static(b"other")).await.expect("put");
    let refused = publish(&place.lake, &dataset(), &oslo()).await;
    assert!(matches!(refused, Err(PublishError::Occupied { .. })), "{refused:?}");
    assert_eq!(newest_release(&place.lake, "badetemperatur").await.expect("read"), None);
}

/// Ten years of a city's readings as CSV, as Parquet and as Arrow at once were more than its server's memory. Now rows go through in
/// batches, and what does not fit is sorted in the folder that the configuration names: the release is the same.
#[tokio::test]
async fn a_release_of_more_than_its_memory_is_the_same() {
    let place = bathing_place().await;
    let rows: Vec<Row> = (0..60_000_i64)
        .map(|number| {
            // Not in the order of time, so that they have to be sorted.
            let time_us = NOW_US - number * 7_919 % 60_000 * 1_000_000;
            let value = f64::from(i32::try_from(number % 200).expect("small")) / 10.0;
            Row { seq: number, ..Row::new("water_temperature", time_us, value).quality(1) }
        })
        .collect();
    for part in rows.chunks(12_000) {
        place.ingest(part).await;
    }
    let whole = published(&place).await;
    let spill = tempfile::tempdir().expect("a folder");
    let small = Bounds { memory_bytes: 8 << 20, spill_folder: spill.path().to_owned(), ..Bounds::default() };
    let again = publish_within(&place.lake, &dataset(), &oslo(), &small).await.expect("published");
    assert_eq!(again, PublishOutcome::NothingNew { version: whole.version.clone() }, "the same bytes");
    assert_eq!(whole.files[0].rows, Some(rows.len()));
    let csv = String::from_utf8(file(&place, &whole, "badetemperatur.csv").await).expect("UTF-8");
    let times: Vec<&str> = csv.lines().skip(1).map(|line| line.split(',').nth_back(6).expect("a time")).collect();
    assert!(times.len() == rows.len() && times.is_sorted(), "{} lines", times.len());
    assert_eq!(std::fs::read_dir(spill.path()).expect("a folder").count(), 0, "nothing stays behind");
    // There, and nowhere else.
    let nowhere = Bounds { spill_folder: spill.path().join("not/there"), ..small };
    let refused = publish_within(&place.lake, &dataset(), &oslo(), &nowhere).await.expect_err("no folder");
    assert!(refused.to_string().contains("not/there"), "{refused}");
}

/// The last of its files could not be put: what had been put was never named, never looked at, and could be fetched for good.
#[tokio::test]
async fn a_release_that_fails_leaves_nothing_that_can_be_fetched() {
    let place = bathing_place().await;
    place.ingest(&[Row::new("water_temperature", NOW_US, 18.5).quality(1)]).await;
    let folder = "open/badetemperatur/2026-07-01T06-00-00Z-v2";
    let occupied = Path::from(format!("{folder}/datapackage.json"));
    place.lake.objects().put(&occupied, PutPayload::from_static(b"{}")).await.expect("put");
    let refused = publish(&place.lake, &dataset(), &oslo()).await;
    assert!(matches!(refused, Err(PublishError::Occupied { .. })), "{refused:?}");
    let left = place.lake.objects().list_with_delimiter(Some(&Path::from(folder))).await.expect("listed").objects;
    assert_eq!(left.into_iter().map(|meta| meta.location).collect::<Vec<_>>(), [occupied]);
}
