//! Rollups against two independent computations: a plain loop over the readings that count, and plain SQL (`judge`). What the rollup
//! says at its own version is here, what sessions say at any is in `read_rule`; `bounded` is about what it costs, `closed` about
//! windows whose readings are gone, `portions` about what does not fit into memory.

mod bounded;
mod closed;
mod judge;
mod meters;
mod portions;
mod read_rule;

use std::collections::BTreeMap;

use super::*;
use crate::testing::{Place, Row};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int8Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tjern_readings::reading::Cause;

const HOUR_US: i64 = 3_600_000_000;
const MINUTE_US: i64 = 60_000_000;

fn us(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a time").as_microsecond()
}

fn oslo() -> TimeZone {
    TimeZone::get("Europe/Oslo").expect("in the data base")
}

/// What a window says, in the order of the table's columns.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sums {
    count: i64,
    values: i64,
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    first: Option<(i64, f64)>,
    last: Option<(i64, f64)>,
    increase: Option<f64>,
    sine: Option<f64>,
    cosine: Option<f64>,
}

type Rolled = BTreeMap<(String, i64, i8), Sums>;

/// The table as it is.
async fn stored(place: &Place, name: TableName) -> Rolled {
    rolled_of(&place.rows(name).await)
}

/// Rows of windows, and a check that each key stands there once.
fn rolled_of(batch: &RecordBatch) -> Rolled {
    let column = |name: &str| batch.column_by_name(name).expect("a column");
    let number = |name: &str, row: usize| {
        let column = column(name).as_primitive::<Float64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let time = |name: &str, row: usize| {
        let column = column(name).as_primitive::<TimestampMicrosecondType>();
        column.is_valid(row).then(|| column.value(row))
    };
    let sensors = arrow::compute::cast(column("sensor"), &arrow::datatypes::DataType::Utf8).expect("text");
    let mut table = Rolled::new();
    for row in 0..batch.num_rows() {
        let key = (
            sensors.as_string::<i32>().value(row).to_owned(),
            time("time", row).expect("never null"),
            column("quality").as_primitive::<Int8Type>().value(row),
        );
        let sums = Sums {
            count: column("count").as_primitive::<Int64Type>().value(row),
            values: column("values").as_primitive::<Int64Type>().value(row),
            sum: number("sum", row),
            min: number("min", row),
            max: number("max", row),
            first: time("first_time", row).zip(number("first", row)),
            last: time("last_time", row).zip(number("last", row)),
            increase: number("increase", row),
            sine: number("sine", row),
            cosine: number("cosine", row),
        };
        assert_eq!(table.insert(key.clone(), sums), None, "{key:?} stands there twice");
    }
    table
}

/// The same by a plain loop.
fn computed(rows: &[Row], kind_of: impl Fn(&str) -> &'static str, window_of: impl Fn(i64) -> i64) -> Rolled {
    let mut winners: BTreeMap<(String, i64), &Row> = BTreeMap::new();
    for row in rows {
        let best = winners.entry((row.sensor.clone(), row.time_us)).or_insert(row);
        let rank = |row: &Row| (row.refused.is_none(), row.revision, row.received_us, row.seq);
        if rank(row) > rank(best) {
            *best = row;
        }
    }
    let add = |sum: &mut Option<f64>, number: f64| *sum = Some(sum.unwrap_or(0.0) + number);
    let mut table = Rolled::new();
    let mut last_good: BTreeMap<String, (i64, f64)> = BTreeMap::new();
    for ((sensor, time_us), row) in winners {
        let kind = kind_of(&sensor);
        let moment = if kind.starts_with("interval") { time_us - 1 } else { time_us };
        let sums = table.entry((sensor.clone(), window_of(moment), row.quality)).or_default();
        sums.count += 1;
        let Some(value) = row.value else { continue };
        sums.values += 1;
        sums.first.get_or_insert((time_us, value));
        sums.last = Some((time_us, value));
        if matches!(kind, "sample" | "interval_mean" | "interval_sum") {
            add(&mut sums.sum, value);
        }
        if !matches!(kind, "angle" | "state") {
            sums.min = Some(sums.min.map_or(value, |min| min.min(value)));
            sums.max = Some(sums.max.map_or(value, |max| max.max(value)));
        }
        if kind == "angle" {
            add(&mut sums.sine, value.to_radians().sin());
            add(&mut sums.cosine, value.to_radians().cos());
        }
        let counts = kind == "counter" && row.quality <= 3;
        let before = if counts { last_good.insert(sensor.clone(), (time_us, value)) } else { None };
        let step = before.and_then(|(before_us, before)| counted(&sensor, [before_us, time_us], [before, value]));
        if let Some(step) = step {
            add(&mut sums.increase, step);
        }
    }
    table
}

/// How far a counter went, as a person with its register at hand reckons.
fn counted(sensor: &str, [from_us, to_us]: [i64; 2], [from, to]: [f64; 2]) -> Option<f64> {
    if sensor.ends_with(METERS[1]) {
        let serial = |time_us: i64| {
            let hung =
                EXCHANGED.iter().find(|(_, from, to)| us(from) <= time_us && (to.is_empty() || time_us < us(to)));
            hung.map(|(serial, ..)| *serial)
        };
        let began = |time_us: i64| time_us >= us(EXCHANGED[0].1);
        // Nobody knows what hung there before the first line, and one did.
        let meters = [from_us, to_us].map(|time_us| if began(time_us) { serial(time_us) } else { Some("before") });
        if meters[0].is_none() || meters[0] != meters[1] {
            return None;
        }
    }
    if from <= to {
        return Some(to - from);
    }
    let is_round = METERS.iter().any(|meter| sensor.ends_with(meter)) && from < WRAPS_AT && to >= 0.0;
    let (to_the_end, since) = (WRAPS_AT - from, to);
    if is_round && to_the_end + since <= WRAPS_AT / 4.0 { Some(to_the_end + since) } else { Some(to.max(0.0)) }
}

/// Sums may differ by so much, of what was added up: the order of an addition is nobody's promise.
const RELATIVE: f64 = 1e-12;

/// Where two differ: to the bit, but for sums.
fn difference(one: &Rolled, other: &Rolled) -> Option<String> {
    for key in one.keys().chain(other.keys()) {
        let (Some(one), Some(other)) = (one.get(key), other.get(key)) else {
            return Some(format!("{key:?}: {:?} and {:?}", one.get(key), other.get(key)));
        };
        // Which zero is the least of two is nobody's promise either.
        let bits = |number: f64| if number == 0.0 { 0 } else { number.to_bits() };
        let exact = |sums: &Sums| {
            let ends = [sums.min, sums.max].map(|number| number.map(bits));
            let times = [sums.first, sums.last].map(|end| end.map(|(time_us, number)| (time_us, number.to_bits())));
            (sums.count, sums.values, ends, times)
        };
        let widest = one.min.unwrap_or(0.0).abs().max(one.max.unwrap_or(0.0).abs());
        let added = widest * one.values as f64;
        let near = |one: Option<f64>, other: Option<f64>, of: f64| match (one, other) {
            (Some(one), Some(other)) => (one - other).abs() <= RELATIVE * of,
            (one, other) => one == other,
        };
        let sums = near(one.sum, other.sum, added)
            && near(one.increase, other.increase, one.increase.unwrap_or(0.0).abs())
            && near(one.sine, other.sine, one.values as f64)
            && near(one.cosine, other.cosine, one.values as f64);
        if exact(one) != exact(other) || !sums {
            return Some(format!("{key:?}: {one:?} and {other:?}"));
        }
    }
    None
}

fn assert_same(stored: &Rolled, computed: &Rolled, what: &str) {
    assert_eq!(difference(stored, computed), None, "{what}");
}

fn civil_day(time_us: i64) -> i64 {
    let zoned = Timestamp::from_microsecond(time_us).expect("in range").to_zoned(oslo());
    zoned.date().to_zoned(oslo()).expect("a midnight").timestamp().as_microsecond()
}

async fn assert_exact(place: &Place, kind_of: impl Fn(&str) -> &'static str) {
    let batch = place.rows(TableName::Readings).await;
    let rows = crate::testing::rows_of(&batch);
    let hours = computed(&rows, &kind_of, |time_us| time_us.div_euclid(HOUR_US) * HOUR_US);
    assert_same(&stored(place, TableName::Hourly).await, &hours, "hourly");
    assert_same(&stored(place, TableName::Daily).await, &computed(&rows, &kind_of, civil_day), "daily");
    if SENSORS.iter().all(|sensor| kind_of(sensor) == *sensor) {
        for name in [TableName::Hourly, TableName::Daily] {
            assert_same(&stored(place, name).await, &judge::judged(&batch, name).await, "SQL says otherwise");
        }
    }
}

const SENSORS: [&str; 6] = ["sample", "interval_mean", "interval_sum", "counter", "angle", "state"];

/// Counters of which the register says more: both begin again at [`WRAPS_AT`], the second was exchanged.
const METERS: [&str; 2] = ["wrapping-counter", "exchanged-counter"];
const WRAPS_AT: f64 = 100.0;

/// The serial numbers of its instruments, since when and until when they hung there. One was calibrated where it hung; for some hours
/// there was none; a border is a moment of a reading.
const EXCHANGED: [(&str, &str, &str); 4] = [
    ("17", "2026-03-28T21:30:00Z", "2026-03-28T23:10:00Z"),
    ("18", "2026-03-29T02:00:00Z", "2026-03-31T22:10:00Z"),
    ("18", "2026-03-31T22:10:00Z", "2026-10-24T21:20:00Z"),
    ("19", "2026-10-24T21:20:00Z", ""),
];

/// Sensors are named by their kind.
fn kind_by_name(sensor: &str) -> &'static str {
    SENSORS.into_iter().find(|kind| sensor.ends_with(kind)).unwrap_or("sample")
}

