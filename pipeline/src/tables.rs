//! What the pipeline's rooms share when they read tables: one engine, one way to collect rows, and
//! how rows get the columns and the order of a table's files.

use std::sync::Arc;

use arrow::compute::{SortColumn, lexsort_to_indices, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use tjern_lake::session::{bare_session, job_session};
use tjern_lake::{Access, DataFile, Lake, LakeError, SessionSettings, TableName};
use tjern_readings::keys;

use crate::bounds::Bounds;

/// How often a commit is built again after another one came first. Each time somebody else got on,
/// so more than this many in a row means that something is badly wrong.
pub(crate) const ATTEMPTS_MAX: usize = 16;

/// What queries may take whose answers are small, whatever the lake holds; none of them comes near it.
const SMALL_MEMORY_BYTES: usize = 1 << 30;

/// An engine for what is small whatever the lake holds: the register, the rows of one batch, names. It reads the files it is
/// handed, and knows no table by name.
pub(crate) fn engine(lake: &Lake) -> Result<SessionContext, LakeError> {
    let timezone = jiff::tz::TimeZone::UTC;
    bare_session(lake, &SessionSettings { access: Access::Staff, timezone, memory_bytes: SMALL_MEMORY_BYTES })
}

/// An engine that sorts any number of rows within a job's bounds.
pub(crate) fn engine_within(lake: &Lake, bounds: &Bounds) -> Result<SessionContext, LakeError> {
    let timezone = jiff::tz::TimeZone::UTC;
    let settings = SessionSettings { access: Access::Staff, timezone, memory_bytes: bounds.engine_bytes() };
    job_session(lake, &settings, &bounds.spill_folder)
}

/// All rows of a provider.
pub(crate) async fn collect(
    context: &SessionContext,
    provider: Arc<dyn TableProvider>,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    context.read_table(provider)?.collect().await
}

/// Removes files that were written and that nobody will name: whoever lost its lease may have written them after others looked for
/// what was to be erased.
pub(crate) async fn let_go(lake: &Lake, table: TableName, files: &[DataFile]) {
    let folder = keys::table(table.as_str());
    let keys: Vec<_> = files.iter().map(|file| folder.clone().join(file.path.as_str())).collect();
    if let Err(error) = crate::vacuum::remove(lake, keys).await {
        tracing::warn!(%table, files = files.len(), %error, "files that no version names stay until vacuum");
    }
}

/// A batch with exactly the columns and types of a table's files: an engine hands text out in views,
/// and forgets what is never null.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| {
        let column = batch.column(batch.schema().index_of(field.name())?);
        arrow::compute::cast(column, field.data_type())
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)
}

/// The rows in the order of a table's files. Equal rows keep theirs.
pub(crate) fn sorted(batch: &RecordBatch, columns: &[&str]) -> Result<RecordBatch, ArrowError> {
    let keys = columns.iter().map(|name| {
        let values = Arc::clone(batch.column(batch.schema().index_of(name)?));
        Ok(SortColumn { values, options: None })
    });
    let places = lexsort_to_indices(&keys.collect::<Result<Vec<_>, ArrowError>>()?, None)?;
    take_record_batch(batch, &places)
}
