//! What lies in the landing zone, by source and epoch.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::{Bounds, LANDING, Landed};
use tjern_readings::sensor::{Epoch, SourceName};

use super::sequence::Item;

/// One ordered stream.
pub(super) type Stream = (SourceName, Epoch);

/// What landed of one stream.
#[derive(Debug, Clone, Default)]
pub(super) struct LandedEpoch {
    pub(super) items: Vec<Item>,
    pub(super) closed: bool,
}

/// Lists the landing zone. Objects that are not ours are left alone.
pub(super) async fn list(lake: &Lake) -> Result<BTreeMap<Stream, LandedEpoch>, LakeError> {
    let folder = Path::from(LANDING);
    let objects = lake.objects();
    let mut metas = objects.list(Some(&folder));
    let mut epochs: BTreeMap<Stream, LandedEpoch> = BTreeMap::new();
    let failed = |source| LakeError::store(LANDING, source);
    while let Some(meta) = metas.try_next().await.map_err(failed)? {
        let Some((source, landed)) = Landed::parse(&meta.location) else { continue };
        let landed_us = meta.last_modified.timestamp_micros();
        let mut add = |epoch, bounds: Bounds, gap| {
            let stream = epochs.entry((source.clone(), epoch)).or_default();
            stream.items.push(Item { bounds, gap, landed_us });
        };
        match landed {
            Landed::Batch(epoch, bounds) => add(epoch, bounds, false),
            Landed::Gap(epoch, bounds) => add(epoch, bounds, true),
            Landed::Closed(epoch) => epochs.entry((source.clone(), epoch)).or_default().closed = true,
            Landed::Configuration(_) => {}
        }
    }
    Ok(epochs)
}
