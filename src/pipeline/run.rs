//! `tjern pipeline run`: all jobs on their schedules.

use std::path::Path;

use tjern_gateway::cli::stop_on_signals;
use tjern_lake::Lake;
use tjern_pipeline::jobs::{self, Door, States};
use tokio_util::sync::CancellationToken;

use super::job::prepare;
use crate::config::{City, PersonalLake};
use crate::failure::Failure;

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn execute(config: &Path) -> Result<(), Failure> {
    let city = City::load(config)?;
    let lake = Lake::open(&city.lake).map_err(Failure::failed)?;
    let personal = city.personal.as_ref().map(PersonalLake::open).transpose()?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(Failure::failed)?;
    let states = States::default();
    // A port that cannot be had is told before anything is done.
    let door = match city.jobs.listen {
        Some(address) => Some(Door::bind(address).await.map_err(Failure::failed)?),
        None => None,
    };
    prepare(&lake).await?;
    if let Some(lake) = &personal {
        prepare(lake).await?;
    }
    jobs::announce(&lake, &city.jobs, &states);
    if let Some((lake, city)) = personal.as_ref().zip(city.personal.as_ref()) {
        jobs::announce(lake, &city.jobs, &states);
    }
    let telling = door.map(|door| {
        tracing::info!("the jobs: http://{}/health, /metrics and /versions", door.address());
        tokio::spawn(door.run(states.clone(), lake.clone(), jobs::told_tables(&city.jobs.off), stop.clone()))
    });
    let others = personal
        .zip(city.personal)
        .map(|(lake, personal)| Box::pin(jobs::run(lake, personal.jobs, states.clone(), stop.clone())));
    let others = async {
        if let Some(jobs) = others {
            jobs.await;
        }
    };
    tokio::join!(Box::pin(jobs::run(lake, city.jobs, states, stop)), others);
    if let Some(telling) = telling {
        telling.await.map_err(Failure::failed)?;
    }
    Ok(())
}
