//! Upload: sealed objects from the spool to the landing zone, each once.
//!
//! Every `every` the spool seals what it has, and all that is sealed goes out, oldest first, at most
//! [`IN_FLIGHT_MAX`] at once. An object leaves the spool only when the lake has it, which is *put and
//! accepted*, or *already there and the same*. After a failure the pause grows, with jitter; the gateway
//! polls on, and one line says that the lake is away and one that it is back.
//!
//! A spool that finds another's objects under its own numbers is a copy. That is looked for at the
//! first contact of a run, by listing what lies past the spool's numbers, and with every put. It then
//! begins a new epoch for everything that was not sent ([`Spool::renew_epoch`]).
//!
//! Nothing here ends the process. What cannot be sent when the gateway stops stays for its next start.

mod backoff;
mod contact;
mod landing;

use std::time::Duration;

use futures::{StreamExt, stream};
use object_store::ObjectStore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use tjern_readings::batch;
use tjern_readings::keys::Landed;
use tjern_readings::sensor::SourceName;
use tjern_readings::store::{LakeUrl, Store, StoreError};

use crate::spool::{SealedKind, SealedObject, Spool, SpoolError};
use backoff::Backoff;
use landing::Outcome;

/// The most objects that are under way at once.
pub const IN_FLIGHT_MAX: usize = 4;

/// How long a gateway that stops goes on uploading.
pub const FINAL_PATIENCE: Duration = Duration::from_secs(10);

/// Where readings go, and how often.
#[derive(Debug, Clone)]
pub struct UploadSettings {
    /// The lake.
    pub lake: LakeUrl,
    /// Who sends them: the same as the spool's.
    pub source: SourceName,
    /// How often batches are sealed and sent.
    pub every: Duration,
    /// SHA-256 (hex) and text, without secrets, of the configuration that the batches name.
    pub configuration: Option<(String, String)>,
    /// The lake's store where it is open already; otherwise it is opened when it is first needed.
    pub store: Option<Store>,
}

/// Why a round of uploads was not finished.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Open(#[from] Box<StoreError>),
    #[error("cannot put `{key}` into the lake: {source}")]
    Put { key: object_store::path::Path, source: object_store::Error },
    #[error("cannot read `{key}` in the lake: {source}")]
    Get { key: object_store::path::Path, source: object_store::Error },
    #[error("cannot list `{key}` in the lake: {source}")]
    List { key: object_store::path::Path, source: object_store::Error },
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("the spool could not begin a new epoch")]
    Renewal,
    #[error("opening the lake was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

/// Seals and uploads until `stop`, then once more for at most [`FINAL_PATIENCE`].
pub async fn run(spool: Spool, settings: UploadSettings, stop: CancellationToken) {
    let mut uploader = Uploader::new(spool.clone(), settings);
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(FINAL_PATIENCE).await;
    };
    tokio::select! {
        () = uploader.until(&stop) => {}
        () = patience => {}
    }
    let waiting = spool.sealed().await.len();
    if waiting > 0 {
        tracing::warn!(waiting, "not everything is uploaded; it stays in the spool for the next start");
    }
}

struct Uploader {
    spool: Spool,
    settings: UploadSettings,
    store: Option<Store>,
    backoff: Backoff,
    /// Whether the lake answered last; unknown at first.
    reachable: Option<bool>,
    contacted: bool,
    configuration_sent: bool,
}

impl Uploader {
    fn new(spool: Spool, settings: UploadSettings) -> Self {
        Self {
            store: settings.store.clone(),
            backoff: Backoff::new(settings.every),
            spool,
            settings,
            reachable: None,
            contacted: false,
            configuration_sent: false,
        }
    }

