//! `tjern pipeline`: each job once, to the end, or all of them on their schedules. A command is a file.

mod backup;
mod change;
mod compact;
mod configurations;
mod erase;
mod holes;
mod import;
mod job;
mod look;
mod maintain;
mod missing;
mod publish;
mod quarantine;
mod recompute;
mod register;
mod replay;
mod revise;
mod run;
mod vacuum;
mod validate;
mod watch;

use clap::Subcommand;
use tjern_pipeline::register::RegisterError;

use crate::cli::ConfigArgument;
use crate::failure::Failure;

pub(crate) use job::{JobArguments, prepare, refuse_unfinished};

/// A command of the pipeline.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  tjern pipeline ingest --config tjern.toml\n  tjern pipeline compact --json --config tjern.toml\n  \
    tjern pipeline vacuum --dry-run --config tjern.toml\n  tjern pipeline status --config tjern.toml\n  \
    tjern pipeline verify --config tjern.toml\n  tjern pipeline run --config tjern.toml\n\n\
    Every job but `run` works once, to the end. Exit status: 0 done (also with nothing to do, or where another\n\
    process is at it), 1 failed, 2 wrong usage or configuration."
)]
pub(crate) enum PipelineCommand {
    /// Landed batches into the table `readings`
    #[command(
        after_help = "Examples:\n  tjern pipeline ingest --config tjern.toml\n  tjern pipeline ingest --json --config tjern.toml | jq .did.rows"
    )]
    Ingest(JobArguments),
    /// Readings through the tests of quality control: what came, and what it changes
    Quality(JobArguments),
    /// Small files into big, sorted ones
    #[command(
        after_help = "Examples:\n  tjern pipeline compact --config tjern.toml\n  tjern pipeline compact --json --config tjern.toml"
    )]
    Compact(JobArguments),
    /// Readings into hours and days
    #[command(
        after_help = "Examples:\n  tjern pipeline rollup --config tjern.toml\n  tjern pipeline rollup --json --config tjern.toml"
    )]
    Rollup(JobArguments),
    /// Removes what nobody needs any more: files that were compacted away, old commits
    #[command(
        after_help = "Examples:\n  tjern pipeline vacuum --dry-run --config tjern.toml\n  tjern pipeline vacuum --config tjern.toml"
    )]
    Vacuum(vacuum::VacuumArguments),
    /// Writes checkpoints of logs that have grown
    Checkpoint(maintain::DryRunArguments),
    /// Removes readings that are older than `[retention] readings`
    Retention(maintain::DryRunArguments),
    /// How the lake is: tables, what waits, what is missing, how each job ran last
    Status(JobArguments),
    /// Reads every file of every table and holds it against the log; status 1 where something is wrong
    Verify(JobArguments),
    /// Open datasets
    #[command(
        after_help = "Examples:\n  tjern pipeline publish --config tjern.toml\n  tjern pipeline publish --dataset badetemperatur --config tjern.toml"
    )]
    Publish(publish::PublishArguments),
    /// sites.csv and sensors.csv into the register
    #[command(
        after_help = "Examples:\n  tjern pipeline register --config tjern.toml\n  tjern pipeline register --json --config tjern.toml"
    )]
    Register(register::RegisterArguments),
    /// History, and what people read off, from CSV and Parquet
    Import(Box<import::ImportArguments>),
    /// Computes readings again that a wrong scale, offset or order of bytes made
    Recompute(recompute::RecomputeArguments),
    /// Corrects readings by a file of better values or qualities
    Revise(revise::ReviseArguments),
    /// Says that somebody has looked at a sensor's readings and answers for them
    Validate(validate::ValidateArguments),
    /// Removes a sensor's readings of a period for good, wherever they are, and keeps them from coming back
    Erase(erase::EraseArguments),
    /// What could not be read: list it, look into it, try it again
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Numbers of sources that are missing: list them, accept what will never come
    #[command(subcommand)]
    Holes(holes::HolesCommand),
    /// Configurations that batches name and that are missing: list them, accept what will never come
    #[command(subcommand)]
    Configurations(configurations::ConfigurationsCommand),
    /// Builds an empty table `readings` anew from what has landed
    Replay(replay::ReplayArguments),
    /// Copies the lake to another store, while everything runs
    Backup(backup::BackupArguments),
    /// Brings a backup back
    Restore(backup::RestoreArguments),
    /// What is wrong (a source silent, a sensor late, a hole, …) is told, and told when it is over
    #[command(
        after_help = "Examples:\n  tjern pipeline watch --config tjern.toml\n  tjern pipeline watch --json --config tjern.toml\n\nIt is no safety alarm and no medical device."
    )]
    Watch(JobArguments),
    /// All of them on their schedules, until SIGINT or SIGTERM
    #[command(after_help = "Examples:\n  tjern pipeline run --config tjern.toml")]
    Run(ConfigArgument),
}

/// Does what was asked.
pub(crate) async fn execute(command: PipelineCommand) -> Result<(), Failure> {
    match command {
        PipelineCommand::Ingest(arguments) => job::execute("ingest", &arguments).await,
        PipelineCommand::Compact(arguments) => compact::execute(&arguments).await,
        PipelineCommand::Quality(arguments) => job::execute("quality", &arguments).await,
        PipelineCommand::Rollup(arguments) => job::execute("rollup", &arguments).await,
        PipelineCommand::Register(arguments) => register::execute(&arguments).await,
        PipelineCommand::Watch(arguments) => watch::execute(&arguments).await,
        PipelineCommand::Vacuum(arguments) => vacuum::execute(&arguments).await,
        PipelineCommand::Checkpoint(arguments) => maintain::checkpoint(&arguments).await,
        PipelineCommand::Retention(arguments) => maintain::retention(&arguments).await,
        PipelineCommand::Status(arguments) => look::status(&arguments).await,
        PipelineCommand::Verify(arguments) => look::verify(&arguments).await,
        PipelineCommand::Publish(arguments) => publish::execute(&arguments).await,
        PipelineCommand::Import(arguments) => import::execute(&arguments).await,
        PipelineCommand::Recompute(arguments) => recompute::execute(&arguments).await,
        PipelineCommand::Revise(arguments) => revise::execute(&arguments).await,
        PipelineCommand::Validate(arguments) => validate::execute(&arguments).await,
        PipelineCommand::Erase(arguments) => Box::pin(erase::execute(&arguments)).await,
        PipelineCommand::Replay(arguments) => Box::pin(replay::execute(&arguments)).await,
        PipelineCommand::Backup(arguments) => Box::pin(backup::execute(&arguments)).await,
        PipelineCommand::Restore(arguments) => Box::pin(backup::execute_restore(&arguments)).await,
        PipelineCommand::Quarantine(command) => quarantine::execute(command).await,
        PipelineCommand::Holes(command) => holes::execute(command).await,
        PipelineCommand::Configurations(command) => configurations::execute(command).await,
        PipelineCommand::Run(arguments) => run::execute(&arguments.config).await,
    }
}

/// What is wrong with the register's files is the city's to mend, as a configuration is.
pub(crate) fn register_failure(error: RegisterError) -> Failure {
    if error.is_of_the_files() { Failure::wrong(error) } else { Failure::failed(error) }
}
