//! The tables of a lake and their columns, as Arrow types in our files and as Delta types in the log.
//!
//! Columns may be added later, nullable and behind the others; none changes its meaning. A table that was made before has
//! null there, and is told of the column by the first commit that adds a file to it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use deltalake_core::kernel::{DataType as DeltaType, PrimitiveType, StructField};

/// A table of the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableName {
    /// Every reading, as it is.
    Readings,
    /// Rollups of hours.
    Hourly,
    /// Rollups of civil days.
    Daily,
    /// The register's places, with history.
    Sites,
    /// The register's sensors, with history.
    Sensors,
    /// The register's installations: which instrument hung where, and when; with history.
    Installations,
    /// The register's events: when a sensor's readings were no measurements; with history.
    Events,
    /// The register's rules of quality control, with history.
    QualityRules,
}

impl TableName {
    /// Every table.
    pub const ALL: [Self; 8] = [
        Self::Readings,
        Self::Hourly,
        Self::Daily,
        Self::Sites,
        Self::Sensors,
        Self::Installations,
        Self::Events,
        Self::QualityRules,
    ];

    /// The table's name in SQL, and its folder's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Sites => "sites",
            Self::Sensors => "sensors",
            Self::Installations => "installations",
            Self::Events => "events",
            Self::QualityRules => "quality_rules",
        }
    }

    /// The columns that its files are sorted by.
    #[must_use]
    pub const fn sort_columns(self) -> [&'static str; 2] {
        match self {
            Self::Readings | Self::Hourly | Self::Daily => ["sensor", "time"],
            Self::Sites => ["site", "valid_from"],
            Self::Sensors => ["id", "valid_from"],
            Self::Installations | Self::Events => ["sensor", "valid_from"],
            Self::QualityRules => ["sensors", "valid_from"],
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The type of every time in a table.
#[must_use]
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

const NULL: bool = true;
const SET: bool = false;

/// A column's name, its type, and whether it may be null.
type Column = (&'static str, DataType, bool);

fn fields(table: TableName) -> Vec<Column> {
    match table {
        TableName::Readings => reading_fields(),
        TableName::Hourly | TableName::Daily => window_fields(),
        TableName::Sites | TableName::Sensors => place_fields(table),
        TableName::Installations | TableName::Events | TableName::QualityRules => history_fields(table),
    }
}

fn reading_fields() -> Vec<Column> {
    use DataType::{Float64, Int8, Int16, Int32, Int64, Utf8};
    let time = time_type;
    vec![
        ("sensor", Utf8, SET),
        ("time", time(), SET),
        ("value", Float64, NULL),
        ("quality", Int8, SET),
        ("cause", Utf8, NULL),
        ("lag_ms", Int32, NULL),
        ("source", Utf8, SET),
        ("epoch", Utf8, SET),
        ("seq", Int64, SET),
        ("revision", Int16, SET),
        ("level", Int8, SET),
        ("tests", Int32, NULL),
        ("received", time(), SET),
    ]
}

fn window_fields() -> Vec<Column> {
    use DataType::{Float64, Int8, Int64, Utf8};
    let time = time_type;
    vec![
        ("sensor", Utf8, SET),
        ("time", time(), SET),
        ("quality", Int8, SET),
        ("count", Int64, SET),
        ("values", Int64, SET),
        ("sum", Float64, NULL),
        ("min", Float64, NULL),
        ("max", Float64, NULL),
        ("first", Float64, NULL),
        ("first_time", time(), NULL),
        ("last", Float64, NULL),
        ("last_time", time(), NULL),
        ("increase", Float64, NULL),
        ("sine", Float64, NULL),
        ("cosine", Float64, NULL),
    ]
}

/// What there is, and where.
fn place_fields(table: TableName) -> Vec<Column> {
    use DataType::{Float64, Utf8};
    let time = time_type;
    if table == TableName::Sites {
        return vec![
            ("site", Utf8, SET),
            ("name_nb", Utf8, NULL),
            ("name_nn", Utf8, NULL),
            ("name_en", Utf8, NULL),
            ("kind", Utf8, NULL),
            ("latitude", Float64, NULL),
            ("longitude", Float64, NULL),
            ("official_ids", Utf8, NULL),
            ("valid_from", time(), SET),
            ("valid_to", time(), NULL),
        ];
    }
    vec![
        ("id", Utf8, SET),
        ("site", Utf8, SET),
        ("quantity", Utf8, SET),
        ("name_nb", Utf8, NULL),
        ("name_nn", Utf8, NULL),
        ("name_en", Utf8, NULL),
        ("unit", Utf8, SET),
        ("kind", Utf8, SET),
        ("class", Utf8, SET),
        ("interval", Utf8, NULL),
        ("low", Float64, NULL),
        ("high", Float64, NULL),
        ("sources", Utf8, NULL),
        ("valid_from", time(), SET),
        ("valid_to", time(), NULL),
        ("wraps_at", Float64, NULL),
    ]
}

/// What was done and what happened, and the rules by which readings are tested.
fn history_fields(table: TableName) -> Vec<Column> {
    use DataType::{Float64, Int8, Utf8};
    let time = time_type;
    match table {
        TableName::Installations => vec![
            ("sensor", Utf8, SET),
            ("instrument", Utf8, NULL),
            ("serial", Utf8, NULL),
            ("depth_m", Float64, NULL),
            ("calibrated", Utf8, NULL),
            ("gain", Float64, NULL),
            ("offset", Float64, NULL),
            ("installed", time(), SET),
            ("removed", time(), NULL),
            ("note", Utf8, NULL),
            ("valid_from", time(), SET),
            ("valid_to", time(), NULL),
        ],
        TableName::Events => vec![
            ("sensor", Utf8, SET),
            ("kind", Utf8, SET),
            ("quality", Int8, SET),
            ("began", time(), SET),
            ("ended", time(), NULL),
            ("note", Utf8, NULL),
            ("valid_from", time(), SET),
            ("valid_to", time(), NULL),
        ],
        TableName::QualityRules => vec![
            ("sensors", Utf8, SET),
            ("unit", Utf8, NULL),
            ("test", Utf8, SET),
            ("months", Utf8, NULL),
            ("parameters", Utf8, SET),
            ("valid_from", time(), SET),
            ("valid_to", time(), NULL),
        ],
        _ => unreachable!("the other tables have functions of their own"),
    }
}

static SCHEMAS: LazyLock<[SchemaRef; 8]> = LazyLock::new(|| {
    TableName::ALL.map(|table| {
        let fields = fields(table).into_iter();
        Arc::new(Schema::new(fields.map(|(name, kind, null)| Field::new(name, kind, null)).collect::<Vec<_>>()))
    })
});

/// A table's columns as its files have them.
#[must_use]
pub fn arrow(table: TableName) -> SchemaRef {
    Arc::clone(&SCHEMAS[table as usize])
}

/// A table's columns as its log names them.
pub(crate) fn delta(table: TableName) -> Vec<StructField> {
    let field = |(name, kind, null)| StructField::new(name, DeltaType::Primitive(delta_type(&kind)), null);
    fields(table).into_iter().map(field).collect()
}

/// Delta has no unsigned types and one kind of time, microseconds in UTC (Delta protocol, "Schema
/// Serialization Format").
fn delta_type(kind: &DataType) -> PrimitiveType {
    match kind {
        DataType::Utf8 => PrimitiveType::String,
        DataType::Int8 => PrimitiveType::Byte,
        DataType::Int16 => PrimitiveType::Short,
        DataType::Int32 => PrimitiveType::Integer,
        DataType::Int64 => PrimitiveType::Long,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Timestamp(..) => PrimitiveType::Timestamp,
        other => unreachable!("no column of ours is {other}"),
    }
}
