//! How a lake's store is opened: one URL, one [`ObjectStore`] whose root is the lake.
//!
//! `file:///…` is a folder on this machine, where a put has succeeded only once the file and its
//! folder are on disk (see [`local`]); `s3://bucket/prefix`, `az://container/prefix` and
//! `gs://bucket/prefix` are clouds, whose credentials come from the environment and never from the
//! URL. `memory:///` is for tests. Whatever it is, an answer that was cut is an error (`whole`), and who
//! writes finds out first that creating twice is refused ([`proof`]). No error of a cloud shows what lets somebody in
//! (`discreet`).

pub mod access;
pub mod counted;
pub mod credentials;
mod discreet;
mod hints;
pub mod local;
mod place;
pub mod proof;
mod secret;
mod whole;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use serde::Deserialize;
use url::Url;

use crate::configuration::without_secrets;
pub use access::Access;
use counted::Counted;
pub use counted::{RequestCounts, Requests};
use discreet::{Discreet, without_secrets as without_secrets_of};
pub use hints::{hint, is_refusal};
use local::SyncedFolder;
pub use proof::ProofError;
use whole::WholeAnswers;

/// How often a request to a cloud is repeated before it fails. Whoever asked knows better what to do
/// next: a gateway keeps its spool and tries later, a person reads what is wrong.
const RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 },
    max_retries: 4,
    retry_timeout: Duration::from_secs(30),
};

/// A lake's place: a URL that was held against what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeUrl(Url);

/// An open store. Keys are relative to the lake's root.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    requests: Requests,
    url: LakeUrl,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The text is no URL of a lake.
    #[error(
        "`{text}` is no lake: {what}; hint: write file:///absolute/folder, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix"
    )]
    Url {
        /// The text, without what could be a password in it.
        text: String,
        /// What is wrong.
        what: String,
    },
    /// The store refused to be opened.
    #[error(
        "cannot open the lake `{url}`: {source}; hint: {}",
        .hint.unwrap_or("how a cloud is reached is said by the variables AWS_…, AZURE_…, GOOGLE_… of the environment: docs/configuration.md")
    )]
    Open {
        /// What is missing, where that is known.
        hint: Option<&'static str>,
        /// Which lake.
        url: LakeUrl,
        /// Why.
        source: Box<object_store::Error>,
    },
    /// A variable has a value that no request can carry.
    #[error(
        "cannot open the lake `{url}`: the value of {name} holds what no request can carry; hint: is there a line's end behind it, or a letter beyond ASCII in it?"
    )]
    Value {
        /// Which lake.
        url: LakeUrl,
        /// The variable.
        name: Box<str>,
    },
    /// A variable with the store's address has none.
    #[error("cannot open the lake `{url}`: {what}; hint: write https://host, or https://host:port")]
    Endpoint {
        /// Which lake.
        url: LakeUrl,
        /// The variable, its value without what could be a password in it, and what is wrong with it.
        what: Box<str>,
    },
    /// There is no such folder, and who asked makes none.
    #[error("there is no folder `{path}`: {source}; hint: is it written right, and is its disk mounted?")]
    Absent {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder cannot be had.
    #[error("cannot create the lake's folder `{path}`: {source}; hint: create it, or give this user the right to")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl LakeUrl {
    /// The lake in a folder of this machine.
    ///
    /// # Errors
    /// [`StoreError::Url`] where the folder's path is not absolute.
    pub fn folder(path: &std::path::Path) -> Result<Self, StoreError> {
        let refused =
            |()| StoreError::Url { text: path.display().to_string(), what: "the path is not absolute".into() };
        Url::from_directory_path(path).map(Self).map_err(refused)
    }

    /// The URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.0
    }

    /// The folder, where the lake is one of this machine.
    #[must_use]
    pub fn local_folder(&self) -> Option<PathBuf> {
        (self.0.scheme() == "file").then(|| self.0.to_file_path().ok()).flatten()
    }
}

impl std::str::FromStr for LakeUrl {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let refused = |text: &str, what: &str| StoreError::Url { text: without_secrets(text), what: what.to_owned() };
        let mut url = Url::parse(text).map_err(|error| refused(text, &error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            url.set_query(None);
            let _ = url.set_username("").and_then(|()| url.set_password(None));
            return Err(refused(url.as_str(), "credentials and options come from the environment, not from the URL"));
        }
        match url.scheme() {
            "memory" => {}
            "file" if url.to_file_path().is_ok() => {}
            "file" => return Err(refused(text, "a local lake needs an absolute path after file://")),
            "s3" | "az" | "gs" if url.host_str().is_some() => {}
            "s3" | "az" | "gs" => return Err(refused(text, "the bucket is missing")),
            _ => return Err(refused(text, "its scheme is not known")),
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }
}

impl std::fmt::Display for LakeUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for LakeUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Store {
    /// Opens a lake's store. A local folder is created; a cloud is not contacted yet.
    ///
    /// # Errors
    /// [`StoreError::Folder`] where a local folder cannot be had, [`StoreError::Open`] where the
    /// environment does not say how to reach a cloud.
    pub fn open(url: &LakeUrl) -> Result<Self, StoreError> {
        Self::open_with(url, &Access::from_environment())
    }

