//! What is known of each sensor now, and whether it may still be shown as "now".
//!
//! A number is shown only while it is fresh: an old temperature is no temperature. How old is too old
//! follows from the register's `interval`; why nothing newer came follows from the newest reading of
//! any quality (`heard_*`).

use std::time::Duration;

use serde::Serialize;
use tjern_readings::clock::SECOND_US;
use tjern_readings::configuration::parse_duration;
use tjern_readings::reading::Quality;

use crate::rows::{ColumnError, float_at, integer_at, integers, text_at, texts, times_us};
use crate::sql::Answer;

/// What the way from the device to the page may take beyond two intervals: sealing, upload, ingest.
const GRACE: Duration = Duration::from_secs(90);
/// How old an observation may be whose sensor has no interval in the register.
const PATIENCE_WITHOUT_INTERVAL: Duration = Duration::from_secs(2 * 3600);

/// The newest observation of a sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// The moment that it stands for, in microseconds since 1970 UTC.
    pub time_us: i64,
    /// In the sensor's unit.
    pub value: f64,
    /// Its QARTOD flag.
    pub quality: i64,
}

/// The newest reading of a sensor, good or bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The moment that it stands for, in microseconds since 1970 UTC.
    pub time_us: i64,
    /// Its QARTOD flag.
    pub quality: i64,
    /// Why there is no value.
    pub cause: Option<String>,
}

/// What is known of one sensor.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorNow {
    /// Its id.
    pub sensor: String,
    /// Its place's id.
    pub site: String,
    /// Its place's name.
    pub site_name: Option<String>,
    /// Its own name.
    pub sensor_name: Option<String>,
    /// What it measures.
    pub quantity: String,
    /// Its unit, as UCUM.
    pub unit: Option<String>,
    /// How its values are to be read together.
    pub kind: Option<String>,
    /// How often it measures.
    pub interval: Option<Duration>,
    /// The newest observation.
    pub observation: Option<Observation>,
    /// The newest reading of any quality.
    pub heard: Option<Heard>,
}

/// Whether a sensor's number may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The newest observation is of now.
    Fresh,
    /// Nothing new came, and nothing says why.
    Late,
    /// The device did not answer.
    Silent,
    /// The device answers with values that fail quality control.
    Wrong,
    /// Nothing was ever measured.
    Waiting,
}

impl SensorNow {
    /// How old an observation may be to be shown.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.interval.map_or(PATIENCE_WITHOUT_INTERVAL, |interval| interval.saturating_mul(2).saturating_add(GRACE))
    }

    /// Whether the number may be shown at this moment.
    #[must_use]
    pub fn condition(&self, now_us: i64) -> Condition {
        let patience_us = i64::try_from(self.patience().as_micros()).unwrap_or(i64::MAX);
        let observed_us = self.observation.map(|observation| observation.time_us);
        if observed_us.is_some_and(|time_us| now_us.saturating_sub(time_us) <= patience_us) {
            return Condition::Fresh;
        }
        match &self.heard {
            Some(heard) if observed_us.is_none_or(|time_us| heard.time_us > time_us) => heard.condition(),
            _ if observed_us.is_none() => Condition::Waiting,
            _ => Condition::Late,
        }
    }

    /// The observation, if it may be shown as "now".
    #[must_use]
    pub fn fresh(&self, now_us: i64) -> Option<Observation> {
        self.observation.filter(|_| self.condition(now_us) == Condition::Fresh)
    }

    /// The newest moment that anything is known of, in microseconds since 1970 UTC.
    #[must_use]
    pub fn newest_us(&self) -> Option<i64> {
        let heard_us = self.heard.as_ref().map(|heard| heard.time_us);
        self.observation.map(|observation| observation.time_us).max(heard_us)
    }
}

impl Heard {
    fn condition(&self) -> Condition {
        if self.quality == i64::from(Quality::Missing.code()) { Condition::Silent } else { Condition::Wrong }
    }
}

/// How many whole seconds ago a moment was; never negative.
#[must_use]
pub fn age_s(now_us: i64, time_us: i64) -> i64 {
    (now_us.saturating_sub(time_us) / SECOND_US).max(0)
}

