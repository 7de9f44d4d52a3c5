//! Releases with readings that are public no more: withdrawn, and their datasets made anew.
//!
//! A sensor's class was `public` and is another one now. What was released of it goes as erased readings do
//! (`erase::released`): a new release first, or no `latest.json` where none is left to be made, then `withdrawn.json` in the
//! release's folder, then its files. Of which sensors that was done, and since when they were public no more, stands in
//! `jobs/recalled.json`, so that releases are read once for it and not at each look; and so does what could not be read or
//! removed, which alone is looked at again; and what lies there and was not named, since who wrote it may have read before.
//!
//! A sensor whose line left the register was public to the end: a new release has none of it, and those that are there stay.
//! Limits: what others have fetched is out of reach.

use std::collections::BTreeMap;

use object_store::{Error, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys;
use tjern_readings::sensor::SensorId;

use crate::erase::released::{self, Which, Withdrawn};
use crate::erase::{ALWAYS_US, EraseError, EraseSettings, Erasure, Erasures, Request};
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
    /// Datasets of which none could be made, and why. They have no newest release until their own job makes one.
    pub unmade: BTreeMap<String, String>,
    /// Files of releases that nobody can read, and why: who can has to look at them.
    pub unreadable: BTreeMap<String, String>,
    /// What the store did not hand out or remove, and why. The next run tries again.
    pub stays: BTreeMap<String, String>,
}

/// What was done.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Done {
    /// Sensors that were public and are not, and until when they were.
    sensors: BTreeMap<String, Moment>,
    /// What of the releases could not be looked at or removed then, and why.
    left: BTreeMap<String, String>,
}

/// Withdraws every release that holds readings which are public no more. What cannot be withdrawn keeps no other one.
///
/// # Errors
/// [`EraseError`], where it is not known what was public or released. What was withdrawn stays so, and the next run goes on.
pub async fn recall(lake: &Lake, settings: &EraseSettings) -> Result<Recalled, EraseError> {
    if lake.is_personal() {
        return Ok(Recalled::default());
    }
    let sensors = closed(lake).await?;
    if sensors.is_empty() {
        return Ok(Recalled::default());
    }
    let done = done(lake).await?;
    let is_done = sensors.iter().all(|(sensor, until)| done.sensors.get(sensor) == Some(until));
    let which = if is_done { Which::Of(&done.left) } else { Which::All };
    let requests = sensors.keys().filter_map(|sensor| sensor.parse::<SensorId>().ok()).map(|sensor| {
        let (from_us, to_us) = ALWAYS_US;
        Erasure::new(lake, &Request { sensor, from_us, to_us, reason: WHY.to_owned(), by: String::new() })
    });
    let withdrawn = released::withdraw(lake, settings, &Erasures::of(requests), which, WHY).await?;
    let Withdrawn { releases, made, unmade, unreadable, stays } = withdrawn;
    let left = unreadable.iter().chain(&stays).map(|(key, why)| (key.clone(), why.clone())).collect();
    let now = Done { sensors, left };
    if now != done {
        remember(lake, &now).await?;
    }
    Ok(Recalled { withdrawn: releases, released: made, unmade, unreadable, stays })
}

/// The sensors that were public once and are not, by what the register says now.
async fn closed(lake: &Lake) -> Result<BTreeMap<String, Moment>, EraseError> {
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
    Ok(closed)
}

/// What was done. What cannot be read is taken for nothing: then all is looked at again.
async fn done(lake: &Lake) -> Result<Done, LakeError> {
    let key = keys::recalled();
    let failed = |source| LakeError::store(&key, source);
    match lake.objects().get(&key).await {
        Ok(found) => Ok(serde_json::from_slice(&found.bytes().await.map_err(failed)?).unwrap_or_default()),
        Err(Error::NotFound { .. }) => Ok(Done::default()),
        Err(source) => Err(failed(source)),
    }
}

async fn remember(lake: &Lake, done: &Done) -> Result<(), LakeError> {
    let key = keys::recalled();
    let bytes = serde_json::to_vec(done).unwrap_or_default();
    lake.objects().put(&key, PutPayload::from(bytes)).await.map(drop).map_err(|source| LakeError::store(key, source))
}
