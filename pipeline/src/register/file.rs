//! Reading the register's files: text in, rows or a list of everything that is wrong out.
//!
//! A header line is required; the order of columns is free, columns that need not be filled may be
//! left out, unknown ones are refused (a misspelt `hgih` would else be a range that is never
//! checked). A byte order mark is tolerated: spreadsheets write it. No I/O here.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use jiff::tz::TimeZone;

use crate::times::moment;

/// One thing that is wrong at one place of a register's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {}{message}; hint: {hint}", path.display(), column.as_ref().map(|name| format!("column `{name}`: ")).unwrap_or_default())]
pub struct RegisterProblem {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// The column's name, where it is about one.
    pub column: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: String,
}

/// A row, and the line it stands on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lined<T> {
    pub(crate) line: u64,
    pub(crate) row: T,
}

/// The columns that a file may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) required: &'static [&'static str],
    pub(crate) optional: &'static [&'static str],
}

impl Columns {
    fn all(&self) -> impl Iterator<Item = &'static str> {
        self.required.iter().chain(self.optional).copied()
    }

    fn list(&self) -> String {
        self.all().collect::<Vec<_>>().join(", ")
    }
}

/// Reads a file's text; `read_row` makes a row of the fields, or leaves problems.
pub(crate) fn read_rows<T>(
    path: &Path,
    text: &str,
    columns: Columns,
    mut read_row: impl FnMut(&mut Fields<'_>) -> Option<T>,
) -> Result<Vec<Lined<T>>, Vec<RegisterProblem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| vec![unreadable(path, &error)])?.clone();
    let places = places(path, &header, columns)?;
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for record in reader.into_records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                problems.push(unreadable(path, &error));
                break;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        let mut fields = Fields { path, line, record: &record, places: &places, problems: &mut problems };
        if record.len() != header.len() {
            let message = format!("{} fields, but the header has {}", record.len(), header.len());
            fields.problem(None, message, "put text that has a comma in it in quotes");
        } else if let Some(row) = read_row(&mut fields) {
            rows.push(Lined { line, row });
        }
    }
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

fn unreadable(path: &Path, error: &csv::Error) -> RegisterProblem {
    RegisterProblem {
        path: path.to_owned(),
        line: error.position().map_or(1, csv::Position::line),
        column: None,
        message: format!("not readable as CSV: {error}"),
        hint: "save it as CSV with commas, in UTF-8".to_owned(),
    }
}

/// Where each column stands; or what is wrong with the header.
fn places(
    path: &Path,
    header: &StringRecord,
    columns: Columns,
) -> Result<HashMap<&'static str, usize>, Vec<RegisterProblem>> {
    let wrong = |column: Option<&str>, message: String, hint: String| RegisterProblem {
        path: path.to_owned(),
        line: 1,
        column: column.map(str::to_owned),
        message,
        hint,
    };
    let mut found = HashMap::new();
    let mut problems = Vec::new();
    if header.len() == 1 && header[0].contains(';') {
        let hint = "separate columns by commas".to_owned();
        return Err(vec![wrong(None, "the header is separated by semicolons".to_owned(), hint)]);
    }
    for (place, name) in header.iter().enumerate() {
        match columns.all().find(|known| *known == name) {
            None => {
                let hint = format!("the columns are {}", columns.list());
                problems.push(wrong(Some(name), "not a column of this file".to_owned(), hint));
            }
            Some(known) => {
                if found.insert(known, place).is_some() {
                    problems.push(wrong(
                        Some(name),
                        "the column stands there twice".to_owned(),
                        "remove one".to_owned(),
                    ));
                }
            }
        }
    }
    for missing in columns.required.iter().filter(|name| !found.contains_key(**name)) {
        let hint = format!("the first line names the columns: {}", columns.list());
        problems.push(wrong(Some(missing), "the column is missing".to_owned(), hint));
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// The fields of one line, by their column's name; what is wrong with them is collected.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    path: &'a Path,
    line: u64,
    record: &'a StringRecord,
    places: &'a HashMap<&'static str, usize>,
    problems: &'a mut Vec<RegisterProblem>,
}

impl Fields<'_> {
    /// Notes a problem of this line.
    pub(crate) fn problem(&mut self, column: Option<&str>, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(RegisterProblem {
            path: self.path.to_owned(),
            line: self.line,
            column: column.map(str::to_owned),
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// The field's text, if it has one.
    pub(crate) fn text(&self, column: &str) -> Option<String> {
        let text = self.places.get(column).and_then(|place| self.record.get(*place))?;
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The field's text; a problem where it is empty.
    pub(crate) fn required(&mut self, column: &str, hint: &str) -> Option<String> {
        let text = self.text(column);
        if text.is_none() {
            self.problem(Some(column), "it is empty", hint);
        }
        text
    }

    /// The field read as something; a problem where it cannot be. `Some(None)` is an empty field,
    /// `None` a wrong one.
    pub(crate) fn parsed<T>(
        &mut self,
        column: &str,
        hint: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Some(text) = self.text(column) else { return Some(None) };
        match parse(&text) {
            Ok(value) => Some(Some(value)),
            Err(message) => {
                self.problem(Some(column), message, hint);
                None
            }
        }
    }

    /// A time from one column to another, in microseconds since 1970; the second may be empty.
    pub(crate) fn period(&mut self, from: &str, to: &str, zone: &TimeZone) -> Option<(i64, Option<i64>)> {
        const HINT: &str = "write a time like 2026-07-01T08:00 in the city's clock, or with its offset";
        self.required(from, HINT)?;
        let from_us = self.parsed(from, HINT, |text| moment(text, zone));
        let to_us = self.parsed(to, HINT, |text| moment(text, zone));
        let (from_us, to_us) = (from_us??, to_us?);
        if to_us.is_some_and(|to_us| to_us <= from_us) {
            self.problem(Some(to), format!("it is not after `{from}`"), "leave it empty while it goes on");
            return None;
        }
        Some((from_us, to_us))
    }

    /// A number within a range.
    #[expect(clippy::option_option, reason = "an empty field is fine, a wrong one is not")]
    pub(crate) fn number(&mut self, column: &str, low: f64, high: f64) -> Option<Option<f64>> {
        let hint = format!("write a number from {low} to {high} with a decimal point, like 59.74, or nothing");
        self.parsed(column, &hint, |text| match text.parse::<f64>() {
            Ok(number) if number.is_finite() && (low..=high).contains(&number) => Ok(number),
            Ok(_) => Err(format!("`{text}` is out of range")),
            Err(_) => Err(format!("`{text}` is not a number")),
        })
    }
}

/// A parser's error as text.
pub(crate) fn as_text<T, E: Display>(result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// Refuses a key that stands on two lines.
pub(crate) fn refuse_twice<T>(
    path: &Path,
    column: &str,
    rows: &[Lined<T>],
    key: impl Fn(&T) -> &str,
) -> Vec<RegisterProblem> {
    let mut first = BTreeMap::new();
    let mut problems = Vec::new();
    for row in rows {
        let before = *first.entry(key(&row.row)).or_insert(row.line);
        if before != row.line {
            problems.push(RegisterProblem {
                path: path.to_owned(),
                line: row.line,
                column: Some(column.to_owned()),
                message: format!("`{}` stands on line {before} already", key(&row.row)),
                hint: "one line each: remove one, or give it another name".to_owned(),
            });
        }
    }
    problems
}
