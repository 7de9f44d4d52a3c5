//! A store in memory, and what stands between it and whoever asks: that says what becomes of a request, and all else is passed on.

use std::fmt;
use std::ops::{Deref, Range};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What may keep a request from the store, or its reply from who asks.
#[async_trait]
pub trait Between: fmt::Debug + Send + Sync + 'static {
    /// Whether a request gets through at all.
    fn asked(&self) -> Result<()>;

    /// A listing is asked for.
    fn asked_for_a_listing(&self) -> Result<()> {
        self.asked()
    }

    /// What somebody else answers in the place of each object.
    fn page(&self) -> Option<&'static str> {
        None
    }

    /// What the store says where nothing is.
    fn missing(&self, error: Error) -> Error {
        error
    }

    /// A put, and what becomes of it.
    async fn put(
        &self,
        objects: &InMemory,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult>;
}

/// A store behind something.
#[derive(Debug)]
pub struct Behind<B> {
    /// What is there, for who looks past it.
    pub objects: InMemory,
    between: B,
}

impl<B> Behind<B> {
    /// An empty store behind this.
    pub fn this(between: B) -> Self {
        Self { objects: InMemory::new(), between }
    }
}

impl<B> Deref for Behind<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.between
    }
}

impl<B> fmt::Display for Behind<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a store behind something")
    }
}

#[async_trait]
impl<B: Between> ObjectStore for Behind<B> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.asked()?;
        self.put(&self.objects, location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.asked()?;
        if let Some(page) = self.page() {
            let pages = InMemory::new();
            object_store::ObjectStoreExt::put(&pages, location, page.into()).await?;
            return pages.get_opts(location, options).await;
        }
        let got = self.objects.get_opts(location, options).await;
        got.map_err(|error| if matches!(error, Error::NotFound { .. }) { self.missing(error) } else { error })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(error) = self.asked_for_a_listing() {
            return futures::stream::once(async { Err(error) }).boxed();
        }
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
