//! A store that fails, by a seed: what servers, lines and clients' own repeats do to requests.
//!
//! Under it lies a store that keeps its word. The fault model, per request:
//!
//! | fault | what was done | what is told |
//! |---|---|---|
//! | 500, 503, 429 | nothing | an error |
//! | 409 | nothing | of a put or copy "already exists", which it may not |
//! | reset before | nothing | an error |
//! | reset after | all of it | an error |
//! | repeated | all of it | the client's own second try found it: "already exists" of a create, else success |
//! | stall | nothing, or all of it | an error after [`STALL`] |
//! | wrong length | - | of a get: fewer bytes than it says; of a listing: an error in the middle |
//!
//! Not modelled, since no store of ours does it: a listing that is behind, an object that forgets. Which request
//! fails, and how, follows from the seed, the kind of the request and its number among those of its kind; where
//! names are random the same seed may hit another object of the kind.

mod dice;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use dice::Dice;
pub use dice::{Fault, Kind, Tally};

/// How long a request stalls before its client gives up. Short, since delta-rs asks from a runtime of its own,
/// whose clock no test can pause: what matters is that others get on meanwhile, and that an error follows.
pub const STALL: Duration = Duration::from_millis(3);

const NAME: &str = "Faulty";

/// A store that fails.
#[derive(Debug)]
pub struct FaultyStore {
    objects: Arc<dyn ObjectStore>,
    dice: Arc<Dice>,
    is_calm: AtomicBool,
}

/// What a request is to suffer.
#[derive(Debug, Clone, Copy)]
struct Blow {
    fault: Fault,
    /// Of faults that can be either: whether the work is done.
    is_done: bool,
}

impl FaultyStore {
    /// A store over another one, of which `per_mille` of a thousand requests fail.
    #[must_use]
    pub fn over(objects: Arc<dyn ObjectStore>, seed: u64, per_mille: u64) -> Arc<Self> {
        Arc::new(Self { objects, dice: Arc::new(Dice::new(seed, per_mille)), is_calm: AtomicBool::new(false) })
    }

    /// Whether nothing fails from now on.
    pub fn set_calm(&self, is_calm: bool) {
        self.is_calm.store(is_calm, Ordering::Relaxed);
    }

    /// What was asked and what failed.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.dice.tally()
    }

    fn blow(&self, kind: Kind) -> Option<Blow> {
        self.dice.count(kind);
        if self.is_calm.load(Ordering::Relaxed) { None } else { self.dice.throw(kind) }
    }

    /// Does a piece of work, and says of it what the fault wants. `exists` is what a repeat would be told.
    async fn suffer<T>(
        &self,
        blow: Option<Blow>,
        exists: impl FnOnce() -> Option<Error>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(Blow { fault, is_done }) = blow else { return work.await };
        match fault {
            Fault::Repeated => {
                let done = work.await?;
                exists().map_or(Ok(done), Err)
            }
            Fault::ResetAfter => {
                work.await?;
                Err(failed("connection reset by peer"))
            }
            Fault::Stall => {
                if is_done {
                    work.await?;
                }
                stall().await;
                Err(failed("operation timed out"))
            }
            Fault::Conflict => Err(exists().unwrap_or_else(|| failed("status code: 409 Conflict"))),
            fault => Err(failed(fault.words())),
        }
    }
}

/// A stall ends by itself, whatever clock the asking runtime goes by: a paused one stands still while a thread of the
/// runtime is at work (compaction's sorter), and whoever asked would wait for ever.
async fn stall() {
    let _ = tokio::task::spawn_blocking(|| std::thread::park_timeout(STALL)).await;
}

fn failed(text: &'static str) -> Error {
    Error::Generic { store: NAME, source: text.into() }
}

fn exists(location: &Path) -> Error {
    Error::AlreadyExists { path: location.to_string(), source: "status code: 409 Conflict".into() }
}

