//! Where a daemon tells how its jobs are, and what it has committed: `/health`, `/health/<job>`, `/metrics` and
//! `/versions`. GET and HEAD.
//!
//! Status 200 says that all is well, 503 that a job is failing or late. There is no authentication, so it
//! belongs on the machine's own address, or on a network that is the city's own. Connections are bounded (`tjern-connections`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tjern_connections::serve;
use tjern_lake::{Lake, TableName};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::states::{Condition, States};
use super::versions::{Asked, Teller};

/// The listener could not be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot tell of the jobs on {address}: {source}; hint: `[jobs] listen` in tjern.toml says where, is somebody else listening there?"
)]
pub struct DoorError {
    address: SocketAddr,
    source: io::Error,
}

/// A listener whose port is taken.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
}

impl Door {
    /// Takes the port; 0 takes a free one.
    ///
    /// # Errors
    /// [`DoorError`].
    pub async fn bind(address: SocketAddr) -> Result<Self, DoorError> {
        let failed = |source| DoorError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "other machines may read how the jobs are: there is no password");
        }
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled. Of these tables it tells the versions: see
    /// [`told_tables`](super::versions::told_tables).
    pub async fn run(self, states: States, lake: Lake, tables: Vec<TableName>, stop: CancellationToken) {
        let teller = Teller::new(lake.clone(), tables, stop.clone());
        let routes = Router::new()
            .route("/health", get(health))
            .route("/health/{job}", get(job_health))
            .route("/metrics", get(metrics))
            .route("/versions", get(versions))
            .fallback(|| async {
                (StatusCode::NOT_FOUND, "there are /health, /health/<job>, /metrics and /versions\n")
            })
            .with_state(Arc::new(Known { states, lake, teller }));
        serve(self.listener, routes, stop).await;
    }
}

/// What there is to tell.
#[derive(Debug)]
struct Known {
    states: States,
    lake: Lake,
    teller: Teller,
}

type Told = State<Arc<Known>>;

/// What `/health` says of all jobs.
#[must_use]
pub fn report(states: &States, now_us: i64) -> (bool, Value) {
    let (well, jobs) = states.health(now_us);
    (well, json!({ "status": if well { "ok" } else { "failing" }, "jobs": jobs }))
}

async fn health(State(told): Told) -> Response {
    let (well, report) = report(&told.states, told.lake.clock().now_us());
    answer(well, &report)
}

async fn job_health(State(told): Told, Path(job): Path<String>) -> Response {
    let now_us = told.lake.clock().now_us();
    match told.states.all().get(&job) {
        Some(state) => {
            let health = state.health(now_us);
            answer(health.status == Condition::Ok, &json!(health))
        }
        None => (StatusCode::NOT_FOUND, "there is no such job; /health has all\n").into_response(),
    }
}

async fn metrics(State(told): Told) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics::text(&told.states, &told.lake) {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn versions(State(told): Told, asked: Result<Query<Asked>, QueryRejection>) -> Response {
    told.teller.answer(asked).await
}

fn answer(well: bool, body: &Value) -> Response {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{body}\n")).into_response()
}
