//! Closed windows: retention removed readings of them, and what was summed up is all that is left.

use std::time::Duration;

use tjern_lake::rollup::Spans;

use super::*;
use crate::maintain::retain;
use crate::testing::NOW_US;

const DAY_US: i64 = 24 * HOUR_US;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Two days of readings, one of them older than a year; rolled up, and the older one's readings gone.
async fn a_lake_that_forgot() -> (Place, [Rolled; 2]) {
    let place = Place::new();
    register_all(&place).await;
    for days in [400, 1] {
        let start = NOW_US - days * DAY_US;
        let rows = (0..48).flat_map(|slot| {
            let value = f64::from(slot) + days as f64;
            SENSORS.map(|sensor| Row::new(sensor, start + i64::from(slot) * 30 * MINUTE_US, value))
        });
        place.ingest(&rows.collect::<Vec<_>>()).await;
    }
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    let before = both(&place).await;
    assert_eq!(retain(&place.lake, YEAR, false).await.expect("removed").len(), 1);
    (place, before)
}

async fn both(place: &Place) -> [Rolled; 2] {
    [stored(place, TableName::Hourly).await, stored(place, TableName::Daily).await]
}

/// What a session says now.
pub(super) async fn said(place: &Place, name: TableName) -> Rolled {
    let settings =
        tjern_lake::SessionSettings { access: tjern_lake::Access::Staff, timezone: oslo(), memory_bytes: 256 << 20 };
    let session = tjern_lake::session(&place.lake, &settings).await.expect("a session");
    let rows = session.sql(&format!("SELECT * FROM {name}")).await.expect("planned").collect().await.expect("answered");
    let schema = tjern_lake::schema::arrow(name);
    let rows: Vec<_> = rows.iter().map(|batch| crate::tables::conform(batch, &schema).expect("its columns")).collect();
    rolled_of(&arrow::compute::concat_batches(&schema, &rows).expect("one schema"))
}

fn assert_both(one: &[Rolled; 2], other: &[Rolled; 2], what: &str) {
    one.iter().zip(other).for_each(|(one, other)| assert_same(one, other, what));
}

/// One reading that comes a year late must not take the place of a day of them.
#[tokio::test]
async fn a_late_reading_does_not_take_the_place_of_a_whole_day() {
    let (place, before) = a_lake_that_forgot().await;
    let late = SENSORS.map(|sensor| Row::new(sensor, NOW_US - 400 * DAY_US + 5 * MINUTE_US, 99.0));
    place.ingest(&late).await;
    let now = [said(&place, TableName::Hourly).await, said(&place, TableName::Daily).await];
    assert_both(&now, &before, "a session, before the rollup");
    let outcome = rollup(&place.lake, &oslo()).await.expect("rolled up");
    assert_eq!((outcome.hourly.left_out, outcome.daily.left_out), (SENSORS.len(), SENSORS.len()), "it is said");
    assert_both(&both(&place).await, &before, "the tables");
    let again = rollup(&place.lake, &oslo()).await.expect("rolled up");
    assert_eq!(again.hourly.left_out, 0, "it is said once");
}

/// Where everything is computed anew, what cannot be is kept.
#[tokio::test]
async fn a_rollup_from_nothing_keeps_what_it_cannot_compute() {
    let (place, before) = a_lake_that_forgot().await;
    let fresh = SENSORS.map(|sensor| Row::new(sensor, NOW_US - 2 * HOUR_US + 5 * MINUTE_US, 3.0));
    place.ingest(&fresh).await;
    let files = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there").files();
    place.compact().await;
    for file in files {
        let path = place.folder.path().join("lake/tables/readings").join(&file.path);
        std::fs::remove_file(path).expect("removed");
    }
    // Vacuum was faster, and this process has not looked: nobody can tell what was touched.
    let lake = place.reopened();
    let outcome = rollup(&lake, &oslo()).await.expect("rolled up");
    assert!(outcome.hourly.readings_read > SENSORS.len() * 40, "everything was computed: {outcome:?}");
    let border = NOW_US - 300 * DAY_US;
    let readings = place.rows(TableName::Readings).await;
    for ((name, before), now) in [TableName::Hourly, TableName::Daily].into_iter().zip(before).zip(both(&place).await) {
        let parted = |rolled: &Rolled, old: bool| -> Rolled {
            rolled
                .iter()
                .filter(|(key, _)| (key.1 < border) == old)
                .map(|(key, sums)| (key.clone(), sums.clone()))
                .collect()
        };
        assert_same(&parted(&now, true), &parted(&before, true), "what was summed up once");
        // The first steps of counters start from values that only rollups still know.
        let mut judged = judge::judged(&readings, name).await;
        for (key, sums) in judged.iter_mut().filter(|(key, _)| key.0.ends_with("counter")) {
            sums.increase = now.get(key).and_then(|sums| sums.increase);
        }
        assert_same(&parted(&now, false), &judged, "what is there");
        let steps = |rolled: &Rolled| -> f64 { parted(rolled, false).values().filter_map(|sums| sums.increase).sum() };
        assert!(steps(&now) > 0.0);
    }
}

