//! Texts as numbers: a sorter compares and moves four bytes where a row has a name of thirty.
//!
//! A number, once given, stays; the order of two texts is asked of their ranks, which are made anew when
//! texts have come. All distinct texts are held: sensors, sources, epochs and causes, which are few beside
//! the rows, and which no bound on memory counts.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Int32Type;
use arrow::error::ArrowError;

/// A hash that is the same for the same text in every process of this build.
pub(super) fn hash(text: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(text)
}

/// The distinct texts that were seen.
#[derive(Debug, Default)]
pub(super) struct Texts {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
    hashes: Vec<u64>,
    ranks: Vec<u32>,
    array: Option<ArrayRef>,
}

/// The numbers of one dictionary's values, kept while batches share it.
#[derive(Debug, Default)]
pub(super) struct Translation {
    values: Option<ArrayRef>,
    numbers: Vec<u32>,
    /// Of the dictionary's own texts, not of those that the numbers stand for.
    pub(super) hashes: Vec<u64>,
}

impl Texts {
    /// The number of a text.
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).expect("fewer than four billion distinct texts");
        let text: Arc<str> = Arc::from(text);
        self.texts.push(Arc::clone(&text));
        self.hashes.push(hash(&text));
        self.numbers.insert(text, number);
        self.array = None;
        number
    }

    /// A column of texts as numbers.
    pub(super) fn encode(&mut self, column: &ArrayRef, known: &mut Translation) -> UInt32Array {
        let dictionary = column.as_dictionary::<Int32Type>();
        if !known.values.as_ref().is_some_and(|values| same_values(values, dictionary.values())) {
            let values = dictionary.values().as_string::<i32>();
            known.numbers = values.iter().map(|text| self.number(text.unwrap_or_default())).collect();
            known.hashes = values.iter().map(|text| hash(text.unwrap_or_default())).collect();
            known.values = Some(Arc::clone(dictionary.values()));
        }
        let number = |key: i32| usize::try_from(key).ok().and_then(|key| known.numbers.get(key)).copied();
        // What a key under a null points at is anybody's guess.
        let numbers = dictionary.keys().values().iter().map(|key| number(*key).unwrap_or(0));
        UInt32Array::new(numbers.collect(), dictionary.keys().nulls().cloned())
    }

    /// Numbers as texts.
    pub(super) fn decode(&mut self, numbers: &UInt32Array) -> Result<ArrayRef, ArrowError> {
        let texts = &self.texts;
        let array = self.array.get_or_insert_with(|| Arc::new(StringArray::from_iter_values(texts.iter())));
        if array.is_empty() {
            return Ok(Arc::new(StringArray::new_null(numbers.len())));
        }
        take(array, numbers, None)
    }

    /// The hash of each number's text.
    pub(super) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The place of each number's text among all of them, in the order of their bytes.
    pub(super) fn ranks(&mut self) -> &[u32] {
        if self.ranks.len() != self.texts.len() {
            let mut order: Vec<u32> = (0..).take(self.texts.len()).collect();
            order.sort_unstable_by_key(|number| &self.texts[*number as usize]);
            self.ranks = vec![0; order.len()];
            for (rank, number) in (0..).zip(order) {
                self.ranks[number as usize] = rank;
            }
        }
        &self.ranks
    }
}

/// Whether two dictionaries are one and the same, which they are within a row group.
fn same_values(one: &ArrayRef, other: &ArrayRef) -> bool {
    Arc::ptr_eq(one, other) || one.to_data().ptr_eq(&other.to_data())
}
