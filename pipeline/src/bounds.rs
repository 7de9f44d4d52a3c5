//! What the work of a job may take, whatever there is to do: memory, and a folder for what does not fit into it.
//!
//! One bound for all of them, since the jobs that work on the lake wait for one another: `[compact] memory` and
//! `[compact] spill` in `tjern.toml`.

use std::path::PathBuf;

use crate::compact::CompactSettings;

/// A row of `readings` while it is worked on, about, in bytes: thirteen columns, texts among them.
const ROW_BYTES: u64 = 256;

/// A bound on a job's memory, and where it writes what does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The memory that it may take, in bytes. Footers, one sensor's readings as far as a test looks back, and a row
    /// group of one file come on top.
    pub memory_bytes: u64,
    /// The size at which a file under way is finished, in bytes.
    pub file_bytes: u64,
    /// The folder for rows that do not fit into memory: a disk, and not a file system in memory.
    pub spill_folder: PathBuf,
}

impl Default for Bounds {
    fn default() -> Self {
        Self::from(&CompactSettings::default())
    }
}

impl From<&CompactSettings> for Bounds {
    fn from(settings: &CompactSettings) -> Self {
        Self {
            memory_bytes: settings.memory_bytes,
            file_bytes: settings.file_bytes(),
            spill_folder: settings.spill_folder.clone(),
        }
    }
}

impl Bounds {
    /// What an engine may take for the rows that it sorts: the other half is for what is read, judged and written.
    pub(crate) fn engine_bytes(&self) -> usize {
        usize::try_from(self.memory_bytes / 2).unwrap_or(usize::MAX)
    }

    /// Files of so many bytes together are open at once.
    pub(crate) fn open_bytes(&self) -> i64 {
        i64::try_from(self.memory_bytes / 4).unwrap_or(i64::MAX)
    }

    /// A part of the memory, for what is done beside other work of the same job.
    pub(crate) fn part(&self, of: u64) -> Self {
        Self { memory_bytes: self.memory_bytes / of, ..self.clone() }
    }

    /// So many rows are worked on together.
    pub(crate) fn rows(&self) -> i64 {
        i64::try_from(self.memory_bytes / ROW_BYTES).unwrap_or(i64::MAX)
    }
}
