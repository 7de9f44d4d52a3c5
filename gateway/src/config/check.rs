//! From the file's shape to a configuration: every problem is noted with its place, and only a file
//! without an error becomes a [`Config`]; what is odd but works becomes its warnings.

use std::sync::Arc;
use std::time::Duration;

use tjern_readings::configuration::{ConfigError, ConfigText, Period, Shape, parse_size};
use tjern_readings::sensor::SourceName;
use toml::Spanned;

pub(super) use super::checker::Checker;
use super::checker::{one_of, refuse_keys};
use super::device::modbus_devices;
use super::file::{BusFile, ConfigFile, SpoolFile};
use super::lines::{framing, line_points, warn_of_length_without_pause};
use super::places::check_places;
use super::upload::upload;
use super::{Bus, BusKind, ClockConfig, Config, Connection, LinePlace, Parity, Places, Serial, SpoolConfig, wire};
use crate::spool::MAX_BYTES_LEAST;

/// The kinds of buses there are.
const KINDS: [&str; 4] = ["modbus-tcp", "modbus-rtu", "modbus-rtu-tcp", "text-lines"];

const MAX_BYTES_DEFAULT: u64 = 1 << 30;

/// Half of the disk: whatever else fills it, the spool does not.
const MAX_DISK_SHARE_DEFAULT: f64 = 0.5;
const SYNC_EVERY_DEFAULT: Period = Period::from_seconds(5);
/// How long readings wait for the clock.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
const DOWN_REPORT_DEFAULT: Period = Period::from_seconds(300);
pub(crate) const TIMEOUT_DEFAULT: Period = Period::from_millis(500);
const RTU_TCP_BAUD_DEFAULT: u32 = 9_600;

pub(super) fn config(text: &ConfigText, shape: Shape<ConfigFile>) -> Result<Config, ConfigError> {
    let Some(file) = shape.value else { return Err(ConfigError::Wrong(shape.problems)) };
    let mut checker = Checker::new(text, shape.problems, shape.complete, &file.profile);
    if *file.version.get_ref() != 1 {
        let message = format!("version {} is not known to this software", file.version.get_ref());
        checker.note(file.version.span(), message, "write `version = 1`");
    }
    let gateway = gateway(&mut checker, &file.gateway);
    let lake = checker.parse(&file.lake);
    let spool = spool(&mut checker, &file.spool);
    let upload = upload(&mut checker, &file.upload);
    let patience = file.clock.patience.as_ref().map_or(Some(PATIENCE_DEFAULT), |text| checker.duration(text));
    let clock =
        ClockConfig { patience: patience.unwrap_or(PATIENCE_DEFAULT), trusted: file.clock.trusted.unwrap_or(false) };
    let down_report = checker.period(file.down_report.as_ref(), DOWN_REPORT_DEFAULT);
    checker.names("profile", "", file.profile.iter().map(|profile| &profile.name));
    checker.names("bus", "", file.bus.iter().map(|bus| &bus.name));
    check_count(&mut checker, &file.bus);
    check_places(&mut checker, &file.bus);
    let status_listen = file.status.listen.as_ref().and_then(|text| checker.parse(text));
    let buses: Vec<_> = file.bus.iter().map(|file| bus(&mut checker, file, down_report)).collect();
    checker.warn_of_unused_profiles();
    let complete = (gateway, lake, spool, buses.into_iter().map(|bus| bus.map(Arc::new)).collect::<Option<Vec<_>>>());
    let warnings = checker.finish()?;
    let (Some(gateway), Some(lake), Some(spool), Some(buses)) = complete else {
        unreachable!("what could not be read was noted as an error");
    };
    let places = Places {
        lake: file.lake.span(),
        device_count: file.bus.iter().map(|bus| bus.device.len()).sum(),
        ports: file.bus.iter().filter_map(|bus| bus.port.as_ref()).map(place_of).collect(),
        buses: file.bus.iter().map(|bus| place_of(&bus.name)).collect(),
    };
    Ok(Config { text: text.clone(), gateway, lake, spool, upload, status_listen, clock, buses, warnings, places })
}

fn place_of(text: &Spanned<String>) -> (String, std::ops::Range<usize>) {
    (text.get_ref().clone(), text.span())
}

fn gateway(checker: &mut Checker<'_>, text: &Spanned<String>) -> Option<SourceName> {
    let name: SourceName = checker.parse(text)?;
    if name.as_str().contains(':') {
        checker.note(text.span(), format!("`{name}` is no gateway's name"), "write one part, like `landfall-01`");
        return None;
    }
    Some(name)
}

