//! Encoding and decoding of a batch: what a gateway does once a minute, and ingest for each batch.
//!
//! Rows are as a gateway makes them: some sensors in turn on one grid, values that change slowly and
//! have two decimals, now and then a reading without a value. `docs/measurements.md` says how to run it.

use std::hint::black_box;
use std::ops::Deref;

use criterion::{BenchmarkId, Criterion, Throughput};
use tjern_readings::batch::{decode, encode};
use tjern_readings::reading::{Cause, Reading};
use tjern_readings::sensor::{Epoch, SensorId, SourceName};

const SENSORS: usize = 40;
const START_US: i64 = 1_751_328_000_000_000;
const EVERY_US: i64 = 60_000_000;

/// How many readings a batch has: a gateway seals at most 50,000, other writers may send more.
const COUNTS: [usize; 2] = [10_000, 100_000];

fn readings(count: usize) -> Vec<Reading> {
    let sensors: Vec<SensorId> =
        (0..SENSORS).map(|index| format!("site-{index}/water_temperature").parse().expect("a valid id")).collect();
    (0..count).map(|row| reading(&sensors[row % SENSORS], row)).collect()
}

fn reading(sensor: &SensorId, row: usize) -> Reading {
    let slot = i64::try_from(row / SENSORS).expect("small");
    let time_us = START_US + slot * EVERY_US;
    if row.is_multiple_of(997) {
        return Reading::missing(sensor.clone(), time_us, Cause::Timeout);
    }
    let hundredths = 1_500 + (slot * 7 + i64::try_from(row % SENSORS).expect("small") * 31) % 900;
    Reading::of(sensor.clone(), time_us, f64::from(i32::try_from(hundredths).expect("small")) / 100.0)
}

fn encoded(source: &SourceName, readings: &[Reading]) -> impl Deref<Target = [u8]> + use<> {
    encode(source, Epoch::from_bytes([7; 16]), 1, readings, None).expect("memory suffices").0
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let source: SourceName = "bench-01".parse().expect("a valid name");
    let mut group = criterion.benchmark_group("batch");
    for count in COUNTS {
        let rows = readings(count);
        let file = encoded(&source, &rows);
        let checked = decode(&file).expect("what was encoded is readable").readings().expect("valid");
        assert_eq!(checked, rows, "a benchmark of something that works");
        eprintln!("batch of {count} readings: {} bytes", file.len());
        group.throughput(Throughput::Elements(u64::try_from(count).expect("small")));
        group.bench_with_input(BenchmarkId::new("encode", count), &rows, |bencher, rows| {
            bencher.iter(|| encoded(&source, black_box(rows)));
        });
        group.bench_with_input(BenchmarkId::new("decode", count), &file, |bencher, file| {
            bencher.iter(|| decode(black_box(file)).expect("readable"));
        });
    }
    group.finish();
    criterion.final_summary();
}
