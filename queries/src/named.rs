//! Named queries: SQL files of this crate with a header that says what they take.
//!
//! ```sql
//! -- What the query answers.
//! -- param: sensor sensor required # like landfalltjern/water_temperature
//! -- param: limit integer default 100 min 1 max 1000 # so many
//! SELECT … WHERE sensor = $sensor LIMIT $limit
//! ```
//!
//! What several of them share stands once, in `sql/shared/`: `/* windows of: sensor = $sensor */` stands for its text, of these readings.
//!
//! Pages and the public listener use these and nothing else, so what they can cost and show is known
//! when the program is built. Values are bound to placeholders as values, never pasted into the text.

use std::collections::HashMap;
use std::sync::LazyLock;

use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::{ParamValues, ScalarValue};
use tjern_readings::configuration::parse_duration;

use crate::limits;
use crate::parameters::{Parameter, ParameterError};

macro_rules! queries {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../sql/", $name, ".sql")))),+]
    };
}

const FILES: &[(&str, &str)] = queries!["curves", "latest", "observations", "place", "sensors", "sites", "windows"];

/// What comes before and after whose windows are meant.
const WINDOWS_OF: (&str, &str) = ("/* windows of: ", " */");

/// Windows of the readings of `{whose}`.
const WINDOWS: &str = include_str!("../sql/shared/windows.sql");

static QUERIES: LazyLock<Vec<NamedQuery>> = LazyLock::new(|| {
    let read = |(name, text): &(&'static str, &'static str)| match NamedQuery::parse(name, text) {
        Ok(query) => query,
        Err(error) => unreachable!("a test reads every file that is built in: {error}"),
    };
    FILES.iter().map(read).collect()
});

/// A query with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedQuery {
    /// Its name, which is its file's.
    pub name: String,
    /// What it answers.
    pub description: String,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// The file's text with what it shares with others: comments are SQL's own, so the header may stay.
    pub sql: String,
}

/// What is wrong with a query's header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("query `{name}`, line {line}: {what}")]
pub struct HeaderError {
    /// Which query.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Every named query, by name.
#[must_use]
pub fn all() -> &'static [NamedQuery] {
    &QUERIES
}

/// The query with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static NamedQuery> {
    all().iter().find(|query| query.name == name)
}

impl NamedQuery {
    /// Reads a file.
    ///
    /// # Errors
    /// [`HeaderError`] where the header is not as the module's page draws it.
    pub fn parse(name: &str, text: &str) -> Result<Self, HeaderError> {
        let (name_text, description, parameters) = (name.to_owned(), String::new(), Vec::new());
        let mut query = Self { name: name_text, description, parameters, sql: with_windows(text) };
        let header = text.lines().map_while(|line| line.trim_start().strip_prefix("--"));
        for (index, line) in header.enumerate() {
            let wrong = |what: String| HeaderError { name: name.to_owned(), line: index + 1, what };
            match line.trim().strip_prefix("param:") {
                Some(parameter) => query.add(Parameter::parse(parameter).map_err(wrong)?).map_err(wrong)?,
                None if query.parameters.is_empty() => query.describe(line.trim()),
                None => return Err(wrong("a description after the parameters".to_owned())),
            }
        }
        let missing = |what: &str| HeaderError { name: name.to_owned(), line: 1, what: what.to_owned() };
        if query.description.is_empty() {
            return Err(missing("the first line must say what the query answers"));
        }
        Ok(query)
    }

    fn describe(&mut self, line: &str) {
        if !self.description.is_empty() {
            self.description.push(' ');
        }
        self.description.push_str(line);
    }

    fn add(&mut self, parameter: Parameter) -> Result<(), String> {
        if self.parameters.iter().any(|other| other.name == parameter.name) {
            return Err(format!("the parameter `{}` stands twice", parameter.name));
        }
        self.parameters.push(parameter);
        Ok(())
    }

    /// Binds what was asked for, and the defaults for the rest.
    ///
    /// # Errors
    /// [`ParameterError`] for a parameter that is unknown, given twice, missing or not of its type.
    pub fn bind(&self, given: &[(String, String)], now_us: i64) -> Result<ParamValues, ParameterError> {
        let mut texts = HashMap::new();
        for (name, text) in given {
            if !self.parameters.iter().any(|parameter| parameter.name == *name) {
                return Err(self.unknown(name));
            }
            if texts.insert(name.as_str(), text.as_str()).is_some() {
                return Err(ParameterError::Twice { name: name.clone() });
            }
        }
        let bind = |parameter: &Parameter| {
            let value = parameter.bind(texts.get(parameter.name.as_str()).copied(), now_us)?;
            Ok((parameter.name.clone(), ScalarAndMetadata::from(value)))
        };
        let values: HashMap<_, _> = self.parameters.iter().map(bind).collect::<Result<_, _>>()?;
        if windows(&values).is_some_and(|windows| windows > u128::from(limits::WINDOWS_MAX)) {
            return Err(ParameterError::Windows { max: limits::WINDOWS_MAX });
        }
        Ok(ParamValues::Map(values))
    }

