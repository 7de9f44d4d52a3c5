//! A person's word on readings, against real tables.

use super::*;
use crate::compact::CompactSettings;
use crate::correct::revise::{ReviseLayout, revise};
use crate::correct::utc;
use crate::quality::control;
use crate::sheet::Decimal;
use crate::testing::{NOW_US, Place, Row};

const HOUR_US: i64 = 3_600_000_000;

fn author() -> Author {
    Author { by: "the bathing water office".to_owned(), reason: None }
}

fn period(from: i64, to: i64) -> Period {
    Period { sensor: "tjern/t".parse().expect("valid"), from_us: at(from), to_us: at(to) }
}

fn at(hour: i64) -> i64 {
    NOW_US + hour * HOUR_US
}

fn row(hour: i64, value: f64) -> Row {
    Row { seq: hour + 1, ..Row::new("t", at(hour), value) }
}

async fn levels(place: &Place) -> Vec<(i64, i16, i8)> {
    let rows = place.rows(TableName::Readings).await;
    let times = rows.column(1).as_primitive::<TimestampMicrosecondType>();
    let revisions = rows.column(9).as_primitive::<Int16Type>();
    let levels = rows.column(LEVEL).as_primitive::<Int8Type>();
    let row = |row: usize| ((times.value(row) - NOW_US) / HOUR_US, revisions.value(row), levels.value(row));
    let mut levels: Vec<_> = (0..rows.num_rows()).map(row).collect();
    levels.sort_unstable();
    levels
}

#[tokio::test]
async fn the_newest_words_of_a_period_are_validated_and_nothing_else_changes() {
    let place = Place::new();
    place.ingest(&[row(0, 1.0), row(1, 2.0), row(2, 3.0), Row { seq: 9, ..Row::new("other", at(1), 5.0) }]).await;
    place.ingest(&[row(1, 2.5).revision(1)]).await;
    let before = place.readings().await;
    let outcome = validate(&place.lake, &period(1, 3), &author(), false).await.expect("validated");
    assert_eq!(outcome, ValidateOutcome { readings: 2, changed: 2, failed: 0 });
    assert_eq!(levels(&place).await, [(0, 0, 0), (1, 0, 0), (1, 0, 0), (1, 1, 2), (2, 0, 2)]);
    let sorted = |mut rows: Vec<Row>| {
        rows.sort_by(|one, other| {
            (&one.sensor, one.time_us, one.revision).cmp(&(&other.sensor, other.time_us, other.revision))
        });
        rows
    };
    assert_eq!(sorted(place.readings().await), sorted(before));
    // It is done once, and survives a compaction.
    let version = place.version(TableName::Readings).await;
    assert_eq!(validate(&place.lake, &period(1, 3), &author(), false).await.expect("the same").changed, 0);
    assert_eq!(place.version(TableName::Readings).await, version);
    place.compact().await;
    assert_eq!(levels(&place).await, [(0, 0, 0), (1, 0, 0), (1, 0, 0), (1, 1, 2), (2, 0, 2)]);
    let undone = validate(&place.lake, &period(2, 3), &author(), true).await.expect("taken back");
    assert_eq!((undone.changed, levels(&place).await[4]), (1, (2, 0, 1)));
}

/// Somebody validated before the tests were made. 210.67 °C, which would have failed, was never looked at again and published
/// as validated.
#[tokio::test]
async fn what_no_test_has_looked_at_cannot_be_validated() {
    let place = Place::new();
    place.register(&["t,Cel,sample,public,-2,40"]).await;
    place.ingest(&[row(0, 18.0), row(1, 210.67), row(2, 18.1)]).await;
    let refused = validate(&place.lake, &period(0, 3), &author(), false).await.expect_err("nobody looked").to_string();
    assert!(refused.contains("at 3 of the readings of `tjern/t`, the first at 2026-07-01T"), "{refused}");
    assert!(refused.contains("hint: `tjern pipeline quality`"), "{refused}");
    assert_eq!(levels(&place).await, [(0, 0, 0), (1, 0, 0), (2, 0, 0)]);
    control(&place.lake).await.expect("done");
    // One more came meanwhile: it is not answered for with the others.
    place.ingest(&[row(3, 99.0)]).await;
    validate(&place.lake, &period(0, 4), &author(), false).await.expect_err("one is not looked at");
    let outcome = validate(&place.lake, &period(0, 3), &author(), false).await.expect("validated");
    assert_eq!(outcome, ValidateOutcome { readings: 3, changed: 3, failed: 1 });
    control(&place.lake).await.expect("done");
    let mut rows = place.readings().await;
    rows.sort_by_key(|row| row.time_us);
    assert_eq!(rows.iter().map(|row| row.quality).collect::<Vec<_>>(), [1, 4, 1, 4]);
    assert_eq!(levels(&place).await, [(0, 0, 2), (1, 0, 2), (2, 0, 2), (3, 0, 1)]);
}

