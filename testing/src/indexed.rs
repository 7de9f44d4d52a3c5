//! A store in memory that lists as a cloud does: from a key on, and what nobody reads of a listing is not made.
//!
//! `object_store`'s own goes over all its keys for each listing, so that whatever is measured on it grows with what
//! lies there. Here a listing costs what is read of it. Keys are those of the objects that were put, copied and
//! deleted through this store.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// So many keys are looked up in one go.
const PAGE: usize = 1_000;

type Index = Arc<RwLock<BTreeMap<Path, ObjectMeta>>>;

/// The store.
#[derive(Debug, Default, Clone)]
pub struct Indexed {
    objects: Arc<InMemory>,
    index: Index,
}

/// A large object that comes in parts, as a checkpoint of many versions does: it is there with the last.
#[derive(Debug)]
struct IndexedUpload {
    upload: Box<dyn MultipartUpload>,
    store: Indexed,
    key: Path,
}

#[async_trait]
impl MultipartUpload for IndexedUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.upload.put_part(part)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.upload.complete().await?;
        self.store.note(&self.key).await?;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

impl Indexed {
    async fn note(&self, key: &Path) -> Result<()> {
        let meta = self.objects.head(key).await?;
        self.index.write().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), meta);
        Ok(())
    }

    /// The objects below a folder whose keys lie after `after`.
    fn after(&self, folder: Option<&Path>, after: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let start = folder.map_or_else(String::new, |folder| format!("{folder}/"));
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let index = Arc::clone(&self.index);
        let pages = stream::unfold(Some(from), move |from| {
            let (index, start) = (Arc::clone(&index), start.clone());
            async move {
                let from = from?;
                let index = index.read().unwrap_or_else(PoisonError::into_inner);
                // Where the listing has not come to the folder yet it begins there.
                let begin = match &from {
                    Bound::Excluded(key) if key.as_ref() >= start.as_str() => from.clone(),
                    _ if start.is_empty() => from.clone(),
                    _ => Bound::Included(Path::from(start.trim_end_matches('/'))),
                };
                let page: Vec<_> = index
                    .range((begin, Bound::Unbounded))
                    .map(|(_, meta)| meta.clone())
                    .skip_while(|meta| {
                        !meta.location.as_ref().starts_with(&start) && meta.location.as_ref() < start.as_str()
                    })
                    .take_while(|meta| meta.location.as_ref().starts_with(&start))
                    .take(PAGE)
                    .collect();
                let next = (page.len() == PAGE).then(|| page.last().map(|meta| Bound::Excluded(meta.location.clone())));
                Some((page, next.flatten()))
            }
        });
        pages.flat_map(|page| stream::iter(page.into_iter().map(Ok))).boxed()
    }
}

impl fmt::Display for Indexed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Indexed")
    }
}

#[async_trait]
impl ObjectStore for Indexed {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = self.objects.put_opts(location, payload, options).await?;
        self.note(location).await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.objects.put_multipart_opts(location, options).await?;
        Ok(Box::new(IndexedUpload { upload, store: self.clone(), key: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let index = Arc::clone(&self.index);
        let deleted = self.objects.delete_stream(locations);
        deleted
            .inspect_ok(move |key| {
                index.write().unwrap_or_else(PoisonError::into_inner).remove(key);
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.after(prefix.filter(|prefix| !prefix.as_ref().is_empty()), None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.after(prefix.filter(|prefix| !prefix.as_ref().is_empty()), Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await?;
        self.note(to).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Held against `object_store`'s own listing: an index that forgets a key makes a measurement of nothing.
    #[tokio::test]
    async fn it_lists_what_lies_there_and_no_more() {
        let store = Indexed::default();
        for number in 0..2_500 {
            store.put(&Path::from(format!("a/{number:05}")), vec![1_u8].into()).await.expect("put");
        }
        for key in ["a-/x", "a", "b/c/d", "b/c", "0"] {
            store.put(&Path::from(key), vec![1_u8].into()).await.expect("put");
        }
        store.delete(&Path::from("a/00007")).await.expect("deleted");
        let keys = |metas: Vec<ObjectMeta>| metas.into_iter().map(|meta| meta.location).collect::<Vec<_>>();
        for prefix in
            [None, Some(Path::from("a")), Some(Path::from("b")), Some(Path::from("b/c")), Some(Path::from("x"))]
        {
            let mut wanted = keys(store.objects.list(prefix.as_ref()).try_collect().await.expect("listed"));
            wanted.sort_unstable();
            assert_eq!(keys(store.list(prefix.as_ref()).try_collect().await.expect("listed")), wanted, "{prefix:?}");
            for offset in ["", "a", "a/01999", "a/02499", "b/c", "z"].map(Path::from) {
                let found = keys(store.list_with_offset(prefix.as_ref(), &offset).try_collect().await.expect("listed"));
                let wanted: Vec<_> = wanted.iter().filter(|key| **key > offset).cloned().collect();
                assert_eq!(found, wanted, "{prefix:?} after {offset}");
            }
        }
    }
}
