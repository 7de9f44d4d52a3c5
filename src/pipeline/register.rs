//! `tjern pipeline register`: the job, and the word that all sensors shall end.

use clap::Args;

use super::job::{self, JobArguments};
use crate::failure::Failure;

/// What `register` is told.
#[derive(Debug, Args)]
pub(crate) struct RegisterArguments {
    /// The city has no sensor any more: a sensors.csv with only its header ends all of them
    #[arg(long)]
    end_all: bool,
    #[command(flatten)]
    job: JobArguments,
}

/// Registers once.
pub(crate) async fn execute(arguments: &RegisterArguments) -> Result<(), Failure> {
    let mut place = job::open_for("register", &arguments.job).await?;
    place.city.jobs.register.may_end_all = arguments.end_all;
    job::run_all(job::named(&place, "register"), &place, arguments.job.json).await
}
