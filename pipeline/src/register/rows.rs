//! The rows of the register: a site, a sensor; how a line of a file becomes one.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use tjern_readings::configuration::Period;
use tjern_readings::sensor::{SensorId, SourceName, is_part};

use super::file::{Columns, Fields, Lined, RegisterProblem, as_text, read_rows, refuse_twice};

macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident, $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// Every one there is.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that stands in files and tables.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|known| known.word() == word).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|known| known.word()).collect();
                    format!("`{word}` is none of {}", known.join(", "))
                })
            }
        }
    };
}

pub(super) use words;

pub use tjern_lake::rollup::Kind;

words! {
    /// Who may see a sensor's readings.
    Class,
    /// Everybody.
    Public = "public",
    /// The city's staff.
    Internal = "internal",
    /// They say something about a person: never in the common lake.
    Personal = "personal",
}

words! {
    /// Why a sensor's readings were no measurements for a while.
    EventKind,
    /// Somebody worked on it.
    Maintenance = "maintenance",
    /// It was in ice.
    Ice = "ice",
    /// It hung in the air.
    OutOfWater = "out_of_water",
    /// Somebody did it harm.
    Vandalism = "vandalism",
    /// Something else, which the note tells.
    Other = "other",
}

/// A site, as its line of `sites.csv` says.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named as the columns of the file")]
pub struct SiteRow {
    pub site: String,
    pub name_nb: Option<String>,
    pub name_nn: Option<String>,
    pub name_en: Option<String>,
    pub kind: Option<String>,
    pub latitude: Option<f64>,
    pub longitude: Option<f64>,
    pub official_ids: Option<String>,
}

/// A sensor, as its line of `sensors.csv` says.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named as the columns of the file")]
pub struct SensorRow {
    pub id: SensorId,
    pub name_nb: Option<String>,
    pub name_nn: Option<String>,
    pub name_en: Option<String>,
    pub unit: String,
    pub kind: Kind,
    pub class: Class,
    pub interval: Option<String>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    /// Space separated; none: any source may write it.
    pub sources: Option<String>,
    /// At what a counter begins again, in its unit.
    pub wraps_at: Option<f64>,
}

impl SensorRow {
    /// Whether the register lets this source write the sensor.
    #[must_use]
    pub fn accepts(&self, source: &str) -> bool {
        self.sources.as_deref().is_none_or(|sources| sources.split(' ').any(|known| known == source))
    }
}

const SITE_COLUMNS: Columns = Columns {
    required: &["site"],
    optional: &["name_nb", "name_nn", "name_en", "kind", "latitude", "longitude", "official_ids"],
};

const SENSOR_COLUMNS: Columns = Columns {
    required: &["id", "site", "quantity", "unit", "kind", "class"],
    optional: &["name_nb", "name_nn", "name_en", "interval", "low", "high", "sources", "wraps_at"],
};

