//! Which line a command is to read: a bus of a configuration, or one that is named on the command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tjern_readings::configuration::{ConfigText, parse_duration};
use tjern_readings::reading::Cause;

use super::{FAILED, WRONG};
use crate::config::{Bus, BusKind, Config};
use crate::modbus::Master;
use crate::modbus::transport::{Failure, Table};
use crate::ports;
use crate::say;

/// Which line.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LineArguments {
    /// A gateway's configuration, for a bus of it
    #[arg(long, value_name = "FILE", requires = "bus", conflicts_with_all = ["tcp", "rtu_tcp", "port"])]
    config: Option<PathBuf>,
    /// The bus of the configuration
    #[arg(long, value_name = "NAME", requires = "config")]
    bus: Option<String>,
    /// A Modbus TCP server
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["rtu_tcp", "port", "baud", "parity", "stop_bits"])]
    tcp: Option<String>,
    /// A server that passes RTU frames on to a serial line. Nobody else may ask there meanwhile: answers do not say whose they are. A
    /// gateway on this machine is noticed, one on another machine or in a container is not
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["port", "parity", "stop_bits"])]
    rtu_tcp: Option<String>,
    /// A serial port
    #[arg(long, value_name = "DEVICE")]
    port: Option<String>,
    /// Bits a second [default: 19200, behind a server 9600]
    #[arg(long, value_name = "BAUD")]
    baud: Option<u32>,
    /// none, even or odd [default: even]
    #[arg(long, value_name = "PARITY")]
    parity: Option<String>,
    /// 1 or 2 [default: 1]
    #[arg(long, value_name = "BITS")]
    stop_bits: Option<u8>,
    /// How long an answer may take [default: the bus's, or 500ms]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// Which serial port: of a line that can be listened to.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PortArguments {
    /// A gateway's configuration, for a bus of it
    #[arg(long, value_name = "FILE", requires = "bus", conflicts_with = "port")]
    config: Option<PathBuf>,
    /// The bus of the configuration
    #[arg(long, value_name = "NAME", requires = "config")]
    bus: Option<String>,
    /// A serial port
    #[arg(long, value_name = "DEVICE")]
    port: Option<String>,
    /// Bits a second [default: 19200]
    #[arg(long, value_name = "BAUD")]
    baud: Option<u32>,
    /// none, even or odd [default: even]
    #[arg(long, value_name = "PARITY")]
    parity: Option<String>,
    /// 1 or 2 [default: 1]
    #[arg(long, value_name = "BITS")]
    stop_bits: Option<u8>,
    /// Nobody is asked: taken as by the other commands, and of no use
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, hide = true)]
    timeout: Option<Duration>,
}

impl PortArguments {
    /// The port that is meant, as part of a line.
    pub(super) fn target(&self) -> Result<Target, Ending> {
        let Self { config, bus, port, baud, parity, stop_bits, timeout } = self.clone();
        LineArguments { config, bus, tcp: None, rtu_tcp: None, port, baud, parity, stop_bits, timeout }.target()
    }
}

/// A line to read.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) kind: BusKind,
    pub(super) timeout: Duration,
}

/// What a command ends with when it cannot go on: a line, a hint, a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) message: String,
    pub(super) hint: String,
    pub(super) status: u8,
}

impl Ending {
    pub(super) fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), status: WRONG }
    }

    pub(super) fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), status: FAILED }
    }

    /// What was found cannot be told: in silence where the reader went away, since it has seen enough.
    pub(super) fn untold(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { message: String::new(), hint: String::new(), status: 0 };
        }
        Self::failed(format!("cannot write to stdout: {error}"), "")
    }

    /// Says it on stderr.
    pub(super) fn tell(self) -> ExitCode {
        if self.status == 0 {
            return ExitCode::SUCCESS;
        }
        // A configuration's errors bring their own form.
        let head = if self.message.starts_with("error") { "" } else { "error: " };
        say!("{head}{}", self.message);
        if !self.hint.is_empty() {
            say!("hint: {}", self.hint);
        }
        ExitCode::from(self.status)
    }
}

