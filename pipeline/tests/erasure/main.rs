//! Erasure, end to end: readings that were erased are nowhere in the lake, byte by byte, and never come back.
//!
//! `world` is a lake in which one sensor's readings of a week have gone everywhere: tables compacted and not, logs and
//! checkpoints, hours and days, landing zone, quarantine, corrections, an import, releases. `scan` reads every byte of
//! every object. Canary: whatever place is left out, the scan sees it. `recall` withdraws what is public no more in the same
//! lake, as erasure does.

mod checks;
mod comes_back;
mod crashes;
mod everywhere;
mod held;
mod recall;
mod remembering;
mod rollups;
mod scan;
#[path = "../ingest/support/mod.rs"]
#[expect(dead_code, reason = "the tests of ingest use more of it")]
mod support;
mod world;
