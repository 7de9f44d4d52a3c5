//! `maintenance.toml` in the spool's folder: read, and changed by one command after the other.
//!
//! Invariants: the file is replaced whole and never written into, and the gateway's own user can read what root wrote.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tjern_readings::configuration::ConfigText;

use super::{UnknownPattern, Window};

/// The file, in the spool's folder.
pub const FILE: &str = "maintenance.toml";

/// Everybody may read the file.
const FILE_MODE: u32 = 0o644;

/// What has been over for so long is forgotten at the next change.
const KEPT_US: i64 = 7 * 86_400_000_000;

/// Why a file of maintenance is of no use.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// It cannot be read.
    #[error("cannot read `{path}`: {source}; hint: this needs the gateway's user, or root")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(
        "cannot write `{path}`: {source}; hint: this needs the gateway's user, or root, and the folder above the spool's"
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says something else.
    #[error("`{path}` is no file of maintenance: {reason}; hint: remove it, and say again what is under maintenance")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowsFile {
    version: i64,
    #[serde(default)]
    maintenance: Vec<WindowFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowFile {
    sensor: String,
    from_us: i64,
    until_us: i64,
}

/// What is written down in a spool's folder; nothing where there is no file.
///
/// # Errors
/// [`MaintenanceError`] where the file cannot be read, or says something else.
pub fn read(spool_dir: &Path) -> Result<Vec<Window>, MaintenanceError> {
    let path = spool_dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(MaintenanceError::Unreadable { path, source }),
    };
    let wrong = |reason: String| MaintenanceError::Wrong { path: path.clone(), reason };
    let file: WindowsFile = ConfigText::new(&path, text).parse().map_err(|error| wrong(error.to_string()))?;
    if file.version != 1 {
        return Err(wrong(format!("version {} is not known to this software", file.version)));
    }
    let window = |file: WindowFile| {
        let sensors = file.sensor.parse().map_err(|error: UnknownPattern| wrong(error.to_string()))?;
        Ok(Window { sensors, from_us: file.from_us, until_us: file.until_us })
    };
    file.maintenance.into_iter().map(window).collect()
}

/// Changes what is written down in a spool's folder, one command after the other: `change` says whether it did. On disk when this
/// returns, without what was over long ago.
///
/// # Errors
/// As [`read`], and [`MaintenanceError::Unwritable`].
pub fn change<T>(
    spool_dir: &Path,
    now_us: i64,
    change: impl FnOnce(&mut Vec<Window>) -> (bool, T),
) -> Result<T, MaintenanceError> {
    let unwritable = |source| MaintenanceError::Unwritable { path: spool_dir.join(FILE), source };
    // Held until this returns: of two commands at once each changes what the other left.
    let folder = make_folder(spool_dir).and_then(|()| File::open(spool_dir)).map_err(unwritable)?;
    folder.lock().map_err(unwritable)?;
    let mut windows = read(spool_dir)?;
    let (is_changed, done) = change(&mut windows);
    if is_changed {
        write(spool_dir, &windows, now_us)?;
    }
    Ok(done)
}

/// Makes the spool's folder where the gateway has never run. Root gives it to whom the folder above belongs: the gateway could
/// not begin in one that is root's.
fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            let owner = fs::metadata(above)?;
            // Only root may, and only then is it needed.
            let _ = lchown(folder, Some(owner.uid()), Some(owner.gid()));
            Ok(())
        }
    }
}

pub(super) fn write(spool_dir: &Path, windows: &[Window], now_us: i64) -> Result<(), MaintenanceError> {
    let path = spool_dir.join(FILE);
    let mut text =
        "# Written by `tjern-gateway maintenance`. Times are microseconds since 1970 UTC.\nversion = 1\n".to_owned();
    for window in windows.iter().filter(|window| window.until_us > now_us - KEPT_US) {
        let Window { sensors, from_us, until_us } = window;
        text += &format!("\n[[maintenance]]\nsensor = \"{sensors}\"\nfrom_us = {from_us}\nuntil_us = {until_us}\n");
    }
    replace(&path, text.as_bytes()).map_err(|source| MaintenanceError::Unwritable { path, source })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let unfinished = path.with_extension(format!("toml.{}.new", std::process::id()));
    let written = (|| {
        let mut file = File::create(&unfinished)?;
        // Root writes it, under a narrow umask perhaps, and the gateway's own user reads it. It has no secrets.
        file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        if let Ok(owner) = fs::metadata(folder) {
            // Only root may, and only then is it needed.
            let _ = chown(&unfinished, Some(owner.uid()), Some(owner.gid()));
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // What is left of it helps nobody, and may not be there.
        drop(fs::remove_file(&unfinished));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::super::testing::{HOUR_US, NOW_US, pattern};
    use super::super::{begin, end};
    use super::*;

    /// Of fourteen at once two were written down, and all said that it was done.
    #[test]
    fn commands_at_once_lose_nothing() {
        let above = tempfile::tempdir().expect("a folder");
        let spool = above.path().join("spool");
        let begun: Vec<_> = (0..16)
            .map(|number| {
                let spool = spool.clone();
                std::thread::spawn(move || {
                    let sensors = pattern(&format!("tarn/number-{number}"));
                    change(&spool, NOW_US, |windows| {
                        begin(windows, sensors, NOW_US, NOW_US + HOUR_US);
                        (true, ())
                    })
                })
            })
            .collect();
        begun.into_iter().for_each(|begun| begun.join().expect("no panic").expect("written"));
        assert_eq!(read(&spool).expect("read").len(), 16);
    }

    /// Root writes it under a umask of 077, and the gateway's user could not read it: nothing was marked, the log had
    /// a line a second, and the command had said that it was done.
    #[test]
    fn the_gateways_own_user_can_read_what_root_wrote() {
        let spool = tempfile::tempdir().expect("a folder");
        // As a narrow umask makes it: a file that is there keeps its mode.
        let unfinished = spool.path().join(FILE).with_extension(format!("toml.{}.new", std::process::id()));
        fs::write(&unfinished, "").expect("written");
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600)).expect("set");
        write(spool.path(), &[], NOW_US).expect("written");
        let mode = fs::metadata(spool.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
    }

    #[test]
    fn what_was_said_is_read_again() {
        let spool = tempfile::tempdir().expect("a folder");
        let mut windows = Vec::new();
        begin(&mut windows, pattern("a/b"), NOW_US, NOW_US + HOUR_US);
        begin(&mut windows, pattern("c/*"), NOW_US, NOW_US + HOUR_US);
        begin(&mut windows, pattern("a/b"), NOW_US + 1, NOW_US + 2 * HOUR_US);
        assert_eq!(windows.len(), 2, "what is under way is made longer");
        assert_eq!((windows[0].from_us, windows[0].until_us), (NOW_US, NOW_US + 2 * HOUR_US));
        write(spool.path(), &windows, NOW_US).expect("written");
        assert_eq!(read(spool.path()).expect("read"), windows);
        assert_eq!(end(&mut windows, Some(&pattern("a/b")), NOW_US + 5), 1);
        assert_eq!(windows[0].until_us, NOW_US + 5, "what was measured before stays marked");
        assert_eq!(end(&mut windows, None, NOW_US + 5), 1);
        write(spool.path(), &windows, NOW_US + KEPT_US + HOUR_US).expect("written");
        assert_eq!(read(spool.path()).expect("read"), [], "what was over long ago is forgotten");
        let names: Vec<_> =
            fs::read_dir(spool.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, [FILE], "nothing unfinished is left");
    }
}
