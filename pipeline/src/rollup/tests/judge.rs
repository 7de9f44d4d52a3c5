//! The judge: plain SQL over those of some readings that count, written without a look at what it judges.
//!
//! It knows windows as a table made here from the calendar: of each hour (UTC) the window that it lies in. That holds for cities whose
//! clocks differ from UTC by whole hours.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use tjern_lake::TableName;

use super::{EXCHANGED, HOUR_US, METERS, Rolled, WRAPS_AT, civil_day, kind_by_name, rolled_of, us};

/// What a table of windows should say of these rows of `readings`.
pub(super) async fn judged(readings: &RecordBatch, name: TableName) -> Rolled {
    let context = SessionContext::new();
    let table = |batch: RecordBatch| Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table"));
    context.register_table("readings", table(readings.clone())).expect("registered");
    context.register_table("windows", table(windows(readings, name))).expect("registered");
    context.register_table("kinds", table(kinds(readings))).expect("registered");
    context.register_table("meters", table(meters())).expect("registered");
    let answer = context.sql(SQL).await.expect("planned").collect().await.expect("answered");
    let schema = answer.first().map(RecordBatch::schema);
    match schema {
        Some(schema) => rolled_of(&arrow::compute::concat_batches(&schema, &answer).expect("one schema")),
        None => Rolled::new(),
    }
}

const SQL: &str = "
WITH ranked AS (
    SELECT CAST(sensor AS VARCHAR) AS sensor, CAST(time AS BIGINT) AS at, value, quality,
        row_number() OVER (PARTITION BY sensor, time
            ORDER BY coalesce(cause IN ('not_assigned', 'unit', 'future'), false), revision DESC, received DESC,
                source DESC, epoch DESC, seq DESC) AS place
    FROM readings),
best AS (
    SELECT r.sensor, r.at, r.value, r.quality, k.kind,
        CASE WHEN k.kind IN ('interval_mean', 'interval_sum') THEN r.at - 1 ELSE r.at END AS inside
    FROM ranked r JOIN kinds k ON k.sensor = r.sensor WHERE r.place = 1),
hung AS (
    SELECT b.sensor, b.at, b.value, coalesce(m.hangs, true) AS hangs, coalesce(m.meter, 0) AS meter, b.round,
        row_number() OVER (PARTITION BY b.sensor, b.at ORDER BY m.since_us DESC) AS newest
    FROM (SELECT b.sensor, b.at, b.value, k.round FROM best b JOIN kinds k ON k.sensor = b.sensor
        WHERE b.kind = 'counter' AND b.quality < 4 AND b.value IS NOT NULL) b
    LEFT JOIN meters m ON m.sensor = b.sensor AND m.since_us <= b.at),
good AS (
    SELECT sensor, at, value, round, hangs, meter, lag(value) OVER before AS before, lag(meter) OVER before AS meter_before
    FROM hung WHERE newest = 1 WINDOW before AS (PARTITION BY sensor ORDER BY at)),
steps AS (
    SELECT sensor, at, CASE WHEN value >= before THEN value - before
        WHEN value >= 0 AND before < round AND value + round - before <= 0.25 * round THEN value + round - before
        WHEN value < 0 THEN 0.0 ELSE value END AS step
    FROM good WHERE before IS NOT NULL AND hangs AND meter = meter_before),
placed AS (
    SELECT b.sensor, w.start_us, b.quality, b.at, b.value, b.kind, s.step
    FROM best b JOIN windows w ON w.hour_us = b.inside - b.inside % 3600000000
    LEFT JOIN steps s ON s.sensor = b.sensor AND s.at = b.at),
