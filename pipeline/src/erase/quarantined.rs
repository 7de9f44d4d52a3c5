//! Quarantine: what holds erased readings goes, and what nobody can read goes too where it names their sensor or comes from a
//! source that may have sent such readings, since nobody can say that it holds none.
//!
//! That is a loss where it held others: the dry run tells which objects those are, so that they can be tried again
//! before. What comes into quarantine after an erasure was complete stays; whatever becomes readable passes ingest.

use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::Landed;

use super::inside::{Inside, Room, look_into};
use super::known::Erasures;
use super::sources::Tainted;
use super::unseen::Reasons;
use super::{Found, unseen};
use crate::quarantine::{Kept, list_readable};

/// The objects that have to go, and what could not be looked at.
pub(super) async fn find(
    lake: &Lake,
    erasures: &Erasures,
    tainted: &Tainted,
) -> Result<(Vec<(Kept, Option<usize>)>, Reasons), LakeError> {
    let (mut found, room) = (Vec::new(), Room::default());
    let (all, unreadable) = list_readable(lake).await?;
    let mut unseen: Reasons = unreadable.into_iter().map(|(key, error)| (key, error.to_string())).collect();
    for kept in all {
        let rows = match look_into(lake, (&kept.key(), kept.bytes), erasures, &room).await {
            Err(error) => {
                unseen.insert(kept.key().to_string(), error.to_string());
                continue;
            }
            Ok(None) => continue,
            Ok(Some(Inside::Batch { rows: 0, .. })) => continue,
            Ok(Some(Inside::Batch { rows, .. })) => Some(rows),
            Ok(Some(Inside::Unreadable(ids))) if !ids.is_empty() || tainted.of(&source_of(&kept)).is_some() => None,
            Ok(Some(Inside::Unreadable(_))) => continue,
        };
        found.push((kept, rows));
    }
    Ok((found, unseen))
}

/// The name of whose landing folder it came from.
fn source_of(kept: &Kept) -> String {
    match Landed::parse(&kept.landed.as_str().into()) {
        Some((source, _)) => source.to_string(),
        None => kept.name.split('/').next().unwrap_or_default().to_owned(),
    }
}

/// Removes them; the reason goes first, so that what is left of a run that broke off is still an object. Returns what the
/// store keeps.
pub(super) async fn remove(lake: &Lake, found: &[(Kept, Option<usize>)]) -> Reasons {
    let keys = found.iter().flat_map(|(kept, _)| [kept.reason_key(), kept.key()]);
    unseen::remove(lake, keys.collect()).await
}

/// What is told of them.
pub(super) fn told(found: &[(Kept, Option<usize>)]) -> impl Iterator<Item = Found> {
    found.iter().map(|(kept, rows)| Found::new("quarantine", kept.key(), *rows))
}
