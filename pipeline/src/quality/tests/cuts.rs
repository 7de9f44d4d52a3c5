//! Whatever way a series comes in, its flags are the same in the end.

use super::*;
use crate::bounds::Bounds;
use crate::testing::commit;
use tjern_lake::{Operation, Table, TableName, write_file};
use tokio_util::sync::CancellationToken;

/// Windows of hours, so that a series of days has many edges.
const RULES: &str = "sensors,test,months,parameters\n\
    tjern/t,range,,suspect=0..25 fail=-2..40\ntjern/t,climatology,6-6,suspect=..19\ntjern/t,climatology,7-8,suspect=..21\n\
    tjern/t,spike,,suspect=1.5 fail=4\ntjern/t,rate_of_change,,suspect=2 fail=5 per=1h\n\
    tjern/t,flat_line,,suspect=4h fail=7h tolerance=0.05\ntjern/t,attenuated_signal,,suspect=0.4 fail=0.1 period=6h\n\
    tjern/t,exposure,,suspect=6 period=12h\ntjern/t,gap,,longer=2h\ntjern/c,spike,,off\n";

const SENSORS: [&str; 2] = ["t,Cel,sample,public,-5,45", "c,kW.h,counter,internal,,"];

/// A series with faults, and corrections of it: rows as a gateway would send them.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    let reading = (0..12_u8, -30..30_i32, 0..10_u8);
    prop::collection::vec(reading, 30..120).prop_map(|steps| {
        let (mut rows, mut value, mut count) = (Vec::new(), 180, 1_000.0);
        let mut time_us = NOW_US - 3 * 24 * HOUR_US;
        for (seq, (what, step, luck)) in steps.into_iter().enumerate() {
            time_us += HOUR_US * if luck == 0 { 5 } else { 1 };
            value = if (5..8).contains(&what) { value } else { (value + step / 4).clamp(100, 230) };
            let shown = match what {
                0 => Some(-327.68),
                1 => None,
                2 => Some(f64::from(value) / 10.0 + 9.0),
                _ => Some(f64::from(value) / 10.0),
            };
            let seq = i64::try_from(seq).expect("few");
            let row = Row { seq, ..Row::new("t", time_us, shown) };
            if luck == 1 {
                rows.push(Row { received_us: NOW_US + 1, ..row.clone().revision(1).quality(2) });
            }
            rows.push(if luck == 2 && shown.is_some() { row.quality(4) } else { row });
            count += f64::from(step.abs());
            let shown = if what == 3 { count - 500.0 } else { count };
            rows.push(Row { seq, ..Row::new("c", time_us, shown) });
            rows.push(Row { seq, ..Row::new("unregistered", time_us, shown) });
        }
        for row in rows.iter_mut().filter(|row| row.revision == 1) {
            row.value = row.value.map(|value| value + 1.0);
            row.quality = if row.value.is_some() { 2 } else { 9 };
        }
        rows
    })
}

/// What befell the sensor while the readings were taken.
const EVENTS: &str = "sensor,kind,began,ended,quality\n\
    tjern/t,out_of_water,2026-06-28T18:00:00Z,2026-06-29T06:00:00Z,\ntjern/*,ice,2026-06-30T00:00:00Z,,3\n";

async fn city() -> Place {
    let place = Place::new();
    std::fs::write(place.folder.path().join("quality.csv"), RULES).expect("written");
    place.register(&SENSORS).await;
    place
}

/// Somebody writes down what befell.
async fn befallen(place: &Place) {
    std::fs::write(place.folder.path().join("events.csv"), EVENTS).expect("written");
    place.register(&SENSORS).await;
}

/// Commits rows as ingest does: judged, each by itself, by what the register says then.
async fn ingested(place: &Place, rows: &[Row]) {
    let said = crate::register::Said::load(&place.lake).await.expect("loaded");
    let rows = rows_of(&evaluate(&batch_of(rows), &said).expect("evaluated"));
    place.ingest(&rows).await;
}

/// The flags of all rows, by what they are rows of.
async fn told(place: &Place) -> Vec<(Row, i8)> {
    let batch = place.rows(TableName::Readings).await;
    let levels = batch.column_by_name("level").expect("a column").as_primitive::<Int8Type>().clone();
    let mut told: Vec<(Row, i8)> = rows_of(&batch).into_iter().zip(levels.values().iter().copied()).collect();
    told.sort_by(|(one, _), (other, _)| {
        (&one.sensor, one.time_us, one.revision, one.seq).cmp(&(
            &other.sensor,
            other.time_us,
            other.revision,
            other.seq,
        ))
    });
    told
}

/// All at once into one file, and tested once.
async fn whole(rows: &[Row]) -> Vec<(Row, i8)> {
    let place = city().await;
    befallen(&place).await;
    place.ingest(rows).await;
    control(&place.lake).await.expect("done");
    told(&place).await
}

