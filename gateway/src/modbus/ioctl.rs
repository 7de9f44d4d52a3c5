//! What the kernel knows about a serial port and no library says: RS-485, error counters, low latency.
//!
//! The one module of this crate with `unsafe`. Each call hands the kernel one structure of
//! `linux/serial.h` in its layout (tests hold the sizes); nothing outlives the call.
//!
//! Limits: the requests' numbers are those of `asm-generic/ioctls.h`, which x86, ARM and RISC-V share;
//! elsewhere, and on ports without such hardware (pseudo terminals among them), every call fails with an
//! error, and the port works without.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::ioctl::{Getter, Opcode, Setter, Updater, ioctl};
use tokio_serial::SerialStream;

use crate::config::Rs485;

const TIOCGSERIAL: Opcode = 0x541E;
const TIOCSSERIAL: Opcode = 0x541F;
const TIOCSRS485: Opcode = 0x542F;
const TIOCGICOUNT: Opcode = 0x545D;

const ASYNC_LOW_LATENCY: i32 = 1 << 13;

const SER_RS485_ENABLED: u32 = 1;
const SER_RS485_RTS_ON_SEND: u32 = 1 << 1;
const SER_RS485_RTS_AFTER_SEND: u32 = 1 << 2;
const SER_RS485_RX_DURING_TX: u32 = 1 << 4;

/// `struct serial_rs485`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct SerialRs485 {
    flags: u32,
    delay_rts_before_send_ms: u32,
    delay_rts_after_send_ms: u32,
    padding: [u32; 5],
}

/// `struct serial_icounter_struct`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct SerialCounters {
    /// CTS, DSR, RI, DCD: changes of the modem's lines.
    modem: [i32; 4],
    received: i32,
    sent: i32,
    frame: i32,
    overrun: i32,
    parity: i32,
    break_seen: i32,
    buffer_overrun: i32,
    reserved: [i32; 9],
}

/// `struct serial_struct`: only its flags are ours to change.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct SerialStruct {
    kind: i32,
    line: i32,
    port: u32,
    irq: i32,
    flags: i32,
    xmit_fifo_size: i32,
    custom_divisor: i32,
    baud_base: i32,
    close_delay: u16,
    io_type: u8,
    reserved_char: u8,
    hub6: i32,
    closing_wait: u16,
    closing_wait2: u16,
    iomem_base: usize,
    iomem_reg_shift: u16,
    port_high: u32,
    iomap_base: usize,
}

/// What a port's hardware has counted since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineErrors {
    /// Characters without their stop bit: a wrong baud rate, or noise.
    pub frame: u64,
    /// Characters that came before the last one was taken from the hardware.
    pub overrun: u64,
    /// Characters with the wrong parity.
    pub parity: u64,
    /// The line was held low: a cable that is cut or turned around.
    pub line_break: u64,
    /// Characters that came when the kernel's buffer was full.
    pub buffer_overrun: u64,
}

