//! Readings in their order, as they become rows of a batch: rounds as such, and others one by one.
//!
//! Whoever takes readings as they come looks at them part by part ([`Spans`]), and need not know how many a part has;
//! whoever looks at each for itself sees plain readings ([`Rows::iter`]). Both see the same ones in the same order. Readings
//! that come one by one are gathered in pieces of [`PIECE`], so that what is taken off at the front gives its memory back
//! and nothing is copied to where there is more room. No I/O.

use std::collections::{VecDeque, vec_deque};

use crate::reading::Reading;
use crate::round::{Round, RoundSpan};

/// So many readings that are no round stay in one piece.
const PIECE: usize = 1_024;

/// Readings in their order.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    parts: VecDeque<Part>,
    len: usize,
}

/// Never empty.
#[derive(Debug, Clone)]
enum Part {
    Round(Round),
    Readings(Vec<Reading>),
}

/// Readings that lie side by side.
#[derive(Debug, Clone, Copy)]
pub enum Span<'a> {
    /// Of one slot.
    Round(RoundSpan<'a>),
    /// As they are.
    Readings(&'a [Reading]),
}

/// A walk along readings, which takes as many at once as lie side by side.
#[derive(Debug, Clone)]
pub struct Spans<'a> {
    parts: vec_deque::Iter<'a, Part>,
    /// What is left of the part that it is at.
    at: Span<'a>,
    len: usize,
}

impl Part {
    fn len(&self) -> usize {
        self.span().len()
    }

    fn span(&self) -> Span<'_> {
        match self {
            Self::Round(round) => Span::Round(round.span()),
            Self::Readings(readings) => Span::Readings(readings),
        }
    }

    fn take_first(&mut self, count: usize) -> Self {
        match self {
            Self::Round(round) => Self::Round(round.take_first(count)),
            Self::Readings(readings) => {
                let rest = readings.split_off(count);
                Self::Readings(std::mem::replace(readings, rest))
            }
        }
    }
}

impl Rows {
    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one at the end.
    pub fn push(&mut self, reading: Reading) {
        self.len += 1;
        match self.parts.back_mut() {
            Some(Part::Readings(last)) if last.len() < PIECE => last.push(reading),
            _ => self.parts.push_back(Part::Readings(vec![reading])),
        }
    }

    /// Adds others at the end.
    pub fn append(&mut self, others: Self) {
        for part in others.parts {
            match (part, self.parts.back_mut()) {
                (Part::Readings(more), Some(Part::Readings(last))) if last.len() + more.len() <= PIECE => {
                    self.len += more.len();
                    last.extend(more);
                }
                (part, _) => {
                    self.len += part.len();
                    self.parts.push_back(part);
                }
            }
        }
    }

    /// Takes off the first so many; all, where there are fewer.
    #[must_use]
    pub fn take_first(&mut self, count: usize) -> Self {
        let mut taken = Self::default();
        while let Some(first) = self.parts.front_mut().filter(|_| taken.len < count) {
            let left = count - taken.len;
            let part = if first.len() > left { Some(first.take_first(left)) } else { self.parts.pop_front() };
            taken.len += part.as_ref().map_or(0, Part::len);
            taken.parts.extend(part);
        }
        self.len -= taken.len;
        taken
    }

    /// Keeps those that are like this.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&Reading) -> bool) {
        let mut kept = Self::default();
        for part in std::mem::take(&mut self.parts) {
            match part {
                Part::Round(round) => {
                    let readings: Vec<Reading> = round.span().readings().filter(&mut is_kept).collect();
                    kept.append(if readings.len() == round.len() { round.into() } else { readings.into() });
                }
                Part::Readings(readings) => kept.extend(readings.into_iter().filter(&mut is_kept)),
            }
        }
        *self = kept;
    }

    /// Along all of them.
    #[must_use]
    pub fn spans(&self) -> Spans<'_> {
        Spans { parts: self.parts.iter(), at: Span::Readings(&[]), len: self.len }
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = Reading> + '_ {
        self.spans().flat_map(Span::readings)
    }
}