/// What a person at the pump house can do about it, by what there is to look at: on TCP there is no plug to check,
/// and no baud rate.
const fn hint(cause: Cause, kind: &BusKind) -> &'static str {
    match (cause, kind) {
        (Cause::Timeout, BusKind::ModbusTcp { .. }) => {
            "check the unit id (often 1 or 255), and `--timeout`; some devices serve one client only: stop the gateway first"
        }
        (Cause::Timeout, BusKind::ModbusRtuTcp { .. }) => {
            "the server is there: check the unit id, and baud rate and parity in the server; some serve one client only: stop the gateway first"
        }
        (Cause::Crc | Cause::Malformed, BusKind::ModbusTcp { .. }) => {
            "something answers, but no Modbus TCP: check the port (mostly 502), or try `--rtu-tcp`"
        }
        (Cause::Crc | Cause::Malformed, BusKind::ModbusRtuTcp { .. }) => {
            "something answers, but no RTU frames: check baud rate and parity in the server, that no other master asks there, or try `--tcp`"
        }
        (Cause::Unreachable, BusKind::ModbusTcp { .. } | BusKind::ModbusRtuTcp { .. }) => {
            "check the address, that the device is on, the port (mostly 502) and firewalls; some devices serve one client only: stop the gateway first"
        }
        _ => hint_of_line(cause),
    }
}

/// Beside a gateway that asks there each would take the other's answers for its own.
const TAKEN: &str = "is it a gateway, or another `read` or `scan`? each would get the other's answers as values: stop it first; `tjern-gateway watch` shows what a gateway reads";

/// Of a server that answers, and not under the id that it was asked with.
const STRANGE_IDS: &str = "something answers, with another transaction id than it was asked with: a converter that mixes answers up, or is late; try a longer `--timeout`, and stop what else asks there (a gateway, a SCADA)";

/// On a serial line.
pub(super) const fn hint_of_line(cause: Cause) -> &'static str {
    match cause {
        Cause::Timeout => {
            "check the unit id, the baud rate and parity, and that A and B are not swapped; `scan` tries them all"
        }
        Cause::Crc | Cause::Malformed => {
            "something answers: check baud rate and parity, the termination, that no two devices have one unit id, and that no other master asks on the line: `tjern-gateway sniff` shows what is said there"
        }
        Cause::Unreachable => {
            "is it plugged in, does no other program use it, and may you open it (often the group `dialout`)?"
        }
        Cause::Exception1 => "the device does not know this table: try `input`, `holding`, `coil` or `discrete`",
        Cause::Exception2 => "the device has no such address: `scan registers` finds those that it has",
        Cause::Exception3 => "the device does not answer so many at once: try a smaller `--count`",
        Cause::Exception6 => "the device is busy: try again",
        Cause::Exception10 | Cause::Exception11 => {
            "the converter answers, the device behind it does not: check its unit id and its wires"
        }
        _ => "",
    }
}

impl LineArguments {
    /// Whether a time limit was named.
    pub(super) const fn has_timeout(&self) -> bool {
        self.timeout.is_some()
    }

    /// Whether baud rate and parity were named, or stand in a configuration.
    pub(super) const fn is_set(&self) -> (bool, bool) {
        let configured = self.config.is_some();
        (configured || self.baud.is_some(), configured || self.parity.is_some())
    }

    /// The line that is meant.
    pub(super) fn target(&self) -> Result<Target, Ending> {
        let mut target = match (&self.config, &self.bus) {
            (Some(config), Some(bus)) => of_config(config, bus)?,
            _ => self.of_words()?,
        };
        if let Some(timeout) = self.timeout {
            target.timeout = timeout;
        }
        if target.timeout.is_zero() {
            return Err(Ending::wrong("a timeout of no time", "write one like `--timeout 500ms`"));
        }
        Ok(target)
    }

