//! What rollups cost: a year rolled up from nothing, one late reading, and a query with and without commits that came since.
//!
//!     cargo bench -p tjern-pipeline --bench rollup -- [--sensors 100] [--days 365] [--every 10min] [--commits 100]
//!         [--folder DIR] [--keep]
//!
//! The lake has a sealed file a month, of sensors of every kind. Each line is wall time, processor time of all threads, and what
//! was read; queries are the median of [`ROUNDS`]. With `--keep` the lake stays in `--folder`, and the last line names the folder of
//! its readings: `benches/rollup/compare.py` asks DuckDB the same of the same files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use jiff::tz::TimeZone;
use tjern_lake::{
    Access, Commit, FileWriter, Lake, Operation, SessionSettings, Table, TableName, schema, session, write_file,
};
use tjern_pipeline::rollup::{RollupOutcome, rollup};
use tjern_readings::configuration::parse_duration;
use tjern_readings::store::LakeUrl;

type Failure = Box<dyn std::error::Error>;

/// So often a query is asked.
const ROUNDS: usize = 11;
/// 2025-01-01T00:00:00Z.
const BEGIN_US: i64 = 1_735_689_600_000_000;
const DAY_US: i64 = 86_400_000_000;
const KINDS: [&str; 6] = ["sample", "interval_mean", "interval_sum", "counter", "angle", "state"];
/// How many sensors a dashboard shows.
const SHOWN: i64 = 30;

struct Arguments {
    sensors: i64,
    days: i64,
    every: Duration,
    commits: i64,
    folder: Option<PathBuf>,
    keep: bool,
}

impl Arguments {
    fn read() -> Result<Self, Failure> {
        let every = Duration::from_secs(600);
        let mut arguments = Self { sensors: 100, days: 365, every, commits: 100, folder: None, keep: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--sensors" => arguments.sensors = value()?.parse()?,
                "--days" => arguments.days = value()?.parse()?,
                "--every" => arguments.every = parse_duration(&value()?)?,
                "--commits" => arguments.commits = value()?.parse()?,
                "--folder" => arguments.folder = Some(std::path::absolute(value()?)?),
                "--keep" => arguments.keep = true,
                // What cargo says to every benchmark.
                "--bench" => {}
                other => return Err(format!("{other} is not known; hint: the head of this file says what is").into()),
            }
        }
        Ok(arguments)
    }

    fn every_us(&self) -> i64 {
        i64::try_from(self.every.as_micros()).unwrap_or(i64::MAX).max(1)
    }

    fn end_us(&self) -> i64 {
        BEGIN_US + self.days * DAY_US
    }
}

fn name(sensor: i64) -> String {
    format!("site-{sensor:03}/{}", kind(sensor))
}

fn kind(sensor: i64) -> &'static str {
    KINDS[usize::try_from(sensor).unwrap_or_default() % KINDS.len()]
}

#[expect(clippy::cast_precision_loss, reason = "small")]
fn value(sensor: i64, slot: i64) -> f64 {
    // Some noise that is the same each time.
    let noise = ((slot * 7_919 + sensor * 104_729) % 997) as f64 / 100.0;
    match kind(sensor) {
        "counter" => (slot % 50_000) as f64 * 3.0,
        "angle" => noise * 36.0,
        "state" => (slot / 36 % 3) as f64,
        _ => 10.0 + noise + (slot % 144) as f64 / 20.0,
    }
}

