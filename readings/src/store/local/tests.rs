//! What of a folder a power cut leaves, reckoned from what was asked of the disk.
//!
//! The model: a file's bytes are on disk once it was synced, under whatever name; a name is there once its folder was
//! synced after it came; and a folder is itself a name in the one above. What was made without us (by
//! `object_store`, below the root) counts as made at that moment and as synced by nobody.

use std::collections::HashMap;
use std::sync::Mutex;

use object_store::{ObjectStoreExt, PutPayload};
use proptest::prelude::*;

use super::*;

/// Which syncs a disk forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgets {
    Nothing,
    FoldersOfFiles,
    FoldersOfFolders,
    Files,
}

/// A real disk that takes down what was synced when.
#[derive(Debug)]
struct Watched {
    real: RealDisk,
    forgets: Forgets,
    /// So many syncs of folders fail.
    failing_syncs: AtomicU64,
    moments: Mutex<Moments>,
}

/// By the order of events.
#[derive(Debug, Default)]
struct Moments {
    now: u64,
    /// When a file's bytes were last synced, by its inode.
    bytes: HashMap<u64, u64>,
    /// When a folder's names were last synced.
    names: HashMap<PathBuf, u64>,
    /// When a name came that we gave.
    named: HashMap<PathBuf, u64>,
}

impl Watched {
    fn new(forgets: Forgets) -> Arc<Self> {
        let failing_syncs = AtomicU64::new(0);
        Arc::new(Self { real: RealDisk, forgets, failing_syncs, moments: Mutex::default() })
    }

    fn note(&self, take_down: impl FnOnce(&mut Moments, u64)) {
        let mut moments = self.moments.lock().expect("whole");
        moments.now += 1;
        let now = moments.now;
        take_down(&mut moments, now);
    }

    /// Whether a power cut at this moment leaves the file with its bytes, below `root`, which was there before.
    fn is_durable(&self, root: &FilePath, file: &FilePath) -> bool {
        let moments = self.moments.lock().expect("whole");
        let inode = fs::metadata(file).expect("there").ino();
        let has_name = |path: &FilePath| {
            let synced = path.parent().and_then(|folder| moments.names.get(folder));
            let named = moments.named.get(path).copied().unwrap_or_default();
            synced.is_some_and(|synced| *synced > named)
        };
        let above = file.ancestors().take_while(|path| *path != root);
        moments.bytes.contains_key(&inode) && above.into_iter().all(has_name)
    }
}

impl Disk for Watched {
    fn create_folder(&self, folder: &FilePath) -> io::Result<()> {
        self.real.create_folder(folder)?;
        self.note(|moments, now| _ = moments.named.insert(folder.to_owned(), now));
        Ok(())
    }

    fn write_synced(&self, file: &FilePath, payload: &PutPayload) -> io::Result<()> {
        self.real.write_synced(file, payload)?;
        let inode = fs::metadata(file)?.ino();
        self.note(|moments, now| {
            if self.forgets == Forgets::Files {
                moments.bytes.remove(&inode);
            } else {
                moments.bytes.insert(inode, now);
            }
        });
        Ok(())
    }

    fn link(&self, file: &FilePath, name: &FilePath) -> io::Result<()> {
        self.real.link(file, name)?;
        self.note(|moments, now| _ = moments.named.insert(name.to_owned(), now));
        Ok(())
    }

    fn rename(&self, file: &FilePath, name: &FilePath) -> io::Result<()> {
        self.real.rename(file, name)?;
        self.note(|moments, now| _ = moments.named.insert(name.to_owned(), now));
        Ok(())
    }

