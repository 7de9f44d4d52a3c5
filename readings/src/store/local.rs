//! A folder of this machine as an object store whose puts survive a power cut.
//!
//! `object_store`'s own folder store writes, links and returns without a sync: after a power cut the
//! name can stand there with nothing in it, which for a batch is a lost batch and for an entry of a
//! Delta log is a table that no longer opens. Here a put writes a file beside the target, syncs it,
//! links (create) or renames (overwrite) it, and syncs the folder, and each folder it had to make in
//! its parent; only then has it succeeded. What is there already is synced too before that is said. Listings are in the order of the keys, as a cloud's are.
//!
//! Files under way lie in the folder `.staged`, named `<process>#<number>`, which listings leave out.
//! Those that a killed process left there are removed by whoever opens the lake a day later. It is made when the folder is
//! opened, and stands for the lake: where it has gone, or is another one, so has the lake (a disk that was unmounted leaves the folder below),
//! and nothing is put into what is there instead. That holds for as long as the lake is open; whoever opens it anew may ask for its id ([`identity`]).

mod disk;
mod identity;
mod walk;

use std::fs;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use crate::clock::{Clock, SECOND_US};
use disk::{Disk, RealDisk};
pub use identity::identity;
pub use walk::Unreadable;

const NAME: &str = "SyncedFolder";

/// Where files lie while they are written.
const STAGED_FOLDER: &str = ".staged";

/// A file that has been under way for so long was left behind.
const LEFT_BEHIND_US: i64 = 24 * 3_600 * SECOND_US;

/// Numbers the files under way of this process.
static STAGED: AtomicU64 = AtomicU64::new(0);

/// A folder whose puts are synced.
#[derive(Debug, Clone)]
pub struct SyncedFolder {
    root: PathBuf,
    /// Which [`STAGED_FOLDER`] it had when it was opened, by its number in the file system; none where nothing may be written.
    staged: Option<u64>,
    objects: Arc<LocalFileSystem>,
    disk: Arc<dyn Disk>,
}

/// The folder that was opened is there no more, or something else is in its place.
#[derive(Debug, thiserror::Error)]
#[error(
    "the folder `{root}` is gone, or another is in its place, without the lake that was opened; hint: is its disk mounted?"
)]
struct Gone {
    root: String,
}

impl SyncedFolder {
    /// Opens a folder, and creates it with the folders above it where they are missing.
    ///
    /// # Errors
    /// What the system says where that fails.
    pub fn create(root: &FilePath) -> io::Result<Self> {
        Self::create_on(Arc::new(RealDisk), root)
    }

    /// Opens a folder that is there, and creates nothing.
    ///
    /// # Errors
    /// What the system says where it is not there.
    pub fn open(root: &FilePath) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let objects = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        let staged = fs::metadata(root.join(STAGED_FOLDER)).ok().map(|folder| folder.ino());
        Ok(Self { root, staged, objects: Arc::new(objects), disk: Arc::new(RealDisk) })
    }

    fn create_on(disk: Arc<dyn Disk>, root: &FilePath) -> io::Result<Self> {
        create_folder(&*disk, root)?;
        let root = root.canonicalize()?;
        let staged = root.join(STAGED_FOLDER);
        // A lake that may only be read is opened all the same.
        let number = create_staged(&*disk, &root, &staged).ok();
        let _ = identity::give(&*disk, &root);
        sweep(&staged);
        let objects = LocalFileSystem::new_with_prefix(&root).map_err(io::Error::other)?;
        Ok(Self { root, staged: number, objects: Arc::new(objects), disk })
    }

    /// Fails where the folder that was opened has gone.
    fn still_there(&self) -> impl Fn() -> io::Result<()> + Send + 'static {
        let (root, staged) = (self.root.clone(), self.staged);
        move || {
            let there = fs::metadata(root.join(STAGED_FOLDER)).map(|folder| folder.ino());
            if staged.is_some_and(|staged| there.ok() != Some(staged)) {
                return Err(io::Error::new(ErrorKind::NotFound, Gone { root: root.display().to_string() }));
            }
            Ok(())
        }
    }

    /// What `object_store` wrote under this name is on disk when this returns.
    async fn sync(&self, location: &Path) -> Result<()> {
        let (path, disk) = (self.objects.path_to_filesystem(location)?, Arc::clone(&self.disk));
        blocking(move || disk.sync_file(&path).and_then(|()| sync_parent(&*disk, &path)).map_err(generic)).await
    }

    /// The folder that an object is to lie in is on disk when this returns.
    async fn make_room(&self, location: &Path) -> Result<()> {
        let (path, disk) = (self.objects.path_to_filesystem(location)?, Arc::clone(&self.disk));
        let Some(folder) = path.parent().map(FilePath::to_owned) else { return Ok(()) };
        let still_there = self.still_there();
        blocking(move || still_there().and_then(|()| create_folder(&*disk, &folder)).map_err(generic)).await
    }
}

