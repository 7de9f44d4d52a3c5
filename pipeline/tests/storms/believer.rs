//! The canary: an ingest that is made as one would make it first. It keeps in mind which batches it has
//! committed, and where a commit fails it commits again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int16Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use object_store::path::Path;
use tjern_lake::{Commit, Lake, Operation, Table, TableName, schema, write_file};
use tjern_readings::batch::{Batch, decode};

/// How often it tries one batch.
const ATTEMPTS_MAX: usize = 60;

/// What it has committed, as it believes.
#[derive(Debug, Default)]
pub(crate) struct Believer(BTreeSet<Path>);

impl Believer {
    /// Commits a batch, until it is told that it was committed.
    pub(crate) async fn take(&mut self, lake: &Lake, key: &Path, bytes: &[u8]) {
        if self.0.contains(key) {
            return;
        }
        let rows = rows_of(&decode(bytes).expect("a batch"));
        for _ in 0..ATTEMPTS_MAX {
            let Ok(mut table) = Table::open_or_create(lake, TableName::Readings).await else { continue };
            let Ok(file) = write_file(lake, TableName::Readings, std::slice::from_ref(&rows)).await else { continue };
            let (remove, transactions, notes) = (Vec::new(), Vec::new(), BTreeMap::new());
            let commit = Commit { operation: Operation::Ingest, add: vec![file], remove, transactions, notes };
            if table.commit(commit).await.is_ok() {
                self.0.insert(key.clone());
                return;
            }
        }
    }
}

fn rows_of(batch: &Batch) -> RecordBatch {
    let count = batch.rows.num_rows();
    let column = |index: usize, kind: &DataType| cast(batch.rows.column(index), kind).expect("a column of a batch");
    let same = |text: String| -> ArrayRef { Arc::new(StringArray::from(vec![text; count])) };
    let columns: Vec<ArrayRef> = vec![
        column(0, &DataType::Utf8),
        column(1, &schema::time_type()),
        column(2, &DataType::Float64),
        column(3, &DataType::Int8),
        column(4, &DataType::Utf8),
        column(5, &DataType::Int32),
        same(batch.header.source.to_string()),
        same(batch.header.epoch.to_string()),
        column(6, &DataType::Int64),
        Arc::new(Int16Array::from(vec![0; count])),
        Arc::new(Int8Array::from(vec![0; count])),
        Arc::new(Int32Array::new_null(count)),
        Arc::new(TimestampMicrosecondArray::from(vec![0; count]).with_timezone("UTC")),
    ];
    RecordBatch::try_new(schema::arrow(TableName::Readings), columns).expect("the table's columns")
}
