//! Whatever brings erased readings again: they are left out, and do not stay.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tjern_lake::{Commit, Operation, Table, TableName};
use tjern_pipeline::erase::{erase, go_on};
use tjern_pipeline::ingest::{Ingester, open_runs};
use tjern_pipeline::quarantine::{Retried, list, retry};
use tjern_readings::batch::encode;
use tjern_readings::keys::{Landed, quarantine};

use crate::support::{EPOCH, HOUR_US, SETTINGS, source};
use crate::world::{FROM_US, GATEWAY, SENSOR, TO_US, World, half_a_day, request, time};

/// How many rows are there that may not be there.
async fn erased_rows(world: &World) -> String {
    let (from, to) = (time(FROM_US), time(TO_US));
    let sql = format!("SELECT count(*) FROM readings WHERE sensor = '{SENSOR}' AND time >= '{from}' AND time < '{to}'");
    world.place.ask(&sql).await
}

/// A lake with a batch after those that hold erased readings, erased to the end; and its objects before.
async fn erased() -> (World, Vec<(Path, bytes::Bytes)>) {
    let world = World::empty().await;
    let next = world.land(1, -2..4, true).await;
    world.land(next, [4], false).await;
    world.ingest().await;
    world.sum_up().await;
    let before = world.objects().await;
    let (_, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    assert_eq!(outcome.waits, []);
    assert_eq!(world.traces().await, []);
    (world, before)
}

/// A gateway that did not hear that its batches have landed sends them again: before the others left, and when
/// nothing of its epoch lies there any more.
#[tokio::test]
async fn a_late_upload_brings_nothing_back() {
    let (world, before) = erased().await;
    let others = world.others().await;
    let objects = world.place.store.inner();
    for emptied in [false, true] {
        for (key, bytes) in before.iter().filter(|(key, _)| key.as_ref().starts_with("landing/")) {
            if emptied {
                let _ = objects.delete(key).await;
            }
            if !emptied || key.as_ref().contains(&format!("{:020}-", 73)) {
                world.place.put(key, bytes.to_vec()).await;
            }
        }
        world.ingest().await;
        let outcome = go_on(&world.lake(), &world.settings(), false).await.expect("gone on");
        println!("{outcome:?}");
        assert_eq!((erased_rows(&world).await.as_str(), world.others().await), ("0", others.clone()));
        assert_eq!(world.place.keys("quarantine"), Vec::<String>::new());
        assert_eq!(world.traces().await, []);
    }
}

/// A gateway never heard that its batches had landed. They left the landing zone when their grace was over, then their
/// readings were erased, and nobody had to remember batches that were not there. Sent again, one alone or all of them, their
/// rows were known; their bytes lay in the landing zone for another grace.
#[tokio::test]
async fn a_batch_that_had_left_before_the_erasure_does_not_stay() {
    for first in [Some(73), None] {
        let world = World::empty().await;
        let next = world.land(1, -2..4, true).await;
        world.land(next, [4], false).await;
        world.ingest().await;
        world.sum_up().await;
        let before = world.objects().await;
        world.place.ahead(8 * 24 * HOUR_US);
        world.ingest().await;
        assert_eq!(world.place.keys("landing").len(), 1, "the newest");
        let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
        assert_eq!((outcome.done, outcome.landed), (vec![erasure.id], 0));
        assert_eq!(world.place.keys("erasures/landed"), Vec::<String>::new());
        let others = world.others().await;
        let is_sent = |key: &str| first.is_none_or(|first| key.contains(&format!("/{first:020}-")));
        let landed = before.iter().filter(|(key, _)| key.as_ref().starts_with("landing/") && is_sent(key.as_ref()));
        for (key, bytes) in landed {
            world.place.put(key, bytes.to_vec()).await;
        }
        assert!(!world.traces().await.is_empty());
        world.ingest().await;
        assert_eq!(world.traces().await, [], "sent again: {first:?}");
        assert_eq!((erased_rows(&world).await.as_str(), world.others().await), ("0", others));
        assert_eq!(world.place.keys("quarantine"), Vec::<String>::new());
        let left = if first.is_some() { 1 } else { 3 };
        assert_eq!(world.place.keys("landing").len(), left, "what holds nothing of it stays for its grace");
    }
}

/// A batch of tomorrow's format came after the erasure, so nobody could say that it holds erased readings. Tried again after
/// an update it was taken without them, and stayed in quarantine with them for ever: it was said to have been set aside.
#[tokio::test]
async fn what_is_tried_again_from_quarantine_does_not_stay_there() {
    let (world, _) = erased().await;
    let (readings, first) = (half_a_day(FROM_US + HOUR_US / 2, true), 1 + 36 * 6 + 24);
    let (bytes, batch) = encode(&source(GATEWAY), EPOCH, first, &readings, None).expect("encoded");
    let key = Landed::Batch(EPOCH, batch.header.bounds).key(&source(GATEWAY));
    world.place.put(&key, b"as yesterday's software saw it".to_vec()).await;
    world.ingest().await;
    let kept = list(&world.lake()).await.expect("listed");
    assert_eq!(kept.len(), 1);
    world.land(first + 36, [6], false).await;
    world.ingest().await;
    world.place.store.inner().put(&kept[0].key(), bytes.clone().into()).await.expect("put");
    let traces = world.traces().await;
    assert!(!traces.is_empty() && traces.iter().all(|(key, _)| key.starts_with("quarantine/")), "{traces:?}");
    let rows = world.others().await.split("; ").count();
    let done = retry(&world.lake(), &SETTINGS, kept.clone()).await.expect("tried");
    assert_eq!(done.into_iter().map(|(_, became)| became).collect::<Vec<_>>(), [Retried::Taken]);
    assert_eq!(world.traces().await, []);
    assert_eq!(world.place.keys("quarantine"), Vec::<String>::new());
    let others = world.others().await;
    assert_eq!((erased_rows(&world).await.as_str(), others.split("; ").count()), ("0", rows + 24));
    // Killed before it left the quarantine, and tried again.
    world.place.put(&kept[0].key(), bytes.to_vec()).await;
    let again = list(&world.lake()).await.expect("listed");
    let done = retry(&world.lake(), &SETTINGS, again).await.expect("tried");
    assert!(matches!(&done[..], [(_, Retried::Taken)]), "{done:?}");
    assert_eq!((world.traces().await, world.others().await), (vec![], others));
    assert_eq!(world.place.keys("quarantine"), Vec::<String>::new());
}

/// A clone's readings are not in the table, so it would be untrue that they were taken; they may not stay for all that.
#[tokio::test]
async fn a_refused_batch_with_erased_readings_is_told_as_such_and_goes() {
    let (world, _) = erased().await;
    let others = world.others().await;
    let clone = half_a_day(FROM_US + HOUR_US / 2, true);
    let (bytes, batch) = encode(&source(GATEWAY), EPOCH, 80, &clone, None).expect("encoded");
    let key = Landed::Batch(EPOCH, batch.header.bounds).key(&source(GATEWAY));
    world.place.put(&quarantine(&key), bytes.to_vec()).await;
    // One without erased readings stays, as ever.
    let innocent = half_a_day(FROM_US + HOUR_US / 2, false);
    let (bytes, batch) = encode(&source(GATEWAY), EPOCH, 120, &innocent, None).expect("encoded");
    let kept_key = quarantine(&Landed::Batch(EPOCH, batch.header.bounds).key(&source(GATEWAY)));
    world.place.put(&kept_key, bytes.to_vec()).await;
    let kept = list(&world.lake()).await.expect("listed");
    let notes = world.place.keys("erasures/landed");
    let done = retry(&world.lake(), &SETTINGS, kept).await.expect("tried");
    let [(_, Retried::Removed(why)), (_, Retried::Refused(_))] = &done[..] else { panic!("{done:?}") };
    assert!(why.contains("with other readings") && why.contains("erased"), "{why}");
    assert_eq!((world.traces().await, world.others().await), (vec![], others));
    let left: Vec<_> = list(&world.lake()).await.expect("listed").iter().map(|kept| kept.key()).collect();
    assert_eq!(left, [kept_key]);
    assert_eq!(world.place.keys("erasures/landed"), notes, "of what was refused nothing is remembered");
}

/// The same rows by another way: a file that was never imported, and the one that was.
#[tokio::test]
async fn an_import_brings_nothing_back() {
    let world = World::empty().await;
    world.import("import:old-logger").await;
    world.ingest().await;
    erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    assert_eq!(world.traces().await, []);
    for name in ["import:old-logger", "import:again"] {
        world.import(name).await;
        let outcome = tjern_pipeline::ingest::ingest(&world.lake(), &SETTINGS).await.expect("ingested");
        println!("{name}: {outcome:?}");
        assert_eq!(erased_rows(&world).await, "0");
        assert_eq!(world.traces().await, [], "{name}");
    }
}

/// An ingest that was at work before the erasure, in another process, knows of it at its next commit.
#[tokio::test]
async fn who_was_at_work_before_looks_again() {
    let world = World::empty().await;
    let next = world.land(1, 0..2, true).await;
    let mut ingester = Ingester::open(&world.lake(), SETTINGS).await.expect("opened");
    ingester.run().await.expect("ingested");
    let mut stale = Table::open(&world.lake(), TableName::Readings).await.expect("opened").expect("there");
    let file = stale.files().swap_remove(0);
    erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    // Rows that were prepared before, committed after.
    let count = stale.transaction("ingest").unwrap_or(0) + 1;
    let late = Commit {
        operation: Operation::Ingest,
        add: vec![file],
        remove: vec![],
        transactions: vec![("ingest".into(), count)],
        notes: BTreeMap::new(),
    };
    assert!(stale.commit(late).await.is_err());
    world.land(next, [2, 3], true).await;
    let outcome = ingester.run_everything().await.expect("ingested");
    assert_eq!((outcome.rows, outcome.erased), (48, 24));
    assert_eq!(erased_rows(&world).await, "0");
}

/// Tables that were lost are built anew from the landing zone: what was erased is left out, and the numbers of the
/// batches that are gone keep nobody waiting.
#[tokio::test]
async fn a_replay_brings_nothing_back() {
    let (world, before) = erased().await;
    let all = world.objects().await;
    let kept: Vec<_> = all.into_iter().filter(|(key, _)| !key.as_ref().starts_with("tables/readings")).collect();
    let again = World::of(&kept, world.place.clock.now_us()).await;
    let outcome = tjern_pipeline::ingest::ingest(&again.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((outcome.waiting, outcome.erased), (0, 0), "{outcome:?}");
    let table = Table::open(&again.lake(), TableName::Readings).await.expect("opened").expect("there");
    let gaps: Vec<_> = open_runs(&table).into_iter().map(|run| (run.source, run.dropped)).collect();
    assert!(gaps.iter().all(|gap| *gap == (source(GATEWAY), true)) && !gaps.is_empty(), "{gaps:?}");
    // From a landing zone as it was before, too.
    let mut objects = kept;
    objects.extend(before.into_iter().filter(|(key, _)| key.as_ref().starts_with("landing/")));
    let again = World::of(&objects, world.place.clock.now_us()).await;
    let outcome = tjern_pipeline::ingest::ingest(&again.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(outcome.erased, 48, "{outcome:?}");
    go_on(&again.lake(), &again.settings(), false).await.expect("gone on");
    assert_eq!((again.others().await, erased_rows(&again).await), (world.others().await, "0".to_owned()));
    assert_eq!(again.traces().await, []);
}

/// A backup from before brings everything back but what is remembered: the tables say by themselves that they have to
/// be erased again, though the erasure was complete.
#[tokio::test]
async fn a_restore_brings_nothing_back() {
    let (world, before) = erased().await;
    let remembered: Vec<_> =
        world.objects().await.into_iter().filter(|(key, _)| key.as_ref().starts_with("erasures/")).collect();
    assert!(remembered.iter().any(|(key, _)| key.as_ref().ends_with(".done.json")));
    let objects: Vec<_> = before.into_iter().chain(remembered).collect();
    let restored = World::of(&objects, world.place.clock.now_us()).await;
    assert!(!restored.traces().await.is_empty());
    go_on(&restored.lake(), &restored.settings(), false).await.expect("gone on");
    assert_eq!(restored.traces().await, []);
    assert_eq!(restored.others().await, world.others().await);
    // Only the landing zone came back: somebody has to say so.
    let landed: Vec<_> = objects.iter().filter(|(key, _)| key.as_ref().starts_with("landing/")).cloned().collect();
    for (key, bytes) in &landed {
        let _ = restored.place.store.inner().delete(key).await;
        restored.place.put(key, bytes.to_vec()).await;
    }
    assert!(!restored.traces().await.is_empty());
    go_on(&restored.lake(), &restored.settings(), true).await.expect("gone on");
    assert_eq!(restored.traces().await, []);
}
