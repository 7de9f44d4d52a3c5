//! A file that grew is imported each night: what is in it already stays as it is, with what a person said of it.

use super::*;
use crate::correct::Author;
use crate::correct::recompute::Period;
use crate::correct::revise::{ReviseLayout, revise};
use crate::ingest::IngestOutcome;
use crate::quality::control;
use crate::validate::validate;

/// So many hours of a log, an hour a line.
fn log(hours: i64) -> String {
    let line = |hour: i64| format!("{},{}\n", 1_751_328_000 + hour * 3_600, 18 + hour % 3);
    format!("time,a\n{}", (0..hours).map(line).collect::<String>())
}

fn logger() -> ImportMap {
    ImportMap { time_format: "unix".to_owned(), ..wide("a") }
}

/// Imports a text and takes it.
async fn night(place: &Place, text: &str, map: ImportMap) -> IngestOutcome {
    import_text(place, text, map).await;
    taken(place).await
}

async fn taken(place: &Place) -> IngestOutcome {
    let settings =
        IngestSettings { hole_patience: Duration::from_secs(3_600), landing_grace: Duration::from_secs(600) };
    place.clock.advance_us(24 * HOUR_US);
    ingest(&place.lake, &settings).await.expect("ingested")
}

async fn validate_all(place: &Place) {
    control(&place.lake).await.expect("tested");
    let period = Period { sensor: "tjern/t".parse().expect("valid"), from_us: 0, to_us: i64::MAX };
    let author = Author { by: "the bathing water office".to_owned(), reason: None };
    validate(&place.lake, &period, &author, false).await.expect("validated");
}

/// Value and level of what counts, in the order of times.
async fn counting(place: &Place) -> Vec<(f64, i8)> {
    let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let wanted = crate::correct::Wanted { sensors: vec!["tjern/t"], from_us: 0, to_us: i64::MAX };
    let mut moments =
        crate::correct::Moments::open(&table, &wanted, &crate::bounds::Bounds::default()).await.expect("opened");
    let mut counting = Vec::new();
    while let Some(moment) = moments.next().await.expect("read") {
        counting.push((moment.newest().value.expect("a value"), moment.newest().level));
    }
    counting
}

async fn place() -> Place {
    let place = Place::new();
    place.clock.set_us(tjern_readings::clock::Clock::system().now_us() + HOUR_US);
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    place
}

/// Each night's import took back every validation, and stored the whole log once more.
#[tokio::test]
async fn a_line_more_takes_no_validation_back_and_stores_one_row() {
    let place = place().await;
    assert_eq!(night(&place, &log(48), logger()).await.rows, 48);
    validate_all(&place).await;
    let outcome = night(&place, &log(49), logger()).await;
    assert_eq!((outcome.rows, outcome.repeated, outcome.overruled), (1, 48, 0));
    assert_eq!(outcome.left_out(), ", 48 left out since they are there already");
    let counting = counting(&place).await;
    assert_eq!(counting.iter().filter(|(_, level)| *level == 2).count(), 48);
    assert_eq!((counting.len(), place.readings().await.len()), (49, 49));
    // All of it is done: nothing waits, and the same file again is nothing new.
    let (again, _) = import_text(&place, &log(49), logger()).await;
    assert_eq!((again.landed, taken(&place).await.batches), (0, 0));
}

/// It counts, as whatever is received later, and nobody was told whose word it took the place of.
#[tokio::test]
async fn another_value_counts_and_says_how_many_validations_do_not() {
    let place = place().await;
    night(&place, &log(4), logger()).await;
    validate_all(&place).await;
    let outcome = night(&place, &log(4).replace(",19\n", ",21\n"), logger()).await;
    assert_eq!((outcome.rows, outcome.repeated, outcome.overruled), (1, 3, 1));
    assert!(outcome.left_out().contains(", 1 validations no longer count"), "{}", outcome.left_out());
    assert_eq!(counting(&place).await, [(18.0, 2), (21.0, 0), (20.0, 2), (18.0, 2)]);
    // And back again: what it said before is no repetition of what it says now.
    assert_eq!(night(&place, &format!("{}\n", log(4)), logger()).await.rows, 1);
    assert_eq!(counting(&place).await[1], (19.0, 0));
}

