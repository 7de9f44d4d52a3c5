//! What a folder's store asks of a disk, each thing by its name: behind this the tests put one that takes
//! down what was asked, and one that forgets to sync.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use object_store::PutPayload;

/// A disk. Nothing is on it for good before it was synced: of a file its bytes, of a folder the names in it.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Writes a new file and syncs its bytes.
    fn write_synced(&self, file: &Path, payload: &PutPayload) -> io::Result<()>;
    /// Gives a file a second name, which nobody may have.
    fn link(&self, file: &Path, name: &Path) -> io::Result<()>;
    /// Gives a file another name, in place of who had it.
    fn rename(&self, file: &Path, name: &Path) -> io::Result<()>;
    /// Syncs a file's bytes.
    fn sync_file(&self, file: &Path) -> io::Result<()>;
    /// Syncs the names in a folder.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// The names in a folder.
    fn read_folder(&self, folder: &Path) -> io::Result<fs::ReadDir>;
}

/// The machine's.
#[derive(Debug)]
pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir(folder)
    }

    fn write_synced(&self, file: &Path, payload: &PutPayload) -> io::Result<()> {
        let mut open = File::create_new(file)?;
        payload.iter().try_for_each(|part| open.write_all(part))?;
        open.sync_all()
    }

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(file, name)
    }

    fn rename(&self, file: &Path, name: &Path) -> io::Result<()> {
        fs::rename(file, name)
    }

    fn sync_file(&self, file: &Path) -> io::Result<()> {
        File::open(file)?.sync_all()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn read_folder(&self, folder: &Path) -> io::Result<fs::ReadDir> {
        fs::read_dir(folder)
    }
}
