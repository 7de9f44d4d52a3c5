//! The register's rows as columns of the tables `sites`, `sensors` and `quality_rules`, and back.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int8Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int8Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use tjern_lake::{TableName, schema};
use tjern_readings::reading::Quality;

use super::events::EventRow;
use super::first::firsts;
use super::history::{Versioned, newest};
use super::installations::{InstallationRow, Keyed};
use super::rows::{Class, SensorRow, SiteRow};
use super::rules::RuleRow;
use super::{Register, RegisterError};
use crate::frames::texts;

pub(crate) fn sites_batch(history: &[Versioned<SiteRow>]) -> Result<RecordBatch, ArrowError> {
    let text = |get: fn(&SiteRow) -> Option<&str>| text_column(history, get);
    let number = |get: fn(&SiteRow) -> Option<f64>| number_column(history, get);
    let mut columns = vec![
        text(|row| Some(&row.site)),
        text(|row| row.name_nb.as_deref()),
        text(|row| row.name_nn.as_deref()),
        text(|row| row.name_en.as_deref()),
        text(|row| row.kind.as_deref()),
        number(|row| row.latitude),
        number(|row| row.longitude),
        text(|row| row.official_ids.as_deref()),
    ];
    columns.extend(validity(history));
    RecordBatch::try_new(schema::arrow(TableName::Sites), columns)
}

pub(crate) fn sensors_batch(history: &[Versioned<SensorRow>]) -> Result<RecordBatch, ArrowError> {
    let text = |get: fn(&SensorRow) -> Option<&str>| text_column(history, get);
    let number = |get: fn(&SensorRow) -> Option<f64>| number_column(history, get);
    let mut columns = vec![
        text(|row| Some(row.id.as_str())),
        text(|row| Some(row.id.site())),
        text(|row| Some(row.id.quantity())),
        text(|row| row.name_nb.as_deref()),
        text(|row| row.name_nn.as_deref()),
        text(|row| row.name_en.as_deref()),
        text(|row| Some(&row.unit)),
        text(|row| Some(row.kind.word())),
        text(|row| Some(row.class.word())),
        text(|row| row.interval.as_deref()),
        number(|row| row.low),
        number(|row| row.high),
        text(|row| row.sources.as_deref()),
    ];
    columns.extend(validity(history));
    columns.push(number(|row| row.wraps_at));
    RecordBatch::try_new(schema::arrow(TableName::Sensors), columns)
}

pub(crate) fn rules_batch(history: &[Versioned<RuleRow>]) -> Result<RecordBatch, ArrowError> {
    let text = |get: fn(&RuleRow) -> Option<&str>| text_column(history, get);
    let mut columns = vec![
        text(|row| Some(&row.sensors)),
        text(|row| row.unit.as_deref()),
        text(|row| Some(row.test.word())),
        text(|row| row.months.as_deref()),
        text(|row| Some(&row.parameters)),
    ];
    columns.extend(validity(history));
    RecordBatch::try_new(schema::arrow(TableName::QualityRules), columns)
}

pub(crate) fn installations_batch(history: &[Versioned<Keyed<InstallationRow>>]) -> Result<RecordBatch, ArrowError> {
    let text = |get: fn(&InstallationRow) -> Option<&str>| {
        Arc::new(history.iter().map(|row| get(&row.row.row)).collect::<StringArray>()) as ArrayRef
    };
    let number = |get: fn(&InstallationRow) -> Option<f64>| {
        Arc::new(history.iter().map(|row| get(&row.row.row)).collect::<Float64Array>()) as ArrayRef
    };
    let mut columns = vec![
        text(|row| Some(row.sensor.as_str())),
        text(|row| row.instrument.as_deref()),
        text(|row| row.serial.as_deref()),
        number(|row| row.depth_m),
        text(|row| row.calibrated.as_deref()),
        number(|row| row.gain),
        number(|row| row.offset),
        time_column(history, |row| Some(row.installed_us)),
        time_column(history, |row| row.removed_us),
        text(|row| row.note.as_deref()),
    ];
    columns.extend(validity(history));
    RecordBatch::try_new(schema::arrow(TableName::Installations), columns)
}

