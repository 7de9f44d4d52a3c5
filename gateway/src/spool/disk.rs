//! The one module that touches the spool's files.
//!
//! Everything else in the spool asks a [`Disk`], so that a disk that loses, tears, reorders and fails can
//! stand behind it in tests. What the real one, [`Folder`], promises: a file's bytes are on disk once its
//! `sync` has returned, a name once `sync_folder` of its folder has returned; before that, anything may
//! be lost in any order.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name within the folder.
    pub(crate) name: String,
    /// Whether it is a folder itself.
    pub(crate) is_folder: bool,
    /// A file's length in bytes.
    pub(crate) length: u64,
}

/// Where a spool's files lie. Paths are relative to the spool's folder; `""` is that folder.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Creates a folder where it is missing, its name on disk when this returns.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// What a folder holds, in no order. A folder that is missing holds nothing.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// A whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Writes a whole file and syncs its bytes; its name is not synced.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Creates a file of zeros with its blocks reserved; an older file of this name is emptied.
    fn preallocate(&self, path: &Path, length: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file or a folder another name, in place of what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; one that is missing is removed.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all its files; one that is missing is removed.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// An open file that records are written to.
pub(crate) trait DiskFile: Debug + Send {
    /// Writes all bytes at an offset.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of this machine, locked for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    _lock: File,
}

/// Why a folder could not be taken.
#[derive(Debug)]
pub(crate) enum TakeError {
    /// Another process has it.
    Locked,
    /// The system refused.
    Io(io::Error),
}

impl Folder {
    /// Creates the folder where it is missing, and locks it.
    pub(crate) fn take(root: &Path) -> Result<Self, TakeError> {
        fs::create_dir_all(root).map_err(TakeError::Io)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // A parent that cannot be read can still hold a folder that we may write.
            let _ = File::open(parent).and_then(|folder| folder.sync_all());
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(root.join("lock"));
        let lock = lock.map_err(TakeError::Io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(TakeError::Locked),
            Err(TryLockError::Error(error)) => Err(TakeError::Io(error)),
        }
    }

    fn at(&self, path: &Path) -> PathBuf {
        // Joining "" would add a slash, which a message should not have.
        if path.as_os_str().is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Disk for Folder {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let folder = self.at(path);
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.create_folder(parent)?;
        }
        fs::create_dir(&folder)?;
        self.sync_folder(path.parent().unwrap_or(Path::new("")))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let entries = match fs::read_dir(self.at(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| entry.and_then(|entry| describe(&entry))).collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(self.at(path))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.at(path))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn preallocate(&self, path: &Path, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(self.at(path))?;
        reserve(&file, length)?;
        Ok(Box::new(OpenFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        missing_is_fine(fs::remove_file(self.at(path)))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        missing_is_fine(fs::remove_dir_all(self.at(path)))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(self.at(path))?.sync_all()
    }
}

#[derive(Debug)]
struct OpenFile(File);

impl DiskFile for OpenFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn describe(entry: &fs::DirEntry) -> io::Result<Entry> {
    let metadata = entry.metadata()?;
    let name = entry.file_name().to_string_lossy().into_owned();
    Ok(Entry { name, is_folder: metadata.is_dir(), length: metadata.len() })
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reserves a file's blocks, so that a later sync writes data only and no new length.
#[cfg(target_os = "linux")]
fn reserve(file: &File, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => fill_with_zeros(file, length),
        result => Ok(result?),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(file: &File, length: u64) -> io::Result<()> {
    fill_with_zeros(file, length)
}

fn fill_with_zeros(file: &File, length: u64) -> io::Result<()> {
    let zeros = vec![0; 64 << 10];
    let mut offset = 0;
    while offset < length {
        let part = usize::try_from(length - offset).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(&zeros[..part], offset)?;
        offset += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_does_not_get_the_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let first = Folder::take(&place.path().join("deep/spool")).expect("taken");
        assert!(matches!(Folder::take(&place.path().join("deep/spool")), Err(TakeError::Locked)));
        drop(first);
        assert!(Folder::take(&place.path().join("deep/spool")).is_ok());
    }

    #[test]
    fn a_preallocated_file_is_zeros_of_its_whole_length() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::take(place.path()).expect("taken");
        let mut file = folder.preallocate(Path::new("x"), 100_000).expect("preallocated");
        file.write_at(b"abc", 4096).and_then(|()| file.sync()).expect("written");
        let bytes = folder.read(Path::new("x")).expect("read");
        assert_eq!((bytes.len(), &bytes[4096..4099]), (100_000, b"abc".as_slice()));
        assert!(bytes[..4096].iter().chain(&bytes[4099..]).all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_missing_is_empty_and_removed() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::take(place.path()).expect("taken");
        assert_eq!(folder.list(Path::new("sealed")).expect("listed"), []);
        folder.remove(Path::new("nothing")).expect("removed");
        folder.remove_folder(Path::new("nothing")).expect("removed");
        folder.create_folder(Path::new("sealed/ab")).expect("created");
        folder.write(Path::new("sealed/ab/x"), b"12").expect("written");
        let entry = Entry { name: "x".into(), is_folder: false, length: 2 };
        assert_eq!(folder.list(Path::new("sealed/ab")).expect("listed"), [entry]);
    }
}
