//! A batch is read as it was written, today's bytes stay readable, and nothing wrong gets in.

use proptest::prelude::*;

use super::*;
use crate::reading::{Cause, Quality, Reading, TIMES_US};
use crate::round::Round;
use crate::rows::Rows;

fn source() -> SourceName {
    "landfall-01".parse().expect("valid")
}

fn encoded(readings: &[Reading]) -> Vec<u8> {
    encode(&source(), Epoch::from_bytes([7; 16]), 41, readings, Some("c0ffee")).expect("encoded").0.to_vec()
}

/// The readings of the golden file; they never change.
fn golden_readings() -> Vec<Reading> {
    let water = "landfalltjern/water_temperature";
    let wind = "mast/depth-2m/wind_speed";
    let hour_us = 3_600_000_000;
    let at = |slot: i64| 1_751_360_400_000_000 + slot * hour_us;
    let id = |name: &str| name.parse().expect("valid");
    vec![
        Reading::of(id(water), at(0), 17.25),
        Reading::of(id(wind), at(0), -0.0),
        Reading::missing(id(water), at(1), Cause::Timeout),
        Reading::of(id(water), at(2), f64::MIN_POSITIVE).with_lag_ms(Some(2_500)),
        Reading { quality: Quality::Fail, ..Reading::of(id(wind), -1, 1e300) },
    ]
}

/// Whatever is released stays readable: these bytes were written by version 1 of the format.
#[test]
fn the_golden_batch_is_read() {
    let bytes = include_bytes!("../../tests/golden/batch-1.arrow");
    let batch = decode(bytes).expect("readable for ever");
    assert_eq!(batch.readings().expect("readings"), golden_readings());
    assert_eq!(batch.header.source, source());
    assert_eq!(batch.header.epoch, Epoch::from_bytes([7; 16]));
    assert_eq!((batch.header.bounds.first, batch.header.bounds.last), (41, 45));
    assert_eq!(batch.header.configuration.as_deref(), Some("c0ffee"));
    assert_eq!(batch.header.checksum, "9637d10eebdf7ebf35f35a93894b57b3dcf8ed5aa2c1d3c907a08302276e1ee3");
}

#[test]
fn the_same_readings_give_the_same_bytes() {
    assert_eq!(encoded(&golden_readings()), encoded(&golden_readings()));
}

/// An encoder that kept something of the last batch would put it into this one.
#[test]
fn an_encoder_gives_the_same_bytes_again_and_again() {
    let (readings, mut encoder) = (golden_readings(), Encoder::default());
    for rows in [5, 2, 1, 4, 5] {
        let bytes = encoder.bytes(&source(), Epoch::from_bytes([7; 16]), 41, &readings[..rows], Some("c0ffee"));
        assert_eq!(bytes.expect("encoded"), encoded(&readings[..rows]), "{rows} rows");
    }
    // Long and short ones, of other sensors each: zstd's tables are full, and the room is larger than what comes.
    for (rows, sensors) in [(20_000_u32, 300), (7, 3), (5_000, 1), (1, 1), (20_000, 2)] {
        let reading = |n: u32| {
            let sensor = format!("place/of-{rows}/s{}", n % sensors).parse().expect("valid");
            Reading::of(sensor, i64::from(n) * 1_000_000, f64::from(n * 7 % 1_013) / 8.0)
        };
        let readings: Vec<_> = (0..rows).map(reading).collect();
        let bytes = encoder.bytes(&source(), Epoch::from_bytes([7; 16]), 41, &readings, Some("c0ffee"));
        assert!(bytes.expect("encoded") == encoded(&readings), "{rows} rows");
    }
}

/// The stream is the one that the library writes.
#[test]
fn the_bytes_are_those_of_the_library() {
    let bytes = encoded(&golden_readings());
    let reader = arrow_ipc::reader::StreamReader::try_new(&bytes[..], None).expect("a stream");
    let options = arrow_ipc::writer::IpcWriteOptions::default();
    let options = options.try_with_compression(Some(arrow_ipc::CompressionType::ZSTD)).expect("known");
    let options = options.try_with_compression_level(Some(2)).expect("known");
    let schema = reader.schema();
    let mut writer =
        arrow_ipc::writer::StreamWriter::try_new_with_options(Vec::new(), &schema, options).expect("a writer");
    reader.for_each(|rows| writer.write(&rows.expect("rows")).expect("written"));
    assert!(writer.into_inner().expect("finished") == bytes);
}

