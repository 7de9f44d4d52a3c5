//! History comes in once, whole, and with every line that could not be read.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::ingest::{IngestSettings, ingest};
use crate::testing::Place;

const HOUR_US: i64 = 3_600_000_000;

#[derive(Default)]
struct Heard {
    bad: Vec<BadLine>,
    progress: Vec<ImportProgress>,
}

impl Listener for Heard {
    fn bad(&mut self, line: &BadLine) {
        self.bad.push(line.clone());
    }

    fn progress(&mut self, progress: ImportProgress) {
        self.progress.push(progress);
    }
}

fn us(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a time").as_microsecond()
}

fn wide(column: &str) -> ImportMap {
    let column = ColumnMap {
        name: column.to_owned(),
        sensor: "tjern/t".to_owned(),
        unit: Some("Cel".to_owned()),
        scale: 1.0,
        offset: 0.0,
    };
    ImportMap { column: vec![column], time_zone: Some("Europe/Oslo".to_owned()), ..ImportMap::of("import:old-logger") }
}

async fn try_import(place: &Place, bytes: &[u8], map: ImportMap) -> (Result<ImportOutcome, ImportError>, Heard) {
    let path = place.folder.path().join("import.csv");
    std::fs::write(&path, bytes).expect("written");
    let map = map.check("UTC").expect("a map that makes sense");
    let mut heard = Heard::default();
    (import(&place.lake, &path, &map, false, &mut heard).await, heard)
}

async fn import_text(place: &Place, text: &str, map: ImportMap) -> (ImportOutcome, Vec<BadLine>) {
    let (outcome, heard) = try_import(place, text.as_bytes(), map).await;
    (outcome.expect("imported"), heard.bad)
}

async fn take(place: &Place) {
    take_after(place, 1).await;
}

/// So many hours after now.
async fn take_after(place: &Place, hours: i64) {
    place.clock.set_us(tjern_readings::clock::Clock::system().now_us() + hours * HOUR_US);
    let settings =
        IngestSettings { hole_patience: Duration::from_secs(3_600), landing_grace: Duration::from_secs(600) };
    ingest(&place.lake, &settings).await.expect("ingested");
}

async fn landed(place: &Place) -> Vec<String> {
    let objects = place.lake.objects();
    let folder = object_store::path::Path::from("landing");
    let mut landed: Vec<_> =
        objects.list(Some(&folder)).map_ok(|meta| meta.location.to_string()).try_collect().await.expect("listed");
    landed.sort();
    landed
}

async fn stored(place: &Place) -> Vec<(i64, Option<f64>, i8)> {
    let mut rows: Vec<_> =
        place.readings().await.into_iter().map(|row| (row.time_us, row.value, row.quality)).collect();
    rows.sort_by_key(|row| row.0);
    rows
}

#[tokio::test]
async fn an_export_as_loggers_write_it() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    let map = ImportMap {
        separator: ";".to_owned(),
        decimal: Decimal::Comma,
        encoding: Encoding::Latin1,
        skip_lines: 1,
        time: "Tid".to_owned(),
        time_format: "%d.%m.%Y %H:%M".to_owned(),
        no_value: vec!["---".to_owned()],
        ..wide("M\u{e5}lt")
    };
    let text =
        b"Eksport 2025\nTid;M\xe5lt;Merknad\n01.07.2025 08:00;18,5;\n01.07.2025 09:00;---;\n01.07.2025 10:00;;\n\
        30.02.2025 10:00;1,0;\n01.07.2025 11:00;19.5;\n01.07.2025 12:00;\n01.07.2025 13:00;-327,68;\n";
    let (outcome, heard) = try_import(&place, text, map).await;
    let outcome = outcome.expect("imported");
    assert_eq!((outcome.lines, outcome.readings, outcome.empty, outcome.bad), (7, 2, 2, 3));
    let bad: Vec<_> = heard.bad.iter().map(|bad| bad.line).collect();
    assert_eq!(bad, [6, 7, 8], "{:?}", heard.bad);
    assert!(heard.bad[1].reason.contains("`19.5` has a point"), "{:?}", heard.bad);
    take(&place).await;
    let (first, last) = (us("2025-07-01T06:00:00Z"), us("2025-07-01T11:00:00Z"));
    assert_eq!(stored(&place).await, [(first, Some(18.5), 1), (last, Some(-327.68), 4)]);
}

