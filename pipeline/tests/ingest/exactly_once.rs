//! Every reading once, whatever fails between any two requests.
//!
//! Each harness runs an ingester over a store that fails at one place, for every place there is, then lets a new
//! process go on over the same store without faults, and counts. The canary is an ingester that does what looks
//! sufficient (take what lies there, commit it, remove it): the harness must find where it doubles rows, or it
//! would find nothing in ours either.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::{EPOCH, HOUR_US, NOW_US, Place, SECOND_US, SETTINGS, bounds, source};
use arrow::array::{ArrayRef, Int8Array, Int16Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tjern_lake::{Commit, Lake, Operation, Table, TableName, schema, write_file};
use tjern_pipeline::ingest::{IngestOutcome, Ingester, Polling, ingest};
use tjern_readings::batch::{BatchError, decode};
use tjern_readings::keys::Landed;
use tjern_testing::simulated::Fault;

/// What the landing zone of [`landed`] holds once, in the words of [`Place::numbers`].
const ALL: &str = "41 41 535";

/// Two gateways, one with a gap and a batch that is bad, a hole that is passed, and a finished epoch.
pub(crate) async fn landed() -> Place {
    let place = Place::new();
    place.land("landfall-01", 1, 10).await;
    place.land("landfall-01", 11, 20).await;
    place.put(&Landed::Gap(EPOCH, bounds(21, 24)).key(&source("landfall-01")), b"{}".to_vec()).await;
    place.land("landfall-01", 25, 30).await;
    place.put(&Landed::Closed(EPOCH).key(&source("landfall-01")), b"30\n".to_vec()).await;
    place.land("elva-01", 1, 5).await;
    place.put(&Landed::Batch(EPOCH, bounds(6, 7)).key(&source("elva-01")), b"no batch".to_vec()).await;
    place.land("elva-01", 10, 19).await;
    // The hole of elva-01 (8 and 9) has been waited for long enough.
    place.ahead(2 * HOUR_US);
    place
}

/// An ingester that does what looks sufficient.
async fn careless(lake: &Lake) -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::open_or_create(lake, TableName::Readings).await?;
    let metas: Vec<_> = lake.objects().list(Some(&Path::from("landing"))).try_collect().await?;
    for meta in metas {
        let bytes = lake.objects().get(&meta.location).await?.bytes().await?;
        let Ok(batch) = decode(&bytes) else { continue };
        commit_plainly(lake, &mut table, &batch).await?;
        lake.objects().delete(&meta.location).await?;
    }
    Ok(())
}

/// A batch's rows in a commit that says nothing of how far one is.
pub(crate) async fn commit_plainly(
    lake: &Lake,
    table: &mut Table,
    batch: &tjern_readings::batch::Batch,
) -> Result<(), Box<dyn std::error::Error>> {
    let file = write_file(lake, TableName::Readings, &[plain_rows(batch)?]).await?;
    let (operation, notes) = (Operation::Ingest, BTreeMap::new());
    let commit = Commit { operation, add: vec![file], remove: Vec::new(), transactions: Vec::new(), notes };
    table.commit(commit).await?;
    Ok(())
}

pub(crate) fn plain_rows(batch: &tjern_readings::batch::Batch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let wanted = schema::arrow(TableName::Readings);
    let count = batch.rows.num_rows();
    let taken = |index: usize, column: usize| cast(batch.rows.column(index), wanted.field(column).data_type());
    let text = |text: String| -> ArrayRef { Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, count))) };
    let columns = vec![
        taken(0, 0)?,
        taken(1, 1)?,
        taken(2, 2)?,
        taken(3, 3)?,
        taken(4, 4)?,
        taken(5, 5)?,
        text(batch.header.source.to_string()),
        text(batch.header.epoch.to_string()),
        taken(6, 8)?,
        Arc::new(Int16Array::from(vec![0; count])),
        Arc::new(Int8Array::from(vec![0; count])),
        Arc::new(Int32Array::new_null(count)),
        Arc::new(TimestampMicrosecondArray::from(vec![NOW_US; count]).with_timezone("UTC")),
    ];
    RecordBatch::try_new(wanted, columns)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Careless,
}

