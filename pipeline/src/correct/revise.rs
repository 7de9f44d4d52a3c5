//! `revise`: a person's word on readings, from a file: a value, a quality, or both, for `(sensor, time)`s that
//! are stored.
//!
//! The file's columns are `sensor`, `time`, `value`, `quality` and no others; one of the last two may be left out, or empty on a
//! line. Either the whole file is right or nothing is revised: everything that is wrong is told with its
//! line. The quality is 1, 3 or 4, and stays with the reading as one that came with it: ranges never improve it.
//! What is so already is not written again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde_json::json;
use sha2::{Digest, Sha256};
use tjern_lake::{Lake, Table};
use tjern_readings::configuration::nearest;
use tjern_readings::reading::Quality;
use tjern_readings::sensor::SensorId;

use super::moments::{Moment, Moments, Stored, Wanted};
use super::recompute::{is_same, with_value};
use super::write::Corrected;
use super::{Author, CorrectError, Prepare, Prepared, Record, correct, utc};
use crate::bounds::Bounds;
use crate::register::Said;
use crate::sheet::{self, Decimal, Layout, Sheet};
use crate::times::moment;

/// How the file is written.
#[derive(Debug, Clone)]
pub struct ReviseLayout {
    /// What stands between columns.
    pub separator: u8,
    /// What stands before decimals.
    pub decimal: Decimal,
    /// The clock of times without an offset.
    pub zone: TimeZone,
}

/// Something that is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {message}", path.display())]
pub struct ReviseProblem {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong.
    pub message: String,
}

/// Why nothing was revised.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReviseError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {what}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// These lines are wrong, and nothing was revised.
    #[error("{}\nnothing was revised", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<ReviseProblem>),
    /// The correction was not made.
    #[error(transparent)]
    Correct(#[from] CorrectError),
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReviseOutcome {
    /// How many readings were revised, or, of a dry run, would be.
    pub revised: usize,
    /// How many are so already.
    pub already: usize,
}

/// A line's word on a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Word {
    line: u64,
    value: Option<f64>,
    quality: Option<Quality>,
}

type Words = BTreeMap<(String, i64), Word>;

/// Revises what a file says.
///
/// # Errors
/// [`ReviseError`]; nothing was revised then.
pub async fn revise(
    lake: &Lake,
    path: &Path,
    layout: &ReviseLayout,
    author: &Author,
    dry_run: bool,
) -> Result<ReviseOutcome, ReviseError> {
    revise_within(lake, path, layout, author, dry_run, &Bounds::default()).await
}

/// The same within these bounds.
///
/// # Errors
/// [`ReviseError`]; nothing was revised then.
pub async fn revise_within(
    lake: &Lake,
    path: &Path,
    layout: &ReviseLayout,
    author: &Author,
    dry_run: bool,
    bounds: &Bounds,
) -> Result<ReviseOutcome, ReviseError> {
    let unreadable = |what: String| ReviseError::Unreadable { path: path.to_owned(), what };
    sheet::can_be_read_twice(path).map_err(|error| unreadable(error.to_string()))?;
    let bytes = tokio::fs::read(path).await.map_err(|error| unreadable(error.to_string()))?;
    let (words, mut problems) = read(path, layout)?;
    // A file with a wrong line revises nothing: its other lines are held against what is stored, so that all is told at once.
    let dry_run = dry_run || !problems.is_empty();
    let said = Said::load(lake).await.map_err(CorrectError::from)?;
    let outcome = ReviseOutcome::default();
    let mut revising = Revising { words: &words, said, dry_run, bounds, outcome, missing: Vec::new() };
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let times = || words.keys().map(|(_, time_us)| *time_us);
    let sensors: BTreeSet<&str> = words.keys().map(|(sensor, _)| sensor.as_str()).collect();
    let record = json!({
        "file": name, "sha256": sha256, "sensors": sensors, "from": times().min().map(utc),
        "to": times().max().map(|last| utc(last.saturating_add(1))),
    });
    let record = Record::new(lake, "revise", author, record);
    if dry_run {
        if let Some(table) = Table::open(lake, tjern_lake::TableName::Readings).await.map_err(CorrectError::from)? {
            revising.prepare(&table).await?;
        }
    } else {
        correct(lake, &record, &mut revising).await?;
    }
    let problem = |(line, message): (u64, String)| ReviseProblem { path: path.to_owned(), line, message };
    problems.extend(revising.missing.into_iter().map(problem));
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty() { Ok(revising.outcome) } else { Err(ReviseError::Wrong(problems)) }
}

