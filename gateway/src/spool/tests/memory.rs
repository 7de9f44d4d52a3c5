//! A disk in memory that forgets, tears, reorders and fails, behind the same seam as the real one.
//!
//! What it models: bytes are durable once their file was synced, names (of files and of folders) once the folder
//! that holds them was. Of all the rest a crash keeps what its [`Crash`] says: a write may be torn at any
//! byte, or lose any of its sectors of 512 bytes, and any later one be there without it. A block can be
//! unreadable. A folder that is renamed takes all that is in it along. The folder can be *away*: another, empty one has its name then, and every call fails, as on the real one. It counts what is read, and can hand out its state before each call that changes something.

mod within;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::disk::{Away, Disk, DiskFile, Entry, Judge, TakeError};
use within::Within;

pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;

/// What to do with calls from the n-th on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing goes wrong.
    Well,
    /// The power goes before this call; everything after it fails.
    CutAt(u64),
    /// This many calls from this one on fail, with EIO or ENOSPC.
    FailFrom(u64, u64),
    /// The same, with this error.
    FailWith(u64, u64, i32),
}

/// What a crash leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Nothing.
    Nothing,
    /// All of it, as a process that is killed leaves it.
    All,
    /// Any of it, torn at any byte.
    Torn,
    /// Any of it, and of each write any sectors of 512 bytes.
    Sectors,
}

/// What a disk claims and does not do: the canaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lie {
    /// It does what it says.
    #[default]
    None,
    /// Neither files nor folders are synced.
    Syncs,
    /// Files are not.
    FileSyncs,
    /// Folders are not.
    FolderSyncs,
    /// Whatever folder has the name is taken for the spool's.
    AnyFolder,
    /// What is decided of held readings is not synced before they move.
    Decisions,
    /// What is appended to the log is not synced before what it came from goes.
    Log,
    /// A write or a sync that fails is said to have worked.
    Errors,
}

#[derive(Debug, Clone)]
enum Write {
    Resize(usize),
    Bytes(usize, Vec<u8>),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Write>,
    /// Offsets that cannot be read.
    bad: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum NameOp {
    Set(PathBuf, usize),
    Unset(PathBuf),
    Rename(PathBuf, PathBuf, usize),
    RenameFolder(PathBuf, PathBuf),
}

/// The names in a folder.
#[derive(Debug, Clone, Default)]
struct Names {
    current: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    unsynced: Vec<(PathBuf, NameOp)>,
    folders: BTreeSet<PathBuf>,
    durable_folders: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    inodes: Vec<Arc<Inode>>,
    /// Those of the spool's folder, while it is away.
    away: Option<Names>,
    /// The folder was deleted, and is not yet made anew.
    deleted: bool,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// With the folder that must be synced for it.
    unsynced_names: Vec<(PathBuf, NameOp)>,
    folders: BTreeSet<PathBuf>,
    durable_folders: BTreeSet<PathBuf>,
    calls: u64,
    cut: bool,
    /// Folders that cannot be listed, and names whose inodes are damaged.
    unlistable: BTreeSet<PathBuf>,
    damaged_inodes: BTreeSet<PathBuf>,
    /// These calls fail with this error.
    refuses: Option<(Range<u64>, i32)>,
    /// Bytes that were read, by file.
    pub(crate) reads: BTreeMap<PathBuf, u64>,
    /// Sealed batches for which somebody began to write a gap, as `<epoch>/<bounds>`.
    pub(crate) dropped: BTreeSet<String>,
}

/// Every batch that was ever written to a disk, as `<epoch>/<bounds>`.
pub(crate) type Batches = Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>;

/// A state, and how many marks were set when it was taken.
pub(crate) type Snapshot = (usize, State);

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    state: Arc<Mutex<State>>,
    pub(crate) batches: Batches,
    plan: Plan,
    lie: Lie,
    watcher: Option<(SyncSender<Snapshot>, Arc<Mutex<usize>>)>,
}

