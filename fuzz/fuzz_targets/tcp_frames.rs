//! See `tjern_gateway::fuzzing::tcp_frames`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tjern_gateway::fuzzing::tcp_frames(bytes));
