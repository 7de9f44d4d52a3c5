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
mod error;
pub(crate) mod known_lake;
mod landing;
mod line;
mod noted;
mod observe;
mod opening;
mod plain;
mod probe;
mod reading;
mod round;
mod send;
mod settings;
mod state;
mod unsent;
mod window;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use tjern_readings::store::{self, Store};

use crate::spool::Spool;
use backoff::Backoff;
use contact::Looks;
use credentials::Credentials;
use error::UploadError;
use line::Pace;
use noted::Noted;
use observe::Observer;
pub(crate) use plain::PlainLake;
pub(crate) use probe::{Probe, probe};
use round::Round;
pub(crate) use settings::BATCH_BYTES_LEAST;
pub use settings::{IN_FLIGHT_DEFAULT, UploadLimits, UploadSettings};
pub use state::{UploadSnapshot, UploadState};
pub use unsent::Unsent;
use window::Window;

/// How long a gateway that stops goes on uploading.
pub const FINAL_PATIENCE: Duration = Duration::from_secs(10);

/// While a round lasts, what waits is told so often.
const OBSERVE_EVERY: Duration = Duration::from_secs(10);

/// How often in a row nothing may be taken at the end.
const FINAL_ATTEMPTS: u32 = 3;

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

struct Uploader {
    spool: Spool,
    settings: UploadSettings,
    store: Option<Store>,
    credentials: Credentials,
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
}