impl Memory {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { state: Arc::default(), batches: Arc::default(), plan, lie: Lie::None, watcher: None }
    }

    /// A disk whose syncs say yes and do nothing.
    pub(crate) fn lying(plan: Plan) -> Self {
        Self::new(plan).telling(Lie::Syncs)
    }

    pub(crate) fn telling(self, lie: Lie) -> Self {
        Self { lie, ..self }
    }

    /// The state before each call that changes something goes here, with the number in `marks`.
    pub(crate) fn watched(self, snapshots: SyncSender<Snapshot>, marks: Arc<Mutex<usize>>) -> Self {
        Self { watcher: Some((snapshots, marks)), ..self }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.state().cut
    }

    /// The power goes and comes back: what was not synced is gone, or half there.
    pub(crate) fn cut_power(&self, crash: Crash, random: &mut fastrand::Rng) {
        let mut state = self.state();
        let calls = state.calls;
        *state = State { calls, ..crashed(&state, crash, random) };
    }

    /// The power goes: whoever still has this disk in hand changes nothing any more.
    pub(crate) fn cut(&self) {
        self.state().cut = true;
    }

    /// The next calls fail with this error.
    pub(crate) fn refuse(&self, calls: u64, error: i32) {
        self.refuse_after(0, calls, error);
    }

    /// The same, after so many more calls.
    pub(crate) fn refuse_after(&self, after: u64, calls: u64, error: i32) {
        let mut state = self.state();
        let from = state.calls + after;
        state.refuses = Some((from..from + calls, error));
    }

    /// From now on an empty folder has the name of the spool's.
    pub(crate) fn take_away(&self) {
        self.state().swap_names(Names::default());
    }

    /// The spool's folder has its name again.
    pub(crate) fn give_back(&self) {
        self.state().give_back();
    }

    /// The folder is deleted with all that is in it.
    pub(crate) fn delete(&self) {
        let mut state = self.state();
        state.swap_names(Names::default());
        (state.away, state.deleted) = (None, true);
    }

    /// What a machine finds on this disk after the power came back.
    pub(crate) fn image(&self, random: &mut fastrand::Rng, plan: Plan) -> Self {
        let crash = [Crash::Torn, Crash::Sectors][random.usize(..2)];
        let image = crashed(&self.state(), crash, random);
        Self { state: Arc::new(Mutex::new(image)), lie: self.lie, ..Self::new(plan) }
    }

    /// The same, of a state that was handed out.
    pub(crate) fn image_of(state: &State, crash: Crash, random: &mut fastrand::Rng) -> Self {
        let image = crashed(state, crash, random);
        Self { state: Arc::new(Mutex::new(image)), ..Self::new(Plan::Well) }
    }

    /// Damages a file in place, as a worn disk does.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[path];
        let inode = Arc::make_mut(&mut state.inodes[inode]);
        change(&mut inode.current);
        inode.durable = inode.current.clone();
    }

    /// From now on what lies at this offset cannot be read.
    pub(crate) fn make_unreadable(&self, path: &Path, offset: usize) {
        let mut state = self.state();
        let inode = state.names[path];
        Arc::make_mut(&mut state.inodes[inode]).bad.insert(offset);
    }

    /// From now on a folder cannot be listed.
    pub(crate) fn make_unlistable(&self, path: &Path) {
        self.state().unlistable.insert(path.to_owned());
    }

    /// From now on a folder says that there is this name, and nobody what it is.
    pub(crate) fn damage_inode(&self, path: &Path) {
        self.state().damaged_inodes.insert(path.to_owned());
    }

    /// Everything can be read again.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.unlistable.clear();
        state.damaged_inodes.clear();
        state.inodes.iter_mut().for_each(|inode| Arc::make_mut(inode).bad.clear());
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// How long each file is.
    pub(crate) fn lengths(&self) -> BTreeMap<PathBuf, u64> {
        let state = self.state();
        state.names.iter().map(|(name, inode)| (name.clone(), state.inodes[*inode].current.len() as u64)).collect()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with the disk in hand")
    }

    /// Counts a call that changes something, and says whether it works.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        if let Some((snapshots, marks)) = &self.watcher {
            let marks = *marks.lock().expect("no test panics with it in hand");
            let mut state = self.state().clone();
            // A start finds the folder in its place.
            state.give_back();
            if !state.cut {
                // Nobody may be left to look, after a failure.
                let _ = snapshots.send((marks, state));
            }
        }
        self.call()
    }

    fn call(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        self.is_in_place(&state)?;
        if let Some((calls, error)) = &state.refuses
            && calls.contains(&call)
        {
            return Err(io::Error::from_raw_os_error(*error));
        }
        if matches!(self.plan, Plan::CutAt(at) if call >= at) {
            state.cut = true;
        }
        if state.cut {
            return Err(io::Error::other("the power is cut"));
        }
        match self.plan {
            Plan::FailFrom(from, count) if (from..from + count).contains(&call) => {
                Err(io::Error::from_raw_os_error(if from % 2 == 0 { EIO } else { ENOSPC }))
            }
            Plan::FailWith(from, count, error) if (from..from + count).contains(&call) => {
                Err(io::Error::from_raw_os_error(error))
            }
            _ => Ok(state),
        }
    }

    fn is_in_place(&self, state: &State) -> io::Result<()> {
        let is_away = (state.away.is_some() || state.deleted) && self.lie != Lie::AnyFolder;
        if is_away { Err(Away::Gone(PathBuf::from("spool")).into()) } else { Ok(()) }
    }

    fn syncs_files(&self) -> bool {
        !matches!(self.lie, Lie::Syncs | Lie::FileSyncs)
    }

    fn syncs_folders(&self) -> bool {
        !matches!(self.lie, Lie::Syncs | Lie::FolderSyncs)
    }

    /// Notes what batches there are, and which of them are given up.
    fn note_sealed(&self, state: &mut State, path: &Path, bytes: &[u8]) {
        let (Some(epoch), Some(name)) =
            (folder_of(path).file_name().map(|name| name.to_string_lossy().into_owned()), path.file_name())
        else {
            return;
        };
        let epoch = epoch.trim_end_matches(".renewing").to_owned();
        let name = name.to_string_lossy();
        if let Some(bounds) = name.strip_suffix(".arrow.new") {
            let mut batches = self.batches.lock().expect("no test panics with it in hand");
            batches.insert(format!("{epoch}/{bounds}"), Arc::new(bytes.to_vec()));
        } else if let Some(bounds) = name.strip_suffix(".gap.new") {
            state.dropped.insert(format!("{epoch}/{bounds}"));
        }
    }
}

