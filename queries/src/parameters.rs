//! What a named query takes: typed parameters, read from a header and from a request.
//!
//! A value is checked against its type and its bounds and becomes a value of the engine; text of a
//! request is never part of the SQL.

use datafusion::common::ScalarValue;
use jiff::Timestamp;
use serde::Serialize;
use tjern_readings::configuration::parse_duration;
use tjern_readings::sensor::{SensorId, is_part};

/// The longest text that a parameter takes, in bytes.
const TEXT_MAX: usize = 200;

/// What kind of value a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Any short text.
    Text,
    /// A whole number.
    Integer,
    /// A finite number.
    Float,
    /// A moment: RFC 3339 with a zone, `now`, or `now-7d`.
    Timestamp,
    /// A length of time: `10min`, `1h`.
    Duration,
    /// A sensor's id.
    Sensor,
    /// A place's id.
    Site,
    /// One part of a name, such as a quantity.
    Part,
}

impl Kind {
    const ALL: [(&str, Self); 8] = [
        ("text", Self::Text),
        ("integer", Self::Integer),
        ("float", Self::Float),
        ("timestamp", Self::Timestamp),
        ("duration", Self::Duration),
        ("sensor", Self::Sensor),
        ("site", Self::Site),
        ("part", Self::Part),
    ];
}

/// One parameter of a named query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parameter {
    /// Its name, in a request and after the `$` of a placeholder.
    pub name: String,
    /// What it takes.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What it is where a request does not say; a parameter without one is required.
    pub default: Option<String>,
    /// The least number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// What it means.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// What is wrong with a request's parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// The query takes no such parameter.
    #[error("there is no parameter `{name}`; hint: this query takes {known}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// It was given more than once.
    #[error("the parameter `{name}` is given twice; hint: give it once")]
    Twice {
        /// Its name.
        name: String,
    },
    /// It has no default and was not given.
    #[error("the parameter `{name}` is missing; hint: add `?{name}=…`")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The time asked for has too many windows.
    #[error("from `from` to `to` are more than {max} windows of `every`; hint: a larger `every`, or a later `from`")]
    Windows {
        /// How many are allowed.
        max: u64,
    },
    /// It is not of its type, or out of its bounds.
    #[error("`{name}` = `{text}`: {what}")]
    Wrong {
        /// Its name.
        name: String,
        /// What was given.
        text: String,
        /// What is wrong, and what would be right.
        what: String,
    },
}

impl Parameter {
    /// Reads what stands after `param:` in a header.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (text, description) = text.split_once('#').unwrap_or((text, ""));
        let mut words = text.split_whitespace();
        let name = words.next().ok_or("a parameter has a name")?;
        if !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')) {
            return Err(format!("`{name}` is not a parameter's name: a-z and _"));
        }
        let word = words.next().ok_or("a parameter has a type")?;
        let (_, kind) =
            Kind::ALL.into_iter().find(|(known, _)| *known == word).ok_or_else(|| format!("no type `{word}`"))?;
        let description = description.trim().to_owned();
        let mut parameter = Self { name: name.to_owned(), kind, default: None, min: None, max: None, description };
        while let Some(word) = words.next() {
            if word == "required" {
                continue;
            }
            let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
            let number = || value.parse::<f64>().map_err(|_| format!("`{value}` is not a number"));
            match word {
                "default" => parameter.default = Some(value.to_owned()),
                "min" => parameter.min = Some(number()?),
                "max" => parameter.max = Some(number()?),
                _ => return Err(format!("`{word}` is neither required, default, min nor max")),
            }
        }
        Ok(parameter)
    }

    /// The value to bind, of what a request gave.
    pub(crate) fn bind(&self, given: Option<&str>, now_us: i64) -> Result<ScalarValue, ParameterError> {
        let Some(text) = given.or(self.default.as_deref()) else {
            return Err(ParameterError::Missing { name: self.name.clone() });
        };
        self.value(text, now_us).map_err(|what| {
            let text = text.chars().take(TEXT_MAX).collect();
            ParameterError::Wrong { name: self.name.clone(), text, what }
        })
    }

    fn value(&self, text: &str, now_us: i64) -> Result<ScalarValue, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("longer than {TEXT_MAX} bytes"));
        }
        let owned = || ScalarValue::Utf8(Some(text.to_owned()));
        match self.kind {
            Kind::Text => Ok(owned()),
            Kind::Integer => self.integer(text),
            Kind::Float => self.float(text),
            Kind::Timestamp => {
                let time_us = parse_time(text, now_us)?;
                Ok(ScalarValue::TimestampMicrosecond(Some(time_us), Some("UTC".into())))
            }
            Kind::Duration => match parse_duration(text) {
                Ok(duration) if !duration.is_zero() => Ok(owned()),
                Ok(_) => Err("no time at all: a positive duration is needed".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            Kind::Sensor => text.parse::<SensorId>().map(|_| owned()).map_err(|error| error.to_string()),
            Kind::Site | Kind::Part if is_part(text) => Ok(owned()),
            Kind::Site | Kind::Part => Err("1 to 31 of a-z, 0-9, `_`, `-` are needed".to_owned()),
        }
    }

    fn integer(&self, text: &str) -> Result<ScalarValue, String> {
        let number: i64 = text.parse().map_err(|_| "not a whole number".to_owned())?;
        #[expect(clippy::cast_precision_loss, reason = "bounds are small numbers, written in a header")]
        self.within(number as f64)?;
        Ok(ScalarValue::Int64(Some(number)))
    }

    fn float(&self, text: &str) -> Result<ScalarValue, String> {
        let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or("not a number")?;
        self.within(number)?;
        Ok(ScalarValue::Float64(Some(number)))
    }

    fn within(&self, number: f64) -> Result<(), String> {
        match (self.min, self.max) {
            (Some(min), _) if number < min => Err(format!("less than {min}")),
            (_, Some(max)) if number > max => Err(format!("more than {max}")),
            _ => Ok(()),
        }
    }
}

