//! A landed batch, read and held against its key; and when it landed, which is what its readings' times are held against.
//!
//! A small file may become very much in memory. What would take more than [`DECODED_AHEAD_MAX`] is left as it came until
//! its turn, so that what is read ahead is bounded, whatever was sent.

use bytes::Bytes;
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

/// A batch that would take more bytes than this in memory is decoded when it is its turn, and not before.
const DECODED_AHEAD_MAX: u64 = 4 << 20;

/// What lay under a key, and when it landed by the store's clock, in microseconds since 1970.
#[derive(Debug)]
pub(super) struct Read {
    found: Found,
    pub(super) landed_us: i64,
}

#[derive(Debug)]
enum Found {
    Decoded(Decoded),
    /// As it came.
    Large(Bytes),
}

impl Read {
    /// The batch.
    pub(super) async fn decoded(self, (source, epoch): &Stream, bounds: Bounds) -> Decoded {
        match self.found {
            Found::Decoded(decoded) => decoded,
            Found::Large(bytes) => decode(bytes, (source, *epoch, bounds)).await,
        }
    }
}

/// Reads a landed batch, and decodes it if that takes little memory.
pub(super) async fn read(lake: &Lake, (source, epoch): &Stream, bounds: Bounds) -> Result<Read, LakeError> {
    let key = Landed::Batch(*epoch, bounds).key(source);
    let found = match lake.objects().get(&key).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(Read { found: Found::Decoded(Decoded::Gone), landed_us: 0 }),
        Err(source) => return Err(LakeError::store(&key, source)),
    };
    let (landed_us, size) = (found.meta.last_modified.timestamp_micros(), found.meta.size);
    if size > BATCH_BYTES_MAX {
        let decoded = Decoded::Bad(format!("it has {size} bytes, more than {BATCH_BYTES_MAX}"));
        return Ok(Read { found: Found::Decoded(decoded), landed_us });
    }
    let bytes = found.bytes().await.map_err(|source| LakeError::store(&key, source))?;
    // What claims nonsense is refused by decoding it.
    let is_large = batch::decoded_bytes(&bytes).is_ok_and(|bytes| bytes > DECODED_AHEAD_MAX);
    let found =
        if is_large { Found::Large(bytes) } else { Found::Decoded(decode(bytes, (source, *epoch, bounds)).await) };
    Ok(Read { found, landed_us })
}

/// Decodes a batch that lies, or lay, under this source's, epoch's and numbers' key.
pub(crate) async fn decode(
    bytes: Bytes,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use object_store::memory::InMemory;
    use tjern_readings::reading::Reading;
    use tjern_readings::sensor::Epoch;
    use tjern_readings::store::Store;

    use super::*;

    /// A few kilobytes that a gateway sent after a year without a line, the same value over and over: sixteen such files,
    /// decoded ahead, ended the pipeline and every start after it.
    #[tokio::test]
    async fn what_becomes_much_in_memory_is_not_decoded_before_its_turn() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let lake = Lake::over(Store::over(objects, "s3://city/lake".parse().expect("a lake")));
        let stream: Stream = ("landfall-01".parse().expect("valid"), Epoch::from_bytes([1; 16]));
        for (count, is_large) in [(1_000, false), (150_000, true)] {
            let readings: Vec<Reading> = (0..count)
                .map(|number| Reading::of("tarn/level".parse().expect("valid"), number * 1_000_000, 10.0))
                .collect();
            let (bytes, batch) = batch::encode(&stream.0, stream.1, 1, &readings, None).expect("encoded");
            let bounds = batch.header.bounds;
            let key = Landed::Batch(stream.1, bounds).key(&stream.0);
            lake.objects().put(&key, bytes.to_vec().into()).await.expect("put");
            let read = read(&lake, &stream, bounds).await.expect("read");
            assert_eq!(matches!(read.found, Found::Large(_)), is_large, "{count} rows of {} bytes", bytes.len());
            let Decoded::Good(batch) = read.decoded(&stream, bounds).await else { panic!("a good batch") };
            assert_eq!(batch.rows.num_rows() as i64, count);
        }
    }
}
