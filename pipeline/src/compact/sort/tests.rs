//! What the sorter promises: the same rows, in order, within its memory, however many they are.

use proptest::prelude::*;
use tjern_lake::read::with_dictionaries;
use tjern_lake::{TableName, schema};

use super::*;
use crate::testing::{Row, batch_of, rows_of};

const WINDOWS: [Window; 2] = [Window { from_us: 0, to_us: 1_000 }, Window { from_us: 1_000, to_us: 2_000 }];

/// What was handed out: the window of each row; what was read and handed out; what it took.
struct Sorted {
    rows: Vec<(usize, Row)>,
    read: Multiset,
    handed_out: Multiset,
    cost: SortCost,
}

/// Rows as a file's reader hands them out.
fn as_read(rows: &[Row]) -> RecordBatch {
    let (rows, wanted) = (batch_of(rows), with_dictionaries(TableName::Readings));
    let columns = rows.columns().iter().zip(wanted.fields());
    let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()).expect("cast"));
    let columns = columns.collect();
    RecordBatch::try_new(wanted, columns).expect("the columns")
}

fn sort(batches: &[Vec<Row>], memory_bytes: usize) -> Sorted {
    sort_on(2, batches, memory_bytes)
}

fn sort_on(threads: usize, batches: &[Vec<Row>], memory_bytes: usize) -> Sorted {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = SortLimits { memory_bytes, folder: folder.path().to_owned(), threads };
    let mut sorter = Sorter::new(limits, WINDOWS.to_vec(), &with_dictionaries(TableName::Readings));
    for rows in batches {
        sorter.push(&as_read(rows)).expect("taken");
    }
    let (mut rows, mut handed_out) = (Vec::new(), Multiset::default());
    let wanted = schema::arrow(TableName::Readings);
    let (read, cost) = sorter
        .finish(&mut |window, batch, texts| {
            assert!(batch.num_rows() <= OUT_ROWS);
            handed_out.add(&batch, |_| texts.hashes());
            let batch = with_texts(&batch, texts, &wanted)?;
            rows.extend(rows_of(&batch).into_iter().map(|row| (window, row)));
            Ok(())
        })
        .expect("sorted");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "a run has no name");
    Sorted { rows, read, handed_out, cost }
}

fn a_row() -> impl Strategy<Value = Row> {
    let value = prop_oneof![Just(None), any::<f64>().prop_map(Some)];
    (0..12_u32, 0..2_000_i64, value, 0..3_i16, 0..5_i64).prop_map(|(sensor, time_us, value, revision, seq)| {
        let row = Row { seq, ..Row::new(&format!("sensor-{sensor}"), time_us, value) };
        row.revision(revision)
    })
}

/// By bits: what is no number is equal to itself here.
fn bits(row: &Row) -> (String, i64, i16, i64, i64, Option<u64>, i8) {
    let Row { sensor, time_us, value, quality, seq, revision, received_us, .. } = row.clone();
    (sensor, time_us, revision, received_us, seq, value.map(f64::to_bits), quality)
}

proptest! {
    // Each case writes hundreds of runs.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    /// Few sensors and times, so that many rows are equal but for their values: whoever is done first, and wherever a run
    /// ends, they come out in the order in which they went in, and a file is the same to the byte on every machine.
    #[test]
    fn what_comes_out_depends_on_no_thread_and_on_no_memory(
        batches in prop::collection::vec(prop::collection::vec(a_row(), 1..60), 1..20),
        memory_bytes in prop_oneof![Just(2_000_usize), Just(20_000), Just(10_000_000)],
    ) {
        let few = |row: &Row| Row { sensor: row.sensor.replace(char::is_numeric, ""), time_us: row.time_us % 3 * 900, revision: 0, ..row.clone() };
        let batches: Vec<Vec<Row>> = batches.iter().map(|rows| rows.iter().map(few).collect()).collect();
        let mut wanted: Vec<Row> = batches.iter().flatten().cloned().collect();
        wanted.sort_by_key(|row| (row.sensor.clone(), row.time_us, row.revision, row.received_us, row.seq));
        let wanted: Vec<_> = wanted.iter().map(bits).collect();
        for threads in [1, 2, 4] {
            let sorted = sort_on(threads, &batches, memory_bytes);
            let got: Vec<_> = sorted.rows.iter().map(|(_, row)| bits(row)).collect();
            prop_assert_eq!(&got, &wanted, "{} threads, {:?}", threads, sorted.cost);
        }
    }
}

