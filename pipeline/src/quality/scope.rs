//! Which readings are evaluated again, and which have to be read for it. No I/O.
//!
//! A reading that came, changed or went can change the flags of those around it, as far as its
//! sensor's margins say. These spans are the scope; what has to be read reaches as far again. Spans
//! of a sensor are kept few, by closing the smallest holes between them: too much evaluated is right
//! too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tjern_lake::DataFile;

use super::rules::{Margins, Rulebook, SensorRules};

/// So many spans of one sensor are kept apart; and of all sensors, where files are asked for them.
const SPANS_MAX: usize = 16;

/// From and to, both included, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) from_us: i64,
    pub(super) to_us: i64,
}

impl Span {
    pub(super) const ALL: Self = Self { from_us: i64::MIN, to_us: i64::MAX };

    pub(super) const fn contains(self, time_us: i64) -> bool {
        self.from_us <= time_us && time_us <= self.to_us
    }

    pub(super) const fn overlaps(self, other: Self) -> bool {
        self.from_us <= other.to_us && other.from_us <= self.to_us
    }

    /// The span and what lies so far before and after it.
    pub(super) const fn widened(self, before_us: i64, after_us: i64) -> Self {
        Self { from_us: self.from_us.saturating_sub(before_us), to_us: self.to_us.saturating_add(after_us) }
    }
}

/// What is known of a sensor while a run lasts.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) rules: Arc<SensorRules>,
    pub(super) margins: Margins,
}

/// The sensors of a run, each looked up once; `None`: not registered.
#[derive(Debug)]
pub(super) struct Sensors<'a> {
    rulebook: &'a Rulebook,
    margins: fn(&SensorRules) -> Margins,
    known: HashMap<String, Option<Known>>,
}

impl<'a> Sensors<'a> {
    pub(super) fn new(rulebook: &'a Rulebook, margins: fn(&SensorRules) -> Margins) -> Self {
        Self { rulebook, margins, known: HashMap::new() }
    }

    pub(super) fn get(&mut self, sensor: &str) -> Option<&Known> {
        if !self.known.contains_key(sensor) {
            let rules = self.rulebook.of(sensor);
            let known = rules.map(|rules| Known { margins: (self.margins)(&rules), rules: Arc::new(rules) });
            self.known.insert(sensor.to_owned(), known);
        }
        self.known.get(sensor).and_then(Option::as_ref)
    }

    /// Adds a span of every registered sensor between two names to a scope.
    pub(super) fn touch_all(&mut self, names: Option<&(String, String)>, changed: Span, scope: &mut Scope) {
        let within =
            |name: &str| names.is_none_or(|(least, greatest)| least.as_str() <= name && name <= greatest.as_str());
        let all: Vec<String> = self.rulebook.register().iter().map(|row| row.id.to_string()).collect();
        for name in all.into_iter().filter(|name| within(name)) {
            if let Some(margins) = self.get(&name).map(|known| known.margins) {
                scope.touch(&name, changed, margins);
            }
        }
    }
}

/// What is evaluated again: spans of time by sensor, in order and without overlap.
#[derive(Debug, Default, Clone)]
pub(super) struct Scope {
    sensors: BTreeMap<String, Vec<Span>>,
}

impl Scope {
    /// Adds what a change of a sensor's readings between two moments touches.
    pub(super) fn touch(&mut self, sensor: &str, changed: Span, margins: Margins) {
        // What depends on a reading lies after it as far as others look back.
        let touched = changed.widened(margins.after_us, margins.before_us);
        if !self.sensors.contains_key(sensor) {
            self.sensors.insert(sensor.to_owned(), Vec::new());
        }
        let Some(spans) = self.sensors.get_mut(sensor) else { return };
        match spans.last_mut() {
            Some(last) if last.overlaps(touched) => {
                *last = Span { from_us: last.from_us.min(touched.from_us), to_us: last.to_us.max(touched.to_us) };
            }
            _ => spans.push(touched),
        }
        if spans.len() > 4 * SPANS_MAX {
            *spans = few(std::mem::take(spans));
        }
    }