pub(crate) fn events_batch(history: &[Versioned<Keyed<EventRow>>]) -> Result<RecordBatch, ArrowError> {
    let text = |get: fn(&EventRow) -> Option<&str>| {
        Arc::new(history.iter().map(|row| get(&row.row.row)).collect::<StringArray>()) as ArrayRef
    };
    let qualities: Int8Array = history.iter().map(|row| Some(row.row.row.quality.code())).collect();
    let mut columns = vec![
        text(|row| Some(&row.sensors)),
        text(|row| Some(row.kind.word())),
        Arc::new(qualities) as ArrayRef,
        time_column(history, |row| Some(row.began_us)),
        time_column(history, |row| row.ended_us),
        text(|row| row.note.as_deref()),
    ];
    columns.extend(validity(history));
    RecordBatch::try_new(schema::arrow(TableName::Events), columns)
}

fn time_column<T>(history: &[Versioned<Keyed<T>>], get: fn(&T) -> Option<i64>) -> ArrayRef {
    let times: TimestampMicrosecondArray = history.iter().map(|row| get(&row.row.row)).collect();
    Arc::new(times.with_timezone("UTC"))
}

fn text_column<T>(history: &[Versioned<T>], get: fn(&T) -> Option<&str>) -> ArrayRef {
    Arc::new(history.iter().map(|row| get(&row.row)).collect::<StringArray>())
}

fn number_column<T>(history: &[Versioned<T>], get: fn(&T) -> Option<f64>) -> ArrayRef {
    Arc::new(history.iter().map(|row| get(&row.row)).collect::<Float64Array>())
}

fn validity<T>(history: &[Versioned<T>]) -> [ArrayRef; 2] {
    let from: TimestampMicrosecondArray = history.iter().map(|row| Some(row.valid_from_us)).collect();
    let to: TimestampMicrosecondArray = history.iter().map(|row| row.valid_to_us).collect();
    [Arc::new(from.with_timezone("UTC")), Arc::new(to.with_timezone("UTC"))]
}

/// One batch of a table, its columns looked up by name.
struct Columns<'a>(&'a RecordBatch);

/// A column of text.
struct Text(StringArray);

impl Text {
    fn get(&self, row: usize) -> Option<String> {
        self.0.is_valid(row).then(|| self.0.value(row).to_owned())
    }

    fn set(&self, row: usize) -> String {
        self.get(row).unwrap_or_default()
    }
}

impl Columns<'_> {
    fn column(&self, name: &str) -> Result<&ArrayRef, RegisterError> {
        self.0.column_by_name(name).ok_or_else(|| RegisterError::damaged(format!("it has no column `{name}`")))
    }

    fn text(&self, name: &str) -> Result<Text, RegisterError> {
        texts(self.column(name)?).map(Text).map_err(|error| RegisterError::damaged(error.to_string()))
    }

    fn number(&self, name: &str) -> Result<impl Fn(usize) -> Option<f64>, RegisterError> {
        let column = self.column(name)?.as_primitive_opt::<Float64Type>().cloned();
        let column = column.ok_or_else(|| RegisterError::damaged(format!("`{name}` is no number")))?;
        Ok(move |row| column.is_valid(row).then(|| column.value(row)))
    }

    fn time(&self, name: &str) -> Result<impl Fn(usize) -> Option<i64>, RegisterError> {
        let column = self.column(name)?.as_primitive_opt::<TimestampMicrosecondType>().cloned();
        let column = column.ok_or_else(|| RegisterError::damaged(format!("`{name}` is no time")))?;
        Ok(move |row| column.is_valid(row).then(|| column.value(row)))
    }
}

