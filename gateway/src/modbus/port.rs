//! Serial ports: opened by their path each time, set as the configuration says.
//!
//! A path may be a link, such as those in `/dev/serial/by-id`: it is followed at every opening, so that an
//! adapter that is plugged in again is found under whatever name the kernel gives it now.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

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
    let stream = stream.map_err(|error| told(&serial.port, error.into()))?;
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

/// The system says of what is no serial port that it is "not a typewriter".
fn told(port: &str, error: io::Error) -> io::Error {
    if std::fs::metadata(port).is_ok_and(|file| !may_be_a_port(Path::new("/"), &file)) {
        let what =
            "it is no serial port; hint: write the device file, like /dev/ttyUSB0, or better one in /dev/serial/by-id";
        return io::Error::new(io::ErrorKind::InvalidInput, what);
    }
    error
}

/// Whether a file may be a serial port: a device that the kernel counts among terminals, or of which it says nothing. It is not opened.
pub(crate) fn may_be_a_port(root: &Path, file: &Metadata) -> bool {
    let device = file.rdev();
    let known =
        root.join(format!("sys/dev/char/{}:{}/subsystem", rustix::fs::major(device), rustix::fs::minor(device)));
    let subsystem = std::fs::read_link(known).ok();
    file.file_type().is_char_device() && subsystem.is_none_or(|subsystem| subsystem.ends_with("tty"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_serial_port_is_told_as_that() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("port");
        std::fs::write(&file, "").expect("written");
        let serial =
            |port: String| Serial { port, baud: 9_600, data_bits: 8, parity: Parity::Even, stop_bits: 1, rs485: None };
        for port in ["/dev/zero", "/dev/null", &file.display().to_string()] {
            let told = open_serial(&serial(port.to_owned())).expect_err("no port").to_string();
            assert!(told.starts_with("it is no serial port; hint: "), "{port}: {told}");
        }
        let told = open_serial(&serial("/dev/no-such-port".to_owned())).expect_err("none").to_string();
        assert!(!told.contains("no serial port"), "{told}");
    }
}
