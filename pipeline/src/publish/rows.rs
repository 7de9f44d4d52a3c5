//! The readings of a dataset: asked for, looked at once more, and written as CSV and as Parquet.
//!
//! CSV is RFC 4180 with a header, a decimal point and times of RFC 3339 in UTC; `local_time` is what the
//! city's clocks showed, without an offset. Numbers are the shortest text that reads back as the same.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Field, Float64Type, Int8Type, Int16Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use datafusion::prelude::{Expr, SessionContext, col, lit};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tjern_lake::session::session_on;
use tjern_lake::{Lake, Table, TableName};
use tjern_readings::reading::Quality;

use super::{Dataset, PublishError};
use crate::erase::Erasures;
use crate::tables::{conform, public_settings};

/// The columns of a dataset, in their order.
const COLUMNS: [&str; 10] =
    ["sensor", "site", "site_name", "time", "local_time", "value", "unit", "quality", "revision", "level"];

/// The rows of a dataset, sorted by sensor and time.
#[derive(Debug)]
pub(crate) struct Rows(RecordBatch);

/// A dataset's rows, and of which version of `readings` they are.
#[derive(Debug)]
pub(crate) struct Readings {
    pub(crate) version: i64,
    /// How many erasures that version knows of.
    pub(crate) erasures: Option<i64>,
    pub(crate) rows: Rows,
}

/// Asks for a dataset's rows.
pub(crate) async fn read_rows(lake: &Lake, dataset: &Dataset, timezone: &TimeZone) -> Result<Readings, PublishError> {
    let mut pinned = Vec::new();
    for name in TableName::ALL {
        pinned.push((name, Table::open(lake, name).await?));
    }
    let readings = pinned.iter().find(|(name, _)| *name == TableName::Readings);
    let readings = readings.and_then(|(_, table)| table.as_ref());
    let (version, erasures) = (readings.map_or(-1, Table::version), readings.and_then(Erasures::count_in));
    let context = session_on(lake, &public_settings(timezone), &pinned).await?;
    let batches = observations(&context, dataset).await?;
    let rows = batches.iter().map(|batch| conform(batch, &schema())).collect::<Result<Vec<_>, _>>()?;
    let rows = concat_batches(&schema(), &rows)?;
    refuse_what_failed(&rows, dataset)?;
    Ok(Readings { version, erasures, rows: Rows(rows) })
}

async fn observations(context: &SessionContext, dataset: &Dataset) -> Result<Vec<RecordBatch>, PublishError> {
    let passed = col("quality").between(lit(Quality::Good.code()), lit(Quality::Suspect.code()));
    let mut filter: Expr = passed.and(col("value").is_not_null()).and(col("class").eq(lit("public")));
    if let Some(quantity) = &dataset.quantity {
        filter = filter.and(col("quantity").eq(lit(quantity.as_str())));
    }
    if let Some(sensors) = &dataset.sensors {
        let sensors = sensors.iter().map(|sensor| lit(sensor.as_str())).collect();
        filter = filter.and(col("sensor").in_list(sensors, false));
    }
    let rows = context.table("observations").await?.filter(filter)?.select_columns(&COLUMNS)?;
    let rows = rows.sort(vec![col("sensor").sort(true, false), col("time").sort(true, false)])?;
    Ok(rows.collect().await?)
}

fn schema() -> SchemaRef {
    let time = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let field = |name: &str| match name {
        "time" => Field::new(name, time(Some("UTC")), false),
        "local_time" => Field::new(name, time(None), true),
        "value" => Field::new(name, DataType::Float64, false),
        "quality" | "level" => Field::new(name, DataType::Int8, false),
        "revision" => Field::new(name, DataType::Int16, false),
        "sensor" => Field::new(name, DataType::Utf8, false),
        _ => Field::new(name, DataType::Utf8, true),
    };
    Arc::new(Schema::new(COLUMNS.map(field).to_vec()))
}

