//! Whether the landing zone knows this spool's numbers better than the spool does.

use std::collections::HashMap;

use object_store::path::Path;

use tjern_readings::batch;
use tjern_readings::keys::{Bounds, Landed, epoch_folder};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::{Epoch, SourceName};

use super::UploadError;
use super::landing::{self, Outcome};
use super::line::Line;
use crate::spool::{SealedKind, SealedObject, Spool};

/// No sealed object has more numbers than this, so that a listing need not begin further back.
const REACH: i64 = 1 << 20;

/// Whether another one has written under this epoch: numbers that were never sealed here, or other bounds
/// over what waits here.
pub(super) async fn is_contested(spool: &Spool, source: &SourceName, line: &Line<'_>) -> Result<bool, UploadError> {
    let status = spool.status();
    let waiting = waiting(spool, status.epoch).await;
    let from = waiting.first().map_or(status.sealed_seq + 1, |object| object.bounds.first);
    let landed = list(source, status.epoch, from, line).await?;
    let overlaps =
        |there: &Bounds| waiting.iter().any(|object| object.bounds.overlaps(*there) && object.bounds != *there);
    Ok(landed.iter().any(|there| there.last > status.sealed_seq || overlaps(there)))
}

/// The waiting objects of this epoch that the landing zone has, in the same bytes or rows.
pub(super) async fn landed_objects(
    spool: &Spool,
    source: &SourceName,
    line: &Line<'_>,
) -> Result<Vec<SealedObject>, UploadError> {
    let epoch = spool.epoch();
    let mut known = Vec::new();
    for object in waiting(spool, epoch).await {
        let landed = object.landed();
        let key = landed.key(source);
        let bytes = spool.bytes(&object).await?;
        match landing::compare(line, &key, &landed, &bytes).await {
            Ok(Some(Outcome::Landed)) => known.push(object),
            Ok(_) => {}
            Err(source) => return Err(UploadError::Get { key, source }),
        }
    }
    Ok(known)
}

/// The readings under numbers that wait here, as the landing zone has them: what another copy of this
/// spool has sent, perhaps cut into other batches.
pub(super) async fn landed_readings(
    spool: &Spool,
    source: &SourceName,
    line: &Line<'_>,
) -> Result<HashMap<i64, Reading>, UploadError> {
    let epoch = spool.epoch();
    let waiting = waiting(spool, epoch).await;
    let mut readings = HashMap::new();
    let Some(first) = waiting.first() else { return Ok(readings) };
    let waits = |bounds: Bounds| waiting.iter().any(|object| object.bounds.overlaps(bounds));
    for bounds in list(source, epoch, first.bounds.first, line).await? {
        if !waits(bounds) {
            continue;
        }
        let key = Landed::Batch(epoch, bounds).key(source);
        let bytes = match line.read(&key).await {
            Ok(bytes) => bytes,
            // Its bounds are those of a gap.
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(source) => return Err(UploadError::Get { key, source }),
        };
        // What cannot be read proves nothing: ours is sent.
        let Ok(rows) = batch::decode(&bytes).and_then(|batch| batch.readings()) else { continue };
        let numbered = (bounds.first..).zip(rows);
        readings.extend(numbered.filter(|(seq, _)| waits(Bounds { first: *seq, last: *seq })));
    }
    Ok(readings)
}

async fn waiting(spool: &Spool, epoch: Epoch) -> Vec<SealedObject> {
    let mut objects = spool.sealed().await;
    objects.retain(|object| object.epoch == epoch && object.kind != SealedKind::Closed);
    objects
}

/// The bounds of what landed under an epoch, from a number on.
async fn list(source: &SourceName, epoch: Epoch, from: i64, line: &Line<'_>) -> Result<Vec<Bounds>, UploadError> {
    let folder = epoch_folder(source, epoch);
    let offset = Path::from(format!("{folder}/{:020}", (from - REACH).max(0)));
    let objects = line.list(&folder, &offset).await;
    let bounds = |object: object_store::ObjectMeta| match Landed::parse(&object.location) {
        Some((_, Landed::Batch(_, bounds) | Landed::Gap(_, bounds))) => Some(bounds),
        _ => None,
    };
    objects
        .map(|objects| objects.into_iter().filter_map(bounds).collect())
        .map_err(|source| UploadError::List { key: folder, source })
}
