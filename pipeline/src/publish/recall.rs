//! Releases with readings that are public no more: withdrawn, and their datasets made anew.
//!
//! A sensor's class was `public` and is another one now. What was released of it goes as erased readings do
//! (`erase::released`): a new release first, or no `latest.json` where none is left to be made, then `withdrawn.json` in the
//! release's folder, then its files. Of which sensors that was done, and since when they were public no more, stands in
//! `jobs/recalled.json`, so that releases are read once for it and not at each look.
//!
//! A sensor whose line left the register was public to the end: a new release has none of it, and those that are there stay.
//! Limits: what others have fetched is out of reach.

use std::collections::BTreeMap;

use object_store::{Error, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys;
use tjern_readings::sensor::SensorId;

use crate::erase::{ALWAYS_US, EraseError, EraseSettings, Erasure, Erasures, Request, released};
use crate::jobs::record::Moment;
use crate::register::{Class, newest, sensors_history};

/// What a release says that was withdrawn for it.
const WHY: &str = "readings in it are public no more";

/// What was recalled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recalled {
    /// How many releases were withdrawn.
    pub withdrawn: usize,
    /// The releases that were made in their place.
    pub released: Vec<String>,
}

/// Sensors that were public and are not, and until when they were.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Closed(BTreeMap<String, Moment>);

/// Withdraws every release that holds readings which are public no more.
///
/// # Errors
/// [`EraseError`]. What was withdrawn stays so, and the next run goes on.
pub async fn recall(lake: &Lake, settings: &EraseSettings) -> Result<Recalled, EraseError> {
    if lake.is_personal() {
        return Ok(Recalled::default());
    }
    let closed = closed(lake).await?;
    if closed.0.is_empty() {
        return Ok(Recalled::default());
    }
    let known = known(lake).await?;
    if closed.0.iter().all(|(sensor, until)| known.0.get(sensor) == Some(until)) {
        return Ok(Recalled::default());
    }
    let requests = closed.0.keys().filter_map(|sensor| sensor.parse::<SensorId>().ok()).map(|sensor| {
        let (from_us, to_us) = ALWAYS_US;
        Erasure::new(lake, &Request { sensor, from_us, to_us, reason: WHY.to_owned(), by: String::new() })
    });
    let tainted = released::find(lake, &Erasures::of(requests)).await?;
    let (withdrawn, released) = released::withdraw(lake, settings, &tainted, WHY).await?;
    remember(lake, &closed).await?;
    Ok(Recalled { withdrawn, released })
}

/// The sensors that were public once and are not, by what the register says now.
async fn closed(lake: &Lake) -> Result<Closed, EraseError> {
    let (_, history) = sensors_history(lake).await?;
    let now = newest(&history, |row| row.id.as_str());
    let mut closed = BTreeMap::new();
    for row in history.iter().filter(|row| row.row.class == Class::Public) {
        let id = row.row.id.as_str();
        if let (Some(until_us), true) = (row.valid_to_us, now.get(id).is_some_and(|now| now.row.class != Class::Public))
        {
            let until = closed.entry(id.to_owned()).or_insert(Moment(until_us));
            until.0 = until.0.max(until_us);
        }
    }
    Ok(Closed(closed))
}

/// Of which sensors no release is left. What cannot be read is taken for nothing: then all is looked at again.
async fn known(lake: &Lake) -> Result<Closed, LakeError> {
    let key = keys::recalled();
    let failed = |source| LakeError::store(&key, source);
    match lake.objects().get(&key).await {
        Ok(found) => Ok(serde_json::from_slice(&found.bytes().await.map_err(failed)?).unwrap_or_default()),
        Err(Error::NotFound { .. }) => Ok(Closed::default()),
        Err(source) => Err(failed(source)),
    }
}

async fn remember(lake: &Lake, closed: &Closed) -> Result<(), LakeError> {
    let key = keys::recalled();
    let bytes = serde_json::to_vec(closed).unwrap_or_default();
    lake.objects().put(&key, PutPayload::from(bytes)).await.map(drop).map_err(|source| LakeError::store(key, source))
}
