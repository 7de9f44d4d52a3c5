//! What was read lately, by sensor and source; sources that are silent and sensors that are late.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use jiff::tz::TimeZone;
use tjern_lake::{Lake, LakeError, Table};
use tjern_readings::configuration::parse_duration;

use super::super::alert::{Condition, Kind};
use super::{length, local};
use crate::register::{Register, SensorRow};
use crate::tables::engine;

/// What the way from a device into the table may take beyond two intervals: sealing, upload, ingest.
const GRACE_US: i64 = 10 * 60 * 1_000_000;

/// What was read of a sensor lately.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Newest {
    /// The newest time that has a value that did not fail, in microseconds since 1970.
    pub time_us: Option<i64>,
    /// The value there, of the highest revision.
    pub value: Option<f64>,
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

/// Looks at the readings of a time not older than two days, or three intervals of the slowest sensor.
///
/// # Errors
/// [`LakeError`].
pub async fn look(lake: &Lake, table: &Table, register: &Register, silent: Duration) -> Result<Seen, LakeError> {
    let now_us = lake.clock().now_us();
    let slowest_us = register.iter().filter_map(interval_us).max().unwrap_or(0);
    let silent_us = i64::try_from(silent.as_micros()).unwrap_or(i64::MAX);
    let two_days_us = 2 * 24 * 3_600 * 1_000_000;
    let back_us = two_days_us.max(slowest_us.saturating_mul(3)).max(silent_us.saturating_mul(2));
    let from_us = now_us.saturating_sub(back_us);
    let context = engine(lake)?;
    context.register_table("readings", table.provider())?;
    let from = moment(from_us);
    let sql = format!(
        "SELECT sensor, source, arrow_cast(max(received), 'Int64') AS received, \
         arrow_cast(max(time) FILTER (WHERE value IS NOT NULL AND quality < 4), 'Int64') AS time, \
         last_value(value ORDER BY time, revision, received) FILTER (WHERE value IS NOT NULL AND quality < 4) AS value \
         FROM readings WHERE time >= {from} GROUP BY sensor, source"
    );
    let mut seen = Seen { from_us, ..Seen::default() };
    for batch in &context.sql(&sql).await?.collect().await? {
        take_newest(&mut seen, batch)?;
    }
    Ok(seen)
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

fn integers(batch: &RecordBatch, name: &str) -> Result<Vec<Option<i64>>, DataFusionError> {
    let column = batch.column_by_name(name).ok_or_else(|| DataFusionError::Internal(format!("no column {name}")))?;
    let column = arrow::compute::cast(column, &DataType::Int64)?;
    Ok(column.as_primitive::<Int64Type>().iter().collect())
}

fn take_newest(seen: &mut Seen, batch: &RecordBatch) -> Result<(), DataFusionError> {
    let (sensors, sources) = (texts(batch, "sensor")?, texts(batch, "source")?);
    let (times, received) = (integers(batch, "time")?, integers(batch, "received")?);
    let values = batch.column_by_name("value").ok_or_else(|| DataFusionError::Internal("no column value".into()))?;
    let values = values.as_primitive::<Float64Type>();
    for (row, (sensor, source)) in sensors.into_iter().zip(sources).enumerate() {
        if let Some(received_us) = received[row] {
            let heard_us = seen.sources.entry(source).or_insert(received_us);
            *heard_us = (*heard_us).max(received_us);
        }
        let newest = seen.sensors.entry(sensor).or_default();
        if times[row] > newest.time_us {
            *newest = Newest { time_us: times[row], value: values.is_valid(row).then(|| values.value(row)) };
        }
    }
    Ok(())
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
        // What was never heard is late so long after the watch began.
        let age_us = now_us.saturating_sub(newest_us.unwrap_or(born_us));
        let due = sensor.interval.as_deref().unwrap_or_default();
        let since = newest_us.map_or_else(
            || format!("no value for at least {}", length(now_us - seen.from_us.max(born_us))),
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
