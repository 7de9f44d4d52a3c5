//! A wrong scale is the most common fault of all. What it costs to find out late: nothing that can be
//! worked out, and a list of the rest.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use futures::TryStreamExt;
use jiff::tz::TimeZone;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;
use sha2::{Digest, Sha256};
use tjern_lake::{Access, SessionSettings, session};
use tjern_readings::batch::encode;
use tjern_readings::keys::Landed;
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::sensor::{Epoch, SensorId, SourceName};

use super::recompute::{Again, Formula, Formulas, Period, RecomputeOutcome, recompute};
use super::revise::{ReviseError, ReviseLayout, ReviseOutcome, revise};
use super::*;
use crate::bounds::Bounds;
use crate::ingest::{IngestSettings, ingest};
use crate::sheet::Decimal;
use crate::testing::{NOW_US, Place};

pub(crate) const HOUR_US: i64 = 3_600_000_000;
const EPOCH: Epoch = Epoch::from_bytes([5; 16]);
const SENSOR: &str = "tjern/t";

fn source() -> SourceName {
    "landfall-01".parse().expect("valid")
}

pub(crate) fn author() -> Author {
    Author { by: "a technician".to_owned(), reason: Some("the manual says hundredths".to_owned()) }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn at(hour: i64) -> i64 {
    NOW_US - 1_000 * HOUR_US + hour * HOUR_US
}

/// Lands readings under a configuration, numbered from `first` on.
async fn land(place: &Place, first: i64, values: &[Option<f64>], configuration: Option<&str>) {
    let readings: Vec<_> = (first..).zip(values).map(|(number, value)| reading(number, *value)).collect();
    let sha256 = configuration.map(sha256);
    let (bytes, batch) = encode(&source(), EPOCH, first, &readings, sha256.as_deref()).expect("encoded");
    let objects = place.lake.objects();
    if let (Some(sha256), Some(text)) = (sha256, configuration) {
        let key = Landed::Configuration(sha256).key(&source());
        objects.put(&key, text.to_owned().into()).await.expect("put");
    }
    objects.put(&Landed::Batch(EPOCH, batch.header.bounds).key(&source()), bytes.into()).await.expect("put");
}

fn reading(number: i64, value: Option<f64>) -> Reading {
    let sensor: SensorId = SENSOR.parse().expect("valid");
    match value {
        Some(value) => Reading::of(sensor, at(number), value),
        None => Reading::missing(sensor, at(number), Cause::Timeout),
    }
}

async fn take(place: &Place, landing_grace: Duration) {
    let settings = IngestSettings { hole_patience: Duration::ZERO, landing_grace };
    ingest(&place.lake, &settings).await.expect("ingested");
}

/// Later than any object's own time, so that patience and grace can be tried.
fn landed_us() -> i64 {
    tjern_readings::clock::Clock::system().now_us() + HOUR_US
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Configurations of these tests say the scale that was in force, as their whole text.
struct Scale(f64);

impl Formulas for Scale {
    fn formula(&self, configuration: &str, _: &SensorId) -> Result<Formula, String> {
        let before: f64 = configuration.parse().map_err(|_| format!("`{configuration}` has no such point"))?;
        let after = self.0;
        Ok(Box::new(move |stored| match stored {
            Ok(value) => Ok(Again::Value(value / before * after)),
            Err(_) => Ok(Again::AsItIs),
        }))
    }

    fn words(&self) -> serde_json::Value {
        json!({ "scale": self.0, "order": null })
    }
}

pub(crate) fn period(from: i64, to: i64) -> Period {
    Period { sensor: SENSOR.parse().expect("valid"), from_us: at(from), to_us: at(to) }
}

async fn scale(place: &Place, scale: f64, from: i64, to: i64) -> RecomputeOutcome {
    recompute(&place.lake, &period(from, to), &Scale(scale), &author(), false).await.expect("recomputed")
}

async fn ask(place: &Place, sql: &str) -> Vec<arrow::record_batch::RecordBatch> {
    let settings = SessionSettings { access: Access::Staff, timezone: TimeZone::UTC, memory_bytes: 64 << 20 };
    let context = session(&place.lake, &settings).await.expect("opened");
    context.sql(sql).await.expect("planned").collect().await.expect("answered")
}

/// What people see of the sensor, in order.
pub(crate) async fn observed(place: &Place) -> Vec<f64> {
    let rows = ask(place, &format!("SELECT value FROM observations WHERE sensor = '{SENSOR}' ORDER BY time")).await;
    rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Float64Type>().values().to_vec()).collect()
}

pub(crate) async fn count(place: &Place, condition: &str) -> i64 {
    let rows = ask(place, &format!("SELECT count(*) FROM readings WHERE {condition}")).await;
    rows[0].column(0).as_primitive::<Int64Type>().value(0)
}

async fn records(place: &Place) -> Vec<serde_json::Value> {
    use futures::TryStreamExt;
    use object_store::ObjectStore;
    let objects = place.lake.objects();
    let folder = object_store::path::Path::from(tjern_readings::keys::CORRECTIONS);
    let listed: Vec<_> = objects.list(Some(&folder)).try_collect().await.expect("listed");
    let mut records = Vec::new();
    for meta in listed {
        let bytes = objects.get(&meta.location).await.expect("there").bytes().await.expect("read");
        records.push(serde_json::from_slice(&bytes).expect("JSON"));
    }
    records
}

/// The batches left the landing zone long ago; which configuration they named is still known.
#[tokio::test]
async fn a_wrong_scale_is_found_after_three_months() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    land(&place, 1, &[Some(180.0), None, Some(190.0)], Some("1")).await;
    land(&place, 4, &[Some(20.0), Some(21.0)], Some("0.1")).await;
    land(&place, 6, &[Some(22.0)], Some("0.1")).await;
    place.clock.set_us(landed_us());
    take(&place, WEEK).await;
    place.clock.set_us(place.clock.now_us() + 90 * 24 * HOUR_US);
    take(&place, WEEK).await;
    let left = Landed::Batch(EPOCH, tjern_readings::keys::Bounds::new(1, 3).expect("in order")).key(&source());
    assert!(place.lake.objects().head(&left).await.is_err(), "the batch has left");
    assert_eq!(observed(&place).await, [20.0, 21.0, 22.0], "what was a hundredfold failed");
    let outcome = scale(&place, 0.1, 0, 100).await;
    assert_eq!((outcome.readings, outcome.corrected, outcome.already, outcome.without_value), (6, 2, 3, 1));
    assert_eq!(outcome.left, []);
    assert_eq!(observed(&place).await, [18.0, 19.0, 20.0, 21.0, 22.0]);
    // What was before stays readable, and the corrected rows are of the same readings.
    assert_eq!(count(&place, "revision = 0 AND value = 180").await, 1);
    assert_eq!(count(&place, "revision = 1 AND seq IN (1, 3) AND source = 'landfall-01' AND level = 0").await, 2);
    // Doing it again changes nothing, not even a version.
    let version = place.version(TableName::Readings).await;
    let again = scale(&place, 0.1, 0, 100).await;
    assert_eq!((again.corrected, again.already), (0, 5));
    assert_eq!(place.version(TableName::Readings).await, version);
    // Who did it stands beside it for as long as the lake.
    let records = records(&place).await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["by"], &records[0]["rows"], &records[0]["scale"]),
        (&json!("a technician"), &json!(2), &json!(0.1))
    );
    let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let id = records[0]["id"].as_str().expect("an id");
    assert_eq!(table.transaction(&format!("{CORRECTION}{id}")), Some(1), "the record counts");
}

