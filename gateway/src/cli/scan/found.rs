//! What a scan found, as a configuration that the gateway takes. No I/O.
//!
//! A device that refused all that it was asked stands there as a comment, with the command that finds what it has: nothing is
//! polled that was seen refused.

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
    /// With a value; none where it refuses what it was asked.
    pub(super) points: Vec<FoundPoint>,
    /// What it refused first, where it has no point.
    pub(super) refused: Option<FoundPoint>,
}

/// A whole configuration with these devices on this line.
pub(super) fn configuration(target: &Target, units: &[FoundUnit]) -> String {
    let text = String::from(
        "version = 1\n# Names, lake and spool are yours to choose.\ngateway = \"gateway-01\"\nlake = \"file:///var/lib/tjern/lake\"\n\n\
        [spool]\ndir = \"/var/lib/tjern/spool\"\n\n",
    );
    let mut bus = format!("[[bus]]\nname = \"found\"\n{}", line(&target.kind));
    if target.timeout > TIMEOUT_DEFAULT.duration() {
        // What was found answers within this, and perhaps not sooner.
        let _ = writeln!(bus, "timeout = \"{}ms\"", target.timeout.as_millis());
    }
    let with_values = units.iter().any(|unit| !unit.points.is_empty());
    // A bus without a device is none.
    let mut text = text + &if with_values { bus } else { commented(&bus) };
    for unit in units {
        text += &match unit.refused {
            Some(refused) if unit.points.is_empty() => refusing(target, unit.unit_id, refused),
            _ => format!("\n{}", device(unit.unit_id, &unit.points)),
        };
    }
    text
}

fn device(unit_id: u8, points: &[FoundPoint]) -> String {
    let mut text = format!("[[bus.device]]\nname = \"unit-{unit_id}\"\nunit_id = {unit_id}\n");
    for FoundPoint { table, address } in points {
        let (table, kind) = (word(*table), if table.is_bits() { "bool" } else { "u16" });
        let _ = write!(
            text,
            "\n[[bus.device.point]]\nsensor = \"found/unit-{unit_id}/{table}-{address}\"\nregister = \"{table}:{address}\"\ntype = \"{kind}\"\nevery = \"1min\"\n"
        );
    }
    text
}

/// A device that is there, and of whose registers nothing is known.
fn refusing(target: &Target, unit_id: u8, refused: FoundPoint) -> String {
    let place = format!("{}:{}", word(refused.table), refused.address);
    format!(
        "\n# Unit {unit_id} is there, and refuses {place}. Which registers it has this tells, table by table:\n\
        #   tjern-gateway scan registers {} --unit-id {unit_id} {}:0-200\n{}",
        arguments(&target.kind),
        word(refused.table),
        commented(&device(unit_id, &[refused]))
    )
}

fn commented(text: &str) -> String {
    text.lines().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect()
}

/// How a command is told of a line.
fn arguments(kind: &BusKind) -> String {
    match kind {
        BusKind::ModbusTcp { address, .. } => format!("--tcp {address}"),
        BusKind::ModbusRtuTcp { address, .. } => format!("--rtu-tcp {address}"),
        BusKind::ModbusRtu { serial: Serial { port, baud, parity, stop_bits, .. }, .. } => {
            format!("--port {port} --baud {baud} --parity {} --stop-bits {stop_bits}", parity_word(*parity))
        }
        BusKind::TextLines { .. } => String::new(),
    }
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
            FoundUnit { unit_id: 1, points: vec![point(Table::Input, 0), point(Table::Coil, 7)], refused: None },
            FoundUnit { unit_id: 247, points: vec![point(Table::Holding, 65_535)], refused: None },
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

    /// A unit that answered exception 2 to input:0 was polled for input:0 each minute, by the file that was ready to run.
    #[test]
    fn what_was_refused_is_a_comment() {
        let refused = Some(FoundPoint { table: Table::Input, address: 0 });
        let nine = FoundUnit { unit_id: 9, points: Vec::new(), refused };
        let serial = Serial {
            port: "/dev/ttyUSB0".into(),
            baud: 9_600,
            data_bits: 8,
            parity: Parity::Even,
            stop_bits: 1,
            rs485: None,
        };
        let target = Target {
            kind: BusKind::ModbusRtu { serial, echo: false, devices: Vec::new() },
            timeout: Duration::from_millis(150),
        };
        let command = "tjern-gateway scan registers --port /dev/ttyUSB0 --baud 9600 --parity even --stop-bits 1 --unit-id 9 input:0-200";
        for (before, sensors) in [(units(), 3), (Vec::new(), 0)] {
            let found: Vec<FoundUnit> = before.into_iter().chain([nine.clone()]).collect();
            let text = configuration(&target, &found);
            let config = Config::parse(&ConfigText::new("found.toml", &text)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.sensors().count(), sensors, "{text}");
            assert!(text.contains(command) && text.contains("# sensor = \"found/unit-9/input-0\""), "{text}");
        }
    }
}
