//! The memory of an erasure: it is written or it is said that it is not, and one that nobody can read is written anew by hand.
//!
//! A record in which a bit turned over stopped ingest, `register` and `erase`, rightly: nobody knew what must not come back. But the only
//! way out that was told was a backup, and many have none.

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tjern_lake::TableName;
use tjern_pipeline::erase::{EraseError, Erasures, erase, find, go_on, remember};
use tjern_pipeline::ingest::ingest;
use tjern_pipeline::register::register;
use tjern_pipeline::status::status;
use tjern_pipeline::verify::verify;
use tjern_readings::reading::Reading;
use tjern_testing::simulated::Fault;

use crate::support::{HOUR_US, SETTINGS};
use crate::world::{FROM_US, GATEWAY, SENSOR, TO_US, World, request};

async fn overwrite(world: &World, key: &Path, text: &str) {
    world.place.store.inner().put(key, text.as_bytes().to_vec().into()).await.expect("put");
    world.place.store.date(key);
}

/// The word of an error between its braces, with what was asked for then in place of the example's.
fn by_hand(error: &str) -> String {
    let (from, to) = (error.find("{\"format\"").expect("its shape"), error.rfind('}').expect("its shape"));
    let mut record: serde_json::Value = serde_json::from_str(&error[from..=to]).expect("JSON");
    record["sensor"] = SENSOR.into();
    for (name, time_us) in [("from", FROM_US), ("to", TO_US)] {
        record[name] = jiff::Timestamp::from_microsecond(time_us).expect("a time").to_string().into();
    }
    record.to_string()
}

/// Whoever follows what the error says has a lake again, and nothing that was erased comes back meanwhile or after it.
#[tokio::test]
async fn a_damaged_record_is_written_anew_by_what_the_error_says() {
    let world = World::empty().await;
    let next = world.land(1, 0..2, true).await;
    world.land(next, [20], true).await;
    world.ingest().await;
    let (erasure, _) = erase(&world.lake(), &world.settings(), &request()).await.expect("erased");
    let key = Path::from(format!("erasures/{}.json", erasure.id));
    overwrite(&world, &key, "{\"format\": 1, \"id\": \"0").await;
    // The gateway sends again what was erased.
    world.land(1, 0..2, true).await;
    world.land(next + 100, [21], true).await;
    let error = ingest(&world.lake(), &SETTINGS).await.expect_err("it is not known what was erased").to_string();
    assert!(error.contains(key.as_ref()) && error.contains("docs/backup.md"), "{error}");
    let verdict = verify(&world.lake(), &mut |_, _| ()).await.expect("verified");
    assert!(verdict.problems.iter().any(|problem| problem.key == key.to_string()), "{:?}", verdict.problems);
    let found = status(&world.lake(), &world.settings().compact).await.expect("all the rest is told");
    assert_eq!((found.unreadable_erasures.len(), found.tables.len() > 2), (1, true));
    assert!(found.unreadable_erasures[0].contains(key.as_ref()));
    // Another one's word is not taken for it.
    overwrite(&world, &key, &by_hand(&error).replace(&erasure.id, &"0".repeat(32))).await;
    let refused = Erasures::load(&world.lake()).await.expect_err("it is another one").to_string();
    assert!(refused.contains("its name says"), "{refused}");
    overwrite(&world, &key, &by_hand(&error)).await;
    go_on(&world.lake(), &world.settings(), true).await.expect("gone on");
    world.ingest().await;
    let count = format!("SELECT count(*) FROM readings WHERE sensor = '{SENSOR}' AND quality IS NOT NULL");
    let erased = format!("{count} AND time < TIMESTAMP '2026-06-15T00:00:00Z'");
    assert_eq!(world.place.ask(&erased).await, "0");
    assert_ne!(world.place.ask(&count).await, "0", "what came since is there");
    let verdict = verify(&world.lake(), &mut |_, _| ()).await.expect("verified");
    assert_eq!(verdict.problems, []);
}

/// On a full disk nobody knew whether what a resident had asked for was remembered, or was to be asked for again.
#[tokio::test]
async fn whether_an_erasure_is_remembered_is_always_said() {
    let world = World::empty().await;
    world.place.store.fail(Fault::Full("erasures/"));
    let refused = remember(&world.lake(), &world.settings(), &request()).await.expect_err("full");
    assert!(matches!(refused, EraseError::NotRemembered { .. }));
    assert!(refused.to_string().contains("not remembered, and nothing was erased"), "{refused}");
    world.place.store.fail(Fault::LostReply(1));
    remember(&world.lake(), &world.settings(), &request()).await.expect("it was written, whatever was heard of it");
    let mut open = 0;
    for fault in [Fault::DeadBefore as fn(u64) -> Fault, Fault::DeadAfter] {
        for at in 1..8 {
            let world = World::empty().await;
            world.place.store.fail(fault(at));
            let remembered = remember(&world.lake(), &world.settings(), &request()).await;
            world.place.store.fail(Fault::None);
            let is_there = !Erasures::load(&world.lake()).await.expect("loaded").is_empty();
            match remembered {
                Ok(_) => assert!(is_there, "{:?}", fault(at)),
                Err(EraseError::Open { .. }) => open += 1,
                Err(_) => assert!(!is_there, "{:?}", fault(at)),
            }
        }
    }
    assert_eq!(open, 2, "the process dies at the record, before it or after it");
}

/// An hour's rain carries the hour's end, and stands in the hour before it: a dry run did not name that hour, and the erasure changed it.
#[tokio::test]
async fn a_dry_run_names_the_hour_at_its_border_that_an_interval_lies_in() {
    for (kind, wanted) in [("sample", false), ("interval_mean", true)] {
        let world = World::empty().await;
        let mut files = world.files("public");
        let text = std::fs::read_to_string(&files.sensors).expect("read");
        files.sensors = world.path("kinds.csv");
        std::fs::write(&files.sensors, text.replace("Cel,sample", &format!("Cel,{kind}"))).expect("written");
        register(&world.lake(), &files).await.expect("registered");
        let at = |time_us: i64| Reading::of(SENSOR.parse().expect("valid"), time_us, 21.0);
        // Of a sample the hour before the border has a reading of its own.
        world.place.land_readings(GATEWAY, 1, &[at(FROM_US - HOUR_US / 2), at(FROM_US)], None).await;
        world.ingest().await;
        world.sum_up().await;
        let mut asked = request();
        (asked.from_us, asked.to_us) = (FROM_US, FROM_US + 1);
        let found = find(&world.lake(), &asked).await.expect("found");
        let hours = found.iter().find(|found| found.key == format!("tables/{}", TableName::Hourly));
        let starts = world.place.ask(&format!("SELECT count(*) FROM hourly WHERE sensor = '{SENSOR}'")).await;
        assert_eq!(
            (hours.and_then(|hours| hours.rows), starts.as_str()),
            (Some(1), if wanted { "1" } else { "2" }),
            "{kind}"
        );
    }
}