/// Reads the text of `sites.csv`.
pub(crate) fn read_sites(path: &Path, text: &str) -> Result<Vec<Lined<SiteRow>>, Vec<RegisterProblem>> {
    let rows = read_rows(path, text, SITE_COLUMNS, read_site)?;
    let problems = refuse_twice(path, "site", &rows, |row| &row.site);
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

/// Reads the text of `sensors.csv`. `sites` are those that a sensor may be at; `None` where
/// `sites.csv` could not be read, so that its problems are not repeated for every sensor.
pub(crate) fn read_sensors(
    path: &Path,
    text: &str,
    sites: Option<&BTreeSet<&str>>,
) -> Result<Vec<Lined<SensorRow>>, Vec<RegisterProblem>> {
    let rows = read_rows(path, text, SENSOR_COLUMNS, |fields| read_sensor(fields, sites))?;
    let problems = refuse_twice(path, "id", &rows, |row| row.id.as_str());
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

fn read_site(fields: &mut Fields<'_>) -> Option<SiteRow> {
    const HINT: &str = "a site is 1 to 31 of a-z, 0-9, `_`, `-`, starting with a letter or digit, like `landfalltjern`";
    let site = fields.required("site", HINT);
    let valid = site.as_deref().is_some_and(is_part);
    if let (Some(site), false) = (&site, valid) {
        fields.problem(Some("site"), format!("`{site}` is no name of a site"), HINT);
    }
    let latitude = fields.number("latitude", -90.0, 90.0);
    let longitude = fields.number("longitude", -180.0, 180.0);
    if let (Some(latitude), Some(longitude)) = (latitude, longitude)
        && latitude.is_some() != longitude.is_some()
    {
        fields.problem(Some("longitude"), "latitude and longitude go together", "fill both, or none");
        return None;
    }
    Some(SiteRow {
        site: site.filter(|_| valid)?,
        name_nb: fields.text("name_nb"),
        name_nn: fields.text("name_nn"),
        name_en: fields.text("name_en"),
        kind: fields.text("kind"),
        latitude: latitude?,
        longitude: longitude?,
        official_ids: fields.text("official_ids"),
    })
}

fn read_sensor(fields: &mut Fields<'_>, sites: Option<&BTreeSet<&str>>) -> Option<SensorRow> {
    let id = read_id(fields, sites);
    let unit = fields.required("unit", "write the UCUM unit, like `Cel`; `1` where there is none");
    let kind = required_word::<Kind>(fields, "kind", "most sensors are `sample`: the value at a moment");
    let class = required_word::<Class>(fields, "class", "write `public` only where everybody may see it");
    let interval = fields.parsed("interval", "write how often a reading is due, like `1h`, or nothing", |text| {
        as_text(text.parse::<Period>()).map(|_| text.to_owned())
    });
    let range = read_range(fields);
    let sources = fields.parsed("sources", "name gateways, separated by spaces, or nothing", |text| {
        let names: Result<Vec<_>, _> = text.split_whitespace().map(str::parse::<SourceName>).collect();
        as_text(names).map(|names| names.iter().map(SourceName::as_str).collect::<Vec<_>>().join(" "))
    });
    let wraps_at = read_wraps_at(fields, kind);
    let (low, high) = range?;
    Some(SensorRow {
        id: id?,
        name_nb: fields.text("name_nb"),
        name_nn: fields.text("name_nn"),
        name_en: fields.text("name_en"),
        unit: unit?,
        kind: kind?,
        class: class?,
        interval: interval?,
        low,
        high,
        sources: sources?,
        wraps_at: wraps_at?,
    })
}

/// At what a counter begins again; `kind` is none where that is wrong, which was told.
#[expect(clippy::option_option, reason = "an empty field is fine, a wrong one is not")]
fn read_wraps_at(fields: &mut Fields<'_>, kind: Option<Kind>) -> Option<Option<f64>> {
    const COLUMN: &str = "wraps_at";
    let wraps_at = fields.number(COLUMN, f64::MIN, f64::MAX)?;
    if wraps_at.is_some_and(|wraps_at| wraps_at <= 0.0) {
        let hint = "write the number after its last one, in the sensor's unit: 65536 for 16 bits, or nothing";
        fields.problem(Some(COLUMN), "a counter begins again above zero", hint);
        return None;
    }
    if let (Some(_), Some(kind)) = (wraps_at, kind)
        && kind != Kind::Counter
    {
        fields.problem(Some(COLUMN), format!("a sensor of the kind `{kind}` does not wrap"), "leave it empty");
        return None;
    }
    Some(wraps_at)
}

/// The id, held against the site and the quantity beside it.
fn read_id(fields: &mut Fields<'_>, sites: Option<&BTreeSet<&str>>) -> Option<SensorId> {
    const HINT: &str = "an id is site[/position…]/quantity, like `landfalltjern/water_temperature`";
    fields.required("id", HINT)?;
    let id = fields.parsed("id", HINT, |text| as_text(text.parse::<SensorId>()))??;
    if id.is_system() {
        fields.problem(Some("id"), format!("`{id}` is one of the product's own"), "choose another site than `_system`");
        return None;
    }
    let parts = [("site", id.site()), ("quantity", id.quantity())];
    for (column, expected) in parts {
        let given = fields.required(column, &format!("the id says `{expected}`"))?;
        if given != expected {
            let message = format!("`{given}`, but the id `{id}` says `{expected}`");
            fields.problem(Some(column), message, "the id's first part is the site, its last the quantity");
            return None;
        }
    }
    if sites.is_some_and(|sites| !sites.contains(id.site())) {
        let message = format!("there is no site `{}`", id.site());
        fields.problem(Some("site"), message, "add a line for it to the file of sites");
        return None;
    }
    Some(id)
}

pub(crate) fn required_word<T: FromStr<Err = String>>(fields: &mut Fields<'_>, column: &str, hint: &str) -> Option<T> {
    fields.required(column, hint)?;
    fields.parsed(column, hint, str::parse)?
}

fn read_range(fields: &mut Fields<'_>) -> Option<(Option<f64>, Option<f64>)> {
    let low = fields.number("low", f64::MIN, f64::MAX);
    let high = fields.number("high", f64::MIN, f64::MAX);
    let (low, high) = (low?, high?);
    if let (Some(low), Some(high)) = (low, high)
        && low >= high
    {
        fields.problem(Some("high"), format!("{high} is not above low, {low}"), "low and high are the plausible range");
        return None;
    }
    Some((low, high))
}
