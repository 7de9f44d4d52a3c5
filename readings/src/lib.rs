//! The contract of Tjern: what a reading is, what a batch of readings looks like as bytes, where
//! things lie in a lake, and how a lake's store is opened.
//!
//! Everything else stands on this crate, and a gateway needs nothing else. It is small and light on
//! purpose: no SQL engine, no table format, no mathematics. Decoders ([`batch`]) do no I/O; the only
//! I/O is in [`store`]; the only clock is [`clock`].
#![forbid(unsafe_code)]

pub mod batch;
pub mod clock;
pub mod configuration;
pub mod keys;
pub mod reading;
pub mod round;
pub mod rows;
pub mod scaling;
pub mod sensor;
pub mod store;
