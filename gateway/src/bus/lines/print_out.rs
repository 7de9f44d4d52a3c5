//! What a device prints in one go, for one point: a row whose time comes twice waits in it until the rows around it say which of
//! the two moments it is from.
//!
//! A row with one moment is passed on at once. One that comes alone from a device that nobody asks is as far from the gateway's
//! time as the one before (`alone`). Of the others the order of the print-out decides, and its step
//! (`lines::repeated_hour`). Where that leaves both open the gateway's own clock is asked, about the newest row of a print-out
//! that came whole ([`PrintOut::newest_is_late`]). What is open then is counted and not stored; so is what would lie in the
//! future. Without a clock that is known order and step alone decide.
//!
//! Limits: a device that was off for as long as the clock was set back, to the minute, looks as if it had not been; one that
//! prints its memory in pages is taken for one that prints its newest rows. No I/O.

mod alone;

use super::remembered::{StoredTimes, Told};
use crate::lines::repeated_hour::{Guesses, Order, Stretch};
use crate::lines::time::Moments;
use alone::Alone;

/// So many rows wait at most: an hour that comes twice, a row a second, and more.
const HELD_MAX: usize = 8_192;

/// A device that never falls silent is waited for no longer.
const HELD_MAX_US: i64 = 60 * 1_000_000;

/// So far a device's clock may be from the gateway's where that one is asked.
const SLACK_US: i64 = 60 * 1_000_000;

/// What is known when a line comes, or a print-out ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// The latest time that may be believed is reckoned from this one.
    pub(super) bound_us: i64,
    /// The time, where it is known.
    pub(super) now_us: Option<i64>,
    /// The device is asked.
    pub(super) asked: bool,
}

/// Which times the device has told: those that are stored, and those of damaged lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'times> {
    pub(super) stored: &'times StoredTimes,
    pub(super) unread: &'times StoredTimes,
}

/// How a print-out ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It came whole: its newest row is the device's newest.
    Whole,
    /// More of it may have been on its way.
    Cut,
}

/// A row that waits, with what it says.
#[derive(Debug, Clone, Copy)]
struct Held<Said> {
    moments: Moments,
    said: Said,
}

/// Rows one after the other that wait, and what stands around them.
#[derive(Debug)]
struct Aside<Said> {
    held: Vec<Held<Said>>,
    before_us: Option<i64>,
    after_us: Option<i64>,
    is_first: bool,
}

/// What became of a row that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled<Said> {
    /// Its moment; nothing where it stayed open.
    pub(super) time_us: Option<i64>,
    pub(super) moments: Moments,
    pub(super) said: Said,
}

/// A print-out, and what was learned from those before.
#[derive(Debug)]
pub(super) struct PrintOut<Said> {
    /// How often something is expected.
    every_us: i64,
    order: Option<Order>,
    step_us: Option<i64>,
    /// The last one that came whole.
    earlier: Option<Ends>,
    alone: Alone,
    /// Its first lines may have been taken for another one.
    is_rest: bool,
    began: Option<Began>,
    /// The last line.
    last: Option<Moments>,
    steps: Steps,
    /// Rows one after the other that wait.
    held: Vec<Held<Said>>,
    /// The moment of the line before them.
    before_us: Option<i64>,
    /// They begin the print-out.
    is_first: bool,
    /// Rows that wait for what later lines say of order and step.
    aside: Vec<Aside<Said>>,
    /// Since when any wait.
    waits_since_us: i64,
    settled: Vec<Settled<Said>>,
}

#[derive(Debug, Clone, Copy)]
struct Began {
    first: Moments,
    rows: usize,
    at_us: i64,
    /// The time then, where it was known.
    now_us: Option<i64>,
    /// The newest time that was told before it.
    newest_us: Option<i64>,
    order: Option<Order>,
    /// Its rows go up and down.
    is_mixed: bool,
}

