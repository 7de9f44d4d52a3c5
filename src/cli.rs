//! The commands and their flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tjern_gateway::cli::{GatewayCommand, start_log};
use tjern_queries::Format;
use tracing_subscriber::EnvFilter;

use crate::pipeline::PipelineCommand;
use crate::{pipeline, query, serve, up};

/// What a daemon and a job say: their own lines. What libraries say of themselves (and Delta of a
/// refused commit, which we tell in our words) is for those who ask with `RUST_LOG`.
const INFO: &str =
    "error,tjern=info,tjern_gateway=info,tjern_lake=info,tjern_pipeline=info,tjern_queries=info,deltalake_core=off";
/// What is said beside an answer, or beside the lines of `up`: of the watch also what is over, since it says what begun.
const WARN: &str = "error,tjern=warn,tjern_gateway=warn,tjern_lake=warn,tjern_pipeline=warn,tjern_pipeline::watch=info,\
    tjern_queries=warn,deltalake_core=off";

/// A city's sensors: from a device to a dashboard and open data
#[derive(Debug, Parser)]
#[command(
    name = "tjern",
    version,
    after_help = "Examples:\n  tjern up                                     the demo city, on http://127.0.0.1:8080/\n  \
    tjern up --config city.toml                  a real small city on one box\n  \
    tjern query \"SELECT * FROM latest\" --data tjern-data\n  \
    tjern pipeline run --config tjern.toml       the jobs of a server\n\n\
    Exit status: 0 done or told to end, 1 failed, 2 wrong usage or configuration."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a whole city in one process: gateways, pipeline and server; without a configuration, the demo
    Up(UpArguments),
    /// Runs a gateway
    #[command(subcommand)]
    Gateway(GatewayCommand),
    /// Works on the lake: each job once, to the end, or all on their schedules
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Asks one SQL query
    Query(QueryArguments),
    /// Serves the residents' pages and the staff's SQL
    Serve(ConfigArgument),
}

/// What `up` is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tjern up\n  tjern up --data /srv/tjern-demo --http 127.0.0.1:9090\n  tjern up --config city.toml"
)]
pub(crate) struct UpArguments {
    /// The city's configuration, a TOML file; without it the demo city is run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The folder with `lake/` and `spool/` in it [default for the demo: tjern-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the residents' pages are, in place of what the configuration says
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Where the staff's SQL and metrics are, in place of what the configuration says
    #[arg(long, value_name = "ADDR")]
    pub(crate) staff: Option<SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgument {
    /// The configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// What `query` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tjern query \"SELECT * FROM latest\" --data tjern-data\n  \
    tjern query \"SELECT * FROM daily\" --config tjern.toml --format parquet > daily.parquet\n\n\
    Tables: readings, observations, hourly, daily, latest, sites, sensors, installations, events.")]
pub(crate) struct QueryArguments {
    /// One query
    #[arg(value_name = "SQL")]
    pub(crate) sql: String,
    #[command(flatten)]
    pub(crate) place: PlaceArguments,
    /// How the answer is written: table, csv (with a header line), json, parquet or arrow
    #[arg(long, default_value = "table")]
    pub(crate) format: Format,
}

/// Which lake is asked.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PlaceArguments {
    /// The folder given to `up`, with `lake/` in it
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The server's configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Does what was asked. Whatever goes wrong was told when this returns.
pub(crate) async fn execute(arguments: Arguments) -> ExitCode {
    let done = match arguments.command {
        Command::Gateway(command) => {
            start_log();
            return Box::pin(tjern_gateway::cli::execute(command)).await;
        }
        Command::Up(arguments) => {
            log_at(WARN);
            Box::pin(up::up(arguments)).await
        }
        Command::Pipeline(command) => {
            log_at(INFO);
            Box::pin(pipeline::execute(command)).await
        }
        Command::Query(arguments) => {
            log_at(WARN);
            Box::pin(query::query(arguments)).await
        }
        Command::Serve(arguments) => {
            log_at(INFO);
            Box::pin(serve::serve(&arguments.config)).await
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

/// The log goes to stderr, as `RUST_LOG` says or else as `default`; in colour on a terminal, unless
/// `NO_COLOR` is set.
fn log_at(default: &str) {
    use std::io::IsTerminal;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colored = std::io::stderr().is_terminal() && !no_color;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colored);
    // A log that cannot be written (a full disk, a reader that left) is told to nobody: the library would panic over it.
    // An error means that a log was started before.
    let _ = log.with_target(false).log_internal_errors(false).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
