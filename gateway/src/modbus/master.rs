//! A wire of any kind: what the bus's actor and the commands read over.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::mbap::Strangers;
use super::read_map::ReadMap;
use super::rtu::{RtuMaster, RtuPlace};
use super::stats::WireStats;
use super::tcp::TcpMaster;
use super::timing::Line;
use super::transport::{Answer, Asked, Failure, ReadRequest, Reply};
use crate::config::{BusKind, Connection, ModbusDevice};

/// How a bus wants to be treated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manners {
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long units want to be left alone before a request and after their answers.
    pub gaps: HashMap<u8, Duration>,
    /// How a connection is kept.
    pub connection: Connection,
    /// What is sent is heard back.
    pub echo: bool,
    /// What units may be asked that serves nobody; of one that is not named, nothing is known.
    pub maps: HashMap<u8, ReadMap>,
}

impl Manners {
    /// Nothing but a timeout.
    #[must_use]
    pub fn patient_for(timeout: Duration) -> Self {
        Self { timeout, ..Self::default() }
    }
}

/// A wire.
#[derive(Debug)]
pub enum Master {
    /// Modbus TCP.
    Tcp(Box<TcpMaster>),
    /// Modbus RTU, on a port or over TCP.
    Rtu(Box<RtuMaster>),
}

impl Master {
    /// The wire of a Modbus bus; `None` for a bus of text lines. Nothing is opened yet.
    #[must_use]
    pub fn of(kind: &BusKind, timeout: Duration) -> Option<Self> {
        let gaps = |devices: &[ModbusDevice]| {
            devices.iter().filter(|device| !device.gap.is_zero()).map(|device| (device.unit_id, device.gap)).collect()
        };
        let maps = |devices: &[ModbusDevice]| {
            devices.iter().map(|device| (device.unit_id, ReadMap::of(device))).collect::<HashMap<_, _>>()
        };
        Some(match kind {
            BusKind::ModbusTcp { address, connection, devices } => {
                // A TCP answer says which request it answers: nothing is probed.
                let maps = HashMap::new();
                let manners = Manners { timeout, gaps: gaps(devices), connection: *connection, echo: false, maps };
                Self::Tcp(Box::new(TcpMaster::new(address.clone(), manners)))
            }
            BusKind::ModbusRtu { serial, echo, devices } => {
                let connection = Connection::default();
                let (gaps, maps) = (gaps(devices), maps(devices));
                let manners = Manners { timeout, gaps, connection, echo: *echo, maps };
                Self::Rtu(Box::new(RtuMaster::new(RtuPlace::Port(serial.clone()), manners)))
            }
            BusKind::ModbusRtuTcp { address, baud, echo, connection, devices } => {
                let (gaps, maps) = (gaps(devices), maps(devices));
                let manners = Manners { timeout, gaps, connection: *connection, echo: *echo, maps };
                let place = RtuPlace::Server { address: address.clone(), line: Line::rtu(*baud) };
                Self::Rtu(Box::new(RtuMaster::new(place, manners)))
            }
            BusKind::TextLines { .. } => return None,
        })
    }

    /// The same for a command that asks whom it does not know: a unit on a serial line is asked for what is wanted of it
    /// before any probe, and its answer believed after one.
    #[must_use]
    pub fn for_a_command(kind: &BusKind, timeout: Duration) -> Option<Self> {
        Some(match Self::of(kind, timeout)? {
            Self::Rtu(master) => Self::Rtu(Box::new(master.asking_first())),
            Self::Tcp(master) => Self::Tcp(master),
        })
    }

    /// One request and its answer.
    ///
    /// # Errors
    /// [`Failure`] with the cause that stands in the reading.
    pub async fn read(&mut self, unit: u8, request: ReadRequest) -> Result<Answer, Failure> {
        match self {
            Self::Tcp(master) => master.read(unit, request).await,
            Self::Rtu(master) => master.read(unit, request).await,
        }
    }

    /// Several requests at once, where the wire can have them; on a serial line they are asked one after the other.
    ///
    /// # Errors
    /// [`Failure`] where one of several requests was not answered rightly: then nothing is known of the others.
    pub(crate) async fn read_together(&mut self, asked: &[Asked]) -> Result<Vec<Reply>, Failure> {
        match self {
            Self::Tcp(master) => master.read_together(asked).await,
            Self::Rtu(master) => {
                let mut replies = Vec::with_capacity(asked.len());
                for Asked { unit, request } in asked {
                    let result = master.read(*unit, *request).await;
                    replies.push(Reply { result, at: Instant::now() });
                }
                Ok(replies)
            }
        }
    }

    /// How long it will leave the wire alone from now on, after an answer that was lost.
    #[must_use]
    pub fn quiet_left(&self) -> Duration {
        match self {
            Self::Tcp(master) => master.quiet_left(),
            Self::Rtu(master) => master.quiet_left(),
        }
    }

    /// For a command that does not come back later: the next request connects, whoever hung up a moment ago.
    pub(crate) fn try_at_once(&mut self) {
        match self {
            Self::Tcp(master) => master.try_at_once(),
            Self::Rtu(master) => master.try_at_once(),
        }
    }

    /// Whether the last read took more than its own request, so that it says nothing about its device's pace.
    #[must_use]
    pub(crate) const fn was_probed(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Rtu(master) => master.was_probed(),
        }
    }

    /// What passes before the next request because a connection is made for it, as the configuration wants it.
    pub(crate) fn connect_pause(&self) -> Duration {
        match self {
            Self::Tcp(master) => master.connect_pause(),
            Self::Rtu(master) => master.connect_pause(),
        }
    }

    /// Answers to no open request, counted, on Modbus TCP.
    pub(crate) fn strangers(&self) -> Option<Strangers> {
        match self {
            Self::Tcp(master) => Some(master.strangers()),
            Self::Rtu(_) => None,
        }
    }

    /// What happens on an RTU line, counted.
    #[must_use]
    pub fn stats(&self) -> Option<WireStats> {
        match self {
            Self::Tcp(_) => None,
            Self::Rtu(master) => Some(master.stats()),
        }
    }
}
