//! The gateway's commands, for its own binary and for the one that holds them all.
//!
//! A command is a file below this one (its arguments, with their help, and `execute`) and a variant
//! of [`GatewayCommand`]. stdout is for data, stderr is for the log. Exit status: 0 when it was told to end, 1 when it failed, 2 for a wrong
//! configuration, with nothing started.

mod progress;
pub mod read;
pub mod run;
pub mod scan;
pub mod simulate;
pub mod sniff;
mod target;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// What the log says unless `RUST_LOG` says otherwise: a lake that is away is told once by the
/// uploader, and not at every attempt of the library below it.
const LOG_DEFAULT: &str = "info,object_store=warn";

/// It failed.
pub(crate) const FAILED: u8 = 1;

/// It was asked for what cannot be: wrong usage, or a wrong configuration.
pub(crate) const WRONG: u8 = 2;

/// What a gateway can be told.
#[derive(Debug, Subcommand)]
pub enum GatewayCommand {
    /// Polls the devices and sends their readings to the lake, until SIGINT or SIGTERM
    Run(run::RunArguments),
    /// Reads once, and shows what came in every type and byte order
    Read(read::ReadArguments),
    /// Looks who is on a line and what they hold; writes a configuration
    Scan(scan::ScanArguments),
    /// Listens to an RTU line and tells what others say on it
    Sniff(sniff::SniffArguments),
    /// Plays the devices that a configuration names, with faults on request, until SIGINT or SIGTERM
    Simulate(simulate::SimulateArguments),
}

/// Does what was asked; everything that goes wrong was told on stderr when this returns.
pub async fn execute(command: GatewayCommand) -> ExitCode {
    match command {
        GatewayCommand::Run(arguments) => Box::pin(run::execute(arguments)).await,
        GatewayCommand::Read(arguments) => Box::pin(read::execute(arguments)).await,
        GatewayCommand::Scan(arguments) => Box::pin(scan::execute(arguments)).await,
        GatewayCommand::Sniff(arguments) => Box::pin(sniff::execute(arguments)).await,
        GatewayCommand::Simulate(arguments) => simulate::execute(arguments).await,
    }
}

/// Cancels `stop` at SIGINT or SIGTERM, also where SIGINT was ignored by whoever started us. Later
/// ones change nothing: the end is on its way, and bounded.
///
/// # Errors
/// Where no handler can be installed.
pub fn stop_on_signals(stop: &CancellationToken) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        info!("{name} received");
        stop.cancel();
    });
    Ok(())
}

/// The log goes to stderr: as `RUST_LOG` says, or at `info`, and of the library below the lake only
/// its warnings; in colour on a terminal, unless `NO_COLOR` is set. A second call changes nothing.
pub fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colored = io::stderr().is_terminal() && !no_color;
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colored).with_target(false);
    // An error means that a log was started before.
    let _ = log.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lake_that_is_away_does_not_fill_the_log() {
        let filter = EnvFilter::builder().parse(LOG_DEFAULT).expect("a filter").to_string();
        let mut parts: Vec<&str> = filter.split(',').collect();
        parts.sort_unstable();
        assert_eq!(parts, ["info", "object_store=warn"]);
    }
}
