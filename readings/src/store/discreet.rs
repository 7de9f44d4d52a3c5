//! No error of a store shows what lets somebody into it, whoever shows it: the text of each and of each cause of it is gone
//! over here, at the one place that all errors of a cloud pass. What is left of them is their kind, their text, and the
//! texts of their causes: `Debug` has no more, as it would show what a cause holds.
//!
//! A folder of this machine is not gone over: nobody is let in, and its errors keep what they are made of.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::secret::Secrets;

/// A store whose errors are gone over.
#[derive(Debug)]
pub(super) struct Discreet {
    objects: Arc<dyn ObjectStore>,
    secrets: Arc<Secrets>,
}

impl Discreet {
    pub(super) fn of(objects: Arc<dyn ObjectStore>, secrets: Arc<Secrets>) -> Arc<dyn ObjectStore> {
        Arc::new(Self { objects, secrets })
    }

    fn told(&self) -> impl Fn(Error) -> Error + Send + use<> {
        let secrets = Arc::clone(&self.secrets);
        move |error| without_secrets(error, &secrets)
    }
}

/// What is left of an error, or of a cause of one: texts without secrets.
struct Text {
    text: String,
    cause: Option<Box<Text>>,
}

impl Text {
    /// The text of an error with that of its innermost cause, which is what went wrong: `object_store` says that a request
    /// could not be sent, and whether a certificate expired or nobody listens only its cause's cause's cause.
    fn whole(error: &(dyn StdError + 'static), secrets: &Secrets) -> Self {
        let mut told = Self::of(error, secrets);
        let mut innermost = &told;
        while let Some(cause) = &innermost.cause {
            innermost = cause;
        }
        if !told.text.contains(&innermost.text) {
            told.text = format!("{}: {}", told.text, innermost.text);
        }
        told
    }

    fn of(error: &(dyn StdError + 'static), secrets: &Secrets) -> Self {
        let cause = error.source().map(|cause| Box::new(Self::of(cause, secrets)));
        Self { text: secrets.scrub(&error.to_string()), cause }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

impl StdError for Text {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

/// An error of the same kind, without these secrets and what looks like one.
pub(super) fn without_secrets(error: Error, secrets: &Secrets) -> Error {
    let told = |source: Box<dyn StdError + Send + Sync>| Box::new(Text::whole(&*source, secrets));
    let scrub = |path: String| secrets.scrub(&path);
    match error {
        Error::Generic { store, source } => Error::Generic { store, source: told(source) },
        Error::NotFound { path, source } => Error::NotFound { path: scrub(path), source: told(source) },
        Error::NotSupported { source } => Error::NotSupported { source: told(source) },
        Error::AlreadyExists { path, source } => Error::AlreadyExists { path: scrub(path), source: told(source) },
        Error::Precondition { path, source } => Error::Precondition { path: scrub(path), source: told(source) },
        Error::NotModified { path, source } => Error::NotModified { path: scrub(path), source: told(source) },
        Error::PermissionDenied { path, source } => Error::PermissionDenied { path: scrub(path), source: told(source) },
        Error::Unauthenticated { path, source } => Error::Unauthenticated { path: scrub(path), source: told(source) },
        // The rest hold no text of just anybody's, or such that cannot be changed: keys of a listing that are none.
        other => {
            let shown = format!("{other}\n{other:?}");
            let is_fine = secrets.scrub(&shown) == shown;
            if is_fine { other } else { Error::Generic { store: "store", source: told(Box::new(other)) } }
        }
    }
}

impl fmt::Display for Discreet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(formatter)
    }
}

#[async_trait]
impl ObjectStore for Discreet {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(location, payload, options).await.map_err(self.told())
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.objects.put_multipart_opts(location, options).await.map_err(self.told())?;
        Ok(Box::new(DiscreetUpload { upload, secrets: Arc::clone(&self.secrets) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.objects.get_opts(location, options).await.map_err(self.told())?;
        result.payload = match result.payload {
            GetResultPayload::Stream(bytes) => GetResultPayload::Stream(bytes.map_err(self.told()).boxed()),
            payload => payload,
        };
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.objects.get_ranges(location, ranges).await.map_err(self.told())
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations).map_err(self.told()).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix).map_err(self.told()).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list_with_offset(prefix, offset).map_err(self.told()).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await.map_err(self.told())
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await.map_err(self.told())
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.objects.rename_opts(from, to, options).await.map_err(self.told())
    }
}

#[derive(Debug)]
struct DiscreetUpload {
    upload: Box<dyn MultipartUpload>,
    secrets: Arc<Secrets>,
}

#[async_trait]
impl MultipartUpload for DiscreetUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        let (part, secrets) = (self.upload.put_part(part), Arc::clone(&self.secrets));
        Box::pin(async move { part.await.map_err(|error| without_secrets(error, &secrets)) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.upload.complete().await.map_err(|error| without_secrets(error, &self.secrets))
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await.map_err(|error| without_secrets(error, &self.secrets))
    }
}

#[cfg(test)]
mod tests {
    use std::iter::successors;

    use futures::stream;
    use object_store::ObjectStoreExt;

    use super::*;

    const CANARY: &str = "c4nary/secret";

    /// A cause within a cause, each of which shows the secret.
    #[derive(Debug, thiserror::Error)]
    #[error("it said {said}")]
    struct Said {
        said: &'static str,
        #[source]
        cause: Option<Box<Self>>,
    }

    fn said() -> Box<Said> {
        Box::new(Said { said: CANARY, cause: Some(Box::new(Said { said: CANARY, cause: None })) })
    }

    fn generic() -> Error {
        Error::Generic { store: "S3", source: said() }
    }

    /// A store that fails whatever it is asked, at once or in the middle.
    #[derive(Debug)]
    struct Failing;

    impl fmt::Display for Failing {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("failing")
        }
    }

    #[async_trait]
    impl ObjectStore for Failing {
        async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
            Err(generic())
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            _: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            if location.as_ref() == "no" { Err(generic()) } else { Ok(Box::new(Self)) }
        }

        async fn get_opts(&self, location: &Path, _: GetOptions) -> Result<GetResult> {
            if location.as_ref() == "no" {
                return Err(generic());
            }
            let meta = ObjectMeta {
                location: location.clone(),
                last_modified: "2026-03-01T00:00:00Z".parse().expect("a time"),
                size: 5,
                e_tag: None,
                version: None,
            };
            let payload = GetResultPayload::Stream(stream::iter([Err(generic())]).boxed());
            Ok(GetResult { payload, meta, range: 0..5, attributes: object_store::Attributes::default() })
        }

        async fn get_ranges(&self, _: &Path, _: &[Range<u64>]) -> Result<Vec<Bytes>> {
            Err(generic())
        }

        fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            stream::iter([Err(generic())]).boxed()
        }

        fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            stream::iter([Err(generic())]).boxed()
        }

