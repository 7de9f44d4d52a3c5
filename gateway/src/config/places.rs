//! Where buses are: no two on one wire, where they would talk over each other and take each other's answers.
//!
//! A port is a wire. So is an address behind which a serial line lies on which something is asked: RTU frames over TCP, and
//! lines of text with a `poll`. The address of a Modbus TCP server is none, which answers each connection for
//! itself, nor is one that prints lines unasked. Names are compared as they are written, but for the case of
//! letters and how an IP address may be spelt: nothing is looked up, on the network or on disk. Names of one port are
//! found by `check` and `doctor` ([`aliases`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use super::checker::Checker;
use super::file::BusFile;

/// So many RTU buses on ports there may be: each has a thread, and with those that wait for files and names they have to
/// stay within the `TasksMax` of the unit that comes with the gateway.
pub const PORTS_MAX: usize = 32;

/// Notes two buses on one wire, and more ports than there may be.
pub(super) fn check_places(checker: &mut Checker<'_>, buses: &[BusFile]) {
    let mut on_ports = buses.iter().filter(|bus| bus.kind.get_ref() == "modbus-rtu");
    if let Some(bus) = on_ports.nth(PORTS_MAX) {
        let message = format!("more than {PORTS_MAX} modbus-rtu buses");
        checker.note(bus.name.span(), message, "let a second gateway with a spool of its own poll the others");
    }
    let ports = buses.iter().filter_map(|bus| bus.port.as_ref()).map(|port| (port, port.get_ref().clone()));
    refuse_twice(checker, "port", ports);
    let addresses = buses.iter().filter(|bus| asks_on_a_line(bus)).filter_map(|bus| bus.address.as_ref());
    refuse_twice(checker, "address", addresses.map(|address| (address, plain(address.get_ref()))));
}

fn asks_on_a_line(bus: &BusFile) -> bool {
    match bus.kind.get_ref().as_str() {
        "modbus-rtu-tcp" => true,
        "text-lines" => bus.poll.is_some(),
        _ => false,
    }
}

fn refuse_twice<'text>(
    checker: &mut Checker<'_>,
    what: &str,
    places: impl Iterator<Item = (&'text Spanned<String>, String)>,
) {
    let mut first_line = HashMap::new();
    for (text, place) in places {
        let line = checker.line_of(&text.span());
        if let Some(first) = first_line.get(&place) {
            let message = format!("two buses have the {what} `{}`", text.get_ref());
            checker.note(text.span(), message, format!("line {first} has it first: put the devices under one bus"));
        } else {
            first_line.insert(place, line);
        }
    }
}

/// An address in one spelling.
fn plain(address: &str) -> String {
    address.parse::<SocketAddr>().map_or_else(|_| address.to_lowercase(), |address| address.to_string())
}

/// Ports that are one and the same under several names: a name, and the one before it that it is the same as.
pub(crate) fn aliases<'name>(ports: impl Iterator<Item = &'name str>) -> Vec<(&'name str, &'name str)> {
    let (mut first, mut found) = (HashMap::<PathBuf, &str>::new(), Vec::new());
    for port in ports {
        let Ok(path) = std::fs::canonicalize(port) else { continue };
        match first.get(&path) {
            Some(first) if *first != port => found.push((port, *first)),
            Some(_) => {}
            None => drop(first.insert(path, port)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_however_it_is_spelt() {
        assert_eq!(plain("Moxa.Example:4001"), plain("moxa.example:4001"));
        assert_eq!(plain("[2001:DB8:0::1]:4001"), plain("[2001:db8::1]:4001"));
        assert_ne!(plain("moxa.example:4001"), plain("moxa.example:4002"));
    }

    #[test]
    fn a_port_is_the_same_under_another_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["ttyUSB0", "ttyUSB1"] {
            std::fs::write(path(name), "").expect("written");
        }
        std::os::unix::fs::symlink(path("ttyUSB1"), path("by-id")).expect("linked");
        let names = [path("ttyUSB0"), path("ttyUSB1"), path("gone"), path("by-id")];
        let found = aliases(names.iter().map(String::as_str));
        assert_eq!(found, [(names[3].as_str(), names[1].as_str())]);
    }
}
