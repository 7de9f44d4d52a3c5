//! One object from one store to another: its length is held against what was said of it, its SHA-256 is taken on the way.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use sha2::{Digest, Sha256};
use tjern_lake::{Lake, LakeError};
use tjern_readings::store::Store;

use super::BackupError;
use super::manifest::Entry;
use super::pin::Wanted;

/// A larger object is copied in parts of this size.
pub(super) const WHOLE_BYTES_MAX: u64 = 16 << 20;

/// What became of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// It is there.
    Whole { sha256: String },
    /// There was nothing to copy any more.
    Gone,
}

/// Why a copy failed: where it was read, or where it was written.
enum Failure {
    From(Error),
    To(Error),
}

/// Copies an object of the lake to the backups.
pub(super) async fn to_target(lake: &Lake, target: &Store, wanted: &Wanted) -> Result<Copied, BackupError> {
    let (from, to) = (lake.store().objects(), target.objects());
    match copy(&*from, &wanted.key, &*to, &wanted.name, wanted.bytes, PutMode::Overwrite).await {
        Ok(Ok(sha256)) => Ok(Copied::Whole { sha256 }),
        Ok(Err(bytes)) => Err(BackupError::Other {
            key: wanted.key.to_string(),
            what: "lake's own log or listing",
            found: format!("it has {bytes} bytes, and not {}", wanted.bytes),
            hint: "`tjern pipeline verify` looks at every file of every table",
        }),
        Err(Failure::From(Error::NotFound { .. })) => Ok(Copied::Gone),
        Err(Failure::From(error)) => Err(LakeError::store(&wanted.key, error).into()),
        Err(Failure::To(error)) => Err(BackupError::target(&wanted.name, error)),
    }
}

/// Brings an object of a backup back into the lake. Returns whether it was not there.
pub(super) async fn to_lake(lake: &Lake, target: &Store, entry: &Entry) -> Result<bool, BackupError> {
    let (key, name) = (Path::from(entry.key.as_str()), Path::from(entry.name.as_str()));
    let (from, to) = (target.objects(), lake.store().objects());
    let other = |found: String| BackupError::Other {
        key: entry.key.clone(),
        what: "manifest",
        found,
        hint: "`--at` names an older backup; what is in the lake is left as it is",
    };
    match to.head(&key).await {
        Ok(meta) if meta.size == entry.bytes => return Ok(false),
        Ok(meta) => return Err(other(format!("one of {} bytes lies in the lake, not of {}", meta.size, entry.bytes))),
        Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(LakeError::store(&key, error).into()),
    }
    match copy(&*from, &name, &*to, &key, entry.bytes, PutMode::Create).await {
        Ok(Ok(sha256)) if entry.sha256.as_ref().is_none_or(|wanted| *wanted == sha256) => Ok(true),
        Ok(Ok(_)) => {
            // It is in the lake by now, and must not stay there.
            to.delete(&key).await.map_err(|error| LakeError::store(&key, error))?;
            Err(other("its contents have another SHA-256".to_owned()))
        }
        Ok(Err(bytes)) => Err(other(format!("it has {bytes} bytes in the backup, and not {}", entry.bytes))),
        Err(Failure::From(error)) => Err(BackupError::target(&name, error)),
        // Somebody put it at this moment: a gateway, which has the same batch still.
        Err(Failure::To(Error::AlreadyExists { .. })) => Ok(false),
        Err(Failure::To(error)) => Err(LakeError::store(&key, error).into()),
    }
}

/// Copies an object if it has so many bytes, else says how many it has. Returns its SHA-256 in hex.
async fn copy(
    from: &dyn ObjectStore,
    key: &Path,
    to: &dyn ObjectStore,
    name: &Path,
    bytes: u64,
    mode: PutMode,
) -> Result<Result<String, u64>, Failure> {
    let got = from.get(key).await.map_err(Failure::From)?;
    if got.meta.size != bytes {
        return Ok(Err(got.meta.size));
    }
    if bytes <= WHOLE_BYTES_MAX {
        let whole = got.bytes().await.map_err(Failure::From)?;
        let sha256 = hex(&Sha256::digest(&whole));
        to.put_opts(name, PutPayload::from(whole), mode.into()).await.map_err(Failure::To)?;
        return Ok(Ok(sha256));
    }
    let (mut sha256, mut parts) = (Sha256::new(), got.into_stream().boxed());
    let mut upload = to.put_multipart(name).await.map_err(Failure::To)?;
    let (mut gathered, mut gathered_bytes) = (Vec::<Bytes>::new(), 0);
    loop {
        let part = match parts.try_next().await {
            Ok(part) => part,
            Err(error) => {
                // What it has taken is nobody's; the store removes it where this fails.
                let _ = upload.abort().await;
                return Err(Failure::From(error));
            }
        };
        let is_end = part.is_none();
        if let Some(part) = part {
            sha256.update(&part);
            gathered_bytes += part.len() as u64;
            gathered.push(part);
        }
        if gathered_bytes >= WHOLE_BYTES_MAX || (is_end && gathered_bytes > 0) {
            let payload: PutPayload = std::mem::take(&mut gathered).into_iter().collect();
            gathered_bytes = 0;
            if let Err(error) = upload.put_part(payload).await {
                let _ = upload.abort().await;
                return Err(Failure::To(error));
            }
        }
        if is_end {
            upload.complete().await.map_err(Failure::To)?;
            return Ok(Ok(hex(&sha256.finalize())));
        }
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
