//! Lines to readings, by a map: nothing is dropped that is not counted or told.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tjern_readings::reading::{Quality, Reading, TIMES_US};
use tjern_readings::sensor::{NameError, SensorId};

use super::input::{Cell, InputLine};
use super::map::{CheckedMap, MappedColumn, Shape};
use crate::register::Register;
use crate::sheet::number;
use crate::times::{Moments, in_zone};

/// A line, or a field of one, of which no reading could be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// The line, from 1 for the file's first.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// What a line gave.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) readings: Vec<Reading>,
    pub(super) bad: Vec<BadLine>,
    /// Fields that are empty, or say that there is no value.
    pub(super) empty: usize,
}

/// The columns that a map asks for: the times first.
pub(super) fn columns(map: &CheckedMap) -> Vec<&str> {
    let mut columns = vec![map.time.as_str()];
    match &map.shape {
        Shape::Long { sensor, value, quality } => {
            columns.extend([sensor.as_str(), value.as_str()]);
            columns.extend(quality.as_deref());
        }
        Shape::Wide(mapped) => columns.extend(mapped.iter().map(|column| column.name.as_str())),
    }
    columns
}

/// Whether a sensor is one that people measure, whatever the register says: numbers go by what this lets through.
pub(super) fn may_be_imported(sensor: &SensorId) -> Result<(), String> {
    if sensor.is_system() { Err("only the product itself writes it".to_owned()) } else { Ok(()) }
}

/// Why the register keeps a sensor's readings out of this lake, if it does. A file that has some is refused whole: with its
/// other lines alone the numbers would be others once the sensor is registered as something else.
pub(super) fn kept_out(sensor: &SensorId, register: &Register, in_personal_lake: bool) -> Option<&'static str> {
    match (register.is_personal(sensor.as_str()), in_personal_lake) {
        (true, false) => Some(
            "it is registered as `personal`, and this is the common lake; hint: import a file without its lines, and \
             with `--personal` one of its lines into the other",
        ),
        (false, true) => Some("it is not registered as `personal`, and this is the lake of personal readings"),
        _ => None,
    }
}

/// The sensor that a line of a long file names, where it names one.
pub(super) fn sensor_of(line: &InputLine, map: &CheckedMap) -> Option<SensorId> {
    match (&map.shape, line.cells.as_ref().ok()?.get(1)?) {
        (Shape::Long { .. }, Cell::Text(name)) => name.parse().ok(),
        _ => None,
    }
}

/// Makes readings of lines, one after the other.
pub(super) struct Reader<'a> {
    map: &'a CheckedMap,
    sensors: HashMap<String, Result<SensorId, String>>,
    /// By the sensor that a line names (of wide files all at once): the time before, and which way times go.
    before: HashMap<String, Before>,
}

#[derive(Debug, Clone, Copy)]
struct Before {
    time_us: i64,
    falls: Option<bool>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(map: &'a CheckedMap) -> Self {
        Self { map, sensors: HashMap::new(), before: HashMap::new() }
    }

    /// What a line gives.
    pub(super) fn read(&mut self, line: InputLine) -> Made {
        let number = line.number;
        let mut made = Made::default();
        let bad = |reason| BadLine { line: number, reason };
        match line.cells {
            Err(reason) => made.bad.push(bad(reason)),
            Ok(cells) => match &self.map.shape {
                Shape::Long { .. } => match self.long(&cells) {
                    Ok(Some(reading)) => made.readings.push(reading),
                    Ok(None) => made.empty += 1,
                    Err(reason) => made.bad.push(bad(reason)),
                },
                Shape::Wide(columns) => match self.time(&cells[0], "") {
                    Err(reason) => made.bad.push(bad(reason)),
                    Ok(time_us) => {
                        for (column, cell) in columns.iter().zip(&cells[1..]) {
                            match self.wide(column, cell, time_us) {
                                Ok(Some(reading)) => made.readings.push(reading),
                                Ok(None) => made.empty += 1,
                                Err(reason) => made.bad.push(bad(format!("column `{}`: {reason}", column.name))),
                            }
                        }
                    }
                },
            },
        }
        made
    }

    fn wide(&self, column: &MappedColumn, cell: &Cell, time_us: i64) -> Result<Option<Reading>, String> {
        let Some(value) = self.value(cell)? else { return Ok(None) };
        let value = column.scaling.apply(value);
        if value.is_finite() {
            return Ok(Some(Reading::of(column.sensor.clone(), time_us, value)));
        }
        Err(format!("{value} is no value"))
    }

