//! A counter that begins again, and one that is exchanged, do not go backward: who is told so of each wrap soon looks at no flag.

use super::super::flags::{Bits, FAIL, GOOD, NOT_EVALUATED, SUSPECT};
use super::super::rules::SensorRules;
use super::super::series::{Series, flags};
use super::*;
use crate::register::Kind;
use tjern_lake::rollup::{Installed, Instruments};

fn counter(wraps_at: Option<f64>) -> SensorRules {
    rules_of(SensorRow { kind: Kind::Counter, wraps_at, ..sensor(None, None) }, "tjern/t,backward,,on")
}

/// What is said of hourly values.
fn backward(rules: &SensorRules, values: &[f64]) -> Vec<i32> {
    let series = Series {
        time_us: (0..values.len()).map(|hour| NOW_US + hour as i64 * HOUR_US).collect(),
        value: values.iter().copied().map(Some).collect(),
        came: vec![NOT_EVALUATED; values.len()],
        counts: vec![true; values.len()],
    };
    flags(&series, rules).expect("flags").into_iter().map(|tests| Bits::Backward.get(tests)).collect()
}

#[test]
fn a_counter_that_begins_again_does_not_go_backward() {
    const VALUES: [f64; 4] = [65_520.0, 65_530.0, 5.0, 9.0];
    assert_eq!(backward(&counter(None), &VALUES), [NOT_EVALUATED, GOOD, SUSPECT, GOOD]);
    let register = counter(Some(65_536.0));
    assert_eq!(backward(&register, &VALUES), [NOT_EVALUATED, GOOD, GOOD, GOOD]);
    // A power cut in the middle of the round.
    assert_eq!(backward(&register, &[30_000.0, 5.0, 9.0]), [NOT_EVALUATED, SUSPECT, GOOD]);
    // A jump out and back, before it begins again and across that.
    assert_eq!(backward(&register, &[65_530.0, 60_000.0, 5.0]), [NOT_EVALUATED, FAIL, GOOD]);
    assert_eq!(backward(&register, &[65_530.0, 500.0, 20.0]), [NOT_EVALUATED, FAIL, GOOD]);
}

/// The old one said 9,000, and the new one begins at 12.
#[test]
fn a_meter_that_is_exchanged_does_not_go_backward() {
    let line = |serial: &str, from_us: i64, to_us: Option<i64>| Installed {
        instrument: None,
        serial: Some(serial.to_owned()),
        from_us,
        to_us,
    };
    let instruments =
        Instruments::of([line("1", NOW_US - HOUR_US, Some(NOW_US + HOUR_US)), line("2", NOW_US + 2 * HOUR_US, None)]);
    let exchanged = SensorRules { instruments, ..counter(None) };
    let values = [8_999.0, 9_000.0, 12.0, 13.0, 11.0];
    assert_eq!(backward(&exchanged, &values), [NOT_EVALUATED, NOT_EVALUATED, NOT_EVALUATED, GOOD, SUSPECT]);
    assert_eq!(backward(&counter(None), &values), [NOT_EVALUATED, GOOD, SUSPECT, GOOD, SUSPECT]);
    // A value that the new one's neighbours agree without is none of the old one's either.
    let values = [8_999.0, 9_000.0, 12.0, 9_001.0, 13.0];
    assert_eq!(backward(&exchanged, &values)[2..], [NOT_EVALUATED, FAIL, GOOD]);
}

/// It was flagged while nobody had written it down, and so was a good value of every wrap.
#[tokio::test]
async fn what_is_registered_later_takes_the_flags_back() {
    let place = Place::new();
    let qualities = async || {
        let mut rows = place.readings().await;
        rows.sort_by_key(|row| row.time_us);
        rows.iter().map(|row| row.quality).collect::<Vec<_>>()
    };
    place.register(&["t,1,counter,public,,"]).await;
    let rows = [8_999.0, 9_000.0, 12.0, 990.0, 4.0].into_iter().zip(0..);
    let rows: Vec<Row> = rows.map(|(value, hour)| Row::new("t", NOW_US + hour * HOUR_US, value)).collect();
    place.ingest(&rows).await;
    control(&place.lake).await.expect("done");
    assert_eq!(qualities().await, [2, 1, 3, 1, 3]);
    let installations = place.folder.path().join("installations.csv");
    std::fs::write(&installations, "sensor,installed\ntjern/t,2026-07-01T08:00:00Z\n").expect("written");
    place.clock.advance_us(HOUR_US);
    place.register(&["t,1,counter,public,,"]).await;
    assert_eq!(control(&place.lake).await.expect("done").rows_changed, 1);
    assert_eq!(qualities().await, [2, 1, 2, 1, 3]);
    place.clock.advance_us(HOUR_US);
    place.register(&["t,1,counter,public,,,1000"]).await;
    assert_eq!(control(&place.lake).await.expect("done").rows_changed, 1);
    assert_eq!(qualities().await, [2, 1, 2, 1, 1]);
    // The line was wrong.
    std::fs::write(&installations, "sensor,installed\n").expect("written");
    place.clock.advance_us(HOUR_US);
    place.register(&["t,1,counter,public,,,1000"]).await;
    control(&place.lake).await.expect("done");
    assert_eq!(qualities().await, [2, 1, 3, 1, 1]);
    assert_eq!(control(&place.lake).await.expect("done").files_rewritten, 0, "nothing to do");
}
