//! Big objects, which are put in parts: there as a whole or not at all.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use tjern_readings::store::Store;

use super::Bench;

/// The least that a store takes as a part that is not the last.
const PART_BYTES: usize = 5 << 20;

/// Bytes that tell where they belong.
fn part(number: u8, length: usize) -> Bytes {
    (0..length).map(|place| number.wrapping_mul(31).wrapping_add((place % 251) as u8)).collect()
}

/// Nobody sees a part of an object, and its parts are in their order.
pub(super) async fn appear_at_once_and_whole(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "parts");
    let key = bench.key("one");
    let mut upload = bench.objects.put_multipart(&key).await.expect("begun");
    let parts = [part(1, PART_BYTES), part(2, PART_BYTES), part(3, 1_000)];
    for part in &parts {
        upload.put_part(part.clone().into()).await.expect("put");
    }
    assert!(matches!(bench.objects.head(&key).await, Err(Error::NotFound { .. })), "{name}: seen before it is whole");
    assert_eq!(bench.keys(&Path::from("parts")).await.len(), 0, "{name}: listed before it is whole");
    upload.complete().await.expect("completed");
    let whole = bench.objects.get(&key).await.expect("there").bytes().await.expect("read");
    assert!(whole == parts.concat(), "{name}: {} bytes that are not what was put", whole.len());
    let across = PART_BYTES as u64 - 2..PART_BYTES as u64 + 2;
    let piece = bench.objects.get_range(&key, across.clone()).await.expect("read");
    assert!(piece == whole.slice(across.start as usize..across.end as usize), "{name}: across two parts");
    bench.clear().await;
}

/// A writer that gives up leaves no object.
pub(super) async fn leave_nothing_when_given_up(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "given-up");
    let key = bench.key("one");
    let mut upload = bench.objects.put_multipart(&key).await.expect("begun");
    upload.put_part(part(1, 1_000).into()).await.expect("put");
    match upload.abort().await {
        // Azure forgets parts by itself.
        Ok(()) | Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {}
        Err(error) => panic!("{name}: cannot give up: {error:?}"),
    }
    assert_eq!(bench.keys(&Path::from("given-up")).await.len(), 0, "{name}");
}
