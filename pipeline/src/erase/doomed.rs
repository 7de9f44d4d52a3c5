//! Landed batches that hold erased readings: deleted whole, and remembered.
//!
//! `erasures/landed/<id>.json` is created before the first of its batches is deleted, with the erasures that each is
//! of. So whoever is killed in between, and whoever comes next, knows what has to go; and a replay of the landing zone
//! passes their numbers as a gap instead of waiting for them.
//!
//! Notes are put together where there are many: the new one first, then the old ones go.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::{Bounds, ERASURES, ErasureKey};
use tjern_readings::sensor::Epoch;

use super::record::create;
use crate::ingest::Stream;

/// The version of a note's shape.
const FORMAT: u32 = 1;

/// More notes than this are put together.
const NOTES_MAX: usize = 32;

/// Batches by stream, with the erasures that each is of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doomed {
    streams: HashMap<Stream, BTreeMap<Bounds, BTreeSet<String>>>,
}

/// A note as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    /// `<source>/<epoch>/<first>-<last>`, and the erasures.
    batches: BTreeMap<String, BTreeSet<String>>,
}

fn name((source, epoch): &Stream, bounds: Bounds) -> String {
    format!("{source}/{epoch}/{bounds}")
}

fn parse(name: &str) -> Option<(Stream, Bounds)> {
    let [source, epoch, bounds] = name.split('/').collect::<Vec<_>>()[..] else { return None };
    Some(((source.parse().ok()?, epoch.parse().ok()?), bounds.parse().ok()?))
}

impl Doomed {
    /// Takes a note; or says why it cannot be read.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        let note: Note = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if note.format != FORMAT {
            return Err(format!("it has format {}, this software reads {FORMAT}", note.format));
        }
        for (batch, ids) in note.batches {
            let (stream, bounds) = parse(&batch).ok_or_else(|| format!("`{batch}` is no batch"))?;
            self.add(stream, bounds, ids);
        }
        Ok(())
    }

    pub(super) fn add(&mut self, stream: Stream, bounds: Bounds, ids: BTreeSet<String>) {
        self.streams.entry(stream).or_default().entry(bounds).or_default().extend(ids);
    }

    /// Whether a batch is known to be of these erasures.
    pub(super) fn knows(&self, stream: &Stream, bounds: Bounds, ids: &BTreeSet<String>) -> bool {
        self.streams.get(stream).and_then(|batches| batches.get(&bounds)).is_some_and(|known| ids.is_subset(known))
    }

    /// Those of a stream.
    pub(super) fn of(&self, stream: &Stream) -> impl Iterator<Item = Bounds> {
        self.streams.get(stream).into_iter().flat_map(|batches| batches.keys().copied())
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Stream, Bounds, &BTreeSet<String>)> {
        let of_stream = |(stream, batches)| {
            let batches: &BTreeMap<Bounds, BTreeSet<String>> = batches;
            batches.iter().map(move |(bounds, ids)| (stream, *bounds, ids))
        };
        self.streams.iter().flat_map(of_stream)
    }
}

/// Writes a note.
pub(super) async fn write(
    lake: &Lake,
    batches: &BTreeMap<(Stream, Bounds), BTreeSet<String>>,
) -> Result<(), LakeError> {
    let batches = batches.iter().map(|((stream, bounds), ids)| (name(stream, *bounds), ids.clone())).collect();
    let bytes = serde_json::to_vec(&Note { format: FORMAT, batches }).unwrap_or_default();
    create(lake, &ErasureKey::Landed(Epoch::random().to_string()), bytes).await
}

/// Puts notes together where there are many.
pub(super) async fn tidy(lake: &Lake) -> Result<(), LakeError> {
    let folder = Path::from(ERASURES);
    let failed = |source| LakeError::store(&folder, source);
    let metas: Vec<_> = lake.objects().list(Some(&folder)).try_collect().await.map_err(failed)?;
    let is_note = |key: &Path| matches!(ErasureKey::parse(key), Some(ErasureKey::Landed(_)));
    let keys: Vec<Path> = metas.into_iter().map(|meta| meta.location).filter(is_note).collect();
    if keys.len() <= NOTES_MAX {
        return Ok(());
    }
    let mut all = Doomed::default();
    let mut read = Vec::new();
    for key in keys {
        let failed = |source| LakeError::store(&key, source);
        let bytes = match lake.objects().get(&key).await {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(Error::NotFound { .. }) => continue,
            Err(source) => return Err(failed(source)),
        };
        // One that cannot be read stays where it is: loading tells of it.
        if all.take(&bytes).is_ok() {
            read.push(key);
        }
    }
    let together = all.all().map(|(stream, bounds, ids)| ((stream.clone(), bounds), ids.clone())).collect();
    write(lake, &together).await?;
    crate::vacuum::remove(lake, read).await
}