/// What its lines say, and what is wrong with those that say nothing.
fn read(path: &Path, layout: &ReviseLayout) -> Result<(Words, Vec<ReviseProblem>), ReviseError> {
    let unreadable = |what: String| ReviseError::Unreadable { path: path.to_owned(), what };
    let (bytes, _) = sheet::open(path).map_err(|error| unreadable(error.to_string()))?;
    let written = Layout { separator: layout.separator, decimal: layout.decimal, ..Layout::default() };
    let mut sheet = Sheet::new(bytes, written).map_err(unreadable)?;
    let (sensor, time) = (sheet.place("sensor").map_err(unreadable)?, sheet.place("time").map_err(unreadable)?);
    // A `Quality` that is passed over would leave a reading in force that was to be withdrawn.
    if let Some(unknown) = sheet.header().iter().find(|name| !name.is_empty() && !COLUMNS.contains(&name.as_str())) {
        return Err(unreadable(unknown_column(unknown)));
    }
    let there = |name: &str| sheet.header().iter().any(|column| column == name);
    let [value, quality] = ["value", "quality"].map(|name| there(name).then(|| sheet.place(name)).transpose());
    let (value, quality) = (value.map_err(unreadable)?, quality.map_err(unreadable)?);
    if value.is_none() && quality.is_none() {
        return Err(unreadable(sheet.place("value").err().unwrap_or_default()));
    }
    let places = Places { sensor, time, value, quality };
    let mut words = Words::new();
    let mut problems = Vec::new();
    while let Some(line) = sheet.next().map_err(unreadable)? {
        let number = line.number;
        let read = line.fields.and_then(|fields| places.read(number, &fields, layout));
        let read = read.and_then(|(key, word)| match words.get(&key) {
            None => Ok((key, word)),
            Some(before) => Err(format!("`{}` has this time on line {} already", key.0, before.line)),
        });
        match read {
            Ok((key, word)) => _ = words.insert(key, word),
            Err(message) => problems.push(ReviseProblem { path: path.to_owned(), line: number, message }),
        }
    }
    Ok((words, problems))
}

/// The columns of a file.
const COLUMNS: [&str; 4] = ["sensor", "time", "value", "quality"];

fn unknown_column(name: &str) -> String {
    let hint = match nearest(name, COLUMNS.into_iter()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "take it out".to_owned(),
    };
    format!("it has a column `{name}`, and its columns can be `sensor`, `time`, `value` and `quality`; hint: {hint}")
}

struct Places {
    sensor: usize,
    time: usize,
    value: Option<usize>,
    quality: Option<usize>,
}

impl Places {
    fn read(&self, line: u64, fields: &[String], layout: &ReviseLayout) -> Result<((String, i64), Word), String> {
        let sensor: SensorId = fields[self.sensor].parse().map_err(|error| format!("{error}"))?;
        let time_us = moment(&fields[self.time], &layout.zone)?;
        let text = |place: Option<usize>| place.map(|place| fields[place].as_str()).filter(|text| !text.is_empty());
        let value = text(self.value).map(|text| sheet::number(text, layout.decimal)).transpose()?;
        let quality = text(self.quality).map(quality).transpose()?;
        if value.is_none() && quality.is_none() {
            return Err("it has neither a value nor a quality; hint: quality 4 withdraws a value".to_owned());
        }
        Ok(((sensor.to_string(), time_us), Word { line, value, quality }))
    }
}

