//! The one module that touches the spool's files.
//!
//! Everything else in the spool asks a [`Disk`], so that a disk that loses, tears, reorders and fails can
//! stand behind it in tests. What the real one, [`Folder`], promises: a file's bytes are on disk once its
//! `sync` has returned, a name once `sync_folder` of its folder has returned; before that, anything may
//! be lost in any order.

mod onlooker;
mod place;

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

pub(crate) use onlooker::Onlooker;
use place::Place;
pub(crate) use place::{Away, Judge, Whose};

/// Who holds a lock on this has the spool.
pub(crate) const LOCK: &str = "lock";

/// What a disk writes at least.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name within the folder.
    pub(crate) name: String,
    /// Whether it is a folder itself.
    pub(crate) is_folder: bool,
    /// A file's length in bytes.
    pub(crate) length: u64,
    /// There is such a name, and the disk does not say what stands behind it.
    pub(crate) is_unreadable: bool,
    /// When it was last written, in µs since 1970 UTC, where the file system says so.
    pub(crate) modified_us: Option<i64>,
}

/// What was written since a disk was taken: what wears a card out. Names and the file system's own book-keeping
/// are not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes that were handed over.
    pub bytes: u64,
    /// Blocks of 4096 bytes that the syncs had to write for them.
    pub blocks: u64,
    /// Syncs of files.
    pub syncs: u64,
}

/// Where a spool's files lie. Paths are relative to the spool's folder; `""` is that folder. While its name does not lead to the
/// folder that was taken, every call fails, and with no error that says that something is missing.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Makes the folder ours, where it is not yet.
    fn take(&self) -> io::Result<()> {
        Ok(())
    }
    /// Fails while the folder's name does not lead to the one that was taken.
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
    /// Takes the folder that has the name, after [`Disk::check`] failed: the spool's own as `judge` says, or a new one where that is
    /// gone for good.
    fn regain(&self, _judge: Judge<'_>) -> io::Result<()> {
        self.check()
    }
    /// Creates a folder where it is missing, its name on disk when this returns.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// What a folder holds, in no order. A folder that is missing holds nothing.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// A whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// A part of a file; less of it where the file ends before.
    fn read_part(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>>;
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
    /// A folder of this one that another spool has for itself: taken as [`Folder::take_or_wait`] does.
    fn within(&self, path: &Path) -> Result<Arc<dyn Disk>, TakeError>;
    /// What was written so far.
    fn written(&self) -> Written {
        Written::default()
    }
}

/// An open file that records are written to.
pub(crate) trait DiskFile: Debug + Send {
    /// Writes all bytes at an offset.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of this machine, locked for as long as this value lives, once it could be.
#[derive(Debug)]
pub(crate) struct Folder {
    place: Arc<Place>,
    written: Arc<Mutex<Written>>,
}

/// Why a folder could not be taken.
#[derive(Debug)]
pub(crate) enum TakeError {
    /// Another process has it.
    Locked,
    /// The system refused the folder.
    Io(io::Error),
    /// It refused the lock in it.
    Lock(io::Error),
}

impl TakeError {
    fn into_io(self) -> io::Error {
        match self {
            Self::Locked => io::Error::new(ErrorKind::WouldBlock, "another process has the spool"),
            Self::Io(error) | Self::Lock(error) => error,
        }
    }
}

impl Folder {
    /// Creates the folder where it is missing, and locks it.
    #[cfg(test)]
    pub(crate) fn take(root: &Path) -> Result<Self, TakeError> {
        let folder = Self::untaken(root, false);
        folder.place.take().map(|()| folder)
    }

    /// The same, but that a disk which is full, read only or failing is no reason to refuse: the folder is taken
    /// later then, by [`Disk::take`]. One within another folder does not make that.
    pub(crate) fn take_or_wait(root: &Path, is_within: bool) -> Result<Self, TakeError> {
        let folder = Self::untaken(root, is_within);
        match folder.place.take() {
            Err(TakeError::Io(error) | TakeError::Lock(error)) if is_of_the_disk(&error) => Ok(folder),
            taken => taken.map(|()| folder),
        }
    }

