//! The ways in which the points are laid out.

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

/// One way to lay all points out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    pub(crate) files: Files,
    pub(crate) shape: Shape,
}

/// Where files end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// With the month, as compaction cuts them while a month is about one file.
    Months,
    /// With the day, as it cuts them where there is more.
    Days,
}

/// How a file is written, and who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// By our own writer, into a table of a lake.
    Sealed,
    /// With these groups and pages, into a table of a lake.
    Grouped(Groups),
    /// A file of the engine's own, outside of a lake: what a lake does not have.
    Foreign(Foreign),
}

/// Row groups, pages, filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Groups {
    /// The most rows of a row group.
    pub(crate) rows: usize,
    /// Whether each sensor begins a row group.
    pub(crate) cut: bool,
    /// The rows of a page of the columns that are read in part.
    pub(crate) page: usize,
    /// Whether sensors have a bloom filter.
    pub(crate) bloom: bool,
}

/// What differs from a lake's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Nothing but the place: texts, to hold the others against.
    Texts,
    /// Texts that the engine hands out as views.
    Views,
    /// Texts that it hands out as dictionaries.
    Dictionaries,
    /// Numbers in place of sensors, and a small table that has their names.
    Numbers,
    /// Without source, epoch and number.
    Anonymous,
    /// A column a sensor, a file a station.
    Wide,
}

const GROUPS: Groups = Groups { rows: 1 << 20, cut: false, page: 20_000, bloom: false };

pub(crate) const LAYOUTS: [Layout; 15] = [
    months("ours, a file a month", Shape::Sealed),
    Layout { name: "ours, a file a day", files: Files::Days, shape: Shape::Sealed },
    months("groups of 1 Mi rows, not cut", Shape::Grouped(GROUPS)),
    months("groups of 128 Ki rows, not cut", Shape::Grouped(Groups { rows: 128 << 10, ..GROUPS })),
    months("groups cut at every sensor", Shape::Grouped(Groups { cut: true, ..GROUPS })),
    months("pages of 4,000 rows", Shape::Grouped(Groups { page: 4_000, ..GROUPS })),
    months("pages of 100,000 rows", Shape::Grouped(Groups { page: 100_000, ..GROUPS })),
    months("a page a group", Shape::Grouped(Groups { page: usize::MAX, ..GROUPS })),
    months("bloom filters", Shape::Grouped(Groups { bloom: true, ..GROUPS })),
    months("outside a lake: texts", Shape::Foreign(Foreign::Texts)),
    months("outside a lake: texts as views", Shape::Foreign(Foreign::Views)),
    months("outside a lake: texts as dictionaries", Shape::Foreign(Foreign::Dictionaries)),
    months("outside a lake: numbers for sensors", Shape::Foreign(Foreign::Numbers)),
    months("outside a lake: without identity", Shape::Foreign(Foreign::Anonymous)),
    months("outside a lake: a column a sensor", Shape::Foreign(Foreign::Wide)),
];

const fn months(name: &'static str, shape: Shape) -> Layout {
    Layout { name, files: Files::Months, shape }
}

impl Layout {
    /// Its folder's name.
    pub(crate) fn folder(&self) -> String {
        self.name.replace([' ', ','], "-").replace(':', "")
    }

    /// Whether other layouts are read from the same files.
    pub(crate) fn files_of(&self) -> Self {
        match self.shape {
            Shape::Foreign(Foreign::Views | Foreign::Dictionaries) => {
                LAYOUTS.into_iter().find(|other| other.shape == Shape::Foreign(Foreign::Texts)).unwrap_or(*self)
            }
            _ => *self,
        }
    }

    /// How its files' row groups are.
    pub(crate) const fn groups(&self) -> Groups {
        match self.shape {
            Shape::Grouped(groups) => groups,
            _ => GROUPS,
        }
    }
}

/// The properties of files of readings with these groups: but for these, as our own writer has them.
pub(crate) fn properties(groups: Groups) -> Result<WriterProperties, ParquetError> {
    let mut builder: WriterPropertiesBuilder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_dictionary_page_size_limit(4 << 20)
        .set_data_page_row_count_limit(groups.page)
        .set_data_page_size_limit(16 << 20)
        .set_max_row_group_row_count(None);
    for steady in ["time", "seq", "received"] {
        let column = ColumnPath::from(steady);
        builder = builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    if groups.bloom {
        builder = builder.set_column_bloom_filter_enabled(ColumnPath::from("sensor"), true);
    }
    Ok(builder.build())
}
