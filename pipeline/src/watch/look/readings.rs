//! What was read lately, by sensor and source; sources that are silent and sensors that are late.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use jiff::tz::TimeZone;
use tjern_lake::{Lake, LakeError, Table, precedence};
use tjern_readings::configuration::parse_duration;

use super::super::alert::{Condition, Kind};
use super::{length, local};
use crate::bounds::Bounds;
use crate::register::{Register, SensorRow};
use crate::tables::engine_within;

/// What the way from a device into the table may take beyond two intervals: sealing, upload, ingest.
const GRACE_US: i64 = 10 * 60 * 1_000_000;

/// Of how long ago each round looks at readings, at least.
const WINDOW_US: i64 = 2 * 24 * 3_600 * 1_000_000;

/// How often sensors that measure seldom are looked for further back.
const SLOW_US: i64 = 6 * 3_600 * 1_000_000;

/// What was read of a sensor lately.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Newest {
    /// The newest time that has a value that did not fail, in microseconds since 1970.
    pub time_us: Option<i64>,
    /// The value there.
    pub value: Option<f64>,
    /// The highest such value of those that were taken since the watch looked last, after its time.
    pub highest: Option<(i64, f64)>,
    /// The lowest, in the same way.
    pub lowest: Option<(i64, f64)>,
}

/// What was read lately.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// From which time on it was looked, in microseconds since 1970.
    pub from_us: i64,
    /// By sensor.
    pub sensors: BTreeMap<String, Newest>,
    /// When something of each source was taken last, in microseconds since 1970.
    pub sources: BTreeMap<String, i64>,
    /// When ingest refused something last, in microseconds since 1970.
    pub refused_us: Option<i64>,
}

impl Seen {
    /// When anything of the time that was looked at was taken last, in microseconds since 1970.
    #[must_use]
    pub fn taken_us(&self) -> Option<i64> {
        self.sources.values().max().copied()
    }
}

/// What is known of sensors whose interval is too long for the time that each round looks at. They are looked for further
/// back at most once in [`SLOW_US`], so that one of them does not make every round read a quarter of history.
#[derive(Debug, Clone, Default)]
pub struct Slow {
    looked_us: Option<i64>,
    newest: BTreeMap<String, Newest>,
}

/// By what it is looked.
#[derive(Debug, Clone, Copy)]
pub struct Ways<'a> {
    /// Which sensors there are.
    pub register: &'a Register,
    /// For how long a source may be silent.
    pub silent: Duration,
    /// What was taken after this moment is new; where nobody knows of one, only what is newest is looked at.
    pub since_us: Option<i64>,
    /// What it may take.
    pub bounds: &'a Bounds,
}

/// Looks at the readings of a time not older than two days, or twice as long as a source may be silent; of sensors that
/// measure more seldom, further back.
///
/// What is new is told by when it was taken, which stands in each row. Limit: where a correction, or an ingest on another machine,
/// had its rows ready before what was seen last and committed them after that, only the newest of them is looked at.
///
/// # Errors
/// [`LakeError`].
pub async fn look(lake: &Lake, table: &Table, ways: Ways<'_>, slow: &mut Slow) -> Result<Seen, LakeError> {
    let Ways { register, silent, since_us, bounds } = ways;
    let now_us = lake.clock().now_us();
    let silent_us = i64::try_from(silent.as_micros()).unwrap_or(i64::MAX);
    let from_us = now_us.saturating_sub(WINDOW_US.max(silent_us.saturating_mul(2)));
    let context = engine_within(lake, bounds)?;
    context.register_table("readings", table.provider())?;
    let mut seen = Seen { from_us, ..Seen::default() };
    let from = moment(from_us);
    let sql = format!(
        "SELECT source, arrow_cast(max(received), 'Int64') AS received FROM readings WHERE time >= {from} GROUP BY source"
    );
    for batch in &context.sql(&sql).await?.collect().await? {
        let heard = texts(batch, "source")?.into_iter().zip(integers(batch, "received")?);
        seen.sources.extend(heard.filter_map(|(source, received_us)| Some((source, received_us?))));
    }
    seen.sensors = newest(&context, &format!("time >= {from}"), since_us).await?;
    let reach = |row: &SensorRow| Some((row.id.as_str().to_owned(), now_us.saturating_sub(3 * interval_us(row)?)));
    let far: BTreeMap<String, i64> =
        register.iter().filter_map(reach).filter(|(_, far_us)| *far_us < from_us).collect();
    slow.look(&context, &far, &mut seen, now_us).await?;
    Ok(seen)
}

