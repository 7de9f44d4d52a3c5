//! Units that are checked late, or a person's word on readings, and erasures, on one lake: whoever comes second waits for the
//! other.
//!
//! A check and a validation read files and write them anew. One that had read before an erasure and wrote after it left a file with
//! everything that was erased, which no version named and no erasure looked for any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tjern_lake::{Lake, Lease, Table, TableName, write_file};
use tjern_pipeline::correct::Author;
use tjern_pipeline::correct::recompute::{Again, Formula, Formulas, Period, recompute};
use tjern_pipeline::erase::{erase, go_on};
use tjern_pipeline::ingest::{IngestError, Ingester, ingest, missing_configurations};
use tjern_pipeline::quality::control;
use tjern_pipeline::validate::validate;
use tjern_readings::keys::Landed;
use tjern_readings::sensor::SensorId;
use tjern_readings::store::Store;

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
    let lost = ingest(&world.lake(), &SETTINGS).await;
    world.place.store.charge(Duration::ZERO);
    assert!(matches!(&lost, Err(IngestError::HeldBack { why, .. }) if why.contains("lease")), "{lost:?}");
    assert_eq!(world.place.keys("tables/readings/"), files);
    assert!(is_unchecked(&world).await);
    world.place.ahead(HOUR_US);
    let outcome = ingest(&world.lake(), &SETTINGS).await.expect("ingested");
    assert!(outcome.late_units > 0 && !is_unchecked(&world).await, "{outcome:?}");
}

/// A lake whose readings are judged, and what somebody validates of those that are to be erased.
async fn with_judged_readings() -> (World, Period) {
    let world = World::empty().await;
    let readings = half_a_day(FROM_US, true);
    world.place.put(&Landed::Configuration(SHA256.to_owned()).key(&source(GATEWAY)), b"poll = 1".to_vec()).await;
    world.place.land_readings(GATEWAY, 1, &readings, Some(SHA256)).await;
    let next = 1 + i64::try_from(readings.len()).expect("small");
    world.place.land_readings(GATEWAY, next, &half_a_day(FROM_US + 20 * 12 * HOUR_US, false), None).await;
    world.ingest().await;
    control(&world.lake()).await.expect("judged");
    let period = Period { sensor: SENSOR.parse().expect("valid"), from_us: FROM_US, to_us: FROM_US + 6 * HOUR_US };
    (world, period)
}

/// The same lake, on a line that takes no time.
fn quick(world: &World) -> Lake {
    let url = "s3://city/lake".parse().expect("a lake");
    Lake::over(Store::over(world.place.store.inner(), url)).with_clock(world.place.clock.clone())
}

fn author() -> Author {
    Author { by: "the bathing water office".to_owned(), reason: None }
}

#[tokio::test(start_paused = true)]
async fn an_erasure_waits_for_a_validation_that_is_under_way() {
    let (world, period) = with_judged_readings().await;
    let (slow, author) = (world.lake(), author());
    world.place.store.take(Duration::from_secs(2));
    let validating = tokio::spawn(async move { validate(&slow, &period, &author, false).await });
    let is_at_work = || world.place.keys("jobs/").iter().any(|key| key.ends_with("quality.json"));
    for _ in 0..20 {
        if is_at_work() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (erasure, outcome) = erase(&quick(&world), &world.settings(), &request()).await.expect("remembered");
    let waits: Vec<_> = outcome.waits.iter().map(|wait| wait.what.as_str()).collect();
    assert!(outcome.rows == 0 && waits.contains(&"the tables"), "{outcome:?}");
    world.place.store.take(Duration::ZERO);
    // Whether it still saw what is to be erased depends on who was first.
    validating.await.expect("ended").expect("validated");
    let outcome = go_on(&world.lake(), &world.settings(), false).await.expect("gone on");
    assert_eq!(outcome.done, [erasure.id]);
    assert_eq!(world.traces().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_validation_waits_for_who_has_the_lease_and_reads_nothing() {
    let (world, period) = with_judged_readings().await;
    let (lake, author, files) = (world.lake(), author(), world.place.keys("tables/readings/"));
    let lease = Lease::take(&lake, "quality", Duration::from_secs(300)).await.expect("asked").expect("free");
    let validating = tokio::spawn(async move { validate(&lake, &period, &author, false).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.place.keys("tables/readings/"), files);
    lease.give_back().await.expect("given back");
    erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    assert_eq!(validating.await.expect("ended").expect("nothing is left to be validated").readings, 0);
    assert_eq!(world.traces().await, []);
}

/// Quality control looks for its work before it asks for the lease. Meanwhile an erasure came and went: the run failed, since files
/// that it had seen were gone, and what it had read before could be written anew with everything that was erased.
#[tokio::test(start_paused = true)]
async fn quality_control_reads_nothing_that_was_erased_while_it_looked_for_its_work() {
    let world = World::empty().await;
    let readings = half_a_day(FROM_US, true);
    world.place.put(&Landed::Configuration(SHA256.to_owned()).key(&source(GATEWAY)), b"poll = 1".to_vec()).await;
    world.place.land_readings(GATEWAY, 1, &readings, Some(SHA256)).await;
    let next = 1 + i64::try_from(readings.len()).expect("small");
    world.place.land_readings(GATEWAY, next, &half_a_day(FROM_US + 20 * 12 * HOUR_US, false), None).await;
    world.ingest().await;
    world.place.store.take(Duration::from_secs(2));
    let slow = world.lake();
    let judging = tokio::spawn(async move { control(&slow).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!world.place.keys("jobs/").iter().any(|key| key.ends_with("quality.json")), "it has its lease already");
    let (erasure, outcome) = erase(&quick(&world), &world.settings(), &request()).await.expect("erased");
    assert_eq!(outcome.done, [erasure.id]);
    assert!(!judging.is_finished());
    judging.await.expect("ended").expect("judged");
    assert_eq!(world.traces().await, []);
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

/// Twice what was stored; the first time, an erasure begins and ends while it is worked out.
struct Overtaken<'a> {
    world: &'a World,
    is_over: AtomicBool,
}

impl Formulas for Overtaken<'_> {
    fn formula(&self, _: &str, _: &SensorId) -> Result<Formula, String> {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            let (lake, settings, request) = (self.world.lake(), self.world.settings(), request());
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(erase(&lake, &settings, &request)).expect("erased");
            });
        }
        Ok(Box::new(|stored| Ok(stored.map_or(Again::AsItIs, |value| Again::Value(value * 2.0)))))
    }

    fn words(&self) -> serde_json::Value {
        serde_json::json!({ "scale": 2.0 })
    }
}

/// A correction takes no lease: its fence sends it back. The file that it had written until then, of what was erased, stayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_correction_that_an_erasure_overtakes_leaves_no_file() {
    let (world, period) = with_judged_readings().await;
    let overtaken = Overtaken { world: &world, is_over: AtomicBool::new(false) };
    let outcome = recompute(&world.lake(), &period, &overtaken, &author(), false).await.expect("recomputed");
    assert!(overtaken.is_over.into_inner(), "an erasure came between");
    assert_eq!(outcome.corrected, 0, "{outcome:?}");
    assert_eq!(world.traces().await, []);
}
