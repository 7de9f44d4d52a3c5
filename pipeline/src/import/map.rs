//! The map of an import: whose readings a file holds, which column is what, how times and numbers are written.
//!
//! A TOML file or flags of the command; either way it is made whole (every default written out) and landed
//! beside the batches as their configuration. So its units are held against the register's as a gateway's are,
//! and a wrong `scale` is found again by `recompute`.

use serde::{Deserialize, Serialize};
use tjern_readings::configuration::{ConfigError, ConfigText};
use tjern_readings::scaling::Scaling;
use tjern_readings::sensor::{SensorId, SourceName};

use crate::sheet::{Decimal, Encoding, Layout};
use crate::times::{self, TimeFormat};

/// The version of the map's shape.
const MAP_VERSION: i64 = 1;

/// A map, as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportMap {
    /// 1.
    pub version: i64,
    /// Whose readings these are: `import:…` or `manual:…`.
    pub source: String,
    /// The clock of times without an offset; the city's where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// `iso`, `unix`, `unix_ms`, or fields as `strptime` has them.
    #[serde(default = "iso")]
    pub time_format: String,
    /// What stands between columns, one character.
    #[serde(default = "comma")]
    pub separator: String,
    /// What stands before decimals.
    #[serde(default)]
    pub decimal: Decimal,
    /// How letters are written.
    #[serde(default)]
    pub encoding: Encoding,
    /// How many lines stand before the one that names the columns.
    #[serde(default)]
    pub skip_lines: u64,
    /// Words that stand for no value, beside an empty field.
    #[serde(default)]
    pub no_value: Vec<String>,
    /// The column of times.
    #[serde(default = "time")]
    pub time: String,
    /// Where each line names its sensor: the column of ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensor: Option<String>,
    /// Where each line names its sensor: the column of values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where each line names its sensor: the column of qualities, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<String>,
    /// Else: which column is which sensor's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub column: Vec<ColumnMap>,
}

/// A `[[column]]`: the values of one sensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnMap {
    /// Its name in the file.
    pub name: String,
    /// Whose values these are.
    pub sensor: String,
    /// In which unit, as the register should have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What values are multiplied by.
    #[serde(default = "one")]
    pub scale: f64,
    /// What is added then.
    #[serde(default)]
    pub offset: f64,
}

fn iso() -> String {
    "iso".to_owned()
}

fn comma() -> String {
    ",".to_owned()
}

fn time() -> String {
    "time".to_owned()
}

const fn one() -> f64 {
    1.0
}

/// A map that makes sense.
#[derive(Debug, Clone)]
pub struct CheckedMap {
    pub(super) source: SourceName,
    pub(super) zone: jiff::tz::TimeZone,
    pub(super) format: TimeFormat,
    pub(super) layout: Layout,
    pub(super) no_value: Vec<String>,
    pub(super) time: String,
    pub(super) shape: Shape,
    /// The map with every default written out.
    pub(super) text: String,
}

