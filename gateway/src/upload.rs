//! Upload: sealed objects from the spool to the landing zone, each once.
//!
//! Every `every` the spool seals what it has, and all that is sealed goes out, oldest first, at most
//! `in_flight` at once and not faster than `max_rate`. An object leaves the spool only when the lake has it,
//! which is *put and accepted*, or *already there and the same*. After a failure the pause grows, with
//! jitter; the gateway polls on, and one line says that the lake is away and one that it is back.
//!
//! A spool that finds another's objects under its own numbers is a copy. That is looked for at the
//! first contact of a run and again from time to time, by listing what lies past the spool's numbers, by a claim before the
//! first number that a run gives out itself (`contact`), and with every put. It then
//! begins a new epoch for everything that was not sent ([`Spool::renew_epoch`]).
//!
//! Where it is configured, an outage that was long ends with a new epoch as well: what waits drains under the
//! old one, oldest first, and every `every` what is new goes before it. An epoch's `closed` goes only when
//! nothing of it waits any more.
//!
//! The store is asked first whether it refuses to create what is there (`store::proof`): one that does not is
//! sent nothing, and what waits stays in the spool. So is a folder that is not the lake that it was (`known_lake`).
//!
//! Nothing here ends the process. What cannot be sent when the gateway stops stays for its next start.
//! No error, log line or state carries a secret: a store's own errors have none (`tjern_readings::store`), those of a file of
//! credentials tell no value.

mod backoff;
mod contact;
mod credentials;
pub(crate) mod known_lake;
mod landing;
mod line;
mod noted;
mod observe;
mod probe;
mod send;
mod settings;
mod state;
mod unsent;
mod window;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use tjern_readings::keys::{self, Landed};
use tjern_readings::store::credentials::CredentialsError;
use tjern_readings::store::{self, Access, LakeUrl, ProofError, Store, StoreError};

use crate::spool::{Claim, Spool, SpoolError};
use backoff::Backoff;
use contact::Looks;
use credentials::Credentials;
use known_lake::KnownLakeError;
use landing::Outcome;
use line::{Line, Pace, unbroken};
use noted::Noted;
use observe::Observer;
pub(crate) use probe::{Probe, probe};
pub(crate) use settings::BATCH_BYTES_LEAST;
pub use settings::{IN_FLIGHT_DEFAULT, UploadLimits, UploadSettings};
pub use state::{UploadSnapshot, UploadState};
pub use unsent::Unsent;
use window::Window;

/// How long a gateway that stops goes on uploading.
pub const FINAL_PATIENCE: Duration = Duration::from_secs(10);

/// A few requests without bytes show what a store does; a link that is slow takes a while for them.
const PROOF_PATIENCE: Duration = Duration::from_secs(90);

/// So long a file of credentials may take to be read, as one of configuration may.
const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(10);

/// While a round lasts, what waits is told so often.
const OBSERVE_EVERY: Duration = Duration::from_secs(10);

/// How often in a row nothing may be taken at the end.
const FINAL_ATTEMPTS: u32 = 3;

/// Why a round of uploads was not finished.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Open(#[from] Box<StoreError>),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
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
    const fn of_store(&self) -> Option<&object_store::Error> {
        match self {
            Self::Put { source, .. } | Self::Get { source, .. } | Self::List { source, .. } => Some(source),
            _ => None,
        }
    }

    /// Whether a request took so long that it was given up.
    fn is_timeout(&self) -> bool {
        self.of_store().is_some_and(line::is_timeout)
    }
}

/// What is left after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Everything that was sealed is in the lake.
    Drained,
    /// It was time to look for something new first.
    More,
}

/// Seals and uploads until `stop`, then once more for at most [`FINAL_PATIENCE`].
pub async fn run(spool: Spool, settings: UploadSettings, stop: CancellationToken) {
    spool.limit_batches(settings.limits.batch_bytes()).await;
    let mut uploader = Uploader::new(spool.clone(), settings);
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(FINAL_PATIENCE).await;
    };
    tokio::select! {
        () = uploader.until(&stop) => {}
        () = patience => {}
    }
}

