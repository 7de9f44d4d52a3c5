//! Why a round of uploads was not finished, in the words that a person reads. No error has a secret in it.

use std::sync::Arc;

use tjern_readings::store::credentials::CredentialsError;
use tjern_readings::store::{ProofError, StoreError};

use super::known_lake::KnownLakeError;
use super::line;
use super::opening::{CREDENTIALS_PATIENCE, PROOF_PATIENCE};
use crate::spool::SpoolError;

/// Why a round of uploads was not finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error(transparent)]
    Open(#[from] Box<StoreError>),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    CredentialsFile(#[from] Arc<CredentialsError>),
    #[error(
        "the file of the lake's credentials does not answer within {} s; hint: is it on a server that is gone, or a pipe that nobody writes to? put a file in its place and reload", CREDENTIALS_PATIENCE.as_secs()
    )]
    CredentialsSilent,
    #[error(transparent)]
    KnownLake(#[from] Box<KnownLakeError>),
    #[error(transparent)]
    Proof(#[from] Box<ProofError>),
    #[error("cannot put `{key}` into the lake: {source}")]
    Put { key: object_store::path::Path, source: object_store::Error },
    #[error("cannot read `{key}` in the lake: {source}")]
    Get { key: object_store::path::Path, source: object_store::Error },
    #[error("cannot list `{key}` in the lake: {source}")]
    List { key: object_store::path::Path, source: object_store::Error },
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("the lake does not answer within {} s", PROOF_PATIENCE.as_secs())]
    Silent,
    #[error("the spool could not begin a new epoch")]
    Renewal,
    #[error("opening the lake was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

impl UploadError {
    /// The store's own word, where it had one.
    pub(super) const fn of_store(&self) -> Option<&object_store::Error> {
        match self {
            Self::Put { source, .. } | Self::Get { source, .. } | Self::List { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether it is a file of credentials that does not answer.
    pub(super) fn is_silent_file(&self) -> bool {
        match self {
            Self::CredentialsSilent => true,
            Self::CredentialsFile(error) => matches!(**error, CredentialsError::Silent { .. }),
            _ => false,
        }
    }

    /// Whether a request took so long that it was given up.
    pub(super) fn is_timeout(&self) -> bool {
        self.of_store().is_some_and(line::is_timeout)
    }
}
