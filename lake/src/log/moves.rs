//! Which transactions the newest commits moved. A table that has lived for years knows hundreds of thousands of them, of which a
//! commit moves a few: whoever knows an earlier version asks for these.
//!
//! Bounded: the moves of the newest [`COMMITS_MAX`] commits, and no more than [`NAMES_MAX`]. Who is further behind reads all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The moves of so many commits are kept.
const COMMITS_MAX: usize = 64;
/// And no more names than this, but for one commit that moved more.
const NAMES_MAX: usize = 16_384;

/// So often this process has read a log from the beginning.
static READINGS: AtomicU64 = AtomicU64::new(0);

/// Up to which version of a table somebody knows its transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Which reading of the log it goes on from: where that was read from the beginning again, the table may be another one.
    reading: u64,
    version: i64,
}

/// The moves of the newest commits.
#[derive(Debug, Clone)]
pub(crate) struct Moves {
    reading: u64,
    /// The version after the newest of them.
    version: i64,
    /// The oldest first.
    commits: VecDeque<Arc<[(String, i64)]>>,
}

impl Moves {
    /// Of a log that is read anew, from a version on.
    pub(crate) fn from(version: i64) -> Self {
        Self { reading: READINGS.fetch_add(1, Ordering::Relaxed), version, commits: VecDeque::new() }
    }

    /// The next commit moved these.
    pub(crate) fn add(&mut self, moved: &[(String, i64)]) {
        self.version += 1;
        self.commits.push_back(moved.into());
        let names = |commits: &VecDeque<Arc<[_]>>| commits.iter().map(|moved| moved.len()).sum::<usize>();
        while self.commits.len() > COMMITS_MAX || (self.commits.len() > 1 && names(&self.commits) > NAMES_MAX) {
            self.commits.pop_front();
        }
    }

    pub(crate) const fn followed(&self) -> Followed {
        Followed { reading: self.reading, version: self.version }
    }

    /// What was moved since, the oldest first; none where that is not known any more.
    pub(crate) fn since(&self, followed: Followed) -> Option<impl Iterator<Item = &(String, i64)>> {
        let commits = usize::try_from(self.version.checked_sub(followed.version)?).ok()?;
        let first = self.commits.len().checked_sub(commits).filter(|_| self.reading == followed.reading)?;
        Some(self.commits.range(first..).flat_map(|moved| moved.iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(numbers: std::ops::Range<i64>) -> Vec<(String, i64)> {
        numbers.map(|number| (format!("app {number}"), number)).collect()
    }

    fn since(moves: &Moves, followed: Followed) -> Option<Vec<(String, i64)>> {
        moves.since(followed).map(|moved| moved.cloned().collect())
    }

    #[test]
    fn what_was_moved_since_is_told_in_order() {
        let mut moves = Moves::from(7);
        let first = moves.followed();
        assert_eq!(since(&moves, first), Some(Vec::new()));
        moves.add(&moved(0..2));
        let second = moves.followed();
        moves.add(&[]);
        moves.add(&moved(1..3));
        assert_eq!(since(&moves, first), Some([moved(0..2), moved(1..3)].concat()));
        assert_eq!(since(&moves, second), Some(moved(1..3)));
    }

    /// A table that was made anew has versions of the same numbers, and what was known of it is another's.
    #[test]
    fn what_is_not_known_any_more_is_told() {
        let mut moves = Moves::from(0);
        let first = moves.followed();
        assert_eq!(since(&Moves::from(0), first), None, "it was read anew");
        moves.add(&moved(0..5));
        assert_eq!(since(&moves, moves.followed()), Some(Vec::new()));
        let ahead = moves.followed();
        for _ in 0..COMMITS_MAX {
            moves.add(&moved(0..1));
        }
        assert_eq!(since(&moves, first), None, "too far behind");
        assert_eq!(since(&moves, ahead).map(|moved| moved.len()), Some(COMMITS_MAX));
        moves.add(&moved(0..20_000));
        assert_eq!((since(&moves, ahead), moves.commits.len()), (None, 1), "within bounds");
    }
}
