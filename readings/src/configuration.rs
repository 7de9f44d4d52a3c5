//! What every configuration file of Tjern shares: durations and sizes as people write them, and
//! errors that name file, line and column, show the text, and say what would be right.
//!
//! Files are TOML. Unknown keys are errors. Reading a file is the only I/O here.

mod secrets;

pub use secrets::without_secrets;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A configuration's text, and the file it came from.
#[derive(Clone)]
pub struct ConfigText {
    path: PathBuf,
    text: String,
}

impl fmt::Debug for ConfigText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.without_secrets();
        formatter.debug_struct("ConfigText").field("path", &self.path).field("text", &text).finish()
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration `{path}`: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file was read, and these things are wrong with it.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Problem>),
}

/// One thing that is wrong at one place of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    rendered: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.rendered)
    }
}

impl ConfigText {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`]; [`ConfigError::Wrong`] where the file is no UTF-8.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        String::from_utf8(bytes).map(|text| Self { path: path.to_owned(), text }).map_err(|error| {
            let place = error.utf8_error().valid_up_to();
            let readable = Self::new(path, String::from_utf8_lossy(error.as_bytes()));
            let hint = "save the file as UTF-8".to_owned();
            ConfigError::Wrong(vec![readable.problem(place..place + 1, "this is not UTF-8", Some(hint))])
        })
    }

    /// A text that came from elsewhere, under the name that errors shall show.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text without what looks like a secret in it.
    #[must_use]
    pub fn without_secrets(&self) -> String {
        without_secrets(&self.text)
    }

    /// Reads the text as TOML of the shape `T`.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`] with the place of the first thing that does not fit.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let message = error.message().trim().to_owned();
            let hint = suggestion(&message);
            ConfigError::Wrong(vec![self.problem(span, message, hint)])
        })
    }

    /// A problem at a place of this text (bytes from the start).
    #[must_use]
    pub fn problem(&self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) -> Problem {
        let message = secrets::scrubbed(&message.into(), &self.text);
        let hint = hint.map(|hint| secrets::scrubbed(&hint, &self.text));
        let start = self.text.floor_char_boundary(span.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Problem {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            rendered: self.render(self.first_line_of(start..span.end), &message, hint.as_deref()),
            path: self.path.clone(),
            message,
            hint,
        }
    }

    /// Whole tables make poor underlines: what is shown ends with the line it starts on.
    fn first_line_of(&self, span: Range<usize>) -> Range<usize> {
        let line_end = self.text[span.start..].find('\n').map_or(self.text.len(), |length| span.start + length);
        span.start..self.text.floor_char_boundary(span.end).clamp(span.start, line_end)
    }

    fn render(&self, span: Range<usize>, message: &str, hint: Option<&str>) -> String {
        let path = self.path.display().to_string();
        let shown = secrets::painted_over(&self.text);
        let snippet = Snippet::source(&shown).path(&path).annotation(AnnotationKind::Primary.span(span));
        let group = Level::ERROR.primary_title(message).element(snippet);
        match hint {
            Some(hint) => Renderer::plain().render(&[group.element(Level::HELP.with_name("hint").message(hint))]),
            None => Renderer::plain().render(&[group]),
        }
    }
}

/// What would be right, where the reader's own words do not say it already.
fn suggestion(message: &str) -> Option<String> {
    let mut words = message.split('`').skip(1).step_by(2);
    let said = |part: &str| message.contains(part);
    if said("missing field") {
        return words.next().map(|key| format!("add `{key} = …`: docs/configuration.md has every key with an example"));
    }
    if said("unknown field") || said("unknown variant") {
        let wrong = words.next()?;
        let nearest = words.max_by(|one, other| likeness(wrong, one).total_cmp(&likeness(wrong, other)));
        return Some(match nearest.filter(|nearest| likeness(wrong, nearest) > 0.7) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "take it out, or write one of those that are expected".to_owned(),
        });
    }
    let right = [
        ("expected a sequence", "write the section's heading with two brackets, like `[[bus]]`"),
        ("expected a string", "write it in double quotes"),
        ("expected a boolean", "write `true` or `false`, without quotes"),
        ("expected f", "write a number, without quotes"),
        ("expected i", "write a whole number, without quotes"),
        ("expected u", "write a whole number, without quotes"),
        ("expected struct", "write it as a section, like `[spool]`"),
        ("duplicate key", "name each key once"),
    ];
    if let Some((_, right)) = right
        .into_iter()
        .find(|(part, _)| said("invalid ") && said(part) || said("duplicate key") && *part == "duplicate key")
    {
        return Some(right.to_owned());
    }
    let syntax =
        ["key with no value", "extra `", "invalid key", "unclosed", "expected newline", "string values must be quoted"];
    syntax
        .iter()
        .any(|part| said(part))
        .then(|| "a line is `key = value`, with texts in double quotes; a heading `[section]`".to_owned())
}

fn likeness(one: &str, other: &str) -> f64 {
    strsim::jaro_winkler(one, other)
}

