//! What nobody can read as a batch: whether a sensor is named in its bytes, whatever they are.
//!
//! The name is looked for in the bytes as they are and, as far as Arrow's reader comes, in those of its columns once they are
//! decompressed. A name that begins with another is taken for it (`tarn/level_max` for `tarn/level`): texts stand in a
//! column one after the other, and nothing says where one ends.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayData};
use arrow::ipc::reader::StreamReader;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use tjern_lake::{Lake, LakeError};
use tjern_readings::batch;
use tokio::sync::Semaphore;

use super::known::Erasures;
use super::record::Erasure;
use crate::ingest::BATCH_BYTES_MAX;

/// So much of a larger one is looked through at once, on a thread of its own.
const PIECE_BYTES: usize = 4 << 20;

/// A small object may become much in memory, and several are looked at at once.
static UNPACKED_ONE_BY_ONE: Semaphore = Semaphore::const_new(1);

/// The erasures whose sensors are named in an object; none where it is not there.
pub(super) async fn named_in(
    lake: &Lake,
    key: &Path,
    erasures: &Erasures,
) -> Result<Option<BTreeSet<String>>, LakeError> {
    let failed = |source| LakeError::store(key, source);
    let found = match lake.objects().get(key).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let all = erasures.all().to_vec();
    if found.meta.size <= BATCH_BYTES_MAX {
        let bytes = found.bytes().await.map_err(failed)?;
        return Ok(Some(named(bytes, all).await));
    }
    let all = Arc::new(all);
    let longest = all.iter().map(|erasure| erasure.sensor.as_str().len()).max().unwrap_or_default();
    let (mut pieces, mut ids, mut piece) = (found.into_stream(), BTreeSet::new(), Vec::new());
    let mut is_end = false;
    while !is_end {
        let next = pieces.try_next().await.map_err(failed)?;
        is_end = next.is_none();
        piece.extend_from_slice(&next.unwrap_or_default());
        if piece.len() < PIECE_BYTES && !is_end {
            continue;
        }
        // A name may begin in one piece and end in the next.
        let kept = piece[piece.len() - piece.len().min(longest)..].to_vec();
        ids.extend(plain(std::mem::replace(&mut piece, kept).into(), Arc::clone(&all)).await);
    }
    Ok(Some(ids))
}

/// The erasures whose sensors are named in these bytes as they are: all of them where nobody could look.
async fn plain(bytes: bytes::Bytes, all: Arc<Vec<Erasure>>) -> BTreeSet<String> {
    let own = Arc::clone(&all);
    let looked = tokio::task::spawn_blocking(move || those_in(&bytes, &own).collect()).await;
    looked.unwrap_or_else(|_| all.iter().map(|erasure| erasure.id.clone()).collect())
}

/// The erasures whose sensors are named in these bytes.
pub(super) async fn named(bytes: bytes::Bytes, all: Vec<Erasure>) -> BTreeSet<String> {
    // A hostile file may make a reader panic: what was found in the bytes as they are was found.
    let plain = plain(bytes.clone(), Arc::new(all.clone())).await;
    let _alone = UNPACKED_ONE_BY_ONE.acquire().await;
    let unpacked = tokio::task::spawn_blocking(move || in_columns(&bytes, &all)).await.unwrap_or_default();
    plain.into_iter().chain(unpacked).collect()
}

fn those_in<'a>(bytes: &'a [u8], all: &'a [Erasure]) -> impl Iterator<Item = String> + 'a {
    let holds = move |name: &[u8]| bytes.windows(name.len()).any(|piece| piece == name);
    all.iter().filter(move |erasure| holds(erasure.sensor.as_str().as_bytes())).map(|erasure| erasure.id.clone())
}

fn in_columns(bytes: &[u8], all: &[Erasure]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // What claims more than a batch may have is not decompressed.
    if batch::decoded_bytes(bytes).is_err() {
        return found;
    }
    let Ok(reader) = StreamReader::try_new(Cursor::new(bytes), None) else { return found };
    for rows in reader.map_while(Result::ok) {
        for column in rows.columns() {
            in_data(&column.to_data(), all, &mut found);
        }
    }
    found
}

fn in_data(data: &ArrayData, all: &[Erasure], found: &mut BTreeSet<String>) {
    for buffer in data.buffers() {
        found.extend(those_in(buffer.as_slice(), all));
    }
    data.child_data().iter().for_each(|child| in_data(child, all, found));
}
