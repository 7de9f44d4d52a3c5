//! Disks that are nearly full.

use std::path::Path;

use tjern_lake::LakeError;
use tjern_readings::store::LakeUrl;

use super::super::alert::{Condition, Kind};

/// Disks with less free space than is asked for. A path that cannot be looked at is told too: a disk that is
/// gone is no disk with room.
#[must_use]
pub fn disks(paths: &[impl AsRef<Path>], free_min: u64) -> Vec<Condition> {
    paths.iter().filter_map(|path| disk(path.as_ref(), free_min)).collect()
}

/// A lake that cannot be written: its disk is full, or may only be read. Nothing that comes is taken then.
#[must_use]
pub fn unwritable(lake: &LakeUrl, error: &LakeError) -> Condition {
    let subject = lake.to_string();
    let text = format!("the lake {subject} cannot be written, so nothing that comes is taken: {error}");
    Condition { kind: Kind::Disk, subject, text }
}

fn disk(path: &Path, free_min: u64) -> Option<Condition> {
    let shown = path.display().to_string();
    let subject = if shown.len() > 1 { shown.trim_end_matches('/').to_owned() } else { shown };
    let text = match rustix::fs::statvfs(path) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            if free >= free_min {
                return None;
            }
            let mebibytes = |bytes: u64| bytes >> 20;
            format!("the disk of {subject} has {} MiB left, {} are asked for", mebibytes(free), mebibytes(free_min))
        }
        Err(error) => format!("the disk of {subject} cannot be looked at: {error}"),
    };
    Some(Condition { kind: Kind::Disk, subject, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_less_than_is_asked_for_and_one_that_is_gone_are_told() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(disks(&[folder.path()], 1), []);
        let full = disks(&[folder.path()], u64::MAX);
        assert!(full[0].text.contains("MiB left"), "{}", full[0].text);
        let gone = disks(&[folder.path().join("gone")], 1);
        assert!(gone[0].text.contains("cannot be looked at"), "{}", gone[0].text);
    }
}
