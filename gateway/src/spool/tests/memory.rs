//! A disk in memory that forgets, tears, reorders and fails, behind the same seam as the real one.
//!
//! What it models: bytes are durable once their file was synced, names once their folder was. Of all the
//! rest a crash keeps any subset, in order; a kept write may be torn at any byte, or lose any of its
//! sectors of 512 bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::disk::{Disk, DiskFile, Entry};

/// What to do with calls from the n-th on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing goes wrong.
    Well,
    /// The power goes before this call; everything after it fails.
    CutAt(u64),
    /// This many calls from this one on fail with an I/O error.
    FailFrom(u64, u64),
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
}

#[derive(Debug, Clone)]
enum NameOp {
    Set(PathBuf, usize),
    Unset(PathBuf),
    Rename(PathBuf, PathBuf, usize),
    RenameFolder(PathBuf, PathBuf),
}

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// With the folder that must be synced for it.
    unsynced_names: Vec<(PathBuf, NameOp)>,
    folders: BTreeSet<PathBuf>,
    calls: u64,
    cut: bool,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    state: Arc<Mutex<State>>,
    plan: Plan,
    /// The canary: a sync that says yes and does nothing.
    lies: bool,
}

impl Memory {
    pub(super) fn new(plan: Plan) -> Self {
        Self { state: Arc::default(), plan, lies: false }
    }

    pub(super) fn lying(plan: Plan) -> Self {
        Self { lies: true, ..Self::new(plan) }
    }

    pub(super) fn calls(&self) -> u64 {
        self.state().calls
    }

    pub(super) fn is_cut(&self) -> bool {
        self.state().cut
    }

    /// What a machine finds on this disk after the power came back.
    pub(super) fn image(&self, random: &mut fastrand::Rng, plan: Plan) -> Self {
        let state = self.state();
        let mut names = state.durable_names.clone();
        for (_, op) in &state.unsynced_names {
            if random.bool() {
                apply(&mut names, op);
            }
        }
        let inodes = state.inodes.iter().map(|inode| {
            let bytes = after_crash(inode, random);
            Inode { durable: bytes.clone(), current: bytes, unsynced: Vec::new() }
        });
        let within = |name: &PathBuf| folder_of(name).ancestors().map(Path::to_owned).collect::<Vec<_>>();
        let folders = state.folders.iter().cloned().chain(names.keys().flat_map(within)).collect();
        let image =
            State { inodes: inodes.collect(), durable_names: names.clone(), names, folders, ..State::default() };
        Self { state: Arc::new(Mutex::new(image)), plan, lies: self.lies }
    }

    /// Damages a file in place, as a worn disk does.
    pub(super) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.names[path];
        change(&mut state.inodes[inode].current);
        state.inodes[inode].durable = state.inodes[inode].current.clone();
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with the disk in hand")
    }

    /// Counts a call, and says whether it works.
    fn call(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        match self.plan {
            Plan::CutAt(at) if call >= at => {
                state.cut = true;
                Err(io::Error::other("the power is cut"))
            }
            Plan::FailFrom(from, count) if (from..from + count).contains(&call) => {
                Err(io::Error::from_raw_os_error(if from % 2 == 0 { 5 } else { 28 }))
            }
            _ => Ok(state),
        }
    }
}

fn after_crash(inode: &Inode, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = inode.durable.clone();
    for write in &inode.unsynced {
        if random.u8(..3) == 0 {
            continue;
        }
        match write {
            Write::Resize(length) => bytes.resize(*length, 0),
            Write::Bytes(at, new) if random.bool() => put(&mut bytes, *at, &new[..random.usize(..=new.len())]),
            Write::Bytes(at, new) => {
                for (sector, part) in new.chunks(512).enumerate() {
                    if random.u8(..3) > 0 {
                        put(&mut bytes, at + sector * 512, part);
                    }
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

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

impl State {
    fn op(&mut self, folder: PathBuf, op: NameOp) {
        apply(&mut self.names, &op);
        self.unsynced_names.push((folder, op));
    }

    fn create(&mut self, path: &Path) -> usize {
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.op(folder_of(path), NameOp::Set(path.to_owned(), inode));
        inode
    }

    fn sync(&mut self, inode: usize) {
        let inode = &mut self.inodes[inode];
        inode.durable = inode.current.clone();
        inode.unsynced.clear();
    }
}

impl Disk for Memory {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.call()?.folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.call()?;
        let files = state.names.iter().filter(|(name, _)| folder_of(name) == path).map(|(name, inode)| Entry {
            name: name.file_name().expect("a name").to_string_lossy().into_owned(),
            is_folder: false,
            length: state.inodes[*inode].current.len() as u64,
        });
        let within = |folder: &&PathBuf| !folder.as_os_str().is_empty() && folder_of(folder) == path;
        let folders = state.folders.iter().filter(within).map(|folder| Entry {
            name: folder.file_name().expect("a name").to_string_lossy().into_owned(),
            is_folder: true,
            length: 0,
        });
        Ok(files.chain(folders).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.call()?;
        let inode = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.inodes[*inode].current.clone())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.call()?;
        let inode = state.create(path);
        state.inodes[inode].current = bytes.to_vec();
        state.inodes[inode].unsynced.push(Write::Bytes(0, bytes.to_vec()));
        drop(state);
        // The sync is a call of its own: the power can go before it.
        let mut state = self.call()?;
        if !self.lies {
            state.sync(inode);
        }
        Ok(())
    }

    fn preallocate(&self, path: &Path, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.call()?;
        let inode = state.create(path);
        let length = usize::try_from(length).expect("small");
        state.inodes[inode].current = vec![0; length];
        state.inodes[inode].unsynced.push(Write::Resize(length));
        Ok(Box::new(OpenFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.call()?;
        let op = match state.names.get(from).copied() {
            Some(inode) => NameOp::Rename(from.to_owned(), to.to_owned(), inode),
            None if state.folders.remove(from) => {
                state.folders.insert(to.to_owned());
                NameOp::RenameFolder(from.to_owned(), to.to_owned())
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        state.op(folder_of(to), op);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call()?.op(folder_of(path), NameOp::Unset(path.to_owned()));
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call()?;
        // A file whose own removal was not synced is gone with its folder.
        let names = state.names.keys().chain(state.durable_names.keys());
        let inside: BTreeSet<_> = names.filter(|name| name.starts_with(path)).cloned().collect();
        for name in inside {
            state.op(folder_of(path), NameOp::Unset(name));
        }
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call()?;
        if !self.lies {
            let (now, later) = std::mem::take(&mut state.unsynced_names).into_iter().partition(|(at, _)| at == path);
            state.unsynced_names = later;
            let now: Vec<(PathBuf, NameOp)> = now;
            now.iter().for_each(|(_, op)| apply(&mut state.durable_names, op));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: Memory,
    inode: usize,
}

impl DiskFile for OpenFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).expect("small");
        let mut state = self.disk.call()?;
        let inode = &mut state.inodes[self.inode];
        put(&mut inode.current, at, bytes);
        inode.unsynced.push(Write::Bytes(at, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.call()?;
        if !self.disk.lies {
            state.sync(self.inode);
        }
        Ok(())
    }
}
