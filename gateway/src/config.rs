//! The gateway's configuration: what its file says, held against what can be.
//!
//! A [`Config`] exists only if all of it makes sense, so that nothing further in checks again.
//! Everything that is wrong is reported at once, each with its place in the file; only what is no
//! TOML, or has an unknown or missing key, ends the reading at the first such place. Paths are
//! relative to the working directory. Defaults that the hardware suggests: Modbus RTU 19200 8E1 (as
//! its specification has it), text lines 4800 8N1 (as NMEA 0183 has it).

mod check;
mod device;
mod file;
mod upload;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use sha2::{Digest, Sha256};
use tjern_readings::configuration::{ConfigError, ConfigText, Period};
use tjern_readings::sensor::{SensorId, SourceName};
use tjern_readings::store::LakeUrl;

use crate::grid::Grid;
use crate::modbus::timing::Line;
use crate::modbus::transport::Table;
use crate::value::{NumberType, Order, Scaling};
pub use upload::UploadConfig;

/// A configuration that makes sense.
#[derive(Debug, Clone)]
pub struct Config {
    text: ConfigText,
    gateway: SourceName,
    lake: LakeUrl,
    spool: SpoolConfig,
    upload: UploadConfig,
    buses: Vec<Bus>,
}

/// `[spool]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Its folder.
    pub dir: PathBuf,
    /// How much it may hold.
    pub max_bytes: u64,
    /// How long a reading may wait for the disk.
    pub sync_every: Period,
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
        /// What ends a line.
        terminator: String,
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
}

/// How a TCP connection is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connection {
    /// Between the connection and the first request.
    pub pause: Duration,
    /// When one that is not used is closed; never, if not said.
    pub idle_close: Option<Duration>,
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
    /// How long it wants to be left alone before a request and after its answer.
    pub gap: Duration,
    /// What is read from it.
    pub points: Vec<ModbusPoint>,
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
    /// Whose readings these are, and when they are made.
    pub common: PointCommon,
    /// Where in a line the number stands.
    pub field: LineField,
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
        /// What stands between columns.
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
    /// When it is read.
    pub grid: Grid,
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
        check::config(text, text.parse()?)
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

    /// The buses.
    #[must_use]
    pub fn buses(&self) -> &[Bus] {
        &self.buses
    }

    /// Every sensor that it names.
    pub fn sensors(&self) -> impl Iterator<Item = &SensorId> {
        self.buses.iter().flat_map(Bus::sensors)
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
}

impl Bus {
    /// Every sensor on this bus.
    #[must_use]
    pub fn sensors(&self) -> Vec<&SensorId> {
        match &self.kind {
            BusKind::ModbusTcp { devices, .. }
            | BusKind::ModbusRtu { devices, .. }
            | BusKind::ModbusRtuTcp { devices, .. } => {
                devices.iter().flat_map(|device| &device.points).map(|point| &point.common.sensor).collect()
            }
            BusKind::TextLines { points, .. } => points.iter().map(|point| &point.common.sensor).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
