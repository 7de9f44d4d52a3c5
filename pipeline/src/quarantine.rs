//! What could not be read: kept as it came, with the reason beside it, out of everybody's way.
//!
//! People list it ([`list`]), look into it ([`look`]) and try it again ([`retry`]); nothing here is removed that
//! did not become rows.

mod kept;
mod retry;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys;

use crate::ingest::BATCH_BYTES_MAX;

pub(crate) use kept::list_readable;
pub use kept::{Kept, Looked, find, list, look};
pub use retry::{Retried, retry};

/// What the name of a reason ends with.
const REASON: &str = ".reason.json";

/// Why an object is in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Where it had landed.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
    /// When it was moved, RFC 3339 in UTC.
    pub moved: String,
}

/// Moves a landed object into quarantine. Whatever fails half way leaves it in the landing zone, and
/// doing it again does no harm. A second object of the same key that is not the same gets a name of
/// its own: nothing that came is lost.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn quarantine(lake: &Lake, landed: &Path, reason: &str) -> Result<(), LakeError> {
    let objects = lake.objects();
    let now_us = lake.clock().now_us();
    let kept = keys::quarantine(landed);
    let own_name = Path::from(format!("{kept}.{now_us}"));
    let (bytes, too_big) = match objects.get(landed).await {
        // Too big to be held in memory: the store copies it, under a name that nothing else has.
        Ok(found) if found.meta.size > BATCH_BYTES_MAX => {
            objects.copy(landed, &own_name).await.map_err(|source| LakeError::store(landed, source))?;
            (Bytes::new(), true)
        }
        Ok(found) => (found.bytes().await.map_err(|source| LakeError::store(landed, source))?, false),
        Err(Error::NotFound { .. }) => return Ok(()),
        Err(source) => return Err(LakeError::store(landed, source)),
    };
    let moved = jiff::Timestamp::from_microsecond(now_us).unwrap_or_default().to_string();
    let reason = Reason { key: landed.to_string(), reason: reason.to_owned(), moved };
    let note = Bytes::from(serde_json::to_vec_pretty(&reason).unwrap_or_default());
    if !too_big && put_same(lake, &kept, &bytes).await? {
        put_same(lake, &keys::quarantine_reason(landed), &note).await?;
    } else {
        if !too_big {
            put_same(lake, &own_name, &bytes).await?;
        }
        put_same(lake, &Path::from(format!("{own_name}{REASON}")), &note).await?;
    }
    objects.delete(landed).await.map_err(|source| LakeError::store(landed, source))
}

/// Creates an object. Returns false where another one has its key.
async fn put_same(lake: &Lake, key: &Path, bytes: &Bytes) -> Result<bool, LakeError> {
    let objects = lake.objects();
    match objects.put_opts(key, PutPayload::from(bytes.clone()), PutMode::Create.into()).await {
        Ok(_) => Ok(true),
        Err(Error::AlreadyExists { .. }) => {
            let there = objects.get(key).await.map_err(|source| LakeError::store(key, source))?;
            Ok(there.bytes().await.map_err(|source| LakeError::store(key, source))? == *bytes)
        }
        Err(source) => Err(LakeError::store(key, source)),
    }
}