fn spool(checker: &mut Checker<'_>, file: &SpoolFile) -> Option<SpoolConfig> {
    if file.dir.get_ref().is_empty() {
        checker.note(file.dir.span(), "the spool's folder has no name", "write a path, like \"/var/lib/tjern/spool\"");
        return None;
    }
    let max_bytes = match &file.max_bytes {
        Some(text) => checker.read(text, spool_size)?,
        None => MAX_BYTES_DEFAULT,
    };
    let max_disk_share = file.max_disk_share.as_ref().map_or(MAX_DISK_SHARE_DEFAULT, |share| *share.get_ref());
    if let (false, Some(share)) = (max_disk_share > 0.0 && max_disk_share <= 1.0, &file.max_disk_share) {
        checker.note(
            share.span(),
            format!("{max_disk_share} is no share of a disk"),
            "it is above 0 and at most 1, like 0.5",
        );
    }
    let sync_every = checker.period(file.sync_every.as_ref(), SYNC_EVERY_DEFAULT);
    Some(SpoolConfig { dir: file.dir.get_ref().into(), max_bytes, max_disk_share, sync_every })
}

fn spool_size(text: &str) -> Result<u64, String> {
    let max_bytes = parse_size(text).map_err(|error| error.to_string())?;
    if max_bytes == 0 {
        let least = MAX_BYTES_LEAST >> 20;
        return Err(format!("`{text}` is no room for a spool; hint: it needs at least {least}MiB"));
    }
    Ok(max_bytes.max(MAX_BYTES_LEAST))
}

/// A bus is a task and a connection, and each is in the metrics: more than these belong to a second gateway.
pub(crate) const BUSES_MAX: usize = 256;

fn check_count(checker: &mut Checker<'_>, buses: &[BusFile]) {
    if let Some(surplus) = buses.get(BUSES_MAX) {
        let message = format!("there are {} buses, and a gateway has at most {BUSES_MAX}", buses.len());
        checker.note(surplus.name.span(), message, "put devices of one wire under one bus, or run a second gateway");
    }
}

fn bus(checker: &mut Checker<'_>, file: &BusFile, down_report: Period) -> Option<Bus> {
    let down_report = checker.period(file.down_report.as_ref(), down_report);
    let timeout = checker.period(file.timeout.as_ref(), TIMEOUT_DEFAULT).duration();
    checker.names("device", " on this bus", file.device.iter().map(|device| &device.name));
    check_not_empty(checker, file);
    let kind = match file.kind.get_ref().as_str() {
        "modbus-tcp" => modbus_tcp(checker, file),
        "modbus-rtu" => modbus_rtu(checker, file),
        "modbus-rtu-tcp" => modbus_rtu_tcp(checker, file),
        "text-lines" => text_lines(checker, file, timeout),
        other => {
            checker.note(file.kind.span(), format!("`{other}` is no kind of bus"), one_of(other, &KINDS));
            None
        }
    };
    Some(Bus { name: file.name.get_ref().clone(), timeout, down_report, kind: kind? })
}

fn check_not_empty(checker: &mut Checker<'_>, file: &BusFile) {
    // A device or a point that could not be read is there all the same.
    if !checker.is_complete() {
        return;
    }
    if file.device.is_empty() {
        checker.note(file.name.span(), "the bus has no device", "add a `[[bus.device]]`, or take the bus out");
    }
    for device in file.device.iter().filter(|device| device.point.is_empty() && device.profile.is_none()) {
        checker.note(
            device.name.span(),
            "the device has no point",
            "add a `[[bus.device.point]]` or a `profile`, or take the device out",
        );
    }
}

fn modbus_tcp(checker: &mut Checker<'_>, file: &BusFile) -> Option<BusKind> {
    refuse_serial(checker, file, "a modbus-tcp bus has an `address`");
    refuse_lines(checker, file);
    checker.refuse(file.echo.as_ref(), "echo", "only a serial line echoes");
    let in_flight = wire::in_flight(checker, file);
    let connection = Connection { in_flight, ..wire::connection(checker, file) };
    let gap = wire::gap(checker, file.gap.as_ref(), Duration::ZERO);
    let devices = modbus_devices(checker, &file.device, [0, 255], gap);
    Some(BusKind::ModbusTcp { address: address(checker, file)?, connection, devices: devices? })
}

fn modbus_rtu_tcp(checker: &mut Checker<'_>, file: &BusFile) -> Option<BusKind> {
    let why = "the far line is set where its port is";
    checker.refuse(file.port.as_ref(), "port", "a modbus-rtu-tcp bus has an `address`");
    refuse_keys!(checker, file, why, [data_bits, parity, stop_bits]);
    wire::refuse_rs485(checker, file, why);
    wire::refuse_in_flight(checker, file);
    refuse_lines(checker, file);
    let connection = wire::connection(checker, file);
    let gap = wire::gap(checker, file.gap.as_ref(), Duration::ZERO);
    let devices = modbus_devices(checker, &file.device, [1, 247], gap);
    let baud = baud(checker, file, RTU_TCP_BAUD_DEFAULT);
    let address = address(checker, file)?;
    Some(BusKind::ModbusRtuTcp { address, baud: baud?, echo: wire::echo(file), connection, devices: devices? })
}

