//! What the server counts: requests by route and status, how long they took, how old the newest
//! reading is. Routes are a closed list, so that no request can make a new series.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use crate::settings::SharedRegistry;

/// The bounds of the durations that are told apart, in seconds.
const DURATIONS_S: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    listener: &'static str,
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    listener: &'static str,
    route: &'static str,
    status: u32,
}

/// The server's own metrics, registered with the process's.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    requests: Family<Outcome, Counter>,
    durations: Family<Route, Histogram>,
    newest_age_s: Gauge<f64, AtomicU64>,
    commits_told: Gauge,
    registry: SharedRegistry,
}

impl Metrics {
    pub(crate) fn new(registry: SharedRegistry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATIONS_S)),
            newest_age_s: Gauge::default(),
            commits_told: Gauge::default(),
            registry: Arc::clone(&registry),
        };
        metrics.newest_age_s.set(f64::NAN);
        let mut registry = registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        registry.register("tjern_http_requests", "Requests answered", metrics.requests.clone());
        let help = "How long answers took";
        registry.register("tjern_http_request_duration_seconds", help, metrics.durations.clone());
        let help = "Age of the newest reading of any sensor";
        registry.register("tjern_newest_reading_age_seconds", help, metrics.newest_age_s.clone());
        let help = "Whether the pipeline's commits are known without asking the store";
        registry.register("tjern_commits_told", help, metrics.commits_told.clone());
        drop(registry);
        metrics
    }

    /// The text of `/metrics`; the age is not a number where nothing is known.
    pub(crate) fn text(&self, newest_age_s: Option<i64>, are_commits_told: bool) -> Response {
        self.commits_told.set(i64::from(are_commits_told));
        #[expect(clippy::cast_precision_loss, reason = "an age")]
        self.newest_age_s.set(newest_age_s.map_or(f64::NAN, |age_s| age_s as f64));
        let mut body = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if text::encode(&mut body, &registry).is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], body).into_response()
    }
}

/// Counts one request.
pub(crate) async fn count(
    State((metrics, listener)): State<(Metrics, &'static str)>,
    request: Request,
    next: Next,
) -> Response {
    let route = route(request.uri().path());
    let began = Instant::now();
    let response = next.run(request).await;
    let status = u32::from(response.status().as_u16());
    metrics.requests.get_or_create(&Outcome { listener, route, status }).inc();
    metrics.durations.get_or_create(&Route { listener, route }).observe(began.elapsed().as_secs_f64());
    tracing::debug!(listener, route, status, duration_ms = began.elapsed().as_millis(), "answered");
    response
}

fn route(path: &str) -> &'static str {
    match path {
        "/" => "/",
        "/health" => "/health",
        "/metrics" => "/metrics",
        "/api/latest" => "/api/latest",
        "/api/query" => "/api/query",
        "/api/sql" => "/api/sql",
        _ if path.starts_with("/api/query/") => "/api/query/{name}",
        _ if path.starts_with("/sted/") => "/sted/{site}",
        _ if path.starts_with("/static/") => "/static/{file}",
        _ => "other",
    }
}