fn crashed(state: &State, crash: Crash, random: &mut fastrand::Rng) -> State {
    let keeps = |random: &mut fastrand::Rng| match crash {
        Crash::Nothing => false,
        Crash::All => true,
        Crash::Torn | Crash::Sectors => random.bool(),
    };
    let mut names = state.durable_names.clone();
    let mut folders = state.durable_folders.clone();
    for (_, op) in &state.unsynced_names {
        if keeps(random) {
            apply(&mut names, op);
            move_folders(&mut folders, op);
        }
    }
    folders.extend(state.folders.iter().filter(|_| keeps(random)).cloned());
    folders.extend(names.keys().flat_map(|name| folder_of(name).ancestors().map(Path::to_owned).collect::<Vec<_>>()));
    let inodes = state.inodes.iter().map(|inode| {
        if inode.unsynced.is_empty() {
            return Arc::clone(inode);
        }
        let bytes = after_crash(inode, crash, random);
        Arc::new(Inode { durable: bytes.clone(), current: bytes, unsynced: Vec::new(), bad: inode.bad.clone() })
    });
    State {
        inodes: inodes.collect(),
        durable_names: names.clone(),
        names,
        durable_folders: folders.clone(),
        folders,
        dropped: state.dropped.clone(),
        ..State::default()
    }
}

fn after_crash(inode: &Inode, crash: Crash, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = match crash {
        Crash::All => return inode.current.clone(),
        _ => inode.durable.clone(),
    };
    for write in inode.unsynced.iter().filter(|_| crash != Crash::Nothing) {
        if random.u8(..3) == 0 {
            continue;
        }
        match write {
            Write::Resize(length) => bytes.resize(*length, 0),
            Write::Bytes(at, new) if crash == Crash::Torn => {
                let end = if random.bool() { new.len() } else { random.usize(..=new.len()) };
                put(&mut bytes, *at, &new[..end]);
            }
            Write::Bytes(at, new) => {
                // Sectors lie where they lie on the disk, not in the write.
                let mut start = 0;
                while start < new.len() {
                    let end = new.len().min(start + 512 - (at + start) % 512);
                    if random.u8(..3) > 0 {
                        put(&mut bytes, at + start, &new[start..end]);
                    }
                    start = end;
                }
            }
        }
    }
    bytes
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    bytes.resize(bytes.len().max(at + new.len()), 0);
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, op: &NameOp) {
    match op {
        NameOp::Set(path, inode) => drop(names.insert(path.clone(), *inode)),
        NameOp::Unset(path) => drop(names.remove(path)),
        NameOp::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
        NameOp::RenameFolder(from, to) => {
            let moved: Vec<_> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                let inode = names.remove(&path).expect("just seen");
                names.insert(to.join(path.strip_prefix(from).expect("within")), inode);
            }
        }
    }
}

