//! Small data files that were read not long ago, kept in memory.
//!
//! The files of a day are small and are read again and again: by the rollup, by compaction, by each query. In a cloud
//! each of these reads is two or three billed requests and as many round trips. A data file never changes, so what was
//! read once can be kept; a file that this process removes is forgotten at once. What is kept is bounded by
//! [`KEPT_BYTES_MAX`]; what came first goes first. The log is never kept: it is what says which files count.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// How much is kept.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The largest file that is kept: as much as the engine reads of a file's end at once.
pub(crate) const FILE_BYTES_MAX: u64 = 512 << 10;

/// How many large files are remembered as such.
const LARGE_MAX: usize = 10_000;

/// A store that remembers small data files.
#[derive(Debug)]
pub(crate) struct Recent {
    objects: Arc<dyn ObjectStore>,
    files: Arc<Mutex<Files>>,
}

#[derive(Debug, Default)]
struct Files {
    kept: HashMap<Path, (ObjectMeta, Bytes)>,
    order: VecDeque<Path>,
    bytes: usize,
    /// Files that are too large, so that nobody tries again; begun anew at [`LARGE_MAX`].
    large: HashSet<Path>,
}

impl Files {
    fn keep(&mut self, meta: ObjectMeta, bytes: Bytes) {
        self.forget(&meta.location);
        self.bytes += bytes.len();
        self.order.push_back(meta.location.clone());
        self.kept.insert(meta.location.clone(), (meta, bytes));
        while self.bytes > KEPT_BYTES_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.forget(&first);
        }
    }

    fn forget(&mut self, key: &Path) {
        if let Some((_, bytes)) = self.kept.remove(key) {
            self.bytes -= bytes.len();
            self.order.retain(|one| one != key);
        }
    }
}

impl Recent {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects, files: Arc::default() }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, key: &Path) -> Option<(ObjectMeta, Bytes)> {
        self.files().kept.get(key).cloned()
    }

    /// The whole of a small file, read with one request the first time; `None` where it is large or no data file.
    async fn whole(&self, key: &Path) -> Result<Option<(ObjectMeta, Bytes)>> {
        if !is_data_file(key) || self.files().large.contains(key) {
            return Ok(None);
        }
        if let Some(kept) = self.kept(key) {
            return Ok(Some(kept));
        }
        let head = GetOptions { range: Some(GetRange::Bounded(0..FILE_BYTES_MAX)), ..GetOptions::default() };
        let got = self.objects.get_opts(key, head).await?;
        if got.range != (0..got.meta.size) {
            let mut files = self.files();
            if files.large.len() >= LARGE_MAX {
                files.large.clear();
            }
            files.large.insert(key.clone());
            return Ok(None);
        }
        let meta = got.meta.clone();
        let bytes = got.bytes().await?;
        self.files().keep(meta.clone(), bytes.clone());
        Ok(Some((meta, bytes)))
    }
}

/// Whether an object never changes.
fn is_data_file(key: &Path) -> bool {
    key.as_ref().ends_with(".parquet")
        && key.as_ref().starts_with(tjern_readings::keys::TABLES)
        && !key.as_ref().contains("/_")
}

fn is_plain(options: &GetOptions) -> bool {
    let GetOptions { if_match, if_none_match, if_modified_since, if_unmodified_since, version, head, .. } = options;
    let has_condition =
        if_match.is_some() || if_none_match.is_some() || if_modified_since.is_some() || if_unmodified_since.is_some();
    !has_condition && version.is_none() && !head
}

/// The part of `size` bytes that is asked for; `None` where there is no such part, which the store shall say.
fn part(range: Option<&GetRange>, size: u64) -> Option<Range<u64>> {
    match range {
        None => Some(0..size),
        Some(GetRange::Bounded(range)) => {
            (range.start < range.end && range.start < size).then(|| range.start..range.end.min(size))
        }
        Some(GetRange::Offset(start)) => (*start < size).then_some(*start..size),
        Some(GetRange::Suffix(length)) => Some(size.saturating_sub(*length)..size),
    }
}

fn cut(bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
    (range.start <= range.end && range.end <= bytes.len()).then(|| bytes.slice(range))
}

fn result(meta: ObjectMeta, range: Range<u64>, bytes: Bytes) -> GetResult {
    let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
    GetResult { payload, meta, range, attributes: object_store::Attributes::default() }
}

impl fmt::Display for Recent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(formatter)
    }
}

