//! Which windows a rollup has to compute again: those that commits touched, and those of sensors that were registered
//! after their readings came.
//!
//! What a commit touches is told in `tjern_lake::rollup`, where queries ask the same. For counters a touched window also touches the
//! next one that has a good value, since the step into that one starts from it. A sensor that was registered after its
//! readings came, as something else than what is assumed of unknown ones, touches all its windows.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use tjern_lake::rollup::neighbours::followers;
use tjern_lake::rollup::selection::window_of;
use tjern_lake::rollup::touched::each_run;
use tjern_lake::rollup::{Grid, Nature, Natures, Selection, Source, Span, Spans, Touched, to_compute};
use tjern_lake::{DataFile, LakeError, Table};

use super::RollupError;
use crate::frames::texts;

/// What has to be computed again.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Every window that is not closed, and closed ones of which readings were erased.
    Everything { closed: Selection },
    /// These windows.
    Touched {
        windows: Selection,
        /// Of closed windows, for which something came that is not summed up any more: how many, each by its sensor.
        left_out: usize,
    },
}

/// The windows that commits and new words of the register touched.
pub(crate) async fn scope(
    source: &Source,
    rollup: &Table,
    mut touched: Touched,
    natures: &Natures,
    register_seen_us: i64,
    grid: &Grid,
    open_from_us: i64,
) -> Result<Scope, RollupError> {
    let left_out = Selection::touched(&touched.spans, natures, grid);
    let left_out = left_out.ranges() - left_out.from(open_from_us).ranges();
    let new = natures.new_since(register_seen_us);
    let of_new = spans_of(source, &new).await?;
    touched.spans.merge(&of_new);
    touched.spans.settle();
    let erased = Selection::touched(&std::mem::take(&mut touched.erased), natures, grid);
    if touched.spans.is_coarse() {
        return Ok(Scope::Everything { closed: closed(source, rollup, &erased, grid, open_from_us).await? });
    }
    let erased = stored(source, rollup, &erased, grid).await?;
    let mut all = Selection::touched(&touched.spans, natures, grid);
    all.extend(&erased);
    // Where it was counted while nobody had registered it.
    let mut before = Selection::default();
    for (sensor, spans) in of_new.iter() {
        for Span { first_us, last_us } in spans {
            before.insert(sensor, window_of(grid, Nature::UNKNOWN.kind, *first_us));
            before.insert(sensor, window_of(grid, Nature::UNKNOWN.kind, *last_us));
        }
    }
    all.extend(&before);
    let mut windows = to_compute(&touched, natures, grid, open_from_us);
    windows.extend(&erased);
    windows.extend(&before.from(open_from_us));
    windows.extend(&followers(source, &all, natures, grid).await?.from(open_from_us));
    Ok(Scope::Touched { windows, left_out })
}

/// Those of some closed windows of which a rollup has rows.
pub(crate) async fn closed(
    source: &Source,
    rollup: &Table,
    windows: &Selection,
    grid: &Grid,
    open_from_us: i64,
) -> Result<Selection, RollupError> {
    stored(source, rollup, &windows.until(open_from_us), grid).await
}

/// Those of some windows of which a rollup has rows. Who erases may name a sensor's whole life.
async fn stored(source: &Source, rollup: &Table, windows: &Selection, grid: &Grid) -> Result<Selection, RollupError> {
    let mut found = Selection::default();
    if windows.is_empty() {
        return Ok(found);
    }
    let rows = source.context().read_table(rollup.provider())?.filter(windows.readings())?;
    for batch in rows.select_columns(&["sensor", "time"])?.collect().await? {
        let sensors = texts(batch.column(0))?;
        let starts = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        for (sensor, start_us) in sensors.iter().flatten().zip(starts.values()) {
            if windows.contains(sensor, *start_us) {
                found.insert(sensor, grid.window(*start_us));
            }
        }
    }
    Ok(found)
}

/// The moments at which these sensors have readings.
async fn spans_of(source: &Source, sensors: &BTreeSet<String>) -> Result<Spans, LakeError> {
    let mut spans = Spans::default();
    let (Some(first), Some(last)) = (sensors.first(), sensors.last()) else { return Ok(spans) };
    let may_hold = |file: &DataFile| file.sensor.as_ref().is_none_or(|(low, high)| low <= last && first <= high);
    for file in source.table().files().iter().filter(|file| may_hold(file)) {
        let take = |sensor: &str, times_us: &[i64]| {
            if sensors.contains(sensor) {
                spans.add(sensor, times_us.iter().copied());
            }
        };
        each_run(source.table().lake(), file, take).await?;
    }
    spans.settle();
    Ok(spans)
}
