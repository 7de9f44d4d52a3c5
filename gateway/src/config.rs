//! The gateway's configuration: what its file says, held against what can be.
//!
//! A [`Config`] exists only if all of it makes sense, so that nothing further in checks again.
//! Everything that is wrong is reported at once, each with its place in the file; only what is no TOML
//! has to be mended before the rest is looked at, and a key that the file itself lacks. Paths are
//! relative to the working directory. Defaults that the hardware suggests: Modbus RTU 19200 8E1 (as
//! its specification has it), text lines 4800 8N1 (as NMEA 0183 has it).

mod check;
mod checker;
mod device;
mod file;
mod lines;
mod listen;
mod number;
mod overlap;
mod places;
mod profile;
mod reload;
mod upload;
mod wire;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use sha2::{Digest, Sha256};
use tjern_readings::configuration::{ConfigError, ConfigText, Period, Problem, Remark, Severity, units};
use tjern_readings::sensor::{SensorId, SourceName};
use tjern_readings::store::LakeUrl;

use crate::grid::Grid;
use crate::lines::time::DeviceTime;
use crate::lines::{DecimalMark, Framing};
use crate::modbus::timing::Line;
use crate::modbus::transport::{BITS_MAX, REGISTERS_MAX, Table};
use crate::value::{NoValue, NumberType, Order, Scaling};

pub(crate) use check::{BUSES_MAX, TIMEOUT_DEFAULT};
pub use listen::{ListenError, StatusListen};
pub use places::PORTS_MAX;
pub(crate) use places::aliases;
pub(crate) use reload::Fingerprint;
pub use upload::UploadConfig;

/// A configuration that makes sense.
#[derive(Debug, Clone)]
pub struct Config {
    text: ConfigText,
    gateway: SourceName,
    lake: LakeUrl,
    spool: SpoolConfig,
    upload: UploadConfig,
    status_listen: Option<StatusListen>,
    clock: ClockConfig,
    buses: Vec<Arc<Bus>>,
    warnings: Vec<Problem>,
    places: Places,
}

/// Where names stand in the file, in bytes from its start, for what is found out about them later.
#[derive(Debug, Clone, Default)]
struct Places {
    device_count: usize,
    lake: Range<usize>,
    ports: Vec<(String, Range<usize>)>,
    buses: Vec<(String, Range<usize>)>,
}

/// `[spool]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SpoolConfig {
    /// Its folder.
    pub dir: PathBuf,
    /// How much it may hold.
    pub max_bytes: u64,
    /// How much of the file system that it is on it may hold, from 0 to 1.
    pub max_disk_share: f64,
    /// How long a reading may wait for the disk.
    pub sync_every: Period,
}

/// `[clock]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockConfig {
    /// How long readings wait for a clock that is not known.
    pub patience: Duration,
    /// The clock is right, whatever is said of it.
    pub trusted: bool,
}

/// `[[bus]]`: a wire, or what stands for one, and what hangs on it.
#[derive(Debug, Clone)]
pub struct Bus {
    /// Its name.
    pub name: String,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often a failure that lasts is written down.
    pub down_report: Period,
    /// What is spoken on it.
    pub kind: BusKind,
}

/// What is spoken on a bus.
#[derive(Debug, Clone)]
pub enum BusKind {
    /// Modbus TCP.
    ModbusTcp {
        /// `host:port`.
        address: String,
        /// How the connection is kept.
        connection: Connection,
        /// Who answers there.
        devices: Vec<ModbusDevice>,
    },
    /// Modbus RTU.
    ModbusRtu {
        /// The port.
        serial: Serial,
        /// What is sent is heard back.
        echo: bool,
        /// Who answers there.
        devices: Vec<ModbusDevice>,
    },
    /// Modbus RTU through a server that passes bytes on to a serial line.
    ModbusRtuTcp {
        /// `host:port`.
        address: String,
        /// How fast the far line is.
        baud: u32,
        /// What is sent is heard back.
        echo: bool,
        /// How the connection is kept.
        connection: Connection,
        /// Who answers there.
        devices: Vec<ModbusDevice>,
    },
    /// Lines of text.
    TextLines {
        /// Where they come from.
        place: LinePlace,
        /// What is sent before each reading, if the device wants to be asked.
        poll: Option<String>,
        /// Where a line ends.
        framing: Framing,
        /// What is read from them.
        points: Vec<LinePoint>,
    },
}

/// Where text lines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinePlace {
    /// A serial port.
    Serial(Serial),
    /// A TCP server, `host:port`.
    Tcp(String),
}

/// A serial port and how it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serial {
    /// The device file.
    pub port: String,
    /// Bits a second.
    pub baud: u32,
    /// 7 or 8.
    pub data_bits: u8,
    /// The parity bit.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// The port switches an RS-485 driver itself.
    pub rs485: Option<Rs485>,
}

