//! Listing a folder in the order of the keys, as a cloud does, and only from some key on.
//!
//! A folder of this machine has no order and no index: each level is read and sorted by itself, which
//! costs its names. The costly part, a look at each file's size and time, is done for what is handed
//! out only, and in portions of [`PORTION`], so that whoever stops reading stops the work. Folders that
//! lie wholly before the key are not entered.
//!
//! What cannot be read (a folder without the right to, a bad sector) is an error in its place
//! ([`Unreadable`]), and the listing goes on behind it: one source's folder must not hide all the others.
//! Whoever stops at the first error, as most do, concludes nothing; whoever goes on knows which folder's
//! objects were not seen, and must take none of them for gone.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, Result};

use super::disk::Disk;
use super::{NAME, STAGED_FOLDER, blocking};

/// How many objects are looked at in one go.
const PORTION: usize = 1_000;

/// A part of a listing that could not be read. It stands in an [`object_store::Error`] as its source.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` cannot be read: {source}; hint: give this user the right to read it and what lies in it")]
pub struct Unreadable {
    /// A folder's key, which ends with `/`, or an object's.
    key: String,
    source: io::Error,
}

impl Unreadable {
    /// What cannot be read, and why.
    #[must_use]
    pub const fn new(key: String, source: io::Error) -> Self {
        Self { key, source }
    }

    /// What an error of a listing left out, where the listing goes on behind it.
    #[must_use]
    pub fn of(error: &Error) -> Option<&str> {
        let (Error::PermissionDenied { source, .. } | Error::Generic { source, .. }) = error else { return None };
        source.downcast_ref::<Self>().map(|unreadable| unreadable.key.as_str())
    }
}

impl From<Unreadable> for Error {
    fn from(error: Unreadable) -> Self {
        if error.source.kind() == ErrorKind::PermissionDenied {
            return Self::PermissionDenied { path: error.key.clone(), source: Box::new(error) };
        }
        Self::Generic { store: NAME, source: Box::new(error) }
    }
}

/// What is left to be walked.
#[derive(Debug)]
struct Walk {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    /// Keys up to this one are left out.
    offset: Option<String>,
    /// What is next lies at the end; keys of folders end with `/`.
    left: Vec<String>,
}

/// The objects under `prefix` whose keys lie after `offset`.
pub(super) fn list(
    disk: &Arc<dyn Disk>,
    root: &FilePath,
    prefix: Option<&Path>,
    offset: Option<&Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let prefix = prefix.map(Path::as_ref).filter(|prefix| !prefix.is_empty());
    let start = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
    let offset = offset.map(ToString::to_string);
    let walk = Walk { disk: Arc::clone(disk), root: root.to_owned(), offset, left: vec![start] };
    stream::try_unfold(walk, |walk| async move {
        if walk.left.is_empty() {
            return Ok(None);
        }
        blocking(move || Ok(walk.portion())).await.map(Some)
    })
    .map_ok(stream::iter)
    .try_flatten()
    .boxed()
}

impl Walk {
    fn portion(mut self) -> (Vec<Result<ObjectMeta>>, Self) {
        let mut found = Vec::new();
        while let Some(key) = self.left.pop() {
            let looked =
                if key.is_empty() || key.ends_with('/') { self.enter(&key).map(|()| None) } else { self.look(&key) };
            found.extend(looked.map_err(|source| Error::from(Unreadable::new(key, source))).transpose());
            if found.len() == PORTION {
                break;
            }
        }
        (found, self)
    }

