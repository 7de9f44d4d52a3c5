//! The gateway's commands, for its own binary and for the one that holds them all.
//!
//! stderr is for the log. Exit status: 0 when it was told to end, 1 when it failed, 2 for a wrong
//! configuration, with nothing started.

mod plan;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use tjern_readings::clock::Clock;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::run::{RunOptions, run};

/// What the log says unless `RUST_LOG` says otherwise: a lake that is away is told once by the
/// uploader, and not at every attempt of the library below it.
const LOG_DEFAULT: &str = "info,object_store=warn";

const FAILED: u8 = 1;
const WRONG: u8 = 2;

/// What a gateway can be told.
#[derive(Debug, Subcommand)]
pub enum GatewayCommand {
    /// Polls the devices and sends their readings to the lake, until SIGINT or SIGTERM
    #[command(
        after_help = "Examples:\n  tjern-gateway run --config landfall-01.toml\n  RUST_LOG=debug tjern-gateway run --config landfall-01.toml\n\n\
        It starts and polls with no lake, no network and any port missing.\n\
        Exit status: 0 when told to end, 1 when it failed, 2 for a wrong configuration."
    )]
    Run {
        /// The gateway's configuration, a TOML file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Shows the requests that will be sent, each bus's load, and the shortest period that it can keep
    #[command(
        after_help = "Example:\n  tjern-gateway plan --config landfall-01.toml\n\n\
        Reckoned from a line's speed and from what `run` has measured; never guessed.\n\
        Exit status: 0, 1 where a bus is asked for more than it can do, 2 for a wrong configuration."
    )]
    Plan {
        /// The gateway's configuration, a TOML file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Does what was asked; everything that goes wrong was told on stderr when this returns.
pub async fn execute(command: GatewayCommand) -> ExitCode {
    let config = match command {
        GatewayCommand::Run { config } => config,
        GatewayCommand::Plan { config } => return plan::execute(&config),
    };
    let config = match Config::load(&config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG);
        }
    };
    let stop = CancellationToken::new();
    if let Err(error) = stop_on_signals(&stop) {
        eprintln!("error: cannot listen for signals: {error}");
        return ExitCode::from(FAILED);
    }
    match Box::pin(run(config, RunOptions { clock: Clock::system(), stop, store: None })).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
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