fn modbus_rtu(checker: &mut Checker<'_>, file: &BusFile) -> Option<BusKind> {
    checker.refuse(file.address.as_ref(), "address", "a modbus-rtu bus has a `port`");
    refuse_lines(checker, file);
    wire::refuse_connection(checker, file);
    let gap = wire::gap(checker, file.gap.as_ref(), Duration::ZERO);
    let devices = modbus_devices(checker, &file.device, [1, 247], gap);
    let Some(port) = &file.port else {
        checker.note(file.kind.span(), "the bus has no `port`", "write `port = \"/dev/ttyUSB0\"`");
        return None;
    };
    let serial = serial(checker, file, port, (19_200, Parity::Even))?;
    if serial.data_bits != 8 {
        let span = file.data_bits.as_ref().map_or(file.kind.span(), Spanned::span);
        checker.note(span, "Modbus RTU needs 8 data bits", "");
    }
    Some(BusKind::ModbusRtu { serial, echo: wire::echo(file), devices: devices? })
}

fn text_lines(checker: &mut Checker<'_>, file: &BusFile, timeout: Duration) -> Option<BusKind> {
    let points = line_points(checker, &file.device);
    wire::refuse_modbus(checker, file);
    let place = match (&file.port, &file.address) {
        (Some(port), None) => serial(checker, file, port, (4_800, Parity::None)).map(LinePlace::Serial),
        (None, Some(address)) => {
            refuse_serial(checker, file, "a bus with an `address` has no serial port");
            host_and_port(checker, address).map(LinePlace::Tcp)
        }
        (None, None) => {
            checker.note(
                file.kind.span(),
                "the bus has no `port`",
                "write `port = \"/dev/ttyUSB0\"`, or `address = \"host:port\"` for lines over TCP",
            );
            None
        }
        (Some(_), Some(address)) => {
            checker.note(address.span(), "the bus has a `port` and an `address`", "keep one of them");
            None
        }
    };
    let framing = framing(checker, file);
    let poll = file.poll.as_ref().map(|text| text.get_ref().clone());
    let (place, framing, points) = (place?, framing?, points?);
    warn_of_length_without_pause(checker, file, (&place, timeout), (&framing, &points));
    Some(BusKind::TextLines { place, poll, framing, points })
}

fn refuse_lines(checker: &mut Checker<'_>, file: &BusFile) {
    let why = "only a text-lines bus has it";
    refuse_keys!(checker, file, why, [poll, terminator, length, max_line]);
}

fn refuse_serial(checker: &mut Checker<'_>, file: &BusFile, why: &str) {
    refuse_keys!(checker, file, why, [port, baud, data_bits, parity, stop_bits]);
    wire::refuse_rs485(checker, file, why);
}

fn baud(checker: &mut Checker<'_>, file: &BusFile, default: u32) -> Option<u32> {
    match &file.baud {
        Some(baud) => checker.whole(baud, &[50, 4_000_000], "baud", "it is from 50 to 4000000, like 9600"),
        None => Some(default),
    }
}

fn serial(checker: &mut Checker<'_>, file: &BusFile, port: &Spanned<String>, default: (u32, Parity)) -> Option<Serial> {
    let (baud, parity) = default;
    if port.get_ref().is_empty() {
        checker.note(port.span(), "`port` is empty", "write the device file, like \"/dev/ttyUSB0\"");
    }
    let rs485 = wire::rs485(checker, file);
    let baud = self::baud(checker, file, baud);
    let data_bits = match &file.data_bits {
        Some(bits) => checker.whole(bits, &[7, 8], "data_bits", "it is 7 or 8"),
        None => Some(8),
    };
    let stop_bits = match &file.stop_bits {
        Some(bits) => checker.whole(bits, &[1, 2], "stop_bits", "it is 1 or 2"),
        None => Some(1),
    };
    let parity = match &file.parity {
        Some(word) => checker.read(word, |word| match word {
            "none" => Ok(Parity::None),
            "even" => Ok(Parity::Even),
            "odd" => Ok(Parity::Odd),
            other => Err(format!("`{other}` is no parity; hint: {}", one_of(other, &["none", "even", "odd"]))),
        }),
        None => Some(parity),
    };
    Some(Serial {
        port: port.get_ref().clone(),
        baud: baud?,
        data_bits: data_bits?,
        parity: parity?,
        stop_bits: stop_bits?,
        rs485,
    })
}

fn address(checker: &mut Checker<'_>, file: &BusFile) -> Option<String> {
    let Some(address) = &file.address else {
        checker.note(file.kind.span(), "the bus has no `address`", "write `address = \"host:502\"`");
        return None;
    };
    host_and_port(checker, address)
}

fn host_and_port(checker: &mut Checker<'_>, text: &Spanned<String>) -> Option<String> {
    checker.read(text, |address| {
        if address.contains('@') {
            let what = "no name and no password belong before the host; hint: neither Modbus nor lines over TCP have any: write host:port";
            return Err(what.to_owned());
        }
        let refused =
            || format!("`{address}` is no address; hint: write host:port, like \"10.0.3.7:502\" or \"[fe80::1]:502\"");
        let (host, port) = address.rsplit_once(':').ok_or_else(refused)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let host_is_plain =
            !host.is_empty() && !host.contains(|character: char| character.is_whitespace() || character == '/');
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        if is_port && host_is_plain && (bracketed || !host.contains(':')) {
            Ok(address.to_owned())
        } else {
            Err(refused())
        }
    })
}
