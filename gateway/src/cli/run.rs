//! `run`: the gateway itself.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tjern_readings::clock::Clock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{FAILED, load, shown, stop_on_signals};
use crate::notify::Notifier;
use crate::run::{RELOAD_QUEUE, RunOptions, Service, run_as_service};
use crate::say;

/// What `run` is told.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tjern-gateway run --config landfall-01.toml\n  RUST_LOG=debug tjern-gateway run --config landfall-01.toml\n\n\
    It starts and polls with no lake, no network and any port missing. SIGHUP makes it read the file again: buses\n\
    that changed begin anew, the others go on; a wrong file changes nothing.\n\
    Exit status: 0 when told to end, 1 when it failed, 2 for a wrong configuration."
)]
pub struct RunArguments {
    /// The gateway's configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs a gateway until it is told to end.
pub(super) async fn execute(arguments: RunArguments) -> ExitCode {
    // First of all: until somebody listens for it, SIGHUP ends a process.
    let reloads = match reload_on_hangup() {
        Ok(reloads) => reloads,
        Err(error) => {
            say!("error: cannot listen for signals: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(status) => return status,
    };
    config.warnings().iter().for_each(|problem| say!("{}", shown(problem)));
    let stop = CancellationToken::new();
    if let Err(error) = stop_on_signals(&stop) {
        say!("error: cannot listen for signals: {error}");
        return ExitCode::from(FAILED);
    }
    let options = RunOptions { clock: Clock::system(), stop, store: None };
    let service = Service { reloads: Some(reloads), notifier: Notifier::from_env() };
    match Box::pin(run_as_service(config, options, service)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// SIGHUP wishes for a reload; those that come while one waits are the same wish.
fn reload_on_hangup() -> io::Result<mpsc::Receiver<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (wish, wishes) = mpsc::channel(RELOAD_QUEUE);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if let Err(mpsc::error::TrySendError::Closed(())) = wish.try_send(()) {
                // The gateway ends; the signal is heard on and changes nothing.
                std::future::pending::<()>().await;
            }
        }
    });
    Ok(wishes)
}