/// Who, when and why stands in the commit.
#[tokio::test]
async fn the_commit_says_who() {
    let place = Place::new();
    place.ingest(&[row(0, 1.0)]).await;
    validate(&place.lake, &period(0, 1), &author(), false).await.expect("validated");
    let version = place.version(TableName::Readings).await.expect("there");
    let log = place.folder.path().join(format!("lake/tables/readings/_delta_log/{version:020}.json"));
    let text = std::fs::read_to_string(log).expect("the commit");
    for part in [
        "\"tjern.by\":\"the bathing water office\"",
        "\"tjern.at\":\"2026-07-01T06:00:00Z\"",
        "\"tjern.from\":",
        ":validation/",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

/// A correction of what was validated is raw again: nobody has answered for it.
#[tokio::test]
async fn a_correction_is_raw_again() {
    let place = Place::new();
    place.ingest(&[row(0, 1.0)]).await;
    validate(&place.lake, &period(0, 1), &author(), false).await.expect("validated");
    let path = place.folder.path().join("revised.csv");
    std::fs::write(&path, format!("sensor,time,value\ntjern/t,{},2\n", utc(at(0)))).expect("written");
    let layout = ReviseLayout { separator: b',', decimal: Decimal::Point, zone: jiff::tz::TimeZone::UTC };
    revise(&place.lake, &path, &layout, &author(), false).await.expect("revised");
    assert_eq!(levels(&place).await, [(0, 0, 2), (0, 1, 0)]);
}

/// Somebody compacts in between: the files that were read are gone, and it is looked at again.
#[tokio::test]
async fn a_compaction_in_between_loses_no_word() {
    let place = Place::new();
    for hour in 0..8 {
        place.ingest(&[row(hour, 1.0)]).await;
    }
    let (period, author) = (period(0, 8), author());
    let validation = validate(&place.lake, &period, &author, false);
    let compaction = async {
        tokio::task::yield_now().await;
        let stop = tokio_util::sync::CancellationToken::new();
        crate::compact::compact(&place.lake, &CompactSettings::default(), &stop, &mut |_| ()).await.expect("compacted");
    };
    let (outcome, ()) = tokio::join!(validation, compaction);
    assert_eq!(outcome.expect("validated").changed, 8);
    assert_eq!(levels(&place).await, (0..8).map(|hour| (hour, 0, 2)).collect::<Vec<_>>());
}

/// While a person's word stood on a reading the rules changed. Once it is taken back the reading's flags are those of the
/// rules of its day, and so are those of its neighbours.
#[tokio::test]
async fn what_is_taken_back_is_judged_by_the_rules_of_its_day() {
    let place = Place::new();
    let sensors = ["t,Cel,sample,public,-2,40"];
    place.register(&sensors).await;
    place.ingest(&[row(0, 10.0), row(1, 10.1)]).await;
    control(&place.lake).await.expect("done");
    validate(&place.lake, &period(0, 1), &author(), false).await.expect("validated");
    let rule = "sensors,test,months,parameters\ntjern/t,climatology,7,suspect=12..25\n";
    std::fs::write(place.folder.path().join("quality.csv"), rule).expect("written");
    place.register(&sensors).await;
    control(&place.lake).await.expect("done");
    let qualities = async || {
        let mut rows = place.readings().await;
        rows.sort_by_key(|row| row.time_us);
        rows.iter().map(|row| row.quality).collect::<Vec<_>>()
    };
    assert_eq!(qualities().await, [1, 3], "a person's word stands");
    validate(&place.lake, &period(0, 1), &author(), true).await.expect("taken back");
    control(&place.lake).await.expect("done");
    assert_eq!(qualities().await, [3, 3]);
}

/// On a busy lake somebody else commits every second: what was read and written is not read and written again for that.
#[tokio::test]
async fn a_busy_lake_costs_a_validation_commits_and_not_all_its_work() {
    let place = Place::new();
    place.ingest(&[row(0, 1.0)]).await;
    let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let rewritten = rewrite(&table, &period(0, 1), false, &Bounds::default()).await.expect("written");
    let record = Record::new(&place.lake, "validate", &author(), period(0, 1).words()).with_rows(1);
    for hour in 1..4 {
        place.ingest(&[row(hour, 1.0)]).await;
    }
    assert!(commit(&mut table, &record, &rewritten).await.expect("committed"), "the same files");
    assert_eq!(levels(&place).await, [(0, 0, 2), (1, 0, 0), (2, 0, 0), (3, 0, 0)]);
    // Where somebody replaced a file, all is read again.
    let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let rewritten = rewrite(&table, &period(0, 1), true, &Bounds::default()).await.expect("written");
    let record = Record::new(&place.lake, "validate", &author(), period(0, 1).words()).with_rows(1);
    place.compact().await;
    assert!(!commit(&mut table, &record, &rewritten).await.expect("refused"));
}

/// The reply of a commit was lost, and the store's client put it once more and found it there: that was taken for somebody else's, and
/// the person was told that nothing was left to be validated.
#[tokio::test]
async fn ones_own_commit_is_nobody_elses() {
    let place = Place::new();
    place.ingest(&[row(0, 1.0)]).await;
    let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let mut behind = table.clone();
    let rewritten = rewrite(&table, &period(0, 1), false, &Bounds::default()).await.expect("written");
    let record = Record::new(&place.lake, "validate", &author(), period(0, 1).words()).with_rows(1);
    assert!(commit(&mut table, &record, &rewritten).await.expect("committed"));
    assert!(commit(&mut behind, &record, &rewritten).await.expect("it took place"));
    assert_eq!((behind.version(), levels(&place).await), (table.version(), vec![(0, 0, 2)]));
}

/// A sealed file of a sensor's ten years has more texts than one array can hold, and more rows than a server has memory. It goes
/// through in batches: a moment whose rows lie in two of them, a file that is cut, epochs that change in between.
#[tokio::test]
async fn a_file_of_many_batches_is_validated_row_for_row() {
    let place = Place::new();
    let rows = 5 * i64::try_from(BATCH_ROWS).expect("small") / 2;
    let sensors = ["a", "t", "z"];
    // Four rows a moment, of which the last is its newest word, so that every border lies within a moment.
    let row = |sensor: &str, number: i64| {
        let moment = (number + 2) / 4;
        let revision = i16::try_from((number + 2) % 4).expect("small");
        let value = f64::from(i32::try_from(number % 977).expect("small"));
        Row { seq: moment, ..Row::new(sensor, NOW_US + moment, value).revision(revision) }
    };
    let mut writer = tjern_lake::FileWriter::sealed(TableName::Readings).expect("made");
    let written: Vec<Row> =
        sensors.iter().flat_map(|sensor| (0..rows).map(move |number| row(sensor, number))).collect();
    let bounds = Bounds { file_bytes: 1 << 10, ..Bounds::default() };
    for part in written.chunks(5_000) {
        writer.write(&crate::testing::batch_of(part)).expect("written");
    }
    let file = writer.finish(&place.lake).await.expect("stored");
    assert!(file.sorted);
    let mut table = Table::open_or_create(&place.lake, TableName::Readings).await.expect("a table");
    table.commit(crate::testing::commit(Operation::Ingest, vec![file], vec![])).await.expect("committed");
    let middle = rows / 8;
    let half = Period { sensor: "tjern/t".parse().expect("valid"), from_us: NOW_US, to_us: NOW_US + middle };
    let outcome = validate_within(&place.lake, &half, &author(), false, &bounds, &CancellationToken::new())
        .await
        .expect("validated");
    let count = usize::try_from(middle).expect("small");
    assert_eq!((outcome.readings, outcome.changed), (count, count));
    table.refresh().await.expect("read");
    assert!(table.files().len() > 1, "a file is cut where it is as large as it may be");
    let after = place.rows(TableName::Readings).await;
    let levels = after.column(LEVEL).as_primitive::<Int8Type>().clone();
    let mut after: Vec<_> = crate::testing::rows_of(&after).into_iter().zip(levels.values().iter().copied()).collect();
    after.sort_by(|(one, _), (other, _)| {
        (&one.sensor, one.time_us, one.revision).cmp(&(&other.sensor, other.time_us, other.revision))
    });
    let is_newest = |number: i64| number + 1 == rows || (number + 2) % 4 == 3;
    let numbers = sensors.iter().flat_map(|_| 0..rows);
    let validated = |row: &Row, number| row.sensor == "tjern/t" && row.seq < middle && is_newest(number);
    let level = |row: &Row, number| if validated(row, number) { VALIDATED } else { 0 };
    let expected: Vec<_> = written.iter().zip(numbers).map(|(row, number)| (row.clone(), level(row, number))).collect();
    assert!(after == expected, "a row is another, or has another level");
}

/// A script validated all sensors of a tarn at once, and all of them lie in one file: each wrote it anew again and again, and those
/// that came last gave up.
#[tokio::test(start_paused = true)]
async fn many_at_once_wait_for_one_another() {
    let place = Place::new();
    let sensors: Vec<String> = (0..20).map(|number| format!("s{number:02}")).collect();
    let rows: Vec<Row> = sensors.iter().map(|sensor| Row { seq: 1, ..Row::new(sensor, at(0), 1.0) }).collect();
    place.seal(&rows).await;
    let author = author();
    let of = |sensor: &String| {
        let period = Period { sensor: format!("tjern/{sensor}").parse().expect("valid"), ..period(0, 1) };
        let (lake, author) = (&place.lake, &author);
        async move { validate(lake, &period, author, false).await }
    };
    let outcomes = futures::future::join_all(sensors.iter().map(of)).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|done| done.changed == 1)), "{outcomes:?}");
    assert!(levels(&place).await.iter().all(|(.., level)| *level == VALIDATED));
    let records = std::fs::read_dir(place.folder.path().join("lake/corrections")).expect("a folder");
    assert_eq!(records.count(), sensors.len(), "one for each, and none of what was tried in vain");
}

