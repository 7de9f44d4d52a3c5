//! What a sound lake, and each lie that a log or a file can tell, is to `verify`.

use std::io::Write;

use bytes::Bytes;
use jiff::tz::TimeZone;
use parquet::arrow::ArrowWriter;
use parquet::basic::Type;
use parquet::data_type::ByteArray;
use parquet::file::metadata::{
    ColumnIndexBuilder, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::TrackedWrite;

use super::*;
use crate::compact::CompactSettings;
use crate::rollup::rollup;
use crate::status::status;
use crate::testing::{NOW_US, Place, Row, batch_of, commit};
use tjern_lake::{Operation, write_file};

async fn checked(place: &Place) -> Verdict {
    verify(&place.lake, &mut |_, _| ()).await.expect("read")
}

async fn filled() -> Place {
    let place = Place::new();
    for round in 0..3 {
        place.ingest(&[Row::new("sample", NOW_US + round, 1.0), Row::new("state", NOW_US + round, 2.0)]).await;
    }
    place
}

#[tokio::test]
async fn a_sound_lake_has_no_problem() {
    let place = filled().await;
    place.compact().await;
    place.ingest(&[Row::new("sample", NOW_US + 9, 1.0)]).await;
    let verdict = checked(&place).await;
    assert_eq!((verdict.files, verdict.rows, verdict.problems), (2, 7, vec![]));
}

/// Every lie that a log can tell is a query's wrong answer one day.
#[tokio::test]
async fn what_the_log_says_wrongly_is_told() {
    let rows = [Row::new("sample", NOW_US, 1.0), Row::new("sample", NOW_US, 1.0), Row::new("level", NOW_US, 1.0)];
    for (lie, told) in [
        (&(|file: &mut DataFile| file.rows = Some(4)) as &dyn Fn(&mut DataFile), "and the log says 4"),
        (&|file| file.sorted = true, "tagged as sorted"),
        (&|file| file.unique = true, "tagged as free of doubles"),
        (&|file| file.sensor = Some(("tjern/n".into(), "tjern/z".into())), "`tjern/n`"),
        (&|file| file.time_us = Some((NOW_US + 1, NOW_US + 1)), "06:00:00Z to"),
    ] {
        let place = filled().await;
        let mut file = write_file(&place.lake, TableName::Readings, &[batch_of(&rows)]).await.expect("written");
        assert!(!file.sorted && !file.unique);
        lie(&mut file);
        let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
        table.commit(commit(Operation::Ingest, vec![file], vec![])).await.expect("committed");
        let problems = checked(&place).await.problems;
        assert!(
            !problems.is_empty() && problems.iter().any(|problem| problem.what.contains(told)),
            "{told}: {problems:?}"
        );
    }
}

fn log_of(place: &Place, table: TableName) -> std::path::PathBuf {
    place.folder.path().join(format!("lake/tables/{table}/_delta_log"))
}

/// A commit of 0 bytes took 100,000 readings out of all sums, and `verify` said that all was as the logs say. It is told beside
/// what is wrong with other tables, and also where a checkpoint stands after it, so that only who asks what changed reads it.
#[tokio::test]
async fn an_emptied_commit_is_told() {
    for has_checkpoint in [false, true] {
        let place = filled().await;
        place.register(&["sample,Cel,sample,public,-5,30"]).await;
        let mut table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
        if has_checkpoint {
            table.write_checkpoint().await.expect("written");
        }
        let emptied = log_of(&place, TableName::Readings).join("00000000000000000002.json");
        std::fs::write(&emptied, b"").expect("written");
        let sites = Table::open(&place.lake, TableName::Sites).await.expect("opened").expect("there").files().remove(0);
        std::fs::remove_file(place.folder.path().join("lake/tables/sites").join(&sites.path)).expect("removed");
        let verdict = verify(&place.reopened(), &mut |_, _| ()).await.expect("read");
        let keys: Vec<&str> = verdict.problems.iter().map(|problem| problem.key.as_str()).collect();
        let sites = format!("tables/sites/{}", sites.path);
        assert_eq!(keys, ["tables/readings/_delta_log/00000000000000000002.json", sites.as_str()], "{has_checkpoint}");
    }
}

/// A cut log of hours, which can be made anew at any time, stopped ingest and every other command, and nothing said what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_log_of_hours_stops_only_who_needs_them() {
    let place = filled().await;
    place.register(&["sample,Cel,sample,public,-5,30"]).await;
    rollup(&place.lake, &TimeZone::UTC).await.expect("summed up");
    let hours = place.rows(TableName::Hourly).await;
    assert!(hours.num_rows() > 0);
    let version = place.version(TableName::Hourly).await.expect("there");
    let cut = log_of(&place, TableName::Hourly).join(format!("{version:020}.json"));
    let bytes = std::fs::read(&cut).expect("read");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("cut");
    let hint = "hint: move `tables/hourly` away, and `tjern pipeline rollup` makes it anew";

    let problems = verify(&place.reopened(), &mut |_, _| ()).await.expect("read").problems;
    assert!(problems.len() == 1 && problems[0].key.contains("tables/hourly/_delta_log/"), "{problems:?}");
    assert!(problems[0].what.contains(hint), "{problems:?}");
    let found = status(&place.reopened(), &CompactSettings::default()).await.expect("found");
    assert!(found.damaged["hourly"].contains(hint), "{found:?}");
    assert_eq!((found.tables[0].table, found.tables[0].rows), (TableName::Readings, 6));
    Table::create_all(&place.reopened()).await.expect("readings can be taken");
    let refused = rollup(&place.reopened(), &TimeZone::UTC).await.expect_err("it needs them").to_string();
    assert!(refused.contains(hint), "{refused}");

    let tables = place.folder.path().join("lake/tables");
    std::fs::rename(tables.join("hourly"), place.folder.path().join("hourly.damaged")).expect("moved away");
    rollup(&place.reopened(), &TimeZone::UTC).await.expect("summed up anew");
    assert_eq!(place.rows(TableName::Hourly).await, hours);
    assert_eq!(verify(&place.reopened(), &mut |_, _| ()).await.expect("read").problems, []);
}

