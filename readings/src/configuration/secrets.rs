//! Where in a configuration's text secrets stand that do not belong there: what is shown of it, and what is
//! uploaded, is without them.
//!
//! Found are, in values and in comments: what stands before an `@` or after a `?` in a URL, an `address` that has an `@`, and the
//! values of keys whose name says so (`password`, `secret`, `token`, …), or that are called `url`: the address of a webhook may be one, however
//! wrong it is written. In comments also what people write there ([`comments`]). A secret under a harmless name is not found, and no pattern is
//! one.
//!
//! Invariant: of a text that is TOML what is hidden of a string lies within its quotes, and of a comment within its line. So what is left is
//! TOML, but for a secret that stood in no quotes. The text is gone over once, whatever is shown of it and how often.

mod comments;

use std::collections::HashSet;
use std::ops::Range;

use super::strings::{Strings, Written, work};

/// What stands in the place of a secret.
const REDACTED: &str = "***";

/// A key with one of these in its name, `_` and `-` apart, has a secret for a value: in English, in Norwegian and in German, and as Azure's
/// connection strings have them.
const NAMES: [&str; 16] = [
    "secret",
    "passw",
    "passphrase",
    "passord",
    "hemmelig",
    "signature",
    "kennwort",
    "token",
    "accesskey",
    "accountkey",
    "apikey",
    "privatekey",
    "sharedkey",
    "sharedaccess",
    "saskey",
    "sastoken",
];

/// A key that is called one of these has one too: within longer names they are parts of other words.
const WHOLE_NAMES: [&str; 8] = ["url", "pass", "pwd", "psk", "pin", "pw", "sas", "authorization"];

/// Keys that have such a name and hold the path of a file.
const HARMLESS: [&str; 2] = ["tokens", "file"];

/// Where secrets stand in a text, found once for all that is to be shown of it.
#[derive(Debug, Clone)]
pub(super) struct Secrets {
    /// In order and without an overlap.
    places: Vec<Range<usize>>,
    /// One place of each that is written more than once.
    different: Vec<Range<usize>>,
}

/// The text with a mark in the place of each secret.
#[must_use]
pub fn without_secrets(text: &str) -> String {
    Secrets::of(text).hidden_in(text)
}

impl Secrets {
    pub(super) fn of(text: &str) -> Self {
        let places = places(text);
        let mut known = HashSet::new();
        let different = places.iter().filter(|place| known.insert(&text[(*place).clone()])).cloned().collect();
        Self { places, different }
    }

    /// Where the first one stands.
    pub(super) fn first(&self) -> Option<Range<usize>> {
        self.places.first().cloned()
    }

    /// The text with a mark in the place of each.
    pub(super) fn hidden_in(&self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        let mut end = 0;
        for secret in &self.places {
            shown.push_str(&text[end..secret.start]);
            shown.push_str(REDACTED);
            end = secret.end;
        }
        shown.push_str(&text[end..]);
        shown
    }

    /// A part of the text with each painted over, all places and lines as they were.
    pub(super) fn painted_over(&self, text: &str, part: Range<usize>) -> String {
        work::looked_at(part.len());
        let mut shown = String::with_capacity(part.len());
        let mut end = part.start;
        let first = self.places.partition_point(|secret| secret.end <= part.start);
        for secret in self.places[first..].iter().take_while(|secret| secret.start < part.end) {
            let secret = secret.start.max(part.start)..secret.end.min(part.end);
            shown.push_str(&text[end..secret.start]);
            shown.extend(text.as_bytes()[secret.clone()].iter().map(|byte| if *byte == b'\n' { '\n' } else { '*' }));
            end = secret.end;
        }
        shown.push_str(&text[end..part.end]);
        shown
    }

    /// A message about a text, without the text's secrets.
    pub(super) fn scrubbed(&self, message: &str, text: &str) -> String {
        let found = self.different.iter().map(|secret| &text[secret.clone()]);
        let message = found.fold(message.to_owned(), |message, secret| message.replace(secret, REDACTED));
        without_secrets(&message)
    }
}

/// Finds what is secret of what is marked at a place.
type Look = fn(&str, usize) -> Vec<Range<usize>>;

