//! What could not be read: kept as it came, with the reason beside it, out of everybody's way.

use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys;

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
/// doing it again does no harm.
///
/// # Errors
/// [`LakeError::Store`].
pub async fn quarantine(lake: &Lake, landed: &Path, reason: &str) -> Result<(), LakeError> {
    let objects = lake.objects();
    let failed = |key: &Path| {
        let key = key.to_string();
        move |source| LakeError::store(key, source)
    };
    let bytes = match objects.get(landed).await {
        Ok(found) => found.bytes().await.map_err(failed(landed))?,
        Err(Error::NotFound { .. }) => return Ok(()),
        Err(source) => return Err(failed(landed)(source)),
    };
    let moved = jiff::Timestamp::from_microsecond(lake.clock().now_us()).unwrap_or_default().to_string();
    let reason = Reason { key: landed.to_string(), reason: reason.to_owned(), moved };
    let note = serde_json::to_vec_pretty(&reason).unwrap_or_default();
    for (key, payload) in
        [(keys::quarantine_reason(landed), PutPayload::from(note)), (keys::quarantine(landed), PutPayload::from(bytes))]
    {
        match objects.put_opts(&key, payload, PutMode::Create.into()).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(source) => return Err(failed(&key)(source)),
        }
    }
    objects.delete(landed).await.map_err(failed(landed))
}