/// A print-out's first and last row, and when it began.
#[derive(Debug, Clone, Copy)]
struct Ends {
    first: Moments,
    last: Moments,
    at_us: i64,
}

impl Known<'_> {
    fn is_told(&self, time_us: i64) -> bool {
        self.stored.look(time_us) != Told::New || self.unread.look(time_us) != Told::New
    }

    fn newest_us(&self) -> Option<i64> {
        self.stored.newest_us().max(self.unread.newest_us())
    }

    /// The step of the newest times that have one: three in a row are no accident.
    fn step_us(&self) -> Option<i64> {
        let runs = self.stored.runs().filter(|run| run.step_us > 0 && run.last_us - run.first_us >= 2 * run.step_us);
        runs.last().map(|run| run.step_us)
    }
}

impl<Said: Copy> PrintOut<Said> {
    /// Of a point from which something is expected so often.
    pub(super) fn new(every_us: i64) -> Self {
        Self {
            every_us,
            order: None,
            step_us: None,
            earlier: None,
            alone: Alone::default(),
            is_rest: false,
            began: None,
            last: None,
            steps: Steps::default(),
            held: Vec::new(),
            before_us: None,
            is_first: false,
            aside: Vec::new(),
            waits_since_us: 0,
            settled: Vec::new(),
        }
    }

    /// Whether it began and did not end.
    pub(super) const fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    /// What became of rows that waited.
    pub(super) fn settled(&mut self) -> Vec<Settled<Said>> {
        std::mem::take(&mut self.settled)
    }

    /// Takes a row, in the order of the print-out; its moment where it does not wait.
    pub(super) fn take(&mut self, moments: Moments, said: Said, heard: Heard, known: Known<'_>) -> Option<i64> {
        self.note(moments, heard, known);
        if self.is_overdue(heard) {
            self.decide(End::Cut, heard, known);
        }
        if let Some(time_us) = moments.only_us() {
            self.set_aside(Some(time_us));
            (self.last, self.before_us) = (Some(moments), Some(time_us));
            return Some(time_us);
        }
        let is_other_hour = |held: &Held<Said>| held.moments.early_us().abs_diff(moments.early_us()) > DAY_US;
        if self.held.last().is_some_and(is_other_hour) {
            self.set_aside(Some(moments.early_us()));
            self.before_us = None;
        }
        if self.held.is_empty() {
            self.is_first = self.last.is_none();
            if self.aside.is_empty() {
                self.waits_since_us = heard.bound_us;
            }
        }
        self.held.push(Held { moments, said });
        self.last = Some(moments);
        None
    }

    /// Too many rows wait, or for too long.
    fn is_overdue(&self, heard: Heard) -> bool {
        let count = self.held.len() + self.aside.iter().map(|aside| aside.held.len()).sum::<usize>();
        let is_too_long = heard.bound_us.saturating_sub(self.waits_since_us) > HELD_MAX_US;
        count >= HELD_MAX || (count > 0 && is_too_long)
    }

    fn set_aside(&mut self, after_us: Option<i64>) {
        if !self.held.is_empty() {
            let (held, before_us) = (std::mem::take(&mut self.held), self.before_us);
            self.aside.push(Aside { held, before_us, after_us, is_first: self.is_first });
        }
    }

    /// Decides on all rows that wait.
    fn decide(&mut self, end: End, heard: Heard, known: Known<'_>) {
        self.set_aside(None);
        for aside in std::mem::take(&mut self.aside) {
            self.close(aside, end, heard, known);
        }
    }

    /// Nothing more belongs to it.
    pub(super) fn end(&mut self, end: End, heard: Heard, known: Known<'_>) {
        self.decide(end, heard, known);
        self.note_alone(end, heard);
        let (Some(began), Some(last)) = (self.began.take(), self.last.take()) else { return };
        self.step_us = self.steps.step_us().or(self.step_us);
        self.steps = Steps::default();
        self.order = if began.is_mixed { None } else { began.order.or(self.order) };
        let ends = Ends { first: began.first, last, at_us: began.at_us };
        let is_known = end == End::Whole && !self.is_rest && heard.now_us.is_some();
        (self.earlier, self.is_rest) = (is_known.then_some(ends), end == End::Cut);
        self.before_us = None;
    }

