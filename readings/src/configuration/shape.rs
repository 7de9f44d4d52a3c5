//! Reading a file on past what is wrong with it, so that all of it is told at once.
//!
//! serde ends at the first thing that does not fit. So the text is parsed once, with the place of every
//! key and value; what does not fit is told, taken out of the parsed tables (or, where a key is plainly
//! misspelt, given its right name), and the rest is tried again. Limit: [`PROBLEMS_MAX`] problems.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::{ConfigText, Problem, is_out_of_range, nearest, suggestion};

/// Who has so many mistakes in a file wants to see the first of them.
const PROBLEMS_MAX: usize = 100;

/// What a text gives when everything that does not fit is told and left out.
#[derive(Debug)]
pub struct Shape<T> {
    /// What is left, if that is enough.
    pub value: Option<T>,
    /// What does not fit, in the order of the text.
    pub problems: Vec<Problem>,
    /// Whether nothing is left out but keys that nobody knows.
    pub complete: bool,
}

impl ConfigText {
    /// Reads the text as TOML of the shape `T`, past everything that does not fit.
    #[must_use]
    pub fn shape<T: DeserializeOwned>(&self) -> Shape<T> {
        let (mut root, errors) = DeTable::parse_recoverable(self.text());
        if !errors.is_empty() {
            let mut problems: Vec<Problem> = errors.iter().map(|error| self.of_toml(error)).collect();
            problems.sort_by_key(|problem| (problem.line, problem.column));
            // What follows in a line that is broken is broken by that.
            problems.dedup_by_key(|problem| problem.line);
            problems.truncate(PROBLEMS_MAX);
            return Shape { value: None, problems, complete: false };
        }
        // Only where something does not fit is the tree needed again: of a long file it takes more than all the rest.
        if let Ok(value) = T::deserialize(Deserializer::from(root)) {
            return Shape { value: Some(value), problems: Vec::new(), complete: true };
        }
        (root, _) = DeTable::parse_recoverable(self.text());
        let own_span = root.span();
        let (mut problems, mut complete, mut taken) = (Vec::new(), true, Vec::new());
        let value = loop {
            let error = match T::deserialize(Deserializer::from(root.clone())) {
                Ok(value) => break Some(value),
                Err(error) => error,
            };
            let Some(span) = error.span().filter(|_| problems.len() < PROBLEMS_MAX) else {
                problems.push(self.of_toml(&error));
                break None;
            };
            let missing = missing_key(error.message()).map(|key| (span.clone(), key.to_owned()));
            // What was taken out is missing, and that was told.
            if !missing.is_some_and(|missing| taken.contains(&missing)) {
                problems.push(self.of_toml(&error));
            }
            if mend_key(root.get_mut(), &span, error.message()) {
                continue;
            }
            complete = false;
            match take_out(root.get_mut(), &own_span, &span) {
                Taken::Nothing => break None,
                Taken::Element => {}
                Taken::Key(table, key) => taken.push((table, key)),
            }
        };
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Shape { value, problems, complete }
    }

    fn of_toml(&self, error: &toml::de::Error) -> Problem {
        let message = error.message().trim();
        let hint = suggestion(message);
        // Where one key was meant, the list of all of them is in the way.
        let is_meant = hint.as_ref().is_some_and(|hint| hint.starts_with("did you mean"));
        let message = message.split_once(", expected").filter(|_| is_meant).map_or(message, |(before, _)| before);
        let too_large = is_out_of_range(message).then(|| message.split('`').nth(1)).flatten();
        let message =
            too_large.map_or_else(|| message.to_owned(), |number| format!("the number {number} is too large"));
        self.problem(error.span().unwrap_or(0..0), message, hint)
    }
}

fn missing_key(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// Takes an unknown key out, or gives it the name that it was meant to have. Whether it was one.
fn mend_key(table: &mut DeTable<'_>, span: &Range<usize>, message: &str) -> bool {
    let Some(known) = message.strip_prefix("unknown field `") else { return false };
    let mut words = known.split('`').step_by(2);
    let meant = words.next().and_then(|wrong| nearest(wrong, words));
    mend_in(table, span, meant)
}

fn mend_in(table: &mut DeTable<'_>, span: &Range<usize>, meant: Option<&str>) -> bool {
    if let Some(key) = table.keys().find(|key| key.span() == *span).cloned() {
        let value = table.remove(key.get_ref().as_ref());
        let free = meant.filter(|meant| !table.contains_key(*meant));
        if let (Some(value), Some(meant)) = (value, free) {
            table.insert(Spanned::new(key.span(), meant.to_owned().into()), value);
        }
        return true;
    }
    table.iter_mut().any(|(_, value)| match value.get_mut() {
        DeValue::Table(inner) => mend_in(inner, span, meant),
        DeValue::Array(items) => items.iter_mut().any(|item| match item.get_mut() {
            DeValue::Table(inner) => mend_in(inner, span, meant),
            _ => false,
        }),
        _ => false,
    })
}

enum Taken {
    Nothing,
    /// One of several tables, like a `[[bus]]`.
    Element,
    /// A key that there is once: the place of its table, and its name.
    Key(Range<usize>, String),
}

/// Takes a value out of a table (that lies at `own`): with the innermost of several tables that holds it,
/// since a point that is wrong in one thing is no point, or else with its key.
fn take_out(table: &mut DeTable<'_>, own: &Range<usize>, span: &Range<usize>) -> Taken {
    let Some(key) = table.iter().find(|(_, value)| holds(value, span)).map(|(key, _)| key.get_ref().to_string()) else {
        return Taken::Nothing;
    };
    let inner_span = table.get(key.as_str()).map(Spanned::span).unwrap_or_default();
    match table.get_mut(key.as_str()).map(Spanned::get_mut) {
        Some(DeValue::Table(inner)) if inner.values().any(|value| holds(value, span)) => {
            return take_out(inner, &inner_span, span);
        }
        Some(DeValue::Array(items)) if holds_in_table(items, span) => {
            take_element(items, span);
            return Taken::Element;
        }
        _ => {}
    }
    table.remove(key.as_str());
    Taken::Key(own.clone(), key)
}

fn take_element(items: &mut DeArray<'_>, span: &Range<usize>) {
    let Some(place) = items.iter().position(|item| holds(item, span)) else { return };
    if let Some(DeValue::Table(inner)) = items.get_mut(place).map(Spanned::get_mut) {
        let further_in = inner.iter_mut().find_map(|(_, value)| match value.get_mut() {
            DeValue::Array(items) if holds_in_table(items, span) => Some(items),
            _ => None,
        });
        if let Some(further_in) = further_in {
            return take_element(further_in, span);
        }
    }
    let mut left = DeArray::new();
    let others = items.iter().enumerate().filter(|(index, _)| *index != place);
    others.for_each(|(_, item)| left.push(item.clone()));
    *items = left;
}

fn holds_in_table(items: &DeArray<'_>, span: &Range<usize>) -> bool {
    items.iter().any(|item| item.get_ref().is_table() && holds(item, span))
}

/// Whether this is the value at a place, or has it in it.
fn holds(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    value.span() == *span
        || match value.get_ref() {
            DeValue::Table(inner) => inner.values().any(|value| holds(value, span)),
            DeValue::Array(items) => items.iter().any(|item| holds(item, span)),
            _ => false,
        }
}