async fn register_all(place: &Place) {
    register_within(place, "").await;
}

/// The same with plausible values.
async fn register_within(place: &Place, range: &str) {
    let range = if range.is_empty() { "," } else { range };
    let sensors = SENSORS.map(|kind| format!("{kind},deg,{kind},public,{range}"));
    let meters = METERS.map(|meter| format!("{meter},deg,counter,public,{range},{WRAPS_AT}"));
    let exchanged = EXCHANGED.map(|(serial, from, to)| format!("tjern/{},flow,{serial},{from},{to}\n", METERS[1]));
    let installations = format!("sensor,instrument,serial,installed,removed\n{}", exchanged.concat());
    std::fs::write(place.folder.path().join("installations.csv"), installations).expect("written");
    let lines: Vec<&str> = sensors.iter().chain(&meters).map(String::as_str).collect();
    place.register(&lines).await;
}

#[tokio::test]
async fn without_readings_there_is_nothing_to_do() {
    let place = Place::new();
    assert_eq!(rollup(&place.lake, &oslo()).await.expect("done"), RollupOutcome::default());
    Table::open_or_create(&place.lake, TableName::Readings).await.expect("created");
    let outcome = rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!((outcome.hourly.readings_version, outcome.hourly.files_written), (Some(0), 0));
    let version = place.version(TableName::Daily).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!(place.version(TableName::Daily).await, version, "nothing to do, and a commit");
}

