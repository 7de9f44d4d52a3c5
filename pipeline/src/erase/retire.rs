//! The open epochs of a source that sends no more here are ended: its gateway writes to another lake now, or is no more.
//!
//! The newest batch of an open epoch stays, since a gateway that was restored finds out by it which numbers were used. Where
//! that gateway comes no more, the word that it would have written at an epoch's end is written in its place: the last number
//! of all that landed. Nothing is lost where it was wrong: what lands later all the same is taken.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use object_store::{Error, ObjectStore, PutMode, PutPayload};
use tjern_lake::{Lake, LakeError, Table, TableName};
use tjern_readings::keys::{Landed, source_folder};
use tjern_readings::sensor::{Epoch, SourceName};

use super::EraseError;
use crate::ingest::{is_finished, watermark};

/// An epoch of a source that sends no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// Which epoch.
    pub epoch: Epoch,
    /// The last number of all that landed of it.
    pub last: i64,
    /// Whether it had an end before.
    pub was_ended: bool,
}

/// Ends the open epochs of a source, and says which epochs lie there. With `dry_run` nothing is written.
///
/// # Errors
/// [`EraseError`].
pub async fn retire(lake: &Lake, source: &SourceName, dry_run: bool) -> Result<Vec<Retired>, EraseError> {
    let folder = source_folder(source);
    let failed = |error| LakeError::store(&folder, error);
    let metas: Vec<_> = lake.objects().list(Some(&folder)).try_collect().await.map_err(failed)?;
    let readings = Table::open(lake, TableName::Readings).await?;
    let mut epochs: BTreeMap<Epoch, (i64, bool)> = BTreeMap::new();
    for (of, landed) in metas.iter().filter_map(|meta| Landed::parse(&meta.location)) {
        if of != *source {
            continue;
        }
        match landed {
            Landed::Batch(epoch, bounds) | Landed::Gap(epoch, bounds) => {
                let (last, _) = epochs.entry(epoch).or_default();
                *last = (*last).max(bounds.last);
            }
            Landed::Closed(epoch) => epochs.entry(epoch).or_default().1 = true,
            Landed::Configuration(_) => {}
        }
    }
    let mut retired = Vec::new();
    for (epoch, (landed, is_closed)) in epochs {
        let taken = readings.as_ref().and_then(|readings| watermark(readings, source, epoch)).unwrap_or(0);
        let last = landed.max(taken);
        let is_finished = readings.as_ref().is_some_and(|readings| is_finished(readings, &(source.clone(), epoch)));
        let was_ended = is_closed || is_finished;
        if !was_ended && !dry_run {
            let key = Landed::Closed(epoch).key(source);
            let put =
                lake.objects().put_opts(&key, PutPayload::from(format!("{last}\n")), PutMode::Create.into()).await;
            match put {
                Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
                Err(error) => return Err(LakeError::store(key, error).into()),
            }
        }
        retired.push(Retired { epoch, last, was_ended });
    }
    Ok(retired)
}
