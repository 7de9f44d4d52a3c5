//! Killed between any two calls to the store, before or after the call did its work: a second run comes to the same end.
//!
//! `TJERN_ERASE_CRASHES=all` tries every call; without it a share of them.

use tjern_pipeline::erase::{Erasures, erase, go_on};

use crate::support::HOUR_US;
use crate::world::{World, request};
use tjern_testing::simulated::Fault;

/// One call of so many is tried by default.
const EVERY: u64 = 47;

#[tokio::test]
async fn killed_anywhere_it_comes_to_the_same_end() {
    let whole = World::full().await;
    let (objects, now_us) = (whole.objects().await, whole.place.clock.now_us());
    let others = whole.others().await;
    let run = World::of(&objects, now_us).await;
    run.place.store.fail(Fault::None);
    let (_, outcome) = erase(&run.lake(), &run.settings(), &request()).await.expect("erased");
    let (calls, _) = run.place.store.counted();
    let left: Vec<String> = outcome.waits.iter().map(|wait| wait.what.clone()).collect();
    let sums = run.sums().await;
    let every = if std::env::var("TJERN_ERASE_CRASHES").is_ok_and(|share| share == "all") { 1 } else { EVERY };
    let mut tried = 0;
    for call in (1..=calls).filter(|call| (call - 1) % every == 0 || *call == calls) {
        for fault in [Fault::DeadBefore(call), Fault::DeadAfter(call)] {
            let world = World::of(&objects, now_us).await;
            let lake = world.lake();
            world.place.store.fail(fault);
            let first = erase(&lake, &world.settings(), &request()).await;
            world.place.store.fail(Fault::None);
            // Leases of the dead run out.
            world.place.ahead(HOUR_US);
            let known = Erasures::load(&world.lake()).await.expect("loaded");
            if known.is_empty() {
                assert!(first.is_err());
                erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
            } else {
                go_on(&world.lake(), &world.settings(), false).await.expect("gone on");
            }
            let traces: Vec<String> = world.traces().await.into_iter().map(|(key, _)| key).collect();
            assert_eq!(traces, left, "{fault:?}");
            assert_eq!(world.others().await, others, "{fault:?}");
            assert_eq!(world.sums().await, sums, "{fault:?}");
            tried += 1;
        }
    }
    println!("{tried} deaths at every {every}th of {calls} calls");
}