#[tokio::test]
async fn what_cannot_be_recovered_is_listed_and_left() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,,"]).await;
    land(&place, 1, &[Some(1.0), Some(2.0)], None).await;
    land(&place, 3, &[Some(3.0)], Some("nonsense")).await;
    land(&place, 4, &[Some(4.0)], Some("1")).await;
    place.clock.set_us(landed_us());
    take(&place, WEEK).await;
    land(&place, 5, &[Some(5.0)], Some("2")).await;
    take(&place, WEEK).await;
    let gone = Landed::Configuration(sha256("2")).key(&source());
    place.lake.objects().delete(&gone).await.expect("deleted");
    let outcome = scale(&place, 10.0, 0, 100).await;
    let left: Vec<_> = outcome.left.iter().map(|left| (left.value, left.reason.to_string())).collect();
    assert_eq!((outcome.corrected, left.len()), (1, 4), "{left:?}");
    assert!(left[0].1.contains("not known under which configuration"), "{}", left[0].1);
    assert!(left[2].1.contains("has no such point"), "{}", left[2].1);
    assert!(left[3].1.contains("not in the lake any more"), "{}", left[3].1);
    assert_eq!(observed(&place).await, [1.0, 2.0, 3.0, 40.0, 5.0]);
}

/// What was ingested before configurations were remembered has them in its batches, while those lie there.
#[tokio::test]
async fn a_table_without_a_memory_asks_the_landing_zone() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,,"]).await;
    land(&place, 1, &[Some(1.0)], Some("1")).await;
    let row = crate::testing::Row::new("t", at(1), 1.0);
    let rows = crate::testing::batch_of(&[row]);
    let schema = rows.schema();
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| match field.name().as_str() {
        "epoch" => {
            std::sync::Arc::new(arrow::array::StringArray::from(vec![EPOCH.to_string()])) as arrow::array::ArrayRef
        }
        _ => std::sync::Arc::clone(column),
    });
    let rows = arrow::record_batch::RecordBatch::try_new(rows.schema(), columns.collect()).expect("the columns");
    let mut table = Table::open_or_create(&place.lake, TableName::Readings).await.expect("a table");
    let file = tjern_lake::write_file(&place.lake, TableName::Readings, &[rows]).await.expect("written");
    table.commit(crate::testing::commit(Operation::Ingest, vec![file], vec![])).await.expect("committed");
    assert_eq!(scale(&place, 3.0, 0, 100).await.corrected, 1);
    assert_eq!(observed(&place).await, [3.0]);
}

