//! What goes wrong between a server and its client.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use futures::{StreamExt, stream};

use super::answer::{Reply, refused};

/// How long the first half of an answer gets to leave before the line breaks.
const HALF: Duration = Duration::from_millis(50);

/// A way in which one request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpFault {
    /// Refused with this status; nothing was done.
    Refused(u16),
    /// It was done, and the answer has this status all the same.
    RefusedAfter(u16),
    /// 429 with `Retry-After`, in seconds.
    TooMany {
        /// When to come again.
        retry_after_s: u64,
    },
    /// The connection ends before anything was done.
    ResetBefore,
    /// It was done, and the connection ends without an answer.
    ResetAfter,
    /// The connection ends in the middle of the answer's body.
    ResetMidway,
    /// The answer is half of what it should be, and says that this is all.
    Halved,
    /// The answer takes so long.
    Stall(Duration),
}

/// Faults by chance, from a seed.
#[derive(Debug)]
pub(super) struct Storm {
    random: fastrand::Rng,
    per_mille: u64,
}

impl Storm {
    pub(super) fn new(seed: u64, per_mille: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), per_mille }
    }

    /// What befalls a request.
    pub(super) fn next(&mut self, is_read: bool) -> Option<HttpFault> {
        if self.random.u64(..1_000) >= self.per_mille {
            return None;
        }
        let stall = HttpFault::Stall(Duration::from_millis(1_500));
        let of_reads = [
            HttpFault::Refused(500),
            HttpFault::Refused(503),
            HttpFault::TooMany { retry_after_s: 1 },
            HttpFault::ResetBefore,
            HttpFault::ResetMidway,
            stall,
        ];
        let of_writes = [
            HttpFault::Refused(500),
            HttpFault::RefusedAfter(503),
            HttpFault::Refused(409),
            HttpFault::TooMany { retry_after_s: 1 },
            HttpFault::ResetBefore,
            HttpFault::ResetAfter,
            stall,
        ];
        let faults: &[HttpFault] = if is_read { &of_reads } else { &of_writes };
        Some(faults[self.random.usize(..faults.len())])
    }
}

/// A server that soon sends back what it is sent.
#[derive(Debug)]
pub(super) struct Echo {
    /// How many requests it is well for.
    pub(super) requests: u64,
    pub(super) status: u16,
}

impl Echo {
    /// The status for a request, where its turn has come.
    pub(super) fn next(&mut self) -> Option<u16> {
        let is_well = self.requests > 0;
        self.requests = self.requests.saturating_sub(1);
        (!is_well).then_some(self.status)
    }
}

/// All that a request brought besides its body.
pub(super) fn echo(status: u16, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    let headers =
        headers.iter().map(|(name, value)| format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
    let text = format!("{method} {uri} HTTP/1.1\r\n{}", headers.collect::<String>());
    Reply { body: text.into(), ..Reply::empty(status) }.into_response()
}

/// Does the work, or does not, and answers as the fault wants it.
pub(super) async fn answer(fault: Option<HttpFault>, perform: impl FnOnce() -> Reply) -> Response {
    match fault {
        None => perform().into_response(),
        Some(HttpFault::Refused(status)) => said(status),
        Some(HttpFault::RefusedAfter(status)) => {
            perform();
            said(status)
        }
        Some(HttpFault::TooMany { retry_after_s }) => {
            let slower = refused(429, "SlowDown", "please reduce your request rate");
            slower.with("retry-after", retry_after_s.to_string()).into_response()
        }
        Some(HttpFault::ResetBefore) => broken(Reply::empty(200), Bytes::new()),
        Some(HttpFault::ResetAfter) => {
            perform();
            broken(Reply::empty(200), Bytes::new())
        }
        Some(HttpFault::ResetMidway) => {
            let reply = perform();
            let half = reply.body.slice(..reply.body.len() / 2);
            broken(reply, half)
        }
        Some(HttpFault::Halved) => {
            let mut reply = perform();
            reply.body = reply.body.slice(..reply.body.len() / 2);
            reply.headers.retain(|(name, _)| *name != "content-range");
            reply.into_response()
        }
        Some(HttpFault::Stall(duration)) => {
            let reply = perform();
            tokio::time::sleep(duration).await;
            reply.into_response()
        }
    }
}

fn said(status: u16) -> Response {
    let code = match status {
        409 => "ConditionalRequestConflict",
        503 => "SlowDown",
        _ => "InternalError",
    };
    refused(status, code, "this request is to fail").into_response()
}

/// The connection ends after these bytes; without any not even the head leaves.
fn broken(reply: Reply, begun: Bytes) -> Response {
    let announced = reply.body.len().max(1).to_string();
    let breaks = || Err(io::Error::from(io::ErrorKind::ConnectionReset));
    let body = if begun.is_empty() {
        stream::iter([breaks()]).boxed()
    } else {
        let later = async move {
            tokio::time::sleep(HALF).await;
            breaks()
        };
        stream::iter([Ok(begun)]).chain(stream::once(later)).boxed()
    };
    reply.with("content-length", announced).with_body(Body::from_stream(body))
}
