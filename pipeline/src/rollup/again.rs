//! Windows that somebody names, since readings left them without a trace: what an erasure touches.
//!
//! They are found by the rows that a rollup has of the sensor about that time. A window of which every reading is gone has
//! no row any more once it was computed again.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::prelude::{col, lit};
use futures::TryStreamExt;
use tjern_lake::rollup::windows::{DAY_US, HOUR_US};
use tjern_lake::rollup::{Span, Spans};
use tjern_lake::{Table, TableName};

use super::RollupError;
use crate::register::{Kind, Register};
use crate::tables::engine;

/// No day is longer: a civil day on which clocks are set back.
const LONGEST_DAY_US: i64 = DAY_US + 2 * HOUR_US;

/// A sensor's readings from one moment on, up to and without another.
pub(crate) type Period = (String, i64, i64);

/// Windows that are computed again whatever came, and transactions that the commit moves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Again {
    pub(crate) spans: Vec<Period>,
    pub(crate) marks: Vec<(String, i64)>,
}

impl Again {
    pub(crate) fn touched(&self) -> Spans {
        spans_of(&self.spans)
    }
}

/// The same with their last moment in place of the one after it.
pub(crate) fn spans_of(periods: &[Period]) -> Spans {
    let mut spans = Spans::default();
    for (sensor, from_us, to_us) in periods.iter().filter(|(_, from_us, to_us)| from_us < to_us) {
        spans.push(sensor, Span { first_us: *from_us, last_us: to_us - 1 });
    }
    spans.settle();
    spans
}

/// Sensor and start of each row whose window may hold readings of these spans. A reading of an interval belongs to the window in which that
/// lies, and carries its end: one at a border is of the window before it. So may be one of a sensor that the register does not know (any more).
pub(crate) async fn rows_of_spans(
    table: &Table,
    spans: &[Period],
    register: &Register,
) -> Result<Vec<(String, i64)>, RollupError> {
    let names: BTreeSet<&str> = spans.iter().map(|(sensor, ..)| sensor.as_str()).collect();
    let wanted = names.into_iter().map(lit).collect();
    let rows = engine(table.lake())?.read_table(table.provider())?.filter(col("sensor").in_list(wanted, false))?;
    let longest_us = if table.name() == TableName::Hourly { HOUR_US } else { LONGEST_DAY_US };
    let mut found = Vec::new();
    let mut batches = rows.select_columns(&["sensor", "time"])?.execute_stream().await?;
    while let Some(batch) = batches.try_next().await? {
        let sensors = crate::frames::texts(batch.column(0))?;
        let starts = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let rows = sensors.iter().flatten().zip(starts.values().iter().copied());
        let near = rows.filter(|(sensor, start_us)| {
            let last_us = start_us.saturating_add(longest_us - i64::from(!may_be_of_an_interval(register, sensor)));
            spans.iter().any(|(name, from_us, to_us)| name == sensor && start_us < to_us && last_us >= *from_us)
        });
        found.extend(near.map(|(sensor, start_us)| (sensor.to_owned(), start_us)));
    }
    Ok(found)
}

fn may_be_of_an_interval(register: &Register, sensor: &str) -> bool {
    register.get(sensor).is_none_or(|row| matches!(row.kind, Kind::IntervalMean | Kind::IntervalSum))
}
