//! The doors: what each listener answers, and in which form it says no.

pub(crate) mod metrics;
pub(crate) mod public;
pub(crate) mod reply;
pub(crate) mod staff;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::engine::{Engine, EngineError};
use crate::latest::{SensorNow, age_s};
use crate::pages::front::View;
use crate::pages::texts::NB;
use crate::settings::StatusHook;
use crate::told::Told;

/// The software's version, as `/health` says it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The newest moment that anything is known of.
pub(crate) fn newest_us(sensors: &[SensorNow]) -> Option<i64> {
    sensors.iter().filter_map(SensorNow::newest_us).max()
}

/// How this server knows of commits.
#[derive(Debug, Clone)]
pub(crate) struct Commits {
    /// By what the pipeline of another process tells.
    pub(crate) told: Option<Told>,
    /// By sharing the lake with the pipeline.
    pub(crate) are_shared: bool,
}

impl Commits {
    /// Whether the pipeline's commits are known without asking the store.
    pub(crate) fn are_told(&self) -> bool {
        self.are_shared || self.told.as_ref().is_some_and(Told::is_told)
    }

    /// In a word, and what the pipeline says.
    fn report(&self) -> Value {
        let how = match (self.are_shared, self.are_told()) {
            (true, _) => "shared",
            (false, true) => "told",
            (false, false) => "asked",
        };
        let mut report = self.told.as_ref().map_or_else(|| json!({}), Told::report);
        report["how"] = Value::from(how);
        report
    }
}

/// What only the staff hears.
pub(crate) struct Inside<'a> {
    pub(crate) parts: Option<&'a StatusHook>,
    pub(crate) commits: &'a Commits,
}

/// `/health`: whether the lake can be read, and how old the newest reading is that this listener sees.
pub(crate) async fn health(engine: &Engine, inside: Option<Inside<'_>>) -> Response {
    let read = engine.latest().await;
    let failure = engine.failure().await;
    let (code, word) = match (&read, &failure) {
        (Ok(_), None) => (StatusCode::OK, "ok"),
        (Ok(_), Some(_)) => (StatusCode::SERVICE_UNAVAILABLE, "stale"),
        (Err(_), _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let newest_us = read.as_ref().ok().and_then(|sensors| newest_us(sensors));
    let mut body = json!({
        "status": word,
        "version": VERSION,
        "newest_reading_time": newest_us.map(reply::time),
        "newest_reading_age_s": newest_us.map(|time_us| age_s(engine.now_us(), time_us)),
    });
    if code != StatusCode::OK {
        body["error"] = Value::from("the lake cannot be read");
        body["hint"] = Value::from("see the server's log");
    }
    if let (Some(inside), Some(body)) = (inside, body.as_object_mut()) {
        // Where the lake is and what it says is for the staff.
        let reason = failure.or_else(|| read.err().map(|error: EngineError| error.to_string()));
        if let Some(reason) = reason {
            body.insert("reason".to_owned(), Value::from(reason));
        }
        body.insert("commits".to_owned(), inside.commits.report());
        body.insert("parts".to_owned(), inside.parts.map_or(Value::Null, |parts| parts()));
    }
    reply::json(code, &body)
}

/// What pages know of a server.
#[derive(Debug, Clone)]
pub(crate) struct Face {
    pub(crate) engine: Arc<Engine>,
    pub(crate) timezone: TimeZone,
    pub(crate) simulated: bool,
}

impl Face {
    pub(crate) fn view(&self) -> View<'_> {
        View { texts: &NB, timezone: &self.timezone, now_us: self.engine.now_us(), simulated: self.simulated }
    }
}