/// A configuration that changed back, and batches that came late into a hole: each has its own.
#[tokio::test]
async fn late_batches_keep_their_own_configuration() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,,"]).await;
    land(&place, 1, &[Some(1.0)], Some("1")).await;
    land(&place, 4, &[Some(4.0)], Some("1")).await;
    place.clock.set_us(landed_us());
    take(&place, WEEK).await;
    land(&place, 2, &[Some(20.0)], Some("10")).await;
    take(&place, WEEK).await;
    land(&place, 3, &[Some(3.0)], Some("1")).await;
    take(&place, WEEK).await;
    assert_eq!(scale(&place, 1.0, 0, 100).await.corrected, 1);
    assert_eq!(observed(&place).await, [1.0, 2.0, 3.0, 4.0]);
}

/// Two people at once: one comes second, looks again and finds the other's word. No reading gets the same
/// revision twice.
#[tokio::test]
async fn of_two_corrections_at_once_one_looks_again() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,,"]).await;
    let values: Vec<_> = (1..=50).map(|number| Some(f64::from(number))).collect();
    land(&place, 1, &values, Some("1")).await;
    place.clock.set_us(landed_us());
    take(&place, WEEK).await;
    let (one, other) = tokio::join!(scale(&place, 2.0, 0, 100), scale(&place, 3.0, 0, 100));
    assert_eq!((one.corrected, other.corrected), (50, 50));
    let rows = ask(&place, "SELECT count(*) FROM (SELECT DISTINCT seq, revision FROM readings)").await;
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 150);
    assert_eq!(count(&place, "true").await, 150);
    let seen = observed(&place).await;
    let all = |factor: f64| seen.iter().zip(1..).all(|(value, number)| *value == f64::from(number) * factor);
    assert!(all(2.0) || all(3.0), "{seen:?}");
}

fn layout() -> ReviseLayout {
    ReviseLayout { separator: b',', decimal: Decimal::Point, zone: TimeZone::UTC }
}

async fn revise_text(place: &Place, text: &str) -> Result<ReviseOutcome, ReviseError> {
    let path = place.folder.path().join("revised.csv");
    std::fs::write(&path, text).expect("written");
    revise(&place.lake, &path, &layout(), &author(), false).await
}

async fn three(place: &Place) {
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    land(place, 1, &[Some(10.0), None, Some(30.0)], Some("1")).await;
    place.clock.set_us(landed_us());
    take(place, WEEK).await;
}

#[tokio::test]
async fn a_persons_word_is_a_revision() {
    let place = Place::new();
    three(&place).await;
    let text = format!(
        "sensor,time,value,quality\n{SENSOR},{},11.5,\n{SENSOR},{},20,3\n{SENSOR},{},,4\n",
        utc(at(1)),
        utc(at(2)),
        utc(at(3))
    );
    assert_eq!(revise_text(&place, &text).await.expect("revised"), ReviseOutcome { revised: 3, already: 0 });
    assert_eq!(observed(&place).await, [11.5, 20.0], "what was withdrawn is not shown");
    assert_eq!(count(&place, "revision = 1 AND quality = 3 AND value = 20 AND cause IS NULL").await, 1);
    assert_eq!(count(&place, "revision = 1 AND quality = 4 AND value = 30").await, 1);
    assert_eq!(revise_text(&place, &text).await.expect("the same again"), ReviseOutcome { revised: 0, already: 3 });
    // A flag that a person gave stays when the scale is put right.
    assert_eq!(scale(&place, 2.0, 0, 100).await.corrected, 2);
    assert_eq!(count(&place, "revision = 2 AND quality = 4 AND value = 60").await, 1);
}