#[tokio::test]
async fn a_file_that_is_gone_cut_or_damaged_is_told() {
    for damage in [
        &(|path: &std::path::Path| std::fs::remove_file(path).expect("removed")) as &dyn Fn(&std::path::Path),
        &|path| std::fs::write(path, b"PAR1").expect("cut"),
        &|path| {
            let mut bytes = std::fs::read(path).expect("read");
            bytes[4..40].fill(0xFF);
            std::fs::write(path, bytes).expect("written");
        },
    ] {
        let place = filled().await;
        let table = Table::open(&place.lake, TableName::Readings).await.expect("opened").expect("there");
        let file = table.files().swap_remove(0);
        damage(&place.folder.path().join("lake/tables/readings").join(&file.path));
        let verdict = checked(&place).await;
        assert_eq!((verdict.files, verdict.problems.len()), (3, 1), "{:?}", verdict.problems);
        assert!(verdict.problems[0].key.ends_with(&file.path));
    }
}

/// How many of so many files, in each of which one bit turned over, are told. Where the log has no SHA-256 of them, it is not.
async fn told_of(flips: usize, seed: u64, with_sha256: bool) -> usize {
    let place = Place::new();
    let mut table = Table::open_or_create(&place.lake, TableName::Readings).await.expect("a table");
    let mut file = write_file(&place.lake, TableName::Readings, &[batch_of(&paged())]).await.expect("written");
    file.sha256 = file.sha256.filter(|_| with_sha256);
    let path = place.folder.path().join("lake/tables/readings").join(&file.path);
    table.commit(commit(Operation::Ingest, vec![file], vec![])).await.expect("committed");
    let verdict = checked(&place).await;
    assert_eq!((verdict.without_sha256, verdict.problems), (usize::from(!with_sha256), vec![]));
    let sound = std::fs::read(&path).expect("read");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut told = 0;
    for _ in 0..flips {
        let mut bytes = sound.clone();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u32(..8);
        std::fs::write(&path, bytes).expect("written");
        told += usize::from(!checked(&place).await.problems.is_empty());
    }
    told
}

/// A value that was 0.6 became 0.253125 by one bit, and all was as the logs said. Without the SHA-256 some of these bits are
/// not seen: so it is by that that they are.
#[tokio::test]
async fn no_bit_turns_over_unseen() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    assert_eq!(told_of(150, seed, true).await, 150);
    assert!(told_of(150, seed, false).await < 150, "seed {seed}: all were told without it");
}

