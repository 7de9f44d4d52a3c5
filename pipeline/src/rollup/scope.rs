//! Which windows a rollup has to compute again: those that commits touched, and those of sensors that were registered
//! after their readings came, or of which the register says something else since.
//!
//! What a commit touches is told in `tjern_lake::rollup`, where queries ask the same. For counters a touched window also touches the
//! next one that has a good value, since the step into that one starts from it. A sensor that was registered after its
//! readings came, as something else than what is assumed of unknown ones, touches all its windows, and so does a counter that begins
//! again somewhere else, or of which an instrument was written down. Of a closed window after an
//! erased one only the step into it changes.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;
use tjern_lake::rollup::neighbours::{Closed, followers};
use tjern_lake::rollup::selection::window_of;
use tjern_lake::rollup::touched::each_run;
use tjern_lake::rollup::{
    Grid, Nature, Natures, Selection, Source, Span, Spans, Stepped, Touched, Words, steps_from_erased, to_compute,
};
use tjern_lake::{DataFile, LakeError, Table};

use super::RollupError;
use crate::frames::texts;

/// What has to be computed again.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Every window that is not closed.
    Everything {
        /// And closed ones of which readings were erased.
        closed: Selection,
        /// And those into which steps led from what was erased.
        stepped: Stepped,
    },
    /// These windows.
    Touched {
        windows: Selection,
        /// Closed ones into which steps led from what was erased.
        stepped: Stepped,
        /// Of closed windows, for which something came that is not summed up any more: how many, each by its sensor.
        left_out: usize,
    },
}

impl Scope {
    /// Whether nothing came.
    pub(crate) fn is_empty(&self) -> bool {
        let Self::Touched { windows, stepped, left_out: 0 } = self else { return false };
        windows.is_empty() && stepped.windows.is_empty()
    }
}

/// What a scope follows from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) source: &'a Source,
    pub(crate) rollup: &'a Table,
    pub(crate) natures: &'a Natures,
    pub(crate) grid: &'a Grid,
    /// The start of the first window that is not closed.
    pub(crate) open_from_us: i64,
}

impl Place<'_> {
    /// The windows that commits and new words of the register touched.
    pub(crate) async fn scope(&self, mut touched: Touched, seen: Words) -> Result<Scope, RollupError> {
        let Self { source, natures, grid, open_from_us, .. } = *self;
        let left_out = Selection::touched(&touched.spans, natures, grid);
        let left_out = left_out.ranges() - left_out.from(open_from_us).ranges();
        let of_new = spans_of(source, &natures.changed_since(seen)).await?;
        touched.spans.merge(&of_new);
        touched.spans.settle();
        let erased = Selection::touched(&std::mem::take(&mut touched.erased), natures, grid);
        if touched.spans.is_coarse() {
            return self.everything(&erased).await;
        }
        let erased = self.stored(&erased).await?;
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
        let stepped = self.stepped(&erased).await?;
        Ok(Scope::Touched { windows, stepped, left_out })
    }

    /// Every window that is not closed, and what erasure changes of the closed ones.
    pub(crate) async fn everything(&self, erased: &Selection) -> Result<Scope, RollupError> {
        let closed = self.stored(&erased.until(self.open_from_us)).await?;
        let stepped = self.stepped(&closed).await?;
        Ok(Scope::Everything { closed, stepped })
    }

    async fn stepped(&self, erased: &Selection) -> Result<Stepped, RollupError> {
        let closed = Closed { rollup: Some(self.rollup), until_us: self.open_from_us, anew: erased };
        Ok(steps_from_erased(self.source, erased, self.natures, self.grid, closed).await?)
    }

    /// Those of some windows of which the rollup has rows. Who erases may name a sensor's whole life.
    async fn stored(&self, windows: &Selection) -> Result<Selection, RollupError> {
        let mut found = Selection::default();
        if windows.is_empty() {
            return Ok(found);
        }
        let rows = self.source.context().read_table(self.rollup.provider())?.filter(windows.readings())?;
        let mut batches = rows.select_columns(&["sensor", "time"])?.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            let sensors = texts(batch.column(0))?;
            let starts = batch.column(1).as_primitive::<TimestampMicrosecondType>();
            for (sensor, start_us) in sensors.iter().flatten().zip(starts.values()) {
                if windows.contains(sensor, *start_us) {
                    found.insert(sensor, self.grid.window(*start_us));
                }
            }
        }
        Ok(found)
    }
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