#[tokio::test]
async fn civil_days_of_23_and_25_hours_are_whole() {
    let place = Place::new();
    register_all(&place).await;
    let mut rows = Vec::new();
    for (start, hours) in [("2026-03-28T23:00:00Z", 23), ("2026-10-24T22:00:00Z", 25)] {
        rows.extend((0..hours).map(|hour| Row::new("sample", us(start) + hour * HOUR_US, 1.0)));
    }
    place.ingest(&rows).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    let daily = stored(&place, TableName::Daily).await;
    let counts: Vec<_> = daily.iter().map(|((_, start_us, _), sums)| (*start_us, sums.count)).collect();
    assert_eq!(counts, [(us("2026-03-28T23:00:00Z"), 23), (us("2026-10-24T22:00:00Z"), 25)]);
    assert_exact(&place, kind_by_name).await;
}

#[tokio::test]
async fn an_interval_that_ends_at_a_border_belongs_to_the_window_before() {
    let place = Place::new();
    register_all(&place).await;
    let border = us("2026-07-01T22:00:00Z");
    place.ingest(&[Row::new("interval_sum", border, 1.5), Row::new("sample", border, 1.5)]).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    let hours: Vec<_> = stored(&place, TableName::Hourly)
        .await
        .into_keys()
        .map(|(sensor, start, _)| (sensor, start - border))
        .collect();
    assert_eq!(hours, [("tjern/interval_sum".to_owned(), -HOUR_US), ("tjern/sample".to_owned(), 0)]);
    assert_exact(&place, kind_by_name).await;
}

