//! What the check of a configuration keeps: the problems so far, the names taken, and through which
//! device a profile is seen.
//!
//! A profile is checked for each device that uses it, since what is right for one need not be for the
//! next; what is wrong with the profile itself is told once, at its own place, with the first of them.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tjern_readings::configuration::{
    ConfigError, ConfigText, Period, Problem, Remark, Severity, nearest, parse_duration,
};
use tjern_readings::sensor::SensorId;
use toml::Spanned;

use super::PointTerms;
use super::file::ProfileFile;

/// Among so many terms it is looked whether a point has the same.
const TERMS_MAX: usize = 256;

/// The longest name of a bus or a device: it stands in lines of the log.
const NAME_MAX: usize = 64;

/// What is found so far.
pub(super) struct Checker<'text> {
    text: &'text ConfigText,
    /// What the file's shape had against it.
    problems: Vec<Problem>,
    complete: bool,
    drafts: Vec<Draft>,
    /// Which draft says what of which place.
    told: HashMap<(usize, String), usize>,
    sensors: HashMap<SensorId, Named>,
    profiles: Vec<(&'text ProfileFile, bool)>,
    through: Option<Through>,
    /// The terms of points, the latest last.
    terms: VecDeque<Arc<PointTerms>>,
}

/// A remark that may turn out to hold for more than one device or sensor.
struct Draft {
    remark: Remark,
    /// How many others of what have the same.
    others: usize,
    what: &'static str,
}

/// Where a sensor is named: in its own place, and by which device.
#[derive(Clone)]
struct Named {
    own: Range<usize>,
    by: Range<usize>,
}

/// The device through which a profile is looked at.
pub(super) struct Through {
    pub(super) device: String,
    /// Where it names the profile.
    pub(super) named: Range<usize>,
    /// What its sensors' ids begin with, and where that stands.
    pub(super) place: String,
    pub(super) place_span: Range<usize>,
}

impl<'text> Checker<'text> {
    pub(super) fn new(
        text: &'text ConfigText,
        problems: Vec<Problem>,
        complete: bool,
        profiles: &'text [ProfileFile],
    ) -> Self {
        Self {
            text,
            problems,
            complete,
            drafts: Vec::new(),
            told: HashMap::new(),
            sensors: HashMap::new(),
            profiles: profiles.iter().map(|profile| (profile, false)).collect(),
            through: None,
            terms: VecDeque::new(),
        }
    }

    /// These terms, as another point has them, where one of the latest does.
    pub(super) fn shared(&mut self, terms: PointTerms) -> Arc<PointTerms> {
        if let Some(same) = self.terms.iter().rev().find(|known| ***known == terms) {
            return Arc::clone(same);
        }
        if self.terms.len() == TERMS_MAX {
            self.terms.pop_front();
        }
        let terms = Arc::new(terms);
        self.terms.push_back(Arc::clone(&terms));
        terms
    }

    /// Whether all that the file has could be read. Otherwise nothing is missing for certain.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The warnings, where there are no errors; otherwise all of it, errors first.
    pub(super) fn finish(self) -> Result<Vec<Problem>, ConfigError> {
        let (text, mut problems) = (self.text, self.problems);
        problems.extend(self.drafts.into_iter().map(|draft| text.problem_of(draft.into_remark())));
        problems.sort_by_key(|problem| (problem.severity, problem.line, problem.column));
        if problems.iter().all(|problem| problem.severity == Severity::Warning) {
            return Ok(problems);
        }
        Err(ConfigError::Wrong(problems))
    }

    pub(super) fn note(&mut self, span: Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.note_with(span, message, hint, Vec::new());
    }

    /// The same with other places that have to do with it.
    pub(super) fn note_with(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
        related: Vec<(Range<usize>, String)>,
    ) {
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self.draft(Remark { severity: Severity::Error, span, message: message.into(), hint, related });
    }

    /// What works, but hardly as it was meant.
    pub(super) fn warn(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
        related: Vec<(Range<usize>, String)>,
    ) {
        let hint = Some(hint.into());
        self.draft(Remark { severity: Severity::Warning, span, message: message.into(), hint, related });
    }

    fn draft(&mut self, mut remark: Remark) {
        let key = (remark.span.start, remark.message.clone());
        if let Some(place) = self.told.get(&key) {
            self.drafts[*place].others += 1;
            return;
        }
        if let Some(through) = &self.through {
            remark.related.push((through.named.clone(), format!("device `{}` uses it", through.device)));
        }
        self.told.insert(key, self.drafts.len());
        self.drafts.push(Draft { remark, others: 0, what: "device" });
    }