/// A moment as a request writes it, in microseconds since 1970 UTC.
fn parse_time(text: &str, now_us: i64) -> Result<i64, String> {
    if text == "now" {
        return Ok(now_us);
    }
    if let Some(before) = text.strip_prefix("now-") {
        let before = parse_duration(before).map_err(|error| error.to_string())?;
        return Ok(now_us.saturating_sub(i64::try_from(before.as_micros()).unwrap_or(i64::MAX)));
    }
    // A `+` of an offset that was not encoded arrives as a space.
    let text = text.replace(' ', "+");
    let time: Timestamp =
        text.parse().map_err(|_| "not a moment: write 2026-07-01T12:00:00Z, `now`, or `now-7d`".to_owned())?;
    Ok(time.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parameter(text: &str) -> Parameter {
        Parameter::parse(text).expect("a good header")
    }

    #[test]
    fn moments_are_written_absolute_or_from_now() {
        let hour_us = 3_600_000_000;
        for (text, us) in [
            ("now", 10 * hour_us),
            ("now-1h", 9 * hour_us),
            ("1970-01-01T02:00:00Z", 2 * hour_us),
            ("1970-01-01T02:00:00+01:00", hour_us),
            ("1970-01-01T02:00:00 01:00", hour_us),
        ] {
            assert_eq!(parse_time(text, 10 * hour_us), Ok(us), "{text}");
        }
        for text in ["", "yesterday", "2026-07-01", "2026-07-01T12:00:00", "now-", "now-1m", "now+1h"] {
            assert!(parse_time(text, 0).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_keep_their_bounds() {
        let hours = parameter(" hours integer default 24 min 1 max 744 # how many");
        assert_eq!(hours.bind(None, 0), Ok(ScalarValue::Int64(Some(24))));
        assert_eq!(hours.bind(Some("744"), 0), Ok(ScalarValue::Int64(Some(744))));
        for text in ["0", "745", "1.5", "x", "", "1 OR 1=1"] {
            assert!(hours.bind(Some(text), 0).is_err(), "{text}");
        }
        assert!(parameter("x float").bind(Some("NaN"), 0).is_err());
        assert!(parameter("x float").bind(None, 0).is_err());
    }

    #[test]
    fn headers_that_say_nonsense_are_refused() {
        for text in ["", "x", "x colour", "X text", "x text default", "x integer min a", "x text perhaps 1"] {
            assert!(Parameter::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_a_value_or_an_error(text in "\\PC{0,300}", kind in 0_usize..Kind::ALL.len()) {
            let (word, _) = Kind::ALL[kind];
            let _ = parameter(&format!("x {word}")).bind(Some(&text), 1_790_000_000_000_000);
        }
    }
}