    fn unknown(&self, name: &str) -> ParameterError {
        let known = self.parameters.iter().map(|parameter| parameter.name.as_str()).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "none".to_owned() } else { known };
        ParameterError::Unknown { name: name.to_owned(), known }
    }
}

/// How many windows a query is asked for, where it is one of windows: each may become a row of the
/// answer, whatever little there is to put into it.
fn windows(values: &HashMap<String, ScalarAndMetadata>) -> Option<u128> {
    let time_us = |name: &str| match values.get(name)?.value() {
        ScalarValue::TimestampMicrosecond(time_us, _) => *time_us,
        _ => None,
    };
    let ScalarValue::Utf8(Some(every)) = values.get("every")?.value() else { return None };
    let every_us = parse_duration(every).ok()?.as_micros();
    let length_us = i128::from(time_us("to")?) - i128::from(time_us("from")?);
    Some(u128::try_from(length_us).unwrap_or(0).div_ceil(every_us.max(1)))
}

/// The text with the windows that it names in place of their name.
fn with_windows(text: &str) -> String {
    let (before, after) = WINDOWS_OF;
    let parts = text.split_once(before).and_then(|(head, rest)| Some((head, rest.split_once(after)?)));
    let Some((head, (whose, tail))) = parts else { return text.to_owned() };
    format!("{head}{}{tail}", WINDOWS.replace("{whose}", whose))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Kind;

    #[test]
    fn every_file_is_read_and_names_its_own_parameters() {
        for (name, text) in FILES {
            let query = NamedQuery::parse(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert!(!query.sql.contains(WINDOWS_OF.0), "{name}: whose windows are meant is not said to the end");
            let body: String =
                query.sql.lines().filter(|line| !line.starts_with("--")).flat_map(|line| [line, "\n"]).collect();
            for parameter in &query.parameters {
                assert!(body.contains(&format!("${}", parameter.name)), "{name}: ${} is not used", parameter.name);
            }
            for word in body.split('$').skip(1) {
                let word: String =
                    word.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                assert!(query.parameters.iter().any(|parameter| parameter.name == word), "{name}: ${word} is unknown");
            }
        }
    }

    #[test]
    fn a_header_says_what_a_query_takes() {
        let text = "-- How warm\n-- it is.\n-- param: sensor sensor required # which\n\
                    -- param: limit integer default 3 min 1 max 9\nSELECT 1 -- param: no\n";
        let query = NamedQuery::parse("warm", text).expect("a good header");
        assert_eq!(query.description, "How warm it is.");
        assert_eq!(query.parameters.len(), 2);
        assert_eq!((query.parameters[0].name.as_str(), query.parameters[0].kind), ("sensor", Kind::Sensor));
    }

    #[test]
    fn a_wrong_header_is_refused_with_its_line() {
        for (text, line, part) in [
            ("SELECT 1", 1, "must say"),
            ("-- x\n-- param: a colour\nSELECT 1", 2, "colour"),
            ("-- x\n-- param: a text\n-- param: a text\nSELECT 1", 3, "twice"),
            ("-- x\n-- param: a text\n-- more\nSELECT 1", 3, "after"),
        ] {
            let error = NamedQuery::parse("wrong", text).expect_err(text);
            assert_eq!(error.line, line, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    /// A microsecond's windows over a century would be one row each.
    #[test]
    fn windows_without_number_are_refused() {
        let day_us = 86_400_000_000;
        for (name, first) in [("windows", ("sensor", "a/b")), ("place", ("site", "a")), ("curves", ("quantity", "q"))] {
            let query = find(name).expect("there is one");
            let bind = |every: &str, from: &str| {
                let given = [first, ("every", every), ("from", from)];
                query.bind(&given.map(|(name, text)| (name.to_owned(), text.to_owned())), 20_000 * day_us)
            };
            assert!(bind("1d", "now-10000d").is_ok(), "{name}");
            assert!(bind("1d", "2100-01-01T00:00:00Z").is_ok(), "{name}: nothing, which is not much");
            for (every, from) in [("1d", "now-10001d"), ("1s", "now-1d"), ("1ms", "0001-01-01T00:00:00Z")] {
                let error = bind(every, from).expect_err(every);
                assert_eq!(error, ParameterError::Windows { max: 10_000 }, "{name} {every} {from}");
            }
        }
    }

    #[test]
    fn only_what_a_query_takes_may_be_given_and_only_once() {
        let query = find("observations").expect("there is one");
        let given = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        assert!(query.bind(&given(&[("sensor", "a/b")]), 0).is_ok());
        for (pairs, part) in [
            (vec![], "`sensor` is missing"),
            (vec![("sensor", "a/b"), ("sensor", "a/c")], "twice"),
            (vec![("sensor", "a/b"), ("colour", "red")], "sensor, from, to, limit"),
            (vec![("sensor", "a/b' OR 1=1 --")], "not a valid part"),
        ] {
            let error = query.bind(&given(&pairs), 0).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
