//! What the city's own people may ask: SQL with a token, and metrics.
//!
//! The listener is on loopback unless told otherwise; `/metrics` and `/health` need no token there.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::metrics::Metrics;
use super::reply::{self, Failure};
use super::{Commits, Inside, health, newest_us};
use crate::engine::Engine;
use crate::latest::age_s;
use crate::limits;
use crate::settings::StatusHook;
use crate::tokens::Tokens;

/// What the staff's listener knows.
#[derive(Clone)]
pub(crate) struct Office {
    pub(crate) engine: Arc<Engine>,
    pub(crate) tokens: Tokens,
    pub(crate) metrics: Metrics,
    pub(crate) commits: Commits,
    pub(crate) status: Option<StatusHook>,
}

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The body of a request in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
}

/// The routes of the staff listener.
pub(crate) fn router(office: Office) -> Router {
    Router::new()
        .route("/api/sql", post(sql))
        .route("/metrics", get(metrics))
        .route("/health", get(healthy))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(office)
}

async fn not_found() -> Response {
    Failure::new(StatusCode::NOT_FOUND, "there is nothing here", "POST /api/sql, GET /metrics, GET /health")
        .into_response()
}

async fn not_allowed() -> Response {
    let hint = "POST /api/sql with the SQL as the body; GET /metrics and /health";
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "not with this method", hint).into_response()
}

async fn metrics(State(office): State<Office>) -> Response {
    let newest_us = office.engine.latest().await.ok().and_then(|sensors| newest_us(&sensors));
    let newest_age_s = newest_us.map(|time_us| age_s(office.engine.now_us(), time_us));
    office.metrics.text(newest_age_s, office.commits.are_told())
}

async fn healthy(State(office): State<Office>) -> Response {
    health(&office.engine, Some(Inside { parts: office.status.as_ref(), commits: &office.commits })).await
}

async fn sql(State(office): State<Office>, parameters: Parameters, request: Request) -> Response {
    run(&office, parameters, request).await.unwrap_or_else(IntoResponse::into_response)
}

/// The token comes first: a stranger's body is not even read.
async fn run(office: &Office, parameters: Parameters, request: Request) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let who = admit(&office.tokens, &head.headers)?.to_owned();
    let Ok(Query(mut parameters)) = parameters else {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "the parameters cannot be read", "?format=json or csv"));
    };
    let format = reply::format(&mut parameters, &head.headers)?;
    if let Some((name, _)) = parameters.first() {
        let error = format!("there is no parameter `{name}`");
        return Err(Failure::new(StatusCode::BAD_REQUEST, error, "?format=json or csv; the SQL is the body"));
    }
    let sql = read(&head.headers, body).await?;
    tracing::info!(who, bytes = sql.len(), "SQL");
    let answer = office.engine.sql(&sql).await.map_err(|error| Failure::staff(&error))?;
    reply::answer(answer, format).await
}

fn admit<'a>(tokens: &'a Tokens, headers: &HeaderMap) -> Result<&'a str, Failure> {
    let refused = |error, hint| Failure::new(StatusCode::UNAUTHORIZED, error, hint);
    if tokens.is_empty() {
        let hint = "the operator names a file of tokens: `[serve] tokens` in tjern.toml";
        return Err(refused("nobody may ask: no token is configured", hint));
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let Some((_, token)) = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Err(refused("a token is needed", "send the header `Authorization: Bearer <token>`"));
    };
    tokens.owner(token.trim()).ok_or_else(|| refused("the token is not known", "ask the operator for one"))
}

async fn read(headers: &HeaderMap, body: Body) -> Result<String, Failure> {
    let too_large = || {
        let error = format!("the body has more than {} bytes", limits::REQUEST_BYTES_MAX);
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, error, "send a shorter query")
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limits::REQUEST_BYTES_MAX) {
        return Err(too_large());
    }
    let wrong = |error: &str| Failure::new(StatusCode::BAD_REQUEST, error, "send the SQL as text, or {\"sql\": \"…\"}");
    let bytes = to_bytes(body, limits::REQUEST_BYTES_MAX).await.map_err(|error| {
        if error.to_string().contains("length limit") { too_large() } else { wrong("the body broke off") }
    })?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/json") {
        let asked: Asked =
            serde_json::from_slice(&bytes).map_err(|error| wrong(&format!("the JSON is wrong: {error}")))?;
        return Ok(asked.sql);
    }
    String::from_utf8(bytes.into()).map_err(|_| wrong("the body is no UTF-8"))
}
