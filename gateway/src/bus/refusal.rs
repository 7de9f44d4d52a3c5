//! What a device refuses, found out with few requests.
//!
//! A device that is asked for an address that it does not have refuses the whole request (exception 2 or 3), and
//! does not say which address it was. So a shared request that was refused is cut in two, at the largest hole near
//! its middle, until the culprit is known: a point that is refused by itself, or two halves that are both answered.
//! Then one small request across the cut decides: if it is refused too, the hole at the cut is bad; if it is
//! answered, the whole was too long, and the most that the device allows is found by halving. All other points keep
//! sharing requests round what is bad. A culprit is forgotten after [`FORGET_US`], so that a device that was
//! repaired is tried again.
//!
//! Pure: no I/O, no clock. Limits: at most [`TRIALS_MAX`] cuts are looked into at a time.

use crate::modbus::transport::{ReadRequest, Table};

use super::plan::{Barrier, Group, Wanted};

/// What was found out is believed for 30 days.
pub(crate) const FORGET_US: i64 = 30 * 86_400 * 1_000_000;

/// So many cuts are looked into at a time; older ones are given up.
const TRIALS_MAX: usize = 64;

/// What was found out about a device, and lasts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Learned {
    /// No request reads across these.
    pub(crate) holes: Vec<Found>,
    /// The addresses of points that were refused by themselves.
    pub(crate) points: Vec<Found>,
    /// So long a request may be.
    pub(crate) counts: Vec<CountLimit>,
}

/// A culprit, and when it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) place: Barrier,
    pub(crate) found_us: i64,
}

/// What a table's requests may hold: `good` was answered, `refused` was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountLimit {
    pub(crate) table: Table,
    pub(crate) good: u16,
    pub(crate) refused: u16,
    pub(crate) found_us: i64,
}

impl CountLimit {
    /// The longest that is worth a try: half-way to what was refused.
    const fn count_max(&self) -> u16 {
        self.good.midpoint(self.refused)
    }
}

/// What a refusal means for those who shared the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The point itself is refused.
    Point,
    /// They are to be asked for anew, in smaller requests.
    Split,
    /// They overlap and cannot be told apart by a cut: each is to be asked for by itself.
    Apart,
}

/// A refused request that was cut.
#[derive(Debug, Clone)]
struct Trial {
    /// The request that was refused.
    whole: Barrier,
    /// The cut: from the end of the left half to the begin of the right one.
    cut: Barrier,
    /// What was answered of the halves.
    answered: Vec<(u32, u32)>,
    /// The smallest request across the cut.
    proof: Option<ReadRequest>,
}

/// What is known of a device, and what is being found out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    learned: Learned,
    trials: Vec<Trial>,
}

fn span(request: ReadRequest) -> Barrier {
    let first = u32::from(request.address());
    Barrier { table: request.table(), first, end: first + u32::from(request.count()) }
}

impl Barrier {
    fn is_crossed_by(&self, other: &Self) -> bool {
        self.table == other.table && other.first < self.first && other.end > self.end
    }

    fn holds(&self, other: &Self) -> bool {
        self.table == other.table && self.first <= other.first && other.end <= self.end
    }
}

impl Learned {
    /// Forgets what was found too long ago; whether anything was.
    pub(crate) fn expire(&mut self, now_us: i64) -> bool {
        let before = self.len();
        let lasts = |found_us: i64| now_us.saturating_sub(found_us) < FORGET_US;
        self.holes.retain(|found| lasts(found.found_us));
        self.points.retain(|found| lasts(found.found_us));
        self.counts.retain(|limit| lasts(limit.found_us));
        self.len() < before
    }

    const fn len(&self) -> usize {
        self.holes.len() + self.points.len() + self.counts.len()
    }
}

impl Refusals {
    pub(crate) const fn new(learned: Learned) -> Self {
        Self { learned, trials: Vec::new() }
    }

    pub(crate) const fn learned(&self) -> &Learned {
        &self.learned
    }

    pub(crate) fn expire(&mut self, now_us: i64) -> bool {
        self.learned.expire(now_us)
    }

    /// What no request may read across.
    pub(crate) fn barriers(&self) -> Vec<Barrier> {
        let found = self.learned.holes.iter().chain(&self.learned.points).map(|found| found.place);
        found.chain(self.trials.iter().map(|trial| trial.cut)).collect()
    }

    /// The most that a request may hold.
    pub(crate) fn count_max(&self, table: Table) -> u16 {
        let limits = self.learned.counts.iter().filter(|limit| limit.table == table);
        limits.map(CountLimit::count_max).min().unwrap_or(table.count_max())
    }

    /// Whether a point lies where one was refused, and so is asked for by itself.
    pub(crate) fn is_refused(&self, one: &Wanted) -> bool {
        let touches = |found: &Found| {
            found.place.table == one.table && one.first() < found.place.end && one.end() > found.place.first
        };
        self.learned.points.iter().any(touches)
    }