/// Every query of this file failed, and `verify`, which does not ask what a writer thought of its columns, said that all was
/// well.
#[tokio::test]
async fn a_file_that_no_query_opens_is_told() {
    let place = Place::new();
    let file = write_file(&place.lake, TableName::Readings, &[batch_of(&paged())]).await.expect("written");
    let bytes = std::fs::read(place.folder.path().join("lake/tables/readings").join(&file.path)).expect("read");
    let name = b"ARROW:schema";
    let at = bytes.windows(name.len()).position(|some| some == name).expect("our files have it");
    let mut damaged = bytes.clone();
    damaged[at + name.len() + 40] = b'!';
    assert_eq!(problems_of(&bytes).await, Vec::<String>::new());
    let problems = problems_of(&damaged).await;
    assert!(problems.len() == 1 && problems[0].contains("ARROW:schema"), "{problems:?}");
}

/// Where the sort columns stand.
const TEXT: usize = 0;
const TIME: usize = 1;

/// Rows of a page, and of a row group.
const PAGE: usize = 4;
const GROUP: usize = 12;

/// Three row groups of three pages each, in the table's order.
fn paged() -> Vec<Row> {
    let row = |number: i64| Row::new(if number < 18 { "level" } else { "sample" }, NOW_US + number, 1.0);
    (0..36).map(row).collect()
}

fn written(rows: &[Row]) -> Vec<u8> {
    let batch = batch_of(rows);
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(GROUP))
        .set_data_page_row_count_limit(PAGE)
        .set_write_batch_size(1)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    bytes
}

/// The same rows under another footer.
fn doctored(bytes: &[u8], lie: impl FnOnce(ParquetMetaData) -> ParquetMetaData) -> Vec<u8> {
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.try_parse(&Bytes::copy_from_slice(bytes)).expect("our own");
    let metadata = lie(reader.finish().expect("our own"));
    let mut file = Vec::new();
    let mut target = TrackedWrite::new(&mut file);
    // The old footer stays in between, where nobody looks.
    target.write_all(bytes).expect("memory");
    ParquetMetaDataWriter::new_with_tracked(target, &metadata).finish().expect("written");
    file
}

/// What a page index says of a page.
struct Page {
    is_null: bool,
    low: Vec<u8>,
    high: Vec<u8>,
    nulls: i64,
}

/// A page index that says something else of one page of a column.
fn of_page(metadata: ParquetMetaData, [group, column, page]: [usize; 3], lie: impl Fn(&mut Page)) -> ParquetMetaData {
    let mut index = metadata.column_index().expect("it has one").clone();
    let found = &index[group][column];
    let kind = if column == TEXT { Type::BYTE_ARRAY } else { Type::INT64 };
    let mut changed = ColumnIndexBuilder::new(kind);
    for number in 0..usize::try_from(found.num_pages()).expect("small") {
        let (low, high) = match found {
            ColumnIndexMetaData::BYTE_ARRAY(found) => (found.min_value(number), found.max_value(number)),
            _ => (None, None),
        };
        let time = |time: Option<&i64>| time.expect("a time").to_le_bytes().to_vec();
        let (low, high) = match found {
            ColumnIndexMetaData::INT64(found) => (time(found.min_value(number)), time(found.max_value(number))),
            _ => (low.expect("a text").to_vec(), high.expect("a text").to_vec()),
        };
        let mut said = Page { is_null: false, low, high, nulls: found.null_count(number).expect("counted") };
        if number == page {
            lie(&mut said);
        }
        changed.append(said.is_null, said.low, said.high, said.nulls);
    }
    index[group][column] = changed.build().expect("an index");
    metadata.into_builder().set_column_index(Some(index)).build()
}

/// Statistics that say something else of one column of a row group.
fn of_group(metadata: ParquetMetaData, [group, column]: [usize; 2], lie: Statistics) -> ParquetMetaData {
    let mut builder = metadata.into_builder();
    let mut groups = builder.take_row_groups();
    let mut changed = groups.remove(group).into_builder();
    let mut columns = changed.take_columns();
    let one = columns.remove(column).into_builder().set_statistics(lie).build().expect("a column");
    columns.insert(column, one);
    groups.insert(group, changed.set_column_metadata(columns).build().expect("a row group"));
    builder.set_row_groups(groups).build()
}

