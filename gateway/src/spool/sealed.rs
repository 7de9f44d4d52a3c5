//! Sealed files: batches and gaps that wait for the lake, and the word that an epoch is finished.
//!
//! ```text
//! sealed/<epoch>/<first>-<last>.arrow    a batch; its bytes never change
//! sealed/<epoch>/<first>-<last>.gap      these numbers were dropped
//! sealed/<epoch>/<last>.closed           the epoch is finished
//! ```
//!
//! A file is written under another name, synced, renamed, and its folder synced; so a file that has its
//! name is whole.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tjern_readings::keys::{Bounds, Landed};
use tjern_readings::sensor::Epoch;

use super::disk::Disk;
use super::salvage;

/// The folder of sealed files.
pub(crate) const SEALED: &str = "sealed";

/// What a sealed object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SealedKind {
    /// A batch of readings.
    Batch,
    /// The statement that these numbers were dropped.
    Gap,
    /// The statement that an epoch is finished; its last number is the end of the bounds.
    Closed,
}

/// An object that waits in the spool for the lake.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SealedObject {
    /// Of which epoch.
    pub epoch: Epoch,
    /// Which numbers it holds.
    pub bounds: Bounds,
    /// What it is.
    pub kind: SealedKind,
    /// Its length in bytes.
    pub length: u64,
}

impl SealedObject {
    /// What the object is in the landing zone.
    #[must_use]
    pub const fn landed(&self) -> Landed {
        match self.kind {
            SealedKind::Batch => Landed::Batch(self.epoch, self.bounds),
            SealedKind::Gap => Landed::Gap(self.epoch, self.bounds),
            SealedKind::Closed => Landed::Closed(self.epoch),
        }
    }

    /// Whether both are about the same number of the same epoch.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.bounds.overlaps(other.bounds)
    }

    /// Where it lies, relative to the spool's folder.
    pub(crate) fn path(&self) -> PathBuf {
        folder(self.epoch).join(file_name(self.kind, self.bounds))
    }
}

/// The folder of an epoch's sealed files.
pub(crate) fn folder(epoch: Epoch) -> PathBuf {
    Path::new(SEALED).join(epoch.to_string())
}

/// The folder in which an epoch's sealed files are gathered while it takes over from another.
pub(crate) fn renewing_folder(epoch: Epoch) -> PathBuf {
    Path::new(SEALED).join(format!("{epoch}.renewing"))
}

/// The name of a sealed file.
pub(crate) fn file_name(kind: SealedKind, bounds: Bounds) -> String {
    match kind {
        SealedKind::Batch => format!("{bounds}.arrow"),
        SealedKind::Gap => format!("{bounds}.gap"),
        SealedKind::Closed => format!("{:020}.closed", bounds.last),
    }
}

pub(crate) fn parse_name(name: &str) -> Option<(SealedKind, Bounds)> {
    let (numbers, kind) = name.split_once('.')?;
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let bounds = Bounds::new(first.parse().ok()?, last.parse().ok()?)?;
    let kind = match kind {
        "arrow" => SealedKind::Batch,
        "gap" => SealedKind::Gap,
        "closed" => SealedKind::Closed,
        _ => return None,
    };
    (file_name(kind, bounds) == name).then_some((kind, bounds))
}

/// The text of a gap object: the same for the same gap, for ever.
pub(crate) fn gap_text(bounds: Bounds, reason: &str, time_us: i64) -> String {
    let Bounds { first, last } = bounds;
    format!(
        "{{\"format\":1,\"first_seq\":{first},\"last_seq\":{last},\"reason\":\"{reason}\",\"time_us\":{time_us}}}\n"
    )
}

/// Whether this is a gap's text, of these numbers.
pub(crate) fn is_gap_text(text: &[u8], bounds: Bounds) -> bool {
    let value: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
    value["first_seq"].as_i64() == Some(bounds.first) && value["last_seq"].as_i64() == Some(bounds.last)
}

/// The text of the word that an epoch is finished.
pub(crate) fn closed_text(last: i64) -> Vec<u8> {
    format!("{last}\n").into_bytes()
}

/// The reason that a gap's text names.
pub(crate) fn gap_reason(text: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    value["reason"].as_str().map(str::to_owned)
}

/// Writes a sealed file, on disk with its name when this returns.
pub(crate) fn write(disk: &dyn Disk, folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let staged = folder.join(format!("{name}.new"));
    disk.create_folder(folder)?;
    disk.write(&staged, bytes)?;
    disk.rename(&staged, &folder.join(name))?;
    disk.sync_folder(folder)
}

