//! The room of a batch's longest columns, kept from one batch for the next.

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, RecordBatch};

/// Lists without a row in them.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) keys: Vec<i32>,
    pub(super) time: Vec<i64>,
    pub(super) value: Vec<f64>,
    pub(super) seq: Vec<i64>,
}

impl Room {
    /// All of it, with place for so many rows.
    pub(super) fn lend(&mut self, rows: usize) -> Self {
        let mut room = std::mem::take(self);
        room.keys.reserve_exact(rows);
        room.time.reserve_exact(rows);
        room.value.reserve_exact(rows);
        room.seq.reserve_exact(rows);
        room
    }

    /// Takes back what nobody else holds of a batch's columns.
    pub(super) fn take_back(&mut self, rows: RecordBatch) {
        let (_, columns, _) = rows.into_parts();
        let Ok([sensor, time, value, .., seq]) = <[ArrayRef; 7]>::try_from(columns) else { return };
        let keys = sensor.as_dictionary_opt::<Int32Type>().map(|words| std::sync::Arc::new(words.keys().clone()));
        drop(sensor);
        *self = Self {
            keys: keys.map(|keys| list_of::<Int32Type>(keys)).unwrap_or_default(),
            time: list_of::<TimestampMicrosecondType>(time),
            value: list_of::<Float64Type>(value),
            seq: list_of::<Int64Type>(seq),
        };
    }
}

/// The list behind a column, emptied; a new one where others hold it.
fn list_of<T: ArrowPrimitiveType>(column: ArrayRef) -> Vec<T::Native> {
    let Some(values) = column.as_primitive_opt::<T>().map(|column| column.values().clone()) else { return Vec::new() };
    drop(column);
    let mut list = values.into_inner().into_vec::<T::Native>().unwrap_or_default();
    list.clear();
    list
}
