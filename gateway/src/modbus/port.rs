//! Serial ports: opened by their path each time, set as the configuration says.
//!
//! A path may be a link, such as those in `/dev/serial/by-id`: it is followed at every opening, so that an
//! adapter that is plugged in again is found under whatever name the kernel gives it now.

use std::io;

use tokio_serial::{ClearBuffer, DataBits, SerialPort, SerialStream, StopBits};
use tracing::{debug, info, warn};

use super::ioctl;
use crate::config::{Parity, Serial};

/// Where pseudo terminals are.
const PSEUDO_TERMINALS: &str = "/dev/pts";

/// Opens a port for this process alone, and forgets what had been received on it.
pub(crate) fn open_serial(serial: &Serial) -> io::Result<SerialStream> {
    let settings =
        tokio_serial::new(&serial.port, serial.baud).data_bits(data_bits(serial)).stop_bits(stop_bits(serial));
    let stream = SerialStream::open(&settings.clone().parity(parity(serial))).or_else(|error| {
        // A pseudo terminal has no wire: it refuses what only a wire has, and 8N1 is as good there.
        let plain = settings.data_bits(DataBits::Eight).parity(tokio_serial::Parity::None);
        if is_pseudo_terminal(&serial.port) { SerialStream::open(&plain) } else { Err(error) }
    });
    let stream = stream.map_err(io::Error::from)?;
    stream.clear(ClearBuffer::Input).map_err(io::Error::from)?;
    tune(serial, &stream);
    Ok(stream)
}

/// What not every port can: where it cannot, that is told once an opening, and it is used without.
fn tune(serial: &Serial, stream: &SerialStream) {
    if let Err(error) = ioctl::set_low_latency(stream) {
        debug!(port = serial.port, "the driver has no low latency: {error}");
    }
    let Some(rs485) = &serial.rs485 else { return };
    match ioctl::set_rs485(stream, rs485) {
        Ok(()) => info!(port = serial.port, "the port switches its RS-485 driver"),
        Err(error) => warn!(
            port = serial.port,
            "the port cannot switch an RS-485 driver: {error}; hint: most adapters do so by themselves, then leave \
             `rs485` out"
        ),
    }
}

fn is_pseudo_terminal(port: &str) -> bool {
    std::fs::canonicalize(port).is_ok_and(|path| path.starts_with(PSEUDO_TERMINALS))
}

fn data_bits(serial: &Serial) -> DataBits {
    if serial.data_bits == 7 { DataBits::Seven } else { DataBits::Eight }
}

fn stop_bits(serial: &Serial) -> StopBits {
    if serial.stop_bits == 2 { StopBits::Two } else { StopBits::One }
}

fn parity(serial: &Serial) -> tokio_serial::Parity {
    match serial.parity {
        Parity::None => tokio_serial::Parity::None,
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
    }
}
