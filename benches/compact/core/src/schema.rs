//! The columns of `readings`, as `tjern-lake` has them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableName {
    Readings,
}

impl TableName {
    pub const fn sort_columns(self) -> [&'static str; 2] {
        ["sensor", "time"]
    }
}

pub fn arrow(_: TableName) -> SchemaRef {
    use DataType::{Float64, Int8, Int16, Int32, Int64, Utf8};
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = [
        ("sensor", Utf8, false),
        ("time", time(), false),
        ("value", Float64, true),
        ("quality", Int8, false),
        ("cause", Utf8, true),
        ("lag_ms", Int32, true),
        ("source", Utf8, false),
        ("epoch", Utf8, false),
        ("seq", Int64, false),
        ("revision", Int16, false),
        ("level", Int8, false),
        ("tests", Int32, true),
        ("received", time(), false),
    ];
    Arc::new(Schema::new(fields.map(|(name, kind, null)| Field::new(name, kind, null)).to_vec()))
}

/// The same columns with texts as dictionaries.
pub fn with_dictionaries(schema: &Schema) -> Schema {
    let dictionary = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Arc::new(Field::new(field.name(), dictionary(), field.is_nullable()))
        }
        _ => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}
