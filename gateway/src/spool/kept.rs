//! Copies of what was damaged, for people who want to look at it: `kept/`.
//!
//! Limits: [`KEPT_BYTES_MAX`] in all; beyond that nothing more is kept, and damage is only counted and told.
//! Nothing here is read again by the spool.

use std::io;
use std::path::Path;

use super::disk::Disk;

/// The folder of the copies.
pub(crate) const KEPT: &str = "kept";

/// The most that the copies may take: they lie outside of the spool's own bound.
pub(crate) const KEPT_BYTES_MAX: u64 = 16 << 20;

/// Keeps a copy under this name, in place of one that has it.
pub(crate) fn keep(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new(KEPT);
    let others = disk.list(folder)?.into_iter().filter(|entry| entry.name != name);
    if others.map(|entry| entry.length).sum::<u64>() + bytes.len() as u64 > KEPT_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "the folder `kept` is full; hint: look at it, and empty it",
        ));
    }
    disk.create_folder(folder)?;
    disk.write(&folder.join(name), bytes)
}