    /// A request was answered; whether the plan changes for it.
    pub(crate) fn answered(&mut self, request: ReadRequest) -> bool {
        let read = span(request);
        let before = (self.trials.len(), self.learned.points.len());
        self.learned.points.retain(|found| !read.holds(&found.place));
        self.trials.retain(|trial| !trial.cut.is_crossed_by(&read));
        for trial in &mut self.trials {
            trial.note(&read);
        }
        let mut changed = before != (self.trials.len(), self.learned.points.len());
        for limit in self.learned.counts.iter_mut().filter(|limit| limit.table == read.table) {
            if request.count() > limit.good && request.count() < limit.refused {
                limit.good = request.count();
                changed = true;
            }
        }
        changed
    }

    /// A request was refused; what that means for those who shared it.
    pub(crate) fn refused(&mut self, group: &Group, now_us: i64) -> Verdict {
        let whole = span(group.request);
        if let [one] = group.members.as_slice() {
            if !self.is_refused(one) {
                self.learned.points.push(Found { place: whole, found_us: now_us });
            }
            self.explain(&whole);
            return Verdict::Point;
        }
        let count = group.request.count();
        let tried =
            |limit: &&mut CountLimit| limit.table == whole.table && (limit.good + 1..limit.refused).contains(&count);
        if let Some(limit) = self.learned.counts.iter_mut().find(tried) {
            limit.refused = count;
            return Verdict::Split;
        }
        let Some(trial) = Trial::new(group) else { return Verdict::Apart };
        if self.trials.len() >= TRIALS_MAX {
            self.trials.remove(0);
        }
        self.trials.push(trial);
        Verdict::Split
    }

    /// A culprit explains why what holds it was refused.
    fn explain(&mut self, culprit: &Barrier) {
        self.trials.retain(|trial| !trial.whole.holds(culprit));
    }

    /// The request that decides between a bad hole and one that was too long, if one is due.
    pub(crate) fn proof(&self) -> Option<ReadRequest> {
        self.trials.iter().find(|trial| trial.is_answered()).and_then(|trial| trial.proof)
    }

    /// How that request ended.
    pub(crate) fn proved(&mut self, request: ReadRequest, was_refused: bool, now_us: i64) {
        let Some(index) = self.trials.iter().position(|trial| trial.proof == Some(request)) else { return };
        let trial = self.trials.remove(index);
        if was_refused {
            self.learned.holes.push(Found { place: trial.cut, found_us: now_us });
            self.explain(&trial.cut);
            return;
        }
        let count = |first: u32, end: u32| u16::try_from(end - first).unwrap_or(u16::MAX);
        let halves = count(trial.whole.first, trial.cut.first).max(count(trial.cut.end, trial.whole.end));
        let (good, refused) = (halves.max(request.count()), count(trial.whole.first, trial.whole.end));
        if good < refused {
            let table = trial.whole.table;
            self.trials.retain(|trial| trial.whole.table != table);
            self.learned.counts.retain(|limit| limit.table != table);
            self.learned.counts.push(CountLimit { table, good, refused, found_us: now_us });
        }
    }
}

impl Trial {
    /// Cuts a request where two halves of like size lie farthest apart.
    fn new(group: &Group) -> Option<Self> {
        let mut members = group.members.clone();
        members.sort_by_key(|member| (member.address, member.width));
        let (mut end, mut best) = (0, None);
        for (index, pair) in members.windows(2).enumerate() {
            end = end.max(pair[0].end());
            let Some(hole) = pair[1].first().checked_sub(end) else { continue };
            let left = index + 1;
            let weight = (u64::from(hole) + 1) * left.min(members.len() - left) as u64;
            if best.is_none_or(|(heaviest, _, _)| weight > heaviest) {
                best = Some((weight, left, end));
            }
        }
        let (_, left, left_end) = best?;
        let whole = span(group.request);
        let cut = Barrier { table: whole.table, first: left_end, end: members[left].first() };
        let nearest =
            members[..left].iter().filter(|member| member.end() == left_end).max_by_key(|member| member.address);
        let proof = Group::of(&[*nearest?, members[left]]).map(|group| group.request);
        Some(Self { whole, cut, answered: Vec::new(), proof })
    }

    fn note(&mut self, read: &Barrier) {
        if read.table == self.whole.table && read.first < self.whole.end && read.end > self.whole.first {
            self.answered.push((read.first, read.end));
            self.answered.sort_unstable();
            self.answered.dedup_by(|next, before| {
                let joins = next.0 <= before.1;
                if joins {
                    before.1 = before.1.max(next.1);
                }
                joins
            });
        }
    }

    /// Whether all of both halves was answered.
    fn is_answered(&self) -> bool {
        let within = |first: u32, end: u32| self.answered.iter().any(|(from, to)| *from <= first && end <= *to);
        within(self.whole.first, self.cut.first) && within(self.cut.end, self.whole.end)
    }
}

#[cfg(test)]
mod tests;
