//! Telling by webhook: an HTTP POST with JSON, documented in `docs/watch.md`.
//!
//! The address may be a secret itself (incoming webhooks of chats are): it is never shown, not even in an error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::alert::Event;
use super::secret::{Secret, SecretError};

/// The environment's variable with the address.
pub const URL_VARIABLE: &str = "TJERN_WEBHOOK_URL";
/// The environment's variable with the bearer token.
pub const TOKEN_VARIABLE: &str = "TJERN_WEBHOOK_TOKEN";

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// `[watch.webhook]`: where events are posted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSection {
    /// The address, where it is no secret.
    #[serde(deserialize_with = "address")]
    pub url: Option<String>,
    /// A file with the address.
    pub url_file: Option<PathBuf>,
    /// A file with a token that is sent as `Authorization: Bearer …`.
    pub token_file: Option<PathBuf>,
}

/// What an address is to look like. What it was is not told: it may be a secret.
const ADDRESS: &str = "this is no address of a webhook: write one like \"https://chat.example.org/hook\"";

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_address(&text) { Ok(Some(text)) } else { Err(serde::de::Error::custom(ADDRESS)) }
}

/// Whether events can be posted there.
fn is_address(text: &str) -> bool {
    Url::parse(text.trim()).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Where events are posted.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// The address.
    pub url: Secret,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<Secret>,
}

impl WebhookSection {
    /// With its secrets, given the folder of `tjern.toml`.
    ///
    /// # Errors
    /// [`SecretError`], also where nobody names an address, or what is named is none.
    pub fn settings(&self, folder: &Path) -> Result<WebhookSettings, SecretError> {
        let file = |file: &Option<PathBuf>| file.as_ref().map(|file| folder.join(file));
        let url = match Secret::find(URL_VARIABLE, file(&self.url_file).as_deref())? {
            Some(secret) => secret,
            None => Secret::plain(self.url.as_deref().ok_or(SecretError::Missing {
                what: "the webhook has no address",
                hint: "name `url` or `url_file` in [watch.webhook], or set TJERN_WEBHOOK_URL",
            })?)?,
        };
        if !is_address(url.reveal()) {
            return Err(SecretError::Unfit {
                what: "what is named for the webhook's address is no address",
                hint: "write one like https://chat.example.org/hook into the file that `url_file` names, or into TJERN_WEBHOOK_URL",
            });
        }
        Ok(WebhookSettings { url, token: Secret::find(TOKEN_VARIABLE, file(&self.token_file).as_deref())? })
    }
}

/// Why a webhook was not told. The address is not in it.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It could not be reached.
    #[error("the webhook cannot be reached: {0}")]
    Unreachable(String),
    /// It answered, and not with a status of success.
    #[error("the webhook answered with status {0}")]
    Refused(u16),
}

/// Posts events: one request, all or none.
///
/// # Errors
/// [`WebhookError`].
pub async fn post(settings: &WebhookSettings, lake: &str, text: &str, events: &[Event]) -> Result<(), WebhookError> {
    let unreachable = |error: reqwest::Error| WebhookError::Unreachable(chain(&error.without_url()));
    let client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
    let client = client.user_agent(concat!("tjern/", env!("CARGO_PKG_VERSION"))).build().map_err(unreachable)?;
    let body = json!({ "format": 1, "lake": lake, "text": text, "events": events });
    let mut request =
        client.post(settings.url.reveal()).header("content-type", "application/json").body(body.to_string());
    if let Some(token) = &settings.token {
        request = request.bearer_auth(token.reveal());
    }
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(WebhookError::Refused(status.as_u16())) }
}

/// An error with its causes: reqwest's own text says little.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