    /// When its only row came, if that is printed when the device has it.
    fn alone_at_us(&self, end: End, heard: Heard) -> Option<i64> {
        let began = self.began.filter(|began| began.rows == 1 && !self.is_rest)?;
        began.now_us.filter(|_| end == End::Whole && !heard.asked)
    }

    fn note_alone(&mut self, end: End, heard: Heard) {
        let settled_us = self.settled.last().and_then(|row| row.time_us);
        let time_us = self.last.and_then(|last| last.only_us().or(settled_us));
        if let (Some(now_us), Some(time_us)) = (self.alone_at_us(end, heard), time_us) {
            self.alone.note(time_us, now_us);
        }
    }

    /// What a line says of order and step.
    fn note(&mut self, moments: Moments, heard: Heard, known: Known<'_>) {
        let (at_us, newest_us) = (heard.bound_us, known.newest_us());
        let now_us = heard.now_us;
        let fresh = Began { first: moments, rows: 0, at_us, now_us, newest_us, order: None, is_mixed: false };
        let began = self.began.get_or_insert(fresh);
        began.rows += 1;
        let Some(last) = self.last else { return };
        let (from_us, to_us) = (last.early_us(), moments.early_us());
        match (last.only_us(), moments.only_us()) {
            (Some(from_us), Some(to_us)) if from_us != to_us => {
                let order = if from_us < to_us { Order::Rising } else { Order::Falling };
                began.is_mixed |= began.order.replace(order).is_some_and(|known| known != order);
                self.steps.note(from_us.abs_diff(to_us), true);
            }
            (None, None) if from_us.abs_diff(to_us) < DAY_US => self.steps.note(from_us.abs_diff(to_us), false),
            _ => {}
        }
    }

    fn close(&mut self, aside: Aside<Said>, end: End, heard: Heard, known: Known<'_>) {
        let Some(began) = self.began else { return };
        let Aside { held, before_us, after_us, is_first } = aside;
        let rows: Vec<Moments> = held.iter().map(|held| held.moments).collect();
        let order = if began.is_mixed { None } else { began.order.or(self.order) };
        let step_us = self.steps.step_us().or(self.step_us).or_else(|| known.step_us());
        let mut guesses = Guesses::of(&Stretch { rows: &rows, before_us, after_us, order, step_us });
        guesses.keep(|order| {
            let newest = match order {
                Order::Rising => rows.last().filter(|_| after_us.is_none() && end == End::Whole),
                // Nothing was printed before it.
                Order::Falling => rows.first().filter(|_| is_first && !self.is_rest),
            };
            self.newest_is_late(order, *newest?, step_us, heard, known)
        });
        if began.order.is_none() && rows.len() > 1 {
            self.order = guesses.order().or(self.order);
        }
        let alone_at_us = self.alone_at_us(end, heard);
        for (place, Held { moments, said }) in held.into_iter().enumerate() {
            let alone_us = alone_at_us.and_then(|now_us| self.alone.moment(moments, now_us));
            let time_us = alone_us.or_else(|| Self::time_of(moments, guesses.possible(place), heard, known));
            self.settled.push(Settled { time_us, moments, said });
            if after_us.is_none() {
                self.before_us = time_us;
            }
        }
    }

    fn time_of(moments: Moments, possible: (bool, bool), heard: Heard, known: Known<'_>) -> Option<i64> {
        let (early_us, late_us) = (moments.early_us(), moments.late_us());
        let is_to_come = heard.now_us.is_some_and(|now_us| late_us > now_us.saturating_add(SLACK_US));
        match possible {
            (true, false) => Some(early_us),
            (false, true) if !is_to_come => Some(late_us),
            // Whichever it is, it was told.
            (true, true) if known.is_told(early_us) && known.is_told(late_us) => Some(early_us),
            _ => None,
        }
    }

