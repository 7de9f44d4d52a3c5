//! `tjern-gateway`: the slim binary for a box at a site.

use std::process::ExitCode;

use clap::Parser;
use tjern_gateway::cli::{GatewayCommand, execute, start_log};
use tjern_gateway::say;

/// Polls a site's devices, never loses a reading, and sends them to the lake
#[derive(Debug, Parser)]
#[command(
    name = "tjern-gateway",
    version,
    after_help = "Examples:\n  tjern-gateway run --config landfall-01.toml\n  tjern-gateway watch --config landfall-01.toml"
)]
struct Arguments {
    #[command(subcommand)]
    command: GatewayCommand,
}

/// So many threads wait for files at most: with one a port, those for names, and the spool's they stay within the unit's
/// `TasksMax`.
const BLOCKING_MAX: usize = 64;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // More than one provider may be linked: the choice is made before anything uses TLS. An error
    // means that it was made already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    start_log();
    // One thread for all that waits: a task that wakes another then costs no switch between threads. What takes
    // long (the disk, sealing, names) has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(BLOCKING_MAX).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let status = runtime.block_on(execute(arguments.command));
            // Everything is closed; what still waits for a file that does not answer is not waited for.
            runtime.shutdown_background();
            status
        }
        Err(error) => {
            say!("error: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
