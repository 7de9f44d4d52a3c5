//! `tjern serve`: the residents' pages and the staff's SQL over a lake.

use std::path::Path;

use tjern_gateway::cli::stop_on_signals;
use tjern_lake::{Lake, Table, TableName};
use tjern_queries::{Server, ServerSettings};
use tokio_util::sync::CancellationToken;

use crate::config::City;
use crate::failure::Failure;

/// The server of a city over its lake; both ports are taken when this returns.
pub(crate) async fn bind(city: &City, lake: &Lake) -> Result<Server, Failure> {
    let mut settings = ServerSettings::new(lake.clone(), city.timezone.clone(), &city.serve, city.tokens.clone());
    settings.simulated = city.simulated;
    Server::bind(settings).await.map_err(Failure::failed)
}

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn serve(config: &Path) -> Result<(), Failure> {
    let city = City::load(config)?;
    let lake = Lake::open(&city.lake).map_err(Failure::failed)?;
    // A lake that cannot be reached is told at once, and not by every page.
    Table::open(&lake, TableName::Readings).await.map_err(Failure::failed)?;
    let server = bind(&city, &lake).await?;
    let stop = CancellationToken::new();
    stop_on_signals(&stop).map_err(Failure::failed)?;
    tracing::info!("residents: http://{}/", server.public_address());
    tracing::info!("staff: http://{}/", server.staff_address());
    server.run(stop).await;
    Ok(())
}
