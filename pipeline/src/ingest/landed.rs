//! A landed batch, read and held against its key.

use object_store::{Error, ObjectStoreExt};
use tjern_lake::{Lake, LakeError};
use tjern_readings::batch::{self, Batch};
use tjern_readings::keys::{Bounds, Landed};

use super::BATCH_BYTES_MAX;
use super::landing::Stream;

/// What a landed object is when one looks into it.
#[derive(Debug)]
pub(crate) enum Decoded {
    Good(Box<Batch>),
    /// And why.
    Bad(String),
    Gone,
}

/// Reads a landed batch.
pub(super) async fn read(lake: &Lake, (source, epoch): &Stream, bounds: Bounds) -> Result<Decoded, LakeError> {
    let key = Landed::Batch(*epoch, bounds).key(source);
    let bytes = match lake.objects().get(&key).await {
        Ok(found) if found.meta.size > BATCH_BYTES_MAX => {
            return Ok(Decoded::Bad(format!("it has {} bytes, more than {BATCH_BYTES_MAX}", found.meta.size)));
        }
        Ok(found) => found.bytes().await.map_err(|source| LakeError::store(&key, source))?,
        Err(Error::NotFound { .. }) => return Ok(Decoded::Gone),
        Err(source) => return Err(LakeError::store(&key, source)),
    };
    Ok(decode(bytes, (source, *epoch, bounds)).await)
}

/// Decodes a batch that lies, or lay, under this source's, epoch's and numbers' key.
pub(crate) async fn decode(
    bytes: bytes::Bytes,
    place: (&tjern_readings::sensor::SourceName, tjern_readings::sensor::Epoch, Bounds),
) -> Decoded {
    // A hostile file may make a decoder panic; that is this batch's trouble and nobody else's.
    match tokio::task::spawn_blocking(move || batch::decode(&bytes)).await {
        Err(_) => Decoded::Bad("it made the decoder panic".to_owned()),
        Ok(Err(error)) => Decoded::Bad(error.to_string()),
        Ok(Ok(batch)) => {
            let header = &batch.header;
            if (&header.source, header.epoch, header.bounds) == place {
                return Decoded::Good(Box::new(batch));
            }
            let named = Landed::Batch(header.epoch, header.bounds).key(&header.source);
            Decoded::Bad(format!("its metadata says that it is `{named}`"))
        }
    }
}
