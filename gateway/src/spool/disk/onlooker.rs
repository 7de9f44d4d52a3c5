//! A folder that is looked at, perhaps while a gateway has it: nothing in it is changed.
//!
//! Recovery runs over it as it does over the real one, so that people see what a start would see. What it
//! writes is forgotten; a folder that it renames is found under both names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Disk, DiskFile, Entry, TakeError};

/// The folder.
#[derive(Debug)]
pub(crate) struct Onlooker {
    root: PathBuf,
    renamed: Mutex<Vec<(PathBuf, PathBuf)>>,
}

impl Onlooker {
    /// Looks at a folder.
    ///
    /// # Errors
    /// Where it is not there, or cannot be listed.
    pub(crate) fn at(root: &Path) -> io::Result<Self> {
        fs::read_dir(root)?;
        Ok(Self { root: root.to_owned(), renamed: Mutex::default() })
    }

    /// Where a path lies in truth.
    fn real(&self, path: &Path) -> PathBuf {
        let place = self.root.join(path);
        if place.exists() {
            return place;
        }
        let renamed = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
        let former = renamed.iter().find_map(|(from, to)| Some(from.join(path.strip_prefix(to).ok()?)));
        former.map_or(place, |former| self.root.join(former))
    }
}

impl Disk for Onlooker {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        super::list(&self.real(path))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(self.real(path))
    }

    fn read_part(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        super::read_part(&self.real(path), offset, length)
    }

    fn write(&self, _: &Path, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn preallocate(&self, _: &Path, _: u64) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut renamed = self.renamed.lock().unwrap_or_else(PoisonError::into_inner);
        renamed.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn within(&self, _: &Path) -> Result<Arc<dyn Disk>, TakeError> {
        Err(TakeError::Io(io::ErrorKind::ReadOnlyFilesystem.into()))
    }
}