proptest! {
    /// Two kilobytes hold some twenty rows, so that most of these go to disk and are merged in rounds.
    #[test]
    fn rows_come_out_in_order_and_none_is_lost(
        batches in prop::collection::vec(prop::collection::vec(a_row(), 1..60), 1..12),
        memory_bytes in prop_oneof![Just(2_000_usize), Just(20_000), Just(10_000_000)],
    ) {
        let sorted = sort(&batches, memory_bytes);
        let mut wanted: Vec<_> = batches.iter().flatten().map(bits).collect();
        let mut got: Vec<_> = sorted.rows.iter().map(|(_, row)| bits(row)).collect();
        wanted.sort();
        let key = |(window, row): &(usize, Row)| (*window, row.sensor.clone(), row.time_us, row.revision, row.seq);
        prop_assert!(sorted.rows.is_sorted_by_key(key));
        prop_assert!(sorted.rows.iter().all(|(window, row)| WINDOWS[*window].contains(row.time_us)));
        got.sort();
        prop_assert_eq!(got, wanted);
        prop_assert_eq!(sorted.read, sorted.handed_out);
        if memory_bytes > 1_000_000 {
            prop_assert_eq!(sorted.cost, SortCost::default());
        }
    }
}

#[test]
fn what_does_not_fit_goes_to_disk_and_is_merged_in_rounds() {
    let batches: Vec<Vec<Row>> = (0..200)
        .map(|batch| (0..50).map(|row| Row::new("sample", (row * 200 + batch) % 2_000, 1.0)).collect())
        .collect();
    let sorted = sort(&batches, 8_000);
    assert_eq!(sorted.rows.len(), 10_000);
    assert_eq!(sorted.read, sorted.handed_out);
    assert!(sorted.cost.runs > 150, "two at a time take many rounds: {:?}", sorted.cost);
}

/// The canary of every test that trusts the multiset: whatever is changed in a row is seen.
#[test]
fn a_changed_a_lost_and_a_doubled_row_are_seen() {
    let rows: Vec<_> = (0..100).map(|time_us| Row::new("sample", time_us, 1.5)).collect();
    let of = |rows: &[Row]| sort(&[rows.to_vec()], 1 << 20).read;
    let whole = of(&rows);
    let changed = |change: fn(&mut Row)| {
        let mut rows = rows.clone();
        change(&mut rows[50]);
        of(&rows)
    };
    let mut other_order = rows.clone();
    other_order.reverse();
    assert_eq!(of(&other_order), whole);
    for (what, other) in [
        ("lost", of(&rows[1..])),
        ("doubled", of(&[&rows[..1], &rows[..]].concat())),
        ("doubled in place of another", of(&[&rows[..1], &rows[..99]].concat())),
        ("sensor", changed(|row| row.sensor.push('x'))),
        ("time", changed(|row| row.time_us += 1)),
        ("value", changed(|row| row.value = Some(1.5_f64.next_up()))),
        ("no value", changed(|row| row.value = None)),
        ("quality", changed(|row| row.quality = 3)),
        ("tests", changed(|row| row.tests = Some(0))),
        ("seq", changed(|row| row.seq = 2)),
        ("revision", changed(|row| row.revision = 1)),
        ("received", changed(|row| row.received_us += 1)),
    ] {
        assert_ne!(other, whole, "{what} was not seen");
    }
}

/// A full disk costs this run, and says where there was no room.
#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder").path().join("gone");
    for threads in [1, 2] {
        let limits = SortLimits { memory_bytes: 1_000, folder: folder.clone(), threads };
        let mut sorter = Sorter::new(limits, WINDOWS.to_vec(), &with_dictionaries(TableName::Readings));
        let rows: Vec<_> = (0..100).map(|time_us| Row::new("sample", time_us, 1.5)).collect();
        let error = sorter.push(&as_read(&rows)).expect_err("there is no such folder");
        assert!(matches!(error, SortError::Spill { .. }) && error.to_string().contains("gone"), "{error}");
    }
}
