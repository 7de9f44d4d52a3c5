//! One source that cannot be looked at keeps nobody's readings from being erased, and nothing is called proven for it.

use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tjern_lake::Lease;
use tjern_pipeline::erase::{EraseOutcome, Erasures, Found, erase, find, go_on};
use tjern_readings::batch::encode;
use tjern_readings::keys::{Landed, quarantine};
use tjern_testing::simulated::Fault;

use crate::recall::run;
use crate::support::{EPOCH, HOUR_US, source};
use crate::world::{FROM_US, GATEWAY, SENSOR, World, half_a_day, request};

/// A gateway that wrote the sensor too, and was taken down.
const OTHER: &str = "vind-01";
const FOLDER: &str = "landing/vind-01/";
const SET_ASIDE: &str = "quarantine/vind-01/";
/// The second of its batches.
const SECOND: &str = "vind-01/09090909090909090909090909090909/00000000000000000037-00000000000000000072.arrow";

/// A lake in which two gateways wrote the sensor; none of their newest batches holds a reading that is to be erased.
async fn of_two_gateways() -> World {
    let world = World::empty().await;
    let next = world.land(1, -1..3, true).await;
    world.land(next, [20], false).await;
    for (first, half_day) in [(1, 3), (37, 4)] {
        let readings = half_a_day(FROM_US + half_day * 12 * HOUR_US + HOUR_US / 2, true);
        world.place.land_readings(OTHER, first, &readings, None).await;
    }
    let newest = half_a_day(FROM_US + 21 * 12 * HOUR_US + HOUR_US / 2, false);
    world.place.land_readings(OTHER, 73, &newest, None).await;
    world.ingest().await;
    world.sum_up().await;
    world.publish().await;
    world
}

async fn gone_on(world: &World) -> EraseOutcome {
    go_on(&world.lake(), &world.settings(), false).await.expect("gone on")
}

fn waits(outcome: &EraseOutcome) -> Vec<(String, String)> {
    outcome.waits.iter().map(|wait| (wait.what.clone(), wait.why.clone())).collect()
}

/// Where something is left.
async fn left(world: &World) -> Vec<String> {
    world.traces().await.into_iter().map(|(key, _)| key).collect()
}

/// The folder of a gateway that was taken down had lost its rights. Every erasure of any other sensor stopped at it: rows,
/// hours and releases stayed until somebody mended a folder that nobody looked after.
#[tokio::test]
async fn a_folder_without_rights_keeps_no_row_from_being_erased() {
    let world = of_two_gateways().await;
    let others = world.others().await;
    world.place.store.fail(Fault::Locked(FOLDER));
    let told = find(&world.lake(), &request()).await.expect("found");
    let unseen: Vec<_> = told.iter().filter(|found| found.what == Found::UNSEEN).map(|found| &found.key).collect();
    assert_eq!(unseen, [FOLDER], "a dry run says what it does not know");
    let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    assert!(outcome.rows > 0 && outcome.landed > 0 && outcome.withdrawn == 1, "{outcome:?}");
    let locked = waits(&outcome);
    assert!(locked.len() == 1 && locked[0].0 == FOLDER && locked[0].1.contains("permission denied"), "{locked:?}");
    assert_eq!(outcome.done, Vec::<String>::new(), "nobody knows what lies there");
    assert!(left(&world).await.iter().all(|key| key.starts_with(FOLDER)), "all the rest is gone");
    assert_eq!(world.others().await, others);
    // As long as it is so, it is said, and costs next to nothing.
    let lake = world.lake();
    let before = lake.store().requests();
    let again = go_on(&lake, &world.settings(), false).await.expect("gone on");
    let spent = lake.store().requests().since(&before);
    println!("looking again in vain: {spent:?}");
    assert_eq!((waits(&again), again.done), (locked, vec![]));
    assert!(spent.gets < 40, "{spent:?}");
    assert!(!Erasures::load(&world.lake()).await.expect("loaded").is_done(&erasure));
    world.place.store.fail(Fault::None);
    let outcome = gone_on(&world).await;
    assert_eq!((outcome.done, outcome.waits, outcome.landed), (vec![erasure.id], vec![], 2));
    assert_eq!((left(&world).await, world.others().await), (vec![], others));
    assert_eq!(world.place.keys("erasures/unseen"), Vec::<String>::new());
    assert_eq!(gone_on(&world).await, EraseOutcome::default());
}

