//! The edge gateway of Tjern: devices, a spool, sealed batches in the landing zone of a lake.
//!
//! ```text
//! config ── grid ── bus (one actor a bus) ── readings ── spool ── upload ── <lake>/landing/…
//!                    ├─ modbus: tcp, rtu ── value
//!                    └─ lines: nmea, delimited, pattern, time
//! ```
//!
//! Invariants: no Modbus request but the four reads passes [`modbus::transport`]; decoders
//! ([`value`], [`lines`]) do no I/O; one module ([`spool`]) touches the spool's files; every queue has
//! a bound with a name; `unsafe` stands in one module, `modbus/ioctl.rs`; nothing here knows SQL, Delta or Parquet. A gateway starts and polls with no
//! lake, no network and any port missing: only a wrong configuration keeps it from starting.

#![deny(unsafe_code)]
// They panic where stderr or stdout cannot be written: `say!`, `cli::tell`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod bus;
pub mod cli;
pub mod clock;
pub mod config;
mod dating;
#[doc(hidden)]
pub mod fuzzing;
pub mod grid;
pub mod lines;
pub mod maintenance;
pub mod modbus;
mod names;
pub mod notify;
mod ports;
pub mod run;
pub mod simulate;
pub mod spool;
pub mod status;
pub mod system;
pub mod upload;
pub mod value;
pub mod watch;
