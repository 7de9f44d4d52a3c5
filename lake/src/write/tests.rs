//! A file is read back row by row, whatever way its columns were written in and wherever it was cut.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::file::metadata::ParquetMetaData;

use super::layout::GroupRows;
use super::*;

/// Readings of some sensors on one grid, received together.
fn rows(sensors: usize, each: usize, value: impl Fn(usize, usize) -> Option<f64>) -> RecordBatch {
    let schema = schema::arrow(TableName::Readings);
    let all = || (0..sensors).flat_map(|sensor| (0..each).map(move |slot| (sensor, slot)));
    let number = |value: usize| i64::try_from(value).expect("small");
    let time = |slot: usize| 1_700_000_000_000_000 + number(slot) * 60_000_000;
    let times = |moment: &dyn Fn(usize) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(all().map(|(_, slot)| moment(slot))).with_timezone("UTC"))
    };
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("sensor", _) => {
                Arc::new(StringArray::from_iter(all().map(|(sensor, _)| Some(format!("site-{sensor:03}/level")))))
            }
            ("time", _) => times(&time),
            // As an ingest of each minute's batch stamps it: some hundred milliseconds this way or that.
            ("received", _) => times(&|slot| time(slot) + 60_123_457 + number(slot) * 7_919 % 499_979),
            ("value", _) => Arc::new(Float64Array::from_iter(all().map(|(sensor, slot)| value(sensor, slot)))),
            ("seq", _) => {
                Arc::new(Int64Array::from_iter(all().map(|(sensor, slot)| Some(number(slot * sensors + sensor)))))
            }
            (_, DataType::Int8) => Arc::new(Int8Array::from(vec![1; sensors * each])),
            (_, DataType::Int16) => Arc::new(Int16Array::from(vec![0; sensors * each])),
            (_, DataType::Int32) => Arc::new(Int32Array::from(vec![None; sensors * each])),
            ("cause", _) => Arc::new(StringArray::from(vec![None::<&str>; sensors * each])),
            _ => Arc::new(StringArray::from_iter(all().map(|_| Some("gateway-01")))),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("the table's columns")
}

/// A writer of sealed files whose row groups are small enough for a test.
fn cut_at(enough: usize, max: usize) -> FileWriter {
    let mut writer = FileWriter::sealed(TableName::Readings).expect("made");
    writer.encoded.group_rows = GroupRows { max, enough };
    writer
}

async fn written(mut writer: FileWriter, rows: &RecordBatch, at_once: usize) -> (ParquetMetaData, RecordBatch) {
    let lake = Lake::open(&"memory:///".parse().expect("a lake")).expect("opened");
    for start in (0..rows.num_rows()).step_by(at_once) {
        writer.write(&rows.slice(start, at_once.min(rows.num_rows() - start))).expect("written");
    }
    let file = writer.finish(&lake).await.expect("stored");
    assert_eq!(file.rows, Some(i64::try_from(rows.num_rows()).expect("small")));
    let key = tjern_readings::keys::table("readings").join(file.path.as_str());
    let bytes = lake.objects().get(&key).await.expect("there").bytes().await.expect("read");
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a file of Parquet");
    let metadata = reader.metadata().as_ref().clone();
    let batches: Vec<_> = reader.build().expect("readable").collect::<Result<_, _>>().expect("readable");
    (metadata, concat_batches(&rows.schema(), &batches).expect("the table's columns"))
}

fn encodings(metadata: &ParquetMetaData, group: usize, column: &str) -> Vec<Encoding> {
    let columns = metadata.row_group(group).columns();
    let column = columns.iter().find(|chunk| chunk.column_path().string() == column).expect("a column");
    column.encodings().collect()
}

