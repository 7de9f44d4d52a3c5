//! What a data file in which a bit turned over is to those who write files anew. Each of them gave the wrong value a SHA-256 of
//! its own, and vacuum took the only evidence: 50.0 was 58.0 for good, and `verify` found nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use jiff::tz::TimeZone;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tjern_lake::{DataFile, LakeError, Table, TableName};
use tokio_util::sync::CancellationToken;

use crate::compact::{CompactError, CompactOutcome, CompactSettings, compact};
use crate::correct::recompute::Period;
use crate::correct::{Author, CorrectError};
use crate::erase::{EraseError, EraseSettings, Request, erase, go_on};
use crate::ingest::IngestSettings;
use crate::quality::{ControlError, control};
use crate::testing::{NOW_US, Place, Row};
use crate::validate::validate;
use crate::verify::verify;

/// A file of a lake in which a bit turned over, and its bytes as they were.
struct Altered {
    file: DataFile,
    path: PathBuf,
    sound: Vec<u8>,
}

impl Altered {
    /// Of the oldest file of `readings`: it can be read as before, and a value of it is another one.
    async fn first(place: &Place) -> Self {
        let file = files(place).await.into_iter().min_by_key(|file| file.time_us).expect("a file");
        let path = place.folder.path().join("lake/tables/readings").join(&file.path);
        let sound = std::fs::read(&path).expect("read");
        let rows = decoded(&sound).expect("sound");
        let turned = |at: usize, bit: u8| {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            bytes
        };
        let places = (4..sound.len()).flat_map(|at| (0..8).map(move |bit| (at, bit)));
        let altered = places.map(|(at, bit)| turned(at, bit)).find(|bytes| {
            decoded(bytes).is_some_and(|found| {
                found.num_rows() == rows.num_rows()
                    && (0..rows.num_columns())
                        .all(|column| (found.column(column) == rows.column(column)) == (column != 2))
            })
        });
        std::fs::write(&path, altered.expect("a bit of a value")).expect("written");
        Self { file, path, sound }
    }

    /// That it is as it was found, and told.
    async fn is_kept(&self, place: &Place) {
        assert!(files(place).await.iter().any(|file| file.path == self.file.path), "it is in the table still");
        let problems = verify(&place.reopened(), &mut |_, _| ()).await.expect("read").problems;
        assert!(problems.iter().any(|problem| problem.key.ends_with(&self.file.path)), "{problems:?}");
    }

    /// The copy of a backup takes its place.
    fn mend(&self) {
        std::fs::write(&self.path, &self.sound).expect("written");
    }

    fn is_named_by(&self, error: &LakeError) -> bool {
        let text = error.to_string();
        let is_named = matches!(error, LakeError::Altered { path, .. } if *path == self.file.path);
        is_named && text.contains(&self.file.path) && text.contains("\"A damaged data file\" in docs/backup.md")
    }
}

/// The rows of a file; none where it cannot be decoded.
fn decoded(bytes: &[u8]) -> Option<RecordBatch> {
    let bytes = Bytes::copy_from_slice(bytes);
    let read = catch_unwind(AssertUnwindSafe(|| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).ok()?.build().ok()?;
        let batches = reader.collect::<Result<Vec<_>, _>>().ok()?;
        arrow::compute::concat_batches(&batches.first()?.schema(), &batches).ok()
    }));
    read.ok().flatten()
}

async fn files(place: &Place) -> Vec<DataFile> {
    Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there").files()
}

fn row(minute: i64, value: f64) -> Row {
    Row { seq: minute + 1, ..Row::new("t", NOW_US + minute * 60_000_000, value) }
}

/// What rows are, but for their order.
async fn values(place: &Place) -> Vec<(i64, Option<f64>, i8)> {
    let rows = place.readings().await.into_iter();
    let mut values: Vec<_> = rows.map(|row| ((row.time_us - NOW_US) / 60_000_000, row.value, row.quality)).collect();
    values.sort_by_key(|(minute, ..)| *minute);
    values
}

