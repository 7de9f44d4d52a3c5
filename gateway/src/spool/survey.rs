//! What lies in a spool's folder, looked at and not changed: for recovery, which acts on it, and for people.
//!
//! Each segment is read once, and its bytes are at hand while it is looked at.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::salvage::{self, Salvaged};
use super::segment::{self, Contents, Header};

/// A segment that was read.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// The first number, as the name has it.
    pub(crate) named_seq: i64,
    /// `None` where there is no valid one.
    pub(crate) header: Option<Header>,
    /// Empty without a header.
    pub(crate) contents: Contents,
    pub(crate) length: u64,
    pub(crate) modified_us: Option<i64>,
}

/// Reads every segment of a folder, in no order, and gives the names of those that were never finished.
pub(crate) fn segments(disk: &dyn Disk, mut look: impl FnMut(Found, &Salvaged)) -> io::Result<Vec<PathBuf>> {
    let mut unfinished = Vec::new();
    for entry in disk.list(Path::new(""))? {
        let path = PathBuf::from(&entry.name);
        if entry.name.ends_with(".segment.new") {
            unfinished.push(path);
            continue;
        }
        let Some(named_seq) = entry.name.strip_suffix(".segment").and_then(|digits| digits.parse().ok()) else {
            continue;
        };
        let read = match entry.is_unreadable {
            true => salvage::read_unknown(disk, &path),
            false => salvage::read(disk, &path, entry.length),
        };
        let salvaged = match read {
            // It left while the folder was looked at.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            salvaged => salvaged?,
        };
        let header = Header::decode(&salvaged.bytes);
        let read = |header: &Header| segment::read(&salvaged.bytes, &salvaged.unreadable, header.first_seq);
        let contents = header.as_ref().map(read).unwrap_or_default();
        let (length, modified_us) = (entry.length, entry.modified_us);
        look(Found { path, named_seq, header, contents, length, modified_us }, &salvaged);
    }
    Ok(unfinished)
}