pub(crate) fn sites_of(batch: &RecordBatch) -> Result<Vec<Versioned<SiteRow>>, RegisterError> {
    let columns = Columns(batch);
    let (site, kind, official_ids) = (columns.text("site")?, columns.text("kind")?, columns.text("official_ids")?);
    let names = [columns.text("name_nb")?, columns.text("name_nn")?, columns.text("name_en")?];
    let (latitude, longitude) = (columns.number("latitude")?, columns.number("longitude")?);
    let (from, to) = (columns.time("valid_from")?, columns.time("valid_to")?);
    let rows = (0..batch.num_rows()).map(|row| Versioned {
        row: SiteRow {
            site: site.set(row),
            name_nb: names[0].get(row),
            name_nn: names[1].get(row),
            name_en: names[2].get(row),
            kind: kind.get(row),
            latitude: latitude(row),
            longitude: longitude(row),
            official_ids: official_ids.get(row),
        },
        valid_from_us: from(row).unwrap_or_default(),
        valid_to_us: to(row),
    });
    Ok(rows.collect())
}

pub(crate) fn sensors_of(batch: &RecordBatch) -> Result<Vec<Versioned<SensorRow>>, RegisterError> {
    let columns = Columns(batch);
    let (id, unit, kind, class) =
        (columns.text("id")?, columns.text("unit")?, columns.text("kind")?, columns.text("class")?);
    let names = [columns.text("name_nb")?, columns.text("name_nn")?, columns.text("name_en")?];
    let (interval, sources) = (columns.text("interval")?, columns.text("sources")?);
    let (low, high, wraps_at) = (columns.number("low")?, columns.number("high")?, columns.number("wraps_at")?);
    let (from, to) = (columns.time("valid_from")?, columns.time("valid_to")?);
    let row = |row: usize| -> Result<_, String> {
        Ok(Versioned {
            row: SensorRow {
                id: id.set(row).parse().map_err(|error| format!("{error}"))?,
                name_nb: names[0].get(row),
                name_nn: names[1].get(row),
                name_en: names[2].get(row),
                unit: unit.set(row),
                kind: kind.set(row).parse()?,
                class: class.set(row).parse()?,
                interval: interval.get(row),
                low: low(row),
                high: high(row),
                sources: sources.get(row),
                wraps_at: wraps_at(row),
            },
            valid_from_us: from(row).unwrap_or_default(),
            valid_to_us: to(row),
        })
    };
    (0..batch.num_rows()).map(row).collect::<Result<_, _>>().map_err(RegisterError::damaged)
}

pub(crate) fn rules_of(batch: &RecordBatch) -> Result<Vec<Versioned<RuleRow>>, RegisterError> {
    let columns = Columns(batch);
    let (sensors, unit, test) = (columns.text("sensors")?, columns.text("unit")?, columns.text("test")?);
    let (months, parameters) = (columns.text("months")?, columns.text("parameters")?);
    let (from, to) = (columns.time("valid_from")?, columns.time("valid_to")?);
    let row = |row: usize| -> Result<_, String> {
        let test = test.set(row).parse()?;
        Ok(Versioned {
            row: RuleRow::new(sensors.set(row), unit.get(row), test, months.get(row), parameters.set(row)),
            valid_from_us: from(row).unwrap_or_default(),
            valid_to_us: to(row),
        })
    };
    (0..batch.num_rows()).map(row).collect::<Result<_, _>>().map_err(RegisterError::damaged)
}