/// How a port switches its RS-485 driver, by RTS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rs485 {
    /// Between turning it on and the first bit.
    pub rts_delay_before: Duration,
    /// Between the last bit and turning it off.
    pub rts_delay_after: Duration,
    /// The driver is on while RTS is low.
    pub rts_inverted: bool,
    /// What is sent is heard: the receiver stays on.
    pub rx_during_tx: bool,
}

/// How a TCP connection is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Between the connection and the first request.
    pub pause: Duration,
    /// When one that is not used is closed; never, if not said.
    pub idle_close: Option<Duration>,
    /// How many requests may be under way at once: on Modbus TCP only, and more than one only where every device behind
    /// the address is known to bear it.
    pub in_flight: usize,
}

impl Default for Connection {
    fn default() -> Self {
        Self { pause: Duration::ZERO, idle_close: None, in_flight: 1 }
    }
}

impl Serial {
    /// How fast it is.
    #[must_use]
    pub const fn line(&self) -> Line {
        let parity = if matches!(self.parity, Parity::None) { 0 } else { 1 };
        Line { baud: self.baud, bits_per_char: 1 + self.data_bits as u32 + parity + self.stop_bits as u32 }
    }
}

/// The parity bit of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// None is sent.
    None,
    /// The number of ones is even.
    Even,
    /// The number of ones is odd.
    Odd,
}

/// `[[bus.device]]` on a Modbus bus.
#[derive(Debug, Clone)]
pub struct ModbusDevice {
    /// Its name.
    pub name: String,
    /// Its address on the bus.
    pub unit_id: u8,
    /// What one request may ask it for.
    pub reads: ReadLimits,
    /// How long it wants to be left alone before a request and after its answer.
    pub gap: Duration,
    /// What is read from it.
    pub points: Vec<ModbusPoint>,
}

/// What one request may ask a device for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// The most registers.
    pub max_registers: u16,
    /// The most coils or discrete inputs.
    pub max_bits: u16,
    /// The most registers that nobody asked for between two that somebody did, in coils and discrete inputs
    /// sixteen times as many; what costs less than another request, where it is not said.
    pub max_hole: Option<u16>,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { max_registers: REGISTERS_MAX, max_bits: BITS_MAX, max_hole: None }
    }
}

/// `[[bus.device.point]]` on a Modbus bus.
#[derive(Debug, Clone)]
pub struct ModbusPoint {
    /// Whose readings these are, and when they are made.
    pub common: PointCommon,
    /// Which table.
    pub table: Table,
    /// The first address, as it goes over the wire (from zero).
    pub address: u16,
    /// How the number lies there.
    pub kind: NumberType,
    /// In which order.
    pub order: Order,
}

/// `[[bus.device.point]]` on a bus of text lines.
#[derive(Debug, Clone)]
pub struct LinePoint {
    /// Who says it: the device's name.
    pub device: String,
    /// Whose readings these are, and when they are made.
    pub common: PointCommon,
    /// Where in a line the number stands.
    pub field: LineField,
    /// Which mark stands before the number's decimals, where that is said.
    pub decimal: Option<DecimalMark>,
    /// Where a line says what time it is, if its readings shall have that.
    pub time: Option<DeviceTime>,
}

/// Where in a line of text a number stands.
#[derive(Debug, Clone)]
pub enum LineField {
    /// A field of an NMEA 0183 sentence, counted from 1 after the address.
    Nmea {
        /// The sentence's three letters (of any talker), or the whole address.
        sentence: String,
        /// Which field.
        field: usize,
    },
    /// A column, counted from 1.
    Column {
        /// Which column.
        column: usize,
        /// What stands between columns; `whitespace` is any run of blanks and tabs.
        separator: String,
    },
    /// The group `value` of a pattern.
    Pattern(Regex),
}

/// What every point says.
#[derive(Debug, Clone)]
pub struct PointCommon {
    /// Which sensor's readings these are.
    pub sensor: SensorId,
    /// On which terms it is read. Points with the same share them: of ten thousand most have.
    pub terms: Arc<PointTerms>,
}