/// The clock of a lake goes with the runtime's.
fn ticking(place: &Place) -> tokio::task::JoinHandle<()> {
    let clock = place.clock.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            clock.advance_us(500_000);
        }
    })
}

/// Somebody waits at a terminal for what never comes: one that was killed is waited for until its lease has run out, one that goes on
/// and on for ten minutes, and then it is told.
#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_for_ever() {
    let place = Place::new();
    place.ingest(&[row(0, 1.0)]).await;
    let _ticking = ticking(&place);
    let take = async || {
        let taken = tjern_lake::Lease::take(&place.lake, crate::quality::JOB, crate::quality::LEASE).await;
        taken.expect("asked").expect("free")
    };
    let (at_work, version) = (take().await.keep(), place.version(TableName::Readings).await);
    let began = tokio::time::Instant::now();
    let refused = validate(&place.lake, &period(0, 1), &author(), false).await.expect_err("others are at work");
    assert!(refused.to_string().contains("for 10 min (the job `quality`"), "{refused}");
    assert!((turn::PATIENCE..turn::PATIENCE * 11 / 10).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(place.version(TableName::Readings).await, version);
    at_work.give_back().await.expect("given back");
    drop(take().await);
    let began = tokio::time::Instant::now();
    assert_eq!(validate(&place.lake, &period(0, 1), &author(), false).await.expect("validated").changed, 1);
    assert!(began.elapsed() < crate::quality::LEASE * 11 / 10, "{:?}", began.elapsed());
}

