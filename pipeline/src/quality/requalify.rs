//! Going over what lies in `readings` when the register's ranges have changed.
//!
//! A file in which some row's evaluation differs from what is stored is rewritten with the new flags, in one
//! commit; every other column is the same to the bit, and that is asserted. Two transactions say
//! how far this has come: the version of `sensors` that was applied, and the version of `readings` up to
//! which it was. While the register stands still only files that came since are looked at: ingest may
//! have evaluated them by an older register.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionContext;
use tjern_lake::{Commit, CommitError, DataFile, Lake, LakeError, Operation, Table, TableName, schema, write_file};

use super::{QualityError, evaluate};
use crate::register::{Register, RegisterError, sensors_history};
use crate::tables::{ATTEMPTS_MAX, collect, conform, engine, sorted};

/// The version of `readings` up to which files were looked at.
const SEEN_TRANSACTION: &str = "quality";
/// The version of `sensors` by which they were looked at.
const REGISTER_TRANSACTION: &str = "quality/register";

/// Where nothing was found wrong the two are moved only when looking again would cost this many files.
const SEEN_FILES_MAX: usize = 64;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequalifyOutcome {
    /// How many files were looked at.
    pub files_seen: usize,
    /// How many of them were rewritten.
    pub files_rewritten: usize,
    /// How many rows got another flag.
    pub rows_changed: usize,
}

/// Why flags were not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum RequalifyError {
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Others changed the table each time.
    #[error(
        "table `readings` was changed by others {ATTEMPTS_MAX} times in a row; hint: try again when less is going on"
    )]
    Contended,
    /// The register could not be read.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// Rows could not be evaluated.
    #[error(transparent)]
    Quality(#[from] QualityError),
    /// The query engine failed.
    #[error("the query engine failed: {0}")]
    Engine(#[from] DataFusionError),
    /// Arrow refused.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
}

/// Brings the flags of all readings to what the register says now. With nothing to do it commits
/// nothing.
///
/// # Errors
/// [`RequalifyError`].
pub async fn requalify(lake: &Lake) -> Result<RequalifyOutcome, RequalifyError> {
    let Some(mut table) = Table::open(lake, TableName::Readings).await? else { return Ok(RequalifyOutcome::default()) };
    let (register_version, history) = sensors_history(lake).await?;
    let register = crate::register::register_of(&history);
    for _ in 0..ATTEMPTS_MAX {
        let files = files_to_see(&table, register_version).await?;
        let moved = table.transaction(REGISTER_TRANSACTION) != Some(register_version);
        let (commit, outcome) = prepare(lake, &table, &register, files).await?;
        let seen_enough = outcome.files_seen > SEEN_FILES_MAX || (moved && outcome.files_seen > 0);
        if commit.add.is_empty() && !seen_enough {
            return Ok(outcome);
        }
        let transactions = [(SEEN_TRANSACTION, table.version()), (REGISTER_TRANSACTION, register_version)];
        let transactions = transactions.map(|(app_id, number)| (app_id.to_owned(), number)).to_vec();
        match table.commit(Commit { transactions, ..commit }).await {
            Ok(_) => return Ok(outcome),
            Err(CommitError::Conflict { .. }) => _ = table.refresh().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(RequalifyError::Contended)
}

async fn files_to_see(table: &Table, register_version: i64) -> Result<Vec<DataFile>, RequalifyError> {
    match table.transaction(SEEN_TRANSACTION) {
        Some(seen) if table.transaction(REGISTER_TRANSACTION) == Some(register_version) => {
            let changes = table.changes_since(seen).await?;
            let overlaps = |file: &DataFile| changes.gone.iter().any(|gone| may_overlap(file, gone));
            let seen = |file: &DataFile| changes.unclear || changes.added.contains(file) || overlaps(file);
            Ok(table.files().into_iter().filter(seen).collect())
        }
        _ => Ok(table.files()),
    }
}

/// Whether one file may hold rows that were in the other.
fn may_overlap(one: &DataFile, other: &DataFile) -> bool {
    match (one.time_us, other.time_us) {
        (Some((low, high)), Some((other_low, other_high))) => low <= other_high && other_low <= high,
        _ => true,
    }
}

/// The commit that rewrites what has to be.
async fn prepare(
    lake: &Lake,
    table: &Table,
    register: &Register,
    files: Vec<DataFile>,
) -> Result<(Commit, RequalifyOutcome), RequalifyError> {
    let context = engine(lake)?;
    let mut outcome = RequalifyOutcome { files_seen: files.len(), ..RequalifyOutcome::default() };
    let mut commit = Commit {
        operation: Operation::Quality,
        add: Vec::new(),
        remove: Vec::new(),
        transactions: Vec::new(),
        notes: BTreeMap::new(),
    };
    for file in files {
        let rows = rows_of(&context, table, &file).await?;
        let evaluated = evaluate(&rows, register)?;
        let changed = count_changed(&rows, &evaluated);
        if changed > 0 {
            assert_only_flags_changed(&rows, &evaluated);
            commit.add.push(write_file(lake, TableName::Readings, &[evaluated]).await?);
            commit.remove.push(file);
            outcome.files_rewritten += 1;
            outcome.rows_changed += changed;
        }
    }
    Ok((commit, outcome))
}

/// A file's rows, in the order that it declares.
async fn rows_of(context: &SessionContext, table: &Table, file: &DataFile) -> Result<RecordBatch, RequalifyError> {
    let schema = schema::arrow(TableName::Readings);
    let batches = collect(context, table.provider_of(vec![file.clone()])).await?;
    let batches = batches.iter().map(|batch| conform(batch, &schema)).collect::<Result<Vec<_>, _>>()?;
    let rows = concat_batches(&schema, &batches)?;
    // An engine may read a file's parts side by side.
    Ok(if file.sorted { sorted(&rows, &TableName::Readings.sort_columns())? } else { rows })
}

fn count_changed(before: &RecordBatch, after: &RecordBatch) -> usize {
    let differs = |name: &str, row: usize| {
        let cell = |batch: &RecordBatch| batch.column_by_name(name).map(|column| column.slice(row, 1).to_data());
        cell(before) != cell(after)
    };
    let same = ["quality", "tests"].iter().all(|name| before.column_by_name(name) == after.column_by_name(name));
    if same {
        return 0;
    }
    (0..before.num_rows()).filter(|row| differs("quality", *row) || differs("tests", *row)).count()
}

/// Flags may change; a reading may not. That every other column is the same is a promise to whoever
/// trusts the table, so it is checked where it could break.
fn assert_only_flags_changed(before: &RecordBatch, after: &RecordBatch) {
    assert_eq!(before.num_rows(), after.num_rows(), "quality control neither adds nor drops rows");
    for (field, column) in before.schema().fields().iter().zip(before.columns()) {
        if !["quality", "tests"].contains(&field.name().as_str()) {
            let kept = after.column_by_name(field.name());
            let kept = kept.is_some_and(|kept| Arc::ptr_eq(kept, column) || kept.to_data() == column.to_data());
            assert!(kept, "quality control leaves `{}` alone", field.name());
        }
    }
}
