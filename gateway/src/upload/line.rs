//! The way to the lake: every request of the uploader passes here, is counted, and waits its turn where
//! the link is not to carry more than so many bytes a second.
//!
//! The limit is kept between objects: one goes out whole, and the next waits until the time of its bytes
//! is over. Nothing is saved up while the link is quiet, so that over any time no more has passed than
//! the rate allows and one object. What a put compares with (a read back) counts too, and what is listed, by about what a
//! store writes of it. Where there is a limit the cloud's client repeats nothing by itself.
//!
//! A request has its own limit of time, from its own length: a mobile connection of which one half is
//! gone says nothing for hours, and whoever waits for it sends nothing else; and a limit without the length is too short for what
//! shares a slow link. A folder has none. What waits is entered in the upload's state, so that it is told (`state`).

use std::future::Future;
use std::num::NonZeroU64;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult};
use tokio::time::{Instant, timeout};

use super::settings::{REQUEST_TIMEOUT, SLOWEST_BYTES_PER_S};
use super::state::UploadState;
use super::window::Window;

/// A page of a listing is at most about so long.
const PAGE_BYTES: u64 = 512 << 10;

/// What a store writes of a listed object besides its key.
const LISTED_BYTES: usize = 300;

/// A link may be so much slower than its limit, for a while.
const SLOWER: u32 = 4;

/// The requests that an uploader makes.
pub(super) struct Line<'store> {
    pub(super) store: &'store dyn ObjectStore,
    pub(super) state: &'store UploadState,
    pub(super) pace: &'store Pace,
    pub(super) window: &'store Window,
    /// A folder may be silent for as long as it likes: what was given up would be written all the same.
    pub(super) is_folder: bool,
    /// The lake is asked without TLS, so that somebody else could answer in its place.
    pub(super) is_forgeable: bool,
}

/// A request was given up.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s for {bytes} bytes; hint: is the link slow or broken? fewer objects go at once now", limit.as_secs())]
struct NoAnswer {
    limit: Duration,
    bytes: u64,
}

/// A put was answered, and what was put is not there.
#[derive(Debug, thiserror::Error)]
#[error(
    "it was answered that this is stored, and it is not: there are {there} bytes of {bytes}; hint: does somebody else answer in the lake's place (a captive portal, a proxy)? use https"
)]
struct Forged {
    there: u64,
    bytes: u64,
}

/// Something was read where an object should be, and it is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "what is read there is none of a gateway's objects ({bytes} bytes); hint: does somebody else answer in the lake's place (a captive portal, a proxy)? use https; where it lies in the lake, move it away"
)]
struct NoObject {
    bytes: usize,
}

/// The error of something that was read where an object should be.
pub(super) fn no_object(bytes: usize) -> Error {
    Error::Generic { store: "lake", source: NoObject { bytes }.into() }
}

/// Whether a request was given up for want of an answer.
pub(super) fn is_timeout(error: &Error) -> bool {
    matches!(error, Error::Generic { source, .. } if source.is::<NoAnswer>())
}

impl Line<'_> {
    /// Puts an object where nothing is.
    pub(super) async fn create(&self, key: &Path, bytes: &Bytes) -> Result<PutResult, Error> {
        self.pace.wait(bytes.len()).await;
        self.state.count_request();
        let payload = PutPayload::from_bytes(bytes.clone());
        let put = self.store.put_opts(key, payload, PutOptions::from(PutMode::Create));
        self.within(bytes.len() as u64, self.window.sharing(), put).await
    }

    /// Whether what was put is there, in its length, where that is not to be believed: over plain HTTP the page of a captive
    /// portal is as good a success as a store's.
    pub(super) async fn confirm(&self, key: &Path, bytes: u64) -> Result<(), Error> {
        if !self.is_forgeable {
            return Ok(());
        }
        self.state.count_request();
        let there = self.within(0, 1, self.store.head(key)).await?.size;
        if there == bytes {
            return Ok(());
        }
        Err(Error::Generic { store: "lake", source: Forged { there, bytes }.into() })
    }

    /// An object's bytes.
    pub(super) async fn read(&self, key: &Path) -> Result<Bytes, Error> {
        self.pace.wait(0).await;
        self.state.count_request();
        let found = self.within(0, 1, self.store.get(key)).await?;
        let length = found.meta.size;
        let bytes = self.within(length, self.window.sharing(), found.bytes()).await?;
        self.pace.spend(bytes.len());
        Ok(bytes)
    }

    /// What lies in a folder past a key.
    pub(super) async fn list(&self, folder: &Path, offset: &Path) -> Result<Vec<ObjectMeta>, Error> {
        self.pace.wait(0).await;
        self.state.count_request();
        let mut listing = self.store.list_with_offset(Some(folder), offset);
        let mut objects = Vec::new();
        while let Some(object) = self.within(PAGE_BYTES, 1, listing.try_next()).await? {
            self.pace.spend(LISTED_BYTES + object.location.as_ref().len());
            objects.push(object);
        }
        Ok(objects)
    }

    /// What comes of a request with so many bytes that shares the link with so many, itself included, unless that takes so
    /// long that nobody is there any more.
    async fn within<T>(
        &self,
        bytes: u64,
        sharing: u32,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        if self.is_folder && !self.pace.is_limited() {
            let _waits = self.state.ask();
            return unbroken(request).await;
        }
        let _waits = self.state.ask_for();
        let limit = self.pace.limit(bytes, sharing);
        match timeout(limit, unbroken(request)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Generic { store: "lake", source: NoAnswer { limit, bytes }.into() }),
        }
    }
}

