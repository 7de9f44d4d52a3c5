//! A landed batch, read and held against its key; and when it landed, which is what its readings' times are held against.

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

/// What lay under a key, and when it landed by the store's clock, in microseconds since 1970.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) decoded: Decoded,
    pub(super) landed_us: i64,
}

/// Reads a landed batch.
pub(super) async fn read(lake: &Lake, (source, epoch): &Stream, bounds: Bounds) -> Result<Read, LakeError> {
    let key = Landed::Batch(*epoch, bounds).key(source);
    let found = match lake.objects().get(&key).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(Read { decoded: Decoded::Gone, landed_us: 0 }),
        Err(source) => return Err(LakeError::store(&key, source)),
    };
    let (landed_us, size) = (found.meta.last_modified.timestamp_micros(), found.meta.size);
    if size > BATCH_BYTES_MAX {
        let decoded = Decoded::Bad(format!("it has {size} bytes, more than {BATCH_BYTES_MAX}"));
        return Ok(Read { decoded, landed_us });
    }
    let bytes = found.bytes().await.map_err(|source| LakeError::store(&key, source))?;
    Ok(Read { decoded: decode(bytes, (source, *epoch, bounds)).await, landed_us })
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
