//! Which of several rows of one sensor and time counts, in `observations` and in `latest`, whatever they differ in and however they
//! lie in files. `latest` is read from what files said before: it must say the same as all the readings do.

use tjern_readings::clock::Clock;

use super::*;

const NOW_HOUR: i64 = 40;
const SENSORS: [&str; 4] = ["a/t", "b/t", "c/t", "d/t"];
const EPOCH: &str = "abababababababababababababababab";

/// The rows of `readings` that count, and whether each may be shown: the order of `precedence`, in words of its own.
const COUNTING: &str = "newest AS (SELECT *, row_number() OVER (PARTITION BY sensor, time \
             ORDER BY CASE WHEN cause = 'not_assigned' OR cause = 'unit' OR cause = 'future' THEN 1 ELSE 0 END, \
             revision DESC, received DESC, source DESC, epoch DESC, seq DESC) AS place FROM readings), \
         judged AS (SELECT r.*, r.quality BETWEEN 1 AND 3 AND r.value IS NOT NULL AND (s.low IS NULL OR r.value >= s.low) \
                 AND (s.high IS NULL OR r.value <= s.high) AS good \
             FROM newest r LEFT JOIN sensors s ON s.id = r.sensor WHERE place = 1)";

/// What `latest` has to say, from all readings.
fn latest_of_all() -> String {
    let now_us = NOW_HOUR * HOUR_US;
    format!(
        "WITH {COUNTING} \
         SELECT sensor, max(time) AS heard_time, last_value(quality ORDER BY time) AS heard_quality, \
             max(time) FILTER (WHERE good) AS time, last_value(value ORDER BY time) FILTER (WHERE good) AS value \
         FROM judged WHERE time <= arrow_cast({now_us}, 'Timestamp(Microsecond, Some(\"UTC\"))') \
         GROUP BY sensor ORDER BY sensor"
    )
}

/// What `observations` has to say.
fn observations_of_all() -> String {
    format!("WITH {COUNTING} SELECT {OBSERVED} FROM judged WHERE good ORDER BY sensor, time")
}

const OBSERVED: &str = "sensor, time, value, quality, cause, revision, received, source, epoch, seq";

const LATEST: &str =
    "SELECT sensor, heard_time, heard_quality, time, value FROM latest WHERE heard_time IS NOT NULL ORDER BY sensor";

fn a_lake_at_noon() -> (tempfile::TempDir, Lake) {
    let (folder, lake) = a_lake();
    (folder, lake.with_clock(Clock::manual(NOW_HOUR * HOUR_US)))
}

/// One thing that happens to a lake.
async fn happen(lake: &Lake, table: &mut Table, random: &mut fastrand::Rng, step: i64) {
    match random.u8(0..10) {
        // A file of some hours, in order or late, now and then of the future, with corrections and failures.
        0..=6 => {
            let first = random.i64(0..NOW_HOUR + 3);
            let count = random.i64(1..4);
            let mut rows = Vec::new();
            let some: Vec<_> = SENSORS.into_iter().filter(|_| random.bool()).collect();
            for sensor in some {
                for hour in first..first + count {
                    let value = (random.u8(0..8) > 0).then(|| f64::from(random.i16(-50..50)));
                    let quality = if value.is_some() { random.i8(1..5) } else { 9 };
                    rows.push(Row {
                        sensor,
                        hour,
                        value,
                        quality,
                        // What was refused is kept with its value.
                        cause: [None, None, None, Some("not_assigned"), Some("unit"), Some("future")]
                            [random.usize(0..6)],
                        revision: random.i16(0..2),
                        received_us: random.i64(1..3),
                        source: ["landfall-01", "import:history", "manual"][random.usize(0..3)],
                        epoch: [EPOCH, "00000000000000000000000000000001"][random.usize(0..2)],
                        // No two readings have one number: which is the newer one is always told.
                        seq: random.i64(0..3) * 10_000_000 + step * 1_000 + hour + 1,
                    });
                }
            }
            if !rows.is_empty() {
                append(table, &rows, None).await.expect("committed");
            }
        }
        // All files become one, as compaction makes it.
        7 | 8 => {
            let files = table.files();
            if files.len() > 1 {
                let timezone = TimeZone::UTC;
                let settings = SessionSettings { access: Access::Staff, timezone, memory_bytes: MEMORY_BYTES };
                let session = session(lake, &settings).await.expect("opened");
                let sorted = "SELECT * FROM readings ORDER BY sensor, time, revision";
                let rows = session.sql(sorted).await.expect("planned").collect().await.expect("read");
                let schema = schema::arrow(TableName::Readings);
                let conform = |batch: &RecordBatch| {
                    let columns = schema.fields().iter().zip(batch.columns());
                    let columns = columns.map(|(field, column)| arrow::compute::cast(column, field.data_type()));
                    RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>().expect("cast"))
                };
                let rows: Vec<_> = rows.iter().map(|batch| conform(batch).expect("the table's columns")).collect();
                let file = write_file(lake, TableName::Readings, &rows).await.expect("written");
                table.commit(commit(Operation::Compact, vec![file], files, None)).await.expect("committed");
            }
        }
        // The register says what is plausible.
        _ => {
            let low = f64::from(random.i8(-40..20));
            register_anew(lake, &[("a/t", "public", Some(low), Some(low + 30.0)), ("c/t", "internal", None, None)])
                .await;
        }
    }
}

