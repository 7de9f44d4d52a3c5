//! Copies of one spool that are all at work: each ends in an epoch of its own, and each reading is in the lake, once.

#[path = "common/uploading.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod uploading;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tjern_gateway::upload::UploadSettings;
use tjern_readings::batch;
use tjern_readings::clock::Clock;
use tjern_readings::keys::{Landed, claimed_number, source_folder};
use tjern_readings::sensor::Epoch;
use tokio::time::{Instant, sleep};
use uploading::lake::Lake;
use uploading::{copy_folder, readings, source, spool_in, uploading};

fn settings(lake: &Arc<Lake>, every: Duration) -> UploadSettings {
    UploadSettings { store: Some(lake.store()), every, ..UploadSettings::new(Lake::url(), source()) }
}

/// The values that landed, by epoch and bounds.
async fn landed(lake: &Lake) -> BTreeMap<(Epoch, i64, i64), Vec<u64>> {
    let objects: Vec<ObjectMeta> =
        lake.objects.list(Some(&source_folder(&source()))).try_collect().await.expect("listed");
    let mut landed = BTreeMap::new();
    for object in objects {
        let Some((_, Landed::Batch(epoch, bounds))) = Landed::parse(&object.location) else { continue };
        let bytes = lake.objects.get(&object.location).await.expect("there").bytes().await.expect("read");
        let rows = batch::decode(&bytes).expect("a batch").readings().expect("readings");
        let values = rows.iter().map(|reading| reading.value.expect("a value") as u64).collect();
        landed.insert((epoch, bounds.first, bounds.last), values);
    }
    landed
}

/// Whether each epoch's numbers have no hole and no overlap, and each value is there once.
fn check(landed: &BTreeMap<(Epoch, i64, i64), Vec<u64>>, expected: &BTreeSet<u64>) -> Result<usize, String> {
    let (mut next, mut values) = (BTreeMap::<Epoch, i64>::new(), BTreeSet::new());
    for ((epoch, first, last), rows) in landed {
        let due = next.entry(*epoch).or_insert(1);
        if first != due {
            return Err(format!("{epoch}: {first}-{last} where {due} is due"));
        }
        *due = last + 1;
        for value in rows {
            if !values.insert(*value) {
                return Err(format!("{value} is there twice"));
            }
        }
    }
    let missing = expected.difference(&values).count();
    if missing > 0 { Err(format!("{missing} are missing")) } else { Ok(next.len()) }
}

/// A gateway that sent something, has some sealed and some not, and was then taken for an image.
async fn image(dir: &Path, lake: &Arc<Lake>, random: &mut fastrand::Rng) -> u64 {
    let (spool, mut count) = (spool_in(dir), 0);
    let mut add = async |random: &mut fastrand::Rng| {
        let more = random.u64(1..20);
        spool.append(readings(count..count + more)).await;
        count += more;
    };
    add(random).await;
    let (running, stop) = uploading(&spool, settings(lake, Duration::from_secs(1)));
    sleep(Duration::from_secs(30)).await;
    stop.cancel();
    running.await.expect("ended");
    for _ in 0..random.u8(..3) {
        add(random).await;
        assert!(spool.seal().await);
    }
    if random.bool() {
        add(random).await;
    }
    assert!(spool.sync().await);
    spool.close().await;
    count
}

/// Two copies begin within seconds, and read and cut as it comes.
async fn two_copies(seed: u64) -> Result<usize, String> {
    let (place, mut random) = (tempfile::tempdir().expect("a folder"), fastrand::Rng::with_seed(seed));
    let lake = Lake::new(Duration::from_millis(random.u64(1..3_000)));
    let dirs = ["one", "other"].map(|name| place.path().join(name));
    let count = image(&dirs[0], &lake, &mut random).await;
    copy_folder(&dirs[0], &dirs[1]);
    let (mut next, mut running) = ([10_000, 20_000], Vec::new());
    let spools = dirs.each_ref().map(|dir| spool_in(dir));
    for (spool, next) in spools.iter().zip(&mut next) {
        if random.bool() {
            spool.append(readings(*next..*next + 3)).await;
            *next += 3;
        }
        running.push(uploading(spool, settings(&lake, Duration::from_secs(random.u64(1..10)))));
        sleep(Duration::from_millis(random.u64(..5_000))).await;
    }
    for _ in 0..30 {
        let which = random.usize(..2);
        let more = random.u64(1..8);
        spools[which].append(readings(next[which]..next[which] + more)).await;
        next[which] += more;
        sleep(Duration::from_millis(random.u64(..4_000))).await;
    }
    for spool in &spools {
        assert!(spool.seal().await);
    }
    let began = Instant::now();
    while spools[0].status().sealed_count + spools[1].status().sealed_count > 0 {
        assert!(began.elapsed() < Duration::from_secs(3_600), "TJERN_SEED={seed}: something is left");
        sleep(Duration::from_secs(1)).await;
    }
    for (task, stop) in running {
        stop.cancel();
        task.await.expect("ended");
    }
    if spools[0].epoch() == spools[1].epoch() {
        return Err("both write under one epoch".to_owned());
    }
    let expected = (0..count).chain(10_000..next[0]).chain(20_000..next[1]).collect();
    check(&landed(&lake).await, &expected)
}