/// The bytes of a sealed file. A batch of which a part cannot be read has zeros there, and is then found to be
/// damaged by whoever decodes it.
pub(crate) fn read(disk: &dyn Disk, object: &SealedObject) -> io::Result<Vec<u8>> {
    let (path, is_batch) = (object.path(), object.kind == SealedKind::Batch);
    match disk.read(&path) {
        Err(error) if is_batch && error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
            Ok(salvage::read(disk, &path, object.length)?.bytes)
        }
        read => read,
    }
}

/// The sealed files of an epoch in the order of their numbers. Files that were not finished are removed, and gaps that do
/// not count: one of which a batch is still there was never sent, and nothing need be lost; one that lies in a wider
/// one is told by that.
pub(crate) fn list(disk: &dyn Disk, folder: &Path, epoch: Epoch) -> io::Result<Vec<SealedObject>> {
    let mut objects = Vec::new();
    for entry in disk.list(folder)? {
        match parse_name(&entry.name) {
            Some((kind, bounds)) => objects.push(SealedObject { epoch, bounds, kind, length: entry.length }),
            None if entry.name.ends_with(".new") => drop(disk.remove(&folder.join(&entry.name))),
            None => {}
        }
    }
    objects.sort_by_key(|object| (object.kind == SealedKind::Closed, object.bounds, object.kind));
    let stale = take_stale(&mut objects);
    for gap in &stale {
        drop(disk.remove(&folder.join(file_name(gap.kind, gap.bounds))));
    }
    if !stale.is_empty() {
        // What they told of may leave soon, and they must not come back behind it.
        drop(disk.sync_folder(folder));
    }
    Ok(objects)
}

/// Takes out the gaps that do not count.
fn take_stale(objects: &mut Vec<SealedObject>) -> Vec<SealedObject> {
    let of = |kind| objects.iter().filter(move |object| object.kind == kind).map(|object| object.bounds);
    let (batches, gaps): (Vec<Bounds>, Vec<Bounds>) = (of(SealedKind::Batch).collect(), of(SealedKind::Gap).collect());
    // Both are in the order of their numbers, and batches have none in common.
    let has_batch = |gap: Bounds| {
        let next = batches.partition_point(|batch| batch.last < gap.first);
        batches.get(next).is_some_and(|batch| batch.overlaps(gap))
    };
    let whole: Vec<Bounds> = gaps.into_iter().filter(|gap| !has_batch(*gap)).collect();
    let mut widest: Vec<Bounds> = Vec::new();
    for gap in whole {
        match widest.last_mut() {
            Some(before) if gap.contains(*before) => *before = gap,
            Some(before) if before.contains(gap) => {}
            _ => widest.push(gap),
        }
    }
    let counts = |object: &SealedObject| object.kind != SealedKind::Gap || widest.binary_search(&object.bounds).is_ok();
    let (counting, stale) = std::mem::take(objects).into_iter().partition(counts);
    *objects = counting;
    stale
}

/// The epochs that have a folder of sealed files, and the folders of takeovers that may be half done.
pub(crate) fn epochs(disk: &dyn Disk) -> io::Result<(Vec<Epoch>, Vec<Epoch>)> {
    let (mut whole, mut renewing) = (Vec::new(), Vec::new());
    for entry in disk.list(Path::new(SEALED))?.into_iter().filter(|entry| entry.is_folder) {
        match entry.name.strip_suffix(".renewing") {
            Some(name) => renewing.extend(name.parse::<Epoch>()),
            None => whole.extend(entry.name.parse::<Epoch>()),
        }
    }
    whole.sort();
    Ok((whole, renewing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let bounds = Bounds::new(3, 17).expect("in order");
        for kind in [SealedKind::Batch, SealedKind::Gap] {
            assert_eq!(parse_name(&file_name(kind, bounds)), Some((kind, bounds)));
        }
        let last = Bounds { first: 17, last: 17 };
        assert_eq!(parse_name(&file_name(SealedKind::Closed, bounds)), Some((SealedKind::Closed, last)));
        for foreign in ["1-2.arrow", "00000000000000000003-00000000000000000017.arrow.new", "x", "notes.txt"] {
            assert_eq!(parse_name(foreign), None, "{foreign}");
        }
    }
}
