//! Asks both queries of each layout.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use jiff::tz::TimeZone;
use tjern_lake::{Access, Lake, SessionSettings, TableName, functions, schema, session};
use tjern_readings::store::LakeUrl;

use crate::layouts::{Foreign, LAYOUTS, Layout, Shape};
use crate::readings::START_US;
use crate::{Failure, Size};

/// How often a query is asked in a round.
const DAYS_ASKED: u32 = 40;
const HOURS_ASKED: u32 = 3;
const DAY_US: i64 = 86_400_000_000;
/// The day and the weeks that are asked for, in days from the first.
const DAY: i64 = 40;
const WEEKS: (i64, i64) = (5, 50);

pub(crate) async fn ask(folder: &Path, size: Size, threads: usize, rounds: u32, only: &str) -> Result<(), Failure> {
    let mut expected = None;
    for layout in LAYOUTS.iter().filter(|layout| layout.name.contains(only)) {
        let place = folder.join(layout.files_of().folder());
        let tables = match layout.shape {
            Shape::Foreign(_) => vec!["readings"],
            Shape::Sealed | Shape::Grouped(_) => vec!["readings", "observations"],
        };
        // What people use is asked of the layout that is ours only.
        let tables = if layout.shape == Shape::Sealed { tables } else { vec!["readings"] };
        let context = open(&place, layout, size, threads).await?;
        for table in tables {
            let (day, hours) = (day_query(layout, table, size), hours_query(layout, table, size));
            let mut best = [Cost::MAX; 2];
            let mut answers = Vec::new();
            for _ in 0..rounds {
                for (index, (query, times)) in [(&day, DAYS_ASKED), (&hours, HOURS_ASKED)].into_iter().enumerate() {
                    let (cost, answer) = cost(&context, query, times).await?;
                    best[index] = best[index].min(cost);
                    answers.push(answer);
                }
            }
            let answers = (answers[0], answers[1]);
            if !expected.get_or_insert(answers).is_like(answers) {
                return Err(format!("{}: {answers:?} instead of {expected:?}", layout.name).into());
            }
            let bytes = std::fs::read_to_string(place.join("bytes-a-reading"))?;
            let shown = if table == "readings" { layout.name.to_owned() } else { format!("{}: {table}", layout.name) };
            println!(
                "{shown}\t{bytes}\t{:.2}\t{:.2}\t{:.1}\t{:.1}",
                best[0].wall_ms, best[0].cpu_ms, best[1].wall_ms, best[1].cpu_ms
            );
        }
    }
    Ok(())
}

/// Rows of an answer, and the sum of its numbers.
#[derive(Debug, Clone, Copy)]
struct Answer {
    rows: usize,
    sum: f64,
}

trait Alike {
    fn is_like(&self, other: Self) -> bool;
}

impl Alike for (Answer, Answer) {
    fn is_like(&self, other: Self) -> bool {
        let alike = |one: Answer, other: Answer| {
            one.rows == other.rows && (one.sum - other.sum).abs() <= 1e-9 * one.sum.abs().max(1.0)
        };
        alike(self.0, other.0) && alike(self.1, other.1)
    }
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    wall_ms: f64,
    cpu_ms: f64,
}

impl Cost {
    const MAX: Self = Self { wall_ms: f64::MAX, cpu_ms: f64::MAX };

    const fn min(self, other: Self) -> Self {
        Self { wall_ms: self.wall_ms.min(other.wall_ms), cpu_ms: self.cpu_ms.min(other.cpu_ms) }
    }
}

async fn cost(context: &SessionContext, query: &str, times: u32) -> Result<(Cost, Answer), Failure> {
    let answer = answer_of(&context.sql(query).await?.collect().await?);
    let (began, before_ms) = (Instant::now(), processor_ms());
    for _ in 0..times {
        context.sql(query).await?.collect().await?;
    }
    let each = |ms: f64| ms / f64::from(times);
    Ok((
        Cost { wall_ms: each(began.elapsed().as_secs_f64() * 1_000.0), cpu_ms: each(processor_ms() - before_ms) },
        answer,
    ))
}

/// The last column of an answer is its number.
fn answer_of(batches: &[RecordBatch]) -> Answer {
    let mut answer = Answer { rows: 0, sum: 0.0 };
    for batch in batches {
        let numbers = batch.column(batch.num_columns() - 1).as_primitive::<Float64Type>();
        answer.rows += batch.num_rows();
        answer.sum += numbers.iter().flatten().sum::<f64>();
    }
    answer
}

/// The processor time of this process, all its threads. The unit of `/proc` is a hundredth of a second
/// (proc_pid_stat(5), USER_HZ).
fn processor_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0);
    f64::from(ticks(11) + ticks(12)) * 10.0
}

async fn open(place: &Path, layout: &Layout, size: Size, threads: usize) -> Result<SessionContext, Failure> {
    if let Shape::Foreign(foreign) = layout.shape {
        return open_foreign(place, foreign, size, threads).await;
    }
    let lake = Lake::open(&LakeUrl::folder(place)?)?;
    let settings = SessionSettings { access: Access::Staff, timezone: TimeZone::UTC, memory_bytes: 512 << 20 };
    let context = session(&lake, &settings).await?;
    context.state_ref().write().config_mut().options_mut().execution.target_partitions = threads;
    Ok(context)
}

