//! A folder of a disk in memory that another spool has for itself.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::super::disk::{Disk, DiskFile, Entry, TakeError};
use super::Memory;

/// The folder.
#[derive(Debug)]
pub(super) struct Within {
    disk: Memory,
    folder: PathBuf,
}

impl Within {
    /// Takes it, at once or later, as a real one is taken.
    pub(super) fn new(disk: Memory, folder: &Path) -> Self {
        let within = Self { disk, folder: folder.to_owned() };
        // A disk that refuses is asked again by whoever opens the spool.
        let _ = within.take();
        within
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.folder.join(path).components().collect()
    }
}

impl Disk for Within {
    fn take(&self) -> io::Result<()> {
        self.disk.create_folder(&self.folder)
    }

    fn check(&self) -> io::Result<()> {
        self.disk.check()
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.create_folder(&self.at(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(&self.at(path))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(&self.at(path))
    }

    fn read_part(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.disk.read_part(&self.at(path), offset, length)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(&self.at(path), bytes)
    }

    fn preallocate(&self, path: &Path, length: u64) -> io::Result<Box<dyn DiskFile>> {
        self.disk.preallocate(&self.at(path), length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(&self.at(from), &self.at(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(&self.at(path))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_folder(&self.at(path))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_folder(&self.at(path))
    }

    fn within(&self, path: &Path) -> Result<Arc<dyn Disk>, TakeError> {
        self.disk.within(&self.at(path))
    }
}
