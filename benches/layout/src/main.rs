//! Bytes per reading and speed of each way to write each column, per family of sensors.
//!
//!     cargo run --release -- [--csv FILE]...      # benches/layout; FILE: numbers of one sensor, one a line
//!
//! Prints a table per family; `docs/decisions/0017-layout.md` says what was concluded from it.

mod chunk;
mod readings;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use chunk::{Cost, Way, cost, zstd};
use parquet::basic::{Compression, Encoding};
use readings::{Columns, Family, Knobs, Wanted, readings};

const DICTIONARY: usize = 4 << 20;
const PAGE: usize = 20_000;

fn ways(column: &str) -> Vec<Way> {
    let way = |name, encoding, compression| Way { name, encoding, compression, dictionary_bytes: DICTIONARY, page_rows: PAGE };
    let whole = |name, encoding, compression| Way { name, encoding, compression, dictionary_bytes: DICTIONARY, page_rows: 1 << 20 };
    match column {
        "value" => vec![
            way("dictionary zstd 3", None, zstd(3)),
            whole("dictionary zstd 3, page = group", None, zstd(3)),
            whole("dictionary zstd 9, page = group", None, zstd(9)),
            whole("dictionary lz4, page = group", None, Compression::LZ4_RAW),
            way("plain zstd 3", Some(Encoding::PLAIN), zstd(3)),
            whole("plain zstd 9, page = group", Some(Encoding::PLAIN), zstd(9)),
            way("byte-stream split zstd 3", Some(Encoding::BYTE_STREAM_SPLIT), zstd(3)),
            whole("byte-stream split zstd 3, page = group", Some(Encoding::BYTE_STREAM_SPLIT), zstd(3)),
            whole("byte-stream split zstd 9, page = group", Some(Encoding::BYTE_STREAM_SPLIT), zstd(9)),
            whole("byte-stream split lz4, page = group", Some(Encoding::BYTE_STREAM_SPLIT), Compression::LZ4_RAW),
        ],
        "time" | "seq" | "received" | "received_ms" | "received_s" => vec![
            way("delta zstd 3", Some(Encoding::DELTA_BINARY_PACKED), zstd(3)),
            whole("delta zstd 3, page = group", Some(Encoding::DELTA_BINARY_PACKED), zstd(3)),
            whole("dictionary zstd 3, page = group", None, zstd(3)),
            whole("byte-stream split zstd 3, page = group", Some(Encoding::BYTE_STREAM_SPLIT), zstd(3)),
            whole("plain zstd 3, page = group", Some(Encoding::PLAIN), zstd(3)),
        ],
        _ => vec![way("dictionary zstd 3", None, zstd(3)), whole("dictionary zstd 3, page = group", None, zstd(3))],
    }
}

fn arrays(columns: &Columns) -> Vec<(&'static str, ArrayRef)> {
    let rows = columns.sensor.len();
    let times = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef;
    let rounded = |unit: i64| times(columns.received_us.iter().map(|us| us / unit * unit).collect());
    vec![
        ("sensor", Arc::new(StringArray::from_iter_values(&columns.sensor))),
        ("time", times(columns.time_us.clone())),
        ("value", Arc::new(Float64Array::from(columns.value.clone()))),
        ("quality", Arc::new(Int8Array::from(columns.quality.clone()))),
        ("cause", Arc::new(StringArray::from(columns.cause.clone()))),
        ("lag_ms", Arc::new(Int32Array::from(columns.lag_ms.clone()))),
        ("source", Arc::new(StringArray::from_iter_values(&columns.source))),
        ("epoch", Arc::new(StringArray::from_iter_values(&columns.epoch))),
        ("seq", Arc::new(Int64Array::from(columns.seq.clone()))),
        ("revision", Arc::new(Int16Array::from(vec![0; rows]))),
        ("level", Arc::new(Int8Array::from(vec![1; rows]))),
        ("tests", Arc::new(Int32Array::from(columns.tests.clone()))),
        ("received", times(columns.received_us.clone())),
        ("received_ms", rounded(1_000)),
        ("received_s", rounded(1_000_000)),
    ]
}

/// Row groups of a number of rows, or cut where the sensor changes once there are enough rows.
fn groups(columns: &Columns, rows: usize, at_borders: bool) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    for row in 1..=columns.sensor.len() {
        let end = row == columns.sensor.len();
        let border = end || columns.sensor[row] != columns.sensor[row - 1];
        let full = row - start >= rows;
        if end || (at_borders && border && row - start >= rows / 4) || (full && (!at_borders || row - start >= 4 * rows)) {
            groups.push(start..row);
            start = row;
        }
    }
    groups
}

