//! What a look at the landing zone costs: nothing for what is finished, nothing for what is known.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tjern_lake::{Commit, Lake, Operation, Table, TableName};
use tjern_pipeline::ingest::replay::{finish, replay};
use tjern_pipeline::ingest::{Ingester, Polling, ingest};
use tjern_readings::batch::encode;
use tjern_readings::clock::Clock;
use tjern_readings::keys::{Landed, table as table_folder};
use tjern_readings::reading::Reading;
use tjern_readings::sensor::Epoch;
use tjern_readings::store::LakeUrl;
use tjern_readings::store::counted::LISTING_PAGE;

use crate::support::{EPOCH, HOUR_US, Place, SECOND_US, SETTINGS, bounds, reading, source};

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
    // Each says something else: what one only repeats is left out.
    let reading = Reading { value: Some(f64::from(number)), ..reading("import:history", 1) };
    let (bytes, batch) = encode(&source, epoch(number), 1, &[reading], None).expect("encoded");
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

/// A gateway whose disk is changed once a year, and files that are imported: each finished epoch leaves its words in the table for ever. With
/// a hundred thousand of them a batch took six seconds, of which most went into reading them all after each commit.
#[tokio::test]
async fn finished_epochs_are_read_once_and_not_after_each_commit() {
    const EPOCHS: u16 = 2_000;
    let place = Place::new();
    let lake = place.lake();
    let words = |number: u16| {
        let stream = format!("import:history/{}", epoch(number));
        let configuration = format!(":configuration/{stream}/{:020}/none", 1);
        [(stream.clone(), 1), (format!(":closed/{stream}"), 1), (configuration, 1)]
    };
    let mut table = Table::open_or_create(&lake, TableName::Readings).await.expect("created");
    let transactions = (0..EPOCHS).flat_map(words).collect();
    let (operation, notes) = (Operation::Ingest, BTreeMap::new());
    let commit = Commit { operation, add: Vec::new(), remove: Vec::new(), transactions, notes };
    table.commit(commit).await.expect("committed");
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling());
    ingester.run().await.expect("ingested");
    let read = ingester.transactions_read();
    assert!(read >= 3 * u64::from(EPOCHS), "{read}: all of them once");
    for number in 1..=10 {
        place.land("elva-01", number, number).await;
        assert_eq!(ingester.run_everything().await.expect("ingested").rows, 1);
    }
    let read = ingester.transactions_read() - read;
    assert!(read < 10 * 10, "{read} of {EPOCHS} epochs' words were read for ten batches");
    assert_eq!(place.numbers().await, "10 10 55");
    import(&place, 7).await;
    assert_eq!(ingester.run_everything().await.expect("ingested").rows, 0, "what is finished is known still");
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

/// A lake on some store, with a clock that the test moves.
struct Kept {
    lake: Lake,
    clock: Clock,
    folder: Option<tempfile::TempDir>,
}

impl Kept {
    fn in_memory() -> Self {
        let place = Place::new();
        Self { lake: place.lake(), clock: place.clock.clone(), folder: None }
    }

    fn in_a_folder() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Clock::manual(Clock::system().now_us());
        let lake = Lake::open(&LakeUrl::folder(folder.path()).expect("absolute")).expect("opened");
        Self { lake: lake.with_clock(clock.clone()), clock, folder: Some(folder) }
    }

    async fn put(&self, key: &Path, bytes: Vec<u8>) {
        match &self.folder {
            // Nobody pulls the plug: the store's own puts would wait for the disk.
            Some(folder) => {
                let path = folder.path().join(key.as_ref());
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
                std::fs::write(path, bytes).expect("written");
            }
            None => _ = self.lake.objects().put(key, bytes.into()).await.expect("put"),
        }
    }

    /// So many batches of each of so many sources that are in the table, as far as it says.
    async fn history(&self, sources: i64, batches: i64) {
        let names: Vec<_> = (0..sources).map(|number| format!("gateway-{number:04}")).collect();
        for name in &names {
            for batch in 0..batches {
                let landed = Landed::Batch(EPOCH, bounds(batch * 6 + 1, batch * 6 + 6));
                self.put(&landed.key(&source(name)), vec![0]).await;
            }
        }
        let mut table = Table::open_or_create(&self.lake, TableName::Readings).await.expect("created");
        let transactions = names.iter().map(|name| (format!("{name}/{EPOCH}"), batches * 6)).collect();
        let (operation, notes) = (Operation::Ingest, std::collections::BTreeMap::new());
        let commit = Commit { operation, add: Vec::new(), remove: Vec::new(), transactions, notes };
        table.commit(commit).await.expect("committed");
    }

    /// What ten looks cost where nothing is new, and what the first one did.
    async fn ten_looks(&self) -> u64 {
        let mut ingester = Ingester::open(&self.lake, SETTINGS).await.expect("opened").with_polling(polling());
        ingester.run().await.expect("ingested");
        let before = self.lake.store().requests();
        for _ in 0..10 {
            self.clock.advance_us(polling().idle_us);
            let outcome = ingester.run().await.expect("ingested");
            assert_eq!(outcome.batches, 0);
        }
        self.lake.store().requests().since(&before).billed()
    }
}