#[async_trait]
impl ObjectStore for Recent {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.files().forget(location);
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files().forget(location);
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if is_plain(&options)
            && let Some((meta, bytes)) = self.whole(location).await?
            && let Some(range) = part(options.range.as_ref(), meta.size)
            && let Some(bytes) = cut(&bytes, &range)
        {
            return Ok(result(meta, range, bytes));
        }
        self.objects.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some((_, bytes)) = self.whole(location).await?
            && let Some(parts) = ranges.iter().map(|range| cut(&bytes, range)).collect()
        {
            return Ok(parts);
        }
        self.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let files = Arc::clone(&self.files);
        let forgotten = locations.inspect(move |location| {
            if let Ok(key) = location {
                files.lock().unwrap_or_else(PoisonError::into_inner).forget(key);
            }
        });
        self.objects.delete_stream(forgotten.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files().forget(to);
        self.objects.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files().forget(from);
        self.files().forget(to);
        self.objects.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use proptest::prelude::*;
    use tjern_readings::store::Requests;
    use tjern_readings::store::counted::Counted;

    fn store() -> (Recent, Requests) {
        let requests = Requests::default();
        (Recent::new(Arc::new(Counted::new(Arc::new(InMemory::new()), requests.clone()))), requests)
    }

    proptest! {
        /// Whatever part is asked for, and however: what is kept gives the same as the store itself, errors too.
        #[test]
        fn what_is_kept_is_what_is_stored(
            size in 1_usize..40,
            asked in prop::collection::vec((0_u8..4, 0_u64..50, 0_u64..50), 1..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let plain = InMemory::new();
                let (kept, _) = store();
                let key = Path::from("tables/readings/x.parquet");
                let bytes: Vec<u8> = (0..u8::try_from(size).expect("small")).collect();
                plain.put(&key, bytes.clone().into()).await.expect("put");
                kept.put(&key, bytes.into()).await.expect("put");
                for (kind, start, length) in asked {
                    let range = match kind {
                        0 => None,
                        1 => Some(GetRange::Bounded(start..start + length)),
                        2 => Some(GetRange::Offset(start)),
                        _ => Some(GetRange::Suffix(length)),
                    };
                    let options = GetOptions { range, ..GetOptions::default() };
                    let one = plain.get_opts(&key, options.clone()).await;
                    let other = kept.get_opts(&key, options).await;
                    prop_assert_eq!(one.is_ok(), other.is_ok());
                    if let (Ok(one), Ok(other)) = (one, other) {
                        prop_assert_eq!(&one.range, &other.range);
                        prop_assert_eq!(one.bytes().await.expect("read"), other.bytes().await.expect("read"));
                    }
                }
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn a_small_file_is_got_once_and_a_removed_one_is_forgotten() {
        let (store, requests) = store();
        let key = Path::from("tables/readings/x.parquet");
        store.put(&key, vec![7_u8; 1_000].into()).await.expect("put");
        for _ in 0..3 {
            store.get_ranges(&key, &[0..10, 20..30]).await.expect("got");
            store.get_range(&key, 990..1_000).await.expect("got");
        }
        assert_eq!(requests.counts().gets, 1);
        store.delete(&key).await.expect("deleted");
        assert!(store.get(&key).await.is_err(), "a removed file is still handed out");
    }

    /// A large file costs a request in vain, once.
    #[tokio::test]
    async fn a_large_file_is_read_in_parts() {
        let (store, requests) = store();
        let key = Path::from("tables/readings/x.parquet");
        let bytes: Vec<u8> = (0..=255).cycle().take((600 << 10) + 1).collect();
        store.put(&key, bytes.clone().into()).await.expect("put");
        for start in [0, 100, 614_000] {
            assert_eq!(
                store.get_range(&key, start..start + 200).await.expect("got"),
                bytes[usize::try_from(start).expect("small")..][..200]
            );
        }
        assert_eq!(requests.counts().gets, 4);
    }

    /// What says which files count is asked for each time, and memory has a bound.
    #[tokio::test]
    async fn the_log_is_never_kept_and_files_only_up_to_a_bound() {
        let (store, requests) = store();
        let log = Path::from("tables/readings/_delta_log/00000000000000000010.checkpoint.parquet");
        store.put(&log, vec![7_u8; 10].into()).await.expect("put");
        for _ in 0..2 {
            store.get(&log).await.expect("got");
        }
        assert_eq!(requests.counts().gets, 2);
        for number in 0..100 {
            let key = Path::from(format!("tables/readings/{number}.parquet"));
            store.put(&key, vec![7_u8; 400 << 10].into()).await.expect("put");
            store.get(&key).await.expect("got");
        }
        let files = store.files();
        assert!(files.bytes <= KEPT_BYTES_MAX && files.order.len() == files.kept.len() && !files.kept.is_empty());
    }
}
