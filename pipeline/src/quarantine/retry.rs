//! Giving what lies in quarantine another try: after an update that reads tomorrow's format, or once somebody has
//! put a wrong clone right.
//!
//! An object goes back to where it had landed, ingest looks at everything, and only if it was not set aside again
//! it leaves the quarantine. Whatever fails half way leaves it in both places, and trying again does no harm.

use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tjern_lake::{Lake, LakeError};

use super::kept::{Kept, look};
use crate::ingest::{IngestError, IngestSettings, ingest};

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// It is back in the landing zone: ingested, or waiting for what comes before it.
    Taken,
    /// It stays in quarantine, and why.
    Refused(String),
}

/// Tries objects again. Returns what became of each, in their order.
///
/// # Errors
/// [`IngestError`]; those that were not done are in quarantine still.
pub async fn retry(
    lake: &Lake,
    settings: &IngestSettings,
    objects: Vec<Kept>,
) -> Result<Vec<(Kept, Retried)>, IngestError> {
    let mut tried = Vec::new();
    for kept in objects {
        let refused = put_back(lake, &kept).await?;
        tried.push((kept, refused));
    }
    if tried.iter().any(|(_, refused)| refused.is_none()) {
        match ingest(lake, settings).await {
            // Its own source may be among those: then it is back in the landing zone, and waits there.
            Ok(_) | Err(IngestError::HeldBack { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut done = Vec::new();
    for (kept, refused) in tried {
        let became = match refused {
            Some(reason) => Retried::Refused(reason),
            None => settle(lake, &kept).await?,
        };
        done.push((kept, became));
    }
    Ok(done)
}

/// Puts an object back to where it had landed; or says why that would be in vain.
async fn put_back(lake: &Lake, kept: &Kept) -> Result<Option<String>, LakeError> {
    let looked = look(lake, kept.clone()).await?;
    if let Err(reason) = looked.now {
        return Ok(Some(reason));
    }
    let (objects, from, to) = (lake.objects(), kept.key(), Path::from(kept.landed.as_str()));
    let read = |key: Path| {
        let objects = lake.objects();
        async move {
            let failed = |source| LakeError::store(&key, source);
            objects.get(&key).await.map_err(failed)?.bytes().await.map_err(failed)
        }
    };
    let bytes = read(from).await?;
    match objects.put_opts(&to, PutPayload::from(bytes.clone()), PutMode::Create.into()).await {
        Ok(_) => Ok(None),
        Err(Error::AlreadyExists { .. }) if read(to.clone()).await? == bytes => Ok(None),
        Err(Error::AlreadyExists { .. }) => {
            Ok(Some("another batch of the same numbers lies in the landing zone".to_owned()))
        }
        Err(source) => Err(LakeError::store(to, source)),
    }
}

/// Ingest has looked at it: what it set aside again is not in the landing zone any more.
async fn settle(lake: &Lake, kept: &Kept) -> Result<Retried, LakeError> {
    let objects = lake.objects();
    let landed = Path::from(kept.landed.as_str());
    match objects.head(&landed).await {
        Ok(_) => {}
        Err(Error::NotFound { .. }) => {
            let why = "ingest set it aside again: what it says was ingested before, with other readings".to_owned();
            return Ok(Retried::Refused(why));
        }
        Err(source) => return Err(LakeError::store(landed, source)),
    }
    for key in [kept.reason_key(), kept.key()] {
        match objects.delete(&key).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(source) => return Err(LakeError::store(key, source)),
        }
    }
    Ok(Retried::Taken)
}
