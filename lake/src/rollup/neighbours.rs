//! What a counter's windows need from beside them: the value before each, from which the step into it goes, and the
//! window after each, into which a step goes from it.

use std::collections::HashMap;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::functions_aggregate::first_last::last_value_udaf;
use datafusion::logical_expr::ExprFunctionExt;
use datafusion::prelude::{col, lit};

use super::nature::{Kind, Natures};
use super::selection::{Selection, moment, window_of};
use super::source::{Found, Moments, Source};
use super::windows::{Grid, Window};
use crate::Table;

/// The values before the first one of each range of a counter's windows.
#[derive(Debug, Default)]
pub struct Predecessors {
    /// Those that are readings, by sensor and time.
    pub readings: Vec<Found>,
    /// Those whose readings are gone: what was summed up still knows the last.
    pub summed_up: Vec<Found>,
}

/// Adds the window that each range of a counter's windows is followed by: the next that has a good value.
///
/// # Errors
/// Where the engine fails.
pub async fn followers(source: &Source, selection: &Selection, natures: &Natures, grid: &Grid) -> Result<Selection> {
    let mut moments = Moments::new();
    for (sensor, ranges) in selection.iter().filter(|(sensor, _)| natures.is_counter(sensor)) {
        let ends = ranges.iter().map(|range| range.end_us).filter(|end_us| *end_us < i64::MAX);
        moments.entry(sensor.to_owned()).or_default().extend(ends);
    }
    let mut follow = Selection::default();
    for (sensor, time_us) in source.first_after(&moments).await? {
        follow.insert(&sensor, window_of(grid, Kind::Counter, time_us));
    }
    Ok(follow)
}

/// Finds the values before counters' windows. `summed_up` is the rollup that holds windows before `open_from_us` whose
/// readings may be gone.
///
/// # Errors
/// Where the engine fails.
pub async fn predecessors(
    source: &Source,
    selection: &Selection,
    natures: &Natures,
    grid: &Grid,
    summed_up: Option<&Table>,
    open_from_us: i64,
) -> Result<Predecessors> {
    let starts = |ranges: &[Window]| -> Vec<i64> {
        ranges.iter().map(|range| range.start_us).filter(|start_us| *start_us > i64::MIN).collect()
    };
    let mut moments = Moments::new();
    let mut want = |sensor: &str, ranges: &[Window]| {
        let starts = starts(ranges);
        if !starts.is_empty() {
            moments.entry(sensor.to_owned()).or_default().extend(starts);
        }
    };
    if selection.of_others().is_empty() {
        selection.iter().filter(|(sensor, _)| natures.is_counter(sensor)).for_each(|(name, ranges)| want(name, ranges));
    } else {
        natures.counters().for_each(|name| want(name, selection.of(name)));
    }
    if moments.is_empty() {
        return Ok(Predecessors::default());
    }
    let found = source.last_before(&moments).await?;
    let stored = match summed_up {
        Some(table) if open_from_us > i64::MIN => last_summed_up(source, table, &moments, open_from_us).await?,
        _ => HashMap::new(),
    };
    let mut known = Predecessors { readings: found.into_iter().map(|(_, one)| one).collect(), summed_up: Vec::new() };
    for (sensor, one) in stored {
        let is_newest = moments.get(&sensor).is_some_and(|moments| {
            moments.range(open_from_us..).next().is_some_and(|first_us| {
                let later = |other: &&Found| other.sensor == sensor && other.time_us < *first_us;
                known.readings.iter().filter(later).all(|other| other.time_us < one.time_us)
            })
        });
        // What is computed anew here may not have it any more.
        if is_newest && !selection.contains(&sensor, window_of(grid, Kind::Counter, one.time_us).start_us) {
            known.summed_up.push(one);
        }
    }
    Ok(known)
}

/// The last good value of each counter in the windows that are closed.
async fn last_summed_up(
    source: &Source,
    table: &Table,
    moments: &Moments,
    open_from_us: i64,
) -> Result<HashMap<String, Found>> {
    let mut names: Vec<&str> = moments.keys().map(String::as_str).collect();
    names.sort_unstable();
    let mut counters = Selection::default();
    names.iter().for_each(|name| counters.insert(name, Window { start_us: i64::MIN, end_us: i64::MAX }));
    let last = last_value_udaf().call(vec![col("last")]).order_by(vec![col("last_time").sort(true, false)]).build()?;
    let rows = source
        .context()
        .read_table(table.provider())?
        .filter(counters.readings())?
        .filter(col("time").lt(moment(open_from_us)))?
        .filter(col("quality").between(lit(1_i8), lit(3_i8)).and(col("last").is_not_null()))?
        .aggregate(vec![col("sensor")], vec![max(col("last_time")).alias("at"), last.alias("value")])?;
    let mut found = HashMap::new();
    for batch in rows.collect().await? {
        let sensors = cast(batch.column(0), &DataType::Utf8)?;
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let values = batch.column(2).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let sensor = sensors.as_string::<i32>().value(row).to_owned();
            if moments.contains_key(&sensor) && values.is_valid(row) {
                let one = Found { sensor: sensor.clone(), time_us: times.value(row), value: values.value(row) };
                found.insert(sensor, one);
            }
        }
    }
    Ok(found)
}