fn quality(text: &str) -> Result<Quality, String> {
    let found = text.parse().ok().and_then(Quality::from_code);
    let found = found.filter(|quality| matches!(quality, Quality::Good | Quality::Suspect | Quality::Fail));
    found.ok_or_else(|| format!("`{text}` is no quality that a person gives: 1 (good), 3 (suspect) or 4 (fail)"))
}

struct Revising<'a> {
    words: &'a Words,
    said: Said,
    dry_run: bool,
    bounds: &'a Bounds,
    outcome: ReviseOutcome,
    /// What no reading is stored for.
    missing: Vec<(u64, String)>,
}

impl Prepare for Revising<'_> {
    async fn prepare(&mut self, table: &Table) -> Result<Prepared, CorrectError> {
        let (mut outcome, mut open) = (ReviseOutcome::default(), self.words.clone());
        let mut corrected = Corrected::new(table.lake(), &self.said, self.bounds);
        let mut missing = Vec::new();
        if let Some(wanted) = wanted(self.words) {
            let mut moments = Moments::open(table, &wanted, self.bounds).await?;
            while let Some(found) = moments.next().await? {
                let newest = found.newest();
                let Some(word) = open.remove(&(newest.sensor.clone(), newest.time_us)) else { continue };
                match word.revised(&found) {
                    Err(message) => missing.push((word.line, message)),
                    Ok(None) => outcome.already += 1,
                    Ok(Some(row)) => {
                        outcome.revised += 1;
                        if !self.dry_run {
                            corrected.add(newest, row).await?;
                        }
                    }
                }
            }
        }
        missing.extend(open.into_iter().map(|((sensor, time_us), word)| {
            let hint = "hint: a reading that nobody has sent is imported, under `manual:…`";
            (word.line, format!("`{sensor}` has no reading at {}; {hint}", utc(time_us)))
        }));
        missing.sort();
        let is_wrong = !missing.is_empty();
        (self.outcome, self.missing) = (outcome, missing);
        if is_wrong {
            // Nothing of what was gathered is written.
            return Ok(Prepared { files: Vec::new(), rows: 0 });
        }
        corrected.finish().await
    }
}

/// Everything from the first time to the last, of these sensors.
fn wanted(words: &Words) -> Option<Wanted<'_>> {
    let times = || words.keys().map(|(_, time_us)| *time_us);
    let (from_us, to_us) = (times().min()?, times().max()?.saturating_add(1));
    let mut sensors: Vec<&str> = words.keys().map(|(sensor, _)| sensor.as_str()).collect();
    sensors.dedup();
    Some(Wanted { sensors, from_us, to_us })
}

impl Word {
    /// The revised row; none where it is so already.
    fn revised(&self, moment: &Moment) -> Result<Option<Stored>, String> {
        let newest = moment.newest();
        let mut row = self.value.map_or_else(|| newest.clone(), |value| with_value(newest, value));
        if let Some(quality) = self.quality {
            if row.value.is_none() {
                return Err("the reading has no value, so it can have no quality; hint: give it a value".to_owned());
            }
            // As if it had come with this flag: every test is made anew.
            (row.quality, row.tests) = (quality.code(), None);
        }
        let same_flag = self.quality.is_none_or(|quality| came_with(newest) == Some(quality));
        Ok(if same_flag && is_same(newest, &row) { None } else { Some(row) })
    }
}

/// The flag that a person gave the newest row, as far as it can be told: where the one stands that a reading
/// came with, the second two bits of `tests`.
fn came_with(newest: &Stored) -> Option<Quality> {
    match newest.tests.filter(|_| newest.revision > 0)? >> 2 & 0b11 {
        1 => Some(Quality::Good),
        2 => Some(Quality::Suspect),
        3 => Some(Quality::Fail),
        _ => None,
    }
}