/// Writes `payload` as `path`, on disk when this returns.
fn put(disk: &dyn Disk, root: &FilePath, path: &FilePath, payload: &PutPayload, create_only: bool) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("an object needs a folder"))?;
    create_folder(disk, folder)?;
    let staged = stage(disk, &root.join(STAGED_FOLDER), payload)?;
    let placed = if create_only { disk.link(&staged, path) } else { disk.rename(&staged, path) };
    if create_only || placed.is_err() {
        // What is left behind is left out of listings and does no harm.
        let _ = fs::remove_file(&staged);
    }
    if let Err(error) = placed {
        if error.kind() == ErrorKind::AlreadyExists {
            // Whoever reads it and finds what it wanted to write goes by that. The put that made it may have failed
            // at its last sync. Where somebody has taken it away by now, as a lease that is given back, nobody will.
            match disk.sync_file(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                synced => synced?,
            }
            sync_to(disk, root, folder)?;
        }
        return Err(error);
    }
    disk.sync_folder(folder)
}

/// Syncs a folder, and those above it up to the root.
fn sync_to(disk: &dyn Disk, root: &FilePath, folder: &FilePath) -> io::Result<()> {
    folder.ancestors().take_while(|folder| folder.starts_with(root)).try_for_each(|folder| disk.sync_folder(folder))
}

fn stage(disk: &dyn Disk, folder: &FilePath, payload: &PutPayload) -> io::Result<PathBuf> {
    create_folder(disk, folder)?;
    loop {
        let staged = folder.join(format!("{}#{}", std::process::id(), STAGED.fetch_add(1, Ordering::Relaxed)));
        match disk.write_synced(&staged, payload) {
            // Left behind by a process that had our number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                let _ = fs::remove_file(&staged);
                return Err(error);
            }
            Ok(()) => return Ok(staged),
        }
    }
}

/// Removes what was left behind, as far as that can be done.
fn sweep(folder: &FilePath) {
    let before_us = Clock::system().now_us() - LEFT_BEHIND_US;
    let left_behind = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(i64::try_from(since.as_micros()).unwrap_or(i64::MAX) < before_us)
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if left_behind(&entry) == Some(true) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes the folder that stands for the lake, and says which it is. It belongs to whom the lake's folder belongs: root that only looked
/// must not keep others out.
fn create_staged(disk: &dyn Disk, root: &FilePath, staged: &FilePath) -> io::Result<u64> {
    if !staged.is_dir() {
        create_folder(disk, staged)?;
        let owner = fs::metadata(root)?;
        // Only root may, and only then is it needed.
        let _ = lchown(staged, Some(owner.uid()), Some(owner.gid()));
    }
    Ok(fs::metadata(staged)?.ino())
}

/// Creates a folder and those above it; each new one is on disk when this returns.
fn create_folder(disk: &dyn Disk, folder: &FilePath) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_folder(disk, parent)?;
    }
    match disk.create_folder(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_parent(disk, folder),
    }
}

fn sync_parent(disk: &dyn Disk, path: &FilePath) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => disk.sync_folder(parent),
        _ => disk.sync_folder(FilePath::new(".")),
    }
}

fn generic(source: io::Error) -> Error {
    Error::Generic { store: NAME, source: Box::new(source) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::JoinError { source: error }),
    }
}

impl std::fmt::Display for SyncedFolder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{NAME}({})", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for SyncedFolder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create_only = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                let operation = "a put that replaces a known version".to_owned();
                return Err(Error::NotImplemented { operation, implementer: NAME.to_owned() });
            }
        };
        let path = self.objects.path_to_filesystem(location)?;
        let key = location.to_string();
        let (root, disk, still_there) = (self.root.clone(), Arc::clone(&self.disk), self.still_there());
        blocking(move || {
            let done = still_there().and_then(|()| put(&*disk, &root, &path, &payload, create_only));
            done.map_err(|source| match source.kind() {
                ErrorKind::AlreadyExists => Error::AlreadyExists { path: key, source: Box::new(source) },
                _ => generic(source),
            })
        })
        .await?;
        let e_tag = self.objects.head(location).await?.e_tag;
        Ok(PutResult { e_tag, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.make_room(location).await?;
        let upload = self.objects.put_multipart_opts(location, options).await?;
        Ok(Box::new(SyncedUpload { folder: self.clone(), location: location.clone(), upload }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        walk::list(&self.disk, &self.root, prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        walk::list(&self.disk, &self.root, prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.make_room(to).await?;
        self.objects.copy_opts(from, to, options).await?;
        self.sync(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.make_room(to).await?;
        self.objects.rename_opts(from, to, options).await?;
        self.sync(to).await
    }
}

/// An upload in parts. Nothing refers to such a file before its put has succeeded, so syncing it
/// right after its name appears is enough.
#[derive(Debug)]
struct SyncedUpload {
    folder: SyncedFolder,
    location: Path,
    upload: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.upload.put_part(part)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        self.folder.sync(&self.location).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests;
