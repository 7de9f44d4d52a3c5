//! A lake on another machine that is asked without TLS, for a person who asks. Nothing is asked of the lake.
//!
//! Limit: what the environment of whoever asks says, and a file of credentials that he may read. A pipe is left alone: what it
//! says can be read once.

use std::fmt;
use std::path::PathBuf;

use tjern_readings::store::LakeUrl;

use super::credentials::Credentials;

/// Who is asked without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlainLake {
    host: String,
}

impl PlainLake {
    /// What to do about it.
    pub(crate) const HINT: &str = "give the store a certificate and write its endpoint with https; \
         an authority of your own goes into a file that SSL_CERT_FILE names";

    /// The host of this lake, where it is asked without TLS and is another machine.
    pub(crate) fn of(lake: &LakeUrl, credentials_file: Option<PathBuf>) -> Option<Self> {
        let access = Credentials::new(credentials_file).access_without_pipes(lake);
        access.plain_host(lake).map(|host| Self { host })
    }
}

impl fmt::Display for PlainLake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host } = self;
        write!(
            formatter,
            "the lake is asked without TLS at `{host}`: whoever is on the way reads what is sent, credentials that go with it too, and can answer in its place"
        )
    }
}
