//! What to do with an epoch's landed objects, given what is in the tables: no I/O, no clock.
//!
//! Batches are taken in the order of their numbers. A hole is waited for, then passed and remembered;
//! a gap is passed at once and remembered; a batch that lies in something remembered fills it, a gap that comes to a
//! hole turns it. What
//! lies below the watermark and fits without overlap into the chain of what was taken is known; what
//! does not is looked at row by row before it is called known, and never taken a second time.

use std::collections::{BTreeMap, BTreeSet};

use tjern_readings::keys::Bounds;

use super::late::Late;

/// What the tables say of an epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything up to this number was taken or passed.
    pub(super) watermark: i64,
    /// Passed and not taken.
    pub(super) open: BTreeSet<Bounds>,
    /// Those of them of which nobody has said yet why they are missing.
    pub(super) holes: BTreeSet<Bounds>,
    /// Batches that filled something passed.
    pub(super) filled: BTreeSet<Bounds>,
    /// What was taken long after it had landed.
    pub(super) late: Late,
}

/// A landed object with numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) bounds: Bounds,
    /// Whether it says that these numbers were dropped.
    pub(super) gap: bool,
    pub(super) landed_us: i64,
    /// How large it is.
    pub(super) bytes: u64,
}

/// What the gateway says of a finished epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) last: i64,
    pub(super) landed_us: i64,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Take this batch; it follows the watermark.
    Take(Bounds),
    /// Pass these numbers, which nobody sent.
    PassHole(Bounds),
    /// Pass these numbers, which the gateway dropped.
    PassGap(Bounds),
    /// Take this batch; it lies in these numbers that were passed.
    Fill(Bounds, Bounds),
    /// These numbers of a hole that was passed were dropped by the gateway.
    Turn(Bounds, Bounds),
    /// See whether this batch's rows are in the tables.
    Compare(Bounds),
    /// See whether this batch, whose rows are known and which came again, holds readings that were erased.
    Look(Bounds),
    /// This batch has numbers that were taken and numbers that were not.
    Overlap(Bounds),
    /// Nothing comes after this number.
    Finish(i64),
}

/// The steps of an epoch, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// The hole that is waited for.
    pub(super) waiting: Option<Bounds>,
}

/// Plans what to do with an epoch that its gateway finished: numbers that are missing at its end are a hole too.
pub(super) fn plan_closed(progress: &Progress, items: &[Item], closed: Closed, now_us: i64, patience_us: i64) -> Plan {
    let mut plan = plan(progress, items, now_us, patience_us);
    let reached = plan.steps.iter().map(|step| step.reaches()).max().unwrap_or(0).max(progress.watermark);
    if plan.waiting.is_some() {
        return plan;
    }
    if let Some(hole) = Bounds::new(reached + 1, closed.last) {
        if now_us.saturating_sub(closed.landed_us) < patience_us {
            plan.waiting = Some(hole);
            return plan;
        }
        plan.steps.push(Step::PassHole(hole));
    }
    plan.steps.push(Step::Finish(closed.last.max(reached)));
    plan
}

impl Step {
    /// The batch that has to be read for it.
    pub(super) const fn batch(self) -> Option<Bounds> {
        match self {
            Self::Take(bounds) | Self::Fill(bounds, _) | Self::Compare(bounds) | Self::Look(bounds) => Some(bounds),
            Self::PassHole(_) | Self::PassGap(_) | Self::Turn(..) | Self::Overlap(_) | Self::Finish(_) => None,
        }
    }

    /// The watermark after it, where it moves it.
    const fn reaches(self) -> i64 {
        match self {
            Self::Take(bounds) | Self::PassHole(bounds) | Self::PassGap(bounds) => bounds.last,
            Self::Fill(..) | Self::Turn(..) | Self::Compare(_) | Self::Look(_) => 0,
            Self::Overlap(_) | Self::Finish(_) => 0,
        }
    }
}

/// Plans what to do with an epoch's landed objects.
pub(super) fn plan(progress: &Progress, items: &[Item], now_us: i64, patience_us: i64) -> Plan {
    let mut sorted = items.to_vec();
    // Where a batch and a gap have the same numbers, the gateway dropped what had landed after all.
    sorted.sort_by_key(|item| (item.bounds, item.gap));
    let mut plan = Plan { steps: below(progress, &sorted), waiting: None };
    let mut watermark = progress.watermark;
    for item in sorted.iter().filter(|item| item.bounds.last > progress.watermark) {
        let Bounds { first, last } = item.bounds;
        if last <= watermark {
            // Covered by one of this round that begins where it does: the next round looks at it.
            continue;
        }
        if first <= watermark {
            if !item.gap {
                plan.steps.push(Step::Overlap(item.bounds));
            } else if let Some(rest) = Bounds::new(watermark + 1, last) {
                plan.steps.push(Step::PassGap(rest));
                watermark = last;
            }
            continue;
        }
        if let Some(hole) = Bounds::new(watermark + 1, first - 1) {
            if now_us.saturating_sub(item.landed_us) < patience_us {
                plan.waiting = Some(hole);
                return plan;
            }
            plan.steps.push(Step::PassHole(hole));
        }
        plan.steps.push(if item.gap { Step::PassGap(item.bounds) } else { Step::Take(item.bounds) });
        watermark = last;
    }
    plan
}

