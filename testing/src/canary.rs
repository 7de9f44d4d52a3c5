//! Credentials that are canaries, and the servers that give them away: they send back all that they were sent, talk nonsense,
//! or vanish. A canary has `canary` in it, and [`leak`] finds it in each form in which a program could tell it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::ports::SilentPort;

/// `canary` as it can stand in a text, in small letters: as it is, in hexadecimal, and as bytes are shown.
const SHAPES: [&str; 3] = ["canary", "63616e617279", "99, 97, 110, 97, 114, 121"];

/// What Base64 makes of `canary`, by what stands before it.
const IN_BASE64: [&str; 3] = ["Y2FuYXJ5", "NhbmFye", "jYW5hcn"];

/// What a text gives away, if anything.
#[must_use]
pub fn leak(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    if let Some(place) = SHAPES.iter().find_map(|shape| lower.find(shape)) {
        return Some(around(&lower, place));
    }
    IN_BASE64.iter().find_map(|shape| text.find(shape)).map(|place| around(text, place))
}

fn around(text: &str, place: usize) -> String {
    let start = text.floor_char_boundary(place.saturating_sub(200));
    let end = text.ceil_char_boundary((place + 100).min(text.len()));
    text[start..end].to_owned()
}

/// What a server does with a request.
#[derive(Debug, Clone, Copy)]
pub enum Server {
    /// Answers with this status, and with all that it was sent as the body.
    Echoes(u16),
    /// Answers that all is well, with this body.
    Says(&'static str),
    /// Answers what is no HTTP.
    Babbles,
    /// Closes at once.
    HangsUp,
    /// Is not there, and nobody else is.
    Missing,
}

/// A server, and what it was told.
#[derive(Debug, Clone)]
pub struct Started {
    /// Where it listens.
    pub port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    /// Held for the server that is not there.
    _silent: Option<Arc<SilentPort>>,
}

impl Server {
    /// Starts it. It ends with the runtime.
    ///
    /// # Panics
    /// Where no port can be had.
    pub async fn start(self) -> Started {
        if matches!(self, Self::Missing) {
            let silent = SilentPort::take();
            return Started { port: silent.port(), heard: Arc::default(), _silent: Some(Arc::new(silent)) };
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let started = Started { port, heard: Arc::default(), _silent: None };
        let heard = Arc::clone(&started.heard);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 64 << 10];
                let length = stream.read(&mut request).await.unwrap_or(0);
                let sent = String::from_utf8_lossy(&request[..length]).into_owned();
                if let Some(answer) = self.answer(&sent) {
                    // Whoever asked may have gone.
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
            }
        });
        started
    }

    fn answer(self, sent: &str) -> Option<String> {
        let of = |status, body: &str| {
            format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        };
        match self {
            Self::Echoes(status) => Some(of(status, sent)),
            Self::Says(body) => Some(of(200, body)),
            Self::Babbles => Some(format!("{sent}\r\n\r\n")),
            Self::HangsUp | Self::Missing => None,
        }
    }
}

impl Started {
    /// Its address, as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The words by which whoever asked was to be let in, as the server has them.
    #[must_use]
    pub fn credentials(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = heard.iter().flat_map(|request| request.lines());
        let headers = lines.filter(|line| line.to_ascii_lowercase().starts_with("authorization:"));
        headers.filter_map(|header| header.split_whitespace().last()).map(str::to_owned).collect()
    }
}
