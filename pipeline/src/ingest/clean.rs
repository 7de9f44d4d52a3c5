//! Landed objects leave once their rows are in the tables and their grace is over.
//!
//! The newest object of an open epoch always stays: by it a restored gateway finds out that its
//! numbers were used.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use object_store::{Error, ObjectStoreExt};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::Landed;

use super::landing::{LandedEpoch, Stream};
use super::sequence::{Item, Progress};

/// Removes what may go. Returns how many objects went.
pub(super) async fn clean(
    lake: &Lake,
    landed: &BTreeMap<Stream, LandedEpoch>,
    known: &HashMap<Stream, Progress>,
    grace: Duration,
) -> Result<usize, LakeError> {
    let grace_us = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
    let before_us = lake.clock().now_us().saturating_sub(grace_us);
    let mut cleaned = 0;
    for ((source, epoch), landed) in landed {
        let Some(progress) = known.get(&(source.clone(), *epoch)) else { continue };
        for item in may_go(landed, progress, before_us) {
            let object = if item.gap { Landed::Gap(*epoch, item.bounds) } else { Landed::Batch(*epoch, item.bounds) };
            let key = object.key(source);
            match lake.objects().delete(&key).await {
                Ok(()) | Err(Error::NotFound { .. }) => cleaned += 1,
                Err(source) => return Err(LakeError::store(key, source)),
            }
        }
    }
    Ok(cleaned)
}

fn may_go<'a>(landed: &'a LandedEpoch, progress: &'a Progress, before_us: i64) -> impl Iterator<Item = &'a Item> {
    let newest = landed.items.iter().map(|item| item.bounds.last).max();
    landed.items.iter().filter(move |item| {
        let done = item.bounds.last <= progress.watermark
            && (item.gap || !progress.open.iter().any(|open| open.overlaps(item.bounds)));
        done && item.landed_us < before_us && (landed.closed || Some(item.bounds.last) != newest)
    })
}
