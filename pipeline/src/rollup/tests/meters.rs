//! Counters that begin again, and counters that are exchanged: what a bill would be wrong by.

use super::closed::said;
use super::*;
use crate::maintain::retain;
use crate::testing::NOW_US;

const DAY_US: i64 = 24 * HOUR_US;

/// Hourly values of a counter that end this many hours ago.
fn values(hours_ago: i64, values: &[f64]) -> Vec<Row> {
    let start = NOW_US - hours_ago * HOUR_US;
    values.iter().zip(0..).map(|(value, hour)| Row::new("counter", start + hour * HOUR_US, *value)).collect()
}

/// All that was counted, by hours and by days; none where nothing is known.
async fn counted(place: &Place) -> [Option<f64>; 2] {
    let mut sums = [None; 2];
    for (sum, name) in sums.iter_mut().zip([TableName::Hourly, TableName::Daily]) {
        let (stored, said) = (stored(place, name).await, said(place, name).await);
        assert_same(&stored, &said, "the table and a session");
        *sum = stored.values().filter_map(|sums| sums.increase).reduce(|one, other| one + other);
    }
    sums
}

/// The same of a session, before the rollup.
async fn said_to_be_counted(place: &Place) -> [Option<f64>; 2] {
    let mut sums = [None; 2];
    for (sum, name) in sums.iter_mut().zip([TableName::Hourly, TableName::Daily]) {
        *sum = said(place, name).await.values().filter_map(|sums| sums.increase).reduce(|one, other| one + other);
    }
    sums
}

async fn register_installed(place: &Place, lines: &str) {
    let text = format!("sensor,serial,installed,removed\n{lines}");
    std::fs::write(place.folder.path().join("installations.csv"), text).expect("written");
    place.register(&["counter,1,counter,public,,"]).await;
}

/// A pulse counter of 16 bits from 65,530 to 5: 11 pulses, and not 5.
#[tokio::test]
async fn a_counter_that_begins_again_loses_no_pulse() {
    let place = Place::new();
    place.register(&["counter,1,counter,public,,,65536"]).await;
    place.ingest(&values(5, &[65_520.0, 65_530.0, 5.0, 9.0])).await;
    assert_eq!(said_to_be_counted(&place).await, [Some(25.0); 2]);
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!(counted(&place).await, [Some(25.0); 2]);
    // A power cut, far from the end: nobody knows more than what it counted since.
    place.ingest(&values(1, &[2.0])).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!(counted(&place).await, [Some(27.0); 2]);
}

/// Two water meters: the new one said 50,000 when it was put in, and nobody used 49,000 cubic metres.
#[tokio::test]
async fn a_meter_that_is_exchanged_counts_nothing_between() {
    let place = Place::new();
    let times = [NOW_US - 100 * DAY_US, NOW_US - 3 * HOUR_US - 600_000_000, NOW_US - 2 * HOUR_US];
    let [old, removed, new] = times.map(|time_us| Timestamp::from_microsecond(time_us).expect("in range"));
    let lines = format!("tjern/counter,old,{old},{removed}\ntjern/counter,new,{new},\n");
    register_installed(&place, &lines).await;
    // 4, nobody knows (while none hung there a converter went on sending what it had), 1.
    let rows = values(5, &[996.0, 1_000.0, 1_003.0, 50_000.0, 50_001.0]);
    place.ingest(&rows).await;
    assert_eq!(said_to_be_counted(&place).await, [Some(5.0); 2]);
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!(counted(&place).await, [Some(5.0); 2]);
    let hourly = stored(&place, TableName::Hourly).await;
    let increases: Vec<_> = hourly.values().map(|sums| sums.increase).collect();
    assert_eq!(increases, [None, Some(4.0), None, None, Some(1.0)], "what is not known is not said to be nothing");
}

/// The meter was exchanged in June and written down in July; and then a line was found to be wrong. Each time, everybody says at
/// once what follows from it.
#[tokio::test]
async fn what_is_registered_later_is_summed_up_again() {
    let place = Place::new();
    place.register(&["counter,1,counter,public,,"]).await;
    place.ingest(&values(5, &[900.0, 990.0, 40.0, 50_000.0, 50_001.0])).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!(counted(&place).await, [Some(90.0 + 40.0 + 49_960.0 + 1.0); 2], "nobody told");
    let installed = Timestamp::from_microsecond(NOW_US - 2 * HOUR_US).expect("in range");
    let stories = [
        (format!("tjern/counter,new,{installed},\n"), 90.0 + 40.0 + 1.0, "counter,1,counter,public,,"),
        (String::new(), 90.0 + 40.0 + 49_960.0 + 1.0, "counter,1,counter,public,,"),
        (format!("tjern/counter,new,{installed},\n"), 90.0 + 50.0 + 1.0, "counter,1,counter,public,,,1000"),
    ];
    for (lines, wanted, sensor) in stories {
        place.clock.advance_us(MINUTE_US);
        let text = format!("sensor,serial,installed,removed\n{lines}");
        std::fs::write(place.folder.path().join("installations.csv"), text).expect("written");
        place.register(&[sensor]).await;
        assert_eq!(said_to_be_counted(&place).await, [Some(wanted); 2], "before the rollup: {lines}, {sensor}");
        rollup(&place.lake, &oslo()).await.expect("done");
        assert_eq!(counted(&place).await, [Some(wanted); 2], "{lines}, {sensor}");
        let version = place.version(TableName::Hourly).await;
        rollup(&place.lake, &oslo()).await.expect("done");
        assert_eq!(place.version(TableName::Hourly).await, version, "nothing to do, and a commit");
    }
}