    /// A folder in which others write too, each files of its own that it replaces whole ([`replace`]): nobody locks it.
    pub(crate) fn shared(root: &Path) -> Self {
        Self::untaken(root, false)
    }

    fn untaken(root: &Path, is_within: bool) -> Self {
        Self { place: Arc::new(Place::new(root, is_within)), written: Arc::default() }
    }

    fn at(&self, path: &Path) -> PathBuf {
        let root = self.place.root();
        // Joining "" would add a slash, which a message should not have.
        if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
    }

    /// What comes of work on a path, in the folder that was taken.
    fn on<T>(&self, path: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let place = self.at(path);
        self.place.within(|| work(&place)).map_err(|error| named(error, &place))
    }

    /// [`Disk::create_folder`], a folder after the other from above.
    fn create(&self, path: &Path) -> io::Result<()> {
        let folder = self.at(path);
        if folder.is_dir() {
            return Ok(());
        }
        let above = path.parent().unwrap_or(Path::new(""));
        if !above.as_os_str().is_empty() {
            self.create(above)?;
        }
        match fs::create_dir(&folder) {
            // Another bus made it in this very moment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made?,
        }
        File::open(self.at(above))?.sync_all()
    }
}

/// Writes a small file in place of an older one. Once this returns the new one is there; before, after a power cut, either.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    disk.write(Path::new(&beside), bytes)?;
    disk.rename(Path::new(&beside), path)?;
    disk.sync_folder(path.parent().unwrap_or(Path::new("")))
}

/// Who is not allowed to do something is told where: one folder of the spool's may be another user's.
fn named(error: io::Error, place: &Path) -> io::Error {
    match error.kind() {
        ErrorKind::PermissionDenied => io::Error::new(error.kind(), format!("`{}`: {error}", place.display())),
        _ => error,
    }
}

/// Whether an error tells of a disk that may get well, and not of a folder that is no folder or not ours.
fn is_of_the_disk(error: &io::Error) -> bool {
    use ErrorKind::{AlreadyExists, InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};
    let is_wrong = [AlreadyExists, InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied];
    !is_wrong.contains(&error.kind())
}

impl Disk for Folder {
    fn take(&self) -> io::Result<()> {
        self.place.take().map_err(TakeError::into_io)
    }

    fn check(&self) -> io::Result<()> {
        self.place.check()
    }

