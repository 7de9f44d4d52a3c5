//! What has landed and is not in the tables, and which numbers nobody has sent: for those who look, not for ingest.

use std::collections::HashSet;

use futures::StreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::Serialize;
use tjern_lake::{Lake, LakeError, Table};
use tjern_readings::keys::{self, LANDING};

use super::held::unreadable_of;
use super::landing::{self, Known, Stray, Strays, add_strays};
use super::progress::{self, OPEN, Open};

/// Numbers of a source that were passed and have not come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// Who should have sent them.
    pub source: String,
    /// Of which epoch.
    pub epoch: String,
    /// The first number.
    pub first: i64,
    /// The last number.
    pub last: i64,
    /// Whether the gateway said that it had dropped them (a gap); nobody knows why a hole is one.
    pub gap: bool,
    /// Whether they are from before a replay: they may have been in the table that was lost.
    pub before_replay: bool,
    /// Whether a person said that they will never come: nobody is told of them.
    pub accepted: bool,
}

/// What landed and was not taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// How many batches.
    pub batches: usize,
    /// When the first of them landed, in microseconds since 1970.
    pub since_us: Option<i64>,
    /// Folders of sources that could not be read: what waits there is not counted.
    pub unreadable: Vec<String>,
    /// What will never be taken, by source, as far as it was seen.
    pub strays: Vec<StrayObjects>,
}

/// Objects of one source in the landing zone that will never be taken: by their keys they are no batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StrayObjects {
    /// In whose folder; empty where they lie beside the folders.
    pub source: String,
    /// How many were seen.
    pub objects: usize,
    /// The key of the first one.
    pub first: String,
}

/// The numbers that were passed and have not come, by source, epoch and number.
#[must_use]
pub fn missing(readings: &Table) -> Vec<Missing> {
    let open = readings.transactions().iter().filter(|(_, kind)| **kind != Open::Closed as i64);
    let mut missing: Vec<_> = open
        .filter_map(|(app_id, kind)| {
            let mut parts = app_id.strip_prefix(OPEN)?.split('/');
            let (source, epoch, bounds) = (parts.next()?, parts.next()?, parts.next()?);
            let (first, last) = bounds.split_once('-')?;
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            let [gap, before_replay, accepted] =
                [Open::Gap, Open::BeforeReplay, Open::Accepted].map(|one| *kind == one as i64);
            let (source, epoch) = (source.to_owned(), epoch.to_owned());
            Some(Missing { source, epoch, first, last, gap, before_replay, accepted })
        })
        .collect();
    missing.sort();
    missing
}

/// What landed after the last batch that was taken of its source.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn waiting(lake: &Lake, readings: &Table) -> Result<Waiting, LakeError> {
    let known =
        Known { progress: progress::read(readings.transactions()), finished: HashSet::new(), ..Known::default() };
    let seen = landing::everywhere(lake, &known, 0).await?.0;
    let (unreadable, strays) = (seen.unreadable.into_keys().collect(), by_source(seen.strays));
    let mut waiting = Waiting { unreadable, strays, ..Waiting::default() };
    for (stream, landed) in seen.zone {
        let watermark = known.progress.get(&stream).map_or(0, |progress| progress.watermark);
        for item in landed.items.iter().filter(|item| !item.gap && item.bounds.last > watermark) {
            waiting.batches += 1;
            waiting.since_us = Some(waiting.since_us.map_or(item.landed_us, |since| since.min(item.landed_us)));
        }
    }
    Ok(waiting)
}

/// All objects of the landing zone that will never be taken, by source, and whether all of it could be read. It is listed to
/// its end: one request a thousand objects.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn strays(lake: &Lake) -> Result<(Vec<StrayObjects>, bool), LakeError> {
    let (mut strays, mut is_whole) = (Strays::new(), true);
    let mut metas = lake.objects().list(Some(&Path::from(LANDING)));
    while let Some(listed) = metas.next().await {
        match listed {
            Ok(meta) => {
                let stray = |source: &str| (source.to_owned(), Stray { objects: 1, first: meta.location.to_string() });
                add_strays(&mut strays, keys::stray(&meta.location).map(stray).into_iter().collect());
            }
            Err(error) if unreadable_of(LANDING, &error).is_some() => is_whole = false,
            Err(source) => return Err(LakeError::store(LANDING, source)),
        }
    }
    Ok((by_source(strays), is_whole))
}

fn by_source(strays: Strays) -> Vec<StrayObjects> {
    let of_source = |(source, Stray { objects, first })| StrayObjects { source, objects, first };
    strays.into_iter().map(of_source).collect()
}