/// What repeats becomes a dictionary, what grows has its bytes split; both come back as they were.
#[tokio::test]
async fn a_sealed_file_takes_the_smaller_way() {
    let hundredths =
        |_, slot: usize| (slot % 17 != 3).then(|| f64::from(u32::try_from(slot % 500).expect("small")) / 100.0);
    let watt_hours = |_, slot: usize| Some(f64::from(u32::try_from(7_000_000 + slot * 37 + slot % 11).expect("small")));
    for (value, split) in [(&hundredths as &dyn Fn(usize, usize) -> Option<f64>, false), (&watt_hours, true)] {
        let rows = rows(2, 20_000, value);
        let (metadata, back) = written(FileWriter::sealed(TableName::Readings).expect("made"), &rows, 8_192).await;
        assert_eq!(back, rows);
        let found = encodings(&metadata, 0, "value");
        assert_eq!(found.contains(&Encoding::BYTE_STREAM_SPLIT), split, "{found:?}");
        let open = written(FileWriter::new(TableName::Readings).expect("made"), &rows, 8_192).await;
        assert_eq!(open.1, rows);
        let bytes =
            |metadata: &ParquetMetaData| metadata.row_groups().iter().map(|group| group.compressed_size()).sum::<i64>();
        assert!(bytes(&metadata) < bytes(&open.0), "sealed {} bytes, open {}", bytes(&metadata), bytes(&open.0));
    }
}

/// A reader skips what it need not see only where a row group holds whole sensors.
#[tokio::test]
async fn row_groups_of_a_sealed_file_end_where_a_sensor_does() {
    let rows = rows(9, 150, |sensor, slot| Some(f64::from(u32::try_from(sensor * 10 + slot % 10).expect("small"))));
    for at_once in [8, 150, 1_350] {
        let (metadata, back) = written(cut_at(500, 1_000), &rows, at_once).await;
        let groups: Vec<i64> = metadata.row_groups().iter().map(|group| group.num_rows()).collect();
        assert_eq!(groups, [600, 600, 150], "{at_once} rows at once");
        assert_eq!(back, rows);
    }
}

/// A file is the same to the byte whoever was done first with which column: else two machines would make two lakes of one.
#[test]
fn a_file_is_the_same_on_any_number_of_threads() {
    let value = |sensor: usize, slot: usize| {
        (slot % 17 != 3).then(|| f64::from(u32::try_from(sensor * 7_919 + slot * 37 % 5_000).expect("small")) / 100.0)
    };
    let rows = rows(9, 5_000, value);
    let bytes = |threads: usize| {
        let mut writer = cut_at(12_000, 20_000).with_threads(threads).expect("threads");
        for start in (0..rows.num_rows()).step_by(4_096) {
            writer.write(&rows.slice(start, 4_096.min(rows.num_rows() - start))).expect("written");
        }
        writer.encoded.finish().expect("encoded").0
    };
    let alone = bytes(1);
    assert!(ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(alone.clone())).is_ok());
    for threads in [2, 3, 40] {
        assert!(bytes(threads) == alone, "{threads} threads");
    }
}

/// One sensor that never ends is cut all the same: a row group must fit into memory.
#[tokio::test]
async fn a_row_group_never_grows_beyond_its_bound() {
    let rows = rows(1, 1_005, |_, slot| Some(f64::from(u32::try_from(slot % 100).expect("small"))));
    let (metadata, back) = written(cut_at(500, 1_000), &rows, 300).await;
    let groups: Vec<i64> = metadata.row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [1_000, 5]);
    assert_eq!(back, rows);
}

/// Every column chunk has its statistics and its index of pages, else nothing could be skipped.
#[tokio::test]
async fn the_paged_columns_can_be_skipped_by_page() {
    let rows = rows(3, 50_000, |_, slot| Some(f64::from(u32::try_from(slot % 100).expect("small"))));
    let (metadata, _) = written(FileWriter::sealed(TableName::Readings).expect("made"), &rows, 8_192).await;
    for column in metadata.row_group(0).columns() {
        let paged = ["sensor", "time", "value", "quality"].contains(&column.column_path().string().as_str());
        assert!(column.offset_index_offset().is_some(), "{}", column.column_path());
        assert!(!paged || column.column_index_offset().is_some(), "{}", column.column_path());
    }
}
