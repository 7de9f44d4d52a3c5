//! A month that does not fit into memory is summed up a portion at a time: as if it had fitted.

use super::*;

/// A reading every seven minutes of each kind of sensor, over the border of a month and over the day on which clocks are set
/// forward. Counters fall back now and then, some values are missing, some failed.
fn story() -> Vec<Row> {
    let start = us("2026-03-20T00:00:00Z");
    let row = |quantity: &'static str, slot: i64| {
        let value = f64::from(i32::try_from(slot * 37 % 911).expect("small")) / 4.0;
        let row = Row::new(quantity, start + slot * 7 * MINUTE_US, (slot % 17 != 0).then_some(value));
        if slot % 17 != 0 && slot % 13 == 0 { row.quality(4) } else { row }
    };
    let rows = SENSORS.into_iter().flat_map(|quantity| (0..3_000).map(move |slot| row(quantity, slot)));
    rows.zip(1..).map(|(row, seq)| Row { seq, ..row }).collect()
}

/// A window that was cut in two stood there twice, or half of it; a counter that was cut lost the step between.
#[tokio::test]
async fn what_does_not_fit_is_summed_up_as_if_it_did() {
    let place = Place::new();
    register_all(&place).await;
    let bounds = Bounds { memory_bytes: 4 << 20, ..Bounds::default() };
    let rows = story();
    place.ingest(&rows).await;
    let outcome = rollup_within(&place.lake, &oslo(), &bounds).await.expect("done");
    assert!(outcome.hourly.readings_read >= rows.len(), "{outcome:?}");
    assert_exact(&place, kind_by_name).await;
    // Some of each sensor and of each day: the other windows stay, and are merged with those that come.
    let corrected = rows.iter().zip(20_000..).filter(|(row, _)| row.seq % 150 == 0);
    let corrected = corrected.map(|(row, seq)| Row { seq, value: row.value.map(|value| value + 1.0), ..row.clone() });
    place.ingest(&corrected.map(|row| row.revision(1)).collect::<Vec<_>>()).await;
    let outcome = rollup_within(&place.lake, &oslo(), &bounds).await.expect("done");
    assert!(outcome.hourly.readings_read < rows.len() / 2, "{outcome:?}");
    assert_exact(&place, kind_by_name).await;
}