/// Rows of `readings`: sensor and slot.
fn batch(arguments: &Arguments, rows: &[(i64, i64)]) -> Result<RecordBatch, Failure> {
    let time = |extra_us: i64| -> ArrayRef {
        let times = rows.iter().map(|(_, slot)| BEGIN_US + slot * arguments.every_us() + extra_us);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let text = |of: &dyn Fn(i64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(sensor, _)| of(*sensor))))
    };
    let columns: Vec<ArrayRef> = vec![
        text(&name),
        time(0),
        Arc::new(rows.iter().map(|(sensor, slot)| Some(value(*sensor, *slot))).collect::<Float64Array>()),
        Arc::new(Int8Array::from_iter_values(rows.iter().map(|(_, slot)| if slot % 501 == 0 { 4 } else { 1 }))),
        Arc::new(StringArray::new_null(rows.len())),
        Arc::new(Int32Array::new_null(rows.len())),
        text(&|_| "gateway-01".to_owned()),
        text(&|_| "0123456789abcdef0123456789abcdef".to_owned()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, slot)| slot + 1))),
        Arc::new(Int16Array::from_iter_values(rows.iter().map(|_| 0))),
        Arc::new(Int8Array::from_iter_values(rows.iter().map(|_| 1))),
        Arc::new(Int32Array::new_null(rows.len())),
        time(5_000_000),
    ];
    Ok(RecordBatch::try_new(schema::arrow(TableName::Readings), columns)?)
}

async fn commit(table: &mut Table, operation: Operation, add: Vec<tjern_lake::DataFile>) -> Result<(), Failure> {
    let (transactions, notes) = (Vec::new(), std::collections::BTreeMap::new());
    table.commit(Commit { operation, add, remove: Vec::new(), transactions, notes }).await?;
    Ok(())
}

/// A sealed file for every thirty days, in the order of sensor and time.
async fn history(lake: &Lake, arguments: &Arguments) -> Result<i64, Failure> {
    let mut table = Table::open_or_create(lake, TableName::Readings).await?;
    let (slots, a_day) = (arguments.days * DAY_US / arguments.every_us(), DAY_US / arguments.every_us());
    let mut first = 0;
    while first < slots {
        let last = (first + a_day * 30).min(slots);
        let mut writer = FileWriter::sealed(TableName::Readings)?;
        for sensor in 0..arguments.sensors {
            let rows: Vec<_> = (first..last).map(|slot| (sensor, slot)).collect();
            writer.write(&batch(arguments, &rows)?)?;
        }
        let file = writer.finish(lake).await?;
        commit(&mut table, Operation::Ingest, vec![file]).await?;
        first = last;
    }
    Ok(slots * arguments.sensors)
}

async fn register(lake: &Lake, arguments: &Arguments) -> Result<(), Failure> {
    let mut table = Table::open_or_create(lake, TableName::Sensors).await?;
    let schema = schema::arrow(TableName::Sensors);
    let sensors = 0..arguments.sensors;
    let column = |field: &Arc<arrow::datatypes::Field>| -> ArrayRef {
        let text = |of: &dyn Fn(i64) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(sensors.clone().map(of)))
        };
        match field.name().as_str() {
            "id" => text(&name),
            "site" => text(&|sensor| format!("site-{sensor:03}")),
            "quantity" | "kind" => text(&|sensor| kind(sensor).to_owned()),
            "unit" => text(&|_| "1".to_owned()),
            "class" => text(&|_| "public".to_owned()),
            "valid_from" => Arc::new(
                TimestampMicrosecondArray::from_iter_values(sensors.clone().map(|_| BEGIN_US)).with_timezone("UTC"),
            ),
            _ => arrow::array::new_null_array(field.data_type(), sensors.clone().count()),
        }
    };
    let columns = schema.fields().iter().map(column).collect();
    let file = write_file(lake, TableName::Sensors, &[RecordBatch::try_new(schema, columns)?]).await?;
    commit(&mut table, Operation::Register, vec![file]).await
}

/// The processor time of this process, all its threads, in seconds.
fn processor_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u32 = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    // The unit of `/proc` is a hundredth of a second on every Linux (proc_pid_stat(5), USER_HZ).
    Some(f64::from(ticks) / 100.0)
}

