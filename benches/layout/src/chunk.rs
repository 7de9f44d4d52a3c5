//! One column written in one way: how many bytes, how fast in and out. In memory only.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// One way to write a column.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    /// None: a dictionary.
    pub encoding: Option<Encoding>,
    pub compression: Compression,
    /// The largest dictionary, and the most rows of a page.
    pub dictionary_bytes: usize,
    pub page_rows: usize,
}

/// What it takes.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub bytes: usize,
    pub encode: Duration,
    pub decode: Duration,
}

pub fn zstd(level: i32) -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(level).expect("a level of zstd"))
}

/// Writes a column in row groups, and reads it back once to warm up and once for the clock.
pub fn cost(column: &ArrayRef, groups: &[Range<usize>], way: Way) -> Cost {
    let schema = Arc::new(Schema::new(vec![Field::new("column", column.data_type().clone(), true)]));
    let mut builder = WriterProperties::builder()
        .set_compression(way.compression)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_page_size_limit(way.dictionary_bytes)
        .set_data_page_row_count_limit(way.page_rows)
        .set_data_page_size_limit(8 << 20)
        .set_max_row_group_row_count(None);
    builder = match way.encoding {
        None => builder.set_dictionary_enabled(true),
        Some(encoding) => builder.set_dictionary_enabled(false).set_encoding(encoding),
    };
    let began = Instant::now();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(builder.build())).expect("valid");
    for group in groups {
        let part =
            RecordBatch::try_new(schema.clone(), vec![column.slice(group.start, group.len())]).expect("one column");
        writer.write(&part).expect("in memory");
        writer.flush().expect("in memory");
    }
    let file: bytes::Bytes = writer.into_inner().expect("in memory").into();
    let encode = began.elapsed();
    let mut decode = Duration::MAX;
    let mut bytes = 0;
    for _ in 0..3 {
        let began = Instant::now();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone()).expect("readable");
        bytes = builder.metadata().row_groups().iter().map(|group| group.compressed_size() as usize).sum();
        let rows: usize = builder
            .with_batch_size(8_192)
            .build()
            .expect("readable")
            .map(|batch| batch.expect("readable").num_rows())
            .sum();
        assert_eq!(rows, column.len(), "what was written is read");
        decode = decode.min(began.elapsed());
    }
    Cost { bytes, encode, decode }
}
