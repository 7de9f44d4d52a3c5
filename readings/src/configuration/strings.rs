//! Where the strings of a text lie, if it is TOML: what is changed of one has to stay within its quotes, and must not tear a
//! character that is written as two.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// Keys that end so hold a pattern: what a device prints, and no address and no word that lets somebody in.
const PATTERN: &str = "pattern";

/// A string in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// What lies between the quotes.
    pub(super) content: Range<usize>,
    /// A backslash and what follows it are one character.
    has_escapes: bool,
    /// The value of a key that holds a pattern.
    pub(super) is_pattern: bool,
}

/// All strings of a text, keys in quotes too, and its comments, each in the order of the text; none where it is no TOML.
#[derive(Debug, Default)]
pub(super) struct Strings {
    strings: Vec<Written>,
    comments: Vec<Range<usize>>,
}

impl Strings {
    pub(super) fn of(text: &str) -> Self {
        work::looked_at(text.len());
        let Ok(root) = DeTable::parse(text) else { return Self::default() };
        let mut found = Self::default();
        of_table(text, root.get_ref(), &mut found.strings);
        found.strings.sort_unstable_by_key(|written| written.content.start);
        found.find_comments(text);
        found
    }

    /// What begins with a `#` that is in no string, to the end of its line.
    fn find_comments(&mut self, text: &str) {
        for (place, _) in text.match_indices('#') {
            let is_in_one = self.comments.last().is_some_and(|last| place < last.end);
            if !is_in_one && self.at(place).is_none() {
                let end = place + text[place..].find('\n').unwrap_or(text.len() - place);
                work::looked_at(end - place);
                self.comments.push(place..end);
            }
        }
    }

    /// The string in which this place lies.
    pub(super) fn at(&self, place: usize) -> Option<&Written> {
        last_from(&self.strings, place, |written| &written.content)
    }

    /// The string that begins at this place.
    pub(super) fn from(&self, start: usize) -> Option<&Written> {
        let found = self.strings.binary_search_by_key(&start, |written| written.content.start).ok()?;
        self.strings.get(found)
    }

    /// The comments, in order.
    pub(super) fn comments(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.comments.iter().cloned()
    }

    /// Where the comment ends in which this place lies, which is in no string.
    pub(super) fn end_of_comment(&self, place: usize) -> Option<usize> {
        last_from(&self.comments, place, |comment| comment).map(|comment| comment.end)
    }
}

/// Of what lies apart and in order: what this place lies in.
fn last_from<T>(all: &[T], place: usize, span: impl Fn(&T) -> &Range<usize>) -> Option<&T> {
    let begun = all.partition_point(|one| {
        work::looked_at(1);
        span(one).start <= place
    });
    all[..begun].last().filter(|one| span(one).contains(&place))
}

/// How much of texts was looked at: what tests hold against their length.
pub(super) mod work {
    #[cfg(test)]
    thread_local! {
        static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// So many bytes, or strings.
    #[cfg(test)]
    pub(in crate::configuration) fn looked_at(more: usize) {
        LOOKED_AT.set(LOOKED_AT.get() + more);
    }

    #[cfg(not(test))]
    pub(in crate::configuration) const fn looked_at(_: usize) {}

    /// What this thread looked at for that.
    #[cfg(test)]
    pub(in crate::configuration) fn of(act: impl FnOnce()) -> usize {
        let before = LOOKED_AT.get();
        act();
        LOOKED_AT.get() - before
    }
}

fn of_table(text: &str, table: &DeTable<'_>, found: &mut Vec<Written>) {
    for (key, value) in table.iter() {
        found.extend(written(text, key.span(), false));
        of_value(text, value, key.get_ref().ends_with(PATTERN), found);
    }
}

fn of_value(text: &str, value: &Spanned<DeValue<'_>>, is_pattern: bool, found: &mut Vec<Written>) {
    match value.get_ref() {
        DeValue::String(_) => found.extend(written(text, value.span(), is_pattern)),
        DeValue::Array(values) => of_array(text, values, is_pattern, found),
        DeValue::Table(table) => of_table(text, table, found),
        _ => {}
    }
}

fn of_array(text: &str, values: &DeArray<'_>, is_pattern: bool, found: &mut Vec<Written>) {
    values.iter().for_each(|value| of_value(text, value, is_pattern, found));
}

/// The string at a place, if there is one in quotes.
fn written(text: &str, place: Range<usize>, is_pattern: bool) -> Option<Written> {
    let whole = text.get(place.clone())?;
    let quotes = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quotes| whole.len() >= 2 * quotes.len() && whole.starts_with(quotes) && whole.ends_with(quotes))?;
    let content = place.start + quotes.len()..place.end - quotes.len();
    Some(Written { content, has_escapes: quotes.starts_with('"'), is_pattern })
}

impl Written {
    /// A part of the string, made longer to where no character is torn.
    pub(super) fn whole(&self, text: &str, part: Range<usize>) -> Range<usize> {
        let mut end = part.end.min(self.content.end);
        let before = &text[part.start.min(end)..end];
        let slashes = before.len() - before.trim_end_matches('\\').len();
        if self.has_escapes && slashes % 2 == 1 && end < self.content.end {
            end += text[end..].chars().next().map_or(0, char::len_utf8);
        }
        part.start..end
    }
}
