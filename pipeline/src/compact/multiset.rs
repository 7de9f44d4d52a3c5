//! Rows without their order: how many there are, and the sum of their hashes.
//!
//! Two multisets that differ in a row, a value, a bit of a float, or in how often a row is there, have
//! different sums but for one chance in 2⁶⁴. What is read is hashed as the files' own dictionaries hold it, what
//! is written as the rows stand that go into the new files, so that every step in between is covered.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt32Type,
};

use super::texts::hash;

/// What a null counts as.
const NULL: u64 = 0x9E6C_63D0_876A_68EE;
/// An odd number without a pattern: it spreads bits over the word.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Rows without their order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Multiset {
    pub(super) rows: i64,
    hashes: u64,
}

impl Multiset {
    /// Adds rows whose texts are numbers or keys; `hash_of` knows the hashes of a column's texts by them.
    pub(super) fn add<'a>(&mut self, rows: &RecordBatch, hash_of: impl Fn(usize) -> &'a [u64]) {
        let mut hashes = vec![SPREAD; rows.num_rows()];
        for (index, column) in rows.columns().iter().enumerate() {
            fold_column(&mut hashes, column, index, &hash_of);
        }
        self.rows += i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
        self.hashes = hashes.into_iter().fold(self.hashes, |sum, hash| sum.wrapping_add(finish(hash)));
    }
}

impl Multiset {
    /// Adds rows whose texts are in dictionaries, or stand for themselves.
    pub(crate) fn add_dictionaries(&mut self, rows: &RecordBatch) {
        let hashes = |column: &ArrayRef| -> Vec<u64> {
            if !matches!(column.data_type(), DataType::Dictionary(..)) {
                return Vec::new();
            }
            let values = column.as_dictionary::<Int32Type>().values().as_string::<i32>();
            values.iter().map(|text| hash(text.unwrap_or_default())).collect()
        };
        let hashes: Vec<Vec<u64>> = rows.columns().iter().map(hashes).collect();
        self.add(rows, |column| hashes[column].as_slice());
    }

    /// How many rows there are.
    pub(crate) const fn rows(&self) -> i64 {
        self.rows
    }
}

fn fold_column<'a>(hashes: &mut [u64], column: &ArrayRef, index: usize, hash_of: &impl Fn(usize) -> &'a [u64]) {
    match column.data_type() {
        DataType::Dictionary(..) => {
            let texts = hash_of(index);
            let keys = column.as_dictionary::<Int32Type>().keys();
            fold(hashes, keys, |key| usize::try_from(key).ok().and_then(|key| texts.get(key)).copied().unwrap_or(NULL));
        }
        DataType::UInt32 => {
            let texts = hash_of(index);
            fold(hashes, column.as_primitive::<UInt32Type>(), |number| texts[number as usize]);
        }
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            let words = texts.iter().map(|text| text.map_or(NULL, super::texts::hash));
            hashes.iter_mut().zip(words).for_each(|(hash, word)| step(hash, word));
        }
        DataType::Float64 => fold(hashes, column.as_primitive::<Float64Type>(), f64::to_bits),
        DataType::Int8 => fold(hashes, column.as_primitive::<Int8Type>(), |number| i64::from(number).cast_unsigned()),
        DataType::Int16 => fold(hashes, column.as_primitive::<Int16Type>(), |number| i64::from(number).cast_unsigned()),
        DataType::Int32 => fold(hashes, column.as_primitive::<Int32Type>(), |number| i64::from(number).cast_unsigned()),
        DataType::Int64 => fold(hashes, column.as_primitive::<Int64Type>(), i64::cast_unsigned),
        DataType::Timestamp(..) => fold(hashes, column.as_primitive::<TimestampMicrosecondType>(), i64::cast_unsigned),
        other => unreachable!("no column of a table is {other}"),
    }
}

const fn step(hash: &mut u64, word: u64) {
    *hash = (hash.rotate_left(23) ^ word).wrapping_mul(SPREAD);
}

fn fold<T: ArrowPrimitiveType>(hashes: &mut [u64], column: &PrimitiveArray<T>, word: impl Fn(T::Native) -> u64) {
    if column.null_count() == 0 {
        hashes.iter_mut().zip(column.values()).for_each(|(hash, value)| step(hash, word(*value)));
    } else {
        hashes.iter_mut().zip(column.iter()).for_each(|(hash, value)| step(hash, value.map_or(NULL, &word)));
    }
}

/// Every bit of a row's hash depends on every bit that went in (the finalizer of MurmurHash3).
const fn finish(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}
