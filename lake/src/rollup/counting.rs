//! How far a counter went from one good value to the next: the one rule of it.
//!
//! | from the value before to this one | it went |
//! |---|---|
//! | up, or nowhere | the difference |
//! | down, over what the register calls `wraps_at` | `value − before + wraps_at`: it began again |
//! | down otherwise | the value: it was reset, and what it counted before that is missing |
//! | from one instrument to another, or while none hangs there | unknown: there is no step |
//!
//! **A step down is a wrap where the way over `wraps_at` is a quarter of a round at most**, and a reset otherwise. Two
//! values say no more: a counter that is read at least four times a round never goes further in a step, and one that is reset is
//! mostly in the other three quarters. One that is reset in the last quarter is taken for one that wrapped. What is not within a
//! round (negative, or `wraps_at` and more) is of no such counter, and never a wrap.
//!
//! An instrument hangs from `installed` on, up to and without `removed`. Before the first that the register knows, one counts all the
//! same: nobody wrote it down. Two lines about the same instrument with the same serial number, the second from when the first ends
//! (it was calibrated where it hangs), are one instrument. No I/O.

/// A step down over the wrap goes no further than this part of a round.
pub const WRAPPED_PART: f64 = 0.25;

/// An instrument of a sensor, as far as a counter cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Which model.
    pub instrument: Option<String>,
    /// Which one of them.
    pub serial: Option<String>,
    /// Since when, in microseconds since 1970 UTC.
    pub from_us: i64,
    /// Until when; none: it hangs there still.
    pub to_us: Option<i64>,
}

impl Installed {
    /// Whether another line, which follows this one, is about the same one, which went on counting.
    fn goes_on_as(&self, next: &Self) -> bool {
        self.to_us == Some(next.from_us)
            && self.serial.is_some()
            && (&self.serial, &self.instrument) == (&next.serial, &next.instrument)
    }
}

/// The instruments of one sensor, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instruments {
    /// From when on another one hangs there, or none does.
    borders: Vec<(i64, bool)>,
}

impl Instruments {
    /// Of these lines, in any order; they do not overlap.
    pub fn of(lines: impl IntoIterator<Item = Installed>) -> Self {
        let mut lines: Vec<Installed> = lines.into_iter().collect();
        lines.sort_by_key(|line| line.from_us);
        let mut borders = Vec::new();
        for (place, line) in lines.iter().enumerate() {
            if !place.checked_sub(1).is_some_and(|before| lines[before].goes_on_as(line)) {
                borders.push((line.from_us, true));
            }
            let next = lines.get(place + 1);
            // One that follows at once is another border at the same moment.
            let to_us = line.to_us.filter(|to_us| next.is_none_or(|next| *to_us < next.from_us));
            borders.extend(to_us.map(|to_us| (to_us, false)));
        }
        Self { borders }
    }

    /// How many borders there were up to a moment: readings of one instrument have the same number, and others another.
    #[must_use]
    pub fn number(&self, time_us: i64) -> usize {
        self.borders.partition_point(|(from_us, _)| *from_us <= time_us)
    }

    /// Whether one instrument hung there at both moments, and in between.
    #[must_use]
    pub fn is_one(&self, one_us: i64, other_us: i64) -> bool {
        let number = self.number(one_us);
        let hangs = number.checked_sub(1).is_none_or(|border| self.borders[border].1);
        hangs && number == self.number(other_us)
    }
}

/// Whether a counter that begins again at `wraps_at` did so between two values.
#[must_use]
pub fn wrapped(before: f64, value: f64, wraps_at: f64) -> bool {
    let within = |number: f64| (0.0..wraps_at).contains(&number);
    value < before && within(before) && within(value) && wraps_at - before + value <= wraps_at * WRAPPED_PART
}

/// How one sensor counts.
#[derive(Debug, Clone, Copy)]
pub struct Counting<'a> {
    pub(super) wraps_at: Option<f64>,
    pub(super) instruments: Option<&'a Instruments>,
}