    async fn until(&mut self, stop: &CancellationToken) {
        loop {
            let began = Instant::now();
            let is_last = stop.is_cancelled();
            let result = Box::pin(self.round()).await;
            self.note(&result);
            if is_last {
                return;
            }
            let pause = match result {
                Ok(()) => self.settings.every.saturating_sub(began.elapsed()),
                Err(_) => self.backoff.next_pause(),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Says when the lake goes away and when it comes back, and nothing in between.
    fn note(&mut self, result: &Result<(), UploadError>) {
        match result {
            Ok(()) => {
                self.backoff.reset();
                if self.reachable != Some(true) {
                    tracing::info!(lake = %self.settings.lake, "the lake is reached");
                }
            }
            Err(error) if self.reachable != Some(false) => {
                tracing::warn!(lake = %self.settings.lake, %error, "nothing can be uploaded; readings stay in the spool and this is tried again");
            }
            Err(error) => tracing::debug!(%error, "still nothing can be uploaded"),
        }
        self.reachable = Some(result.is_ok());
    }

    /// Seals, and uploads everything that is sealed.
    async fn round(&mut self) -> Result<(), UploadError> {
        self.spool.seal().await;
        let store = self.open().await?.objects();
        self.send_configuration(&*store).await;
        if !self.contacted {
            if contact::is_contested(&self.spool, &self.settings.source, &*store).await? {
                self.renew(&*store).await?;
            }
            self.contacted = true;
        }
        if self.send_all(&*store).await? == Outcome::Foreign {
            self.renew(&*store).await?;
            self.send_all(&*store).await?;
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<Store, UploadError> {
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let lake = self.settings.lake.clone();
        // A folder is created and synced: work that blocks.
        let store = tokio::task::spawn_blocking(move || Store::open(&lake).map_err(Box::new)).await??;
        self.store = Some(store.clone());
        Ok(store)
    }

    /// Sends the configuration's text once. Batches do not wait for it.
    async fn send_configuration(&mut self, store: &dyn ObjectStore) {
        let Some((sha256, text)) = self.settings.configuration.as_ref().filter(|_| !self.configuration_sent) else {
            return;
        };
        let landed = Landed::Configuration(sha256.clone());
        let key = landed.key(&self.settings.source);
        match landing::put_once(store, &key, &landed, &text.clone().into()).await {
            Ok(Outcome::Landed) => self.configuration_sent = true,
            Ok(Outcome::Foreign) => {
                tracing::error!(%key, "the lake has another text under this configuration's hash; it is left alone");
                self.configuration_sent = true;
            }
            Err(error) => tracing::debug!(%key, %error, "cannot upload the configuration yet"),
        }
    }

    /// Sends what is sealed, oldest first.
    async fn send_all(&self, store: &dyn ObjectStore) -> Result<Outcome, UploadError> {
        let objects = self.spool.sealed().await;
        let (closed, objects): (Vec<_>, Vec<_>) =
            objects.into_iter().partition(|object| object.kind == SealedKind::Closed);
        let mut outcome = self.send(store, objects).await?;
        // Only behind everything of its epoch.
        if outcome == Outcome::Landed {
            outcome = self.send(store, closed).await?;
        }
        Ok(outcome)
    }

    async fn send(&self, store: &dyn ObjectStore, objects: Vec<SealedObject>) -> Result<Outcome, UploadError> {
        let current = self.spool.epoch();
        let sending = objects.into_iter().map(|object| async {
            let result = self.send_one(store, &object).await;
            (object, result)
        });
        let mut results = stream::iter(sending).buffered(IN_FLIGHT_MAX);
        let (mut contested, mut unreadable) = (Outcome::Landed, None);
        while let Some((object, result)) = results.next().await {
            match result {
                Ok(Outcome::Landed) => self.spool.remove(&object).await,
                // A former epoch has no more numbers to give: what stands there stays, and so does ours.
                Ok(Outcome::Foreign) if object.epoch != current => self.leave_contested(&object).await,
                Ok(Outcome::Foreign) => contested = Outcome::Foreign,
                // One file that cannot be read holds up no other.
                Err(error @ UploadError::Spool(_)) => unreadable = Some(error),
                Err(error) => return Err(error),
            }
        }
        unreadable.map_or(Ok(contested), Err)
    }

    async fn send_one(&self, store: &dyn ObjectStore, object: &SealedObject) -> Result<Outcome, UploadError> {
        let bytes = match self.spool.bytes(object).await {
            Err(SpoolError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(self.give_up(object, &source).await);
            }
            bytes => bytes?,
        };
        if object.kind == SealedKind::Batch
            && let Err(error) = batch::decode(&bytes)
        {
            return Ok(self.give_up(object, &error).await);
        }
        let landed = object.landed();
        let key = landed.key(&self.settings.source);
        let put = landing::put_once(store, &key, &landed, &bytes).await;
        put.map_err(|source| UploadError::Put { key, source })
    }

    /// A gap takes the place of a batch that cannot be read, and is sent in the next round. An object that
    /// has left the spool meanwhile is none of this.
    async fn give_up(&self, object: &SealedObject, error: &(dyn std::error::Error + Sync)) -> Outcome {
        tracing::error!(bounds = %object.bounds, error = %error, "a batch in the spool cannot be read: a gap takes its place");
        self.spool.give_up(object).await;
        Outcome::Landed
    }

    async fn leave_contested(&self, object: &SealedObject) {
        tracing::error!(epoch = %object.epoch, bounds = %object.bounds, "the lake has other readings under numbers of a former epoch; ours are kept aside");
        self.spool.set_aside(object).await;
    }

    /// This spool is a copy: what the lake has of it goes, the rest gets new numbers.
    async fn renew(&self, store: &dyn ObjectStore) -> Result<(), UploadError> {
        tracing::error!(epoch = %self.spool.epoch(), "another gateway writes under this spool's numbers: it was cloned or restored; it begins a new epoch; hint: give each gateway a spool of its own");
        let known = contact::landed_objects(&self.spool, &self.settings.source, store).await?;
        for object in known {
            self.spool.remove(&object).await;
        }
        let landed = contact::landed_readings(&self.spool, &self.settings.source, store).await?;
        if self.spool.renew_epoch_without(landed).await { Ok(()) } else { Err(UploadError::Renewal) }
    }
}