async fn compacted(place: &Place) -> Result<CompactOutcome, CompactError> {
    compact(&place.lake, &CompactSettings::default(), &CancellationToken::new(), &mut |_| ()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_merges_all_but_a_damaged_file() {
    let place = Place::new();
    for minute in 0..7 {
        place.ingest(&[row(minute, 50.0)]).await;
    }
    let altered = Altered::first(&place).await;
    let refused = compacted(&place).await;
    assert!(matches!(&refused, Err(CompactError::Lake(error)) if altered.is_named_by(error)), "{refused:?}");
    assert_eq!(files(&place).await.len(), 2, "the six others are one file");
    altered.is_kept(&place).await;
    altered.mend();
    compacted(&place).await.expect("compacted");
    assert_eq!(values(&place).await, (0..7).map(|minute| (minute, Some(50.0), 2)).collect::<Vec<_>>());
}

/// What came since is put together into one file. What was judged before is written anew where it lies.
#[tokio::test(flavor = "multi_thread")]
async fn quality_control_judges_all_but_a_damaged_file() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,80"]).await;
    place.ingest(&[row(0, 50.0)]).await;
    place.ingest(&[row(1, 51.0)]).await;
    let altered = Altered::first(&place).await;
    let refused = control(&place.lake).await;
    assert!(matches!(&refused, Err(ControlError::Lake(error)) if altered.is_named_by(error)), "{refused:?}");
    let flags =
        |values: Vec<(i64, Option<f64>, i8)>| values.into_iter().map(|(.., quality)| quality).collect::<Vec<_>>();
    assert_eq!(flags(values(&place).await), [2, 1]);
    altered.is_kept(&place).await;
    altered.mend();
    control(&place.lake).await.expect("judged");
    assert_eq!(values(&place).await, [(0, Some(50.0), 1), (1, Some(51.0), 1)]);

    // Both are old now, and fail by another rule, whatever a turned bit makes of a value.
    place.clock.set_us(NOW_US + 3_600_000_000);
    place.register(&["t,Cel,sample,public,-2,-1"]).await;
    let altered = Altered::first(&place).await;
    let refused = control(&place.lake).await;
    assert!(matches!(&refused, Err(ControlError::Lake(error)) if altered.is_named_by(error)), "{refused:?}");
    assert_eq!(flags(values(&place).await), [1, 4]);
    altered.is_kept(&place).await;
    altered.mend();
    control(&place.lake).await.expect("judged");
    assert_eq!(values(&place).await, [(0, Some(50.0), 4), (1, Some(51.0), 4)]);
}

/// What a disk does to a file so that nobody reads it any more: its pages or a bit of the footer turned, its end lost, or all of it.
type Damage = fn(&mut Vec<u8>);
const DAMAGES: [(&str, Damage); 4] = [
    ("pages", |bytes| {
        let end = bytes.len() / 2;
        bytes[4..end].fill(0xff);
    }),
    ("footer", |bytes| {
        let place = bytes.len() - 40;
        bytes[place] ^= 8;
    }),
    ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
    ("gone", Vec::clear),
];

impl Altered {
    /// The only file of `readings`: nobody reads it any more.
    async fn broken(place: &Place, damage: Damage) -> Self {
        let file = files(place).await.remove(0);
        let path = place.folder.path().join("lake/tables/readings").join(&file.path);
        let sound = std::fs::read(&path).expect("read");
        let mut bytes = sound.clone();
        damage(&mut bytes);
        let done = if bytes.is_empty() { std::fs::remove_file(&path) } else { std::fs::write(&path, &bytes) };
        done.expect("damaged");
        Self { file, path, sound }
    }
}

/// One file that could not be decoded, new or old, kept the readings of all sensors from being judged: −99 °C of another sensor stayed
/// without a flag, and went out.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_keeps_nobody_else_from_being_judged() {
    for (what, damage) in DAMAGES {
        for was_judged in [false, true] {
            let place = Place::new();
            // A test that looks at neighbours, so that what is old is read for what is new.
            let spike = "sensors,test,months,parameters\ntjern/t,spike,,suspect=5 fail=10\n";
            std::fs::write(place.folder.path().join("quality.csv"), spike).expect("written");
            place.register(&["t,Cel,sample,public,-2,80", "other,Cel,sample,public,-2,80"]).await;
            place.ingest(&[row(0, 50.0)]).await;
            if was_judged {
                control(&place.lake).await.expect("judged");
            }
            let broken = Altered::broken(&place, damage).await;
            place.ingest(&[row(1, 51.0), Row { sensor: "tjern/other".to_owned(), ..row(3, -99.0) }]).await;
            place.ingest(&[row(2, 52.0), Row { sensor: "tjern/other".to_owned(), ..row(4, 7.0) }]).await;
            let named = control(&place.reopened()).await.expect_err(what).to_string();
            assert!(named.contains(&broken.file.path), "{what}, {was_judged}: {named}");
            broken.mend();
            let before = if was_judged { 1 } else { 2 };
            let others = [(1, Some(51.0), 1), (2, Some(52.0), 1), (3, Some(-99.0), 4), (4, Some(7.0), 1)];
            assert_eq!(values(&place).await[0], (0, Some(50.0), before), "{what}, {was_judged}");
            assert_eq!(values(&place).await[1..], others, "{what}, {was_judged}");
            control(&place.lake).await.expect("judged");
            assert_eq!(values(&place).await[0], (0, Some(50.0), 1), "{what}, {was_judged}");
            assert_eq!(values(&place).await[1..], others, "{what}, {was_judged}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_keeps_nothing_else_from_being_merged() {
    for (what, damage) in DAMAGES {
        let place = Place::new();
        place.ingest(&[row(0, 50.0)]).await;
        let broken = Altered::broken(&place, damage).await;
        for minute in 1..7 {
            place.ingest(&[row(minute, 50.0)]).await;
        }
        let named = compacted(&place).await.expect_err("a file is damaged").to_string();
        assert!(named.contains(&broken.file.path), "{what}: {named}");
        assert_eq!(files(&place).await.len(), 2, "{what}: the six others are one file");
        broken.mend();
        compacted(&place).await.expect("compacted");
        assert_eq!(values(&place).await.len(), 7, "{what}");
    }
}

/// Hours and releases of all that there is wait until such a file is mended, and say how it is found: the engine names no file.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_no_riddle_where_it_stops_a_job() {
    for (what, damage) in DAMAGES {
        let place = Place::new();
        place.ingest(&[row(0, 50.0)]).await;
        let broken = Altered::broken(&place, damage).await;
        let refused = crate::rollup::rollup(&place.reopened(), &TimeZone::UTC).await.expect_err("damaged").to_string();
        assert!(refused.contains("`tjern pipeline verify`"), "{what}: {refused}");
        broken.is_kept(&place).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_validates_a_damaged_file() {
    let place = Place::new();
    place.ingest(&[row(0, 50.0)]).await;
    place.ingest(&[row(1, 51.0)]).await;
    let altered = Altered::first(&place).await;
    let version = place.version(TableName::Readings).await;
    let period = Period { sensor: "tjern/t".parse().expect("valid"), from_us: NOW_US, to_us: NOW_US + 3_600_000_000 };
    let author = Author { by: "the bathing water office".to_owned(), reason: None };
    let refused = validate(&place.lake, &period, &author, false).await;
    assert!(matches!(&refused, Err(CorrectError::Lake(error)) if altered.is_named_by(error)), "{refused:?}");
    assert_eq!(place.version(TableName::Readings).await, version, "nothing is validated");
    altered.is_kept(&place).await;
    altered.mend();
    assert_eq!(validate(&place.lake, &period, &author, false).await.expect("validated").changed, 2);
}

/// Whose rows a damaged file has is not known. The erasure is remembered, and not complete.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_writes_all_anew_but_a_damaged_file() {
    let place = Place::new();
    let other = |minute: i64| Row { sensor: "tjern/other".to_owned(), ..row(minute, 7.0) };
    place.ingest(&[row(0, 50.0), other(0)]).await;
    place.ingest(&[row(1, 51.0), other(1)]).await;
    let altered = Altered::first(&place).await;
    let settings = EraseSettings {
        ingest: IngestSettings { hole_patience: Duration::from_secs(60), landing_grace: Duration::from_secs(60) },
        register: None,
        compact: CompactSettings::default(),
        datasets: Vec::new(),
        timezone: TimeZone::UTC,
    };
    let request = Request {
        sensor: "tjern/t".parse().expect("valid"),
        from_us: NOW_US,
        to_us: NOW_US + 3_600_000_000,
        reason: "a test".to_owned(),
        by: "the data officer".to_owned(),
    };
    let refused = erase(&place.lake, &settings, &request).await;
    assert!(matches!(&refused, Err(EraseError::Lake(error)) if altered.is_named_by(error)), "{refused:?}");
    let sensors = async || {
        let mut rows: Vec<_> = place.readings().await.into_iter().map(|row| (row.time_us, row.sensor)).collect();
        rows.sort();
        rows.into_iter().map(|(_, sensor)| sensor).collect::<Vec<_>>()
    };
    assert_eq!(sensors().await, ["tjern/other", "tjern/t", "tjern/other"]);
    altered.is_kept(&place).await;
    altered.mend();
    let done = go_on(&place.lake, &settings, false).await.expect("erased");
    assert_eq!((done.rows, done.done.len()), (1, 1), "{:?}", done.waits);
    assert_eq!(sensors().await, ["tjern/other", "tjern/other"]);
}
