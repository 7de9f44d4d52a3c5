//! What is in an object that may be a batch.
//!
//! Several are looked into at once, within bounds ([`Room`]): so many bytes as they lie in the store, and so many once they are
//! decoded, which a few kilobytes may become. One that is larger by itself is alone. What stays of a batch is which erasures it
//! is of, and how many readings.

use std::collections::BTreeSet;

use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use tjern_lake::{Lake, LakeError};
use tjern_readings::batch;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::known::Erasures;
use super::raw;
use crate::ingest::BATCH_BYTES_MAX;

/// How many bytes are read at once, as they lie in the store.
const STORED_BYTES_MAX: u64 = 64 << 20;

/// How many bytes what is being decoded takes at once.
const DECODED_BYTES_MAX: u64 = 128 << 20;

/// In how many times its columns' bytes a batch is decoded, about: as it is decompressed, held against the contract, handed out.
const TIMES: u64 = 3;

/// In which portions bytes are counted.
const PORTION_BYTES: u64 = 1 << 10;

/// What is in an object.
pub(super) enum Inside {
    /// A batch: the erasures that cover readings of it, and how many those are.
    Batch { ids: BTreeSet<String>, rows: usize },
    /// Nobody can read it; the erasures whose sensors are named in its bytes.
    Unreadable(BTreeSet<String>),
}

/// The memory for objects that are looked into side by side.
///
/// Who has room to decode waits for nothing, and room is taken in one order: nobody waits for ever.
#[derive(Debug)]
pub(super) struct Room {
    stored: Share,
    decoded: Share,
}

#[derive(Debug)]
struct Share {
    portions: u32,
    left: Semaphore,
}

impl Default for Room {
    fn default() -> Self {
        Self { stored: Share::of(STORED_BYTES_MAX), decoded: Share::of(DECODED_BYTES_MAX) }
    }
}

impl Share {
    fn of(bytes: u64) -> Self {
        let portions = portions(bytes);
        Self { portions, left: Semaphore::new(usize::try_from(portions).unwrap_or(Semaphore::MAX_PERMITS)) }
    }

    /// Waits until there is room for so many bytes; for more than there ever is, until all of it is free.
    async fn take(&self, bytes: u64) -> SemaphorePermit<'_> {
        let wanted = portions(bytes).min(self.portions);
        self.left.acquire_many(wanted).await.expect("nobody closes it")
    }
}

fn portions(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PORTION_BYTES)).unwrap_or(u32::MAX)
}

/// Looks into an object that was listed with so many bytes, once there is room for it; none where it is not there any more.
pub(super) async fn look_into(
    lake: &Lake,
    (key, bytes): (&Path, u64),
    erasures: &Erasures,
    room: &Room,
) -> Result<Option<Inside>, LakeError> {
    let failed = |source| LakeError::store(key, source);
    // Before it is asked for: no store is kept waiting with half an answer.
    let _stored = room.stored.take(bytes).await;
    let bytes = match lake.objects().get(key).await {
        Ok(found) if found.meta.size > BATCH_BYTES_MAX => {
            return Ok(raw::named_in(lake, key, erasures).await?.map(Inside::Unreadable));
        }
        Ok(found) => found.bytes().await.map_err(failed)?,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    // What claims nonsense is refused by decoding it.
    let _decoded = room.decoded.take(TIMES * batch::decoded_bytes(&bytes).unwrap_or(0)).await;
    // A hostile file may make a decoder panic: then nobody can read it.
    let copy = bytes.clone();
    let decoded = tokio::task::spawn_blocking(move || batch::decode(&copy)).await;
    Ok(Some(match decoded.ok().and_then(Result::ok) {
        Some(batch) => {
            Inside::Batch { ids: erasures.of_batch(&batch.rows).unwrap_or_default(), rows: erasures.count(&batch.rows) }
        }
        None => Inside::Unreadable(raw::named(bytes, erasures.all().to_vec()).await),
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::StreamExt;

    use super::*;

    /// How much sixteen that ask at once had at the most in a share, with the largest that was alone left out.
    async fn most_together(share: &Share, sizes: &[u64]) -> u64 {
        let (bytes_now, count_now, most) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let look = |bytes: u64| {
            let (bytes_now, count_now, most) = (&bytes_now, &count_now, &most);
            async move {
                let _room = share.take(bytes).await;
                let in_hand = bytes_now.fetch_add(bytes, Ordering::SeqCst) + bytes;
                if count_now.fetch_add(1, Ordering::SeqCst) > 0 {
                    most.fetch_max(in_hand, Ordering::SeqCst);
                }
                tokio::task::yield_now().await;
                bytes_now.fetch_sub(bytes, Ordering::SeqCst);
                count_now.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let done = futures::stream::iter(sizes.iter().copied()).map(look).buffered(16).count().await;
        assert_eq!(done, sizes.len(), "everybody comes to the end");
        most.load(Ordering::SeqCst)
    }

    /// Sixteen batches of 300 MB each were decoded at once, on a server with less. The canary is a share in which there is room for
    /// all of them.
    #[tokio::test]
    async fn what_is_let_in_together_keeps_within_its_bound_and_what_is_larger_is_alone() {
        let bound = 8 * PORTION_BYTES;
        let sizes: Vec<u64> = (0..200).map(|number| (1 + number * 5 % 24) * PORTION_BYTES).collect();
        assert!(sizes.iter().any(|bytes| *bytes > bound));
        let most = most_together(&Share::of(bound), &sizes).await;
        assert!((1..=bound).contains(&most), "{most} bytes of {bound}");
        assert!(
            most_together(&Share::of(1 << 30), &sizes).await > 4 * bound,
            "the measure does not see what is too much"
        );
    }
}
