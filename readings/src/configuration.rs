//! What every configuration file of Tjern shares: durations and sizes as people write them, and
//! errors that name file, line and column, show the text, and say what would be right.
//!
//! Files are TOML. Unknown keys are errors. Reading a file is the only I/O here. What it takes grows with the text and the number
//! of problems, not with both multiplied: a text's lines and secrets are found once, and a problem looks at the lines that it shows.

mod lines;
mod secrets;
mod shape;
mod strings;
mod units;

pub use secrets::without_secrets;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use lines::Lines;
use secrets::Secrets;
pub use shape::Shape;
pub use units::units;

/// A configuration's text, and the file it came from.
#[derive(Clone)]
pub struct ConfigText {
    path: PathBuf,
    text: String,
    /// Found where somebody first asks.
    lines: OnceLock<Lines>,
    secrets: OnceLock<Secrets>,
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

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Severity {
    /// Nothing can be started with it.
    #[default]
    Error,
    /// It works, but hardly as it was meant.
    Warning,
}

/// What is to be said about a place of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Remark {
    /// How bad it is.
    pub severity: Severity,
    /// Bytes from the start of the text.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// Other places that have to do with it, with a word on each.
    pub related: Vec<(Range<usize>, String)>,
}

/// One thing that is wrong at one place of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
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
    colored: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.rendered)
    }
}

impl Problem {
    /// The same as its `Display`, for a terminal that shows colours.
    #[must_use]
    pub fn colored(&self) -> &str {
        &self.colored
    }
}

impl ConfigError {
    /// The same as its `Display`, for a terminal that shows colours.
    #[must_use]
    pub fn colored(&self) -> String {
        match self {
            Self::Unreadable { .. } => self.to_string(),
            Self::Wrong(problems) => problems.iter().map(Problem::colored).collect::<Vec<_>>().join("\n"),
        }
    }
}

impl ConfigText {
    /// Reads a file of at most 16 MiB, or what comes out of a pipe.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`]; [`ConfigError::Wrong`] where the file is no UTF-8.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = read_bounded(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        String::from_utf8(bytes).map(|text| Self::new(path, text)).map_err(|error| {
            let place = error.utf8_error().valid_up_to();
            let readable = Self::new(path, String::from_utf8_lossy(error.as_bytes()));
            let hint = "save the file as UTF-8".to_owned();
            ConfigError::Wrong(vec![readable.problem(place..place + 1, "this is not UTF-8", Some(hint))])
        })
    }

    /// A text that came from elsewhere, under the name that errors shall show.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), lines: OnceLock::new(), secrets: OnceLock::new() }
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
        self.secrets().hidden_in(&self.text)
    }

    /// Where the first of what looks like a secret stands.
    #[must_use]
    pub fn first_secret(&self) -> Option<Range<usize>> {
        self.secrets().first()
    }

    fn secrets(&self) -> &Secrets {
        self.secrets.get_or_init(|| Secrets::of(&self.text))
    }

    fn lines(&self) -> &Lines {
        self.lines.get_or_init(|| Lines::of(&self.text))
    }

    /// Reads the text as TOML of the shape `T`.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`] with everything that does not fit.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let Shape { value, problems, .. } = self.shape();
        match value.filter(|_| problems.is_empty()) {
            Some(value) => Ok(value),
            None => Err(ConfigError::Wrong(problems)),
        }
    }

    /// A problem at a place of this text (bytes from the start).
    #[must_use]
    pub fn problem(&self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) -> Problem {
        self.problem_of(Remark { span, message: message.into(), hint, ..Remark::default() })
    }

    /// What a remark on a place of this text looks like.
    #[must_use]
    pub fn problem_of(&self, mut remark: Remark) -> Problem {
        remark.message = self.secrets().scrubbed(&remark.message, &self.text);
        remark.hint = remark.hint.map(|hint| self.secrets().scrubbed(&hint, &self.text));
        let start = self.text.floor_char_boundary(remark.span.start);
        let line = self.lines().number(start);
        Problem {
            severity: remark.severity,
            line,
            column: self.text[self.lines().start(line)..start].chars().count() + 1,
            rendered: self.render(&remark, &Renderer::plain()),
            colored: self.render(&remark, &Renderer::styled()),
            path: self.path.clone(),
            message: remark.message,
            hint: remark.hint,
        }
    }

    /// Whole tables make poor underlines: what is shown ends with the line it starts on.
    fn first_line_of(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(span.start);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |length| start + length);
        start..self.text.floor_char_boundary(span.end).clamp(start, line_end)
    }

    /// The lines that a remark shows, with those between them, and the number of the first.
    fn shown_of(&self, remark: &Remark) -> (Range<usize>, usize) {
        let places = std::iter::once(&remark.span).chain(remark.related.iter().map(|(span, _)| span));
        let numbers = places.map(|span| self.lines().number(self.text.floor_char_boundary(span.start)));
        let (first, last) = numbers.fold((usize::MAX, 1), |(first, last), line| (first.min(line), last.max(line)));
        // Behind the last newline nothing is to be shown.
        let first = if self.lines().start(first) == self.text.len() { first.saturating_sub(1).max(1) } else { first };
        (self.lines().start(first)..self.lines().end(last), first)
    }

    fn render(&self, remark: &Remark, renderer: &Renderer) -> String {
        let path = self.path.display().to_string();
        let (part, first) = self.shown_of(remark);
        let within = |span: &Range<usize>| {
            let Range { start, end } = self.first_line_of(span);
            start - part.start..end - part.start
        };
        let place = AnnotationKind::Primary.span(within(&remark.span));
        let related =
            remark.related.iter().map(|(span, label)| AnnotationKind::Context.span(within(span)).label(label.as_str()));
        let shown = self.secrets().painted_over(&self.text, part.clone());
        let snippet = Snippet::source(&shown).line_start(first).path(&path).annotation(place).annotations(related);
        let level = match remark.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let group = level.primary_title(remark.message.as_str()).element(snippet);
        match &remark.hint {
            Some(hint) => renderer.render(&[group.element(Level::HELP.with_name("hint").message(hint.as_str()))]),
            None => renderer.render(&[group]),
        }
    }
}