/// The step into the first window that is left starts from the last value that was summed up.
#[tokio::test]
async fn a_counter_steps_from_what_was_summed_up_last() {
    let (place, before) = a_lake_that_forgot().await;
    // The first hour and day that are left are computed again.
    place.ingest(&[Row::new("counter", NOW_US - DAY_US + 45 * MINUTE_US, 2.5)]).await;
    let now = [said(&place, TableName::Hourly).await, said(&place, TableName::Daily).await];
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    assert_both(&both(&place).await, &now, "the table and the session");
    let first = |rolled: &Rolled| -> (i64, Option<f64>) {
        let mut counters = rolled.iter().filter(|(key, _)| key.0.ends_with("counter") && key.1 > NOW_US - 3 * DAY_US);
        counters.next().map(|(_, sums)| (sums.count, sums.increase)).expect("there")
    };
    // From 447 (the last of the day that went) to 1 is a reset: 1, then 1 to 2; and with 2.5 in between.
    assert_eq!(first(&before[0]), (2, Some(2.0)));
    assert_eq!(first(&now[0]), (3, Some(2.5)));
}

/// What nobody has summed up yet must not go for its age.
#[tokio::test]
async fn retention_waits_for_the_rollup() {
    let (place, _) = a_lake_that_forgot().await;
    place.ingest(&[Row::new("sample", NOW_US - 500 * DAY_US, 1.0)]).await;
    assert_eq!(retain(&place.lake, YEAR, false).await.expect("looked"), []);
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    assert_eq!(retain(&place.lake, YEAR, false).await.expect("removed").len(), 1);
}

/// Whose readings are erased must not stay in the sums of days that are closed.
#[tokio::test]
async fn erasure_takes_what_was_summed_up_with_it() {
    let (place, before) = a_lake_that_forgot().await;
    let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let rows: Vec<Row> = place.readings().await.into_iter().filter(|row| row.sensor != "tjern/sample").collect();
    let rows = crate::tables::sorted(&crate::testing::batch_of(&rows), &["sensor", "time"]).expect("sorted");
    let file = tjern_lake::write_file(&place.lake, TableName::Readings, &[rows]).await.expect("written");
    let mut commit = crate::testing::commit(Operation::Erase, vec![file], table.files());
    let mut erased = tjern_lake::rollup::Spans::default();
    // A whole life, as a person may ask for.
    erased.push("tjern/sample", tjern_lake::rollup::Span { first_us: i64::MIN, last_us: i64::MAX });
    let note = erased.note().expect("one span");
    commit.notes.insert(tjern_lake::rollup::TOUCHED_NOTE.to_owned(), note);
    table.commit(commit).await.expect("committed");
    let others = |rolled: &Rolled| -> Rolled {
        let others = rolled.iter().filter(|(key, _)| key.0 != "tjern/sample");
        others.map(|(key, sums)| (key.clone(), sums.clone())).collect()
    };
    let wanted = [others(&before[0]), others(&before[1])];
    let now = [said(&place, TableName::Hourly).await, said(&place, TableName::Daily).await];
    assert_both(&now, &wanted, "a session, before the rollup");
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    assert_both(&both(&place).await, &wanted, "the tables");
}