/// Waits for a round, and seals where it takes a period longer than it was to: a connection that hangs holds up what is
/// sent, and not that readings are sealed by their age. A round that is late by less seals when it is over, so that the
/// next one begins with what is new. What waits is told meanwhile.
async fn sealing_meanwhile<T>(
    (spool, observer): (&Spool, &mut Observer),
    (seal_at, every): (&mut Instant, Duration),
    mut round: impl Future<Output = T> + Unpin,
) -> T {
    let mut observe_at = Instant::now() + OBSERVE_EVERY;
    loop {
        tokio::select! {
            biased;
            result = &mut round => return result,
            () = tokio::time::sleep_until(*seal_at + every) => {
                *seal_at = Instant::now() + every;
                spool.seal().await;
            }
            () = tokio::time::sleep_until(observe_at) => {
                observer.look().await;
                observe_at = Instant::now() + OBSERVE_EVERY;
            }
        }
    }
}

/// A file of credentials that is being read: it may lie on a disk that does not answer.
type Reading = JoinHandle<(Credentials, Result<Access, CredentialsError>)>;

struct Uploader {
    spool: Spool,
    settings: UploadSettings,
    store: Option<Store>,
    credentials: Credentials,
    /// A reading of them that has not ended. There is never a second one: each would hold a thread for as long as the
    /// disk is silent.
    reading: Option<Reading>,
    looking: Option<JoinHandle<bool>>,
    backoff: Backoff,
    pace: Arc<Pace>,
    window: Arc<Window>,
    /// Whether the lake answered last; unknown at first.
    reachable: Option<bool>,
    /// Since when it has not taken anything.
    failing_since: Option<Instant>,
    /// When the landing zone was looked at, and is to be again.
    looks: Looks,
    /// Whether this run's numbers are claimed.
    claimed: AtomicBool,
    /// What the lake has and could not leave the spool.
    landed: Noted,
    /// What the lake may have: its reply was lost.
    doubtful: Noted,
    /// Whether the store is known to refuse a second create.
    proven: bool,
    /// Whether the lake is known to be the one that it was.
    is_known_lake: bool,
}

impl Uploader {
    fn new(spool: Spool, settings: UploadSettings) -> Self {
        if let Some((sha256, text)) = &settings.configuration {
            settings.unsent.add(sha256, text);
        }
        Self {
            store: settings.store.clone(),
            credentials: Credentials::new(settings.credentials_file.clone()),
            reading: None,
            looking: None,
            backoff: Backoff::new(settings.every),
            window: Arc::new(Window::new(settings.limits.in_flight())),
            pace: Arc::new(Pace::new(settings.limits.bytes_per_s)),
            spool,
            settings,
            reachable: None,
            failing_since: None,
            looks: Looks::new(),
            claimed: AtomicBool::new(false),
            landed: Noted::default(),
            doubtful: Noted::default(),
            proven: false,
            is_known_lake: false,
        }
    }