pub(crate) fn installations_of(batch: &RecordBatch) -> Result<Vec<Versioned<Keyed<InstallationRow>>>, RegisterError> {
    let columns = Columns(batch);
    let sensor = columns.text("sensor")?;
    let (instrument, serial) = (columns.text("instrument")?, columns.text("serial")?);
    let (calibrated, note) = (columns.text("calibrated")?, columns.text("note")?);
    let (depth_m, gain, offset) = (columns.number("depth_m")?, columns.number("gain")?, columns.number("offset")?);
    let (installed, removed) = (columns.time("installed")?, columns.time("removed")?);
    let (from, to) = (columns.time("valid_from")?, columns.time("valid_to")?);
    let row = |row: usize| -> Result<_, String> {
        Ok(Versioned {
            row: InstallationRow {
                sensor: sensor.set(row).parse().map_err(|error| format!("{error}"))?,
                instrument: instrument.get(row),
                serial: serial.get(row),
                depth_m: depth_m(row),
                calibrated: calibrated.get(row),
                gain: gain(row),
                offset: offset(row),
                installed_us: installed(row).unwrap_or_default(),
                removed_us: removed(row),
                note: note.get(row),
            }
            .keyed(),
            valid_from_us: from(row).unwrap_or_default(),
            valid_to_us: to(row),
        })
    };
    (0..batch.num_rows()).map(row).collect::<Result<_, _>>().map_err(RegisterError::damaged)
}

pub(crate) fn events_of(batch: &RecordBatch) -> Result<Vec<Versioned<Keyed<EventRow>>>, RegisterError> {
    let columns = Columns(batch);
    let (sensors, kind, note) = (columns.text("sensor")?, columns.text("kind")?, columns.text("note")?);
    let quality = columns.column("quality")?.as_primitive_opt::<Int8Type>().cloned();
    let quality = quality.ok_or_else(|| RegisterError::damaged("`quality` is no small number"))?;
    let (began, ended) = (columns.time("began")?, columns.time("ended")?);
    let (from, to) = (columns.time("valid_from")?, columns.time("valid_to")?);
    let row = |row: usize| -> Result<_, String> {
        let code = quality.value(row);
        Ok(Versioned {
            row: EventRow {
                sensors: sensors.set(row),
                kind: kind.set(row).parse()?,
                quality: Quality::from_code(code).ok_or_else(|| format!("`{code}` is no quality"))?,
                began_us: began(row).unwrap_or_default(),
                ended_us: ended(row),
                note: note.get(row),
            }
            .keyed(),
            valid_from_us: from(row).unwrap_or_default(),
            valid_to_us: to(row),
        })
    };
    (0..batch.num_rows()).map(row).collect::<Result<_, _>>().map_err(RegisterError::damaged)
}

/// The sensors that are valid now, by their id.
pub(crate) fn register_of(history: &[Versioned<SensorRow>]) -> Register {
    let now = history.iter().filter(|row| row.valid_to_us.is_none());
    let register = Register::of(now.map(|row| row.row.clone()));
    let id = |row: &Versioned<SensorRow>| row.row.id.as_str().to_owned();
    // A row that was changed ends when the next one begins.
    let mut in_order: Vec<&Versioned<SensorRow>> = history.iter().collect();
    in_order.sort_by_key(|row| row.valid_from_us);
    let mut since: HashMap<String, (i64, Option<i64>)> = HashMap::new();
    for row in in_order {
        let (since_us, to_us) = since.entry(id(row)).or_insert((row.valid_from_us, Some(row.valid_from_us)));
        if *to_us != Some(row.valid_from_us) {
            *since_us = row.valid_from_us;
        }
        *to_us = row.valid_to_us;
    }
    let since_us = since.into_iter().map(|(sensor, (since_us, _))| (sensor, since_us)).collect();
    let last = newest(history, |row| row.id.as_str());
    let gone = last.into_iter().filter(|(_, row)| row.valid_to_us.is_some() && row.row.class == Class::Personal);
    let personal_last = gone.map(|(sensor, _)| sensor.to_owned()).collect();
    let first_us = firsts(history).into_iter().map(|(sensor, first_us)| (sensor.to_owned(), first_us)).collect();
    Register { since_us, first_us, personal_last, ..register }
}