    /// A profile by its name, if there is one.
    pub(super) fn profile(&self, name: &Spanned<String>) -> Option<&'text ProfileFile> {
        let mut profiles = self.profiles.iter().map(|(profile, _)| *profile);
        profiles.find(|profile| profile.name.get_ref() == name.get_ref())
    }

    /// The same for a device that uses it: that there is none is a problem.
    pub(super) fn use_profile(&mut self, name: &Spanned<String>) -> Option<&'text ProfileFile> {
        if let Some((profile, used)) =
            self.profiles.iter_mut().find(|(profile, _)| profile.name.get_ref() == name.get_ref())
        {
            *used = true;
            return Some(*profile);
        }
        if self.complete {
            let known: Vec<&str> = self.profiles.iter().map(|(profile, _)| profile.name.get_ref().as_str()).collect();
            let hint = match known.is_empty() {
                true => "the file has none: write a `[[profile]]` of this name".to_owned(),
                false => one_of(name.get_ref(), &known),
            };
            self.note(name.span(), format!("there is no profile `{}`", name.get_ref()), hint);
        }
        None
    }

    pub(super) fn look_through(&mut self, through: Option<Through>) {
        self.through = through;
    }

    /// Not where there are errors: the device that uses a profile may be one that could not be read.
    pub(super) fn warn_of_unused_profiles(&mut self) {
        let is_error = |draft: &Draft| draft.remark.severity == Severity::Error;
        if !self.problems.is_empty() || self.drafts.iter().any(is_error) {
            return;
        }
        let unused: Vec<Range<usize>> =
            self.profiles.iter().filter(|(_, used)| !used).map(|(profile, _)| profile.name.span()).collect();
        for span in unused {
            let hint = "name it in a device, or take it out";
            self.warn(span, "no device uses this profile: its points are not checked", hint, Vec::new());
        }
    }

    pub(super) fn line_of(&self, span: &Range<usize>) -> usize {
        self.text.text()[..span.start.min(self.text.text().len())].matches('\n').count() + 1
    }

    /// What a text stands for; an error becomes a problem. Where errors bring their own hint after
    /// `; hint: `, it is shown as one.
    pub(super) fn read<T, E: Display>(
        &mut self,
        text: &Spanned<String>,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        match read(text.get_ref()) {
            Ok(value) => Some(value),
            Err(error) => {
                let shown = error.to_string();
                let (message, hint) = shown.split_once("; hint: ").unwrap_or((&shown, ""));
                let hint = guess(text.get_ref(), message).unwrap_or_else(|| hint.to_owned());
                self.note(text.span(), message, hint);
                None
            }
        }
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, text: &Spanned<String>) -> Option<T> {
        self.read(text, str::parse)
    }

    pub(super) fn period(&mut self, text: Option<&Spanned<String>>, default: Period) -> Period {
        text.and_then(|text| self.parse(text)).unwrap_or(default)
    }

    pub(super) fn duration(&mut self, text: &Spanned<String>) -> Option<Duration> {
        self.read(text, parse_duration)
    }

    /// A whole number of a range.
    pub(super) fn whole<T: TryFrom<i64>>(
        &mut self,
        number: &Spanned<i64>,
        allowed: &[i64],
        what: &str,
        hint: &str,
    ) -> Option<T> {
        let value = *number.get_ref();
        let within = match allowed {
            [low, high] => (*low..=*high).contains(&value),
            others => others.contains(&value),
        };
        let converted = within.then(|| T::try_from(value).ok()).flatten();
        if converted.is_none() {
            self.note(number.span(), format!("`{what}` cannot be {value}"), hint);
        }
        converted
    }

    pub(super) fn refuse<T>(&mut self, key: Option<&Spanned<T>>, name: &str, why: &str) {
        if let Some(key) = key {
            self.note(key.span(), format!("`{name}` has no meaning here"), why);
        }
    }

    /// Names of buses or devices, each of which is there once (`place` says on what).
    pub(super) fn names<'file>(
        &mut self,
        what: &str,
        place: &str,
        names: impl Iterator<Item = &'file Spanned<String>>,
    ) {
        let mut first = HashMap::new();
        for text in names {
            let (name, span) = (text.get_ref(), text.span());
            if !is_name(name) {
                let shown = name.escape_debug();
                let message = format!("`{shown}` is no name of a {what}");
                self.note(text.span(), message, format!("it has 1 to {NAME_MAX} characters that can be printed"));
            } else if let Some(first) = first.insert(name, span.clone()) {
                let message = format!("{what} `{name}` is named twice{place}");
                let hint = format!("line {} names it first", self.line_of(&first));
                self.note_with(span, message, hint, vec![(first, "first here".to_owned())]);
            }
        }
    }

    /// A sensor's id, which no other point of the file has. A profile's point has a `quantity`, before
    /// which the device's place is put.
    pub(super) fn sensor(&mut self, text: &Spanned<String>) -> Option<SensorId> {
        let own = text.span();
        let (right, place) = match &self.through {
            Some(through) => ("quantity", Some(through.place.clone())),
            None => ("sensor", None),
        };
        if self.key_before(&own) != right {
            let hint = match place {
                Some(_) => "a profile says what is measured; where, says each device's `place`",
                None => "a point of a device has its whole id, like \"landfalltjern/water_temperature\"",
            };
            self.note(own.clone(), format!("write `{right} = …` here"), hint);
            return None;
        }
        let sensor: SensorId = match place {
            Some(place) => self.read(text, |quantity| format!("{place}/{quantity}").parse())?,
            None => self.parse(text)?,
        };
        if sensor.is_system() {
            let hint = "name the site: no id of a device starts with `_system`";
            self.note(own, format!("`{sensor}` is a sensor of the product's own"), hint);
            return None;
        }
        let by = self.through.as_ref().map_or(own.clone(), |through| through.place_span.clone());
        let named = Named { own, by };
        if let Some(first) = self.sensors.get(&sensor).cloned() {
            self.note_twice(&sensor, &named, &first);
        } else {
            self.sensors.insert(sensor.clone(), named);
        }
        Some(sensor)
    }

    /// Two devices with one place and one profile have all their sensors in common: that is told once.
    fn note_twice(&mut self, sensor: &SensorId, now: &Named, first: &Named) {
        let (now, first) = if now.by == first.by { (&now.own, &first.own) } else { (&now.by, &first.by) };
        let line = self.line_of(first);
        let pair = (now.start, format!("named twice: {}", first.start));
        if let Some(place) = self.told.get(&pair) {
            self.drafts[*place].others += 1;
            return;
        }
        self.told.insert(pair, self.drafts.len());
        let hint = format!("line {line} names it first: each point needs a sensor of its own");
        self.note_with(
            now.clone(),
            format!("sensor `{sensor}` is named twice"),
            hint,
            vec![(first.clone(), "first here".to_owned())],
        );
        if let Some(draft) = self.drafts.last_mut() {
            draft.what = "sensor";
        }
    }

    /// The key whose value stands at a place.
    fn key_before(&self, span: &Range<usize>) -> &str {
        let before = self.text.text()[..span.start].trim_end().trim_end_matches('=').trim_end();
        let before = before.trim_end_matches(['"', '\'']);
        before
            .rsplit(|character: char| !character.is_ascii_alphanumeric() && character != '_')
            .next()
            .unwrap_or_default()
    }
}

