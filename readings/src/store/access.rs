//! How a cloud is reached: variables by the names that `object_store` gives them, from the environment and
//! from whoever opens the store, whose own stand over the environment's.
//!
//! What is secret in them is never shown: not by `Debug`, and not in a text that [`Access::scrub`] went over.

use std::fmt;
use std::time::Duration;

use url::Url;

use super::LakeUrl;

/// Variables that are meant for a cloud begin with one of these, in small letters.
pub const PREFIXES: [&str; 3] = ["aws_", "azure_", "google_"];

/// Names with one of these in them have values that nobody may see.
const SECRET_NAMES: [&str; 7] = ["key", "secret", "token", "sas", "password", "credential", "service_account"];

/// A shorter value is no secret, and may stand in any text by chance.
const SECRET_LEAST: usize = 6;

/// What stands in the place of a secret.
pub const REDACTED: &str = "***";

/// What is needed to reach a cloud, besides its URL.
#[derive(Clone, Default)]
pub struct Access {
    /// Names in small letters; a later one stands over an earlier one.
    variables: Vec<(String, String)>,
    /// How long a request may take, where that is not the client's own 30 s.
    timeout: Option<Duration>,
}

impl Access {
    /// What the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::default().with_variables(variables)
    }

    /// The same with variables that stand over those it has. Only those of clouds are taken.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
        self.variables.extend(variables.filter(|(name, _)| PREFIXES.iter().any(|known| name.starts_with(known))));
        self
    }

    /// The same with requests that may take so long.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long a request may take.
    #[must_use]
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.variables.iter().cloned()
    }

    /// What is missing to reach this lake, and where it goes, if anything obviously is: a cloud's own
    /// machines are let in without any of it.
    #[must_use]
    pub fn missing(&self, lake: &LakeUrl) -> Option<&'static str> {
        let has = |part: &str| self.variables.iter().any(|(name, value)| name.contains(part) && !value.is_empty());
        let scheme = lake.url().scheme();
        let let_in = match scheme {
            "s3" => ["access_key_id", "web_identity", "container_credentials", "skip_signature"].as_slice(),
            "az" => &["_key", "sas", "client_", "token", "identity", "use_azure_cli", "skip_signature", "emulator"],
            "gs" => &["service_account", "application_credentials", "skip_signature"],
            _ => return None,
        };
        if let_in.iter().any(|part| has(part)) {
            return None;
        }
        Some(match scheme {
            "s3" => {
                "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT for a store of your own) in the environment; a gateway may have them in the file of `[upload] credentials_file`"
            }
            "az" => {
                "there are no credentials: set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY in the environment; a gateway may have them in the file of `[upload] credentials_file`"
            }
            _ => {
                "there are no credentials: set GOOGLE_SERVICE_ACCOUNT (a file) in the environment; a gateway may have it in the file of `[upload] credentials_file`"
            }
        })
    }

    /// A text without the secrets of these variables, also where they stand in it as a URL has them.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut secrets: Vec<String> = self.secrets().filter(|secret| secret.len() >= SECRET_LEAST).collect();
        // A secret may begin with another one.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), REDACTED))
    }

    fn secrets(&self) -> impl Iterator<Item = String> + '_ {
        let is_secret = |name: &str| SECRET_NAMES.iter().any(|part| name.contains(part));
        self.variables.iter().filter(move |(name, _)| is_secret(name)).flat_map(|(_, value)| forms(value))
    }
}

/// A secret, and how it can look in a URL: as a whole, and, of a shared access signature, each value.
fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned(), encoded(value)];
    if value.contains("sig=") {
        let query = Url::parse(&format!("x://x/?{}", value.trim_start_matches('?')));
        let pairs = query.iter().flat_map(Url::query_pairs);
        let signature = pairs.filter(|(name, _)| name == "sig").map(|(_, value)| value.into_owned());
        forms.extend(signature.flat_map(|signature| [encoded(&signature), signature]));
    }
    forms
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.variables.iter().map(|(name, _)| name.as_str()).collect();
        formatter.debug_struct("Access").field("names", &names).field("timeout", &self.timeout).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(variables: &[(&str, &str)]) -> Access {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Access::default().with_variables(owned)
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        let lake = |text: &str| text.parse::<LakeUrl>().expect("a lake");
        for (url, name) in [("s3://b", "AWS_SECRET_ACCESS_KEY"), ("az://c", "AZURE_STORAGE_ACCOUNT_KEY")] {
            let hint = access(&[("AWS_REGION", "x")]).missing(&lake(url)).expect("a hint");
            assert!(hint.contains(name) && hint.contains("credentials_file"), "{hint}");
        }
        assert_eq!(access(&[("AWS_ACCESS_KEY_ID", "x")]).missing(&lake("s3://b")), None);
        assert_eq!(access(&[]).missing(&lake("file:///var/lake")), None);
    }

    #[test]
    fn no_form_of_a_secret_is_left_in_a_text() {
        let access = access(&[
            ("AWS_SECRET_ACCESS_KEY", "ab/cd+ef=="),
            ("AZURE_STORAGE_SAS_TOKEN", "?sv=2024&sig=q%2Bw%2Fe123"),
            ("AWS_REGION", "eu-north-1"),
        ]);
        let text = "PUT https://x/?sv=2024&sig=q%2Bw%2Fe123 ab/cd+ef== ab%2Fcd%2Bef%3D%3D q+w/e123 eu-north-1";
        let scrubbed = access.scrub(text);
        for part in ["cd+ef", "cd%2Bef", "q%2Bw", "q+w"] {
            assert!(!scrubbed.contains(part), "{part} in {scrubbed}");
        }
        assert!(scrubbed.ends_with("eu-north-1"), "{scrubbed}");
        assert!(!format!("{access:?}").contains("ab/cd"));
    }
}