/// Whether the requests' numbers are those of this processor's kernel.
fn known_here() -> io::Result<()> {
    let known = cfg!(all(
        target_os = "linux",
        any(
            target_arch = "x86_64",
            target_arch = "x86",
            target_arch = "arm",
            target_arch = "aarch64",
            target_arch = "riscv64"
        )
    ));
    if known { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

fn borrow(stream: &SerialStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns the descriptor and is borrowed for as long as the result.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// Another descriptor of the same open port.
pub(super) fn duplicate(stream: &SerialStream) -> io::Result<OwnedFd> {
    borrow(stream).try_clone_to_owned()
}

/// Lets go of the lock on an open port, which its other descriptors would keep as long as they live.
pub(super) fn unlock(stream: &SerialStream) -> io::Result<()> {
    Ok(rustix::fs::flock(borrow(stream), rustix::fs::FlockOperation::Unlock)?)
}

impl From<&Rs485> for SerialRs485 {
    fn from(rs485: &Rs485) -> Self {
        let milliseconds = |delay: Duration| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        // RTS is high while it sends, or while it does not.
        let polarity = if rs485.rts_inverted { SER_RS485_RTS_AFTER_SEND } else { SER_RS485_RTS_ON_SEND };
        let hears = if rs485.rx_during_tx { SER_RS485_RX_DURING_TX } else { 0 };
        Self {
            flags: SER_RS485_ENABLED | polarity | hears,
            delay_rts_before_send_ms: milliseconds(rs485.rts_delay_before),
            delay_rts_after_send_ms: milliseconds(rs485.rts_delay_after),
            padding: [0; 5],
        }
    }
}

/// Lets the port turn its RS-485 driver on before it sends and off after.
pub(super) fn set_rs485(stream: &SerialStream, rs485: &Rs485) -> io::Result<()> {
    known_here()?;
    let settings = SerialRs485::from(rs485);
    // SAFETY: TIOCSRS485 reads a `struct serial_rs485`, and on success writes it back into the same
    // place, which the updater borrows mutably.
    unsafe {
        let mut settings = settings;
        ioctl(borrow(stream), Updater::<TIOCSRS485, SerialRs485>::new(&mut settings))?;
    }
    Ok(())
}

/// What the port's hardware has counted.
pub(super) fn line_errors(stream: &SerialStream) -> io::Result<LineErrors> {
    known_here()?;
    let mut counters = SerialCounters::default();
    // SAFETY: TIOCGICOUNT writes a `struct serial_icounter_struct`.
    unsafe { ioctl(borrow(stream), Updater::<TIOCGICOUNT, SerialCounters>::new(&mut counters))? };
    let count = |counter: i32| u64::from(counter.cast_unsigned());
    Ok(LineErrors {
        frame: count(counters.frame),
        overrun: count(counters.overrun),
        parity: count(counters.parity),
        line_break: count(counters.break_seen),
        buffer_overrun: count(counters.buffer_overrun),
    })
}

/// Asks the driver to hand bytes over at once and not in lumps (an FTDI adapter waits 16 ms else).
pub(super) fn set_low_latency(stream: &SerialStream) -> io::Result<()> {
    known_here()?;
    // SAFETY: TIOCGSERIAL writes a `struct serial_struct`, TIOCSSERIAL reads one; what is handed
    // back is what the kernel gave, with one flag more.
    unsafe {
        let mut settings = ioctl(borrow(stream), Getter::<TIOCGSERIAL, SerialStruct>::new())?;
        if settings.flags & ASYNC_LOW_LATENCY != 0 {
            return Ok(());
        }
        settings.flags |= ASYNC_LOW_LATENCY;
        ioctl(borrow(stream), Setter::<TIOCSSERIAL, SerialStruct>::new(settings))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// As `linux/serial.h` has them; a layout that is off by a field would let the kernel write past it.
    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!(size_of::<SerialRs485>(), 32);
        assert_eq!(offset_of!(SerialRs485, delay_rts_after_send_ms), 8);
        assert_eq!(size_of::<SerialCounters>(), 80);
        assert_eq!((offset_of!(SerialCounters, frame), offset_of!(SerialCounters, buffer_overrun)), (24, 40));
        assert_eq!(offset_of!(SerialStruct, flags), 16);
        assert_eq!(offset_of!(SerialStruct, hub6), 36);
        let sizes = if size_of::<usize>() == 8 { (72, 48, 64) } else { (60, 44, 56) };
        let ours =
            (size_of::<SerialStruct>(), offset_of!(SerialStruct, iomem_base), offset_of!(SerialStruct, iomap_base));
        assert_eq!(ours, sizes);
    }

    /// As `linux/serial.h` has them: a driver that is on while RTS is low, on a board that was wired so, never sent.
    #[test]
    fn what_is_configured_is_what_the_kernel_is_told() {
        let flags = |rts_inverted, rx_during_tx| {
            SerialRs485::from(&Rs485 { rts_inverted, rx_during_tx, ..Rs485::default() }).flags
        };
        assert_eq!([flags(false, false), flags(true, false), flags(true, true)], [0b0_0011, 0b0_0101, 0b1_0101]);
    }

    #[tokio::test]
    async fn a_port_without_such_hardware_says_so() {
        let (stream, _other) = SerialStream::pair().expect("a pseudo terminal");
        assert!(set_rs485(&stream, &Rs485::default()).is_err());
        assert!(line_errors(&stream).is_err());
        assert!(set_low_latency(&stream).is_err());
        assert!(duplicate(&stream).is_ok());
    }
}
