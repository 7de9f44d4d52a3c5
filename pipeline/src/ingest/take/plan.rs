//! What can be done now of what was seen: the steps of all streams in turn. Nothing is changed here but what finished epochs say of
//! their end.

use std::collections::{BTreeSet, HashMap};

use object_store::{Error, ObjectStoreExt};
use tjern_readings::keys::{Bounds, Landed};

use super::{Failed, Ingester};
use crate::ingest::ahead::Wanted;
use crate::ingest::landing::{LandedEpoch, Stream, Zone};
use crate::ingest::sequence::{self, Closed, Item, Plan, Progress, Step};

impl Ingester {
    /// What finished epochs say of their end.
    pub(super) async fn read_closed(&mut self, zone: &Zone) {
        for (stream, seen) in zone {
            let Some(landed_us) = seen.closed_us else { continue };
            if self.known.finished.contains(stream) || self.closed.contains_key(stream) {
                continue;
            }
            let key = Landed::Closed(stream.1).key(&stream.0);
            let found = match self.lake.objects().get(&key).await {
                Ok(found) => found.bytes().await,
                Err(Error::NotFound { .. }) => continue,
                Err(source) => Err(source),
            };
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%key, %error, "the end of an epoch cannot be read; its batches are taken, and it is asked again");
                    continue;
                }
            };
            // Without a number nothing is missing that is not missing anyway.
            let last = std::str::from_utf8(&found).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            self.closed.insert(stream.clone(), Closed { last, landed_us });
        }
    }

    /// Everything that can be done now, of all streams in turn, so that one with much to give keeps nobody
    /// waiting; and how many streams wait for something.
    pub(super) fn steps(&self, zone: &Zone, failed: &Failed) -> (Vec<Wanted>, usize) {
        let mut steps = Vec::new();
        let mut waiting = 0;
        for (stream, seen) in zone.iter().filter(|(stream, _)| !failed.contains_key(*stream)) {
            let plan = self.plan(stream, seen);
            waiting += usize::from(plan.waiting.is_some());
            let looks = self.looks(stream, seen, &plan);
            let of_stream = plan.steps.into_iter().chain(looks);
            let mut of_stream = of_stream.filter(|step| !self.is_done(stream, *step)).peekable();
            if of_stream.peek().is_none() {
                continue;
            }
            let batches = seen.items.iter().filter(|item| !item.gap);
            let bytes: HashMap<Bounds, u64> = batches.map(|item| (item.bounds, item.bytes)).collect();
            let bytes_of = |step: Step| step.batch().and_then(|bounds| bytes.get(&bounds)).copied().unwrap_or(0);
            steps.extend(of_stream.enumerate().map(|(turn, step)| (turn, (stream.clone(), step, bytes_of(step)))));
        }
        steps.sort_by_key(|(turn, ..)| *turn);
        (steps.into_iter().map(|(_, wanted)| wanted).collect(), waiting)
    }

    fn plan(&self, stream: &Stream, seen: &LandedEpoch) -> Plan {
        let now_us = self.until_us.unwrap_or_else(|| self.lake.clock().now_us());
        let patience_us = i64::try_from(self.settings.hole_patience.as_micros()).unwrap_or(i64::MAX);
        let nothing = Progress::default();
        let progress = self.known.progress.get(stream).unwrap_or(&nothing);
        let some: Vec<Item>;
        let gaps = self.erased_gaps(stream, seen, progress.watermark);
        let items = if seen.partial || !gaps.is_empty() {
            let wanted = |item: &&Item| !seen.partial || item.bounds.last > progress.watermark;
            some = seen.items.iter().filter(wanted).copied().chain(gaps).collect();
            &some
        } else {
            &seen.items
        };
        match self.closed.get(stream).filter(|_| seen.closed_us.is_some() && !self.known.finished.contains(stream)) {
            Some(closed) => sequence::plan_closed(progress, items, *closed, now_us, patience_us),
            None => sequence::plan(progress, items, now_us, patience_us),
        }
    }

    /// Batches that were removed since they held erased readings, where they are still to be taken: the table was built
    /// anew. Their numbers are passed at once, as those that a gateway dropped. When they had landed nobody knows: what is before
    /// them is waited for as long as before what landed after them.
    fn erased_gaps(&self, stream: &Stream, seen: &LandedEpoch, watermark: i64) -> Vec<Item> {
        let Some((_, known)) = &self.erasures else { return Vec::new() };
        let is_there = |bounds: Bounds| seen.items.iter().any(|item| item.bounds.overlaps(bounds));
        let gone = known.doomed_of(stream).filter(|bounds| bounds.last > watermark && !is_there(*bounds));
        let landed_us = |gone: Bounds| {
            let later = seen.items.iter().filter(|item| item.bounds.first > gone.last);
            later.map(|item| item.landed_us).min().or(self.until_us).unwrap_or(i64::MIN)
        };
        gone.map(|bounds| Item { bounds, gap: true, landed_us: landed_us(bounds), bytes: 0 }).collect()
    }

    /// Batches that came again after they had left, and that nothing else would look into: they may hold readings that
    /// were erased meanwhile, of which nobody took note since they were not there.
    fn looks(&self, stream: &Stream, seen: &LandedEpoch, plan: &Plan) -> Vec<Step> {
        let sees_all = !seen.partial && self.until_us.is_none();
        let Some((_, known)) = self.erasures.as_ref().filter(|(_, known)| !known.is_empty() && sees_all) else {
            return Vec::new();
        };
        let watermark = self.known.progress.get(stream).map_or(0, |progress| progress.watermark);
        // The word that an epoch is finished leaves after all else of it.
        let left_us = self.known.finished.contains(stream).then_some(i64::MIN);
        let again = sequence::came_again(watermark, &seen.items, seen.closed_us.or(left_us));
        let doomed: BTreeSet<Bounds> = known.doomed_of(stream).collect();
        let is_planned = |bounds: Bounds| plan.steps.iter().any(|step| step.batch() == Some(bounds));
        again.into_iter().filter(|one| !doomed.contains(one) && !is_planned(*one)).map(Step::Look).collect()
    }

    /// Whether a step was done without leaving anything in the table.
    fn is_done(&self, (source, epoch): &Stream, step: Step) -> bool {
        let (Step::Compare(bounds) | Step::Look(bounds)) = step else { return false };
        self.compared.contains(&Landed::Batch(*epoch, bounds).key(source))
    }
}
