//! When a token ends: by its configuration, or by its own word.
//!
//! A JSON Web Token says so in the claim `exp` (RFC 7519, section 4.1.4), a shared access signature of Azure in
//! its parameter `se`. Neither is verified: what counts is when the other side will refuse it. Pure.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

/// When a token ends, in microseconds since 1970; `None` where it does not say.
#[must_use]
pub fn expiry_us(token: &str) -> Option<i64> {
    web_token_us(token.trim()).or_else(|| signature_us(token.trim()))
}

fn web_token_us(token: &str) -> Option<i64> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let Claims { exp } = serde_json::from_slice(&bytes).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds; a cast saturates")]
    let seconds = exp as i64;
    Some(seconds.saturating_mul(1_000_000))
}

fn signature_us(token: &str) -> Option<i64> {
    let query = token.rsplit('?').next().unwrap_or(token);
    let has = |name: &str| query.split('&').any(|pair| pair.starts_with(name));
    let end = query.split('&').find_map(|pair| pair.strip_prefix("se="))?;
    let end = end.replace("%3A", ":").replace("%3a", ":");
    let time = end.parse::<Timestamp>().ok().or_else(|| {
        // A day without a time is its beginning in UTC.
        format!("{end}T00:00:00Z").parse().ok()
    });
    time.filter(|_| has("sig=")).map(Timestamp::as_microsecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_say_when_they_end() {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"x","exp":1800000000}"#);
        assert_eq!(expiry_us(&format!("e30.{claims}.c2ln\n")), Some(1_800_000_000_000_000));
        let signature = "?sv=2024-11-04&se=2027-01-15T08%3A00%3A00Z&sp=rl&sig=abc";
        assert_eq!(expiry_us(signature), Some(1_800_000_000_000_000));
        assert_eq!(expiry_us("sv=1&se=2027-01-15&sig=abc"), Some(1_799_971_200_000_000));
        for other in ["", "a.b.c", "secret", "se=2027-01-15", "e30.e30.c2ln"] {
            assert_eq!(expiry_us(other), None, "{other}");
        }
    }
}