/// Ctrl-C at a terminal: quality control and erasures waited five minutes for a lease that nobody held any more.
#[tokio::test]
async fn one_that_is_interrupted_gives_its_lease_back() {
    let place = Place::new();
    place.ingest(&[row(0, 1.0)]).await;
    let (stop, bounds, author, period) = (CancellationToken::new(), Bounds::default(), author(), period(0, 1));
    let working = validate_within(&place.lake, &period, &author, false, &bounds, &stop);
    let lease = place.folder.path().join("lake/jobs/quality.json");
    let interrupt = async {
        for _ in 0..1_000_000 {
            if lease.exists() {
                break;
            }
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(working, interrupt);
    assert!(matches!(outcome, Err(CorrectError::Interrupted)), "{outcome:?}");
    assert!(!lease.exists());
    assert_eq!(validate(&place.lake, &period, &author, false).await.expect("validated").changed, 1);
}

/// A person's word stood over a `low` or `high` that was registered later in hours and days, and not in observations and releases, for
/// good: two sums of one day. It stands everywhere now; what nobody answers for fails everywhere.
#[tokio::test]
async fn all_say_the_same_of_what_was_validated_before_a_limit() {
    let oslo = jiff::tz::TimeZone::get("Europe/Oslo").expect("known");
    for (low, high) in [("", "10.7"), ("10.2", ""), ("12", "13")] {
        for validated in [0, 1, 3] {
            let place = Place::new();
            place.clock.advance_us(3 * HOUR_US);
            place.register(&["t,Cel,sample,public,,"]).await;
            place.ingest(&[row(0, 10.0), row(1, 10.5), row(2, 11.0)]).await;
            control(&place.lake).await.expect("judged");
            validate(&place.lake, &period(0, validated), &author(), false).await.expect("validated");
            place.register(&[format!("t,Cel,sample,public,{low},{high}").as_str()]).await;
            control(&place.lake).await.expect("judged");
            crate::rollup::rollup(&place.lake, &oslo).await.expect("rolled up");
            let is_outside = |value: f64| {
                low.parse().is_ok_and(|low: f64| value < low) || high.parse().is_ok_and(|high: f64| value > high)
            };
            let counts = |(hour, value): &(i64, f64)| *hour < validated || !is_outside(*value);
            let wanted: Vec<f64> =
                [(0, 10.0), (1, 10.5), (2, 11.0)].iter().filter(|one| counts(one)).map(|(_, value)| *value).collect();
            let sum: f64 = wanted.iter().sum();
            let what = format!("{low} to {high}, {validated} validated");
            assert_eq!(column(&place, "SELECT value FROM observations ORDER BY time").await, wanted, "{what}");
            let last = column(&place, "SELECT value FROM latest WHERE value IS NOT NULL").await;
            assert_eq!(last, wanted.last().copied().into_iter().collect::<Vec<_>>(), "{what}");
            for rollup in ["hourly", "daily"] {
                let sql = format!("SELECT coalesce(sum(sum), 0) FROM {rollup} WHERE quality < 4");
                assert_eq!(column(&place, &sql).await, [sum], "{rollup}, {what}");
            }
            assert_eq!(released(&place, &oslo).await, wanted, "a release, {what}");
        }
    }
}

/// The numbers of an answer with one column.
async fn column(place: &Place, sql: &str) -> Vec<f64> {
    let timezone = jiff::tz::TimeZone::get("Europe/Oslo").expect("known");
    let settings =
        tjern_lake::SessionSettings { access: tjern_lake::Access::Public, timezone, memory_bytes: 256 << 20 };
    let session = tjern_lake::session(&place.lake, &settings).await.expect("a session");
    let rows = session.sql(sql).await.expect("planned").collect().await.expect("answered");
    let numbers = rows.iter().flat_map(|rows| {
        let numbers = arrow::compute::cast(rows.column(0), &arrow::datatypes::DataType::Float64).expect("numbers");
        numbers.as_primitive::<arrow::datatypes::Float64Type>().values().to_vec()
    });
    numbers.collect()
}

/// The values of a release of all public sensors; none where there is nothing to publish.
async fn released(place: &Place, timezone: &jiff::tz::TimeZone) -> Vec<f64> {
    use crate::publish::{PublishOutcome, publish};
    let mut dataset = crate::config::default_publications()[0].dataset();
    (dataset.quantity, dataset.publisher) = (None, Some("Kommunen".to_owned()));
    let PublishOutcome::Published(release) = publish(&place.lake, &dataset, timezone).await.expect("published") else {
        return Vec::new();
    };
    let folder = place.folder.path().join("lake/open").join(&dataset.name).join(&release.version);
    let text = std::fs::read_dir(folder)
        .expect("a release")
        .map(|file| file.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .map(|path| std::fs::read_to_string(path).expect("a text"))
        .expect("a table");
    text.lines().skip(1).map(|line| line.rsplit(',').nth(4).expect("a value").parse().expect("a number")).collect()
}