/// Writes a batch again with other metadata or other rows, as a foreign or broken writer would.
fn forged(change: impl FnOnce(&mut std::collections::HashMap<String, String>), rows: Option<RecordBatch>) -> Vec<u8> {
    let bytes = encoded(&golden_readings());
    let reader = arrow_ipc::reader::StreamReader::try_new(&bytes[..], None).expect("a stream");
    let mut words = reader.schema().metadata().clone();
    change(&mut words);
    let rows = rows.unwrap_or_else(|| decode(&bytes).expect("valid").rows);
    let schema = Schema::clone(&rows.schema()).with_metadata(words);
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &schema).expect("a writer");
    writer.write(&rows.with_schema(Arc::new(schema)).expect("the same columns")).expect("written");
    writer.into_inner().expect("finished")
}

fn refusal(bytes: &[u8]) -> String {
    decode(bytes).expect_err("it was accepted").to_string()
}

#[test]
fn a_format_of_tomorrow_is_refused_with_a_hint() {
    let bytes = forged(|words| drop(words.insert(metadata::FORMAT.into(), "2".into())), None);
    assert!(refusal(&bytes).contains("hint: update the pipeline"), "{}", refusal(&bytes));
}

#[test]
fn wrong_metadata_is_refused() {
    for (key, value) in [
        (metadata::SOURCE, "../etc"),
        (metadata::EPOCH, "xyz"),
        (metadata::FIRST_SEQ, "0"),
        (metadata::LAST_SEQ, "40"),
        (metadata::LAST_SEQ, "9223372036854775807"),
        (metadata::ROWS, "4"),
        (metadata::CHECKSUM, "00"),
    ] {
        decode(&forged(|words| drop(words.insert(key.into(), value.into())), None)).expect_err(key);
    }
    for key in [metadata::FORMAT, metadata::SOURCE, metadata::CHECKSUM, metadata::ROWS] {
        assert!(refusal(&forged(|words| drop(words.remove(key)), None)).contains("missing"), "{key}");
    }
}

#[test]
fn rows_that_break_the_contract_are_refused() {
    let good = decode(&encoded(&golden_readings())).expect("valid").rows;
    let with = |index: usize, column: arrow_array::ArrayRef| {
        let mut columns = good.columns().to_vec();
        columns[index] = column;
        RecordBatch::try_new(good.schema(), columns).expect("the same shape")
    };
    let texts = |words: [&str; 5]| -> arrow_array::ArrayRef {
        Arc::new(words.into_iter().collect::<arrow_array::DictionaryArray<arrow_array::types::Int32Type>>())
    };
    let qualities =
        |codes: [i8; 5]| -> arrow_array::ArrayRef { Arc::new(arrow_array::Int8Array::from_iter_values(codes)) };
    let values = |value| -> arrow_array::ArrayRef {
        Arc::new(arrow_array::Float64Array::from_iter([Some(value), Some(1.0), None, Some(1.0), Some(1.0)]))
    };
    let times = |time_us| -> arrow_array::ArrayRef {
        Arc::new(arrow_array::TimestampMicrosecondArray::from(vec![0, 0, time_us, 0, 0]).with_timezone("UTC"))
    };
    for (rows, part) in [
        (with(0, texts(["a/b", "a/b", "../b", "a/b", "a/b"])), "valid part"),
        (with(4, texts(["timeout", "because", "timeout", "timeout", "timeout"])), "not a known cause"),
        (with(3, qualities([2, 2, 9, 7, 2])), "is no quality"),
        (with(3, qualities([2, 2, 2, 2, 2])), "its quality is not 9"),
        (with(3, qualities([9, 2, 9, 2, 2])), "says that none was got"),
        (with(2, values(f64::NAN)), "is no value"),
        (with(2, values(1.5)), "checksum"),
        (with(1, times(TIMES_US.end)), "1900 to 2199"),
        (with(1, times(i64::MIN)), "1900 to 2199"),
        (with(6, Arc::new(arrow_array::Int64Array::from_iter_values([41, 42, 42, 44, 45]))), "it must be 43"),
        (good.slice(0, 4), "there are 4 rows"),
    ] {
        let found = refusal(&forged(|_| (), Some(rows)));
        assert!(found.contains(part), "{found:?} does not say {part:?}");
    }
}

