//! The landing zone: batches that hold erased readings go, whole.
//!
//! Not before they are ingested (without these readings), and the newest of an open epoch not before a newer one is
//! there: by it a restored gateway finds out that its numbers were used. What has to wait is remembered
//! ([`super::doomed`]), and ingest removes it as well once it may go.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use tjern_lake::{Lake, LakeError, Table};
use tjern_readings::keys::{self, Bounds, LANDING, Landed};
use tjern_readings::sensor::{Epoch, SourceName};

use super::inside::{Inside, Room, look_into};
use super::known::Erasures;
use super::sources::Tainted;
use super::unseen::{self, Reasons};
use super::{Found, Wait, raw};
use crate::ingest::{Stream, hides, is_finished, open_runs, unreadable_of, watermark};

/// How many batches are looked into at once, as far as there is room.
const READ_AT_ONCE: usize = 16;

/// What lies of one stream.
#[derive(Debug, Default)]
struct Lying {
    /// With their bytes.
    batches: BTreeMap<Bounds, u64>,
    /// The last number of everything that lies there, gaps included.
    newest: i64,
    closed: bool,
}

/// What lies in the landing zone.
#[derive(Debug, Default)]
pub(super) struct Zone {
    streams: BTreeMap<Stream, Lying>,
    /// The configurations, by their keys.
    pub(super) configurations: Vec<Path>,
    /// What has no key of ours, so that ingest takes nothing of it, and may hold whatever somebody put there.
    strange: Vec<Path>,
    /// Folders and objects of sources that could not be listed.
    pub(super) unseen: Reasons,
}

/// A landed batch that holds erased readings, or may hold some.
#[derive(Debug)]
pub(super) struct Holding {
    stream: Stream,
    bounds: Bounds,
    ids: BTreeSet<String>,
    /// None where it cannot be read.
    rows: Option<usize>,
}

/// Why an object that has no key of ours keeps erasures from being complete; none where it names none of their sensors.
pub(super) async fn strange(lake: &Lake, key: &Path, erasures: &Erasures) -> Result<Option<String>, LakeError> {
    let named = raw::named_in(lake, key, erasures).await?.filter(|ids| !ids.is_empty());
    Ok(named.map(|_| {
        "its key is no batch's, so it is never ingested, and it names the sensor; hint: remove it, or give it its key (docs/batch-format.md) and run this again".to_owned()
    }))
}

impl Zone {
    /// Lists it.
    pub(super) async fn list(lake: &Lake) -> Result<Self, LakeError> {
        let mut zone = Self::default();
        let mut metas = lake.objects().list(Some(&Path::from(LANDING)));
        while let Some(listed) = metas.next().await {
            let meta = match listed {
                Ok(meta) => meta,
                Err(error) => match unreadable_of(LANDING, &error) {
                    Some(key) => {
                        zone.unseen.insert(key.to_owned(), error.to_string());
                        continue;
                    }
                    None => return Err(LakeError::store(LANDING, error)),
                },
            };
            let Some((source, landed)) = Landed::parse(&meta.location) else {
                if !keys::says_nothing(&meta.location) {
                    zone.strange.push(meta.location);
                }
                continue;
            };
            match landed {
                Landed::Batch(epoch, bounds) => {
                    let lying = zone.of(source, epoch);
                    lying.batches.insert(bounds, meta.size);
                    lying.newest = lying.newest.max(bounds.last);
                }
                Landed::Gap(epoch, bounds) => {
                    let lying = zone.of(source, epoch);
                    lying.newest = lying.newest.max(bounds.last);
                }
                Landed::Closed(epoch) => zone.of(source, epoch).closed = true,
                Landed::Configuration(_) => zone.configurations.push(meta.location),
            }
        }
        Ok(zone)
    }

    fn of(&mut self, source: SourceName, epoch: Epoch) -> &mut Lying {
        self.streams.entry((source, epoch)).or_default()
    }

    fn batches(&self) -> Vec<(Stream, Bounds, u64)> {
        let of_stream = |(stream, lying): (&Stream, &Lying)| {
            lying.batches.iter().map(|(bounds, bytes)| (stream.clone(), *bounds, *bytes)).collect::<Vec<_>>()
        };
        self.streams.iter().flat_map(of_stream).collect()
    }

