//! Devices that are not there but speak the real protocols: for the demo and for tests.
//!
//! A Modbus TCP server on loopback, a Modbus RTU bus on a pseudo terminal, a logger that prints
//! lines on one. Their values come from a [`Signal`], a function of time, so that a history can be
//! made from the same one. [`Faults`] make them behave as devices do on a bad day.

pub mod bad_devices;
pub mod bad_line;

mod lines;
mod modbus;
mod signal;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tjern_readings::clock::Clock;
use tokio::task::JoinHandle;

pub use signal::Signal;

use crate::modbus::transport::Table;
use crate::value::{NumberType, Order, Scaling};

/// What is simulated.
#[derive(Debug, Clone)]
pub enum Simulation {
    /// A Modbus TCP server on a free port of 127.0.0.1.
    ModbusTcp(Vec<SimulatedUnit>),
    /// A Modbus RTU bus on a pseudo terminal.
    ModbusRtu(Vec<SimulatedUnit>),
    /// A logger that prints lines on a pseudo terminal.
    TextLines {
        /// How often it prints each of its lines.
        every: Duration,
        /// What it prints.
        lines: Vec<SimulatedLine>,
    },
}

/// A device on a simulated Modbus bus.
#[derive(Debug, Clone)]
pub struct SimulatedUnit {
    /// Its address.
    pub unit_id: u8,
    /// What it holds; everything else is an illegal address.
    pub registers: Vec<SimulatedRegister>,
    /// How it misbehaves.
    pub faults: Arc<Faults>,
}

/// A value in a simulated device.
#[derive(Debug, Clone)]
pub struct SimulatedRegister {
    /// Which table.
    pub table: Table,
    /// The first address, as it goes over the wire.
    pub address: u16,
    /// How the number lies there.
    pub kind: NumberType,
    /// In which order.
    pub order: Order,
    /// From the raw number to the value, as the configuration says it.
    pub scaling: Scaling,
    /// The value.
    pub signal: Signal,
}

/// A line that a simulated logger prints.
#[derive(Debug, Clone)]
pub enum SimulatedLine {
    /// An NMEA 0183 sentence with its checksum: `$YXMTW,12.3,C*1A`.
    Nmea {
        /// The address, like `YXMTW`.
        address: String,
        /// What stands after the value.
        rest: String,
        /// The value.
        signal: Signal,
    },
    /// The time in seconds since 1970, then one column a value.
    Columns {
        /// What stands between them.
        separator: String,
        /// The values.
        signals: Vec<Signal>,
    },
}

/// How a device misbehaves. All can be set while it runs.
#[derive(Debug, Default)]
pub struct Faults {
    silent: AtomicBool,
    delay_ms: AtomicU64,
    exception: AtomicU8,
}

impl Faults {
    /// It answers nothing.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// It answers so much later.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// It answers with this exception; 0 for none.
    pub fn set_exception(&self, code: u8) {
        self.exception.store(code, Ordering::Relaxed);
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))
    }

    fn exception(&self) -> u8 {
        self.exception.load(Ordering::Relaxed)
    }
}

/// A running simulation; dropped, it stops.
#[derive(Debug)]
pub struct Simulator {
    task: JoinHandle<()>,
    place: SimulatedPlace,
}

#[derive(Debug)]
enum SimulatedPlace {
    Address(SocketAddr),
    Port(String),
}

impl Simulator {
    /// Starts a simulation. It needs a tokio runtime.
    ///
    /// # Errors
    /// Where no port on loopback, or no pseudo terminal, can be had.
    pub async fn start(simulation: Simulation, clock: Clock) -> io::Result<Self> {
        match simulation {
            Simulation::ModbusTcp(units) => {
                let (address, task) = modbus::start_tcp(units, clock).await?;
                Ok(Self { task, place: SimulatedPlace::Address(address) })
            }
            Simulation::ModbusRtu(units) => {
                let (port, task) = modbus::start_rtu(units, clock)?;
                Ok(Self { task, place: SimulatedPlace::Port(port) })
            }
            Simulation::TextLines { every, lines } => {
                let (port, task) = lines::start(every, lines, clock)?;
                Ok(Self { task, place: SimulatedPlace::Port(port) })
            }
        }
    }

    /// Where a Modbus TCP server listens.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self.place {
            SimulatedPlace::Address(address) => Some(address),
            SimulatedPlace::Port(_) => None,
        }
    }

    /// The device file of a pseudo terminal.
    #[must_use]
    pub fn port(&self) -> Option<&str> {
        match &self.place {
            SimulatedPlace::Address(_) => None,
            SimulatedPlace::Port(port) => Some(port),
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A pseudo terminal in raw mode: our end, and the other end, which stays open here too so that ours
/// never sees a hang-up.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) ours: tokio_serial::SerialStream,
    pub(crate) theirs: tokio_serial::SerialStream,
    pub(crate) port: String,
}

impl Terminal {
    pub(crate) fn open() -> io::Result<Self> {
        // The other end is left without a lock: whoever opens it by its name takes one.
        let (ours, theirs) = tokio_serial::SerialStream::pair().map_err(io::Error::from)?;
        let name = tokio_serial::SerialPort::name(&theirs);
        let port = name.ok_or_else(|| io::Error::other("the pseudo terminal has no name"))?;
        Ok(Self { ours, theirs, port })
    }
}
