//! How the columns of a file are laid out in Parquet: pages, encodings, row groups. No I/O.
//!
//! A file that will stay is written with trials: a column that may be written in two ways is written in both,
//! and the smaller chunk stays ([`super::group`]). What the figures were that this stands on, and how to get
//! them again, is in `docs/decisions/0017-layout.md`.
//!
//! - Columns that a query filters or reads have pages of [`PAGE_ROWS`], so that an index of pages skips the rest.
//!   The others are one page a row group: what repeats from one sensor to the next (when a batch was received)
//!   is then told once.
//! - Values with few decimals repeat: a dictionary. Counters and computed values do not: their bytes are
//!   split by place (byte-stream split), which makes runs of the high ones.
//! - Everything is compressed with zstd.

use parquet::arrow::add_encoded_arrow_schema_to_metadata;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::{TableName, schema};

/// Rows of a page of those columns that queries look at.
const PAGE_ROWS: usize = 20_000;

/// The largest dictionary: beyond it values do not repeat.
const DICTIONARY_BYTES_MAX: usize = 4 << 20;

/// A page of a column that is read as a whole.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Columns that grow steadily: their differences are small.
const STEADY_COLUMNS: [&str; 3] = ["time", "seq", "received"];

/// Columns that are filtered or shown, and so read in part.
const PAGED_COLUMNS: [&str; 4] = ["sensor", "time", "value", "quality"];

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be merged with others before long.
    Open,
    /// To stay: smaller is worth more work.
    Sealed,
}

/// How many rows a row group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupRows {
    /// It never has more.
    pub(super) max: usize,
    /// From here on it ends where the sensor does.
    pub(super) enough: usize,
}

impl Purpose {
    pub(super) const fn group_rows(self) -> GroupRows {
        match self {
            Self::Open => GroupRows { max: 128 << 10, enough: usize::MAX },
            Self::Sealed => GroupRows { max: 1 << 20, enough: 512 << 10 },
        }
    }
}

/// One way to write all columns: where a column has no second way, the second has none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Dictionaries, and differences of what grows steadily.
    First,
    /// Byte-stream split.
    Split,
}

impl Way {
    /// The ways in which a column is tried.
    pub(super) fn of(column: &str, purpose: Purpose) -> &'static [Self] {
        match (purpose, column) {
            (Purpose::Sealed, "value" | "received") => &[Self::First, Self::Split],
            _ => &[Self::First],
        }
    }
}

/// The properties of one column written in one way; all others have those of the file.
pub(super) fn properties(
    table: TableName,
    purpose: Purpose,
    column: &str,
    way: Way,
) -> Result<WriterProperties, ParquetError> {
    let whole = purpose == Purpose::Sealed && !PAGED_COLUMNS.contains(&column);
    let mut builder = common()?;
    if whole {
        builder = builder.set_data_page_row_count_limit(usize::MAX).set_data_page_size_limit(PAGE_BYTES_MAX);
    }
    let steady = STEADY_COLUMNS.contains(&column);
    let encoding = match way {
        Way::Split => Some(Encoding::BYTE_STREAM_SPLIT),
        Way::First if steady => Some(Encoding::DELTA_BINARY_PACKED),
        Way::First => None,
    };
    if let Some(encoding) = encoding {
        let column = ColumnPath::from(column);
        builder = builder.set_column_dictionary_enabled(column.clone(), false).set_column_encoding(column, encoding);
    }
    let mut properties = builder.build();
    add_encoded_arrow_schema_to_metadata(&schema::arrow(table), &mut properties);
    Ok(properties)
}

fn common() -> Result<WriterPropertiesBuilder, ParquetError> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_max_row_group_row_count(None)
        .set_created_by(tjern_readings::batch::SOFTWARE.to_owned()))
}