/// Reads the answer of the named query `latest`.
///
/// # Errors
/// [`ColumnError`] where the answer is not the one of that query.
pub(crate) fn read(answer: &Answer) -> Result<Vec<SensorNow>, ColumnError> {
    let mut sensors = Vec::with_capacity(answer.rows());
    for batch in &answer.batches {
        let text = |name| texts(batch, name);
        let (ids, sites, quantities) = (text("sensor")?, text("site")?, text("quantity")?);
        let (site_names, sensor_names) = (text("site_name")?, text("sensor_name")?);
        let (units, kinds, intervals) = (text("unit")?, text("kind")?, text("interval")?);
        let (times, values, qualities) =
            (times_us(batch, "time")?, crate::rows::floats(batch, "value")?, integers(batch, "quality")?);
        let (heard_times, heard_qualities, causes) =
            (times_us(batch, "heard_time")?, integers(batch, "heard_quality")?, text("heard_cause")?);
        for row in 0..batch.num_rows() {
            let Some(sensor) = text_at(&ids, row) else { continue };
            let end = |separator: fn(&str) -> Option<&str>| separator(&sensor).unwrap_or_default().to_owned();
            sensors.push(SensorNow {
                site: text_at(&sites, row).unwrap_or_else(|| end(|id| id.split('/').next())),
                quantity: text_at(&quantities, row).unwrap_or_else(|| end(|id| id.rsplit('/').next())),
                site_name: text_at(&site_names, row),
                sensor_name: text_at(&sensor_names, row),
                unit: text_at(&units, row),
                kind: text_at(&kinds, row),
                interval: text_at(&intervals, row).and_then(|text| parse_duration(&text).ok()),
                observation: (|| {
                    let (time_us, value) = (integer_at(&times, row)?, float_at(&values, row)?);
                    Some(Observation { time_us, value, quality: integer_at(&qualities, row)? })
                })(),
                heard: (|| {
                    let (time_us, quality) = (integer_at(&heard_times, row)?, integer_at(&heard_qualities, row)?);
                    Some(Heard { time_us, quality, cause: text_at(&causes, row) })
                })(),
                sensor,
            });
        }
    }
    Ok(sensors)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const NOW_US: i64 = 1_790_000_000 * SECOND_US;

    pub(crate) fn sensor(id: &str, interval: Option<&str>) -> SensorNow {
        SensorNow {
            sensor: id.to_owned(),
            site: id.split('/').next().unwrap().to_owned(),
            site_name: None,
            sensor_name: None,
            quantity: id.rsplit('/').next().unwrap().to_owned(),
            unit: Some("Cel".to_owned()),
            kind: Some("sample".to_owned()),
            interval: interval.map(|text| parse_duration(text).unwrap()),
            observation: None,
            heard: None,
        }
    }

    pub(crate) fn observed(age_s: i64, value: f64) -> Option<Observation> {
        Some(Observation { time_us: NOW_US - age_s * SECOND_US, value, quality: 1 })
    }

    fn heard(age_s: i64, quality: i64) -> Option<Heard> {
        Some(Heard { time_us: NOW_US - age_s * SECOND_US, quality, cause: None })
    }

    #[test]
    fn an_old_number_is_no_number() {
        let mut hourly = sensor("a/water_temperature", Some("1h"));
        assert_eq!(hourly.condition(NOW_US), Condition::Waiting);
        hourly.observation = observed(2 * 3600 + 90, 13.4);
        assert_eq!(hourly.condition(NOW_US), Condition::Fresh);
        hourly.observation = observed(2 * 3600 + 91, 13.4);
        assert_eq!(hourly.condition(NOW_US), Condition::Late);
        assert_eq!(hourly.fresh(NOW_US), None);

        let mut unknown = sensor("a/water_temperature", None);
        unknown.observation = observed(2 * 3600, 13.4);
        assert_eq!(unknown.condition(NOW_US), Condition::Fresh);
        unknown.observation = observed(2 * 3600 + 1, 13.4);
        assert_eq!(unknown.condition(NOW_US), Condition::Late);
    }

    #[test]
    fn the_newest_word_says_why_there_is_no_number() {
        let mut quick = sensor("a/water_temperature", Some("5s"));
        quick.heard = heard(1, 9);
        assert_eq!(quick.condition(NOW_US), Condition::Silent);
        quick.observation = observed(300, 13.4);
        assert_eq!(quick.condition(NOW_US), Condition::Silent);
        quick.heard = heard(1, 4);
        assert_eq!(quick.condition(NOW_US), Condition::Wrong);
        // Not yet judged, but outside of what the register finds plausible: no observation either.
        quick.heard = heard(1, 2);
        assert_eq!(quick.condition(NOW_US), Condition::Wrong);
        quick.heard = heard(300, 1);
        assert_eq!(quick.condition(NOW_US), Condition::Late);
        // One poll that failed is not the end of it.
        quick.observation = observed(10, 13.4);
        quick.heard = heard(5, 9);
        assert_eq!(quick.condition(NOW_US), Condition::Fresh);
    }
}