/// A late value of the old meter changes nothing of the new one's, and one across the wrap changes both of its neighbours.
#[tokio::test]
async fn late_values_keep_to_their_meter() {
    let place = Place::new();
    let new = Timestamp::from_microsecond(NOW_US - 3 * HOUR_US).expect("in range");
    let text = format!("sensor,serial,installed,removed\ntjern/counter,new,{new},\n");
    std::fs::write(place.folder.path().join("installations.csv"), text).expect("written");
    place.register(&["counter,1,counter,public,,,1000"]).await;
    place.ingest(&values(10, &[100.0])).await;
    place.ingest(&values(3, &[950.0, 20.0])).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!(counted(&place).await, [Some(70.0); 2]);
    place.ingest(&values(6, &[130.0])).await;
    let late = Row::new("counter", NOW_US - 3 * HOUR_US + 30 * MINUTE_US, 10.0);
    place.ingest(&[late]).await;
    rollup(&place.lake, &oslo()).await.expect("done");
    assert_eq!(counted(&place).await, [Some(30.0 + 60.0 + 10.0); 2]);
}

/// What the register says of a counter: its line, and since how many days ago the instrument hangs there.
type Said = (&'static str, Option<i64>);

async fn register_said(place: &Place, (line, installed_days_ago): Said) {
    let installed = installed_days_ago.map(|days| {
        let from = Timestamp::from_microsecond(NOW_US - days * DAY_US).expect("in range");
        format!("tjern/counter,new,{from},\n")
    });
    let text = format!("sensor,serial,installed,removed\n{}", installed.unwrap_or_default());
    std::fs::write(place.folder.path().join("installations.csv"), text).expect("written");
    place.register(&[line]).await;
}

/// Values on three days of more than a year ago, which are closed, and what is left of their steps once the second was erased. The
/// register says one thing while they are summed up, and perhaps another one before the erasure.
async fn erased(said: Said, later: Option<Said>, values: [f64; 3]) -> Vec<Option<f64>> {
    let place = Place::new();
    register_said(&place, said).await;
    for (days, value) in [460, 430, 400].into_iter().zip(values) {
        let start = NOW_US - days * DAY_US;
        let at = |minutes: i64, value: f64| Row::new("counter", start + minutes * MINUTE_US, value);
        place.ingest(&[at(0, value), at(30, value + 1.0)]).await;
    }
    rollup(&place.lake, &oslo()).await.expect("rolled up");
    let year = std::time::Duration::from_secs(365 * 24 * 3_600);
    assert_eq!(retain(&place.lake.clone().of_persons(), year, false).await.expect("removed").len(), 3);
    if let Some(later) = later {
        place.clock.advance_us(MINUTE_US);
        register_said(&place, later).await;
        rollup(&place.lake, &oslo()).await.expect("rolled up");
    }
    let period = ("tjern/counter".to_owned(), NOW_US - 440 * DAY_US, NOW_US - 420 * DAY_US);
    let again = Again { spans: vec![period], marks: Vec::new() };
    rollup_again(&place.lake, &oslo(), &again, &Bounds::default()).await.expect("rolled up");
    let [hourly, daily] = [stored(&place, TableName::Hourly).await, stored(&place, TableName::Daily).await];
    let increases = |rolled: &Rolled| rolled.values().map(|sums| sums.increase).collect::<Vec<_>>();
    assert_eq!(increases(&hourly), increases(&daily));
    increases(&daily)
}

/// The step from an erased value into a closed window tells that value, be it over a wrap or not, and whenever the register said so.
#[tokio::test]
async fn a_step_from_an_erased_value_is_taken_out_by_the_same_rule() {
    const PLAIN: Said = ("counter,1,counter,public,,", None);
    const WRAPPING: Said = ("counter,1,counter,public,,,1000", None);
    const EXCHANGED: Said = ("counter,1,counter,public,,", Some(415));
    let values = [900.0, 969.0, 10.0];
    // From 970 to 10 over 1,000 are 40; from what is left, 901, it is 109. And one more in the half hour after each.
    assert_eq!(erased(WRAPPING, None, values).await, [Some(1.0), Some(110.0)]);
    assert_eq!(erased(EXCHANGED, None, values).await, [Some(1.0), Some(1.0)], "there was no step, and there is none");
    // It was closed as a reset (10), before anybody wrote down what it was.
    assert_eq!(erased(PLAIN, Some(EXCHANGED), values).await, [Some(1.0), Some(1.0)], "nothing of it is left");
    assert_eq!(erased(PLAIN, Some(WRAPPING), values).await, [Some(1.0), Some(110.0)]);
    assert_eq!(erased(EXCHANGED, Some(PLAIN), [900.0, 969.0, 2_000.0]).await, [Some(1.0), Some(1.0)]);
}
