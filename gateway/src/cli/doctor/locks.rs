//! Who holds a file, as the kernel tells everybody (`/proc/locks`, proc(5)), without touching the file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that holds a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    /// Its name, where the kernel tells.
    pub(super) name: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} (process {})", self.name, self.pid)
    }
}

/// The process that has locked a file.
pub(super) fn holder(root: &Path, file: &Path) -> Option<Holder> {
    let file = fs::metadata(file).ok()?;
    let locks = fs::read_to_string(root.join("proc/locks")).ok()?;
    let pid = find(&locks, &device(file.dev()), file.ino())?;
    let name = fs::read_to_string(root.join(format!("proc/{pid}/comm"))).unwrap_or_default();
    let name = if name.trim().is_empty() { "another process".to_owned() } else { name.trim().to_owned() };
    Some(Holder { pid, name })
}

/// A device as the file of locks has it: major and minor in hexadecimal (`makedev(3)` of glibc).
fn device(device: u64) -> String {
    let major = device >> 8 & 0xFFF | device >> 32 & 0xFFFF_F000;
    let minor = device & 0xFF | device >> 12 & 0xFFFF_FF00;
    format!("{major:02x}:{minor:02x}")
}

/// A line is `1: FLOCK  ADVISORY  WRITE 718 fd:01:1441813 0 EOF`; one that waits has `->` after its number.
fn find(locks: &str, device: &str, inode: u64) -> Option<u32> {
    let place = format!("{device}:{inode}");
    let held = locks.lines().filter(|line| !line.contains("->"));
    held.map(str::split_whitespace).find_map(|mut words| {
        let pid = words.by_ref().nth(4)?.parse().ok()?;
        (words.next()? == place).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_found_by_its_file() {
        let locks = "1: FLOCK  ADVISORY  WRITE 718 fd:01:1441813 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 900 fd:01:99 0 EOF\n2: POSIX  ADVISORY  READ 12 00:2d:7 0 EOF\n";
        assert_eq!(find(locks, "fd:01", 1_441_813), Some(718));
        assert_eq!(find(locks, "fd:01", 99), None, "who waits does not hold it");
        assert_eq!(find(locks, "00:2d", 7), Some(12));
        assert_eq!(find(locks, "00:2d", 8), None);
        assert_eq!(device(0xFD01), "fd:01");
    }
}
