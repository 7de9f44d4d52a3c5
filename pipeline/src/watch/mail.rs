//! Telling by mail, over SMTP (RFC 5321) with STARTTLS (RFC 3207) or TLS from the start (RFC 8314).

pub mod message;
pub mod smtp;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use super::secret::{Secret, SecretError};

/// The environment's variable with the password.
pub const PASSWORD_VARIABLE: &str = "TJERN_MAIL_PASSWORD";

/// `[watch.mail]`: to whom events are mailed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSection {
    /// The server, `host:port`.
    #[serde(deserialize_with = "server")]
    pub server: String,
    /// How the line is kept from others' eyes.
    #[serde(default)]
    pub tls: Tls,
    /// Who sends.
    pub from: Address,
    /// Who receives.
    #[serde(deserialize_with = "receivers")]
    pub to: Vec<Address>,
    /// Whom the server knows.
    pub user: Option<String>,
    /// A file with the user's password.
    pub password_file: Option<PathBuf>,
}

/// How the line is kept from others' eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Plain at first, then TLS or nothing: port 587.
    #[default]
    StartTls,
    /// TLS from the start: port 465.
    Tls,
    /// Not at all: for a relay on this machine. A password is not sent then.
    None,
}

/// A mail address that cannot be mistaken for anything else in a command or a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its queue in the watch's state.
    #[must_use]
    pub fn way(&self) -> String {
        let hash = Sha256::digest(&self.0);
        let mark: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}:{mark}", super::tell::MAIL)
    }

    /// What stands behind the `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.rsplit('@').next().unwrap_or_default()
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |part: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte);
            !part.is_empty() && part.bytes().all(known)
        };
        match text.split_once('@') {
            Some((local, domain)) if text.len() <= 254 && plain(local) && plain(domain) => Ok(Self(text.to_owned())),
            _ => Err(format!("`{text}` is no mail address like vakt@example.org")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn server<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let port = text.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
    match port {
        Some(_) => Ok(text),
        None => Err(serde::de::Error::custom(format!("`{text}` is no mail server like smtp.example.org:587"))),
    }
}

fn receivers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Address>, D::Error> {
    let receivers = Vec::deserialize(deserializer)?;
    if receivers.is_empty() {
        return Err(serde::de::Error::custom("a mail needs somebody to receive it"));
    }
    Ok(receivers)
}

/// To whom events are mailed, and how.
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// As configured.
    pub section: MailSection,
    /// The user's password.
    pub password: Option<Secret>,
}

impl MailSection {
    /// With its password, given the folder of `tjern.toml`.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn settings(&self, folder: &Path) -> Result<MailSettings, SecretError> {
        let file = self.password_file.as_ref().map(|file| folder.join(file));
        let password = Secret::find(PASSWORD_VARIABLE, file.as_deref())?;
        Ok(MailSettings { section: self.clone(), password })
    }
}
