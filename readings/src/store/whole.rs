//! An answer that is shorter or longer than it says is an error, and never an object.
//!
//! A line that breaks, or a proxy that cuts, can hand out a part of an object as if it were the whole. Of a
//! landed batch that would be a bad batch, of an entry of a Delta log a commit that forgot its last
//! actions. So every body is counted, and compared with the range that its answer says it is. What the
//! answer says is believed: a store that lies about both is found out by those who read what is in it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// A store whose answers are counted.
#[derive(Debug)]
pub(super) struct WholeAnswers(Arc<dyn ObjectStore>);

impl WholeAnswers {
    pub(super) fn of(objects: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Self(objects))
    }
}

/// An answer has another length than it says.
fn wrong_length(location: &Path, expected: u64, got: u64) -> Error {
    let text = format!("the answer for `{location}` has {got} bytes, and says that it has {expected}");
    Error::Generic { store: "store", source: text.into() }
}

/// The same bytes, and an error where they are too many or too few.
fn counted(
    location: Path,
    expected: u64,
    bytes: BoxStream<'static, Result<Bytes>>,
) -> BoxStream<'static, Result<Bytes>> {
    let counting = stream::unfold(Some((bytes, 0_u64)), move |state| {
        let location = location.clone();
        async move {
            let (mut bytes, before) = state?;
            match bytes.next().await {
                Some(Ok(part)) => {
                    let got = before + part.len() as u64;
                    let is_fine = got <= expected;
                    let item = if is_fine { Ok(part) } else { Err(wrong_length(&location, expected, got)) };
                    Some((item, is_fine.then_some((bytes, got))))
                }
                Some(Err(error)) => Some((Err(error), None)),
                None if before < expected => Some((Err(wrong_length(&location, expected, before)), None)),
                None => None,
            }
        }
    });
    // Some ask once more after the end.
    counting.fuse().boxed()
}

impl fmt::Display for WholeAnswers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[async_trait]
impl ObjectStore for WholeAnswers {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let has_body = !options.head;
        let mut result = self.0.get_opts(location, options).await?;
        // A store below a prefix gives the key with it.
        result.meta.location = location.clone();
        result.payload = match result.payload {
            GetResultPayload::Stream(bytes) if has_body => {
                let expected = result.range.end.saturating_sub(result.range.start);
                GetResultPayload::Stream(counted(location.clone(), expected, bytes))
            }
            // A file of this machine is read by its length.
            payload => payload,
        };
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let parts = self.0.get_ranges(location, ranges).await?;
        let lengths = parts.iter().map(|part| part.len() as u64);
        let wanted = ranges.iter().map(|range| range.end.saturating_sub(range.start));
        match wanted.zip(lengths).find(|(wanted, got)| wanted != got) {
            Some((wanted, got)) => Err(wrong_length(location, wanted, got)),
            None => Ok(parts),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        // A store that overlooks the offset lists everything; what lies before it is none of the asker's.
        let listing = self.0.list_with_offset(prefix, offset);
        let offset = offset.clone();
        let is_after = move |meta: &Result<ObjectMeta>| {
            futures::future::ready(meta.as_ref().map_or(true, |meta| meta.location > offset))
        };
        listing.filter(is_after).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(expected: u64, parts: &[&'static str]) -> Result<usize> {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
        let mut bytes = counted(Path::from("x"), expected, stream::iter(parts).boxed());
        let mut length = 0;
        while let Some(part) = bytes.next().await {
            length += part?.len();
        }
        Ok(length)
    }

    /// Half a batch must not be taken for a batch.
    #[tokio::test]
    async fn an_answer_that_is_cut_or_too_long_is_an_error() {
        assert_eq!(read(5, &["abc", "de"]).await.expect("whole"), 5);
        assert_eq!(read(0, &[]).await.expect("whole"), 0);
        for (expected, parts) in [(6, ["abc", "de"]), (4, ["abc", "de"]), (1, ["", ""])] {
            let error = read(expected, &parts).await.expect_err("not whole").to_string();
            assert!(error.contains(&format!("says that it has {expected}")), "{error}");
        }
    }
}
