//! Bytes per reading and speed of each way to write each column, per family of sensors.
//!
//!     cargo run --release -- [--csv FILE]... [--scale NUMBER] [--write FOLDER]
//!
//! FILE: the numbers of one real sensor, one a line. Prints a table per family, or with --write puts the readings
//! into plain Parquet files for `compare.py`; `docs/decisions/0017-layout.md` says what was concluded from it.

mod chunk;
mod readings;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::array::{
    ArrayRef, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use chunk::{Cost, Way, cost, zstd};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::WriterProperties;
use readings::{Columns, Family, Knobs, Wanted, readings};

const DICTIONARY: usize = 4 << 20;
const PAGE: usize = 20_000;

fn ways(column: &str) -> Vec<Way> {
    let way = |name, encoding, compression| Way {
        name,
        encoding,
        compression,
        dictionary_bytes: DICTIONARY,
        page_rows: PAGE,
    };
    let whole = |name, encoding, compression| Way {
        name,
        encoding,
        compression,
        dictionary_bytes: DICTIONARY,
        page_rows: 1 << 20,
    };
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
        if end
            || (at_borders && border && row - start >= rows / 4)
            || (full && (!at_borders || row - start >= 4 * rows))
        {
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
                println!(
                    "| {name} | {} | {:.3} | {:.0} | {:.0} |",
                    way.name,
                    per(cost.bytes),
                    speed(cost.encode),
                    speed(cost.decode)
                );
            }
        }
        println!("all columns: first ways {now:.3}, best ways {least:.3} bytes a reading");
    }
}

/// What is measured: a title that is a file's name too, and the readings.
fn families(scale: f64) -> Vec<(&'static str, Columns)> {
    let knobs = Knobs::default();
    let make = |family, stations, sensors, days: f64| {
        readings(Wanted { family, stations, sensors, days: days * scale, knobs, seed: 7 })
    };
    let jitter = Wanted {
        family: Family::River,
        stations: 1,
        sensors: 10,
        days: 10.0 * scale,
        knobs: Knobs { jitter_us: 200_000, ..knobs },
        seed: 7,
    };
    vec![
        ("tarn-hourly-6-sensors-a-year", make(Family::Tarn, 2, 3, 365.0)),
        ("watt-hours-minutely-5-sensors-60-days", make(Family::Counter, 1, 5, 60.0)),
        ("mantissa-minutely-5-sensors-60-days", make(Family::Mantissa, 1, 5, 60.0)),
        ("angle-minutely-5-sensors-60-days", make(Family::Angle, 1, 5, 60.0)),
        ("river-10s-10-sensors-10-days", make(Family::River, 1, 10, 10.0)),
        ("river-10s-jitter-10-sensors-10-days", readings(jitter)),
    ]
}

fn usage() -> ! {
    eprintln!("usage: tjern-layout [--csv FILE]... [--scale NUMBER] [--write FOLDER]");
    std::process::exit(2)
}

fn main() {
    let (mut files, mut folder, mut scale) = (Vec::new(), None, 1.0);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let Some(value) = arguments.next() else { usage() };
        match flag.as_str() {
            "--csv" => files.push(value),
            "--write" => folder = Some(value),
            "--scale" => scale = value.parse().unwrap_or_else(|_| usage()),
            _ => usage(),
        }
    }
    let real = files.iter().map(|path| {
        let name =
            std::path::Path::new(path).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        (name, real(path))
    });
    let all = families(scale).into_iter().map(|(name, columns)| (name.to_owned(), columns)).chain(real);
    for (name, columns) in all {
        match &folder {
            Some(folder) => write_plain(&format!("{folder}/{name}.parquet"), &columns),
            None => show(&name, &columns),
        }
    }
}

/// A plain file, as any program would write it, for others to read.
fn write_plain(path: &str, columns: &Columns) {
    let arrays = arrays(columns).into_iter().filter(|(name, _)| !name.starts_with("received_"));
    let batch = RecordBatch::try_from_iter(arrays).expect("columns of one length");
    let properties = WriterProperties::builder().set_compression(zstd(3)).build();
    let file = std::fs::File::create(path).expect("a folder that can be written to");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("valid");
    writer.write(&batch).expect("written");
    writer.close().expect("written");
}

/// A real sensor's values, every ten minutes, under an hourly gateway's other columns.
fn real(path: &str) -> Columns {
    let text = std::fs::read_to_string(path).expect("a readable file");
    let values: Vec<Option<f64>> = text.lines().map(|line| line.trim().parse().ok()).collect();
    let days = values.len() as f64 / 144.0;
    let mut columns = readings(Wanted {
        family: Family::Tarn,
        stations: 1,
        sensors: 1,
        days: days * 6.0,
        knobs: Knobs::default(),
        seed: 7,
    });
    columns
        .time_us
        .iter_mut()
        .enumerate()
        .for_each(|(row, time_us)| *time_us = readings::START_US + row as i64 * 600_000_000);
    let rows = values.len().min(columns.value.len());
    columns.value = values;
    columns.value.truncate(rows);
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
