//! Backups of a lake that are old enough leave, and with them the objects that no other one names. The newest always stays,
//! and so does every one of another lake.
//!
//! An object that is younger than a day stays also where nothing names it: another backup may be under way, whose
//! manifest comes last.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore};
use tjern_lake::Lake;
use tjern_readings::clock::SECOND_US;
use tjern_readings::store::Store;

use super::BackupError;
use super::manifest::{self, Manifest, OBJECTS};
use super::whose::is_of;

/// Longer than any backup takes.
pub(super) const UNDER_WAY_US: i64 = 24 * 3_600 * SECOND_US;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pruned {
    pub(super) manifests: usize,
    pub(super) objects: usize,
}

/// Removes backups that were made longer ago than `keep`, and what only they named.
pub(super) async fn prune(lake: &Lake, target: &Store, keep: Duration) -> Result<Pruned, BackupError> {
    let keep_us = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let now_us = lake.clock().now_us();
    let (mut named, mut pruned) = (HashSet::new(), Pruned::default());
    let mut has_newer = false;
    for id in manifest::list(target).await?.into_iter().rev() {
        let manifest = Manifest::read(target, &id).await?;
        let made = manifest.header.ended.parse::<jiff::Timestamp>().map_or(now_us, jiff::Timestamp::as_microsecond);
        let is_ours = is_of(&manifest.header, lake);
        if is_ours && has_newer && made < now_us.saturating_sub(keep_us) {
            Manifest::remove(target, &id).await?;
            pruned.manifests += 1;
        } else {
            named.extend(manifest.entries.into_iter().map(|entry| Path::from(entry.name)));
        }
        has_newer |= is_ours;
    }
    let failed = |error| BackupError::target(OBJECTS, error);
    let metas = super::listed(target).await?;
    let is_old = |meta: &ObjectMeta| meta.last_modified.timestamp_micros() < now_us.saturating_sub(UNDER_WAY_US);
    let gone = metas.into_iter().filter(|meta| is_old(meta) && !named.contains(&meta.location));
    let keys: Vec<_> = gone.map(|meta| Ok(meta.location)).collect();
    let mut removed = target.objects().delete_stream(futures::stream::iter(keys).boxed());
    while let Some(result) = removed.next().await {
        match result {
            Ok(_) | Err(Error::NotFound { .. }) => pruned.objects += 1,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(pruned)
}