    /// Notes what lies in a folder; nothing of it where it cannot be read to its end.
    fn enter(&mut self, folder: &str) -> io::Result<()> {
        let entries = match self.disk.read_folder(&self.root.join(folder)) {
            Ok(entries) => entries,
            // Gone meanwhile, or never there: there is nothing in it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut inside = Vec::new();
        for entry in entries {
            let entry = entry?;
            // What is no text is no key of ours, nor is what another store has under way.
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if is_under_way(folder, &name) {
                continue;
            }
            let kind = entry.file_type()?;
            let is_folder = if kind.is_symlink() { self.root.join(folder).join(&name).is_dir() } else { kind.is_dir() };
            let key = if is_folder { format!("{folder}{name}/") } else { format!("{folder}{name}") };
            if self.is_wanted(&key) {
                inside.push(key);
            }
        }
        inside.sort_unstable_by(|one, other| other.cmp(one));
        self.left.append(&mut inside);
        Ok(())
    }

    /// A folder is left out where all that is in it lies before the offset.
    fn is_wanted(&self, key: &str) -> bool {
        let Some(offset) = &self.offset else { return true };
        key > offset.as_str() || key.ends_with('/') && offset.starts_with(key)
    }

    fn look(&self, key: &str) -> io::Result<Option<ObjectMeta>> {
        let Ok(location) = Path::parse(key) else { return Ok(None) };
        let metadata = match fs::metadata(self.root.join(key)) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let modified = metadata.modified()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // As `object_store` makes it of a file, so that a listing and a head say the same.
        let e_tag = format!("{:x}-{:x}-{:x}", metadata.ino(), since.as_micros(), metadata.len());
        let size = metadata.len();
        Ok(Some(ObjectMeta { location, last_modified: modified.into(), size, e_tag: Some(e_tag), version: None }))
    }
}

/// Ours lie in a folder of their own; `object_store`'s end with `#` and a number.
fn is_under_way(folder: &str, name: &str) -> bool {
    let numbered = |(_, number): (&str, &str)| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    folder.is_empty() && name == STAGED_FOLDER || name.rsplit_once('#').is_some_and(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::local::SyncedFolder;
    use crate::store::local::disk::RealDisk;
    use object_store::{ObjectStore, ObjectStoreExt};
    use proptest::prelude::*;

    async fn keys(listing: BoxStream<'static, Result<ObjectMeta>>) -> Vec<ObjectMeta> {
        listing.try_collect().await.expect("listed")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Held against `object_store`'s own listing, sorted and filtered: whoever continues a listing
        /// where it stopped must miss nothing, or a landed batch is never seen.
        #[test]
        fn a_listing_from_a_key_on_is_the_rest_of_the_whole(
            names in prop::collection::btree_set("[ab-]{1,2}(/[ab.-]{1,2}x){0,2}", 1..12),
            offset in "[ab-]{1,2}(/[ab.-]{1,2}x?){0,2}",
            prefix in prop::option::of("[ab-]{1,2}"),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let store = SyncedFolder::create(folder.path()).expect("opened");
                for name in &names {
                    // A name can be a file or a folder, not both.
                    let _ = store.put(&Path::from(name.as_str()), vec![1_u8].into()).await;
                }
                let (prefix, offset) = (prefix.map(Path::from), Path::from(offset));
                let mut whole = keys(store.objects.list(prefix.as_ref())).await;
                whole.sort_unstable_by(|one, other| one.location.as_ref().cmp(other.location.as_ref()));
                prop_assert_eq!(&keys(store.list(prefix.as_ref())).await, &whole);
                whole.retain(|meta| meta.location > offset);
                prop_assert_eq!(keys(store.list_with_offset(prefix.as_ref(), &offset)).await, whole);
                Ok(())
            })?;
        }
    }

    /// A disk that refuses one folder, whoever asks.
    #[derive(Debug)]
    struct Locked(&'static str);

    impl Disk for Locked {
        fn create_folder(&self, folder: &FilePath) -> io::Result<()> {
            RealDisk.create_folder(folder)
        }

        fn write_synced(&self, file: &FilePath, payload: &object_store::PutPayload) -> io::Result<()> {
            RealDisk.write_synced(file, payload)
        }

        fn link(&self, file: &FilePath, name: &FilePath) -> io::Result<()> {
            RealDisk.link(file, name)
        }

        fn rename(&self, file: &FilePath, name: &FilePath) -> io::Result<()> {
            RealDisk.rename(file, name)
        }

        fn sync_file(&self, file: &FilePath) -> io::Result<()> {
            RealDisk.sync_file(file)
        }

        fn sync_folder(&self, folder: &FilePath) -> io::Result<()> {
            RealDisk.sync_folder(folder)
        }

        fn read_folder(&self, folder: &FilePath) -> io::Result<fs::ReadDir> {
            if folder.ends_with(self.0) {
                Err(ErrorKind::PermissionDenied.into())
            } else {
                RealDisk.read_folder(folder)
            }
        }
    }

    /// A source's folder that somebody took the rights from hid the batches of all sources.
    #[tokio::test]
    async fn a_folder_that_cannot_be_read_is_told_in_its_place_and_hides_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SyncedFolder::create_on(Arc::new(Locked("landing/b")), folder.path()).expect("opened");
        for key in ["landing/a/1", "landing/b/1", "landing/b/2", "landing/c/1"] {
            store.put(&Path::from(key), vec![1_u8].into()).await.expect("put");
        }
        let landing = Path::from("landing");
        let listed: Vec<_> = store.list(Some(&landing)).collect().await;
        let told = listed.iter().map(|item| match item {
            Ok(meta) => meta.location.to_string(),
            Err(error) => format!("no {}", Unreadable::of(error).expect("told as what it is")),
        });
        assert_eq!(told.collect::<Vec<_>>(), ["landing/a/1", "no landing/b/", "landing/c/1"]);
        let error = store.list(Some(&landing)).try_collect::<Vec<_>>().await.expect_err("who stops there has nothing");
        assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
        assert!(error.to_string().contains("`landing/b/` cannot be read: permission denied"), "{error}");
        let after = store.list_with_offset(Some(&landing), &Path::from("landing/b0"));
        assert_eq!(keys(after).await.len(), 1, "nobody asks for what lies before the offset");
    }

    #[tokio::test]
    async fn more_than_a_portion_is_listed_to_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SyncedFolder::create(folder.path()).expect("opened");
        std::fs::create_dir(folder.path().join("x")).expect("made");
        for number in 0..PORTION * 2 + 1 {
            std::fs::write(folder.path().join(format!("x/{number:05}")), b"").expect("written");
        }
        assert_eq!(keys(store.list(None)).await.len(), PORTION * 2 + 1);
        assert_eq!(keys(store.list_with_offset(None, &Path::from("x/01999"))).await.len(), 1);
    }
}
