//! Whether the rows of a batch are in the table as they came.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::sort_to_indices;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use datafusion::error::DataFusionError;
use datafusion::prelude::{Expr, col, lit};
use datafusion::scalar::ScalarValue;
use tjern_lake::{Table, TableName, schema};
use tjern_readings::keys::Bounds;

use super::IngestError;
use super::landing::Stream;
use crate::erase::Erasures;
use crate::tables::{conform, engine};

/// Compares sensor, time, value and number; flags may have been changed since. What was erased counts as not stored: the
/// rows are without it already.
pub(super) async fn are_stored(
    table: &Table,
    (source, epoch): &Stream,
    bounds: Bounds,
    rows: &RecordBatch,
    erasures: &Erasures,
) -> Result<bool, IngestError> {
    if rows.num_rows() == 0 {
        return Ok(true);
    }
    let context = engine(table.lake())?;
    let stored = context
        .read_table(table.provider())?
        // Files are left out by sensor and time, and by nothing else: without these all of history would be opened.
        .filter(within(rows, 0)?.and(within(rows, 1)?))?
        .filter(col("source").eq(lit(source.as_str())).and(col("epoch").eq(lit(epoch.to_string()))))?
        .filter(col("seq").between(lit(bounds.first), lit(bounds.last)).and(col("revision").eq(lit(0_i16))))?
        .sort(vec![col("seq").sort(true, false)])?
        .collect()
        .await?;
    let wanted = schema::arrow(TableName::Readings);
    let conformed = stored
        .iter()
        .map(|batch| erasures.without(&conform(batch, &wanted)?).map(|(rest, _)| rest))
        .collect::<Result<Vec<_>, _>>();
    let conformed = conformed.map_err(|error| DataFusionError::ArrowError(Box::new(error), None))?;
    let found = conformed.iter().flat_map(identities);
    Ok(found.eq(identities(rows)))
}

/// Where a column's least and greatest value lie.
fn within(rows: &RecordBatch, column: usize) -> Result<Expr, DataFusionError> {
    let values = rows.column(column);
    let order = sort_to_indices(values, None, None)?;
    let ends = [0, order.len().saturating_sub(1)];
    let [least, greatest] =
        ends.map(|end| ScalarValue::try_from_array(values, usize::try_from(order.value(end)).unwrap_or_default()));
    Ok(col(rows.schema().field(column).name()).between(lit(least?), lit(greatest?)))
}

type Identity = (i64, String, i64, Option<u64>);

fn identities(rows: &RecordBatch) -> impl Iterator<Item = Identity> {
    let sensors = rows.column(0).as_string::<i32>().clone();
    let times = rows.column(1).as_primitive::<TimestampMicrosecondType>().clone();
    let values = rows.column(2).as_primitive::<Float64Type>().clone();
    let numbers = rows.column(8).as_primitive::<Int64Type>().clone();
    (0..rows.num_rows()).map(move |row| {
        let value = values.is_valid(row).then(|| values.value(row).to_bits());
        (numbers.value(row), sensors.value(row).to_owned(), times.value(row), value)
    })
}