/// The holes that a gap explains which came after they had been passed. Each step stands on the one before it.
fn turned(progress: &Progress, items: &[Item]) -> Vec<Step> {
    let mut holes = progress.holes.clone();
    let mut steps = Vec::new();
    // A batch of these numbers counts more than the word that they were dropped.
    let is_there = |gap: Bounds| items.iter().any(|item| !item.gap && item.bounds.overlaps(gap));
    for gap in items.iter().filter(|item| item.gap && item.bounds.last <= progress.watermark).map(|item| item.bounds) {
        let concerned: Vec<Bounds> = holes.iter().filter(|hole| hole.overlaps(gap)).copied().collect();
        if concerned.is_empty() || is_there(gap) {
            continue;
        }
        for hole in concerned {
            let dropped = Bounds { first: hole.first.max(gap.first), last: hole.last.min(gap.last) };
            holes.remove(&hole);
            holes.extend(shrink(hole, dropped));
            steps.push(Step::Turn(dropped, hole));
        }
    }
    steps
}

/// What lies at or below the watermark: known, a filling, the reason of a hole, or to be looked at.
fn below(progress: &Progress, items: &[Item]) -> Vec<Step> {
    let batches: Vec<Bounds> = items
        .iter()
        .filter(|item| !item.gap && item.bounds.last <= progress.watermark)
        .map(|item| item.bounds)
        .filter(|bounds| !progress.filled.contains(bounds))
        .collect();
    let mut steps = turned(progress, items);
    let mut taken: Vec<Bounds> = Vec::new();
    for bounds in batches {
        match progress.open.iter().find(|open| open.contains(bounds)) {
            // One at a time: it leaves other runs behind than those that the next would be held against.
            Some(_) if !steps.is_empty() => {}
            Some(open) => steps.push(Step::Fill(bounds, *open)),
            None => taken.push(bounds),
        }
    }
    let chained = chain(progress, &taken);
    steps.extend(taken.into_iter().filter(|bounds| !chained.contains(bounds)).map(Step::Compare));
    steps
}

/// The batches that explain, each the only one at its place, the numbers below the watermark.
fn chain(progress: &Progress, taken: &[Bounds]) -> BTreeSet<Bounds> {
    let mut ends: BTreeMap<i64, Vec<(Bounds, bool)>> = BTreeMap::new();
    for bounds in taken {
        ends.entry(bounds.last).or_default().push((*bounds, true));
    }
    for bounds in progress.open.iter().chain(&progress.filled) {
        ends.entry(bounds.last).or_default().push((*bounds, false));
    }
    let mut chained = BTreeSet::new();
    let mut end = progress.watermark;
    while let Some([(bounds, batch)]) = ends.get(&end).map(Vec::as_slice) {
        if *batch {
            chained.insert(*bounds);
        }
        end = bounds.first - 1;
    }
    chained
}

/// The batches up to the watermark that landed later than something with higher numbers, or than the end of their epoch:
/// they were sent again, or late. Those that a gateway sent in their order are none.
pub(super) fn came_again(watermark: i64, items: &[Item], ended_us: Option<i64>) -> Vec<Bounds> {
    let mut sorted: Vec<&Item> = items.iter().collect();
    sorted.sort_by_key(|item| std::cmp::Reverse(item.bounds.last));
    let mut before_us = ended_us.unwrap_or(i64::MAX);
    let mut again = Vec::new();
    for item in sorted {
        if !item.gap && item.bounds.last <= watermark && item.landed_us > before_us {
            again.push(item.bounds);
        }
        before_us = before_us.min(item.landed_us);
    }
    again
}

