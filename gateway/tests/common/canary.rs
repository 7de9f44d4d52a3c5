//! Credentials that are canaries, the servers that give them away, and a gateway that is listened to.

#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test binary uses its own share")]

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);

/// `canary` as it can stand in a text, in small letters: as it is, in hexadecimal, and as bytes are shown.
const SHAPES: [&str; 3] = ["canary", "63616e617279", "99, 97, 110, 97, 114, 121"];

/// What Base64 makes of `canary`, by what stands before it.
const IN_BASE64: [&str; 3] = ["Y2FuYXJ5", "NhbmFye", "jYW5hcn"];

/// What a text gives away, if anything.
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
    /// Is not there.
    Missing,
}

/// A server, and what it was told.
#[derive(Debug, Clone)]
pub struct Started {
    pub port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts it.
    pub async fn start(self) -> Started {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let started = Started { port, heard: Arc::default() };
        if !matches!(self, Self::Missing) {
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
        }
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
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The words by which whoever asked was to be let in, as the server has them.
    pub fn credentials(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = heard.iter().flat_map(|request| request.lines());
        let headers = lines.filter(|line| line.to_ascii_lowercase().starts_with("authorization:"));
        headers.filter_map(|header| header.split_whitespace().last()).map(str::to_owned).collect()
    }
}

/// A gateway's configuration, without a bus.
pub fn config(root: &Path, lake: &str, more: &str) -> String {
    let root = root.display();
    format!(
        "version = 1\ngateway = \"site-01\"\nlake = \"{lake}\"\n[spool]\ndir = \"{root}/spool\"\n[upload]\nevery = \"1s\"\n{more}"
    )
}

/// The real program at the most talkative, with these variables.
pub fn program(words: &[&str], config: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tjern-gateway"));
    command.args(words).arg("--config").arg(config).env("RUST_LOG", "trace").env("NO_COLOR", "1").kill_on_drop(true);
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// All that a command says that ends by itself.
pub async fn ended(words: &[&str], config: &Path, variables: &[(&str, &str)]) -> String {
    let output = timeout(PATIENCE, program(words, config, variables).output()).await;
    let Output { stdout, stderr, .. } = output.expect("it ends in time").expect("it starts");
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
}

/// A gateway that is listened to.
pub struct Talking {
    child: Child,
    log: BufReader<ChildStderr>,
    said: String,
}

impl Talking {
    pub fn start(config: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = program(&["run"], config, variables).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, log, said: String::new() }
    }

    /// Listens until a line has this in it, and gives that line.
    pub async fn until(&mut self, words: &str) -> String {
        let said = &mut self.said;
        let reading = async {
            let mut line = Vec::new();
            while self.log.read_until(b'\n', &mut line).await.expect("readable") > 0 {
                let text = String::from_utf8_lossy(&line).into_owned();
                said.push_str(&text);
                if text.contains(words) {
                    return Some(text);
                }
                line.clear();
            }
            None
        };
        match timeout(PATIENCE, reading).await.ok().flatten() {
            Some(line) => line,
            None => panic!("it did not say {words:?}:\n{said}"),
        }
    }

    /// Ends it, and gives all that it said.
    pub async fn end(mut self) -> String {
        // It may have ended by itself.
        let _ = self.child.kill().await;
        let mut rest = Vec::new();
        self.log.read_to_end(&mut rest).await.expect("readable");
        self.child.stdout.take().expect("piped").read_to_end(&mut rest).await.expect("readable");
        self.said + &String::from_utf8_lossy(&rest)
    }
}

/// Runs the gateway with these variables until it says this, or ends; gives all that it said.
pub async fn said(config: &Path, variables: &[(&str, &str)], until: &str) -> String {
    let mut gateway = Talking::start(config, variables);
    gateway.until(until).await;
    gateway.end().await
}