#[tokio::test]
async fn the_same_file_is_imported_once() {
    let place = Place::new();
    let text = "time,sensor,value\n2025-07-01T08:00:00Z,tjern/t,18.5\n2025-07-01T09:00:00Z,elva/level,1\n";
    let (first, bad) = import_text(&place, text, ImportMap::of("import:history")).await;
    assert_eq!((first.readings, first.landed, bad.len()), (2, 1, 0));
    let before = landed(&place).await;
    let (again, _) = import_text(&place, text, ImportMap::of("import:history")).await;
    assert_eq!((again.epoch, again.landed), (first.epoch, 0));
    assert_eq!(landed(&place).await, before);
    take(&place).await;
    assert!(landed(&place).await.iter().any(|key| key.ends_with(".arrow")), "it was ingested just now");
    take_after(&place, 2).await;
    assert!(!landed(&place).await.iter().any(|key| key.ends_with(".arrow")), "its grace is over");
    let (late, _) = import_text(&place, text, ImportMap::of("import:history")).await;
    assert_eq!(late.landed, 0, "what was ingested long ago is known");
    take_after(&place, 2).await;
    assert_eq!(stored(&place).await.len(), 2);
    // Under another clock it is other readings.
    let zoned = ImportMap { time_zone: Some("+01:00".to_owned()), ..ImportMap::of("import:history") };
    assert_ne!(import_text(&place, text, zoned).await.0.epoch, first.epoch);
}

/// A million lines, and the power goes: what is there stays, and the rest comes with the next run.
#[tokio::test]
async fn what_was_broken_off_goes_on() {
    let place = Place::new();
    let count = i64::try_from(2 * BATCH_READINGS + 10).expect("few");
    let mut text = "time,sensor,value\n".to_owned();
    for number in 0..count {
        text.push_str(&format!("{},tjern/t,{number}\n", 1_700_000_000 + number));
    }
    let map = || ImportMap { time_format: "unix".to_owned(), ..ImportMap::of("import:history") };
    let (whole, heard) = try_import(&place, text.as_bytes(), map()).await;
    assert_eq!(whole.expect("imported").landed, 3);
    let furthest = heard.progress.last().copied().expect("it says how far it is");
    assert!(furthest.bytes <= furthest.total_bytes && furthest.bytes * 10 > furthest.total_bytes * 9, "{furthest:?}");
    let all = landed(&place).await;
    // As if it had been killed after the first batch.
    let killed = all
        .iter()
        .filter(|key| key.ends_with("closed") || !key.contains("/00000000000000000001-") && key.ends_with(".arrow"));
    for key in killed {
        place.lake.objects().delete(&object_store::path::Path::from(key.as_str())).await.expect("deleted");
    }
    take(&place).await;
    assert_eq!(stored(&place).await.len(), BATCH_READINGS);
    let (again, _) = import_text(&place, &text, map()).await;
    assert_eq!((again.landed, again.batches), (2, 3));
    take(&place).await;
    let rows = stored(&place).await;
    let values: Vec<_> = rows.iter().map(|row| row.1).collect();
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let wanted: Vec<_> = (0..count).map(|number| Some(number as f64)).collect();
    assert!(values == wanted, "each reading once, in order");
}

