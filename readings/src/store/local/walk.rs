//! Listing a folder in the order of the keys, as a cloud does, and only from some key on.
//!
//! A folder of this machine has no order and no index: each level is read and sorted by itself, which
//! costs its names. The costly part, a look at each file's size and time, is done for what is handed
//! out only, and in portions of [`PORTION`], so that whoever stops reading stops the work. Folders that
//! lie wholly before the key are not entered.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, Result};

use super::{STAGED_FOLDER, blocking, generic};

/// How many objects are looked at in one go.
const PORTION: usize = 1_000;

/// What is left to be walked.
#[derive(Debug)]
struct Walk {
    root: PathBuf,
    /// Keys up to this one are left out.
    offset: Option<String>,
    /// What is next lies at the end; keys of folders end with `/`.
    left: Vec<String>,
}

/// The objects under `prefix` whose keys lie after `offset`.
pub(super) fn list(
    root: &FilePath,
    prefix: Option<&Path>,
    offset: Option<&Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let prefix = prefix.map(Path::as_ref).filter(|prefix| !prefix.is_empty());
    let start = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
    let walk = Walk { root: root.to_owned(), offset: offset.map(ToString::to_string), left: vec![start] };
    stream::try_unfold(walk, |walk| async move {
        if walk.left.is_empty() {
            return Ok(None);
        }
        blocking(move || walk.portion().map_err(generic)).await.map(Some)
    })
    .map_ok(|portion| stream::iter(portion.into_iter().map(Ok)))
    .try_flatten()
    .boxed()
}

impl Walk {
    fn portion(mut self) -> io::Result<(Vec<ObjectMeta>, Self)> {
        let mut metas = Vec::new();
        while let Some(key) = self.left.pop() {
            if key.is_empty() || key.ends_with('/') {
                self.enter(&key)?;
            } else if let Some(meta) = self.look(&key)? {
                metas.push(meta);
                if metas.len() == PORTION {
                    break;
                }
            }
        }
        Ok((metas, self))
    }

    fn enter(&mut self, folder: &str) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            // Gone meanwhile, or never there: there is nothing in it.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            Err(error) => return Err(error),
        };
        let before = self.left.len();
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
                self.left.push(key);
            }
        }
        self.left[before..].sort_unstable_by(|one, other| other.cmp(one));
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