/// The folders after this.
fn move_folders(folders: &mut BTreeSet<PathBuf>, op: &NameOp) {
    if let NameOp::RenameFolder(from, to) = op {
        *folders = std::mem::take(folders).into_iter().map(|folder| moved(&folder, from, to)).collect();
    }
}

/// Where a path leads after a folder was renamed.
fn moved(path: &Path, from: &Path, to: &Path) -> PathBuf {
    // Joining "" would add a slash.
    path.strip_prefix(from).map_or_else(|_| path.to_owned(), |within| to.join(within).components().collect())
}

/// A change of a name in a folder that has been renamed since.
fn op_moved((folder, op): (PathBuf, NameOp), from: &Path, to: &Path) -> (PathBuf, NameOp) {
    let at = |path: &Path| moved(path, from, to);
    let op = match op {
        NameOp::Set(path, inode) => NameOp::Set(at(&path), inode),
        NameOp::Unset(path) => NameOp::Unset(at(&path)),
        NameOp::Rename(old, new, inode) => NameOp::Rename(at(&old), at(&new), inode),
        NameOp::RenameFolder(old, new) => NameOp::RenameFolder(at(&old), at(&new)),
    };
    (at(&folder), op)
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

impl State {
    /// Other names take the place of those that are there.
    fn swap_names(&mut self, names: Names) {
        let Names { current, durable, unsynced, folders, durable_folders } = names;
        let former = Names {
            current: std::mem::replace(&mut self.names, current),
            durable: std::mem::replace(&mut self.durable_names, durable),
            unsynced: std::mem::replace(&mut self.unsynced_names, unsynced),
            folders: std::mem::replace(&mut self.folders, folders),
            durable_folders: std::mem::replace(&mut self.durable_folders, durable_folders),
        };
        self.away = Some(former);
    }

    fn give_back(&mut self) {
        if let Some(names) = self.away.take() {
            self.swap_names(names);
            self.away = None;
        }
    }

    fn op(&mut self, folder: PathBuf, op: NameOp) {
        apply(&mut self.names, &op);
        self.unsynced_names.push((folder, op));
    }

    fn create(&mut self, path: &Path) -> io::Result<usize> {
        let folder = folder_of(path);
        if !folder.as_os_str().is_empty() && !self.folders.contains(&folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.inodes.push(Arc::default());
        let inode = self.inodes.len() - 1;
        self.op(folder, NameOp::Set(path.to_owned(), inode));
        Ok(inode)
    }

    fn inode(&mut self, inode: usize) -> &mut Inode {
        Arc::make_mut(&mut self.inodes[inode])
    }

    fn sync(&mut self, inode: usize) {
        let inode = self.inode(inode);
        inode.durable = inode.current.clone();
        inode.unsynced.clear();
    }

    fn sync_names(&mut self, path: &Path) {
        let (now, later) = std::mem::take(&mut self.unsynced_names).into_iter().partition(|(at, _)| at == path);
        self.unsynced_names = later;
        let now: Vec<(PathBuf, NameOp)> = now;
        for (_, op) in &now {
            apply(&mut self.durable_names, op);
            move_folders(&mut self.durable_folders, op);
            if let NameOp::RenameFolder(from, to) = op {
                let later = std::mem::take(&mut self.unsynced_names);
                self.unsynced_names = later.into_iter().map(|op| op_moved(op, from, to)).collect();
            }
        }
        self.durable_folders.retain(|folder| folder_of(folder) != path);
        self.durable_folders.extend(self.folders.iter().filter(|folder| folder_of(folder) == path).cloned());
    }

    /// Reads from a file, if nothing of that is bad.
    fn read(&mut self, path: &Path, offset: usize, length: usize) -> io::Result<Vec<u8>> {
        let inode = *self.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if self.damaged_inodes.contains(path) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let inode = Arc::clone(&self.inodes[inode]);
        let end = inode.current.len().min(offset.saturating_add(length));
        if inode.bad.range(offset..end.max(offset)).next().is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let bytes = inode.current.get(offset..end).unwrap_or_default().to_vec();
        *self.reads.entry(path.to_owned()).or_default() += bytes.len() as u64;
        Ok(bytes)
    }
}

impl Disk for Memory {
    fn check(&self) -> io::Result<()> {
        self.is_in_place(&self.state())
    }

    fn regain(&self, _judge: Judge<'_>) -> io::Result<()> {
        if self.state().away.is_none() {
            self.state().deleted = false;
        }
        self.check()
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        if self.call()?.folders.contains(path) {
            return Ok(());
        }
        self.change()?.folders.extend(path.ancestors().map(Path::to_owned));
        // The sync of the folders above is a call of its own: the power can go before it.
        let mut state = self.change()?;
        if self.syncs_folders() {
            path.ancestors().skip(1).for_each(|above| state.sync_names(above));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.call()?;
        if state.unlistable.contains(path) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let files = state.names.iter().filter(|(name, _)| folder_of(name) == path).map(|(name, inode)| Entry {
            name: name.file_name().expect("a name").to_string_lossy().into_owned(),
            is_folder: false,
            length: if state.damaged_inodes.contains(name) { 0 } else { state.inodes[*inode].current.len() as u64 },
            is_unreadable: state.damaged_inodes.contains(name),
            modified_us: None,
        });
        let within = |folder: &&PathBuf| !folder.as_os_str().is_empty() && folder_of(folder) == path;
        let folders = state.folders.iter().filter(within).map(|folder| Entry {
            name: folder.file_name().expect("a name").to_string_lossy().into_owned(),
            is_folder: true,
            length: 0,
            is_unreadable: false,
            modified_us: None,
        });
        Ok(files.chain(folders).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.call()?.read(path, 0, usize::MAX)
    }

    fn read_part(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.call()?.read(path, usize::try_from(offset).expect("small"), length)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.change()?;
        let inode = state.create(path)?;
        self.note_sealed(&mut state, path, bytes);
        state.inode(inode).current = bytes.to_vec();
        state.inode(inode).unsynced.push(Write::Bytes(0, bytes.to_vec()));
        drop(state);
        // The sync is a call of its own: the power can go before it.
        let mut state = self.change()?;
        if self.syncs_files() {
            state.sync(inode);
        }
        Ok(())
    }

    fn preallocate(&self, path: &Path, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.change()?;
        let inode = state.create(path)?;
        let length = usize::try_from(length).expect("small");
        state.inode(inode).current = vec![0; length];
        state.inode(inode).unsynced.push(Write::Resize(length));
        // The log of the spool itself, and of none within it.
        let is_log = folder_of(path).as_os_str().is_empty();
        Ok(Box::new(OpenFile { disk: self.clone(), inode, is_log }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        let op = match state.names.get(from).copied() {
            Some(inode) => NameOp::Rename(from.to_owned(), to.to_owned(), inode),
            None if state.folders.contains(from) => {
                if state.unlistable.remove(from) {
                    state.unlistable.insert(to.to_owned());
                }
                let op = NameOp::RenameFolder(from.to_owned(), to.to_owned());
                move_folders(&mut state.folders, &op);
                op
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        state.op(folder_of(to), op);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?.op(folder_of(path), NameOp::Unset(path.to_owned()));
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        // A file whose own removal was not synced is gone with its folder.
        let names = state.names.keys().chain(state.durable_names.keys());
        let inside: BTreeSet<_> = names.filter(|name| name.starts_with(path)).cloned().collect();
        for name in inside {
            state.op(folder_of(path), NameOp::Unset(name));
        }
        state.folders.retain(|folder| !folder.starts_with(path));
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        if self.syncs_folders() && !(self.lie == Lie::Decisions && path == Path::new("undated")) {
            state.sync_names(path);
        }
        Ok(())
    }

    fn within(&self, path: &Path) -> Result<Arc<dyn Disk>, TakeError> {
        Ok(Arc::new(Within::new(self.clone(), path)))
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: Memory,
    inode: usize,
    is_log: bool,
}

impl DiskFile for OpenFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).expect("small");
        let mut state = match self.disk.change() {
            Err(_) if self.disk.lie == Lie::Errors => return Ok(()),
            state => state?,
        };
        let inode = state.inode(self.inode);
        put(&mut inode.current, at, bytes);
        inode.unsynced.push(Write::Bytes(at, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = match self.disk.change() {
            Err(_) if self.disk.lie == Lie::Errors => return Ok(()),
            state => state?,
        };
        if self.disk.syncs_files() && !(self.is_log && self.disk.lie == Lie::Log) {
            state.sync(self.inode);
        }
        Ok(())
    }
}
