//! Which of two moments a local time means that comes twice when summer ends: by the order of one print-out. No I/O, no clock.
//!
//! A device prints its rows in the order of their moments, the oldest or the newest first. So of the rows whose times come twice
//! the first so many are from the first of the two hours and the rest from the second, or the other way round; where the
//! written time goes back in between, or the rows before and after leave room for one of them only, one such [`Guesses`]
//! is left. Where several are, those go in which all rows are one step apart, if the device's step is known and there is one.
//!
//! Invariants: of a device that prints in order and without a hole the true guess is among those that are left.

use super::time::Moments;

/// In which order a device prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// The oldest row first.
    Rising,
    /// The newest row first.
    Falling,
}

/// Rows of a print-out one after the other whose times all come twice, and what is known of the rest of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch<'print> {
    /// As they were printed; each has two moments.
    pub(crate) rows: &'print [Moments],
    /// The moment of the line that was printed right before them.
    pub(crate) before_us: Option<i64>,
    /// The moment of the line that was printed right after them.
    pub(crate) after_us: Option<i64>,
    /// In which order the device prints, where that is known.
    pub(crate) order: Option<Order>,
    /// How far its rows are apart, where that is known.
    pub(crate) step_us: Option<i64>,
}

/// A way to tell the rows' moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Guess {
    order: Order,
    /// So many of the rows, the oldest, are from the first of the two hours.
    early: usize,
    /// All rows are one step apart, those before and after as well.
    is_regular: bool,
}

/// All ways to tell the rows' moments that their order allows.
#[derive(Debug, Clone)]
pub(crate) struct Guesses {
    rows: usize,
    all: Vec<Guess>,
}

impl Guesses {
    /// What the order allows. Two rows of one written time are two moments, unless that cannot be.
    pub(crate) fn of(stretch: &Stretch<'_>) -> Self {
        let both = [Order::Rising, Order::Falling];
        let known = both.into_iter().filter(|order| stretch.order.is_none_or(|known| known == *order));
        let strictly = guesses(stretch, known, true);
        let mut all = if strictly.is_empty() { guesses(stretch, both.into_iter(), true) } else { strictly };
        if all.is_empty() {
            all = guesses(stretch, both.into_iter(), false);
        }
        if all.iter().any(|guess| guess.is_regular) {
            all.retain(|guess| guess.is_regular);
        }
        Self { rows: stretch.rows.len(), all }
    }

    /// Goes on with those that agree with what is known of the newest row in this order: that it is from the second hour, or
    /// from the first one. Where none does, nothing is gained.
    pub(crate) fn keep(&mut self, newest_is_late: impl Fn(Order) -> Option<bool>) {
        let rows = self.rows;
        let agrees = |guess: &Guess| newest_is_late(guess.order).is_none_or(|late| late == (guess.early < rows));
        if self.all.iter().any(agrees) {
            self.all.retain(agrees);
        }
    }

    /// The order that the device prints in, if that is certain.
    pub(crate) fn order(&self) -> Option<Order> {
        let first = self.all.first()?.order;
        self.all.iter().all(|guess| guess.order == first).then_some(first)
    }

    /// Whether a row, as they were printed, can be from the first hour, and whether it can be from the second.
    pub(crate) fn possible(&self, row: usize) -> (bool, bool) {
        if self.all.is_empty() {
            return (true, true);
        }
        let is_early = |guess: &Guess| match guess.order {
            Order::Rising => row < guess.early,
            Order::Falling => self.rows - 1 - row < guess.early,
        };
        (self.all.iter().any(is_early), !self.all.iter().all(is_early))
    }
}

fn guesses(stretch: &Stretch<'_>, orders: impl Iterator<Item = Order>, strictly: bool) -> Vec<Guess> {
    orders.flat_map(|order| rising(stretch, order, strictly)).collect()
}

/// The guesses of one order, as if the oldest row stood first.
fn rising(stretch: &Stretch<'_>, order: Order, strictly: bool) -> Vec<Guess> {
    let mut rows = stretch.rows.to_vec();
    let (mut older_us, mut newer_us) = (stretch.before_us, stretch.after_us);
    if order == Order::Falling {
        rows.reverse();
        std::mem::swap(&mut older_us, &mut newer_us);
    }
    let goes_on = |one_us: i64, next_us: i64| if strictly { one_us < next_us } else { one_us <= next_us };
    let steps = |one_us: i64, next_us: i64| stretch.step_us == next_us.checked_sub(one_us);
    let pair = |index: usize| (rows[index - 1].early_us(), rows[index].early_us());
    // Between two rows of one hour.
    let backs: Vec<usize> = (1..rows.len()).filter(|index| !goes_on(pair(*index).0, pair(*index).1)).collect();
    let odd = |index: usize| usize::from(!steps(pair(index).0, pair(index).1));
    let odds: usize = (1..rows.len()).map(odd).sum();
    let moment = |index: usize, early: usize| {
        let row = rows[index];
        if index < early { row.early_us() } else { row.late_us() }
    };
    let guess = |early: usize| {
        let is_between = 0 < early && early < rows.len();
        let goes_back_there = backs.iter().all(|index| is_between && *index == early);
        // Each is the moment of a row and of the next one, where at least one of them depends on the guess.
        let seams = [
            older_us.map(|older_us| (older_us, moment(0, early))),
            is_between.then(|| (moment(early - 1, early), moment(early, early))),
            newer_us.map(|newer_us| (moment(rows.len() - 1, early), newer_us)),
        ];
        let mut seams = seams.into_iter().flatten();
        let odds = if is_between { odds - odd(early) } else { odds };
        let is_regular = stretch.step_us.is_some() && odds == 0 && seams.clone().all(|(one, next)| steps(one, next));
        let is_possible = goes_back_there && seams.all(|(one, next)| goes_on(one, next));
        is_possible.then_some(Guess { order, early, is_regular })
    };
    (0..=rows.len()).filter_map(guess).collect()
}
