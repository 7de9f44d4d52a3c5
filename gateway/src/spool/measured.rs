//! Under which configuration readings were measured, by their numbers.
//!
//! A batch names one configuration: whoever recomputes its values goes by that. A reading that waits on disk may be sealed after the
//! next configuration came, by a reload or a start, so the log says it too (a record of kind 7), and sealing goes by this.
//! Limits: an entry a change among what is not sealed.

use std::collections::VecDeque;

use super::core::count;

/// From which number on which configuration holds (its SHA-256 in hex), or none that is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// By their numbers; of those with one number the last holds.
    from: VecDeque<(i64, Option<String>)>,
}

impl Measured {
    /// The configuration of a number; none where nobody knows.
    pub(crate) fn at(&self, seq: i64) -> Option<&str> {
        self.from.iter().rev().find(|(first, _)| *first <= seq).and_then(|(_, configuration)| configuration.as_deref())
    }

    /// How many numbers from this one on have the same, as far as the next change.
    pub(crate) fn alike(&self, first_seq: i64) -> usize {
        let next = self.from.iter().map(|(first, _)| *first).find(|first| *first > first_seq);
        next.map_or(usize::MAX, |next| usize::try_from(next - first_seq).unwrap_or(usize::MAX))
    }

    /// From this number on it is this one, whatever was said of later numbers.
    pub(crate) fn begin(&mut self, first_seq: i64, configuration: Option<&str>) {
        while self.from.back().is_some_and(|(first, _)| *first >= first_seq) {
            self.from.pop_back();
        }
        if self.at(first_seq) != configuration {
            self.from.push_back((first_seq, configuration.map(str::to_owned)));
        }
    }

    /// From this number on it is as the other says.
    pub(crate) fn append(&mut self, first_seq: i64, other: Self) {
        self.begin(first_seq, other.at(first_seq));
        self.from.extend(other.from.into_iter().filter(|(first, _)| *first > first_seq));
    }

    /// What holds up to this number is not asked for any more.
    pub(crate) fn forget(&mut self, sealed_to: i64) {
        while self.from.get(1).is_some_and(|(next, _)| *next <= sealed_to + 1) {
            self.from.pop_front();
        }
    }

    /// So many readings behind this number went from memory: those after them get their numbers.
    pub(crate) fn lose(&mut self, after_seq: i64, lost: usize) {
        for (first, _) in &mut self.from {
            if *first > after_seq {
                *first = first.saturating_sub(count(lost)).max(after_seq + 1);
            }
        }
    }

    /// Numbers begin anew: what had one number has the other from now on.
    pub(crate) fn renumber(&mut self, former_seq: i64, seq: i64) {
        self.from.iter_mut().for_each(|(first, _)| *first += seq - former_seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_the_configuration_that_it_was_measured_under() {
        let mut measured = Measured::default();
        assert_eq!((measured.at(5), measured.alike(5)), (None, usize::MAX));
        measured.begin(1, Some("a"));
        measured.begin(4, Some("b"));
        measured.begin(6, Some("b"));
        measured.begin(9, None);
        let of =
            |measured: &Measured| (1..11).map(|seq| measured.at(seq).unwrap_or("-").to_owned()).collect::<String>();
        assert_eq!((of(&measured).as_str(), measured.alike(1), measured.alike(5)), ("aaabbbbb--", 3, 4));
        measured.lose(2, 3);
        assert_eq!(of(&measured), "aabbb-----", "1 and 2 are written, 3 to 5 went");
        measured.begin(4, Some("a"));
        assert_eq!(of(&measured), "aabaaaaaaa");
        measured.forget(2);
        assert_eq!((of(&measured).as_str(), measured.from.len()), ("--baaaaaaa", 2));
        measured.renumber(3, 1);
        assert_eq!(of(&measured), "baaaaaaaaa");
    }
}
