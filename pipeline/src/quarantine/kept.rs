//! What lies in quarantine, and what can be said of it.

use std::collections::BTreeMap;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tjern_lake::{Lake, LakeError};
use tjern_readings::batch::Header;
use tjern_readings::keys::{LANDING, Landed, QUARANTINE};

use super::{REASON, Reason};
use crate::ingest::{BATCH_BYTES_MAX, Decoded, decode, unreadable_of};

/// How many reasons are read at once.
const READ_AT_ONCE: usize = 16;

/// An object in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name: its key without the folder of the quarantine.
    pub name: String,
    /// Where it had landed.
    pub landed: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// When it was moved, RFC 3339 in UTC; empty where nothing says it.
    pub moved: String,
    /// What was wrong with it then.
    pub reason: String,
}

/// What is known of an object when one looks into it.
#[derive(Debug)]
pub struct Looked {
    /// As it is listed.
    pub kept: Kept,
    /// The SHA-256 of its bytes, in hex; none where it is too big to be read.
    pub sha256: Option<String>,
    /// What this software reads in it now, or why it cannot.
    pub now: Result<Header, String>,
}

impl Kept {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> Path {
        Path::from(format!("{QUARANTINE}/{}", self.name))
    }

    /// Where the reason lies.
    pub(crate) fn reason_key(&self) -> Path {
        Path::from(format!("{QUARANTINE}/{}{REASON}", self.name))
    }
}

/// Everything in quarantine, in the order of the names.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn list(lake: &Lake) -> Result<Vec<Kept>, LakeError> {
    let (kept, unreadable) = list_readable(lake).await?;
    unreadable.into_values().next().map_or(Ok(kept), Err)
}

/// Everything in quarantine that can be read, in the order of the names; and by their keys the folders and objects of
/// sources that cannot.
pub(crate) async fn list_readable(lake: &Lake) -> Result<(Vec<Kept>, BTreeMap<String, LakeError>), LakeError> {
    let folder = Path::from(QUARANTINE);
    let mut unreadable = BTreeMap::new();
    let mut objects = Vec::new();
    let mut metas = lake.objects().list(Some(&folder));
    while let Some(listed) = metas.next().await {
        match listed {
            Ok(meta) if meta.location.as_ref().ends_with(REASON) => {}
            Ok(meta) => objects.push(meta),
            Err(error) => {
                let key = unreadable_of(QUARANTINE, &error).map(str::to_owned);
                let error = LakeError::store(QUARANTINE, error);
                let Some(key) = key else { return Err(error) };
                unreadable.insert(key, error);
            }
        }
    }
    let looking = futures::stream::iter(objects).map(|meta| async move {
        let key = meta.location.to_string();
        of(lake, meta).await.map_err(|error| (key, error))
    });
    let mut looking = Box::pin(looking.buffered(READ_AT_ONCE));
    let mut kept = Vec::new();
    while let Some(looked) = looking.next().await {
        match looked {
            Ok(one) => kept.push(one),
            Err((key, error)) => _ = unreadable.insert(key, error),
        }
    }
    kept.sort_by(|one: &Kept, other| one.name.cmp(&other.name));
    Ok((kept, unreadable))
}

/// One object by its name, or by where it had landed; `None` where there is no such thing.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn find(lake: &Lake, name: &str) -> Result<Option<Kept>, LakeError> {
    let name = name.strip_prefix(QUARANTINE).or_else(|| name.strip_prefix(LANDING)).unwrap_or(name);
    let key = Path::from(format!("{QUARANTINE}/{}", name.trim_start_matches('/')));
    match lake.objects().head(&key).await {
        Ok(meta) => of(lake, meta).await.map(Some),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(source) => Err(LakeError::store(key, source)),
    }
}

async fn of(lake: &Lake, meta: ObjectMeta) -> Result<Kept, LakeError> {
    let name = meta.location.as_ref().trim_start_matches(QUARANTINE).trim_start_matches('/').to_owned();
    let key = Path::from(format!("{}{REASON}", meta.location));
    let note = match lake.objects().get(&key).await {
        Ok(found) => Some(found.bytes().await.map_err(|source| LakeError::store(&key, source))?),
        // Its mover was killed before it wrote why.
        Err(Error::NotFound { .. }) => None,
        Err(source) => return Err(LakeError::store(key, source)),
    };
    let landed = format!("{LANDING}/{name}");
    let unknown = Reason { key: landed, reason: "nothing says why".to_owned(), moved: String::new() };
    let reason = note.and_then(|note| serde_json::from_slice(&note).ok()).unwrap_or(unknown);
    let Reason { key: landed, reason, moved } = reason;
    Ok(Kept { name, landed, bytes: meta.size, moved, reason })
}

/// Looks into an object: what it is, and whether this software can read it now.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn look(lake: &Lake, kept: Kept) -> Result<Looked, LakeError> {
    if kept.bytes > BATCH_BYTES_MAX {
        let now = Err(format!("it has {} bytes, more than {BATCH_BYTES_MAX}", kept.bytes));
        return Ok(Looked { kept, sha256: None, now });
    }
    let key = kept.key();
    let failed = |source| LakeError::store(&key, source);
    let bytes = lake.objects().get(&key).await.map_err(failed)?.bytes().await.map_err(failed)?;
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let now = match Landed::parse(&Path::from(kept.landed.as_str())) {
        Some((source, Landed::Batch(epoch, bounds))) => match decode(bytes, (&source, epoch, bounds)).await {
            Decoded::Good(batch) => Ok(batch.header),
            Decoded::Bad(reason) => Err(reason),
            Decoded::Gone => Err("it is not there any more".to_owned()),
        },
        _ => Err("where it had landed is no batch's key".to_owned()),
    };
    Ok(Looked { kept, sha256: Some(hex), now })
}
