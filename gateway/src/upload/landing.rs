//! Putting an object into the landing zone once, whatever became of the replies.
//!
//! A put that failed may have been applied, and a store's own retries turn a lost reply into "already
//! exists". So that word is never believed: the object is read back and compared.

use bytes::Bytes;
use object_store::Error;
use object_store::path::Path;

use tjern_readings::batch;
use tjern_readings::keys::Landed;

use super::line::Line;

/// How often a put is repeated whose key exists and then does not.
const ATTEMPTS_MAX: u32 = 3;

/// What stands under the key now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Ours.
    Landed,
    /// Something else: another one writes under our name.
    Foreign,
}

/// Puts an object where nothing is, or finds it there.
pub(super) async fn put_once(line: &Line<'_>, key: &Path, landed: &Landed, bytes: &Bytes) -> Result<Outcome, Error> {
    let mut attempt = 1;
    loop {
        let existing = match line.create(key, bytes).await {
            Ok(_) => return Ok(Outcome::Landed),
            Err(error @ (Error::AlreadyExists { .. } | Error::Precondition { .. })) => error,
            Err(error) => return Err(error),
        };
        match compare(line, key, landed, bytes).await? {
            Some(outcome) => return Ok(outcome),
            None if attempt < ATTEMPTS_MAX => attempt += 1,
            None => return Err(existing),
        }
    }
}

/// Compares an object with what stands under its key, if anything does.
pub(super) async fn compare(
    line: &Line<'_>,
    key: &Path,
    landed: &Landed,
    bytes: &[u8],
) -> Result<Option<Outcome>, Error> {
    let there = match line.read(key).await {
        Ok(there) => there,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(if is_same(landed, bytes, &there) { Outcome::Landed } else { Outcome::Foreign }))
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
