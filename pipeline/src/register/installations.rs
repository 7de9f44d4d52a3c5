//! `installations.csv`: which instrument hung where, how deep, how it was calibrated, from when to when.
//!
//! A sensor has one instrument at a time: its installations do not overlap.

use std::path::Path;

use jiff::tz::TimeZone;
use tjern_lake::rollup::Installed;
use tjern_readings::sensor::SensorId;

use super::file::{Columns, Fields, Lined, RegisterProblem, as_text, read_rows, refuse_twice};

/// An installation, as its line says. `value × gain + offset` is what its calibration makes of a value.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named as the columns of the file")]
pub struct InstallationRow {
    pub sensor: SensorId,
    pub instrument: Option<String>,
    pub serial: Option<String>,
    pub depth_m: Option<f64>,
    /// The day of its calibration, as ISO 8601 has it.
    pub calibrated: Option<String>,
    pub gain: Option<f64>,
    pub offset: Option<f64>,
    pub installed_us: i64,
    /// None: it hangs there still.
    pub removed_us: Option<i64>,
    pub note: Option<String>,
}

/// The row with what names it in the table's history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Keyed<T> {
    pub(crate) key: String,
    pub(crate) row: T,
}

impl InstallationRow {
    pub(crate) fn keyed(self) -> Keyed<Self> {
        Keyed { key: format!("{} {}", self.sensor, time_word(self.installed_us)), row: self }
    }

    /// As far as a counter cares.
    pub(crate) fn installed(&self) -> Installed {
        Installed {
            instrument: self.instrument.clone(),
            serial: self.serial.clone(),
            from_us: self.installed_us,
            to_us: self.removed_us,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let ends = |row: &Self| row.removed_us.unwrap_or(i64::MAX);
        self.sensor == other.sensor && self.installed_us < ends(other) && other.installed_us < ends(self)
    }
}

/// A time in a key: what a person finds in an error too.
pub(super) fn time_word(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us).map_or_else(|_| time_us.to_string(), |time| time.to_string())
}

const COLUMNS: Columns = Columns {
    required: &["sensor", "installed"],
    optional: &["instrument", "serial", "depth_m", "calibrated", "gain", "offset", "removed", "note"],
};

/// Reads the text of `installations.csv`.
pub(crate) fn read_installations(
    path: &Path,
    text: &str,
    zone: &TimeZone,
) -> Result<Vec<Lined<Keyed<InstallationRow>>>, Vec<RegisterProblem>> {
    let rows = read_rows(path, text, COLUMNS, |fields| read(fields, zone).map(InstallationRow::keyed))?;
    let mut problems = refuse_twice(path, "installed", &rows, |row| &row.key);
    for (index, one) in rows.iter().enumerate() {
        let other = rows[..index].iter().find(|other| other.row.row.overlaps(&one.row.row));
        if let Some(other) = other.filter(|other| other.row.key != one.row.key) {
            problems.push(RegisterProblem {
                path: path.to_owned(),
                line: one.line,
                column: Some("installed".to_owned()),
                message: format!("`{}` has another instrument then, on line {}", one.row.row.sensor, other.line),
                hint: "write when the one before it was `removed`".to_owned(),
            });
        }
    }
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

fn read(fields: &mut Fields<'_>, zone: &TimeZone) -> Option<InstallationRow> {
    fields.required("sensor", "write the sensor's id")?;
    let sensor = fields.parsed("sensor", "write the sensor's id, like `landfalltjern/water_temperature`", |text| {
        as_text(text.parse::<SensorId>())
    });
    let calibrated = fields.parsed("calibrated", "write a day, like 2026-04-01, or nothing", |text| {
        as_text(text.parse::<jiff::civil::Date>()).map(|day| day.to_string())
    });
    let depth_m = fields.number("depth_m", -11_000.0, 11_000.0);
    let gain = fields.number("gain", f64::MIN, f64::MAX);
    let offset = fields.number("offset", f64::MIN, f64::MAX);
    if gain == Some(Some(0.0)) {
        fields.problem(
            Some("gain"),
            "it is zero: every value would be the offset",
            "leave it empty, or write what the certificate says",
        );
        return None;
    }
    let (installed_us, removed_us) = fields.period("installed", "removed", zone)?;
    Some(InstallationRow {
        sensor: sensor??,
        instrument: fields.text("instrument"),
        serial: fields.text("serial"),
        depth_m: depth_m?,
        calibrated: calibrated?,
        gain: gain?,
        offset: offset?,
        installed_us,
        removed_us,
        note: fields.text("note"),
    })
}
