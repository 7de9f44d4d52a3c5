//! What everybody is told of a window of time is what `hourly` and `daily` say of it, for every kind.
//!
//! On the day that is asked for the clocks of Drammen go forward: it has 23 hours. Nobody rolled anything up here, so
//! the lake computes both tables as they are asked for.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tjern_lake::TableName;

use crate::city::{City, Served, reading, sensor};
use crate::client::get;
use crate::staff::ask;

/// The sensors, with their kinds and units: rain falls at two places.
const SENSORS: [(&str, &str, &str); 8] = [
    ("north/sample", "sample", "Cel"),
    ("north/mean", "interval_mean", "m/s"),
    ("north/rain", "interval_sum", "mm"),
    ("south/rain", "interval_sum", "mm"),
    ("north/count", "counter", "m3"),
    ("north/wind", "angle", "deg"),
    ("north/wave", "angle", "rad"),
    ("north/state", "state", "1"),
];

/// The day goes from midnight to midnight, as the city's clocks show it.
const FROM: &str = "2026-03-28T23:00:00Z";
const TO: &str = "2026-03-29T22:00:00Z";
const HOURS: usize = 23;

/// The windows of a rollup, put together as its page says; the table's name, and a condition, are yet to be named.
fn summed(table: &str, condition: &str) -> String {
    format!(
        "SELECT r.sensor, r.time, sum(r.\"values\") AS count, min(r.min) AS low, max(r.max) AS high, \
             CASE s.kind WHEN 'interval_sum' THEN sum(r.sum) \
                 WHEN 'counter' THEN last_value(r.last ORDER BY r.last_time) \
                 WHEN 'state' THEN last_value(r.last ORDER BY r.last_time) \
                 WHEN 'angle' THEN atan2(sum(r.sine), sum(r.cosine)) \
                     / CASE s.unit WHEN 'rad' THEN 1 ELSE pi() / 180 END \
                 ELSE sum(r.sum) / sum(r.\"values\") END AS value \
         FROM {table} r JOIN sensors s ON s.id = r.sensor \
         WHERE r.quality BETWEEN 1 AND 3 AND {condition} \
         GROUP BY r.sensor, r.time, s.kind, s.unit"
    )
}

fn moment(quarter: i32) -> String {
    let from: Timestamp = FROM.parse().expect("a time");
    (from + SignedDuration::from_secs(i64::from(quarter) * 900)).to_string()
}

fn value(sensor: &str, quarter: i32) -> f64 {
    match sensor {
        "north/sample" => f64::from(quarter % 7) - 1.5,
        "north/mean" => f64::from(quarter % 5) + 2.0,
        "north/rain" => f64::from(quarter % 6) / 2.0,
        "south/rain" => f64::from(quarter % 4) / 4.0,
        // It is reset in the middle of the day.
        "north/count" if quarter < 50 => 300.0 + 3.0 * f64::from(quarter),
        "north/count" => 2.0 * f64::from(quarter - 50),
        "north/wind" if quarter % 2 == 0 => 350.0,
        "north/wind" => 10.0,
        "north/wave" => 1.0 + f64::from(quarter % 4) / 8.0,
        _ => f64::from(quarter % 3),
    }
}

async fn registered() -> City {
    let city = City::empty();
    let of_kind = |(id, kind, unit): (&str, &str, &str)| {
        let mut row = sensor(id, "public", "15min");
        (row["kind"], row["unit"]) = (kind.into(), unit.into());
        (row["low"], row["high"]) = (json!(-1000.0), json!(1000.0));
        row
    };
    city.add(TableName::Sensors, &SENSORS.map(of_kind)).await;
    city
}

fn row(sensor: &str, time: &str, value: f64, quality: i8, seq: i64) -> Value {
    let mut row = reading(sensor, 0, Some(value), quality, seq);
    row["time"] = time.into();
    row
}

type Windows = BTreeMap<(String, String), Option<f64>>;

/// A column of an answer, by sensor and time.
fn column(answer: &Value, name: &str) -> Windows {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_else(|| panic!("no {key} in {row}")).to_owned();
    let rows = answer.as_array().unwrap_or_else(|| panic!("no rows: {answer}"));
    rows.iter().map(|row| ((text(row, "sensor"), text(row, "time")), row[name].as_f64())).collect()
}

/// The same by sensor alone.
fn without_time(windows: Windows) -> Windows {
    windows.into_iter().map(|((sensor, _), value)| ((sensor, String::new()), value)).collect()
}

fn assert_same(what: &str, told: &Windows, summed: &Windows) {
    assert_eq!(told.keys().collect::<Vec<_>>(), summed.keys().collect::<Vec<_>>(), "{what}");
    for (window, told) in told {
        let summed = summed[window];
        let apart = match (told, summed) {
            (Some(told), Some(summed)) => (told - summed).abs(),
            (None, None) => 0.0,
            _ => f64::INFINITY,
        };
        // One number of a direction is as good as the other, a round further.
        let apart = if window.0 == "north/wind" { apart.min((apart - 360.0).abs()) } else { apart };
        assert!(apart < 1e-9, "{what} of {window:?}: {told:?}, but {summed:?}");
    }
}

