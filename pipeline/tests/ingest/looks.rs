//! What a look at the landing zone costs: nothing for what is finished, nothing for what is known.

use tjern_lake::TableName;
use tjern_pipeline::ingest::replay::{finish, replay};
use tjern_pipeline::ingest::{Ingester, Polling, ingest};
use tjern_readings::batch::encode;
use tjern_readings::keys::{Landed, table as table_folder};
use tjern_readings::sensor::Epoch;

use object_store::ObjectStoreExt;

use crate::support::{HOUR_US, Place, SECOND_US, SETTINGS, reading, source};

/// As a cloud is polled.
fn polling() -> Polling {
    Polling::of(&"s3://city/lake".parse().expect("a lake"))
}

fn epoch(number: u16) -> Epoch {
    let mut bytes = [0xab; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    Epoch::from_bytes(bytes)
}

/// A whole import: a batch, and the word that it was all.
async fn import(place: &Place, number: u16) {
    let source = source("import:history");
    let (bytes, batch) = encode(&source, epoch(number), 1, &[reading("import:history", 1)], None).expect("encoded");
    place.put(&Landed::Batch(epoch(number), batch.header.bounds).key(&source), bytes.to_vec()).await;
    place.put(&Landed::Closed(epoch(number)).key(&source), b"1\n".to_vec()).await;
}

/// What looking for an hour costs, where nothing is new.
async fn listings_of_an_hour(place: &Place) -> u64 {
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling());
    ingester.run().await.expect("ingested");
    let before = lake.store().requests();
    for _ in 0..1_800 {
        place.ahead(2 * SECOND_US);
        ingester.run().await.expect("ingested");
    }
    lake.store().requests().since(&before).billed()
}

/// Every import left a word in the landing zone for ever, and every look listed all of them: a city that imports a file
/// an hour paid more each month.
#[tokio::test]
async fn finished_imports_do_not_make_a_look_dearer() {
    let place = Place::new();
    place.land("elva-01", 1, 5).await;
    let alone = listings_of_an_hour(&place).await;
    for number in 0..1_200 {
        import(&place, number).await;
    }
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").rows, 1_200);
    place.ahead(8 * 24 * HOUR_US);
    let first = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(
        (first.cleaned, place.keys("landing/import:history").len()),
        (1_200, 1_200),
        "the ends go after all else"
    );
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").cleaned, 1_200);
    assert_eq!(place.keys("landing/import:history"), [""; 0]);
    assert_eq!(listings_of_an_hour(&place).await, alone);
    assert_eq!(place.numbers().await, "1205 6 1215");
    import(&place, 7).await;
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").rows, 0, "the table knows it still");
}

/// A table that is lost, after the end of an import left the landing zone: the file can be imported again, and counts once.
#[tokio::test]
async fn an_import_whose_end_has_left_can_be_imported_again_after_a_replay() {
    let place = Place::new();
    import(&place, 1).await;
    place.land("elva-01", 1, 5).await;
    for _ in 0..3 {
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        place.ahead(8 * 24 * HOUR_US);
    }
    assert_eq!(place.keys("landing/import:history"), [""; 0]);
    for key in place.keys(table_folder(TableName::Readings.as_str()).as_ref()) {
        place.store.inner().delete(&key.as_str().into()).await.expect("lost");
    }
    replay(&place.lake(), &SETTINGS, |_| ()).await.expect("replayed");
    finish(&place.lake()).await.expect("finished");
    assert_eq!(place.numbers().await, "5 5 15");
    for _ in 0..2 {
        import(&place, 1).await;
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    }
    assert_eq!(place.numbers().await, "6 6 16");
}
