//! The column of sensors: each name once, in the order in which they come, and a key for each row.
//!
//! One batch is much like the last: the sensor after this one is nearly always the one that followed it before, in this batch or an
//! earlier one. It is looked at first, and compared, which for clones of one id is comparing addresses; a wrong guess costs a
//! hash. So sensors have numbers that stay from batch to batch, and keys for the batch that is made. No I/O.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{DictionaryArray, Int32Array};
use arrow_schema::ArrowError;
use hashbrown::HashTable;

use crate::sensor::SensorId;

/// Where there are more, all are forgotten before the next batch: they may be those of a configuration that is no more.
const KNOWN_MAX: usize = 1 << 16;

/// Not in this batch so far.
const NO_KEY: i32 = -1;

#[derive(Debug, Default)]
pub(super) struct Sensors {
    known: Vec<Known>,
    /// The number of each, by the hash of its name.
    numbers: HashTable<u32>,
    hasher: RandomState,
    /// Those of this batch, in the order of their keys.
    named: Vec<u32>,
    /// The last one.
    last: u32,
}

#[derive(Debug)]
struct Known {
    sensor: SensorId,
    /// The number of the one that came after it the last time.
    next: u32,
    key: i32,
}

impl Sensors {
    /// A batch begins, and those of the last one have no keys any more.
    pub(super) fn begin(&mut self) {
        if self.known.len() > KNOWN_MAX {
            *self = Self::default();
        }
        for number in self.named.drain(..) {
            self.known[number as usize].key = NO_KEY;
        }
    }

    /// The key of the next row's sensor.
    #[inline]
    pub(super) fn key(&mut self, sensor: &SensorId) -> i32 {
        let guess = self.known.get(self.last as usize).map_or(0, |last| last.next);
        let is_right = self.known.get(guess as usize).is_some_and(|known| known.sensor == *sensor);
        let number = if is_right { guess } else { self.follow(sensor) };
        self.last = number;
        let known = &mut self.known[number as usize];
        if known.key == NO_KEY {
            known.key = i32::try_from(self.named.len()).expect("a batch has fewer rows than 2³¹");
            self.named.push(number);
        }
        known.key
    }

    /// The number of a sensor that was not expected here, and is from now on.
    fn follow(&mut self, sensor: &SensorId) -> u32 {
        let hash = self.hasher.hash_one(sensor);
        let is_it = |number: &u32| self.known[*number as usize].sensor == *sensor;
        let number = self.numbers.find(hash, is_it).copied().unwrap_or_else(|| self.add(sensor, hash));
        if let Some(last) = self.known.get_mut(self.last as usize) {
            last.next = number;
        }
        number
    }

    fn add(&mut self, sensor: &SensorId, hash: u64) -> u32 {
        let number = u32::try_from(self.known.len()).expect("a batch has fewer rows than 2³¹");
        if self.known.len() == self.known.capacity() {
            // By an eighth and not to twice as many: they stay.
            self.known.reserve_exact(self.known.len() / 8 + 64);
        }
        self.known.push(Known { sensor: sensor.clone(), next: number + 1, key: NO_KEY });
        let Self { known, numbers, hasher, .. } = self;
        numbers.insert_unique(hash, number, |number| hasher.hash_one(&known[*number as usize].sensor));
        number
    }

    /// The column with these keys.
    pub(super) fn column(&self, keys: Vec<i32>) -> Result<DictionaryArray<Int32Type>, ArrowError> {
        let names = || self.named.iter().map(|number| self.known[*number as usize].sensor.as_str());
        let mut column = StringBuilder::with_capacity(self.named.len(), names().map(str::len).sum());
        names().for_each(|name| column.append_value(name));
        DictionaryArray::try_new(Int32Array::from(keys), Arc::new(column.finish()))
    }
}