    async fn until(&mut self, stop: &CancellationToken) {
        let mut seal_at = Instant::now();
        // Replies that are lost at the end are no reason to leave a batch behind; a lake that is away is.
        let mut attempts_left = FINAL_ATTEMPTS;
        let mut observer = Observer::new(self.spool.clone(), self.settings.state.clone());
        observer.look().await;
        loop {
            let is_last = stop.is_cancelled();
            if is_last || Instant::now() >= seal_at {
                seal_at = Instant::now() + self.settings.every;
                self.spool.seal().await;
            }
            let taken = self.settings.state.snapshot().uploaded_batches;
            // What is left at the end has all the time there is.
            let (spool, every) = (self.spool.clone(), self.settings.every);
            let round = Box::pin(self.round((!is_last).then_some(seal_at)));
            let result = sealing_meanwhile((&spool, &mut observer), (&mut seal_at, every), round).await;
            observer.look().await;
            self.note(&result, taken);
            if let Err(error) = &result {
                self.consider_credentials(error).await;
            }
            if is_last {
                let took_some = self.settings.state.snapshot().uploaded_batches > taken;
                attempts_left = if took_some { FINAL_ATTEMPTS } else { attempts_left - 1 };
                if result.is_ok() || attempts_left == 0 || self.is_away() {
                    return;
                }
                tokio::time::sleep(self.backoff.next_pause()).await;
                continue;
            }
            let pause = match result {
                Ok(Round::Drained) => seal_at.saturating_duration_since(Instant::now()),
                Ok(Round::More) => Duration::ZERO,
                Err(_) => self.backoff.next_pause(),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Whether the lake has taken nothing for longer than the end may last: nobody who stops the gateway should wait for
    /// it. A reply that was lost is not that.
    fn is_away(&self) -> bool {
        self.failing_since.is_some_and(|since| since.elapsed() > FINAL_PATIENCE)
    }

    /// Says when the lake goes away and when it comes back, and nothing in between.
    fn note(&mut self, result: &Result<Round, UploadError>, taken_before: u64) {
        let text = result.as_ref().err().map(|error| self.told(error));
        let lake = &self.settings.lake;
        match &text {
            None => {
                self.backoff.reset();
                self.failing_since = None;
                if self.reachable != Some(true) {
                    tracing::info!(%lake, "the lake is reached");
                }
            }
            Some(error) if self.reachable != Some(false) => {
                tracing::warn!(%lake, error, "nothing can be uploaded; readings stay in the spool and this is tried again");
            }
            Some(error) => tracing::debug!(error, "still nothing can be uploaded"),
        }
        let took_some = self.settings.state.snapshot().uploaded_batches > taken_before;
        if took_some {
            // A lake that takes some and loses a reply is there: the pause begins anew.
            self.backoff.reset();
        }
        if text.is_some() {
            self.failing_since = self.failing_since.filter(|_| !took_some).or_else(|| Some(Instant::now()));
        }
        self.reachable = Some(result.is_ok());
        let seals = self.spool.status().sealing_trouble.is_none();
        self.settings.state.round(self.settings.clock.now_us(), text, seals);
    }

    /// An error as a person may read it: with what to do.
    fn told(&self, error: &UploadError) -> String {
        let hint = match error.of_store() {
            Some(of_store) => self.credentials.missing(&self.settings.lake).or_else(|| store::hint(of_store)),
            None => None,
        };
        let hint = hint.map_or_else(String::new, |hint| format!("; hint: {hint}"));
        format!("{error}{hint}")
    }

    /// After a refusal, or where the file has another text, the lake is opened with what it says now.
    async fn consider_credentials(&mut self, error: &UploadError) {
        let refused = error.of_store().is_some_and(store::is_refusal);
        let changed = self.credentials_have_changed().await;
        if self.settings.store.is_none() && (refused || changed) {
            self.store = None;
            if changed {
                tracing::info!("the lake's credentials have changed: they are read again");
                self.backoff.reset();
            }
        }
    }

    /// Whether the file has another text than when it was read; not, where that is being found out, or it is being read.
    async fn credentials_have_changed(&mut self) -> bool {
        if self.reading.is_some() {
            return false;
        }
        let credentials = self.credentials.clone();
        let looking =
            self.looking.get_or_insert_with(|| tokio::task::spawn_blocking(move || credentials.have_changed()));
        let Ok(changed) = timeout(CREDENTIALS_PATIENCE, looking).await else { return false };
        self.looking = None;
        changed.unwrap_or(false)
    }

    /// Uploads what is sealed, until it is time to seal again.
    async fn round(&mut self, until: Option<Instant>) -> Result<Round, UploadError> {
        let store = self.open().await?.objects();
        let state = self.settings.state.clone();
        let (pace, window) = (Arc::clone(&self.pace), Arc::clone(&self.window));
        let is_folder = self.settings.lake.local_folder().is_some();
        let is_forgeable = self.settings.is_forgeable;
        let line = Line { store: &*store, state: &state, pace: &pace, window: &window, is_folder, is_forgeable };
        self.round_over(&line, until).await
    }

    async fn round_over(&mut self, line: &Line<'_>, until: Option<Instant>) -> Result<Round, UploadError> {
        self.send_configurations(line).await;
        if self.spool.status().is_unread {
            // Its epoch is not known yet, nor what waits.
            return Ok(Round::Drained);
        }
        let live_is_due = self.live_is_due().await;
        if live_is_due || self.look_is_due() {
            let is_first = self.looks.is_first();
            if contact::is_contested(&self.spool, &self.settings.source, line, is_first).await? {
                self.renew(line).await?;
            } else if live_is_due {
                self.begin_live(line).await?;
            }
            self.looks.looked();
        }
        let (outcome, round) = self.send_all(line, until).await?;
        if outcome == Outcome::Foreign {
            self.renew(line).await?;
            return Ok(self.send_all(line, until).await?.1);
        }
        Ok(round)
    }

    /// Whether it is to be looked for a copy of this spool: before anything is sent, and not where nothing is.
    fn look_is_due(&self) -> bool {
        self.looks.is_first() || (self.looks.is_due() && self.spool.status().sealed_count > 0)
    }

    /// What this run has to claim before it sends its own numbers.
    fn claim_due(&self) -> Option<Claim> {
        self.spool.status().claim.filter(|_| !self.claimed.load(Ordering::Relaxed))
    }

    /// Begins an epoch for what is new, if the lake takes objects again. Its former one has no more numbers to give, so that
    /// those of this run are claimed first.
    async fn begin_live(&mut self, line: &Line<'_>) -> Result<(), UploadError> {
        if self.claim(line).await? == Outcome::Foreign {
            return self.renew(line).await;
        }
        if self.takes_again(line).await? && self.spool.begin_epoch().await {
            self.failing_since = None;
            tracing::info!("the lake is back after a long time: what is new goes first, what waited behind it");
        }
        Ok(())
    }

    /// Whether the lake takes objects again: one that lists and refuses to store is not back.
    async fn takes_again(&self, line: &Line<'_>) -> Result<bool, UploadError> {
        let Some(oldest) = self.spool.sealed().await.first().cloned() else { return Ok(true) };
        let landed = matches!(self.send_one(line, &oldest).await?, Outcome::Landed);
        if landed {
            self.spool.remove(&oldest).await;
        }
        Ok(landed)
    }

    /// Whether so much waits after so long an outage that what is new should not wait behind it.
    async fn live_is_due(&mut self) -> bool {
        let Some(after) = self.settings.live_first_after else { return false };
        let outage = self.failing_since.is_some_and(|since| since.elapsed() >= after);
        // A power cut is an outage as well, of which only the readings tell.
        let waited =
            || self.settings.clock.now_us() - self.settings.state.snapshot().oldest_waiting_us.unwrap_or(i64::MAX / 2);
        let is_old = self.looks.is_first() && waited() >= i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        if !outage && !is_old {
            return false;
        }
        let current = self.spool.epoch();
        let waiting = self.spool.sealed().await.iter().filter(|object| object.epoch == current).count();
        waiting > self.settings.limits.in_flight()
    }

    async fn open(&mut self) -> Result<Store, UploadError> {
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
        let (mut credentials, lake) = (self.credentials.clone(), self.settings.lake.clone());
        let reading = self.reading.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let access = credentials.read(&lake);
                (credentials, access)
            })
        });
        let _waits = self.settings.state.ask_for();
        let read = timeout(CREDENTIALS_PATIENCE, reading).await.map_err(|_| UploadError::CredentialsSilent)?;
        self.reading = None;
        let (credentials, access) = read?;
        self.credentials = credentials;
        Ok(access?)
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

