//! Giving what lies in quarantine another try: after an update that reads tomorrow's format, or once somebody has
//! put a wrong clone right.
//!
//! An object goes back to where it had landed, ingest looks at everything, and only if it was not set aside again
//! it leaves the quarantine. Whatever fails half way leaves it in both places, and trying again does no harm.
//!
//! One that holds readings which were erased leaves the landing zone as soon as its other readings are in the table, or it
//! is refused: what became of it is asked of the table, and it does not stay here either.

use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tjern_lake::{Lake, LakeError};
use tjern_readings::keys::Landed;

use super::kept::{Kept, look};
use crate::ingest::{Decoded, IngestError, IngestSettings, Remains, decode, ingest, remains_of};

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// It is back in the landing zone: ingested, or waiting for what comes before it. Or its readings are in the table
    /// but for some that were erased, and so it lies nowhere any more.
    Taken,
    /// It stays in quarantine, and why.
    Refused(String),
    /// It was refused, and why, and holds readings that were erased: it lies nowhere any more.
    Removed(String),
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
            None => Box::pin(settle(lake, &kept)).await?,
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

/// Ingest has looked at it: what it set aside again is not in the landing zone any more, nor what holds erased readings.
async fn settle(lake: &Lake, kept: &Kept) -> Result<Retried, IngestError> {
    let objects = lake.objects();
    let landed = Path::from(kept.landed.as_str());
    let became = match objects.head(&landed).await {
        Ok(_) => Retried::Taken,
        Err(Error::NotFound { .. }) => match looked_into(lake, kept).await? {
            Remains::NothingErased => {
                let why = "ingest set it aside again: what it says was ingested before, with other readings".to_owned();
                return Ok(Retried::Refused(why));
            }
            Remains::Stored => Retried::Taken,
            Remains::Refused => Retried::Removed(
                "what it says was ingested before, with other readings; it holds readings that were erased, and was removed"
                    .to_owned(),
            ),
        },
        Err(source) => return Err(LakeError::store(landed, source).into()),
    };
    for key in [kept.reason_key(), kept.key()] {
        match objects.delete(&key).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(source) => return Err(LakeError::store(key, source).into()),
        }
    }
    Ok(became)
}

/// What is left to be said of an object that ingest could read and that does not lie in the landing zone.
async fn looked_into(lake: &Lake, kept: &Kept) -> Result<Remains, IngestError> {
    let key = kept.key();
    let failed = |source| LakeError::store(&key, source);
    let bytes = lake.objects().get(&key).await.map_err(failed)?.bytes().await.map_err(failed)?;
    if let Some((source, Landed::Batch(epoch, bounds))) = Landed::parse(&Path::from(kept.landed.as_str()))
        && let Decoded::Good(batch) = decode(bytes, (&source, epoch, bounds)).await
    {
        return remains_of(lake, &batch).await;
    }
    Ok(Remains::NothingErased)
}
