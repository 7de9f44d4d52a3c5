//! A round: the readings of several sensors of one slot, as one value.
//!
//! A gateway asks a device for the same points slot after slot, and nearly always each has a value and nothing else is to be
//! said of it. Such readings travel together: the sensors once, in a list that is shared by all rounds of the same request,
//! the slot's time once, and the values side by side, 8 bytes each. Invariants: each value is finite, and none of its
//! readings has a cause or a lag, or another quality than [`NotEvaluated`](crate::reading::Quality::NotEvaluated). No I/O.

use std::sync::Arc;

use crate::reading::Reading;
use crate::sensor::SensorId;

/// The readings of a list of sensors of one slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    list: Arc<[SensorId]>,
    /// Where the first value's sensor is in the list: what was before it may have been taken off.
    begin: usize,
    time_us: i64,
    values: Vec<f64>,
}

/// A part of a round.
#[derive(Debug, Clone, Copy)]
pub struct RoundSpan<'a> {
    /// The whole list that the round's sensors are in.
    pub list: &'a Arc<[SensorId]>,
    /// Where the first value's sensor is in it.
    pub begin: usize,
    /// The slot, in microseconds since 1970 UTC.
    pub time_us: i64,
    /// A value for each sensor from there on.
    pub values: &'a [f64],
}

impl Round {
    /// A value for each sensor of a list; `None` where one is missing, or is not finite.
    #[must_use]
    pub fn new(list: Arc<[SensorId]>, time_us: i64, values: Vec<f64>) -> Option<Self> {
        let is_plain = list.len() == values.len() && values.iter().all(|value| value.is_finite());
        is_plain.then_some(Self { list, begin: 0, time_us, values })
    }

    /// How many readings it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All of it.
    #[must_use]
    pub fn span(&self) -> RoundSpan<'_> {
        RoundSpan { list: &self.list, begin: self.begin, time_us: self.time_us, values: &self.values }
    }

    /// Takes off the first so many.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn take_first(&mut self, count: usize) -> Self {
        let rest = self.values.split_off(count);
        let values = std::mem::replace(&mut self.values, rest);
        let first = Self { list: Arc::clone(&self.list), begin: self.begin, time_us: self.time_us, values };
        self.begin += count;
        first
    }
}

impl<'a> RoundSpan<'a> {
    /// Whether it has a value for each sensor of the list.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.values.len() == self.list.len()
    }

    /// Whose values these are.
    #[must_use]
    pub fn sensors(&self) -> &'a [SensorId] {
        &self.list[self.begin..self.begin + self.values.len()]
    }

    /// Its readings, one by one.
    pub fn readings(self) -> impl Iterator<Item = Reading> + 'a {
        let reading = move |(sensor, value): (&SensorId, &f64)| Reading::of(sensor.clone(), self.time_us, *value);
        self.sensors().iter().zip(self.values).map(reading)
    }

    /// The first so many, and the rest.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let (first, rest) = self.values.split_at(count);
        (Self { values: first, ..self }, Self { begin: self.begin + count, values: rest, ..self })
    }
}