/// An image of a gateway's card was written to two cards, and both gateways switched on: neither found anything past its
/// numbers, their batches had other bounds, and half of the readings went to quarantine.
#[tokio::test(start_paused = true)]
async fn copies_that_begin_together_lose_and_double_nothing() {
    let named = std::env::var("TJERN_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let (base, count) = named.map_or_else(|| (fastrand::u64(..), 40), |seed| (seed, 1));
    println!("seeds {base} and {} after it", count - 1);
    for seed in (0..count).map(|index| base.wrapping_add(index)) {
        let epochs = two_copies(seed).await.unwrap_or_else(|error| panic!("TJERN_SEED={seed}: {error}"));
        assert_eq!(epochs, 2, "TJERN_SEED={seed}");
    }
}

/// The canary: one look at the start, and then whatever the keys say, is seen to put one batch over another.
#[tokio::test(start_paused = true)]
async fn copies_that_only_look_at_their_start_are_found_out() {
    let (place, mut random) = (tempfile::tempdir().expect("a folder"), fastrand::Rng::with_seed(7));
    let lake = Lake::new(Duration::from_millis(100));
    let dirs = ["one", "other"].map(|name| place.path().join(name));
    let count = image(&dirs[0], &lake, &mut random).await;
    copy_folder(&dirs[0], &dirs[1]);
    let (spools, froms) = (dirs.each_ref().map(|dir| spool_in(dir)), [10_000, 20_000]);
    // Both have looked, and found nothing.
    for (spool, (from, cut)) in spools.iter().zip(froms.into_iter().zip([6, 8])) {
        for part in [from..from + cut, from + cut..from + 20] {
            spool.append(readings(part)).await;
            assert!(spool.seal().await);
        }
        for object in spool.sealed().await {
            let (key, bytes) = (object.landed().key(&source()), spool.bytes(&object).await.expect("read"));
            match lake.put_opts(&key, PutPayload::from_bytes(bytes.clone()), PutMode::Create.into()).await {
                Ok(_) => {}
                Err(Error::AlreadyExists { .. }) => {
                    assert_eq!(lake.get(&key).await.expect("there").bytes().await.expect("read"), bytes, "{key}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    let expected = (0..count).chain(10_000..10_020).chain(20_000..20_020).collect();
    let found = check(&landed(&lake).await, &expected);
    assert!(found.as_ref().is_err_and(|error| error.contains("is due")), "{found:?}");
}

/// A gateway that is restarted, however often and at whatever moment, is no copy of itself.
#[tokio::test(start_paused = true)]
async fn a_restart_is_no_copy() {
    let (place, lake) = (tempfile::tempdir().expect("a folder"), Lake::new(Duration::from_millis(200)));
    let (mut epochs, mut next, mut random) = (BTreeSet::new(), 0, fastrand::Rng::with_seed(11));
    for _ in 0..30 {
        let spool = spool_in(place.path());
        epochs.insert(spool.epoch());
        let (running, stop) = uploading(&spool, settings(&lake, Duration::from_secs(1)));
        for _ in 0..random.u8(..4) {
            spool.append(readings(next..next + 5)).await;
            next += 5;
            sleep(Duration::from_millis(random.u64(..3_000))).await;
        }
        // Every other one is cut off in the middle of it.
        if random.bool() {
            running.abort();
        } else {
            stop.cancel();
        }
        let _ = running.await;
        epochs.insert(spool.epoch());
        assert!(spool.sync().await);
        spool.close().await;
    }
    assert_eq!(epochs.len(), 1, "a restart began an epoch");
    let spool = spool_in(place.path());
    let (running, stop) = uploading(&spool, settings(&lake, Duration::from_secs(1)));
    sleep(Duration::from_secs(30)).await;
    stop.cancel();
    running.await.expect("ended");
    assert_eq!(check(&landed(&lake).await, &(0..next).collect()), Ok(1));
}

/// A copy of a gateway that is at work: its original lists again soon, and finds that somebody claims numbers beside it.
/// What both sent under the same numbers until then is in the lake, and a person finds it in quarantine.
#[tokio::test(start_paused = true)]
async fn a_copy_of_a_spool_that_is_at_work_is_found_within_minutes() {
    let (place, lake) = (tempfile::tempdir().expect("a folder"), Lake::new(Duration::from_millis(200)));
    let dirs = ["one", "other"].map(|name| place.path().join(name));
    let one = spool_in(&dirs[0]);
    let mut expected: BTreeSet<u64> = (0..7).collect();
    one.append(readings(0..7)).await;
    let (running, stop) = uploading(&one, settings(&lake, Duration::from_secs(60)));
    sleep(Duration::from_secs(90)).await;
    copy_folder(&dirs[0], &dirs[1]);
    let other = spool_in(&dirs[1]);
    let (other_running, other_stop) = uploading(&other, settings(&lake, Duration::from_secs(60)));
    assert_eq!(one.epoch(), other.epoch());
    let (began, mut found_after) = (Instant::now(), None);
    for step in 0..20 {
        for (spool, from, rows) in [(&one, 10_000, 6), (&other, 20_000, 8)] {
            let numbers = from + step * rows..from + (step + 1) * rows;
            expected.extend(numbers.clone());
            spool.append(readings(numbers)).await;
        }
        sleep(Duration::from_secs(60)).await;
        if found_after.is_none() && one.epoch() != other.epoch() {
            found_after = Some(began.elapsed());
        }
    }
    for (task, stop) in [(running, stop), (other_running, other_stop)] {
        stop.cancel();
        task.await.expect("ended");
    }
    assert!(found_after.is_some_and(|after| after <= Duration::from_secs(420)), "found after {found_after:?}");
    let landed: BTreeSet<u64> = landed(&lake).await.into_values().flatten().collect();
    assert_eq!(landed, expected, "every reading is in some batch");
}

/// Everything of a gateway leaves the landing zone but its newest claim, and that as well if it is so said.
async fn clean(lake: &Lake, keeps_the_newest: bool) {
    let objects: Vec<ObjectMeta> =
        lake.objects.list(Some(&source_folder(&source()))).try_collect().await.expect("listed");
    let newest = objects.iter().filter_map(|object| claimed_number(&object.location)).max().expect("a claim");
    for object in objects.iter().filter(|object| !keeps_the_newest || claimed_number(&object.location) != Some(newest))
    {
        lake.objects.delete(&object.location).await.expect("removed");
    }
}

/// An image of a card from before some restarts is written to another card, years later: of all that the lake had of that epoch the
/// pipeline has left one claim. Whether the copy begins an epoch of its own.
async fn an_old_image_is_found(keeps_the_newest: bool) -> bool {
    let (place, mut random) = (tempfile::tempdir().expect("a folder"), fastrand::Rng::with_seed(5));
    let lake = Lake::new(Duration::from_millis(100));
    let dirs = ["one", "other"].map(|name| place.path().join(name));
    let count = image(&dirs[0], &lake, &mut random).await;
    copy_folder(&dirs[0], &dirs[1]);
    for restart in 0..3 {
        let spool = spool_in(&dirs[0]);
        let (running, stop) = uploading(&spool, settings(&lake, Duration::from_secs(1)));
        spool.append(readings(count + restart * 9..count + restart * 9 + 9)).await;
        sleep(Duration::from_secs(30)).await;
        stop.cancel();
        running.await.expect("ended");
        spool.close().await;
    }
    clean(&lake, keeps_the_newest).await;
    let copy = spool_in(&dirs[1]);
    let epoch = copy.epoch();
    copy.append(readings(20_000..20_005)).await;
    let (running, stop) = uploading(&copy, settings(&lake, Duration::from_secs(1)));
    sleep(Duration::from_secs(30)).await;
    stop.cancel();
    running.await.expect("ended");
    copy.epoch() != epoch && landed(&lake).await.keys().all(|(of, ..)| *of != epoch)
}

/// What is cleaned up of claims is what no copy needs; the canary is a pipeline that removes the newest too.
#[tokio::test(start_paused = true)]
async fn the_newest_claim_is_enough_to_find_an_old_image() {
    assert!(an_old_image_is_found(true).await);
    assert!(!an_old_image_is_found(false).await, "by nothing else it is found");
}

/// An image with a backlog, of which both copies put what is new first.
async fn two_copies_with_a_backlog(seed: u64) -> Result<(), String> {
    let (place, mut random) = (tempfile::tempdir().expect("a folder"), fastrand::Rng::with_seed(seed));
    let lake = Lake::new(Duration::from_millis(random.u64(1..3_000)));
    let dirs = ["one", "other"].map(|name| place.path().join(name));
    let (spool, mut count) = (spool_in(&dirs[0]), 0);
    for _ in 0..random.u64(6..12) {
        let more = random.u64(1..20);
        spool.append(readings(count..count + more)).await;
        count += more;
        assert!(spool.seal().await);
    }
    spool.close().await;
    copy_folder(&dirs[0], &dirs[1]);
    let (mut next, mut running, mut spools) = ([10_000, 20_000], Vec::new(), Vec::new());
    for (dir, next) in dirs.iter().zip(&mut next) {
        let spool = spool_in(dir);
        if random.bool() {
            spool.append(readings(*next..*next + 3)).await;
            *next += 3;
            assert!(spool.sync().await);
        }
        let live_first_after = Some(Duration::from_secs(60));
        let every = Duration::from_secs(random.u64(1..10));
        let clock = Clock::manual(3_600_000_000);
        running.push(uploading(&spool, UploadSettings { live_first_after, clock, ..settings(&lake, every) }));
        spools.push(spool);
        sleep(Duration::from_millis(random.u64(..3_000))).await;
    }
    for _ in 0..20 {
        let which = random.usize(..2);
        spools[which].append(readings(next[which]..next[which] + 4)).await;
        next[which] += 4;
        sleep(Duration::from_millis(random.u64(..4_000))).await;
    }
    for spool in &spools {
        assert!(spool.seal().await);
    }
    let began = Instant::now();
    while spools.iter().any(|spool| spool.status().sealed_count > 0) {
        assert!(began.elapsed() < Duration::from_secs(3_600), "TJERN_SEED={seed}: something is left");
        sleep(Duration::from_secs(1)).await;
    }
    for (task, stop) in running {
        stop.cancel();
        task.await.expect("ended");
    }
    let landed = landed(&lake).await;
    for (epoch, last) in closed(&lake).await {
        let highest = landed.keys().filter(|(of, ..)| *of == epoch).map(|(_, _, last)| *last).max();
        if highest.is_none_or(|highest| highest != last) {
            return Err(format!("{epoch} is finished at {last}, and goes on to {highest:?}"));
        }
    }
    check(&landed, &(0..count).chain(10_000..next[0]).chain(20_000..next[1]).collect()).map(drop)
}

/// The epochs that are said to be finished, and their last numbers.
async fn closed(lake: &Lake) -> Vec<(Epoch, i64)> {
    let objects: Vec<ObjectMeta> =
        lake.objects.list(Some(&source_folder(&source()))).try_collect().await.expect("listed");
    let mut closed = Vec::new();
    for object in objects {
        let Some((_, Landed::Closed(epoch))) = Landed::parse(&object.location) else { continue };
        let bytes = lake.objects.get(&object.location).await.expect("there").bytes().await.expect("read");
        let last = std::str::from_utf8(&bytes).expect("text").trim().parse().expect("a number");
        closed.push((epoch, last));
    }
    closed
}

/// Both cards had a backlog, and what is new goes first: one copy claimed its numbers and drained the backlog, and the other one took
/// all of it for its own and sent it once more under an epoch of its own.
#[tokio::test(start_paused = true)]
async fn copies_that_put_what_is_new_first_send_their_backlog_once() {
    let named = std::env::var("TJERN_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let (base, count) = named.map_or_else(|| (fastrand::u64(..), 40), |seed| (seed, 1));
    println!("seeds {base} and {} after it", count - 1);
    for seed in (0..count).map(|index| base.wrapping_add(index)) {
        two_copies_with_a_backlog(seed).await.unwrap_or_else(|error| panic!("TJERN_SEED={seed}: {error}"));
    }
}
