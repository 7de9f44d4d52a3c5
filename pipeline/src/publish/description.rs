//! What a release says of itself: `datapackage.json`, by the profile of Data Package version 2.

use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::rows::Summary;
use super::{Dataset, Release, ReleasedFile};

const PROFILE: &str = "https://datapackage.org/profiles/2.0/datapackage.json";

/// Under what terms open data may be used: the licences that Norway's catalogue counts as open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Licence {
    /// Creative Commons Attribution 4.0.
    #[default]
    CcBy40,
    /// The Norwegian Licence for Open Government Data 2.0.
    Nlod20,
    /// No rights reserved.
    Cc0,
}

impl Licence {
    /// Every licence there is.
    pub const ALL: [Self; 3] = [Self::CcBy40, Self::Nlod20, Self::Cc0];

    /// The name, as SPDX has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CcBy40 => "CC-BY-4.0",
            Self::Nlod20 => "NLOD-2.0",
            Self::Cc0 => "CC0-1.0",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::CcBy40 => "Creative Commons Attribution 4.0 International",
            Self::Nlod20 => "Norsk lisens for offentlige data (NLOD) 2.0",
            Self::Cc0 => "CC0 1.0 Universal",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::CcBy40 => "https://creativecommons.org/licenses/by/4.0/",
            Self::Nlod20 => "https://data.norge.no/nlod/no/2.0",
            Self::Cc0 => "https://creativecommons.org/publicdomain/zero/1.0/",
        }
    }
}

impl fmt::Display for Licence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Licence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            serde::de::Error::custom(format!("`{name}` is not a known licence: write one of {known}"))
        })
    }
}

/// A release's description. `release` has the data files by now, and not yet the description itself.
pub(crate) fn describe(dataset: &Dataset, release: &Release, summary: &Summary) -> Value {
    let mut package = json!({
        "$schema": PROFILE,
        "name": dataset.name,
        "title": dataset.title,
        "version": release.version,
        "created": release.created,
        "licenses": [{
            "name": dataset.licence.name(),
            "title": dataset.licence.title(),
            "path": dataset.licence.path(),
        }],
        "sources": [{
            "title": summary.places.join(", "),
            "version": format!("readings v{}", release.readings_version),
        }],
        "resources": release.files.iter().map(|file| resource(dataset, file)).collect::<Vec<_>>(),
    });
    if let Some(title) = &dataset.title_en {
        package["titleEn"] = json!(title);
    }
    if let Some(description) = &dataset.description {
        package["description"] = json!(description);
    }
    if let Some(publisher) = &dataset.publisher {
        package["contributors"] = json!([{ "title": publisher, "roles": ["publisher"] }]);
    }
    if let Some((first, last)) = summary.period {
        package["temporal"] = json!({ "start": first.to_string(), "end": last.to_string() });
    }
    package
}

fn resource(dataset: &Dataset, file: &ReleasedFile) -> Value {
    let mut resource = json!({
        "name": dataset.name,
        "type": "table",
        "path": file.path,
        "format": "csv",
        "mediatype": "text/csv",
        "encoding": "utf-8",
        "bytes": file.bytes,
        "hash": format!("sha256:{}", file.sha256),
        "rowCount": file.rows,
        "schema": schema(),
    });
    if file.path.ends_with(".parquet") {
        resource["name"] = json!(format!("{}-parquet", dataset.name));
        resource["format"] = json!("parquet");
        resource["mediatype"] = json!("application/vnd.apache.parquet");
    }
    resource
}

/// The columns, in words that a stranger understands.
fn schema() -> Value {
    let field = |name: &str, kind: &str, description: &str, constraints: Value| json!({ "name": name, "type": kind, "description": description, "constraints": constraints });
    let required = json!({ "required": true });
    json!({
        "fields": [
            field("sensor", "string", "Which sensor: site, position, quantity", required.clone()),
            field("site", "string", "Which place", required.clone()),
            field("site_name", "string", "The place's name (bokmål)", json!({})),
            field("time", "datetime", "The moment that the value stands for, UTC; the end for values of an interval", required.clone()),
            field("local_time", "datetime", "The same moment as the city's clocks showed it", json!({})),
            field("value", "number", "In the unit beside it", required.clone()),
            field("unit", "string", "UCUM code", json!({})),
            field("quality", "integer", "QARTOD flag: 1 good, 2 not evaluated, 3 suspect", json!({ "required": true, "enum": [1, 2, 3] })),
            field("revision", "integer", "0 as measured; a correction counts up", json!({ "required": true, "minimum": 0 })),
            field("level", "integer", "0 raw, 1 provisional, 2 validated", json!({ "required": true, "enum": [0, 1, 2] })),
        ],
        "primaryKey": ["sensor", "time"],
        "missingValues": [""],
    })
}
