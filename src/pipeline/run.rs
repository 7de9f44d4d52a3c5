//! `tjern pipeline run`: all jobs on their schedules.

use std::path::Path;

use tjern_gateway::cli::stop_on_signals;
use tjern_lake::{Lake, Table};
use tjern_pipeline::jobs;
use tokio_util::sync::CancellationToken;

use crate::config::City;
use crate::failure::Failure;

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn execute(config: &Path) -> Result<(), Failure> {
    let city = City::load(config)?;
    let lake = Lake::open(&city.lake).map_err(Failure::failed)?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(Failure::failed)?;
    Table::create_all(&lake).await.map_err(Failure::failed)?;
    Box::pin(jobs::run(lake, city.jobs, stop)).await;
    Ok(())
}
