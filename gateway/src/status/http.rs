//! The smallest HTTP that tells how a gateway is: `/status`, `/metrics`, `/health`; GET and HEAD.
//!
//! A page is made once a second at most (`pages`). One request a connection, which has [`REQUEST_PATIENCE`]; at most [`CONNECTIONS_MAX`] at once, and heads of
//! at most [`HEAD_MAX`] bytes: whoever is slow or loud costs the gateway no more than that. There is no
//! authentication, so it belongs on the machine's own address or a socket of its own.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::StatusSource;
use super::pages::{Made, PLAIN, Page, Pages};
use crate::config::StatusListen;

/// Connections that are answered at a time; others wait.
pub const CONNECTIONS_MAX: usize = 16;

/// The most bytes of a request's head.
pub const HEAD_MAX: usize = 8 * 1_024;

/// A request and its answer have so long.
pub const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// A place that cannot be had is tried again after this.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// After an error of accepting, which may last: too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may connect to a socket in the file system: its owner and its group.
const SOCKET_MODE: u32 = 0o660;

/// Listens and answers for ever. A place that cannot be had keeps nothing else from running.
pub async fn serve(place: StatusListen, source: StatusSource) {
    let mut told = false;
    loop {
        let failure = match listen(&place).await {
            Ok(listener) => {
                info!(address = %listener.place(&place), "telling how it is");
                answer_all(listener, Pages::new(move || source.status())).await;
                return;
            }
            Err(failure) => failure,
        };
        if !told {
            warn!(address = %place, "cannot listen, trying again: {failure}; hint: is another gateway listening there?");
        }
        told = true;
        sleep(RETRY_PAUSE).await;
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "the file goes with the listener")] SocketFile),
}

/// A socket's file, which goes with it.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone, with its folder.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Where it listens: the port may have been chosen by the system.
    fn place(&self, place: &StatusListen) -> String {
        let bound = match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(StatusListen::Tcp),
            Self::Unix(..) => None,
        };
        bound.as_ref().unwrap_or(place).to_string()
    }
}

async fn listen(place: &StatusListen) -> io::Result<Listener> {
    match place {
        StatusListen::Tcp(address) => {
            warn_of_others(*address);
            Ok(Listener::Tcp(TcpListener::bind(address).await?))
        }
        StatusListen::Unix(path) => {
            forget_dead_socket(path).await;
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
            Ok(Listener::Unix(listener, SocketFile(path.clone())))
        }
    }
}

fn warn_of_others(address: SocketAddr) {
    if !address.ip().is_loopback() {
        warn!(%address, "other machines may read how this gateway is: there is no password");
    }
}

/// A socket that a process left behind when it was killed. One that somebody listens at stays.
async fn forget_dead_socket(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refuses = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).await.err().is_some_and(refuses) {
        // Where that fails, binding does, and says why.
        let _ = std::fs::remove_file(path);
    }
}

async fn answer_all(listener: Listener, pages: Pages) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Those under way end with the listener.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let pages = pages.clone();
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    answer(stream, &pages).await;
                    drop(permit);
                });
            }),
            Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                connections.spawn(async move {
                    answer(stream, &pages).await;
                    drop(permit);
                });
            }),
        };
        if let Err(error) = accepted {
            debug!("cannot accept: {error}");
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, pages: &Pages) {
    let exchange = async {
        let Some(head) = read_head(&mut stream).await? else { return Ok(()) };
        let Response { head, body } = reply(&head, pages).await;
        stream.write_all_buf(&mut Buf::chain(head.as_bytes(), body)).await?;
        stream.shutdown().await
    };
    match timeout(REQUEST_PATIENCE, exchange).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a request for the status broke off: {error}"),
        Err(_) => debug!("a request for the status took too long"),
    }
}

/// A request's head, or as much of it as is too much. `None` where the other end went.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(1_024);
    let mut part = [0; 1_024];
    while !is_complete(&head) && head.len() <= HEAD_MAX {
        match stream.read(&mut part).await? {
            0 => return Ok(None),
            length => head.extend_from_slice(&part[..length]),
        }
    }
    Ok(Some(head))
}

fn is_complete(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

/// What a head is answered with, all of it.
async fn reply(head: &[u8], pages: &Pages) -> Response {
    if !is_complete(head) {
        return refusal("431 Request Header Fields Too Large", PLAIN, "the request is too long\n");
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words: Vec<&str> = str::from_utf8(line).map(|line| line.split_ascii_whitespace().collect()).unwrap_or_default();
    let [method, target, version] = words[..] else {
        return refusal("400 Bad Request", PLAIN, "this is no request\n");
    };
    if !version.starts_with("HTTP/1.") {
        return refusal("505 HTTP Version Not Supported", PLAIN, "write HTTP/1.1\n");
    }
    let is_head = method == "HEAD";
    if method != "GET" && !is_head {
        return refusal("405 Method Not Allowed", "text/plain\r\nAllow: GET, HEAD", "GET and HEAD only\n");
    }
    let path = target.split('?').next().unwrap_or_default();
    match page(path, pages).await {
        Ok(Made { status, kind, body }) => response(status, kind, body, is_head),
        Err((status, text)) => response(status, PLAIN, Bytes::from_static(text.as_bytes()), is_head),
    }
}

type Refused = (&'static str, &'static str);

async fn page(path: &str, pages: &Pages) -> Result<Made, Refused> {
    let page = match path {
        "/" => {
            let body = Bytes::from_static(b"Tjern gateway: /status /metrics /health\n");
            return Ok(Made { status: "200 OK", kind: PLAIN, body });
        }
        "/status" => Page::Status,
        "/metrics" => Page::Metrics,
        "/health" => Page::Health,
        _ => return Err(("404 Not Found", "there are /status, /metrics and /health\n")),
    };
    pages.get(page).await.ok_or(("500 Internal Server Error", "this cannot be shown\n"))
}

/// An answer's head, and its body, which many may share.
struct Response {
    head: String,
    body: Bytes,
}

fn refusal(status: &str, kind: &str, text: &'static str) -> Response {
    response(status, kind, Bytes::from_static(text.as_bytes()), false)
}

fn response(status: &str, kind: &str, body: Bytes, is_head: bool) -> Response {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    Response { head, body: if is_head { Bytes::new() } else { body } }
}
