//! Putting an object into the landing zone once, whatever became of the replies.
//!
//! A put that failed may have been applied, and a store's own retries turn a lost reply into "already
//! exists". So that word is never believed: the object is read back and compared.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use tjern_readings::batch;
use tjern_readings::keys::Landed;

/// How often a put is repeated whose key exists and then does not.
const ATTEMPTS_MAX: u32 = 3;

/// What stands under the key now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Ours.
    Landed,
    /// Something else: another one writes under our name.
    Foreign,
}

/// Puts an object where nothing is, or finds it there.
pub(crate) async fn put_once(
    store: &dyn ObjectStore,
    key: &Path,
    landed: &Landed,
    bytes: &Bytes,
) -> Result<Outcome, Error> {
    let mut attempt = 1;
    loop {
        let payload = PutPayload::from_bytes(bytes.clone());
        let existing = match store.put_opts(key, payload, PutOptions::from(PutMode::Create)).await {
            Ok(_) => return Ok(Outcome::Landed),
            Err(error @ (Error::AlreadyExists { .. } | Error::Precondition { .. })) => error,
            Err(error) => return Err(error),
        };
        match compare(store, key, landed, bytes).await? {
            Some(outcome) => return Ok(outcome),
            None if attempt < ATTEMPTS_MAX => attempt += 1,
            None => return Err(existing),
        }
    }
}

/// Compares an object with what stands under its key, if anything does.
pub(crate) async fn compare(
    store: &dyn ObjectStore,
    key: &Path,
    landed: &Landed,
    bytes: &[u8],
) -> Result<Option<Outcome>, Error> {
    let there = match read(store, key).await {
        Ok(there) => there,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(if is_same(landed, bytes, &there) { Outcome::Landed } else { Outcome::Foreign }))
}

/// An object's bytes.
pub(crate) async fn read(store: &dyn ObjectStore, key: &Path) -> Result<Bytes, Error> {
    store.get(key).await?.bytes().await
}

/// Whether two objects say the same: for batches the bounds and the checksum of the rows, which a later
/// version of the software may have compressed in another way; for all others the bytes.
fn is_same(landed: &Landed, ours: &[u8], there: &[u8]) -> bool {
    if ours == there {
        return true;
    }
    let Landed::Batch(..) = landed else { return false };
    match (batch::decode(ours), batch::decode(there)) {
        (Ok(ours), Ok(there)) => {
            let identity = |batch: &batch::Batch| {
                let header = &batch.header;
                (header.source.clone(), header.epoch, header.bounds, header.checksum.clone())
            };
            identity(&ours) == identity(&there)
        }
        _ => false,
    }
}