/// Both days of summer time, in files that go forward and in those that go back.
#[tokio::test]
async fn the_double_hour_is_told_apart_by_the_lines_around_it() {
    let wanted: Vec<i64> = (0..6).map(|hour| us("2025-10-25T23:00:00Z") + hour * HOUR_US).collect();
    let civil = ["01:00", "02:00", "02:00", "03:00", "04:00", "05:00"].map(|clock| format!("2025-10-26 {clock}"));
    for backward in [false, true] {
        let place = Place::new();
        let mut lines: Vec<_> = civil.iter().map(|time| format!("{time},1")).collect();
        if backward {
            lines.reverse();
        }
        // Which way a file goes is known from its second time on.
        lines.insert(0, if backward { "2025-10-26 06:00,1".to_owned() } else { "2025-10-26 00:00,1".to_owned() });
        let (outcome, bad) = import_text(&place, &format!("time,a\n{}\n", lines.join("\n")), wide("a")).await;
        assert_eq!((outcome.readings, bad), (7, vec![]));
        take(&place).await;
        let times: Vec<_> = stored(&place).await.iter().map(|row| row.0).collect();
        assert!(wanted.iter().all(|time_us| times.contains(time_us)), "{times:?}");
    }
    let place = Place::new();
    let text = "time,a\n2025-10-26 02:30,1\n2025-03-30 02:30,2\n2025-10-26T02:30:00+01:00,3\n";
    let (outcome, bad) = import_text(&place, text, wide("a")).await;
    assert_eq!((outcome.readings, bad.len()), (1, 2));
    assert!(bad[0].reason.contains("twice") && bad[1].reason.contains("put forward"), "{bad:?}");
}

#[tokio::test]
async fn parquet_gives_the_same_readings() {
    let place = Place::new();
    let path = place.folder.path().join("import.parquet");
    let times = [us("2025-07-01T06:00:00Z"), us("2025-07-01T07:00:00Z"), us("2025-07-01T08:00:00Z")];
    let zoned: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC"));
    let clock: ArrayRef =
        Arc::new(TimestampMillisecondArray::from(times.map(|time| time / 1_000 + 7_200_000).to_vec()));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["2025-07-01 08:00", "2025-07-01 09:00", "2025-07-01 10:00"]));
    let values: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(f64::INFINITY)]));
    let rows = [("zoned", zoned), ("clock", clock), ("text", texts), ("a", values)];
    let rows = RecordBatch::try_from_iter(rows).expect("columns");
    let file = File::create(&path).expect("a file");
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), None).expect("a writer");
    writer.write(&rows).expect("written");
    writer.close().expect("closed");
    for column in ["zoned", "clock", "text"] {
        let map = ImportMap { time: column.to_owned(), ..wide("a") }.check("UTC").expect("a map");
        let mut heard = Heard::default();
        let outcome = import(&place.lake, &path, &map, false, &mut heard).await.expect("imported");
        assert_eq!((outcome.readings, outcome.empty, outcome.bad), (1, 1, 1), "{column}: {:?}", heard.bad);
        assert_eq!(heard.bad[0].line, 3);
        assert_eq!(outcome.times_us, Some((times[0], times[0])), "{column}");
    }
    let map = wide("b").check("UTC").expect("a map");
    let error = import(&place.lake, &path, &map, false, &mut Heard::default()).await.expect_err("no such column");
    assert!(error.to_string().contains("no column `time`"), "{error}");
}

/// A counter beyond 2⁵³ would be rounded to its neighbour, and nobody would know.
#[tokio::test]
async fn a_whole_number_that_a_float_has_not_is_a_bad_line() {
    let place = Place::new();
    let path = place.folder.path().join("import.parquet");
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["2025-07-01 08:00", "2025-07-01 09:00", "2025-07-01 10:00"]));
    let values: ArrayRef = Arc::new(Int64Array::from(vec![4_000_000_000, 1 << 53, (1 << 53) + 1]));
    let rows = RecordBatch::try_from_iter([("text", texts), ("a", values)]).expect("columns");
    let mut writer = parquet::arrow::ArrowWriter::try_new(File::create(&path).expect("a file"), rows.schema(), None)
        .expect("a writer");
    writer.write(&rows).expect("written");
    writer.close().expect("closed");
    let map = ImportMap { time: "text".to_owned(), ..wide("a") }.check("UTC").expect("a map");
    let mut heard = Heard::default();
    let outcome = import(&place.lake, &path, &map, false, &mut heard).await.expect("imported");
    assert_eq!((outcome.readings, outcome.bad), (2, 1), "{:?}", heard.bad);
    assert!(heard.bad[0].line == 3 && heard.bad[0].reason.contains("2^53"), "{:?}", heard.bad);
}

