//! Listings: complete, in the order of the keys, from an offset on, by folders.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tjern_readings::store::Store;

use super::Bench;

/// How many puts and deletes are under way at once.
const IN_FLIGHT: usize = 16;

/// How often many are removed until none is left.
const REMOVALS_MAX: usize = 5;

/// A Delta log is read in the order of its entries, and only what is new of it.
pub(super) async fn begin_after_an_offset_and_are_in_order(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "log");
    let entry = |number: usize| format!("_delta_log/{number:020}.json");
    for number in (0..30).rev() {
        bench.put(&entry(number), "x").await;
    }
    bench.put("_delta_log/_last_checkpoint", "x").await;
    bench.put("_delta_logs/stranger", "x").await;
    let folder = bench.key("_delta_log");
    let keys = bench.keys(&folder).await;
    assert_eq!(keys.len(), 31, "{name}: a folder's listing has what is in it, and not what is called alike: {keys:?}");
    assert!(keys.is_sorted(), "{name}: a log is read in the order of its entries: {keys:?}");
    let after = async |offset: Path| -> Vec<String> {
        let listed = bench.objects.list_with_offset(Some(&folder), &offset);
        listed.map_ok(|meta| meta.location.to_string()).try_collect().await.expect("listed")
    };
    let keys = after(bench.key(&entry(9))).await;
    assert_eq!(keys.len(), 21, "{name}: the offset itself is left out: {keys:?}");
    assert!(keys.is_sorted() && keys[0].ends_with("10.json"), "{name}: {keys:?}");
    let keys = after(bench.key("_delta_log/00000000000000000028.zzz")).await;
    assert_eq!(keys.len(), 2, "{name}: an offset need not be there: {keys:?}");
    assert_eq!(after(bench.key("_delta_log/zzz")).await.len(), 0, "{name}: nothing lies after the last");
    bench.clear().await;
}

/// Sources and epochs are found folder by folder.
pub(super) async fn show_folders(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "folders");
    for tail in ["a/1/x", "a/2/y", "a/z", "b/3", "c"] {
        bench.put(tail, "x").await;
    }
    let of = async |folder: &str| {
        let listed = bench.objects.list_with_delimiter(Some(&Path::from(folder))).await.expect("listed");
        let mut folders: Vec<_> = listed.common_prefixes.iter().map(Path::to_string).collect();
        let mut objects: Vec<_> = listed.objects.iter().map(|meta| meta.location.to_string()).collect();
        folders.sort();
        objects.sort();
        (folders.join(" "), objects.join(" "))
    };
    assert_eq!(of("folders").await, ("folders/a folders/b".to_owned(), "folders/c".to_owned()), "{name}");
    assert_eq!(of("folders/a").await, ("folders/a/1 folders/a/2".to_owned(), "folders/a/z".to_owned()), "{name}");
    assert_eq!(of("folders/none").await, (String::new(), String::new()), "{name}");
    bench.clear().await;
}

/// Stores list a thousand objects at a time: what comes after that is no less there.
pub(super) async fn have_more_than_a_page(name: &str, store: &Store, many: usize) {
    let bench = Bench::new(name, store, "many");
    let keys: Vec<Path> = (0..many).map(|number| bench.key(&format!("{:02}/{number:06}", number % 7))).collect();
    let puts = keys.iter().map(|key| bench.objects.put(key, PutPayload::from_static(b"x")));
    let put: Result<Vec<_>, _> = stream::iter(puts).buffer_unordered(IN_FLIGHT).try_collect().await;
    assert!(put.is_ok(), "{name}: {put:?}");
    let mut wanted: Vec<String> = keys.iter().map(Path::to_string).collect();
    wanted.sort();
    let listed = bench.keys(&Path::from("many")).await;
    assert_eq!(listed.len(), many, "{name}: a listing ends with its first page");
    assert_eq!(listed, wanted, "{name}");
    let folders = bench.objects.list_with_delimiter(Some(&Path::from("many"))).await.expect("listed");
    assert_eq!(folders.common_prefixes.len(), 7.min(many), "{name}");
    // A request that removes many is not repeated by its client; who cleans up comes again.
    for _ in 0..REMOVALS_MAX {
        let left = bench.keys(&Path::from("many")).await;
        let removing = left.into_iter().map(|key| Ok(Path::parse(key).expect("a key that was listed")));
        let removed: Result<Vec<Path>, _> =
            bench.objects.delete_stream(stream::iter(removing).boxed()).try_collect().await;
        match removed {
            Ok(_) => break,
            Err(error) => println!("{name}: removing many: {error}"),
        }
    }
    assert_eq!(bench.keys(&Path::from("many")).await.len(), 0, "{name}: many were not removed at once");
}
