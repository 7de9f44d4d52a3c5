//! The gateway's commands, for its own binary and for the one that holds them all.
//!
//! A command is a file below this one (its arguments, with their help, and `execute`) and a variant
//! of [`GatewayCommand`]. stdout is for data, stderr is for the log. Exit status: 0 when it was told to end, 1 when it failed, 2 for a wrong
//! configuration, with nothing started.

pub mod check;
pub mod doctor;
pub mod maintenance;
pub mod plan;
pub mod progress;
pub mod read;
pub mod run;
#[doc(hidden)]
pub mod say;
pub mod scan;
pub mod simulate;
pub mod sniff;
pub mod spool;
mod target;
pub mod watch;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use tjern_readings::configuration::{ConfigError, Problem};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::say;

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
    /// Shows the requests that will be sent, each bus's load, and the shortest period that it can keep
    Plan(plan::PlanArguments),
    /// Says all that is wrong or odd with a configuration, and starts nothing
    Check(check::CheckArguments),
    /// Looks at the machine: ports, clock, disk, spool, lake, certificates; says what to do
    Doctor(doctor::DoctorArguments),
    /// Marks readings of sensors that somebody is working on
    Maintenance(maintenance::MaintenanceArguments),
    /// Reads once, and shows what came in every type and byte order
    Read(read::ReadArguments),
    /// Looks who is on a line and what they hold; writes a configuration
    Scan(Box<scan::ScanArguments>),
    /// Listens to an RTU line and tells what others say on it
    Sniff(sniff::SniffArguments),
    /// Shows, checks and copies what waits in the spool
    Spool(spool::SpoolArguments),
    /// Shows every point of a gateway that runs: value, age, round trip, state
    Watch(watch::WatchArguments),
    /// Plays the devices that a configuration names, with faults on request, until SIGINT or SIGTERM
    Simulate(simulate::SimulateArguments),
}

/// Does what was asked; everything that goes wrong was told on stderr when this returns.
pub async fn execute(command: GatewayCommand) -> ExitCode {
    match command {
        GatewayCommand::Run(arguments) => Box::pin(run::execute(arguments)).await,
        GatewayCommand::Check(arguments) => check::execute(&arguments),
        GatewayCommand::Doctor(arguments) => Box::pin(doctor::execute(arguments)).await,
        GatewayCommand::Maintenance(arguments) => maintenance::execute(arguments),
        GatewayCommand::Plan(arguments) => plan::execute(&arguments),
        GatewayCommand::Read(arguments) => Box::pin(read::execute(arguments)).await,
        GatewayCommand::Scan(arguments) => Box::pin(scan::execute(*arguments)).await,
        GatewayCommand::Sniff(arguments) => Box::pin(sniff::execute(arguments)).await,
        GatewayCommand::Simulate(arguments) => simulate::execute(arguments).await,
        GatewayCommand::Spool(arguments) => Box::pin(spool::execute(arguments)).await,
        GatewayCommand::Watch(arguments) => Box::pin(watch::execute(arguments)).await,
    }
}

/// Reads a configuration; what is wrong with it was told on stderr.
pub(crate) fn load(path: &Path) -> Result<Config, ExitCode> {
    Config::load(path).map_err(|error| {
        say!("{}", shown_error(&error));
        ExitCode::from(WRONG)
    })
}

/// What is wrong with a configuration, as stderr shows it.
fn shown_error(error: &ConfigError) -> String {
    let text = if has_colors(&io::stderr()) { error.colored() } else { error.to_string() };
    match error {
        ConfigError::Unreadable { .. } => format!("error: {text}"),
        ConfigError::Wrong(_) => text,
    }
}

/// Writes data to stdout. `print!` would panic where nobody reads any more (`plan | head -1`), or the disk is full.
fn tell(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes all that a command has for stdout. A reader that went away has seen what it wished; any other error was told, and is
/// what the command ends with.
fn tell_or_fail(text: &str) -> Result<(), ExitCode> {
    match tell(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say!("error: cannot write to stdout: {error}");
            Err(ExitCode::from(FAILED))
        }
        _ => Ok(()),
    }
}

/// A problem as stderr shows it.
fn shown(problem: &Problem) -> String {
    if has_colors(&io::stderr()) { problem.colored().to_owned() } else { problem.to_string() }
}

/// Whether a stream shows colours: a terminal, unless `NO_COLOR` is set.
pub(crate) fn has_colors(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A time as a person reads it, in UTC like the data.
fn utc(time_us: i64) -> String {
    match jiff::Timestamp::from_microsecond(time_us) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{time_us} µs since 1970"),
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
        stop.cancel();
        info!("{name} received");
    });
    Ok(())
}

/// The log goes to stderr: as `RUST_LOG` says, or at `info`, and of the library below the lake only
/// its warnings; in colour on a terminal, unless `NO_COLOR` is set. A second call changes nothing.
pub fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let colored = has_colors(&io::stderr());
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colored).with_target(false);
    // A log that cannot be written (a full disk, a reader that left) is told to nobody: the library would panic over it.
    // An error means that a log was started before.
    let _ = log.log_internal_errors(false).try_init();
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
