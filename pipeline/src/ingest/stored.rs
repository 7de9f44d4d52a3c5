//! Whether the rows of a batch are in the table as they came.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::sort_to_indices;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use datafusion::error::DataFusionError;
use datafusion::prelude::{DataFrame, Expr, col, lit};
use datafusion::scalar::ScalarValue;
use tjern_lake::{Lake, Table, TableName, schema};
use tjern_readings::batch::Batch;
use tjern_readings::keys::Bounds;

use super::landing::Stream;
use super::rows::{self, Came, Units};
use super::{IngestError, Taken};
use crate::erase::Erasures;
use crate::quality::QualityError;
use crate::register::Said;
use crate::tables::{conform, engine};

/// What can be said of a batch that ingest looked at and that does not lie in the landing zone any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remains {
    /// It holds no reading that was erased.
    NothingErased,
    /// It does, and all its others are in the table.
    Stored,
    /// It does, and its others are not in the table.
    Refused,
}

/// Asks the table what became of a batch.
pub(crate) async fn remains_of(lake: &Lake, batch: &Batch) -> Result<Remains, IngestError> {
    let erasures = Erasures::load(lake).await?;
    if erasures.count(&batch.rows) == 0 {
        return Ok(Remains::NothingErased);
    }
    let header = &batch.header;
    let (source, epoch, bounds) = (&header.source, header.epoch, header.bounds);
    let table = Table::open(lake, TableName::Readings).await?;
    let Some(table) = table.filter(|table| Taken::of(table, source, epoch).has(bounds)) else {
        return Ok(Remains::Refused);
    };
    let came = Came { landed_us: i64::MAX, received_us: lake.clock().now_us() };
    let rows = rows::rows(batch, &Said::load(lake).await?, &Units::new(), came)?;
    let (rest, _) = erasures.without(&rows.batch).map_err(QualityError::from)?;
    let is_stored = are_stored(&table, &(source.clone(), epoch), bounds, &rest, &erasures).await?;
    Ok(if is_stored { Remains::Stored } else { Remains::Refused })
}

/// Compares sensor, time, value and number; flags may have been changed since. What was erased counts as not stored: the
/// rows are without it already. Of an import a row may have been left out since it repeats another of its source
/// ([`repeated`](super::repeated)): then it is enough that its source has said something of its moment.
pub(super) async fn are_stored(
    table: &Table,
    stream: &Stream,
    bounds: Bounds,
    rows: &RecordBatch,
    erasures: &Erasures,
) -> Result<bool, IngestError> {
    if rows.num_rows() == 0 {
        return Ok(true);
    }
    let (source, epoch) = stream;
    let of_source = engine(table.lake())?
        .read_table(table.provider())?
        // Files are left out by sensor and time, and by nothing else: without these all of history would be opened.
        .filter(within(rows, 0)?.and(within(rows, 1)?))?
        .filter(col("source").eq(lit(source.as_str())).and(col("revision").eq(lit(0_i16))))?;
    let of_batch = of_source
        .clone()
        .filter(col("epoch").eq(lit(epoch.to_string())))?
        .filter(col("seq").between(lit(bounds.first), lit(bounds.last)))?
        .sort(vec![col("seq").sort(true, false)])?;
    let found = conformed(of_batch, erasures).await?;
    if found.iter().flat_map(identities).eq(identities(rows)) {
        return Ok(true);
    }
    if source.is_gateway() {
        return Ok(false);
    }
    let sent: HashSet<Identity> = identities(rows).collect();
    let others = conformed(of_source, erasures).await?;
    let told: HashSet<(String, i64)> =
        others.iter().flat_map(identities).map(|(_, sensor, time_us, _)| (sensor, time_us)).collect();
    let is_told = |(_, sensor, time_us, _): Identity| told.contains(&(sensor, time_us));
    Ok(found.iter().flat_map(identities).all(|row| sent.contains(&row)) && identities(rows).all(is_told))
}

/// The rows of a query with the table's columns, without what was erased.
async fn conformed(query: DataFrame, erasures: &Erasures) -> Result<Vec<RecordBatch>, DataFusionError> {
    let wanted = schema::arrow(TableName::Readings);
    let without = |batch: &RecordBatch| erasures.without(&conform(batch, &wanted)?).map(|(rest, _)| rest);
    let rest = query.collect().await?.iter().map(without).collect::<Result<Vec<_>, _>>();
    rest.map_err(|error| DataFusionError::ArrowError(Box::new(error), None))
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
