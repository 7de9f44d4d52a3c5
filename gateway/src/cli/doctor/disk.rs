//! Where the spool lies: room, kind of file system, whether it can be written, who has it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::inside::KEPT;
use super::{Finding, locks};
use crate::config::SpoolConfig;
use crate::spool::LOCK;

/// With less than this free a gateway cannot keep an hour of anything.
const FREE_LEAST: u64 = 16 << 20;

/// Each batch is a file, and so is each gap: with fewer that can still be made a disk is as good as full.
const FILES_LEAST: u64 = 256;

/// Folders in the spool's folder lie so deep: `sealed/<epoch>`, and the same in `undated`.
const DEPTH_MAX: usize = 3;

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
    if let Some(files) = files_left(system.f_files, system.f_favail) {
        let hint = "its inodes are used up (`df -i`): remove files, wherever on this disk most of them are";
        return Finding::fail(what, format!("{says}, and only {files} files can be made"), hint);
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
    let hint = || format!("sudo chown -R USER {}, if this is the gateway's user", dir.display());
    let refused = refused(dir, &|path, rights| access(path, rights).is_ok());
    let says = |place: &Path| match place == dir {
        true => "this user may not write in it".to_owned(),
        false => format!("this user may not use `{}` in it", place.strip_prefix(dir).unwrap_or(place).display()),
    };
    if let Some(holder) = locks::holder(root, &dir.join(LOCK)) {
        // Who may write the lock may be the gateway's user. To others the folders are closed, and rightly so.
        let is_users = access(dir.join(LOCK), Access::WRITE_OK).is_ok();
        return match refused.filter(|_| is_users) {
            Some(place) => Finding::fail(what, format!("{holder} has it, and {}", says(&place)), hint()),
            None => Finding::ok(what, format!("{holder} has it")),
        };
    }
    match refused {
        Some(place) => Finding::fail(what, says(&place), hint()),
        None => Finding::ok(what, "it is free, and this user may write in it"),
    }
}

/// How many files a file system can still take, where it counts them and has next to none.
fn files_left(files: u64, free: u64) -> Option<u64> {
    (files > 0 && free < FILES_LEAST).then_some(free)
}

/// The first folder or file of a spool that a gateway could not use: it writes in each folder and to the lock, and reads all else. What is in
/// `kept` is for people.
fn refused(dir: &Path, may: &dyn Fn(&Path, Access) -> bool) -> Option<PathBuf> {
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if !may(&folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
            return Some(folder);
        }
        if folder.file_name().is_some_and(|name| name == KEPT) || depth == DEPTH_MAX {
            continue;
        }
        // One that cannot be listed is told with what is inside.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let rights = if entry.file_name() == LOCK { Access::WRITE_OK } else { Access::READ_OK };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((entry.path(), depth + 1));
            } else if !may(&entry.path(), rights) {
                return Some(entry.path());
            }
        }
    }
    None
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

    /// `sealed` was root's: the gateway was failing, and the spool was said to be `ok`.
    #[test]
    fn each_folder_and_file_that_the_gateway_needs_is_looked_at() {
        let place = tempfile::tempdir().expect("a folder");
        for folder in ["sealed/0a", "learned", "kept"] {
            fs::create_dir_all(place.path().join(folder)).expect("created");
        }
        let files = [LOCK, "1.segment", "sealed/0a/1-2.arrow", "learned/b.toml", "kept/copy"];
        files.iter().for_each(|file| fs::write(place.path().join(file), "").expect("written"));
        let but = |closed: &'static str, right: Access| {
            let closed = place.path().join(closed);
            refused(place.path(), &|path, rights| path != closed || !rights.contains(right))
                .map(|found| found == closed)
        };
        for folder in ["", "sealed", "sealed/0a", "learned", "kept", LOCK] {
            assert_eq!(but(folder, Access::WRITE_OK), Some(true), "{folder}");
        }
        for file in ["1.segment", "sealed/0a/1-2.arrow", "learned/b.toml"] {
            assert_eq!(but(file, Access::READ_OK), Some(true), "{file}");
            assert_eq!(but(file, Access::WRITE_OK), None, "{file} is not written again");
        }
        assert_eq!(but("kept/copy", Access::READ_OK), None, "a copy is for people");
    }

    /// A disk with room and no inode left was told to have room.
    #[test]
    fn a_disk_without_inodes_is_full() {
        assert_eq!((files_left(1_000, 3), files_left(1_000, 900)), (Some(3), None));
        assert_eq!(files_left(0, 0), None, "btrfs counts none");
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