/// One batch that the store answers with 403 did the same.
#[tokio::test]
async fn a_refused_batch_keeps_no_row_from_being_erased() {
    let world = of_two_gateways().await;
    world.place.store.fail(Fault::Withheld(SECOND));
    let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    assert!(outcome.rows > 0 && outcome.done.is_empty(), "{outcome:?}");
    let told = waits(&outcome);
    let [(what, why)] = &told[..] else { panic!("{outcome:?}") };
    assert!(what.ends_with(SECOND) && what.starts_with(FOLDER) && why.contains("nobody knows"), "{what}: {why}");
    assert_eq!(left(&world).await, std::slice::from_ref(what));
    world.place.store.fail(Fault::None);
    let outcome = gone_on(&world).await;
    assert_eq!((outcome.done, outcome.landed), (vec![erasure.id], 1));
    assert_eq!(left(&world).await, Vec::<String>::new());
}

/// A folder that may be read and not written to: what is known to hold erased readings cannot go, and everything else can.
#[tokio::test]
async fn what_cannot_be_removed_waits_by_itself() {
    let world = of_two_gateways().await;
    let readings = half_a_day(FROM_US + HOUR_US / 4, true);
    let (bytes, batch) = encode(&source(OTHER), EPOCH, 500, &readings, None).expect("encoded");
    let set_aside = quarantine(&Landed::Batch(EPOCH, batch.header.bounds).key(&source(OTHER)));
    world.place.put(&set_aside, bytes.to_vec()).await;
    for (folder, count) in [(FOLDER, 2), (SET_ASIDE, 1)] {
        let objects = world.objects().await;
        let world = World::of(&objects, world.place.clock.now_us()).await;
        world.place.store.fail(Fault::Undeletable(folder));
        let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
        let told = waits(&outcome);
        assert!(outcome.rows > 0 && outcome.done.is_empty(), "{outcome:?}");
        assert!(
            told.iter().any(|(what, why)| what.starts_with(folder) && why.contains("cannot be removed")),
            "{told:?}"
        );
        let stays = left(&world).await;
        assert!(stays.len() == count && stays.iter().all(|key| key.starts_with(folder)), "{stays:?}");
        assert_eq!(waits(&gone_on(&world).await), told);
        world.place.store.fail(Fault::None);
        let outcome = gone_on(&world).await;
        assert_eq!((outcome.done, outcome.waits), (vec![erasure.id], vec![]));
        assert_eq!(left(&world).await, Vec::<String>::new());
    }
}

/// What lies in a locked folder and nobody can read goes if its source wrote the sensor. When the folder is opened, the
/// rows that told of it are gone from the table.
#[tokio::test]
async fn who_wrote_them_is_remembered_until_it_was_looked_at() {
    for locked in [FOLDER, SET_ASIDE] {
        let world = of_two_gateways().await;
        world.place.ahead(8 * 24 * HOUR_US);
        world.ingest().await;
        assert_eq!(world.place.keys(FOLDER).len(), 1, "the newest, without such a reading");
        let readings = half_a_day(FROM_US + 5 * 12 * HOUR_US + HOUR_US / 2, true);
        let (bytes, batch) = encode(&source(OTHER), EPOCH, 97, &readings, None).expect("encoded");
        let mut broken = Landed::Batch(EPOCH, batch.header.bounds).key(&source(OTHER));
        if locked == SET_ASIDE {
            broken = quarantine(&broken);
        }
        world.place.put(&broken, bytes[..bytes.len() * 2 / 3].to_vec()).await;
        world.place.store.fail(Fault::Locked(locked));
        let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
        let told: Vec<String> = outcome.waits.iter().map(|wait| wait.what.clone()).collect();
        assert_eq!((told, outcome.done), (vec![locked.to_owned()], vec![]));
        world.place.store.fail(Fault::None);
        let outcome = gone_on(&world).await;
        assert_eq!((outcome.done, outcome.quarantined), (vec![erasure.id], 1), "{locked}");
        assert_eq!(left(&world).await, Vec::<String>::new());
        assert!(world.place.store.inner().head(&broken).await.is_err());
    }
}

