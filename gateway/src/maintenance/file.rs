//! `maintenance.toml` in the spool's folder: read, and changed by one command after the other.
//!
//! Invariants: the file is replaced whole and never written into, and the gateway's own user can read what root wrote.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tjern_readings::configuration::ConfigText;

use super::since_boot::is_boot;
use super::{Now, UnknownPattern, UpSpan, Window};

/// The file, in the spool's folder.
pub const FILE: &str = "maintenance.toml";

/// Files of version 1 have no windows by the machine's boot.
const VERSION: i64 = 2;

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
    /// Nothing is there to reckon a window by.
    #[error(
        "the machine's clock is not known, and it does not say how long it has been up (`/proc/uptime`, `/proc/sys/kernel/random/boot_id`): what is measured from now on could not be told from the rest; hint: set the clock first"
    )]
    ClockUnknown,
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
    /// From version 2 on, all three or none.
    boot: Option<String>,
    from_up_us: Option<i64>,
    until_up_us: Option<i64>,
}

impl WindowFile {
    /// What it says of the machine's boot.
    fn since_boot(&mut self) -> Result<Option<UpSpan>, String> {
        match (self.boot.take(), self.from_up_us, self.until_up_us) {
            (None, None, None) => Ok(None),
            (Some(boot), Some(from_us), Some(until_us)) if is_boot(&boot) => {
                Ok(Some(UpSpan { boot, from_us, until_us }))
            }
            _ => Err(format!("`boot`, `from_up_us` and `until_up_us` of `{}` do not go together", self.sensor)),
        }
    }
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
    if !(1..=VERSION).contains(&file.version) {
        return Err(wrong(format!("version {} is not known to this software", file.version)));
    }
    let window = |mut file: WindowFile| {
        let since_boot = file.since_boot().map_err(&wrong)?;
        let sensors = file.sensor.parse().map_err(|error: UnknownPattern| wrong(error.to_string()))?;
        Ok(Window { sensors, from_us: file.from_us, until_us: file.until_us, since_boot })
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
    now: &Now,
    change: impl FnOnce(&mut Vec<Window>) -> (bool, T),
) -> Result<T, MaintenanceError> {
    let unwritable = |source| MaintenanceError::Unwritable { path: spool_dir.join(FILE), source };
    // Held until this returns: of two commands at once each changes what the other left.
    let folder = make_folder(spool_dir).and_then(|()| File::open(spool_dir)).map_err(unwritable)?;
    folder.lock().map_err(unwritable)?;
    let mut windows = read(spool_dir)?;
    let (is_changed, done) = change(&mut windows);
    if is_changed {
        write(spool_dir, &windows, now)?;
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

pub(super) fn write(spool_dir: &Path, windows: &[Window], now: &Now) -> Result<(), MaintenanceError> {
    let path = spool_dir.join(FILE);
    let kept: Vec<&Window> = windows.iter().filter(|window| window.left_us(now) > -KEPT_US).collect();
    // What says no more than version 1 could is readable for that.
    let version = if kept.iter().any(|window| window.since_boot.is_some()) { VERSION } else { 1 };
    let mut text = format!(
        "# Written by `tjern-gateway maintenance`. Times are microseconds since 1970 UTC, and since the machine's boot.\nversion = {version}\n"
    );
    for Window { sensors, from_us, until_us, since_boot } in kept {
        text += &format!("\n[[maintenance]]\nsensor = \"{sensors}\"\nfrom_us = {from_us}\nuntil_us = {until_us}\n");
        if let Some(UpSpan { boot, from_us, until_us }) = since_boot {
            text += &format!("boot = \"{boot}\"\nfrom_up_us = {from_us}\nuntil_up_us = {until_us}\n");
        }
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
    use super::super::testing::{HOUR_US, NOW_US, at, pattern};
    use super::super::{Now, SinceBoot, begin, end};
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
                    change(&spool, &at(NOW_US), |windows| {
                        begin(windows, sensors, &at(NOW_US), HOUR_US);
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
        write(spool.path(), &[], &at(NOW_US)).expect("written");
        let mode = fs::metadata(spool.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
    }

    #[test]
    fn what_was_said_is_read_again() {
        let spool = tempfile::tempdir().expect("a folder");
        let mut windows = Vec::new();
        begin(&mut windows, pattern("a/b"), &at(NOW_US), HOUR_US);
        begin(&mut windows, pattern("c/*"), &at(NOW_US), HOUR_US);
        begin(&mut windows, pattern("a/b"), &at(NOW_US + 1), 2 * HOUR_US - 1);
        assert_eq!(windows.len(), 2, "what is under way is made longer");
        assert_eq!((windows[0].from_us, windows[0].until_us), (NOW_US, NOW_US + 2 * HOUR_US));
        write(spool.path(), &windows, &at(NOW_US)).expect("written");
        assert_eq!(read(spool.path()).expect("read"), windows);
        assert_eq!(end(&mut windows, Some(&pattern("a/b")), &at(NOW_US + 5)), 1);
        assert_eq!(windows[0].until_us, NOW_US + 5, "what was measured before stays marked");
        assert_eq!(end(&mut windows, None, &at(NOW_US + 5)), 1);
        write(spool.path(), &windows, &at(NOW_US + KEPT_US + HOUR_US)).expect("written");
        assert_eq!(read(spool.path()).expect("read"), [], "what was over long ago is forgotten");
        let names: Vec<_> =
            fs::read_dir(spool.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, [FILE], "nothing unfinished is left");
    }

    /// Written in 1970, before the clock came: such a window looked as if it had been over for years, and was forgotten while it
    /// was under way.
    #[test]
    fn a_window_by_the_machines_boot_is_read_again_whatever_the_clock_says() {
        let spool = tempfile::tempdir().expect("a folder");
        let up = |clock_us, up_us| Now { clock_us, since_boot: Some(SinceBoot { boot: "b-1".to_owned(), up_us }) };
        let mut windows = Vec::new();
        begin(&mut windows, pattern("a/b"), &up(20, 100), HOUR_US);
        write(spool.path(), &windows, &up(NOW_US, 200)).expect("written");
        assert_eq!(read(spool.path()).expect("read"), windows);
        let file = spool.path().join(FILE);
        let text = fs::read_to_string(&file).expect("read");
        for wrong in [text.replace("boot = \"b-1\"\n", ""), text.replace("b-1", "b 1"), text.replace("= 2", "= 3")] {
            fs::write(&file, wrong).expect("written");
            assert!(matches!(read(spool.path()), Err(MaintenanceError::Wrong { .. })));
        }
        fs::write(&file, "version = 1\n[[maintenance]]\nsensor = \"a/b\"\nfrom_us = 5\nuntil_us = 7\n")
            .expect("written");
        let earlier = read(spool.path()).expect("a file of an earlier version");
        assert_eq!((earlier[0].from_us, earlier[0].until_us, &earlier[0].since_boot), (5, 7, &None));
    }
}