fn show(title: &str, columns: &Columns) {
    let rows = columns.sensor.len();
    println!("\n## {title}: {rows} readings");
    for (cut, at_borders) in [(128 << 10, false), (128 << 10, true), (1 << 20, false)] {
        let groups = groups(columns, cut, at_borders);
        println!("\n{} row groups ({cut} rows{})", groups.len(), if at_borders { ", cut at sensors" } else { "" });
        println!("| column | way | bytes/reading | encode M/s | decode M/s |\n|---|---|---|---|---|");
        let (mut least, mut now) = (0.0, 0.0);
        for (name, array) in arrays(columns) {
            let costs: Vec<(Way, Cost)> = ways(name).into_iter().map(|way| (way, cost(&array, &groups, way))).collect();
            let per = |bytes: usize| bytes as f64 / rows as f64;
            let best = costs.iter().map(|(_, cost)| cost.bytes).min().unwrap_or(0);
            if !name.starts_with("received_") {
                least += per(best);
                now += per(costs[0].1.bytes);
            }
            for (way, cost) in costs {
                if per(cost.bytes) < 0.005 && cost.bytes != best {
                    continue;
                }
                let speed = |time: std::time::Duration| rows as f64 / time.as_secs_f64() / 1e6;
                println!("| {name} | {} | {:.3} | {:.0} | {:.0} |", way.name, per(cost.bytes), speed(cost.encode), speed(cost.decode));
            }
        }
        println!("all columns: first ways {now:.3}, best ways {least:.3} bytes a reading");
    }
}

fn main() {
    let wanted = |family, stations, sensors, days| Wanted { family, stations, sensors, days, knobs: Knobs::default(), seed: 7 };
    show("tarn, hourly, 6 sensors, a year", &readings(wanted(Family::Tarn, 2, 3, 365.0)));
    show("tarn, hourly, 6 sensors, a month", &readings(wanted(Family::Tarn, 2, 3, 30.0)));
    show("watt-hours, a minute, 5 sensors, 60 days", &readings(wanted(Family::Counter, 1, 5, 60.0)));
    show("full mantissa, a minute, 5 sensors, 60 days", &readings(wanted(Family::Mantissa, 1, 5, 60.0)));
    show("angle, a minute, 5 sensors, 60 days", &readings(wanted(Family::Angle, 1, 5, 60.0)));
    show("river, ten seconds, 10 of 100 sensors, 10 days", &readings(wanted(Family::River, 1, 10, 10.0)));
    let jitter = Wanted { knobs: Knobs { jitter_us: 200_000, ..Knobs::default() }, ..wanted(Family::River, 1, 10, 10.0) };
    show("river with the device's own time, 200 ms of jitter", &readings(jitter));
    let mut arguments = std::env::args().skip(1);
    while let (Some(flag), Some(path)) = (arguments.next(), arguments.next()) {
        assert_eq!(flag, "--csv", "usage: --csv FILE");
        show(&path, &real(&path));
    }
}

/// A real sensor's values, every ten minutes, under an hourly gateway's other columns.
fn real(path: &str) -> Columns {
    let text = std::fs::read_to_string(path).expect("a readable file");
    let values: Vec<Option<f64>> = text.lines().map(|line| line.trim().parse().ok()).collect();
    let days = values.len() as f64 / 144.0;
    let mut columns = readings(Wanted { family: Family::Tarn, stations: 1, sensors: 1, days: days * 6.0, knobs: Knobs::default(), seed: 7 });
    columns.time_us.iter_mut().enumerate().for_each(|(row, time_us)| *time_us = readings::START_US + row as i64 * 600_000_000);
    let rows = values.len().min(columns.value.len());
    columns.value = values;
    columns.value.truncate(rows);
    for length in [columns.sensor.len()] {
        assert!(length >= rows, "enough rows");
    }
    columns.sensor.truncate(rows);
    columns.time_us.truncate(rows);
    columns.quality.truncate(rows);
    columns.cause.truncate(rows);
    columns.lag_ms.truncate(rows);
    columns.source.truncate(rows);
    columns.epoch.truncate(rows);
    columns.seq.truncate(rows);
    columns.tests.truncate(rows);
    columns.received_us.truncate(rows);
    columns
}