/// What a person revised stands over what comes in, said once more or anew: neither takes their word back.
#[tokio::test]
async fn a_revision_stands_and_its_reading_is_not_stored_again() {
    let place = place().await;
    night(&place, &log(3), logger()).await;
    let path = place.folder.path().join("revise.csv");
    let time = jiff::Timestamp::from_second(1_751_328_000).expect("a time");
    std::fs::write(&path, format!("sensor,time,value\ntjern/t,{time},17\n")).expect("written");
    let layout = ReviseLayout { separator: b',', decimal: Decimal::Point, zone: jiff::tz::TimeZone::UTC };
    let author = Author { by: "the bathing water office".to_owned(), reason: None };
    revise(&place.lake, &path, &layout, &author, false).await.expect("revised");
    validate_all(&place).await;
    let outcome = night(&place, &log(4), logger()).await;
    assert_eq!((outcome.rows, outcome.repeated, outcome.overruled), (1, 3, 0));
    let outcome = night(&place, &log(5).replacen(",18\n", ",16\n", 1), logger()).await;
    assert_eq!((outcome.rows, outcome.repeated, outcome.overruled), (2, 4 - 1, 0));
    assert_eq!(counting(&place).await[0], (17.0, 2));
}

/// Two rows of one moment in one file: the last of them is what the file says, however often it comes.
#[tokio::test]
async fn of_a_moment_that_a_file_has_twice_the_last_line_goes_on_counting() {
    let place = place().await;
    let text = format!("{}1751328000,25\n", log(2));
    assert_eq!(night(&place, &text, logger()).await.rows, 3);
    validate_all(&place).await;
    let outcome = night(&place, &format!("{text}1751342400,30\n"), logger()).await;
    assert_eq!((outcome.rows, outcome.repeated), (1, 3));
    assert_eq!(counting(&place).await, [(25.0, 2), (19.0, 2), (30.0, 0)]);
    // Two files at once, of which one is the other and a line: each moment once.
    let place = self::place().await;
    import_text(&place, &log(5), logger()).await;
    import_text(&place, &log(6), logger()).await;
    let outcome = taken(&place).await;
    assert_eq!((outcome.rows, outcome.repeated, outcome.batches), (6, 5, 2));
}

/// A row that failed by the register comes in anew once the register is right: it is not the same any more.
#[tokio::test]
async fn what_was_refused_and_would_not_be_now_comes_in() {
    let place = Place::new();
    place.clock.set_us(tjern_readings::clock::Clock::system().now_us() + HOUR_US);
    place.register(&["t,K,sample,public,-2,40"]).await;
    assert_eq!(night(&place, &log(3), logger()).await.rows, 3);
    place.register(&["t,K,sample,public,-2,40", "u,K,sample,public,-2,40"]).await;
    assert_eq!(night(&place, &log(4), logger()).await.repeated, 3, "still in another unit");
    let mut map = logger();
    map.column[0].unit = Some("K".to_owned());
    assert_eq!(night(&place, &log(5), map).await.rows, 5);
}

/// A source of another name is another word of the moment: it counts, as it did.
#[tokio::test]
async fn another_source_is_no_repetition() {
    let place = place().await;
    night(&place, &log(3), logger()).await;
    let other = ImportMap { source: "manual:lifeguard".to_owned(), ..logger() };
    assert_eq!(night(&place, &log(3), other).await.rows, 3);
    // The first source says nothing new, and does not come before the other again for it.
    assert_eq!(night(&place, &log(4), logger()).await.rows, 1);
}