    /// A line that is named word by word is read as a bus of a configuration is, so that both have the same
    /// bounds and the same errors.
    fn of_words(&self) -> Result<Target, Ending> {
        let place = match (&self.tcp, &self.rtu_tcp, &self.port) {
            (Some(address), ..) => format!("kind = \"modbus-tcp\"\naddress = {}\n", quoted(address)),
            (_, Some(address), _) => format!("kind = \"modbus-rtu-tcp\"\naddress = {}\n", quoted(address)),
            (.., Some(port)) => format!("kind = \"modbus-rtu\"\nport = {}\n", quoted(port)),
            (None, None, None) => {
                let hint = "write `--port /dev/ttyUSB0`, `--tcp HOST:PORT`, `--rtu-tcp HOST:PORT`, or `--config FILE --bus NAME`";
                return Err(Ending::wrong("it is not said which line", hint));
            }
        };
        let mut text = format!("[[bus]]\nname = \"line\"\n{place}");
        if let Some(baud) = self.baud {
            text += &format!("baud = {baud}\n");
        }
        if let Some(parity) = &self.parity {
            text += &format!("parity = {}\n", quoted(parity));
        }
        if let Some(bits) = self.stop_bits {
            text += &format!("stop_bits = {bits}\n");
        }
        let config = Config::parse(&ConfigText::new("command line", format!("{HEAD}{text}{DEVICE}")));
        let config = config.map_err(|error| Ending::wrong(error.to_string(), ""))?;
        config.buses().first().map(|bus| Target::of(bus).without_devices()).ok_or_else(|| Ending::wrong("no line", ""))
    }
}

/// What every configuration has; none of it is used for a line that is read once.
const HEAD: &str =
    "version = 1\ngateway = \"commission\"\nlake = \"file:///var/lib/tjern/lake\"\n[spool]\ndir = \"spool\"\n";
const DEVICE: &str = "[[bus.device]]\nname = \"unit\"\nunit_id = 1\n[[bus.device.point]]\nsensor = \"a/b\"\nregister = \"input:0\"\ntype = \"u16\"\nevery = \"1min\"\n";

/// A text as TOML has it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn of_config(path: &std::path::Path, name: &str) -> Result<Target, Ending> {
    let config = Config::load(path).map_err(|error| Ending::wrong(error.to_string(), ""))?;
    match config.buses().iter().find(|bus| bus.name == name) {
        Some(bus) if matches!(bus.kind, BusKind::TextLines { .. }) => {
            Err(Ending::wrong(format!("bus `{name}` has lines of text and no registers"), ""))
        }
        Some(bus) => Ok(Target::of(bus)),
        None => {
            let known: Vec<String> = config.buses().iter().map(|bus| format!("`{}`", bus.name)).collect();
            Err(Ending::wrong(format!("there is no bus `{name}`"), format!("there is {}", known.join(", "))))
        }
    }
}

impl Target {
    /// The same, its port under the name that stays when adapters change places: for a configuration that is written
    /// from it.
    pub(super) fn under_a_lasting_name(mut self) -> Self {
        if let BusKind::ModbusRtu { serial, .. } = &mut self.kind {
            serial.port = ports::lasting(Path::new("/"), &serial.port);
        }
        self
    }

    fn of(bus: &Bus) -> Self {
        Self { kind: bus.kind.clone(), timeout: bus.timeout }
    }

    /// The same, of whose devices nothing is known.
    fn without_devices(mut self) -> Self {
        if let BusKind::ModbusTcp { devices, .. }
        | BusKind::ModbusRtu { devices, .. }
        | BusKind::ModbusRtuTcp { devices, .. } = &mut self.kind
        {
            devices.clear();
        }
        self
    }

