//! Landed objects leave once their rows are in the tables and their grace is over: it counts from when they were
//! ingested, and for what was ingested in time from when they landed, with what is tolerated (`late`).
//!
//! Batches that hold readings which were erased leave without a grace. The word that an epoch is finished leaves
//! after all else of it, once the table has it (`:closed/…`): a lake of ten thousand imports lists none of them.
//!
//! The newest object of an open epoch always stays: by it a restored gateway finds out that its
//! numbers were used. So does the newest claim of every epoch; one before it goes after the grace period, and not within a day:
//! whoever looked before it was made has looked again by then, and finds the later one. What may go is found here, and asked for again of the table as it is now before it goes (`take`): a
//! table may have been restored, or made anew, since it was looked at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore};
use tjern_lake::{Lake, LakeError};
use tjern_readings::clock::SECOND_US;
use tjern_readings::keys::{Bounds, LANDING, Landed, epoch_claim};

use super::landing::{LandedEpoch, Stream, Zone};
use super::late::tolerance_us;
use super::sequence::{Item, Progress};

/// A claim stays so long, however short the grace is: a gateway looks at its epoch at least once an hour before it claims.
const CLAIM_STAYS_US: i64 = 24 * 3_600 * SECOND_US;

/// What is known of streams.
pub(super) type Streams = HashMap<Stream, Progress>;

/// When, and after which grace period, both in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grace {
    pub(super) now_us: i64,
    pub(super) grace_us: i64,
}

impl Grace {
    pub(super) fn of(lake: &Lake, grace: Duration) -> Self {
        Self { now_us: lake.clock().now_us(), grace_us: i64::try_from(grace.as_micros()).unwrap_or(i64::MAX) }
    }

    const fn is_over_since(self, time_us: i64) -> bool {
        time_us < self.now_us.saturating_sub(self.grace_us)
    }

    /// Whether a batch that landed then was not ingested soon after.
    pub(super) const fn is_late(self, landed_us: i64) -> bool {
        landed_us < self.now_us.saturating_sub(tolerance_us(self.grace_us))
    }

    fn is_over(self, item: Item, progress: &Progress) -> bool {
        let tolerated_us = item.landed_us.saturating_add(tolerance_us(self.grace_us));
        let ingested_us = progress.late.ingested_us(item.bounds.last).unwrap_or(tolerated_us);
        self.is_over_since(tolerated_us) && self.is_over_since(ingested_us)
    }
}

/// What the table says of streams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) progress: &'a Streams,
    /// Closed, and taken to the last number.
    pub(super) finished: &'a HashSet<Stream>,
}

/// The keys of what may go of the streams that were seen as a whole. What was known before this run took anything
/// counts too: a new late batch must not hold back what was about to go.
/// `doomed` says which batches of a stream hold readings that were erased.
pub(super) fn may_go(
    zone: &Zone,
    told: Told<'_>,
    before: &Streams,
    grace: Grace,
    doomed: impl Fn(&Stream) -> BTreeSet<Bounds>,
) -> Vec<Path> {
    let whole = zone.iter().filter(|(_, seen)| !seen.partial);
    let keys = whole.clone().flat_map(|(stream, seen)| {
        let (source, epoch) = stream;
        let doomed = doomed(stream);
        let progresses = [told.progress.get(stream), before.get(stream)];
        let is_finished = seen.closed_us.is_some() || told.finished.contains(stream);
        let newest = seen.items.iter().map(|item| item.bounds.last).max();
        let goes = move |item: &&Item| {
            let is_doomed = doomed.contains(&item.bounds);
            progresses.iter().flatten().any(|progress| {
                let is_over = grace.is_over(**item, progress) || (is_doomed && !item.gap);
                // What was sent again tells nobody which numbers were used last.
                let is_again = is_doomed && item.bounds.last < progress.watermark;
                is_done(item, progress) && is_over && (is_again || is_finished || Some(item.bounds.last) != newest)
            })
        };
        seen.items.iter().filter(goes).map(move |item| {
            let object = if item.gap { Landed::Gap(*epoch, item.bounds) } else { Landed::Batch(*epoch, item.bounds) };
            object.key(source)
        })
    });
    let is_over = |seen: &LandedEpoch| {
        let tolerated_us = seen.closed_us.map(|closed_us| closed_us.saturating_add(tolerance_us(grace.grace_us)));
        seen.items.is_empty() && tolerated_us.is_some_and(|time_us| grace.is_over_since(time_us))
    };
    let ends = whole.filter(|(stream, seen)| told.finished.contains(stream) && is_over(seen));
    let keys = keys.chain(zone.iter().flat_map(move |(stream, seen)| former_claims(stream, seen, grace)));
    keys.chain(ends.map(|((source, epoch), _)| Landed::Closed(*epoch).key(source))).collect()
}

/// The claims that may go: all that are old, but for the newest. That one tells every copy of a spool, however old, that its numbers
/// were given out, also where all batches of that time have gone.
fn former_claims((source, epoch): &Stream, seen: &LandedEpoch, grace: Grace) -> impl Iterator<Item = Path> {
    let is_old = move |claimed_us: i64| {
        let stays_us = grace.grace_us.saturating_add(tolerance_us(grace.grace_us)).max(CLAIM_STAYS_US);
        claimed_us < grace.now_us.saturating_sub(stays_us)
    };
    let former = seen.claims.iter().rev().skip(1).filter(move |(_, claimed_us)| is_old(**claimed_us));
    former.map(move |(number, _)| epoch_claim(source, *epoch, *number))
}

fn is_done(item: &Item, progress: &Progress) -> bool {
    item.bounds.last <= progress.watermark && (item.gap || !progress.open.iter().any(|open| open.overlaps(item.bounds)))
}

/// Removes objects. Returns how many went, and why one did not where the store refused: the others go all the same.
pub(super) async fn remove(lake: &Lake, keys: Vec<Path>) -> (usize, Option<LakeError>) {
    let mut removed = lake.objects().delete_stream(futures::stream::iter(keys.into_iter().map(Ok)).boxed());
    let (mut cleaned, mut refused) = (0, None);
    while let Some(result) = removed.next().await {
        match result {
            Ok(_) | Err(Error::NotFound { .. }) => cleaned += 1,
            Err(source) => refused = refused.or(Some(LakeError::store(LANDING, source))),
        }
    }
    (cleaned, refused)
}
