//! Rollups of other processes beside an erasure: what one has put and is about to name is no leftover.
//!
//! An erasure removes every file of hours and days that no version names and that has a row of the sensor. A rollup that
//! put its file then and named it a moment later left a table of which a file is missing.

use std::time::Duration;

use jiff::tz::TimeZone;
use tjern_lake::{Lake, Lease, Table, TableName};
use tjern_pipeline::erase::{erase, go_on};
use tjern_pipeline::rollup::{RollupOutcome, rollup};

use crate::world::{World, request};

/// A lake of which the hours and days of its last readings are not summed up yet.
async fn with_something_to_sum_up() -> World {
    let world = World::empty().await;
    let next = world.land(1, -2..2, true).await;
    world.ingest().await;
    world.sum_up().await;
    world.land(next, [20], true).await;
    world.ingest().await;
    world
}

async fn sum_up(lake: &Lake) -> RollupOutcome {
    rollup(lake, &TimeZone::UTC).await.expect("summed up")
}

#[tokio::test]
async fn an_erasure_waits_for_a_rollup_that_is_under_way() {
    let world = with_something_to_sum_up().await;
    let lease = Lease::take(&world.lake(), "rollup", Duration::from_secs(60)).await.expect("asked").expect("free");
    let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("remembered");
    assert!(outcome.rows == 0 && outcome.waits.iter().any(|wait| wait.why.contains("`rollup`")), "{outcome:?}");
    lease.give_back().await.expect("given back");
    let outcome = go_on(&world.lake(), &world.settings(), false).await.expect("gone on");
    assert_eq!(outcome.done, [erasure.id]);
    assert_eq!(world.traces().await, []);
}

/// Whatever of an erasure a rollup begins at, every file that a table names is there afterwards.
#[tokio::test(start_paused = true)]
async fn a_rollup_that_begins_beside_an_erasure_loses_no_file() {
    let mut held = 0;
    // While rows are summed up on threads, time passes as it does: a request takes little of it.
    for millis in (0..).step_by(120) {
        let world = with_something_to_sum_up().await;
        world.place.store.take(Duration::from_millis(20));
        let (own, settings) = (world.lake(), world.settings());
        let mut erasing = tokio::spawn(async move { erase(&own, &settings, &request()).await });
        let other = world.lake();
        let begun = tokio::time::timeout(Duration::from_millis(millis), &mut erasing).await;
        let is_over = begun.is_ok();
        held += u32::from(sum_up(&other).await.held_elsewhere);
        if !is_over {
            erasing.await.expect("not ended").expect("erased");
        }
        world.place.store.take(Duration::ZERO);
        sum_up(&world.lake()).await;
        for name in [TableName::Hourly, TableName::Daily] {
            let table = Table::open(&world.lake(), name).await.expect("opened").expect("there");
            for file in table.files() {
                let key = format!("tables/{name}/{}", file.path);
                assert!(!world.place.keys(&key).is_empty(), "{key} is named and is not there, {millis} ms after");
            }
        }
        if is_over {
            assert!(held > 3, "{held} were beside it");
            return;
        }
    }
}

/// A process stood still for longer than its lease lasts, and went on beside an erasure: what it writes then nobody would look
/// for.
#[tokio::test]
async fn a_rollup_that_lost_its_lease_leaves_no_file() {
    let world = with_something_to_sum_up().await;
    let before = world.place.keys("tables/");
    // Time passes, and nothing renews the lease.
    world.place.store.charge(Duration::from_secs(20));
    let lost = rollup(&world.lake(), &TimeZone::UTC).await.expect_err("it stood still").to_string();
    assert!(lost.contains("lease ran out"), "{lost}");
    world.place.store.charge(Duration::ZERO);
    assert_eq!(world.place.keys("tables/"), before);
    sum_up(&world.lake()).await;
    assert_ne!(world.place.keys("tables/"), before);
}
