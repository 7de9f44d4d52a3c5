//! What must not be shown of a text: secrets that are known, in each form that they take on the way through a URL, a
//! JSON document or an error; and what only looks like one, since a store's answer may hold what nobody here knew
//! beforehand (a token that another server lent, sent back by a third).
//!
//! Invariant: what is left over of a secret is nothing; what is taken too much is a word in an error. Pure.

use std::fmt;
use std::ops::Range;

use url::Url;

use super::access::REDACTED;

/// A shorter value is no secret, and may stand in any text by chance.
const LEAST: usize = 6;

/// Headers of a request whose value lets somebody in, in small letters: to the end of their line.
const HEADERS: [&str; 5] =
    ["authorization", "x-amz-security-token", "x-aws-ec2-metadata-token", "x-identity-header", "cookie"];

/// Fields of forms, URLs and documents whose value lets somebody in, in small letters.
const FIELDS: [&str; 19] = [
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "client_secret",
    "client_assertion",
    "assertion",
    "webidentitytoken",
    "secretaccesskey",
    "sessiontoken",
    "private_key",
    "private_key_id",
    "password",
    "sig",
    "signature",
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "x-goog-signature",
];

/// Elements of a store's answer to a wrong key that have the request in them, as it was signed, in small letters; the last
/// ones byte by byte: to their end.
const ELEMENTS: [&str; 5] =
    ["signatureprovided", "stringtosign", "canonicalrequest", "stringtosignbytes", "canonicalrequestbytes"];

/// What Azure says of a wrong key; in quotes behind it is the signature.
const MAC_FOUND: &str = "signature found in the http request '";

/// What a reader of documents says of a text that it did not expect, before it quotes it; [`UNTIL`] follows.
const QUOTED: [&str; 3] = ["invalid type: string ", "invalid value: string ", "unknown variant "];
const UNTIL: &str = ", expected";

/// Names in such documents whose values let nobody in, and stand in the names of buckets and keys.
const PLAIN: [&str; 4] = ["project_id", "quota_project_id", "client_id", "universe_domain"];

/// Words of documents with credentials that are in every other text about that cloud, too.
const OF_ALL: [&str; 3] = ["service_account", "authorized_user", "googleapis.com"];

/// What is not to be shown, known once.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Of these texts those that are long enough. No address is one, as long as it has no question in it.
    pub(super) fn of(texts: impl IntoIterator<Item = String>) -> Self {
        let is_address = |text: &str| text.starts_with("https://") || text.starts_with("http://");
        let is_of_all = |text: &str| OF_ALL.contains(&text) || (is_address(text) && !text.contains(['?', '@', ' ']));
        let mut known: Vec<String> = texts.into_iter().filter(|text| text.len() >= LEAST && !is_of_all(text)).collect();
        // A secret may begin with another one.
        known.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        known.dedup();
        Self(known)
    }

    /// A text without these secrets, and without what looks like one.
    pub(super) fn scrub(&self, text: &str) -> String {
        let text = self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), REDACTED));
        without_shapes(&text)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} secrets", self.0.len())
    }
}

/// A secret, and how it can look elsewhere: in a URL; of a shared access signature each value; of a document (the key of
/// a service account) each text in it, and each line of a text.
pub(super) fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned(), encoded(value)];
    if value.contains("sig=") {
        let query = Url::parse(&format!("x://x/?{}", value.trim_start_matches('?')));
        let pairs = query.iter().flat_map(Url::query_pairs);
        let signature = pairs.filter(|(name, _)| name == "sig").map(|(_, value)| value.into_owned());
        forms.extend(signature.flat_map(|signature| [encoded(&signature), signature]));
    }
    forms.extend(texts_in(value).into_iter().flat_map(|text| [encoded(&text), text]));
    forms
}