impl Slow {
    /// Adds what is known of sensors that measure seldom (`far`: from when on each is looked for).
    async fn look(
        &mut self,
        context: &SessionContext,
        far: &BTreeMap<String, i64>,
        seen: &mut Seen,
        now_us: i64,
    ) -> Result<(), LakeError> {
        let is_fresh = self.looked_us.is_some_and(|looked_us| (0..SLOW_US).contains(&(now_us - looked_us)));
        // One whose newest value was of the time that is looked at, and is not there now, was withdrawn.
        let is_known = |sensor: &String| {
            let known = self.newest.get(sensor);
            seen.sensors.contains_key(sensor) || known.is_some_and(|known| known.time_us < Some(seen.from_us))
        };
        let Some(from_us) = far.values().min() else {
            *self = Self::default();
            return Ok(());
        };
        if !is_fresh || !far.keys().all(is_known) {
            let names: Vec<String> = far.keys().map(|sensor| format!("'{}'", sensor.replace('\'', "''"))).collect();
            let of_these = format!("time >= {} AND sensor IN ({})", moment(*from_us), names.join(", "));
            self.newest = newest(context, &of_these, None).await?;
            for sensor in far.keys() {
                self.newest.entry(sensor.clone()).or_default();
            }
            self.looked_us = Some(now_us);
        }
        for sensor in far.keys().filter(|sensor| !seen.sensors.contains_key(*sensor)).cloned().collect::<Vec<_>>() {
            let known = self.newest.get(&sensor).cloned().unwrap_or_default();
            seen.sensors.insert(sensor, known);
        }
        Ok(())
    }
}

/// The newest value of each sensor that did not fail, of the readings that are meant, and the ends of those that were taken
/// after a moment. Of each time the row that counts ([`precedence`]) speaks: a value that was withdrawn since is none.
async fn newest(
    context: &SessionContext,
    meant: &str,
    since_us: Option<i64>,
) -> Result<BTreeMap<String, Newest>, LakeError> {
    let order = precedence::first_in_sql();
    let is_new = since_us.map_or_else(|| "false".to_owned(), |since_us| format!("received > {}", moment(since_us)));
    let end =
        |what: &str, order: &str| format!("first_value({what} ORDER BY value {order}, time) FILTER (WHERE {is_new})");
    let at = |order| end("arrow_cast(time, 'Int64')", order);
    let sql = format!(
        "WITH words AS (SELECT sensor, time, value, quality, received, \
             row_number() OVER (PARTITION BY sensor, time ORDER BY {order}) AS place FROM readings WHERE {meant}) \
         SELECT sensor, arrow_cast(max(time), 'Int64') AS time, last_value(value ORDER BY time) AS value, \
             {} AS highest, {} AS highest_at, {} AS lowest, {} AS lowest_at \
         FROM words WHERE place = 1 AND value IS NOT NULL AND quality < 4 GROUP BY sensor",
        end("value", "DESC"),
        at("DESC"),
        end("value", "ASC"),
        at("ASC"),
    );
    let mut found = BTreeMap::new();
    for batch in &context.sql(&sql).await?.collect().await? {
        let (sensors, times) = (texts(batch, "sensor")?, integers(batch, "time")?);
        let [values, highest, lowest] =
            [numbers(batch, "value")?, numbers(batch, "highest")?, numbers(batch, "lowest")?];
        let (highest_at, lowest_at) = (integers(batch, "highest_at")?, integers(batch, "lowest_at")?);
        for (row, (sensor, time_us)) in sensors.into_iter().zip(times).enumerate() {
            let (highest, lowest) = (highest_at[row].zip(highest[row]), lowest_at[row].zip(lowest[row]));
            found.insert(sensor, Newest { time_us, value: values[row], highest, lowest });
        }
    }
    Ok(found)
}

