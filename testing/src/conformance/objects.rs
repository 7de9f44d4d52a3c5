//! Single objects: created once, read as they were written, copied, removed.

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use tjern_readings::clock::Clock;
use tjern_readings::keys::{self, Bounds, Landed};
use tjern_readings::sensor::{Epoch, SourceName};
use tjern_readings::store::Store;

use super::{Bench, Habits};

/// How many try at once to create one object.
const RIVALS: usize = 16;

/// How far a store's clock and ours may lie apart.
const CLOCK_TOLERANCE_US: i64 = 5 * 60 * 1_000_000;

/// Two gateways of one name, two pipelines at one log: of many creates of one key one is first, and the
/// others are told so.
pub(super) async fn are_created_once(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "created");
    let key = bench.key("one");
    let create = |text: String| {
        let (objects, key) = (store.objects(), key.clone());
        async move { objects.put_opts(&key, text.into_bytes().into(), PutMode::Create.into()).await }
    };
    let puts = join_all((0..RIVALS).map(|rival| create(format!("rival {rival}")))).await;
    let won: Vec<usize> = (0..RIVALS).filter(|rival| puts[*rival].is_ok()).collect();
    for lost in puts.iter().filter_map(|put| put.as_ref().err()) {
        assert!(matches!(lost, Error::AlreadyExists { .. }), "{name}: a create was refused in other words: {lost:?}");
    }
    assert_eq!(won.len(), 1, "{name}: of {RIVALS} who created one object {won:?} were told that it is theirs");
    assert_eq!(bench.text(&key).await, format!("rival {}", won[0]), "{name}: another's object stands there");
    let again = create("later".to_owned()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{name}: {again:?}");
    assert_eq!(bench.text(&key).await, format!("rival {}", won[0]), "{name}: a refused create changed the object");
    let proof = store.prove_create_only(&bench.key("proof")).await;
    assert!(proof.is_ok(), "{name}: {proof:?}");
    bench.clear().await;
}

/// What was put is there at once, for a reader and for a listing, and an overwrite replaces all of it.
pub(super) async fn are_read_as_they_were_written(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "written");
    let key = bench.key("one");
    for text in ["a longer text than the next one", "short", ""] {
        let put = bench.objects.put(&key, PutPayload::from_static(text.as_bytes())).await.expect("put");
        assert_eq!(bench.text(&key).await, text, "{name}: not what was put last");
        let meta = bench.objects.head(&key).await.expect("there");
        assert_eq!((meta.size, &meta.location), (text.len() as u64, &key), "{name}");
        assert!(put.e_tag.is_none() || put.e_tag == meta.e_tag, "{name}: {:?} and {:?}", put.e_tag, meta.e_tag);
        assert_eq!(bench.keys(&Path::from("written")).await, ["written/one"], "{name}: a listing is behind");
    }
    for key in ["written/none", "written/on", "none/one"] {
        let missing = bench.objects.get(&Path::from(key)).await.map(|found| found.meta);
        assert!(matches!(missing, Err(Error::NotFound { .. })), "{name}: `{key}`: {missing:?}");
        let missing = bench.objects.head(&Path::from(key)).await;
        assert!(matches!(missing, Err(Error::NotFound { .. })), "{name}: `{key}`: {missing:?}");
    }
    bench.clear().await;
}

/// A reader of Parquet asks for the end first, and then for some pieces.
pub(super) async fn are_read_in_ranges(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "ranges");
    let key = bench.key("one");
    bench.put("one", "0123456789").await;
    let ask = async |range: GetRange| {
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let found = bench.objects.get_opts(&key, options).await?;
        assert_eq!(found.meta.size, 10, "{name}: the size is that of the whole");
        let range = found.range.clone();
        Ok::<_, Error>((range, String::from_utf8(found.bytes().await?.to_vec()).expect("text")))
    };
    for (range, wanted, text) in [
        (GetRange::Bounded(0..1), 0..1, "0"),
        (GetRange::Bounded(3..7), 3..7, "3456"),
        (GetRange::Bounded(8..20), 8..10, "89"),
        (GetRange::Offset(6), 6..10, "6789"),
    ] {
        let got = ask(range.clone()).await.unwrap_or_else(|error| panic!("{name}: {range:?}: {error}"));
        assert_eq!(got, (wanted, text.to_owned()), "{name}: {range:?}");
    }
    match ask(GetRange::Suffix(3)).await {
        Ok(got) => assert_eq!(got, (7..10, "789".to_owned()), "{name}: the last three"),
        // Azure has no such range; readers then ask for the size first.
        Err(error) => assert!(matches!(error, Error::NotSupported { .. }), "{name}: {error:?}"),
    }
    assert!(ask(GetRange::Bounded(10..12)).await.is_err(), "{name}: nothing lies past the end");
    let pieces = bench.objects.get_ranges(&key, &[0..2, 4..5, 7..10]).await.expect("read");
    let pieces: Vec<_> = pieces.iter().map(|piece| std::str::from_utf8(piece).expect("text")).collect();
    assert_eq!(pieces, ["01", "4", "789"], "{name}");
    bench.clear().await;
}

