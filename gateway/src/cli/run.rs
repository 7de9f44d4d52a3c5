//! `run`: the gateway itself.

use std::path::PathBuf;
use std::process::ExitCode;

use tjern_readings::clock::Clock;
use tokio_util::sync::CancellationToken;

use super::{FAILED, WRONG, stop_on_signals};
use crate::config::Config;
use crate::run::{RunOptions, run};

/// What `run` is told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway run --config landfall-01.toml\n  RUST_LOG=debug tjern-gateway run --config landfall-01.toml\n\n\
    It starts and polls with no lake, no network and any port missing.\n\
    Exit status: 0 when told to end, 1 when it failed, 2 for a wrong configuration."
)]
pub struct RunArguments {
    /// The gateway's configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs a gateway until it is told to end.
pub(super) async fn execute(arguments: RunArguments) -> ExitCode {
    let config = match Config::load(&arguments.config) {
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