/// A late value lies between two windows: it changes the step into the one after it as well.
#[tokio::test]
async fn a_late_value_of_a_counter_changes_the_window_after_it() {
    let place = Place::new();
    register_all(&place).await;
    let start = us("2026-06-30T20:00:00Z");
    let at = |hour: i64, value: f64| Row::new("counter", start + hour * HOUR_US, value);
    place.ingest(&[at(0, 10.0), at(400, 3.0)]).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    place.ingest(&[at(2, 12.0)]).await;
    let outcome = rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!(outcome.hourly.rows_computed, 2);
    assert_exact(&place, kind_by_name).await;
    place.ingest(&[at(2, 999.0).revision(1).quality(4)]).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_exact(&place, kind_by_name).await;
}

/// The civil day of the last of March ends in April (UTC); no day starts there, so April is never read by itself.
#[tokio::test]
async fn a_counter_steps_from_a_value_beyond_the_month_of_its_day() {
    let place = Place::new();
    register_all(&place).await;
    let at = |time: &str, value: f64| Row::new("counter", us(time), value);
    let values = [at("2026-03-31T23:00:00Z", 1.0), at("2026-04-01T05:00:00Z", 48.0), at("2026-10-25T05:00:00Z", 96.0)];
    place.ingest(&values).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_exact(&place, kind_by_name).await;
}

/// Until it is registered a sensor counts as a sample; what came before is not left as that.
#[tokio::test]
async fn a_sensor_registered_after_its_readings_is_summed_up_again() {
    let place = Place::new();
    let start = us("2026-06-30T23:00:00Z");
    let rows = |quantity: &str| {
        (0..5)
            .map(|hour| Row::new(quantity, start + hour * HOUR_US, 300.0 + f64::from(hour as i32)))
            .collect::<Vec<_>>()
    };
    place.ingest(&SENSORS.map(rows).concat()).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_exact(&place, |_| "sample").await;
    register_all(&place).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_exact(&place, kind_by_name).await;
    let version = place.version(TableName::Hourly).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!(place.version(TableName::Hourly).await, version, "nothing to do, and a commit");
}

#[tokio::test]
async fn only_files_of_touched_months_are_rewritten() {
    let place = Place::new();
    let sample = |time: &str| Row::new("sample", us(time), 1.0);
    place
        .ingest(&[sample("2026-05-10T10:00:00Z"), sample("2026-06-10T10:00:00Z"), sample("2026-07-10T10:00:00Z")])
        .await;
    rollup(&place.lake, &oslo()).await.expect("done");
    let files = async || Table::open(&place.lake, TableName::Hourly).await.expect("opened").expect("there").files();
    let before = files().await;
    assert_eq!(before.len(), 3);
    place.ingest(&[sample("2026-06-11T10:00:00Z")]).await;
    let outcome = rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!((outcome.hourly.rows_computed, outcome.hourly.files_written), (1, 1));
    let after = files().await;
    assert_eq!(after.iter().filter(|file| before.contains(file)).count(), 2);
    assert_exact(&place, kind_by_name).await;
}

#[tokio::test]
async fn another_time_zone_makes_other_days() {
    let place = Place::new();
    place.ingest(&[Row::new("sample", us("2026-07-01T22:30:00Z"), 1.0)]).await;
    rollup(&place.lake, &TimeZone::UTC).await.expect("done");
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_exact(&place, kind_by_name).await;
}

/// Two pipelines at once: the windows stand there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_once_roll_up_once() {
    let place = Place::new();
    register_all(&place).await;
    for batch in 0..3 {
        let start = us("2026-06-30T20:00:00Z") + batch * 7 * HOUR_US;
        place.ingest(&SENSORS.map(|quantity| Row::new(quantity, start, 10.0))).await;
        let zone = oslo();
        let (one, other) = tokio::join!(rollup(&place.lake, &zone), rollup(&place.lake, &zone));
        let held = [one.expect("done"), other.expect("done")].map(|outcome| outcome.held_elsewhere);
        assert!(!(held[0] && held[1]), "one of them is at it");
        assert_exact(&place, kind_by_name).await;
    }
}

