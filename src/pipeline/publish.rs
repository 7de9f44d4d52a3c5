//! `tjern pipeline publish`: releases of the open datasets, where there is something new.

use clap::Args;
use tjern_pipeline::jobs::entries_of;
use tjern_pipeline::jobs::list::PUBLISH;

use super::job::{self, JobArguments};
use crate::failure::Failure;
use tjern_gateway::say;

/// What `publish` is told.
#[derive(Debug, Args)]
pub(crate) struct PublishArguments {
    /// Only this dataset
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    #[command(flatten)]
    job: JobArguments,
}

/// Each dataset is a job of its own.
pub(crate) async fn execute(arguments: &PublishArguments) -> Result<(), Failure> {
    let place = job::open_for("publish", &arguments.job).await?;
    let wanted = |name: &str| {
        let dataset = name.strip_prefix(PUBLISH);
        dataset.is_some_and(|dataset| arguments.dataset.as_deref().is_none_or(|wanted| wanted == dataset))
    };
    let chosen: Vec<_> =
        entries_of(&place.lake, &place.city.jobs).into_iter().filter(|entry| wanted(&entry.name)).collect();
    if let (Some(dataset), true) = (&arguments.dataset, chosen.is_empty()) {
        return Err(Failure::wrong(format!("there is no dataset `{dataset}`; hint: `[[publish]]` names them")));
    }
    if chosen.is_empty() {
        say!("publish: nothing is to be published");
    }
    job::run_all(chosen, &place, arguments.job.json).await
}
