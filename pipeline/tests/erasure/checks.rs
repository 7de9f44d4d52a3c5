//! Units that are checked late, and erasures, on one lake: whoever comes second waits for the other.
//!
//! A check reads files and writes them anew. One that had read before an erasure and wrote after it left a file with
//! everything that was erased, which no version named and no erasure looked for any more.

use std::time::Duration;

use tjern_lake::{Lease, Table, TableName, write_file};
use tjern_pipeline::erase::{erase, go_on};
use tjern_pipeline::ingest::{Ingester, ingest, missing_configurations};
use tjern_readings::keys::Landed;

use crate::support::{HOUR_US, SETTINGS, source};
use crate::world::{FROM_US, GATEWAY, SENSOR, World, half_a_day, request};

const SHA256: &str = "fefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefe";

/// A lake whose gateway's configuration, in another unit than the register's, has just come.
async fn with_a_late_configuration() -> World {
    let world = World::empty().await;
    let readings = half_a_day(FROM_US, true);
    world.place.land_readings(GATEWAY, 1, &readings, Some(SHA256)).await;
    let next = 1 + i64::try_from(readings.len()).expect("small");
    world.place.land_readings(GATEWAY, next, &half_a_day(FROM_US + 20 * 12 * HOUR_US, false), None).await;
    world.ingest().await;
    let text = format!("[[bus.device.point]]\nsensor = \"{SENSOR}\"\nunit = \"K\"\n");
    let key = Landed::Configuration(SHA256.to_owned()).key(&source(GATEWAY));
    world.place.put(&key, text.into_bytes()).await;
    world
}

async fn is_unchecked(world: &World) -> bool {
    let table = Table::open(&world.lake(), TableName::Readings).await.expect("opened").expect("there");
    !missing_configurations(&table).is_empty()
}

#[tokio::test(start_paused = true)]
async fn an_erasure_waits_for_a_check_that_is_under_way() {
    let world = with_a_late_configuration().await;
    let mut ingester = Ingester::open(&world.lake(), SETTINGS).await.expect("opened");
    // Slow enough that the check is not done when the look is.
    world.place.store.take(Duration::from_secs(2));
    assert_eq!(ingester.run().await.expect("ingested").late_units, 0);
    let (erasure, outcome) = erase(&world.lake(), &world.settings(), &request()).await.expect("remembered");
    let waits: Vec<_> = outcome.waits.iter().map(|wait| wait.what.as_str()).collect();
    assert!(outcome.rows == 0 && waits.contains(&"the tables"), "{outcome:?}");
    let mut looks = 0;
    while is_unchecked(&world).await {
        ingester.run().await.expect("ingested");
        looks += 1;
        assert!(looks < 100, "it is never checked");
    }
    world.place.store.take(Duration::ZERO);
    let outcome = go_on(&world.lake(), &world.settings(), false).await.expect("gone on");
    assert_eq!(outcome.done, [erasure.id]);
    assert_eq!(world.traces().await, []);
}

#[tokio::test]
async fn a_check_waits_for_who_has_the_lease_and_reads_nothing() {
    let world = with_a_late_configuration().await;
    let files = world.place.keys("tables/readings/");
    let lease = Lease::take(&world.lake(), "quality", Duration::from_secs(300)).await.expect("asked").expect("free");
    let outcome = ingest(&world.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((outcome.late_units, world.place.keys("tables/readings/")), (0, files));
    assert!(is_unchecked(&world).await);
    lease.give_back().await.expect("given back");
    let (erasure, _) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    assert_eq!(world.traces().await, [], "{}", erasure.id);
    ingest(&world.lake(), &SETTINGS).await.expect("ingested");
    assert!(!is_unchecked(&world).await, "what is left is checked");
    assert_eq!(world.traces().await, []);
}

/// The machine stood still while its check was under way, and an erasure took the lease: the check wrote on beside it.
#[tokio::test]
async fn a_check_that_lost_its_lease_leaves_no_file() {
    let world = with_a_late_configuration().await;
    let files = world.place.keys("tables/readings/");
    // Time passes, and nothing renews the lease.
    world.place.store.charge(Duration::from_secs(200));
    let outcome = ingest(&world.lake(), &SETTINGS).await.expect("ingested");
    world.place.store.charge(Duration::ZERO);
    assert_eq!((outcome.late_units, world.place.keys("tables/readings/")), (0, files));
    assert!(is_unchecked(&world).await);
    world.place.ahead(HOUR_US);
    let outcome = ingest(&world.lake(), &SETTINGS).await.expect("ingested");
    assert!(outcome.late_units > 0 && !is_unchecked(&world).await, "{outcome:?}");
}

/// The canary: one that read before and wrote after.
#[tokio::test]
async fn a_file_of_rows_that_were_read_before_an_erasure_is_seen() {
    let world = with_a_late_configuration().await;
    let rows = world.rows().await;
    let (erasure, _) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    write_file(&world.lake(), TableName::Readings, &rows).await.expect("written");
    let gone_on = go_on(&world.lake(), &world.settings(), false).await.expect("gone on");
    assert!(!world.traces().await.is_empty(), "{} {gone_on:?}", erasure.id);
}