    /// The same, with what is needed to reach a cloud from elsewhere. No error of the store shows it, nor do the files that it
    /// names: they are read here, as work that blocks.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(url: &LakeUrl, access: &Access) -> Result<Self, StoreError> {
        let objects: Arc<dyn ObjectStore> = match url.local_folder() {
            Some(path) => {
                let refused = |source| StoreError::Folder { path: path.clone(), source };
                Arc::new(SyncedFolder::create(&path).map_err(refused)?)
            }
            None => open_remote(url, access)?,
        };
        Ok(Self::over(objects, url.clone()))
    }

    /// The same for who only reads: a folder that is not there is an error, and nothing is created in one that is.
    ///
    /// # Errors
    /// As [`Store::open`]; [`StoreError::Absent`].
    pub fn open_there(url: &LakeUrl, access: &Access) -> Result<Self, StoreError> {
        let Some(path) = url.local_folder() else { return Self::open_with(url, access) };
        let absent = |source| StoreError::Absent { path: path.clone(), source };
        let objects = Arc::new(SyncedFolder::open(&path).map_err(absent)?);
        Ok(Self::over(objects, url.clone()))
    }

    /// The same where a folder that is not there is as good as an empty one.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn look(url: &LakeUrl, access: &Access) -> Result<Self, StoreError> {
        match Self::open_there(url, access) {
            Err(StoreError::Absent { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::over(Arc::new(InMemory::new()), url.clone()))
            }
            opened => opened,
        }
    }

    /// A store over objects that were opened elsewhere: a test's own, or a wrapped one.
    #[must_use]
    pub fn over(objects: Arc<dyn ObjectStore>, url: LakeUrl) -> Self {
        let requests = Requests::default();
        let objects = Arc::new(Counted::new(WholeAnswers::of(objects), requests.clone()));
        Self { objects, requests, url }
    }

    /// The requests that were made through this store and its clones, by kind.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.requests.counts()
    }

    /// The objects, keyed from the lake's root.
    #[must_use]
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// Where the lake is.
    #[must_use]
    pub const fn url(&self) -> &LakeUrl {
        &self.url
    }
}

fn open_remote(url: &LakeUrl, access: &Access) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let hint = access.missing(url);
    // What cannot be parsed is shown by those who tried, whatever it is: the key of a service account, too.
    let secrets = Arc::new(access.secrets(url));
    let refused = |source| {
        let source = Box::new(without_secrets_of(source, &secrets));
        StoreError::Open { hint, url: url.clone(), source }
    };
    if let Some(name) = access.unsendable(url) {
        return Err(StoreError::Value { url: url.clone(), name: name.to_ascii_uppercase().into() });
    }
    if let Some((name, text, what)) = access.wrong_endpoint(url) {
        let (name, text) = (name.to_ascii_uppercase(), secrets.scrub(&without_secrets(text)));
        return Err(StoreError::Endpoint {
            url: url.clone(),
            what: format!("{name} is `{text}`, no address: {what}").into(),
        });
    }
    let (_, prefix) = ObjectStoreScheme::parse(url.url()).map_err(|error| refused(error.into()))?;
    let cloud = open_cloud(url.url(), access).map_err(refused)?;
    Ok(Discreet::of(Arc::new(PrefixStore::new(cloud, prefix)), secrets))
}

/// Opens a cloud's store. What the environment says and the store does not know is left alone, as it
/// may be meant for other programs.
fn open_cloud(url: &Url, access: &Access) -> object_store::Result<Arc<dyn ObjectStore>> {
    let client = access.timeout().map_or_else(ClientOptions::new, |limit| ClientOptions::new().with_timeout(limit));
    let retries = RetryConfig { max_retries: if access.asks_once() { 0 } else { RETRIES.max_retries }, ..RETRIES };
    macro_rules! build {
        ($builder:ty) => {{
            let builder =
                <$builder>::new().with_url(url.as_str()).with_retry(retries.clone()).with_client_options(client);
            let configured = access.variables().fold(builder, |builder, (key, value)| match key.parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            });
            Ok(Arc::new(configured.build()?))
        }};
    }
    match url.scheme() {
        "s3" => build!(AmazonS3Builder),
        "az" => build!(MicrosoftAzureBuilder),
        "gs" => build!(GoogleCloudStorageBuilder),
        _ => Ok(Arc::new(InMemory::new())),
    }
}

/// Whether a cloud's store knows a variable of this name (in small letters).
#[must_use]
pub fn knows(url: &LakeUrl, name: &str) -> bool {
    match url.url().scheme() {
        "s3" => name.parse::<AmazonS3ConfigKey>().is_ok(),
        "az" => name.parse::<AzureConfigKey>().is_ok(),
        "gs" => name.parse::<GoogleConfigKey>().is_ok(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