sums AS (
    SELECT sensor, start_us, quality, count(*) AS count, count(value) AS values,
        sum(value) FILTER (WHERE kind IN ('sample', 'interval_mean', 'interval_sum')) AS sum,
        min(value) FILTER (WHERE kind NOT IN ('angle', 'state')) AS min,
        max(value) FILTER (WHERE kind NOT IN ('angle', 'state')) AS max,
        min(at) FILTER (WHERE value IS NOT NULL) AS first_at, max(at) FILTER (WHERE value IS NOT NULL) AS last_at,
        sum(step) AS increase,
        sum(sin(value * pi() / 180)) FILTER (WHERE kind = 'angle') AS sine,
        sum(cos(value * pi() / 180)) FILTER (WHERE kind = 'angle') AS cosine
    FROM placed GROUP BY sensor, start_us, quality)
SELECT s.sensor, arrow_cast(s.start_us, 'Timestamp(Microsecond, Some(\"UTC\"))') AS time, s.quality, s.count, s.values,
    s.sum, s.min, s.max, f.value AS first, arrow_cast(s.first_at, 'Timestamp(Microsecond, Some(\"UTC\"))') AS first_time,
    l.value AS last, arrow_cast(s.last_at, 'Timestamp(Microsecond, Some(\"UTC\"))') AS last_time,
    s.increase, s.sine, s.cosine
FROM sums s
LEFT JOIN best f ON f.sensor = s.sensor AND f.at = s.first_at
LEFT JOIN best l ON l.sensor = s.sensor AND l.at = s.last_at";

fn table_of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// The window of each hour that one of the readings may be in.
fn windows(readings: &RecordBatch, name: TableName) -> RecordBatch {
    let rows = crate::testing::rows_of(readings);
    let ends = rows.iter().flat_map(|row| [row.time_us, row.time_us - 1]);
    let hours: BTreeSet<i64> = ends.map(|time_us| time_us - time_us.rem_euclid(HOUR_US)).collect();
    let start = |hour_us: i64| if name == TableName::Hourly { hour_us } else { civil_day(hour_us) };
    let column = |of: &dyn Fn(i64) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(hours.iter().map(|hour_us| of(*hour_us))))
    };
    table_of(vec![("hour_us", column(&|hour_us| hour_us)), ("start_us", column(&start))])
}

fn kinds(readings: &RecordBatch) -> RecordBatch {
    let rows = crate::testing::rows_of(readings);
    let sensors: BTreeSet<&str> = rows.iter().map(|row| row.sensor.as_str()).collect();
    let kinds = sensors.iter().map(|sensor| kind_by_name(sensor));
    let round = |sensor: &&str| METERS.iter().any(|meter| sensor.ends_with(meter)).then_some(WRAPS_AT);
    table_of(vec![
        ("round", Arc::new(sensors.iter().map(round).collect::<Float64Array>())),
        ("sensor", Arc::new(StringArray::from_iter_values(sensors.iter()))),
        ("kind", Arc::new(StringArray::from_iter_values(kinds))),
    ])
}

/// Since when which meter hangs there, or none does; before the first of them one hung that nobody wrote down.
fn meters() -> RecordBatch {
    let hung = |(serial, from, _): &(&str, &str, &str)| (us(from), serial.parse::<i64>().expect("a number"), true);
    let mut since: Vec<(i64, i64, bool)> = EXCHANGED.iter().map(hung).collect();
    let ends = EXCHANGED.iter().filter(|(_, _, to)| !to.is_empty()).map(|(_, _, to)| us(to));
    let ends: Vec<i64> = ends.filter(|end_us| !since.iter().any(|(from_us, ..)| from_us == end_us)).collect();
    since.extend(ends.into_iter().map(|end_us| (end_us, -end_us, false)));
    let number =
        |of: fn(&(i64, i64, bool)) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(since.iter().map(of))) };
    let name = format!("tjern/{}", METERS[1]);
    table_of(vec![
        ("sensor", Arc::new(StringArray::from(vec![name.as_str(); since.len()])) as ArrayRef),
        ("since_us", number(|one| one.0)),
        ("meter", number(|one| one.1)),
        ("hangs", Arc::new(since.iter().map(|one| Some(one.2)).collect::<BooleanArray>())),
    ])
}