/// The texts in quotes, however broken the document is, as they stand and as they are meant, and the lines of them. What is
/// in front of a colon is a name.
fn texts_in(document: &str) -> Vec<String> {
    let mut texts: Vec<String> = document.lines().map(|line| line.trim().to_owned()).collect();
    let (mut rest, mut name) = (document, "");
    while let Some((_, behind)) = rest.split_once('"') {
        let mut escaped = false;
        let end = behind.find(|character| {
            let is_end = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            is_end
        });
        let (text, after) = end.map_or((behind, ""), |end| (&behind[..end], &behind[end + 1..]));
        if after.trim_start().starts_with(':') {
            name = text;
        } else if !PLAIN.contains(&std::mem::take(&mut name)) {
            let meant = text.replace("\\n", "\n").replace("\\\"", "\"").replace("\\/", "/").replace("\\\\", "\\");
            texts.extend(meant.lines().map(|line| line.trim().to_owned()));
            texts.extend([text.to_owned(), meant]);
        }
        rest = after;
    }
    texts
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// A text without what looks like a secret.
fn without_shapes(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    for name in HEADERS {
        found.extend(
            values_of(&lower, name).map(|start| start..end_of(&lower, start, |byte| b"\r\n\"<\\".contains(&byte))),
        );
    }
    for name in FIELDS {
        found.extend(values_of(&lower, name).map(|start| start..end_of_word(&lower, start)));
    }
    for name in ELEMENTS {
        let begins = lower.match_indices(name).filter(|(place, _)| lower[..*place].ends_with('<'));
        let values = begins.map(|(place, _)| place + name.len()).filter(|end| lower[*end..].starts_with('>'));
        found.extend(values.map(|end| end + 1..end_of(&lower, end + 1, |byte| byte == b'<')));
    }
    found.extend(lower.match_indices(MAC_FOUND).map(|(place, words)| {
        let start = place + words.len();
        start..end_of(&lower, start, |byte| byte == b'\'')
    }));
    for (place, word) in lower.match_indices("bearer ") {
        let token = place + word.len()..end_of_word(&lower, place + word.len());
        found.extend(Some(token).filter(|token| token.len() >= LEAST));
    }
    // A token that says itself what it is: a JSON document in Base64 (RFC 7519).
    found.extend(text.match_indices("eyJ").map(|(start, _)| start..end_of_word(&lower, start)));
    for (start, _) in lower.match_indices("-----begin ") {
        let end = lower[start..].find("-----end ").map_or(lower.len(), |end| start + end);
        found.push(start..end);
    }
    for (place, words) in QUOTED.iter().flat_map(|words| lower.match_indices(words)) {
        let start = place + words.len();
        let line = end_of(&lower, start, |byte| byte == b'\n');
        found.push(start..lower[start..line].rfind(UNTIL).map_or(line, |end| start + end));
    }
    found.extend(lists_of_bytes(&lower));
    redact(text, found)
}

/// Where the values of a name begin that ends with it.
fn values_of<'text>(lower: &'text str, name: &'text str) -> impl Iterator<Item = usize> + 'text {
    let begins = |place: &usize| !lower[..*place].ends_with(|before: char| before.is_ascii_alphanumeric());
    lower.match_indices(name).map(|(place, _)| place).filter(begins).filter_map(move |place| {
        let after = lower[place + name.len()..].trim_start_matches(['"', '\'', '\\', ' ']);
        let value = after.strip_prefix([':', '=', '>']).or_else(|| after.strip_prefix("%3d"))?;
        Some(lower.len() - value.trim_start_matches(['"', '\'', '\\', ' ']).len())
    })
}

fn end_of_word(lower: &str, start: usize) -> usize {
    end_of(lower, start, |byte| byte.is_ascii_whitespace() || b"\"'`\\&<>,;(){}[]".contains(&byte))
}

/// Only ASCII ends a value: where it ends is a boundary.
fn end_of(lower: &str, start: usize, ends: impl Fn(u8) -> bool) -> usize {
    lower.bytes().skip(start).position(ends).map_or(lower.len(), |length| start + length)
}

/// Bytes as `Debug` has them: what cannot be parsed is shown so, by the reader of PEM among others.
fn lists_of_bytes(lower: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    lower.match_indices('[').filter_map(|(place, _)| {
        let start = place + 1;
        let ends = |part: char| !part.is_ascii_digit() && ![',', ' ', '\n'].contains(&part);
        // Errors are cut off now and then.
        let length = lower[start..].find(ends).unwrap_or(lower.len() - start);
        let list = &lower[start..start + length];
        (list.matches(',').count() >= LEAST).then_some(start..start + length)
    })
}

/// The text with a mark in the place of each.
fn redact(text: &str, mut found: Vec<Range<usize>>) -> String {
    found.retain(|range| !range.is_empty() && &text[range.clone()] != REDACTED);
    found.sort_by_key(|range| range.start);
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    for Range { start, end } in found {
        if start >= at {
            shown.push_str(&text[at..start]);
            shown.push_str(REDACTED);
        }
        at = at.max(end);
    }
    shown + &text[at..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A store that sends back what it was sent told a token that another server had lent for an hour.
    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        for (text, shown) in [
            ("PUT /x\r\nAuthorization: Bearer ya29.c4nary\r\nHost: x", "PUT /x\r\nAuthorization: ***\r\nHost: x"),
            ("{\"access_token\":\"c4nary\",\"expires_in\":1}", "{\"access_token\":\"***\",\"expires_in\":1}"),
            // As a container's own service lends: no other part of the name says what it is.
            ("{\"Token\" : \"c4nary\", \"Expiration\" : 1}", "{\"Token\" : \"***\", \"Expiration\" : 1}"),
            ("{\\\"access_token\\\": \\\"c4nary\\\"}", "{\\\"access_token\\\": \\\"***\\\"}"),
            ("GET http://x/?a=1&sig=c4n%2Fary&b=2", "GET http://x/?a=1&sig=***&b=2"),
            ("client_id=a&client_secret=c4nary", "client_id=a&client_secret=***"),
            ("<SecretAccessKey>c4nary</SecretAccessKey>", "<SecretAccessKey>***</SecretAccessKey>"),
            // As S3 answers who has a wrong key, and Azure.
            (
                "<SignatureProvided>c4nary</SignatureProvided><CanonicalRequestBytes>63 34 6e</CanonicalRequestBytes>",
                "<SignatureProvided>***</SignatureProvided><CanonicalRequestBytes>***</CanonicalRequestBytes>",
            ),
            (
                "The MAC signature found in the HTTP request 'c4nary=' is not the same as any computed signature.",
                "The MAC signature found in the HTTP request '***' is not the same as any computed signature.",
            ),
            ("the token eyJhbGciOi.eyJpc3Mi.c4nary is bad", "the token *** is bad"),
            ("x -----BEGIN PRIVATE KEY-----\nc4nary\n-----END PRIVATE KEY----- y", "x ***-----END PRIVATE KEY----- y"),
            (
                "invalid type: string \"c4nary\", expected u64 at line 1",
                "invalid type: string ***, expected u64 at line 1",
            ),
            ("unknown variant `c4nary`, expected `a` or `b`", "unknown variant ***, expected `a` or `b`"),
            ("section start: [45, 45, 45, 45, 45, 66, 69, 71] y", "section start: [***] y"),
            ("section start: [\n    45,\n    45,\n    45,\n    45,\n    66,\n    69,\n]", "section start: [***]"),
            ("section start: [45, 45, 45, 45, 45, 66, 69, 7", "section start: [***"),
        ] {
            assert_eq!(without_shapes(text), shown);
            assert_eq!(without_shapes(shown), shown, "once is enough");
        }
    }

    #[test]
    fn what_is_none_stays() {
        for text in [
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT for a store of your own)",
            "SignatureDoesNotMatch: the request signature we calculated does not match",
            "cannot open the lake: missing field `private_key` at line 1 column 2",
            "units [1, 2, 3] design = 7, a bearer of news",
            "ExpiredToken: the provided token has expired",
        ] {
            assert_eq!(without_shapes(text), text);
        }
    }

    #[test]
    fn each_text_of_a_document_is_a_secret_however_broken_it_is() {
        let key = "{\"type\": \"service_account\", \"private_key\": \"-----BEGIN\\nc4nary/line\\n-----END\", \"n\": \"c4nary two";
        let forms = forms(key);
        for form in ["c4nary/line", "c4nary%2Fline", "-----BEGIN\\nc4nary/line\\n-----END", "c4nary two"] {
            assert!(forms.iter().any(|known| known == form), "{form} of {forms:?}");
        }
        assert!(!forms.iter().any(|known| known == "private_key"), "a name is none: {forms:?}");
    }

    /// "error sending request for url (***)" helped nobody.
    #[test]
    fn what_every_text_about_a_cloud_has_is_told() {
        let key = "{\"type\": \"service_account\", \"private_key\": \"c4nary\", \"project_id\": \"bodo-sensors\", \"token_uri\": \"https://oauth2.googleapis.com/token\", \"universe_domain\": \"googleapis.com\"}";
        let secrets = Secrets::of(forms(key));
        let text = "no service_account at https://oauth2.googleapis.com/token of bodo-sensors-lake with c4nary";
        assert_eq!(secrets.scrub(text), text.replace("c4nary", "***"));
        assert!(!format!("{secrets:?}").contains("c4nary"));
        let signed = Secrets::of(["https://x/?sig=c4nary".to_owned()]);
        assert_eq!(signed.scrub("at https://x/?sig=c4nary"), "at ***");
    }

    proptest! {
        #[test]
        fn any_text_can_be_gone_over(text in "(\\PC|[\"<>\\[\\], \n]|sig=|eyJ|Bearer |Authorization: |-----BEGIN ){0,40}") {
            let shown = Secrets::of(forms(&text)).scrub(&text);
            prop_assert!(text.len() < LEAST || shown.contains(REDACTED), "{shown}");
            let _ = without_shapes(&text);
        }
    }
}