/// On which terms a point is read.
#[derive(Debug, PartialEq)]
pub struct PointTerms {
    /// When it is read.
    pub grid: Grid,
    /// By which raw numbers the device says that it has no value.
    pub no_value: NoValue,
    /// From the raw number to the value.
    pub scaling: Scaling,
    /// The unit, as it shall stand in the register.
    pub unit: Option<String>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`] where it cannot be read, or with everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&ConfigText::read(path)?)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`] with everything that is wrong with it.
    pub fn parse(text: &ConfigText) -> Result<Self, ConfigError> {
        let config = check::config(text, text.shape())?;
        config.check_public_text()?;
        Ok(config)
    }

    /// What is uploaded says the same of each sensor's unit as what is in force: the lake would check them against something else,
    /// or against nothing.
    fn check_public_text(&self) -> Result<(), ConfigError> {
        let Some(span) = self.text.first_secret() else { return Ok(()) };
        if units(&self.public_text()) == units(self.text()) {
            return Ok(());
        }
        let message =
            "without what looks like a secret this configuration says something else of its sensors' units".to_owned();
        let hint = "what looks like a secret (`password=`, `token=`, `user@` in a URL) is hidden before the configuration is uploaded: write another name, or no secret here".to_owned();
        let remark = Remark { severity: Severity::Error, span, message, hint: Some(hint), related: Vec::new() };
        Err(ConfigError::Wrong(vec![self.text.problem_of(remark)]))
    }

    /// The text that it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.text()
    }

    /// The file that it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.text.path()
    }

    /// What works, but hardly as it was meant.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// How many devices there are.
    #[must_use]
    pub const fn device_count(&self) -> usize {
        self.places.device_count
    }

    /// The serial ports that it names.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        self.places.ports.iter().map(|(port, _)| port.as_str())
    }

    /// A problem with a port that it names, told at its place.
    #[must_use]
    pub fn port_problem(&self, port: &str, severity: Severity, message: String, hint: String) -> Problem {
        self.problem_at(&self.places.ports, port, (severity, message, hint))
    }

    /// A problem with a bus that it names, told at its place.
    #[must_use]
    pub fn bus_problem(&self, bus: &str, severity: Severity, message: String, hint: String) -> Problem {
        self.problem_at(&self.places.buses, bus, (severity, message, hint))
    }

    /// A problem with the lake, told at its place.
    #[must_use]
    pub fn lake_problem(&self, severity: Severity, message: String, hint: String) -> Problem {
        let span = self.places.lake.clone();
        self.text.problem_of(Remark { severity, span, message, hint: Some(hint), related: Vec::new() })
    }

    fn problem_at(
        &self,
        places: &[(String, Range<usize>)],
        name: &str,
        (severity, message, hint): (Severity, String, String),
    ) -> Problem {
        let span = places.iter().find(|(known, _)| known == name).map_or(0..0, |(_, span)| span.clone());
        self.text.problem_of(Remark { severity, span, message, hint: Some(hint), related: Vec::new() })
    }

    /// The text without what looks like a secret in it: what is uploaded.
    #[must_use]
    pub fn public_text(&self) -> String {
        self.text.without_secrets()
    }

    /// The SHA-256 (hex) of the text without secrets.
    #[must_use]
    pub fn sha256(&self) -> String {
        Sha256::digest(self.public_text().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The source's name.
    #[must_use]
    pub const fn gateway(&self) -> &SourceName {
        &self.gateway
    }

    /// Where the readings go.
    #[must_use]
    pub const fn lake(&self) -> &LakeUrl {
        &self.lake
    }

    /// `[spool]`.
    #[must_use]
    pub const fn spool(&self) -> &SpoolConfig {
        &self.spool
    }

    /// `[upload] every`.
    #[must_use]
    pub const fn upload_every(&self) -> Period {
        self.upload.every
    }

    /// `[upload]`.
    #[must_use]
    pub const fn upload(&self) -> &UploadConfig {
        &self.upload
    }

    /// `[status] listen`: where it tells how it is, if anywhere.
    #[must_use]
    pub const fn status_listen(&self) -> Option<&StatusListen> {
        self.status_listen.as_ref()
    }

    /// `[clock]`.
    #[must_use]
    pub const fn clock(&self) -> ClockConfig {
        self.clock
    }

    /// The buses.
    #[must_use]
    pub fn buses(&self) -> &[Arc<Bus>] {
        &self.buses
    }

    /// Every sensor that it names.
    pub fn sensors(&self) -> impl Iterator<Item = &SensorId> {
        self.buses.iter().flat_map(|bus| bus.sensors())
    }
}

impl BusKind {
    /// As it stands in configurations.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::ModbusTcp { .. } => "modbus-tcp",
            Self::ModbusRtu { .. } => "modbus-rtu",
            Self::ModbusRtuTcp { .. } => "modbus-rtu-tcp",
            Self::TextLines { .. } => "text-lines",
        }
    }

    /// How many requests may be under way on it at once.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        match self {
            Self::ModbusTcp { connection, .. } => connection.in_flight,
            Self::ModbusRtu { .. } | Self::ModbusRtuTcp { .. } | Self::TextLines { .. } => 1,
        }
    }
}

impl Bus {
    /// Every sensor on this bus.
    #[must_use]
    pub fn sensors(&self) -> Vec<&SensorId> {
        self.commons().into_iter().map(|common| &common.sensor).collect()
    }

    /// What each point on this bus says.
    pub(crate) fn commons(&self) -> Vec<&PointCommon> {
        match &self.kind {
            BusKind::ModbusTcp { devices, .. }
            | BusKind::ModbusRtu { devices, .. }
            | BusKind::ModbusRtuTcp { devices, .. } => {
                devices.iter().flat_map(|device| &device.points).map(|point| &point.common).collect()
            }
            BusKind::TextLines { points, .. } => points.iter().map(|point| &point.common).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