/// What is wrong with a lake whose one file has these bytes.
async fn problems_of(bytes: &[u8]) -> Vec<String> {
    let place = Place::new();
    let mut table = Table::open_or_create(&place.lake, TableName::Readings).await.expect("a table");
    let mut file = write_file(&place.lake, TableName::Readings, &[batch_of(&paged())]).await.expect("written");
    assert!(file.sorted && file.unique);
    std::fs::write(place.folder.path().join("lake/tables/readings").join(&file.path), bytes).expect("written");
    (file.size, file.sha256) = (i64::try_from(bytes.len()).expect("small"), None);
    let path = file.path.clone();
    table.commit(commit(Operation::Ingest, vec![file], vec![])).await.expect("committed");
    let verdict = checked(&place).await;
    assert!(verdict.problems.iter().all(|problem| problem.key.ends_with(&path)), "{:?}", verdict.problems);
    let is_open = !verdict.problems.iter().any(|problem| problem.what.contains("ARROW:schema"));
    assert_eq!(verdict.rows, if is_open { 36 } else { 0 });
    verdict.problems.into_iter().map(|problem| problem.what).collect()
}

/// A page index that is wrong (a writer's defect, a bit that turned over) makes queries leave out pages that hold what they
/// ask for. Every row was there, all of the log was true, and `verify` found nothing.
#[tokio::test]
async fn what_a_file_says_wrongly_of_its_pages_and_row_groups_is_told() {
    let sound = written(&paged());
    assert_eq!(problems_of(&sound).await, Vec::<String>::new());
    assert_eq!(
        problems_of(&doctored(&sound, |metadata| metadata)).await,
        Vec::<String>::new(),
        "a new footer is no lie"
    );
    let at = |number: i64| NOW_US + number;
    let times = |low: i64, high: i64, nulls: u64| Statistics::int64(Some(low), Some(high), None, Some(nulls), false);
    let texts = |low: &str, high: &str| {
        let [low, high] = [low, high].map(|text| Some(ByteArray::from(text)));
        Statistics::byte_array(low, high, None, Some(0), false)
    };
    type Lie<'a> = Box<dyn Fn(ParquetMetaData) -> ParquetMetaData + 'a>;
    let lies: Vec<(&str, Lie<'_>)> = vec![
        (
            "row group 1, column `time`, page 2: it holds",
            Box::new(|it| of_page(it, [1, TIME, 2], |page| page.high = at(22).to_le_bytes().to_vec())),
        ),
        (
            "row group 2, column `time`, page 0: it holds",
            Box::new(|it| of_page(it, [2, TIME, 0], |page| page.low = at(25).to_le_bytes().to_vec())),
        ),
        (
            "row group 0, column `sensor`, page 1: it holds `tjern/level` to `tjern/level`, and the page index says",
            Box::new(|it| of_page(it, [0, TEXT, 1], |page| page.low = b"tjern/lower".to_vec())),
        ),
        (
            "row group 1, column `sensor`, page 0: 0 rows have no value, and the page index says 3",
            Box::new(|it| of_page(it, [1, TEXT, 0], |page| page.nulls = 3)),
        ),
        (
            "row group 2, column `time`, page 1: it holds",
            Box::new(|it| of_page(it, [2, TIME, 1], |page| page.is_null = true)),
        ),
        ("row group 1, column `time`: it holds", Box::new(|it| of_group(it, [1, TIME], times(at(12), at(22), 0)))),
        (
            "row group 0, column `time`: 0 rows have no value, and its statistics say 1",
            Box::new(|it| of_group(it, [0, TIME], times(at(0), at(11), 1))),
        ),
        (
            "row group 2, column `sensor`: it holds `tjern/sample` to `tjern/sample`, and its statistics say",
            Box::new(|it| of_group(it, [2, TEXT], texts("tjern/a", "tjern/level"))),
        ),
    ];
    for (told, lie) in lies {
        let problems = problems_of(&doctored(&sound, lie)).await;
        assert!(problems.len() == 1 && problems[0].starts_with(told), "{told}: {problems:?}");
    }
}

/// A least and a greatest that are wider than the rows leave nothing out: texts are cut short. One that calls itself exact
/// is an answer by itself.
#[tokio::test]
async fn what_is_wider_than_the_rows_is_wrong_only_where_it_is_said_to_be_exact() {
    let sound = written(&paged());
    for is_exact in [false, true] {
        let [low, high] = ["tjern/a", "tjern/z"].map(|text| Some(ByteArray::from(text)));
        let said = ValueStatistics::new(low, high, None, Some(0), false);
        let said = Statistics::ByteArray(said.with_min_is_exact(is_exact).with_max_is_exact(is_exact));
        let problems = problems_of(&doctored(&sound, |it| of_group(it, [1, TEXT], said))).await;
        assert_eq!(problems.len(), usize::from(is_exact), "{problems:?}");
    }
}