impl Counting<'_> {
    /// Where nothing is known: every step down is a reset, of the one instrument that hangs there.
    pub(super) const PLAIN: Self = Self { wraps_at: None, instruments: None };

    /// The step from one good value to the next, each with its time; none where it is not known how far it was.
    #[must_use]
    pub fn step(&self, before: (i64, f64), now: (i64, f64)) -> Option<f64> {
        let ((before_us, before), (now_us, value)) = (before, now);
        if self.instruments.is_some_and(|instruments| !instruments.is_one(before_us, now_us)) {
            return None;
        }
        Some(match self.wraps_at {
            _ if value >= before => value - before,
            Some(wraps_at) if wrapped(before, value, wraps_at) => wraps_at - before + value,
            _ => value.max(0.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(wraps_at: Option<f64>, before: f64, value: f64) -> Option<f64> {
        Counting { wraps_at, instruments: None }.step((0, before), (1, value))
    }

    #[test]
    fn a_step_down_is_a_reset() {
        assert_eq!(step(None, 10.0, 12.5), Some(2.5));
        assert_eq!(step(None, 10.0, 3.0), Some(3.0));
        assert_eq!(step(None, 10.0, -1.0), Some(0.0));
    }

    /// 6 of 11 pulses were missing each time that a register of 16 bits began again.
    #[test]
    fn a_step_down_over_the_end_is_a_wrap() {
        let register = Some(65_536.0);
        assert_eq!(step(register, 65_530.0, 5.0), Some(11.0));
        assert_eq!(step(register, 65_535.0, 0.0), Some(1.0));
        // Read four times a round, and no more seldom.
        assert_eq!(step(register, 49_152.0, 0.0), Some(16_384.0));
        assert_eq!(step(register, 49_151.0, 0.0), Some(0.0), "a reset: a wrap would be more than a quarter");
        assert_eq!(step(register, 65_530.0, 60_000.0), Some(60_000.0), "a step back is no round");
        assert_eq!(step(Some(6_553.6), 6_553.5, 0.5).map(|step| (step * 10.0).round()), Some(6.0), "in the unit");
    }

    /// A wrong `wraps_at` must not invent what was never counted.
    #[test]
    fn what_is_beyond_a_round_wraps_nowhere() {
        assert_eq!(step(Some(100.0), 100.0, 3.0), Some(3.0));
        assert_eq!(step(Some(100.0), 250.0, 120.0), Some(120.0));
        assert_eq!(step(Some(100.0), 99.0, -1.0), Some(0.0));
    }

    fn line(serial: &str, from_us: i64, to_us: Option<i64>) -> Installed {
        let word = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Installed { instrument: word("flow"), serial: word(serial), from_us, to_us }
    }

    /// The old meter said 1,000 and the new one 50,000: nobody used 49,000.
    #[test]
    fn no_step_leads_from_one_instrument_to_another() {
        let one = Instruments::of([line("2", 30, Some(40)), line("1", 10, Some(20)), line("3", 40, None)]);
        let same = |one_us, other_us| one.is_one(one_us, other_us);
        assert!(same(0, 9), "before anybody wrote it down");
        assert!(!same(9, 10) && same(10, 19) && !same(19, 20));
        assert!(!same(20, 29), "while none hangs there");
        assert!(!same(19, 30) && same(30, 39) && !same(39, 40) && same(40, i64::MAX));
        let counting = Counting { wraps_at: None, instruments: Some(&one) };
        assert_eq!(counting.step((19, 1_000.0), (30, 50_000.0)), None);
        assert_eq!(counting.step((30, 50_000.0), (31, 50_001.0)), Some(1.0));
    }

    #[test]
    fn what_is_calibrated_where_it_hangs_counts_on() {
        let calibrated = Instruments::of([line("1", 10, Some(20)), line("1", 20, None)]);
        assert!(calibrated.is_one(19, 20));
        assert!(!Instruments::of([line("1", 10, Some(20)), line("1", 21, None)]).is_one(19, 21), "it was away");
        assert!(!Instruments::of([line("", 10, Some(20)), line("", 20, None)]).is_one(19, 20), "nobody knows");
        assert!(!Instruments::of([line("1", 10, Some(20)), line("2", 20, None)]).is_one(19, 20));
    }
}
