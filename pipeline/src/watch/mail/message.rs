//! A mail's text: RFC 5322 with a UTF-8 body in base64 (RFC 2045), the subject as encoded words (RFC 2047).
//! Pure: the time is given.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::MailSection;

/// How many characters of base64 stand in a line (RFC 2045, section 6.8).
const LINE: usize = 76;
/// How many bytes of text an encoded word holds: it may have 75 characters (RFC 2047, section 2).
const WORD: usize = 42;

/// A message, lines ended by CR LF. `id` makes it the same message when it is sent again.
#[must_use]
pub fn message(section: &MailSection, subject: &str, body: &str, id: &str, now_us: i64) -> String {
    let to: Vec<&str> = section.to.iter().map(super::Address::as_str).collect();
    let time = Timestamp::from_microsecond(now_us).unwrap_or_default().to_zoned(TimeZone::UTC);
    let date = time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
    let headers = [
        ("From", section.from.to_string()),
        ("To", to.join(",\r\n ")),
        ("Subject", encoded_words(subject)),
        ("Date", date),
        ("Message-ID", format!("<{id}@{}>", section.from.domain())),
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("MIME-Version", "1.0".to_owned()),
        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
        ("Content-Transfer-Encoding", "base64".to_owned()),
    ];
    let mut message: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    message.push_str("\r\n");
    let encoded = BASE64_STANDARD.encode(body.replace("\r\n", "\n").replace('\n', "\r\n"));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        message.push_str(line);
        message.push_str("\r\n");
        rest = tail;
    }
    message
}

/// No byte of the text reaches the header as it is: it cannot end it.
fn encoded_words(text: &str) -> String {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, tail) = rest.split_at(rest.floor_char_boundary(WORD));
        words.push(format!("=?utf-8?B?{}?=", BASE64_STANDARD.encode(word)));
        rest = tail;
    }
    words.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn section() -> MailSection {
        let text = "server = \"x:25\"\nfrom = \"tjern@example.org\"\nto = [\"a@example.org\", \"b@example.org\"]\n";
        toml::from_str(text).expect("valid")
    }

    #[test]
    fn a_message_is_this_to_the_byte() {
        let text = message(&section(), "Tjern: én målar er sein", "Sjøen\n", "abc", 1_795_348_800_000_000);
        let expected = [
            "From: tjern@example.org",
            "To: a@example.org,",
            " b@example.org",
            "Subject: =?utf-8?B?VGplcm46IMOpbiBtw6VsYXIgZXIgc2Vpbg==?=",
            "Date: Sun, 22 Nov 2026 12:00:00 +0000",
            "Message-ID: <abc@example.org>",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Transfer-Encoding: base64",
            "",
            "U2rDuGVuDQo=",
            "",
        ];
        assert_eq!(text, expected.join("\r\n"));
    }

    proptest! {
        /// Whatever a sensor is called: no line of ours is too long, nothing breaks out of its header, and no line
        /// begins with a dot, which would end the mail.
        #[test]
        fn nothing_breaks_out_of_a_message(subject in "\\PC*|(\r\n|[a-zæøå: ]){0,200}", body in "(\\PC|\n|\\.){0,500}") {
            let text = message(&section(), &subject, &body, "abc", 0);
            let lines: Vec<_> = text.split("\r\n").collect();
            let is_ours = |line: &&str| line.len() <= 78 && !line.starts_with('.') && line.is_ascii() && !line.contains(['\r', '\n']);
            prop_assert!(lines.iter().all(is_ours), "{}", text);
            let names: Vec<_> = lines.iter().take_while(|line| !line.is_empty())
                .filter(|line| !line.starts_with(' ')).filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
            prop_assert_eq!(names.len(), 9);
        }
    }
}
