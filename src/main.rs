//! `tjern`: the umbrella command line. It wires the rooms together and decides nothing.
//!
//! stdout is for data and for the lines of `up`; stderr for the log and for errors. Exit status: 0 when
//! all was done or it was told to end, 1 when something failed, 2 for wrong usage or configuration,
//! with nothing started.
#![forbid(unsafe_code)]
// They panic where stderr or stdout cannot be written: `say!`, `failure`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod cli;
mod config;
mod demo;
mod failure;
mod pipeline;
mod progress;
mod query;
mod serve;
mod up;

use std::process::ExitCode;

use clap::Parser;

use cli::Arguments;

/// Plans of views nest deeply, and more so in builds without optimisation.
const STACK_BYTES: usize = 16 << 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // More than one TLS provider may be linked: the choice is made before anything uses TLS. An error
    // means that it was made already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK_BYTES).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let task = runtime.spawn(cli::execute(arguments));
            runtime.block_on(task).unwrap_or(ExitCode::FAILURE)
        }
        Err(error) => failure::tell(&error, 1),
    }
}