    /// Reads every batch: those that hold erased readings, and those that nobody can read and that name their sensor or come
    /// from a source that wrote such readings. And what the store does not hand out, or names their sensor under a key that
    /// is none of ours.
    pub(super) async fn holding(
        &self,
        lake: &Lake,
        erasures: &Erasures,
        tainted: &mut Tainted,
    ) -> (Vec<Holding>, Reasons) {
        let room = Room::default();
        let reading = futures::stream::iter(self.batches())
            .map(|(stream, bounds, bytes)| {
                let room = &room;
                async move {
                    let key = Landed::Batch(stream.1, bounds).key(&stream.0);
                    let found = look_into(lake, (&key, bytes), erasures, room).await;
                    (stream, bounds, key, found)
                }
            })
            .buffered(READ_AT_ONCE);
        let mut reading = Box::pin(reading);
        let (mut holding, mut unreadable, mut unseen) = (Vec::new(), Vec::new(), Reasons::new());
        while let Some((stream, bounds, key, found)) = reading.next().await {
            match found {
                Ok(Some(Inside::Batch { ids, rows })) if rows > 0 => {
                    tainted.add(stream.0.as_str(), ids.iter().cloned());
                    holding.push(Holding { stream, bounds, ids, rows: Some(rows) });
                }
                Ok(Some(Inside::Unreadable(named))) => unreadable.push((stream, bounds, named)),
                // It holds none, or went meanwhile.
                Ok(Some(Inside::Batch { .. }) | None) => {}
                Err(error) => _ = unseen.insert(key.to_string(), error.to_string()),
            }
        }
        let may_hold = unreadable.into_iter().filter_map(|(stream, bounds, mut ids)| {
            ids.extend(tainted.of(stream.0.as_str()).into_iter().flatten().cloned());
            (!ids.is_empty()).then_some(Holding { stream, bounds, ids, rows: None })
        });
        holding.extend(may_hold);
        for key in &self.strange {
            let why = strange(lake, key, erasures).await.unwrap_or_else(|error| Some(error.to_string()));
            unseen.extend(why.map(|why| (key.to_string(), why)));
        }
        (holding, unseen)
    }

    /// Why a batch may not go yet.
    fn waits(&self, readings: &Table, stream: &Stream, bounds: Bounds) -> Option<&'static str> {
        let (source, epoch) = stream;
        let is_open =
            |run: &crate::ingest::OpenRun| run.source == *source && run.epoch == *epoch && run.bounds.overlaps(bounds);
        let reached = watermark(readings, source, *epoch).unwrap_or(0);
        if reached < bounds.last || open_runs(readings).iter().any(is_open) {
            return Some("it is not ingested yet: it waits for what comes before it");
        }
        let lying = self.streams.get(stream)?;
        // What lies below the watermark was sent again: it tells nobody which numbers were used last.
        (!lying.closed && !is_finished(readings, stream) && lying.newest == bounds.last && reached == bounds.last)
            .then_some("it is the newest of an open epoch, and goes as soon as its source sends the next; if it sends no more here: `tjern pipeline erase --retired SOURCE`")
    }
}

/// Removes of the batches that are known to hold erased readings what may go. Returns how many those were, and what
/// has to wait: also where a folder cannot be read, since some of them may lie there.
pub(super) async fn settle(lake: &Lake, zone: &Zone, readings: &Table, erasures: &Erasures) -> (usize, Vec<Wait>) {
    let (mut going, mut waits) = (BTreeMap::new(), Vec::new());
    let mut hidden: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (stream, bounds, ids) in erasures.doomed.all() {
        for folder in zone.unseen.keys().filter(|folder| hides(folder, stream)) {
            hidden.entry(folder.as_str()).or_default().extend(ids.iter().cloned());
        }
        if !zone.streams.get(stream).is_some_and(|lying| lying.batches.contains_key(&bounds)) {
            continue;
        }
        let key = Landed::Batch(stream.1, bounds).key(&stream.0);
        match zone.waits(readings, stream, bounds) {
            Some(why) => waits.push(Wait { what: key.to_string(), why: why.to_owned(), erasures: Some(ids.clone()) }),
            None => _ = going.insert(key, ids.clone()),
        }
    }
    waits.extend(hidden.into_iter().map(|(folder, ids)| {
        let why = zone.unseen.get(folder).map_or("", String::as_str);
        Wait::unseen(folder, why, ids)
    }));
    let kept = unseen::remove(lake, going.keys().cloned().collect()).await;
    waits.extend(kept.iter().map(|(key, why)| {
        let ids = going.get(&Path::from(key.as_str())).cloned();
        Wait { what: key.clone(), why: format!("it cannot be removed: {why}"), erasures: ids }
    }));
    waits.sort_by(|one, other| one.what.cmp(&other.what));
    (going.len() - kept.len(), waits)
}

impl Holding {
    /// What is to be remembered of it.
    pub(super) fn doomed(self) -> (Stream, Bounds, BTreeSet<String>) {
        (self.stream, self.bounds, self.ids)
    }

    /// What is told of it.
    pub(super) fn found(&self) -> Found {
        Found::new("landed batch", Landed::Batch(self.stream.1, self.bounds).key(&self.stream.0), self.rows)
    }
}