/// The register's rules hold for imports as for gateways.
#[tokio::test]
async fn the_registers_rules_hold() {
    let place = Place::new();
    let files = place.files(
        "site,name_nb\ntjern,Tjernet\n",
        "id,site,quantity,unit,kind,class,sources\ntjern/t,tjern,t,K,sample,public,\n\
         tjern/own,tjern,own,Cel,sample,public,landfall-01\ntjern/home,tjern,home,Cel,sample,personal,\n",
    );
    crate::register::register(&place.lake, &files).await.expect("registered");
    import_text(&place, "time,a\n2025-07-01,1\n", wide("a")).await;
    let long = "time,sensor,value\n2025-07-01,tjern/own,2\n2025-07-01,_system/x/y,4\n";
    let (outcome, bad) = import_text(&place, long, ImportMap::of("import:history")).await;
    assert_eq!((outcome.readings, bad.len()), (1, 1));
    assert!(bad[0].reason.contains("product"), "{bad:?}");
    take(&place).await;
    let rows = place.rows(TableName::Readings).await;
    let mut causes: Vec<_> = rows.column(4).as_string::<i32>().iter().map(|cause| cause.map(str::to_owned)).collect();
    causes.sort();
    assert_eq!(causes, [Some("not_assigned".to_owned()), Some("unit".to_owned())]);
    let mut map = wide("a");
    map.column[0].sensor = "tjern/home".to_owned();
    let (refused, _) = try_import(&place, b"time,a\n2025-07-01,1\n", map).await;
    assert!(matches!(refused, Err(ImportError::Refused { .. })), "{refused:?}");
}

/// A sensor became `personal` between two runs of one import: its lines were left out then, and all readings after them
/// got other numbers, which the landing zone refused, or took for others once its batches were gone.
#[tokio::test]
async fn numbers_do_not_depend_on_the_register() {
    let place = Place::new();
    let class = async |class: &str| {
        let files = place.files(
            "site,name_nb\ntjern,Tjernet\n",
            &format!("id,site,quantity,unit,kind,class\ntjern/t,tjern,t,Cel,sample,public\ntjern/home,tjern,home,Cel,sample,{class}\n"),
        );
        crate::register::register(&place.lake, &files).await.expect("registered");
    };
    let long = "time,sensor,value\n2025-07-01,tjern/t,2\n2025-07-01,tjern/home,3\n2025-07-02,tjern/t,4\n";
    class("personal").await;
    let (refused, _) = try_import(&place, long.as_bytes(), ImportMap::of("import:history")).await;
    let Err(ImportError::Refused { sensor, what }) = refused else { panic!("{refused:?}") };
    assert_eq!(sensor.as_str(), "tjern/home");
    assert!(what.starts_with("line 3: it is registered as `personal`"), "{what}");
    let listed = place.lake.objects().list(Some(&object_store::path::Path::from("landing")));
    let objects: Vec<_> = listed.try_collect().await.expect("listed");
    assert_eq!(objects.len(), 0, "nothing of it landed");
    class("internal").await;
    let (outcome, _) = import_text(&place, long, ImportMap::of("import:history")).await;
    assert_eq!((outcome.readings, outcome.landed), (3, 1));
    take(&place).await;
    let (again, _) = import_text(&place, long, ImportMap::of("import:history")).await;
    assert_eq!((again.epoch, again.readings, again.landed), (outcome.epoch, 3, 0));
}