/// A batch that lies there again after its grace is known, though some of its rows are not stored under its numbers.
#[tokio::test]
async fn a_batch_that_was_left_out_in_part_is_known_again() {
    let place = place().await;
    night(&place, &log(3), logger()).await;
    import_text(&place, &log(4), logger()).await;
    let kept: Vec<_> = landed(&place).await.into_iter().filter(|key| key.ends_with(".arrow")).collect();
    let mut bytes = Vec::new();
    for key in &kept {
        let path = object_store::path::Path::from(key.as_str());
        bytes.push((path.clone(), place.lake.objects().get(&path).await.expect("there").bytes().await.expect("read")));
    }
    taken(&place).await;
    taken(&place).await;
    for (path, bytes) in bytes {
        place.lake.objects().put(&path, bytes.into()).await.expect("put back");
    }
    let outcome = taken(&place).await;
    assert_eq!((outcome.rows, outcome.quarantined), (0, 0));
    assert_eq!(place.readings().await.len(), 4);
}

/// A data file that cannot be read may hold what an import repeats: the import waits, and everybody else's readings come in.
#[tokio::test]
async fn where_it_cannot_be_found_out_the_import_alone_waits() {
    let place = place().await;
    night(&place, &log(3), logger()).await;
    let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let file = tjern_readings::keys::table("readings").join(table.files()[0].path.as_str());
    let whole = place.lake.objects().get(&file).await.expect("there").bytes().await.expect("read");
    place.lake.objects().delete(&file).await.expect("deleted");
    place.lake.objects().put(&file, Bytes::from(vec![0; whole.len()]).into()).await.expect("put");
    import_text(&place, &log(4), logger()).await;
    let source: SourceName = "landfall-01".parse().expect("a source");
    let reading = Reading::of("tjern/u".parse().expect("valid"), us("2025-07-01T00:00:00Z"), 7.0);
    let (bytes, made) = batch::encode(&source, Epoch::from_bytes([7; 16]), 1, &[reading], None).expect("encoded");
    let key = Landed::Batch(Epoch::from_bytes([7; 16]), made.header.bounds).key(&source);
    place.lake.objects().put(&key, bytes.into()).await.expect("put");
    let settings =
        IngestSettings { hole_patience: Duration::from_secs(3_600), landing_grace: Duration::from_secs(600) };
    let error = ingest(&place.reopened(), &settings).await.expect_err("one is held back");
    let crate::ingest::IngestError::HeldBack { outcome, count, why } = error else { panic!("{error}") };
    assert_eq!((outcome.rows, count), (1, 1), "{why}");
    assert!(why.contains("which of its readings are there already"), "{why}");
    // It is mended, and the import goes on.
    place.lake.objects().delete(&file).await.expect("deleted");
    place.lake.objects().put(&file, whole.into()).await.expect("put back");
    let outcome = ingest(&place.reopened(), &settings).await.expect("ingested");
    assert_eq!((outcome.rows, outcome.repeated), (1, 3));
}

/// Imported in the wrong unit before anybody registered the sensor, and once more in the right one: the first line failed the first words,
/// and the second ones had been left out as repetitions.
#[tokio::test]
async fn a_unit_that_is_put_right_before_the_first_line_is_there_when_it_comes() {
    let place = Place::new();
    place.clock.set_us(tjern_readings::clock::Clock::system().now_us() + HOUR_US);
    place.register(&["other,Cel,sample,public,-2,40"]).await;
    let mut wrong = logger();
    wrong.column[0].unit = Some("K".to_owned());
    assert_eq!(night(&place, &log(4), wrong).await.rows, 4);
    let outcome = night(&place, &log(4), logger()).await;
    assert_eq!((outcome.rows, outcome.repeated), (4, 0));
    place.register(&["other,Cel,sample,public,-2,40", "t,Cel,sample,public,-2,40"]).await;
    taken(&place).await;
    validate_all(&place).await;
    assert_eq!(counting(&place).await, [(18.0, 2), (19.0, 2), (20.0, 2), (18.0, 2)]);
}
