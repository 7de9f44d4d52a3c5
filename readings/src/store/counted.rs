//! Requests to a store, counted by kind: that is what a cloud bills.
//!
//! Counted is what the store is asked for, as a cloud would be: a listing by its pages of
//! [`LISTING_PAGE`] keys, several ranges of one object by what they are merged into. What a client
//! repeats by itself after a refusal is not seen here. Counting costs an atomic addition a request.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// How many keys a cloud hands out for one request (S3's `ListObjectsV2` and Google's `list`: 1,000;
/// Azure gives up to 5,000).
pub const LISTING_PAGE: u64 = 1_000;

/// Ranges of one object that lie as near as this are got with one request (`object_store`'s own merging).
const MERGED_WITHIN: u64 = 1 << 20;

/// How many requests of each kind were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Objects written, parts of them, and copies.
    pub puts: u64,
    /// Objects, ranges of them, and heads read.
    pub gets: u64,
    /// Pages of listings.
    pub lists: u64,
    /// Objects removed. No cloud bills them.
    pub deletes: u64,
}

impl RequestCounts {
    /// All that a cloud bills.
    #[must_use]
    pub const fn billed(&self) -> u64 {
        self.puts + self.gets + self.lists
    }

    /// What came on top of an earlier count.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            puts: self.puts - earlier.puts,
            gets: self.gets - earlier.gets,
            lists: self.lists - earlier.lists,
            deletes: self.deletes - earlier.deletes,
        }
    }
}

impl fmt::Display for RequestCounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { puts, gets, lists, deletes } = self;
        write!(formatter, "{puts} puts, {gets} gets, {lists} lists, {deletes} deletes")
    }
}

/// The running count of a store. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
}

impl Requests {
    /// The counts of this moment.
    #[must_use]
    pub fn counts(&self) -> RequestCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { puts, gets, lists, deletes } = &*self.0;
        RequestCounts { puts: of(puts), gets: of(gets), lists: of(lists), deletes: of(deletes) }
    }

    fn put(&self) {
        self.0.puts.fetch_add(1, Ordering::Relaxed);
    }

    fn got(&self, requests: u64) {
        self.0.gets.fetch_add(requests, Ordering::Relaxed);
    }

    fn listed(&self) {
        self.0.lists.fetch_add(1, Ordering::Relaxed);
    }

    fn deleted(&self) {
        self.0.deletes.fetch_add(1, Ordering::Relaxed);
    }
}

/// A store whose requests are counted.
#[derive(Debug)]
pub struct Counted {
    objects: Arc<dyn ObjectStore>,
    requests: Requests,
}

impl Counted {
    /// Counts the requests to `objects` in `requests`.
    #[must_use]
    pub const fn new(objects: Arc<dyn ObjectStore>, requests: Requests) -> Self {
        Self { objects, requests }
    }

    /// The first page is one request, and so is each further one that somebody reads.
    fn paged(&self, listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let requests = self.requests.clone();
        requests.listed();
        let mut keys = 0_u64;
        listing
            .inspect(move |_| {
                if keys > 0 && keys.is_multiple_of(LISTING_PAGE) {
                    requests.listed();
                }
                keys += 1;
            })
            .boxed()
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(formatter)
    }
}

/// How many requests these ranges of one object become.
fn merged(ranges: &[Range<u64>]) -> u64 {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut requests = 0;
    let mut end: Option<u64> = None;
    for range in sorted {
        if end.is_none_or(|end| range.start > end.saturating_add(MERGED_WITHIN)) {
            requests += 1;
        }
        end = Some(end.unwrap_or(0).max(range.end));
    }
    requests
}

#[async_trait]
impl ObjectStore for Counted {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.requests.put();
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.requests.put();
        let upload = self.objects.put_multipart_opts(location, options).await?;
        Ok(Box::new(CountedUpload { upload, requests: self.requests.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.requests.got(1);
        self.objects.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.requests.got(merged(ranges));
        self.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let requests = self.requests.clone();
        let counted = locations.inspect(move |_| requests.deleted()).boxed();
        self.objects.delete_stream(counted)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.paged(self.objects.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.paged(self.objects.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.requests.listed();
        let listed = self.objects.list_with_delimiter(prefix).await?;
        let keys = listed.objects.len() + listed.common_prefixes.len();
        (1..keys.div_ceil(usize::try_from(LISTING_PAGE).unwrap_or(usize::MAX))).for_each(|_| self.requests.listed());
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.requests.put();
        self.objects.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.requests.put();
        self.requests.deleted();
        self.objects.rename_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct CountedUpload {
    upload: Box<dyn MultipartUpload>,
    requests: Requests,
}

#[async_trait]
impl MultipartUpload for CountedUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.requests.put();
        self.upload.put_part(part)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.requests.put();
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    /// A bill that leaves out a kind of request, or the pages of a listing, is no bill.
    #[tokio::test]
    async fn every_kind_of_request_is_counted() {
        let requests = Requests::default();
        let store = Counted::new(Arc::new(InMemory::new()), requests.clone());
        for number in 0..=LISTING_PAGE {
            store.put(&Path::from(format!("folder/{number:05}")), vec![7_u8; 8].into()).await.expect("put");
        }
        let key = Path::from("folder/00003");
        store.get(&key).await.expect("got");
        store.head(&key).await.expect("there");
        store.get_ranges(&key, &[0..2, 4..6]).await.expect("got");
        store.copy(&key, &Path::from("folder/00003-copy")).await.expect("copied");
        assert_eq!(requests.counts(), RequestCounts { puts: 1_002, gets: 3, lists: 0, deletes: 0 });
        let all: Vec<_> = store.list(None).try_collect().await.expect("listed");
        assert_eq!((all.len(), requests.counts().lists), (1_002, 2), "a listing is billed by its pages");
        let before = requests.counts();
        let few: Vec<_> =
            store.list_with_offset(None, &Path::from("folder/00999")).try_collect().await.expect("listed");
        assert_eq!((few.len(), requests.counts().since(&before).lists), (1, 1));
        let first: Vec<_> = store.list(None).take(3).try_collect().await.expect("listed");
        assert_eq!((first.len(), requests.counts().since(&before).lists), (3, 2), "what nobody reads is not asked for");
        store.list_with_delimiter(Some(&Path::from("folder"))).await.expect("listed");
        store.delete(&key).await.expect("deleted");
        let RequestCounts { lists, deletes, .. } = requests.counts().since(&before);
        assert_eq!((lists, deletes), (4, 1));
        assert_eq!(merged(&[0..10, 3 << 20..4 << 20, 20..30]), 2);
    }
}
