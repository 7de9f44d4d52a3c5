//! Where an RTU line is, and how it is opened: a serial port, or a server that passes bytes on.

use tjern_readings::reading::Cause;
use tokio_modbus::client::Context;

use super::super::connect::{CONNECT_MIN, connect};
use super::super::port::open_serial;
use super::super::timing::Line;
use super::super::transport::Failure;
use super::super::wire::{Carrier, Wire};
use super::RtuMaster;
use crate::config::Serial;

/// Where a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RtuPlace {
    /// A serial port.
    Port(Serial),
    /// A server that passes bytes on to a serial line.
    Server {
        /// `host:port`.
        address: String,
        /// How fast the far line is.
        line: Line,
    },
}

/// A line that is open.
pub(super) struct Connected {
    pub(super) wire: Wire,
    pub(super) context: Option<Context>,
}

impl RtuPlace {
    pub(super) const fn line(&self) -> Line {
        match self {
            Self::Port(serial) => serial.line(),
            Self::Server { line, .. } => *line,
        }
    }

    pub(super) const fn is_server(&self) -> bool {
        matches!(self, Self::Server { .. })
    }
}

impl std::fmt::Display for RtuPlace {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port(serial) => formatter.write_str(&serial.port),
            Self::Server { address, .. } => formatter.write_str(address),
        }
    }
}

impl RtuMaster {
    /// Opens it, unless that failed a moment ago.
    pub(super) async fn open(&mut self) -> Result<Connected, Failure> {
        let place = &self.place;
        if !self.retry.may_try() {
            return Err(Failure::new(Cause::Unreachable, format!("{place} was not there a moment ago")).untried());
        }
        #[cfg(test)]
        if let Some(dial) = &self.dial {
            let wire = Wire::new(Carrier::Memory(dial.open())).expect("a pipe");
            return Ok(Connected { wire, context: None });
        }
        if let RtuPlace::Server { address, .. } = place
            && self.far_line.take(address, self.manners.timeout.max(CONNECT_MIN)).await.is_err()
        {
            self.retry.failed();
            let detail = format!("cannot open {address}: another process of this machine asks on this line");
            return Err(Failure::new(Cause::Unreachable, detail).by_another());
        }
        let carrier = match place {
            RtuPlace::Port(serial) => open_serial(serial).map(Carrier::Serial),
            RtuPlace::Server { address, .. } => connect(address, &self.manners).await.map(Carrier::Tcp),
        };
        match carrier.and_then(Wire::new) {
            Ok(wire) => {
                self.stats.opened();
                Ok(Connected { wire, context: None })
            }
            Err(error) => {
                self.retry.failed();
                self.answering.is_gone();
                Err(Failure::new(Cause::Unreachable, format!("cannot open {}: {error}", self.place)))
            }
        }
    }
}