/// What is wrong with a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a whole number and a unit.
    #[error("`{0}` is not a duration: write a whole number and `ms`, `s`, `min`, `h` or `d`, like \"500ms\" or \"1h\"")]
    Duration(String),
    /// Zero, where something has to pass.
    #[error("`{0}` is no time at all: a positive duration is needed")]
    Zero(String),
    /// Not a whole number and a unit.
    #[error(
        "`{0}` is not a size: write a whole number and `B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB` or `TiB`, like \"1GiB\""
    )]
    Size(String),
}

/// Reads a duration, zero included: `ms`, `s`, `min`, `h`, `d`.
///
/// # Errors
/// [`QuantityError::Duration`] for anything else, also where it is too long to count in microseconds.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let refused = || QuantityError::Duration(text.to_owned());
    let (number, unit) = split_number(text).ok_or_else(refused)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    let total_ms = number.checked_mul(unit_ms).filter(|ms| *ms <= u64::MAX / 4_000).ok_or_else(refused)?;
    Ok(Duration::from_millis(total_ms))
}

/// Reads a size in bytes.
///
/// # Errors
/// [`QuantityError::Size`] for anything else.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let refused = || QuantityError::Size(text.to_owned());
    let (number, unit) = split_number(text).ok_or_else(refused)?;
    let unit: u64 = match unit {
        "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(refused()),
    };
    number.checked_mul(unit).ok_or_else(refused)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A duration of a configuration; zero is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

/// A positive duration of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(Duration);

/// A size in bytes of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Period {
    /// The duration, which is not zero.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// The duration in microseconds.
    #[must_use]
    pub fn micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }

    /// A period of whole seconds, for defaults in code.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        assert!(seconds > 0, "a period is positive");
        Self(Duration::from_secs(seconds))
    }

    /// A period of whole milliseconds, for defaults in code.
    ///
    /// # Panics
    /// If it is zero.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        assert!(milliseconds > 0, "a period is positive");
        Self(Duration::from_millis(milliseconds))
    }
}

impl std::str::FromStr for Period {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match parse_duration(text)? {
            Duration::ZERO => Err(QuantityError::Zero(text.to_owned())),
            duration => Ok(Self(duration)),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_size(&String::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        #[expect(dead_code, reason = "only its reading is tested")]
        address: String,
        #[expect(dead_code, reason = "only its reading is tested")]
        every: Period,
    }

    fn problem(text: &str) -> Problem {
        match ConfigText::new("city.toml", text).parse::<Small>() {
            Err(ConfigError::Wrong(mut problems)) => problems.remove(0),
            other => panic!("expected a problem, got {other:?}"),
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in
            [("500ms", 500), ("5s", 5_000), ("1min", 60_000), ("1 h", 3_600_000), ("7d", 604_800_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "1.5h", "5m", "5sec", "99999999999999999999s", "99999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!("0s".parse::<Period>().is_err());
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("64kB"), Ok(64_000));
        assert!(parse_size("1G").is_err());
        assert!(parse_size("99999999999TiB").is_err());
    }

    #[test]
    fn an_error_names_file_line_column_and_what_would_be_right() {
        let problem = problem("address = \"x\"\n  evry = \"1h\"\n");
        assert_eq!((problem.line, problem.column), (2, 3));
        assert_eq!(problem.hint.as_deref(), Some("did you mean `every`?"));
        let shown = problem.to_string();
        for part in ["city.toml:2:3", "unknown field `evry`", "evry = \"1h\"", "^^^^", "hint: did you mean `every`?"] {
            assert!(shown.contains(part), "no {part:?} in:\n{shown}");
        }
    }

    /// serde's own words are for programmers; a technician needs to know what to write.
    #[test]
    fn what_would_be_right_is_said() {
        for (text, hint) in [
            ("every = \"1h\"\n", "add `address = …`"),
            ("address = 5\nevery = \"1h\"\n", "write it in double quotes"),
            ("address = \"x\"\nevery = \"1h\"\nfoo = 1\n", "take it out, or write one of those that are expected"),
            ("hello world\n", "a line is `key = value`"),
            ("address = \"x\"\naddress = \"y\"\n", "name each key once"),
        ] {
            let problem = problem(text);
            let said = problem.hint.clone().unwrap_or_default();
            assert!(said.starts_with(hint), "{text:?}: {problem}");
        }
    }

    #[test]
    fn a_file_in_another_encoding_is_told_with_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("city.toml");
        std::fs::write(&path, b"version = 1\nname = \"\xe5\"\n").expect("written");
        match ConfigText::read(&path) {
            Err(ConfigError::Wrong(problems)) => assert_eq!((problems[0].line, problems[0].column), (2, 9)),
            other => panic!("expected a problem, got {other:?}"),
        }
    }

    #[test]
    fn a_wrong_duration_is_underlined() {
        let problem = problem("address = \"æøå\"\nevery = \"1 hour\"\n");
        assert_eq!((problem.line, problem.column), (2, 9));
        assert!(problem.to_string().contains("is not a duration"), "{problem}");
    }
}
