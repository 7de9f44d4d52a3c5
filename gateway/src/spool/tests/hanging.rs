//! A disk that stops answering: what writes to it waits until somebody lets it go.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tjern_readings::clock::Clock;
use tjern_readings::reading::Reading;

use super::super::Spool;
use super::super::disk::{Disk, DiskFile, Entry, Folder, TakeError};
use super::model::settings;

/// Whether the disk answers. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn set_closed(&self, is_closed: bool) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = is_closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(closed, |is_closed| *is_closed).unwrap_or_else(PoisonError::into_inner));
    }
}

/// A real folder behind a gate.
#[derive(Debug)]
pub(crate) struct Hanging {
    folder: Folder,
    gate: Gate,
}

impl Hanging {
    pub(crate) fn at(root: &Path, gate: Gate) -> Self {
        Self { folder: Folder::take(root).expect("taken"), gate }
    }
}

impl Disk for Hanging {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.folder.create_folder(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.folder.list(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.folder.read(path)
    }

    fn read_part(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.folder.read_part(path, offset, length)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.gate.pass();
        self.folder.write(path, bytes)
    }

    fn preallocate(&self, path: &Path, length: u64) -> io::Result<Box<dyn DiskFile>> {
        self.gate.pass();
        let file = self.folder.preallocate(path, length)?;
        Ok(Box::new(HangingFile { file, gate: self.gate.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.folder.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.folder.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.folder.remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.gate.pass();
        self.folder.sync_folder(path)
    }

    fn within(&self, path: &Path) -> Result<Arc<dyn Disk>, TakeError> {
        self.folder.within(path)
    }
}

#[derive(Debug)]
struct HangingFile {
    file: Box<dyn DiskFile>,
    gate: Gate,
}

impl DiskFile for HangingFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync()
    }
}

/// At a SIGTERM while the disk hung about a hundred readings were lost, and the log said four: what waited before the disk was not counted.
#[tokio::test]
async fn what_waits_before_a_disk_that_hangs_is_counted() {
    let (folder, gate) = (tempfile::tempdir().expect("a folder"), Gate::default());
    let disk = Arc::new(Hanging::at(folder.path(), gate.clone()));
    let spool = Spool::over(disk, settings(1 << 20), Clock::system());
    let append = async |numbers: std::ops::Range<i64>| {
        for number in numbers {
            spool.append(vec![Reading::of("tarn/level".parse().expect("a sensor"), number, 4.0)]).await;
        }
    };
    append(0..3).await;
    assert!(spool.sync().await);
    assert_eq!(spool.status().unsynced_readings, 0);
    gate.set_closed(true);
    append(3..20).await;
    let syncing = spool.clone();
    let syncing = tokio::spawn(async move { syncing.sync().await });
    tokio::task::yield_now().await;
    append(20..25).await;
    assert_eq!(spool.status().unsynced_readings, 22);
    gate.set_closed(false);
    assert!(syncing.await.expect("no panic") && spool.sync().await);
    assert_eq!(spool.status().unsynced_readings, 0);
    spool.close().await;
}