impl Draft {
    fn into_remark(self) -> Remark {
        let Self { mut remark, others, what } = self;
        if others > 0 {
            let (plural, have) = if others == 1 { ("", "has") } else { ("s", "have") };
            let more = format!("; {others} more {what}{plural} {have} the same");
            remark.hint = Some(match remark.hint {
                Some(hint) => hint + &more,
                None => more.trim_start_matches("; ").to_owned(),
            });
        }
        remark
    }
}

/// Which of a few words a wrong one was meant to be, or all of them.
pub(super) fn one_of(wrong: &str, known: &[&str]) -> String {
    match nearest(wrong, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("it is one of {}", known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")),
    }
}

/// The same for a message that has the words itself.
fn guess(wrong: &str, message: &str) -> Option<String> {
    let (_, words) = message.split_once("it is one of `")?;
    nearest(wrong, words.split('`').step_by(2)).map(|meant| format!("did you mean `{meant}`?"))
}

/// Refuses each of these keys of a table, by the names that they have in the file.
macro_rules! refuse_keys {
    ($checker:expr, $file:expr, $why:expr, [$($key:ident),+ $(,)?]) => {
        $($checker.refuse($file.$key.as_ref(), stringify!($key), $why);)+
    };
}
pub(super) use refuse_keys;

/// Whether it can stand in a line of the log. What would have to be escaped cannot be seen: controls,
/// marks of direction, blanks that are none.
fn is_name(name: &str) -> bool {
    let unquoted: String = name.chars().filter(|character| !['"', '\'', '\\'].contains(character)).collect();
    let is_seen = unquoted.escape_debug().eq(unquoted.chars());
    (1..=NAME_MAX).contains(&name.chars().count()) && !name.trim().is_empty() && is_seen
}
