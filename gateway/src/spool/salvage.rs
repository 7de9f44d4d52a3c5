//! Reading a file of which a part may be unreadable: all the rest of it is still had.
//!
//! A file that is well is read in one go. Where that fails it is read again block by block, and a block that
//! cannot be read is zeros, and named.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

use super::disk::{BLOCK_BYTES, Disk};

/// What could be read of a file.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    /// As long as the file, with zeros where it could not be read.
    pub(crate) bytes: Vec<u8>,
    /// Those places.
    pub(crate) unreadable: Vec<Range<usize>>,
    /// Nothing could be read, not even its length.
    pub(crate) is_lost: bool,
}

/// Reads a file of this length.
///
/// # Errors
/// Where it is not there.
pub(crate) fn read(disk: &dyn Disk, path: &Path, length: u64) -> io::Result<Salvaged> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    match disk.read_part(path, 0, length) {
        Ok(bytes) => Ok(Salvaged { bytes, ..Salvaged::default() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a segment cannot be read as a whole: it is read block by block");
            Ok(blocks(disk, path, length))
        }
    }
}

/// Reads a file whose length the disk does not say: in one go, or not at all.
///
/// # Errors
/// Where it is not there.
pub(crate) fn read_unknown(disk: &dyn Disk, path: &Path) -> io::Result<Salvaged> {
    match disk.read(path) {
        Ok(bytes) => Ok(Salvaged { bytes, ..Salvaged::default() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a segment cannot be read at all: it stays where it is");
            Ok(Salvaged { is_lost: true, ..Salvaged::default() })
        }
    }
}

fn blocks(disk: &dyn Disk, path: &Path, length: usize) -> Salvaged {
    let block_bytes = BLOCK_BYTES as usize;
    let mut salvaged = Salvaged { bytes: vec![0; length], ..Salvaged::default() };
    for start in (0..length).step_by(block_bytes) {
        let end = length.min(start + block_bytes);
        match disk.read_part(path, start as u64, end - start) {
            Ok(block) => salvaged.bytes[start..start + block.len()].copy_from_slice(&block),
            Err(_) => match salvaged.unreadable.last_mut() {
                Some(before) if before.end == start => before.end = end,
                _ => salvaged.unreadable.push(start..end),
            },
        }
    }
    salvaged
}
