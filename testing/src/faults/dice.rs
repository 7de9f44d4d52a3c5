//! Which request fails, and how.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Blow;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Puts, copies, parts.
    Put,
    /// Gets, also of ranges and of heads.
    Get,
    /// Listings.
    List,
    /// Removals.
    Delete,
}

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 500, not done.
    Internal,
    /// 503, not done.
    Unavailable,
    /// 429, not done.
    TooMany,
    /// 409, not done.
    Conflict,
    /// The connection ends, not done.
    ResetBefore,
    /// The connection ends, done.
    ResetAfter,
    /// Done, and the client's own repeat finds it done.
    Repeated,
    /// Nothing comes until the client gives up.
    Stall,
    /// Less than there should be.
    WrongLength,
}

impl Fault {
    /// Every fault that befalls a kind of request.
    #[must_use]
    pub const fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Put => &[
                Self::Internal,
                Self::Unavailable,
                Self::TooMany,
                Self::Conflict,
                Self::ResetBefore,
                Self::ResetAfter,
                Self::Repeated,
                Self::Stall,
            ],
            Kind::Get => {
                &[Self::Internal, Self::Unavailable, Self::TooMany, Self::ResetBefore, Self::Stall, Self::WrongLength]
            }
            Kind::List => {
                &[Self::Internal, Self::Unavailable, Self::TooMany, Self::ResetBefore, Self::Stall, Self::WrongLength]
            }
            Kind::Delete => &[
                Self::Internal,
                Self::Unavailable,
                Self::TooMany,
                Self::ResetBefore,
                Self::ResetAfter,
                Self::Repeated,
                Self::Stall,
            ],
        }
    }

    /// What a client says of it.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Internal => "status code: 500 Internal Server Error",
            Self::Unavailable => "status code: 503 Service Unavailable",
            Self::TooMany => "status code: 429 Too Many Requests",
            Self::Conflict => "status code: 409 Conflict",
            Self::ResetBefore | Self::ResetAfter | Self::Repeated => "connection reset by peer",
            Self::Stall => "operation timed out",
            Self::WrongLength => "the answer ended before it was whole",
        }
    }
}

/// What was asked, and what failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests by their kind.
    pub requests: BTreeMap<Kind, u64>,
    /// Faults by the kind of their request.
    pub faults: BTreeMap<(Kind, Fault), u64>,
}

impl Tally {
    /// How many requests there were.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.values().sum()
    }

    /// How many of them failed.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.requests {
            *self.requests.entry(*kind).or_default() += count;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }
}

/// The dice of one store.
#[derive(Debug)]
pub(super) struct Dice {
    seed: u64,
    per_mille: u64,
    tally: Mutex<Tally>,
}

impl Dice {
    pub(super) fn new(seed: u64, per_mille: u64) -> Self {
        Self { seed, per_mille, tally: Mutex::default() }
    }

    fn locked(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tally(&self) -> Tally {
        self.locked().clone()
    }

    /// A request came.
    pub(super) fn count(&self, kind: Kind) {
        *self.locked().requests.entry(kind).or_default() += 1;
    }

    /// What the last request of a kind is to suffer: the number of a request among those of its kind decides,
    /// so that another order of kinds leaves each its faults.
    pub(super) fn throw(&self, kind: Kind) -> Option<Blow> {
        let mut tally = self.locked();
        let number = tally.requests.get(&kind).copied().unwrap_or_default();
        let mixed = [self.seed, kind as u64, number].into_iter().fold(0x9e37_79b9_7f4a_7c15, |mixed: u64, part| {
            (mixed ^ part).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29)
        });
        let mut random = fastrand::Rng::with_seed(mixed);
        if random.u64(..1_000) >= self.per_mille {
            return None;
        }
        let faults = Fault::of(kind);
        let fault = faults[random.usize(..faults.len())];
        *tally.faults.entry((kind, fault)).or_default() += 1;
        Some(Blow { fault, is_done: random.bool() })
    }
}