async fn run(lake: &Lake, zone: &TimeZone, title: &str) -> Result<RollupOutcome, Failure> {
    let (began, before_s) = (Instant::now(), processor_s());
    let outcome = rollup(lake, zone).await?;
    let wall_ms = began.elapsed().as_secs_f64() * 1_000.0;
    let spent_ms = processor_s().zip(before_s).map_or(f64::NAN, |(after_s, before_s)| (after_s - before_s) * 1_000.0);
    let (hourly, daily) = (outcome.hourly, outcome.daily);
    println!(
        "| {title} | {wall_ms:.1} | {spent_ms:.0} | {} | {} | {} |",
        hourly.readings_read + daily.readings_read,
        hourly.rows_computed,
        daily.rows_computed
    );
    Ok(outcome)
}

/// Thirty days of hours of thirty sensors, up to the end: a new session each time, as a server opens one a second.
async fn ask(lake: &Lake, arguments: &Arguments, zone: &TimeZone, title: &str) -> Result<(), Failure> {
    let settings = SessionSettings { access: Access::Staff, timezone: zone.clone(), memory_bytes: 512 << 20 };
    let names: Vec<String> = (0..SHOWN.min(arguments.sensors)).map(|sensor| format!("'{}'", name(sensor))).collect();
    let from = jiff::Timestamp::from_microsecond(arguments.end_us() - 30 * DAY_US)?;
    let sql = format!(
        "SELECT sensor, time, sum(sum) / sum(values) AS mean, min(min), max(max), sum(increase) FROM hourly \
         WHERE sensor IN ({}) AND time >= '{from}' AND quality BETWEEN 1 AND 3 GROUP BY sensor, time",
        names.join(", ")
    );
    let mut times_ms = Vec::new();
    let mut rows = 0;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let answer = session(lake, &settings).await?.sql(&sql).await?.collect().await?;
        times_ms.push(began.elapsed().as_secs_f64() * 1_000.0);
        rows = answer.iter().map(RecordBatch::num_rows).sum();
    }
    let first_ms = times_ms[0];
    times_ms.sort_by(f64::total_cmp);
    println!("| {title} | {rows} | {first_ms:.1} | {:.1} |", times_ms[ROUNDS / 2]);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::read()?;
    let parent = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(parent)?;
    let lake = Lake::open(&LakeUrl::folder(&folder.path().canonicalize()?)?)?;
    let zone = TimeZone::get("Europe/Oslo")?;
    register(&lake, &arguments).await?;
    let rows = history(&lake, &arguments).await?;
    println!("{rows} readings of {} sensors in {} days\n", arguments.sensors, arguments.days);
    println!("| rollup | ms | processor ms | readings read | hourly rows | daily rows |\n|---|---|---|---|---|---|");
    run(&lake, &zone, "all of it, from nothing").await?;
    let mut table = Table::open_or_create(&lake, TableName::Readings).await?;
    let late = BEGIN_US + arguments.days / 2 * DAY_US;
    for (title, sensor) in [("one late reading of a sample", 0), ("one late reading of a counter", 3)] {
        let slot = (late - BEGIN_US) / arguments.every_us();
        let file = write_file(&lake, TableName::Readings, &[batch(&arguments, &[(sensor, slot)])?]).await?;
        commit(&mut table, Operation::Ingest, vec![file]).await?;
        run(&lake, &zone, title).await?;
    }
    println!("\n| 30 days of `hourly` of 30 sensors | rows | ms, first | ms, median |\n|---|---|---|---|");
    ask(&lake, &arguments, &zone, "the rollup is up to date").await?;
    let end = (arguments.end_us() - BEGIN_US) / arguments.every_us();
    for number in 0..arguments.commits {
        let rows: Vec<_> = (0..arguments.sensors).map(|sensor| (sensor, end + number)).collect();
        let file = write_file(&lake, TableName::Readings, &[batch(&arguments, &rows)?]).await?;
        commit(&mut table, Operation::Ingest, vec![file]).await?;
    }
    ask(&lake, &arguments, &zone, &format!("{} commits came since", arguments.commits)).await?;
    if arguments.keep {
        println!("\n{}", folder.keep().join("tables/readings").display());
    }
    Ok(())
}