/// What is left of `open` when `filled` is taken out of it.
pub(super) fn shrink(open: Bounds, filled: Bounds) -> impl Iterator<Item = Bounds> {
    let before = Bounds::new(open.first, filled.first - 1);
    let after = Bounds::new(filled.last + 1, open.last);
    before.into_iter().chain(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATIENCE_US: i64 = 100;

    fn bounds(first: i64, last: i64) -> Bounds {
        Bounds { first, last }
    }

    fn batch(first: i64, last: i64) -> Item {
        Item { bounds: bounds(first, last), gap: false, landed_us: 0, bytes: 1_000 }
    }

    fn at(watermark: i64) -> Progress {
        Progress { watermark, ..Progress::default() }
    }

    #[test]
    fn batches_are_taken_in_order_and_once() {
        let found = plan(&at(10), &[batch(21, 30), batch(1, 10), batch(11, 20)], 0, PATIENCE_US);
        assert_eq!(found.steps, [Step::Take(bounds(11, 20)), Step::Take(bounds(21, 30))]);
    }

    #[test]
    fn a_hole_is_waited_for_and_then_passed() {
        let items = [batch(5, 6)];
        let waiting = plan(&at(2), &items, PATIENCE_US - 1, PATIENCE_US);
        assert_eq!((waiting.steps.len(), waiting.waiting), (0, Some(bounds(3, 4))));
        let passed = plan(&at(2), &items, PATIENCE_US, PATIENCE_US);
        assert_eq!(passed.steps, [Step::PassHole(bounds(3, 4)), Step::Take(bounds(5, 6))]);
    }

    #[test]
    fn a_gap_is_passed_at_once() {
        let gap = Item { gap: true, ..batch(1, 4) };
        let found = plan(&at(0), &[gap, batch(5, 6)], 0, PATIENCE_US);
        assert_eq!(found.steps, [Step::PassGap(bounds(1, 4)), Step::Take(bounds(5, 6))]);
    }

    /// A gateway whose spool was full for long tells of the batches that it dropped in one gap; one that it had told before, or
    /// a batch whose reply was lost, may lie in that.
    #[test]
    fn a_gap_that_grew_passes_what_is_new_in_it() {
        let gap = |first, last| Item { gap: true, ..batch(first, last) };
        let found = plan(&at(3), &[gap(1, 3), gap(1, 9), batch(10, 12)], 0, PATIENCE_US);
        assert_eq!(found.steps, [Step::PassGap(bounds(4, 9)), Step::Take(bounds(10, 12))]);
        let items = [gap(1, 3), gap(1, 9), batch(4, 6)];
        assert_eq!(
            plan(&at(0), &items, 0, PATIENCE_US).steps,
            [Step::PassGap(bounds(1, 3)), Step::PassGap(bounds(4, 9))]
        );
        let passed = Progress { watermark: 9, open: [bounds(1, 3), bounds(4, 9)].into(), ..Progress::default() };
        assert_eq!(plan(&passed, &items, 0, PATIENCE_US).steps, [Step::Fill(bounds(4, 6), bounds(4, 9))]);
    }

    /// A gateway said that it finished an epoch whose last batch is nowhere: that hole must not stay unseen
    /// because nothing comes after it.
    #[test]
    fn what_is_missing_at_the_end_of_a_closed_epoch_is_a_hole() {
        let closed = Closed { last: 9, landed_us: 0 };
        let waiting = plan_closed(&at(2), &[batch(3, 6)], closed, PATIENCE_US - 1, PATIENCE_US);
        assert_eq!((waiting.steps, waiting.waiting), (vec![Step::Take(bounds(3, 6))], Some(bounds(7, 9))));
        let passed = plan_closed(&at(2), &[batch(3, 6)], closed, PATIENCE_US, PATIENCE_US);
        assert_eq!(passed.steps, [Step::Take(bounds(3, 6)), Step::PassHole(bounds(7, 9)), Step::Finish(9)]);
        assert_eq!(plan_closed(&at(9), &[], closed, 0, PATIENCE_US).steps, [Step::Finish(9)]);
    }

    /// A gateway that was without a line for longer than holes are waited for comes back and says what it had to drop: the
    /// alarm was about a hole that nobody could explain, for ever.
    #[test]
    fn a_gap_that_comes_after_its_hole_was_passed_turns_it() {
        let holes: BTreeSet<_> = [bounds(3, 20)].into();
        let progress = Progress { watermark: 30, open: holes.clone(), holes, ..Progress::default() };
        let gap = |first, last| Item { gap: true, ..batch(first, last) };
        let items = [batch(1, 2), gap(3, 6), gap(7, 9), gap(19, 22), batch(21, 30)];
        let found = plan(&progress, &items[..3], 0, PATIENCE_US);
        let wanted = [Step::Turn(bounds(3, 6), bounds(3, 20)), Step::Turn(bounds(7, 9), bounds(7, 20))];
        assert_eq!(found.steps[..2], wanted);
        // One that lies there, and is a batch too, is none; what the gateway dropped is no hole any more.
        assert_eq!(turned(&progress, &items[3..]), []);
        let dropped = Progress { holes: BTreeSet::new(), ..progress };
        assert_eq!(turned(&dropped, &items), []);
    }

    /// The batch landed, its reply was lost, the spool ran full: the readings are there and count.
    #[test]
    fn a_batch_counts_more_than_a_gap_of_the_same_numbers() {
        let gap = Item { gap: true, ..batch(1, 4) };
        assert_eq!(plan(&at(0), &[gap, batch(1, 4)], 0, PATIENCE_US).steps, [Step::Take(bounds(1, 4))]);
    }

    #[test]
    fn a_late_batch_fills_what_was_passed() {
        let progress = Progress { watermark: 10, open: [bounds(3, 6)].into(), ..Progress::default() };
        let found = plan(&progress, &[batch(7, 10), batch(1, 2), batch(4, 5)], 0, PATIENCE_US);
        assert_eq!(found.steps, [Step::Fill(bounds(4, 5), bounds(3, 6))]);
        assert_eq!(shrink(bounds(3, 6), bounds(4, 5)).collect::<Vec<_>>(), [bounds(3, 3), bounds(6, 6)]);
    }

    /// A clone of a gateway sent other readings under numbers that are taken: they are neither lost
    /// as "known" nor doubled.
    #[test]
    fn what_overlaps_is_never_simply_known() {
        let found = plan(&at(10), &[batch(1, 10), batch(5, 8)], 0, PATIENCE_US);
        assert!(found.steps.contains(&Step::Compare(bounds(5, 8))), "{found:?}");
        let found = plan(&at(10), &[batch(1, 10), batch(8, 12)], 0, PATIENCE_US);
        assert!(found.steps.contains(&Step::Overlap(bounds(8, 12))), "{found:?}");
    }

    /// A batch that fits between its neighbours explains the numbers and is not read; where readings are erased while it is
    /// gone, it must not bring their bytes back unseen.
    #[test]
    fn what_comes_again_is_told_from_what_comes_in_order() {
        let landed = |first, last, landed_us| Item { landed_us, ..batch(first, last) };
        let items = [landed(1, 4, 900), landed(5, 8, 100), landed(9, 12, 200), landed(13, 16, 200)];
        assert_eq!(plan(&at(16), &items, 0, PATIENCE_US).steps, [], "it is not looked at for its own sake");
        assert_eq!(came_again(16, &items, None), [bounds(1, 4)]);
        assert_eq!(came_again(3, &items, None), [], "what is still to be taken is read anyway");
        assert_eq!(came_again(16, &items[1..], None), [], "in order, two at the same moment");
        // Of an epoch that is finished everything may have left.
        assert_eq!(came_again(16, &items[..1], Some(300)), [bounds(1, 4)]);
        assert_eq!(came_again(16, &items[1..], Some(300)), []);
    }

    proptest! {
        /// Whatever lands in whatever order, in however many rounds: every number up to the
        /// watermark is taken once, or passed, and a batch is never taken twice.
        #[test]
        fn every_number_is_accounted_for_once(
            cuts in prop::collection::btree_set(1_i64..60, 1..12),
            order in any::<prop::sample::Index>(),
            lost in prop::collection::vec(any::<bool>(), 12),
            rounds in 1_usize..5,
        ) {
            let mut first = 1;
            let mut items = Vec::new();
            for (last, lost) in cuts.iter().zip(lost) {
                if !lost {
                    items.push(batch(first, *last));
                }
                first = last + 1;
            }
            let shift = order.index(items.len().max(1));
            let count = items.len();
            items.rotate_left(shift.min(count));
            let mut progress = Progress::default();
            let mut taken = BTreeSet::new();
            for round in 1..=rounds {
                let seen = items.len() * round / rounds;
                loop {
                    let steps = plan(&progress, &items[..seen], PATIENCE_US, PATIENCE_US).steps;
                    if steps.is_empty() {
                        break;
                    }
                    for step in steps {
                        match step {
                            Step::Take(bounds) => {
                                prop_assert_eq!(bounds.first, progress.watermark + 1);
                                prop_assert!(taken.insert(bounds));
                                progress.watermark = bounds.last;
                            }
                            Step::PassHole(hole) | Step::PassGap(hole) => {
                                progress.watermark = hole.last;
                                progress.open.insert(hole);
                            }
                            Step::Fill(bounds, open) => {
                                prop_assert!(taken.insert(bounds));
                                prop_assert!(progress.open.remove(&open));
                                progress.open.extend(shrink(open, bounds));
                                progress.filled.insert(bounds);
                            }
                            Step::Turn(..) | Step::Compare(_) | Step::Look(_) | Step::Overlap(_) | Step::Finish(_) => {
                                prop_assert!(false, "{:?} of an honest gateway", step);
                            }
                        }
                    }
                }
            }
            let wanted: BTreeSet<_> = items.iter().map(|item| item.bounds).collect();
            prop_assert_eq!(taken, wanted);
        }
    }
}