/// Where secrets stand, in order and without an overlap, and none is empty.
fn places(text: &str) -> Vec<Range<usize>> {
    if !text.contains([':', '=', '#']) {
        return Vec::new();
    }
    let strings = Strings::of(text);
    let mut found = Vec::new();
    let looks: [(Look, &str); 2] = [(in_url, "://"), (in_value, "=")];
    for (look, mark) in looks {
        for place in marks(text, mark) {
            match strings.at(place) {
                Some(Written { is_pattern: true, .. }) => {}
                // What begins within a string ends there at the latest.
                Some(written) => {
                    let parts = look(&text[..written.content.end], place);
                    found.extend(parts.into_iter().map(|part| written.whole(text, part)));
                }
                None => {
                    let end = strings.end_of_comment(place).unwrap_or(text.len());
                    let parts = look(&text[..end], place).into_iter();
                    // The quote that ends a string may be one that does not.
                    found.extend(parts.map(|part| strings.from(part.start).map_or(part, |one| one.content.clone())));
                }
            }
        }
    }
    found.extend(strings.comments().flat_map(|comment| comments::in_comment(text, comment)));
    found.sort_by_key(|secret| secret.start);
    let mut apart: Vec<Range<usize>> = Vec::new();
    for secret in found.into_iter().filter(|secret| !secret.is_empty()) {
        match apart.last_mut() {
            Some(last) if secret.start < last.end => last.end = last.end.max(secret.end),
            _ => apart.push(secret),
        }
    }
    apart
}

fn marks<'text>(text: &'text str, mark: &'text str) -> impl Iterator<Item = usize> + 'text {
    text.match_indices(mark).map(|(place, _)| place)
}

/// What is secret of the URL that has its `://` here.
fn in_url(text: &str, place: usize) -> Vec<Range<usize>> {
    let start = place + "://".len();
    let scheme = name_before(&text[..place]).len();
    let quote = text[..place - scheme].chars().next_back().filter(|before| ['"', '\''].contains(before));
    // Within quotes a URL is what the quotes hold, however wrong.
    let ends = |character: char| match quote {
        Some(quote) => character == quote || character == '\n',
        None => character.is_whitespace() || ['"', '\'', '`'].contains(&character),
    };
    let url = &text[start..start + text[start..].find(ends).unwrap_or(text.len() - start)];
    // A key may have slashes in it.
    let user = url.rfind('@').map(|at| start..start + at);
    let query = url.find('?').map(|mark| start + mark + 1..start + url.len());
    user.into_iter().chain(query).collect()
}

/// The value of the name that stands before this `=`, where that is a secret's; an address that has an `@`.
fn in_value(text: &str, place: usize) -> Vec<Range<usize>> {
    let name = name_before(&text[..place]);
    let is_address = name.eq_ignore_ascii_case("address");
    if !is_address && !is_secret(name) {
        return Vec::new();
    }
    let rest = &text[place + 1..];
    let start = place + 1 + (rest.len() - rest.trim_start_matches([' ', '\t']).len());
    let value = value_at(text, start);
    if is_address && !text[value.clone()].contains('@') { Vec::new() } else { vec![value] }
}

/// The name of a key that ends here.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches([' ', '\t']).trim_end_matches(['"', '\'']);
    let is_part = |character: char| character.is_ascii_alphanumeric() || ['_', '-'].contains(&character);
    let start = text
        .rfind(|character| !is_part(character))
        .map_or(0, |place| place + text[place..].chars().next().map_or(1, char::len_utf8));
    &text[start..]
}

fn is_secret(name: &str) -> bool {
    let is_of_sas = name.to_ascii_lowercase().contains("sas_");
    let name = name.to_ascii_lowercase().replace(['_', '-'], "");
    let is_one = is_of_sas || WHOLE_NAMES.contains(&name.as_str()) || NAMES.iter().any(|part| name.contains(part));
    is_one && !HARMLESS.iter().any(|end| name.ends_with(end))
}

