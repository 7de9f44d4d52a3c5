//! Broken encoders, each of which would have lost or changed readings for good: the old files were removed by a commit that
//! had looked at the rows before they were encoded.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};

use super::*;
use crate::testing::{NOW_US, Place, Row};

/// Everything in one window.
const ALL: Window = Window { from_us: i64::MIN, to_us: i64::MAX };

/// Two files of readings, whose rows lie between one another.
async fn two_files() -> (Place, Table, Merge) {
    let place = Place::new();
    let row = |number: i32| {
        let (seq, value) = (i64::from(number), f64::from(number));
        Row { seq, ..Row::new("t", NOW_US + seq, value) }
    };
    place.ingest(&[row(0), row(2), row(4)]).await;
    place.ingest(&[row(1), row(3), row(5)]).await;
    let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
    let merge = Merge { files: table.files(), windows: vec![ALL] };
    (place, table, merge)
}

async fn rewritten_by(encode: Encode) -> Result<Rewritten, CompactError> {
    let (place, table, merge) = two_files().await;
    let spill_folder = place.folder.path().to_owned();
    let settings = CompactSettings { spill_folder, ..CompactSettings::default() };
    rewrite_by(&table, &merge, &settings, &mut |_| (), encode).await
}

/// These rows in place of all.
fn some(rows: &RecordBatch, places: &[u32]) -> RecordBatch {
    take_record_batch(rows, &UInt32Array::from(places.to_vec())).expect("taken")
}

fn loses_one(writer: &mut FileWriter, rows: &RecordBatch) -> Result<(), LakeError> {
    writer.write(&rows.slice(1, rows.num_rows() - 1))
}

fn doubles_one_for_another(writer: &mut FileWriter, rows: &RecordBatch) -> Result<(), LakeError> {
    writer.write(&some(rows, &[0, 1, 2, 3, 4, 4]))
}

fn turns_a_bit(writer: &mut FileWriter, rows: &RecordBatch) -> Result<(), LakeError> {
    let at = rows.schema().index_of("value").expect("a column");
    let values = rows.column(at).as_primitive::<arrow::datatypes::Float64Type>();
    let turned = values
        .iter()
        .enumerate()
        .map(|(row, value)| value.map(|value| f64::from_bits(value.to_bits() ^ u64::from(row == 3))));
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns[at] = Arc::new(turned.collect::<Float64Array>());
    writer.write(&RecordBatch::try_new(rows.schema(), columns).expect("the columns"))
}

fn shuffles(writer: &mut FileWriter, rows: &RecordBatch) -> Result<(), LakeError> {
    writer.write(&some(rows, &[0, 1, 3, 2, 4, 5]))
}

#[tokio::test]
async fn a_broken_encoder_is_caught_before_anything_is_committed() {
    let whole = rewritten_by(FileWriter::write).await.expect("the real one");
    assert_eq!((whole.rows, whole.files.len()), (6, 1));
    let broken: [(&str, Encode); 3] =
        [("loses one", loses_one), ("doubles one", doubles_one_for_another), ("turns a bit", turns_a_bit)];
    for (what, encode) in broken {
        let caught = rewritten_by(encode).await;
        assert!(matches!(caught, Err(CompactError::Changed { read: 6, .. })), "{what}: {caught:?}");
    }
    let caught = rewritten_by(shuffles).await;
    assert!(matches!(caught, Err(CompactError::Unsorted { .. })), "shuffles: {caught:?}");
}

/// Rows of several sensors over several batches: a step back is seen within a sensor, between two, and between two batches.
#[test]
fn a_step_back_is_seen_wherever_it_is() {
    let of = |places: &[(&str, i64)]| {
        let rows: Vec<_> = places.iter().map(|(sensor, time_us)| Row::new(sensor, *time_us, 1.0)).collect();
        let (rows, wanted) = (crate::testing::batch_of(&rows), with_dictionaries(TableName::Readings));
        let columns = rows.columns().iter().zip(wanted.fields());
        let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()).expect("cast"));
        RecordBatch::try_new(Arc::clone(&wanted), columns.collect()).expect("the columns")
    };
    let follows = |batches: &[&[(&str, i64)]]| {
        let mut places = Places::default();
        batches.iter().all(|batch| places.follow(&of(batch)))
    };
    assert!(follows(&[&[("a", 1), ("a", 1), ("a", 2), ("b", 0)], &[("b", 0), ("c", -5)]]));
    for back in [
        &[&[("a", 2), ("a", 1)][..]][..],
        &[&[("b", 1), ("a", 2)]],
        &[&[("a", 2)], &[("a", 1)]],
        &[&[("b", 1)], &[("a", 2)]],
        &[&[("a", 1), ("b", 1), ("a", 2)]],
    ] {
        assert!(!follows(back), "{back:?}");
    }
    let empty = concat_batches(&with_dictionaries(TableName::Readings), &[]).expect("no row");
    assert!(Places::default().follow(&empty));
}