    pub(super) fn settle(&mut self) {
        for spans in self.sensors.values_mut() {
            *spans = few(std::mem::take(spans));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sensors.is_empty()
    }

    pub(super) fn sensors(&self) -> BTreeSet<&str> {
        self.sensors.keys().map(String::as_str).collect()
    }

    pub(super) fn spans(&self, sensor: &str) -> &[Span] {
        self.sensors.get(sensor).map_or(&[], Vec::as_slice)
    }

    /// What has to be read of all sensors.
    pub(super) fn reads(&self, sensors: &mut Sensors<'_>) -> Vec<Span> {
        let mut reads = Vec::new();
        for (sensor, spans) in &self.sensors {
            let Some(known) = sensors.get(sensor) else { continue };
            reads.extend(spans.iter().map(|span| span.widened(known.margins.before_us, known.margins.after_us)));
        }
        few(reads)
    }

    /// Whether a file may have a row of the scope.
    pub(super) fn may_touch(&self, file: &DataFile) -> bool {
        let time = times_of(file);
        self.sensors.iter().any(|(name, spans)| may_have(file, name) && spans.iter().any(|span| span.overlaps(time)))
    }

    /// The part of it that rows of these files may be in.
    pub(super) fn of(&self, files: &[DataFile]) -> Self {
        let hulls: Vec<Span> = few(files.iter().map(times_of).collect());
        let names = |name: &str| files.iter().any(|file| may_have(file, name));
        let cut = |spans: &[Span]| -> Vec<Span> {
            let pairs = hulls.iter().flat_map(|hull| spans.iter().map(move |span| (hull, span)));
            let cut = pairs.filter(|(hull, span)| hull.overlaps(**span));
            cut.map(|(hull, span)| Span { from_us: hull.from_us.max(span.from_us), to_us: hull.to_us.min(span.to_us) })
                .collect()
        };
        let touched =
            self.sensors.iter().filter(|(name, _)| names(name)).map(|(name, spans)| (name.clone(), few(cut(spans))));
        Self { sensors: touched.filter(|(_, spans)| !spans.is_empty()).collect() }
    }
}

/// The times that a file's rows may have.
pub(super) fn times_of(file: &DataFile) -> Span {
    file.time_us.map_or(Span::ALL, |(from_us, to_us)| Span { from_us, to_us })
}

/// Whether a file may have rows of a sensor.
fn may_have(file: &DataFile, name: &str) -> bool {
    file.sensor.as_ref().is_none_or(|(least, greatest)| least.as_str() <= name && name <= greatest.as_str())
}

/// Spans in order, without overlap, at most [`SPANS_MAX`].
fn few(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut apart: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match apart.last_mut() {
            Some(last) if last.overlaps(span) => last.to_us = last.to_us.max(span.to_us),
            _ => apart.push(span),
        }
    }
    if apart.len() <= SPANS_MAX {
        return apart;
    }
    let mut holes: Vec<(i64, usize)> = apart
        .windows(2)
        .enumerate()
        .map(|(index, pair)| (pair[1].from_us.saturating_sub(pair[0].to_us), index))
        .collect();
    holes.sort_unstable_by(|one, other| other.cmp(one));
    let kept: BTreeSet<usize> = holes.into_iter().take(SPANS_MAX - 1).map(|(_, index)| index).collect();
    let mut closed: Vec<Span> = Vec::with_capacity(SPANS_MAX);
    for (index, span) in apart.into_iter().enumerate() {
        match closed.last_mut() {
            Some(last) if !kept.contains(&(index - 1)) => last.to_us = span.to_us,
            _ => closed.push(span),
        }
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A span that is left out is a flag that is never corrected.
        #[test]
        fn few_spans_cover_all(times in prop::collection::vec((0_i64..1_000_000, 0_i64..100), 0..200)) {
            let spans: Vec<Span> = times.iter().map(|(from_us, long)| Span { from_us: *from_us, to_us: from_us + long }).collect();
            let few = few(spans.clone());
            prop_assert!(few.len() <= SPANS_MAX);
            prop_assert!(few.windows(2).all(|pair| pair[0].to_us < pair[1].from_us));
            for span in spans {
                prop_assert!(few.iter().any(|wide| wide.from_us <= span.from_us && span.to_us <= wide.to_us));
            }
        }
    }
}