        fn list_with_offset(&self, _: Option<&Path>, _: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
            stream::iter([Err(generic())]).boxed()
        }

        async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
            Err(generic())
        }

        async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
            Err(generic())
        }

        async fn rename_opts(&self, _: &Path, _: &Path, _: RenameOptions) -> Result<()> {
            Err(generic())
        }
    }

    #[async_trait]
    impl MultipartUpload for Failing {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            Box::pin(async { Err(generic()) })
        }

        async fn complete(&mut self) -> Result<PutResult> {
            Err(generic())
        }

        async fn abort(&mut self) -> Result<()> {
            Err(generic())
        }
    }

    /// All that can be had of an error by who shows it.
    fn shown(error: &Error) -> String {
        let causes = successors(error.source(), |cause| (*cause).source());
        let causes: Vec<_> = causes.map(|cause| format!("{cause} {cause:?} {cause:#?}")).collect();
        format!("{error} {error:?} {error:#?} {}", causes.join(" "))
    }

    /// One error of each way by which a store has one.
    async fn failures(store: &dyn ObjectStore) -> Vec<Error> {
        let (no, yes, one) = (Path::from("no"), Path::from("yes"), || PutPayload::from_static(b"1"));
        let mut upload = store.put_multipart(&yes).await.expect("begun");
        let body = store.get(&yes).await.expect("begun");
        let failed = [
            store.put(&no, one()).await.err(),
            store.put_multipart(&no).await.err(),
            upload.put_part(one()).await.err(),
            upload.complete().await.err(),
            upload.abort().await.err(),
            store.get(&no).await.err(),
            body.bytes().await.err(),
            store.get_ranges(&no, &[0..1, 4..5]).await.err(),
            store.head(&no).await.err(),
            store.delete(&no).await.err(),
            store.list(None).try_next().await.err(),
            store.list_with_offset(None, &no).try_next().await.err(),
            store.list_with_delimiter(None).await.err(),
            store.copy(&no, &yes).await.err(),
            store.rename(&no, &yes).await.err(),
        ];
        let count = failed.len();
        let failed: Vec<Error> = failed.into_iter().flatten().collect();
        assert_eq!(failed.len(), count, "each fails");
        failed
    }

    /// The store that fails is the canary: without the wrapper each way shows the secret, of the error and of both causes.
    #[tokio::test]
    async fn no_way_by_which_a_store_fails_shows_a_secret() {
        let secrets = Arc::new(Secrets::of([CANARY.to_owned()]));
        for error in failures(&Failing).await {
            assert!(shown(&error).matches(CANARY).count() > 6, "{error}");
        }
        for error in failures(&*Discreet::of(Arc::new(Failing), secrets)).await {
            let shown = shown(&error);
            assert!(!shown.contains("c4nary") && shown.starts_with("Generic S3 error: it said ***"), "{shown}");
            assert_eq!(successors(error.source(), |cause| (*cause).source()).count(), 2, "the causes are told as well");
        }
    }

    /// Others decide by the kind of an error: it stays, unless it is the kind that shows.
    #[test]
    fn an_error_keeps_its_kind() {
        let secrets = Secrets::of([CANARY.to_owned()]);
        let path = || format!("of/{CANARY}");
        for error in [
            generic(),
            Error::NotFound { path: path(), source: said() },
            Error::NotSupported { source: said() },
            Error::AlreadyExists { path: path(), source: said() },
            Error::Precondition { path: path(), source: said() },
            Error::NotModified { path: path(), source: said() },
            Error::PermissionDenied { path: path(), source: said() },
            Error::Unauthenticated { path: path(), source: said() },
            Error::NotImplemented { operation: "put".into(), implementer: "S3".into() },
        ] {
            let kind = std::mem::discriminant(&error);
            let told = without_secrets(error, &secrets);
            assert!(std::mem::discriminant(&told) == kind && !shown(&told).contains("c4nary"), "{told:?}");
        }
        let key = Error::InvalidPath { source: Path::parse("c4nary/secret//x").expect_err("no key") };
        assert!(shown(&key).contains(CANARY));
        let told = without_secrets(key, &secrets);
        assert!(!shown(&told).contains("c4nary") && told.to_string().contains("invalid path"), "{told}");
    }
}