/// The value that begins here, within its quotes; one whose quotes do not end ends with its line.
fn value_at(text: &str, start: usize) -> Range<usize> {
    let rest = &text[start..];
    let line = rest.find('\n').unwrap_or(rest.len());
    for (quote, reach) in [("\"\"\"", rest.len()), ("'''", rest.len()), ("\"", line), ("'", line)] {
        if let Some(value) = rest[..reach].strip_prefix(quote) {
            let end = value.find(quote).unwrap_or(value.len());
            return start + quote.len()..start + quote.len() + end;
        }
    }
    start..start + rest[..line].find([',', '}', ' ', '\t', '\r']).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_found_wherever_people_put_them() {
        for (text, shown) in [
            ("lake = \"s3://key:se/cr@et@bucket/x?sig=abc\"\n", "lake = \"s3://***@bucket/x?***\"\n"),
            ("lake = \"s3:// key:hunter2@x y\"", "lake = \"s3://***@x y\""),
            ("url = \"hooks.example.org/services/T0/B0/secret\"\n", "url = \"***\"\n"),
            ("# was s3://key:hunter2@bucket\n", "# was s3://***@bucket\n"),
            ("aws_secret_access_key = \"hunter2\" # new", "aws_secret_access_key = \"***\" # new"),
            ("# password=hunter2\nx = 1", "# password=***\nx = 1"),
            ("\"api-key\" = 'hunter2'", "\"api-key\" = '***'"),
            ("x = { token = \"a, b\", y = 1 }", "x = { token = \"***\", y = 1 }"),
            ("secret = \"\"\"a\nb\"\"\"\n", "secret = \"\"\"***\"\"\"\n"),
            ("secret = \"unfinished\nnext = 1", "secret = \"***\nnext = 1"),
            // Within strings: what a logger is told, and what it is asked by.
            ("poll = \"PASSWORD=1234\\r\\nDUMP\\r\\n\"\nx = 1", "poll = \"PASSWORD=***\"\nx = 1"),
            ("poll = \"token=\"\nx = \"y\"", "poll = \"token=\"\nx = \"y\""),
            ("poll = \"GET http://h/?k=hunter2\\\" x\"", "poll = \"GET http://h/?*** x\""),
            ("password = \"hun\\\"ter2\"\nx = 1", "password = \"***\"\nx = 1"),
            ("# token=\"\"\"hunter2\nx = 1\n", "# token=\"\"\"***\nx = 1\n"),
            ("x = ['token=a b', 'c']", "x = ['token=*** b', 'c']"),
            ("address = \"admin:hunter2@10.0.3.7:502\"\n", "address = \"***\"\n"),
            ("# AccountName=a;AccountKey=aHVudGVyMg==;EndpointSuffix=x\n", "# AccountName=a;AccountKey=***\n"),
            ("x = \"Endpoint=sb://h/;SharedAccessKey=hunter2\"\n", "x = \"Endpoint=sb://h/;SharedAccessKey=***\"\n"),
            ("# passord=hunter2\n# pwd = hunter2\n", "# passord=***\n# pwd = ***\n"),
        ] {
            assert_eq!(without_secrets(text), shown);
            let painted = Secrets::of(text).painted_over(text, 0..text.len());
            assert_eq!((painted.len(), painted.lines().count()), (text.len(), text.lines().count()));
        }
    }

    #[test]
    fn what_is_none_stays() {
        for text in [
            "lake = \"s3://bucket/prefix\"\naddress = \"10.0.3.7:502\"\n",
            "credentials_file = \"/etc/tjern/lake.env\"\ntokens = \"tokens.txt\"\n",
            "pattern = \"T=(?<value>[-0-9.]+)\"\nregister = \"input:0\"\n",
            "pattern = 'http://(?<value>[0-9]+)@x?\\d'\ntime_pattern = 'token=(.*)'\n",
            "# By-pass valve: see the drawing. Ask ops@city.example, +47: 32 04 00 00, 08:00 to 16:00\n",
            "passage = 1\npinned = \"x\"\nbypass = true # holding:4 is the by-pass\n",
        ] {
            assert_eq!(without_secrets(text), text);
        }
    }

    proptest! {
        /// What was hidden took the quotes along: "no TOML" to the lake, and no unit of that gateway was checked.
        #[test]
        fn what_is_left_of_toml_is_toml(
            lines in prop::collection::vec("(poll|name|x-y) = (\"([ -!#-\\[\\]-~]|\\\\[\"\\\\rnt]|token=|password = |://|\\?)*\"|'([ -&(-~]|token=|secret=|://)*')( # token=[^\n\r]{0,9}|)", 0..4)
        ) {
            let text: String = lines.iter().enumerate().map(|(number, line)| format!("[t{number}]\n{line}\n")).collect();
            let is_toml = |text: &str| toml::de::DeTable::parse(text).map(drop).map_err(|error| error.to_string());
            prop_assume!(is_toml(&text).is_ok());
            let shown = without_secrets(&text);
            prop_assert!(is_toml(&shown).is_ok(), "{text}\n{shown}\n{:?}", is_toml(&shown).err());
        }

        #[test]
        fn any_text_can_be_gone_over(text in "(\\PC|[=\"'@?\n]|://|token ?= ?|secret=\"\"\"){0,40}") {
            let secrets = Secrets::of(&text);
            let painted = secrets.painted_over(&text, 0..text.len());
            prop_assert_eq!(painted.len(), text.len());
            let shown = without_secrets(&text);
            prop_assert!(!secrets.scrubbed(&text, &text).is_empty() || shown.is_empty());
            // Any line of it is painted as in the whole.
            let mut start = 0;
            for line in text.split_inclusive('\n') {
                let part = start..start + line.len();
                prop_assert_eq!(&secrets.painted_over(&text, part.clone()), &painted[part.clone()]);
                start = part.end;
            }
        }
    }
}
