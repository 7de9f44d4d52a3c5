//! What a scan found, as a configuration that the gateway takes. No I/O.

use std::fmt::Write as _;

use super::super::target::{Target, quoted, word};
use crate::config::{BusKind, Connection, Parity, Serial, TIMEOUT_DEFAULT};
use crate::modbus::transport::Table;

/// A register that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundPoint {
    pub(super) table: Table,
    pub(super) address: u16,
}

/// A device that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundUnit {
    pub(super) unit_id: u8,
    pub(super) points: Vec<FoundPoint>,
}

/// A whole configuration with these devices on this line.
pub(super) fn configuration(target: &Target, units: &[FoundUnit]) -> String {
    let mut text = String::from(
        "version = 1\n# Names, lake and spool are yours to choose.\ngateway = \"gateway-01\"\nlake = \"file:///var/lib/tjern/lake\"\n\n\
        [spool]\ndir = \"/var/lib/tjern/spool\"\n\n[[bus]]\nname = \"found\"\n",
    );
    text += &line(&target.kind);
    if target.timeout > TIMEOUT_DEFAULT.duration() {
        // What was found answers within this, and perhaps not sooner.
        let _ = writeln!(text, "timeout = \"{}ms\"", target.timeout.as_millis());
    }
    for unit in units {
        let _ = write!(text, "\n[[bus.device]]\nname = \"unit-{0}\"\nunit_id = {0}\n", unit.unit_id);
        for FoundPoint { table, address } in &unit.points {
            let (table, kind) = (word(*table), if table.is_bits() { "bool" } else { "u16" });
            let _ = write!(
                text,
                "\n[[bus.device.point]]\nsensor = \"found/unit-{}/{table}-{address}\"\nregister = \"{table}:{address}\"\ntype = \"{kind}\"\nevery = \"1min\"\n",
                unit.unit_id
            );
        }
    }
    text
}

fn line(kind: &BusKind) -> String {
    let mut text = format!("kind = \"{}\"\n", kind.word());
    match kind {
        BusKind::ModbusTcp { address, connection, .. } => {
            let _ = writeln!(text, "address = {}", quoted(address));
            text += &kept(connection);
        }
        BusKind::ModbusRtuTcp { address, baud, echo, connection, .. } => {
            let _ = write!(text, "address = {}\nbaud = {baud}\n", quoted(address));
            text += &kept(connection);
            text += if *echo { "echo = true\n" } else { "" };
        }
        BusKind::ModbusRtu { serial, echo, .. } => {
            let Serial { port, baud, parity, stop_bits, rs485, .. } = serial;
            let parity = parity_word(*parity);
            let _ = write!(
                text,
                "port = {}\nbaud = {baud}\nparity = \"{parity}\"\nstop_bits = {stop_bits}\n",
                quoted(port)
            );
            text += if *echo { "echo = true\n" } else { "" };
            if let Some(rs485) = rs485 {
                let delays = (rs485.rts_delay_before.as_millis(), rs485.rts_delay_after.as_millis());
                let _ = write!(
                    text,
                    "rs485 = true\nrts_delay_before = \"{}ms\"\nrts_delay_after = \"{}ms\"\n",
                    delays.0, delays.1
                );
                text += if rs485.rts_inverted { "rts = \"inverted\"\n" } else { "" };
                text += if rs485.rx_during_tx { "rx_during_tx = true\n" } else { "" };
            }
        }
        BusKind::TextLines { .. } => {}
    }
    text
}

fn kept(connection: &Connection) -> String {
    let mut text = String::new();
    if !connection.pause.is_zero() {
        let _ = writeln!(text, "connect_pause = \"{}ms\"", connection.pause.as_millis());
    }
    if let Some(idle) = connection.idle_close {
        let _ = writeln!(text, "idle_close = \"{}ms\"", idle.as_millis());
    }
    text
}

/// A parity's word.
pub(super) const fn parity_word(parity: Parity) -> &'static str {
    match parity {
        Parity::None => "none",
        Parity::Even => "even",
        Parity::Odd => "odd",
    }
}

/// As people write it: `9600 8E1`.
pub(super) fn setting(kind: &BusKind) -> String {
    match kind {
        BusKind::ModbusRtu { serial: Serial { baud, data_bits, parity, stop_bits, .. }, .. } => {
            let parity = parity_word(*parity).chars().next().unwrap_or('n').to_ascii_uppercase();
            format!("{baud} {data_bits}{parity}{stop_bits}")
        }
        BusKind::ModbusTcp { address, .. } | BusKind::ModbusRtuTcp { address, .. } => address.clone(),
        BusKind::TextLines { .. } => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Rs485};
    use std::time::Duration;
    use tjern_readings::configuration::ConfigText;

    fn units() -> Vec<FoundUnit> {
        let point = |table, address| FoundPoint { table, address };
        vec![
            FoundUnit { unit_id: 1, points: vec![point(Table::Input, 0), point(Table::Coil, 7)] },
            FoundUnit { unit_id: 247, points: vec![point(Table::Holding, 65_535)] },
        ]
    }

    /// A technician saves it and runs it: it must be one that is taken.
    #[test]
    fn what_is_found_is_a_configuration() {
        let connection =
            Connection { pause: Duration::from_millis(500), idle_close: Some(Duration::from_secs(3)), in_flight: 1 };
        let rs485 = Some(Rs485 { rts_delay_before: Duration::from_millis(1), rts_inverted: true, ..Rs485::default() });
        let port = "/dev/serial/by-id/usb \"x\"".to_owned();
        let serial = Serial { port, baud: 9_600, data_bits: 8, parity: Parity::None, stop_bits: 2, rs485 };
        let (address, devices) = ("10.0.3.7:502".to_owned(), Vec::new);
        for kind in [
            BusKind::ModbusTcp { address: address.clone(), connection, devices: devices() },
            BusKind::ModbusRtuTcp { address, baud: 4_800, echo: true, connection, devices: devices() },
            BusKind::ModbusRtu { serial: serial.clone(), echo: true, devices: devices() },
        ] {
            let text = configuration(&Target { kind, timeout: Duration::from_secs(1) }, &units());
            let config = Config::parse(&ConfigText::new("found.toml", &text)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.sensors().count(), 3, "{text}");
            // A device that was found within a second was never heard within the half that is the default.
            assert_eq!(config.buses()[0].timeout, Duration::from_secs(1), "{text}");
            if let BusKind::ModbusRtu { serial: taken, echo, .. } = &config.buses()[0].kind {
                assert_eq!((taken, echo), (&serial, &true));
                assert_eq!(setting(&config.buses()[0].kind), "9600 8N2");
            }
        }
    }
}