/// What a look costs: as many requests as the zone has pages, or streams and one, whichever is less. A table that is
/// looked at, or a source that is asked by itself, would show here.
async fn looks_cost_what_the_design_says(kept: impl Fn() -> Kept, zones: &[(i64, i64)]) {
    for (sources, batches) in zones {
        let kept = kept();
        kept.history(*sources, *batches).await;
        // A page that is full is not known to be the last one; a zone that is listed in parts has a last page in each.
        let pages = u64::try_from(sources * batches).expect("small") / LISTING_PAGE + 1;
        let most = pages.min(u64::try_from(*sources).expect("small") + 1);
        let most = most + most / 8;
        let spent = kept.ten_looks().await;
        println!(
            "{sources} sources with {batches} batches each: ten looks cost {spent} requests, at most {}",
            most * 10
        );
        assert!(spent <= most * 10, "{sources} sources, {batches} batches: {spent} requests for ten looks");
    }
}

/// The bill must not grow with what lies there: 10, 1,000, 5,000 batches of one gateway, 1, 20 and 200 gateways.
#[tokio::test]
async fn a_look_where_nothing_is_new_costs_the_same_however_much_lies_there() {
    let zones = [(1, 10), (1, 1_000), (1, 5_000), (20, 10), (20, 500), (200, 5), (200, 25)];
    looks_cost_what_the_design_says(Kept::in_memory, &zones).await;
    let zones = [(1, 10), (1, 1_000), (1, 2_500), (20, 50), (200, 5)];
    looks_cost_what_the_design_says(Kept::in_a_folder, &zones).await;
}

/// A city of a thousand gateways, once: what lands together is one commit, and what it costs to see that nothing is new is
/// one listing of two pages.
#[tokio::test]
async fn a_thousand_sources_are_taken_in_one_commit() {
    let place = Place::new();
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling());
    ingester.run().await.expect("nothing yet");
    for number in 0..1_000 {
        place.land(&format!("gateway-{number:04}"), 1, 2).await;
    }
    let version = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there").version();
    let before = lake.store().requests();
    place.ahead(polling().idle_us);
    let outcome = ingester.run().await.expect("ingested");
    assert_eq!((outcome.batches, outcome.rows), (1_000, 2_000));
    let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    assert_eq!(table.version(), version + 1, "one commit for all");
    let spent = lake.store().requests().since(&before);
    println!("a thousand sources: {spent}");
    assert!(spent.gets <= 1_000 + 20 && spent.puts <= 2 && spent.lists <= 10, "{spent}");
    let before = lake.store().requests();
    for _ in 0..8 {
        place.ahead(polling().idle_us);
        assert_eq!(ingester.run().await.expect("ingested").batches, 0);
    }
    let spent = lake.store().requests().since(&before);
    assert!(spent.billed() <= 16, "{spent}");
}

/// A lake with a closed epoch of so many batches, all of which were taken.
async fn with_a_closed_epoch(batches: i64) -> Place {
    let (place, name) = (Place::new(), "elva-01");
    for number in 1..=batches {
        place.put(&Landed::Batch(EPOCH, bounds(number, number)).key(&source(name)), vec![0]).await;
    }
    place.put(&Landed::Closed(EPOCH).key(&source(name)), format!("{batches}\n").into_bytes()).await;
    let mut table = Table::open_or_create(&place.lake(), TableName::Readings).await.expect("created");
    let transactions = vec![(format!("{name}/{EPOCH}"), batches), (format!(":closed/{name}/{EPOCH}"), batches)];
    let (operation, notes) = (Operation::Ingest, BTreeMap::new());
    let commit = Commit { operation, add: Vec::new(), remove: Vec::new(), transactions, notes };
    table.commit(commit).await.expect("committed");
    place
}

/// How many listings a look everywhere makes, after one that has seen all; what is behind the closed epoch it finds.
async fn listings_of_a_look(place: &Place) -> u64 {
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling());
    ingester.run().await.expect("ingested");
    place.land("tarn-01", 1, 5).await;
    place.ahead(60 * SECOND_US);
    let before = lake.store().requests();
    assert_eq!(ingester.run().await.expect("ingested").rows, 5, "a new source lies behind it");
    lake.store().requests().since(&before).lists
}

/// A closed epoch is not listed beyond the page in which its first key lies: what it keeps in the landing zone costs no request, be
/// it thousands of batches.
#[tokio::test]
async fn a_closed_epoch_of_many_pages_is_listed_no_further_than_its_first() {
    let short = listings_of_a_look(&with_a_closed_epoch(30).await).await;
    let pages = 4;
    let batches = i64::try_from(LISTING_PAGE * pages + 500).expect("small");
    let long = listings_of_a_look(&with_a_closed_epoch(batches).await).await;
    assert_eq!(long, short + 1, "its first page, and what lies behind all {pages} of them");
}