    /// What the gateway's clock says of the newest row of a print-out, whose order leaves it open.
    fn newest_is_late(
        &self,
        order: Order,
        newest: Moments,
        step_us: Option<i64>,
        heard: Heard,
        known: Known<'_>,
    ) -> Option<bool> {
        let (began, now_us) = (self.began?, heard.now_us?);
        let (early_us, late_us) = (newest.early_us(), newest.late_us());
        // The device went on since, and does not print less than it did.
        let went_on = began.newest_us.is_some_and(|newest_us| newest_us > early_us);
        if late_us > now_us.saturating_add(SLACK_US) {
            return (!went_on).then_some(false);
        }
        let is_within =
            |time_us: i64, reach_us: i64| now_us.saturating_sub(time_us) <= reach_us.saturating_add(SLACK_US);
        let reach_us = self.every_us.max(step_us.unwrap_or(0));
        if went_on && is_within(late_us, reach_us) {
            return Some(true);
        }
        if let Some(late) = self.came_since(order, newest, now_us) {
            return Some(late);
        }
        if known.is_told(early_us) {
            return None;
        }
        let is_short = step_us.is_some_and(|step_us| step_us <= late_us - early_us);
        let is_now = is_within(late_us, reach_us) && !is_within(early_us, reach_us);
        // Who talks by itself prints a row when it has it.
        let is_printed_at_once = !heard.asked && is_within(late_us, 0);
        ((is_short && is_now) || is_printed_at_once).then_some(true)
    }

    /// The newest row was not the newest of the print-out before: so it is from between the two.
    fn came_since(&self, order: Order, newest: Moments, now_us: i64) -> Option<bool> {
        let earlier = self.earlier?;
        let was_newest = if order == Order::Rising { earlier.last } else { earlier.first };
        if was_newest.early_us() == newest.early_us() {
            return None;
        }
        let between = earlier.at_us.saturating_sub(SLACK_US)..=now_us.saturating_add(SLACK_US);
        match (between.contains(&newest.early_us()), between.contains(&newest.late_us())) {
            (true, false) => Some(false),
            (false, true) => Some(true),
            _ => None,
        }
    }
}

const DAY_US: u64 = 86_400 * 1_000_000;

/// How far a print-out's rows are apart.
#[derive(Debug, Default)]
struct Steps {
    /// Between rows with one moment each.
    sure_us: Option<u64>,
    /// Those differ.
    is_uneven: bool,
    /// Between rows of the hour that comes twice, and how often each was seen.
    seen: Vec<(u64, u32)>,
}

impl Steps {
    /// More distances are no step.
    const MAX: usize = 4;

    fn note(&mut self, distance_us: u64, is_sure: bool) {
        if is_sure {
            self.is_uneven |= self.sure_us.replace(distance_us).is_some_and(|known_us| known_us != distance_us);
        } else if let Some((_, count)) = self.seen.iter_mut().find(|(seen_us, _)| *seen_us == distance_us) {
            *count = count.saturating_add(1);
        } else if self.seen.len() < Self::MAX {
            self.seen.push((distance_us, 1));
        }
    }

    /// The one distance that all rows have, but for two between which the clock was set back.
    fn step_us(&self) -> Option<i64> {
        let step_us = match self.sure_us {
            Some(sure_us) => Some(sure_us).filter(|_| !self.is_uneven),
            None => {
                let (step_us, count) = self.seen.iter().max_by_key(|(_, count)| *count).copied()?;
                let others: u32 = self.seen.iter().map(|(_, count)| *count).sum::<u32>() - count;
                (step_us > 0 && others <= 1 && count >= 2).then_some(step_us)
            }
        };
        step_us.and_then(|step_us| i64::try_from(step_us).ok())
    }
}

#[cfg(test)]
mod tests;