async fn once(kind: Kind, lake: &Lake) -> bool {
    match kind {
        Kind::Ours => ingest(lake, &SETTINGS).await.is_ok(),
        Kind::Careless => careless(lake).await.is_ok(),
    }
}

/// Runs an ingester with each of the faults in turn, until one lies beyond its last request. Returns at which the
/// rows were not those that landed, and how many faults there were.
async fn wrong_at(kind: Kind, fault: fn(u64) -> Fault) -> (Vec<u64>, u64) {
    let mut wrong = Vec::new();
    for at in 1.. {
        let place = landed().await;
        place.store.fail(fault(at));
        let went_well = once(kind, &place.lake()).await;
        let requests = place.store.counted();
        place.store.fail(Fault::None);
        // A new process, twice: the second finds nothing to do.
        while !once(kind, &place.lake()).await {}
        once(kind, &place.lake()).await;
        if place.numbers().await != ALL {
            wrong.push(at);
        }
        if fault(at).is_beyond(requests) {
            assert!(went_well, "without a fault nothing fails");
            return (wrong, at - 1);
        }
    }
    unreachable!("a run ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_of_any_put_doubles_and_loses_nothing() {
    let (wrong, faults) = wrong_at(Kind::Ours, Fault::LostReply).await;
    println!("{faults} puts, the reply of each lost in turn");
    assert_eq!(wrong, Vec::<u64>::new());
    assert!(faults >= 5, "the table, the rows, the commit and two of the quarantine at least: {faults}");
    let (wrong, faults) = wrong_at(Kind::Careless, Fault::LostReply).await;
    assert!(!wrong.is_empty(), "the canary lives: {faults} faults and not one was found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_requests_doubles_and_loses_nothing() {
    for fault in [Fault::DeadBefore as fn(u64) -> Fault, Fault::DeadAfter] {
        let (wrong, faults) = wrong_at(Kind::Ours, fault).await;
        println!("{faults} requests, a crash at each");
        assert_eq!(wrong, Vec::<u64>::new());
        assert!(faults > 20, "{faults}");
    }
    let (wrong, faults) = wrong_at(Kind::Careless, Fault::DeadAfter).await;
    assert!(!wrong.is_empty(), "the canary lives: {faults} faults and not one was found");
}

/// The same where batches have lain in the landing zone for their grace: what is removed is in the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_landed_batches_are_removed_loses_none() {
    for fault in [Fault::DeadBefore as fn(u64) -> Fault, Fault::DeadAfter] {
        let mut removing = 0;
        for at in 1.. {
            let place = Place::new();
            for first in [1, 11, 21] {
                place.land("landfall-01", first, first + 9).await;
            }
            ingest(&place.lake(), &SETTINGS).await.expect("ingested");
            place.ahead(8 * 24 * HOUR_US);
            place.land("landfall-01", 31, 40).await;
            place.store.fail(fault(at));
            let went_well = ingest(&place.lake(), &SETTINGS).await.is_ok();
            let (calls, _) = place.store.counted();
            place.store.fail(Fault::None);
            removing += usize::from((2..4).contains(&place.keys("landing").len()));
            while ingest(&place.lake(), &SETTINGS).await.is_err() {}
            assert_eq!(place.numbers().await, "40 40 820", "{:?}", fault(at));
            assert_eq!(place.keys("landing").len(), 1, "the newest of an open epoch stays: {:?}", fault(at));
            if calls < at {
                assert!(went_well && removing > 0, "the crash came between two removals too");
                break;
            }
        }
    }
}

/// Two servers at once, one of which loses replies: in the minute when one is replaced by the other.
#[tokio::test(flavor = "multi_thread")]
async fn two_ingesters_with_a_lost_reply_double_and_lose_nothing() {
    for at in 1..12 {
        let place = landed().await;
        place.store.fail(Fault::LostReply(at));
        let (one, other) = (place.lake(), place.lake());
        // Either may fail; what counts is what is there after a third went on.
        let _ = tokio::join!(ingest(&one, &SETTINGS), ingest(&other, &SETTINGS));
        place.store.fail(Fault::None);
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        assert_eq!(place.numbers().await, ALL, "the reply of put {at} was lost");
    }
}

/// A source whose batch the store will not hand out (a right that is missing, a damaged object) is alone with that.
#[tokio::test]
async fn one_sources_trouble_with_the_store_fails_nobody_else() {
    let place = landed().await;
    place.store.fail(Fault::Withheld("00000000000000000001-00000000000000000005.arrow"));
    let error = ingest(&place.lake(), &SETTINGS).await.expect_err("the store failed, and that is told");
    assert!(error.to_string().contains("elva-01"), "{error}");
    assert_eq!(place.numbers().await, "26 26 375", "landfall-01 was taken");
    place.store.fail(Fault::None);
    ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!(place.numbers().await, ALL);
}

/// The end of an epoch that cannot be read, or a quarantine that takes nothing, stopped the commits of every source.
#[tokio::test]
async fn what_else_the_store_refuses_of_one_source_fails_nobody_else() {
    for (withheld, numbers) in [("closed", ALL), (".reason.json", "31 31 ")] {
        let place = landed().await;
        place.store.fail(Fault::Withheld(withheld));
        // What could not be done is told where readings wait for it.
        let told = ingest(&place.lake(), &SETTINGS).await.is_err();
        assert_eq!(told, withheld != "closed", "{withheld}");
        let found = place.numbers().await;
        assert!(found.starts_with(numbers), "{withheld}: {found}");
        place.store.fail(Fault::None);
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        assert_eq!(place.numbers().await, ALL, "{withheld}");
    }
}

/// The batch's bytes with another word in its metadata.
async fn altered(place: &Place, key: &Path, name: &str, word: &str) -> Vec<u8> {
    let bytes = place.store.inner().get(key).await.expect("there").bytes().await.expect("read");
    let mut reader = StreamReader::try_new(bytes.as_ref(), None).expect("a stream");
    let rows = reader.next().expect("a batch").expect("readable");
    let mut metadata = rows.schema().metadata().clone();
    assert!(metadata.insert(name.to_owned(), word.to_owned()).is_some(), "a batch has {name}");
    let schema = Arc::new(rows.schema().as_ref().clone().with_metadata(metadata));
    let mut written = Vec::new();
    let mut writer = StreamWriter::try_new(&mut written, &schema).expect("a writer");
    let rows = RecordBatch::try_new(schema, rows.columns().to_vec()).expect("the same columns");
    writer.write(&rows).expect("written");
    writer.finish().expect("written");
    written
}

/// A checksum that lies and a format of tomorrow go to quarantine with their reason; the numbers stay open, and
/// the mended batch, or the same one read by tomorrow's software, fills them.
#[tokio::test]
async fn a_lying_checksum_and_a_format_of_tomorrow_are_set_aside() {
    for (name, word, reason) in [
        ("tjern.checksum", "0".repeat(64), "checksum"),
        ("tjern.format", "2".to_owned(), "format version 2, this software reads up to 1; hint: update the pipeline"),
    ] {
        let place = Place::new();
        let key = place.land("landfall-01", 1, 5).await;
        let bad = altered(&place, &key, name, &word).await;
        // The canary of this test: what was altered was readable before, and is refused for this very reason.
        let refused = decode(&bad).expect_err("refused");
        assert!(matches!(refused, BatchError::Checksum { .. } | BatchError::FutureFormat { .. }), "{refused}");
        place.store.inner().put(&key, bad.into()).await.expect("put");
        place.land("landfall-01", 6, 9).await;
        let outcome = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        assert_eq!((outcome.rows, outcome.quarantined), (4, 1));
        let kept = tjern_pipeline::quarantine::list(&place.lake()).await.expect("listed");
        assert!(kept[0].reason.contains(reason), "{kept:?}");
        place.land("landfall-01", 1, 5).await;
        ingest(&place.lake(), &SETTINGS).await.expect("ingested");
        assert_eq!(place.numbers().await, "9 9 45");
    }
}

/// A gateway that lost the reply uploads again: while the batch lies there, and when it has long gone.
#[tokio::test]
async fn a_batch_uploaded_again_is_known_before_and_after_its_grace() {
    let place = Place::new();
    let lake = place.lake();
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened");
    for first in [1, 11, 21] {
        place.land("landfall-01", first, first + 9).await;
    }
    ingester.run().await.expect("ingested");
    for days in [0, 8, 30] {
        place.ahead(days * 24 * HOUR_US);
        // A sweep removes what may go, then the gateway uploads it again, and a sweep sees that.
        ingester.run().await.expect("ingested");
        place.land("landfall-01", 1, 10).await;
        place.ahead(HOUR_US);
        let outcome = ingester.run().await.expect("ingested");
        assert_eq!((outcome.rows, outcome.quarantined), (0, 0), "{days} days later");
        assert_eq!(place.numbers().await, "30 30 465");
    }
    assert_eq!(place.keys("landing").len(), 2, "the newest, and the one that came again: {:?}", place.keys("landing"));
}

/// What follows a finished epoch is found, and not a request goes to its keys: they are in the page of the zone that is listed in any
/// case. How many pages more they have costs nothing: `looks.rs`.
#[tokio::test]
async fn a_closed_epoch_is_finished_and_its_hole_is_filled_all_the_same() {
    let place = landed().await;
    let lake = place.lake();
    ingest(&lake, &SETTINGS).await.expect("ingested");
    let table = Table::open(&lake, TableName::Readings).await.expect("opened").expect("there");
    assert_eq!(table.transaction(&format!(":closed/landfall-01/{EPOCH}")), Some(30));
    let before = lake.store().requests();
    let outcome = ingest(&lake, &SETTINGS).await.expect("ingested");
    assert_eq!(outcome, IngestOutcome::default());
    let spent = lake.store().requests().since(&before);
    assert_eq!(
        (spent.lists, spent.gets, spent.puts),
        (2, 0, 0),
        "the landing zone and the table, and no object: {spent}"
    );
    // The gateway found in its spool what it had given up.
    place.land("landfall-01", 22, 23).await;
    assert_eq!(ingest(&lake, &SETTINGS).await.expect("ingested").rows, 2);
    assert_eq!(place.numbers().await, "43 43 580");
}

/// A gateway says that an epoch ended at 12, and the batch of 9 to 12 is nowhere.
#[tokio::test]
async fn a_hole_at_the_end_of_a_closed_epoch_is_waited_for_and_passed() {
    let place = Place::new();
    place.land("landfall-01", 1, 8).await;
    place.put(&Landed::Closed(EPOCH).key(&source("landfall-01")), b"12\n".to_vec()).await;
    let waiting = ingest(&place.lake(), &SETTINGS).await.expect("ingested");
    assert_eq!((waiting.rows, waiting.waiting, waiting.passed), (8, 1, 0));
    place.ahead(2 * HOUR_US);
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").passed, 1);
    place.land("landfall-01", 9, 12).await;
    assert_eq!(ingest(&place.lake(), &SETTINGS).await.expect("ingested").rows, 4);
    assert_eq!(place.numbers().await, "12 12 78");
}

/// A daemon looks at what is new; what comes below the watermark must not wait for its next start.
#[tokio::test]
async fn a_daemon_sees_fillings_and_clones_below_the_watermark() {
    let place = Place::new();
    let lake = place.lake();
    let polling = Polling { every_us: 2 * SECOND_US, idle_us: 50 * SECOND_US };
    let mut ingester = Ingester::open(&lake, SETTINGS).await.expect("opened").with_polling(polling);
    // More than a page, so that a look everywhere jumps over what is known.
    for number in 1..=1_100 {
        place.land("landfall-01", number * 2 - 1, number * 2).await;
    }
    ingester.run().await.expect("ingested");
    place.land("landfall-01", 2_203, 2_204).await;
    place.ahead(2 * HOUR_US);
    assert_eq!(ingester.run().await.expect("ingested").passed, 1, "2201 and 2202 are a hole");
    place.land("landfall-01", 2_201, 2_202).await;
    let clone: Vec<_> = (6..=7).map(|number| crate::support::reading("landfall-01", number + 100)).collect();
    place.land_readings("landfall-01", 6, &clone, None).await;
    let mut outcome = IngestOutcome::default();
    for _ in 0..20 {
        place.ahead(60 * SECOND_US);
        let now = ingester.run().await.expect("ingested");
        outcome.rows += now.rows;
        outcome.quarantined += now.quarantined;
    }
    assert_eq!((outcome.rows, outcome.quarantined), (2, 1), "the filling is taken, the clone's batch is set aside");
    assert_eq!(place.numbers().await, "2204 2204 2429910");
}
