//! What everybody may ask: residents' pages, the newest values, named queries.
//!
//! The session behind it knows public sensors only. A place without one and a place that does not
//! exist get the same answer.

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tjern_readings::sensor::is_part;

use super::reply::{self, Failure};
use super::{Face, health};
use crate::engine::EngineError;
use crate::latest::{SensorNow, age_s};
use crate::named;
use crate::pages::front::{Place, front};
use crate::pages::site::{Days, site};
use crate::pages::{self, assets::Asset};

/// Pages and numbers are asked for anew each time; they are made at most once a second.
const FRESH: HeaderValue = HeaderValue::from_static("no-cache");
/// An asset's name changes when its bytes do.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;
type Name = Result<Path<String>, PathRejection>;

/// The routes of the public listener.
pub(crate) fn router(face: Face) -> Router {
    Router::new()
        .route("/", get(front_page))
        .route("/sted/{site}", get(site_page))
        .route("/static/{file}", get(asset))
        .route("/api/latest", get(latest))
        .route("/api/query", get(list))
        .route("/api/query/{name}", get(query))
        .route("/health", get(|State(face): State<Face>| async move { health(&face.engine, None).await }))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(face)
}

/// Adds what every public answer of data or pages says.
fn fresh(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, FRESH);
    response
}

fn open(response: Response) -> Response {
    let mut response = fresh(response);
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

async fn front_page(State(face): State<Face>) -> Response {
    let drawn = async {
        let (latest, curves) = (face.engine.latest().await?, face.engine.curves().await?);
        let view = face.view();
        Ok(pages::page(view, view.texts.title, true, &front(view, &latest, &curves)))
    };
    drawn.await.map_or_else(|error| unavailable(&face, &error), |html| fresh(reply::page(StatusCode::OK, html)))
}

async fn site_page(State(face): State<Face>, name: Name, parameters: Parameters) -> Response {
    let Some(name) = name.ok().map(|Path(name)| name).filter(|name| is_part(name)) else { return missing(&face) };
    let parameters = parameters.map_or_else(|_| Vec::new(), |Query(parameters)| parameters);
    let asked = parameters.iter().find(|(name, _)| name == "dager").map(|(_, days)| days.as_str());
    let Some(days) = Days::parse(asked) else { return missing(&face) };
    match draw_site(&face, &name, days).await {
        Ok(Some(html)) => fresh(reply::page(StatusCode::OK, html)),
        Ok(None) => missing(&face),
        Err(error) => unavailable(&face, &error),
    }
}

async fn draw_site(face: &Face, name: &str, days: Days) -> Result<Option<String>, EngineError> {
    let latest = face.engine.latest().await?;
    let places = Place::all(&latest);
    let Some(place) = places.iter().find(|place| place.site == name) else { return Ok(None) };
    let curves = face.engine.place(name, days.every().0, days.count()).await?;
    let view = face.view();
    let title = format!("{} – {}", place.name(), view.texts.title);
    Ok(Some(pages::page(view, &title, false, &site(view, place, days, &curves))))
}

fn unavailable(face: &Face, error: &EngineError) -> Response {
    let failure = Failure::public(error);
    tracing::warn!(%error, "a page could not be made");
    let texts = face.view().texts;
    reply::page(failure.status, pages::message(face.view(), texts.unavailable, texts.unavailable_lead))
}

fn missing(face: &Face) -> Response {
    let texts = face.view().texts;
    reply::page(StatusCode::NOT_FOUND, pages::message(face.view(), texts.not_found, texts.not_found_lead))
}

async fn not_found(State(face): State<Face>, uri: Uri) -> Response {
    if uri.path().starts_with("/api") {
        let hint = "/api/latest, /api/query, /api/query/<name>";
        return open(Failure::new(StatusCode::NOT_FOUND, "there is nothing here", hint).into_response());
    }
    missing(&face)
}

async fn not_allowed() -> Response {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this can only be read", "ask with GET").into_response()
}

async fn asset(State(face): State<Face>, file: Name) -> Response {
    match file.ok().and_then(|Path(file)| Asset::find(&file)) {
        Some(asset) => {
            let headers =
                [(header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type)), (header::CACHE_CONTROL, FOR_EVER)];
            (headers, asset.text).into_response()
        }
        None => missing(&face),
    }
}

async fn latest(State(face): State<Face>) -> Response {
    let rows = face.engine.latest().await.map(|sensors| {
        let now_us = face.engine.now_us();
        Value::from_iter(sensors.iter().filter_map(|sensor| latest_row(sensor, now_us)))
    });
    open(match rows {
        Ok(rows) => reply::json(StatusCode::OK, &rows),
        Err(error) => Failure::public(&error).into_response(),
    })
}

/// A sensor's newest observation; one that never had any is a missing value with the time of the
/// newest attempt, and one that was never heard of is left out.
fn latest_row(sensor: &SensorNow, now_us: i64) -> Option<Value> {
    let (time_us, value, quality) = match (sensor.observation, &sensor.heard) {
        (Some(seen), _) => (seen.time_us, Some(seen.value), seen.quality),
        (None, Some(heard)) => (heard.time_us, None, heard.quality),
        (None, None) => return None,
    };
    Some(json!({
        "sensor": sensor.sensor,
        "time": reply::time(time_us),
        "value": value,
        "quality": quality,
        "age_s": age_s(now_us, time_us),
        "site": sensor.site,
        "name": sensor.site_name.as_deref().unwrap_or(&sensor.site),
        "quantity": sensor.quantity,
        "unit": sensor.unit,
        "condition": sensor.condition(now_us),
        "heard_time": sensor.heard.as_ref().map(|heard| reply::time(heard.time_us)),
        "heard_cause": sensor.heard.as_ref().and_then(|heard| heard.cause.as_deref()),
    }))
}

async fn list() -> Response {
    let row = |query: &named::NamedQuery| json!({ "name": query.name, "description": query.description, "parameters": query.parameters });
    open(reply::json(StatusCode::OK, &Value::from_iter(named::all().iter().map(row))))
}

async fn query(State(face): State<Face>, name: Name, headers: HeaderMap, parameters: Parameters) -> Response {
    open(match run(&face, name, &headers, parameters).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    })
}

async fn run(face: &Face, name: Name, headers: &HeaderMap, parameters: Parameters) -> Result<Response, Failure> {
    let Some(query) = name.ok().and_then(|Path(name)| named::find(&name)) else {
        let hint = "/api/query lists the queries";
        return Err(Failure::new(StatusCode::NOT_FOUND, "there is no query of this name", hint));
    };
    let Ok(Query(mut parameters)) = parameters else {
        let hint = "write ?name=value&name=value, percent-encoded";
        return Err(Failure::new(StatusCode::BAD_REQUEST, "the parameters cannot be read", hint));
    };
    let format = reply::format(&mut parameters, headers)?;
    let answer = face.engine.named(query, &parameters).await.map_err(|error| Failure::public(&error))?;
    reply::answer(answer, format).await
}