/// What was compacted before it was rolled up is not forgotten.
#[tokio::test]
async fn a_compaction_in_between_hides_nothing() {
    let place = Place::new();
    let at = |hour: i64| Row::new("sample", us("2026-06-30T20:00:00Z") + hour * HOUR_US, 1.0);
    place.ingest(&[at(0)]).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    place.ingest(&[at(1)]).await;
    place.compact().await;
    place.ingest(&[at(2)]).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_exact(&place, kind_by_name).await;
}

/// What was compacted away and vacuumed before it was rolled up cannot be read any more.
#[tokio::test]
async fn a_vacuum_that_was_faster_makes_everything_new() {
    let place = Place::new();
    let at = |hour: i64| Row::new("sample", us("2026-06-30T20:00:00Z") + hour * HOUR_US, 1.0);
    place.ingest(&[at(0)]).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    place.ingest(&[at(1)]).await;
    let files = async || Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there").files();
    let before = files().await;
    place.compact().await;
    let table = place.folder.path().join("lake/tables/readings");
    for file in before {
        std::fs::remove_file(table.join(file.path)).expect("removed");
    }
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_exact(&place, kind_by_name).await;
}

/// A value as a device sends it: small steps, of a full mantissa, of any size, −0.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (0..500_i32).prop_map(|value| f64::from(value) / 4.0),
        2 => -1e3..1e3_f64,
        1 => prop::sample::select(vec![-0.0, 0.0, 4_294_967_295.0, 1e12, -1e12, 1e-12]),
    ]
}

/// A reading around the days on which the clocks change, on a grid so that values are corrected too.
fn row() -> impl Strategy<Value = Row> {
    let starts =
        prop::sample::select(vec![us("2026-03-28T20:00:00Z"), us("2026-03-31T20:00:00Z"), us("2026-10-24T20:00:00Z")]);
    // Counters are what most can go wrong with.
    let sensor = prop::sample::select([SENSORS.as_slice(), &METERS, &METERS].concat());
    let row = (sensor, starts, 0..90_i64, prop::option::weighted(0.9, value()), 0..4_i16, 0..12_u8);
    row.prop_map(|(quantity, start, slot, value, revision, luck)| {
        let row = Row::new(quantity, start + slot * 20 * MINUTE_US, value).revision(revision);
        match luck {
            0 if value.is_some() => row.quality(4),
            1 if value.is_some() => row.quality(3),
            // What ingest refused, whatever its revision, is nobody's word where there is another.
            2 => row.refused(Cause::NotAssigned),
            3 => row.refused(Cause::Unit),
            _ => row,
        }
    })
}

/// A step of a story: some rows come in, perhaps a compaction, perhaps a rollup.
fn steps() -> impl Strategy<Value = Vec<(Vec<Row>, bool, bool)>> {
    prop::collection::vec(
        (prop::collection::vec(row(), 1..25), prop::bool::weighted(0.2), prop::bool::weighted(0.7)),
        1..5,
    )
}

/// However readings come in, late, corrected or twice: the rollups are what a plain loop says.
#[test]
fn rollups_are_exact() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // A case takes a second: few of them here, as many as PROPTEST_CASES says in a campaign.
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 6 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let told = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let place = Place::new();
            register_all(&place).await;
            let mut seq = 0;
            for (mut rows, compacted, rolled_up) in steps {
                for row in &mut rows {
                    seq += 1;
                    row.seq = seq;
                }
                place.ingest(&rows).await;
                if compacted {
                    place.compact().await;
                }
                if rolled_up {
                    rollup(&place.lake, &oslo()).await.expect("done");
                    assert_exact(&place, kind_by_name).await;
                }
            }
            rollup(&place.lake, &oslo()).await.expect("done");
            assert_exact(&place, kind_by_name).await;
        });
        Ok(())
    });
    told.unwrap_or_else(|failure| panic!("{failure}"));
}
