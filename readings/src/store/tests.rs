//! What a store must keep whatever is under it, and what a lake's URL may be.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::*;

fn put_payload(text: &'static str) -> PutPayload {
    PutPayload::from_static(text.as_bytes())
}

async fn text_at(objects: &dyn ObjectStore, key: &Path) -> String {
    let result = objects.get_opts(key, object_store::GetOptions::default()).await.expect("it is there");
    String::from_utf8(result.bytes().await.expect("readable").to_vec()).expect("text")
}

async fn conforms(store: &Store) {
    let objects = store.objects();
    let key = Path::from("landing/landfall-01/one.arrow");
    objects.put_opts(&key, put_payload("first"), PutMode::Create.into()).await.expect("nothing is there yet");
    let again = objects.put_opts(&key, put_payload("second"), PutMode::Create.into()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    assert_eq!(text_at(&objects, &key).await, "first");

    objects.put(&key, put_payload("third")).await.expect("an overwrite");
    assert_eq!(text_at(&objects, &key).await, "third");

    let mut upload = objects.put_multipart(&Path::from("open/parts")).await.expect("started");
    upload.put_part(put_payload("one, ")).await.expect("put");
    upload.put_part(put_payload("two")).await.expect("put");
    upload.complete().await.expect("completed");
    assert_eq!(text_at(&objects, &Path::from("open/parts")).await, "one, two");

    let keys: Vec<_> = objects.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.expect("listed");
    assert_eq!(keys, ["landing/landfall-01/one.arrow", "open/parts"], "nothing under way is listed");
    for number in (0..50).rev() {
        objects.put(&Path::from(format!("log/{number:020}.json")), put_payload("x")).await.expect("put");
    }
    let offset = Path::from(format!("log/{:020}.json", 9));
    let listed = objects.list_with_offset(Some(&Path::from("log")), &offset);
    let keys: Vec<_> = listed.map_ok(|meta| meta.location.to_string()).try_collect().await.expect("listed");
    assert_eq!(keys.len(), 40);
    assert!(keys.is_sorted(), "a log is read in the order of its entries");
    objects.delete(&key).await.expect("deleted");
    assert!(matches!(objects.head(&key).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = LakeUrl::folder(&folder.path().join("not/there/yet")).expect("absolute");
    conforms(&Store::open(&url).expect("opened")).await;
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&Store::open(&"memory:///".parse().expect("a lake")).expect("opened")).await;
}

/// Two gateways with one name must not overwrite one another's batch: of many puts of one key at
/// once, one is first.
#[tokio::test]
async fn of_many_creators_one_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&LakeUrl::folder(folder.path()).expect("absolute")).expect("opened");
    let key = Path::from("landing/x");
    let puts = (0..32).map(|_| {
        let (objects, key) = (store.objects(), key.clone());
        async move { objects.put_opts(&key, put_payload("mine"), PutMode::Create.into()).await.is_ok() }
    });
    let won = futures::future::join_all(puts).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
    for (place, files) in [("landing", 1), (".staged", 0)] {
        let left: Vec<_> = std::fs::read_dir(folder.path().join(place)).expect("a folder").collect();
        assert_eq!(left.len(), files, "files under way were left behind in {place}");
    }
}

/// A process that is killed while it writes leaves its file; somebody has to take it away.
#[tokio::test]
async fn what_a_killed_process_left_is_removed_a_day_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let staged = folder.path().join(".staged");
    std::fs::create_dir(&staged).expect("a folder");
    for (name, age_s) in [("1#1", 2 * 86_400), ("1#2", 60)] {
        let file = std::fs::File::create(staged.join(name)).expect("a file");
        let now_us = u64::try_from(crate::clock::Clock::system().now_us()).expect("after 1970");
        let then =
            std::time::UNIX_EPOCH + std::time::Duration::from_micros(now_us) - std::time::Duration::from_secs(age_s);
        file.set_modified(then).expect("set");
    }
    let store = Store::open(&LakeUrl::folder(folder.path()).expect("absolute")).expect("opened");
    assert!(!staged.join("1#1").exists() && staged.join("1#2").exists());
    let listed: Vec<_> = store.objects().list(None).try_collect().await.expect("listed");
    assert_eq!(listed.len(), 0, "{listed:?}");
}

#[test]
fn a_lakes_url_is_absolute_and_holds_no_secret() {
    for text in ["file:///var/lib/tjern/lake", "s3://bucket/prefix", "az://container/a/b", "gs://bucket", "memory:///"]
    {
        let url: LakeUrl = text.parse().expect(text);
        assert!(url.to_string().ends_with('/'), "{url}");
    }
    for text in ["", "lake", "/var/lake", "file://lake", "ftp://host/x", "s3:///prefix", "http://x/y"] {
        assert!(text.parse::<LakeUrl>().is_err(), "{text} was accepted");
    }
    let error = "s3://key:hunter2@bucket/x?secret=hunter2".parse::<LakeUrl>().expect_err("credentials");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