/// Helsinki once told its bathers −327.68 °C: what leaves the house is looked at a last time.
fn refuse_what_failed(rows: &RecordBatch, dataset: &Dataset) -> Result<(), PublishError> {
    let rows = Rows(rows.clone());
    for row in 0..rows.count() {
        let (value, quality) = (rows.value(row), rows.quality(row));
        let passed = (Quality::Good.code()..=Quality::Suspect.code()).contains(&quality);
        if !value.is_finite() || !passed {
            let what = format!("{value} of `{}` has quality {quality}", rows.text("sensor", row).unwrap_or_default());
            return Err(PublishError::Withheld { dataset: dataset.name.clone(), what });
        }
    }
    Ok(())
}

impl Rows {
    pub(crate) fn count(&self) -> usize {
        self.0.num_rows()
    }

    fn column(&self, name: &str) -> &Arc<dyn Array> {
        self.0.column_by_name(name).expect("rows have the columns of the dataset")
    }

    fn text(&self, name: &str, row: usize) -> Option<&str> {
        let column: &StringArray = self.column(name).as_string();
        column.is_valid(row).then(|| column.value(row))
    }

    fn value(&self, row: usize) -> f64 {
        self.column("value").as_primitive::<Float64Type>().value(row)
    }

    fn quality(&self, row: usize) -> i8 {
        self.column("quality").as_primitive::<Int8Type>().value(row)
    }

    fn time(&self, name: &str, row: usize) -> Option<Timestamp> {
        let column = self.column(name).as_primitive::<TimestampMicrosecondType>();
        column.is_valid(row).then(|| Timestamp::from_microsecond(column.value(row)).ok()).flatten()
    }

    /// The names of the places that the readings are from, each once.
    pub(crate) fn places(&self) -> Vec<String> {
        let names = (0..self.count()).filter_map(|row| self.text("site_name", row).or_else(|| self.text("site", row)));
        let mut places: Vec<String> = Vec::new();
        for name in names {
            if !places.iter().any(|known| known == name) {
                places.push(name.to_owned());
            }
        }
        places
    }

    /// The first and the last time.
    pub(crate) fn period(&self) -> Option<(Timestamp, Timestamp)> {
        let times = || (0..self.count()).filter_map(|row| self.time("time", row));
        times().min().zip(times().max())
    }

    /// The rows as CSV.
    pub(crate) fn csv(&self) -> Vec<u8> {
        let mut text = COLUMNS.join(",");
        text.push_str("\r\n");
        for row in 0..self.count() {
            for (place, name) in COLUMNS.into_iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                self.write_field(&mut text, name, row);
            }
            text.push_str("\r\n");
        }
        text.into_bytes()
    }

    fn write_field(&self, text: &mut String, name: &str, row: usize) {
        let _ = match name {
            "time" => self.time(name, row).map_or(Ok(()), |time| write!(text, "{time}")),
            "local_time" => {
                let local = self.time(name, row).map(|time| time.to_zoned(TimeZone::UTC).datetime());
                local.map_or(Ok(()), |time| write!(text, "{time}"))
            }
            "value" => write!(text, "{}", self.value(row)),
            "quality" | "level" => write!(text, "{}", self.column(name).as_primitive::<Int8Type>().value(row)),
            "revision" => write!(text, "{}", self.column(name).as_primitive::<Int16Type>().value(row)),
            _ => {
                write_text(text, self.text(name, row).unwrap_or_default());
                Ok(())
            }
        };
    }

    /// The rows as Parquet.
    pub(crate) fn parquet(&self) -> Result<Vec<u8>, PublishError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
            .set_created_by("tjern".to_owned())
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), self.0.schema(), Some(properties))?;
        writer.write(&self.0)?;
        Ok(writer.into_inner()?)
    }
}

/// A field of text: in quotes where it has to be (RFC 4180, section 2, rules 5 to 7).
fn write_text(text: &mut String, field: &str) {
    if field.contains(['"', ',', '\r', '\n']) {
        text.push('"');
        text.push_str(&field.replace('"', "\"\""));
        text.push('"');
    } else {
        text.push_str(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_where_it_has_to_be() {
        for (field, written) in
            [("Åsen", "Åsen"), ("a,b", "\"a,b\""), ("say \"å\"", "\"say \"\"å\"\"\""), ("a\nb", "\"a\nb\""), ("", "")]
        {
            let mut text = String::new();
            write_text(&mut text, field);
            assert_eq!(text, written);
        }
    }
}