/// The answers of a named query to each of these parameters, as one.
async fn told(served: &Served, query: &str, parameters: &[String], every: &str) -> Value {
    let mut all = Vec::new();
    for parameter in parameters {
        let path = format!("/api/query/{query}?{parameter}&every={every}&from={FROM}&to={TO}");
        let reply = get(served.public, &path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        all.extend(reply.json().as_array().cloned().unwrap_or_default());
    }
    Value::Array(all)
}

/// The public number of an hour was another one than the staff's: rain fell an hour late, and northern wind came from
/// the south.
#[tokio::test]
async fn what_is_told_of_a_window_is_what_the_rollups_say() {
    let city = registered().await;
    let mut rows = Vec::new();
    for (id, ..) in SENSORS {
        // From an hour before the day to an hour after it, both ends included.
        for quarter in -4..=96 {
            let seq = i64::try_from(rows.len()).expect("few") + 1;
            // A few have failed.
            let quality = if quarter % 10 == 3 { 4 } else { 2 };
            rows.push(row(id, &moment(quarter), value(id, quarter), quality, seq));
        }
    }
    city.add(TableName::Readings, &rows).await;
    let served = city.serve().await;
    let hours = format!("r.time >= '{FROM}' AND r.time < '{TO}'");
    let hourly = ask(&served, &summed("hourly", &hours)).await.json();
    let daily = ask(&served, &summed("daily", &format!("r.time = '{FROM}'"))).await.json();
    assert_eq!(column(&hourly, "value").len(), HOURS * SENSORS.len());
    assert_eq!(column(&daily, "value").len(), SENSORS.len());

    let sensors = SENSORS.map(|(id, ..)| format!("sensor={id}"));
    let sites = ["north", "south"].map(|site| format!("site={site}"));
    let quantities =
        ["sample", "mean", "rain", "count", "wind", "wave", "state"].map(|name| format!("quantity={name}"));
    for (query, parameters, columns) in [
        ("windows", &sensors[..], &["count", "low", "high", "value"][..]),
        ("place", &sites[..], &["count", "value"][..]),
        ("curves", &quantities[..], &["value"][..]),
    ] {
        let by_hour = told(&served, query, parameters, "1h").await;
        // The whole day lies in one window of so many days.
        let by_day = told(&served, query, parameters, "10000d").await;
        for name in columns {
            let what = format!("{query}: {name}");
            assert_same(&what, &column(&by_hour, name), &column(&hourly, name));
            let (told, summed) = (without_time(column(&by_day, name)), without_time(column(&daily, name)));
            assert_same(&what, &told, &summed);
        }
    }
}

/// A shower until midnight was told as the next day's.
#[tokio::test]
async fn an_interval_is_told_in_the_window_in_which_it_lies() {
    let city = registered().await;
    let rows = [
        row("north/rain", "2026-03-28T00:00:00Z", 7.0, 2, 1),
        row("north/rain", "2026-03-29T00:00:00Z", 10.0, 2, 2),
        row("south/rain", "2026-03-28T23:45:00Z", 2.0, 2, 3),
        row("south/rain", "2026-03-29T00:00:00Z", 3.0, 2, 4),
    ];
    city.add(TableName::Readings, &rows).await;
    let served = city.serve().await;
    let rain = async |from: &str, to: &str| {
        let days = format!("from={from}T00:00:00Z&to={to}T00:00:00Z");
        get(served.public, &format!("/api/query/curves?quantity=rain&every=1d&format=csv&{days}")).await.body
    };
    assert_eq!(
        rain("2026-03-28", "2026-03-29").await,
        "sensor,time,value\nnorth/rain,2026-03-28T00:00:00Z,10.0\nsouth/rain,2026-03-28T00:00:00Z,5.0\n"
    );
    assert_eq!(rain("2026-03-29", "2026-03-30").await, "sensor,time,value\n");
}

/// The mean of 350° and 10° was told as 360° or as 180°, and that of two opposite winds as 90°.
#[tokio::test]
async fn a_mean_direction_is_below_a_whole_round_or_none() {
    let city = registered().await;
    let rows = [
        row("north/wind", "2026-03-29T05:10:00Z", 350.0, 2, 1),
        row("north/wind", "2026-03-29T05:20:00Z", 10.0, 2, 2),
        row("north/wind", "2026-03-29T06:10:00Z", 0.0, 2, 3),
        row("north/wind", "2026-03-29T06:20:00Z", 180.0, 2, 4),
        row("north/wind", "2026-03-29T07:10:00Z", 200.0, 2, 5),
        row("north/wind", "2026-03-29T07:20:00Z", 220.0, 2, 6),
    ];
    city.add(TableName::Readings, &rows).await;
    let served = city.serve().await;
    for (query, parameter) in [("windows", "sensor=north/wind"), ("place", "site=north"), ("curves", "quantity=wind")] {
        let rows = told(&served, query, &[parameter.to_owned()], "1h").await;
        let directions: Vec<_> = column(&rows, "value").into_values().collect();
        let [Some(north), None, Some(south_west)] = directions[..] else { panic!("{query}: {rows}") };
        assert!((0.0..1e-6).contains(&north), "{query}: {rows}");
        assert!((south_west - 210.0).abs() < 1e-9, "{query}: {rows}");
    }
}