#[test]
fn columns_of_tomorrow_are_left_out_and_missing_ones_refused() {
    let good = decode(&encoded(&golden_readings())).expect("valid").rows;
    let mut fields = good.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("extra", DataType::Int64, true)));
    let mut columns = good.columns().to_vec();
    columns.push(Arc::clone(good.column(6)));
    let more = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("valid");
    assert_eq!(decode(&forged(|_| (), Some(more))).expect("readable").rows, good);
    let fewer = good.project(&[0, 1, 2, 3, 4, 6]).expect("valid");
    assert!(refusal(&forged(|_| (), Some(fewer))).contains("`lag_ms` is missing"));
}

/// The golden batch with these columns behind its own, as the library compresses them.
fn with_columns(added: Vec<(String, arrow_array::ArrayRef)>) -> Vec<u8> {
    let bytes = encoded(&golden_readings());
    let good = decode(&bytes).expect("valid").rows;
    let words =
        arrow_ipc::reader::StreamReader::try_new(&bytes[..], None).expect("a stream").schema().metadata().clone();
    let mut fields = good.schema().fields().to_vec();
    fields.extend(added.iter().map(|(name, column)| Arc::new(Field::new(name, column.data_type().clone(), true))));
    let columns = good.columns().iter().cloned().chain(added.into_iter().map(|(_, column)| column)).collect();
    let schema = Arc::new(Schema::new(fields).with_metadata(words));
    let options = arrow_ipc::writer::IpcWriteOptions::default();
    let options = options.try_with_compression(Some(arrow_ipc::CompressionType::ZSTD)).expect("known");
    let mut writer =
        arrow_ipc::writer::StreamWriter::try_new_with_options(Vec::new(), &schema, options).expect("a writer");
    writer.write(&RecordBatch::try_new(schema, columns).expect("of one length")).expect("written");
    writer.into_inner().expect("finished")
}

/// Half a megabyte that became gigabytes ended the pipeline at every start, and no source was ingested any more. Each of its
/// columns was no larger than a column may be, and none of them was asked for.
#[test]
fn a_small_file_that_becomes_very_much_is_refused() {
    let zeros = "\0".repeat(31_000_000);
    let text: arrow_array::ArrayRef =
        Arc::new(arrow_array::StringArray::from(vec![Some(zeros.as_str()), None, None, None, None]));
    let many = |count: usize, column: &arrow_array::ArrayRef| {
        with_columns((0..count).map(|number| (format!("x{number}"), Arc::clone(column))).collect())
    };
    let bomb = many(20, &text);
    assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
    assert!(refusal(&bomb).contains("columns that would take more than 300000000 bytes"), "{}", refusal(&bomb));
    // The words of a dictionary are decompressed whether its column is asked for or not.
    let words: arrow_array::DictionaryArray<arrow_array::types::Int32Type> =
        [Some(zeros.as_str()), None, None, None, None].into_iter().collect();
    let words: arrow_array::ArrayRef = Arc::new(words);
    assert!(decode(&many(2, &words)).is_ok(), "what is no more than it may be is read");
    assert!(
        refusal(&many(3, &words)).contains("dictionaries that would take more than"),
        "{}",
        refusal(&many(3, &words))
    );
    let small: arrow_array::ArrayRef = Arc::new(arrow_array::Int8Array::from(vec![1; 5]));
    assert!(decode(&many(200, &small)).is_ok());
    assert!(refusal(&many(250, &small)).contains("more than 256 columns"));
}

