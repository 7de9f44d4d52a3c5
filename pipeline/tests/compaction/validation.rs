//! A person's word on readings takes no more memory than it was given, whatever the size of the file that they lie in.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use futures::TryStreamExt;
use tjern_lake::{FileReader, Operation, Table, TableName};
use tjern_pipeline::correct::Author;
use tjern_pipeline::correct::recompute::Period;
use tjern_pipeline::validate::validate_within;
use tokio_util::sync::CancellationToken;

use crate::memory::memory;
use crate::place::{ALONE, a_lake, commit, numbers};
use crate::quality::{DAY_US, MEMORY_BYTES, SENSOR_ROWS, TIMES, bounds, sealed};

/// All rows of a table at once, as validation once had those of a file: as they were read, in one piece, and sorted.
async fn held(table: &Table) -> Vec<RecordBatch> {
    let (mut held, wanted) = (Vec::new(), tjern_lake::schema::arrow(TableName::Readings));
    for file in table.files() {
        let rows = FileReader::open(table.lake(), TableName::Readings, &file).await.expect("opened").rows(8_192);
        let batches: Vec<RecordBatch> = rows.expect("rows").try_collect().await.expect("read");
        for batch in batches {
            let columns = batch.columns().iter().zip(wanted.fields());
            let columns =
                columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()).expect("texts"));
            held.push(RecordBatch::try_new(Arc::clone(&wanted), columns.collect()).expect("the table's columns"));
        }
    }
    let whole = arrow::compute::concat_batches(&wanted, &held).expect("rows");
    let places = UInt32Array::from_iter_values(0..u32::try_from(whole.num_rows()).expect("small"));
    held.push(arrow::compute::take_record_batch(&whole, &places).expect("rows"));
    held.push(whole);
    held
}

/// A sealed file has as many rows as fit into 128 MiB, a hundred million of them. The first of two sensors is for what a process makes
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_validated_within_the_memory() {
    let _alone = ALONE.lock().await;
    let spill = tempfile::tempdir().expect("a folder");
    let (_folder, lake) = a_lake();
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("a table");
    table.commit(commit(Operation::Compact, vec![sealed(&lake).await], vec![])).await.expect("committed");
    let before = numbers(&table).await.expect("read");
    let (author, bounds) =
        (Author { by: "the bathing water office".to_owned(), reason: None }, bounds(MEMORY_BYTES, spill.path()));
    let validated = async |sensor: &str| {
        let period = Period { sensor: sensor.parse().expect("valid"), from_us: DAY_US, to_us: DAY_US + (1 << 40) };
        let outcome = validate_within(&lake, &period, &author, false, &bounds, &CancellationToken::new())
            .await
            .expect("validated");
        assert_eq!(i64::try_from(outcome.changed).expect("small"), SENSOR_ROWS);
        memory()
    };
    let had = validated("tarn-004/level").await.map(|(now, _)| now);
    let most = validated("tarn-007/level").await.map(|(_, most)| most);
    table.refresh().await.expect("read");
    assert_eq!(numbers(&table).await.expect("read"), before);
    let all = held(&table).await;
    let whole = memory().map(|(_, most)| most);
    assert_eq!(all[all.len() - 1].num_rows(), usize::try_from(before.0).expect("small"));
    eprintln!("{had:?} bytes before, {most:?} at the most, {whole:?} with all rows at once");
    if let ((Some(had), Some(most)), Some(whole)) = (had.zip(most).unzip(), whole) {
        assert!(most < had + TIMES / 2 * MEMORY_BYTES, "it took {most} bytes");
        assert!(whole > had + TIMES / 2 * MEMORY_BYTES, "the measure does not see {whole} bytes");
    }
}