    fn sync_file(&self, file: &FilePath) -> io::Result<()> {
        self.real.sync_file(file)?;
        let inode = fs::metadata(file)?.ino();
        if self.forgets != Forgets::Files {
            self.note(|moments, now| _ = moments.bytes.insert(inode, now));
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &FilePath) -> io::Result<()> {
        let fails = self.failing_syncs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if fails.is_ok() {
            return Err(io::Error::other("the disk failed"));
        }
        self.real.sync_folder(folder)?;
        let has_files = fs::read_dir(folder)?.flatten().any(|entry| entry.path().is_file());
        let is_forgotten = match self.forgets {
            Forgets::FoldersOfFiles => has_files,
            Forgets::FoldersOfFolders => !has_files,
            Forgets::Nothing | Forgets::Files => false,
        };
        if !is_forgotten {
            self.note(|moments, now| _ = moments.names.insert(folder.to_owned(), now));
        }
        Ok(())
    }

    fn read_folder(&self, folder: &FilePath) -> io::Result<fs::ReadDir> {
        self.real.read_folder(folder)
    }
}

/// A way in which an object comes to be.
#[derive(Debug, Clone, Copy)]
enum Way {
    Create,
    Overwrite,
    Copy,
    Rename,
    Parts,
}

const WAYS: [Way; 5] = [Way::Create, Way::Overwrite, Way::Copy, Way::Rename, Way::Parts];

/// Makes an object, and says whether a power cut right after the store's word leaves it.
async fn is_there_after_a_power_cut(forgets: Forgets, way: Way, keys: &[String]) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("there");
    let disk = Watched::new(forgets);
    let store = SyncedFolder::create_on(Arc::clone(&disk) as Arc<dyn Disk>, &root).expect("opened");
    let origin = Path::from("origin");
    let mut all = true;
    for key in keys {
        let key = Path::from(key.as_str());
        store.put(&origin, PutPayload::from_static(b"bytes")).await.expect("put");
        match way {
            Way::Create => {
                let put = store.put_opts(&key, PutPayload::from_static(b"bytes"), PutMode::Create.into()).await;
                assert!(matches!(put, Ok(_) | Err(Error::AlreadyExists { .. })), "{put:?}");
            }
            Way::Overwrite => drop(store.put(&key, PutPayload::from_static(b"bytes")).await.expect("put")),
            Way::Copy => store.copy(&origin, &key).await.expect("copied"),
            Way::Rename => store.rename(&origin, &key).await.expect("renamed"),
            Way::Parts => {
                let mut upload = store.put_multipart(&key).await.expect("begun");
                upload.put_part(PutPayload::from_static(b"bytes")).await.expect("put");
                upload.complete().await.expect("completed");
            }
        }
        all &= disk.is_durable(&root, &root.join(key.as_ref()));
    }
    all
}

fn keys() -> impl Strategy<Value = Vec<String>> {
    let key = prop::collection::vec("[a-c]", 1..4).prop_map(|parts| format!("{}.arrow", parts.join("/")));
    prop::collection::vec(key, 1..5)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

/// A disk on which what has a name that is asked for is gone a moment later.
#[derive(Debug)]
struct TakenAway(RealDisk);

impl Disk for TakenAway {
    fn create_folder(&self, folder: &FilePath) -> io::Result<()> {
        self.0.create_folder(folder)
    }

    fn write_synced(&self, file: &FilePath, payload: &PutPayload) -> io::Result<()> {
        self.0.write_synced(file, payload)
    }

    fn link(&self, file: &FilePath, name: &FilePath) -> io::Result<()> {
        let linked = self.0.link(file, name);
        if linked.is_err() {
            fs::remove_file(name)?;
        }
        linked
    }

    fn rename(&self, file: &FilePath, name: &FilePath) -> io::Result<()> {
        self.0.rename(file, name)
    }

    fn sync_file(&self, file: &FilePath) -> io::Result<()> {
        self.0.sync_file(file)
    }

    fn sync_folder(&self, folder: &FilePath) -> io::Result<()> {
        self.0.sync_folder(folder)
    }

    fn read_folder(&self, folder: &FilePath) -> io::Result<fs::ReadDir> {
        self.0.read_folder(folder)
    }
}

/// A lease was given back between the question and the sync, and a compaction beside it failed for that.
#[tokio::test]
async fn what_was_there_and_is_taken_away_was_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = SyncedFolder::create_on(Arc::new(TakenAway(RealDisk)), folder.path()).expect("opened");
    let (key, create) = (Path::from("jobs/compact.json"), PutOptions::from(PutMode::Create));
    objects.put_opts(&key, "first".into(), create.clone()).await.expect("put");
    let second = objects.put_opts(&key, "second".into(), create.clone()).await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    assert!(matches!(objects.get(&key).await, Err(Error::NotFound { .. })));
    objects.put_opts(&key, "second".into(), create).await.expect("the place is free");
}