/// What nobody asked for is not even decompressed: its bytes may be anything.
#[test]
fn columns_of_tomorrow_are_not_decompressed() {
    let numbers: arrow_array::ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![7; 5]));
    let text: arrow_array::ArrayRef =
        Arc::new(arrow_array::StringArray::from(vec!["a text of zeros".repeat(1_000); 5]));
    let mut bytes = with_columns(vec![("n".to_owned(), numbers), ("x".to_owned(), text)]);
    let frame = bytes.windows(4).rposition(|piece| piece == [0x28, 0xb5, 0x2f, 0xfd]).expect("zstd");
    bytes[frame..frame + 8].fill(0xff);
    let all = arrow_ipc::reader::StreamReader::try_new(&bytes[..], None).expect("a stream").next().expect("rows");
    assert!(all.is_err(), "the canary: who decompresses all of it fails");
    assert_eq!(decode(&bytes).expect("its own columns are whole").readings().expect("readings"), golden_readings());
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let sensor = prop::sample::select(vec!["a/b", "landfalltjern/water_temperature", "a/b/c/d/e"]);
    let result = prop_oneof![any::<f64>().prop_map(Ok), prop::sample::select(Cause::ALL.to_vec()).prop_map(Err),];
    (sensor, TIMES_US, result, any::<Option<i32>>()).prop_map(|(sensor, time_us, result, lag_ms)| {
        Reading::from_result(sensor.parse().expect("valid"), time_us, result).with_lag_ms(lag_ms)
    })
}

proptest! {
    /// A gateway's rounds made another batch than their readings, and the lake would have taken neither for the other.
    #[test]
    fn rounds_make_the_batch_of_their_readings(
        told in prop::collection::vec((0_usize..3, TIMES_US, prop::collection::vec(-1e9..1e9, 4), any_reading(), any::<bool>()), 1..20),
        first in 1..i64::MAX / 2, cut in 1_usize..60,
    ) {
        let lists: Vec<Arc<[crate::sensor::SensorId]>> = ["a/b a/c a/d a/e", "a/e a/b/c/d/e", "a/b a/d a/b"]
            .map(|names| names.split(' ').map(|name| name.parse().expect("valid")).collect())
            .into();
        let mut rows = Rows::default();
        for (list, time_us, values, reading, is_alone) in told {
            let list = Arc::clone(&lists[list]);
            let values = values[..list.len()].to_vec();
            rows.append(Round::new(list, time_us, values).expect("finite").into());
            rows.extend(is_alone.then_some(reading));
        }
        let cut = cut.min(rows.len());
        let readings: Vec<_> = rows.iter().take(cut).collect();
        let mut encoder = Encoder::default();
        // Twice, so that the second has what the first one left.
        for _ in 0..2 {
            let spans = rows.spans().first(cut);
            let bytes = encoder.bytes(&source(), Epoch::from_bytes([7; 16]), first, spans, None).expect("encoded");
            let (expected, _) = encode(&source(), Epoch::from_bytes([7; 16]), first, &readings, None).expect("encoded");
            prop_assert_eq!(decode(&bytes).expect("readable").readings().expect("readings"), readings.clone());
            prop_assert!(bytes == expected);
        }
    }

    #[test]
    fn what_is_written_is_read(readings in prop::collection::vec(any_reading(), 1..50), first in 1..i64::MAX / 2) {
        let (bytes, written) = encode(&source(), Epoch::from_bytes([1; 16]), first, &readings, None).expect("encoded");
        let read = decode(&bytes).expect("readable");
        prop_assert_eq!(&read.header, &written.header);
        prop_assert_eq!(read.readings().expect("readings"), readings);
    }

    #[test]
    fn a_flipped_bit_is_never_a_wrong_value(readings in prop::collection::vec(any_reading(), 1..20), at: prop::sample::Index, bit in 0_u32..8) {
        let mut bytes = encoded(&readings);
        let index = at.index(bytes.len());
        bytes[index] ^= 1_u8 << bit;
        if let Ok(batch) = decode(&bytes) {
            prop_assert_eq!(batch.readings().expect("readings"), readings);
        }
    }

    #[test]
    fn nonsense_is_refused_and_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(&bytes).is_err());
    }
}