/// How readings stand in lines.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// One reading a line, which names its sensor.
    Long { sensor: String, value: String, quality: Option<String> },
    /// Several readings a line, each in its sensor's column.
    Wide(Vec<MappedColumn>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct MappedColumn {
    pub(super) name: String,
    pub(super) sensor: SensorId,
    pub(super) scaling: Scaling,
}

/// What is wrong with a map.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// It cannot be read.
    #[error(transparent)]
    Text(#[from] ConfigError),
    /// It was read, and these things make no sense.
    #[error("{}", .0.join("\n"))]
    Wrong(Vec<String>),
}

impl ImportMap {
    /// A map of a source with every default.
    #[must_use]
    pub fn of(source: &str) -> Self {
        Self {
            version: MAP_VERSION,
            source: source.to_owned(),
            time_zone: None,
            time_format: iso(),
            separator: comma(),
            decimal: Decimal::Point,
            encoding: Encoding::Utf8,
            skip_lines: 0,
            no_value: Vec::new(),
            time: time(),
            sensor: None,
            value: None,
            quality: None,
            column: Vec::new(),
        }
    }

    /// Reads a map's text.
    ///
    /// # Errors
    /// [`MapError::Text`] with the place of what is wrong.
    pub fn read(text: &ConfigText) -> Result<Self, MapError> {
        Ok(text.parse()?)
    }

    /// The map, if it makes sense. `city_zone` is the clock where the map names none.
    ///
    /// # Errors
    /// [`MapError::Wrong`] with everything that makes none.
    pub fn check(mut self, city_zone: &str) -> Result<CheckedMap, MapError> {
        let mut problems = Vec::new();
        if self.version != MAP_VERSION {
            problems.push(format!("version {} of the map is not known; hint: write {MAP_VERSION}", self.version));
        }
        let zone = self.time_zone.get_or_insert_with(|| city_zone.to_owned()).clone();
        let source = noted(&mut problems, source_of(&self.source));
        let zone = noted(&mut problems, times::zone(&zone));
        let format = noted(&mut problems, self.time_format.parse::<TimeFormat>());
        let separator = noted(&mut problems, separator_of(&self.separator));
        let shape = noted(&mut problems, self.shape());
        let text = toml::to_string(&self).map_err(|error| MapError::Wrong(vec![error.to_string()]))?;
        let (Some(source), Some(zone), Some(format), Some(separator), Some(shape)) =
            (source, zone, format, separator, shape)
        else {
            return Err(MapError::Wrong(problems));
        };
        if !problems.is_empty() {
            return Err(MapError::Wrong(problems));
        }
        let Self { decimal, encoding, skip_lines, no_value, time, .. } = self;
        let layout = Layout { separator, decimal, encoding, skip_lines };
        Ok(CheckedMap { source, zone, format, layout, no_value, time, shape, text })
    }

    fn shape(&self) -> Result<Shape, String> {
        if self.column.is_empty() {
            let name = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
            return Ok(Shape::Long {
                sensor: name(&self.sensor, "sensor"),
                value: name(&self.value, "value"),
                quality: self.quality.clone(),
            });
        }
        if self.sensor.is_some() || self.value.is_some() || self.quality.is_some() {
            return Err(
                "either each line names its sensor (`sensor`, `value`), or each `[[column]]` is one's; not both"
                    .to_owned(),
            );
        }
        let mut columns: Vec<MappedColumn> = Vec::new();
        for column in &self.column {
            let sensor: SensorId =
                column.sensor.parse().map_err(|error| format!("column `{}`: {error}", column.name))?;
            if !(column.scale.is_finite() && column.scale != 0.0 && column.offset.is_finite()) {
                return Err(format!("column `{}`: `scale` is zero, or a number is not finite", column.name));
            }
            if columns.iter().any(|other| other.sensor == sensor) {
                return Err(format!("two columns are `{sensor}`; hint: a sensor has one value at a time"));
            }
            columns.push(MappedColumn {
                name: column.name.clone(),
                sensor,
                scaling: Scaling::new(column.scale, column.offset),
            });
        }
        Ok(Shape::Wide(columns))
    }

    /// How a sensor's values were made of the file's numbers, if this map has it.
    #[must_use]
    pub fn scaling(&self, sensor: &SensorId) -> Option<Scaling> {
        if self.column.is_empty() {
            return Some(Scaling::default());
        }
        let column = self.column.iter().find(|column| column.sensor == sensor.as_str())?;
        Some(Scaling::new(column.scale, column.offset))
    }
}

fn noted<T>(problems: &mut Vec<String>, result: Result<T, String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

fn source_of(text: &str) -> Result<SourceName, String> {
    let hint = "hint: write `import:…` for history, `manual:…` for what somebody read off, like `manual:lifeguard`";
    let source: SourceName = text.parse().map_err(|error| format!("{error}; {hint}"))?;
    if text.contains(':') { Ok(source) } else { Err(format!("`{text}` is a gateway's name; {hint}")) }
}

fn separator_of(text: &str) -> Result<u8, String> {
    let refused = || format!("`{text}` is no separator; hint: write one character, like \";\" or \"\\t\"");
    match *text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(byte),
        _ => Err(refused()),
    }
}

impl CheckedMap {
    /// Whose readings these are.
    #[must_use]
    pub const fn source(&self) -> &SourceName {
        &self.source
    }

    /// The sensors that it names; none where each line does.
    #[must_use]
    pub fn sensors(&self) -> Vec<&SensorId> {
        match &self.shape {
            Shape::Long { .. } => Vec::new(),
            Shape::Wide(columns) => columns.iter().map(|column| &column.sensor).collect(),
        }
    }
}