proptest! {
    /// A gateway drops its own copy on the word of a put, and a Delta log goes on from it: a power cut right
    /// after it must find the object, its bytes, and every folder above it, however it came to be.
    #[test]
    fn what_a_store_says_is_done_survives_a_power_cut(way in prop::sample::select(&WAYS[..]), keys in keys()) {
        prop_assert!(run(is_there_after_a_power_cut(Forgets::Nothing, way, &keys)), "{way:?} of {keys:?}");
    }
}

/// A put whose last sync failed left its file. The next one found it, read it back as its own, and the gateway dropped
/// its copy of a batch that was not on disk.
#[test]
fn what_exists_already_is_on_disk_once_that_is_said() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("there");
        let disk = Watched::new(Forgets::Nothing);
        let store = SyncedFolder::create_on(Arc::clone(&disk) as Arc<dyn Disk>, &root).expect("opened");
        // The folders are there.
        store.put(&Path::from("a/first.arrow"), PutPayload::from_static(b"bytes")).await.expect("put");
        let key = Path::from("a/b.arrow");
        disk.failing_syncs.store(1, Ordering::Relaxed);
        let put = async || store.put_opts(&key, PutPayload::from_static(b"bytes"), PutMode::Create.into()).await;
        put().await.expect_err("its folder was not synced");
        assert!(!disk.is_durable(&root, &root.join("a/b.arrow")));
        let again = put().await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        assert!(disk.is_durable(&root, &root.join("a/b.arrow")), "a power cut now takes it away");
        disk.failing_syncs.store(1, Ordering::Relaxed);
        let third = put().await;
        assert!(
            matches!(third, Err(Error::Generic { .. })),
            "what cannot be synced is not said to be there: {third:?}"
        );
    });
}

/// The model above takes the real disk at its word. The system refuses to sync what is on no disk, so a disk that asks it is told.
#[cfg(target_os = "linux")]
#[test]
fn the_real_disk_asks_the_system_to_sync() {
    let file = RealDisk.sync_file("/proc/self/status".as_ref());
    let folder = RealDisk.sync_folder("/proc/self".as_ref());
    for refused in [file, folder] {
        assert_eq!(refused.expect_err("nobody asked").kind(), std::io::ErrorKind::InvalidInput);
    }
}

/// The canary: a store that leaves out any one kind of sync is caught, whichever way an object comes.
#[test]
fn a_store_that_leaves_out_a_sync_is_caught() {
    let keys = ["a/b/c.arrow".to_owned()];
    for way in WAYS {
        assert!(run(is_there_after_a_power_cut(Forgets::Nothing, way, &keys)), "{way:?}");
        for forgets in [Forgets::Files, Forgets::FoldersOfFiles, Forgets::FoldersOfFolders] {
            let is_there = run(is_there_after_a_power_cut(forgets, way, &keys));
            assert!(!is_there, "{way:?}: nobody noticed that {forgets:?} are not synced");
        }
    }
}

/// A disk was unmounted while a gateway ran: its batches went into the folder below, left the spool, and were missing from the
/// lake when the disk was there again.
#[tokio::test]
async fn nothing_is_put_where_the_lake_was() {
    let above = tempfile::tempdir().expect("a folder");
    let (root, away) = (above.path().join("lake"), above.path().join("away"));
    let store = SyncedFolder::create(&root).expect("opened");
    let (key, copy) = (Path::from("landing/one"), Path::from("landing/copy"));
    store.put(&key, PutPayload::from_static(b"one")).await.expect("put");
    fs::rename(&root, &away).expect("it goes");
    for there in 0..3 {
        if there == 1 {
            fs::create_dir(&root).expect("what a mount hides");
        }
        if there == 2 {
            // As a start without the disk leaves it there.
            fs::create_dir(root.join(STAGED_FOLDER)).expect("made");
        }
        let error = store.put(&Path::from("landing/two"), PutPayload::from_static(b"two")).await.expect_err("gone");
        assert!(error.to_string().contains("is gone") && error.to_string().contains("mounted?"), "{error}");
        store.put_multipart(&copy).await.expect_err("gone");
        store.copy(&key, &copy).await.expect_err("gone");
        assert_eq!(fs::read_dir(&root).map_or(0, Iterator::count), usize::from(there == 2), "nothing was made there");
    }
    fs::remove_dir_all(&root).and_then(|()| fs::rename(&away, &root)).expect("it is there again");
    store.put(&Path::from("landing/two"), PutPayload::from_static(b"two")).await.expect("put");
    assert_eq!(store.get(&key).await.expect("there").bytes().await.expect("read"), "one");
}