impl<'a> Span<'a> {
    /// How many readings it is.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Round(round) => round.values.len(),
            Self::Readings(readings) => readings.len(),
        }
    }

    /// Whether it is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One by one.
    pub fn readings(self) -> impl Iterator<Item = Reading> + 'a {
        let (round, readings) = match self {
            Self::Round(round) => (Some(round), [].as_slice()),
            Self::Readings(readings) => (None, readings),
        };
        round.into_iter().flat_map(RoundSpan::readings).chain(readings.iter().cloned())
    }

    /// The oldest and the newest time.
    #[must_use]
    pub fn times_us(&self) -> Option<(i64, i64)> {
        match self {
            Self::Round(round) => Some((round.time_us, round.time_us)),
            Self::Readings(readings) => {
                let times_us = || readings.iter().map(|reading| reading.time_us);
                Some((times_us().min()?, times_us().max()?))
            }
        }
    }

    fn split_at(self, count: usize) -> (Self, Self) {
        match self {
            Self::Round(round) => {
                let (first, rest) = round.split_at(count);
                (Self::Round(first), Self::Round(rest))
            }
            Self::Readings(readings) => {
                let (first, rest) = readings.split_at(count);
                (Self::Readings(first), Self::Readings(rest))
            }
        }
    }
}

impl<'a> Spans<'a> {
    /// How many readings are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// No farther than so many.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.len = self.len.min(count);
        self
    }

    /// What lies side by side here, at most so many; `None` at the end.
    pub fn peek(&mut self, most: usize) -> Option<Span<'a>> {
        while self.at.is_empty() {
            self.at = self.parts.next()?.span();
        }
        let most = most.min(self.len);
        if most == 0 {
            return None;
        }
        Some(if self.at.len() > most { self.at.split_at(most).0 } else { self.at })
    }

    /// Goes on by so many.
    pub fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        while left > 0 {
            if self.at.is_empty() {
                let Some(part) = self.parts.next() else { return };
                self.at = part.span();
            }
            let step = left.min(self.at.len());
            (left, self.at) = (left - step, self.at.split_at(step).1);
        }
    }

    /// The oldest and the newest time of what is left.
    #[must_use]
    pub fn times_us(self) -> Option<(i64, i64)> {
        let both = |one: (i64, i64), other: (i64, i64)| (one.0.min(other.0), one.1.max(other.1));
        self.filter_map(|span| span.times_us()).reduce(both)
    }
}

impl<'a> Iterator for Spans<'a> {
    type Item = Span<'a>;

    fn next(&mut self) -> Option<Span<'a>> {
        let span = self.peek(usize::MAX)?;
        self.advance(span.len());
        Some(span)
    }
}

impl<'a> From<&'a [Reading]> for Spans<'a> {
    fn from(readings: &'a [Reading]) -> Self {
        Self { parts: vec_deque::Iter::default(), at: Span::Readings(readings), len: readings.len() }
    }
}

impl<'a> From<&'a Vec<Reading>> for Spans<'a> {
    fn from(readings: &'a Vec<Reading>) -> Self {
        readings.as_slice().into()
    }
}

impl From<Round> for Rows {
    fn from(round: Round) -> Self {
        let len = round.len();
        Self { parts: (len > 0).then_some(Part::Round(round)).into_iter().collect(), len }
    }
}

impl From<Vec<Reading>> for Rows {
    fn from(readings: Vec<Reading>) -> Self {
        let len = readings.len();
        Self { parts: (len > 0).then_some(Part::Readings(readings)).into_iter().collect(), len }
    }
}

impl Extend<Reading> for Rows {
    fn extend<I: IntoIterator<Item = Reading>>(&mut self, readings: I) {
        readings.into_iter().for_each(|reading| self.push(reading));
    }
}

impl FromIterator<Reading> for Rows {
    fn from_iter<I: IntoIterator<Item = Reading>>(readings: I) -> Self {
        let mut rows = Self::default();
        rows.extend(readings);
        rows
    }
}

/// The readings of [`Rows`], one by one.
#[derive(Debug)]
pub struct IntoReadings {
    parts: vec_deque::IntoIter<Part>,
    at: std::vec::IntoIter<Reading>,
}

impl Iterator for IntoReadings {
    type Item = Reading;

    fn next(&mut self) -> Option<Reading> {
        loop {
            if let Some(reading) = self.at.next() {
                return Some(reading);
            }
            let readings = match self.parts.next()? {
                Part::Round(round) => round.span().readings().collect(),
                Part::Readings(readings) => readings,
            };
            self.at = readings.into_iter();
        }
    }
}

impl IntoIterator for Rows {
    type Item = Reading;
    type IntoIter = IntoReadings;

    fn into_iter(self) -> IntoReadings {
        IntoReadings { parts: self.parts.into_iter(), at: Vec::new().into_iter() }
    }
}

impl From<Rows> for Vec<Reading> {
    fn from(rows: Rows) -> Self {
        let mut readings = Self::with_capacity(rows.len);
        readings.extend(rows);
        readings
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests;