    /// Sends each configuration's text once. Batches do not wait for it.
    async fn send_configurations(&mut self, line: &Line<'_>) {
        for (sha256, text) in self.settings.unsent.all() {
            let landed = Landed::Configuration(sha256.clone());
            let key = landed.key(&self.settings.source);
            match landing::put_once(line, &key, Some(&landed), &text.into()).await {
                Ok(Outcome::Landed | Outcome::GivenUp) => self.settings.unsent.sent(&sha256),
                Ok(Outcome::Foreign) => {
                    tracing::error!(%key, "the lake has another text under this configuration's hash; it is left alone");
                    self.settings.unsent.sent(&sha256);
                }
                Err(error) => {
                    tracing::debug!(%key, %error, "cannot upload the configuration yet");
                    return;
                }
            }
        }
    }

    /// This spool is a copy: what the lake has of it goes, the rest gets new numbers.
    async fn renew(&self, line: &Line<'_>) -> Result<(), UploadError> {
        tracing::error!(epoch = %self.spool.epoch(), "another gateway writes under this spool's numbers: it was cloned or restored; it begins a new epoch; hint: give each gateway a spool of its own");
        let known = contact::landed_objects(&self.spool, &self.settings.source, line).await?;
        for object in known {
            self.spool.remove(&object).await;
        }
        let landed = contact::landed_readings(&self.spool, &self.settings.source, line).await?;
        if self.spool.renew_epoch_without(landed).await { Ok(()) } else { Err(UploadError::Renewal) }
    }
}
