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

/// All strings of a text in their order, keys in quotes too; `None` where it is no TOML.
#[derive(Debug, Default)]
pub(super) struct Strings(Option<Vec<Written>>);

impl Strings {
    pub(super) fn of(text: &str) -> Self {
        Self(DeTable::parse(text).ok().map(|root| {
            let mut found = Vec::new();
            of_table(text, root.get_ref(), &mut found);
            // Each mark of a text is looked up: of ten thousand points there are sixty thousand.
            found.sort_by_key(|written| written.content.start);
            found
        }))
    }

    /// The string in which this place lies.
    pub(super) fn at(&self, place: usize) -> Option<&Written> {
        self.up_to(place).last().filter(|written| written.content.contains(&place))
    }

    /// The string that begins at this place.
    pub(super) fn from(&self, start: usize) -> Option<&Written> {
        self.up_to(start).last().filter(|written| written.content.start == start)
    }

    /// Those that begin at this place at the latest. None lies in another one.
    fn up_to(&self, place: usize) -> &[Written] {
        let all = self.0.as_deref().unwrap_or_default();
        &all[..all.partition_point(|written| written.content.start <= place)]
    }

    /// Where the comment ends in which this place lies, which is in no string.
    pub(super) fn end_of_comment(&self, text: &str, place: usize) -> Option<usize> {
        self.0.as_ref()?;
        let start = text[..place].rfind('\n').map_or(0, |end| end + 1);
        let begins = text[start..place].match_indices('#').any(|(at, _)| self.at(start + at).is_none());
        begins.then(|| place + text[place..].find('\n').unwrap_or(text.len() - place))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Looked up in their order as one after the other: a configuration of two thousand points took seconds, five times at a start.
        #[test]
        fn a_string_is_found_wherever_it_stands(
            lines in prop::collection::vec(("[a-z]{1,3}", "[a-z= :/]{0,6}", 0_usize..4), 0..20),
        ) {
            let mut text = String::new();
            for (number, (key, value, kind)) in lines.iter().enumerate() {
                text += &match kind {
                    0 => format!("{key}-{number} = \"{value}\"\n"),
                    1 => format!("\"{key} {number}\" = ['{value}', \"\", {{ pattern = '{value}' }}]\n"),
                    2 => format!("[\"{value}-{number}\"]\n"),
                    _ => format!("[[table-{number}]] # {value}\nname = \"\"\"\n{value}\"\"\"\n"),
                };
            }
            let strings = Strings::of(&text);
            let all: Vec<&Written> = strings.0.iter().flatten().collect();
            for place in 0..=text.len() {
                let around = all.iter().find(|written| written.content.contains(&place)).copied();
                let begins = all.iter().find(|written| written.content.start == place).copied();
                prop_assert_eq!(strings.at(place), around, "{} of {}", place, &text);
                prop_assert_eq!(strings.from(place), begins, "{} of {}", place, &text);
            }
        }
    }
}