#[tokio::test]
async fn a_file_with_a_fault_revises_nothing() {
    let place = Place::new();
    three(&place).await;
    let good = format!("{SENSOR},{},12,\n", utc(at(1)));
    for (line, part) in [
        (format!("{SENSOR},{},5,\n", utc(at(77))), "has no reading at"),
        (format!("{SENSOR},{},,\n", utc(at(3))), "neither a value nor a quality"),
        (format!("{SENSOR},{},1,9\n", utc(at(3))), "no quality that a person gives"),
        (format!("{SENSOR},{},,3\n", utc(at(2))), "has no value"),
        (format!("{SENSOR},{},\"1,5\",\n", utc(at(3))), "is not a number"),
        (format!("{SENSOR},{},13,\n", utc(at(1))), "on line 2 already"),
        (format!("{SENSOR},yesterday,13,\n"), "is not a time"),
        ("Nonsense,2026-01-01,13,\n".to_owned(), "sensor id"),
        (format!("{SENSOR},{}\n", utc(at(3))), "2 fields"),
    ] {
        let text = format!("sensor,time,value,quality\n{good}{line}");
        let error = revise_text(&place, &text).await.expect_err("it was accepted").to_string();
        assert!(error.contains("revised.csv:3: ") && error.contains(part), "{error:?} does not say {part:?}");
    }
    assert_eq!(observed(&place).await, [10.0, 30.0]);
    assert_eq!(records(&place).await, [] as [serde_json::Value; 0]);
}

/// Somebody withdrew a value under a column `Quality`, which was passed over: the value became an observation.
#[tokio::test]
async fn a_column_that_is_not_known_is_not_passed_over() {
    let place = Place::new();
    three(&place).await;
    let line = format!("{SENSOR},{}", utc(at(1)));
    for (columns, rest, part) in [
        ("sensor,time,value,Quality", "12,4", "did you mean `quality`?"),
        ("sensor,time,Value,quality", "12,4", "did you mean `value`?"),
        ("sensor,time,value,remark", "12,wrong", "hint: take it out"),
        ("sensor,time,value,value,quality", "12,13,4", "two columns `value`"),
        ("sensor,time", "", "no column `value`"),
    ] {
        let rest = if rest.is_empty() { String::new() } else { format!(",{rest}") };
        let error = revise_text(&place, &format!("{columns}\n{line}{rest}\n")).await.expect_err(columns).to_string();
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    assert_eq!(observed(&place).await, [10.0, 30.0]);
    assert_eq!(records(&place).await, [] as [serde_json::Value; 0]);
}

/// A number that is none hid that another line's time is not stored: each was mended, and the file refused again.
#[tokio::test]
async fn every_wrong_line_of_a_revision_is_told_at_once() {
    let place = Place::new();
    three(&place).await;
    let (unknown, known) = (utc(at(77)), utc(at(1)));
    let text = format!("sensor,time,value\n{SENSOR},{unknown},5\n{SENSOR},{known},1e999\n");
    let told = revise_text(&place, &text).await.expect_err("both are wrong").to_string();
    let wanted = [("revised.csv:2: ", "has no reading at"), ("revised.csv:3: ", "more than a number can be")];
    for (line, (place, what)) in told.lines().zip(wanted) {
        assert!(line.contains(place) && line.contains(what), "{told}");
    }
    assert_eq!((told.lines().count(), records(&place).await.len()), (3, 0), "{told}");
}

/// A dry run says the same and changes nothing.
#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let place = Place::new();
    three(&place).await;
    let version = place.version(TableName::Readings).await;
    let outcome = recompute(&place.lake, &period(0, 100), &Scale(2.0), &author(), true).await.expect("looked");
    assert_eq!((outcome.corrected, outcome.would_change.len()), (2, 2));
    assert_eq!(outcome.would_change[0].after, Some(20.0));
    assert_eq!(place.version(TableName::Readings).await, version);
}

/// Neither a dry run nor a file that is refused leaves anything behind in the lake, not even a file that nobody names.
#[tokio::test]
async fn what_is_not_revised_is_not_written() {
    let place = Place::new();
    three(&place).await;
    let before = objects(&place).await;
    let path = place.folder.path().join("revised.csv");
    let good = format!("sensor,time,value\n{SENSOR},{},12\n", utc(at(1)));
    std::fs::write(&path, &good).expect("written");
    let outcome = revise(&place.lake, &path, &layout(), &author(), true).await.expect("looked");
    assert_eq!(outcome, ReviseOutcome { revised: 1, already: 0 });
    revise_text(&place, &format!("{good}{SENSOR},{},5\n", utc(at(77)))).await.expect_err("no such reading");
    assert_eq!(objects(&place).await, before);
}