async fn register_anew(lake: &Lake, sensors: &[(&'static str, &'static str, Option<f64>, Option<f64>)]) {
    if let Some(mut table) = Table::open(lake, TableName::Sensors).await.expect("opened") {
        let files = table.files();
        if !files.is_empty() {
            table.commit(commit(Operation::Register, vec![], files, None)).await.expect("committed");
        }
    }
    register(lake, sensors).await;
}

/// A sensor that is shown with a value which was replaced, failed, or became implausible meanwhile is what
/// bathers would believe. Whether the source, the epoch or the moment of ingest decides among equals was once drawn nowhere: rollups
/// and pages could have told two values for one moment.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_newest_is_what_all_readings_say() {
    let named = std::env::var("TJERN_SEED").ok().map(|seed| seed.parse::<u64>().expect("TJERN_SEED is a number"));
    let seeds = named.map_or_else(|| (0..4).map(|_| fastrand::u64(..)).collect(), |seed| vec![seed]);
    for seed in seeds {
        println!("TJERN_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (_folder, lake) = a_lake_at_noon();
        let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
        for step in 0..12 {
            happen(&lake, &mut table, &mut random, step).await;
            table.refresh().await.expect("refreshed");
            let observed = format!("SELECT {OBSERVED} FROM observations ORDER BY sensor, time");
            for (shown, expected) in [(LATEST, latest_of_all()), (&observed, observations_of_all())] {
                let shown = ask(&lake, Access::Staff, shown).await;
                assert!(!shown.starts_with("error"), "{shown}");
                assert_eq!(shown, ask(&lake, Access::Staff, &expected).await, "TJERN_SEED={seed}, step {step}");
            }
        }
    }
}

/// Pages ask every few seconds: reading a year each time would be a bill, and a page that waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_asked_once_what_is_newest() {
    let (_folder, lake) = a_lake_at_noon();
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    let mut asked = Vec::new();
    for hour in 0..20 {
        append(&mut table, &[row("a/t", hour, 1.0), row("b/t", hour, 2.0)], None).await.expect("committed");
        let before = lake.store().requests();
        let shown = ask(&lake, Access::Public, LATEST).await;
        assert!(!shown.starts_with("error"), "{shown}");
        asked.push(lake.store().requests().since(&before).gets);
    }
    assert!(asked[5] > 0 && asked[5..].iter().all(|gets| *gets == asked[5]), "{asked:?}");
}

/// One corrected reading in a month's file, and every page read that month again, whenever somebody looked.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_correction_is_asked_once_too() {
    let (_folder, lake) = a_lake_at_noon();
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    let corrected = Row { revision: 1, seq: 9, ..row("a/t", 3, 5.0) };
    append(&mut table, &[row("a/t", 2, 1.0), row("a/t", 3, 50.0), corrected, row("b/t", 3, 2.0)], None)
        .await
        .expect("committed");
    let mut asked = Vec::new();
    for _ in 0..3 {
        let before = lake.store().requests();
        let shown = ask(&lake, Access::Staff, LATEST).await;
        assert!(shown.contains("5.0") && !shown.contains("50.0"), "{shown}");
        asked.push(lake.store().requests().since(&before).gets);
    }
    assert!(asked[0] > asked[1] && asked[1] == asked[2], "{asked:?}");
}
