//! Where the spool lies: room, kind of file system, whether it can be written, who has it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::{Finding, locks};
use crate::config::SpoolConfig;

/// With less than this free a gateway cannot keep an hour of anything.
const FREE_LEAST: u64 = 16 << 20;

const MIB: u64 = 1 << 20;

pub(super) fn examine(spool: &SpoolConfig) -> Finding {
    let max_bytes = crate::spool::bounded(&spool.dir, spool.max_bytes, spool.max_disk_share);
    let place = existing(&spool.dir);
    let what = format!("disk of {}", spool.dir.display());
    let system = match statvfs(&place) {
        Ok(system) => system,
        Err(error) => return Finding::fail(what, format!("nothing is known of it: {error}"), "is it mounted?"),
    };
    let kind = mounts().and_then(|mounts| kind_of(&mounts, &place)).unwrap_or_else(|| "unknown".to_owned());
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let says = format!("{} MiB free, {kind}", free / MIB);
    if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Finding::fail(what, format!("{says}, read-only"), "mount it writable, or put `[spool] dir` elsewhere");
    }
    if free < FREE_LEAST {
        return Finding::fail(what, says, "make room: readings that find no place are lost");
    }
    match kind.as_str() {
        "tmpfs" | "ramfs" => Finding::warn(
            what,
            says,
            "this is memory: a power cut takes what was not sent; put `[spool] dir` on a disk",
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" => Finding::warn(
            what,
            says,
            "this is a network's: without the network nothing can be kept; put `[spool] dir` on a disk",
        ),
        "vfat" | "exfat" | "msdos" => Finding::warn(what, says, "this kind loses files at a power cut; use ext4"),
        _ if free < max_bytes => {
            let hint = format!(
                "the spool may take {} MiB (`max_bytes`, `max_disk_share`): the disk will be full before the spool is",
                max_bytes / MIB
            );
            Finding::warn(what, says, hint)
        }
        _ => Finding::ok(what, says),
    }
}

/// The spool's folder, without taking it: a gateway that has it keeps it, and one that starts gets it.
pub(super) fn spool(root: &Path, dir: &Path) -> Finding {
    let what = format!("spool {}", dir.display());
    if !dir.exists() {
        let place = existing(dir);
        return if is_writable(&place) {
            Finding::ok(what, "it is not there yet; the gateway creates it")
        } else {
            let hint = format!("create it for the gateway's user: sudo install -d -o USER {}", dir.display());
            Finding::fail(what, format!("it is not there, and this user may not write in {}", place.display()), hint)
        };
    }
    if !dir.is_dir() {
        return Finding::fail(what, "it is no folder", "write another `[spool] dir`");
    }
    if let Some(holder) = locks::holder(root, &dir.join("lock")) {
        return Finding::ok(what, format!("{holder} has it"));
    }
    if !is_writable(dir) {
        let hint = format!("sudo chown -R USER {}, if this is the gateway's user", dir.display());
        return Finding::fail(what, "this user may not write in it", hint);
    }
    Finding::ok(what, "it is free, and this user may write in it")
}

/// A lake in a folder that is not there.
pub(super) fn missing_lake(what: String, folder: &Path) -> Finding {
    let place = existing(folder);
    if is_writable(&place) {
        return Finding::ok(what, "its folder is not there yet; the gateway creates it");
    }
    let hint = format!("create it for the gateway's user: sudo install -d -o USER {}", folder.display());
    Finding::fail(what, format!("it is not there, and this user may not write in {}", place.display()), hint)
}

fn is_writable(folder: &Path) -> bool {
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// The folder, or the nearest above it that is there.
fn existing(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn mounts() -> Option<String> {
    fs::read_to_string("/proc/self/mountinfo").ok()
}

/// The kind of the file system that a path lies on: of the mount point with the longest name above it, the
/// newest. A line is `36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw` (proc(5)).
fn kind_of(mounts: &str, path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = PathBuf::from(before.split(' ').nth(4)?.replace("\\040", " "));
        path.starts_with(&point)
            .then(|| (point.components().count(), after.split(' ').next().unwrap_or_default().to_owned()))
    };
    mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn the_nearest_mount_says_the_kind() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /no-such/run rw,nosuid shared:2 - tmpfs tmpfs rw\n3 1 0:6 / /no-such/a\\040b rw - vfat /dev/sdb rw\n";
        assert_eq!(kind_of(mounts, Path::new("/no-such/var/spool")).as_deref(), Some("ext4"));
        assert_eq!(kind_of(mounts, Path::new("/no-such/run/spool")).as_deref(), Some("tmpfs"));
        assert_eq!(kind_of(mounts, Path::new("/no-such/a b/spool")).as_deref(), Some("vfat"));
    }

    /// It took the lock to see whether it was free, and the gateway that started then was refused.
    #[test]
    fn looking_at_a_spool_leaves_it_as_it_was() {
        let place = tempfile::tempdir().expect("a folder");
        let dir = place.path().join("spool");
        assert_eq!(spool(Path::new("/"), &dir).state, State::Ok);
        assert!(!dir.exists());
        fs::create_dir(&dir).expect("created");
        assert_eq!(spool(Path::new("/"), &dir).state, State::Ok);
        assert_eq!(fs::read_dir(&dir).expect("a folder").count(), 0);
        fs::write(place.path().join("file"), "").expect("written");
        assert_eq!(spool(Path::new("/"), &place.path().join("file")).state, State::Fail);
    }

    #[test]
    fn the_disk_of_a_folder_that_is_not_there_is_that_of_the_one_above() {
        let place = tempfile::tempdir().expect("a folder");
        let config = SpoolConfig {
            dir: place.path().join("a/b/c"),
            max_bytes: 1,
            max_disk_share: 0.5,
            sync_every: tjern_readings::configuration::Period::from_seconds(5),
        };
        assert!(examine(&config).says.contains("MiB free"));
    }

    /// A spool that may have a tenth of its disk was said to find no room, since `max_bytes` is more than is free.
    #[test]
    fn a_spool_that_its_share_bounds_fits() {
        let place = tempfile::tempdir().expect("a folder");
        let config = |max_disk_share| SpoolConfig {
            dir: place.path().to_owned(),
            max_bytes: u64::MAX,
            max_disk_share,
            sync_every: tjern_readings::configuration::Period::from_seconds(5),
        };
        let hint = |share| examine(&config(share)).hint.unwrap_or_default();
        assert!(!hint(1e-9).contains("the disk will be full"), "{}", hint(1e-9));
    }
}