/// Cut at these shares of the rows, the pieces in some order; after each the job may run, or a compaction. What befell is
/// written down before one of them, or after all.
async fn in_pieces(rows: &[Row], cuts: &[usize], order: &[usize], between: &[u8]) -> Vec<(Row, i8)> {
    let place = city().await;
    let befalls = order.last().map_or(0, |at| at % 7);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % rows.len()).chain([0, rows.len()]).collect();
    ends.sort_unstable();
    ends.dedup();
    let mut pieces: Vec<&[Row]> = ends.windows(2).map(|pair| &rows[pair[0]..pair[1]]).collect();
    let mut turn = 0;
    while !pieces.is_empty() {
        let piece = pieces.remove(order.get(turn).copied().unwrap_or(0) % pieces.len());
        if turn == befalls {
            befallen(&place).await;
        }
        ingested(&place, piece).await;
        match between.get(turn).copied().unwrap_or(0) {
            0 | 1 => _ = control(&place.lake).await.expect("done"),
            2 => place.compact().await,
            _ => {}
        }
        turn += 1;
    }
    if turn <= befalls {
        befallen(&place).await;
    }
    control(&place.lake).await.expect("done");
    told(&place).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_in_any_order_gives_the_same_flags(
        rows in rows(),
        cuts in prop::collection::vec(0..1_000_usize, 1..6),
        order in prop::collection::vec(0..1_000_usize, 6),
        between in prop::collection::vec(0..4_u8, 6),
    ) {
        let (whole, pieces) = runtime().block_on(async {
            (whole(&rows).await, in_pieces(&rows, &cuts, &order, &between).await)
        });
        prop_assert_eq!(whole, pieces);
    }
}

/// The canary: a job that forgets what lies around a batch, as the property above would see it.
#[tokio::test]
async fn a_job_that_looks_at_a_batch_only_is_caught() {
    let at = |hour: i64| Row::new("t", NOW_US + hour * HOUR_US, 15.0);
    let rows: Vec<Row> = (0..48).map(at).collect();
    let place = city().await;
    for piece in rows.chunks(6) {
        place.ingest(piece).await;
        let (bounds, never) = (Bounds::default(), CancellationToken::new());
        let judging = control::control_by(&place.lake, &bounds, &never, |_| rules::Margins::default());
        Box::pin(judging).await.expect("done");
    }
    assert_ne!(told(&place).await, whole(&rows).await);
    assert_eq!(in_pieces(&rows, &[12, 24, 36], &[], &[]).await, whole(&rows).await);
}

/// A correction changes what its neighbours are: both that it was wrong and that it is right.
#[tokio::test]
async fn a_correction_re_evaluates_its_surroundings() {
    let place = city().await;
    let at = |hour: i64, value: f64| Row::new("t", NOW_US + hour * HOUR_US, value);
    place.ingest(&[at(0, 18.0), at(1, 18.1), at(2, 18.2)]).await;
    control(&place.lake).await.expect("done");
    // Somebody "corrects" the first one to what makes the second a jump.
    place.ingest(&[at(0, 12.0).revision(1)]).await;
    control(&place.lake).await.expect("done");
    let flagged = |rows: &[(Row, i8)], hour: i64| {
        let newest = rows.iter().rfind(|(row, _)| row.time_us == NOW_US + hour * HOUR_US);
        newest.map(|(row, _)| flags::Bits::RateOfChange.get(row.tests.unwrap_or(0)))
    };
    assert_eq!(flagged(&told(&place).await, 1), Some(flags::FAIL));
    place.ingest(&[at(0, 17.9).revision(2)]).await;
    control(&place.lake).await.expect("done");
    assert_eq!(flagged(&told(&place).await, 1), Some(flags::GOOD));
}

/// A person's word stands, whatever the tests say.
#[tokio::test]
async fn what_a_person_validated_stays() {
    let place = city().await;
    place.ingest(&[Row::new("t", NOW_US, 24.0), Row::new("t", NOW_US + HOUR_US, -327.68)]).await;
    control(&place.lake).await.expect("done");
    let rows = place.rows(TableName::Readings).await;
    let quality: ArrayRef = Arc::new(Int8Array::from(vec![1, 4]));
    let level: ArrayRef = Arc::new(Int8Array::from(vec![2, 2]));
    let validated = replace(&replace(&rows, "quality", quality).expect("rows"), "level", level).expect("rows");
    let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let file = write_file(&place.lake, TableName::Readings, &[validated]).await.expect("written");
    let files = table.files();
    table.commit(commit(Operation::Quality, vec![file], files)).await.expect("committed");
    std::fs::write(place.folder.path().join("quality.csv"), "sensors,test,parameters\ntjern/t,range,fail=0..1\n")
        .expect("written");
    place.register(&SENSORS).await;
    control(&place.lake).await.expect("done");
    let levels: Vec<_> = told(&place).await.into_iter().map(|(row, level)| (row.quality, level)).collect();
    assert_eq!(levels, [(1, 2), (4, 2)]);
}

/// One late reading looks at its neighbourhood, and leaves a year of files alone.
#[tokio::test]
async fn work_is_bounded_by_what_came() {
    let place = city().await;
    for week in 0..20_i64 {
        let at = |hour: i64| NOW_US + (week * 7 * 24 + hour) * HOUR_US;
        let rows: Vec<Row> =
            (0..24).map(|hour| Row::new("t", at(hour), 15.0 + f64::from(i32::try_from(hour).expect("few")))).collect();
        place.ingest(&rows).await;
    }
    control(&place.lake).await.expect("done");
    let files = |outcome: ControlOutcome| (outcome.files_seen, outcome.files_rewritten);
    place.ingest(&[Row::new("t", NOW_US + 20 * 7 * 24 * HOUR_US, 15.0)]).await;
    let outcome = control(&place.lake).await.expect("done");
    assert_eq!(files(outcome).1, 1, "only what came: {outcome:?}");
}