async fn objects(place: &Place) -> Vec<String> {
    let listed = place.lake.objects().list(None).try_collect::<Vec<_>>().await.expect("listed");
    let mut keys: Vec<String> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
    keys.sort();
    keys
}

/// The table is lost. Landed batches know nothing of what people said of readings since: what the lake has a whole record
/// of is made again, under its own id, and what it has not is named.
#[tokio::test]
async fn what_people_corrected_is_corrected_again_after_a_replay() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    land(&place, 1, &[Some(180.0), None, Some(190.0)], Some("1")).await;
    land(&place, 4, &[Some(20.0), Some(21.0)], Some("0.1")).await;
    take(&place, WEEK).await;
    scale(&place, 0.1, 0, 100).await;
    let validated = crate::validate::validate(&place.lake, &period(0, 4), &author(), false).await;
    let refused = validated.expect_err("nobody has seen its flags").to_string();
    assert!(refused.contains("has not looked yet at 3 of the readings"), "{refused}");
    crate::quality::control(&place.lake).await.expect("judged");
    crate::validate::validate(&place.lake, &period(0, 4), &author(), false).await.expect("validated");
    let file = place.folder.path().join("july.csv");
    std::fs::write(&file, format!("sensor,time,value\n{SENSOR},{},20.5\n", utc(at(4)))).expect("written");
    revise(&place.lake, &file, &layout(), &author(), false).await.expect("revised");
    let (seen, validated) = (observed(&place).await, count(&place, "level = 2").await);
    std::fs::remove_dir_all(place.folder.path().join("lake/tables/readings")).expect("lost");
    let settings = IngestSettings { hole_patience: Duration::ZERO, landing_grace: WEEK };
    crate::ingest::replay::replay(&place.lake, &settings, |_| {}).await.expect("replayed");
    assert_ne!(observed(&place).await, seen, "as it came");
    let pending = again::pending(&place.lake).await.expect("read");
    let kinds: Vec<_> = pending.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    for one in &pending {
        let formulas = one.word("scale").and_then(serde_json::Value::as_f64).map(Scale);
        let formulas = formulas.as_ref().map(|scale| -> &dyn Formulas { scale });
        crate::quality::control(&place.lake).await.expect("judged");
        let became = one.make(&place.lake, formulas, &Bounds::default()).await.expect("made");
        let rows = |rows| again::MadeAgain::Rows(rows);
        match one.kind.as_str() {
            "recompute" => assert_eq!(became, rows(2)),
            "validate" => assert!(became != rows(0), "{became:?}"),
            _ => assert!(
                matches!(&became, again::MadeAgain::Not(why) if why.contains("revise by that file")),
                "{became:?}"
            ),
        }
    }
    assert_eq!(again::pending(&place.lake).await.expect("read").len(), 1, "the file is still to be given");
    assert_eq!(records(&place).await.len(), 3, "no record is written twice");
    revise(&place.lake, &file, &layout(), &author(), false).await.expect("revised");
    assert_eq!(observed(&place).await, seen);
    assert_eq!(count(&place, "level = 2").await, validated);
}

/// That a configuration will never come was said once: a replay must not bring the alarm back.
#[tokio::test]
async fn what_was_accepted_is_accepted_again_after_a_replay() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    let missing = sha256("a text that was lost with its gateway");
    let (bytes, batch) = encode(&source(), EPOCH, 1, &[reading(1, Some(4.0))], Some(&missing)).expect("encoded");
    let key = Landed::Batch(EPOCH, batch.header.bounds).key(&source());
    place.lake.objects().put(&key, bytes.into()).await.expect("put");
    take(&place, WEEK).await;
    crate::ingest::accept_configuration(&place.lake, &source(), &missing, &author()).await.expect("accepted");
    let accepted = async || {
        let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
        crate::ingest::missing_configurations(&table).iter().map(|one| one.accepted).collect::<Vec<_>>()
    };
    assert_eq!(accepted().await, [true]);
    std::fs::remove_dir_all(place.folder.path().join("lake/tables/readings")).expect("lost");
    let settings = IngestSettings { hole_patience: Duration::ZERO, landing_grace: WEEK };
    crate::ingest::replay::replay(&place.lake, &settings, |_| {}).await.expect("replayed");
    assert_eq!(accepted().await, [false]);
    for one in again::pending(&place.lake).await.expect("read") {
        assert_eq!(one.make(&place.lake, None, &Bounds::default()).await.expect("made"), again::MadeAgain::Rows(0));
    }
    assert_eq!(accepted().await, [true]);
    assert_eq!(records(&place).await.len(), 1, "no record is written twice");
}
