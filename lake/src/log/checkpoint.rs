//! A classic checkpoint: one Parquet file (or part of it) with the reconciled actions of a version.

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Int32Type, Int64Type};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{LogState, Removed, check_protocol, digest_of};
use crate::file::{AddEntry, DataFile, decode_path};
use crate::{Lake, LakeError};

/// The actions that matter to us; whole subtrees of others are not even decoded.
const ACTIONS: [&str; 4] = ["add", "txn", "protocol", "metaData"];

/// Reads one part of a checkpoint into `state`.
pub(super) async fn apply(state: &mut LogState, lake: &Lake, key: &Path) -> Result<(), LakeError> {
    for batch in read(state, lake, key, &ACTIONS).await? {
        let batch = batch.map_err(|error| state_damaged(state, key, &error.to_string()))?;
        take(state, &batch, key)?;
    }
    Ok(())
}

/// The files that one part of a checkpoint still knows as removed.
pub(super) async fn removed(state: &LogState, lake: &Lake, key: &Path) -> Result<Vec<Removed>, LakeError> {
    let mut removed = Vec::new();
    for batch in read(state, lake, key, &["remove"]).await? {
        let batch = batch.map_err(|error| state_damaged(state, key, &error.to_string()))?;
        let Some(actions) = batch.column_by_name("remove").and_then(|column| column.as_struct_opt()) else { continue };
        for row in (0..actions.len()).filter(|row| actions.is_valid(*row)) {
            let path = text(actions, "path", row).ok_or_else(|| state_damaged(state, key, "a removal without path"))?;
            let number = |name| integer(actions, name, row);
            let (at_ms, size) = (number("deletionTimestamp"), number("size"));
            removed.push(Removed { path: decode_path(&path), at_ms, size });
        }
    }
    Ok(removed)
}

async fn read(
    state: &LogState,
    lake: &Lake,
    key: &Path,
    actions: &[&str],
) -> Result<ParquetRecordBatchReader, LakeError> {
    let failed = |source| LakeError::store(key, source);
    let bytes = lake.objects().get(key).await.map_err(failed)?.bytes().await.map_err(failed)?;
    let parquet = |source: parquet::errors::ParquetError| state_damaged(state, key, &source.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(parquet)?;
    let roots = builder.schema().fields().iter().enumerate();
    let wanted: Vec<_> =
        roots.filter(|(_, field)| actions.contains(&field.name().as_str())).map(|(index, _)| index).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    builder.with_projection(mask).build().map_err(parquet)
}

fn state_damaged(state: &LogState, key: &Path, what: &str) -> LakeError {
    state.damaged(key.as_ref(), what)
}

fn take(state: &mut LogState, batch: &RecordBatch, key: &Path) -> Result<(), LakeError> {
    let action = |name: &str| batch.column_by_name(name).and_then(|column| column.as_struct_opt());
    for row in 0..batch.num_rows() {
        if let Some(protocol) = action("protocol").filter(|actions| actions.is_valid(row)) {
            let reader = integer(protocol, "minReaderVersion", row).unwrap_or(i64::MAX);
            check_protocol(state.table, reader)?;
        }
        if let Some(metadata) = action("metaData").filter(|actions| actions.is_valid(row)) {
            state.id = text(metadata, "id", row).map(|id| digest_of(id.as_bytes())).or(state.id);
        }
        if let Some(txn) = action("txn").filter(|actions| actions.is_valid(row)) {
            let missing = || state_damaged(state, key, "a transaction without name or number");
            let app_id = text(txn, "appId", row).ok_or_else(missing)?;
            let version = integer(txn, "version", row).ok_or_else(missing)?;
            state.transactions.insert(app_id, version);
        }
        if let Some(add) = action("add").filter(|actions| actions.is_valid(row)) {
            let entry = entry(add, row).ok_or_else(|| state_damaged(state, key, "a file without path or size"))?;
            let file = DataFile::from_entry(entry, state.table.sort_columns());
            state.files.insert(file.path.clone(), file);
        }
    }
    Ok(())
}

fn entry(add: &StructArray, row: usize) -> Option<AddEntry> {
    Some(AddEntry {
        path: text(add, "path", row)?,
        size: integer(add, "size", row)?,
        modification_time: integer(add, "modificationTime", row).unwrap_or_default(),
        stats: text(add, "stats", row),
        tags: tags(add, row),
        deletion_vector: None,
    })
}

fn tags(add: &StructArray, row: usize) -> Option<std::collections::HashMap<String, Option<String>>> {
    let map = add.column_by_name("tags")?.as_map_opt()?;
    if map.is_null(row) {
        return None;
    }
    let entries = map.value(row);
    let words = |column: usize, index: usize| {
        let column = arrow::compute::cast(entries.column(column), &arrow::datatypes::DataType::Utf8).ok()?;
        let column = column.as_string_opt::<i32>()?;
        column.is_valid(index).then(|| column.value(index).to_owned())
    };
    (0..entries.len()).map(|index| Some((words(0, index)?, words(1, index)))).collect()
}

fn text(actions: &StructArray, name: &str, row: usize) -> Option<String> {
    let column = actions.column_by_name(name)?;
    if column.is_null(row) {
        return None;
    }
    if let Some(column) = column.as_string_opt::<i32>() {
        return Some(column.value(row).to_owned());
    }
    column.as_string_view_opt().map(|column| column.value(row).to_owned())
}

fn integer(actions: &StructArray, name: &str, row: usize) -> Option<i64> {
    let column = actions.column_by_name(name)?;
    if column.is_null(row) {
        return None;
    }
    if let Some(column) = column.as_primitive_opt::<Int64Type>() {
        return Some(column.value(row));
    }
    column.as_primitive_opt::<Int32Type>().map(|column| i64::from(column.value(row)))
}