/// A literal of the column's own type, by which files are pruned.
fn moment(time_us: i64) -> String {
    format!("arrow_cast({time_us}, 'Timestamp(Microsecond, Some(\"UTC\"))')")
}

fn texts(batch: &RecordBatch, name: &str) -> Result<Vec<String>, DataFusionError> {
    let column = batch.column_by_name(name).ok_or_else(|| DataFusionError::Internal(format!("no column {name}")))?;
    let column = arrow::compute::cast(column, &DataType::Utf8)?;
    Ok(column.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect())
}

fn numbers(batch: &RecordBatch, name: &str) -> Result<Vec<Option<f64>>, DataFusionError> {
    let column = batch.column_by_name(name).ok_or_else(|| DataFusionError::Internal(format!("no column {name}")))?;
    Ok(column.as_primitive::<Float64Type>().iter().collect())
}

fn integers(batch: &RecordBatch, name: &str) -> Result<Vec<Option<i64>>, DataFusionError> {
    let column = batch.column_by_name(name).ok_or_else(|| DataFusionError::Internal(format!("no column {name}")))?;
    let column = arrow::compute::cast(column, &DataType::Int64)?;
    Ok(column.as_primitive::<Int64Type>().iter().collect())
}

/// How often a sensor measures, in microseconds; `None` where the register does not say.
fn interval_us(sensor: &SensorRow) -> Option<i64> {
    let interval = parse_duration(sensor.interval.as_deref()?).ok()?;
    i64::try_from(interval.as_micros()).ok().filter(|interval_us| *interval_us > 0)
}

/// Sensors whose newest value is older than two intervals and a grace. What is not registered, or has no
/// interval, is never late.
#[must_use]
pub fn late_sensors(
    seen: &Seen,
    register: &Register,
    born_us: i64,
    now_us: i64,
    timezone: &TimeZone,
) -> Vec<Condition> {
    let late = register.iter().filter_map(|sensor| {
        let interval_us = interval_us(sensor)?;
        let patience_us = interval_us.saturating_mul(2).saturating_add(GRACE_US);
        let id = sensor.id.as_str();
        let newest_us = seen.sensors.get(id).and_then(|newest| newest.time_us);
        // What was never heard is late so long after the watch began, or after it was registered.
        let waited_us = born_us.max(register.since_us(id).unwrap_or(born_us));
        let age_us = now_us.saturating_sub(newest_us.unwrap_or(waited_us));
        let due = sensor.interval.as_deref().unwrap_or_default();
        let since = newest_us.map_or_else(
            || format!("no value for at least {}", length(now_us - seen.from_us.max(waited_us))),
            |newest_us| format!("no value since {}", local(newest_us, timezone)),
        );
        let text = format!("{id}: {since}; one is due every {due}");
        (age_us > patience_us).then(|| Condition { kind: Kind::SensorLate, subject: id.to_owned(), text })
    });
    let mut late: Vec<_> = late.collect();
    late.sort_by(|one, other| one.subject.cmp(&other.subject));
    late
}

/// Sources that have sent nothing for too long. Imports and people are no sources that go on.
#[must_use]
pub fn silent_sources(
    heard: &BTreeMap<String, i64>,
    silent: Duration,
    now_us: i64,
    timezone: &TimeZone,
) -> Vec<Condition> {
    let silent_us = i64::try_from(silent.as_micros()).unwrap_or(i64::MAX);
    let goes_on = |source: &str| !source.contains(':');
    let quiet = heard.iter().filter(|(source, heard_us)| goes_on(source) && now_us - **heard_us > silent_us);
    let conditions = quiet.map(|(source, heard_us)| Condition {
        kind: Kind::SourceSilent,
        subject: source.clone(),
        text: format!(
            "{source} has sent nothing since {}; hint: its own status says why: power, network, `tjern-gateway doctor`",
            local(*heard_us, timezone)
        ),
    });
    conditions.collect()
}
