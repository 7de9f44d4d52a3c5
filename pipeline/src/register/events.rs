//! `events.csv`: when a sensor's readings were no measurements, and why; and [`Events`], which quality
//! control asks.
//!
//! An event holds for a sensor, or for all of a place (`landfalltjern/*`). Its readings are not good: the
//! line says whether they fail (4, where nothing is said) or are suspect (3). They are kept as they
//! came, and an event that is taken out of the file takes its flags back.

use std::collections::HashMap;
use std::path::Path;

use jiff::tz::TimeZone;
use tjern_readings::reading::Quality;
use tjern_readings::sensor::SensorId;

use super::file::{Columns, Fields, Lined, RegisterProblem, read_rows, refuse_twice};
use super::installations::{Keyed, time_word};
use super::rows::EventKind;

/// An event, as its line says.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named as the columns of the file")]
pub struct EventRow {
    /// A sensor's id, or `place/*`.
    pub sensors: String,
    pub kind: EventKind,
    /// Suspect or fail.
    pub quality: Quality,
    pub began_us: i64,
    /// None: it goes on.
    pub ended_us: Option<i64>,
    pub note: Option<String>,
}

impl EventRow {
    pub(crate) fn keyed(self) -> Keyed<Self> {
        Keyed { key: format!("{} {} {}", self.sensors, self.kind, time_word(self.began_us)), row: self }
    }
}

const COLUMNS: Columns = Columns { required: &["sensor", "kind", "began"], optional: &["ended", "quality", "note"] };

/// Reads the text of `events.csv`.
pub(crate) fn read_events(
    path: &Path,
    text: &str,
    zone: &TimeZone,
) -> Result<Vec<Lined<Keyed<EventRow>>>, Vec<RegisterProblem>> {
    let rows = read_rows(path, text, COLUMNS, |fields| read(fields, zone).map(EventRow::keyed))?;
    let problems = refuse_twice(path, "began", &rows, |row| &row.key);
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

fn read(fields: &mut Fields<'_>, zone: &TimeZone) -> Option<EventRow> {
    const WHOSE: &str = "write a sensor's id, or all of a place: `landfalltjern/*`";
    fields.required("sensor", WHOSE)?;
    let sensors = fields.parsed("sensor", WHOSE, |text| {
        let tried = text.strip_suffix("/*").map_or_else(|| text.to_owned(), |place| format!("{place}/all"));
        tried.parse::<SensorId>().map(|_| text.to_owned()).map_err(|error| error.to_string())
    });
    let kind = super::rows::required_word::<EventKind>(fields, "kind", "write what kept it from measuring");
    let quality = fields.parsed("quality", "write 3 (suspect) or 4 (fail), or nothing", |text| match text {
        "3" => Ok(Quality::Suspect),
        "4" => Ok(Quality::Fail),
        other => Err(format!("`{other}` is neither 3 nor 4")),
    });
    let (began_us, ended_us) = fields.period("began", "ended", zone)?;
    Some(EventRow {
        sensors: sensors??,
        kind: kind?,
        quality: quality?.unwrap_or(Quality::Fail),
        began_us,
        ended_us,
        note: fields.text("note"),
    })
}

/// The events that hold now, by whom they are about.
#[derive(Debug, Clone, Default)]
pub struct Events {
    events: HashMap<String, Vec<EventRow>>,
}

/// A time in which a sensor's readings are not good: the start belongs to it, the end does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotGood {
    /// In microseconds since 1970.
    pub from_us: i64,
    /// In microseconds since 1970; `i64::MAX` where it goes on.
    pub to_us: i64,
    /// Suspect or fail.
    pub quality: Quality,
}

impl Events {
    /// Of these rows.
    pub fn of(rows: impl IntoIterator<Item = EventRow>) -> Self {
        let mut events: HashMap<String, Vec<EventRow>> = HashMap::new();
        for row in rows {
            events.entry(row.sensors.clone()).or_default().push(row);
        }
        Self { events }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// When a sensor's readings are not good, in no order; times may overlap.
    #[must_use]
    pub fn of_sensor(&self, sensor: &str) -> Vec<NotGood> {
        if self.events.is_empty() {
            return Vec::new();
        }
        let places = sensor.match_indices('/').map(|(end, _)| format!("{}/*", &sensor[..end]));
        let names = std::iter::once(sensor.to_owned()).chain(places);
        let rows = names.filter_map(|name| self.events.get(&name)).flatten();
        rows.map(|row| NotGood { from_us: row.began_us, to_us: row.ended_us.unwrap_or(i64::MAX), quality: row.quality })
            .collect()
    }
}

/// What events say of a moment: the worse of those that hold then.
#[must_use]
pub fn at(times: &[NotGood], time_us: i64) -> Option<Quality> {
    times.iter().filter(|time| time.from_us <= time_us && time_us < time.to_us).map(|time| time.quality).max()
}
