//! Whether the rows of a batch are in the table as they came.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use datafusion::error::DataFusionError;
use datafusion::prelude::{col, lit};
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
    let context = engine(table.lake())?;
    let stored = context
        .read_table(table.provider())?
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
