//! A lake on disk, and readings in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type};
use futures::StreamExt;
use tjern_lake::{Commit, DataFile, FileReader, Lake, Operation, Table, TableName, schema, write_file};
use tjern_readings::store::LakeUrl;

pub(crate) const HOUR_US: i64 = 3_600_000_000;

/// Tests of one process that measure it, or that need all of it, take turns.
pub(crate) static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// An empty lake in a folder that goes with it.
pub(crate) fn a_lake() -> (tempfile::TempDir, Lake) {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = Lake::open(&LakeUrl::folder(folder.path()).expect("absolute")).expect("opened");
    (folder, lake)
}

/// The start of today in UTC, in microseconds: rows of today lie in the newest window.
pub(crate) fn today_us(lake: &Lake) -> i64 {
    lake.clock().now_us() / (24 * HOUR_US) * 24 * HOUR_US
}

/// Rows of sensors in turn, numbered from `first`; a number is a row's value too.
pub(crate) fn rows(first: i64, count: i64, sensors: i64, time_us: impl Fn(i64) -> i64) -> RecordBatch {
    let numbers = || first..first + count;
    let len = usize::try_from(count).expect("small");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(numbers().map(|number| format!("tarn-{:03}/level", number % sensors)))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(numbers().map(&time_us)).with_timezone("UTC")),
        Arc::new(Float64Array::from_iter_values(
            numbers().map(|number| f64::from(i32::try_from(number).expect("small"))),
        )),
        Arc::new(Int8Array::from(vec![1; len])),
        Arc::new(StringArray::new_null(len)),
        Arc::new(Int32Array::new_null(len)),
        Arc::new(StringArray::from(vec!["landfall-01"; len])),
        Arc::new(StringArray::from(vec!["0123456789abcdef0123456789abcdef"; len])),
        Arc::new(Int64Array::from_iter_values(numbers())),
        Arc::new(Int16Array::from(vec![0; len])),
        Arc::new(Int8Array::from(vec![0; len])),
        Arc::new(Int32Array::new_null(len)),
        Arc::new(TimestampMicrosecondArray::from(vec![0; len]).with_timezone("UTC")),
    ];
    RecordBatch::try_new(schema::arrow(TableName::Readings), columns).expect("the table's columns")
}

/// Writes a file that nobody names yet.
pub(crate) async fn file(lake: &Lake, rows: &RecordBatch) -> DataFile {
    write_file(lake, TableName::Readings, std::slice::from_ref(rows)).await.expect("written")
}

/// A commit.
pub(crate) fn commit(operation: Operation, add: Vec<DataFile>, remove: Vec<DataFile>) -> Commit {
    Commit { operation, add, remove, transactions: Vec::new(), notes: BTreeMap::new() }
}

/// How many rows a version has, how many different numbers, and their sum, read file by file.
pub(crate) async fn numbers(table: &Table) -> Result<(i64, i64, i64), String> {
    let (mut seqs, mut values) = (Vec::new(), 0.0);
    for file in table.files() {
        let opened = FileReader::open(table.lake(), TableName::Readings, &file).await;
        let mut rows = opened.and_then(|file| file.rows(8_192)).map_err(|error| error.to_string())?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| error.to_string())?;
            let column = |name| batch.column_by_name(name).expect("a column");
            seqs.extend(column("seq").as_primitive::<Int64Type>().values());
            values += arrow::compute::sum(column("value").as_primitive::<Float64Type>()).unwrap_or(0.0);
        }
    }
    let (count, sum) = (seqs.len(), seqs.iter().sum::<i64>());
    #[expect(clippy::cast_possible_truncation, reason = "a sum of small whole numbers")]
    if values as i64 != sum {
        return Err(format!("the values' sum is {values}, the numbers' {sum}"));
    }
    seqs.sort_unstable();
    seqs.dedup();
    let long = |count| i64::try_from(count).expect("small");
    Ok((long(count), long(seqs.len()), sum))
}