/// An answer that says how long it is, and breaks off.
fn cut(result: GetResult) -> GetResult {
    let length = result.range.end.saturating_sub(result.range.start);
    let mut left = length - length.div_ceil(3);
    let (meta, range, attributes) = (result.meta.clone(), result.range.clone(), result.attributes.clone());
    let bytes = result.into_stream().map_ok(move |part: Bytes| {
        let taken = left.min(part.len() as u64);
        left -= taken;
        part.slice(..taken as usize)
    });
    GetResult { payload: GetResultPayload::Stream(bytes.boxed()), meta, range, attributes }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{NAME}({})", self.objects)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let blow = self.blow(Kind::Put);
        let is_create = matches!(options.mode, PutMode::Create);
        let is_conflict = matches!(blow, Some(Blow { fault: Fault::Conflict, .. }));
        let word = || (is_create || is_conflict).then(|| exists(location));
        self.suffer(blow, word, self.objects.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let blow = self.blow(Kind::Put);
        let upload = self.suffer(blow, || None, self.objects.put_multipart_opts(location, options)).await?;
        Ok(Box::new(FaultyUpload { upload, dice: Arc::clone(&self.dice) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let blow = self.blow(Kind::Get);
        let has_body = !options.head;
        let work = self.objects.get_opts(location, options);
        if let Some(Blow { fault: Fault::WrongLength, .. }) = blow {
            let result = work.await?;
            return Ok(if has_body { cut(result) } else { result });
        }
        self.suffer(blow, || None, work).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let blow = self.blow(Kind::Get);
        let work = self.objects.get_ranges(location, ranges);
        if let Some(Blow { fault: Fault::WrongLength, .. }) = blow {
            let mut parts = work.await?;
            if let Some(last) = parts.last_mut() {
                *last = last.slice(..last.len() / 2);
            }
            return Ok(parts);
        }
        self.suffer(blow, || None, work).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (objects, blow) = (Arc::clone(&self.objects), self.blow(Kind::Delete));
        let Some(Blow { fault, is_done }) = blow else { return objects.delete_stream(locations) };
        let deleting = async move {
            let is_done = matches!(fault, Fault::ResetAfter | Fault::Repeated) || (fault == Fault::Stall && is_done);
            if is_done {
                let _: Vec<Path> = objects.delete_stream(locations).try_collect().await?;
            }
            if fault == Fault::Stall {
                stall().await;
            }
            // A repeat finds nothing, as some stores say.
            Err(if fault == Fault::Repeated {
                Error::NotFound { path: String::new(), source: "status code: 404 Not Found".into() }
            } else {
                failed(fault.words())
            })
        };
        stream::once(deleting).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        listed(self.blow(Kind::List), self.objects.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        listed(self.blow(Kind::List), self.objects.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let blow = self.blow(Kind::List);
        self.suffer(blow, || None, self.objects.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let blow = self.blow(Kind::Put);
        let is_conflict = matches!(blow, Some(Blow { fault: Fault::Conflict, .. }));
        self.suffer(blow, || is_conflict.then(|| exists(to)), self.objects.copy_opts(from, to, options)).await
    }
}

/// A listing that fails at once, late, or in the middle.
fn listed(
    blow: Option<Blow>,
    listing: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let Some(Blow { fault, is_done }) = blow else { return listing };
    let last = async move {
        if fault == Fault::Stall {
            stall().await;
        }
        Err(failed(fault.words()))
    };
    // A page or two may have come before.
    let before = if is_done { 2 } else { 0 };
    listing.take(before).chain(stream::once(last)).boxed()
}

/// An upload in parts that fails.
#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    dice: Arc<Dice>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.dice.count(Kind::Put);
        match self.dice.throw(Kind::Put) {
            Some(Blow { fault, .. }) => Box::pin(async move { Err(failed(fault.words())) }),
            None => self.upload.put_part(part),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.dice.count(Kind::Put);
        match self.dice.throw(Kind::Put) {
            Some(Blow { fault, is_done }) => {
                if is_done {
                    self.upload.complete().await?;
                }
                Err(failed(fault.words()))
            }
            None => self.upload.complete().await,
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