/// What a lifeguard read off is a reading like others, under a source of its own.
#[tokio::test]
async fn manual_readings_are_rows_like_others() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    let text = "time,sensor,value,quality\n2025-07-01 08:00,tjern/t,18.5,1\n2025-07-02 08:00,tjern/t,19,3\n2025-07-03 08:00,tjern/t,19,8\n";
    let map = ImportMap { quality: Some("quality".to_owned()), ..ImportMap::of("manual:lifeguard") };
    let (outcome, bad) = import_text(&place, text, map).await;
    assert_eq!((outcome.readings, bad.len()), (2, 1));
    take(&place).await;
    let rows = place.rows(TableName::Readings).await;
    assert!(rows.column(6).as_string::<i32>().iter().all(|source| source == Some("manual:lifeguard")));
    assert_eq!(stored(&place).await.iter().map(|row| row.2).collect::<Vec<_>>(), [1, 3]);
    assert!(rows.column(12).as_primitive::<TimestampMicrosecondType>().value(0) > us("2026-01-01T00:00:00Z"));
}

#[test]
fn a_map_says_everything_that_is_wrong_with_it() {
    let map = ImportMap {
        separator: ";;".to_owned(),
        time_format: "%H".to_owned(),
        time_zone: Some("Oslo".to_owned()),
        ..ImportMap::of("landfall-01")
    };
    let error = map.check("UTC").expect_err("refused").to_string();
    for part in ["gateway's name", "no time zone", "does not say year", "no separator"] {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    let two = ImportMap { column: vec![wide("a").column[0].clone(), wide("b").column[0].clone()], ..wide("a") };
    assert!(two.check("UTC").expect_err("refused").to_string().contains("two columns"));
    let both = ImportMap { value: Some("value".to_owned()), ..wide("a") };
    assert!(both.check("UTC").expect_err("refused").to_string().contains("not both"));
}

/// A map that was released stays readable: this text was written by the first version.
#[test]
fn a_map_is_read_back_from_what_was_landed() {
    let text = wide("a").check("UTC").expect("a map").text;
    let golden = "version = 1\nsource = \"import:old-logger\"\ntime_zone = \"Europe/Oslo\"\ntime_format = \"iso\"\n\
        separator = \",\"\ndecimal = \"point\"\nencoding = \"utf-8\"\nskip_lines = 0\nno_value = []\ntime = \"time\"\n\n\
        [[column]]\nname = \"a\"\nsensor = \"tjern/t\"\nunit = \"Cel\"\nscale = 1.0\noffset = 0.0\n";
    assert_eq!(text, golden);
    let read = ImportMap::read(&tjern_readings::configuration::ConfigText::new("map", golden)).expect("readable");
    assert_eq!(read, wide("a"));
}

proptest! {
    /// Whatever stands in a file: each field is a reading, empty, or told with its line.
    #[test]
    fn nothing_is_dropped_silently(
        fields in prop::collection::vec(prop_oneof![
            Just(String::new()), Just("1.5".to_owned()), Just("1,5".to_owned()), Just("nan".to_owned()),
            Just("x".to_owned()), "[ -~&&[^,\"\\\\]]{0,6}",
        ], 1..30),
    ) {
        let map = wide("a").check("UTC").expect("a map");
        let mut reader = Reader::new(&map);
        let (mut readings, mut empty, mut bad) = (0, 0, 0);
        for (number, field) in (2..).zip(&fields) {
            let time = input::Cell::Text(format!("2025-07-01 08:{:02}", number % 60));
            let cell = if field.is_empty() { input::Cell::Empty } else { input::Cell::Text(field.clone()) };
            let made = reader.read(input::InputLine { number, cells: Ok(vec![time, cell]) });
            prop_assert!(made.bad.iter().all(|bad| bad.line == number));
            readings += made.readings.len();
            empty += made.empty;
            bad += made.bad.len();
        }
        prop_assert_eq!(readings + empty + bad, fields.len());
    }
}

/// `… | tjern pipeline import /dev/stdin` lost the first bytes of the header, which somebody had read to see what it is.
#[tokio::test]
async fn what_cannot_be_read_twice_is_refused() {
    let place = Place::new();
    let map = wide("t").check("UTC").expect("a map that makes sense");
    let refused = import(&place.lake, std::path::Path::new("/dev/null"), &map, false, &mut Heard::default()).await;
    let refused = refused.expect_err("no file").to_string();
    assert!(refused.contains("cannot be read twice; hint: write it into a file first"), "{refused}");
}

mod grown;
