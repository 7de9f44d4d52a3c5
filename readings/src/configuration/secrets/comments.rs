//! What people write into comments: `password: …`, a header of HTTP, the line of `curl` that worked. There a colon begins a value too, and a name
//! may be two words (`access key: …`); what it hides reaches to the end of the line, since nobody quotes there.
//!
//! Limit: too much is hidden rather than too little: `pin: 4` is a terminal's as well as a card's.

use std::ops::Range;

use super::{is_secret, name_before};

/// A word before a name and a password that `curl` and others take, with a colon between them.
const USERS: [&str; 2] = ["-u", "--user"];

/// How a header of HTTP begins that names who asks.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

/// Where secrets stand in a comment.
pub(super) fn in_comment(text: &str, comment: Range<usize>) -> Vec<Range<usize>> {
    let line = &text[comment.clone()];
    let end = comment.start + line.trim_end().len();
    let mut found: Vec<_> = line
        .match_indices(':')
        .filter(|(place, _)| !line[place + 1..].starts_with("//") && is_of_a_secret(&line[..*place]))
        .map(|(place, _)| from(text, comment.start + place + 1, end))
        .collect();
    found.extend(words(line).zip(words(line).skip(1)).filter_map(|((_, word), (place, next))| {
        let start = comment.start + place;
        if USERS.contains(&word) {
            let colon = next.find(':')?;
            return Some(start + colon + 1..start + next.len());
        }
        let is_scheme = SCHEMES.iter().any(|scheme| word.trim_matches(['"', '\'']).eq_ignore_ascii_case(scheme));
        // `basic` is a word too: what goes with it is letters and digits, and long.
        (is_scheme && next.len() >= 8 && next.contains(|character: char| character.is_ascii_digit()))
            .then(|| start..start + next.len())
    }));
    found.retain(|secret| secret.start < secret.end);
    found
}

/// Whether what ends here is the name of a secret, of one word or of two.
fn is_of_a_secret(text: &str) -> bool {
    let text = text.trim_end_matches([' ', '\t', '"', '\'']);
    let last = name_before(text);
    let before = name_before(&text[..text.len() - last.len()]);
    is_secret(last) || is_secret(&format!("{before}{last}"))
}

/// What begins here, without the blanks before it.
fn from(text: &str, start: usize, end: usize) -> Range<usize> {
    let end = end.max(start);
    let rest = &text[start..end];
    start + (rest.len() - rest.trim_start().len())..end
}

/// The words of a line, each with its place.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut end = 0;
    let pieces = line.split_inclusive(char::is_whitespace).map(move |piece| {
        let place = end;
        end += piece.len();
        (place, piece.trim_end())
    });
    pieces.filter(|(_, word)| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::without_secrets;

    /// They went to the lake with the configuration, where every analyst may read them.
    #[test]
    fn what_people_write_into_comments_is_found() {
        for (text, shown) in [
            ("# password: hunter2\n", "# password: ***\n"),
            ("x = 1 # the box: Passord : hunter2 og mer\n", "x = 1 # the box: Passord : ***\n"),
            ("# access key: hunter2\r\n", "# access key: ***\r\n"),
            ("# API-Key: hunter2", "# API-Key: ***"),
            ("# PIN: 1234, PUK: 5678\n", "# PIN: ***\n"),
            ("# curl -H \"Authorization: Bearer abc.def\" x\n", "# curl -H \"Authorization: ***\n"),
            ("# Bearer eyJhbGciOiJIUzI1 works\n", "# Bearer *** works\n"),
            ("# curl -u joe:hunter2 http://h/x\n", "# curl -u joe:*** http://h/x\n"),
            ("# curl --user joe:hunter2\n", "# curl --user joe:***\n"),
            ("# psk: \u{e6}\u{f8}\u{e5}\n", "# psk: ***\n"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn what_says_nothing_secret_stays() {
        for text in [
            "# 10.0.3.7:502, unit 3: the pump. NMEA: see http://h/x. A basic meter, the bearer of news: 7\n",
            "# at 08:00 # once: more\n#:\n# :\n#\n",
            "x = \"password: not in a string\"\n",
            "# curl -u joe\n# -u\n",
        ] {
            assert_eq!(without_secrets(text), text);
        }
    }
}
