//! Columns survive the way into a frame and back: nulls, slices with offsets, empty ones, time zones.

use arrow::array::{Float64Array, Int8Array, Int16Array, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("equal lengths")
}

fn there_and_back(batch: &RecordBatch) -> RecordBatch {
    let frame = to_frame(batch).expect("passes in");
    to_batch(&frame, &batch.schema()).expect("passes out")
}

/// A copy would go unnoticed but for the memory that it takes: watch the address.
#[test]
fn numbers_pass_in_without_a_copy() {
    let values = Float64Array::from(vec![1.0, 2.0, 3.0]);
    let address = values.values().as_ptr();
    let frame = to_frame(&batch(vec![("value", Arc::new(values))])).expect("passes");
    let column = frame.column("value").expect("there").as_materialized_series().f64().expect("numbers").clone();
    assert_eq!(column.cont_slice().expect("one chunk").as_ptr(), address);
}

#[test]
fn times_pass_out_without_a_copy() {
    let times = TimestampMicrosecondArray::from(vec![1, 2, 3]).with_timezone("UTC");
    let address = times.values().as_ptr();
    let back = there_and_back(&batch(vec![("time", Arc::new(times))]));
    let times = back.column(0).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(times.values().as_ptr(), address);
    assert_eq!(times.timezone(), Some("UTC"));
}

#[test]
fn text_does_not_pass() {
    let refused = to_frame(&batch(vec![("cause", Arc::new(StringArray::from(vec!["timeout"])))]));
    assert!(matches!(refused, Err(FrameError::Type { ref name, .. }) if name == "cause"), "{refused:?}");
}

#[test]
fn a_column_of_another_type_is_refused() {
    let frame = to_frame(&batch(vec![("value", Arc::new(Float64Array::from(vec![1.0])))])).expect("passes");
    let wanted = |name| Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, true)]));
    assert!(matches!(to_batch(&frame, &wanted("value")), Err(FrameError::Column { .. })));
    assert!(matches!(to_batch(&frame, &wanted("other")), Err(FrameError::Polars(_))));
}

#[test]
fn sensors_keep_their_names() {
    let mut keys = SensorKeys::default();
    let sensors: ArrayRef = Arc::new(StringArray::from(vec!["b/x", "a/x", "a/x", "b/x"]));
    let encoded = keys.encode(&sensors).expect("text");
    assert_eq!(encoded.values(), &[0, 1, 1, 0]);
    assert_eq!(
        keys.decode(&encoded).expect("known").iter().flatten().collect::<Vec<_>>(),
        ["b/x", "a/x", "a/x", "b/x"]
    );
    assert!(keys.decode(&Int32Array::from(vec![2])).is_err());
    assert_eq!((keys.get("a/x"), keys.get("c/x"), keys.name(1)), (Some(1), None, Some("a/x")));
}

type Row = (Option<i8>, Option<i16>, Option<i32>, Option<i64>, Option<f64>, Option<i64>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    vec(
        (
            any::<Option<i8>>(),
            any::<Option<i16>>(),
            any::<Option<i32>>(),
            any::<Option<i64>>(),
            option::of(any::<f64>().prop_map(|value| if value.is_nan() { 0.5 } else { value })),
            any::<Option<i64>>(),
        ),
        0..80,
    )
}

fn batch_of(rows: &[Row]) -> RecordBatch {
    batch(vec![
        ("quality", Arc::new(rows.iter().map(|row| row.0).collect::<Int8Array>())),
        ("revision", Arc::new(rows.iter().map(|row| row.1).collect::<Int16Array>())),
        ("sensor", Arc::new(rows.iter().map(|row| row.2).collect::<Int32Array>())),
        ("seq", Arc::new(rows.iter().map(|row| row.3).collect::<Int64Array>())),
        ("value", Arc::new(rows.iter().map(|row| row.4).collect::<Float64Array>())),
        ("time", Arc::new(rows.iter().map(|row| row.5).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
    ])
}

proptest! {
    #[test]
    fn a_batch_comes_back_as_it_went(rows in rows(), start in 0_usize..80, length in 0_usize..80) {
        let whole = batch_of(&rows);
        prop_assert_eq!(&there_and_back(&whole), &whole);
        let start = start.min(whole.num_rows());
        let part = whole.slice(start, length.min(whole.num_rows() - start));
        prop_assert_eq!(&there_and_back(&part), &part);
    }
}