    fn regain(&self, judge: Judge<'_>) -> io::Result<()> {
        self.place.regain(judge)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.on(path, |_| self.create(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.on(path, list)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.on(path, |place| fs::read(place))
    }

    fn read_part(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.on(path, |place| read_part(place, offset, length))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.on(path, |place| {
            let mut file = File::create(place)?;
            file.write_all(bytes)?;
            file.sync_all()
        })?;
        note(&self.written, &(0..bytes.len() as u64), bytes.len() as u64);
        Ok(())
    }

    fn preallocate(&self, path: &Path, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = self.on(path, |place| {
            let file = OpenOptions::new().create(true).truncate(true).write(true).open(place)?;
            reserve(&file, length)?;
            Ok(file)
        })?;
        let (place, written) = (Arc::clone(&self.place), Arc::clone(&self.written));
        Ok(Box::new(OpenFile { place, file, unsynced: None, bytes: 0, written }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.on(from, |place| fs::rename(place, self.at(to)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.on(path, |place| missing_is_fine(fs::remove_file(place)))
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.on(path, |place| missing_is_fine(fs::remove_dir_all(place)))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.on(path, |place| File::open(place)?.sync_all())
    }

    fn within(&self, path: &Path) -> Result<Arc<dyn Disk>, TakeError> {
        Ok(Arc::new(Self::take_or_wait(&self.at(path), true)?))
    }

    fn written(&self) -> Written {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct OpenFile {
    /// Where its name should be: what is synced behind no name, or in a folder of another name, is found by no start.
    place: Arc<Place>,
    file: File,
    /// Where the first byte lies that was written since the last sync, and the end of the last.
    unsynced: Option<Range<u64>>,
    bytes: u64,
    written: Arc<Mutex<Written>>,
}

impl DiskFile for OpenFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        let end = offset + bytes.len() as u64;
        self.unsynced = Some(match self.unsynced.take() {
            Some(before) => before.start.min(offset)..before.end.max(end),
            None => offset..end,
        });
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.place.check()?;
        if self.file.metadata()?.nlink() == 0 {
            return Err(io::Error::other("the segment that is written was deleted"));
        }
        let range = self.unsynced.take().unwrap_or_default();
        note(&self.written, &range, std::mem::take(&mut self.bytes));
        Ok(())
    }
}

/// Counts a sync of what was written to this range of a file.
fn note(written: &Mutex<Written>, range: &Range<u64>, bytes: u64) {
    let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
    written.bytes += bytes;
    written.blocks += range.end.div_ceil(BLOCK_BYTES) - range.start / BLOCK_BYTES;
    written.syncs += 1;
}

fn list(folder: &Path) -> io::Result<Vec<Entry>> {
    let entries = match fs::read_dir(folder) {
        // A file where a folder belongs is trouble when something is written there, and no reason not to start.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        match describe(&entry) {
            // It left while the folder was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => found.push(unreadable(&entry, &error)),
            Ok(entry) => found.push(entry),
        }
    }
    Ok(found)
}

fn read_part(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// How much the file system holds in which a folder lies, or will: taken and free.
pub(crate) fn capacity_bytes(folder: &Path) -> io::Result<u64> {
    let place = folder.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("."));
    let system = rustix::fs::statvfs(place)?;
    Ok(system.f_frsize.saturating_mul(system.f_blocks))
}

fn describe(entry: &fs::DirEntry) -> io::Result<Entry> {
    let metadata = entry.metadata()?;
    let name = entry.file_name().to_string_lossy().into_owned();
    let age = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let modified_us = age.and_then(|age| i64::try_from(age.as_micros()).ok());
    Ok(Entry { name, is_folder: metadata.is_dir(), length: metadata.len(), is_unreadable: false, modified_us })
}

/// A name whose inode is damaged: what a folder says of it by itself.
fn unreadable(entry: &fs::DirEntry, error: &io::Error) -> Entry {
    tracing::error!(path = %entry.path().display(), %error, "the disk does not say what this is; hint: check the file system");
    Entry {
        name: entry.file_name().to_string_lossy().into_owned(),
        is_folder: entry.file_type().is_ok_and(|kind| kind.is_dir()),
        length: 0,
        is_unreadable: true,
        modified_us: None,
    }
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

    /// One of two buses that began together could not write down what it had learned.
    #[test]
    fn a_folder_that_several_make_at_once_is_there_for_all() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::take(place.path()).expect("taken");
        for number in 0..200 {
            let (path, together) = (PathBuf::from(format!("{number}/learned")), std::sync::Barrier::new(4));
            std::thread::scope(|scope| {
                let making = [(); 4].map(|()| {
                    scope.spawn(|| {
                        together.wait();
                        folder.create_folder(&path)
                    })
                });
                for one in making {
                    one.join().expect("no panic").expect("made");
                }
            });
        }
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

    /// A bound in bytes that suits one disk fills a smaller one.
    #[test]
    fn a_spool_is_bounded_by_its_disk_too() {
        let place = tempfile::tempdir().expect("a folder");
        let absent = place.path().join("not/there/yet");
        let capacity = capacity_bytes(&absent).expect("the system says so");
        assert!(capacity > 1 << 20, "{capacity}");
        assert_eq!(crate::spool::bounded(&absent, u64::MAX, 1.0), capacity);
        assert!(crate::spool::bounded(&absent, u64::MAX, 0.5).abs_diff(capacity / 2) <= 1);
        assert_eq!(crate::spool::bounded(&absent, 2 << 20, 1.0), 2 << 20);
        assert_eq!(crate::spool::bounded(&absent, u64::MAX, 1e-30), 1 << 20, "a few segments must fit");
    }

    /// A folder of another, or a file in its place, is to be told at once; a disk that is full or read only may get
    /// well.
    #[test]
    fn a_disk_that_may_get_well_is_waited_for() {
        use rustix::io::Errno;
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        for errno in [Errno::ROFS, Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::UCLEAN] {
            assert!(is_of_the_disk(&error(errno)), "{errno}");
        }
        for errno in [Errno::ACCESS, Errno::PERM, Errno::NOTDIR, Errno::NAMETOOLONG, Errno::EXIST] {
            assert!(!is_of_the_disk(&error(errno)), "{errno}");
        }
        let place = tempfile::tempdir().expect("a folder");
        fs::write(place.path().join("file"), b"").expect("written");
        assert!(matches!(Folder::take_or_wait(&place.path().join("file"), false), Err(TakeError::Io(_))));
    }

    /// "cannot write: Permission denied; hint: is the disk full?", of a spool in which one folder was root's.
    #[test]
    fn who_may_not_write_is_told_where() {
        let denied = io::Error::from(ErrorKind::PermissionDenied);
        let told = named(denied, Path::new("/var/spool/sealed"));
        assert!(
            told.kind() == ErrorKind::PermissionDenied && told.to_string().contains("`/var/spool/sealed`"),
            "{told}"
        );
        let failing = named(io::Error::from_raw_os_error(5), Path::new("x"));
        assert_eq!(failing.raw_os_error(), Some(5), "what a disk says is gone by");
        let place = tempfile::tempdir().expect("a folder");
        fs::create_dir(place.path().join(LOCK)).expect("created");
        assert!(matches!(Folder::take(place.path()), Err(TakeError::Lock(_))), "the folder itself is well");
    }

    #[test]
    fn what_is_missing_is_empty_and_removed() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::take(place.path()).expect("taken");
        assert_eq!(folder.list(Path::new("sealed")).expect("listed"), []);
        assert_eq!(folder.list(Path::new("lock")).expect("listed"), [], "a file is no folder");
        folder.remove(Path::new("nothing")).expect("removed");
        folder.remove_folder(Path::new("nothing")).expect("removed");
        folder.create_folder(Path::new("sealed/ab")).expect("created");
        folder.write(Path::new("sealed/ab/x"), b"12").expect("written");
        let entries = folder.list(Path::new("sealed/ab")).expect("listed");
        let seen: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.is_folder, entry.length)).collect();
        assert_eq!(seen, [("x", false, 2)]);
        assert_eq!(folder.read_part(Path::new("sealed/ab/x"), 1, 10).expect("read"), b"2");
    }

    #[test]
    fn what_is_written_is_counted_in_the_blocks_that_it_touches() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::take(place.path()).expect("taken");
        let mut file = folder.preallocate(Path::new("x"), 1 << 20).expect("preallocated");
        file.write_at(&[1; 100], 4096).and_then(|()| file.write_at(&[1; 100], 4196)).expect("written");
        file.sync().expect("synced");
        assert_eq!(folder.written(), Written { bytes: 200, blocks: 1, syncs: 1 });
        file.write_at(&[1; 10], 8190).and_then(|()| file.sync()).expect("written");
        assert_eq!(folder.written(), Written { bytes: 210, blocks: 3, syncs: 2 });
        folder.write(Path::new("y"), &[0; 4097]).expect("written");
        assert_eq!(folder.written(), Written { bytes: 4307, blocks: 5, syncs: 3 });
    }
}
