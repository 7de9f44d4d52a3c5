//! Bounded work: what a rollup reads and computes follows from what came, and not from what lies there.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tjern_readings::store::Store;

use super::*;
use crate::testing::NOW_US;

/// A store that counts the bytes that are read of data files.
#[derive(Debug)]
struct Weighed {
    objects: Arc<dyn ObjectStore>,
    read: Arc<AtomicU64>,
}

impl Weighed {
    fn add(&self, location: &Path, bytes: u64) {
        if location.as_ref().ends_with(".parquet") {
            self.read.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for Weighed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(formatter)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Weighed {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.objects.get_opts(location, options).await?;
        self.add(location, got.range.end - got.range.start);
        Ok(got)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.add(location, ranges.iter().map(|range| range.end - range.start).sum());
        self.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

const DAY_US: i64 = 24 * HOUR_US;

/// A sealed file a month of 30 days, of every kind of sensor every half hour, the last one first.
async fn months(place: &Place, months: i64) {
    for month in 0..months {
        let start = NOW_US - (month + 1) * 30 * DAY_US;
        let slots = (0..30 * 48).map(|slot| (slot, start + slot * 30 * MINUTE_US));
        let rows: Vec<Row> = slots
            .flat_map(|(slot, time_us)| SENSORS.map(|sensor| Row::new(sensor, time_us, f64::from(slot as i32 % 37))))
            .collect();
        place.seal(&rows).await;
    }
}

/// What a run costs: its outcome and the bytes of data files that it read.
async fn cost_of_one(place: &Place, late: &Row) -> (RollupOutcome, u64) {
    let read = Arc::new(AtomicU64::new(0));
    let objects = Arc::new(Weighed { objects: place.lake.objects(), read: Arc::clone(&read) });
    let lake = Lake::over(Store::over(objects, place.lake.store().url().clone())).with_clock(place.clock.clone());
    // A process that has been at work.
    rollup(&lake, &oslo()).await.expect("rolled up");
    place.ingest(std::slice::from_ref(late)).await;
    // Another process committed that: the look at `readings` that this one has may be so old.
    place.clock.set_us(place.clock.now_us() + i64::try_from(LOOK.as_micros()).expect("a minute") + 1);
    read.store(0, Ordering::Relaxed);
    let outcome = rollup(&lake, &oslo()).await.expect("rolled up");
    (outcome, read.load(Ordering::Relaxed))
}

/// One late reading, in the middle of the newest month: its own windows are read and computed, and it costs
/// the same with a month of history behind it and with eight.
#[tokio::test]
async fn a_late_reading_costs_its_own_windows_whatever_lies_there() {
    let late = |sensor: &str| Row::new(sensor, NOW_US - 15 * DAY_US + 7 * MINUTE_US, 12.5);
    let mut costs = Vec::new();
    for history in [1, 8] {
        let place = Place::new();
        register_all(&place).await;
        months(&place, history).await;
        rollup(&place.lake, &oslo()).await.expect("rolled up");
        let mut of = Vec::new();
        for sensor in ["sample", "interval_sum", "counter"] {
            of.push(cost_of_one(&place, &late(sensor)).await);
        }
        assert_exact(&place, kind_by_name).await;
        costs.push(of);
    }
    for (short, long) in costs[0].iter().zip(&costs[1]) {
        let counts = |cost: &TableOutcome| (cost.readings_read, cost.rows_computed, cost.files_written);
        assert_eq!(counts(&short.0.hourly), counts(&long.0.hourly));
        assert_eq!(counts(&short.0.daily), counts(&long.0.daily));
        assert!(
            long.1 <= short.1 + short.1 / 20,
            "{} bytes are read with eight months behind it, {} with a month",
            long.1,
            short.1
        );
    }
    let [sample, interval, counter] = costs[1].as_slice() else { panic!("three were measured") };
    // Two readings of the hour, the late one, and the one on the border.
    assert!(sample.0.hourly.readings_read <= 4 && sample.0.daily.readings_read <= 50, "{sample:?}");
    assert!(interval.0.hourly.readings_read <= 4 && interval.0.daily.readings_read <= 50, "{interval:?}");
    // And of the hour after, whose first step starts from this one; and the one before.
    assert!(counter.0.hourly.readings_read <= 7 && counter.0.daily.readings_read <= 100, "{counter:?}");
    let computed = [sample, interval, counter].map(|cost| (cost.0.hourly.rows_computed, cost.0.daily.rows_computed));
    assert_eq!(computed, [(1, 1), (1, 1), (2, 2)]);
}

/// Quality control writes a whole sealed file anew for one flag: that touches the window of that reading, and no other.
#[tokio::test]
async fn a_flag_that_changes_in_a_sealed_file_touches_its_own_window() {
    let place = Place::new();
    let lines = |high: i32| SENSORS.map(|kind| format!("{kind},deg,{kind},public,-2,{high}"));
    place.register(&lines(40).each_ref().map(String::as_str)).await;
    months(&place, 1).await;
    let odd = Row::new("sample", NOW_US - 10 * DAY_US + 11 * MINUTE_US, 39.0);
    place.ingest(std::slice::from_ref(&odd)).await;
    crate::quality::control(&place.lake).await.expect("judged");
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    place.compact().await;
    place.register(&lines(38).each_ref().map(String::as_str)).await;
    let judged = crate::quality::control(&place.lake).await.expect("judged");
    assert_eq!(judged.files_rewritten, 1);
    let outcome = rollup(&place.lake, &oslo()).await.expect("rolled up");
    // The odd one fails now, and its hour has a row of that quality.
    assert!((1..=4).contains(&outcome.hourly.rows_computed), "{outcome:?}");
    assert!(outcome.hourly.readings_read <= 12 && outcome.daily.readings_read <= 150, "{outcome:?}");
    assert_exact(&place, kind_by_name).await;
}
