//! A serial port: there, allowed, free. It is not opened: that would set its lines and could disturb a device.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};

use super::Finding;
use super::locks;
use crate::modbus::may_be_a_port;

pub(super) fn examine(root: &Path, name: &str, present: &[String]) -> Finding {
    let (what, path) = (format!("port {name}"), Path::new(name));
    let Ok(file) = fs::metadata(path) else {
        let there = match present {
            [] => "there is no serial port on this machine: is the adapter plugged in?".to_owned(),
            some => format!("is the adapter plugged in? there are {}", some.join(", ")),
        };
        return Finding::fail(what, "it does not exist", there);
    };
    if !may_be_a_port(root, &file) {
        return Finding::fail(what, "it is no serial port", "write the device file, like /dev/ttyUSB0");
    }
    if access(path, Access::READ_OK | Access::WRITE_OK).is_err() {
        let group = group_name(root, file.gid()).unwrap_or_else(|| file.gid().to_string());
        let hint = format!("add the gateway's user to the group: sudo usermod -aG {group} USER, then log in again");
        return Finding::fail(what, format!("this user may not use it; its group is `{group}`"), hint);
    }
    if let Some(holder) = locks::holder(root, path) {
        let hint = "if that is not this gateway, end it: a port serves one program";
        return if holder.name.starts_with("tjern") {
            Finding::ok(what, format!("{holder} has it"))
        } else {
            Finding::warn(what, format!("{holder} has it"), hint)
        };
    }
    let by_id = present.iter().find(|other| {
        *other != name
            && fs::canonicalize(other).is_ok_and(|other| fs::canonicalize(path).is_ok_and(|path| other == path))
    });
    match by_id.filter(|other| other.starts_with("/dev/serial/by-id/")) {
        Some(by_id) => {
            let hint = format!("write port = \"{by_id}\": that name stays when adapters change places");
            Finding::warn(what, "it is there, under a name that may change", hint)
        }
        None => Finding::ok(what, "it is there, and this user may use it"),
    }
}

/// A port that two buses have, under two names.
pub(super) fn twice((name, first): (&str, &str)) -> Finding {
    let hint = "put the devices of both buses under one: a port serves one";
    Finding::fail(format!("port {name}"), format!("it is {first}, which another bus has"), hint)
}

/// A group's name, from a line `name:x:20:members`.
fn group_name(root: &Path, gid: u32) -> Option<String> {
    let groups = fs::read_to_string(root.join("etc/group")).ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn what_is_no_port_is_told_with_those_there_are() {
        let root = Path::new("/");
        let missing = examine(root, "/dev/no-such-port", &["/dev/ttyUSB0".to_owned()]);
        assert_eq!(missing.state, State::Fail);
        assert!(missing.hint.expect("a hint").ends_with("/dev/ttyUSB0"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        assert_eq!(examine(root, &file.display().to_string(), &[]).says, "it is no serial port");
        // A device file, and no port: it was said to be one that may be used.
        assert_eq!(examine(root, "/dev/zero", &[]).says, "it is no serial port");
    }

    #[test]
    fn a_group_is_told_by_its_name() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("etc")).expect("created");
        fs::write(root.path().join("etc/group"), "root:x:0:\ndialout:x:20:tjern\n").expect("written");
        assert_eq!(group_name(root.path(), 20).as_deref(), Some("dialout"));
        assert_eq!(group_name(root.path(), 2), None);
    }
}