/// A file beside the releases that is none of ours stopped every erasure there, and what could be fetched stayed.
#[tokio::test]
async fn a_release_that_nobody_can_read_waits_by_itself() {
    let world = of_two_gateways().await;
    let strange = Path::from("open/andre/notes/places.csv");
    world.place.put(&strange, b"place,phone\nElva,12345678\n".to_vec()).await;
    let told = find(&world.lake(), &request()).await.expect("found");
    assert!(told.iter().any(|found| found.what == Found::UNSEEN && found.key == strange.to_string()), "{told:?}");
    let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    assert!(outcome.rows > 0 && outcome.withdrawn == 1 && outcome.done.is_empty(), "{outcome:?}");
    let waiting = waits(&outcome);
    let [(what, why)] = waiting.as_slice() else { panic!("{outcome:?}") };
    assert!(*what == strange.to_string() && why.contains("remove it by hand"), "{what}: {why}");
    assert_eq!(left(&world).await, Vec::<String>::new());
    let again = gone_on(&world).await;
    assert_eq!((waits(&again), again.done, again.withdrawn), (waiting, vec![], 0), "it is not forgotten");
    world.place.store.inner().delete(&strange).await.expect("removed by a person");
    assert_eq!(gone_on(&world).await.done, [erasure.id]);
    assert_eq!(gone_on(&world).await, EraseOutcome::default());
}

/// Compaction, a rollup or a check of late units was at work for a moment: the erasure was tried again an hour later, and met the
/// next one.
#[tokio::test]
async fn an_erasure_that_met_somebody_at_work_is_tried_again_soon() {
    let world = of_two_gateways().await;
    let lake = world.lake();
    let lease = Lease::take(&lake, "quality", Duration::from_secs(300)).await.expect("asked").expect("free");
    erase(&lake, &world.settings(), &request()).await.expect("remembered");
    let mut job = world.job("erase", Vec::new());
    let met = run(&mut job, &lake).await.expect("asked");
    assert!(met.held_elsewhere && met.said.contains("`quality`"), "{met:?}");
    lease.give_back().await.expect("given back");
    let done = run(&mut job, &lake).await.expect("erased");
    assert!(!done.held_elsewhere && done.did["complete"] == 1, "{done:?}");
}

/// A batch waits, as the newest of its epoch, and then its folder loses its rights: it was not seen any more, and the
/// erasure was called complete.
#[tokio::test]
async fn a_batch_that_waits_is_not_gone_because_its_folder_is_locked() {
    let world = World::empty().await;
    let next = world.land(1, 0..2, true).await;
    world.ingest().await;
    let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    assert!(outcome.waits.len() == 1 && outcome.waits[0].why.contains("the newest"), "{outcome:?}");
    world.place.store.fail(Fault::Locked("landing/landfall-01/"));
    let outcome = gone_on(&world).await;
    assert_eq!(waits(&outcome).len(), 1, "{outcome:?}");
    assert!(outcome.done.is_empty() && outcome.waits[0].what == "landing/landfall-01/", "{outcome:?}");
    world.place.store.fail(Fault::None);
    world.place.land_readings(GATEWAY, next, &half_a_day(FROM_US + 20 * 12 * HOUR_US, false), None).await;
    world.ingest().await;
    assert_eq!(gone_on(&world).await.done, [erasure.id]);
    assert_eq!(left(&world).await, Vec::<String>::new());
}

/// A batch that nobody can read, of twelve hours.
fn unreadable(name: &str, with_erased: bool) -> Vec<u8> {
    let readings = half_a_day(FROM_US, with_erased);
    let (bytes, batch) = encode(&source(name), EPOCH, 1, &readings, None).expect("encoded");
    let (mut bytes, sum) = (bytes.to_vec(), batch.header.checksum.as_bytes());
    let at = bytes.windows(sum.len()).position(|piece| piece == sum).expect("it says its checksum");
    bytes[at..at + sum.len()].fill(b'0');
    bytes
}