/// A counter's five days, each of a month of its own but the last two; the readings of the first three are gone.
async fn a_counter_that_forgot() -> Place {
    let place = Place::new();
    register_all(&place).await;
    for (days, value) in [(460, 100.0), (430, 150.0), (400, 275.0), (2, 400.0), (1, 410.0)] {
        let start = NOW_US - days * DAY_US;
        let at = |minutes: i64, value: f64| Row::new("counter", start + minutes * MINUTE_US, value);
        // The good values of an hour may be of more than one quality, and the first step alone in its row or not.
        let mut rows = vec![at(0, value).quality(1), at(30, value + 1.0)];
        rows.extend((days == 400).then(|| at(45, value + 1.0).quality(1)));
        place.ingest(&rows).await;
    }
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    assert_eq!(retain(&place.lake, YEAR, false).await.expect("removed").len(), 3);
    place
}

/// The increase of each day that is left: how many days ago, and how much.
fn increases(rolled: &Rolled) -> Vec<(i64, Option<f64>)> {
    let mut days: BTreeMap<i64, Option<f64>> = BTreeMap::new();
    for ((_, start_us, _), sums) in rolled {
        let day = days.entry(-(NOW_US + HOUR_US - start_us).div_euclid(DAY_US)).or_default();
        *day = [*day, sums.increase].into_iter().flatten().reduce(|one, other| one + other);
    }
    days.into_iter().map(|(day, increase)| (-day, increase)).collect()
}