/// A hole is waited for, and what landed is kept, by the time of the object.
pub(super) async fn have_the_time_of_their_put(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "times");
    bench.put("one", "x").await;
    let now_us = Clock::system().now_us();
    let of_head = bench.objects.head(&bench.key("one")).await.expect("there").last_modified;
    let listed: Vec<_> = bench.objects.list(Some(&Path::from("times"))).try_collect().await.expect("listed");
    for modified in [of_head, listed[0].last_modified] {
        let apart_us = (modified.timestamp_micros() - now_us).abs();
        assert!(apart_us < CLOCK_TOLERANCE_US, "{name}: the object is of {modified}, {apart_us} us from now");
    }
    bench.clear().await;
}

/// A batch that is too big to be held goes to quarantine as a copy that the store makes.
pub(super) async fn are_copied(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "copies");
    bench.put("one", "the same").await;
    bench.objects.copy(&bench.key("one"), &bench.key("other")).await.expect("copied");
    assert_eq!(bench.text(&bench.key("other")).await, "the same", "{name}");
    assert_eq!(bench.text(&bench.key("one")).await, "the same", "{name}: a copy moved its original");
    let missing = bench.objects.copy(&bench.key("none"), &bench.key("other")).await;
    assert!(missing.is_err(), "{name}: nothing was copied, which was not said");
    bench.clear().await;
}

/// The keys of a lake, with the characters that sources, releases and Delta bring.
pub(super) async fn keep_our_names(name: &str, store: &Store) {
    let bench = Bench::new(name, store, "names");
    let (epoch, bounds) = (Epoch::from_bytes([0xab; 16]), Bounds::new(1, 360).expect("in order"));
    let source = |text: &str| text.parse::<SourceName>().expect("a source");
    let batch = Landed::Batch(epoch, bounds).key(&source("import:history"));
    let names = [
        batch.to_string(),
        keys::quarantine_reason(&batch).to_string(),
        format!("{}.1782885600000000.reason.json", keys::quarantine(&batch)),
        Landed::Closed(epoch).key(&source("manual:lifeguard")).to_string(),
        keys::release_file("bathing", "2026-07-01T06:00:00Z", "data_2026-07.csv").to_string(),
        "tables/readings/_delta_log/00000000000000000000.json".to_owned(),
        "tables/readings/_delta_log/00000000000000000050.checkpoint.0000000001.0000000002.parquet".to_owned(),
        "tables/readings/part-00000-0f4e-c000.snappy.parquet".to_owned(),
        "foreign/day=2026-07-01/a b+c&d=e,f;g@h!i(j)'k~l.txt".to_owned(),
        "foreign/blåbær-ærøå.csv".to_owned(),
    ];
    let mut wanted: Vec<String> = names.iter().map(|key| bench.key(key).to_string()).collect();
    for key in &names {
        bench.put(key, "x").await;
        assert_eq!(bench.text(&bench.key(key)).await, "x", "{name}: `{key}`");
    }
    wanted.sort();
    assert_eq!(bench.keys(&Path::from("names")).await, wanted, "{name}: names do not come back as they were");
    bench.clear().await;
}

/// Removed is removed, one by one and many at once; what else a store does is told.
pub(super) async fn are_removed(name: &str, store: &Store) -> Habits {
    let bench = Bench::new(name, store, "removed");
    for tail in ["a", "b", "c", "d"] {
        bench.put(tail, "x").await;
    }
    bench.objects.delete(&bench.key("a")).await.expect("deleted");
    assert!(matches!(bench.objects.head(&bench.key("a")).await, Err(Error::NotFound { .. })), "{name}");
    let two = stream::iter(["b", "c"].map(|tail| Ok(bench.key(tail)))).boxed();
    let removed: Vec<Path> = bench.objects.delete_stream(two).try_collect().await.expect("deleted");
    assert_eq!(removed.len(), 2, "{name}");
    assert_eq!(bench.keys(&Path::from("removed")).await, ["removed/d"], "{name}");
    let misses_what_it_deletes = match bench.objects.delete(&bench.key("a")).await {
        Ok(()) => false,
        Err(Error::NotFound { .. }) => true,
        Err(error) => panic!("{name}: removing what is not there: {error:?}"),
    };
    let replaces_known_versions = replaces_known_versions(&bench).await;
    bench.clear().await;
    Habits { misses_what_it_deletes, replaces_known_versions }
}

/// A store that offers it refuses the wrong version and takes the right one.
async fn replaces_known_versions(bench: &Bench<'_>) -> bool {
    let key = bench.key("versions");
    let first = bench.objects.put(&key, PutPayload::from_static(b"first")).await.expect("put");
    let update = |version: UpdateVersion| PutOptions::from(PutMode::Update(version));
    let known = UpdateVersion { e_tag: first.e_tag, version: first.version };
    match bench.objects.put_opts(&key, PutPayload::from_static(b"second"), update(known.clone())).await {
        Err(Error::NotImplemented { .. }) => return false,
        result => assert!(result.is_ok(), "{}: {result:?}", bench.name),
    }
    let stale = bench.objects.put_opts(&key, PutPayload::from_static(b"third"), update(known)).await;
    assert!(matches!(stale, Err(Error::Precondition { .. })), "{}: {stale:?}", bench.name);
    assert_eq!(bench.text(&key).await, "second", "{}", bench.name);
    true
}
