//! A wall clock that was believed and falls back: what it says is held against the time that passed.
//!
//! ```text
//! within the bound of what the monotonic clock says     believed, also where it was stepped or slewed
//! ahead of that, however far                            believed: it was set right, or the machine was asleep
//! further behind                                        not believed: the last that was, and what passed since
//! ```
//!
//! Invariants: while it is not believed, what is told goes on as the monotonic clock does; it is believed again by itself once
//! it lies within the bound. Limits: nobody knows here which of two times is right; who does may say so ([`Guard::believe`]).
//! A clock that walks back in steps within the bound is followed. The monotonic clock stands still while a machine sleeps.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A wall clock that fell back, and is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The last time that was believed.
    pub since_us: i64,
    /// How far the wall clock is behind what is told in its place.
    pub behind_us: i64,
    /// How long ago that was found out, by the monotonic clock.
    pub for_us: i64,
    /// It is where it would be had it not sprung forward before.
    pub is_back: bool,
}

#[derive(Debug)]
pub(super) struct Guard {
    back_max_us: i64,
    trust: Mutex<Trust>,
}

#[derive(Debug, Default)]
struct Trust {
    /// How far the wall clock was before the monotonic one when it was believed last.
    ahead_us: Option<i64>,
    /// The same before it last sprang forward by more than the bound.
    before_us: Option<i64>,
    /// What was told last that was believed.
    told_us: i64,
    /// The newest time for which it was not believed.
    spell: Option<Spell>,
    falls: u64,
}

#[derive(Debug, Clone, Copy)]
struct Spell {
    since_us: i64,
    /// On the monotonic clock.
    found_us: i64,
    /// How far the wall clock was before the monotonic one, at the last look.
    wall_ahead_us: i64,
    /// What was told when it ended, and what the wall clock said.
    ended: Option<(i64, i64)>,
}

impl Guard {
    pub(super) fn new(back_max_us: i64) -> Self {
        Self { back_max_us, trust: Mutex::default() }
    }

    /// What time it is, for who reads the wall clock and the monotonic one at once.
    pub(super) fn now_us(&self, read: impl FnOnce() -> (i64, i64)) -> i64 {
        let mut trust = self.trust();
        // Under the lock: of two threads none looks at a moment before the other's.
        let (wall_us, monotonic_us) = read();
        trust.look((wall_us, monotonic_us), self.back_max_us)
    }

    /// From now on the wall clock is believed.
    pub(super) fn believe(&self, read: impl FnOnce() -> (i64, i64)) {
        let mut trust = self.trust();
        let (wall_us, monotonic_us) = read();
        trust.before_us = None;
        trust.follow(wall_us, monotonic_us);
    }

    /// The doubt that lasts, at this moment of the monotonic clock.
    pub(super) fn doubt(&self, monotonic_us: i64) -> Option<Doubt> {
        let trust = self.trust();
        let spell = trust.spell.filter(|spell| spell.ended.is_none())?;
        Some(Doubt {
            since_us: spell.since_us,
            behind_us: trust.ahead_us?.saturating_sub(spell.wall_ahead_us),
            for_us: monotonic_us.saturating_sub(spell.found_us),
            is_back: trust
                .before_us
                .is_some_and(|before_us| before_us.abs_diff(spell.wall_ahead_us) <= self.back_max_us.unsigned_abs()),
        })
    }

    /// Whether a time was told while the wall clock was not believed. Of two that were, the newer one is known.
    pub(super) fn is_doubtful(&self, time_us: i64, wall_us: i64) -> bool {
        let Some(spell) = self.trust().spell else { return false };
        let is_within = match spell.ended {
            None => true,
            // The clock that is believed again comes to these times once more: what is not of the future is its own.
            Some((told_us, ended_us)) => time_us <= told_us && (ended_us >= told_us || time_us > wall_us),
        };
        time_us > spell.since_us && is_within
    }

    pub(super) fn falls(&self) -> u64 {
        self.trust().falls
    }

    /// Held for a few instructions, none of which can panic half-way.
    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trust {
    fn look(&mut self, (wall_us, monotonic_us): (i64, i64), back_max_us: i64) -> i64 {
        let wall_ahead_us = wall_us.saturating_sub(monotonic_us);
        let believed_us = *self.ahead_us.get_or_insert(wall_ahead_us);
        if wall_ahead_us >= believed_us.saturating_sub(back_max_us) {
            if wall_ahead_us > believed_us.saturating_add(back_max_us) {
                self.before_us = Some(believed_us);
            }
            self.follow(wall_us, monotonic_us);
            return wall_us;
        }
        match self.spell.as_mut().filter(|spell| spell.ended.is_none()) {
            Some(spell) => spell.wall_ahead_us = wall_ahead_us,
            None => {
                self.falls += 1;
                let (since_us, found_us) = (self.told_us, monotonic_us);
                self.spell = Some(Spell { since_us, found_us, wall_ahead_us, ended: None });
            }
        }
        believed_us.saturating_add(monotonic_us)
    }

    fn follow(&mut self, wall_us: i64, monotonic_us: i64) {
        if let (Some(spell), Some(believed_us)) = (&mut self.spell, self.ahead_us) {
            spell.ended.get_or_insert((believed_us.saturating_add(monotonic_us), wall_us));
        }
        (self.ahead_us, self.told_us) = (Some(wall_us.saturating_sub(monotonic_us)), wall_us);
    }
}