/// No configuration is as long; what is longer was named by mistake.
const BYTES_MAX: u64 = 16 << 20;

/// A device like `/dev/zero` never ends.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other("it has more than 16 MiB; hint: name a TOML file"));
    }
    Ok(bytes)
}

/// Which of the words that are known a wrong one was meant to be, if that can be guessed.
#[must_use]
pub fn nearest<'known>(wrong: &str, known: impl Iterator<Item = &'known str>) -> Option<&'known str> {
    let nearest = known.max_by(|one, other| likeness(wrong, one).total_cmp(&likeness(wrong, other)));
    let is_a_slip = |nearest: &&str| wrong.len() >= 3 && strsim::damerau_levenshtein(wrong, nearest) == 1;
    nearest.filter(|nearest| likeness(wrong, nearest) > LIKE_ENOUGH || is_a_slip(nearest))
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
        return Some(match nearest(wrong, words) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "take it out, or write one of those that are expected".to_owned(),
        });
    }
    if is_out_of_range(message) {
        return Some("write a smaller one: docs/configuration.md says what each key takes".to_owned());
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

/// Whether a whole number is one, and too large for any key (or below what a key takes).
fn is_out_of_range(message: &str) -> bool {
    let is_whole = message.contains("integer `");
    is_whole
        && (message.contains("` as i128") || message.starts_with("invalid value") && message.contains("expected i"))
}

/// Below this a guess would be a riddle.
const LIKE_ENOUGH: f64 = 0.7;

/// 1 for the same word, less for each letter that is missing, too many, another one or in another place,
/// as a share of the longer word; words that begin alike are liker.
fn likeness(one: &str, other: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(one, other).max(strsim::jaro_winkler(one, other))
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
    /// A duration that is too long to be counted in microseconds.
    #[error("`{0}` is too long: at most 146000 years (53000000d) can be counted")]
    TooLong(String),
    /// A size that is too large to be counted in bytes.
    #[error("`{0}` is too large: at most 16777215TiB can be counted")]
    TooLarge(String),
}

/// Reads a duration, zero included: `ms`, `s`, `min`, `h`, `d`.
///
/// # Errors
/// [`QuantityError::TooLong`] where it is too long to count in microseconds, [`QuantityError::Duration`] for anything else.
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
    let total_ms = number.and_then(|number| number.checked_mul(unit_ms)).filter(|ms| *ms <= u64::MAX / 4_000);
    total_ms.map(Duration::from_millis).ok_or_else(|| QuantityError::TooLong(text.to_owned()))
}

/// Reads a size in bytes.
///
/// # Errors
/// [`QuantityError::TooLarge`] where it is too large to count, [`QuantityError::Size`] for anything else.
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
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(|| QuantityError::TooLarge(text.to_owned()))
}

/// The number, `None` where it is too large for any, and the unit.
fn split_number(text: &str) -> Option<(Option<u64>, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (digits > 0).then(|| (number.parse().ok(), unit.trim_start()))
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
mod tests;