/// What comes of a request, also where the cloud's client breaks down over it: parts of it panic where a credential holds what no
/// header can carry, a page of a captive portal in the place of a token among others. That must not end the gateway, time
/// after time.
pub(super) async fn unbroken<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    AssertUnwindSafe(request).catch_unwind().await.unwrap_or_else(|_| {
        let source = "the store's client broke down; hint: is what lets this machine in what it should be? the lines before say where it broke";
        Err(Error::Generic { store: "lake", source: source.into() })
    })
}

/// How fast the line may be used.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_s: Option<NonZeroU64>,
    /// When what went out before has had its time.
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_s: Option<NonZeroU64>) -> Self {
        Self { bytes_per_s, free_at: Mutex::new(Instant::now()) }
    }

    pub(super) const fn is_limited(&self) -> bool {
        self.bytes_per_s.is_some()
    }

    /// How long a request may take with so many bytes, where so many share the link.
    fn limit(&self, bytes: u64, sharing: u32) -> Duration {
        let (bytes_per_s, times) =
            self.bytes_per_s.map_or((SLOWEST_BYTES_PER_S, sharing), |bytes_per_s| (bytes_per_s, SLOWER));
        REQUEST_TIMEOUT.saturating_add(duration_of(bytes, bytes_per_s).saturating_mul(times))
    }

    /// Waits until so many bytes may go out.
    async fn wait(&self, bytes: usize) {
        if self.is_limited() {
            tokio::time::sleep_until(self.spend(bytes)).await;
        }
    }

    /// Takes the time for so many bytes, and says when it begins.
    fn spend(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let Some(bytes_per_s) = self.bytes_per_s else { return now };
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begins_at = now.max(*free_at);
        *free_at = begins_at + duration_of(bytes as u64, bytes_per_s);
        begins_at
    }
}

/// How long so many bytes take.
pub(super) fn duration_of(bytes: u64, bytes_per_s: NonZeroU64) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(bytes_per_s.get());
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX / 2))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_passes_than_the_rate_and_one_object() {
        let pace = Pace::new(NonZeroU64::new(1_000));
        let began = Instant::now();
        let mut passed = 0;
        // Quiet first: nothing is saved up.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let quiet = began.elapsed();
        for bytes in [500, 3_000, 100, 2_000, 7] {
            pace.wait(bytes).await;
            passed += bytes;
            let elapsed_ms = (began.elapsed() - quiet).as_millis();
            assert!(passed - bytes <= elapsed_ms as usize, "{passed} bytes within {elapsed_ms} ms");
        }
        assert_eq!((began.elapsed() - quiet).as_millis(), 5_600);
    }

    /// Every hour the landing zone is listed, and what that took of the link was not counted.
    #[tokio::test(start_paused = true)]
    async fn what_is_listed_takes_its_time_too() {
        let (store, state, window) = (InMemory::new(), UploadState::default(), Window::new(1));
        for number in 0..100 {
            let key = Path::from(format!("landing/{number:020}"));
            store.put(&key, PutPayload::new()).await.expect("taken");
        }
        let pace = Pace::new(NonZeroU64::new(1_000));
        let line =
            Line { store: &store, state: &state, pace: &pace, window: &window, is_folder: false, is_forgeable: false };
        let folder = Path::from("landing");
        assert_eq!(line.list(&folder, &folder).await.expect("listed").len(), 100);
        let began = Instant::now();
        pace.wait(1).await;
        assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        let (pace, began) = (Pace::new(None), Instant::now());
        pace.wait(usize::MAX).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    /// The first four batches of a backlog shared 9,000 bytes a second, and thirty seconds were too short for all of them.
    #[tokio::test(start_paused = true)]
    async fn a_request_has_the_time_that_its_bytes_need() {
        let limit = |bytes_per_s: Option<u64>, bytes, sharing| {
            Pace::new(bytes_per_s.and_then(NonZeroU64::new)).limit(bytes, sharing).as_secs()
        };
        assert_eq!((limit(None, 0, 4), limit(None, 2_048, 4)), (30, 34));
        assert!(limit(None, 107_000, 4) > 4 * 107_000 / 2_048);
        assert_eq!(limit(Some(1_000), 10_000, 1), 30 + 40);
    }

    #[tokio::test]
    async fn a_client_that_breaks_down_is_an_error() {
        let broken = unbroken(async { panic!("on purpose") }).await;
        let error = broken.map(|()| "nothing").expect_err("it broke").to_string();
        assert!(error.contains("the store's client broke down"), "{error}");
        assert_eq!(unbroken(async { Ok(7) }).await.expect("well"), 7);
    }
}
