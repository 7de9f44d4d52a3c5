//! What a counter's windows need from beside them: the value before each, from which the step into it goes, and the
//! window after each, into which a step goes from it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType};
use datafusion::dataframe::DataFrame;
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::functions_aggregate::first_last::last_value_udaf;
use datafusion::logical_expr::ExprFunctionExt;
use datafusion::prelude::{col, lit, not};

use super::functions::is_selected;
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

/// Windows that stay as they were summed up, since their readings may be gone.
#[derive(Debug, Clone, Copy)]
pub struct Closed<'a> {
    /// The rollup that holds them, where there is one.
    pub rollup: Option<&'a Table>,
    /// They start before this moment, which is the border of two windows.
    pub until_us: i64,
    /// All windows that are computed anew, of whichever month: what the rollup says of them counts no more.
    pub anew: &'a Selection,
}

/// Finds the values before counters' windows.
///
/// # Errors
/// Where the engine fails.
pub async fn predecessors(
    source: &Source,
    selection: &Selection,
    natures: &Natures,
    closed: Closed<'_>,
) -> Result<Predecessors> {
    let mut moments = Moments::new();
    let mut want = |sensor: &str, ranges: &[Window]| {
        let starts = ranges.iter().map(|range| range.start_us).filter(|start_us| *start_us > i64::MIN);
        let mut starts = starts.peekable();
        if starts.peek().is_some() {
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
    let readings: Vec<(i64, Found)> = source.last_before(&moments).await?;
    let mut known = Predecessors::default();
    for (before_us, one) in last_summed_up(source, &moments, closed).await? {
        let is_newest = readings
            .iter()
            .filter(|(moment_us, other)| *moment_us == before_us && other.sensor == one.sensor)
            .all(|(_, other)| other.time_us < one.time_us);
        if is_newest {
            known.summed_up.push(one);
        }
    }
    known.readings = readings.into_iter().map(|(_, one)| one).collect();
    Ok(known)
}

/// The last good value that closed windows know before moments, each with its moment: for all that lie beyond the closed windows
/// one of each sensor, for others (of which there are few: somebody erased something there) each its own.
async fn last_summed_up(source: &Source, moments: &Moments, closed: Closed<'_>) -> Result<Vec<(i64, Found)>> {
    let Some(table) = closed.rollup.filter(|_| closed.until_us > i64::MIN) else { return Ok(Vec::new()) };
    let (mut beyond, mut inside) = (Moments::new(), Moments::new());
    for (sensor, moments) in moments {
        if let Some(first_us) = moments.range(closed.until_us..).next() {
            beyond.entry(sensor.clone()).or_default().insert(*first_us);
        }
        let within: BTreeSet<i64> = moments.range(..closed.until_us).copied().collect();
        if !within.is_empty() {
            inside.insert(sensor.clone(), within);
        }
    }
    let anew = Arc::new(closed.anew.until(closed.until_us));
    let rows = |moments: &Moments| -> Result<DataFrame> {
        let mut counters = Selection::default();
        moments.keys().for_each(|name| counters.insert(name, Window { start_us: i64::MIN, end_us: i64::MAX }));
        let is_anew = is_selected(&anew, [col("sensor"), col("time")]);
        source
            .context()
            .read_table(table.provider())?
            .filter(counters.readings())?
            .filter(col("time").lt(moment(closed.until_us)).and(not(is_anew)))?
            .filter(col("quality").between(lit(1_i8), lit(3_i8)).and(col("last").is_not_null()))
    };
    let mut found = Vec::new();
    if !beyond.is_empty() {
        let last = last_value_udaf().call(vec![col("last")]);
        let last = last.order_by(vec![col("last_time").sort(true, false)]).build()?.alias("value");
        let newest = rows(&beyond)?.aggregate(vec![col("sensor")], vec![max(col("last_time")).alias("at"), last])?;
        for one in found_in(&newest.collect().await?)? {
            let before = beyond.get(&one.sensor).and_then(BTreeSet::first);
            found.extend(before.map(|before_us| (*before_us, one)));
        }
    }
    if !inside.is_empty() {
        let all = rows(&inside)?.select_columns(&["sensor", "last_time", "last"])?;
        let mut newest: HashMap<(String, i64), Found> = HashMap::new();
        for one in found_in(&all.collect().await?)? {
            let Some(moments) = inside.get(&one.sensor) else { continue };
            for before_us in moments.range(one.time_us.saturating_add(1)..) {
                let known = newest.entry((one.sensor.clone(), *before_us)).or_insert_with(|| one.clone());
                if known.time_us < one.time_us {
                    *known = one.clone();
                }
            }
        }
        found.extend(newest.into_iter().map(|((_, before_us), one)| (before_us, one)));
    }
    Ok(found)
}

/// Rows of sensor, time and value.
fn found_in(batches: &[RecordBatch]) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for batch in batches {
        let sensors = cast(batch.column(0), &DataType::Utf8)?;
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let values = batch.column(2).as_primitive::<Float64Type>();
        for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row)) {
            let sensor = sensors.as_string::<i32>().value(row).to_owned();
            found.push(Found { sensor, time_us: times.value(row), value: values.value(row) });
        }
    }
    Ok(found)
}
