//! Answers and refusals as HTTP: JSON errors with a hint, formats, and the headers of every answer.

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use datafusion::common::DataFusionError;
use serde_json::{Value, json};

use crate::engine::EngineError;
use crate::limits;
use crate::output::{self, Bounded, Format};
use crate::sql::{Answer, SqlError};

/// What a browser may do with an answer: nothing but show it with our own style and icon.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; \
                                       form-action 'none'; frame-ancestors 'none'";

/// A refusal.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) error: String,
    pub(crate) hint: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: hint.into() }
    }

    /// Errors of this crate end with `; hint: …`, which has a place of its own here.
    fn said(status: StatusCode, error: &dyn std::error::Error) -> Self {
        let text = error.to_string();
        match text.split_once("; hint: ") {
            Some((error, hint)) => Self::new(status, error, hint),
            None => Self::new(status, text, "see the documentation of the queries"),
        }
    }

    /// For the staff: what happened, in full.
    pub(crate) fn staff(error: &EngineError) -> Self {
        let failure = Self::said(status(error), error);
        match error {
            EngineError::Lake(_) => Self { hint: "see the server's log and /health".to_owned(), ..failure },
            EngineError::Sql(SqlError::Plan(_) | SqlError::Syntax(_)) => {
                Self { hint: "SHOW TABLES and DESCRIBE <table> say what there is".to_owned(), ..failure }
            }
            EngineError::Sql(SqlError::Run(error)) if is_exhausted(error) => {
                Self { hint: "ask for less at once".to_owned(), ..failure }
            }
            EngineError::Sql(SqlError::Run(_)) => {
                let hint = "look at the values and types in the query; DESCRIBE <table> says those of its columns";
                Self { hint: hint.to_owned(), ..failure }
            }
            _ => failure,
        }
    }

    /// For everybody: what they can do about it. The rest is for the log.
    pub(crate) fn public(error: &EngineError) -> Self {
        match error {
            EngineError::Parameter(_)
            | EngineError::Busy
            | EngineError::NoSql
            | EngineError::Sql(SqlError::Rows { .. } | SqlError::Bytes { .. } | SqlError::Time { .. }) => {
                Self::said(status(error), error)
            }
            EngineError::Lake(_) => {
                let hint = "try again in a moment";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the measurements cannot be read right now", hint)
            }
            EngineError::Sql(_) | EngineError::Column(_) => {
                tracing::error!(%error, "a query of our own failed");
                let hint = "try again in a moment; the operator finds the reason in the log";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the query failed", hint)
            }
        }
    }
}

fn status(error: &EngineError) -> StatusCode {
    match error {
        EngineError::Lake(_) | EngineError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        EngineError::NoSql => StatusCode::NOT_FOUND,
        EngineError::Column(_) => StatusCode::INTERNAL_SERVER_ERROR,
        EngineError::Parameter(_) => StatusCode::BAD_REQUEST,
        EngineError::Sql(error) => match error {
            SqlError::NotAQuery { .. } | SqlError::Writes(_) => StatusCode::FORBIDDEN,
            SqlError::Rows { .. } | SqlError::Bytes { .. } | SqlError::Text { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            SqlError::Time { .. } => StatusCode::GATEWAY_TIMEOUT,
            SqlError::Run(error) if is_exhausted(error) => StatusCode::SERVICE_UNAVAILABLE,
            SqlError::Syntax(_)
            | SqlError::Tokens { .. }
            | SqlError::Joints { .. }
            | SqlError::Parts { .. }
            | SqlError::Count { .. }
            | SqlError::Plan(_)
            | SqlError::Run(_) => StatusCode::BAD_REQUEST,
        },
    }
}

fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &json!({ "error": self.error, "hint": self.hint }));
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, format!("{body}\n")).into_response()
}

/// A page.
pub(crate) fn page(status: StatusCode, html: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

/// A moment as RFC 3339, UTC.
pub(crate) fn time(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us).unwrap_or_default().to_string()
}

/// Takes `format` out of a request's parameters; without it the `Accept` header decides, then JSON.
pub(crate) fn format(parameters: &mut Vec<(String, String)>, headers: &HeaderMap) -> Result<Format, Failure> {
    let asked: Vec<String> =
        parameters.extract_if(.., |(name, _)| name == "format").map(|(_, format)| format).collect();
    match asked.as_slice() {
        [] => {
            let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
            Ok(if accepts.contains("text/csv") { Format::Csv } else { Format::Json })
        }
        [word] if word == "json" => Ok(Format::Json),
        [word] if word == "csv" => Ok(Format::Csv),
        _ => Err(Failure::new(StatusCode::BAD_REQUEST, "there is no such format", "format=json or format=csv, once")),
    }
}

/// An answer of the engine as bytes, never cut.
pub(crate) async fn answer(answer: Answer, format: Format) -> Result<Response, Failure> {
    let write = move || output::write(format, &answer.schema, &answer.batches, Bounded::new(limits::ANSWER_BYTES_MAX));
    // Tens of megabytes of text take a while: other requests shall not wait for them.
    let written = tokio::task::spawn_blocking(write).await;
    let kind = match format {
        Format::Csv => "text/csv; charset=utf-8; header=present",
        _ => "application/json",
    };
    match written {
        Ok(Ok(bytes)) => Ok(([(header::CONTENT_TYPE, kind)], Body::from(bytes.into_bytes())).into_response()),
        Ok(Err(error)) => {
            let hint = "select fewer columns or rows, or another format";
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string(), hint))
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written");
            Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written", "see the log"))
        }
    }
}

/// The headers of every answer of both listeners.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let open = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    set(header::X_FRAME_OPTIONS, "DENY");
    if open {
        set(header::VARY, "Accept");
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who had written `time > 'nonsense'` was told to ask for less at once.
    #[test]
    fn only_who_asked_for_too_much_is_told_to_ask_for_less() {
        let hint = |error| Failure::staff(&EngineError::Sql(SqlError::Run(error))).hint;
        let wrong = DataFusionError::Execution("`nonsense` is no time".to_owned());
        assert!(hint(wrong).starts_with("look at the values and types"));
        assert_eq!(hint(DataFusionError::ResourcesExhausted("memory".to_owned())), "ask for less at once");
    }
}