    fn long(&mut self, cells: &[Cell]) -> Result<Option<Reading>, String> {
        let name = match &cells[1] {
            Cell::Text(name) => name.clone(),
            Cell::Empty => return Err("it names no sensor".to_owned()),
            other => return Err(format!("{} is no sensor's id", shown(other))),
        };
        let known = self.sensors.entry(name.clone()).or_insert_with_key(|name| {
            let sensor: SensorId = name.parse().map_err(|error: NameError| error.to_string())?;
            may_be_imported(&sensor).map(|()| sensor)
        });
        let sensor = known.clone()?;
        let time_us = self.time(&cells[0], &name)?;
        let Some(value) = self.value(&cells[2])? else { return Ok(None) };
        let mut reading = Reading::of(sensor, time_us, value);
        if let Some(quality) = cells.get(3).map(quality).transpose()?.flatten() {
            reading.quality = quality;
        }
        Ok(Some(reading))
    }

    fn value(&self, cell: &Cell) -> Result<Option<f64>, String> {
        match cell {
            Cell::Empty => Ok(None),
            Cell::Text(text) if self.map.no_value.contains(text) => Ok(None),
            Cell::Text(text) => number(text, self.map.layout.decimal).map(Some),
            // A logger's own "no value", as numbers know it.
            Cell::Number(value) if value.is_nan() => Ok(None),
            Cell::Number(value) if value.is_finite() => Ok(Some(*value)),
            other => Err(format!("{} is not a number", shown(other))),
        }
    }

    fn time(&mut self, cell: &Cell, whose: &str) -> Result<i64, String> {
        let moments = moments(cell, self.map)?;
        if moments.certain().is_some_and(|time_us| !TIMES_US.contains(&time_us)) {
            return Err("its time is not within the years 1900 to 2199".to_owned());
        }
        let before = self.before.get(whose).copied();
        let Some(time_us) = choose(moments, before) else {
            return Err(format!(
                "{} came twice there, when summer time ended, and the lines around it do not tell which it is; \
                 hint: write it with its offset",
                shown(cell)
            ));
        };
        let falls = match before {
            Some(before) if before.time_us != time_us => Some(time_us < before.time_us),
            Some(before) => before.falls,
            None => None,
        };
        self.before.insert(whose.to_owned(), Before { time_us, falls });
        Ok(time_us)
    }
}

fn moments(cell: &Cell, map: &CheckedMap) -> Result<Moments, String> {
    match cell {
        Cell::Empty => Err("it has no time".to_owned()),
        Cell::Text(text) => map.format.read(text, &map.zone),
        Cell::Moment(time_us) => Ok(Moments { early_us: *time_us, late_us: *time_us }),
        Cell::Civil(time_us) => {
            let refused = |_| "its time is not within the years 1900 to 2199".to_owned();
            let civil = Timestamp::from_microsecond(*time_us).map_err(refused)?.to_zoned(TimeZone::UTC).datetime();
            in_zone(civil, &civil.to_string(), &map.zone)
        }
        Cell::Number(number) => map.format.read(&number.to_string(), &map.zone),
    }
}

/// Of two moments the one that goes on from the line before, in the direction that times went until
/// there; none where that is not known.
fn choose(moments: Moments, before: Option<Before>) -> Option<i64> {
    if moments.certain().is_some() {
        return moments.certain();
    }
    let before = before?;
    let (first, second) = match before.falls? {
        false => (moments.early_us, moments.late_us),
        true => (moments.late_us, moments.early_us),
    };
    let goes_on =
        |time_us: i64| if before.falls == Some(true) { time_us < before.time_us } else { time_us > before.time_us };
    [first, second].into_iter().find(|time_us| goes_on(*time_us))
}

fn quality(cell: &Cell) -> Result<Option<Quality>, String> {
    let code = match cell {
        Cell::Empty => return Ok(None),
        Cell::Text(text) => text.parse().ok(),
        Cell::Number(number) => number.to_string().parse().ok(),
        Cell::Moment(_) | Cell::Civil(_) => None,
    };
    let found = code.and_then(Quality::from_code).filter(|quality| *quality != Quality::Missing);
    found.map(Some).ok_or_else(|| format!("{} is no quality of a value: 1, 2, 3 or 4", shown(cell)))
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Empty => "nothing".to_owned(),
        Cell::Text(text) => format!("`{text}`"),
        Cell::Number(number) => format!("{number}"),
        Cell::Moment(time_us) | Cell::Civil(time_us) => crate::correct::utc(*time_us),
    }
}
