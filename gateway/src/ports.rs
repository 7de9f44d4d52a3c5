//! Which serial ports this machine has.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What names of serial ports begin with under `/dev`: adapters, modems, and what sits on boards. The unit lets the gateway open
/// these and no others.
const PREFIXES: [&str; 18] = [
    "ttyUSB", "ttyACM", "ttyS", // adapters, modems, and whatever is like a PC's
    "ttyAMA", "ttymxc", "ttyO", "ttyTHS", "ttyHS", "ttyMSM", "ttyAML", "ttySAC", "ttySTM", "ttyLP", "ttyAT", "ttyPS",
    "ttyMV", // processors
    "ttySC", // chips beside them that switch an RS-485 driver
    "ttyMAX",
];

/// Where names are that say which adapter it is.
const BY_ID: &str = "/dev/serial/by-id/";

/// The ports there are, the names that stay the same when an adapter is plugged in elsewhere first. `root`
/// is where the file system begins.
pub(crate) fn present(root: &Path) -> Vec<String> {
    let by_id = sorted(&root.join("dev/serial/by-id"), |_| true);
    let named: HashSet<PathBuf> = by_id.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let plain = sorted(&root.join("dev"), |name| {
        PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && has_hardware(root, name)
    });
    let others = plain.into_iter().filter(|path| !fs::canonicalize(path).is_ok_and(|path| named.contains(&path)));
    let shown = |path: PathBuf| {
        let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
        Path::new("/").join(path).display().to_string()
    };
    by_id.iter().cloned().chain(others).map(shown).collect()
}

/// The name of a port that stays when adapters change places, where there is one; otherwise the one that was given.
pub(crate) fn lasting(root: &Path, port: &str) -> String {
    let within = |path: &str| root.join(path.trim_start_matches('/'));
    let Ok(place) = fs::canonicalize(within(port)) else { return port.to_owned() };
    let is_same = |name: &String| fs::canonicalize(within(name)).is_ok_and(|other| other == place);
    let by_id = present(root).into_iter().filter(|name| name.starts_with(BY_ID));
    by_id.into_iter().find(is_same).unwrap_or_else(|| port.to_owned())
}

fn sorted(folder: &Path, is_one: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(&is_one)).map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The kernel has names for ports that no board has; their kind is 0 (`PORT_UNKNOWN`).
fn has_hardware(root: &Path, name: &str) -> bool {
    fs::read_to_string(root.join("sys/class/tty").join(name).join("type")).map_or(true, |kind| kind.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Under the packaged unit the ports of most boards with RS-485 could not be opened, whatever group the user was in.
    #[test]
    fn the_unit_lets_the_gateway_open_every_kind_of_port() {
        let unit = include_str!("../../dist/tjern-gateway.service");
        let allowed: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("DeviceAllow=")).collect();
        assert_eq!(allowed, PREFIXES.map(|prefix| format!("char-{prefix} rw")));
    }

    #[test]
    fn names_that_stay_come_first_and_names_without_hardware_not_at_all() {
        let root = tempfile::tempdir().expect("a folder");
        let path = |name: &str| root.path().join(name);
        for folder in ["dev/serial/by-id", "sys/class/tty/ttyS0", "sys/class/tty/ttyS1"] {
            fs::create_dir_all(path(folder)).expect("created");
        }
        for file in ["dev/ttyUSB0", "dev/ttyUSB1", "dev/ttyS0", "dev/ttyS1", "dev/tty0", "dev/null"] {
            fs::write(path(file), "").expect("written");
        }
        fs::write(path("sys/class/tty/ttyS0/type"), "0\n").expect("written");
        fs::write(path("sys/class/tty/ttyS1/type"), "4\n").expect("written");
        std::os::unix::fs::symlink(path("dev/ttyUSB1"), path("dev/serial/by-id/usb-FTDI-A5")).expect("linked");
        assert_eq!(present(root.path()), ["/dev/serial/by-id/usb-FTDI-A5", "/dev/ttyS1", "/dev/ttyUSB0"]);
        for (port, name) in [
            ("/dev/ttyUSB1", "/dev/serial/by-id/usb-FTDI-A5"),
            ("/dev/serial/by-id/usb-FTDI-A5", "/dev/serial/by-id/usb-FTDI-A5"),
            ("/dev/ttyUSB0", "/dev/ttyUSB0"),
            ("/dev/none", "/dev/none"),
        ] {
            assert_eq!(lasting(root.path(), port), name);
        }
    }
}