/// From and to how many days ago is erased, and what is left of the increases, by days ago.
type Erased = (i64, i64, &'static [(i64, f64)]);

const ERASED: [Erased; 4] = [
    // The one after it is closed: its row stays, and its first step starts from before.
    (440, 420, &[(460, 1.0), (400, 175.0), (2, 125.0), (1, 10.0)]),
    // The one after it is open, in another month.
    (410, 390, &[(460, 1.0), (430, 50.0), (2, 250.0), (1, 10.0)]),
    // There is nothing before the one after it.
    (470, 450, &[(430, 1.0), (400, 125.0), (2, 125.0), (1, 10.0)]),
    (9_999, 390, &[(2, 1.0), (1, 10.0)]),
];

fn assert_left(rolled: &[Rolled; 2], left: &[(i64, f64)], what: &str) {
    let left: Vec<_> = left.iter().map(|(days, increase)| (*days, Some(*increase))).collect();
    for rolled in rolled {
        assert_eq!(increases(rolled), left, "{what}");
    }
}

/// A counter's step into the window after tells the value that it started from. Whoever names the windows has them computed, and
/// the steps out of them too; where everything is computed anew, as of days of another time zone, it is the same.
#[tokio::test]
async fn an_erased_counter_leaves_no_step_behind() {
    let place = a_counter_that_forgot().await;
    assert_left(&both(&place).await, &[(460, 1.0), (430, 50.0), (400, 125.0), (2, 125.0), (1, 10.0)], "before");
    for zone in [oslo(), TimeZone::get("Europe/London").expect("known")] {
        for (from, to, left) in ERASED {
            let place = a_counter_that_forgot().await;
            let period = ("tjern/counter".to_owned(), NOW_US - from * DAY_US, NOW_US - to * DAY_US);
            let again = Again { spans: vec![period], marks: Vec::new() };
            for _ in 0..2 {
                rollup_again(&place.lake, &zone, &again, &Bounds::default()).await.expect("rolled up");
                assert_left(&both(&place).await, left, &format!("from {from} to {to} days ago, {zone:?}"));
            }
        }
    }
}

/// The same where a rollup, and before it a session, only sees the commit of the erasure.
#[tokio::test]
async fn a_step_from_what_was_erased_is_read_by_nobody() {
    for (from, to, left) in ERASED {
        let place = a_counter_that_forgot().await;
        let period = ("tjern/counter".to_owned(), NOW_US - from * DAY_US, NOW_US - to * DAY_US);
        let mut commit = crate::testing::commit(Operation::Erase, Vec::new(), Vec::new());
        let note = spans_of(&[period]).note_exactly().expect("one span");
        commit.notes.insert(tjern_lake::rollup::TOUCHED_NOTE.to_owned(), note);
        let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
        table.commit(commit).await.expect("committed");
        let now = [said(&place, TableName::Hourly).await, said(&place, TableName::Daily).await];
        assert_left(&now, left, &format!("a session: from {from} to {to} days ago"));
        rollup(&place.lake, &oslo()).await.expect("rolled up");
        assert_left(&both(&place).await, left, &format!("the tables: from {from} to {to} days ago"));
    }
}

/// More erasures than a commit can name: the closed days between them are nobody's to take away.
#[tokio::test]
async fn a_thousand_erasures_take_nothing_of_the_days_between() {
    let (place, before) = a_lake_that_forgot().await;
    let hour = |days: i64| ("tjern/sample".to_owned(), NOW_US - days * DAY_US, NOW_US - days * DAY_US + HOUR_US);
    let periods: Vec<_> = (0..1_100).map(|place| hour(402 + place * 2)).chain([hour(398)]).collect();
    let spans = spans_of(&periods);
    // The canary: a note that puts near ones together names the closed days too.
    let coarse = Spans::noted(&spans.note().expect("put together")).expect("understood");
    assert!(coarse.iter().any(|(_, spans)| spans.iter().any(|span| span.last_us - span.first_us > 300 * DAY_US)));
    assert_eq!(spans.note_exactly(), None);
    let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let commit = crate::testing::commit(Operation::Erase, Vec::new(), Vec::new());
    table.commit(commit).await.expect("committed");
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    rollup_again(&place.lake, &oslo(), &Again { spans: periods, marks: Vec::new() }, &Bounds::default())
        .await
        .expect("rolled up");
    assert_both(&both(&place).await, &before, "none of what was summed up was erased");
}

/// What came and was merged before it was summed up is in a file that looks old.
#[tokio::test]
async fn retention_waits_for_what_was_merged_meanwhile() {
    let place = Place::new();
    place.ingest(&[Row::new("sample", NOW_US - 500 * DAY_US, 1.0)]).await;
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    place.ingest(&[Row::new("sample", NOW_US - 501 * DAY_US, 1.0)]).await;
    place.compact().await;
    let every_age = place.lake.clone().of_persons();
    assert_eq!(retain(&every_age, YEAR, false).await.expect("looked"), [], "nobody has summed up one of the two");
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    // Merging and a person's word alone bring nothing that is to be summed up.
    place.compact().await;
    let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let rows = crate::tables::sorted(&place.rows(TableName::Readings).await, &["sensor", "time"]).expect("sorted");
    let file = tjern_lake::write_file(&place.lake, TableName::Readings, &[rows]).await.expect("written");
    let validated = crate::testing::commit(Operation::Validate, vec![file], table.files());
    table.commit(validated).await.expect("committed");
    place.compact().await;
    assert_eq!(retain(&every_age, YEAR, false).await.expect("removed").len(), 1);
    assert_eq!(both(&place).await.map(|rolled| rolled.len()), [2, 2]);
}

/// A closed day of New York reaches into the first open day of Oslo, and readings of both count twice: somebody has to be told.
#[tokio::test]
async fn days_of_another_time_zone_that_overlap_are_told() {
    let place = Place::new();
    register_all(&place).await;
    let start = NOW_US - 400 * DAY_US;
    let row = |hour: i64| Row::new(SENSORS[0], start + hour * HOUR_US, 1.0);
    place.ingest(&(0..12).map(row).collect::<Vec<_>>()).await;
    // This file has younger readings too, and stays.
    place.ingest(&(12..48).chain([399 * 24]).map(row).collect::<Vec<_>>()).await;
    let new_york = TimeZone::get("America/New_York").expect("known");
    let outcome = rollup(&place.lake, &new_york).await.expect("rolled up");
    assert_eq!(outcome.daily.overlapping_from_us, None);
    assert_eq!(retain(&place.lake, YEAR, false).await.expect("removed").len(), 1);
    let count = async || {
        let rows = stored(&place, TableName::Daily).await;
        rows.values().map(|sums| sums.count).sum::<i64>()
    };
    assert_eq!(
        (count().await, rollup(&place.lake, &new_york).await.expect("the same").daily.overlapping_from_us),
        (49, None)
    );
    let outcome = rollup(&place.lake, &oslo()).await.expect("rolled up");
    assert!(count().await > 49, "readings count twice");
    let closed_us = Grid::Days(new_york).window(start + 11 * HOUR_US).start_us;
    assert_eq!((outcome.hourly.overlapping_from_us, outcome.daily.overlapping_from_us), (None, Some(closed_us)));
    assert_eq!(
        rollup(&place.lake, &oslo()).await.expect("the same").daily.overlapping_from_us,
        None,
        "it is told once"
    );
}
