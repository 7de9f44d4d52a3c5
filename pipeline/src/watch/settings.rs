//! `[watch]` of `tjern.toml`, and what is made of it: secrets are read, paths are complete.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use tjern_readings::configuration::{Period, Size};
use tjern_readings::store::LakeUrl;

use super::mail::{MailSection, MailSettings};
use super::secret::SecretError;
use super::webhook::{WebhookSection, WebhookSettings};

/// `[watch]`: what is told, and to whom.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchSection {
    /// How often it is looked.
    pub every: Period,
    /// How long a source may send nothing.
    pub source_silent: Period,
    /// How much of a disk has to be free.
    pub disk_free: Size,
    /// Disks that are watched beside the lake's own: a path on each.
    pub disks: Vec<PathBuf>,
    /// How long before its end a token is told of.
    pub token_warning: Period,
    /// Tokens that expire.
    pub token: Vec<TokenSection>,
    /// What values may be.
    pub limit: Vec<LimitSection>,
    /// Where events are posted.
    pub webhook: Option<WebhookSection>,
    /// To whom events are mailed.
    pub mail: Option<MailSection>,
}

impl Default for WatchSection {
    fn default() -> Self {
        Self {
            every: Period::from_seconds(20 * 60),
            source_silent: Period::from_seconds(3 * 60 * 60),
            disk_free: Size(1 << 30),
            disks: Vec::new(),
            token_warning: Period::from_seconds(14 * 24 * 60 * 60),
            token: Vec::new(),
            limit: Vec::new(),
            webhook: None,
            mail: None,
        }
    }
}

/// `[[watch.token]]`: something that expires.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSection {
    /// What it is called in what is told.
    pub name: String,
    /// The last day on which it is valid.
    #[serde(default, deserialize_with = "date")]
    pub expires: Option<Date>,
    /// A file with a JSON Web Token or a shared access signature, which say themselves when they end.
    pub file: Option<PathBuf>,
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(serde::de::Error::custom)
}

/// `[[watch.limit]]`: what a value may be.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "LimitText")]
pub struct LimitSection {
    /// A sensor, all of a place (`place/*`), or a quantity everywhere (`*/quantity`).
    pub sensor: Pattern,
    /// The lowest value that is not told.
    pub low: Option<f64>,
    /// The highest value that is not told.
    pub high: Option<f64>,
}

/// A limit as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitText {
    sensor: Pattern,
    #[serde(default, deserialize_with = "bound")]
    low: Option<f64>,
    #[serde(default, deserialize_with = "bound")]
    high: Option<f64>,
}

/// `nan` is over nothing and under nothing.
fn bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let bound = f64::deserialize(deserializer)?;
    if bound.is_finite() {
        return Ok(Some(bound));
    }
    Err(serde::de::Error::custom(format!("{bound} is no limit: write a number, or leave it out")))
}

impl TryFrom<LimitText> for LimitSection {
    type Error = String;

    fn try_from(text: LimitText) -> Result<Self, String> {
        let LimitText { sensor, low, high } = text;
        match (low, high) {
            (None, None) => Err("a limit needs `low`, `high` or both".to_owned()),
            (Some(low), Some(high)) if low > high => {
                Err(format!("every value is outside of this limit: `low` {low} is over `high` {high}"))
            }
            _ => Ok(Self { sensor, low, high }),
        }
    }
}

/// Which sensors a limit is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether a sensor is meant.
    #[must_use]
    pub fn fits(&self, sensor: &str) -> bool {
        if let Some(place) = self.0.strip_suffix("/*") {
            return sensor.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'));
        }
        match self.0.strip_prefix("*/") {
            Some(quantity) => sensor.strip_suffix(quantity).is_some_and(|rest| rest.ends_with('/')),
            None => sensor == self.0,
        }
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let stars = text.matches('*').count();
        let well = !text.is_empty() && (stars == 0 || stars == 1 && (text.ends_with("/*") || text.starts_with("*/")));
        if well {
            return Ok(Self(text));
        }
        Err(serde::de::Error::custom(format!("`{text}` names no sensors: write an id, `place/*` or `*/quantity`")))
    }
}

/// What the watch is told.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    /// How long a source may send nothing.
    pub source_silent: Duration,
    /// How many bytes of a disk have to be free.
    pub disk_free: u64,
    /// A path on each disk that is watched beside the lake's own.
    pub disks: Vec<PathBuf>,
    /// How long before its end a token is told of.
    pub token_warning: Duration,
    /// Tokens that expire, their files' paths complete.
    pub tokens: Vec<TokenSection>,
    /// What values may be.
    pub limits: Vec<LimitSection>,
    /// Where events are posted.
    pub webhook: Option<WebhookSettings>,
    /// To whom events are mailed.
    pub mail: Option<MailSettings>,
    /// The lake: it is told whose events these are, and its disk is watched where it is a folder.
    pub lake: LakeUrl,
    /// The city's time zone, in which people are told.
    pub timezone: TimeZone,
}

impl WatchSection {
    /// What is meant, given the folder of `tjern.toml` and the lake. Secrets are read here.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn settings(&self, folder: &Path, lake: &LakeUrl, timezone: &TimeZone) -> Result<WatchSettings, SecretError> {
        let complete = |token: &TokenSection| TokenSection {
            file: token.file.as_ref().map(|file| folder.join(file)),
            ..token.clone()
        };
        Ok(WatchSettings {
            source_silent: self.source_silent.duration(),
            disk_free: self.disk_free.0,
            disks: self.disks.iter().map(|disk| folder.join(disk)).collect(),
            token_warning: self.token_warning.duration(),
            tokens: self.token.iter().map(complete).collect(),
            limits: self.limit.clone(),
            webhook: self.webhook.as_ref().map(|section| section.settings(folder)).transpose()?,
            mail: self.mail.as_ref().map(|section| section.settings(folder)).transpose()?,
            lake: lake.clone(),
            timezone: timezone.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_whole_parts_of_ids() {
        let fits = |pattern: &str, sensor: &str| Pattern(pattern.to_owned()).fits(sensor);
        assert!(fits("a/b", "a/b") && !fits("a/b", "a/bc"));
        assert!(fits("a/*", "a/b") && fits("a/*", "a/depth/b") && !fits("a/*", "ab/c"));
        assert!(fits("*/b", "a/b") && fits("*/b", "a/c/b") && !fits("*/b", "a/bb") && !fits("*/b", "a/cb"));
    }

    #[test]
    fn a_section_is_read_with_everything_in_it() {
        let text = "every = \"1min\"\ndisks = [\"/\"]\n[[token]]\nname = \"lake\"\nexpires = \"2027-03-01\"\n\
                    [[limit]]\nsensor = \"*/water_temperature\"\nhigh = 25\n\
                    [webhook]\nurl = \"http://127.0.0.1:9/\"\n[mail]\nserver = \"127.0.0.1:25\"\n\
                    tls = \"none\"\nfrom = \"tjern@example.org\"\nto = [\"vakt@example.org\"]\n";
        let section: WatchSection = toml::from_str(text).expect("valid");
        assert_eq!(section.token[0].expires, Some(Date::constant(2027, 3, 1)));
        assert_eq!(section.limit[0].high, Some(25.0));
        for wrong in
            ["[[limit]]\nsensor = \"a*\"\n", "[[token]]\nname = \"x\"\nexpires = \"soon\"\n", "evry = \"1s\"\n"]
        {
            assert!(toml::from_str::<WatchSection>(wrong).is_err(), "{wrong}");
        }
    }
}