async fn open_foreign(place: &Path, foreign: Foreign, size: Size, threads: usize) -> Result<SessionContext, Failure> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(threads));
    for function in functions::functions(&TimeZone::UTC) {
        context.register_udf(function);
    }
    let place = place.display().to_string();
    if foreign == Foreign::Wide {
        for station in 0..size.stations {
            let file = format!("{place}/station-{station:02}.parquet");
            context.register_parquet(format!("station_{station}"), file, ParquetReadOptions::default()).await?;
        }
        return Ok(context);
    }
    let readings = schema::arrow(TableName::Readings);
    let texts = |kind: DataType| {
        let field = |field: &Arc<Field>| match field.data_type() {
            DataType::Utf8 => Arc::new(Field::new(field.name(), kind.clone(), field.is_nullable())),
            _ => Arc::clone(field),
        };
        Schema::new(readings.fields().iter().map(field).collect::<Vec<_>>())
    };
    let shown = match foreign {
        Foreign::Texts => Some(texts(DataType::Utf8)),
        Foreign::Views => Some(texts(DataType::Utf8View)),
        Foreign::Dictionaries => Some(texts(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))),
        Foreign::Numbers | Foreign::Anonymous | Foreign::Wide => None,
    };
    let options = ParquetReadOptions { schema: shown.as_ref(), ..ParquetReadOptions::default() };
    context.register_parquet("readings", format!("{place}/"), options).await?;
    if foreign == Foreign::Numbers {
        let names = size.names(size.stations * size.sensors);
        let numbers = UInt32Array::from_iter_values((0..).take(names.len()));
        let names = StringArray::from_iter_values(names);
        let fields = vec![Field::new("number", DataType::UInt32, false), Field::new("id", DataType::Utf8, false)];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(numbers), Arc::new(names)])?;
        context.register_batch("names", rows)?;
    }
    Ok(context)
}

fn moment(day: i64) -> String {
    format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')", START_US + day * DAY_US)
}

fn within(from: i64, to: i64) -> String {
    format!("time >= {} AND time < {}", moment(from), moment(to))
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

/// The places of some sensors, as numbers.
fn numbers(count: usize) -> String {
    (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
}

/// Three sensors' day.
fn day_query(layout: &Layout, table: &str, size: Size) -> String {
    let names = size.names(3);
    let times = within(DAY, DAY + 1);
    let wanted = "value IS NOT NULL";
    match layout.shape {
        Shape::Foreign(Foreign::Wide) => {
            let one = |name: &String| {
                format!(
                    "SELECT '{name}' AS sensor, time, \"{name}\" AS value FROM station_0 WHERE \"{name}\" IS NOT NULL AND {times}"
                )
            };
            let parts = names.iter().map(one).collect::<Vec<_>>().join(" UNION ALL ");
            format!("SELECT sensor, time, value FROM ({parts}) ORDER BY sensor, time")
        }
        Shape::Foreign(Foreign::Numbers) => format!(
            "SELECT id, time, value FROM readings JOIN names ON number = sensor \
             WHERE sensor IN ({}) AND {times} AND {wanted} ORDER BY id, time",
            numbers(3)
        ),
        _ => format!(
            "SELECT sensor, time, value FROM {table} WHERE sensor IN ({}) AND {times} AND {wanted} ORDER BY sensor, time",
            listed(&names)
        ),
    }
}

/// The hourly mean of thirty sensors over 45 days.
fn hours_query(layout: &Layout, table: &str, size: Size) -> String {
    let names = size.names(30);
    let times = within(WEEKS.0, WEEKS.1);
    match layout.shape {
        Shape::Foreign(Foreign::Wide) => {
            let of_station = |station: usize| {
                let prefix = format!("station-{station:02}/");
                let columns = names.iter().filter(|name| name.starts_with(&prefix));
                let means = columns.clone().map(|name| format!("avg(\"{name}\") AS \"{name}\""));
                let means = means.collect::<Vec<_>>().join(", ");
                let hours = format!(
                    "(SELECT time_bucket('1h', time) AS hour, {means} FROM station_{station} WHERE {times} GROUP BY 1)"
                );
                let narrow = columns.map(|name| {
                    format!("SELECT '{name}' AS sensor, hour, \"{name}\" AS mean FROM h{station} WHERE \"{name}\" IS NOT NULL")
                });
                (format!("h{station} AS {hours}"), narrow.collect::<Vec<_>>().join(" UNION ALL "))
            };
            let stations = names.len().div_ceil(size.sensors).min(size.stations);
            let (means, narrow): (Vec<_>, Vec<_>) = (0..stations).map(of_station).unzip();
            format!("WITH {} {}", means.join(", "), narrow.join(" UNION ALL "))
        }
        Shape::Foreign(Foreign::Numbers) => format!(
            "SELECT id, hour, mean FROM (SELECT sensor, time_bucket('1h', time) AS hour, avg(value) AS mean \
             FROM readings WHERE sensor IN ({}) AND {times} AND value IS NOT NULL GROUP BY 1, 2) JOIN names ON number = sensor",
            numbers(30)
        ),
        _ => format!(
            "SELECT sensor, time_bucket('1h', time) AS hour, avg(value) AS mean FROM {table} \
             WHERE sensor IN ({}) AND {times} AND value IS NOT NULL GROUP BY 1, 2",
            listed(&names)
        ),
    }
}
