//! How the lake is opened: it is the one that it was, its credentials are read, and its store keeps what it says.
//!
//! Nothing here holds up a bus: what may wait for a disk or a server is done on a thread of its own, with a bound on the wait.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use tjern_readings::keys;
use tjern_readings::store::{self, Access, LakeUrl, ProofError, Store};

use super::known_lake::{self, KnownLakeError};
use super::line::unbroken;
use super::reading;
use super::{UploadError, Uploader};

/// A few requests without bytes show what a store does; a link that is slow takes a while for them.
pub(super) const PROOF_PATIENCE: Duration = Duration::from_secs(90);

/// So long a file of credentials may take to be read, as one of configuration may.
pub(super) const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(10);

impl Uploader {
    /// After a refusal, or where the file has another text, the lake is opened with what it says now.
    pub(super) async fn consider_credentials(&mut self, error: &UploadError) {
        let refused = error.of_store().is_some_and(store::is_refusal);
        // One that does not answer is asked again with the next attempt, and what a pipe says then is not read here in vain.
        let changed = !error.is_silent_file() && self.credentials_have_changed().await;
        if self.settings.store.is_none() && (refused || changed) {
            self.store = None;
            if changed {
                tracing::info!("the lake's credentials have changed: they are read again");
                self.backoff.reset();
            }
        }
    }

    /// Whether the file has another text than when it was read; not, where it does not answer.
    async fn credentials_have_changed(&self) -> bool {
        let Some(file) = self.credentials.may_have_changed() else { return false };
        match timeout(CREDENTIALS_PATIENCE, reading::said(file)).await {
            Ok(Some(Ok(said))) => self.credentials.is_other(&said),
            _ => false,
        }
    }

    pub(super) async fn open(&mut self) -> Result<Store, UploadError> {
        self.known_lake(known_lake::check).await?;
        let store = match &self.store {
            Some(store) => store.clone(),
            None => self.open_anew().await?,
        };
        self.known_lake(known_lake::remember).await?;
        self.is_known_lake = true;
        Ok(store)
    }

    /// Looks at the lake's folder, until it is known to be the one that it was. It may lie on a disk that does not answer.
    async fn known_lake(&self, look: fn(&Path, &LakeUrl) -> Result<(), KnownLakeError>) -> Result<(), UploadError> {
        let Some(file) = self.settings.known_lake.clone().filter(|_| !self.is_known_lake) else { return Ok(()) };
        // A spool that is away remembers no lake, and every folder would do.
        self.spool.is_at_hand().await?;
        let lake = self.settings.lake.clone();
        let _waits = self.settings.state.ask();
        Ok(tokio::task::spawn_blocking(move || look(&file, &lake).map_err(Box::new)).await??)
    }

    async fn open_anew(&mut self) -> Result<Store, UploadError> {
        let lake = self.settings.lake.clone();
        let limits = self.settings.limits;
        let access = self.read_credentials().await?.with_timeout(limits.request_timeout());
        // What the client repeats by itself would pass beside the rate.
        let access = access.asking_once(limits.bytes_per_s.is_some());
        if let Some(host) = access.plain_host(&lake)
            && !std::mem::replace(&mut self.settings.is_forgeable, true)
        {
            tracing::warn!(%lake, host, "the lake is asked without TLS: others can read what is sent, and answer in its place, so that each batch is looked at once more; hint: use an endpoint with https");
        }
        // A folder is created and synced: work that blocks.
        let opening = tokio::task::spawn_blocking(move || Store::open_with(&lake, &access).map_err(Box::new));
        let store = {
            let _waits = self.settings.state.ask();
            opening.await??
        };
        self.prove(&store).await?;
        self.store = Some(store.clone());
        Ok(store)
    }

    /// The credentials as they are now; an error where they are not there in time. The next attempt waits on.
    async fn read_credentials(&mut self) -> Result<Access, UploadError> {
        let said = match self.credentials.file() {
            Some(file) => {
                let _waits = self.settings.state.ask_for();
                let said = timeout(CREDENTIALS_PATIENCE, reading::said(file)).await.ok().flatten();
                Some(said.ok_or(UploadError::CredentialsSilent)??)
            }
            None => None,
        };
        Ok(self.credentials.take(said, &self.settings.lake)?)
    }

    /// Nothing goes to a store that would let another gateway of this name overwrite it. A store that was
    /// opened elsewhere is its opener's to know.
    async fn prove(&mut self, store: &Store) -> Result<(), UploadError> {
        if !self.proven {
            let key = keys::source_proof(&self.settings.source);
            let proof = unbroken(async { Ok(store.prove_create_only(&key).await) });
            let proof = tokio::time::timeout(PROOF_PATIENCE, proof).await.map_err(|_| UploadError::Silent)?;
            let proof = proof.map_err(|source| UploadError::Put { key: key.clone(), source })?;
            let puts = proof.map_err(|error| match error {
                ProofError::Open { key, source, .. } => UploadError::Put { key, source: *source },
                careless => Box::new(careless).into(),
            })?;
            (0..puts).for_each(|_| self.settings.state.count_request());
            self.proven = true;
        }
        Ok(())
    }
}