/// An integrator's bridge had sent the sensor's readings in a format that nobody can read, and under a key that is none. The
/// erasure said that it was complete, and the sensor's name stood in the landing zone and in quarantine in plain bytes.
#[tokio::test]
async fn what_nobody_can_read_is_looked_through_for_the_sensor() {
    let world = World::empty().await;
    let next = world.land(1, -1..3, true).await;
    world.land(next, [20], false).await;
    for (name, with_erased) in [("bridge", true), ("tarn-09", false)] {
        let numbers = tjern_readings::keys::Bounds::new(1, 40).expect("in order");
        world.place.put(&Landed::Batch(EPOCH, numbers).key(&source(name)), unreadable(name, with_erased)).await;
    }
    let stray = Path::from(format!("landing/bridge/{EPOCH}/1-2.arrow"));
    world.place.put(&stray, unreadable("bridge", true)).await;
    world.ingest().await;
    let set_aside = || world.place.keys("quarantine/");
    assert_eq!(set_aside().len(), 4, "{:?}", set_aside());
    let told = find(&world.lake(), &request()).await.expect("found");
    let of =
        |what: &str| told.iter().filter(|found| found.what == what).map(|found| found.key.clone()).collect::<Vec<_>>();
    assert_eq!(of(Found::UNSEEN), [stray.to_string()], "a dry run names it");
    assert!(matches!(of("quarantine").as_slice(), [key] if key.starts_with("quarantine/bridge/")), "{told:?}");
    let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    assert_eq!((outcome.done.len(), outcome.quarantined), (0, 1), "{outcome:?}");
    assert!(set_aside().iter().all(|key| key.starts_with("quarantine/tarn-09/")), "{:?}", set_aside());
    assert!(
        matches!(waits(&outcome).as_slice(), [(what, why)] if *what == stray.to_string() && why.contains("never ingested")),
        "{outcome:?}"
    );
    assert_eq!(left(&world).await, [stray.to_string()]);
    let known = Erasures::load(&world.lake()).await.expect("loaded");
    assert_eq!(known.not_looked_at().map(|(key, _)| key).collect::<Vec<_>>(), [stray.as_ref()]);
    assert_eq!(gone_on(&world).await.done, Vec::<String>::new(), "it is not forgotten");
    world.place.store.inner().delete(&stray).await.expect("removed by a person");
    assert_eq!(gone_on(&world).await.done, [erasure.id]);
    assert_eq!(left(&world).await, Vec::<String>::new());
}

/// A copy of a whole disk under a key that is no batch's was downloaded at each run of the job, for as long as it lay there. What
/// keeps its length and its time is not read again: other bytes of the same are not seen, before the store says another time.
#[tokio::test]
async fn what_was_looked_through_is_not_read_again() {
    let world = World::empty().await;
    let next = world.land(1, -1..1, true).await;
    world.land(next, [20], false).await;
    let stray = Path::from(format!("landing/bridge/{EPOCH}/1-2.arrow"));
    let bytes = unreadable("bridge", true);
    world.place.put(&stray, bytes.clone()).await;
    world.ingest().await;
    let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    let told = waits(&outcome);
    assert!(matches!(told.as_slice(), [(what, _)] if *what == stray.to_string()), "{outcome:?}");
    assert_eq!(waits(&gone_on(&world).await), told);
    let other = vec![0; bytes.len()];
    world.place.store.inner().put(&stray, other.clone().into()).await.expect("put");
    assert_eq!(waits(&gone_on(&world).await), told, "it was read again");
    world.place.ahead(HOUR_US);
    world.place.store.put(&stray, other.into()).await.expect("put");
    assert_eq!(gone_on(&world).await.done, [erasure.id]);
}

/// A name that lies over the border of what is looked through at once.
#[tokio::test]
async fn a_name_in_a_large_object_is_found_wherever_it_lies() {
    for at in [0, (4 << 20) - 5, (65 << 20) - SENSOR.len()] {
        let world = World::empty().await;
        let mut bytes = vec![b'.'; 65 << 20];
        bytes[at..at + SENSOR.len()].copy_from_slice(SENSOR.as_bytes());
        let stray = Path::from("landing/bridge/disk.img");
        world.place.put(&stray, bytes).await;
        let told = find(&world.lake(), &request()).await.expect("found");
        assert!(told.iter().any(|found| found.key == stray.to_string()), "{at}: {told:?}");
    }
}
