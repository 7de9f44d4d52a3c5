//! Tokens that are about to expire, or have.

use std::time::Duration;

use jiff::Span;
use jiff::tz::TimeZone;

use super::super::alert::{Condition, Kind};
use super::super::settings::TokenSection;
use super::super::token::expiry_us;
use super::{length, local};

/// Tokens that end within `warning`, or of which nobody knows when.
#[must_use]
pub fn tokens(tokens: &[TokenSection], warning: Duration, now_us: i64, timezone: &TimeZone) -> Vec<Condition> {
    let warning_us = i64::try_from(warning.as_micros()).unwrap_or(i64::MAX);
    let told = tokens.iter().filter_map(|token| {
        let name = &token.name;
        let text = match end_us(token, timezone) {
            Ok(end_us) if end_us - now_us > warning_us => return None,
            Ok(end_us) if end_us > now_us => {
                format!("the token `{name}` expires in {}, {}", length(end_us - now_us), local(end_us, timezone))
            }
            Ok(end_us) => format!("the token `{name}` expired {}", local(end_us, timezone)),
            Err(why) => format!("nobody knows when the token `{name}` expires: {why}"),
        };
        Some(Condition { kind: Kind::Token, subject: name.clone(), text })
    });
    told.collect()
}

/// The earlier of what the configuration and the token itself say. Nothing of the token is in an error.
fn end_us(token: &TokenSection, timezone: &TimeZone) -> Result<i64, String> {
    let configured = token.expires.and_then(|date| {
        let after = date.checked_add(Span::new().days(1)).ok()?;
        Some(after.to_zoned(timezone.clone()).ok()?.timestamp().as_microsecond())
    });
    let own = match &token.file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
            expiry_us(&text)
        }
        None => None,
    };
    let end_us = [configured, own].into_iter().flatten().min();
    end_us.ok_or_else(|| "it does not say; hint: name its last day, `expires = \"2027-03-01\"`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::Date;

    const DAY: Duration = Duration::from_secs(86_400);
    /// 2026-11-22T12:00:00Z.
    const NOON_US: i64 = 1_795_348_800_000_000;

    fn told(expires: Option<Date>, file: Option<&str>) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = file.map(|text| {
            let path = folder.path().join("token");
            std::fs::write(&path, text).expect("written");
            path
        });
        let token = TokenSection { name: "lake".to_owned(), expires, file };
        tokens(&[token], DAY * 14, NOON_US, &TimeZone::UTC).into_iter().map(|condition| condition.text).collect()
    }

    #[test]
    fn a_token_is_told_two_weeks_ahead_and_when_it_is_over() {
        let date = |month, day| Some(Date::constant(2026, month, day));
        assert_eq!(told(date(12, 20), None), [""; 0]);
        assert_eq!(told(date(11, 30), None), ["the token `lake` expires in 8 d, 2026-12-01 00:00 UTC"]);
        assert_eq!(told(date(11, 21), None), ["the token `lake` expired 2026-11-22 00:00 UTC"]);
        // Its own word counts where it is earlier.
        let signature = "sv=1&se=2026-11-25T00:00:00Z&sig=canary";
        assert_eq!(told(date(12, 20), Some(signature)), ["the token `lake` expires in 2 d, 2026-11-25 00:00 UTC"]);
        let unknown = told(None, Some("canary"));
        assert!(unknown[0].contains("it does not say") && !unknown[0].contains("canary"), "{unknown:?}");
    }
}
