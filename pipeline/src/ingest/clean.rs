//! Landed objects leave once their rows are in the tables and their grace is over.
//!
//! Batches that hold readings which were erased leave without a grace.
//!
//! The newest object of an open epoch always stays: by it a restored gateway finds out that its
//! numbers were used.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::StreamExt;
use object_store::{Error, ObjectStore};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::{Bounds, LANDING, Landed};

use super::landing::{LandedEpoch, Stream, Zone};
use super::sequence::{Item, Progress};

/// Removes what may go of the streams that were seen as a whole. Returns how many objects went, and why one did not
/// where the store refused: the others go all the same.
pub(super) async fn clean(
    lake: &Lake,
    zone: &Zone,
    known: &HashMap<Stream, Progress>,
    grace: Duration,
    doomed: impl Fn(&Stream) -> BTreeSet<Bounds>,
) -> (usize, Option<LakeError>) {
    let grace_us = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
    let before_us = lake.clock().now_us().saturating_sub(grace_us);
    let whole = zone.iter().filter(|(_, seen)| !seen.partial);
    let keys = whole.flat_map(|((source, epoch), seen)| {
        let items = known
            .get(&(source.clone(), *epoch))
            .map(|progress| may_go(seen, progress, before_us, doomed(&(source.clone(), *epoch))));
        items.into_iter().flatten().map(move |item| {
            let object = if item.gap { Landed::Gap(*epoch, item.bounds) } else { Landed::Batch(*epoch, item.bounds) };
            object.key(source)
        })
    });
    let keys: Vec<_> = keys.map(Ok).collect();
    let mut removed = lake.objects().delete_stream(futures::stream::iter(keys).boxed());
    let (mut cleaned, mut refused) = (0, None);
    while let Some(result) = removed.next().await {
        match result {
            Ok(_) | Err(Error::NotFound { .. }) => cleaned += 1,
            Err(source) => refused = refused.or(Some(LakeError::store(LANDING, source))),
        }
    }
    (cleaned, refused)
}

fn may_go<'a>(
    landed: &'a LandedEpoch,
    progress: &'a Progress,
    before_us: i64,
    doomed: BTreeSet<Bounds>,
) -> impl Iterator<Item = &'a Item> {
    let newest = landed.items.iter().map(|item| item.bounds.last).max();
    landed.items.iter().filter(move |item| {
        let done = item.bounds.last <= progress.watermark
            && (item.gap || !progress.open.iter().any(|open| open.overlaps(item.bounds)));
        let is_due = item.landed_us < before_us || (!item.gap && doomed.contains(&item.bounds));
        // What was sent again tells nobody which numbers were used last.
        let again = doomed.contains(&item.bounds) && item.bounds.last < progress.watermark;
        done && is_due && (again || landed.closed_us.is_some() || Some(item.bounds.last) != newest)
    })
}
