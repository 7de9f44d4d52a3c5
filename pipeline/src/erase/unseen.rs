//! What an erasure could not look at: one source's folder without rights, a batch that the store refuses. And what names its
//! sensor in the landing zone under a key that is no batch's: somebody else put it there, and somebody has to look at it.
//!
//! It keeps nobody's readings from being erased, and no erasure is complete for it: nobody knows what lies there.
//! `erasures/unseen/<id>.json` remembers it, until it was looked at: which keys, why, and for which erasures. It is
//! written before the rows go, since it remembers too which sources wrote them; afterwards no table tells. A new note takes
//! the place of those before it, which go then.
//!
//! Looking again costs a request a key: what was looked through and has kept its length and its time is not read again. Only where something can be read that could not is everything looked at.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::{ErasureKey, LANDING, Landed};
use tjern_readings::sensor::Epoch;

use super::known::Erasures;
use super::landed;
use super::record::create;
use crate::jobs::record::Moment;

/// The version of its shape.
const FORMAT: u32 = 1;

/// Keys of objects and of folders (those end with `/`), and why.
pub(super) type Reasons = BTreeMap<String, String>;

/// What was not looked at, and for whom it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unseen {
    pub(super) format: u32,
    /// What could not be looked at.
    pub(super) keys: Reasons,
    /// What lies in quarantine, has to go, and could not be removed.
    pub(super) stays: Reasons,
    /// The erasures that are not complete for it.
    pub(super) erasures: BTreeSet<String>,
    /// The sources that may have sent their readings, with the erasures that these are of.
    pub(super) sources: BTreeMap<String, BTreeSet<String>>,
    /// Of what was looked through and names a sensor: its length, and when it was written.
    #[serde(default)]
    pub(super) read: BTreeMap<String, String>,
    /// The notes that say so.
    #[serde(skip)]
    pub(super) notes: Vec<ErasureKey>,
}

impl Unseen {
    /// Takes a note; or says why it cannot be read.
    pub(super) fn take(&mut self, key: &ErasureKey, bytes: &[u8]) -> Result<(), String> {
        let note: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if note.format != FORMAT {
            return Err(format!("it has format {}, this software reads {FORMAT}", note.format));
        }
        self.notes.push(key.clone());
        self.keys.extend(note.keys);
        self.stays.extend(note.stays);
        self.erasures.extend(note.erasures);
        self.read.extend(note.read);
        for (source, ids) in note.sources {
            self.sources.entry(source).or_default().extend(ids);
        }
        Ok(())
    }

    /// Whether everything was looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.stays.is_empty()
    }

    /// Remembers it in place of `notes`; nothing where there is nothing.
    pub(super) async fn write(&self, lake: &Lake) -> Result<(), LakeError> {
        if !self.is_empty() {
            let bytes = serde_json::to_vec_pretty(&Self { format: FORMAT, ..self.clone() }).unwrap_or_default();
            create(lake, &ErasureKey::Unseen(Epoch::random().to_string()), bytes).await?;
        }
        crate::vacuum::remove(lake, self.notes.iter().map(ErasureKey::key).collect()).await
    }

    /// Those of the keys that still cannot be looked at, or that name a sensor under a key that is none of ours.
    pub(super) async fn still(&mut self, lake: &Lake, erasures: &Erasures) -> Reasons {
        let mut still = Reasons::new();
        let read = std::mem::take(&mut self.read);
        for (key, before) in &self.keys {
            let path = Path::from(key.as_str());
            if is_strange(key) {
                let (why, state) = match lake.objects().head(&path).await.map(|meta| state(&meta)) {
                    Ok(state) if read.get(key) == Some(&state) => (Some(before.clone()), Some(state)),
                    Ok(state) => {
                        let looked = landed::strange(lake, &path, erasures).await;
                        let state = looked.is_ok().then_some(state);
                        (looked.unwrap_or_else(|error| Some(error.to_string())), state)
                    }
                    Err(Error::NotFound { .. }) => (None, None),
                    Err(error) => (Some(error.to_string()), None),
                };
                let Some(why) = why else { continue };
                still.insert(key.clone(), why);
                self.read.extend(state.map(|state| (key.clone(), state)));
                continue;
            }
            let looked = if key.ends_with('/') {
                lake.objects().list(Some(&path)).next().await.transpose().map(drop)
            } else {
                lake.objects().get(&path).await.map(drop)
            };
            match looked {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => _ = still.insert(key.clone(), error.to_string()),
            }
        }
        still
    }
}

/// What changes where an object is replaced.
fn state(meta: &ObjectMeta) -> String {
    format!("{} bytes of {}", meta.size, Moment(meta.last_modified.timestamp_micros()))
}

/// Whether ingest takes nothing of what lies in the landing zone under this key.
pub(super) fn is_strange(key: &str) -> bool {
    key.strip_prefix(LANDING).is_some_and(|rest| rest.starts_with('/')) && Landed::parse(&Path::from(key)).is_none()
}

/// Removes objects. Returns those that the store keeps, and why: one source's folder must not keep the others' readings.
pub(super) async fn remove(lake: &Lake, keys: Vec<Path>) -> Reasons {
    let mut kept = Reasons::new();
    if crate::vacuum::remove(lake, keys.clone()).await.is_ok() {
        return kept;
    }
    for key in keys {
        match lake.objects().delete(&key).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => _ = kept.insert(key.to_string(), error.to_string()),
        }
    }
    kept
}
