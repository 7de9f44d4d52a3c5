//! Which lake a folder is: an id, drawn once and kept in `<folder>/.staged/lake/id#0`.
//!
//! A folder's path says where a lake is looked for, and not that it is there: below the mount point of a disk lies a folder too.
//! Who remembers the id finds out. It lies where listings do not look and where nothing is swept away, so that no backup,
//! no restore and no job meets it; a copy of all files (a snapshot, `cp -a`) brings it along, and a lake that was restored object by object
//! has a new one. Whoever opens the folder first and may write there gives it one. Invariants: of many who do that at once all
//! come to the same id; it is on disk before anybody is told. Versions before this one leave it alone.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path as FilePath, PathBuf};

use object_store::PutPayload;
use uuid::Uuid;

use super::disk::Disk;
use super::{STAGED_FOLDER, put};

/// In the folder of what is under way: a folder of its own, since files there are removed after a day.
const FOLDER: &str = "lake";

/// A name that `object_store` takes for a file under way: whoever lists the folder with that alone leaves it out, too.
const FILE: &str = "id#0";

/// Everybody may look, whatever the mask of who made it.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// Longer texts are no id.
const LENGTH_MAX: u64 = 64;

fn file(root: &FilePath) -> PathBuf {
    root.join(STAGED_FOLDER).join(FOLDER).join(FILE)
}

/// The id of the lake in a folder; nothing where there is no folder, or none with an id. Nothing is created. Blocks.
///
/// # Errors
/// What the system says where it cannot be read, or [`ErrorKind::InvalidData`] where it is no id.
pub fn identity(root: &FilePath) -> io::Result<Option<String>> {
    let file = file(root);
    let length = match fs::metadata(&file) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        metadata => metadata?.len(),
    };
    let refused = || io::Error::new(ErrorKind::InvalidData, format!("`{}` holds no id", file.display()));
    if length > LENGTH_MAX {
        return Err(refused());
    }
    let text = fs::read_to_string(&file)?;
    let id = Uuid::try_parse(text.trim_end()).map_err(|_| refused())?;
    Ok(Some(id.simple().to_string()))
}

/// Gives the lake in a folder an id, unless it has one. It belongs to whom the lake's folder belongs.
pub(super) fn give(disk: &dyn Disk, root: &FilePath) -> io::Result<()> {
    let file = file(root);
    if file.exists() {
        return Ok(());
    }
    let text = format!("{}\n", Uuid::new_v4().simple());
    match put(disk, root, &file, &PutPayload::from(text), true) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let owner = fs::metadata(root)?;
    for (path, mode) in [(file.parent(), FOLDER_MODE), (Some(file.as_path()), FILE_MODE)] {
        let Some(path) = path else { continue };
        // It is no secret, and others of the machine look at it. Only who made it may do the first, and only root the second.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
        let _ = lchown(path, Some(owner.uid()), Some(owner.gid()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::SyncedFolder;
    use super::*;
    use futures::TryStreamExt;
    use object_store::ObjectStore;

    #[tokio::test]
    async fn a_lake_keeps_its_id_and_no_listing_shows_it() {
        let above = tempfile::tempdir().expect("a folder");
        let root = above.path().join("lake");
        assert_eq!(identity(&root).expect("read"), None);
        assert!(!root.exists(), "who asks creates nothing");
        let ids: Vec<_> = std::thread::scope(|scope| {
            let opening = || scope.spawn(|| SyncedFolder::create(&root).map(|_| identity(&root).expect("read")));
            (0..8)
                .map(|_| opening())
                .collect::<Vec<_>>()
                .into_iter()
                .map(|opened| opened.join().expect("no panic").expect("opened"))
                .collect()
        });
        assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        fs::File::open(file(&root)).and_then(|file| file.set_modified(old)).expect("it has grown old");
        let store = SyncedFolder::create(&root).expect("opened again");
        assert_eq!(identity(&root).expect("read"), ids[0]);
        let listed: Vec<_> = store.list(None).try_collect().await.expect("listed");
        assert_eq!(listed.len(), 0, "{listed:?}");
        let other = above.path().join("other");
        SyncedFolder::create(&other).expect("opened");
        assert_ne!(identity(&other).expect("read"), ids[0]);
        fs::write(file(&root), "x").expect("written");
        identity(&root).expect_err("that is no id");
    }
}
