//! Whether the name of a spool's folder leads to the folder that was taken.
//!
//! A disk is unmounted, a folder moved or deleted, and another folder has the name then, or none. What is not found there is not
//! lost, and what is written there is found by nobody. The lock tells: while its name leads to the file that is held, the folder is
//! the spool's own. It is looked at before each call and behind it, so that what came of the call is of that folder.
//!
//! A folder is *regained* without a restart where its log shows that it is the spool's and nobody went on with it (a disk that was
//! plugged in again is another device), or where the spool's own was deleted for good and the name is free on the same file system.
//! Limit: a folder that goes and comes back within one call is not noticed.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::onlooker::Onlooker;
use super::{Disk, LOCK, TakeError};

/// Why nothing is read or written under the name of a spool's folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Away {
    /// Nothing has its name.
    #[error(
        "the spool's folder `{0}` is gone; hint: mount its disk, or move the folder back: the gateway goes on with it by itself, and makes no other in its place"
    )]
    Gone(PathBuf),
    /// Something else has it.
    #[error(
        "another folder has the name of the spool's, `{0}`; hint: is the right disk mounted there? the gateway goes on by itself once it is, and with this folder only when it is started anew"
    )]
    Another(PathBuf),
}

impl Away {
    /// Whether an error says that.
    pub(crate) fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|within| within.is::<Self>())
    }
}

impl From<Away> for io::Error {
    fn from(away: Away) -> Self {
        Self::other(away)
    }
}

/// Whose a folder is that has a spool's name, as its log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The spool's, as it left it.
    Ours,
    /// There is no log in it.
    Nobodys,
    /// Another's, or one with which another went on.
    Anothers,
}

/// Says whose a folder is, which is only looked at.
pub(crate) type Judge<'judge> = &'judge dyn Fn(&dyn Disk) -> io::Result<Whose>;

/// A folder's name, and what was taken under it.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    /// The folder lies in another one, which is not this one's to make.
    is_within: bool,
    held: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    lock: File,
    id: Id,
    /// The file system that the folder is on.
    device: u64,
}

/// A device and an inode.
type Id = (u64, u64);

fn id_of(metadata: &Metadata) -> Id {
    (metadata.dev(), metadata.ino())
}

impl Place {
    pub(super) fn new(root: &Path, is_within: bool) -> Self {
        Self { root: root.to_owned(), is_within, held: Mutex::default() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the folder where it is missing, and locks it, where that is not yet done.
    pub(super) fn take(&self) -> Result<(), TakeError> {
        if self.held().is_some() {
            return self.check().map_err(TakeError::Io);
        }
        let made = if self.is_within { make(&self.root) } else { fs::create_dir_all(&self.root) };
        made.map_err(TakeError::Io)?;
        sync_above(&self.root);
        self.hold()
    }

    /// Locks the folder that has the name.
    fn hold(&self) -> Result<(), TakeError> {
        let path = self.root.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(TakeError::Lock)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(TakeError::Locked),
            Err(TryLockError::Error(error)) => return Err(TakeError::Lock(error)),
        }
        let id = lock.metadata().map(|metadata| id_of(&metadata)).map_err(TakeError::Io)?;
        let device = fs::metadata(&self.root).map_err(TakeError::Io)?.dev();
        // One task has the spool, and asks once at a time.
        *self.held() = Some(Held { lock, id, device });
        Ok(())
    }

    /// Fails where the name does not lead to the folder that was taken.
    pub(super) fn check(&self) -> io::Result<()> {
        let Some(id) = self.held().as_ref().map(|held| held.id) else { return Ok(()) };
        match fs::metadata(self.root.join(LOCK)) {
            Ok(metadata) if id_of(&metadata) == id => Ok(()),
            Ok(_) => Err(Away::Another(self.root.clone()).into()),
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(error),
            Err(_) if self.root.exists() => Err(Away::Another(self.root.clone()).into()),
            Err(_) => Err(Away::Gone(self.root.clone()).into()),
        }
    }

    /// What comes of work in the folder that was taken. Where the name does not lead there, before or behind it, that is the error,
    /// whatever came of it.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.check()?;
        let done = work();
        self.check()?;
        done
    }

    /// Takes the folder that has the name now, where that is certain to be right.
    pub(super) fn regain(&self, judge: Judge<'_>) -> io::Result<()> {
        let deleted_from = self.deleted_from()?;
        let whose = match Onlooker::at(&self.root) {
            Ok(seen) => judge(&seen)?,
            Err(error) if error.kind() == ErrorKind::NotFound => match deleted_from {
                Some(device) if device_above(&self.root)? == device => {
                    make(&self.root)?;
                    sync_above(&self.root);
                    Whose::Nobodys
                }
                _ => return Err(Away::Gone(self.root.clone()).into()),
            },
            Err(error) => return Err(error),
        };
        let is_free = || Ok::<_, io::Error>(deleted_from == Some(fs::metadata(&self.root)?.dev()));
        if whose == Whose::Ours || (whose == Whose::Nobodys && is_free()?) {
            return self.hold().map_err(TakeError::into_io);
        }
        Err(Away::Another(self.root.clone()).into())
    }

    /// The file system from which the folder's lock was deleted, as nobody does who wants the folder back.
    fn deleted_from(&self) -> io::Result<Option<u64>> {
        let held = self.held();
        let Some(Held { lock, device, .. }) = &*held else { return Ok(None) };
        Ok((lock.metadata()?.nlink() == 0).then_some(*device))
    }
}

/// Makes a folder, and none above it.
fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

fn above(folder: &Path) -> &Path {
    folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn device_above(folder: &Path) -> io::Result<u64> {
    Ok(fs::metadata(above(folder))?.dev())
}

/// A folder above that cannot be read can still hold a folder that we may write.
fn sync_above(folder: &Path) {
    let _ = File::open(above(folder)).and_then(|above| above.sync_all());
}
