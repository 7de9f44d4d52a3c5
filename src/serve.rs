//! `tjern serve`: the residents' pages and the staff's SQL over a lake.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use serde_json::json;
use tjern_gateway::cli::stop_on_signals;
use tjern_lake::metrics::StoreMetrics;
use tjern_lake::{Lake, Table, TableName};
use tjern_pipeline::jobs::States;
use tjern_pipeline::jobs::door::report;
use tjern_pipeline::jobs::metrics::JobMetrics;
use tjern_queries::{Server, ServerSettings};
use tokio_util::sync::CancellationToken;

use crate::config::City;
use crate::failure::Failure;
use crate::pipeline::refuse_unfinished;

/// The server of a city over its lake; both ports are taken when this returns.
/// The jobs of the same process are told of on the staff's.
pub(crate) async fn bind(city: &City, lake: &Lake, jobs: Option<&States>) -> Result<Server, Failure> {
    let mut settings = ServerSettings::new(lake.clone(), city.timezone.clone(), &city.serve, city.tokens.clone());
    settings.simulated = city.simulated;
    register_metrics(&settings, lake, jobs);
    if let Some(states) = jobs {
        // One that is left to others is not of this process.
        settings.shares_pipeline = !city.jobs.off.contains("ingest");
        let (states, clock) = (states.clone(), lake.clock().clone());
        settings.status = Some(Arc::new(move || json!({ "jobs": report(&states, clock.now_us()).1 })));
    }
    Server::bind(settings).await.map_err(Failure::failed)
}

fn register_metrics(settings: &ServerSettings, lake: &Lake, jobs: Option<&States>) {
    let mut registry = settings.metrics.lock().unwrap_or_else(PoisonError::into_inner);
    registry.register_collector(Box::new(StoreMetrics::new(lake)));
    if let Some(states) = jobs {
        registry.register_collector(Box::new(JobMetrics::new(states.clone(), lake.clock().clone())));
    }
}

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn serve(config: &Path) -> Result<(), Failure> {
    let city = City::load(config)?;
    let lake = Lake::open(&city.lake).map_err(Failure::failed)?;
    refuse_unfinished(&lake).await?;
    // A lake that cannot be reached is told at once, and not by every page.
    Table::open(&lake, TableName::Readings).await.map_err(Failure::failed)?;
    let server = bind(&city, &lake, None).await?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(Failure::failed)?;
    tracing::info!("residents: http://{}/", server.public_address());
    tracing::info!("staff: http://{}/", server.staff_address());
    server.run(stop).await;
    Ok(())
}