    /// What became of a read.
    pub(super) fn ending_of_read(&self, unit: u8, place: &str, failure: &Failure) -> Ending {
        Ending::failed(format!("unit {unit}, {place}: {failure}"), self.hint(failure))
    }

    /// What can be done about it.
    pub(super) const fn hint(&self, failure: &Failure) -> &'static str {
        match failure {
            _ if failure.is_taken() => TAKEN,
            _ if failure.has_strangers() => STRANGE_IDS,
            _ => hint(failure.cause, &self.kind),
        }
    }

    /// Its wire. Nothing is opened yet.
    pub(super) fn master(&self) -> Result<Master, Ending> {
        Master::for_a_command(&self.kind, self.timeout).ok_or_else(|| Ending::wrong("the line has no registers", ""))
    }
}

/// Addresses of a table: `input:0`, or `input:0-200`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) table: Table,
    pub(super) first: u16,
    pub(super) last: u16,
}

impl std::str::FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "`{text}` is no register; write table:address, like `input:0`, or `input:0-200`; the tables are `coil`, `discrete`, `input`, `holding`"
            )
        };
        let (table, addresses) = text.split_once(':').ok_or_else(refused)?;
        let table = Table::ALL.iter().find(|(word, _)| *word == table).ok_or_else(refused)?.1;
        let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
        let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let (first, last) = (number(first).ok_or_else(refused)?, number(last).ok_or_else(refused)?);
        if last < first {
            return Err(format!("`{text}` ends before it begins"));
        }
        Ok(Self { table, first, last })
    }
}

/// A table's word.
pub(super) fn word(table: Table) -> &'static str {
    Table::ALL.iter().find(|(_, known)| *known == table).map_or("", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        line: LineArguments,
    }

    fn target(words: &[&str]) -> Result<Target, Ending> {
        Words::try_parse_from([&["x"], words].concat()).expect("usage").line.target()
    }

    #[test]
    fn a_line_is_what_a_bus_of_a_configuration_would_be() {
        let rtu = target(&["--port", "/dev/ttyUSB0", "--baud", "9600", "--parity", "none"]).expect("a line");
        let BusKind::ModbusRtu { serial, .. } = &rtu.kind else { panic!("{rtu:?}") };
        assert_eq!(
            (serial.baud, serial.port.as_str(), rtu.timeout),
            (9_600, "/dev/ttyUSB0", Duration::from_millis(500))
        );
        let server = target(&["--rtu-tcp", "10.0.3.7:4001", "--timeout", "2s"]).expect("a line");
        assert!(matches!(server.kind, BusKind::ModbusRtuTcp { baud: 9_600, .. }));
        assert_eq!(server.timeout, Duration::from_secs(2));
        assert!(matches!(target(&["--tcp", "[fe80::1]:502"]).expect("a line").kind, BusKind::ModbusTcp { .. }));
    }

    #[test]
    fn what_cannot_be_is_usage_and_says_so() {
        for words in [
            &[][..],
            &["--tcp", "nowhere"],
            &["--port", "/dev/ttyUSB0", "--parity", "some"],
            &["--port", "x", "--baud", "7"],
        ] {
            let ending = target(words).expect_err("wrong");
            assert_eq!(ending.status, WRONG, "{ending:?}");
        }
        assert!(Words::try_parse_from(["x", "--tcp", "a:1", "--port", "b"]).is_err());
        assert!(Words::try_parse_from(["x", "--config", "a.toml"]).is_err(), "a configuration has many buses");
    }

    #[test]
    fn addresses_are_one_or_a_range() {
        let range = |first, last| Ok(Addresses { table: Table::Input, first, last });
        assert_eq!("input:7".parse(), range(7, 7));
        assert_eq!("input:0-200".parse(), range(0, 200));
        for wrong in ["input", "inputs:0", "input:+1", "input:5-4", "input:70000", "input:", "input:1-"] {
            assert!(wrong.parse::<Addresses>().is_err(), "{wrong}");
        }
    }
}
