//! A batch: a run of readings of one spool's epoch, as one file that is written once and never
//! changed. The bytes are described in `docs/batch-format.md`.
//!
//! The file is an Arrow IPC stream (one schema, one record batch, zstd inside). What stands once
//! travels in the schema's metadata: version of the format, source, epoch, bounds, count of rows,
//! software, configuration, and a SHA-256 of the rows that depends on their values only and not on
//! how Arrow lays them out. [`decode`] believes nothing: it holds every row against the contract and
//! the metadata before it hands anything out. No I/O here.

mod decode;
mod encode;
mod envelope;
mod room;
mod rows;
mod sensors;

use std::sync::{Arc, LazyLock};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

pub use decode::{decode, decoded_bytes};
pub use encode::{Encoder, encode};

use crate::keys::{Bounds, is_sha256};
use crate::sensor::{Epoch, SourceName};

/// The version of the format that this software writes. It reads every version from 1 on.
pub const FORMAT_VERSION: u32 = 1;

/// The largest batch file that a gateway seals.
pub const SIZE_MAX: u64 = 8 << 20;

/// The most rows that a batch may have; it bounds what reading a small but hostile file can cost.
pub const ROWS_MAX: i64 = 2_000_000;

/// The name of this software as it stands in batches.
pub const SOFTWARE: &str = concat!("tjern ", env!("CARGO_PKG_VERSION"));

/// What stands once in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub source: SourceName,
    /// From which spool.
    pub epoch: Epoch,
    /// The numbers of its rows.
    pub bounds: Bounds,
    /// What wrote it.
    pub software: String,
    /// The SHA-256 (hex) of the configuration it was made under, as it stands in the file: see [`Header::named_configuration`].
    pub configuration: Option<String>,
    /// The SHA-256 (hex) of its rows.
    pub checksum: String,
}

impl Header {
    /// The configuration it was made under. None where the file names none, and where what stands there is no SHA-256 (64
    /// lower-case hex digits): that is anybody's text, under which nothing can lie.
    #[must_use]
    pub fn named_configuration(&self) -> Option<&str> {
        self.configuration.as_deref().filter(|word| is_sha256(word))
    }

    /// Whether it names a configuration by what is no name of one.
    #[must_use]
    pub fn misnames_configuration(&self) -> bool {
        self.configuration.is_some() && self.named_configuration().is_none()
    }
}

/// A batch that was held against the contract: `rows` has the columns of [`schema`], one row a
/// number, in the order of the numbers.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What stands once.
    pub header: Header,
    /// The readings.
    pub rows: RecordBatch,
}

/// Why a batch was refused.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// A newer program wrote it.
    #[error(
        "the batch has format version {found}, this software reads up to {FORMAT_VERSION}; hint: update the pipeline, then retry"
    )]
    FutureFormat {
        /// The version that stands in the file.
        found: u32,
    },
    /// Not an Arrow stream, or a damaged one.
    #[error("the batch is no readable Arrow stream: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// It claims sizes that cannot be true.
    #[error("the batch is damaged: it has {what}")]
    Size {
        /// What it claims.
        what: String,
    },
    /// A word of the metadata is missing or makes no sense.
    #[error("the batch's metadata `{key}` is {what}")]
    Metadata {
        /// Which word.
        key: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A column is missing or has another type.
    #[error("the batch's column `{column}` is {what}")]
    Column {
        /// Which column.
        column: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A row breaks the contract.
    #[error("row {row} of the batch: {what}")]
    Row {
        /// Which row, from 0.
        row: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The rows are not those that were written.
    #[error("the batch's rows have checksum {found}, its metadata says {expected}")]
    Checksum {
        /// As reckoned from the rows.
        found: String,
        /// As the metadata says.
        expected: String,
    },
}

/// The keys of a batch's metadata.
mod metadata {
    pub(super) const FORMAT: &str = "tjern.format";
    pub(super) const SOURCE: &str = "tjern.source";
    pub(super) const EPOCH: &str = "tjern.epoch";
    pub(super) const FIRST_SEQ: &str = "tjern.first_seq";
    pub(super) const LAST_SEQ: &str = "tjern.last_seq";
    pub(super) const ROWS: &str = "tjern.rows";
    pub(super) const SOFTWARE: &str = "tjern.software";
    pub(super) const CONFIGURATION: &str = "tjern.configuration";
    pub(super) const CHECKSUM: &str = "tjern.checksum";
}

static COLUMNS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let words = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("sensor", words(), false),
        Field::new("time", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("value", DataType::Float64, true),
        Field::new("quality", DataType::Int8, false),
        Field::new("cause", words(), true),
        Field::new("lag_ms", DataType::Int32, true),
        Field::new("seq", DataType::Int64, false),
    ]))
});

/// The columns of a batch's rows, without metadata.
#[must_use]
pub fn schema() -> SchemaRef {
    Arc::clone(&COLUMNS)
}

#[cfg(test)]
mod tests;
